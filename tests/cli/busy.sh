#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/busy.sh - nothing takes long in silence, and nothing that does cannot be stopped: the job
# is shown before anything is compiled or measured, long work is told with its count, and a signal
# ends it wherever it is. A slowed device makes a step that would take minutes.
. "$(dirname "$0")/cli_checks.sh"

# await PATTERN: until standard error says it
await()
{
    tries=1200
    until grep -Eq -- "$1" stderr; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] && kill -0 $pid 2> /dev/null || return 1
        sleep 0.05
    done
}
line_of()
{
    grep -nE -- "$1" stderr | head -n 1 | cut -d : -f 1
}

# ---- while everything is compiled -------------------------------------------------------------------

POCL_CACHE_DIR=$work/pocl
export POCL_CACHE_DIR
mkdir pocl
timeout 300 "$geartrain" train --model gpt2-tiny --data "$text" --tokenizer char --seq 32 --batch 4 --steps 500 \
    --out cold > stdout 2> stderr < /dev/null &
pid=$!
check "the job is shown" await '^steps '
check "before it is known what it takes" [ -z "$(line_of '^memory ')" ]
kill -s INT $pid
wait $pid
check "stopping in start-up: exit status 130" [ $? -eq 130 ]
check "and a sentence" grep -q '^geartrain train: stopped' stderr

# ---- within a step ------------------------------------------------------------------------------------

# slow RUN OPTIONS...: a run whose first step takes minutes
slow()
{
    run=$1
    shift
    timeout 300 "$geartrain" train --model gpt2-tiny --data "$text" --tokenizer char --seq 32 --steps 5 \
        --eval-every 0 --devices cpu:0@0.001 --out "$run" "$@" > stdout 2> stderr < /dev/null &
    pid=$!
}

slow long --batch 512 --micro-batch 32
check "a long step is told with its counts" await '^busy +step 1/5: micro-batch [0-9]+/16: kernels [0-9]+/[0-9]+, for [0-9]+ s$'
kill -s TERM $pid
wait $pid
check "stopping within a step: exit status 143" [ $? -eq 143 ]
check "says that nothing was done" grep -q 'stopped before the first of 5 steps was done' stderr
check "and leaves nothing half done" [ ! -e long/checkpoints ]

# ---- what is told elsewhere ---------------------------------------------------------------------------

train_tiny --steps 2 --out run > stdout 2> stderr
does "a table of nodes" '^forward \+ backward ' train --explain --model gpt2-tiny --data "$text" --tokenizer char \
    --seq 32 --batch 4
check "of all layers, alike or not" [ "$(grep -Ec '^h\.[0-2]\.attn .*attention' stdout)" -ge 3 ]
timeout 300 "$geartrain" eval --from run --data "$text" --devices cpu:0@0.002 > stdout 2> stderr &
pid=$!
check "evaluating is told with its count" await '^busy +evaluating [0-9]+/[0-9]+ sequences'
kill -s INT $pid
wait $pid
check "and ends at once" [ $? -eq 130 ]
close_checks
