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

loss_of() # RUN STEP
{
    sed -n "s/^{\"step\": $2, .*\"loss\": \([0-9.e+-]*\),.*/\1/p" "$1/metrics.jsonl"
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

tokens() # RUN FIRST LAST: so many tokens each of these steps was of, in a line
{
    sed -n 's/^{"step": \([0-9]*\), .*"tokens": \([0-9]*\),.*/\1 \2/p' "$1/metrics.jsonl" |
        awk -v first="$2" -v last="$3" '$1 >= first && $1 <= last { printf "%d ", $2 - before } { before = $2 }'
}
uneven="$tiny --sync local --replicas 2 --stages 1 --devices cpu:0.0/2,cpu:0.1/2@0.2 --local-steps 8 --steps 24 --save-every 8"
GT_LOG=sync:info
export GT_LOG
does "a slower replica makes fewer steps" 'step 24 ' train $uneven --local-uneven auto --out slow
check "which is said" grep -q 'from step 9 on replicas make 8:[1-7] of 8 steps' stderr
unset GT_LOG
check "all make the first round's" test "$(tokens slow 1 8)" = "128 128 128 128 128 128 128 128 "
check "then steps are of those who make them" test "$(tokens slow 9 16 | tr ' ' '\n' | grep -c '^64$')" -gt 0
check "all make the round's last" test "$(tokens slow 16 16)" = "128 "
tokens slow 9 16 > before
cp -r slow again
rm -rf again/checkpoints/step-000016 again/checkpoints/step-000024
does "a run that goes on" 'step 24 ' train --out again --resume
check "has replicas make the steps that were agreed" test "$(tokens again 9 16)" = "$(cat before)"
check "and the same losses" test "$(loss_of slow 16)" = "$(loss_of again 16)"
does "they can be said" 'step 16 ' train $uneven --steps 16 --local-uneven 8:2 --out said
check "and are made" test "$(tokens said 1 8)" = "64 64 64 128 64 64 64 128 "
refuses "steps of other replicas" 2 'is for 3 replicas, and there are 2' train $uneven --local-uneven 8:2:2 --out other
refuses "steps beyond a round" 2 'give --local-steps 9' train $uneven --local-uneven 9:2 --out other

as=exec
program train $tiny $two --steps 1000000 --local-steps 7 --out long > long.txt 2> long.err &
as=
turns=0
while [ ! -s long/metrics.jsonl ] && [ $turns -lt 2400 ]; do
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
