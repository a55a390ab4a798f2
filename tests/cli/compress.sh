#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/compress.sh - gradients in fewer bytes between ranks: what is sent, what a checkpoint holds of it, and
# what has no meaning is said.
. "$(dirname "$0")/../cli/cli_checks.sh"

if ! "$geartrain" devices | grep -q 'cpu:0'; then
    echo "no CPU device to divide"
    exit 77
fi
tiny="--model gpt2-tiny --data $text --tokenizer byte --seq 32 --batch 4 --steps 4 --eval-every 0 --save-every 2"
two="--devices cpu:0/2 --replicas 2 --stages 1"

# sent FILE: megabytes of the last step, as the run told them.
sent()
{
    sed -n 's/.*sent \([0-9.]*\) \([kMG]\)B.*/\1 \2/p' "$1" | tail -n 1 \
        | awk '{ print $1 * ($2 == "G" ? 1000 : $2 == "k" ? 0.001 : 1) }'
}
loss()  # RUN
{
    sed -n 's/.*"loss": \([0-9.]*\).*/\1/p' "$1/metrics.jsonl" | tail -n 1
}

does "gradients in fp32" 'sent' train $tiny $two --out whole
cp stdout whole.txt
does "gradients in bf16" 'sent' train $tiny $two --out half --compress bf16
cp stdout half.txt
check "take half the bytes" awk -v a="$(sent whole.txt)" -v b="$(sent half.txt)" \
    'BEGIN { exit !(a > 0 && b / a > 0.45 && b / a < 0.55) }'
check "and come to nearly the same loss" awk -v a="$(loss whole)" -v b="$(loss half)" \
    'BEGIN { d = a - b; exit !(a > 0 && d < 0.01 && d > -0.01) }'
check "each rank keeps what rounding took" test -f half/checkpoints/step-000004/residuals-00001.safetensors
check "as without compression none does" test ! -f whole/checkpoints/step-000004/residuals-00001.safetensors
check "the run remembers it" grep -q '"compress": "bf16"' half/config.json

does "a run goes on with it" 'step 6 ' train --out half --resume --steps 6
check "and keeps it still" test -f half/checkpoints/step-000006/residuals-00000.safetensors
does "or without" 'step 8 ' train --out half --resume --steps 8 --compress none
check "which is said" grep -q 'residuals, which this run does not keep' stderr
check "and they are gone" test ! -f half/checkpoints/step-000008/residuals-00000.safetensors

does "one rank has nobody to send to" 'step 4 ' train $tiny --devices cpu:0 --out alone --compress bf16
check "and is told so" grep -q 'there is one rank, so --compress does nothing' stderr
refuses "a form that is none" 2 "'fp4' is not one of none[|]bf16" train $tiny $two --out other --compress fp4
close_checks
