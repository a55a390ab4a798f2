#!/bin/sh
# tests/cli/tokenizer_kept.sh - a model's texts are read with the tokenizer it was trained with, or
# not at all: no other one takes its place in silence, and none is written over.
. "$(dirname "$0")/cli_checks.sh"

tr 'a-y' 'b-z' < "$text" > other.txt
"$geartrain" tokenize "$text" --tokenizer bpe:300 -o tokens > stdout 2> stderr || { cat stderr; exit 1; }
"$geartrain" tokenize other.txt --tokenizer byte -o other-tokens > stdout 2> stderr
cp tokens/train-000000.bin bare_train.bin
cp tokens/val-000000.bin bare_val.bin
trained="--seq 32 --batch 4 --steps 2 --eval-every 0"
"$geartrain" train --model gpt2-tiny --data "$text" --tokenizer bpe:300 $trained --out run \
    > stdout 2> stderr || { cat stderr; exit 1; }
"$geartrain" export run -o whole > stdout 2> stderr || { cat stderr; exit 1; }
cp -r run/tokenizer kept

# ---- folders whose tokenizer cannot be read, or is not there --------------------------------------

broken()    # NAME PATTERN SED-SCRIPT: in every verb, the sentence that tokenize has
{
    rm -rf bad
    cp -r whole bad
    sed "$3" whole/tokenizer.json > bad/tokenizer.json
    refuses "$1: tokenize" 1 "$2" tokenize "$text" --tokenizer bad -o new
    refuses "$1: eval" 1 "$2" eval --from bad --data "$text"
    refuses "$1: eval with another one" 1 "$2" eval --from bad --data "$text" --tokenizer byte
    refuses "$1: eval of tokens made by another one" 1 "$2" eval --from bad --data tokens
    refuses "$1: generate" 1 "$2" generate --from bad --prompt the -n 5
    refuses "$1: train --from" 1 "$2" train --from bad --data "$text" $trained --out new
    refuses "$1: train --from with another one" 1 "$2" \
        train --from bad --data "$text" --tokenizer byte $trained --out new
    refuses "$1: train --model" 1 "$2" train --model bad --data "$text" $trained --out new
    refuses "$1: export" 1 "$2" export bad -o new
    does "$1: bare tokens need none" '^loss ' eval --from bad --data bare_val.bin --seq 32
}
broken "a prefix space" "bad/tokenizer.json': .*add_prefix_space" 's/"add_prefix_space": false/"add_prefix_space": true/'
broken "a normalizer" "normalizer 'NFC'" 's/"normalizer": null/"normalizer": {"type": "NFC"}/'
broken "a file that is cut" "bad/tokenizer.json': byte" '40,$d'

rm -rf bad && cp -r whole bad && rm bad/tokenizer.json
refuses "a tokenizer that was not copied" 1 'neither tokenizer.json nor' eval --from bad --data "$text"
rm -rf none && cp -r whole none && rm none/tokenizer*.json
refuses "eval without a tokenizer" 1 "'none' has no tokenizer; .*--tokenizer" eval --from none --data "$text"
refuses "generate without a tokenizer" 1 "'none' has no tokenizer; put its tokenizer.json" \
    generate --from none --prompt the
refuses "train --from without a tokenizer" 1 "read '.*text.txt'.* 'none' came without one.*--tokenizer" \
    train --from none --data "$text" $trained --out new
does "eval of tokens needs none" '^loss ' eval --from none --data bare_val.bin --seq 32
does "nor of a folder of tokens" '^loss ' eval --from none --data tokens --seq 32 --split val
cp stdout want
does "eval with the tokenizer named" '^loss ' eval --from none --data "$text" --tokenizer kept --seq 32 --split val
check "gives the loss of those tokens" [ "$(cut -d' ' -f1-8 stdout)" = "$(cut -d' ' -f1-8 want)" ]
"$geartrain" tokenize "$text" other.txt --tokenizer bpe:310 -o larger > stdout 2> stderr
refuses "eval with more tokens than the model has" 1 "tokenizer larger has 310 tokens, the model of 'none' 300" \
    eval --from none --data "$text" --tokenizer larger
does "train --from with the tokenizer named" '^step 2 ' \
    train --from none --data "$text" --tokenizer kept $trained --out named
check "keeps it" cmp -s named/tokenizer/tokenizer.json kept/tokenizer.json
does "train --from on bare tokens" '^step 2 ' train --from none --data bare_train.bin $trained --out plain
check "has no tokenizer then" [ ! -e plain/tokenizer/tokenizer.json ]
refuses "which its resumption on a text needs" 1 "read '.*text.txt' with: run 'plain' came without one" \
    train --out plain --resume --data "$text" --steps 4
refuses "eval with one to be trained" 2 "'char' would be made of what is measured" \
    eval --from none --data "$text" --tokenizer char
does "train --model takes the folder's tokenizer" '^step 2 ' \
    train --model whole --data "$text" $trained --out described
check "and not bytes" cmp -s described/tokenizer/tokenizer.json kept/tokenizer.json

# ---- other tokenizers than the run's ---------------------------------------------------------------

another="'run' was trained with the tokenizer in 'run/tokenizer' \(bpe, 300 tokens, [0-9a-f]{16}\), and"
refuses "--resume with another text and tokenizer" 2 "$another --tokenizer bpe:300 is another" \
    train --out run --resume --tokenizer bpe:300 --data other.txt --steps 4
refuses "--resume with bytes" 2 "$another --tokenizer byte is another one \(byte, 256 tokens" \
    train --out run --resume --tokenizer byte --steps 4
refuses "--resume with tokens of another" 2 "$another that of 'other-tokens' is another" \
    train --out run --resume --data other-tokens --steps 4
refuses "--from a run with another size" 2 "$another --tokenizer bpe:290 is another" \
    train --from run --data "$text" --tokenizer bpe:290 $trained --out new
refuses "--from a run with tokens of another" 2 "$another that of 'other-tokens' is" \
    train --from run --data other-tokens $trained --out new
refuses "--from a folder with another" 2 "'whole' was trained with the tokenizer in 'whole' .* --tokenizer byte" \
    train --from whole --data "$text" --tokenizer byte $trained --out new
refuses "eval with another" 2 "$another --tokenizer byte is another" \
    eval --from run --data "$text" --tokenizer byte
refuses "eval of tokens made by another" 1 'tokens were made by another tokenizer' \
    eval --from run --data other-tokens
check "the run's tokenizer is as it was" cmp -s run/tokenizer/tokenizer.json kept/tokenizer.json
check "and what was refused left nothing" [ ! -e new ]
before=$(ls -i run/tokenizer/tokenizer.json)
does "--resume with the same, named again" '^step 4 ' train --out run --resume --tokenizer bpe:300 --steps 4
does "--resume on another text" '^step 6 ' train --out run --resume --data other.txt --steps 6
does "--resume on tokens made by it" '^step 8 ' train --out run --resume --data tokens --steps 8
check "writes the tokenizer once" [ "$(ls -i run/tokenizer/tokenizer.json)" = "$before" ]
check "as it was" cmp -s run/tokenizer/tokenizer.json kept/tokenizer.json
does "--from with the same, named" '^step 2 ' \
    train --from run --data "$text" --tokenizer run $trained --out again
"$geartrain" train --out run --resume --tokenizer byte --data "$text" --steps 10 \
    --devices cpu:0.0,cpu:0.1 > stdout 2> stderr
check "--resume on two ranks with bytes" [ $? -eq 2 ]
check "says so" grep -Eq "$another --tokenizer byte" stderr

# ---- texts beside the data -------------------------------------------------------------------------

# A char tokenizer made of the validation text would give other ids.
does "--eval-data is read with the tokenizer of the data" '"val_loss"' train --model gpt2-tiny \
    --data "$text" --eval-data "$text" --tokenizer char --seq 32 --batch 4 --steps 2 --eval-every 2 \
    --out valid --json
printf 'zebra' | cat - "$text" > strange.txt
refuses "and what that does not know is refused" 1 "strange.txt': byte 0: character 'z'" \
    train --model gpt2-tiny --data "$text" --eval-data strange.txt --tokenizer char $trained --eval-every 2 --out new
refuses "a text beside tokens of nobody" 1 "read '.*text.txt' with: the data of 'bare_train.bin'" \
    train --model whole/config.json --data bare_train.bin --eval-data "$text" $trained --eval-every 2 --out new

close_checks
