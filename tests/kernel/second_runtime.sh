#!/bin/bash
# SPDX-License-Identifier: MIT
# tests/kernel/second_runtime.sh - the kernel tests on a second OpenCL implementation.
#
# What PoCL lets pass another driver may not, so the tests run on Intel's runtime for CPUs as
# well, with the CPU and the GPU bodies, at tiny sizes. It comes from the Python package index
# (pip download; 270 MB, once) and is unpacked below the cache folder ($GT_VENDORS overrides):
# nothing is installed, and the machine's own platforms stay as they are. Its license allows
# use, not copying it into this repository.
#
# $BUILD is the build folder [build]. Exit 77 if the runtime is neither there nor to be had.
set -u
cd "$(dirname "$0")/../.." || exit 1
: "${BUILD:=build}"
root=${GT_VENDORS:-${XDG_CACHE_HOME:-$HOME/.cache}/geartrain/vendors}/intel-cpu
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-runtime-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT

skip()
{
    echo "second runtime: $*; skipped"
    echo "0 passed, 0 failed"
    exit 77
}

# The libraries of the wheels, flat in one folder, which appears only when it is whole.
unpack()
{
    local wheel
    python3 -m pip --version > /dev/null 2>&1 || skip "there is no pip to download it"
    python3 -m pip download --quiet --no-deps -d "$work/wheels" intel-opencl-rt intel-cmplr-lib-rt \
        tbb tcmlib umf > "$work/pip.log" 2>&1 || skip "it cannot be downloaded"
    for wheel in "$work"/wheels/*.whl; do
        python3 -m zipfile -e "$wheel" "$work/unpacked" || skip "'${wheel##*/}' cannot be unpacked"
    done
    mkdir -p "$work/lib" "${root%/*}"
    cp -r "$work"/unpacked/*.data/data/lib/* "$work/lib/"
    rm -f "$work"/lib/libOpenCL.so*             # the machine's own loader finds it
    rm -rf "$root"
    mkdir "$root" && mv "$work/lib" "$root/lib"
}

[ "$(uname -m)" = x86_64 ] || skip "it exists for x86-64 only"
[ -e "$root/lib/libintelocl.so" ] || unpack
mkdir "$work/vendors"
echo "$root/lib/libintelocl.so" > "$work/vendors/intel.icd"
export LD_LIBRARY_PATH=$root/lib OCL_ICD_VENDORS=$work/vendors
export GT_TEST_TINY=1 GEARTRAIN_CACHE=$work/cache

passed=0 failed=0

run()               # STYLE PROGRAM; an empty style leaves the choice to the program
{
    local style=$1 program=$2 good bad skips
    GEARTRAIN_STYLE=$style "$BUILD/tests/$program" > "$work/out" 2>&1
    good=$(awk '$1 == "tests" { print $4 }' "$work/out")
    bad=$(awk '$1 == "tests" { print $5 }' "$work/out")
    skips=$(grep -c 'skipped: ' "$work/out")
    if [ -z "$good" ] || [ "$bad" != 0 ]; then
        echo "FAILED ${program##*/} $style:"
        grep -A3 -E 'FAILED|rror' "$work/out" | cut -c 1-400 | head -30
        failed=$((failed + ${bad:-0} + (${bad:-0} == 0)))
    fi
    passed=$((passed + ${good:-0} - skips))
    echo "${program##*/} $style: $((${good:-0} - skips)) cases"
}

run cpu kernel/test_kernel
run gpu kernel/test_kernel
run '' attention/test_attention
run '' gemm/test_gemm
echo "$passed passed, $failed failed"
[ $failed = 0 ]
