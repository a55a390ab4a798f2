#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/compensation.sh - how near asynchronous training comes to synchronous after the same samples, with delay
# compensation and without, over five orders of updates.
#
#   compensation.sh [LAMBDA...]        [2 20 1,adaptive]
#
# Four replicas, plain gradient descent, 200 steps; a push moves the weights by its share of the step's batch, so that
# without delays both are the same to first order. The loss is the mean of the last 40 steps. The orders are
# drawn from seeds: a second run prints the same.
# $GEARTRAIN [build/geartrain], $DATA a text [README.md], $LR [0.08].
set -u
cd "$(dirname "$0")/../.." || exit 1
: "${GEARTRAIN:=$PWD/build/geartrain}" "${DATA:=README.md}" "${LR:=0.08}"
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-compensation-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
export GEARTRAIN_CACHE="$work/cache"
[ $# -gt 0 ] || set -- 2 20 1,adaptive

loss()  # OPTIONS...
{
    rm -rf "$work/run"
    timeout 600 "$GEARTRAIN" train --model gpt2-tiny --data "$DATA" --tokenizer char --out "$work/run" --steps 200 --batch 4 \
        --seq 32 --devices cpu:0.0,cpu:0.0,cpu:0.1,cpu:0.1 --replicas 4 --stages 1 --micro-batch 1 --eval-every 0 \
        --save-every 0 --optimizer sgd --momentum 0 --lr "$LR" --lr-schedule constant --clip 0 --weight-decay 0 "$@" \
        > "$work/out" 2>&1 || { tail -n 1 "$work/out" >&2; exit 1; }
    sed -n 's/.*"loss": \([0-9.]*\).*/\1/p' "$work/run/metrics.jsonl" | tail -n 40 | awk '{ s += $1 } END { printf "%.4f", s / NR }'
}

sync=$(loss --sync ps) || exit 1
printf 'synchronous: %s\n%-6s %10s' "$sync" seed "lambda 0"
for lambda; do printf ' %14s' "$lambda"; done
echo "      above the synchronous loss"
for seed in 1 2 3 4 5; do
    printf '%-6s' "$seed"
    for lambda in 0 "$@"; do
        at=$(loss --sync async --staleness 8 --simulate-delay $seed --barrier-every 0 --lr-scale batch \
            --delay-compensation "$lambda") || exit 1
        printf ' %14s' "$(awk -v a="$at" -v b="$sync" 'BEGIN { printf "%+.4f", a - b }')"
    done
    echo
done
