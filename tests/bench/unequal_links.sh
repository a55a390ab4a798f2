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
[ -x "$program" ] || { echo "unequal_links.sh: no program at $program; build it, or set GEARTRAIN"; exit 1; }
tag=gt$$
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-unequal-XXXXXX") || exit 1
running=
clear_up()
{
    [ -z "$running" ] || kill $running 2> /dev/null
    for i in 0 1 2 3 r; do
        ip netns del "$tag-$i" 2> /dev/null
    done
    rm -rf "$work"
}
trap clear_up EXIT
trap 'exit 1' HUP INT TERM

# ---- links -----------------------------------------------------------------------------------

link()          # RANK MBIT
{
    ip netns add "$tag-$1" &&
    ip link add name "n$1" netns "$tag-$1" type veth peer name "r$1" netns "$tag-r" &&
    ip -n "$tag-$1" addr add "10.77.$1.2/24" dev "n$1" &&
    ip -n "$tag-r" addr add "10.77.$1.1/24" dev "r$1" &&
    ip -n "$tag-$1" link set lo up && ip -n "$tag-$1" link set "n$1" up &&
    ip -n "$tag-r" link set "r$1" up &&
    ip -n "$tag-$1" route add default via "10.77.$1.1" &&
    ip netns exec "$tag-$1" tc qdisc add dev "n$1" root tbf rate "$2mbit" burst 32kbit latency 400ms &&
    ip netns exec "$tag-r" tc qdisc add dev "r$1" root tbf rate "$2mbit" burst 32kbit latency 400ms
}

if ! { ip netns add "$tag-r" && ip -n "$tag-r" link set lo up &&
       ip netns exec "$tag-r" sysctl -qw net.ipv4.ip_forward=1 &&
       link 0 $((4 * unit)) && link 1 $((4 * unit)) && link 2 $((4 * unit)) && link 3 "$unit"; }; then
    echo "unequal_links.sh: cannot make network namespaces with limited links here; skipped"
    exit 77
fi

# ---- runs ------------------------------------------------------------------------------------

head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$work/secret"
chmod 600 "$work/secret"

all_reduce()    # ALGORITHM: rank 0's line
{
    running=
    port=$((20000 + ($$ + $(date +%N | sed 's/^0*//') / 1000) % 20000))
    for rank in 3 2 1 0; do
        ip netns exec "$tag-$rank" env RANK=$rank WORLD_SIZE=4 LOCAL_RANK=0 LOCAL_WORLD_SIZE=1 \
            MASTER_ADDR=10.77.0.2 MASTER_PORT=$port GEARTRAIN_NET_SECRET_FILE="$work/secret" \
            "$program" bench allreduce --transport tcp --algorithm "$1" -b "$bytes" -e "$bytes" \
            -n "$iters" -w 1 --json < /dev/null > "$work/out.$rank" 2> "$work/err.$rank" &
        running="$running $!"
    done
    failed=0
    for pid in $running; do
        wait "$pid" || failed=1
    done
    running=
    [ $failed = 0 ] || { cat "$work"/err.*; return 1; }
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
