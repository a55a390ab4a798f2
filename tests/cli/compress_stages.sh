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

# ---- fp16, and int8 by chance that repeats ----
for form in fp16 int8; do
    does "stages send $form" 'sent' train $tiny --devices cpu:0/2 --plan 1f1b.json --out $form --compress-stages $form
    cp stdout $form.txt
    cp stderr $form.err
done
check "fp16 takes half, and 4 bytes in 256" awk -v a="$(sent whole.txt)" -v b="$(sent fp16.txt)" \
    'BEGIN { d = a - b; exit !(d > 30.5 && d < 33.5 || d > 62 && d < 66) }'
check "int8 a quarter, and 4 bytes in 128" awk -v a="$(sent whole.txt)" -v b="$(sent int8.txt)" \
    'BEGIN { d = a - b; exit !(d > 46.5 && d < 50 || d > 94 && d < 98.5) }'
check "their bounds are said" grep -q "^stages  send int8: a quarter of the bytes, each value within 1/127 of the largest of 128" \
    int8.err
check "for fp16 too" grep -q "^stages  send fp16: half the bytes, each value within 1/2048 of the largest of 128" fp16.err
# Percent of the largest: below the bounds, and not far below; of both directions.
most()  # FORM: of activations and gradients, in all steps
{
    sed -n 's/^stages  sent .* at most \([0-9.e-]*\) %.*; bound .*/\1/p' $1.err | tr '\n' ' '
}
root()
{
    sed -n 's/^stages  sent .* error \([0-9.e-]*\) %.*/\1/p' $1.err | tr '\n' ' '
}
within()  # FORM BOUND
{
    awk -v most="$(most $1)" -v root="$(root $1)" -v bound=$2 'BEGIN {
        n = split(most, m, " "); k = split(root, r, " ")
        for (i = 1; i <= n; i++)
            if (m[i] > 1.0001 * bound || m[i] < bound / 3 || r[i] > bound * 3 || r[i] < bound / 20) exit 1
        exit !(n == 2 && k == 2) }'
}
check "errors of bf16 are measured, and within its bound" within half 0.3906
check "those of fp16" within fp16 0.04883
check "those of int8" within int8 0.7875
check "each step says them" [ "$(grep -c 'error .* %, at most .* %' int8.txt)" -eq 4 ]
check "and the record" [ "$(grep -c '"activation_error_rms": [0-9.e-]*, "activation_error_most": [0-9.e-]*, "gradient_error_rms"' \
    int8/metrics.jsonl)" -eq 4 ]
check "which has none of what travels as it is" sh -c '! grep -q error_rms whole/metrics.jsonl'
for form in fp16 int8; do
    check "$form changes the losses a little" [ "$(losses whole)" != "$(losses $form)" ]
    check "and no more" awk -v a="$(losses whole)" -v b="$(losses $form)" 'BEGIN {
        n = split(a, x, " "); m = split(b, y, " ")
        for (i = 1; i <= n; i++) if (x[i] - y[i] > 0.02 || y[i] - x[i] > 0.02) exit 1
        exit !(n == 4 && m == 4 && y[4] < y[1] - 0.05) }'
done
for schedule in gpipe zero woven; do
    does "int8 with schedule $schedule" 'step 4 ' train $tiny --devices cpu:0/2 --plan $schedule.json --out int8-$schedule \
        --compress-stages int8
done
check "what is drawn is of the micro-batch, whatever the order" [ "$(weights int8-gpipe)" = "$(weights int8)" ]
cp -r int8 int8-again && rm -r int8-again/checkpoints/step-000004
does "a run goes on with int8" 'step 4 ' train --out int8-again --resume
check "to the bit, as if it had not stopped" [ "$(weights int8-again)" = "$(weights int8)" ]
sed 's/"recompute": false/"recompute": true/' 1f1b.json > recompute.json
does "with recomputation" 'step 4 ' train $tiny --devices cpu:0/2 --plan recompute.json --out int8-recompute \
    --compress-stages int8
check "which changes nothing" [ "$(losses int8-recompute)" = "$(losses int8)" ]
does "from 16 bits to 8" 'step 4 ' train $tiny --devices cpu:0/2 --plan 1f1b.json --out int8-bf16 --precision bf16 \
    --compress-stages int8
check "which is half" grep -q "^stages  send int8: half the bytes" stderr

cp -r half again && rm -r again/checkpoints/step-000004
does "a run goes on with it" 'step 4 ' train --out again --resume
check "to the bit" [ "$(weights again)" = "$(weights half)" ]

# ---- auto: a form for each link ----
does "a link of stages is chosen for" 'step 4 ' train $tiny --devices cpu:0/2 --plan 1f1b.json --out auto \
    --compress-stages auto
cp stderr auto.err
check "what and why is said in a line" grep -Eq \
    '^link    stages on ranks 0 1: (none|fp16|bf16|int8), [0-9.e+-]+ ms a step( instead of [0-9.e+-]+ \(network .*, device .*\))?; ' auto.err
chosen=$(sed -n 's/^link    stages on ranks 0 1: \([a-z0-9]*\),.*/\1/p' auto.err)
check "the plan has it" sh -c "tr -d '\n ' < auto/plan.json | grep -q '\"stage_links\":\[{\"ranks\":\[0,1\],\"form\":\"$chosen\"}\]'"
does "the named form" 'step 4 ' train $tiny --devices cpu:0/2 --plan 1f1b.json --out named --compress-stages "$chosen"
check "does the same to the bit" [ -n "$(weights auto)" -a "$(weights auto)" = "$(weights named)" ]
cp -r auto auto-again && rm -r auto-again/checkpoints/step-000004
does "the run goes on" 'step 4 ' train --out auto-again --resume
check "with the same" grep -q "^link    stages on ranks 0 1: $chosen, as the run began" stderr
check "to the bit" [ "$(weights auto-again)" = "$(weights auto)" ]
does "errors of at most 0.002" 'step 4 ' train $tiny --devices cpu:0/2 --plan 1f1b.json --out bound \
    --compress-stages auto:0.002
check "leave fp16" sh -c "grep '^link    stages' stderr | grep -q 'fp16' && ! grep '^link    stages' stderr | grep -Eq 'bf16|int8'"
# What a plan says: three stages beside one, links that differ.
three="--devices cpu:0.0/2,cpu:0.1/2,cpu:0.0/2,cpu:0.1/2"
cat > links.json << END
{ "format": "geartrain plan 1", "batch": 4, "units": 5, "tensor": 1, "chunks": 1, "recompute": false,
  "schedule": "1f1b", "sync": "allreduce", "compress_stages": "auto",
  "stage_links": [ { "ranks": [0, 1], "form": "int8" }, { "ranks": [1, 2], "form": "bf16" } ],
  "ranks": [ {}, {}, {}, {} ],
  "replicas": [ { "micro_batches": 3, "micro_batch": 1, "cut": [0, 2, 3, 5], "stages": [[0], [1], [2]] },
                { "micro_batches": 1, "micro_batch": 1, "cut": [0, 5], "stages": [[3]] } ] }
END
does "links that differ" 'step 4 ' train $tiny $three --plan links.json --out links
check "are as the plan says" [ "$(grep -c '^link    stages on ranks .*, as the run began' stderr)" -eq 2 ]
check "their errors are those of several forms" grep -q '^stages  sent activations in several forms: .* bound 0.787 %' stderr
cp -r links links-again && rm -r links-again/checkpoints/step-000004
does "that run goes on" 'step 4 ' train --out links-again --resume
check "to the bit as well" [ -n "$(weights links)" -a "$(weights links-again)" = "$(weights links)" ]
# Tensor ranks: each has a link of its own.
cat > wide.json << END
{ "format": "geartrain plan 1", "batch": 4, "units": 5, "tensor": 2, "chunks": 1, "recompute": false,
  "schedule": "1f1b", "sync": "allreduce", "ranks": [ {}, {}, {}, {} ],
  "replicas": [ { "micro_batches": 4, "micro_batch": 1, "cut": [0, 2, 5], "stages": [[0, 1], [2, 3]] } ] }
END
does "tensor ranks over tcp" 'step 4 ' train $tiny $three --plan wide.json --out wide --compress-stages auto:int8 --transport tcp
check "have links of their own" [ "$(grep -Ec '^link    stages on ranks (0 2|1 3): ' stderr)" -eq 2 ]

refuses "errors that nothing keeps to" 2 "option --compress-stages: 'auto:0.0001' leaves nothing to choose among" train $tiny \
    --out other --compress-stages auto:0.0001
refuses "what is no form" 2 "option --compress-stages: 'fp4' is not one of" train $tiny --out other --compress-stages auto:fp4
refuses "nothing that is shorter" 2 "leave out --compress-stages auto" train $tiny --devices cpu:0/2 --plan 1f1b.json \
    --out other --compress-stages auto:bf16 --precision bf16
does "plan knows it" 'replica' plan --model gpt2-tiny --devices cpu:0/2 --stages 2 --batch 4 --seq 32 --compress-stages auto:0.005 \
    --out planned.json
check "and says so in the file" grep -q '"compress_stages": "auto:0.005"' planned.json

refuses "one that has it already" 2 "with --precision bf16 stages send 16 bits a value as it is" train $tiny \
    --devices cpu:0/2 --plan 1f1b.json --out other --compress-stages bf16 --precision bf16
"$geartrain" train $tiny --devices cpu:0/2 --replicas 2 --stages 1 --out other --compress-stages bf16 > stdout 2> stderr
check "without stages it is misuse" [ $? -eq 2 ]
check "which is said" grep -q "no replica of the plan has stages that could send" stderr
refuses "a form that is none" 2 "'fp4' is not one of none[|]bf16[|]fp16[|]int8" train $tiny --out other --compress-stages fp4
close_checks
