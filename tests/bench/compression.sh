#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/compression.sh - what compressing gradients costs the device, and what it saves on the network.
#
#   sh tests/bench/compression.sh [--rate MBIT] [--most BYTES] [--rounds N]      [1000 67108864 3]
#
# 1. The rate at which values are encoded and decoded, beside that of a plain copy.
# 2. Two ranks, 1 MiB to MOST bytes of fp32 gradients, over shared memory and over TCP between two network
#    namespaces whose link has MBIT both ways: the all-reduce in fp32 and in bf16, and for int8 the
#    all-gather of both ranks' encodings (132 bytes for 128 values). Then with what the device does for it, at the
#    rates of 1, which both ranks share: encoding, with what is held back, and decoding.
# 3. Steps of training, two ranks of half of the processor each over shared memory: 10.8 M parameters and few
#    tokens, so that a step is mostly sums of gradients.
# Each number is the best of N rounds, which go through all of 1, of 2 and of 3 in turns.
#
#   $GEARTRAIN   the program      [build/geartrain]
#
# A measurement, for a quiet machine; TCP is left out without root, ip and tc.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
rate=1000 most=67108864 rounds=3
while [ $# -gt 0 ]; do
    case $1 in
    --rate) rate=$2 ;;
    --most) most=$2 ;;
    --rounds) rounds=$2 ;;
    *) sed -n '2,19s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift 2 || exit 2
done
program=${GEARTRAIN:-$root/build/geartrain}
. "$root/tests/bench/netns.sh"

# ---- the device ------------------------------------------------------------------------------

values=33554432
# KERNEL|bytes of a value that it reads and writes
kernels='values cut and stored|8
values cut, stored and held back|20
int8 encoded|5.03
int8 encoded and held back|17.03
two of int8 decoded|6.06
top-k encoded|4.06
top-k encoded and held back|16.06
low rank, left|4
low rank, right|4'

round=0
while [ $round -lt "$rounds" ]; do
    echo "$kernels" | while IFS='|' read -r kernel bytes; do
        "$program" bench kernels --kernel "$kernel" --json < /dev/null 2> "$work/err" | awk -v k="$kernel" -v b="$bytes" '
            index($0, "\"name\": \"" k "\"") {
                f = "[0-9.]+"
                match($0, "\"min_ms\": " f); ms = substr($0, RSTART + 10, RLENGTH - 10)
                match($0, "\"gbytes_per_s\": " f); rate = substr($0, RSTART + 16, RLENGTH - 16)
                match($0, "\"share_of_copy\": " f); share = substr($0, RSTART + 17, RLENGTH - 17)
                print k "|" b "|" ms "|" rate / share }'
    done
    round=$((round + 1))
done > "$work/kernels"
echo "# $values values; %: bytes read and written in a second, of those of a plain copy, codes included"
awk -F'|' -v n=$values '
    !($1 in ms) { name[++names] = $1; bytes[$1] = $2; ms[$1] = $3 }
    $3 < ms[$1] { ms[$1] = $3 }
    $4 > copy { copy = $4 }
    END {
        printf "%-34s %8.1f ms %8.2f GB/s of values\n", "a plain copy", 8 * n / copy / 1e6, copy / 2
        for (i = 1; i <= names; i++) {
            k = name[i]; t = ms[k]
            printf "%-34s %8.1f ms %8.2f GB/s of values %6.0f %%\n", k, t, 4 * n / t / 1e6, bytes[k] * n / t / 1e4 / copy
        } }' "$work/kernels"
best()          # KERNEL: milliseconds
{
    awk -F'|' -v k="$1" '$1 == k && (!t || $3 < t) { t = $3 } END { print t }' "$work/kernels"
}
stored=$(best "values cut, stored and held back") read=$(best "values cut and stored")
encoded=$(best "int8 encoded and held back") decoded=$(best "two of int8 decoded")

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
    printf '%-6s %10s %10s %10s %10s %8s %8s %12s %12s\n' "$1" bytes "fp32 ms" "bf16 ms" "int8 ms" "bf16 x" "int8 x" \
        "bf16, all x" "int8, all x"
    bytes=1048576
    while [ "$bytes" -le "$most" ]; do
        round=0
        while [ $round -lt "$rounds" ]; do
            full=$(measure "$1" allreduce f32 "$bytes") && half=$(measure "$1" allreduce bf16 $((bytes / 2))) \
                && part=$(measure "$1" all-gather f32 $((bytes / 512 * 264))) || return 1
            echo "$full $half $part"
            round=$((round + 1))
        done > "$work/times"
        awk -v w="$1" -v b="$bytes" -v s="$stored" -v r="$read" -v e="$encoded" -v d="$decoded" -v n=$values '
            NR == 1 { f = $1; h = $2; p = $3 }
            { f = $1 < f ? $1 : f; h = $2 < h ? $2 : h; p = $3 < p ? $3 : p }
            END {
                share = 2 * 1e3 * (b / 4) / n
                printf "%-6s %10d %10.2f %10.2f %10.2f %8.2f %8.2f %12.2f %12.2f\n", w, b, f / 1e3, h / 1e3, p / 1e3,
                    f / h, f / p, f / (h + share * (s + r)), f / (p + share * (e + d)) }' "$work/times"
        bytes=$((bytes * 4))
    done
}

echo "# two ranks, all gradients summed; x: times faster than fp32; all: with the device's work"
table shm || exit 1
if netns_pair "$rate"; then
    table tcp || exit 1
else
    echo "no network namespaces with limited links here: tcp left out"
fi

# ---- steps -----------------------------------------------------------------------------------

. "$root/tests/bench/small_model.sh"
small_model "$work"
round=0
while [ $round -lt "$rounds" ]; do
    for form in none bf16 int8 topk:0.01 auto; do
        rm -rf "$work/run"
        "$program" train --model "$work/model.json" --data "$work/text.txt" --tokenizer byte --out "$work/run" --seq 16 \
            --batch 2 --micro-batch 1 --steps 20 --warmup 0 --dropout 0 --eval-every 0 --save-every 0 --devices cpu:0/2 \
            --replicas 2 --stages 1 --transport shm --compress $form < /dev/null > "$work/out.0" 2> "$work/err" \
            || { cat "$work/err" >&2; exit 1; }
        sed -n 's/.*"step_ms": *\([0-9.]*\).*/'$form' \1/p' "$work/run/metrics.jsonl"
    done
    round=$((round + 1))
done > "$work/steps"
echo "# steps of two ranks, shm: the mean of the eight fastest"
printf '%-12s %10s %8s\n' form "step ms" "x"
for form in none bf16 int8 topk:0.01 auto; do
    grep "^$form " "$work/steps" | sort -k 2 -n | head -n 8 | awk '{ s += $2 } END { print $1, s / NR }'
done | awk 'NR == 1 { whole = $2 } { printf "%-12s %10.1f %8.2f\n", $1, $2, whole / $2 }'
