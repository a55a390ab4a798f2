#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/lora_step.sh - a step of a 124M GPT-2 that trains all of it, and one that trains adapters: time and
# memory.
#
#   tests/bench/lora_step.sh [BUILD]        BATCH=4 SEQ=64 STEPS=6 ROUNDS=2
#
# The runs take turns; of each kind the fastest step after the first two counts, for machines are shared. Prints
# one line a kind, and the ratios to the full step. Wants 3 GB of memory and 3 GB below $TMPDIR.
set -eu
build=${1:-build}
geartrain=$(cd "$build" && pwd)/geartrain
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-lora-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cd "$work"
awk 'BEGIN { for (i = 0; i < 20000; i++) printf "%d wheels turn %d gears.%s", i % 97, i % 89, i % 7 ? " " : "\n" }' > text.txt
echo '{ "model_type": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024, "vocab_size": 50257 }' > 124m.json

step() # KIND OPTIONS...: the fastest step in ms and the memory in bytes are kept for the kind
{
    kind=$1
    shift
    rm -rf run
    "$geartrain" train --model 124m.json --data text.txt --tokenizer byte --out run --steps "${STEPS:-6}" \
        --batch "${BATCH:-4}" --seq "${SEQ:-64}" --dropout 0 --eval-every 0 "$@" 2> log > out || { tail -n 2 log; exit 1; }
    sed -n 's/.*"step": *\([0-9]*\),.*"step_ms": *\([0-9.]*\).*/\1 \2/p' run/metrics.jsonl | awk '$1 > 2 { print $2 }' >> "$kind.ms"
    sed -n 's/^memory  \([0-9.]*\) \([kMG]*\)B of.*/\1 \2/p' log \
        | awk '{ print $1 * ($2 == "G" ? 1e3 : $2 == "k" ? 1e-3 : 1) }' > "$kind.mb"
    rm -rf run
}

for round in $(seq "${ROUNDS:-2}"); do
    step full
    step lora --lora 8
    step lora-bf16 --lora 8 --base-precision bf16
    step lora-int8 --lora 8 --base-precision int8
    step lora-all --lora 8 --lora-targets 'c_attn,c_fc,c_proj'
    step dora --lora 8 --dora
done
full_ms=$(sort -n full.ms | head -n 1) full_mb=$(cat full.mb)
printf '%-10s %10s %10s %8s %8s\n' kind 'ms a step' MB time memory
for kind in full lora lora-bf16 lora-int8 lora-all dora; do
    awk -v kind=$kind -v ms="$(sort -n $kind.ms | head -n 1)" -v mb="$(cat $kind.mb)" -v a="$full_ms" -v b="$full_mb" \
        'BEGIN { printf "%-10s %10.1f %10.1f %7.2fx %7.2fx\n", kind, ms, mb, ms / a, mb / b }'
done
