#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/plan_here.sh - plans for the devices that are here: shown, written, followed by train, and what
# cannot be planned said in one sentence.
. "$(dirname "$0")/../cli/cli_checks.sh"

if ! "$geartrain" devices | grep -q 'cpu:0'; then
    echo "no CPU device to divide"
    exit 77
fi
two="--devices cpu:0.0,cpu:0.1"
tiny="--model gpt2-tiny --seq 32 --batch 8"

does "one device is planned for" '^step +[0-9.]+ ms, .* idle \(predicted\)$' plan $tiny --devices cpu:0
check "the whole model lies on it" grep -q 'embedding, layers 0-[0-9]*, head' stdout
check "it was measured" grep -q 'measured now' stdout
does "the next time nothing is measured" 'from the cache' plan $tiny --devices cpu:0
does "unless it is asked for" 'measured now' plan $tiny --devices cpu:0 --again

does "two devices are planned for" '^plan +2 ranks in' plan $tiny $two --out two.json --timeline step.svg
check "the runners-up are told" grep -q '^runners-up' stdout
check "memory is told with its limit" grep -Eq '[0-9.]+ [MG]B of [0-9.]+ [MG]B ' stdout
check "the picture is one" grep -q '</svg>' step.svg
check "the plan is in the file" grep -q '"format": "geartrain plan 1"' two.json

# memory_of FILE: bytes of the first stage, in MB.
memory_of()
{
    awk '$3 == "cpu:0" { print $7 * ($8 == "GB" ? 1000 : $8 == "kB" ? 0.001 : 1); exit }' "$1"
}
whole="$tiny --devices cpu:0 --micro-batch 8"
does "another rule is planned with" 'measured now' plan $whole --optimizer adafactor
cp stdout adafactor.txt
does "and known the next time" 'from the cache' plan $whole --optimizer adafactor
does "but not as the usual one" 'measured now' plan $whole
cp stdout adamw.txt
check "it takes two fp32 less for each of 171k parameters than AdamW" awk -v a="$(memory_of adafactor.txt)" -v b="$(memory_of adamw.txt)" \
    'BEGIN { exit !(a > 0 && b - a > 1.3 && b - a < 1.45) }'
refuses "a rule that is none" 2 "'adam' is not one of adamw" plan $tiny --devices cpu:0 --optimizer adam

does "what is asked for is kept" '^plan +2 ranks in 1 replica, zb-h1' plan $tiny $two --stages 2 \
    --schedule zb-h1 --out pipe.json
check "with both stages" grep -Eq '^ +1 +[01] +cpu:0\.[01] ' stdout
check "in the file as well" grep -q '"schedule": "zb-h1"' pipe.json
does "one object" '"runners_up": \[' plan $tiny $two --json
if command -v python3 > /dev/null; then
    check "that is JSON" python3 -m json.tool stdout /dev/null
fi

does "train follows the plan" 'step 3 ' train $tiny $two --data "$text" --tokenizer char --out run --steps 3 \
    --eval-every 0 --plan pipe.json
check "and keeps it" grep -q '"schedule": "zb-h1"' run/plan.json

refuses "a batch that does not divide" 2 'batch 8 is not a multiple of micro-batch 3' plan $tiny --devices cpu:0 \
    --micro-batch 3
refuses "words that are no number" 2 "--stages: 'two'" plan $tiny --stages two
refuses "a cluster and devices at once" 2 '--devices is for devices that are here' plan $tiny --cluster x $two
refuses "more stages than units" 2 '99 stages cannot be made of' plan $tiny --devices cpu:0 --stages 99
refuses "a model that fits nowhere" 1 'all devices together may use' plan --model gpt3-175b --devices cpu:0
refuses "a folder that is not there" 1 'nowhere/plan.json' plan $tiny --devices cpu:0 --out nowhere/plan.json
close_checks
