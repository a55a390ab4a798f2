#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/generation.sh - tokens a second of GPT-2 124M here and in transformers, side by side.
#
#   sh tests/bench/generation.sh [--tokens N] [--prompt N] [--rounds N]    [64 32 3]
#
# Random weights, batch 1, greedy, with a cache, on this machine's CPU, all cores, in fp32 and bf16. The
# programs take turns, round by round; what counts is the median over the rounds. Beside Geartrain's stands
# how many times as long a token takes as a plain copy that moves as many bytes as there are weights.
#
#   $GEARTRAIN   the program                                     [build/geartrain]
#   $GT_PYTHON   a Python with torch and transformers; without those their rows are left out  [python3]
#
# A measurement, not a test: it ends with 0 unless geartrain itself failed.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
tokens=64 prompt=32 rounds=3
while [ $# -gt 0 ]; do
    case $1 in
    --tokens) tokens=$2 ;;
    --prompt) prompt=$2 ;;
    --rounds) rounds=$2 ;;
    *) sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift 2 || exit 2
done
: "${GEARTRAIN:=$root/build/geartrain}" "${GT_PYTHON:=python3}"
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-generation-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
peer=1
"$GT_PYTHON" -c 'import torch, transformers' 2> /dev/null || { peer=0; echo "without transformers: $GT_PYTHON has none"; }
for round in $(seq "$rounds"); do
    for precision in fp32 bf16; do
        "$GEARTRAIN" bench generate --model gpt2-124m --precision $precision --prompt "$prompt" --tokens "$tokens" --json \
            2> "$work/log" > "$work/out" || { cat "$work/log"; exit 1; }
        sed -n 's/.*"tokens_per_s": \([0-9.]*\),.*"share_of_copy": \([0-9.]*\),.*/'$precision' \1 \2/p' "$work/out" >> "$work/geartrain"
        [ $peer -eq 0 ] || "$GT_PYTHON" "$root/tests/bench/transformers_generate.py" $precision "$prompt" "$tokens" \
            2> "$work/log" >> "$work/transformers" || { cat "$work/log"; peer=0; }
    done
done
for precision in fp32 bf16; do
    for who in geartrain transformers; do
        [ ! -s "$work/$who" ] || sort -g -k 2 "$work/$who" | awk -v p=$precision -v who=$who '
            $1 == p { rate[n] = $2; share[n++] = $3 }
            END { m = int(n / 2)
                  if (n) printf "%-5s %-13s %8.1f tokens/s%s\n", p, who, rate[m],
                             who == "geartrain" ? sprintf("  %.2f x the time of a copy of the weights", 1 / share[m]) : "" }'
    done
done
