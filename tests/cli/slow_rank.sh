#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/slow_rank.sh - a device becomes slow in mid-run: it is named, and with --replan work
# moves away from it, on the same curve of losses.
#
#   steps    1 ........... 11 ...................... N
#            warm up, learn    rank 1 slow from here: warning after 6 steps, new plan, go on
#
# How many steps pass before the device slows down depends on the machine, so the first run tells
# how many are enough; the last step, not the time it takes, is what is judged. The rate is so low
# that hundreds of steps over few texts cannot blow rounding up.
# Runs alone: it judges by how fast two ranks are.
. "$(dirname "$0")/cli_checks.sh"

common="--model gpt2-tiny --data $text --tokenizer char --seq 64 --batch 8 --micro-batch 1 --dropout 0
        --eval-every 0 --save-every 0 --lr-schedule constant --lr 2e-5"
split="--replicas 2 --stages 1 --slow 4"
later=4                                 # seconds from opening the device

train()     # RUN OPTIONS...
{
    run=$1
    shift
    (limit=300 as=exec; program train $common --out "$run" "$@") > stdout 2> stderr < /dev/null
}

losses() { sed -n 's/.*"step": \([0-9]*\),.*"loss": \([0-9.]*\),.*/\1 \2/p' "$1/metrics.jsonl"; }

# near A B: the same steps, losses within 1e-5 of each other
near()
{
    losses "$1" > a && losses "$2" > b && [ "$(wc -l < a)" -eq "$steps" ] && paste -d ' ' a b | awk '
        { d = $2 - $4; if ($1 != $3 || !($2 > 0) || d > 1e-5 * $2 || d < -1e-5 * $2) bad = 1 }
        END { exit bad }'
}

# share RUN RANK: the micro-batches of that rank
share()
{
    tr -d ' \n' < "$1/plan.json" | grep -o '"micro_batches":[0-9]*,"micro_batch":1,"stages":\[\[[01]\]\]' \
        | sed -n "s/\"micro_batches\":\([0-9]*\),.*\[\[$2\]\]/\1/p"
}

train rate --steps 60 --devices cpu:0/2 $split
check "two devices train" [ $? -eq 0 ]
# The quickest steps count: enough of them for the seconds before, and for some more.
steps=$(sed -n 's/.*"step_ms": \([0-9.]*\),.*/\1/p' rate/metrics.jsonl | sort -n | sed -n 15p \
        | awk -v s=$later '{ print int((s + 3) * 1000 / $1) + 40 }')
check "at a rate that can be told" [ "${steps:-0}" -gt 40 ]
train one --steps "$steps" --devices cpu:0
check "one device trains $steps steps" [ $? -eq 0 ]

slow=cpu:0.0/2,cpu:0.1/2@0.1+${later}s
train moved --steps "$steps" --devices $slow $split --replan
check "with --replan the run ends well" [ $? -eq 0 ]
check "the slow rank was named" grep -Eq 'rank 1 \(cpu:0.1/2@0.1\+4s\) has become [0-9.]+ times as slow' stderr
check "once" [ "$(grep -c 'times as slow' stderr)" -eq 1 ]
check "it was planned twice" [ "$(grep -c '^plan    2 ranks' stderr)" -eq 2 ]
before=$(sed -n 's/^ *rank 1 .* \([0-9]*\) x 1 sequences$/\1/p' stderr | head -n 1)
after=$(share moved 1)
check "plan.json gives it less than before ($after of 8, before $before)" [ "${after:-9}" -lt "${before:-0}" ]
check "and less than the other" [ "${after:-9}" -lt "$(share moved 0)" ]
check "all steps are on the undisturbed curve" near one moved
check "the last one has a checkpoint" [ -f "moved/checkpoints/$(printf 'step-%06d' "$steps")/manifest.json" ]

close_checks
