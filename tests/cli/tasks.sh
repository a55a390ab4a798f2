#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/tasks.sh - what models are asked for: hidden tokens, pairs, classes and vectors, each from text to an export;
# the same under other plans and after --resume; what does not fit together.
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
run() { program train --model model.json --tokenizer tok --data "$text" --seq 24 --batch 4 --lr 3e-3 --lr-schedule constant --eval-every 0 --steps 40 \
    --save-every 20 "$@" > stdout 2> stderr; }
losses() { python3 -c "
import json, sys
print(*[json.loads(l)['loss'] for l in open(sys.argv[1] + '/metrics.jsonl')])" "$1"; }
near() { python3 -c "
import sys
a, b = [[float(x) for x in s.split()] for s in sys.argv[1:]]
sys.exit(len(a) != len(b) or max(abs(x - y) / y for x, y in zip(a, b)) > 1e-4)" "$(losses "$1")" "$(losses "$2")"; }

# ---- hidden tokens ------------------------------------------------------------------------------------

run --out mlm --whole-words || { echo "cannot train"; cat stderr; exit 1; }
check "hidden words are learned" python3 -c "
import json
x = [json.loads(l)['loss'] for l in open('mlm/metrics.jsonl')]
assert len(x) == 40 and sum(x[-8:]) < 0.95 * sum(x[:8]), x"
run --out half --whole-words --steps 20
run --out half --resume --steps 40
check "a resumed run is the same" [ "$(losses mlm | cut -d ' ' -f 1-20)" = "$(losses half | cut -d ' ' -f 1-20)" ]
run --out staged --whole-words --devices cpu:0.0,cpu:0.1 --replicas 1 --stages 2 --micro-batch 2
check "the same over two stages" near mlm staged
run --out shared --whole-words --devices cpu:0.0,cpu:0.1 --replicas 2 --stages 1 --micro-batch 1
check "the same over two replicas" near mlm shared
run --out split --whole-words --devices cpu:0.0,cpu:0.1 --tensor 2
check "the same over two tensor ranks" near mlm split
run --out dropped --steps 6 --dropout 0.2
run --out dropped2 --steps 6 --dropout 0.2 --devices cpu:0.0,cpu:0.1 --tensor 2
check "and with dropout" near dropped dropped2
check "which is there" [ "$(losses dropped)" != "$(losses mlm | cut -d ' ' -f 1-6)" ]
program eval --from mlm --data "$text" --seq 24 --json > stdout 2> stderr
check "its validation is measured" grep -q '"loss": [0-9.]*, ' stdout
run --out pairs --pairs
check "pairs are learned, too" python3 -c "
import json
x = [json.loads(l)['loss'] for l in open('pairs/metrics.jsonl')]
assert len(x) == 40 and sum(x[-8:]) < 0.95 * sum(x[:8]), x"
check "and kept in the run" grep -q BertForPreTraining pairs/config.json

# ---- classes ------------------------------------------------------------------------------------------

program export mlm -o encoder > stdout 2> stderr
classes="--from encoder --task classify --data labelled.csv --label-key label --seq 16 --batch 8 --lr 3e-3 --lr-schedule constant --steps 80 --save-every 0"
program train $classes --eval-every 80 --out classes > stdout 2> stderr
check "classes are learned" grep -q '^step 80 .* accuracy 100' stdout
check "a head that was not there is named" grep -q "has no tensor 'classifier.weight': it begins anew" stderr
check "a head that is left out is named" grep -q "'cls.predictions.bias' of .* belongs to another task" stderr
program eval --from classes --data labelled.csv --label-key label --seq 16 --json > stdout 2> stderr
check "eval counts right answers" grep -q '"accuracy": 1,' stdout
check "classes have no perplexity" [ "$(grep -c perplexity stdout)" = 0 ]
program train $classes --eval-every 0 --out both --devices cpu:0.0,cpu:0.1 --tensor 2 > stdout 2> stderr
check "the same over two tensor ranks of classes" near classes both
program export classes -o out > stdout 2> stderr
check "labels go into the export" python3 -c "
import json
c = json.load(open('out/config.json'))
assert c['architectures'] == ['BertForSequenceClassification'] and c['id2label'] == {'0': 'no', '1': 'yes'}, c"
sed 's/,yes$/,perhaps/' labelled.csv > others.csv
refuses "other labels than the weights'" 1 "'others.csv' has label 'perhaps', which is none of the 2" \
    train $classes --from out --data others.csv --eval-every 0 --out none
refuses "other labels to validate on" 1 "'others.csv' has label 'perhaps', which is none of the 2" \
    train $classes --eval-data others.csv --eval-every 80 --out none
grep -v ',no$' labelled.csv > yes.csv       # labels are known by name: 'yes' is number 0 here, and 1 to the model
program eval --from classes --data yes.csv --label-key label --seq 16 --json > stdout 2> stderr
check "data of one label are measured by its name" grep -q '"accuracy": 1,' stdout
program train $classes --steps 20 --eval-data yes.csv --eval-every 20 --out named > stdout 2> stderr
program train $classes --steps 20 --eval-every 0 --out named2 > stdout 2> stderr
program eval --from named2 --data yes.csv --label-key label --seq 16 --json > want 2> stderr
check "and so while training" python3 -c "
import json
a = [json.loads(l) for l in open('named/metrics.jsonl')][-1]['val_accuracy']
assert a == json.load(open('want'))['accuracy'], a"
refuses "one label to learn from" 1 "all records of 'yes.csv' have the same label" \
    train $classes --data yes.csv --eval-every 0 --out none

# ---- vectors ------------------------------------------------------------------------------------------

printf 'the wheel turns.\ngood film\na gear of the train and its teeth\n' > lines.txt
program embed --from encoder --data lines.txt --batch 2 > vectors 2> stderr
check "a text is a vector of length 1" python3 -c "
rows = [[float(x) for x in l.split()] for l in open('vectors')]
assert len(rows) == 3 and all(len(r) == 32 and abs(sum(x * x for x in r) - 1) < 1e-6 for r in rows)"
program embed --from encoder --data lines.txt --batch 3 --json > stdout 2> stderr
check "whatever lies beside it in a batch" python3 -c "
import json
a = [[float(x) for x in l.split()] for l in open('vectors')]
b = [json.loads(l)['embedding'] for l in open('stdout')]
assert all(abs(x - y) < 1e-5 for r, s in zip(a, b) for x, y in zip(r, s))"

# ---- what does not fit --------------------------------------------------------------------------------

train_tiny --steps 1 --eval-every 0 --out gpt > stdout 2> stderr
: > empty.txt
refuses "a family without that head" 2 "models of the family 'gpt2' do lm, not mlm" \
    train --model gpt2-tiny --task mlm --data "$text" --tokenizer char --out none
refuses "text without labels" 1 'has no labels, which --task classify needs' \
    train --model model.json --task classify --data "$text" --tokenizer tok --out none
refuses "pairs of classes" 2 'option --pairs would be ignored' train $classes --pairs --out none
refuses "a tokenizer without signs" 1 'has no token \[CLS\] or <s>' \
    train --model model.json --data "$text" --tokenizer byte --out none
refuses "vectors of a model that reads from left to right" 1 "read from left to right" embed --from gpt --data lines.txt
refuses "another task of a run's checkpoints" 2 'are of --task mlm and hold its head; export the run' \
    train $classes --from mlm --out none
refuses "vectors of a run's checkpoints" 2 'export the run .* and name that folder for vectors' embed --from mlm --data lines.txt
does "steps of it can be timed" 'tok/s|ktok|step' bench step --model bert-tiny --batch 2 --seq 16
refuses "to embed nothing" 1 'is empty' embed --from encoder --data empty.txt
close_checks
