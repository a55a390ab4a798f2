#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/link_verbs.sh - `geartrain bench link` over verbs beside perftest, in turns.
#
#   link_verbs.sh [BUILD]        [build]        ROUNDS=N        [3]
#   NIC=mlx5_0 GID=3 link_verbs.sh              on a host with RDMA, both ends on it
#
# Without NIC everything runs in the guest of tests/verbs/guest.sh, over Soft-RoCE, which is
# emulated: what counts are the ratios. Same device, MTU, sizes, and requests in flight; ours
# also finds its peer, checks its data first and carries each message's credit. In the guest two
# processors do the network's work as well. So bandwidth is measured with ranks that sleep, for
# ib_write_bw's second process sleeps too, and latency with ranks that never do, as perftest's.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${1:-$root/build} rounds=${ROUNDS:-3}
case $build in /*) ;; *) build=$PWD/$build ;; esac
work=$(mktemp -d "${TMPDIR:-/tmp}/link-verbs-XXXXXX") || exit 1
guest_pid_bench=
trap 'kill $guest_pid_bench 2> /dev/null; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

cat > "$work/measure" <<END
rounds=$rounds
END
cat >> "$work/measure" <<'END'
theirs()        # TOOL OPTIONS...: the line of figures
{
    "$@" -d $nic -x $gid -F > "$work/server.log" 2>&1 &
    server=$!
    sleep 1
    "$@" -d $nic -x $gid -F 127.0.0.1 2> /dev/null | awk '/#bytes/ { getline; print }'
    wait $server
}
ours()          # SETTINGS OPTIONS...: one JSON object
{
    settings=hca=$nic$1
    shift
    $geartrain bench link --ranks 2 --transport verbs --net "$settings" --json "$@" 2>> "$work/ours.log"
}
field()         # NAME, of a JSON object on standard input
{
    sed -n "s/.*\"$1\": \([0-9.e+-]*\).*/\1/p" | head -n 1
}
for round in $(seq $rounds); do
    for size in $sizes; do
        count=$((volume / size))
        [ $count -gt 16 ] || count=16
        a=$(theirs ib_write_bw -s $size -n $count -t 32 | awk '{ print $4 }')
        b=$(ours "$for_bandwidth" --test bw -s $size -n $count -t 32 | field average_bytes_per_s)
        # perftest's MB are of 2^20 bytes.
        echo "$size $a $b" | awk '{ printf "bandwidth %d B   ib_write_bw %.1f MB/s   geartrain %.1f MB/s   ratio %.3f\n",
            $1, $2 * 1.048576, $3 / 1e6, $3 / 1e6 / ($2 * 1.048576) }' | tee -a "$work/lines"
    done
    a=$(theirs ib_send_lat -s 8 -n $turns | awk '{ print $5 }')
    c=$(theirs ib_write_lat -s 8 -n $turns | awk '{ print $5 }')
    b=$(ours "$for_latency" --test lat -s 8 -n $turns | field typical_us)
    echo "$a $c $b" | awk '{ printf "latency 8 B   ib_send_lat %.2f us   ib_write_lat %.2f us   geartrain %.2f us   ratio to send %.2f, to write %.2f\n",
        $1, $2, $3, $3 / $1, $3 / $2 }' | tee -a "$work/lines"
done
# place FIELD ORDER PART: the value of a field at that part of the sorted lines on standard input.
place()
{
    awk -v f="$1" '{ print $f }' | sort "$2" | awk -v part="$3" '{ v[NR] = $1 } END { print v[int((NR - 1) * part) + 1] }'
}
# The best round is what either can do; the median, what a shared machine lets them.
for what in best:0 median:0.5; do
    part=${what#*:} what=${what%:*}
    for size in $sizes; do
        a=$(grep "^bandwidth $size " "$work/lines" | place 5 -gr $part)
        b=$(grep "^bandwidth $size " "$work/lines" | place 8 -gr $part)
        echo "$what $size $a $b" | awk '{ printf "%s of rounds: %d B, ib_write_bw %s MB/s, geartrain %s MB/s, ratio %.3f\n", $1, $2, $3, $4, $4 / $3 }'
    done
    a=$(grep "^latency" "$work/lines" | place 5 -g $part)
    b=$(grep "^latency" "$work/lines" | place 11 -g $part)
    echo "$what $a $b" | awk '{ printf "%s of rounds: 8 B, ib_send_lat %s us, geartrain %s us, ratio %.2f\n", $1, $2, $3, $3 / $2 }'
done
[ ! -s "$work/ours.log" ] || tail -n 5 "$work/ours.log"
END

if [ -n "${NIC:-}" ]; then
    for_bandwidth= for_latency=
    nic=$NIC gid=${GID:-3} geartrain=$build/geartrain sizes="65536 1048576 8388608" volume=4000000000 turns=20000
    . "$work/measure"
    exit
fi
root_of_tests=$root/tests
. "$root/tests/verbs/guest.sh"
guest_prepare || exit 77
cp "$build/geartrain" "$work/geartrain" || exit 1
cat - "$work/measure" > "$work/bench" <<END
ip link add wire0 type dummy
rxe_up wire0 10.77.0.1 4200 || exit 1
for_bandwidth=,spin=0 for_latency=,spin=10ms
nic=rxe0 gid=1 geartrain=$work/geartrain sizes="65536 1048576" volume=20000000 turns=1000
END
guest_start bench "$work/bench"
guest_wait bench 400
cat "$work/bench.out"
