#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/data_parallel.sh - one model on two ranks of a core each, next to one rank with both cores,
# and to PyTorch's DistributedDataParallel over gloo doing the same.
#
#   data_parallel.sh [ROUNDS]        [3]; needs a quiet machine of two cores
#
# 10.8 M parameters, 6 layers of 384 channels, 16 sequences of 128 tokens a step, fp32, AdamW with
# clipping. The programs take turns; of each the median step of every round is taken, and the best
# round counts. Rows of PyTorch are left out without $PYTHON [/usr/bin/python3] having torch.
set -u
cd "$(dirname "$0")/../.." || exit 1
: "${GEARTRAIN:=$PWD/build/geartrain}" "${PYTHON:=/usr/bin/python3}" "${BATCH:=16}"
rounds=${1:-3}
here=$PWD/tests/bench
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-dp-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
. "$here/small_model.sh"
small_model "$work"
export GEARTRAIN_CACHE="$work/cache"

note() { [ -z "$2" ] || echo "$1 $2" >> "$work/raw"; }       # NAME MILLISECONDS

ours()          # NAME OPTIONS...
{
    name=$1
    shift
    rm -rf "$work/run"
    timeout 600 "$GEARTRAIN" train --model "$work/model.json" --data "$work/text.txt" --tokenizer byte \
        --out "$work/run" --seq 128 --batch "$BATCH" --steps 12 --eval-every 0 --save-every 0 --dropout 0 \
        "$@" > "$work/out" 2> "$work/err" || { tail -n 2 "$work/err" >&2; return; }
    note "$name" "$(sed -n 's/.*"step_ms": *\([0-9.]*\).*/\1/p' "$work/run/metrics.jsonl" | tail -n +5 \
        | sort -n | awk '{ x[NR] = $1 } END { print x[int((NR + 1) / 2)] }')"
}

milliseconds() { sed -n 's/.*"median_s": *\([0-9.]*\).*/\1/p' "$1" | awk '{ print 1000 * $1 }'; }

torch_alone()
{
    timeout 600 "$PYTHON" "$here/torch_step.py" --model 10m --batch "$BATCH" --seq 128 --threads 2 --runs 8 \
        > "$work/torch" 2> "$work/err"
    note torch-1-process "$(milliseconds "$work/torch")"
}

torch_ddp()
{
    rm -f "$work/store"
    for rank in 1 0; do
        timeout 600 "$PYTHON" "$here/torch_step.py" --model 10m --batch "$BATCH" --seq 128 --threads 1 \
            --runs 8 --world 2 --rank $rank --store "$work/store" > "$work/torch$rank" 2> "$work/err" &
    done
    wait
    note torch-ddp-2 "$(milliseconds "$work/torch0")"
}

: > "$work/raw"
have_torch=0
"$PYTHON" -c 'import torch' 2> /dev/null && have_torch=1
round=0
while [ $round -lt "$rounds" ]; do
    ours 1-rank-both-cores --devices cpu:0
    ours 1-rank-micro-batches --devices cpu:0 --micro-batch 4
    ours 1-rank-one-core --devices cpu:0.0
    ours 2-ranks-replicas --devices cpu:0/2 --replicas 2 --stages 1
    ours 2-ranks-sharded --devices cpu:0/2 --replicas 2 --stages 1 --sync sharded
    ours 2-ranks-planned --devices cpu:0/2
    if [ $have_torch = 1 ]; then
        torch_alone
        torch_ddp
    fi
    round=$((round + 1))
done
sort -k 1,1 -k 2,2n "$work/raw" | awk '!seen[$1]++ { ms[$1] = $2; name[++n] = $1 }
    END {
        whole = ms["1-rank-both-cores"]
        if (ms["1-rank-micro-batches"] && ms["1-rank-micro-batches"] < whole) whole = ms["1-rank-micro-batches"]
        for (i = 1; i <= n; i++)
            printf "%-22s %8.1f ms   %6.1f %% of one rank with both cores\n", name[i], ms[name[i]],
                   100 * whole / ms[name[i]]
    }'
