#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/interchange.sh - interchange.py with the Python packages it needs.
#
# They are installed by name below $TMPDIR when a package index answers; torch is not, for
# its size: have Debian's python3-torch installed, or nothing is checked here.
: "${GEARTRAIN:=build/geartrain}"
case $GEARTRAIN in /*) ;; *) GEARTRAIN=$PWD/$GEARTRAIN ;; esac
here=$(cd "$(dirname "$0")" && pwd) || exit 1
python=/usr/bin/python3
skip()
{
    echo "skipped: $1"
    exit 77
}
[ -x "$GEARTRAIN" ] || skip "there is no program '$GEARTRAIN'; name it with \$GEARTRAIN"
$python -c 'import torch' 2> /dev/null || skip "no Python package 'torch' (Debian: python3-torch)"

work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-cli-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
if ! $python -c 'import transformers, safetensors, tokenizers, tensorboard' 2> /dev/null; then
    # NumPy 2 does not work with Debian's torch.
    $python -m venv --system-site-packages "$work/venv" > "$work/log" 2>&1 \
        && "$work/venv/bin/pip" install --quiet --no-input --disable-pip-version-check --retries 1 \
               'transformers<4.48' safetensors tokenizers tensorboard 'numpy<2' >> "$work/log" 2>&1 \
        || skip "no Python package 'transformers', and it cannot be installed"
    python=$work/venv/bin/python
fi
awk 'BEGIN {
    split("the wheel turns a gear of the train and its teeth meet another", word, " ")
    for (i = 0; i < 1500; i++) {
        x = (x * 1103515245 + 12345) % 2147483648
        printf "%s%s", word[1 + int(x / 65536) % 13], i % 11 == 10 ? ".\n" : " "
    }
}' > "$work/text.txt"
mkdir "$work/files"
GEARTRAIN_CACHE=$work/cache $python "$here/interchange.py" "$GEARTRAIN" "$work/text.txt" "$work/files"
