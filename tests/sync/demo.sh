#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/sync/demo.sh - two workers with --compress demo, and DeMo written out in PyTorch: losses of 40 steps from
# the same weights on the same text, within 1 %. ${GT_PYTHON:-python3} has to have torch and transformers.
script=$(cd "$(dirname "$0")" && pwd)/demo.py
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

# An element whose average is nearly nothing has another sign after another rounding, and moves as far as any: so
# runs part from some step on.

# The largest difference of two columns, as a share of the first.
apart()
{
    paste "$1" "$2" | awk '$1 { d = ($1 - $2) / $1; d = d < 0 ? -d : d; if (d > most) most = d } END { printf "%.6f", most }'
}

"$python" "$script" begin "$work" 2> python.log || { cat python.log; exit 1; }
for k in 32 8; do
    program train --from base --tokenizer byte --data "$text" --out "run$k" --seq 32 --batch 4 --micro-batch 2 \
        --steps 40 --order sequential --optimizer lion --beta1 0 --lr 3e-4 --lr-schedule constant --warmup 0 --clip 0 \
        --weight-decay 0.1 --dropout 0 --eval-every 0 --devices cpu:0/2 --replicas 2 --stages 1 \
        --compress "demo:$k,decay=0.9" > stdout 2> stderr || cat stderr
    sed -n 's/.*"loss": *\([0-9.e+-]*\).*/\1/p' "run$k/metrics.jsonl" > ours
    "$python" "$script" train "$work" "$text" "$k" 2> python.log || cat python.log
    check "demo:$k: 40 steps" test "$(wc -l < ours)" = 40 -a "$(wc -l < losses)" = 40
    head -n 6 losses > first
    head -n 6 ours > second
    check "demo:$k: the same at first" awk -v d="$(apart first second)" 'BEGIN { exit !(d != "" && d < 1e-5) }'
    most=$(apart losses ours)
    check "demo:$k: PyTorch's losses, apart by $most at most" \
        awk -v d="$most" 'BEGIN { exit !(d != "" && d < 0.01) }'
    check "demo:$k: it learned" awk 'NR == 1 { a = $1 } END { exit !(NR == 40 && $1 < 0.9 * a) }' ours
done
close_checks
