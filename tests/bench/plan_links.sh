#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/plan_links.sh - what `plan --compare` predicts of ways to stay together, beside what they take, over a
# slow link.
#
#   sh tests/bench/plan_links.sh [--mbit N] [--ms N] [--steps N]     [100 20 6]
#
#      rank 0 ── a link of N Mbit/s, both ways, and so many milliseconds there and back ── rank 1
#
# Each rank in a network namespace of its own, one core a rank; 10.8 M parameters, 6 layers of 384 channels, 2 sequences
# of 64 tokens a step, so that links matter. One table is predicted from devices and links as they are measured there;
# then each way trains for --steps steps (steps apart: two rounds of 10), and the mean of all but the first is beside
# it. off: measured against predicted.
#
#   $GEARTRAIN   the program      [build/geartrain]
#
# Needs root, ip and tc. A measurement; it fails if a run does.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
mbit=100 ms=20 steps=6
while [ $# -gt 0 ]; do
    case $1 in
    --mbit) mbit=$2 ;;
    --ms) ms=$2 ;;
    --steps) steps=$2 ;;
    *) sed -n '2,18s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift 2 || exit 2
done
program=${GEARTRAIN:-$root/build/geartrain}
. "$root/tests/bench/netns.sh"
netns_pair "$mbit" || { echo "plan_links.sh: cannot make network namespaces with a slow link here; skipped"; exit 77; }

. "$root/tests/bench/small_model.sh"
small_model "$work"
export GEARTRAIN_CACHE="$work/cache"
shape="--model $work/model.json --seq 64 --batch 2 --micro-batch 1 --replicas 2 --stages 1 --transport tcp
       --net fault=delay=$((ms / 2))ms"

netns_run 2 "$program" plan $shape --devices "cpu:0.%r/2" --compare --json \
    || { echo "plan fails:"; tail -n 3 "$work"/err.*; exit 1; }
mv "$work/out.0" "$work/table.json"

predicted()     # WAY: seconds of a step, from the object that has it
{
    awk -v way="\"way\": \"$1\"" 'index($0, way) { found = 1 } found && /"step_s"/ { gsub(/[^0-9.e-]/, "", $2); print $2; exit }' \
        "$work/table.json"
}

run()           # STEPS WAY
{
    said=$(predicted "$2")
    [ -n "$said" ] || { echo "plan --compare has no '$2'"; exit 1; }
    rm -rf "$work/run"
    netns_run 2 "$program" train $shape --data "$work/text.txt" --tokenizer byte --out "$work/run" --steps "$1" \
        --lr 1e-3 --lr-schedule constant --dropout 0 --eval-every 0 --save-every 0 --devices "cpu:0.%r/2" $2 \
        || { echo "$2 fails:"; tail -n 3 "$work"/err.*; exit 1; }
    sed -n 's/.*"step_ms": *\([0-9.]*\).*/\1/p' "$work/run/metrics.jsonl" | awk -v w="$2" -v s="$said" '
        NR > 1 { t += $1 } END { m = t / (NR - 1) / 1e3; printf "%-50s %10.3f %10.3f %+7.0f %%\n", w, s, m, 100 * (m / s - 1) }'
}

echo "# two replicas of one core, $mbit Mbit/s, $ms ms there and back"
printf '%-50s %10s %10s %9s\n' "way" "predicted" "measured" off
run "$steps" "--sync allreduce"
run "$steps" "--sync sharded"
run "$steps" "--sync ps --servers 0"
run "$steps" "--sync allreduce --compress bf16"
run "$steps" "--sync allreduce --compress int8"
run "$steps" "--sync allreduce --compress topk:0.01"
run "$steps" "--sync async"
run 20 "--sync local --local-steps 10"
