#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/layout/format.sh - C files look as .clang-format says.
cd "$(dirname "$0")/../.." || exit 1
for tool in clang-format-19 clang-format; do
    case $($tool --version 2> /dev/null) in *" version 19."*) break ;; esac
    tool=
done
[ -n "$tool" ] || { echo "there is no clang-format 19, which .clang-format is for"; exit 77; }
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-format-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT

passed=0 failed=0
# formatted FILE...: 0 if they look right; what does not is in $work/said.
formatted() { "$tool" --style="file:$PWD/.clang-format" --dry-run -Werror "$@" 2> "$work/said"; }

printf 'int f(int  x)\n{\n  return x;\n}\n' > "$work/planted.c"
if formatted "$work/planted.c"; then
    echo "FAILED a file with wrong spaces passes"
    failed=$((failed + 1))
else
    passed=$((passed + 1))
fi
files=$(find host net models tests cl -name '*.[ch]' | sort)
if formatted $files; then
    passed=$((passed + $(echo "$files" | wc -l)))
else
    sed -n 's/: error: code should be.*//p' "$work/said" | sort -u -t: -k1,1 | sed 's/$/ is to be formatted/'
    echo "FAILED $tool -i FILE mends each"
    failed=$((failed + 1))
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
