#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/data/chats.sh - chats become the tokens that transformers makes of them, and the same ones are learned.
#
# Python is $GT_PYTHON, or python3; without transformers in it the test is skipped.
script=$(cd "$(dirname "$0")" && pwd)/chats.py
. "$(dirname "$0")/../cli/cli_checks.sh"
python=${GT_PYTHON:-python3}
HF_HUB_OFFLINE=1
export HF_HUB_OFFLINE
if ! "$python" -c 'import tokenizers, transformers, numpy' 2> /dev/null; then
    echo "skipped: $python has no transformers to compare chats with"
    exit 77
fi
"$python" "$script" "$geartrain" "$work"
