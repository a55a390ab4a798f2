#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/local.sh - replicas that train apart: one record, checkpoints where they meet, an end when asked.
. "$(dirname "$0")/../cli/cli_checks.sh"

if ! "$geartrain" devices | grep -q 'cpu:0'; then
    echo "no CPU device to divide"
    exit 77
fi
tiny="--model gpt2-tiny --data $text --tokenizer byte --seq 32 --batch 4 --eval-every 4 --save-every 4 --keep 0"
two="--devices cpu:0/2 --replicas 2 --stages 1 --sync local"

rows()  # RUN: steps of the record, in a line
{
    sed -n 's/^{"step": \([0-9]*\),.*/\1/p' "$1/metrics.jsonl" | tr '\n' ' '
}
saved() # RUN
{
    ls "$1/checkpoints" | grep '^step' | tr '\n' ' '
}

does "steps apart" 'step 12 ' train $tiny $two --steps 12 --local-steps 5 --outer nesterov --out run
check "have a row each" test "$(rows run)" = "1 2 3 4 5 6 7 8 9 10 11 12 "
check "checkpoints come where replicas meet" test "$(saved run)" = "step-000005 step-000010 step-000012 "
check "and validations" test "$(grep -c val_loss run/metrics.jsonl)" = 3
check "nothing is sent between" test "$(grep -c 'sent 0 B' stdout)" = 9
check "each replica keeps its optimizer's state" test -f run/checkpoints/step-000010/optimizer-00001.safetensors
check "outer momentum is there once" test -f run/checkpoints/step-000010/outer-00000.safetensors
check "and only once" test ! -f run/checkpoints/step-000010/outer-00001.safetensors
does "the run goes on as it was" 'step 15 ' train --out run --resume --steps 15
check "which it remembers" grep -q '"local-steps": "5"' run/config.json
does "sums of gradients go on from it" 'step 16 ' train --out run --resume --steps 16 --sync allreduce
does "and so does sharded state" 'step 17 ' train --out run --resume --steps 17 --sync sharded
does "and one rank" 'step 18 ' train --out run --resume --steps 18 --devices cpu:0
does "fragments go beside steps" 'step 12 ' train $tiny $two --steps 12 --local-steps 6 --fragments 3 --overlap 1 --out flow
check "replicas keep their own parameters" test -f flow/checkpoints/step-000006/replicas-00001.safetensors

as=exec
program train $tiny $two --steps 1000000 --local-steps 7 --out long > long.txt 2> long.err &
as=
turns=0
while [ ! -s long/metrics.jsonl ] && [ $turns -lt 600 ]; do
    sleep 0.1
    turns=$((turns + 1))
done
kill -INT $!
wait $!
at=$(sed -n 's/.*stopped after step \([0-9]*\) of.*/\1/p' long.err long.txt | head -n 1)
check "asked to end, replicas meet first" test "${at:-1}" -gt 0 -a $((${at:-1} % 7)) = 0
check "and leave a checkpoint" test -d "$(printf 'long/checkpoints/step-%06d' "${at:-0}")"

refuses "a compressor of gradients" 2 'leave out --compress bf16' train $tiny $two --steps 4 --compress bf16 --out other
refuses "one with a number behind it" 2 'leave out --compress topk:0.1' train $tiny $two --steps 4 --compress topk:0.1 --out other
refuses "one that is none" 2 "'fp4' is not one of" train $tiny $two --steps 4 --compress fp4 --out other
refuses "a rate that an average does not take" 2 'geartrain train: --outer-lr has no effect with --outer average; leave it out' \
    train $tiny $two --steps 4 --outer-lr 0.5 --out other
refuses "a share that sums do not take" 2 'geartrain train: --sparse-keep has no effect with --outer nesterov' \
    train $tiny $two --steps 4 --outer nesterov --sparse-keep 0.1 --out other
refuses "a mixture of nothing" 2 'geartrain train: --mix has no effect with --overlap 0' train $tiny $two --steps 4 --mix 0.3 --out other
refuses "more fragments than steps" 2 'more than one a step' train $tiny $two --steps 4 --local-steps 2 --fragments 3 --out other
refuses "its options without it" 2 'an option of --sync local' train $tiny --steps 4 --local-steps 2 --out other
close_checks
