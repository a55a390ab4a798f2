#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/servers.sh - parameter servers from the command line: options that each way of staying together brings, where
# they are kept, who refuses them, and runs that go on under another.
. "$(dirname "$0")/../cli/cli_checks.sh"

# Runs on halves of the device and on all of it are compared to the bit; each kind would measure its way to an engine.
GEARTRAIN_GEMM=tiled
export GEARTRAIN_GEMM

if ! "$geartrain" devices | grep -q 'cpu:0'; then
    echo "no CPU device to divide"
    exit 77
fi
tiny="--model gpt2-tiny --data $text --tokenizer byte --seq 32 --batch 4 --micro-batch 2 --steps 4 --eval-every 0 --save-every 2"
two="--devices cpu:0/2 --replicas 2 --stages 1"

# ---- options of a mode ---------------------------------------------------------------------------------

refuses "an option of another mode" 2 '--staleness is an option of --sync async, not of --sync allreduce; leave it out' \
    train $tiny $two --out new --staleness 2
refuses "of two others" 2 '--servers is an option of --sync ps or async, not of --sync sharded' \
    train $tiny $two --out new --sync sharded --servers 0
refuses "a server that is not there" 2 "option --servers: there is no rank 7 among 2" \
    train $tiny $two --out new --sync ps --servers 7
refuses "no list" 2 "option --servers: '0,0' is neither 'all' nor a list" train $tiny $two --out new --sync ps --servers 0,0
refuses "a staleness below 0" 2 "option --staleness: -1 is not in \[0, " train $tiny $two --out new --sync async --staleness -1
refuses "half a push" 2 "option --push-every: '1.5' is not a whole number" \
    train $tiny $two --out new --sync async --push-every 1.5
refuses "an unknown scale" 2 "option --lr-scale: 'half' is not one of none|staleness|batch" \
    train $tiny $two --out new --sync async --lr-scale half
refuses "pushes now and then without staleness" 2 'leave out --staleness 0' \
    train $tiny $two --out new --sync async --staleness 0 --push-every 2
refuses "a making up for nothing" 2 'delay-compensation has no effect with --staleness 0; leave it out' \
    train $tiny $two --out new --sync async --staleness 0 --delay-compensation 2
refuses "what updates whole tensors" 2 'which --optimizer muon does not; take another rule, or --staleness 0' \
    train $tiny $two --out new --sync async --optimizer muon
refuses "one replica, whose stages no server would update" 2 'async is for several replicas, and there is one' \
    train $tiny --devices cpu:0/2 --replicas 1 --stages 2 --out stages --sync async
does "which in step it may have" 'step 4 ' train $tiny --devices cpu:0/2 --replicas 1 --stages 2 --out stages2 --sync async --staleness 0
refuses "compression by a share" 2 'async sends what it sends as it is; leave out --compress topk:0.1' \
    train $tiny $two --out new --sync async --compress topk:0.1
refuses "compression" 2 'async sends what it sends as it is; leave out --compress bf16' \
    train $tiny $two --out new --sync async --compress bf16
"$geartrain" train --help > help.txt
check "help says whose they are, and their defaults" grep -q -e '--staleness N  *async \[4\]: ' help.txt
check "and of several modes" grep -q -e '--servers LIST  *ps \[all\], async \[all\]: ' help.txt

# ---- the same numbers --------------------------------------------------------------------------------

loss()  # RUN
{
    sed -n 's/.*"loss": \([0-9.]*\).*/\1/p' "$1/metrics.jsonl" | tr '\n' ' '
}
does "sums of gradients" 'step 4 ' train $tiny $two --out sums
does "one server" 'step 4 .*sent' train $tiny $two --out one --sync ps --servers 0
check "comes to the same losses" [ "$(loss one)" = "$(loss sums)" ]
check "the plan says so" grep -q '"sync": "ps"' one/plan.json
check "with its options" grep -q '"servers": "0"' one/plan.json
check "as does config.json" grep -q '"servers": "0"' one/config.json
does "without staleness" 'step 4 ' train $tiny $two --out zero --sync async --staleness 0 --servers 0
check "async is ps" [ "$(loss zero)" = "$(loss one)" ]
does "a run goes on as it began" 'step 5 ' train --out one --resume --steps 5
check "with its server" grep -q '"servers": "0"' one/plan.json
does "or with another" 'step 6 ' train --out one --resume --steps 6 --servers 1
check "for which it is planned anew" grep -q '"servers": "1"' one/plan.json
does "or without" 'step 7 ' train --out one --resume --steps 7 --sync allreduce
check "whose options are gone" sh -c '! grep -q servers one/plan.json'

# ---- as they come --------------------------------------------------------------------------------------

late="--lr-schedule constant --sync async --staleness 2 --simulate-delay 3 --delay-compensation 2,adaptive"
does "an order that is drawn" 'step 8 ' train $tiny $two --out drawn $late --steps 8 --save-every 4
does "is drawn again" 'step 4 ' train $tiny $two --plan drawn/plan.json --out again $late --steps 4 --save-every 4
does "where a run goes on" 'step 8 ' train --out again --resume --steps 8
check "with the same losses" [ "$(loss again)" = "$(loss drawn)" ]
check "and weights" cmp drawn/checkpoints/step-000008/params-00000.safetensors again/checkpoints/step-000008/params-00000.safetensors
does "a plan may say it all" 'step 2 ' train $tiny $two --out planned --plan drawn/plan.json --steps 2
check "and does" grep -q '"delay-compensation": "2,adaptive"' planned/plan.json
refuses "what contradicts it" 2 "--staleness 3 contradicts the plan 'drawn/plan.json', which has 2" \
    train $tiny --devices cpu:0/2 --out new3 --plan drawn/plan.json --sync async --staleness 3

# ---- ranks that only serve ----------------------------------------------------------------------------

three="--devices cpu:0,cpu:0,cpu:0 --stages 1"
refuses "servers that are none" 2 'for ranks that --servers names, and it names none' \
    train $tiny $three --out new --sync ps --servers-train no
refuses "nobody to train" 2 'all 3 ranks are servers, and --servers-train no leaves none to train' \
    train $tiny $three --out new --sync ps --servers 0,1,2 --servers-train no
refuses "split layers beside a server" 2 'a server holds whole layers, and --tensor 2 splits them' \
    train $tiny $three --out new --sync ps --servers 0 --servers-train no --tensor 2 --replicas 1
does "a rank that only serves" 'step 4 ' train $tiny $three --out served --replicas 2 --sync ps --servers 1 --servers-train no
check "the plan says so" grep -q 'rank 1 .* only serves' stderr
check "and gives it no sequences" grep -q '"micro_batches": 0' served/plan.json
check "the two others come to the losses of two" [ "$(loss served)" = "$(loss sums)" ]
does "a run goes on with it" 'step 5 ' train --out served --resume --steps 5
does "and without" 'step 6 ' train --out served --resume --steps 6 --sync allreduce --replicas 3 --micro-batch 1
does "as updates come" 'step 8 ' train $tiny $three --out apart $late --steps 8 --save-every 4 --servers 2 --servers-train no
check "a server's own rank trains or not, to the same losses" [ "$(loss apart)" = "$(loss drawn)" ]
check "and weights" cmp drawn/checkpoints/step-000008/params-00000.safetensors apart/checkpoints/step-000008/params-00000.safetensors
sed 's/"servers": "2"/"servers": "0"/' apart/plan.json > wrong.json
refuses "a plan that gives a server sequences" 1 "rank 0 only serves, and has sequences of a step" \
    train $tiny $three --out new --plan wrong.json

# A wish to stop is heard where ranks meet.
rm -f stdout
{ as=exec; program train $tiny $two --out stopped --sync async --barrier-every 4 --steps 100000 --save-every 0; } \
    > stdout 2> stderr < /dev/null &
pid=$!
tries=0
until grep -q '^step 8 ' stdout 2> /dev/null || [ $tries -ge 2400 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
kill -INT $pid
wait $pid
check "an interrupted run ends as shells expect" [ $? -eq 130 ]
at=$(sed -n 's/.*stopped after step \([0-9]*\).*/\1/p' stderr | head -n 1)
check "at a meeting, with a checkpoint of that step" [ -d "stopped/checkpoints/step-$(printf %06d "${at:-1}")" -a $((${at:-1} % 4)) -eq 0 ]
check "nothing was left by what was refused" [ ! -e new -a ! -e new3 ]
close_checks
