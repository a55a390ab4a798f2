#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/elastic_soak.sh - random ranks of elastic jobs are killed or stopped, again and again, under each way
# of staying together in turn. Each job must still run, hold each step once, and have trained on each sample once.
#
#   KILLS=200 SEED=1 MODES="allreduce ps async local pipeline" sh tests/bench/elastic_soak.sh
#
# KILLS in all, shared out over MODES; SEED draws whom, when, and whether by SIGKILL or SIGSTOP; MINUTES is the
# longest it may take, shared out likewise [60]. Prints a line a mode: kills, the median and the longest time to the
# next finished step, and how many steps were done again.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/cli/cli_checks.sh"
. "$tests/job/elastic_checks.sh"
: "${KILLS:=200}" "${SEED:=1}" "${MINUTES:=60}" "${MODES:=allreduce ps async local pipeline}"
GEARTRAIN_NET_HEARTBEAT=200ms GEARTRAIN_NET_ALGORITHM=ring GEARTRAIN_GEMM=tiled GT_LOG=warn,train:debug
export GEARTRAIN_NET_HEARTBEAT GEARTRAIN_NET_ALGORITHM GEARTRAIN_GEMM GT_LOG
words="train --model gpt2-tiny --data $text --tokenizer char --seq 32 --batch 12 --micro-batch 1 --eval-every 0 --keep 2"
lot=$SEED
draw()          # N: $drawn is below it
{
    lot=$(((lot * 1103515245 + 12345) % 2147483648))
    drawn=$((lot / 65536 % $1))
}
options()       # MODE
{
    case $1 in
    allreduce) echo "--save-every 200" ;;
    ps) echo "--save-every 20 --sync ps --servers 0" ;;
    async) echo "--save-every 16 --sync async --servers 0 --barrier-every 8" ;;
    local) echo "--save-every 200 --sync local --local-steps 8 --outer nesterov" ;;
    pipeline) echo "--save-every 20 --stages 2 --replicas 2" ;;
    *) echo "unknown mode '$1'" >&2; exit 2 ;;
    esac
}
count=$(echo $MODES | wc -w)
for mode in $MODES; do
    ranks=3
    [ "$mode" = pipeline ] && ranks=4
    until=$(($(date +%s) + MINUTES * 60 / count))
    timeout_s=$((until - $(date +%s)))
    timeout $((timeout_s > 10 ? timeout_s : 10)) "$geartrain" launch --ranks $ranks --elastic 1:$ranks --grace 1s \
        --replacements 100000 -- $words --steps 1000000 --out "$mode" $(options "$mode") > stdout 2> stderr < /dev/null &
    outer=$!
    until job=$(pgrep -P $outer) && [ -n "$job" ] || ! kill -0 $outer 2> /dev/null; do sleep 0.01; done
    killed=0
    : > times
    until_rows "$mode" 5 $job
    while [ $killed -lt $((KILLS / count)) ] && kill -0 $job 2> /dev/null && [ "$(date +%s)" -lt $((until - 20)) ]; do
        draw 20
        until_rows "$mode" $(($(rows "$mode") + 1 + drawn)) $job
        draw $ranks
        victim=$(place $job $((1 + drawn)))
        draw 8
        signal=KILL
        [ "$drawn" -eq 0 ] && signal=STOP
        at=$(now) had=$(rows "$mode")
        [ -n "$victim" ] && kill -$signal "$victim" 2> /dev/null || continue
        killed=$((killed + 1))
        until_rows "$mode" $((had + 3)) $job
        echo $((($(now) - at) / 1000000)) >> times
    done
    kill -TERM $job 2> /dev/null
    wait $outer
    code=$? last=$(rows "$mode")
    check "$mode: a run of which $killed ranks were lost, one after the other, still runs, and stops when told" [ $code -eq 143 ]
    check "$mode: with each step once" each_once "$mode" "$last"
    steps stderr | head -n "$last" | awk -v batch=12 '$3 - $2 + 1 != batch || $1 != NR' > odd
    check "$mode: and each sample once" [ ! -s odd ]
    sort -n times > sorted
    echo "      $mode: $killed kills over $last steps; next steps after $(sed -n "$((($(wc -l < sorted) + 1) / 2))p" sorted) ms (median), $(tail -n 1 sorted) ms (longest); from memory $(grep -c 'ranks: from memory' stderr), from a checkpoint $(grep -c 'ranks: from the newest checkpoint' stderr)"
done
close_checks
