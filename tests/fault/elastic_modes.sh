#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/fault/elastic_modes.sh - a rank of a running job is killed, under every way of staying together and every
# cut of the model: where the others have all that it had, they go on from memory, else from the newest checkpoint,
# and say so. Each sample is trained on once, by the ranks whose step counts.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/cli/cli_checks.sh"
. "$tests/job/elastic_checks.sh"
GEARTRAIN_NET_HEARTBEAT=200ms GEARTRAIN_NET_ALGORITHM=ring GEARTRAIN_GEMM=tiled GT_LOG=warn,train:debug
export GEARTRAIN_NET_HEARTBEAT GEARTRAIN_NET_ALGORITHM GEARTRAIN_GEMM GT_LOG
STEPS=48
words="train --model gpt2-tiny --data $text --tokenizer char --seq 32 --batch 12 --micro-batch 1 --eval-every 0"

"$geartrain" launch --ranks 2 -- $words --steps $STEPS --save-every 0 --out whole > stdout 2> stderr < /dev/null
steps stderr > reference
check "an undisturbed run says which samples it trains on" [ "$(wc -l < reference)" -eq $STEPS ]

# loses NAME WHERE PLACE OPTIONS... -- WORDS...: the PLACE-th process is killed after 14 rows; the others go on WHERE.
loses()
{
    name=$1 where=$2 victim=$3
    shift 3
    start "run-$name" $STEPS "$@"
    until_rows "run-$name" 14 $job
    kill -9 "$(place $job "$victim")"
    wait $outer
    code=$?
    if [ $code -ne 0 ]; then
        fail "$name" "exit status $code"
    elif ! grep -q "again   after step [1-9][0-9]* with [0-9]* ranks: from $where" stderr; then
        fail "$name" "it did not go on from $where"
    elif ! each_once "run-$name" $STEPS; then
        fail "$name" "its record has not each step once"
    elif ! steps stderr | cmp -s - reference; then
        fail "$name" "it did not train on each sample once: $(steps stderr | diff - reference | head -n 3 | tr '\n' ' ')"
    else
        pass "$name: on from $where"
    fi
}
three="--ranks 3 --elastic 2:3 --replacements 0"
four="--ranks 4 --elastic 2:4 --replacements 0"

loses "replicas" memory 3 $three -- --save-every 0
loses "a worker beside one server" memory 3 $three -- --save-every 0 --sync ps --servers 0
loses "a server" "the newest checkpoint" 1 $three -- --save-every 5 --sync ps
check "which names what is missing" grep -q "no rank that is left has all of first\..*(optimizer's state); the newest checkpoint" stderr
loses "a worker without steps in common" memory 3 $three -- --save-every 0 --sync async --servers 0 --barrier-every 8
loses "a server without steps in common" "the newest checkpoint" 1 $three -- --save-every 4 --sync async --barrier-every 4
loses "local steps" memory 1 $three -- --save-every 0 --sync local --local-steps 6 --outer nesterov
loses "local steps by fragments" memory 2 $three -- --save-every 0 --sync local --local-steps 6 --fragments 2 --overlap 1
loses "a stage with another holder" memory 4 $four -- --save-every 0 --stages 2 --replicas 2
loses "a stage without" "the newest checkpoint" 2 --ranks 3 --elastic 2:3 --replacements 0 -- --save-every 5 \
    --stages 3 --replicas 1
loses "half of each layer with another holder" memory 2 $four -- --save-every 0 --tensor 2 --replicas 2
loses "compression" memory 2 $three -- --save-every 0 --compress topk:0.05
# A survivor that was a step further than the others goes back without what it held back.
check "drops what the lost rank held back, and says so" \
    grep -q 'what compression held back of gradients on [12] of 3 ranks is lost with them' stderr
loses "fp16" memory 2 $three -- --save-every 0 --precision fp16
loses "adapters" memory 2 $three -- --save-every 0 --from whole --lora 4

# ---- those that join ------------------------------------------------------------------------------------

# joins NAME WORDS...: one is killed, and another takes its place: both times from memory but for what was lost.
joins()
{
    name=$1
    shift
    start "join-$name" 100000 --ranks 3 --elastic 2:3 -- --save-every 5 "$@"
    until_rows "join-$name" 8 $job
    kill -9 "$(place $job 3)"
    await_line "with 3 ranks: from memory" $job
    had=$(rows "join-$name")
    until_rows "join-$name" $((had + 3)) $job
    kill -TERM $job
    wait $outer
    code=$? last=$(rows "join-$name")
    steps stderr | head -n "$last" | awk -v batch=12 '$3 - $2 + 1 != batch || $1 != NR' > odd
    if [ $code -ne 143 ] || ! grep -q "again   after step [1-9][0-9]* with 3 ranks: from memory" stderr; then
        fail "$name" "exit status $code, or it did not join from memory"
    elif ! each_once "join-$name" "$last" || [ -s odd ]; then
        fail "$name" "not each step and each sample once"
    else
        pass "a rank joins from memory: $name"
    fi
}
joins "shared state" --sync sharded
joins "local steps, sparse" --sync local --local-steps 4 --outer sparse
joins "without steps in common" --sync async --barrier-every 4

# ---- one that is stopped ----------------------------------------------------------------------------------

start still 100000 --ranks 3 --elastic 2:3 --replacements 0 --grace 1s -- --save-every 0
until_rows still 10 $job
kill -STOP "$(place $job 2)"
await_line "with 2 ranks: from memory" $job
had=$(rows still)
until_rows still $((had + 3)) $job
kill -TERM $job
wait $outer
check "a rank that is stopped is ended" grep -q 'rank 1 has been stopped (SIGSTOP) for 1 s, and is ended' stderr
check "and the others go on from memory" grep -q "again   after step [1-9][0-9]* with 2 ranks: from memory" stderr
check "with each step once" each_once still "$(rows still)"
close_checks
