#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/apart_ends.sh - a classifier whose replicas train apart, or whose parameters servers update: it learns, ends
# when validation gets no better, keeps the best, and stays ended when resumed.
. "$(dirname "$0")/cli_checks.sh"

if ! "$geartrain" devices | grep -q 'cpu:0'; then
    echo "no CPU device to divide"
    exit 77
fi
mkdir tok
for w in '[PAD]' '[UNK]' '[CLS]' '[SEP]' '[MASK]' the wheel turn a gear of train and its teeth meet another good bad film '##s' .; do
    echo "$w"
done > tok/vocab.txt
cat > model.json <<'END'
{ "model_type": "bert", "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 48,
  "max_position_embeddings": 32, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0 }
END
awk 'BEGIN {
    split("wheel gear train teeth film", w, " ")
    print "text,label"
    for (i = 0; i < 80; i++)
        print (i % 2 ? "good " : "bad ") w[1 + i % 5] "," (i % 2 ? "yes" : "no")
}' > labelled.csv
# Labels that are wrong: what is learned makes validation worse.
sed 's/,yes$/,x/; s/,no$/,yes/; s/,x$/,no/' labelled.csv > wrong.csv
classes="--model model.json --tokenizer tok --task classify --data labelled.csv --label-key label --seq 8 --batch 8 --lr 1e-2
    --lr-schedule constant --save-every 0 --devices cpu:0/2"

# Two equal replicas, by hand: speeds measured on a busy machine have left one of them a single sequence, whose
# pushes, at this rate, are too rough to learn from. A plan repeats the options of its mode.
plan()  # NAME SYNC OPTIONS
{
    settings=$(echo "$3" | sed 's/ *--\([a-z-]*\) \([^ ]*\)/, "\1": "\2"/g; s/^, //; /compress/d')
    cat > "$1.json" << END
{ "format": "geartrain plan 1", "batch": 8, "units": 3, "tensor": 1, "chunks": 1, "recompute": false,
  "schedule": "1f1b", "sync": "$2", "sync_options": { $settings }, "ranks": [ {}, {} ],
  "replicas": [ { "micro_batches": 1, "micro_batch": 4, "cut": [0, 3], "stages": [[0]] },
                { "micro_batches": 1, "micro_batch": 4, "cut": [0, 3], "stages": [[1]] } ] }
END
}

# The best of a record, and whether the run ended so many validations behind it: RUN PATIENCE
ended() { python3 -c "
import json, os, sys
rows = [json.loads(l) for l in open(sys.argv[1] + '/metrics.jsonl')]
vals = [(r['step'], r['val_loss']) for r in rows if 'val_loss' in r]
best = min(vals, key=lambda v: v[1])
last = vals[vals.index(best) + int(sys.argv[2])]
assert rows[-1]['step'] == last[0] == vals[-1][0] < 200, (vals, best)
assert os.readlink(sys.argv[1] + '/checkpoints/best') == 'step-%06d' % best[0]" "$1" "$2"; }

learned() { python3 -c "
import json, sys
x = [json.loads(l)['loss'] for l in open(sys.argv[1] + '/metrics.jsonl')]
assert len(x) == 40 and sum(x[-8:]) < 0.8 * sum(x[:8]), x" "$1"; }

while read -r way sync options; do
    plan "$way" "$sync" "$options"
    options="--sync $sync $options --plan $way.json"
    # shellcheck disable=SC2086
    program train $classes $options --steps 40 --eval-every 0 --out "$way" > stdout 2> stderr || cat stderr
    check "$way: classes are learned" learned "$way"
    # shellcheck disable=SC2086
    program train $classes $options --steps 200 --eval-every 10 --eval-data wrong.csv --patience 2 --keep-best --out "$way-early" \
        > stdout 2> stderr || cat stderr
    check "$way: patience ends it, two validations behind the best, which is kept" ended "$way-early" 2
    check "$way: it says so" grep -q '^early   the run ended after step .*: 2 validations in a row' stderr
    program train --out "$way-early" --resume > stdout 2> stderr
    check "$way: and stays ended" grep -q '^done    nothing: the run was over before' stderr
done <<'END'
local local --local-steps 5 --outer nesterov --outer-lr 1 --outer-momentum 0.5
uneven local --local-steps 10 --local-uneven 10:5
sparse local --local-steps 5 --outer sparse --outer-lr 1 --sparse-keep 0.5
async async --staleness 2 --simulate-delay 3
ps ps
demo allreduce --compress demo:2048,decay=0.5
END
close_checks
