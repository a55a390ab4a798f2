#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/compression.sh - what compressing gradients costs the device, and what it saves on the network.
#
#   sh tests/bench/compression.sh [--rate MBIT] [--most BYTES]           [1000 67108864]
#
# 1. The rate at which values are encoded, beside that of a plain copy.
# 2. Two ranks, 1 MiB to MOST bytes of fp32 gradients, over shared memory and over TCP between two network
#    namespaces whose link has MBIT both ways: the all-reduce in fp32 and in bf16, and for int8 the
#    all-gather of both ranks' encodings (132 bytes for 128 values) with the time of encoding and decoding at
#    the rates of 1.
#
#   $GEARTRAIN   the program      [build/geartrain]
#
# A measurement, for a quiet machine; TCP is left out without root, ip and tc.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
rate=1000 most=67108864
while [ $# -gt 0 ]; do
    case $1 in
    --rate) rate=$2 ;;
    --most) most=$2 ;;
    *) sed -n '2,16s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift 2 || exit 2
done
program=${GEARTRAIN:-$root/build/geartrain}
. "$root/tests/bench/netns.sh"

# ---- the device ------------------------------------------------------------------------------

# The best of the runs: their medians tell of other programs as well.
best()          # KERNEL: milliseconds, of 8192 x 4096 values, and its share of the rate of a plain copy
{
    "$program" bench kernels --kernel "$1" 2> "$work/err" \
        | awk '/ 8192 +4096 / { share = $(NF - 1); sub(/.* 8192 +4096 +/, ""); print $1, share; exit }'
}

values=33554432
echo "# encoding of $values values; %: bytes read and kept in a second, of a plain copy's read and written"
for kernel in "values cut and stored" "int8 encoded" "top-k encoded" "low rank, left" "low rank, right"; do
    took=$(best "$kernel")
    echo "$kernel|${took% *}" >> "$work/kernels"
    echo "$kernel $took" | awk -v n=$values '{
        t = $(NF - 1); share = $NF; NF -= 2
        printf "%-24s %8.1f ms %8.2f GB/s of values %8s\n", $0, t, 4 * n / t / 1e6, share }'
done
encode=$(sed -n 's/int8 encoded|//p' "$work/kernels")

# ---- the network -----------------------------------------------------------------------------

measure()       # TRANSPORT OPERATION TYPE BYTES: microseconds
{
    if [ "$1" = shm ]; then
        "$program" bench "$2" --ranks 2 --transport shm -d "$3" -b "$4" -e "$4" --json < /dev/null 2> "$work/err" \
            > "$work/out.0" || { cat "$work/err" >&2; return 1; }
    else
        netns_run 2 "$program" bench "$2" --transport tcp -d "$3" -b "$4" -e "$4" -n 5 -w 1 --json \
            || { cat "$work"/err.* >&2; return 1; }
    fi
    sed -n 's/.*"time_us": *\([0-9.]*\).*/\1/p' "$work/out.0" | head -n 1
}

table()         # TRANSPORT
{
    printf '%-6s %10s %12s %12s %12s %10s %10s\n' "$1" bytes "fp32 ms" "bf16 ms" "int8 ms" "bf16 x" "int8 x"
    bytes=1048576
    while [ "$bytes" -le "$most" ]; do
        full=$(measure "$1" allreduce f32 "$bytes") && half=$(measure "$1" allreduce bf16 $((bytes / 2))) \
            && part=$(measure "$1" all-gather f32 $((bytes / 512 * 264))) || return 1
        awk -v w="$1" -v b="$bytes" -v f="$full" -v h="$half" -v p="$part" -v e="$encode" -v n=$values 'BEGIN {
            q = p + 2 * e * 1e3 * (b / 4) / n
            printf "%-6s %10d %12.2f %12.2f %12.2f %10.2f %10.2f\n", w, b, f / 1e3, h / 1e3, q / 1e3, f / h, f / q }'
        bytes=$((bytes * 4))
    done
}

echo "# two ranks, all gradients summed; x: times faster than fp32"
table shm || exit 1
if netns_pair "$rate"; then
    table tcp || exit 1
else
    echo "no network namespaces with limited links here: tcp left out"
fi
