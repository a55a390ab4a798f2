#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/unequal_links.sh - all-reduce over three links of 4 units and one of 1.
#
#   sh tests/bench/unequal_links.sh [--unit MBIT] [--bytes N] [--iters N] [--limit X]
#                                                                           [100 16777216 3 1.1]
#
#      rank 0 ──400──┐                    each rank in a network namespace of its own, its link
#      rank 1 ──400──┤ a router           limited both ways by tc's token bucket; one more
#      rank 2 ──400──┤                    namespace forwards between them
#      rank 3 ──100──┘
#
# No algorithm can take less than S / B_min: the slow rank's data have to leave it. A ring moves
# every byte of 2(p-1)/p S over every link, so it takes 1.5 times that; `direct` gives the slow
# rank nothing to sum and comes close to 1. The bound counts what a frame carries: 1448 of
# 1514 bytes.
#
#   $GEARTRAIN   the program      [build/geartrain]
#
# Needs root, ip and tc. A measurement; it fails if direct takes more than X times the bound.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
unit=100 bytes=16777216 iters=3 limit=1.1
while [ $# -gt 0 ]; do
    case $1 in
    --unit) unit=$2 ;;
    --bytes) bytes=$2 ;;
    --iters) iters=$2 ;;
    --limit) limit=$2 ;;
    *) sed -n '2,21s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift 2 || exit 2
done
program=${GEARTRAIN:-$root/build/geartrain}
. "$root/tests/bench/netns.sh"
netns_star $((4 * unit)) $((4 * unit)) $((4 * unit)) "$unit" \
    || { echo "unequal_links.sh: cannot make network namespaces with limited links here; skipped"; exit 77; }

all_reduce()    # ALGORITHM: rank 0's line
{
    netns_run 4 "$program" bench allreduce --transport tcp --algorithm "$1" -b "$bytes" -e "$bytes" \
        -n "$iters" -w 1 --json || { cat "$work"/err.*; return 1; }
    cat "$work/out.0"
}

field()         # NAME LINE
{
    echo "$2" | sed -n "s/.*\"$1\": \"\{0,1\}\([^,\"}]*\).*/\1/p"
}

bound=$(awk -v b="$bytes" -v u="$unit" 'BEGIN { printf "%.1f", b * 8 / (u * 1e6 * 1448 / 1514) * 1e3 }')
echo "# all-reduce of $bytes bytes over links of $((4 * unit)), $((4 * unit)), $((4 * unit)) and $unit Mbit/s"
echo "# bound S / B_min: $bound ms"
printf '%-20s %-20s %10s %12s %12s\n' asked ran ms "/ bound" predicted
verdict=0
for algorithm in ring direct auto; do
    line=$(all_reduce "$algorithm") || { echo "$line"; exit 1; }
    us=$(field time_us "$line")
    ran=$(field algorithm "$line")
    ratio=$(awk -v t="$us" -v b="$bound" 'BEGIN { printf "%.3f", t / 1e3 / b }')
    case $ran in ring) predicted=1.5 ;; direct) predicted=1.0 ;; *) predicted=- ;; esac
    printf '%-20s %-20s %10.1f %12s %12s\n' "$algorithm" "$ran" "$(awk -v t="$us" 'BEGIN { print t / 1e3 }')" \
        "$ratio" "$predicted"
    if [ "$algorithm" = direct ] && awk -v r="$ratio" -v x="$limit" 'BEGIN { exit !(r > x) }'; then
        echo "direct takes more than $limit times the bound"
        verdict=1
    fi
done
exit $verdict
