#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/early.sh - validation during a run: what it says, the best checkpoint and who uses it, the end after
# patience, the same after a kill; samples, which change nothing, under every plan.
. "$(dirname "$0")/cli_checks.sh"

# A text that says nothing of the one that is trained on, so that validation soon gets worse.
awk 'BEGIN { for (i = 0; i < 600; i++) printf "%s%s", substr("gmwitreaothnd", 1 + i * 7 % 13, 3), i % 9 ? " " : ".\n" }' > other.txt
run() { train_tiny --steps 200 --lr 1e-2 --eval-every 10 --eval-data other.txt --save-every 25 "$@"; }
field() { python3 -c "
import json, sys
rows = [json.loads(l) for l in open(sys.argv[1] + '/metrics.jsonl')]
print([round(r['$2'], 6) for r in rows if '$2' in r])" "$1"; }

# ---- what a validation says ---------------------------------------------------------------------------

run --out early --patience 3 > stdout 2> said.txt || { echo "cannot train"; cat said.txt; exit 1; }
check "a line has perplexity and bits a byte" grep -Eq '^step 10 .*  val [0-9.]+  ppl [0-9.]+  [0-9.]+ bits/byte  lr ' stdout
check "so has the record, as they follow from the loss" python3 -c "
import json, math
rows = [json.loads(l) for l in open('early/metrics.jsonl')]
vals = [r for r in rows if 'val_loss' in r]
assert vals
for r in vals:
    assert abs(r['val_perplexity'] / math.exp(r['val_loss']) - 1) < 1e-6
    assert abs(r['val_bits_per_byte'] * math.log(2) / r['val_loss'] - 1) < 1e-6, r     # a character is a byte"
check "eval says them, too" sh -c '"$0" eval --from early --data other.txt --seq 32 --json 2> stderr | python3 -c "
import json, math, sys
r = json.load(sys.stdin)
assert abs(r[\"perplexity\"] / math.exp(r[\"loss\"]) - 1) < 1e-6
assert abs(r[\"bits_per_byte\"] * math.log(2) / r[\"loss\"] - 1) < 1e-6"' "$geartrain"

# ---- the end ------------------------------------------------------------------------------------------

check "patience ends a run, three validations behind its best" python3 -c "
import json
rows = [json.loads(l) for l in open('early/metrics.jsonl')]
vals = [(r['step'], r['val_loss']) for r in rows if 'val_loss' in r]
best = min(vals, key=lambda v: v[1])
assert rows[-1]['step'] == best[0] + 30 == vals[-1][0] < 200, (vals, best)
open('best', 'w').write('%d %.6f' % best)"
read -r step loss < best
check "it says so" grep -q '^early   the run ended after step .*: 3 validations in a row' said.txt
check "it names the best" grep -q "^best    validation loss .* after step $step: early/checkpoints/best" said.txt
check "which is there" [ "$(readlink early/checkpoints/best)" = "$(printf 'step-%06d' "$step")" ]
check "beside the newest two" [ "$(ls early/checkpoints | grep -c step-)" -eq 3 ]
timeout 300 "$geartrain" train --out early --resume > stdout 2> stderr
check "a run that is over stays so" grep -q '^done    nothing: the run was over before' stderr
cp -r early longer
timeout 300 "$geartrain" train --out longer --resume --patience 6 --steps 180 > stdout 2> stderr
check "more patience goes on" grep -q '^step ' stdout
run --out least --patience 2 --min-improvement 10 > stdout 2> stderr
check "an improvement may be too small to count" [ "$(tail -n 1 least/metrics.jsonl | grep -o '"step": [0-9]*')" = '"step": 30' ]

# Killed after a checkpoint, it ends at the same step with the same bits. The process itself is killed (`as`), not
# a shell around it, which would leave it training.
as=exec
run --out killed --patience 3 > stdout 2> stderr & pid=$!
as=
until [ -e killed/checkpoints/step-000025 ] || ! kill -0 $pid 2> /dev/null; do sleep 0.02; done
check "a run is killed on its way" kill -9 $pid
wait $pid 2> /dev/null
timeout 300 "$geartrain" train --out killed --resume > stdout 2> stderr
check "killed and resumed it ends alike" [ "$(field killed val_loss)" = "$(field early val_loss)" ]
check "with the same best" [ "$(readlink killed/checkpoints/best)" = "$(readlink early/checkpoints/best)" ]
newest=$(ls early/checkpoints | grep step- | tail -n 1)
check "and the same weights" cmp -s "early/checkpoints/$newest/params.safetensors" "killed/checkpoints/$newest/params.safetensors"

run --out two --patience 3 --devices cpu:0.0,cpu:0.1 --replicas 1 --stages 2 > stdout 2> stderr
check "two stages end with one's step and best" [ "$(field two step | tr -d '[]' | awk '{ print $NF }') $(readlink two/checkpoints/best)" = \
    "$(field early step | tr -d '[]' | awk '{ print $NF }') $(readlink early/checkpoints/best)" ]

# ---- who uses the best --------------------------------------------------------------------------------

measure() { "$geartrain" eval --data other.txt --seq 32 --json "$@" 2> stderr | grep -o '"loss": [0-9.]*'; }
measure --from early --checkpoint best > a
measure --from early/checkpoints/best > b
measure --from early --checkpoint "$step" > c
measure --from "early/checkpoints/step-$(printf %06d "$step")" > d
measure --from early > newest
check "eval measures the best, named in four ways" [ "$(cat a b c d | sort -u | wc -l)" -eq 1 ]
check "with the loss that training said" python3 -c "
import sys
a, best = float(open('a').read().split()[1]), float('$loss')
assert abs(a - best) < 2e-5, (a, best)"
check "which the newest is not" [ "$(cat a)" != "$(cat newest)" ]
timeout 240 "$geartrain" generate --from early --checkpoint best --prompt the -n 20 -q > a 2> stderr
timeout 240 "$geartrain" generate --from early/checkpoints/best --prompt the -n 20 -q > b 2> stderr
check "generate takes it" sh -c 'cmp -s a b && [ -s a ]'
does "export takes it" '^hf: ' export early --checkpoint best -o hf
check "and writes those weights" [ "$(measure --from hf --tokenizer early/tokenizer)" = "$(measure --from early --checkpoint best)" ]
does "training starts from it" '^step 1 ' train --from early/checkpoints/best --data "$text" --seq 32 --batch 4 --steps 1 --eval-every 0 --out fine
refuses "a step that is not kept" 1 "'early' has no checkpoint '7'; there is .*best" eval --from early --checkpoint 7 --data other.txt
refuses "what is no step" 2 "option --checkpoint: 'worst'" generate --from early --checkpoint worst
refuses "the best of a run that keeps none" 1 "'fine' has no checkpoint 'best'; there is .*; train --keep-best" export fine --checkpoint best -o new
refuses "a checkpoint of a checkpoint" 2 'name the run' eval --from early/checkpoints/best --checkpoint best --data other.txt
refuses "of a folder" 2 "'hf' is no run" generate --from hf --checkpoint best

# ---- samples ------------------------------------------------------------------------------------------

sampled() { train_tiny --steps 12 --lr 1e-2 --eval-every 6 --save-every 8 --sample-every 4 --sample-prompt 'the ' \
    --sample-tokens 20 --sample-temperature 0 "$@" > stdout 2> stderr; }
train_tiny --steps 12 --lr 1e-2 --eval-every 6 --out plain > stdout 2> stderr
sampled --out samples
check "samples are printed" [ "$(grep -c '^sample after step \(4\|8\|12\)$' stdout)" -eq 3 ]
check "and kept" [ "$(grep -c '^{"step":[0-9]*,"prompt":"the ","text":".*"}$' samples/samples.jsonl)" -eq 3 ]
check "in TensorBoard's file, too" grep -aq 'sample' samples/events.out.tfevents.*
check "losses are the same to the bit without" [ "$(field samples loss)" = "$(field plain loss)" ]
last=$(ls plain/checkpoints | tail -n 1)
check "and so are weights" cmp -s "samples/checkpoints/$last/params.safetensors" "plain/checkpoints/$last/params.safetensors"
check "the last one is what the run then writes" [ "$(python3 -c "
import json
r = [json.loads(l) for l in open('samples/samples.jsonl')][-1]
print(r['prompt'] + r['text'])")" = "$("$geartrain" generate --from samples --prompt 'the ' -n 20 --temperature 0 -q 2> stderr)" ]
sampled --out json --json
check "--json has objects of them" [ "$(grep -c '^{"step": [0-9]*, "prompt": "the ", "sample": ".*"}$' stdout)" -eq 3 ]
for plan in '--replicas 1 --stages 2' '--replicas 2' '--tensor 2'; do
    rm -rf together
    sampled --out together --devices cpu:0.0,cpu:0.1 $plan
    check "samples of two ranks are those of one: $plan" cmp -s samples/samples.jsonl together/samples.jsonl
    check "and so is what validation says" [ "$(field samples val_bits_per_byte | cut -c 1-6)" = "$(field together val_bits_per_byte | cut -c 1-6)" ]
done
check "nothing is left of the weights that were put together" [ ! -e together/.partial-weights ]
# Adapters beside frozen matrices in fewer bits: texts are written with what is trained, as it is stored.
for base in 'fp32' 'bf16' 'int8'; do
    rm -rf tuned
    timeout 240 "$geartrain" train --from plain --data "$text" --seq 32 --batch 4 --steps 4 --eval-every 0 --out tuned --lora 4 \
        --base-precision $base --sample-every 4 --sample-prompt 'the ' --sample-tokens 12 --sample-temperature 0 > stdout 2> stderr
    check "a sample of adapters on $base" [ "$(python3 -c "
import json
r = json.load(open('tuned/samples.jsonl'))
print(r['prompt'] + r['text'])")" = "$(timeout 240 "$geartrain" generate --from tuned --prompt 'the ' -n 12 --temperature 0 -q 2> stderr)" ]
done
sampled --out resumed --steps 8
timeout 240 "$geartrain" train --out resumed --resume --steps 12 > stdout 2> stderr
check "a resumed run has each sample once" [ "$(grep -o '^{"step":[0-9]*' resumed/samples.jsonl | tr '\n' ' ')" = '{"step":4 {"step":8 {"step":12 ' ]

# ---- classes ------------------------------------------------------------------------------------------

awk 'BEGIN { print "text,label"; for (i = 0; i < 200; i++) { x = (x * 1103515245 + 12345) % 2147483648
    printf "the %s wheel turns,%s\n", int(x / 65536) % 2 ? "good" : "bad", int(x / 65536) % 2 ? "yes" : "no" } }' > classes.csv
mkdir words
printf '%s\n' '[PAD]' '[UNK]' '[CLS]' '[SEP]' '[MASK]' the good bad wheel turns > words/vocab.txt
printf '{"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 16}' > bert.json
classify() { timeout 300 "$geartrain" train --model bert.json --data classes.csv --label-key label --tokenizer words --task classify \
    --steps 20 --batch 16 --seq 8 --lr 1e-2 --eval-every 20 "$@" > stdout 2> stderr; }
classify --out classes
check "validation of classes counts right answers" grep -Eq '^step 20 .*  val [0-9.]+  accuracy 100.00 %  lr ' stdout
classify --out classes2 --devices cpu:0.0,cpu:0.1 --replicas 1 --stages 2
check "also on the last of two stages" [ "$(field classes val_accuracy)" = "$(field classes2 val_accuracy)" ]
does "eval counts them, too" 'accuracy 1.0000' eval --from classes --data classes.csv --label-key label --seq 8
refuses "samples of a model that writes nothing" 2 "option --sample-every: .*does not generate text" train --model bert.json \
    --data classes.csv --label-key label --tokenizer words --task classify --steps 2 --batch 4 --seq 8 --sample-every 1 --out new

# ---- misuse -------------------------------------------------------------------------------------------

good="--model gpt2-tiny --data $text --tokenizer char --seq 32 --batch 4 --steps 2"
refuses "patience without validation" 2 'option --patience would be ignored: --eval-every 0' train $good --out new --patience 2 --eval-every 0
refuses "--keep-best without validation" 2 'option --keep-best would be ignored' train $good --out new --keep-best --eval-every 0
refuses "an improvement that nothing waits for" 2 'option --min-improvement would be ignored' train $good --out new --min-improvement 1
refuses "a prompt of no samples" 2 'option --sample-prompt would be ignored' train $good --out new --sample-prompt x
refuses "an empty prompt" 2 'option --sample-prompt: a text begins' train $good --out new --sample-every 5 --sample-prompt ''
refuses "a prompt that no token spells" 2 'option --sample-prompt: .*U\+00E9' train $good --out new --sample-every 5 --sample-prompt 'é'
head -c 300 "$text" > short.txt
refuses "patience with nothing to validate on" 2 "option --patience: 'short.txt' has no validation part" train \
    --model gpt2-tiny --data short.txt --tokenizer byte --seq 64 --batch 1 --steps 2 --out new --patience 2
"$geartrain" tokenize "$text" --tokenizer byte -o tokens > stdout 2> stderr
refuses "samples without a tokenizer" 2 'option --sample-every: the data came without a tokenizer' train \
    --model gpt2-124m --data tokens/train-000000.bin --out new --sample-every 5 --steps 1 --batch 1 --seq 8
close_checks
