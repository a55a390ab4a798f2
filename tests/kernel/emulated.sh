#!/bin/bash
# SPDX-License-Identifier: MIT
# tests/kernel/emulated.sh - our kernels as machine code of AMD's GPUs, run without one.
#
#   TINYGRAD=CHECKOUT emulated.sh [CHIP...]         [gfx1100 gfx1201 gfx942 gfx90a]
#
# tinygrad's test tree holds an emulator of AMD's instructions (test/mockgpu/amd/emu.py). A driver of our own
# (emulated/driver.c) offers an emulated GPU through the ordinary loader: programs are compiled by clang for
# the chip, and run an instruction at a time, so the test programs and geartrain itself run on it as they
# are. It is not part of CI: $TINYGRAD is a user's checkout, and a chip takes about a minute.
#
#   the emulator's known faults   asked for, repaired while it runs, asked for again; matrix instructions twice
#   every kernel case, attention, every product, in each storage type, against the reference
#   planted mistakes              a barrier removed, a wrong element, a wrong lane: tests must fail
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

[ -n "${TINYGRAD:-}" ] || skip "TINYGRAD names no checkout of tinygrad, whose emulator this needs"
[ -f "$TINYGRAD/test/mockgpu/amd/emu.py" ] || skip "there is no test/mockgpu/amd/emu.py in '$TINYGRAD'"
command -v ld.lld-19 > /dev/null || skip "lld-19 is not installed"
. tests/kernel/amd_compiler.sh
amd_bitcode "$work/bitcode" || skip "clang-19 or rocm-device-libs is not installed"
cmake --build "$BUILD" --target emulated_driver > "$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
driver=$(cd "$BUILD" && pwd)/tests/kernel/libemulated_driver.so
mkdir "$work/vendors"
echo "$driver" > "$work/vendors/emulated.icd"

export OCL_ICD_VENDORS=$work/vendors GT_EMULATED_BITCODE=$work/bitcode GT_EMULATED_SERVER=$PWD/tests/kernel/emulated/emulator.py
export GT_EMULATED_PYTHON=${GT_PYTHON:-python3} GT_TEST_TINY=1 PYTHONDONTWRITEBYTECODE=1
export GT_EMULATED_CHIPS GT_EMULATED_REPAIRS GEARTRAIN_CACHE
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
    local program=$1 good bad skips
    GT_EMULATED_COUNTS=$work/counts "$BUILD/tests/$program" > "$work/out" 2>&1
    good=$(awk '$1 == "tests" { print $4 }' "$work/out")
    bad=$(awk '$1 == "tests" { print $5 }' "$work/out")
    skips=$(grep -c 'skipped: ' "$work/out")
    if [ -z "$good" ] || [ "$bad" != 0 ]; then
        echo "FAILED ${program##*/} on $chip:"
        grep -A3 -E 'FAILED|rror|emulated driver' "$work/out" | cut -c 1-400 | head -30
        failed=$((failed + ${bad:-0} + (${bad:-0} == 0)))
    fi
    passed=$((passed + ${good:-0} - skips))
    echo "${program##*/} on $chip: $((${good:-0} - skips)) cases"
}

planted()           # PROGRAM OLD=>NEW WHAT
{
    GEARTRAIN_PROGRAM_CACHE=off GT_EMULATED_CHANGE=$2 "$BUILD/tests/$1" > "$work/out" 2>&1
    [ "$(awk '$1 == "tests" { print $5 }' "$work/out")" != 0 ]
    verdict $? "$chip: $3 is not noticed by ${1##*/}"
}

for chip in ${*:-gfx1100 gfx1201 gfx942 gfx90a}; do
    GT_EMULATED_CHIPS=$chip GEARTRAIN_CACHE=$work/cache-$chip GT_EMULATED_REPAIRS=
    "$GT_EMULATED_PYTHON" "$GT_EMULATED_SERVER" --check "$chip" "$driver" > "$work/faults"
    verdict $? "$chip: the emulator's faults and their repairs"
    GT_EMULATED_REPAIRS=$(tr '\n' ' ' < "$work/faults")
    run kernel/test_kernel
    run attention/test_attention
    run gemm/test_gemm
done
# Instruction by instruction the chips differ; a mistake is one on each.
planted kernel/test_kernel 'barrier(CLK_LOCAL_MEM_FENCE);=>' "a program without barriers"
planted gemm/test_gemm 'y * 4 + i % 4=>y * 4 + (i + 1) % 4' "a product whose rows are swapped"
[ -z "${GT_EMULATED_KEEP:-}" ] || cp "$work/counts" "$GT_EMULATED_KEEP"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
