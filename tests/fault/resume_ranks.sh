#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/fault/resume_ranks.sh - a job of two stages that loses a rank again and again ends where one
# that was left alone ends, bit for bit; and one of its ranks may do the rest alone.
. "$(dirname "$0")/../cli/cli_checks.sh"
export GEARTRAIN_NET_HEARTBEAT=200ms
STEPS=30
last=checkpoints/step-000030

start()     # FOLDER OPTIONS...: in the background, $pid
{
    folder=$1
    shift
    { as=exec; program train --out "$folder" --model gpt2-tiny --data "$text" --tokenizer char --seq 32 \
        --batch 4 --micro-batch 2 --steps $STEPS --dropout 0.1 --eval-every 10 --devices cpu:0/2 \
        "$@"; } > stdout 2> stderr < /dev/null &
    pid=$!
}

run()       # FOLDER OPTIONS...
{
    start "$@"
    wait $pid
}

losses()
{
    sed -n 's/.*"step": \([0-9]*\),.*"loss": \([^,]*\),.*/\1 \2/p' "$1/metrics.jsonl"
}

same()      # FOLDER FOLDER
{
    for file in "$1/$last"/*.safetensors; do
        cmp "$file" "$2/$last/${file##*/}" || return
    done
    losses "$1" > a && losses "$2" > b && cmp a b && [ "$(wc -l < a)" -eq $STEPS ]
}

run whole --stages 2 --save-every 10
check "a run of two stages ends" [ $? -eq 0 ]
check "each of which writes its part" \
    [ -f whole/$last/params-00000.safetensors -a -f whole/$last/params-00001.safetensors ]

newest()        # the last step that killed/ has a checkpoint of
{
    ls killed/checkpoints 2> /dev/null | sed -n 's/^step-0*\([0-9]*\)$/\1/p' | sort -n | tail -n 1 \
        | grep . || echo 0
}

# Each time a rank goes when one more checkpoint is there and another one is in the making.
kills=0 writing=0
cp -r whole killed
rm -rf killed/checkpoints killed/metrics.jsonl
while [ $kills -lt 6 ]; do
    before=$(newest)
    start killed --resume --save-every 1
    until [ "$(newest)" -gt "$before" ] || ! kill -0 $pid 2> /dev/null; do
        sleep 0.01
    done
    seen=0
    until [ $seen -gt $kills ] || ! kill -0 $pid 2> /dev/null; do
        for entry in killed/checkpoints/.partial-step-*[0-9]; do
            [ ! -e "$entry" ] || seen=$((seen + 1))
        done
    done
    victim=$(pgrep -P $pid | sed -n "$((kills % 2 + 1))p")
    [ -n "$victim" ] && kill -9 "$victim" 2> /dev/null
    wait $pid
    status=$?
    [ $status -ne 0 ] || break
    kills=$((kills + 1))
    check "kill $kills: a rank is missed" [ $status -eq 3 ]
    for entry in killed/checkpoints/.partial-*; do
        [ ! -e "$entry" ] || writing=$((writing + 1))
    done
done
echo "    killed $kills times, $writing of them while a checkpoint was being written"
check "it was killed at all" [ $kills -gt 0 ]
run killed --resume
check "killed and resumed, it ends" [ $? -eq 0 ]
check "with the weights, moments and losses of the other" same whole killed
check "nothing half-written is left" [ -z "$(find killed -name '*.partial*')" ]

STEPS=33
cp -r whole alone
"$geartrain" train --out alone --resume --steps $STEPS --devices cpu:0 --ranks 1 --stages 1 \
    > stdout 2> stderr < /dev/null
check "one device goes on from what two stages wrote" [ $? -eq 0 ]
check "from its last step" grep -q 'resume  after step 30' stderr
check "in one file" [ -f alone/checkpoints/step-000033/params.safetensors ]
close_checks
