#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/measured.sh - what a validation and `eval` measure, and that they say it.
. "$(dirname "$0")/cli_checks.sh"

number()    # FILE: the loss that eval printed
{
    sed -n 's/^loss \([0-9.]*\) .*/\1/p' "$1"
}
near()      # A B
{
    awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && b != "" && (a - b) ^ 2 < 1e-10) }'
}
train()     # RUN OPTIONS...
{
    timeout 300 "$geartrain" train --model gpt2-tiny --tokenizer char --seq 32 --out "$@" > stdout 2> stderr
}
evaluate()  # FILE OPTIONS...
{
    to=$1
    shift
    timeout 300 "$geartrain" eval "$@" > "$to" 2> stderr
}

# ---- while training: one value whatever the micro-batch -----------------------------------------

for micro in 1 2 3 6; do
    train run-$micro --data "$text" --batch 6 --micro-batch $micro --steps 1 --lr 0 --eval-every 1 --eval-batches 2 \
        || fail "train with micro-batches of $micro" "exit $?"
    loss=$(sed -n 's/.*"val_loss": \([0-9.]*\),.* "val_tokens": 384[,}].*/\1/p' run-$micro/metrics.jsonl)
    check "micro-batch $micro: 12 sequences are validated on" [ -n "$loss" ]
    check "micro-batch $micro: with the same loss" near "$loss" "${first:=$loss}"
done
check "it is said on how much" grep -q '^eval    every 1 steps on 12 of 22 sequences of 32 tokens: the validation part of ' stderr
train two --data "$text" --batch 6 --steps 1 --lr 0 --eval-every 1 --eval-batches 2 --devices cpu:0/2 --transport shm \
    || fail "train on two ranks" "exit $?"
loss=$(sed -n 's/.*"val_loss": \([0-9.]*\),.* "val_tokens": 384[,}].*/\1/p' two/metrics.jsonl)
check "two ranks: the same loss" near "$loss" "$first"

head -c 1000 "$text" > other.txt
train run --data "$text" --batch 4 --steps 3 --eval-every 3 --eval-data other.txt
check "--eval-data: all of a text" grep -q '^eval    every 3 steps on 31 of 31 sequences of 32 tokens: other.txt' stderr
check "--eval-data: which its tokens show" grep -q '"val_tokens": 992' run/metrics.jsonl

# ---- eval -----------------------------------------------------------------------------------------

evaluate val --from run --data "$text" --seq 32
check "the run's text: what it was not trained on" \
    grep -q "^measured 22 of 22 sequences of 32 tokens: the validation part.* the run was trained on the rest" val
cp "$text" copy.txt
evaluate copy --from run --data copy.txt --seq 32
check "under any name" [ "$(number copy)" = "$(number val)" ]
evaluate other --from run --data other.txt --seq 32
check "another text: all of it" grep -q "^measured 31 of 31 sequences of 32 tokens: all of 'other.txt'$" other
evaluate all --from run --data "$text" --seq 32 --split all
check "--split all: all of it, seen or not" grep -q "^measured 229 of 229 .*: all of .*, which the run was trained on" all
evaluate train --from run --data "$text" --seq 32 --split train
check "--split train" grep -q "^measured 206 of 206 .*: the training part of .*, which the run was trained on" train
evaluate some --from run --data "$text" --seq 32 --batch 4 --batches 3
check "--batches: so many" grep -q "^measured 12 of 22 " some
for batch in 1 2 3 5; do
    evaluate by --from run --data "$text" --seq 32 --batch $batch
    check "eval by $batch sequences: the same loss" near "$(number by)" "$(number val)"
done
does "eval --json says it as well" '"split": "val", "trained_on": true, "sequences": 22, "of": 22, "seq": 32,' \
    eval --from run --data "$text" --seq 32 --json

"$geartrain" export run -o hf > stdout 2> stderr
evaluate exported --from hf --data "$text" --seq 32
check "a model that says not what it was trained on: all" grep -q "^measured 229 of 229 .*: all of '[^']*'$" exported

"$geartrain" tokenize "$text" --tokenizer run/tokenizer --val other.txt -o tokens > stdout 2> stderr
evaluate folder --from run --data tokens --seq 32
check "a folder: its validation shards" grep -q "^measured 31 of 31 .*: the validation shards of 'tokens'$" folder
evaluate folder --from run --data tokens --seq 32 --split all
check "a folder, --split all: all shards" grep -q "^measured 261 of 261 .*: all shards of 'tokens'$" folder
evaluate file --from run --data tokens/val-000000.bin --seq 32
check "a token file: all of it" grep -q "^measured 31 of 31 .*: all of 'tokens/val-000000.bin'$" file
refuses "a part that there is not" 1 "has no validation part; leave out --split" \
    eval --from run --data tokens/val-000000.bin --split val

# A checkpoint of an earlier version does not name its data: their path has to do.
manifest=run/checkpoints/step-000003/manifest.json
awk '/"data": *\{/ { skip = 1 } !skip { print } skip && /\}/ { skip = 0 }' $manifest > m && cp m $manifest
evaluate old --from run --data "$text" --seq 32
check "an earlier version's run knows its data by their path" [ "$(number old)" = "$(number val)" ]
evaluate old --from run --data copy.txt --seq 32
check "and by nothing else" grep -q "^measured 229 of 229 .*: all of 'copy.txt'$" old

# ---- too little to validate on ---------------------------------------------------------------------

head -c 250 "$text" > short.txt
train none --data short.txt --batch 4 --steps 2 --eval-every 0
check "a text too short to validate on is trained on" [ $? -eq 0 ]
train default --data short.txt --batch 4 --steps 2
check "also when nobody asked for validation" [ $? -eq 0 ]
check "which is said" grep -q 'eval    none: short.txt has a validation part of 25 tokens, a sequence takes 32 + 1' stderr
refuses "who asks for it is told" 1 "validation part of 'short.txt': it has 25 tokens.*--eval-data.*--seq.*--eval-every 0" \
    train --model gpt2-tiny --tokenizer char --seq 32 --data short.txt --batch 4 --steps 2 --eval-every 1 --out new
head -c 20 "$text" > tiny.txt
refuses "a validation text too short" 1 "cannot validate on 'tiny.txt': it has 20 tokens" \
    train --model gpt2-tiny --tokenizer char --seq 32 --data "$text" --batch 4 --steps 2 --eval-data tiny.txt --out new
refuses "a token file has none" 1 "validation part of 'tokens/train-000000.bin': it has 0 tokens" train --model gpt2-tiny \
    --tokenizer run/tokenizer --seq 32 --data tokens/train-000000.bin --batch 4 --steps 2 --eval-every 1 --out new
check "nothing was left by what was refused" [ ! -e new ]

# ---- token files --------------------------------------------------------------------------------------

wide()      # the ids of a 16-bit shard as 32-bit ones, without a header
{
    tail -c +1025 "$1" | od -An -v -tu2 -w2 | awk '{ printf "%c%c%c%c", $1 % 256, int($1 / 256), 0, 0 }'
}
LC_ALL=C wide tokens/train-000000.bin > train.bin 2> stderr
if [ "$(wc -c < train.bin)" -eq $((4 * ($(wc -c < tokens/train-000000.bin) - 1024) / 2)) ]; then
    set -- train --model gpt2-tiny --tokenizer run/tokenizer --seq 32 --batch 4 --steps 2 --eval-every 0
    refuses "32-bit ids that nobody names so" 1 "ids look like 32-bit ones; say --token-bits 32" \
        "$@" --data train.bin --out new
    "$geartrain" "$@" --data train.bin --token-bits 32 --out wide > stdout 2> stderr
    check "32-bit ids that are named so" [ $? -eq 0 ]
    "$geartrain" "$@" --data tokens/train-000000.bin --out narrow > stdout 2> stderr
    check "train to the same weights" cmp wide/checkpoints/step-000002/params.safetensors \
        narrow/checkpoints/step-000002/params.safetensors
    "$geartrain" train --out wide --resume --steps 3 > stdout 2> stderr
    check "and are read so after a resume" [ $? -eq 0 ]
    evaluate bits --from wide --data train.bin --token-bits 32 --seq 32
    check "eval takes --token-bits" grep -q "^measured 229 of 229" bits
    refuses "--token-bits against the header" 1 "16-bit ids by its header" \
        "$@" --data tokens/train-000000.bin --token-bits 32 --out new
    refuses "--token-bits for a text" 2 "--token-bits is for files of token ids" "$@" --data "$text" --token-bits 16 --out new
else
    echo "awk cannot print zero bytes: 32-bit ids are left to tests/data"
fi
printf 'hello\n' | gzip > text.gz
cat text.gz text.gz > text.txt.gz
does "tokenize: a compressed text" '10 training and 2 validation tokens of 256' tokenize text.txt.gz -o packed
does "tokenize: also for a tokenizer that is trained" '10 training and 2 validation tokens of 5' \
    tokenize text.txt.gz --tokenizer char -o packed-char
head -c 20 text.gz > cut.txt.gz
refuses "a compressed text that is not whole" 1 "cannot read 'cut.txt.gz': .* it is damaged or not whole" \
    train --model gpt2-tiny --seq 32 --data cut.txt.gz --out new
refuses "tokenize: a compressed text that is not whole" 1 "it is damaged or not whole" tokenize cut.txt.gz -o new
check "nothing was left by what was refused either" [ ! -e new ]

# ---- a damaged cache ------------------------------------------------------------------------------------

for shard in "$GEARTRAIN_CACHE"/tokens/*/train-000000.bin; do
    head -c 1500 "$shard" > cut && cp cut "$shard"
done
train healed --data "$text" --batch 4 --steps 1
check "a damaged token cache does not stop a run" [ $? -eq 0 ]
check "it is made again with one warning" [ "$(grep -c 'warning: tokenizing anew, what was kept is damaged' stderr)" -eq 1 ]
train healed2 --data "$text" --batch 4 --steps 1
check "once" eval '! grep -q warning stderr'

close_checks
