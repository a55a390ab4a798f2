#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/resume_data.sh - where in which data a resumed run goes on: by samples, whatever the
# batch was before; and never without a word on other data than the checkpoint's.
#
# With --lr 0 the weights stay as they were drawn, so a step's loss tells which samples it read.
. "$(dirname "$0")/cli_checks.sh"

model="--model gpt2-tiny --data $text --tokenizer char --lr 0 --eval-every 0"
run()       # NAME OPTIONS...: trains into NAME, or goes on there
{
    timeout 300 "$geartrain" train --out "$@" > stdout 2> stderr
}
loss()      # RUN STEP
{
    sed -n "s/.*\"step\": $2, \"loss\": \([^,]*\),.*/\1/p" "$1/metrics.jsonl"
}
tokens()    # RUN STEP
{
    sed -n "s/.*\"step\": $2,.*\"tokens\": \([0-9]*\),.*/\1/p" "$1/metrics.jsonl"
}
near()      # A B: equal but for what fp32 rounds
{
    awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && b != "" && (a - b) ^ 2 < 1e-10 * a * a) }'
}

# ---- another batch ------------------------------------------------------------------------------

for order in sequential shuffled; do
    set -- $model --order $order --seq 32
    run $order "$@" --batch 8 --steps 4 || fail "$order: train" "exit $?"
    cp -r $order $order-old
    run $order --resume --batch 4 --steps 6 || fail "$order: resume" "exit $?"
    check "$order: says where it goes on" grep -q 'after step 4 and 1024 tokens, at sample 32 ' stderr
    run by4-$order "$@" --batch 4 --steps 12 || fail "$order: by fours" "exit $?"
    for k in 5 6; do
        check "$order: step $k reads samples $((12 + k * 4)) to $((15 + k * 4))" \
            near "$(loss $order $k)" "$(loss by4-$order $((k + 4)))"
        check "$order: and no other samples" \
            [ "$(loss $order $k)" != "$(loss by4-$order $((2 * k)))" ]
    done
    check "$order: tokens go on" [ "$(tokens $order 5),$(tokens $order 6)" = 1152,1280 ]
    run $order --resume --batch 16 --steps 7
    check "$order: 16 after 4, tokens" [ "$(tokens $order 7)" = 1792 ]
    # Samples 40-47 are steps 11 and 12 by fours; 48-55 is step 7 by eights.
    run by8-$order "$@" --batch 8 --steps 7
    mean=$(awk -v a="$(loss by8-$order 6)" -v b="$(loss by8-$order 7)" 'BEGIN { printf "%.9g", (a + b) / 2 }')
    check "$order: 16 after 4 reads samples 40 to 55" near "$(loss $order 7)" "$mean"

    # A manifest of an earlier version says steps and tokens only.
    manifest=$order-old/checkpoints/step-000004/manifest.json
    awk '/"data": *\{/ { skip = 1 } !skip { print } skip && /\}/ { skip = 0 }' $manifest > m && cp m $manifest
    check "$order: the position is taken out" eval '! grep -q samples '$manifest
    run $order-old --resume --batch 4 --steps 6 || fail "$order: resume of an earlier version" "exit $?"
    check "$order: an earlier version's run goes on there as well" \
        [ "$(loss $order-old 5),$(loss $order-old 6)" = "$(loss $order 5),$(loss $order 6)" ]
done

# Nothing changed: nothing changes, to the bit.
set -- --model gpt2-tiny --data "$text" --tokenizer char --seq 32 --batch 4 --eval-every 0 --warmup 2 --steps 8
run straight "$@" --save-every 4 --keep 0
cp -r straight cut
rm -r cut/checkpoints/step-000008
run cut --resume
check "an unchanged resume repeats the bits" cmp -s straight/checkpoints/step-000008/params.safetensors \
    cut/checkpoints/step-000008/params.safetensors
check "and the position" cmp -s straight/checkpoints/step-000008/manifest.json \
    cut/checkpoints/step-000008/manifest.json

# ---- two ranks, whatever the plan ---------------------------------------------------------------

set -- $model --order sequential --seq 32 --transport shm
run two "$@" --devices cpu:0/2 --batch 8 --steps 4 || fail "two ranks: train" "exit $?"
run two --resume --batch 4 --steps 6 || fail "two ranks: resume" "exit $?"
check "two ranks read the same samples" near "$(loss two 5)" "$(loss sequential 5)"
check "two ranks count the same tokens" [ "$(tokens two 6)" = 1280 ]

# ---- other lengths, orders and data ------------------------------------------------------------------

run lengths $model --order sequential --seq 32 --batch 4 --steps 4
run lengths --resume --seq 64 --steps 5
check "another --seq is told" grep -q 'sequences have 64 tokens, and had 32' stderr
check "another --seq goes on at the same token" grep -q 'after step 4 and 512 tokens, at sample 8 ' stderr
check "and counts on" [ "$(tokens lengths 5)" = 768 ]
run orders $model --order sequential --seq 32 --batch 4 --steps 4
run orders --resume --order shuffled --steps 5
check "another --order is told" grep -q 'order of the samples is another.*begins at the start' stderr
check "another --order begins" grep -q 'at sample 0 ' stderr

cp "$text" changing.txt
run changing --model gpt2-tiny --data changing.txt --tokenizer char --lr 0 --eval-every 0 --seq 32 --batch 4 --steps 4
sed 's/wheel/teeth/' "$text" > changing.txt
refuses "other data under the same path" 1 \
    "step-000004'.*trained on [0-9]+ tokens with checksum [0-9a-f]+, and the data hold [0-9]+ with.*--data" \
    train --out changing --resume --steps 5
check "the run is as it was" [ "$(wc -l < changing/metrics.jsonl)" -eq 4 ]
run changing --resume --steps 5 --data changing.txt
check "other data that are named are trained on" [ $? -eq 0 ]
check "which is told" grep -q 'data are not those of the checkpoint; training begins at their start' stderr
check "they begin at their start" grep -q 'after step 4 and 512 tokens, at sample 0 ' stderr
run changing --resume --steps 6
check "from then on they are the run's" [ $? -eq 0 ]
check "without a word" eval '! grep -q WARN stderr'

cp -r straight other
refuses "AdamW's moments for SGD" 1 "begun with adamw, whose state.*--from" train --out other --resume --optimizer sgd --steps 9
train_tiny --optimizer sgd --momentum 0 --micro-batch 4 --steps 2 --eval-every 0 --out sgd > stdout 2> stderr
check "an SGD run" [ $? -eq 0 ]
refuses "nothing of SGD for AdamW" 1 "with --optimizer adamw: it was begun with sgd" \
    train --out sgd --resume --optimizer adamw --steps 9
refuses "a batch that the run's micro-batch does not divide" 2 \
    "batch 2 is not a multiple of micro-batch 4 of the run's config.json;" \
    train --out sgd --resume --batch 2 --steps 9
refuses "a micro-batch that does not divide the run's batch" 2 \
    "batch 4 of the run's config.json is not a multiple of micro-batch 3;" \
    train --out sgd --resume --micro-batch 3 --steps 9

# ---- from anywhere ---------------------------------------------------------------------------------

mkdir -p here elsewhere
cp "$text" here/text.txt
(cd here && "$geartrain" train --out run --model gpt2-tiny --data text.txt --eval-data text.txt --tokenizer char \
    --seq 32 --batch 4 --steps 2 --eval-every 2 > ../stdout 2> ../stderr) || fail "a relative --data" "exit $?"
(cd elsewhere && "$geartrain" train --out ../here/run --resume --steps 4 > ../stdout 2> ../stderr)
check "a run with a relative --data goes on from another folder" [ $? -eq 0 ]
(cd here && "$geartrain" export run -o hf && cp -r run/tokenizer tok && "$geartrain" train --out fine --from hf \
    --model hf --tokenizer hf --data text.txt --seq 32 --batch 4 --steps 2 --eval-every 0) > stdout 2> stderr \
    || fail "relative folders" "exit $?"
(cd elsewhere && "$geartrain" train --out ../here/fine --resume --steps 3 > ../stdout 2> ../stderr)
check "relative --from, --model and --tokenizer as well" [ $? -eq 0 ]
rm -r here/fine/checkpoints
(cd elsewhere && "$geartrain" train --out ../here/fine --resume --steps 2 > ../stdout 2> ../stderr)
check "even when the weights are asked for again" [ $? -eq 0 ]

close_checks
