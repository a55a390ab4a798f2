# SPDX-License-Identifier: MIT
# tests/kernel/second_runtime_checks.sh - what the scripts that run tests on a second OpenCL implementation share; sourced,
# not run.
#
# What PoCL lets pass another driver may not, so the tests run on Intel's runtime for CPUs as
# well, with the CPU and the GPU bodies, at tiny sizes. intel_runtime.sh fetches it. Compiled programs
# are kept beside it; what is proved, measured and chosen is new each time.
#
# $BUILD is the build folder [build]. Exit 77 if the runtime is neither there nor to be had.
set -u
cd "$(dirname "$0")/../.." || exit 1
: "${BUILD:=build}"
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-runtime-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT

skip()
{
    echo "second runtime: $*; skipped"
    echo "0 passed, 0 failed"
    exit 77
}

. tests/kernel/intel_runtime.sh
intel_runtime || skip "$why"
mkdir "$work/vendors" "$work/cache"
ln -s "$intel/programs" "$work/cache/programs"
echo "$intel/lib/libintelocl.so" > "$work/vendors/intel.icd"
export LD_LIBRARY_PATH=$intel/lib OCL_ICD_VENDORS=$work/vendors
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

close_runs()
{
    echo "$passed passed, $failed failed"
    [ $failed = 0 ]
}
