#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/signals.sh - a run that is told to stop writes a checkpoint of its last step, says how to
# go on, and ends with the status that shells expect, 128 + the signal: one rank, several, and
# under a launcher.
. "$(dirname "$0")/cli_checks.sh"
two="--devices cpu:0/2 --ranks 2 --replicas 2 --stages 1"

await()     # SECONDS COMMAND...
{
    tries=$(($1 * 20))
    shift
    until "$@" 2> /dev/null; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.05
    done
}
rows()      # RUN N: it has done N steps
{
    [ "$(wc -l < "$1/metrics.jsonl")" -ge "$2" ]
}
# begin RUN COMMAND...: trains endlessly, $pid
begin()
{
    run=$1
    shift
    "$@" --model gpt2-tiny --data "$text" --tokenizer char --seq 32 --batch 4 --steps 1000000 \
        --eval-every 0 --save-every 0 --out "$run" > "$run.out" 2> stderr < /dev/null &
    pid=$!
    await 240 rows "$run" 3
}
# stopped NAME RUN STATUS WANTED: with a checkpoint of the step that was said
stopped()
{
    at=$(sed -n 's/.*stopped after step \([0-9]*\) of 1000000; a checkpoint is written.*/\1/p' stderr | head -n 1)
    check "$1: exit status $4" [ "$3" -eq "$4" ]
    check "$1: a checkpoint of the step that was said" \
        [ -n "$at" -a -d "$2/checkpoints/step-$(printf %06d "${at:-0}")" ]
}

# ---- one rank ----------------------------------------------------------------------------------

for pair in INT:130 TERM:143 HUP:129 USR1:138; do
    name=${pair%:*}
    begin "one-$name" "$geartrain" train
    kill -s "$name" $pid
    wait $pid
    stopped "SIG$name" "one-$name" $? "${pair#*:}"
done
at=$(ls one-USR1/checkpoints | tail -n 1)
"$geartrain" train --out one-USR1 --resume --steps $((1${at#step-} - 1000000 + 2)) > stdout 2> stderr
check "it goes on from there" grep -q "resume  after step $((1${at#step-} - 1000000)) " stderr

begin hung nohup "$geartrain" train
kill -s HUP $pid
seen=$(wc -l < hung/metrics.jsonl)
check "a run under nohup outlives its terminal" await 80 rows hung $((seen + 20))
kill -s TERM $pid
wait $pid
stopped "and can be stopped" hung $? 143

# ---- several ------------------------------------------------------------------------------------

begin two "$geartrain" train $two
kill -s USR2 $pid
check "SIGUSR2 asks all ranks for their flight records" await 80 sh -c '[ "$(grep -c "\"why\": \"SIGUSR2\"" stderr)" -eq 2 ]'
seen=$(wc -l < two/metrics.jsonl)
check "and they go on" await 80 rows two $((seen + 5))
kill -s USR1 $pid
wait $pid
stopped "two ranks of train's own" two $? 138
begin other "$geartrain" train $two
kill -s TERM "$(pgrep -P $pid | tail -n 1)"
wait $pid
stopped "one of two ranks is told" other $? 143
begin launched "$geartrain" launch --ranks 2 -- train --devices cpu:0/2 --replicas 2 --stages 1
kill -s HUP $pid
wait $pid
stopped "under launch" launched $? 129

# A driver's compiler puts handlers of its own over these two, which remove what it is writing: only a
# thread that blocks them is safe from it. A program that is launched gets both as usual.
holds()     # PROCESS: all of its threads, but for the one that waits for SIGUSR2
{
    waits=0
    for mask in $(sed -n 's/^SigBlk:\t//p' /proc/"$1"/task/*/status); do
        [ $((0x$mask >> 24 & 1)) -eq 1 ] || return 1
        waits=$((waits + 1 - (0x$mask >> 11 & 1)))
    done
    [ $waits -eq 1 ]
}
begin held "$geartrain" train $two
check "no thread of the first rank can be interrupted by SIGUSR2 and SIGXFSZ" holds "$(pgrep -P $pid | head -n 1)"
check "nor one of the second" holds "$(pgrep -P $pid | tail -n 1)"
kill -s TERM $pid
wait $pid
stopped "and it can be stopped" held $? 143
"$geartrain" launch --ranks 1 -- sh -c 'kill -s XFSZ $$; echo outlived' > stdout 2> stderr
check "a program that is launched dies of SIGXFSZ as it would alone" [ $? -ne 0 -a ! -s stdout ]
"$geartrain" launch --ranks 1 -- sh -c 'trap "echo heard; exit 0" USR2; kill -s USR2 $$; echo deaf' > stdout 2> stderr
check "and hears SIGUSR2" grep -qx heard stdout

# timeout, batch systems and launchers tell a process and its group: each rank hears it twice.
begin group setsid "$geartrain" launch --ranks 2 -- train --devices cpu:0/2 --replicas 2 --stages 1
kill -s TERM $pid && kill -s TERM -- -$pid
wait $pid
stopped "the launcher and its whole group" group $? 143
close_checks
