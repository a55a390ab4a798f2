#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/tokenizer/tokenizer_parity.sh - tokenizer_parity.py with the Python packages it needs, and what
# `geartrain tokenize` makes of the same texts.
: "${BUILD:=build}" "${GT_PYTHON:=python3}"
case $BUILD in /*) ;; *) BUILD=$PWD/$BUILD ;; esac
here=$(cd "$(dirname "$0")" && pwd) || exit 1
skip()
{
    echo "skipped: $1"
    exit 77
}
[ -x "$BUILD/tests/tokenizer/encode_texts" ] || skip "there is no program '$BUILD/tests/tokenizer/encode_texts'"
"$GT_PYTHON" -c 'import tokenizers' 2> /dev/null || skip "no Python package 'tokenizers' for $GT_PYTHON (\$GT_PYTHON names another)"
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-data-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
"$GT_PYTHON" "$here/tokenizer_parity.py" "$BUILD/tests/tokenizer/encode_texts" "$work" \
    "${GT_SHARED:-$here/../../../shared}" > "$work/log" 2>&1
status=$?
cat "$work/log"
printf '%d passed, %d failed\n' "$(grep -c '^ok' "$work/log")" "$(grep -c '^FAILED' "$work/log")"
exit $status
