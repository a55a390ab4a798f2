#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/generation.sh - tokens a second of GPT-2 124M here, in llama.cpp and in transformers, side by side.
#
#   sh tests/bench/generation.sh [--tokens N] [--prompt N] [--rounds N] [--threads N]    [64 32 3, all cores]
#
# Random weights, batch 1, greedy, with a cache, on this machine's CPU, in fp32, bf16 and fp16. The programs take
# turns, round by round; of each the median token (and of that the median round) and the fastest token, which other work
# on the machine disturbs least. Beside Geartrain's stands how many times as long it takes as a plain copy that moves as
# many bytes as there are weights; beside the others', how many times as many tokens a second Geartrain writes.
#
#   $GEARTRAIN   the program                                     [build/geartrain]
#   $GT_PYTHON   a Python with torch and transformers; without those their rows are left out  [python3]
#   $LLAMA_PYTHON   one with PyPI's xllamacpp and gguf; without them they are installed into a folder of their own for
#                   this run, and where that fails llama.cpp's rows are left out
#   $GGUF        a folder with gpt2-fp32.gguf, gpt2-bf16.gguf and gpt2-fp16.gguf; what is missing is made there
#
# Threads of llama.cpp spin while they wait for each other, so beside other work all cores may take minutes a token;
# --threads 1 gives every program one core. A measurement, not a test: it ends with 0 unless geartrain itself failed.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
cores=$(nproc)
tokens=64 prompt=32 rounds=3 threads=$cores
while [ $# -gt 0 ]; do
    case $1 in
    --tokens) tokens=$2 ;;
    --prompt) prompt=$2 ;;
    --rounds) rounds=$2 ;;
    --threads) threads=$2 ;;
    *) sed -n '2,22s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift 2 || exit 2
done
[ $((cores % threads)) -eq 0 ] || { echo "--threads $threads does not divide the $cores cores" >&2; exit 2; }
device=cpu:0
[ "$threads" -eq "$cores" ] || device=cpu:0.0/$((cores / threads))
: "${GEARTRAIN:=$root/build/geartrain}" "${GT_PYTHON:=python3}" "${LLAMA_PYTHON:=}"
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-generation-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
: "${GGUF:=$work}"

without() { echo "without $1: $2"; }        # and its rows

peer=1
"$GT_PYTHON" -c 'import torch, transformers' 2> /dev/null || { peer=0; without transformers "$GT_PYTHON has none"; }
llama=1
if [ -z "$LLAMA_PYTHON" ]; then
    LLAMA_PYTHON=$work/llama/bin/python
    { python3 -m venv "$work/llama" && "$LLAMA_PYTHON" -m pip install --quiet --only-binary :all: xllamacpp gguf; } > "$work/pip" 2>&1
fi
"$LLAMA_PYTHON" -c 'import xllamacpp, gguf' 2> /dev/null \
    || { llama=0; without llama.cpp "xllamacpp and gguf are not to be had from PyPI for $LLAMA_PYTHON"; }
for precision in fp32 bf16 fp16; do
    [ $llama -eq 0 ] || [ -e "$GGUF/gpt2-$precision.gguf" ] \
        || "$LLAMA_PYTHON" "$root/tests/bench/llamacpp_generate.py" make "$GGUF/gpt2-$precision.gguf" $precision 2> "$work/log" \
        || { llama=0; without llama.cpp "its file cannot be made: $(tail -n 1 "$work/log")"; }
done

for round in $(seq "$rounds"); do
    for precision in fp32 bf16 fp16; do
        "$GEARTRAIN" bench generate --model gpt2-124m --precision $precision --prompt "$prompt" --tokens "$tokens" \
            --devices "$device" --json 2> "$work/log" > "$work/out" || { cat "$work/log"; exit 1; }
        python3 -c '
import json, sys
r = json.load(open(sys.argv[2]))
print(sys.argv[1], r["tokens_per_s"], 1e3 / r["min_ms"], 1 / r["share_of_copy"], 1 / r["best_share_of_copy"])' \
            $precision "$work/out" >> "$work/geartrain"
        if [ $llama -eq 1 ]; then
            timeout 240 "$LLAMA_PYTHON" "$root/tests/bench/llamacpp_generate.py" "$GGUF/gpt2-$precision.gguf" $precision \
                "$prompt" "$tokens" "$threads" 2> "$work/log" >> "$work/llama.cpp"
            status=$?
            [ $status -eq 0 ] || { llama=0; without llama.cpp "$([ $status -eq 124 ] && echo "no text within 240 s; try --threads 1" || tail -n 1 "$work/log")"; }
        fi
        [ $peer -eq 0 ] || [ $precision = fp16 ] || "$GT_PYTHON" "$root/tests/bench/transformers_generate.py" $precision \
            "$prompt" "$tokens" "$threads" 2> "$work/log" >> "$work/transformers" || { cat "$work/log"; peer=0; }
    done
done

# Of a program and precision: a column's median over the rounds, and its best.
column() { awk -v p="$2" -v c="$3" '$1 == p { print $c }' "$work/$1" 2> /dev/null | sort -g; }
median() { column "$@" | awk '{ x[n++] = $1 } END { if (n) print x[int(n / 2)] }'; }
best() { column "$@" | tail -n 1; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }
echo "GPT-2 124M, batch 1, $prompt tokens of a prompt and $tokens more, threads: $threads, rounds: $rounds"
echo "tokens a second:           median  fastest"
for precision in fp32 bf16 fp16; do
    mine=$(median geartrain $precision 2) fast=$(best geartrain $precision 3)
    printf '%-5s %-13s %13.1f %8.1f  %.2f and %.2f x the time of a copy of the weights\n' $precision geartrain "$mine" "$fast" \
        "$(median geartrain $precision 4)" "$(column geartrain $precision 5 | head -n 1)"
    for who in llama.cpp transformers; do
        theirs=$(median $who $precision 2) best=$(best $who $precision 3)
        [ -z "$theirs" ] || printf '%-5s %-13s %13.1f %8.1f  geartrain: %s and %s x as many\n' $precision $who "$theirs" "$best" \
            "$(ratio "$mine" "$theirs")" "$(ratio "$fast" "$best")"
    done
done
