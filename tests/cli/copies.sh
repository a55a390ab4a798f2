#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/copies.sh - stages on CPU devices compute where their messages lie: nothing is copied between them, under
# no schedule, and how the bytes travel changes no bit.
. "$(dirname "$0")/../cli/cli_checks.sh"

if ! "$geartrain" devices | grep -q 'cpu:0'; then
    echo "no CPU device to divide"
    exit 77
fi
# Messages of 32 KiB: those of up to 16 KiB go through rings, which costs less than to lend them.
echo '{ "model_type": "gpt2", "n_layer": 4, "n_head": 4, "n_embd": 64, "n_positions": 128, "n_ctx": 128 }' > model.json
train="train --model model.json --data $text --tokenizer byte --seq 128 --micro-batch 1 --steps 4 --warmup 1
       --dropout 0.1 --lr 0.003 --eval-every 2 --eval-batches 1 --save-every 2"
stop="--net stall-report=5s,stall-limit=20s"

# Six units: the embedding, four layers, the head.
plan()  # NAME SCHEDULE CHUNKS CUT STAGES MICRO_BATCHES [MORE_REPLICAS] [BATCH]
{
    cat > "$1.json" << END
{ "format": "geartrain plan 1", "batch": ${8:-$6}, "units": 6, "tensor": 1, "chunks": $3, "recompute": false,
  "schedule": "$2", "sync": "allreduce", "ranks": [ {}, {}$(i=2; while [ $i -lt "${9:-2}" ]; do printf ', {}'; i=$((i + 1)); done) ],
  "replicas": [ { "micro_batches": $6, "micro_batch": 1, "cut": [$4], "stages": [$5] }${7:+, $7} ] }
END
}
plan 1f1b 1f1b 1 "0, 2, 6" "[0], [1]" 6
plan gpipe gpipe 1 "0, 4, 6" "[0], [1]" 6
plan zero zb-h1 1 "0, 3, 6" "[0], [1]" 6
plan list list 1 "0, 3, 6" "[0], [1]" 6
plan woven interleaved 2 "0, 1, 3, 4, 6" "[0], [1]" 6
plan one-each 1f1b 1 "0, 3, 6" "[0], [1]" 1
plan three 1f1b 1 "0, 1, 3, 6" "[0], [1], [2]" 5 "" "" 3
plan uneven 1f1b 1 "0, 2, 6" "[0], [1]" 3 \
    '{ "micro_batches": 2, "micro_batch": 1, "cut": [0, 6], "stages": [[2]] }' 5 3

rows()    # RUN: loss, and that of validation
{
    sed -n 's/.*"loss": \([0-9.]*\),.*/\1 &/p' "$1/metrics.jsonl" | sed 's/ .*"val_loss": \([0-9.]*\).*/ \1/; s/ {.*//'
}
weights() # RUN: and the optimizer's state
{
    find "$1/checkpoints/step-000004" -name '*.safetensors' | sort | xargs cat | cksum | grep -v ' 0$'
}
batch()   # PLAN
{
    sed -n 's/.*"batch": \([0-9]*\).*/\1/p' "$1.json"
}
copied()  # RUN: bytes of each step
{
    sed -n 's/.*"bytes_copied": \([0-9]*\).*/\1/p' "$1/metrics.jsonl" | tr '\n' ' '
}
same()    # RUN RUN
{
    [ -n "$(weights "$1")" ] && [ "$(weights "$1")" = "$(weights "$2")" ] && [ "$(rows "$1")" = "$(rows "$2")" ]
}

for name in 1f1b gpipe zero list woven one-each; do
    does "$name over shared memory" '' $train --plan $name.json --batch $(batch $name) --devices cpu:0/2 --out $name $stop
    check "copies nothing" [ "$(copied $name)" = "0 0 0 0 " ]
done
for name in three uneven; do
    does "$name over shared memory" '' $train --plan $name.json --batch $(batch $name) --ranks 3 --out $name $stop
    check "copies nothing" [ "$(copied $name)" = "0 0 0 0 " ]
done
does "1f1b over tcp" '' $train --plan 1f1b.json --batch 6 --devices cpu:0/2 --out tcp --transport tcp $stop
check "copies nothing but what the sockets do" [ "$(copied tcp)" = "0 0 0 0 " ]
check "and has the bits of shared memory" same tcp 1f1b
# 6 micro-batches of 128 x 64 values in fp32, forward and back.
does "1f1b through rings" '' $train --plan 1f1b.json --batch 6 --devices cpu:0/2 --out rings $stop,shm-mode=copy
check "copies each message" [ "$(copied rings)" = "393216 393216 393216 393216 " ]
check "and has the bits of shared memory" same rings 1f1b
export GEARTRAIN_NET_FAULT=delay=1ms,reorder=1
does "late and in any order" '' $train --plan woven.json --batch 6 --devices cpu:0/2 --out late $stop
unset GEARTRAIN_NET_FAULT
check "copies nothing" [ "$(copied late)" = "0 0 0 0 " ]
check "and has the bits of shared memory" same late woven
does "stages that send bf16" '' $train --plan zero.json --batch 6 --devices cpu:0/2 --out bf16 --compress-stages bf16 $stop
cp -r gpipe again
rm -r again/checkpoints/step-000004
does "the second half of a run again" '' $train --plan gpipe.json --batch 6 --devices cpu:0/2 --out again --resume $stop
check "has the bits of a run without a break" same again gpipe
does "alone" '' $train --devices cpu:0 --batch 6 --out alone
check "nothing is said of copies" [ -z "$(copied alone)" ]
close_checks
