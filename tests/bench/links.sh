#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/links.sh - one rank to another, beside the machine's own limits, in turns.
#
#   links.sh [BUILD]        [build]
#
# Shared memory is held against memcpy (and half of it, the limit of copying in and out), tcp
# against iperf3's single stream with its default blocks and with ours.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
program=${1:-$root/build}/geartrain
rounds=${ROUNDS:-3} seconds=${SECONDS_EACH:-3}

rate()          # TRANSPORT SIZE OPTIONS...: MB/s and memcpy's
{
    transport=$1 size=$2
    shift 2
    "$program" bench link --ranks 2 --transport "$transport" -s "$size" --test bw \
        -D "${seconds}s" --json "$@" \
        | sed -n 's/.*"average_bytes_per_s": \([0-9]*\).*"memcpy_bytes_per_s": \([0-9]*\).*/\1 \2/p' \
        | awk '{ printf "%8.0f MB/s   memcpy %8.0f MB/s   ratio %.2f\n", $1 / 1e6, $2 / 1e6, $1 / $2 }'
}

stream()        # BLOCK: iperf3's MB/s
{
    iperf3 -s -1 -p 5899 > /dev/null 2>&1 &
    server=$!
    sleep 0.5
    iperf3 -c 127.0.0.1 -p 5899 -t "$seconds" -l "$1" -J \
        | awk '/"sum_received"/ { on = 1 } on && /bits_per_second/ {
                   gsub(/[^0-9.e+]/, "", $2); printf "%8.0f MB/s\n", $2 / 8e6; exit }'
    wait "$server"
}

round=1
while [ "$round" -le "$rounds" ]; do
    echo "round $round"
    for size in 64KiB 1MiB 16MiB 64MiB; do
        printf '  shm arenas        %6s %s\n' $size "$(rate shm $size)"
    done
    printf '  shm copied        %6s %s\n' 16MiB "$(rate shm 16MiB --plain --net shm-mode=copy)"
    printf '  shm read by cma   %6s %s\n' 16MiB "$(rate shm 16MiB --plain --net shm-mode=cma)"
    if command -v iperf3 > /dev/null; then
        printf '  iperf3            %6s %s\n' 128K "$(stream 128K)"
        printf '  tcp               %6s %s\n' 128KiB "$(rate tcp 128KiB)"
        printf '  iperf3            %6s %s\n' 1M "$(stream 1M)"
        printf '  tcp               %6s %s\n' 1MiB "$(rate tcp 1MiB)"
    fi
    round=$((round + 1))
done
"$program" bench link --ranks 2 --transport shm --test lat -s 8
"$program" bench link --ranks 2 --transport tcp --test lat -s 8
