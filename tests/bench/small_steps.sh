#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/small_steps.sh - what a step of a small model takes on two ranks of a core each, where handing
# results on counts as much as computing them.
#
#   small_steps.sh [ROUNDS]          [5]; needs a quiet machine of two cores
#
# 0.8 M parameters, 4 layers of 128 channels, fp32, AdamW with clipping. $GEARTRAIN [build/geartrain] and, where
# it is given, $BEFORE, another build, take turns; $STEPS [600]. Of each run the median step, without the first
# twenty; of those the least, since the rest of a machine only adds. "alone": one rank that does one rank's part.
set -u
cd "$(dirname "$0")/../.." || exit 1
: "${GEARTRAIN:=$PWD/build/geartrain}" "${BEFORE:=}" "${STEPS:=600}"
rounds=${1:-5}
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-small-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
i=0
while [ $i -lt 20000 ]; do
    echo "$i wheels turn $((i * 7919 % 10007)) teeth, then $((i * i % 9973)) more of them"
    i=$((i + 1))
done > "$work/text.txt"
cat > "$work/model.json" <<'END'
{ "model_type": "gpt2", "n_layer": 4, "n_head": 4, "n_embd": 128, "n_positions": 128, "n_ctx": 128 }
END
: > "$work/raw"

# step LABEL PROGRAM BATCH SEQ OPTIONS...
step()
{
    label=$1 program=$2 batch=$3 seq=$4
    shift 4
    rm -rf "$work/run"
    if ! GEARTRAIN_CACHE="$work/cache-$label" timeout 600 "$program" train --model "$work/model.json" \
        --data "$work/text.txt" --tokenizer byte --out "$work/run" --seq "$seq" --batch "$batch" --steps "$STEPS" \
        --eval-every 0 --save-every 0 --dropout 0 "$@" > "$work/out" 2> "$work/err"; then
        echo "$label failed: $(tail -n 1 "$work/err")" >&2
        return
    fi
    sed -n 's/.*"step_ms": *\([0-9.]*\).*/\1/p' "$work/run/metrics.jsonl" | tail -n +20 | sort -n \
        | awk -v l="$label" '{ x[NR] = $1 } END { print l, x[int((NR + 1) / 2)] }' >> "$work/raw"
}

for size in "2 8" "2 32" "8 64"; do
    : > "$work/raw"
    rows=${size% *} tokens=${size#* } round=0
    while [ $round -lt "$rounds" ]; do
        for mode in allreduce sharded; do
            step "now-$mode" "$GEARTRAIN" "$rows" "$tokens" --devices cpu:0/2 --replicas 2 --stages 1 --sync $mode
            [ -z "$BEFORE" ] || step "before-$mode" "$BEFORE" "$rows" "$tokens" --devices cpu:0/2 --replicas 2 --stages 1 \
                --sync $mode
        done
        step alone "$GEARTRAIN" $((rows / 2)) "$tokens" --devices cpu:0.0
        round=$((round + 1))
    done
    echo "$rows sequences of $tokens tokens"
    sort -k 1,1 -k 2,2n "$work/raw" | awk '!seen[$1]++ { ms[$1] = $2; name[++n] = $1 }
        END {
            for (i = 1; i <= n; i++) {
                before = name[i]
                sub(/^now/, "before", before)
                ratio = before != name[i] && (before in ms) ? sprintf("   %.2f of before", ms[name[i]] / ms[before]) : ""
                printf "  %-18s %8.2f ms%s\n", name[i], ms[name[i]], ratio
            }
        }'
done
