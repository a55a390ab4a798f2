#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/job/elastic.sh - ranks of a running job are killed, and the others go on in their processes: with each
# step once, from memory, and with the numbers of a run that had those ranks from that step on.
# KILLS: how many ranks the last part kills, SEED: which.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/cli/cli_checks.sh"
. "$tests/job/elastic_checks.sh"
: "${KILLS:=4}" "${SEED:=1}"
GEARTRAIN_NET_HEARTBEAT=200ms GEARTRAIN_NET_ALGORITHM=ring GEARTRAIN_GEMM=tiled    # what is measured may differ
export GEARTRAIN_NET_HEARTBEAT GEARTRAIN_NET_ALGORITHM GEARTRAIN_GEMM
STEPS=120
words="train --model gpt2-tiny --data $text --tokenizer char --seq 32 --batch 12 --micro-batch 1
    --dropout 0.1 --eval-every 20"

# ---- one of four ----------------------------------------------------------------------------------

start one $STEPS --ranks 4 --elastic 2:4 --replacements 0 -- --save-every 0
until_rows one 30 $job
cp one/plan.json plan4.json
pids=$(pgrep -P $job | tr '\n' ' ')
victim=$(place $job 3) at=$(now)
kill -9 $victim
print_pause one $job $at
left=$(pgrep -P $job | tr '\n' ' ')
wait $outer
check "a run goes on to its end without a rank that was killed" [ $? -eq 0 ]
check "says which" grep -q "dropped rank 2 (.*, pid $victim): killed by signal 9 (Killed); going on with 3 of 4" stderr
step=$(sed -n 's/^again   after step \([0-9]*\) with 3 ranks: from memory$/\1/p' stderr)
check "and from where: memory" [ -n "$step" ]
check "in the same processes" [ "$(echo "$pids" | sed "s/$victim //")" = "$left" ]
check "with each step once" each_once one $STEPS

"$geartrain" launch --ranks 4 -- $words --steps $STEPS --out four --plan plan4.json --save-every "${step:-1}" --keep 0 \
    > stdout 2> stderr < /dev/null
for folder in four/checkpoints/step-*; do
    [ "$folder" = "four/checkpoints/step-$(printf %06d "${step:-1}")" ] || rm -r "$folder"
done
rm -f four/loss.svg
"$geartrain" launch --ranks 3 -- $words --steps $STEPS --out four --resume --plan one/plan.json --save-every 0 \
    > stdout 2> stderr < /dev/null
check "a run with four ranks to that step and three behind it ends" [ $? -eq 0 ]
same()
{
    losses one > a && losses four > b && cmp a b || return
    last=checkpoints/step-$(printf %06d $STEPS)
    cmp one/$last/params-00000.safetensors four/$last/params-00000.safetensors &&
        cmp one/$last/optimizer-00000.safetensors four/$last/optimizer-00000.safetensors
}
check "with the same losses and weights, bit for bit" same

# ---- rank 0, and another in its place ----------------------------------------------------------------

start zero 250 --ranks 3 --elastic 2:3 -- --save-every 50
until_rows zero 30 $job
at=$(now)
kill -9 "$(place $job 1)"
print_pause zero $job $at
wait $outer
check "a run outlives its rank 0" [ $? -eq 0 ]
check "goes on with two" grep -q "dropped rank 0 .*going on with 2 of 3" stderr
check "and with three, when another has come" grep -q "1 new rank joins; going on with 3" stderr
check "which has all from memory too" grep -q "^.*again   after step [0-9]* with 3 ranks: from memory" stderr
check "with each step once" each_once zero 250

# ---- two at once, while a checkpoint is written ---------------------------------------------------------

start two $STEPS --ranks 4 --elastic 2:4 --replacements 0 -- --save-every 1 --keep 3
until_rows two 20 $job
until ls -d two/checkpoints/.partial-* > /dev/null 2>&1 || ! kill -0 $job 2> /dev/null; do :; done
kill -9 "$(place $job 1)" "$(place $job 2)"
wait $outer
check "a run outlives two of its ranks that are killed while they write a checkpoint" [ $? -eq 0 ]
check "says both" grep -q "dropped rank [01] .*, rank [01] .*going on with 2 of 4" stderr
check "with each step once" each_once two $STEPS
check "and nothing unfinished beside its checkpoints" \
    [ "$(ls -A two/checkpoints | grep -v best | tr '\n' ' ')" = "step-000118 step-000119 step-000120 " ]

# ---- what no rank has whole -----------------------------------------------------------------------------

start parts $STEPS --ranks 3 --elastic 2:3 --replacements 0 -- --save-every 10 --sync sharded
until_rows parts 30 $job
kill -9 "$(place $job 2)"
wait $outer
check "a run whose state is shared out goes on" [ $? -eq 0 ]
check "from a checkpoint, as it says" grep -q "^again   after step [1-9][0-9]*0 with 2 ranks: from the newest checkpoint" stderr
check "with each step once" each_once parts $STEPS

# ---- too few -----------------------------------------------------------------------------------------

start few 2000 --ranks 2 --elastic 2:2 --replacements 0 --wait 1s -- --save-every 0
until_rows few 30 $job
kill -9 "$(place $job 2)"
wait $outer
check "with fewer than MIN the job ends as one that lost a rank" [ $? -eq 3 ]
check "says so" grep -q "1 of at least 2 ranks are left, and nobody came" stderr
check "and has kept what was done" [ -e "few/checkpoints/step-$(printf %06d "$(rows few)")/manifest.json" ]

# ---- again and again ------------------------------------------------------------------------------------

start soak 1000000 --ranks 3 --elastic 1:3 -- --save-every 200 --keep 2
killed=0 lot=$SEED
until_rows soak 5 $job
while [ $killed -lt "$KILLS" ] && kill -0 $job 2> /dev/null; do
    lot=$(((lot * 1103515245 + 12345) % 2147483648))
    until_rows soak $(($(rows soak) + 3 + lot / 65536 % 20)) $job
    at=$(now)
    kill -9 "$(place $job $((1 + lot / 4096 % 3)))" 2> /dev/null && killed=$((killed + 1))
    print_pause soak $job $at
done
kill -TERM $job
wait $outer
check "a run of which $KILLS ranks were killed, one after the other, still runs, and stops when told" [ $? -eq 143 ]
check "with each step once" each_once soak "$(rows soak)"
check "and keeps the last" [ -e "soak/checkpoints/step-$(printf %06d "$(rows soak)")/manifest.json" ]

# Ranks that are between two formations have no step to stop in.
start between 1000000 --ranks 3 --elastic 1:3 -- --save-every 200 --sync local --local-steps 8
until_rows between 5 $job
kill -9 "$(place $job 2)"
until grep -q dropped stderr || ! kill -0 $job 2> /dev/null; do sleep 0.01; done
kill -TERM $job
wait $outer
check "a run that is stopped while ranks are put together ends as shells expect" [ $? -eq 143 ]

# ---- refused -----------------------------------------------------------------------------------------

refuses "a range that is none" 2 "option --elastic: '3' is not MIN:MAX" launch --elastic 3 -- $words --out no
refuses "more ranks than MAX" 2 'it should be MIN <= ranks <= MAX' launch --ranks 5 --elastic 2:4 -- $words --out no
echo "127.0.0.1 slots=2" > hosts
refuses "fewer slots than MAX" 2 "hosts file 'hosts' has 2 slots, too few for 3 ranks" launch --hosts hosts --elastic 1:3 -- $words --out no
refuses "--listen alone" 2 'only with --elastic' launch --ranks 2 --listen 127.0.0.1 -- $words --out no
refuses "--join with --elastic" 2 'has been told so' launch --join 127.0.0.1:1 --elastic 1:2 -- $words --out no
refuses "--wait alone" 2 'only with --elastic' launch --ranks 2 --wait 1s -- $words --out no
"$geartrain" launch --elastic 1:2 -- bench allreduce > stdout 2> stderr < /dev/null
check "a verb that cannot go on says so" grep -q "this verb cannot go on without a rank" stderr
close_checks
