#!/bin/bash
# SPDX-License-Identifier: MIT
# tests/kernel/emulated.sh - our kernels as machine code of AMD's GPUs, run without one.
#
#   TINYGRAD=CHECKOUT emulated.sh [CHIP...]         [gfx1100 gfx1201 gfx942 gfx90a]
#
# tinygrad's test tree holds an emulator of AMD's instructions (test/mockgpu/amd/emu.py). A driver of our own
# (emulated/driver.c) offers an emulated GPU through the ordinary loader: programs are compiled by clang for
# the chip, and run an instruction at a time, so the test programs and geartrain itself run on it as they
# are. It is not part of CI: $TINYGRAD is a user's checkout, and a chip takes some ten minutes of one core.
#
#   the emulator's known faults   asked for, repaired while it runs, asked for again; matrix instructions twice
#   every kernel case, attention, every product, in each storage type, against the reference; by the matrix unit
#                                 as well, and fp32 on it as sums of two bf16
#   two training steps of gpt2-tiny, in fp32, in bf16 by the matrix unit, and in two stages on two chips:
#                                 PoCL's losses
#   planted mistakes              barriers removed, a transposed tile, a wrong lane: must be noticed
#
# A pass says that arithmetic, indices, barriers and the compiler's code are right. It says nothing of time, of
# hazards, or of the order in which memory is seen. GT_EMULATED_KEEP=FILE keeps the counts of instructions.
#
# $BUILD is the build folder [build], $GT_PYTHON the interpreter [python3]. Packages: clang-19 lld-19
# rocm-device-libs. Exit 77 without them or $TINYGRAD.
set -u
cd "$(dirname "$0")/../.." || exit 1
: "${BUILD:=build}"
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-emulated-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT

skip()
{
    echo "emulated: $*; skipped"
    echo "0 passed, 0 failed"
    exit 77
}

. tests/kernel/emulated_device.sh
emulated_device "$work" || skip "$why"
export GT_TEST_TINY=1
passed=0 failed=0

verdict()           # 0|1 WHAT
{
    if [ "$1" = 0 ]; then
        passed=$((passed + 1))
    else
        echo "FAILED $2"
        failed=$((failed + 1))
    fi
}

run()               # PROGRAM: a CUnit program's own cases are counted
{
    local program=$1 good bad skips begun=$SECONDS
    GT_EMULATED_COUNTS=$work/counts "$BUILD/tests/$program" > "$work/out" 2>&1
    good=$(awk '$1 == "tests" { print $4 }' "$work/out")
    bad=$(awk '$1 == "tests" { print $5 }' "$work/out")
    skips=$(grep 'skipped: ' "$work/out" | grep -c 'passed *$')
    if [ -z "$good" ] || [ "$bad" != 0 ]; then
        echo "FAILED ${program##*/} on $chip:"
        grep -A3 -E 'FAILED|rror|emulated driver' "$work/out" | cut -c 1-400 | head -30
        failed=$((failed + ${bad:-0} + (${bad:-0} == 0)))
    fi
    passed=$((passed + ${good:-0} - skips))
    echo "${program##*/} on $chip: $((${good:-0} - skips)) cases, $((SECONDS - begun)) s"
}

# A mistake that stands nowhere in the source would be found by nobody.
stands()            # OLD=>NEW WHAT
{
    grep -rqF -- "${1%%=>*}" cl || { verdict 1 "$chip: $2 cannot be planted: the source has no '${1%%=>*}'"; return 1; }
}

planted()           # PROGRAM CASE OLD=>NEW WHAT
{
    stands "$3" "$4" || return
    GEARTRAIN_PROGRAM_CACHE=off GT_EMULATED_CHANGE=$3 "$BUILD/tests/$1" "$2" > "$work/out" 2>&1
    grep -q 'FAILED' "$work/out"
    verdict $? "$chip: $4 is not noticed by ${1##*/}"
}

# A wrong matrix unit is found at the start, said in one line, and not used.
wrong_unit()        # OLD=>NEW WHAT
{
    stands "$1" "$2" || return
    GEARTRAIN_PROGRAM_CACHE=off GT_EMULATED_CHANGE=$1 "$BUILD/geartrain" devices > "$work/out" 2> "$work/err"
    grep -q 'no matrix unit is used: element' "$work/out" && [ "$(grep -c 'matrix unit .*is not used' "$work/err")" = 1 ]
    verdict $? "$chip: $2 is not noticed at the start"
}

train()             # RUN OPTIONS...
{
    local run=$work/$1
    shift
    "$BUILD/geartrain" train --model gpt2-tiny --data "$work/text.txt" --tokenizer char --seq 16 --batch 2 \
        --micro-batch 1 --steps 2 --out "$run" "$@" > "$work/out" 2>&1 < /dev/null || tail -5 "$work/out"
}

losses()
{
    sed -n 's/.*"loss": \([0-9.]*\),.*/\1/p' "$work/$1/metrics.jsonl"
}

near()              # RUN RUN ALLOWED
{
    losses "$1" > "$work/a"
    losses "$2" > "$work/b"
    [ "$(wc -l < "$work/b")" = 2 ] && paste "$work/a" "$work/b" | awk -v allowed="$3" '
        { d = $1 - $2; if (!($1 > 0) || d > allowed * $1 || d < -allowed * $1) bad = 1 } END { exit bad || NR != 2 }'
}

# The same two steps by PoCL, in both precisions.
pocl=$(cat /etc/OpenCL/vendors/pocl.icd 2> /dev/null)
if [ -n "$pocl" ]; then
    mkdir "$work/pocl"
    echo "$pocl" > "$work/pocl/pocl.icd"
    awk 'BEGIN { for (i = 0; i < 300; i++) printf "the wheel turns a gear of the train, %d times.\n", i * i % 97 }' \
        > "$work/text.txt"
    for precision in fp32 bf16; do
        OCL_ICD_VENDORS=$work/pocl GEARTRAIN_CACHE=$work/cache-pocl train "pocl-$precision" --devices cpu:0 \
            --precision $precision
    done
else
    echo "emulated: there is no PoCL, whose losses training is compared with; training is left out"
fi

for chip in ${*:-gfx1100 gfx1201 gfx942 gfx90a}; do
    emulated_faults "$chip"
    verdict $? "$chip: the emulator's faults and their repairs"
    emulated_chips "$chip"
    run kernel/test_kernel
    run attention/test_attention
    run attention/test_attention_matrix
    run gemm/test_gemm
    run gemm/test_gemm_matrix
    if [ -n "$pocl" ]; then
        emulated_unmeasured
        grep -q 'by its matrix unit' "$work/devices"
        verdict $? "$chip: its matrix unit is used"
        train "$chip" --devices gpu:0 --precision fp32
        near pocl-fp32 "$chip" 1e-5
        verdict $? "$chip: a training step has PoCL's loss"
        train "$chip-bf16" --devices gpu:0 --precision bf16
        near pocl-bf16 "$chip-bf16" 2e-3
        verdict $? "$chip: a training step in bf16, by the matrix unit, has PoCL's loss"
    fi
done

# Two generations in one job, each with half of the layers.
if [ -n "$pocl" ] && [ -e "$work/faults-gfx1100" ] && [ -e "$work/faults-gfx942" ]; then
    emulated_chips gfx1100,gfx942
    emulated_unmeasured
    train two --devices gpu:0,gpu:1 --stages 2 --replicas 1
    near pocl-fp32 two 1e-5
    verdict $? "a pipeline of gfx1100 and gfx942 has PoCL's loss"
fi

emulated_chips "$chip"
planted kernel/test_kernel every_case_matches_in_fp32 'barrier(CLK_LOCAL_MEM_FENCE);=>' "a program without barriers"
planted gemm/test_gemm tiled_agrees_in_the_gpu_style 'y * 4 + i % 4=>y * 4 + (i + 1) % 4' "a product with rows in the wrong place"
planted attention/test_attention_matrix the_matrix_unit_matches \
    'barrier(CLK_LOCAL_MEM_FENCE);           /* and all have the scores of this K */=>' "attention that overtakes a block"
planted attention/test_attention_matrix the_matrix_unit_matches '^ (uint)distance=>^ 1' "an exchange with the wrong lane"
planted attention/test_attention_matrix the_matrix_unit_matches 'row > seen[t][i]=>row > seen[t][i] + 1' "a key too many"
planted gemm/test_gemm_matrix bf16x3_agrees_on_the_units_own_instruction 'ADD_PRODUCTS(my_a + TO_K_OF_A(h) + REST)=>' \
    "fp32 by the matrix unit without what bf16 leaves over"
wrong_unit 'p[MMA_C_ROW(lane, r) * ld + MMA_C_COLUMN(lane, r)]=>p[MMA_C_COLUMN(lane, r) * ld + MMA_C_ROW(lane, r)]' \
    "a transposed tile"
wrong_unit 'lane = item % MMA_LANES=>lane = (item + 1) % MMA_LANES' "a wrong lane"
wrong_unit 'MMA_A_ROW(lane, 0) * ld=>(MMA_A_ROW(lane, 0) ^ 1) * ld' "a wrong row of a factor"
[ -z "${GT_EMULATED_KEEP:-}" ] || cp "$work/counts" "$GT_EMULATED_KEEP"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
