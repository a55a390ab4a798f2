#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/local_losses.sh - ways of training two replicas apart: validation loss after the same tokens, and bytes
# sent.
#
#   sh tests/bench/local_losses.sh DATA [--steps N] [--apart H] [--seeds N] [--model M] [ROW...]
#                                                                                          [600 30 3 gpt2-tiny]
#
# The same weights, samples and learning rates for all of a seed, 8 sequences of 64 tokens a step; a step of replicas
# of which each makes fewer steps has fewer tokens, so such a run gets more steps until it has had as many. The loss is
# that of all of the validation text, the mean over seeds with the lowest and the highest; bytes are what both ranks
# sent in all. DiLoCo has its authors' outer rate and momentum (0.7, 0.9), SparseLoCo rate 1 and 1 value in 64 of two
# bits; sparse-kept keeps all of what is not sent for later rounds, at rate 2; DeMo
# takes the sign of its sums, so its own rate. ROW: some of the names it prints; all.
#
#   $GEARTRAIN   the program      [build/geartrain]
#
# A measurement; it fails if a run does.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
[ $# -gt 0 ] && [ -r "$1" ] || { sed -n '2,18s/^# \{0,1\}//p' "$0"; exit 2; }
data=$1 steps=600 apart=30 seeds=3 model=gpt2-tiny
shift
while [ $# -gt 0 ]; do
    case $1 in
    [!-]*) break ;;
    --steps) steps=$2 ;;
    --apart) apart=$2 ;;
    --seeds) seeds=$2 ;;
    --model) model=$2 ;;
    *) sed -n '2,18s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift 2 || exit 2
done
rows=" $* "
program=${GEARTRAIN:-$root/build/geartrain}
[ -x "$program" ] || { echo "local_losses.sh: no program at $program; build it, or set GEARTRAIN"; exit 1; }
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-losses-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

run()           # NAME STEPS OPTIONS...
{
    case $rows in "  " | *" $1 "*) ;; *) return 0 ;; esac
    name=$(echo "$1" | tr / _) count=$2
    shift 2
    : > "$work/$name"
    seed=1
    while [ $seed -le "$seeds" ]; do
        "$program" train --model "$model" --data "$data" --tokenizer byte --out "$work/run" --seq 64 --batch 8 \
            --micro-batch 4 --steps "$count" --seed $seed --lr $rate --lr-schedule constant --warmup 20 --dropout 0 \
            --eval-every "$count" --eval-batches 0 --save-every 0 --devices cpu:0/2 --replicas 2 --stages 1 "$@" \
            < /dev/null > "$work/out" 2> "$work/err" || { echo "$name fails:"; tail -n 3 "$work/err"; exit 1; }
        val=$(sed -n 's/.*"val_loss": *\([0-9.]*\).*/\1/p' "$work/run/metrics.jsonl" | tail -n 1)
        tokens=$(sed -n 's/.*"tokens": *\([0-9]*\),.*/\1/p' "$work/run/metrics.jsonl" | tail -n 1)
        sent=$(sed -n 's/.*  sent \([0-9.]*\) \([kMG]*\)B.*/\1 \2/p' "$work/out" |
            awk '{ x += $1 * ($2 == "G" ? 1e9 : $2 == "M" ? 1e6 : $2 == "k" ? 1e3 : 1) } END { print x }')
        echo "$val $tokens $sent" >> "$work/$name"
        rm -rf "$work/run"
        seed=$((seed + 1))
    done
    awk -v n="$name" -v s="$count" '{ v += $1; b += $3; if (NR == 1 || $1 < low) low = $1; if ($1 > high) high = $1; t = $2 }
        END { printf "%-12s %6d %9d %9.4f %8.4f %8.4f %10.3g\n", n, s, t, v / NR, low, high, b / NR }' "$work/$name"
}

rate=1e-3
echo "# two replicas, $model, seeds 1 to $seeds, H $apart"
printf '%-12s %6s %9s %9s %8s %8s %10s\n' sync steps tokens val_loss lowest highest bytes
run allreduce "$steps"
run average "$steps" --sync local --local-steps "$apart"
run diloco "$steps" --sync local --local-steps "$apart" --outer nesterov
run sparseloco "$steps" --sync local --local-steps "$apart" --outer sparse --outer-lr 1
run sparse-kept "$steps" --sync local --local-steps "$apart" --outer sparse --outer-lr 2 --error-decay 1
run sparse-1/8 "$steps" --sync local --local-steps "$apart" --outer sparse --outer-lr 1 --sparse-keep 0.125
run uneven $((steps * 4 / 3)) --sync local --local-steps "$apart" --local-uneven "$apart:$((apart / 2))" --outer nesterov
rate=3e-4
run demo "$steps" --compress demo:32 --optimizer lion --beta1 0
