# SPDX-License-Identifier: MIT
# tests/kernel/oclgrind_checks.sh - what the scripts that run kernels inside oclgrind share; sourced, not run.
#
# oclgrind exits 0 whatever it finds, so its log is read: one line in it is a failure. $BUILD is the build folder
# [build]. Exit 77 if there is no oclgrind.
set -u
cd "$(dirname "$0")/../.." || exit 1
: "${BUILD:=build}"
if ! command -v oclgrind > /dev/null; then
    echo "oclgrind is not installed; skipped"
    echo "0 passed, 0 failed"
    exit 77
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-oclgrind-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

# watch STYLE PROGRAM [CASE...] -- oclgrind options: counts the CUnit cases, and one more for
# the log.
watch()
{
    local style=$1 program=$2 log=$work/log out=$work/out good bad skips
    shift 2
    local cases=()
    while [ "$1" != -- ]; do
        cases+=("$1")
        shift
    done
    shift
    if [ ! -x "$BUILD/$program" ]; then
        echo "FAILED $program is not built in '$BUILD'"
        failed=$((failed + 1))
        return
    fi
    rm -f "$log"
    GT_TEST_TINY=1 GEARTRAIN_STYLE=$style GEARTRAIN_PROGRAM_CACHE=off GEARTRAIN_CACHE=$work/cache \
        oclgrind "$@" --log "$log" "$BUILD/$program" "${cases[@]}" > "$out" 2>&1
    good=$(awk '$1 == "tests" { print $4 }' "$out") bad=$(awk '$1 == "tests" { print $5 }' "$out")
    skips=$(grep -c 'skipped: ' "$out")
    if [ -z "$good" ] || [ "$bad" != 0 ]; then
        echo "FAILED ${program##*/} as $style, $*:"
        grep -A3 -E 'FAILED|error' "$out" | head -30
        failed=$((failed + ${bad:-0} + (${bad:-0} == 0)))
    fi
    passed=$((passed + ${good:-0} - skips))
    if [ -s "$log" ]; then
        echo "FAILED oclgrind found in ${program##*/} as $style, $*:"
        head -40 "$log"
        failed=$((failed + 1))
    else
        passed=$((passed + 1))
    fi
    echo "${program##*/} as $style, $*: $((${good:-0} - skips)) cases"
}

close_watch()
{
    echo "$passed passed, $failed failed"
    [ $failed = 0 ]
}
