#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/device/faulty.sh - a runtime that answers wrongly without an error: refused by name, or timed
# by the host's clock.
#
# faulty_layer.c goes between the loader and the driver and plays the faults, one at a time. The
# loader must know layers (ocl-icd does); else this is skipped. rusticl.sh meets a real one.
. "$(dirname "$0")/../cli/cli_checks.sh"

layer=${BUILD:-${geartrain%/*}}/tests/device/libfaulty_layer.so
[ -e "$layer" ] || { echo "there is no $layer; skipped"; exit 77; }

# with FAULT COMMAND...: in a cache of its own, for what one driver proved holds for it only.
with()
{
    fault=$1
    shift
    GT_FAULT=$fault OPENCL_LAYERS=$layer GEARTRAIN_CACHE=$work/cache-$fault timeout 300 "$@"
}

# refused NAME FAULT PATTERN ARGUMENTS...
refused()
{
    name=$1 fault=$2 pattern=$3
    shift 3
    with "$fault" "$geartrain" "$@" > stdout 2> stderr < /dev/null
    said "$name" 1 "$pattern" $?
}

with loops "$geartrain" doctor > stdout 2> stderr
if ! grep -q '^BAD' stdout; then
    echo "this OpenCL loader knows no layers; skipped"
    echo "0 passed, 0 failed"
    exit 77
fi

# ---- wrong computing ---------------------------------------------------------------------------
check "the doctor names the probe and what it found" \
    grep -Eq '^BAD .*cpu:0 \(.*driver .*long loop: a loop of 200003 turns ended after 65535' stdout
check "and what to do" grep -q 'fix: update its driver, or take another device: this one computes wrongly' stdout
check "the other probes hold" grep -q '^ok .*cpu:0 vectors: ' stdout
refused "train refuses the device" loops \
    "device 'cpu:0' .*driver .*computes wrongly: a loop of 200003 turns ended after 65535; update" \
    train --model gpt2-tiny --data "$text" --tokenizer char --seq 32 --batch 4 --steps 1 --out run
check "nothing was trained" test ! -e run/checkpoints
refused "so does bench" loops "cpu:0.* computes wrongly: a loop of" bench kernels --kernel gelu
refused "a part of it is refused as well" loops "cpu:0.1'.* computes wrongly: a loop of" \
    bench gemm --shapes 32x32x32 --devices cpu:0.1
refused "and so is a fill that fills nothing" fills "computes wrongly: filling and copying parts" \
    train --model gpt2-tiny --data "$text" --tokenizer char --seq 32 --batch 4 --steps 1 --out run
with loops "$geartrain" devices > stdout 2> stderr
check "devices lists it, and says so" grep -q 'not used, for it computes wrongly; .geartrain doctor' stdout
with loops "$geartrain" devices --json > stdout 2> stderr
check "devices --json says so as well" grep -q '"refused": true' stdout
check "a refusal is not kept" test ! -e "$(echo "$work"/cache-loops/*/proof/*.txt)"
check "what holds is kept" sh -c "'$geartrain' bench gemm --shapes 32x32x32 > /dev/null 2>&1
    grep -qx holds '$work'/cache/proof/*.txt"

# ---- a wrong engine ----------------------------------------------------------------------------
# What the native engine gives is right, and what remains where the tiled one is left out.
small_run() { "$geartrain" train --model gpt2-tiny --data "$text" --tokenizer char --seq 64 --batch 16 --steps 3 "$@"; }
losses() { sed -n 's/^\(step [0-9]*  loss [0-9.]*\).*/\1/p' "$1"; }
if GEARTRAIN_GEMM=native small_run --out native > native.txt 2> stderr; then
    with tiles "$geartrain" train --model gpt2-tiny --data "$text" --tokenizer char --seq 64 \
        --batch 16 --steps 3 --out tiles > tiles.txt 2> stderr
    check "a wrong engine is left out by name, and how wrong it was" grep -Eq "warning: engine 'tiled' computes wrongly on 'cpu:0' and is left out: [0-9]+ x [0-9]+ x [0-9]+ gave .* at row 0, column 0, not " stderr
    check "training goes on with another" test "$(losses tiles.txt)" = "$(losses native.txt)"
    check "it is chosen for no product that packs B so" sh -c '! grep -q "^[nt]n .* tiled " cache-tiles/gemm/*.txt'
else
    echo "without the native engine there is none to go on with: not tried"
fi

# ---- the last probe ----------------------------------------------------------------------------
"$geartrain" doctor --prove > stdout 2> stderr
check "a right device makes the host's training step" grep -Eq "^ok .*cpu:0 training step: loss [0-9.]+, gradient norm [0-9.]+ and every tensor as the host" stdout
check "and the products of all engines" grep -Eq "^ok .*cpu:0 products: .*tiled.*, with 65543 terms a sum" stdout
with tiles env GEARTRAIN_GEMM=tiled "$geartrain" doctor --prove > stdout 2> stderr
check "one that passes every other probe and trains wrongly is found out" \
    grep -Eq "^BAD .*cpu:0 \(.*driver .*training step: the gradient of .* off" stdout
check "with what to do" grep -q "fix: .*training on this one would be wrong without an error" stdout

# ---- wrong time stamps -------------------------------------------------------------------------
with stamps "$geartrain" bench kernels --kernel gelu --json > stdout 2> stderr
check "bench kernels runs" test $? -eq 0
check "one warning says by whose clock" test "$(grep -c "time stamps of 'cpu:0' .* are wrong: a kernel that took .* ms by its event's stamps; it is timed by the host's clock" stderr)" -eq 1
# By the stamps they would be a million times the speed of a plain copy.
check "its figures are the host's" awk -F'"share_of_copy": ' '{ n++; if ($2 + 0 > 20) bad = 1 }
    END { exit !n || bad }' stdout
check "what was found is kept" grep -q '^no clock a kernel that took' cache-stamps/proof/*.txt
for fault in stamps late; do
    with $fault "$geartrain" doctor > stdout 2> stderr
    check "$fault: the doctor says it" grep -Eq "^BAD .*clock: a kernel that took .* by its event's stamps" stdout
    # A slow device sleeps three times as long as its kernels took: by these stamps, not at all, or
    # ten times too long.
    with $fault "$BUILD/tests/device/test_device" a_list_runs_in_order_and_again \
        a_slowed_device_sleeps_in_proportion traced_work_becomes_spans > stdout 2>&1
    check "$fault: lists, slow devices and traces are timed right" test $? -eq 0
    with $fault "$geartrain" devices > stdout 2> stderr
    check "$fault: a kept verdict warns as well" grep -q "timed by the host's clock" stderr
    check "$fault: devices says it" grep -q "timed by the host's clock" stdout
done
close_checks
