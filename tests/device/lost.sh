#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/device/lost.sh - a device as a machine that is slow, runs out of memory, faults or is lost in mid-run.
#
# faulty_layer.c goes between the loader and the driver, as in faulty.sh, and plays the driver of such a device. Kernels
# are those for GPUs, with a queue of transfers beside that of kernels; all that is computed is launched, as there, for
# launches are what is counted.
. "$(dirname "$0")/../cli/cli_checks.sh"

build=${BUILD:-${geartrain%/*}} layer=${BUILD:-${geartrain%/*}}/tests/device/libfaulty_layer.so
[ -e "$layer" ] || { echo "there is no $layer; skipped"; exit 77; }
GEARTRAIN_STYLE=gpu GEARTRAIN_TRANSFER_QUEUE=on GEARTRAIN_GEMM=tiled
export GEARTRAIN_STYLE GEARTRAIN_TRANSFER_QUEUE GEARTRAIN_GEMM

# layered COMMAND...: with $fault, at the $at-th launch
layered()
{
    GT_FAULT=$fault GT_FAULT_AT=$at OPENCL_LAYERS=$layer timeout 240 "$@"
}
train()         # RUN OPTIONS...
{
    run=$1
    shift
    layered "$geartrain" train --model gpt2-tiny --data "$text" --tokenizer char --seq 32 --batch 8 --micro-batch 2 \
        --steps 6 --save-every 2 --eval-every 0 --out "$run" "$@" > stdout 2> stderr < /dev/null
}
losses() { sed -n 's/.*"step": \([0-9]*\),.*"loss": \([^,]*\),.*/\1 \2/p' "$1/metrics.jsonl" | sort -n; }
same() { losses "$1" > a && losses "$2" > b && [ "$(wc -l < a)" -eq 6 ] && cmp -s a b; }

fault=loops at=1
layered "$geartrain" doctor > stdout 2> stderr
if ! grep -q '^BAD' stdout; then
    echo "this OpenCL loader knows no layers; skipped"
    echo "0 passed, 0 failed"
    exit 77
fi

# ---- slow transfers ------------------------------------------------------------------------------------
fault=slow
(layered "$build/tests/device/test_device" transfers_beside_launches_keep_the_order_of_one_queue) > stdout 2> stderr
check "transfers that come late keep the order of one queue" [ $? -eq 0 ]
fault=none
(GEARTRAIN_TRANSFER_QUEUE=off train plain)
check "a run without a queue of transfers" [ $? -eq 0 ]
for split in "--stages 2 --replicas 1" "--stages 1 --replicas 2" "--tensor 2"; do
    fault=none
    (GEARTRAIN_TRANSFER_QUEUE=off train "one$split" --devices cpu:0,cpu:0 $split)
    fault=slow
    train "late$split" --devices cpu:0,cpu:0 $split --plan "one$split/plan.json"
    check "transfers that come late change no loss of $split" same "one$split" "late$split"
done

# ---- a device that gives up -----------------------------------------------------------------------------
# The launch at which it does is in the middle of the run: behind a checkpoint.
fault=none
train whole
check "a run that nothing happens to" same plain whole
fault=lost at=1500
train lost
said "a device that is lost in mid-run" 3 \
    "cannot .* device 'cpu:0'.*: CL_DEVICE_NOT_AVAILABLE; the driver has given up the device 'cpu:0' .*nothing more runs there" $?
done=$(ls -d lost/checkpoints/step-* 2> /dev/null | wc -l)
check "its checkpoints are there" [ "$done" -ge 1 ]
check "and not all steps" [ "$(losses lost | wc -l)" -lt 6 ]
fault=none
train lost --resume
check "from them training goes on" [ $? -eq 0 ]
check "as if nothing had happened" same whole lost
fault=fault at=1500
train fault
said "a kernel that faults" 3 \
    "device 'cpu:0'.*: CL_[A-Z_]*; the driver has given up the device 'cpu:0' .a reset, a fault, or no memory: the kernel's log says which" $?
fault=memory
train memory
said "no memory for a launch" 1 \
    "cannot launch '[a-z0-9_]*' on device 'cpu:0': CL_MEM_OBJECT_ALLOCATION_FAILURE; its memory is used up .* of .* are in use here.*: try a smaller micro-batch" $?

# ---- one of several -------------------------------------------------------------------------------------
fault=lost at=1000 GT_FAULT_RANK=1
export GT_FAULT_RANK
GT_FAULT=$fault GT_FAULT_AT=$at OPENCL_LAYERS=$layer timeout 240 "$geartrain" launch --ranks 2 -- train --model gpt2-tiny \
    --data "$text" --tokenizer char --seq 32 --batch 8 --micro-batch 2 --steps 6 --eval-every 0 --out pair \
    > stdout 2> stderr < /dev/null
check "a job ends when one of its devices is lost" [ $? -eq 3 ]
check "and the others name that rank, and why" \
    grep -Eq "rank 1 .* ended the job: .*the driver has given up the device" stderr
GT_FAULT=$fault GT_FAULT_AT=$at OPENCL_LAYERS=$layer timeout 240 "$geartrain" launch --ranks 3 --elastic 1:3 \
    --replacements 0 -- train --model gpt2-tiny --data "$text" --tokenizer char --seq 32 --batch 6 --micro-batch 2 \
    --steps 60 --eval-every 0 --out elastic > stdout 2> stderr < /dev/null
check "an elastic job goes on without it" [ $? -eq 0 ]
check "and says that it does" grep -q 'going on with 2 of 3' stderr
check "to the last step" [ "$(losses elastic | tail -n 1 | cut -d ' ' -f 1)" = 60 ]
close_checks
