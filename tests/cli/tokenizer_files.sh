#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/tokenizer_files.sh - tokenizers in the files that models come with: what tokenize makes with them
# is made again with what it saved, and a file that is none of them is refused in a sentence.
. "$(dirname "$0")/cli_checks.sh"

same_again()    # NAME KIND SPEC: tokens of SPEC, and the same of the tokenizer saved beside them
{
    rm -rf tokens again
    does "$1 is read" 'training and .* validation tokens' tokenize "$text" --tokenizer "$3" -o tokens
    check "as a tokenizer of its kind" grep -q "\"tokenizer\": \"$2\"" tokens/tokens.json
    does "what was saved is read" 'training and .* validation tokens' \
        tokenize "$text" --tokenizer tokens/tokenizer -o again
    check "and makes the same tokens" cmp -s tokens/train-000000.bin again/train-000000.bin
    check "of the same tokenizer" cmp -s tokens/tokens.json again/tokens.json
    check "saved as it was" cmp -s tokens/tokenizer/tokenizer.json again/tokenizer/tokenizer.json
}

{
    printf '[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n.\n,\n'
    for letter in a b c d e f g h i j k l m n o p q r s t u v w x y z; do printf '%s\n##%s\n' "$letter" "$letter"; done
    printf 'the\nwheel\ntrain\n##rs\n'
} > vocab.txt
same_again "BERT's vocab.txt" wordpiece vocab.txt
does "a model is trained on its tokens" '^step 2 ' \
    train --model gpt2-tiny --data tokens --seq 32 --batch 4 --steps 2 --eval-every 0 --out run
mkdir bert && cp vocab.txt bert && printf '{"tokenizer_class": "BertTokenizer", "do_lower_case": true}' > bert/tokenizer_config.json
same_again "a folder of BERT's files" wordpiece bert

# Unigram over letters; a word of one letter is a piece with its space.
awk 'BEGIN {
    printf "{\"normalizer\":{\"type\":\"NFKC\"},\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\342\226\201\","
    printf "\"prepend_scheme\":\"always\",\"split\":true},\"decoder\":{\"type\":\"Metaspace\"},\"model\":{\"type\":\"Unigram\","
    printf "\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"\342\226\201\",-2],[\"\342\226\201a\",-3],[\"the\",-4]"
    for (i = 97; i < 123; i++) printf ",[\"%c\",-%d.5]", i, i - 90
    printf "]}}"
}' > unigram.json
same_again "a tokenizer.json of Unigram" unigram unigram.json

# SentencePiece: <unk>, the sign for a space, and letters, BPE without merges.
piece() { printf '\n%b\n%b%s\025\000\000\200\277\030\001' "$1" "$2" "$3"; }
{
    printf '\n\016\n\005<unk>\025\000\000\000\000\030\002'
    piece '\014' '\003' "$(printf '\342\226\201')"
    for letter in a b c d e f g h i j k l m n o p q r s t u v w x y z . ,; do piece '\012' '\001' "$letter"; done
    printf '\022\002\030\002\032\006\030\001\040\000\050\001'
} > letters.model
same_again "SentencePiece's tokenizer.model" bpe letters.model

head -c 60 letters.model > cut.model
refuses "a model that is cut" 1 "cut.model': it is not a SentencePiece model, or cut" tokenize "$text" --tokenizer cut.model -o new
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n' > pointer.json
refuses "a pointer in place of a file" 1 'pointer.json.*git-lfs' tokenize "$text" --tokenizer pointer.json -o new
sed 's/"Unigram"/"WordLevel"/' unigram.json > level.json
refuses "a model that is not known" 1 "level.json': tokenizer model 'WordLevel'" tokenize "$text" --tokenizer level.json -o new
sed 's/"NFKC"/"Spiral"/' unigram.json > spiral.json
refuses "a normalizer that is not known" 1 "spiral.json': normalizer 'Spiral'" tokenize "$text" --tokenizer spiral.json -o new
head -c 200 unigram.json > short.json
refuses "a tokenizer.json that is cut" 1 "short.json': byte" tokenize "$text" --tokenizer short.json -o new
printf 'a\nb\n' > plain.txt
refuses "a text in place of a vocabulary" 1 "plain.txt': it has no line \[UNK\]" tokenize "$text" --tokenizer plain.txt -o new
printf 'caf\351' > latin.txt
refuses "bytes that WordPiece has no token for" 1 "latin.txt': byte 3: byte 0xe9 is not UTF-8" \
    tokenize latin.txt --tokenizer vocab.txt -o new
check "what was refused left nothing" [ ! -e new ]
close_checks
