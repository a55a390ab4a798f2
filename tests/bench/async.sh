#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/async.sh - how much of the sum of two workers' speeds each way of staying together reaches, one of
# them slowed.
#
#   async.sh [SPEED]                   [0.25] of the second device; needs a quiet machine
#
# $GEARTRAIN [build/geartrain], $STEPS [64] measured after as many, $ROUNDS [2] in turns; the best counts. "alone" are
# the two devices at once, each training by itself: whatever they take from each other is in the sum. Sequences
# a second are those of the last $STEPS steps, from the times in metrics.jsonl.
set -u
cd "$(dirname "$0")/../.." || exit 1
: "${GEARTRAIN:=$PWD/build/geartrain}" "${STEPS:=64}" "${ROUNDS:=2}" "${BATCH:=20}"
speed=${1:-0.25}
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-async-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
i=0
while [ $i -lt 20000 ]; do
    echo "$i wheels turn $((i * 7919 % 10007)) teeth, then $((i * i % 9973)) more of them"
    i=$((i + 1))
done > "$work/text.txt"
cat > "$work/model.json" <<'END'
{ "model_type": "gpt2", "n_layer": 4, "n_head": 4, "n_embd": 256, "n_positions": 128, "n_ctx": 128 }
END
export GEARTRAIN_CACHE="$work/cache"
first=cpu:0.0 second=cpu:0.1@$speed

# train OUT BATCH OPTIONS...
train()
{
    out=$1 batch=$2
    shift 2
    timeout 1800 "$GEARTRAIN" train --model "$work/model.json" --data "$work/text.txt" --tokenizer byte --out "$out" \
        --seq 128 --batch "$batch" --steps $((2 * STEPS)) --eval-every 0 --save-every 0 --dropout 0 --lr 1e-4 \
        "$@" > "$out.out" 2> "$out.err" || { tail -n 1 "$out.err" >&2; exit 1; }
}

# rate OUT BATCH: sequences a second of the last STEPS steps
rate()
{
    sed -n 's/.*"step_ms": *\([0-9.]*\).*/\1/p' "$1/metrics.jsonl" | tail -n "$STEPS" \
        | awk -v n="$2" '{ ms += $1; k++ } END { print 1000 * n * k / ms }'
}
note() { echo "$1 $2" >> "$work/raw"; }

# both RUN: each alone, at the same time, with about its part of the batch
both()
{
    quick=$(awk -v b="$BATCH" -v s="$speed" 'BEGIN { x = int(b / (1 + s) + 0.5); print x }')
    train "$work/a$1" "$quick" --devices "$first" --micro-batch 1 &
    one=$!
    train "$work/b$1" $((BATCH - quick)) --devices "$second" --micro-batch 1 || exit 1
    wait $one || exit 1
    note alone "$(awk -v a="$(rate "$work/a$1" "$quick")" -v b="$(rate "$work/b$1" $((BATCH - quick)))" 'BEGIN { print a + b }')"
}

: > "$work/raw"
round=0
while [ $round -lt "$ROUNDS" ]; do
    both $round
    for mode in "allreduce" "ps" "ps --servers 0" "async --staleness 4 --barrier-every 0"; do
        name=$(echo "$mode" | tr ' ' '_')
        train "$work/$name$round" "$BATCH" --devices "$first,$second" --replicas 2 --stages 1 --micro-batch 1 --sync $mode
        note "$name" "$(rate "$work/$name$round" "$BATCH")"
    done
    round=$((round + 1))
done
echo "sequences a second, second device at $speed of its speed, $STEPS steps of $BATCH sequences, best of $ROUNDS"
sort -k 1,1 -k 2,2nr "$work/raw" | awk '!seen[$1]++ { v[$1] = $2; name[++n] = $1 }
    END { for (i = 1; i <= n; i++) printf "%-40s %8.2f  %6.1f %% of the sum\n", name[i], v[name[i]], 100 * v[name[i]] / v["alone"] }'
