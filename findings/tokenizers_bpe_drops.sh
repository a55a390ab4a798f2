#!/bin/sh
# SPDX-License-Identifier: MIT
# findings/tokenizers_bpe_drops.sh - a BPE without unk_token of Hugging Face's leaves out what it lacks.
#
# One would guess: encode() of a character that the vocabulary lacks fails, as with the WordLevel,
# WordPiece and Unigram of the same package, or gives the [UNK] that the vocabulary was trained with.
# Seen with tokenizers 0.23.3: BPE(), whose unk_token is not named in its constructor, leaves the
# character out, with no error and no warning, though [UNK] has an id; what stood on both sides of it
# then merges, so that "lo7w" and "low" are the same ids. A text of nothing else is no ids at all.
# A loss per token or per byte of such data looks better than it is. Reported upstream in issues 517 and
# 643 of huggingface/tokenizers, 2020 and 2021.
#
# Installs tokenizers by pip, without what it only downloads with, into a venv in a temporary folder.
# Exit 0 if it is as described, 1 if not, 77 if it cannot be tried.
set -u
version=0.23.3
work=$(mktemp -d "${TMPDIR:-/tmp}/finding-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
{ python3 -m venv venv && venv/bin/pip install --no-deps --only-binary :all: tokenizers==$version; } \
    > log 2>&1 || { tail -n 3 log; exit 77; }

cat > drops.py <<'P'
import sys
import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

corpus = ["low lower lowest slow slower", "new newer newest", "wide wider widest"] * 20
texts = ["low", "lo7w", "new7er low", "789", "lowest"]


def bpe(**named):
    tokenizer = Tokenizer(models.BPE(**named))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=60, special_tokens=["[UNK]"], show_progress=False))
    return tokenizer


print("tokenizers", tokenizers.__version__)
plain, named = bpe(), bpe(unk_token="[UNK]")
same = plain.get_vocab() == named.get_vocab()
print("both vocabularies have", plain.get_vocab_size(), "tokens" if same else "DIFFERENT tokens",
      "with [UNK] as", plain.token_to_id("[UNK]"))
print(f"{'text':14}{'BPE()':34}BPE(unk_token='[UNK]')")
for text in texts:
    print(f"{text:14}{str(plain.encode(text).tokens):34}{named.encode(text).tokens}")

refuse = 0
letters = sorted(set("".join(corpus)))
for name, model in (("WordLevel", models.WordLevel({c: i for i, c in enumerate(letters)})),
                    ("WordPiece", models.WordPiece({c: i for i, c in enumerate(letters)})),
                    ("Unigram", models.Unigram([(c, -1.0) for c in letters]))):
    try:
        print(f"{name} without it:", Tokenizer(model).encode("7").ids)
    except Exception as error:
        refuse += 1
        print(f"{name} without it: refuses, {error}")

lossy = (plain.encode("lo7w").ids == plain.encode("low").ids and plain.encode("789").ids == []
         and plain.encode("new7er low").ids == plain.encode("newer low").ids)
kept = named.encode("lo7w").tokens.count("[UNK]") == 1 and named.encode("789").tokens == ["[UNK]"] * 3
sys.exit(0 if same and lossy and kept and refuse == 3 else 1)
P
if timeout 120 venv/bin/python drops.py; then
    echo "as described: left out in silence by BPE(), refused by the other three"
else
    echo "NOT as described"
    exit 1
fi
