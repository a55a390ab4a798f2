#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/lora_checkpoints.sh - checkpoints of runs that freeze: what is frozen is on the disk once a run, in its own
# precision, and every checkpoint is whole by itself all the same.
. "$(dirname "$0")/../cli/cli_checks.sh"

program train --model gpt2-tiny --data "$text" --tokenizer char --seq 32 --batch 8 --steps 4 --eval-every 0 --out base \
    > stdout 2> stderr || { fail "a base to begin with" "exit status $?"; close_checks; }

tuned() # RUN OPTIONS...
{
    run=$1
    shift
    program train --from base --data "$text" --seq 32 --batch 8 --micro-batch 2 --dropout 0 --lr 1e-2 --lr-schedule constant \
        --eval-every 0 --keep 0 --out "$run" "$@" > stdout 2> stderr
}

inode() # FILE
{
    stat -c %i "$1"
}

bytes() # FILE
{
    stat -c %s "$1"
}

# Names of the tensors of a file, from its header.
tensors() # FILE
{
    head -c 100000 "$1" | tr '{}' '\n\n' | sed -n 's/.*"\([A-Za-z0-9_.]*\)":$/\1/p' | grep -v __metadata__
}

same() # RUN RUN STEP
{
    cmp -s "$1/checkpoints/step-00000$3/params.safetensors" "$2/checkpoints/step-00000$3/params.safetensors"
}

loss_of() # ARGUMENTS...
{
    program eval --data "$text" --split all --seq 32 --batches 2 --json "$@" 2> stderr | sed -n 's/.*"loss": *\([0-9.e+-]*\).*/\1/p'
}

within() # LIMIT A B
{
    awk -v l="$1" -v a="$2" -v b="$3" 'BEGIN { d = a - b; exit !(a != "" && b != "" && d <= l && -d <= l) }'
}

# ---- what is where ----
for kind in fp32 bf16 int8; do
    rm -rf $kind
    tuned $kind --lora 4 --base-precision $kind --steps 3 --save-every 1
    one=$kind/checkpoints/step-000001 three=$kind/checkpoints/step-000003
    check "$kind: trained tensors are the adapters" [ "$(tensors $three/params.safetensors | grep -vc lora)" -eq 0 ]
    check "$kind: and all of them" [ "$(tensors $three/params.safetensors | grep -c lora)" -eq 6 ]
    check "$kind: the base lies there once" [ "$(inode $one/base.safetensors)" = "$(inode $three/base.safetensors)" ]
    eval "size_$kind=\$(bytes $three/base.safetensors)"
done
check "bf16 is smaller than fp32" [ "$size_bf16" -lt "$size_fp32" ]
check "int8 is smaller than bf16" [ "$size_int8" -lt "$size_bf16" ]
check "a manifest says its format" grep -q '"format": 3' int8/checkpoints/step-000003/manifest.json
check "one without frozen tensors says the older one" grep -q '"format": 2' base/checkpoints/step-000004/manifest.json

# ---- each is whole ----
of_run=$(loss_of --from int8)
rm -rf int8/checkpoints/step-000001 int8/checkpoints/step-000002
mv base aside
mv int8 moved
check "a run goes elsewhere, and its base with it" [ "$(loss_of --from moved)" = "$of_run" ]
cp -r moved/checkpoints/step-000003 alone
check "a copied checkpoint is a file of its own" [ "$(inode alone/base.safetensors)" != \
    "$(inode moved/checkpoints/step-000003/base.safetensors)" ]
does "an adapter is exported" "adapter for gpt2-tiny" export moved -o adapter
does "and merged" "gpt2-tiny, fp32" export moved --merge -o merged
does "text is written" . generate --from moved --prompt "the " -n 5
mv aside base

# ---- resuming ----
tuned whole --lora 4 --lora-dropout 0.1 --base-precision int8 --steps 4 --save-every 1
tuned halves --lora 4 --lora-dropout 0.1 --base-precision int8 --steps 2 --save-every 1
program train --out halves --resume --steps 4 > stdout 2> stderr
check "resumed: the same adapters to the bit" same whole halves 4
check "resumed: the same base" cmp -s whole/checkpoints/step-000004/base.safetensors \
    halves/checkpoints/step-000004/base.safetensors
check "resumed: still one file" [ "$(inode halves/checkpoints/step-000001/base.safetensors)" = \
    "$(inode halves/checkpoints/step-000004/base.safetensors)" ]

# A base that is damaged is passed over, and nothing is linked to it.
cp halves/checkpoints/step-000002/base.safetensors good
rm -rf halves/checkpoints/step-000001 halves/checkpoints/step-000003 halves/checkpoints/step-000004
cp -r halves damaged
program train --out damaged --resume --steps 3 > stdout 2> stderr
printf 'x' | dd of=damaged/checkpoints/step-000003/base.safetensors bs=1 seek=5000 conv=notrunc 2> dd
refuses "a damaged base is named" 1 "base.safetensors' is damaged" train --out damaged --resume --steps 4
rm damaged/checkpoints/step-000002/base.safetensors
cp good damaged/checkpoints/step-000002/base.safetensors
program train --out damaged --resume --steps 4 > stdout 2> stderr
check "a base that is not damaged is gone on from" grep -q "passing over checkpoint 'damaged/checkpoints/step-000003'" stderr
check "and the run ends as undisturbed" same whole damaged 4
check "a new base is as the old one" cmp -s good damaged/checkpoints/step-000004/base.safetensors
rm damaged/checkpoints/step-000004/base.safetensors
refuses "a base that is gone is named" 1 \
    "'damaged/checkpoints/step-000004/base.safetensors' is missing: the frozen weights.*copy it from one of them" \
    eval --from damaged/checkpoints/step-000004 --data "$text"

# Killed while it saves after every step, at whatever moment: it goes on to the same bits.
tuned whole40 --lora 4 --base-precision bf16 --steps 40 --save-every 1
for pause in 0.1 0.35; do
    rm -rf killed
    "$GEARTRAIN" train --from base --data "$text" --seq 32 --batch 8 --micro-batch 2 --dropout 0 --lr 1e-2 \
        --lr-schedule constant --eval-every 0 --keep 0 --out killed --lora 4 --base-precision bf16 --steps 40 --save-every 1 \
        > killed.out 2> killed.err &
    pid=$!
    tries=0
    while [ ! -e killed/checkpoints/step-000002 ] && [ $tries -lt 2400 ]; do sleep 0.05; tries=$((tries + 1)); done
    sleep $pause
    kill -9 $pid
    wait $pid 2> wait.log || true
    check "killed after $pause s: on its way" [ ! -e killed/checkpoints/step-000040 ]
    program train --out killed --resume --steps 40 > stdout 2> stderr
    check "killed after $pause s: the same adapters" cmp -s whole40/checkpoints/step-000040/params.safetensors \
        killed/checkpoints/step-000040/params.safetensors
    check "killed after $pause s: the same base" cmp -s whole40/checkpoints/step-000040/base.safetensors \
        killed/checkpoints/step-000040/base.safetensors
done

# ---- plans ----
tuned straight --lora 4 --base-precision int8 --steps 4
of_run=$(loss_of --from straight)
for plan in '--stages 2 --replicas 1 --tensor 1' '--tensor 2' '--replicas 2 --stages 1 --sync sharded'; do
    rm -rf many
    set -f
    tuned many --lora 4 --base-precision int8 --steps 2 --save-every 1 --devices cpu:0.0,cpu:0.1 $plan
    set +f
    case $plan in --replicas*) n=1 ;; *) n=2 ;; esac
    check "$plan: parts of the base" [ "$(ls many/checkpoints/step-000002 | grep -c '^base')" -ge $n ]
    file=$(cd many/checkpoints/step-000002 && ls base* | head -n 1)
    check "$plan: on the disk once" [ "$(inode "many/checkpoints/step-000001/$file")" = \
        "$(inode "many/checkpoints/step-000002/$file")" ]
    program train --out many --resume --steps 4 --devices cpu:0 > stdout 2> stderr
    check "$plan: one device goes on" [ -f many/checkpoints/step-000004/base.safetensors ]
    check "$plan: with the base of one device" within 1e-4 "$(loss_of --from many)" "$of_run"
    program export many --merge -o merged_many > stdout 2> stderr
    check "$plan: and is merged" [ -f merged_many/model.safetensors ]
    rm -rf merged_many
done
close_checks
