#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/next_forward.sh - new weights that come beside the next forward, next to sums that all must wait for.
#
#   sh tests/bench/next_forward.sh [--mbit N] [--steps N] [--rounds N] [--delay TIME] [--modes "NAME..."]
#                                   [1000 12 3 none "allreduce sharded ps async"]
#
#      allreduce   backward ═ sums ═══════│ update │ forward            as many bytes,
#      sharded     backward ═ sums ═│ update │ ═ weights ═ forward      half of them beside the next forward
#      async       backward │ ═ gradients, weights ═ forward            as many, both kinds at once, and nobody waits
#
# Two replicas, each in a network namespace of its own, on a core of its own, over a link of N Mbit/s both ways. 10.8 M
# parameters, 6 layers of 384 channels, 8 sequences of 128 tokens a step. Modes take turns, each with what the next
# forward needs first going first, and ("as started") with --net priorities=0; --delay makes every message late by so
# much, so that several operations are under way at once. Medians of all steps but each run's first two: a step; how
# many times as fast as the first row; from the end of a step's backward pass until the weights of layer 0 are there
# (all that its forward pauses for before layer 1), and all that the forward waits for weights.
#
#   $GEARTRAIN   the program      [build/geartrain]
#
# Needs root, ip and tc. A measurement; it fails if a run does.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
mbit=1000 steps=12 rounds=3 delay='' modes="allreduce sharded ps async"
while [ $# -gt 0 ]; do
    case $1 in
    --mbit) mbit=$2 ;;
    --steps) steps=$2 ;;
    --rounds) rounds=$2 ;;
    --delay) delay=$2 ;;
    --modes) modes=$2 ;;
    *) sed -n '2,21s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift 2 || exit 2
done
program=${GEARTRAIN:-$root/build/geartrain}
. "$root/tests/bench/netns.sh"
netns_pair "$mbit" || { echo "next_forward.sh: cannot make network namespaces with a slow link here; skipped"; exit 77; }

. "$root/tests/bench/small_model.sh"
small_model "$work"
export GEARTRAIN_CACHE="$work/cache"

# Of rank 0, per step but the first two: "UNTIL_LAYER_0 WAITED", ms. A forward pauses before what it reads first, then
# before layer 0, then before the rest.
weights()       # TRACE
{
    awk '/"pid":0,/ && /"name":"(backward|step [0-9]*|new weights of the others|newest weights)"/ {
             match($0, /"ts":[0-9.]+/); ts = substr($0, RSTART + 5, RLENGTH - 5) / 1000
             match($0, /"dur":[0-9.]+/); dur = substr($0, RSTART + 6, RLENGTH - 6) / 1000
             if ($0 ~ /"backward"/) back[++backs] = ts + dur
             else if ($0 ~ /"step /) begin[++n] = ts
             else { at[++waits] = ts; long[waits] = dur }
         }
         END {
             for (s = 3; s <= n; s++) {
                 end = s < n ? begin[s + 1] : 1e18; over = 0; last = end
                 for (i = 1; i <= backs; i++) {
                     if (back[i] <= begin[s] && back[i] > over) over = back[i]
                     if (back[i] > begin[s] && back[i] < last) last = back[i]
                 }
                 k = sum = layer = 0
                 for (i = 1; i <= waits; i++)
                     if (at[i] >= begin[s] && at[i] < last) {
                         sum += long[i]
                         if (++k <= '"$early"') layer = at[i] + long[i] - over
                     }
                 if (k) print layer, sum
             }
         }' "$1"
}

run()           # NAME OPTIONS...: its steps behind those of earlier rounds
{
    name=$1
    shift
    rm -rf "$work/run"
    netns_run 2 "$program" train --model "$work/model.json" --data "$work/text.txt" --tokenizer byte \
        --out "$work/run" --seq 128 --batch 8 --micro-batch 4 --steps "$steps" --warmup 0 --lr 1e-3 \
        --lr-schedule constant --dropout 0 --eval-every 0 --save-every 0 --devices "cpu:0.%r/2" --replicas 2 --stages 1 \
        --transport tcp --trace "$work/trace.json" "$@" || { echo "$name fails:"; tail -n 3 "$work"/err.*; exit 1; }
    sed -n 's/.*"step_ms": *\([0-9.]*\).*/\1/p' "$work/run/metrics.jsonl" | sed 1,2d >> "$work/$name.ms"
    weights "$work/trace.json" >> "$work/$name.weights"
}

options_of()    # MODE
{
    case $1 in
    allreduce) echo ;;
    ps) echo --sync ps --servers 0:1,1:1 ;;
    async) echo --sync async --barrier-every 0 ;;
    *) echo "--sync $1" ;;
    esac
}

median()        # FILE COLUMN
{
    sort -n -k "$2" "$1" | awk -v c="$2" '{ x[NR] = $c } END { if (NR) print x[int((NR + 1) / 2)]; else print "-" }'
}

early=4 fault=${delay:+fault=delay=$delay,}
round=0
while [ $round -lt "$rounds" ]; do
    for mode in $modes; do
        # shellcheck disable=SC2046
        run "$mode" $(options_of "$mode") --net "${fault}priorities=1"
        # shellcheck disable=SC2046
        [ "$mode" = allreduce ] || run "$mode-started" $(options_of "$mode") --net "${fault}priorities=0"
    done
    round=$((round + 1))
done
echo "# two replicas of one core, $mbit Mbit/s${delay:+, messages $delay late}, $rounds rounds of $steps steps"
printf '%-22s %10s %10s %12s %10s\n' sync 'ms/step' ratio 'layer 0, ms' 'waits, ms'
first=
for mode in $modes; do
    for name in "$mode" "$mode-started"; do
        [ -f "$work/$name.ms" ] || continue
        ms=$(median "$work/$name.ms" 1)
        first=${first:-$ms}
        printf '%s %s %s %s %s\n' "$name" "$ms" "$first" "$(median "$work/$name.weights" 1)" \
            "$(median "$work/$name.weights" 2)" |
            awk '{ sub("-started", ", as started", $1); n = $1; if ($0 ~ /as started/) n = $1 " " $2 " " $3 }
                 { printf "%-22s %10.1f %10.2f %12s %10s\n", n, $(NF - 3), $(NF - 2) / $(NF - 3), $(NF - 1), $NF }'
    done
done
