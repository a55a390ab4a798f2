#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/sync/diloco.sh - two replicas under --sync local, and the same rules written out in PyTorch: losses of 40
# steps from the same weights on the same text, within 1 %. ${GT_PYTHON:-python3} has to have torch and transformers.
script=$(cd "$(dirname "$0")" && pwd)/diloco.py
. "$(dirname "$0")/../cli/cli_checks.sh"
python=${GT_PYTHON:-python3}
if ! "$python" -c 'import torch, transformers' 2> /dev/null; then
    echo "skipped: no Python packages torch and transformers in '$python' (\$GT_PYTHON names another)"
    exit 77
fi
if ! "$geartrain" devices | grep -q 'cpu:0'; then
    echo "no CPU device to divide"
    exit 77
fi

# The largest difference of two columns, as a share of the first.
apart()
{
    paste "$1" "$2" | awk '{ d = ($1 - $2) / $1; d = d < 0 ? -d : d; if (d > most) most = d } END { printf "%.6f", most }'
}

"$python" "$script" begin "$work" 2> python.log || { cat python.log; exit 1; }
for rule in average nesterov sparse; do
    program train --from base --tokenizer byte --data "$text" --out "$rule" --seq 32 --batch 4 --micro-batch 2 \
        --steps 40 --order sequential --lr 3e-3 --lr-schedule constant --warmup 0 --clip 1 --weight-decay 0.1 \
        --beta2 0.95 --dropout 0 --eval-every 0 --devices cpu:0/2 --replicas 2 --stages 1 --sync local --local-steps 8 \
        --outer "$rule" > stdout 2> stderr || cat stderr
    sed -n 's/.*"loss": *\([0-9.e+-]*\).*/\1/p' "$rule/metrics.jsonl" > ours
    "$python" "$script" train "$work" "$text" "$rule" 2> python.log || cat python.log
    check "$rule: 40 steps" test "$(wc -l < ours)" = 40 -a "$(wc -l < losses)" = 40
    most=$(apart losses ours)
    check "$rule: PyTorch's losses, apart by $most at most" awk -v d="$most" 'BEGIN { exit !(d != "" && d < 0.01) }'
    check "$rule: it learned" awk 'NR == 1 { a = $1 } END { exit !(NR == 40 && $1 < 0.9 * a) }' ours
done
echo "losses of the last 8 steps, after as many tokens:"
for rule in average nesterov sparse; do
    sed -n 's/.*"loss": *\([0-9.e+-]*\).*/\1/p' "$rule/metrics.jsonl" | tail -n 8 |
        awk -v r="$rule" '{ x += $1 / 8 } END { printf "  %-9s %.4f\n", r, x }'
done
close_checks
