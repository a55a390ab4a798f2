#!/bin/sh
# SPDX-License-Identifier: MIT
# findings/tokenizers_added_case.sh - Hugging Face's tokenizers decodes added tokens as normalized.
#
# One would guess: an added token is decoded as the content it was added with, id_to_token() undoes
# token_to_id(), and decode() with skip_special_tokens leaves out each special token, whatever its flags.
# Seen with tokenizers 0.23.3 (as in 0.23.1): one with normalized=True comes back normalized, "NaCl" as
# "nacl" under Lowercase, although get_vocab() and the saved file have "NaCl" and token_to_id("nacl")
# is None. A special one is no longer known as special by then, and stays in text that was to be without.
# 0.22.2 did as one would guess. Answers of uncased models with added names change with the upgrade.
#
# Installs both by pip, without what they only download with, into venvs in a temporary folder.
# Exit 0 if it is as described, 1 if not, 77 if it cannot be tried.
set -u
version=0.23.3
before=0.22.2
work=$(mktemp -d "${TMPDIR:-/tmp}/finding-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
for v in $before $version; do
    { python3 -m venv "$v" && "$v"/bin/pip install --no-deps --only-binary :all: "tokenizers==$v"; } > log 2>&1 \
        || { tail -n 3 log; exit 77; }
done

# Exits 0 if added tokens come back as they were added, 2 if normalized, 1 if in some third way.
cat > added.py <<'P'
import sys
import tokenizers
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "dissolve": 1, "in": 2, "water": 3}, unk_token="[UNK]"))
tokenizer.normalizer = normalizers.Lowercase()
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer.add_tokens([AddedToken("NaCl", normalized=True), AddedToken("KCl", normalized=False)])
tokenizer.add_special_tokens([AddedToken("[Stop]", normalized=True), AddedToken("[Pad]", normalized=False)])

print("tokenizers", tokenizers.__version__)
for token in ("NaCl", "KCl", "[Stop]", "[Pad]", "nacl"):
    i = tokenizer.token_to_id(token)
    back = "" if i is None else f", id_to_token({i}) is {tokenizer.id_to_token(i)}"
    print(f"  token_to_id({token}) is {i}{back}")
text = "dissolve NaCl KCl in water [Stop] [Pad]"
ids = tokenizer.encode(text).ids
whole, short = tokenizer.decode(ids, skip_special_tokens=False), tokenizer.decode(ids)
print(f"  {text}: {ids}\n    decoded: {whole}\n    without special tokens: {short}")

if tokenizer.token_to_id("nacl") is not None or tokenizer.get_vocab().get("NaCl") != 4:
    sys.exit(1)
if (whole, short) == (text, "dissolve NaCl KCl in water"):
    sys.exit(0 if tokenizer.id_to_token(4) == "NaCl" else 1)
if (whole, short) == ("dissolve nacl KCl in water [stop] [Pad]", "dissolve nacl KCl in water [stop]"):
    sys.exit(2 if tokenizer.id_to_token(4) == "nacl" else 1)
sys.exit(1)
P
timeout 120 $before/bin/python added.py
was=$?
timeout 120 $version/bin/python added.py
is=$?
if [ $was = 0 ] && [ $is = 2 ]; then
    echo "as described: as added in $before, normalized in $version"
else
    echo "NOT as described"
    exit 1
fi
