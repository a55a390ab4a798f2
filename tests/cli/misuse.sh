#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/misuse.sh - whatever is asked for wrongly gets one sentence that says what and
# what to do, the right exit status (2 misuse, 1 failed), and leaves nothing behind.
. "$(dirname "$0")/cli_checks.sh"
good="--model gpt2-tiny --data $text --tokenizer char --seq 32 --batch 4 --steps 2"

train_tiny --steps 2 --out run > stdout 2> stderr || { echo "cannot train"; cat stderr; exit 1; }
printf 'abc \377\376 def%.0s' 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 > broken.txt
: > empty.txt
printf 'hi' > short.txt
mkdir emptydir

# ---- words and options -------------------------------------------------------------------------

"$geartrain" > stdout 2> stderr
check "no verb: help, and status 2" [ $? -eq 2 ] && grep -q '^Usage' stderr
refuses "an unknown verb" 2 "unknown verb 'frobnicate'; .geartrain -h. lists" frobnicate
refuses "a mistyped verb" 2 "unknown verb 'trian'; did you mean train\?" trian
for verb in devices tokenize train eval generate bench export doctor plan launch; do
    refuses "$verb: an unknown option" 2 "unknown option '--frobnicate'" $verb --frobnicate
done
refuses "a mistyped option" 2 'did you mean --model\?' train --modle gpt2-tiny
refuses "an option without its value" 2 "'--steps' needs a value" train --steps
refuses "a number that is none" 2 "option --steps: 'many' is not a whole number" train --steps many
refuses "a negative count" 2 "option --steps: '-1'" train --steps -1
refuses "a fraction that is none" 2 "option --lr: 'fast' is not a number" train --lr fast
refuses "a choice that is none" 2 "'fp8' is not one of fp32\|bf16\|fp16" train --precision fp8
refuses "a flag with a value" 2 'takes no value' train --resume=yes
refuses "train without anything" 2 '--out RUN' train
refuses "train without data" 2 '\-\-data FILE\|DIR is missing; usage: geartrain train' train --model gpt2-tiny --out new
refuses "train without a model" 2 '\-\-model NAME\|FILE\|DIR is missing' train --data "$text" --out new
refuses "train with a word" 2 "'word'" train word --out new
refuses "eval without anything" 2 '\-\-from RUN\|DIR is missing; usage: geartrain eval' eval
refuses "eval without data" 2 '\-\-data FILE\|DIR is missing' eval --from run
refuses "eval with a word" 2 "eval takes no words such as 'word'" eval word --from run --data "$text"
refuses "generate without anything" 2 '\-\-from RUN\|DIR is missing; usage: geartrain generate' generate
refuses "generate with a word" 2 "generate takes no words such as 'word'" generate word --from run
refuses "export without a folder" 2 '\-o DIR is missing; usage: geartrain export' export run
refuses "export without a run" 2 'RUN is missing' export -o new
refuses "export of two runs" 2 "one run, not 'other' as well" export run other -o new
refuses "plan without a model" 2 '\-\-model NAME\|FILE is missing; usage: geartrain plan' plan
refuses "launch without a number" 2 '\-\-ranks N, --hosts FILE, --elastic MIN:MAX or --join ADDRESS is missing; usage: geartrain launch' launch -- train
refuses "launch without a verb" 2 '`-- VERB ...` is missing' launch --ranks 2
refuses "bench of nothing" 2 'what to measure is missing; usage: geartrain bench' bench
refuses "bench of two things" 2 "one name, not 'gemm' and 'step'" bench gemm step
refuses "bench link of two things" 2 "one name, not 'link' and 'more'" bench link more
refuses "tokenize without a text" 2 'which text\? is missing' tokenize -o new
refuses "tokenize without a folder" 2 'where to' tokenize "$text"
refuses "bench of nothing known" 2 "no bench 'frobnicate'" bench frobnicate
refuses "devices with a word" 2 "'word'" devices word

# ---- numbers out of range ------------------------------------------------------------------------

refuses "batch 0" 2 'option --batch: a step has at least 1 sequence' train $good --out new --batch 0
two="--devices cpu:0.0,cpu:0.1"
refuses "two ranks: batch 0, said once" 2 'option --batch: a step has at least 1 sequence' train $good --out new $two --batch 0
refuses "more replicas than ranks" 2 '3 replicas need at least 3 ranks, there are 2;' \
    train $good --out new $two --replicas 3
refuses "replicas of a tensor width" 2 '2 replicas of 2 tensor ranks need at least 4 ranks, there are 2;' \
    train $good --out new $two --replicas 2 --tensor 2
refuses "more replicas than one device" 2 '2 replicas of 1 stage need at least 2 ranks, there is 1;' \
    train $good --out new --replicas 2 --stages 1
refuses "two ranks: a warm-up longer than the run, said once" 2 'warm-up of 3 steps is longer than the run of 2' \
    train $good --out new $two --warmup 3
refuses "two ranks: a negative learning rate, said once" 2 'learning rate -1' train $good --out new $two --lr -1
refuses "0 steps" 2 'option --steps' train $good --out new --steps 0
refuses "a batch that micro-batches do not divide" 2 'batch 4 is not a multiple of micro-batch 3' \
    train $good --out new --micro-batch 3
refuses "a sequence longer than the context" 2 'has 64 positions, so a sequence of 128 tokens does not fit' \
    train $good --out new --seq 128
refuses "eval: a sequence longer than the context" 2 'has 64 positions, so a sequence of 128 tokens does not fit' \
    eval --from run --data "$text" --seq 128
refuses "dropout 1.5" 2 'option --dropout: 1.5' train $good --out new --dropout 1.5
refuses "dropout below 0" 2 'option --dropout: -0.5' train $good --out new --dropout -0.5
refuses "a negative learning rate" 2 'learning rate -1' train $good --out new --lr -1
refuses "a last rate above the peak" 2 'above the peak' train $good --out new --min-lr 1
refuses "beta 1" 2 'beta1 of adamw, 1, is not in \[0, 1\)' train $good --out new --beta1 1
refuses "a decay share of 7" 2 'decays, 7' train $good --out new --lr-schedule wsd --decay-share 7
refuses "a validation share of 2" 2 'option --val-fraction: 2' tokenize "$text" -o new --val-fraction 2
refuses "eval of 0 sequences" 2 'option --batch' eval --from run --data "$text" --batch 0
refuses "a negative temperature" 2 'option --temperature' generate --from run --temperature -1
refuses "a vocabulary too small" 2 "'bpe:10'.*257" train $good --out new --tokenizer bpe:10

# ---- things that are not there ---------------------------------------------------------------------

refuses "a missing text" 1 "cannot open 'nothing': No such file" train $good --data nothing --out new
refuses "a missing validation text" 1 "cannot open 'nothing'" train $good --eval-data nothing --out new
refuses "a folder without tokens" 1 "'emptydir': the folder holds no token files" \
    train --model gpt2-tiny --data emptydir --out new
refuses "tokenize: a folder for a text" 1 "'emptydir': not a regular file" tokenize emptydir -o new
refuses "a missing tokenizer" 1 "tokenizer 'nothing'.*byte, char, bpe:SIZE" \
    train $good --tokenizer nothing --out new
refuses "an unknown model" 2 "'nothing' is neither a file nor one of: gpt2-124m" \
    train --model nothing --data "$text" --out new
refuses "a folder without a model" 1 "config.json'" train --model emptydir --data "$text" --out new
refuses "eval from nowhere" 1 "'nothing': no such folder" eval --from nothing --data "$text"
refuses "eval from a folder without a model" 1 'neither a run directory nor a Hugging Face folder' \
    eval --from emptydir --data "$text"
refuses "generate from nowhere" 1 "'nothing': no such folder" generate --from nothing
refuses "export of nothing" 1 "'nothing': no such folder" export nothing -o new
refuses "--resume without a run" 1 'cannot resume.*config.json' train --out new --resume
refuses "an unknown device" 1 "cannot find device 'gpu:99'.*geartrain devices" \
    train $good --out new --devices gpu:99
refuses "a device that is no id" 2 "device 'fastest' is not an id.*geartrain devices" \
    train $good --out new --devices fastest
refuses "more ranks than devices are named" 2 '--devices names 2 devices, --ranks asks for 3' \
    train $good --out new --devices cpu:0/2 --ranks 3

# ---- texts that cannot be used -------------------------------------------------------------------------

refuses "an empty text" 1 "'empty.txt': it is empty" train $good --data empty.txt --out new
refuses "tokenize: an empty text" 1 "'empty.txt': it is empty" tokenize empty.txt -o new
refuses "a text too short" 1 'tokens, but .* are needed; lower --seq or give more text' \
    train $good --data short.txt --out new
refuses "bytes that are no characters" 1 "'broken.txt' is not UTF-8 at byte 4: use byte or bpe" \
    train $good --data broken.txt --out new
refuses "eval: characters the model does not know" 1 "'broken.txt': byte 1: character 'b'.*not among" \
    eval --from run --data broken.txt
refuses "a prompt of unknown characters" 1 'U\+00E9' generate --from run --prompt 'é'
refuses "an empty prompt" 2 '--prompt TEXT' generate --from run --prompt ''

# ---- things that do not fit together ----------------------------------------------------------------------

printf '{"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 32, "n_positions": 64, "vocab_size": 8}' > small.json
refuses "more tokens than the model has" 1 "the tokenizer has 256 tokens, model 'small.json' only 8" \
    train $good --model small.json --tokenizer byte --out new
"$geartrain" tokenize "$text" -o bytes > stdout 2> stderr
refuses "a tokenizer trained on tokens" 2 "'bytes': it holds tokens, not text" \
    train $good --data bytes --tokenizer char --out new
refuses "eval: tokens made by another tokenizer" 1 'tokenizer' eval --from run --data bytes
head -c 20000 bytes/train-000000.bin | tail -c 18000 > bare_train.bin
refuses "bare tokens with a model that leaves the vocabulary open" 1 'without a tokenizer.*--tokenizer' \
    train --model gpt2-tiny --data bare_train.bin --out new
refuses "a token the model does not have" 1 'holds token [0-9]+, the model has 8; was it tokenized for' \
    train --model small.json --data bare_train.bin --seq 32 --batch 4 --steps 2 --out new
rm -rf new
refuses "a model that fits no machine" 1 "'gpt3-175b' with 17[0-9]B parameters needs .* smaller model" \
    train --model gpt3-175b --data "$text" --out new
refuses "a folder that holds a run" 2 "'run' holds a run already; go on with --resume" \
    train $good --out run
mkdir -p other/checkpoints
refuses "a folder that holds checkpoints" 2 "'other' holds a run already" train $good --out other
"$geartrain" export run -o exported > stdout 2> stderr
refuses "a run where a model lies" 2 "'exported' holds a config.json already" train $good --out exported
refuses "--resume where a model lies" 1 "'exported': its config.json is not that of a run" \
    train $good --out exported --resume
refuses "an export into a run" 2 "'run': it holds a run; name another folder" export run -o run
check "which is still one" grep -q '"options"' run/config.json
refuses "--resume as another model" 2 "cannot resume 'run' as model 'gpt2-mini': that has n_layer 4, not 3" \
    train $good --out run --resume --model gpt2-mini --steps 5
refuses "--resume with another seed" 1 'seed 1, not 2' train $good --out run --resume --seed 2 --steps 5

# ---- descriptions of models ------------------------------------------------------------------------------

describe()  # NAME CODE PATTERN JSON
{
    printf '%s' "$4" > bad.json
    refuses "$1" "$2" "$3" train --model bad.json --data "$text" --out new
}
describe "cut JSON" 1 "'bad.json', line 1: " '{"model_type": "gpt2", "n_layer": 2,'
describe "JSON that is no object" 1 'not a JSON object' '[1]'
describe "a missing key" 1 "'n_head' is missing" '{"model_type": "gpt2", "n_layer": 2, "n_embd": 64}'
describe "a key twice" 1 'duplicate' '{"model_type": "gpt2", "n_layer": 2, "n_layer": 3, "n_head": 2, "n_embd": 64}'
describe "a size below 1" 1 "'n_layer' is not a whole number" '{"model_type": "gpt2", "n_layer": 0, "n_head": 2, "n_embd": 64}'
describe "a size that is no number" 1 "'n_layer' is not" '{"model_type": "gpt2", "n_layer": "x", "n_head": 2, "n_embd": 64}'
describe "heads that do not divide" 2 '64 channels do not divide into 3 heads' \
    '{"model_type": "gpt2", "n_layer": 2, "n_head": 3, "n_embd": 64}'
describe "another architecture" 1 "model_type 'bloom'" \
    '{"model_type": "bloom", "n_layer": 2, "n_head": 2, "n_embd": 64}'
describe "another activation" 1 'activation_function.*tanh.*gelu_new, .*silu or swish' \
    '{"model_type": "gpt2", "activation_function": "tanh", "n_layer": 2, "n_head": 2, "n_embd": 64}'
describe "an enormous model" 1 'needs .* smaller model' \
    '{"model_type": "gpt2", "n_layer": 1, "n_head": 1048576, "n_embd": 268435456, "n_positions": 9, "vocab_size": 268435456}'

# ---- places that cannot be written --------------------------------------------------------------------------

refuses "a file where the run shall go" 1 "'run/config.json'" train $good --out run/config.json
refuses "a file where the export shall go" 1 "cannot make folder" export run -o run/config.json
refuses "a folder in use where tokens shall go" 2 'holds something else already; name a new folder' \
    tokenize "$text" -o run
"$geartrain" tokenize "$text" --tokenizer char -o taken > stdout 2> stderr
sums() { find taken other-model -type f | sort | xargs cksum; }
mkdir other-model && cp exported/* other-model && sed 's/"n_layer": [0-9]*/"n_layer": 7/' exported/config.json > other-model/config.json
sums > before
refuses "tokens of another tokenizer where tokens shall go" 2 \
    "'taken': it holds tokens of another tokenizer already; name a new folder" tokenize "$text" -o taken
refuses "other tokens where tokens shall go" 2 "'taken': it holds other tokens already; name a new folder" \
    tokenize "$text" --val-fraction 0.5 --tokenizer taken/tokenizer -o taken
refuses "another model where the export shall go" 2 "'other-model': it holds another model; name another folder" \
    export run -o other-model
sums > after
check "which all stay as they are" cmp before after
check "nothing half-made lies beside them" [ -z "$(ls -d *.partial* 2> /dev/null)" ]
does "the same tokens again" '^taken: ' tokenize "$text" --tokenizer char -o taken
does "the same export again" '^exported: ' export run -o exported
: > other-model/pytorch_model.bin && cp exported/config.json other-model
refuses "weights of another kind where the export shall go" 2 \
    "'other-model': it holds 'pytorch_model.bin', which no export wrote" export run -o other-model
mkdir emptied
does "an export into an empty folder" '^emptied: ' export run -o emptied
rm -r emptied/config.json
refuses "weights without a config where the export shall go" 2 "'emptied': it holds another model" export run -o emptied
refuses "a run that nobody may write" 1 'cannot make folder' train $good --out /proc/geartrain
"$geartrain" eval --from run --data "$text" 2> stderr > /dev/full
said "a full standard output" 1 'cannot write to standard output' $?
"$geartrain" eval --from run --data "$text" 2> stderr >&-
said "a closed standard output" 1 'cannot write to standard output' $?
"$geartrain" generate --from run -n 100000 -q 2> stderr > /dev/full
said "generate stops when nobody can read it" 1 'cannot write to standard output' $?
{ "$geartrain" generate --from run -n 100000 -q 2> stderr; echo $? > status; } | head -c 10 > /dev/null
said "generate stops when its reader leaves" 1 'cannot write to standard output' "$(cat status)"
train_tiny --steps 6 --out unread >&- 2> stderr
said "a closed standard output does not stop a run" 1 'cannot write to standard output' $?
check "it is trained to its end" [ -f unread/checkpoints/step-000006/manifest.json ]
check "and what it said is in no file of its" [ "$(grep -c '^step' unread/metrics.jsonl)" -eq 0 ]
check "and all steps are recorded" [ "$(wc -l < unread/metrics.jsonl)" -eq 6 ]

check "nothing was left by what was refused" [ ! -e new ]

close_checks
