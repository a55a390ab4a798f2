#!/bin/sh
# SPDX-License-Identifier: MIT
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
broken "a normalizer that is not known" "'bad': normalizer 'Spiral'" 's/"normalizer": null/"normalizer": {"type": "Spiral"}/'
broken "a pre_tokenizer that is not known" "'bad': pre_tokenizer 'Spiral'" 's/"type": "ByteLevel"/"type": "Spiral"/'
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

# A new model without one, and nothing said: the family's usual one, told in a line.
does "a new model takes its family's usual tokenizer" '^step 2 ' \
    train --model gpt2-tiny --data other.txt $trained --out usual
check "and says which" grep -q '^texts   read with the usual tokenizer of gpt2 models, byte; --tokenizer takes another' stderr
check "it is kept" cmp -s usual/tokenizer/tokenizer.json other-tokens/tokenizer/tokenizer.json
does "another run names it" '^step 2 ' \
    train --model gpt2-tiny --data other.txt --tokenizer byte $trained --out named-byte
check "for there is no choice to tell of" sh -c '! grep -q "usual tokenizer" stderr'
does "the run goes on with it" '^step 4 ' train --out usual --resume --steps 4
check "as its own" sh -c '! grep -q "usual tokenizer" stderr'

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

# ---- runs whose tokenizer is gone, or was replaced ---------------------------------------------------

hash=$(sed -n 's/.*"tokenizer_hash": "\([0-9a-f]*\)".*/\1/p' tokens/tokens.json)
check "the run's config.json keeps which one it was" [ "$(tr -d ' \n' < run/config.json \
    | grep -c "\"tokenizer\":{\"kind\":\"bpe\",\"tokens\":300,\"hash\":\"$hash\"}")" -eq 1 ]
cp -r run lost && rm -r lost/tokenizer
was="'lost' was trained with another tokenizer, as its config.json says \(bpe, 300 tokens, $hash\), than"
back="put the first one back into 'lost/tokenizer'.*or name it with --tokenizer"
cp lost/config.json lost.json
refuses "--resume on another text, whose tokenizer would be trained anew" 2 \
    "$was that of 'other.txt' \(bpe, 300 tokens, [0-9a-f]{16}\).*$back" train --out lost --resume --data other.txt --steps 10
refuses "--resume with bytes" 2 "$was --tokenizer byte \(byte, 256" \
    train --out lost --resume --data "$text" --tokenizer byte --steps 10
refuses "--resume on tokens of another" 2 "$was that of 'other-tokens'" \
    train --out lost --resume --data other-tokens --steps 10
refuses "--from it with one trained on another text" 2 "$was --tokenizer bpe:300 .*$back" \
    train --from lost --data other.txt --tokenizer bpe:300 $trained --out new
refuses "--from it without one" 1 "'lost' was trained with one \(bpe, 300 tokens, $hash\) that is not in 'lost/tokenizer'" \
    train --from lost --data "$text" $trained --out new
refuses "eval of it with another" 2 "$was --tokenizer byte" eval --from lost --data "$text" --tokenizer byte
refuses "eval of it without one" 1 "'lost' has no tokenizer, and was trained with one \(bpe, 300 tokens, $hash" \
    eval --from lost --data "$text"
check "nothing was written there" [ ! -e lost/tokenizer ]
check "nor in its config.json" cmp -s lost/config.json lost.json
does "--from it on bare tokens" '^step 2 ' train --from lost --data bare_train.bin $trained --out heir
refuses "hands on which one it was" 2 "'heir' was trained with another tokenizer, .* $hash\)" \
    train --out heir --resume --data "$text" --tokenizer byte --steps 4
does "--resume on bare tokens" '^step 10 ' train --out lost --resume --data bare_train.bin --steps 10
check "keeps which one it was" grep -q "$hash" lost/config.json
does "--resume with the same, named" '^step 12 ' \
    train --out lost --resume --data "$text" --tokenizer kept --steps 12
check "puts it back" cmp -s lost/tokenizer/tokenizer.json kept/tokenizer.json
rm -r lost/tokenizer
does "--resume on the text that it is made of" '^step 14 ' \
    train --out lost --resume --data "$text" --tokenizer bpe:300 --steps 14
check "puts it back as well" cmp -s lost/tokenizer/tokenizer.json kept/tokenizer.json

rm -r lost/tokenizer && cp -r other-tokens/tokenizer lost/tokenizer
refuses "--resume with another in its place" 2 "$was that in 'lost/tokenizer' \(byte, 256" \
    train --out lost --resume --data "$text" --steps 16
refuses "eval with another in its place" 2 "$was that in 'lost/tokenizer'" eval --from lost --data "$text"
refuses "generate with another in its place" 2 "$was that in 'lost/tokenizer'" generate --from lost --prompt the
refuses "--from it with another in its place" 2 "$was that in 'lost/tokenizer'" \
    train --from lost --data "$text" $trained --out new
sed 's/"hash": "[0-9a-f]*"/"hash": "beyond"/' run/config.json > lost/config.json
refuses "a hash that is none" 1 'config.json.: "tokenizer" is not .*16 hexadecimal digits' eval --from lost --data "$text"

# A run of an earlier version says nothing of its tokenizer.
rm -rf lost && cp -r run lost
sed '/^  "tokenizer": {/,/^  },/d' run/config.json > lost/config.json
check "the entry was taken out" [ "$(grep -c '"hash"' lost/config.json)" -eq 0 ]
cp lost/config.json lost.json
does "--resume of an earlier version's run" '^step 10 ' train --out lost --resume --data "$text" --steps 10
check "keeps from now on which one it is" grep -q "\"hash\": \"$hash\"" lost/config.json
rm -r lost/tokenizer && cp lost.json lost/config.json
does "nor can what is gone be known" '^step 12 ' train --out lost --resume --data "$text" --steps 12
check "which is said" grep -q "nothing in 'lost' says which tokenizer it was trained with" stderr
check "so none is written" [ ! -e lost/tokenizer/tokenizer.json ]
check "nor kept" [ "$(grep -c '"hash"' lost/config.json)" -eq 0 ]
check "what was refused left nothing" [ ! -e new ]

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
