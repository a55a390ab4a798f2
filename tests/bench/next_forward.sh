#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/next_forward.sh - new weights that come beside the next forward, next to sums that all must wait for.
#
#   sh tests/bench/next_forward.sh [--mbit N] [--steps N] [--rounds N]     [1000 12 3]
#
#      allreduce   backward ═ sums ═══════│ update │ forward            as many bytes,
#      sharded     backward ═ sums ═│ update │ ═ weights ═ forward      half of them beside the next forward
#      async       backward │ ═ gradients, weights ═ forward            as many, both kinds at once, and nobody waits
#
# Two replicas, each in a network namespace of its own, on a core of its own, over a link of N Mbit/s both ways. 10.8 M
# parameters, 6 layers of 384 channels, 8 sequences of 128 tokens a step. Modes take turns; the median of all steps but
# each run's first two, and how many times as fast as all-reduce.
#
#   $GEARTRAIN   the program      [build/geartrain]
#
# Needs root, ip and tc. A measurement; it fails if a run does.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
mbit=1000 steps=12 rounds=3
while [ $# -gt 0 ]; do
    case $1 in
    --mbit) mbit=$2 ;;
    --steps) steps=$2 ;;
    --rounds) rounds=$2 ;;
    *) sed -n '2,16s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift 2 || exit 2
done
program=${GEARTRAIN:-$root/build/geartrain}
. "$root/tests/bench/netns.sh"
netns_pair "$mbit" || { echo "next_forward.sh: cannot make network namespaces with a slow link here; skipped"; exit 77; }

. "$root/tests/bench/small_model.sh"
small_model "$work"
export GEARTRAIN_CACHE="$work/cache"

run()           # NAME OPTIONS...: its steps behind those of earlier rounds
{
    name=$1
    shift
    rm -rf "$work/run"
    netns_run 2 "$program" train --model "$work/model.json" --data "$work/text.txt" --tokenizer byte \
        --out "$work/run" --seq 128 --batch 8 --micro-batch 4 --steps "$steps" --warmup 0 --lr 1e-3 \
        --lr-schedule constant --dropout 0 --eval-every 0 --save-every 0 --devices "cpu:0.%r/2" --replicas 2 --stages 1 \
        --transport tcp "$@" || { echo "$name fails:"; tail -n 3 "$work"/err.*; exit 1; }
    sed -n 's/.*"step_ms": *\([0-9.]*\).*/\1/p' "$work/run/metrics.jsonl" | sed 1,2d >> "$work/$name.ms"
}

round=0
while [ $round -lt "$rounds" ]; do
    run allreduce
    run sharded --sync sharded
    run ps --sync ps --servers 0:1,1:1
    run async --sync async --barrier-every 0
    round=$((round + 1))
done
echo "# two replicas of one core, $mbit Mbit/s, $rounds rounds of $steps steps"
printf '%-12s %10s %10s\n' sync 'ms/step' ratio
for name in allreduce sharded ps async; do
    sort -n "$work/$name.ms" | awk '{ x[NR] = $1 } END { print x[int((NR + 1) / 2)] }' > "$work/$name.median"
    awk -v n="$name" -v a="$(cat "$work/allreduce.median")" '{ printf "%-12s %10.1f %10.2f\n", n, $1, a / $1 }' \
        "$work/$name.median"
done
