#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/job/restarts.sh - a job that is started again after a crash goes on with its run by itself and
# ends where an undisturbed one ends, bit for bit; a run that another job began is not touched.
. "$(dirname "$0")/../cli/cli_checks.sh"
GEARTRAIN_NET_HEARTBEAT=200ms
export GEARTRAIN_NET_HEARTBEAT
STEPS=200
words="train --model gpt2-tiny --data $text --tokenizer char --seq 32 --batch 4 --micro-batch 2
    --steps $STEPS --dropout 0.1 --eval-every 0 --save-every 40"
two="--devices cpu:0/2 --stages 2 --replicas 1"

rows()      # RUN: how many steps it has done
{
    cat "$1/metrics.jsonl" 2> /dev/null | wc -l
}
losses()
{
    sed -n 's/.*"step": \([0-9]*\),.*"loss": \([^,]*\),.*/\1 \2/p' "$1/metrics.jsonl"
}
same()      # FOLDER FOLDER
{
    last=checkpoints/step-$(printf %06d $STEPS)
    for file in "$1/$last"/*.safetensors; do
        cmp "$file" "$2/$last/${file##*/}" || return
    done
    losses "$1" > a && losses "$2" > b && cmp a b && [ "$(wc -l < a)" -eq $STEPS ]
}
# kill_when LAUNCHER CONDITION...: kills the launcher's last rank when the condition holds
kill_when()
{
    launcher=$1
    shift
    until "$@" || ! kill -0 "$launcher" 2> /dev/null; do
        sleep 0.01
    done
    kill -9 "$(pgrep -P "$launcher" | tail -n 1)" 2> /dev/null
}
begun() { [ -e "$1/starts.json" ]; }
has_rows() { [ "$(rows "$1")" -ge "$2" ]; }
more_starts() { [ "$(grep -c 'starting the job again' stderr)" -ge "$1" ] && has_rows "$2" "$3"; }

"$geartrain" launch --ranks 2 -- $words $two --out whole > stdout 2> stderr < /dev/null
check "an undisturbed run ends" [ $? -eq 0 ]
# A start before any checkpoint is planned anew, by times that are measured: here by the plan of the other.
two="$two --plan whole/plan.json"

# ---- geartrain launch ---------------------------------------------------------------------------

"$geartrain" launch --ranks 2 --max-restarts 3 -- $words $two --out killed > stdout 2> stderr < /dev/null &
job=$!
kill_when $job begun killed                     # before any checkpoint
kill_when $job more_starts 1 killed 60          # behind the first one
kill_when $job more_starts 2 killed 110
wait $job
check "a job whose ranks are killed three times ends well" [ $? -eq 0 ]
check "after three more starts" [ "$(grep -c 'starting the job again' stderr)" -eq 3 ]
check "each of which says that it goes on" \
    [ "$(grep -c "^again   an earlier start of this job began 'killed'" stderr)" -eq 3 ]
check "with the weights, moments and losses of the other" same whole killed

"$geartrain" launch --ranks 2 --max-restarts 3 -- $words $two --resume --out asked > stdout 2> stderr < /dev/null &
job=$!
kill_when $job has_rows asked 60
wait $job
check "so does one that was told to resume" [ $? -eq 0 ]
check "with the same result" same whole asked

before=$(find killed -type f | sort | xargs cksum)
"$geartrain" launch --ranks 2 --max-restarts 3 -- $words $two --out killed > stdout 2> stderr < /dev/null
check "a run that was there before is refused" [ $? -eq 2 ]
check "with the reason" grep -q "'killed' holds a run already; go on with --resume" stderr
check "once" [ "$(grep -c 'starting the job again' stderr)" -eq 0 ]
check "and not touched" [ "$before" = "$(find killed -type f | sort | xargs cksum)" ]

# ---- Slurm's and torchrun's counts ----------------------------------------------------------------

# interrupted RUN VARIABLES...: one rank with these variables, killed when it has done 60 steps
interrupted()
{
    run=$1
    shift
    env "$@" "$geartrain" $words --out "$run" > stdout 2> stderr < /dev/null &
    pid=$!
    until has_rows "$run" 60 || ! kill -0 $pid 2> /dev/null; do sleep 0.01; done
    kill -9 $pid
    wait $pid 2> /dev/null
}
again()     # RUN VARIABLES...
{
    run=$1
    shift
    env "$@" "$geartrain" $words --out "$run" > stdout 2> stderr < /dev/null
}
"$geartrain" $words --out alone > stdout 2> stderr
interrupted queued SLURM_JOB_ID=7
again queued SLURM_JOB_ID=8 SLURM_RESTART_COUNT=1
check "another batch job is refused" [ $? -eq 2 ]
again queued SLURM_JOB_ID=7
check "and so is another step of the same" [ $? -eq 2 ]
again queued SLURM_JOB_ID=7 SLURM_RESTART_COUNT=1
check "a batch job that was queued again goes on" [ $? -eq 0 ]
check "to the same end" same alone queued
elastic="RANK=0 WORLD_SIZE=1 MASTER_ADDR=127.0.0.1 MASTER_PORT=29411 TORCHELASTIC_RUN_ID=none"
interrupted elastic $elastic TORCHELASTIC_RESTART_COUNT=0
(again elastic $elastic TORCHELASTIC_RESTART_COUNT=1; exit $?)
check "another torchrun is refused, though its run is called the same" [ $? -eq 2 ]
again elastic $elastic TORCHELASTIC_RESTART_COUNT=1
check "torchrun's second start goes on" [ $? -eq 0 ]
check "to the same end" same alone elastic
close_checks
