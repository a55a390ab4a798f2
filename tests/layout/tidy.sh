#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/layout/tidy.sh - clang-tidy finds nothing of what .clang-tidy asks for.
#
#   tidy.sh              the checks that look at one place at a time: a minute on one core
#   tidy.sh all          with the analyzer, which follows paths through functions: some ten minutes
#   tidy.sh FILE...      all checks, these files
cd "$(dirname "$0")/../.." || exit 1
for tool in clang-tidy-19 clang-tidy; do
    case $($tool --version 2> /dev/null) in *" version 19."*) break ;; esac
    tool=
done
[ -n "$tool" ] || { echo "there is no clang-tidy 19, which .clang-tidy is for"; exit 77; }
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-tidy-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT

passed=0 failed=0
less=-clang-analyzer-*
[ $# -eq 0 ] || less=

cat > "$work/planted.c" <<'END'
int planted(int x);
int planted(int x)
{
    if (x > 1);
        return 1;
    return 0;
}
END
if "$tool" --quiet --config-file=.clang-tidy "$work/planted.c" -- -std=c11 > "$work/said" 2>&1; then
    echo "FAILED an if without a statement passes"
    failed=$((failed + 1))
else
    passed=$((passed + 1))
fi

# How each file is compiled, by clang and with assertions; and the one header that is made.
if ! cmake -S . -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_COMPILER=clang \
        -DCMAKE_EXPORT_COMPILE_COMMANDS=ON > "$work/said" 2>&1 \
    || ! cmake --build "$work/build" --target commit > "$work/said" 2>&1; then
    tail -n 5 "$work/said"
    echo "FAILED cmake"
    echo "$passed passed, $((failed + 1)) failed"
    exit 1
fi
case $1 in
''|all) files=$(sed -n 's/^ *"file": "\(.*\)",*$/\1/p' "$work/build/compile_commands.json" \
                    | grep -F "$PWD/" | grep -vF "$work/" | sort -u) ;;
*)      files=$* ;;
esac
"$tool" --quiet -p "$work/build" ${less:+--checks="$less"} $files > "$work/found" 2> /dev/null
status=$?
if [ "$status" -eq 0 ] && [ ! -s "$work/found" ]; then
    passed=$((passed + $(echo "$files" | wc -w)))
else
    sed "s,^$PWD/,," "$work/found"
    echo "FAILED $tool: $(grep -c ': error: ' "$work/found") findings"
    failed=$((failed + 1))
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
