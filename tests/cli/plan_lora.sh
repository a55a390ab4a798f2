#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/plan_lora.sh - plans know what is frozen: it has no gradients and no optimizer state, takes the bytes of its
# own precision, and leaves weight gradients out of the time.
. "$(dirname "$0")/../cli/cli_checks.sh"

cat > cluster.json <<'END'
{ "latency": "20us", "nodes": [ { "count": 2, "uplink": "25GB", "local": "200GB",
  "devices": [ { "name": "A", "count": 2, "tflops": 100, "memory": "6GB" } ] } ] }
END
cat > one.json <<'END'
{ "latency": "20us", "nodes": [ { "count": 1, "uplink": "25GB", "local": "200GB",
  "devices": [ { "name": "A", "count": 1, "tflops": 100, "memory": "80GB" } ] } ] }
END

planned() # FILE KEY: the number of the first line that has it
{
    sed -n "s/.*\"$2\": *\([0-9.e+-]*\).*/\1/p" "$1" | head -n 1
}

less() # A SHARE B: A is above 0 and less than SHARE times B
{
    awk -v a="$1" -v s="$2" -v b="$3" 'BEGIN { exit !(a > 0 && b > 0 && a < s * b) }'
}

# ---- devices that are not here ----
refuses "a model of which all is trained does not fit" 1 "no plan fits" \
    plan --model gpt2-1558m --cluster cluster.json --batch 16
does "with adapters it does" "^plan" plan --model gpt2-1558m --cluster cluster.json --batch 16 --lora 8
program plan --model gpt2-1558m --cluster cluster.json --batch 16 --lora 8 --base-precision int8 > stdout 2> stderr
check "with a base in 8 bits each device holds all of it" grep -q "^plan *4 replicas x 1 stages" stdout
program plan --model gpt2-124m --cluster one.json --batch 8 --json > full.json 2> stderr
for kind in 'fp32|' 'bf16|--base-precision bf16' 'int8|--base-precision int8'; do
    program plan --model gpt2-124m --cluster one.json --batch 8 --json --lora 8 ${kind#*|} > "${kind%%|*}.json" 2> stderr
done
check "adapters take under 0.72 of the time" less "$(planned fp32.json step_s)" 0.72 "$(planned full.json step_s)"
check "and less memory" less "$(planned fp32.json memory)" 0.8 "$(planned full.json memory)"
check "bf16 takes less than fp32" less "$(planned bf16.json memory)" 1 "$(planned fp32.json memory)"
check "int8 takes less than bf16" less "$(planned int8.json memory)" 1 "$(planned bf16.json memory)"
program plan --model gpt2-124m --cluster one.json --batch 8 --json --freeze 'h.*' > frozen.json 2> stderr
check "what is frozen by name counts too" less "$(planned frozen.json memory)" 0.8 "$(planned full.json memory)"

# ---- devices that are here ----
program plan --model gpt2-tiny --devices cpu:0.0,cpu:0.1 --batch 8 --seq 32 --replicas 2 --lora 4 --base-precision int8 \
    --out lora.plan > stdout 2> stderr
check "a plan is written" [ -s lora.plan ]
program train --model gpt2-tiny --data "$text" --tokenizer char --seq 32 --batch 8 --steps 3 --eval-every 0 --dropout 0 \
    --lora 4 --base-precision int8 --devices cpu:0 --out one > stdout 2> stderr
program train --model gpt2-tiny --data "$text" --tokenizer char --seq 32 --batch 8 --steps 3 --eval-every 0 --dropout 0 \
    --lora 4 --base-precision int8 --devices cpu:0.0,cpu:0.1 --plan lora.plan --out file > stdout 2> stderr
program train --model gpt2-tiny --data "$text" --tokenizer char --seq 32 --batch 8 --steps 3 --eval-every 0 --dropout 0 \
    --lora 4 --base-precision int8 --devices cpu:0.0,cpu:0.1 --plan auto --replicas 2 --stages 1 --out auto > stdout 2> stderr
program train --model gpt2-tiny --data "$text" --tokenizer char --seq 32 --batch 8 --steps 3 --eval-every 0 --dropout 0 \
    --devices cpu:0.0,cpu:0.1 --plan auto --replicas 2 --stages 1 --out whole > stdout 2> stderr
for run in one file auto; do
    sed -n 's/.*"loss": *\([0-9.e+-]*\).*/\1/p' $run/metrics.jsonl > $run.losses
done
for run in file auto; do
    check "$run: the losses of one device" awk 'NR == FNR { a[FNR] = $1; next }
        { d = a[FNR] - $1; if (d > 2e-5 || -d > 2e-5) bad = 1 } END { exit bad || FNR != 3 }' one.losses $run.losses
done
check "--plan auto counts less memory with adapters" less "$(planned auto/plan.json memory)" 0.8 \
    "$(planned whole/plan.json memory)"

# ---- what cannot be ----
refuses "targets without adapters" 2 "--lora-targets would be ignored: it belongs to --lora" \
    plan --model gpt2-tiny --cluster one.json --lora-targets c_attn
refuses "a base without anything frozen" 2 "--base-precision would be ignored: nothing is frozen" \
    plan --model gpt2-tiny --cluster one.json --base-precision int8
refuses "a pattern without a tensor" 2 "--freeze 'h.9.\\*' matches no tensor" \
    plan --model gpt2-tiny --cluster one.json --freeze 'h.9.*'
close_checks
