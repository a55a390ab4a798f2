#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/slow_link.sh - two replicas over a slow link: sums of gradients each step, and local training.
#
#   sh tests/bench/slow_link.sh [--mbit N] [--ms N] [--seconds N] [--apart H] [--curves FOLDER] [ROW...]
#                                                                                       [100 20 120 30]
#
#      rank 0 ── a link of N Mbit/s, both ways, and so many milliseconds there and back ── rank 1
#
# Each rank in a network namespace of its own. 10.8 M parameters, 6 layers of 384 channels, 8 sequences of 128
# tokens a step, one core a rank. Every row trains for --seconds, whole rounds of H where ranks train apart: as many
# steps as a short run of it says. tokens/s is over all steps but the first, outer steps included; bytes are what both
# ranks sent in all, a step on average; the loss is the validation's at the end. ROW: some of the names it prints; all.
# FOLDER gets NAME.tsv of each row, seconds and training loss after each step, and where gnuplot is, curves.svg of them.
#
#   $GEARTRAIN   the program      [build/geartrain]
#   $GT_PYTHON   python3 with torch, for DistributedDataParallel over gloo on the same link, which has no delay of
#                its own there; left out without
#
# Needs root, ip and tc. A measurement; it fails if a run does.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
mbit=100 ms=20 seconds=120 apart=30 curves=''
while [ $# -gt 0 ]; do
    case $1 in
    [!-]*) break ;;
    --mbit) mbit=$2 ;;
    --ms) ms=$2 ;;
    --seconds) seconds=$2 ;;
    --apart) apart=$2 ;;
    --curves) curves=$2 && mkdir -p "$curves" ;;
    *) sed -n '2,23s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift 2 || exit 2
done
rows=" $* "
program=${GEARTRAIN:-$root/build/geartrain}
. "$root/tests/bench/netns.sh"
netns_pair "$mbit" || { echo "slow_link.sh: cannot make network namespaces with a slow link here; skipped"; exit 77; }

. "$root/tests/bench/small_model.sh"
small_model "$work"
export GEARTRAIN_CACHE="$work/cache"

train()         # STEPS OPTIONS...: leaves $work/run and out.0
{
    count=$1
    shift
    rm -rf "$work/run"
    netns_run 2 "$program" train --model "$work/model.json" --data "$work/text.txt" --tokenizer byte \
        --out "$work/run" --seq 128 --batch 8 --micro-batch 4 --steps "$count" --warmup 0 --lr 1e-3 \
        --lr-schedule constant --dropout 0 --eval-every "$count" --eval-batches 2 --save-every 0 \
        --devices "cpu:0.%r/2" --replicas 2 --stages 1 --transport tcp --net "fault=delay=$((ms / 2))ms" "$@" \
        || { echo "$name fails:"; tail -n 3 "$work"/err.*; exit 1; }
}

milliseconds()  # of all steps but the first
{
    sed -n 's/.*"step_ms": *\([0-9.]*\).*/\1/p' "$work/run/metrics.jsonl" | awk 'NR > 1 { t += $1 } END { print t }'
}

wanted() { [ "$rows" = "  " ] || case $rows in *" $1 "*) ;; *) return 1 ;; esac }

run()           # NAME ROUND OPTIONS...; steps are whole rounds
{
    name=$1 round=$2
    shift 2
    wanted "$name" || return 0
    train $((round > 2 ? round + 1 : 3)) "$@"
    count=$(milliseconds | awk -v s="$seconds" -v h="$round" '{
        step = $1 / (h > 2 ? h : 2); n = int(s * 1e3 / step / h + 0.5); print (n ? n : 1) * h + 1 }')
    train "$count" "$@"
    sent=$(sed -n 's/.*  sent \([0-9.]*\) \([kMG]*\)B.*/\1 \2/p' "$work/out.0" |
        awk '{ x += $1 * ($2 == "G" ? 1e9 : $2 == "M" ? 1e6 : $2 == "k" ? 1e3 : 1) } END { print x }')
    val=$(sed -n 's/.*"val_loss": *\([0-9.]*\).*/\1/p' "$work/run/metrics.jsonl" | tail -n 1)
    [ -z "$curves" ] || sed -n 's/.*"loss": *\([0-9.]*\).*"step_ms": *\([0-9.]*\).*/\2 \1/p' "$work/run/metrics.jsonl" |
        awk 'NR > 1 { t += $1; print t / 1e3 "\t" $2 }' > "$curves/$name.tsv"
    milliseconds | awk -v n="$name" -v s="$count" -v b="$sent" -v v="$val" '{
        printf "%-12s %6d %8.0f %12.1f %14.0f %10.4f\n", n, s, $1 / 1e3, (s - 1) * 8 * 128 / $1 * 1e3, b / s, v }'
}

ddp()           # NAME HOOK
{
    wanted "$1" || return 0
    "${GT_PYTHON:-python3}" -c 'import torch' 2> /dev/null || { echo "$1: no torch in ${GT_PYTHON:-python3}"; return; }
    GLOO_SOCKET_IFNAME=gt netns_run 2 "${GT_PYTHON:-python3}" "$root/tests/bench/torch_step.py" --model 10m --batch 8 \
        --seq 128 --threads 1 --world 2 --rank %r --store env:// --hook "$2" --data "$work/text.txt" --lr 1e-3 \
        --seconds "$seconds" ${curves:+--curve "$curves/$1.tsv"} || { echo "$1 fails:"; tail -n 3 "$work"/err.*; exit 1; }
    field() { sed -n "s/.*\"$1\": \([0-9.]*\).*/\1/p" "$work/out.0"; }
    printf '%-12s %6d %8.0f %12.1f %14s %10.4f\n' "$1" "$(field steps)" "$(field seconds)" "$(field tokens_per_s)" - \
        "$(field val_loss)"
}

echo "# two replicas of one core, $mbit Mbit/s, $ms ms there and back; H $apart; $seconds s each"
printf '%-12s %6s %8s %12s %14s %10s\n' sync steps seconds tokens/s bytes/step val_loss
ddp torch-ddp none
ddp ddp-bf16 bf16
ddp ddp-powersgd powersgd
run allreduce 1
run bf16 1 --compress bf16
run int8 1 --compress int8
run auto 1 --compress auto
run topk 1 --compress topk:0.01
run powersgd 1 --compress powersgd:4
run async 1 --sync async --staleness 4
run average "$apart" --sync local --local-steps "$apart"
run diloco "$apart" --sync local --local-steps "$apart" --outer nesterov
run streaming "$apart" --sync local --local-steps "$apart" --outer nesterov --fragments 3 --overlap $((apart / 6))
run sparse "$apart" --sync local --local-steps "$apart" --outer sparse --outer-lr 1
[ -z "$curves" ] || ! command -v gnuplot > /dev/null || (cd "$curves" && gnuplot << 'END'
set terminal svg size 900,600 font "sans,13"
set output "curves.svg"
set xlabel "seconds"
set ylabel "training loss, mean of the last 5 steps"
set logscale y
set grid
rows = system("ls *.tsv")
mean(n) = sprintf("awk '{ s += $2 - v[NR %% 5]; v[NR %% 5] = $2; print $1, s / (NR < 5 ? NR : 5) }' %s", n)
set key outside
plot for [i=1:words(rows)] "< " . mean(word(rows, i)) using 1:2 with lines lw 1.5 lc i dt 1+(i>8) \
    title substr(word(rows, i), 1, strlen(word(rows, i)) - 4)
END
)
