#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/start.sh - how long `train` takes from its start to its first step, and from its last one to its end.
#
#   start.sh [ROUNDS]                [3]; needs a quiet machine, 3 GB of memory and 4 GB below $TMPDIR
#
# GPT-2 124M at 4 x 64 tokens and a model of 1 M parameters, from nothing; 124M from a folder of safetensors and
# from a checkpoint; on two halves of the device as two stages; through `launch`. "cold" is a first start on a
# machine: no caches, neither ours nor the driver's; else the least of ROUNDS starts after that. The end is from the
# step to the end of the process, with the checkpoint after the last step, 1.5 GB of the large model.
#
#   $GEARTRAIN   the program         [build/geartrain]
#   $BEFORE      another build of it, which takes turns with it
#   $GT_PYTHON   a Python that has torch: its own start to the same step, imports included
#   $ONLY        some of the rows: "124m 1m folder resume stages launch"
set -u
cd "$(dirname "$0")/../.." || exit 1
root=$PWD
: "${GEARTRAIN:=$root/build/geartrain}" "${BEFORE:=}" "${GT_PYTHON:=}" "${ONLY:=124m 1m folder resume stages launch}"
rounds=${1:-3}
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-start-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cd "$work" || exit 1
awk 'BEGIN { for (i = 0; i < 20000; i++) printf "%d wheels turn %d gears.%s", i % 97, i % 89, i % 7 ? " " : "\n" }' > text.txt
echo '{ "model_type": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024, "vocab_size": 50257 }' > 124m.json
echo '{ "model_type": "gpt2", "n_layer": 5, "n_head": 4, "n_embd": 128, "n_positions": 128 }' > 1m.json

now()
{
    date +%s.%N
}

# run LABEL RUN OPTIONS...: the seconds to the first step, of that step, and from the last one to the end
run()
{
    label=$1 out=$2 began=$(now)
    shift 2
    { timeout 300 "$@" --out "$out" --batch 4 --seq 64 --dropout 0 --eval-every 0 2> err || echo failed; } \
        | { read -r line; now > told; echo "$line" > first; cat > rest; }
    ended=$(now)
    if grep -q '^failed' first rest; then
        echo "$label failed: $(tail -n 1 err)" >&2
        return 1
    fi
    sed -n 's/.*"step_ms": *\([0-9.]*\).*/\1/p' "$out/metrics.jsonl" | tail -n 1 \
        | awk -v a="$began" -v b="$(cat told)" -v c="$ended" -v l="$label" '{ print l, b - a - $1 / 1e3, $1 / 1e3, c - b }' >> raw
}

# one LABEL PROGRAM KIND: what a row starts
one()
{
    case $3 in
    124m) rm -rf run; run "$1" run "$2" train --model 124m.json --data text.txt --tokenizer byte --steps 1 --save-every 0 ;;
    1m) rm -rf run; run "$1" run "$2" train --model 1m.json --data text.txt --tokenizer byte --steps 1 --save-every 0 ;;
    folder) rm -rf run; run "$1" run "$2" train --from hf --data text.txt --tokenizer byte --steps 1 --save-every 0 ;;
    resume) rm -rf run; cp -a begun run; run "$1" run "$2" train --resume --steps 2 --save-every 0 ;;
    stages) rm -rf run; run "$1" run "$2" train --model 124m.json --data text.txt --tokenizer byte --steps 1 --save-every 0 \
        --devices cpu:0/2 --stages 2 --replicas 1 --micro-batch 2 ;;
    launch) rm -rf run; run "$1" run "$2" launch --ranks 2 -- train --model 1m.json --data text.txt --tokenizer byte --steps 1 \
        --save-every 0 --devices cpu:0/2 ;;
    esac
}

torch()             # LABEL KIND
{
    [ "$2" = 124m ] || [ "$2" = 1m ] || return 0
    model=$2
    [ "$model" = 1m ] || model=gpt2-124m
    "$GT_PYTHON" "$root/tests/bench/torch_step.py" --model $model --warmup 0 --runs 1 --since "$(now)" > torch.out 2> err \
        || { tail -n 2 err >&2; return 1; }
    sed -n 's/.*"start_s": \([0-9.]*\).*/\1/p' torch.out | awk -v l="$1" '{ print l, $1, 0, 0 }' >> raw
}

if [ -n "$GT_PYTHON" ] && ! "$GT_PYTHON" -c 'import torch' 2> /dev/null; then
    echo "$GT_PYTHON has no torch: no row of it" >&2
    GT_PYTHON=
fi
export GEARTRAIN_CACHE="$work/cache" POCL_CACHE_DIR="$work/pocl"
case $ONLY in *folder* | *resume*)
    "$GEARTRAIN" train --model 124m.json --data text.txt --tokenizer byte --out begun --batch 4 --seq 64 --steps 1 \
        --eval-every 0 --dropout 0 > log 2>&1 && "$GEARTRAIN" export begun -o hf >> log 2>&1 \
        || { tail -n 2 log; exit 1; }
    ;;
esac
printf '%-8s %-8s %14s %14s %14s\n' what which 'to step 1, s' 'step 1, s' 'to the end, s'
for kind in $ONLY; do
    rm -rf cache pocl raw
    mkdir -p cache pocl
    for which in now ${BEFORE:+before}; do
        program=$GEARTRAIN
        [ $which = now ] || program=$BEFORE
        export GEARTRAIN_CACHE="$work/cache/$which" POCL_CACHE_DIR="$work/pocl/$which"
        one "$which-cold" "$program" "$kind" || exit 1
    done
    i=0
    while [ $i -lt "$rounds" ]; do
        for which in now ${BEFORE:+before}; do
            program=$GEARTRAIN
            [ $which = now ] || program=$BEFORE
            export GEARTRAIN_CACHE="$work/cache/$which" POCL_CACHE_DIR="$work/pocl/$which"
            one "$which" "$program" "$kind" || exit 1
        done
        [ -z "$GT_PYTHON" ] || torch PyTorch "$kind"
        i=$((i + 1))
    done
    sort -k 1,1 -k 2,2n raw | awk -v kind="$kind" '!seen[$1]++ { printf "%-8s %-12s %10.2f %14.2f %14.2f\n", kind, $1, $2, $3, $4 }'
done
