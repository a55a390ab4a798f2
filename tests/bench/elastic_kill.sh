#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/elastic_kill.sh - one of four workers is killed (SIGKILL), again and again: how long until the next
# step is done, and how many tokens were trained on for nothing. Beside it, torchrun, which starts its workers again.
#
#   KILLS=5 sh tests/bench/elastic_kill.sh
#
#   kill -9 ── noticed ── put together ── next step          geartrain: from memory, with three; a fourth joins after
#   kill -9 ── noticed ── all started again ── snapshot ── steps since the snapshot again ── next step     torchrun
#
# 10.8 M parameters, 8 sequences of 64 tokens a step; snapshots every 10 steps where there are some. "next step" is the
# next that had not been done before the kill.
#
#   $GEARTRAIN   the program      [build/geartrain]
#   $GT_PYTHON   python3 with torch [python3]; without, torchrun is left out
#   $LONGEST     seconds after which it waits no longer for a next step [180]
#
# A measurement; it fails if a run does.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/cli/cli_checks.sh"
. "$tests/job/elastic_checks.sh"
. "$tests/bench/small_model.sh"
: "${KILLS:=5}" "${GT_PYTHON:=python3}" "${LONGEST:=180}"
small_model .

# report NAME: of the file "times" (ms and steps done again, a kill a line)
report()
{
    sort -n times | awk -v n="$1" '{ ms[NR] = $1; if ($2 > more) more = $2; sum += $2 }
        END { printf "%-34s next step after %6d ms (median), %6d ms (longest); %5.0f tokens again a kill, %d at most\n",
              n, ms[int((NR + 1) / 2)], ms[NR], sum / NR * 512, more * 512 }'
}

# one COUNT JOB: kills the second worker when three more steps are there; a line of "times". count() prints the steps
# done.
one()
{
    had=$(count)
    until [ "$(count)" -ge $((had + 3 + $1 % 10)) ]; do kill -0 "$2" 2> /dev/null || return 1; sleep 0.01; done
    victim=$(workers | sed -n 2p)
    [ -n "$victim" ] || return 1
    top=$(highest) lines=$(count) at=$(now)
    kill -9 "$victim"
    until [ "$(highest)" -gt "$((top + 1))" ]; do
        kill -0 "$2" 2> /dev/null || return 1
        [ $((($(now) - at) / 1000000000)) -lt "$LONGEST" ] || { echo "no next step after $LONGEST s"; return 1; }
        sleep 0.01
    done
    echo "$((($(now) - at) / 1000000)) $(($(count) - lines - $(highest) + top))" >> times
}

ours()          # NAME OPTIONS...
{
    name=$1
    shift
    rm -rf run && : > times
    workers() { pgrep -P "$job"; }
    count() { rows run; }
    highest() { sed -n 's/.*"step": \([0-9]*\),.*/\1/p' run/metrics.jsonl 2> /dev/null | sort -n | tail -n 1 | grep . || echo 0; }
    words="train --model ./model.json --data ./text.txt --tokenizer byte --seq 64 --batch 8 --micro-batch 1 --eval-every 0"
    start run 1000000 --ranks 4 --elastic 2:4 --replacements 1000 -- "$@"
    killed=0
    while [ $killed -lt "$KILLS" ]; do
        one $killed $job || { kill -TERM $job; tail -n 3 stderr; exit 1; }
        killed=$((killed + 1))
        until [ "$(workers | wc -l)" -eq 4 ]; do sleep 0.05; done
        sleep 3                         # the one in its place joins
    done
    kill -TERM $job
    wait $outer
    report "$name"
}

torchrun()
{
    "$GT_PYTHON" -c 'import torch' 2> /dev/null || { echo "torchrun: no torch in $GT_PYTHON; left out"; return; }
    rm -f rows snapshot && : > times && : > rows
    "$GT_PYTHON" -m torch.distributed.run --nproc-per-node 4 --max-restarts 1000 --standalone \
        "$tests/bench/torch_elastic.py" --rows "$PWD/rows" --snapshot "$PWD/snapshot" > stdout 2> stderr < /dev/null &
    job=$!
    workers() { pgrep -P "$job"; }
    count() { wc -l < rows; }
    highest() { sort -n rows | tail -n 1 | grep . || echo 0; }
    killed=0
    while [ $killed -lt "$KILLS" ]; do
        one $killed $job || { kill -TERM $job; tail -n 3 stderr; exit 1; }
        killed=$((killed + 1))
    done
    kill -TERM $job
    wait $job
    report "torchrun, a snapshot in 10 steps"
}

ours "geartrain all-reduce, from memory" --save-every 0
ours "geartrain local, H 8" --save-every 0 --sync local --local-steps 8
torchrun
