#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/powersgd.sh - the loss of --compress powersgd next to that of PyTorch's PowerSGD hook over gloo.
#
#   powersgd.sh [RANK] [STEPS]        [2] [150]
#
# The same GPT-2 (0.6 M parameters), weights, batches, AdamW and clipping on two ranks each; the first two steps
# uncompressed on both sides, as the hook's error feedback asks. Only the first factor's random columns differ. Prints
# both curves as means of ten steps; fails where they are more than 1 % apart, or where without
# compression they are not the same to 0.1 %. Needs $GT_PYTHON [python3] with torch and transformers.
set -u
cd "$(dirname "$0")/../.." || exit 1
: "${GEARTRAIN:=$PWD/build/geartrain}" "${GT_PYTHON:=python3}"
rank=${1:-2} steps=${2:-150}
if ! "$GT_PYTHON" -c 'import torch, transformers' 2> /dev/null; then
    echo "no torch and transformers in $GT_PYTHON; name one that has them with \$GT_PYTHON"
    exit 77
fi
here=$PWD/tests/bench
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-powersgd-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
export GEARTRAIN_CACHE="$work/cache" HF_HUB_OFFLINE=1
"$GT_PYTHON" "$here/powersgd_torch.py" make "$work" || exit 1
failed=0

# compare APPROXIMATION FORM BOUND
compare()
{
    rm -rf "$work/store" "$work/run"
    timeout 600 "$GT_PYTHON" "$here/powersgd_torch.py" train "$work" 2 1 "$steps" "$1" 2 > /dev/null 2>&1 &
    timeout 600 "$GT_PYTHON" "$here/powersgd_torch.py" train "$work" 2 0 "$steps" "$1" 2 > "$work/err" 2>&1 \
        || { tail -n 3 "$work/err"; return 1; }
    wait
    timeout 600 "$GEARTRAIN" train --from "$work/hf" --data "$work/tokens.bin" --token-bits 16 --order sequential \
        --out "$work/run" --batch 16 --micro-batch 8 --seq 64 --steps "$steps" --lr 1e-3 --lr-schedule constant \
        --weight-decay 0.1 --clip 1 --dropout 0 --eval-every 0 --save-every 0 --devices cpu:0.0,cpu:0.1 --replicas 2 \
        --stages 1 --tensor 1 $2 > "$work/out" 2> "$work/err" || { tail -n 3 "$work/err"; return 1; }
    sed -n 's/.*"loss": *\([0-9.]*\).*/\1/p' "$work/run/metrics.jsonl" > "$work/ours.txt"
    paste "$work/torch.txt" "$work/ours.txt" | awk -v bound="$3" '
        { a += $1; b += $2 }
        NR % 10 == 0 {
            d = (b - a) / a
            if (d < 0) d = -d
            if (d > worst) worst = d
            printf "steps %4d-%-4d  torch %.4f  geartrain %.4f  apart %.2f %%\n", NR - 9, NR, a / 10, b / 10, 100 * d
            a = b = 0
        }
        END { printf "at most %.2f %% apart, %g %% allowed\n", 100 * worst, bound; exit !(NR > 9 && 100 * worst <= bound) }'
}

echo "uncompressed"
compare 0 "" 0.1 || failed=1
echo "powersgd:$rank"
compare "$rank" "--compress powersgd:$rank --compress-after 2" 1 || failed=1
sed -n 's/.*\(sent .*\)/\1 a step of Geartrain/p' "$work/out" | tail -n 1
exit $failed
