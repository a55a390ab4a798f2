#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/options.sh - options that contradict each other, or would do nothing: each is refused by
# name before anything is written; what only repeats itself is fine.
. "$(dirname "$0")/cli_checks.sh"
good="--model gpt2-tiny --data $text --tokenizer char --seq 32 --batch 4 --steps 2 --eval-every 0"

$geartrain train $good --out run > stdout 2> stderr || { echo "cannot train"; cat stderr; exit 1; }
twice()     # NAME PATTERN ARGUMENTS...: straight to the program, which shall see the repetition
{
    name=$1 pattern=$2
    shift 2
    timeout 240 "$geartrain" "$@" > stdout 2> stderr < /dev/null
    said "$name" 2 "$pattern" $?
}

# ---- given twice ---------------------------------------------------------------------------------

twice "--data twice" "option --data is given twice, as 'a' and as 'b'; give it once" train --data a --data b
twice "--steps twice, once by its letter" "option --steps is given twice, as '3' and as '4'" train --steps 3 -n 4
twice "a flag and its opposite" "option --recompute is given twice, as 'on' and as 'off'" train --recompute --no-recompute
twice "eval --from" "option --from is given twice" eval --from a --from=b
twice "tokenize -o" "option --out is given twice" tokenize x -o a -o b
twice "bench --ranks" "option --ranks is given twice" bench allreduce --ranks 2 --ranks 3
twice "launch -n" "option --ranks is given twice" launch -n 2 --ranks 3 -- train
twice "generate" "option --prompt is given twice" generate --prompt a --prompt b
twice "plan" "option --batch is given twice" plan -b 1 -b 2
timeout 240 "$geartrain" train $good --out same --steps 2 --json --json > stdout 2> stderr
check "the same twice is once" [ $? -eq 0 ]

# ---- without effect ------------------------------------------------------------------------------

useless()   # OPTION VALUE BECAUSE OPTIONS...
{
    option=$1 value=$2 because=$3
    shift 3
    refuses "$option: $because" 2 "option $option would be ignored: .*$because" train $good --out new "$option" $value "$@"
}
useless --eval-data "$text" "--eval-every 0 asks for no validation"
useless --eval-batches 3 "--eval-every 0 asks for no validation"
useless --min-lr 1e-5 "--lr-schedule constant stays at --lr" --lr-schedule constant
useless --decay-share 0.1 "belongs to --lr-schedule wsd"
useless --momentum 0.5 "belongs to --optimizer sgd or muon"
useless --beta1 0.5 "belongs to --optimizer adamw or lion or muon" --optimizer sgd
useless --beta2 0.5 "belongs to --optimizer adamw or lion or muon" --optimizer sgd
useless --eps 1e-6 "belongs to --optimizer adamw or muon" --optimizer sgd
useless --adamw-lr 1e-3 "belongs to --optimizer muon"
useless --decay-rate 0.5 "belongs to --optimizer adafactor" --optimizer lion
useless --replan "" "one rank has nobody to move work to"
refuses "--explain and --trace" 2 'option --trace would be ignored' train $good --explain --trace x.json
refuses "a warm-up longer than the run" 2 'warm-up of 3 steps is longer than the run of 2; lower --warmup or raise --steps' \
    train $good --out new --warmup 3
does "a warm-up as long as the run" '^step 2 .* lr 0.0003 ' train $good --out warm --warmup 2
refuses "a trace into no folder" 2 "option --trace: there is no folder 'nowhere'" train $good --out new --trace nowhere/x.json
refuses "a trace into a folder" 2 "option --trace: 'run' is no file" train $good --out new --trace run
refuses "micro-batches larger than the batch" 2 'batch 4 is not a multiple of micro-batch 8' \
    train $good --out new --micro-batch 8
refuses "a negative --top-k" 2 "option --top-k: '-1'" generate --from run --top-k -1
refuses "--val and --val-fraction" 2 'option --val-fraction would be ignored: --val names' \
    tokenize "$text" --val "$text" --val-fraction 0.2 -o new
refuses "--ssh without hosts" 2 'option --ssh would be ignored: only --hosts' launch --ranks 2 --ssh rsh -- train
for option in "--stages 2" "--replicas 2" "--tensor 2" "--schedule gpipe" "--micro-batch 1" --recompute \
              --again "--ranks 2"; do
    refuses "plan --cluster $option" 2 "option ${option%% *} is for devices that are here; leave out --cluster" \
        plan --model gpt2-tiny --cluster none.json $option
done

# ---- resuming --------------------------------------------------------------------------------------

refuses "--resume --from of another" 2 "goes on from the checkpoints of 'run', so --from 'same' would be ignored" \
    train --out run --resume --from same --steps 3
does "what a run began with may be repeated" '^step 2 ' train $good --model gpt2-tiny --out fine --from run
does "also with --resume" '^step 3 ' train $good --out fine --from run --resume --steps 3
does "--resume of what is not there begins it" '^step 2 ' train $good --out begun --from run --resume
refuses "another --from there" 2 "so --from 'same' would be ignored" train --out fine --resume --from same --steps 4
"$geartrain" train --out fine --resume --steps 2 > stdout 2> stderr
check "a run that has its steps already" [ $? -eq 0 ]
check "says so" grep -q 'nothing: the run has 3 steps, and --steps 2 asks for no more; give a larger --steps to go on' stderr
check "nothing was left by what was refused" [ ! -e new ]

train_tiny --steps 1 --out idle --sync sharded --schedule gpipe > stdout 2> stderr
check "what one rank has no use for is told" [ $? -eq 0 -a \
    "$(grep -c 'there is one rank, so --sync, --schedule do nothing' stderr)" -eq 1 ]
close_checks
