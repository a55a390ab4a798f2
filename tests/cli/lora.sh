#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/lora.sh - adapters and frozen tensors as people meet them: the same losses under every plan, resumed bit for
# bit, exported, read again and merged, and what cannot be is refused by name.
. "$(dirname "$0")/../cli/cli_checks.sh"

program train --model gpt2-tiny --data "$text" --tokenizer char --seq 32 --batch 8 --steps 4 --eval-every 0 --out base \
    > stdout 2> stderr || { fail "a base to begin with" "exit status $?"; close_checks; }

tuned() # RUN OPTIONS...: a run of 6 steps from the base
{
    run=$1
    shift
    rm -rf "$run"
    program train --from base --data "$text" --seq 32 --batch 8 --micro-batch 2 --steps 6 --dropout 0 --lr 1e-2 \
        --eval-every 0 --out "$run" "$@" > stdout 2> stderr
}

losses() # RUN
{
    sed -n 's/.*"loss": *\([0-9.e+-]*\).*/\1/p' "$1/metrics.jsonl"
}

# Twice the same numbers, to 2e-5, and six of them.
alike()
{
    losses "$1" > a
    losses "$2" > b
    [ "$(wc -l < a)" -eq 6 ] && paste a b | awk '{ d = $1 - $2; if ($2 == "" || d > 2e-5 || -d > 2e-5) bad = 1 } END { exit bad }'
}

loss_of() # ARGUMENTS...
{
    program eval --data "$text" --split all --seq 32 --batches 2 --json "$@" 2> stderr | sed -n 's/.*"loss": *\([0-9.e+-]*\).*/\1/p'
}

within() # LIMIT A B
{
    awk -v l="$1" -v a="$2" -v b="$3" 'BEGIN { d = a - b; exit !(a != "" && b != "" && d <= l && -d <= l) }'
}

# ---- plans ----
for kind in 'lora|--lora 4' 'dora|--lora 3 --dora --lora-targets c_attn,c_fc,c_proj' \
    'int8|--lora 4 --base-precision int8' 'freeze|--freeze wte*,h.0.*,h.1.*,*.bias' 'ends|--freeze h.1.*,h.2.*,*_f.*'; do
    case_=${kind%%|*} options=${kind#*|}
    set -f
    tuned one --devices cpu:0 $options
    set +f
    check "$case_: one device learns" [ "$(losses one | wc -l)" -eq 6 ]
    for plan in 'two stages|--stages 2 --replicas 1 --tensor 1' 'two unequal replicas|--replicas 2 --stages 1' \
        'two tensor ranks|--tensor 2' 'state shared out|--replicas 2 --sync sharded'; do
        case $case_-$plan in dora-*replicas* | int8-*replicas* | ends-*replicas*) continue ;; esac
        devices=cpu:0.0,cpu:0.1
        [ "$plan" = "${plan#two unequal}" ] || devices=$devices@0.5
        set -f
        tuned many --devices $devices ${plan#*|} $options
        set +f
        case $case_-$plan in
        dora-*tensor*)
            check "dora: matrices whose inputs are split are refused" grep -q 'cannot split the inputs of .*DoRA' stderr ;;
        *) check "$case_: ${plan%%|*}: the same losses" alike one many ;;
        esac
    done
done

# ---- resuming ----
tuned whole --lora 4 --lora-dropout 0.1 --base-precision int8 --save-every 3
tuned halves --lora 4 --lora-dropout 0.1 --base-precision int8 --save-every 3 --steps 3 --lr-schedule constant
tuned whole --lora 4 --lora-dropout 0.1 --base-precision int8 --save-every 3 --lr-schedule constant
program train --out halves --resume --steps 6 > stdout 2> stderr
losses whole > a
losses halves > b
check "resumed: the same losses to the bit" cmp -s a b
check "resumed: the same weights to the bit" cmp -s whole/checkpoints/step-000006/params.safetensors \
    halves/checkpoints/step-000006/params.safetensors
refuses "resumed with another rank" 2 "cannot resume 'halves' with another --lora" train --out halves --resume --lora 8

# ---- folders ----
does "an adapter is exported" "adapter for gpt2-tiny" export whole -o adapter
check "an adapter is two files and the tokenizer" [ "$(ls adapter | grep -c adapter_)" -eq 2 ]
does "a run is merged" "gpt2-tiny, fp32" export whole --merge -o merged
of_run=$(loss_of --from whole)
check "merged weights have the run's loss" within 1e-5 "$(loss_of --from merged)" "$of_run"
tuned plain --lora 4
program export plain -o adapter2 > stdout 2> stderr
of_run=$(loss_of --from plain)
check "base and adapter have the run's loss" within 1e-6 "$(loss_of --from base --adapter adapter2)" "$of_run"
check "the base has another" [ "$(within 1e-6 "$(loss_of --from base)" "$of_run" && echo same)" != same ]
does "text from base and adapter" . generate --from base --adapter adapter2 --prompt "the " -n 5
tuned on --adapter adapter2
check "training goes on with an adapter" [ "$(losses on | wc -l)" -eq 6 ]

# ---- what cannot be ----
refuses "an adapter is no model" 1 "holds a LoRA adapter, not a model of its own: .*--adapter" generate --from adapter2
refuses "a pattern without a tensor" 2 "--freeze 'h.9.\\*' matches no tensor" \
    train --from base --data "$text" --out x --freeze 'h.9.*'
refuses "a target without a matrix" 2 "--lora-targets 'q_proj' matches no matrix" \
    train --from base --data "$text" --out x --lora 2 --lora-targets q_proj
refuses "everything frozen" 2 "nothing of .* is left to train" train --from base --data "$text" --out x --freeze '*'
refuses "an alpha without a rank" 2 "--lora-alpha would be ignored: it belongs to --lora" \
    train --from base --data "$text" --out x --lora-alpha 4
refuses "dropout in DoRA" 1 "DoRA is computed here without dropout" \
    train --from base --data "$text" --out x --lora 2 --dora --lora-dropout 0.1
refuses "a base that takes more" 2 "--base-precision: frozen matrices in fp32" \
    train --from base --data "$text" --out x --lora 2 --precision bf16 --base-precision fp32
refuses "adapters over adapters" 2 "was trained with adapters.*--merge" train --from plain --data "$text" --out x --lora 8
refuses "nothing to merge" 2 "has no adapters" export base --merge -o x
broken() # NAME PATTERN JSON
{
    rm -rf broken
    cp -r adapter2 broken
    printf '%s' "$3" > broken/adapter_config.json
    refuses "$1" 1 "$2" generate --from base --adapter broken
}
good='"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["c_attn"]'
broken "modules to save" "tensor 'base_model.model.lm_head.weight' is missing" "{$good, \"modules_to_save\": [\"lm_head\"]}"
broken "modules that are nowhere" "modules_to_save names 'score', which is no part" "{$good, \"modules_to_save\": [\"score\"]}"
broken "patterns of ranks" "rank_pattern is not empty" "{$good, \"rank_pattern\": {\"c_attn\": 2}}"
broken "trained biases" 'bias is "all"' "{$good, \"bias\": \"all\"}"
broken "another kind of adapter" "peft_type is IA3" '{"peft_type": "IA3"}'
broken "a key that nobody knows" '"use_new" may change' "{$good, \"use_new\": true}"
broken "half a config" "line 1" '{"peft_type": "LORA"'
broken "another rank than the tensors'" "is \(4, 64\), the model needs \(2, 64\)" \
    '{"peft_type": "LORA", "r": 2, "lora_alpha": 8, "target_modules": ["c_attn"]}'
broken "tensors of a matrix that is not named" "is missing" \
    '{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["c_attn", "c_fc"]}'
rm -f broken/adapter_model.safetensors
cp adapter2/adapter_config.json broken/
refuses "an adapter without its tensors" 1 "adapter_model.safetensors" generate --from base --adapter broken
head -c 100 adapter2/adapter_model.safetensors > broken/adapter_model.safetensors
refuses "half of its tensors" 1 "adapter_model.safetensors" generate --from base --adapter broken
close_checks
