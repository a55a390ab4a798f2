#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/new_heads.sh - a head that the weights lack is trained beside adapters: under every plan, resumed, exported,
# read again with the names of its classes, merged and trained on.
. "$(dirname "$0")/cli_checks.sh"

mkdir tok
for w in '[PAD]' '[UNK]' '[CLS]' '[SEP]' '[MASK]' the wheel turn a gear of train and its teeth meet another good bad film '##s' .; do
    echo "$w"
done > tok/vocab.txt
cat > model.json <<'END'
{ "model_type": "bert", "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 48,
  "max_position_embeddings": 32, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0 }
END
awk 'BEGIN {
    split("the wheel turns a gear of the train and its teeth meet another", w, " ")
    print "text,label"
    for (i = 0; i < 80; i++) {
        s = ""
        for (k = 0; k < 3 + i % 5; k++) s = s w[1 + (i * 7 + k * 5) % 13] " "
        print "\"" s (i % 2 ? "good" : "bad") " film.\"," (i % 2 ? "yes" : "no")
    }
}' > labelled.csv
losses() { sed -n 's/.*"loss": *\([0-9.e+-]*\).*/\1/p' "$1/metrics.jsonl"; }
alike() # RUN RUN: the same losses, to 2e-5
{
    losses "$1" > a
    losses "$2" > b
    [ -s a ] && [ "$(wc -l < a)" -eq "$(wc -l < b)" ] \
        && paste a b | awk '{ d = $1 - $2; if ($2 == "" || d > 2e-5 || -d > 2e-5) bad = 1 } END { exit bad }'
}
tensor() # FILE NAME: its bytes in a safetensors file
{
    python3 -c "
import json, struct, sys
f = open(sys.argv[1], 'rb').read()
n = struct.unpack('<Q', f[:8])[0]
a, b = json.loads(f[8:8 + n])[sys.argv[2]]['data_offsets']
sys.stdout.buffer.write(f[8 + n + a:8 + n + b])" "$1" "$2"
}

program train --model model.json --tokenizer tok --data "$text" --seq 16 --batch 4 --steps 2 --eval-every 0 --out mlm > stdout 2> stderr
program export mlm -o encoder > stdout 2> stderr || { fail "a base to begin with" "it fails"; close_checks; }
heads="--from encoder --task classify --data labelled.csv --label-key label --seq 16 --batch 8 --micro-batch 2 --lr 1e-2
    --lr-schedule constant --steps 60 --save-every 30 --eval-every 0 --lora 2"
program train $heads --out run > stdout 2> stderr
check "the new head is told" grep -q 'and a head whole' stderr
tensor run/checkpoints/step-000030/params.safetensors classifier.weight > then
tensor run/checkpoints/step-000060/params.safetensors classifier.weight > now
check "the new head is trained" [ -s then -a "$(cmp -s then now && echo same)" != same ]
tensor run/checkpoints/step-000030/base.safetensors encoder.layer.0.intermediate.dense.weight > then
tensor run/checkpoints/step-000060/base.safetensors encoder.layer.0.intermediate.dense.weight > now
check "and the rest is not" [ -s then -a "$(cmp -s then now && echo same)" = same ]
for plan in 'two stages|--stages 2 --replicas 1 --tensor 1|' 'two unequal replicas|--replicas 2 --stages 1|@0.5' \
    'two tensor ranks|--tensor 2|' 'state shared out|--replicas 2 --sync sharded|'; do
    options=${plan#*|}
    program train $heads --out many --devices "cpu:0.0,cpu:0.1${plan##*|}" ${options%|*} > stdout 2> stderr
    check "${plan%%|*}: the same losses" alike run many
    rm -rf many
done
program train $heads --steps 30 --out half > stdout 2> stderr
program train --out half --resume --steps 60 > stdout 2> stderr
check "resumed: the same weights to the bit" cmp -s run/checkpoints/step-000060/params.safetensors \
    half/checkpoints/step-000060/params.safetensors
rm -rf half/checkpoints half/metrics.jsonl
program train --out half --resume > stdout 2> stderr
check "begun again before its first checkpoint: the same losses" alike run half

# ---- folders ------------------------------------------------------------------------------------------

does "an adapter is exported" "adapter for" export run -o adapter
check "with its head, as PEFT names it" python3 -c "
import json, struct
c = json.load(open('adapter/adapter_config.json'))
assert c['task_type'] == 'SEQ_CLS' and sorted(c['modules_to_save']) == ['classifier', 'pooler'], c
f = open('adapter/adapter_model.safetensors', 'rb').read()
names = json.loads(f[8:8 + struct.unpack('<Q', f[:8])[0]])
assert [n for n in names if 'classifier' in n or 'pooler' in n] == ['base_model.model.' + n for n in (
    'bert.pooler.dense.bias', 'bert.pooler.dense.weight', 'classifier.bias', 'classifier.weight')] or \
    sorted(n for n in names if 'lora' not in n and n != '__metadata__') == ['base_model.model.' + n for n in (
    'bert.pooler.dense.bias', 'bert.pooler.dense.weight', 'classifier.bias', 'classifier.weight')], list(names)"
does "it is merged" . export run --merge -o merged
measure() { program eval --data labelled.csv --label-key label --seq 16 --json --split all "$@" 2> stderr | sed -n 's/.*"loss": *\([0-9.e+-]*\).*/\1/p'; }
near() { awk -v a="$1" -v b="$2" -v l="$3" 'BEGIN { d = a - b; exit !(a != "" && b != "" && d <= l && -d <= l) }'; }
want=$(measure --from run)
check "there is something to compare" [ -n "$want" ]
check "merged weights do the same" near "$(measure --from merged)" "$want" 1e-5
check "an adapter brings its task and classes" near "$(measure --from encoder --adapter adapter)" "$want" 1e-6
grep -v ',no$' labelled.csv > yes.csv
grep -v ',yes$' labelled.csv > no.csv
program eval --from encoder --adapter adapter --data yes.csv --label-key label --seq 16 --json 2> stderr > yes
program eval --from encoder --adapter adapter --data no.csv --label-key label --seq 16 --json 2> stderr > no
check "their names, too" near "$(sed 's/.*"loss": *\([0-9.e+-]*\).*/\1/' yes no | awk '{ s += $1 / 2 } END { print s }')" "$want" 1e-5
program train --from encoder --adapter adapter --data labelled.csv --label-key label --seq 16 --batch 8 --lr 1e-9 --steps 2 \
    --eval-every 0 --out more > stdout 2> stderr
check "no head of it begins anew" [ "$(grep -c 'begins anew' stderr)" = 0 ]
check "it is trained on from there" near "$(measure --from more)" "$want" 1e-5
program train --from encoder --task mlm --pairs --data "$text" --seq 16 --batch 4 --lora 2 --steps 2 --eval-every 0 --out pairs > stdout 2> stderr
program export pairs -o adapter2 > stdout 2> stderr
check "of a head that is there in part the rest is new" grep -q '"cls.seq_relationship"' adapter2/adapter_config.json
refuses "an adapter beside a run's own" 2 "was trained with adapters of its own" \
    train --from run --adapter adapter --data labelled.csv --label-key label --out none
sed 's/"classifier"/"embeddings.word_embeddings", "classifier"/' adapter/adapter_config.json > config && mv config adapter/adapter_config.json
program eval --from encoder --adapter adapter --data labelled.csv --label-key label > stdout 2> stderr
check "a module that the file lacks is named" grep -q "tensor 'base_model.model.bert.embeddings.word_embeddings.weight' is missing" stderr
close_checks
