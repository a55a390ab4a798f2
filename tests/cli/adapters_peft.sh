#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/adapters_peft.sh - adapters trained here and by Hugging Face's PEFT, from the same base and the same
# first adapter: the same losses over 20 steps, and each reads what the other wrote. ${GT_PYTHON:-python3} has to have
# torch, transformers and peft.
script=$(cd "$(dirname "$0")" && pwd)/adapters.py
. "$(dirname "$0")/../cli/cli_checks.sh"
python=${GT_PYTHON:-python3}
if ! "$python" -c 'import torch, transformers, peft' 2> /dev/null; then
    echo "skipped: no Python packages torch, transformers and peft in '$python' (\$GT_PYTHON names another)"
    exit 77
fi

other() # ARGUMENTS...: the other side, quietly
{
    "$python" "$script" "$@" 2> "$work/python.log" || { tail -n 3 "$work/python.log"; return 1; }
}

# within LIMIT A B: |A - B| <= LIMIT
within()
{
    awk -v l="$1" -v a="$2" -v b="$3" 'BEGIN { d = a - b; exit !(a != "" && b != "" && d <= l && -d <= l) }'
}

same_losses() # FOLDER LIMIT
{
    sed -n 's/.*"loss": *\([0-9.e+-]*\).*/\1/p' "$1/run/metrics.jsonl" > "$1/ours"
    [ "$(wc -l < "$1/ours")" -eq 20 ] || return 1
    paste "$1/ours" "$1/losses" | awk -v l="$2" '{ d = $1 - $2; if (d > l || -d > l) bad = 1 } END { exit bad }'
}

loss_of() # ARGUMENTS...
{
    program eval --data "$text" --tokenizer byte --split all --batch 8 --batches 1 --seq 32 --json "$@" < /dev/null 2> "$work/stderr" \
        | sed -n 's/.*"loss": *\([0-9.e+-]*\).*/\1/p'
}

other begin "$work" "$text" || { fail "PEFT trains" "it fails"; close_checks; }
for case in gpt2-lora gpt2-dora llama-all bert-lora; do
    folder=$work/$case
    set -- --from "$folder/base" --adapter "$folder/first" --data "$text" --out "$folder/run" --seq 32 --batch 4 \
        --steps 20 --order sequential --lr 1e-2 --lr-schedule constant --clip 0 --weight-decay 0.1 --dropout 0 --eval-every 0
    case $case in bert-*) set -- "$@" --task mlm ;; *) set -- "$@" --tokenizer byte ;; esac
    program train "$@" > "$work/stdout" 2> "$work/stderr"
    [ "$case" = bert-lora ] || check "$case: PEFT's losses over 20 steps" same_losses "$folder" 1e-3
    program export "$folder/run" -o "$folder/mine" > /dev/null 2> "$work/stderr"
    program export "$folder/run" --merge -o "$folder/merged" > /dev/null 2> "$work/stderr"
done
other compare "$work" "$text" > "$work/compared" || fail "PEFT reads what was written here" "it fails"
while read -r case base adapted merged apart; do
    folder=$work/$case
    check "$case: merged weights give the adapter's logits" within 1e-4 "$apart" 0
    check "$case: adapters make a difference" [ "$(within 1e-4 "$base" "$adapted" && echo same)" != same ]
    [ "$case" != bert-lora ] || continue
    check "$case: PEFT reads the adapter: its loss" within 1e-5 "$adapted" "$(loss_of --from "$folder/run")"
    check "$case: merged weights have the adapter's loss here" within 1e-5 "$(loss_of --from "$folder/merged")" \
        "$(loss_of --from "$folder/base" --adapter "$folder/mine")"
    check "$case: PEFT's own adapter is read" within 1e-3 "$(loss_of --from "$folder/base" --adapter "$folder/last")" "$adapted"
done < "$work/compared"
check "all cases were compared" [ "$(wc -l < "$work/compared")" -eq 4 ]
close_checks
