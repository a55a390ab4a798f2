#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/reshard.sh - a checkpoint that several ranks wrote is as good as one that one wrote: to
# eval, generate and export, and to a run that goes on from it, which ends with the same bits.
. "$(dirname "$0")/cli_checks.sh"
: "${BUILD:=$(dirname "$geartrain")}"
reshard=$BUILD/tests/train/reshard
if [ ! -x "$reshard" ]; then
    echo "there is no program '$reshard'; build it first"
    exit 77
fi

newest=checkpoints/step-000006

# look RUN: what the verbs make of it, in $1.eval, $1.text and $1.hf/
look()
{
    "$geartrain" eval --from "$1" --data "$text" > "$1.eval" 2> stderr \
        && "$geartrain" generate --from "$1" --prompt 'the wheel' --tokens 40 --seed 3 > "$1.text" 2> stderr \
        && "$geartrain" export "$1" -o "$1.hf" > stdout 2> stderr
}

same_looks()    # RUN RUN
{
    grep -o 'loss [0-9.]*' "$1.eval" > a && grep -o 'loss [0-9.]*' "$2.eval" > b && cmp a b \
        && cmp "$1.text" "$2.text" && cmp "$1.hf/model.safetensors" "$2.hf/model.safetensors"
}

goes_on()       # RUN
{
    "$geartrain" train --out "$1" --resume --steps 9 > stdout 2> stderr
}

same_end()      # RUN RUN
{
    cmp "$1/checkpoints/step-000009/params.safetensors" "$2/checkpoints/step-000009/params.safetensors" \
        && cmp "$1/checkpoints/step-000009/optimizer.safetensors" \
               "$2/checkpoints/step-000009/optimizer.safetensors"
}

tokens=128      # 4 sequences of 32: train_tiny
train_tiny --steps 6 --save-every 3 --dropout 0.1 --out one > stdout 2> stderr
check "a run" [ $? -eq 0 ]
cp -r one before
check "and what it is good for" look one
check "it goes on" goes_on one

for cut in "3 1" "1 2" "2 2"; do
    run=cut-$(echo "$cut" | tr ' ' -)
    cp -r before "$run"
    "$reshard" "$run" $cut $tokens 2> stderr
    check "$cut: ranks write its checkpoint again" [ $? -eq 0 ]
    check "$cut: in several files" [ "$(ls $run/$newest/params-*.safetensors | wc -l)" -gt 1 ]
    check "$cut: the verbs take it" look "$run"
    check "$cut: and see no difference" same_looks one "$run"
    cp -r "$run" "$run-back"
    check "$cut: the run goes on" goes_on "$run"
    check "$cut: to the same bits" same_end one "$run"
    "$reshard" "$run-back" 1 1 $tokens 2> stderr
    check "$cut: one rank writes it back" [ $? -eq 0 ]
    for file in params optimizer; do
        check "$cut: and $file is what it was" \
            cmp "before/$newest/$file.safetensors" "$run-back/$newest/$file.safetensors"
    done
done

"$reshard" cut-3-1 1 2 $tokens 2> stderr
rm cut-3-1/checkpoints/step-000009/params-00001.safetensors
"$geartrain" eval --from cut-3-1 --data "$text" > stdout 2> stderr
check "a file that is lost is noticed" grep -q "passing over checkpoint .*step-000009" stderr
check "and the checkpoint before it taken" grep -q 'loss [0-9.]*' stdout
close_checks
