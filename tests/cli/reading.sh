#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/reading.sh - what is counted of data, and that a run is measured as it was trained: sequences that are cut
# alike, tokens without padding, right answers of hidden tokens under every plan, data of which nothing counts.
. "$(dirname "$0")/cli_checks.sh"

mkdir tok
for w in '[PAD]' '[UNK]' '[CLS]' '[SEP]' '[MASK]' the wheel turn a gear of train and its teeth meet another '##s' .; do
    echo "$w"
done > tok/vocab.txt
cat > model.json <<'END'
{ "model_type": "bert", "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 48,
  "max_position_embeddings": 32, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0 }
END
# Records of 5 to 29 letters, of which all but the first are targets: the byte tokenizer has no end of text.
awk 'BEGIN { for (i = 0; i < 50; i++) { s = ""; for (k = 0; k < 5 + i % 25; k++) s = s substr("abcdefgh", 1 + (i * k) % 8, 1)
    print "{\"text\": \"" s "\"}" } }' > records.jsonl
last_letters=$(tail -n 5 records.jsonl | awk -F '"' '{ n += length($4) - 1 } END { print n }')
value() { sed -n "s/.*\"$1\": *\\([0-9.e+-]*\\).*/\\1/p"; }

# ---- sequences ----------------------------------------------------------------------------------------

for reading in '--rows documents' '--documents within'; do
    program train --model gpt2-tiny --tokenizer byte --data records.jsonl --seq 32 --batch 10 --steps 9 --eval-every 9 \
        --dropout 0 $reading --out run > stdout 2> stderr
    want=$(tail -n 1 run/metrics.jsonl | value val_loss)
    program eval --from run --data records.jsonl --seq 32 --json > measured 2> stderr
    check "$reading: eval measures what the run validated" [ -n "$want" -a "$(value loss < measured)" = "$want" ]
    program eval --from run --data records.jsonl --seq 32 --rows packed --documents across --json > other 2> stderr
    check "$reading: unless it is told otherwise" [ "$(value loss < other)" != "$want" ]
    [ "$reading" = '--rows documents' ] || continue
    check "eval counts no padding" [ "$(value tokens < measured)" = "$last_letters" ]
    check "nor does training: an epoch is its targets" [ "$(tail -n 1 run/metrics.jsonl | value tokens)" = \
        "$(head -n 45 records.jsonl | awk -F '"' '{ n += length($4) - 1 } END { print 2 * n }')" ]
    does "eval says so" 'sequences of 32 tokens, a document each' eval --from run --data records.jsonl --seq 32
    rm -rf run
done

# ---- hidden tokens ------------------------------------------------------------------------------------

mlm="--model model.json --tokenizer tok --data $text --seq 24 --batch 8 --micro-batch 2 --lr 1e-2 --lr-schedule constant --eval-every 20 --steps 60"
program train $mlm --out one > stdout 2> stderr
check "validation lines have the accuracy of hidden tokens" grep -q 'val [0-9.]*  ppl [0-9.]*  accuracy [0-9.]* %' stdout
tail -n 1 one/metrics.jsonl > row
program eval --from one --data "$text" --seq 24 --json > measured 2> stderr
check "eval finds the same" [ -n "$(value val_accuracy < row)" -a "$(value accuracy < measured)" = "$(value val_accuracy < row)" ]
for plan in 'two stages|--stages 2 --replicas 1|' 'unequal replicas|--replicas 2 --stages 1|@0.5' 'two tensor ranks|--tensor 2|'; do
    options=${plan#*|}
    rm -rf many
    program train --from one --data "$text" --seq 24 --batch 8 --micro-batch 2 --lr 1e-9 --eval-every 1 --steps 1 --out many \
        --devices "cpu:0.0,cpu:0.1${plan##*|}" ${options%|*} > stdout 2> stderr
    tail -n 1 many/metrics.jsonl > row
    check "${plan%%|*}: the same right answers" \
        awk "BEGIN { d = $(value val_accuracy < row) - $(value accuracy < measured); exit !(d < 2e-3 && d > -2e-3) }"
done
check "tokens of hidden ones' data are all of the text" [ "$(value tokens < measured)" -gt "$(value targets < measured)" ]

# ---- nothing counts -----------------------------------------------------------------------------------

awk 'BEGIN { for (i = 0; i < 40; i++) printf "{\"messages\": [{\"role\": \"user\", \"content\": \"%s\"}, {\"role\": \"assistant\", \"content\": \"yes\"}]}\n",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }' > chats.jsonl
printf '%s' "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}
{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}" > chat.jinja
refuses "chats whose answers begin behind --seq" 1 "no target of the training data, 'chats.jsonl', counts within sequences of 32 tokens" \
    train --model gpt2-tiny --tokenizer byte --data chats.jsonl --text-key messages --chat-template chat.jinja --rows documents \
    --seq 32 --steps 4 --out none
check "and nothing is begun" [ ! -e none/metrics.jsonl ]

# ---- options that would do nothing --------------------------------------------------------------------

sed 's/}$/, "label": "x"}/' records.jsonl > labels.jsonl
refuses "labels of next tokens" 2 'option --label-key would be ignored: .* this is --task lm' \
    train --model gpt2-tiny --tokenizer byte --data labels.jsonl --label-key label --out none
refuses "and to eval" 2 'option --label-key would be ignored: .* this is --task mlm' \
    eval --from one --data labels.jsonl --label-key label
refuses "chats of hidden words" 2 'option --chat-template would be ignored' \
    train $mlm --chat-template chat.jinja --data chats.jsonl --out none
refuses "labels of vectors" 2 'option --label-key would be ignored' embed --from one --data labels.jsonl --label-key label
awk 'BEGIN { print "text,label"; for (i = 0; i < 30; i++) print "the wheel turns.," i % 2 }' > labelled.csv
refuses "a text to validate classes on" 1 "'$text' has no labels, which --task classify needs" \
    train --model model.json --tokenizer tok --task classify --data labelled.csv --label-key label --seq 16 --steps 2 \
    --eval-data "$text" --eval-every 2 --out none

# ---- sentences that name the cause --------------------------------------------------------------------

program tokenize "$text" --tokenizer bpe:300 -o ended > stdout 2> stderr
refuses "a plain text as documents, in a mixture" 1 "'$text': no document ends in it, as in a plain text" \
    train --model gpt2-tiny --tokenizer ended --data "records.jsonl:0.5,$text:0.5" --rows documents --seq 16 --out none
refuses "sequences that do not fit, however short the data" 2 "has 64 positions, so a sequence of 99999 tokens does not fit" \
    train --model gpt2-tiny --tokenizer byte --data records.jsonl --seq 99999 --out none
refuses "another task of a run" 2 "cannot resume 'one' with --task classify: it was begun with --task mlm" \
    train --out one --resume --task classify --steps 70
refuses "pairs of a run without" 2 "cannot resume 'one' with --pairs" train --out one --resume --pairs --steps 70
train_tiny --tokenizer byte --steps 1 --eval-every 0 --out gpt > stdout 2> stderr
program generate --from gpt --prompt "$(head -c 100 "$text")" --tokens 2 > stdout 2> stderr
check "a prompt that is longer than the context" grep -q 'the prompt has 100 tokens, more than .* context: its first [0-9]* were forgotten, the last [0-9]* are seen' stderr
program generate --from gpt --prompt "$(head -c 64 "$text")" --tokens 2 > stdout 2> stderr
check "and none that fits" [ "$(grep -c forgotten stderr)" = 0 ]
program generate --from gpt --chat --prompt x > stdout 2> stderr
check "a chat without a template: the way out is said once" [ "$(grep -o -e '--chat-template FILE' stderr | wc -l)" = 1 ]
echo '{ "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 32, "vocab_size": 300 }' > none.json
refuses "a description of any family" 1 "'none.json' has no model_type, and its keys do not tell" \
    train --model none.json --tokenizer byte --data records.jsonl --seq 16 --out none
echo '{ "n_layer": 1, "n_head": 2, "n_embd": 32 }' > known.json
program train --model known.json --tokenizer byte --data records.jsonl --seq 16 --steps 1 --eval-every 0 --out known > stdout 2> stderr
check "or of one that its keys tell" grep -q "'known.json' has no model_type; it is read as 'gpt2', the only family with 'n_layer', 'n_head', 'n_embd'" stderr
close_checks
