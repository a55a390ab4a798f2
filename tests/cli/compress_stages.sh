#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/compress_stages.sh - what pipeline stages hand to each other, in fewer bytes: how many are sent, what
# training comes to, resuming to the bit, and where it has no meaning.
. "$(dirname "$0")/../cli/cli_checks.sh"

if ! "$geartrain" devices | grep -q 'cpu:0'; then
    echo "no CPU device to divide"
    exit 77
fi
tiny="--model gpt2-tiny --data $text --tokenizer byte --seq 32 --batch 4 --micro-batch 1 --steps 4 --warmup 1
      --lr 0.003 --eval-every 0 --save-every 2"

# A plan by hand needs no measuring. Stages are unequal: 2 and 3 of the 5 units.
plan()  # NAME SCHEDULE CHUNKS CUT
{
    cat > "$1.json" << END
{ "format": "geartrain plan 1", "batch": 4, "units": 5, "tensor": 1, "chunks": $3, "recompute": false,
  "schedule": "$2", "sync": "allreduce", "ranks": [ {}, {} ],
  "replicas": [ { "micro_batches": 4, "micro_batch": 1, "cut": [$4], "stages": [[0], [1]] } ] }
END
}
plan 1f1b 1f1b 1 "0, 2, 5"
plan gpipe gpipe 1 "0, 2, 5"
plan zero zb-h1 1 "0, 2, 5"
plan woven interleaved 2 "0, 1, 2, 3, 5"

# sent FILE: kilobytes of the last step, as the run told them.
sent()
{
    sed -n 's/.*sent \([0-9.]*\) \([kMG]\)B.*/\1 \2/p' "$1" | tail -n 1 \
        | awk '{ print $1 * ($2 == "G" ? 1000000 : $2 == "M" ? 1000 : 1) }'
}
losses()  # RUN
{
    sed -n 's/.*"loss": \([0-9.]*\).*/\1/p' "$1/metrics.jsonl" | tr '\n' ' '
}
weights()  # RUN: and the optimizer's state
{
    find "$1/checkpoints/step-000004" -name '*.safetensors' | sort | xargs cat | cksum | grep -v ' 0$'
}

does "stages send as it is" 'sent' train $tiny --devices cpu:0/2 --plan 1f1b.json --out whole
cp stdout whole.txt
does "none is the same" 'sent' train $tiny --devices cpu:0/2 --plan 1f1b.json --out none --compress-stages none
check "to the bit" [ -n "$(weights whole)" -a "$(weights whole)" = "$(weights none)" ]
does "stages send bf16" 'sent' train $tiny --devices cpu:0/2 --plan 1f1b.json --out half --compress-stages bf16
cp stdout half.txt
cp stderr half.err
# 4 micro-batches x 32 x 64 values, forward and back: 65.5 kB in fp32 less than before.
check "which takes as many bytes less as half of what goes between them" awk -v a="$(sent whole.txt)" \
    -v b="$(sent half.txt)" 'BEGIN { d = a - b; exit !(d > 31.5 && d < 34 || d > 63.5 && d < 67.5) }'
check "with a bound of what that changes" grep -q "^stages  send bf16: half the bytes, each value within 1/256" half.err
check "it changes the losses a little" [ "$(losses whole)" != "$(losses half)" ]
check "and no more" awk -v a="$(losses whole)" -v b="$(losses half)" 'BEGIN {
    n = split(a, x, " "); m = split(b, y, " ")
    for (i = 1; i <= n; i++) if (x[i] - y[i] > 0.01 || y[i] - x[i] > 0.01) exit 1
    exit !(n == 4 && m == 4 && x[4] < x[1] - 0.05 && y[4] < y[1] - 0.05) }'
check "the run remembers it" grep -q '"compress-stages": "bf16"' half/config.json

for schedule in gpipe zero woven; do
    does "schedule $schedule" 'step 4 ' train $tiny --devices cpu:0/2 --plan $schedule.json --out $schedule \
        --compress-stages bf16
done
check "the order of a schedule changes nothing" [ "$(weights gpipe)" = "$(weights half)" ]

cp -r half again && rm -r again/checkpoints/step-000004
does "a run goes on with it" 'step 4 ' train --out again --resume
check "to the bit" [ "$(weights again)" = "$(weights half)" ]

refuses "one that has it already" 2 "with --precision bf16 stages send 16 bits a value as it is" train $tiny \
    --devices cpu:0/2 --plan 1f1b.json --out other --compress-stages bf16 --precision bf16
"$geartrain" train $tiny --devices cpu:0/2 --replicas 2 --stages 1 --out other --compress-stages bf16 > stdout 2> stderr
check "without stages it is misuse" [ $? -eq 2 ]
check "which is said" grep -q "no replica of the plan has stages that could send" stderr
refuses "a form that is none" 2 "'fp4' is not one of none[|]bf16" train $tiny --out other --compress-stages fp4
close_checks
