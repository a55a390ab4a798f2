#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/cluster_plan.sh - a plan for the devices of a cluster file is followed by a run on those
# devices, on the curve of one device.
#
#   cluster.json: 3 devices ── plan --cluster --out plan.json ── train --plan plan.json, 3 ranks ── losses
. "$(dirname "$0")/cli_checks.sh"

common="--model gpt2-tiny --data $text --tokenizer char --seq 32 --batch 8 --steps 6 --dropout 0
        --lr 1e-3 --warmup 2"
shape="--model gpt2-tiny --seq 32 --batch 8"

train()     # RUN OPTIONS...
{
    run=$1
    shift
    (limit=300 as=exec; program train $common --out "$run" "$@") > stdout 2> stderr < /dev/null
}

losses() { sed -n 's/.*"loss": \([0-9.]*\),.*/\1/p' "$1/metrics.jsonl"; }

near()      # RUN RUN
{
    losses "$1" > a && losses "$2" > b && paste -d ' ' a b | awk '
        { d = $1 - $2; if (!($1 > 0) || d > 1e-5 * $1 || d < -1e-5 * $1) bad = 1 }
        END { exit bad || NR != 6 }'
}

# cluster FILE MEMORY: one node of a fast device and two slow ones.
cluster()
{
    cat > "$1" <<JSON
{ "latency": "20us", "nodes": [ { "uplink": "5GB", "local": "5GB", "devices": [
    { "name": "cpu:0", "count": 1, "tflops": 0.04, "memory": "$2" },
    { "name": "cpu:0.0/2", "count": 1, "tflops": 0.02, "memory": "$2" },
    { "name": "cpu:0.1/2", "count": 1, "tflops": 0.02, "memory": "$2" } ] } ] }
JSON
}

train one --devices cpu:0 --micro-batch 2
check "one device trains" [ $? -eq 0 ]

# Room for a part of the model only: a pipeline. Room for all of it: whatever is fastest.
for kind in small:1500KiB large:1GiB; do
    size=${kind%%:*}
    cluster $size.json "${kind#*:}"
    does "a plan of $size devices" '^plan ' plan $shape --cluster $size.json --out $size-plan.json
    check "$size: it names the devices" grep -q '"cpu:0.1/2"' $size-plan.json
    train $size --plan $size-plan.json --devices cpu:0,cpu:0.0/2,cpu:0.1/2
    check "$size: train --plan follows it" [ $? -eq 0 ]
    check "$size: as the file says" grep -q "as '$size-plan.json' says" stderr
    check "$size: the curve of one device" near one $size
done
check "small devices are stages" [ "$(tr -d ' \n' < small/plan.json | grep -o '\[\[[0-9]\],\[[0-9]\]' | wc -l)" -eq 1 ]
train two --plan small-plan.json --devices cpu:0.0/2,cpu:0.1/2
check "two devices do not follow a plan of three" [ $? -ne 0 ]
check "and say why" grep -q 'the plan is for 3 ranks, there are 2' stderr
cluster tiny.json 10KiB
refuses "no plan is written where nothing fits" 1 'no plan fits' plan $shape --cluster tiny.json --out tiny-plan.json
check "and there is no file" [ ! -e tiny-plan.json ]
close_checks
