#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/tokenizer/templates.sh - chat templates give what transformers' jinja2 gives, character for character.
#
# Python is $GT_PYTHON, or python3; without transformers in it the test is skipped.
set -u
python=${GT_PYTHON:-python3}
render=${BUILD:-build}/tests/tokenizer/render
HF_HUB_OFFLINE=1
export HF_HUB_OFFLINE
if [ ! -x "$render" ]; then
    echo "there is no program '$render'"
    exit 77
fi
if ! "$python" -c 'from transformers.utils.chat_template_utils import _compile_jinja_template' 2> /dev/null; then
    echo "skipped: $python has no transformers to compare chat templates with"
    exit 77
fi
exec "$python" "$(dirname "$0")/templates.py" "$render"
