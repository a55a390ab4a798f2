#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/data_kinds.sh - records, chats, documents and mixtures as a user gives them: read, cut and weighed alike by
# every plan and after --resume, and refused in one sentence where they cannot be.
. "$(dirname "$0")/../cli/cli_checks.sh"

loss()      # RUN STEP
{
    sed -n "s/.*\"step\": *$2,.*\"loss\": *\([-0-9.e+]*\).*/\1/p" "$1/metrics.jsonl" | tail -n 1
}
val()       # RUN
{
    sed -n 's/.*"val_loss": *\([-0-9.e+]*\).*/\1/p' "$1/metrics.jsonl" | tail -n 1
}
near()      # A B: equal but for what fp32 rounds
{
    awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && b != "" && (a - b) ^ 2 < 1e-9 * a * a) }'
}
run()       # RUN OPTIONS...
{
    to=$1
    shift
    program train --out "$to" --lr-schedule constant --save-every 3 --eval-every 6 "$@" > stdout 2> stderr < /dev/null \
        || fail "$to" "exit status $?: $(grep '^geartrain' stderr)"
}

# ---- what there is to read -------------------------------------------------------------------------

awk '{ gsub(/\./, ""); if ($0 != "") printf "{\"id\": %d, \"doc\": {\"text\": \"%s\"}}\n", NR, $0 }' "$text" > a.jsonl
awk 'BEGIN { print "label,text" } { gsub(/\./, ""); if ($0 != "") printf "%s,\"%s, \"\"so\"\"\n%s\"\n", NR % 3 ? "yes" : "no", $1, $2 }' \
    "$text" > b.csv
awk '{ gsub(/\./, ""); if ($0 != "") printf "{\"messages\": [{\"role\": \"user\", \"content\": \"%s %s?\"}, {\"role\": \"assistant\", \"content\": \"%s\"}]}\n", $1, $2, $3 }' \
    "$text" > chat.jsonl
gzip -k a.jsonl
cat > chat.jinja <<'END'
{%- for m in messages %}
    {{- '<' + m.role + '>' + m.content + '</>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<assistant>' }}
{%- endif %}
END
records=$(wc -l < a.jsonl)

does "records become documents" "^[0-9]+ training and [0-9]+ validation documents" \
    tokenize a.jsonl --text-key doc.text --tokenizer bpe:300 -o tokens
check "of which the last tenth validates" grep -q "^$((records * 9 / 10)) training and" stdout
does "packed ones are the same" "^$((records * 9 / 10)) training" tokenize a.jsonl.gz --text-key doc.text --tokenizer tokens/tokenizer -o packed
check "and give the same tokens" cmp -s tokens/train-000000.bin packed/train-000000.bin
does "labels are kept by name" "with 2 labels" tokenize b.csv --label-key label --tokenizer byte -o labelled
check "in the folder" grep -q '"labels": \["no", "yes"\]' labelled/tokens.json

# ---- every plan, and on -------------------------------------------------------------------------------

model="--model gpt2-tiny --seq 32 --batch 6 --micro-batch 2 --steps 6"
follows()   # NAME OPTIONS...: three replicas and two stages follow one device; a resumed run goes on alike
{
    of=$1
    shift
    run $of $model "$@"
    run $of-3 $model "$@" --ranks 3 --devices cpu:0.0/2,cpu:0.1/2,cpu:0 --replicas 3 --stages 1
    run $of-2 $model "$@" --devices cpu:0/2 --replicas 1 --stages 2
    for other in $of-3 $of-2; do
        check "$other: the losses of one device" eval \
            'near "$(loss $of 1)" "$(loss $other 1)" && near "$(loss $of 6)" "$(loss $other 6)"'
        check "$other: its validation loss" near "$(val $of)" "$(val $other)"
    done
    run $of-again $model "$@" --steps 3
    run $of-again --resume --steps 6
    check "$of: goes on exactly" [ "$(loss $of 6)" = "$(loss $of-again 6)" ]
}

follows mixture --data a.jsonl:0.75,"$text":0.25 --text-key doc.text --tokenizer byte
check "a mixture is told by its sources" grep -q '^source  .*a.jsonl: 75 % of the sequences' stderr
check "at the end with tokens and passes" [ "$(grep -c '^source' stderr)" -ge 2 ]
check "its validation loss is the mean of its sources', by their weights" near "$(val mixture)" \
    "$(sed -n 's/.*"val_loss_by_source": *\[\([^]]*\)\].*/\1/p' mixture/metrics.jsonl | tail -n 1 | awk -F, '{ printf "%.9g", 0.75 * $1 + 0.25 * $2 }')"
follows chats --data chat.jsonl --chat-template chat.jinja --tokenizer byte
check "a run keeps the template of its chats" cmp -s chat.jinja chats/tokenizer/chat_template.jinja
run fine --from chats --data "$text" --seq 32 --batch 6 --steps 2 --eval-every 0
check "and so does one that goes on from it with text" cmp -s chat.jinja fine/tokenizer/chat_template.jinja
does "an export" . export fine -o exported
check "has it as well" cmp -s chat.jinja exported/chat_template.jinja
follows within --data tokens --documents within
run across $model --data tokens
check "documents that are kept apart are others than a text" [ "$(loss within 1)" != "$(loss across 1)" ]
follows rows --data tokens --rows documents

run validated $model --data a.jsonl --text-key doc.text --tokenizer byte --eval-data "$text"
check "a text validates what records train" grep -q '^eval .*text.txt' stderr

# Where positions are relative, documents that lie beside each other in a row are what they are alone.
cat > llama.json <<'END'
{ "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
  "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu",
  "tie_word_embeddings": true }
END
awk 'BEGIN { for (i = 0; i < 40; i++) printf "{\"text\": \"%c%03d%c%03d\"}\n", 97 + i % 7, i * 37 % 1000, 97 + i % 5, i * 91 % 1000 }' > eight.jsonl
run llama --model llama.json --seq 32 --batch 4 --data eight.jsonl --tokenizer byte --steps 20 --lr 1e-2 --eval-every 0 --documents within
run llama-tensor --model llama.json --seq 32 --batch 4 --data eight.jsonl --tokenizer byte --steps 20 --lr 1e-2 --eval-every 0 --documents within \
    --devices cpu:0/2 --tensor 2
check "two tensor ranks keep documents apart alike" near "$(loss llama 20)" "$(loss llama-tensor 20)"
part="--split all --from llama --data eight.jsonl --seq 32 --batches 1"
does "documents beside each other" '9 of 9 sequences' eval $part --documents within --batch 9
packed=$(sed -n 's/^loss \([0-9.]*\).*/\1/p' stdout)
does "and alone" '36 of 40 sequences' eval $part --rows documents --batch 36
check "have the same loss" near "$packed" "$(sed -n 's/^loss \([0-9.]*\).*/\1/p' stdout)"
does "but not as one text" '9 of 9 sequences' eval $part --documents across --batch 9
check "whose loss is another" [ "$packed" != "$(sed -n 's/^loss \([0-9.]*\).*/\1/p' stdout)" ]

does "a run is evaluated on a part of its mixture" 'of .*a.jsonl' eval --from mixture --data a.jsonl --text-key doc.text --seq 32
does "and on chats as it was trained" 'the validation part' eval --from chats --data chat.jsonl --chat-template chat.jinja --seq 32
check "with the loss that it had" near "$(sed -n 's/^loss \([0-9.]*\).*/\1/p' stdout)" "$(awk -v v="$(val chats)" 'BEGIN { printf "%.6f", v }')"

# ---- refusals -------------------------------------------------------------------------------------------

set -- train --model gpt2-tiny --seq 32 --out new
printf '{"text": "a"}\n{"text": 1}\n' > broken.jsonl
refuses "a broken record" 1 "broken.jsonl': line 2: there is no text at the key 'text'" "$@" --data broken.jsonl
refuses "a column that is not there" 1 "b.csv': its header has no column 'body'; it has: label, text" "$@" --data b.csv --text-key body
refuses "a key for a text" 2 "option --text-key is for records" "$@" --data "$text" --text-key t
refuses "a weight for one alone" 2 "has no weight, and others have one" "$@" --data a.jsonl:1,b.csv
refuses "a mixture with something that is missing" 1 "cannot open 'c.csv:1': No such file" "$@" --data b.csv:1,c.csv:1
refuses "a tokenizer to be trained on a mixture" 2 "cannot train tokenizer 'char' on a mixture" "$@" --data b.csv:1,b.csv:2 --tokenizer char
refuses "chats without a template" 2 "line 1: it is a chat, and the tokenizer has no chat template; name one with --chat-template" \
    "$@" --data chat.jsonl
refuses "documents that nothing tells apart" 1 "cannot tell the documents of .*apart" "$@" --data "$text" --documents within --tokenizer byte
refuses "rows of another kind, resumed" 1 "begun with documents" train --out rows --resume --rows packed
printf '{"text": ""}\n{"text": ""}\n' > empty.jsonl
refuses "records without a text" 1 "empty.jsonl': there is no text to train on in it" "$@" --data empty.jsonl --tokenizer byte
printf 'PAR1\025\004' > x.parquet
refuses "Parquet, by name" 1 "is a Parquet file; write it as JSONL" "$@" --data x.parquet

close_checks
