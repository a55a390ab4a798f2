#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/collective/unequal.sh - sums over links of unequal speed, in network namespaces, by a ring,
# by direct, and by what is chosen for them. Sums are verified; how fast they are is for
# tests/bench/unequal_links.sh to say.
# Runs alone: it measures links between network namespaces.
tests=$(cd "$(dirname "$0")/.." && pwd) || exit 1
. "$tests/cli/cli_checks.sh"

if [ "$(id -u)" != 0 ] || ! command -v ip > /dev/null || ! command -v tc > /dev/null; then
    echo "skipped: network namespaces need root, ip and tc (iproute2)"
    exit 77
fi
GEARTRAIN=$geartrain timeout 300 sh "$tests/bench/unequal_links.sh" --bytes 1000004 --iters 1 \
    --limit 1000 > "$work/table" 2> "$work/stderr"
status=$?
if [ $status = 77 ]; then
    cat "$work/table"
    exit 77
fi
check "sums over unequal links are right" [ $status -eq 0 ]
check "a ring runs when it is asked for" grep -Eq '^ring +ring ' "$work/table"
check "direct runs when it is asked for" grep -Eq '^direct +direct ' "$work/table"
check "something is chosen" grep -Eq '^auto +[a-z-]+ ' "$work/table"
[ $failed -eq 0 ] || cat "$work/table"
close_checks
