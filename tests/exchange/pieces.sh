#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/exchange/pieces.sh - what stages send each other, and gradients, in pieces that travel while the rest is read.
#
# tests/device/faulty_layer.c goes between the loader and the driver, as in tests/device/lost.sh, and makes of a CPU
# device one with memory of its own, on both ranks or on one. Runs in pieces and without have one plan.
. "$(dirname "$0")/../cli/cli_checks.sh"

build=${BUILD:-${geartrain%/*}} layer=${BUILD:-${geartrain%/*}}/tests/device/libfaulty_layer.so
[ -e "$layer" ] || { echo "there is no $layer; skipped"; exit 77; }
GEARTRAIN_TRANSFER_QUEUE=on GEARTRAIN_GEMM=tiled
export GEARTRAIN_TRANSFER_QUEUE GEARTRAIN_GEMM
piece=4KiB plan= rank= at=1 whole=whole

layered() { GT_FAULT=$fault GT_FAULT_RANK=$rank GT_FAULT_AT=$at OPENCL_LAYERS=$layer timeout 240 "$@"; }
wire() { layered env -u GT_FAULT_RANK "$build/tests/exchange/test_wire" "$@" > stdout 2>&1; }
train()         # RUN TRANSPORT: parcels of 32 KiB
{
    GEARTRAIN_TRANSFER_PIECE=$piece layered "$geartrain" train --model gpt2-tiny --data "$text" --tokenizer char \
        --seq 32 --batch 16 --micro-batch 4 --steps 3 --save-every 3 --eval-every 0 --devices cpu:0,cpu:0 --stages 2 \
        --replicas 1 --transport "$2" --out "$1" $plan > stdout 2> stderr < /dev/null
}
same()          # RUN: losses and weights are those of $whole
{
    for run in "$1" "$whole"; do
        sed -n 's/.*"step": \([0-9]*\),.*"loss": \([^,]*\),.*/\1 \2/p' "$run/metrics.jsonl" > "$run/losses"
    done
    [ "$(wc -l < "$1/losses")" -eq 3 ] && cmp -s "$1/losses" "$whole/losses" || return
    for file in "$whole"/checkpoints/step-000003/params-*; do
        cmp -s "$file" "$1/checkpoints/step-000003/${file##*/}" || return
    done
}

fault=loops
layered "$geartrain" doctor > stdout 2> stderr
if ! grep -q '^BAD' stdout; then
    echo "this OpenCL loader knows no layers; skipped"
    echo "0 passed, 0 failed"
    exit 77
fi

# ---- messages ------------------------------------------------------------------------------------------
fault=apart,turns
wire parts_travel_while_the_rest_is_read
check "a piece is sent before the next one can be read" [ $? -eq 0 ]
(GEARTRAIN_TRANSFER_QUEUE=off wire parts_travel_while_the_rest_is_read)
check "without a queue of transfers as well" [ $? -eq 0 ]
for fault in apart apart,slow; do
    (GEARTRAIN_TRANSFER_PIECE=4KiB wire)
    check "messages of every form arrive in pieces ($fault)" [ $? -eq 0 ]
done

# ---- runs ----------------------------------------------------------------------------------------------
fault=apart piece=0
train whole tcp
check "a run without pieces" [ $? -eq 0 ]
plan="--plan $work/whole/plan.json" piece=4KiB
for fault in apart apart,slow apart0 apart1; do
    train "$fault" tcp
    check "pieces change no bit ($fault)" same "$fault"
done
for fault in apart apart1; do
    train "$fault-shm" shm
    check "nor in memory that ranks share ($fault)" same "$fault-shm"
done
plan="$plan --trace trace.json" fault=apart,slow
train traced tcp
check "a trace shows messages of a piece each" [ "$(grep -o '4.10 kB to rank' trace.json | wc -l)" -ge 192 ]
plan=${plan% --trace*}

# ---- sums of gradients -----------------------------------------------------------------------------------
sums()          # RUN RANKS OPTIONS...
{
    run=$1 ranks=$2
    shift 2
    GEARTRAIN_TRANSFER_PIECE=$piece layered "$geartrain" launch --ranks "$ranks" -- train --model gpt2-tiny \
        --data "$text" --tokenizer char --seq 32 --batch 12 --micro-batch 2 --steps 3 --save-every 3 --eval-every 0 \
        --stages 1 --replicas "$ranks" --tensor 1 --transport tcp --net algorithm=ring --out "$run" "$@" \
        > stdout 2> stderr < /dev/null
}
# Of the first sum in a trace, on rank 0: the first piece that is sent, and the last one that is read.
begins_early()
{
    grep -E '"pid":0,.*"name":"(read [0-9]{5} bytes|[0-9.]+ kB to rank)' "$1" | grep '"step":1,' | awk -F '"ts":' '
        { split($2, a, ","); read = /"read / }
        read { last = a[1] + 0; reads++ }
        !read && reads && !first { first = a[1] + 0 }
        END { exit !(reads >= 32 && first && first < last) }'
}
for mode in "allreduce 2" "allreduce 3" "sharded 3"; do
    ranks=${mode#* } fault=apart piece=0 whole="sum $mode"
    sums "$whole" "$ranks" --sync "${mode% *}"
    check "a run that sums whole buckets ($mode)" [ $? -eq 0 ]
    fault=apart,drip piece=4KiB
    sums "pieces $mode" "$ranks" --plan "$whole/plan.json" --trace trace.json
    check "sums begin before all is read ($mode)" begins_early trace.json
    check "and have the same bits" same "pieces $mode"
done
piece=4KiB fault=apart,torn
for at in 20 48 61; do
    rank=1
    sums "torn sum $at" 3 --plan "$whole/plan.json"
    check "a device that is lost while a sum is read ends the run (read $at)" [ $? -eq 3 ]
    check "and every rank says why" [ "$(grep -c 'geartrain train: .*the driver has given up the device' stderr)" -eq 3 ]
done

# ---- the end in the middle of a message ------------------------------------------------------------------
fault=apart,torn at=43
for rank in 0 1; do
    train "torn$rank" tcp
    check "a device that is lost between two pieces ends the run (rank $rank)" [ $? -eq 3 ]
    check "with one sentence on each rank" [ "$(grep -c 'geartrain train: .*the driver has given up the device' stderr)" -eq 2 ]
    check "which names that rank on the other" \
        grep -Eq "rank $rank .* ended the job: .*device 'cpu:0'.*the driver has given up the device" stderr
done
fault=apart,killed
for rank in 0 1; do
    train "killed$rank" tcp
    check "a rank that is killed between two pieces ends the run (rank $rank)" [ $? -eq 3 ]
    check "and the other one says whom it lost" [ "$(grep -c "geartrain train: lost rank $rank .*killed or crashed" stderr)" -eq 1 ]
done
close_checks
