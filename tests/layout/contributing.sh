#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/layout/contributing.sh - every path that CONTRIBUTING.md names exists, and every name in backquotes
# or with () behind it occurs in the sources.
cd "$(dirname "$0")/../.." || exit 1
passed=0 failed=0
verdict()   # WHAT STATUS
{
    [ "$2" -eq 0 ] && passed=$((passed + 1)) || { failed=$((failed + 1)); echo "FAILED CONTRIBUTING.md names $1, which is not there"; }
}
for path in $(grep -oE '`(cl|host|net|models|tests)/[a-zA-Z0-9_/.]*\.[a-zA-Z]+`' CONTRIBUTING.md | tr -d '`' | sort -u); do
    [ -f "$path" ]
    verdict "$path" $?
done
for name in $(grep -oE '`[a-z0-9]+_[a-z0-9_]*(\(\))?`' CONTRIBUTING.md | tr -d '`()' | sort -u); do
    grep -rqw --include='*.[ch]' --include=CMakeLists.txt -- "$name" host net models tests
    verdict "$name" $?
done
[ "$passed" -gt 10 ] || { failed=$((failed + 1)); echo "FAILED nothing was found in CONTRIBUTING.md"; }
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
