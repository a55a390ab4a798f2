#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/precision_curve.sh - how far the loss in 16 bits strays from that in fp32 while a model trains.
#
#   sh tests/bench/precision_curve.sh TEXT [--precision P] [--steps N] [--model M] [--batch B] [--seq T] [--smooth N]
#                                                                         [bf16 500 gpt2-mini 4 64 20]
#
# The same weights, samples and learning rates, as models/quickstart.sh trains its model (TEXT: what it leaves in
# build/bible.txt, or any other). Single losses jump with their samples, so both curves are smoothed, each by the
# mean of its last N losses; printed are the largest and the last of |P - fp32| / fp32, from the first whole mean
# on, and the validation losses at the end.
#
#   $GEARTRAIN   the program      [build/geartrain]
#
# A measurement; it fails if a run does.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
[ $# -gt 0 ] && [ -r "$1" ] || { sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 2; }
text=$1 precision=bf16 steps=500 model=gpt2-mini batch=4 seq=64 smooth=20
shift
while [ $# -gt 0 ]; do
    case $1 in
    --precision) precision=$2 ;;
    --steps) steps=$2 ;;
    --model) model=$2 ;;
    --batch) batch=$2 ;;
    --seq) seq=$2 ;;
    --smooth) smooth=$2 ;;
    *) sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift 2 || exit 2
done
program=${GEARTRAIN:-$root/build/geartrain}
[ -x "$program" ] || { echo "precision_curve.sh: no program at $program; build it, or set GEARTRAIN"; exit 1; }
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-curve-XXXXXX") || exit 1
running=
trap '[ -z "$running" ] || kill $running 2> /dev/null; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

for p in fp32 "$precision"; do
    "$program" train --model "$model" --data "$text" --tokenizer bpe:1024 --out "$work/$p" --seq "$seq" \
        --batch "$batch" --steps "$steps" --precision "$p" --lr 2e-3 --min-lr 2e-4 --warmup $((steps / 10)) --dropout 0 \
        --eval-every "$steps" --save-every 0 < /dev/null > "$work/out" 2> "$work/err" &
    running=$!
    wait $running || { echo "$p fails: $(tail -n 1 "$work/err")"; exit 1; }
    running=
    sed -n 's/.*"step": *\([0-9]*\),.*"loss": *\([0-9.]*\).*/\1 \2/p' "$work/$p/metrics.jsonl" > "$work/$p.loss"
    val=$(sed -n 's/.*"val_loss": *\([0-9.]*\).*/\1/p' "$work/$p/metrics.jsonl" | tail -n 1)
    echo "$p: validation loss $val behind $(wc -l < "$work/$p.loss") steps of $batch x $seq tokens"
done
paste -d ' ' "$work/fp32.loss" "$work/$precision.loss" | awk -v n="$smooth" -v name="$precision" '
    $1 != $3 { print "the runs have other steps"; bad = 1; exit 1 }
    {
        a[NR] = $2; b[NR] = $4; sa += $2; sb += $4
        if (NR > n) { sa -= a[NR - n]; sb -= b[NR - n] }
        if (NR < n) next
        off = (sb - sa) / sa
        if (off < 0) off = -off
        if (off > most) { most = off; at = $1 }
        whole++
    }
    END {
        if (bad) exit 1
        if (!whole) { print "no " n " losses to take a mean of"; exit 1 }
        printf "%s beside fp32, means of %d losses: at most %.3f %% off (step %d), %.3f %% at the end\n", name, n,
            100 * most, at, 100 * off
    }'
