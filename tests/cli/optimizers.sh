#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/optimizers.sh - every rule trains, goes on where it stopped with the same bits, and means the same
# on one rank, on replicas, on stages, and with its state shared out; what it cannot do is
# refused before training.
. "$(dirname "$0")/cli_checks.sh"

tiny="--model gpt2-tiny --data $text --tokenizer char --seq 32 --batch 4 --eval-every 0 --lr-schedule constant"

# trains RUN OPTIONS...
trains()
{
    out=$1
    shift
    timeout 300 "$geartrain" train $tiny --out "$out" "$@" > stdout 2> stderr < /dev/null
}
loss_of() { sed -n "s/.*\"step\": *$2,.*\"loss\": *\([0-9.]*\).*/\1/p" "$1/metrics.jsonl" | tail -n 1; }
falls()     # RUN LAST
{
    awk -v a="$(loss_of "$1" 1)" -v b="$(loss_of "$1" "$2")" 'BEGIN { exit !(a > 0 && b > 0 && b < a - 0.1) }'
}
same_curve()    # RUN RUN STEP...
{
    one=$1 other=$2
    shift 2
    for step in "$@"; do
        awk -v a="$(loss_of "$one" "$step")" -v b="$(loss_of "$other" "$step")" \
            'BEGIN { d = a - b; exit !(a > 0 && d < 2e-3 && d > -2e-3) }' || return 1
    done
}
same_files()    # RUN RUN STEP
{
    cmp "$1/checkpoints/step-$3/params.safetensors" "$2/checkpoints/step-$3/params.safetensors" \
        && cmp "$1/checkpoints/step-$3/optimizer.safetensors" "$2/checkpoints/step-$3/optimizer.safetensors"
}

for rule in adamw sgd lion muon adafactor; do
    case $rule in sgd) lr=0.1 ;; lion) lr=1e-3 ;; *) lr=3e-3 ;; esac
    trains $rule --optimizer $rule --lr $lr --steps 12
    check "$rule trains" [ $? -eq 0 ]
    check "$rule: the loss falls" falls $rule 12
    check "$rule: config.json names it" grep -q "\"optimizer\": \"$rule\"" $rule/config.json
    trains $rule-again --optimizer $rule --lr $lr --steps 5
    timeout 300 "$geartrain" train --out $rule-again --resume --steps 12 > stdout 2> stderr < /dev/null
    check "$rule goes on" [ $? -eq 0 ]
    check "$rule: to the same bits" same_files $rule $rule-again 000012
done
check "a rule's settings are in config.json" grep -q '"decay-rate": "0.8"' adafactor/config.json
check "and those of others are not" grep -q '"beta1": ""' adafactor/config.json

for rule in lion muon adafactor; do
    case $rule in lion) lr=1e-3 ;; *) lr=3e-3 ;; esac
    for plan in "replicas --replicas 2 --stages 1" "stages --stages 2 --replicas 1" \
                "sharded --replicas 2 --stages 1 --sync sharded"; do
        run=$rule-${plan%% *}
        trains $run --optimizer $rule --lr $lr --steps 6 --devices cpu:0.0,cpu:0.1 ${plan#* }
        check "$run: trains" [ $? -eq 0 ]
        check "$run: as one rank does" same_curve $rule $run 1 2 3 4 5 6
    done
    cp -r $rule-sharded $rule-whole
    timeout 300 "$geartrain" train --out $rule-whole --resume --steps 8 --devices cpu:0 > stdout 2> stderr < /dev/null
    check "$rule: from shared-out state on one rank" [ $? -eq 0 ]
    timeout 300 "$geartrain" train --out $rule-sharded --resume --steps 8 > stdout 2> stderr < /dev/null
    check "$rule: and on its own ranks" [ $? -eq 0 ]
    check "$rule: to the same loss" same_curve $rule-whole $rule-sharded 7 8
done

for precision in fp16; do
    for rule in muon adafactor; do
        trains $rule-$precision --optimizer $rule --lr 1e-3 --steps 8 --precision $precision
        check "$rule in $precision: the loss falls" falls $rule-$precision 8
    done
done

refuses "another rule" 1 "cannot resume 'adamw' with --optimizer lion: it was begun with adamw" \
    train --out adamw --resume --optimizer lion --steps 20
refuses "an unknown rule" 2 "'adam' is not one of adamw|sgd|lion|muon|adafactor" train $tiny --out new --optimizer adam
for rule in muon adafactor; do
    trains $rule-tensor --optimizer $rule --lr 3e-3 --steps 6 --devices cpu:0.0,cpu:0.1 --tensor 2
    check "$rule-tensor: trains" [ $? -eq 0 ]
    check "$rule-tensor: as one rank does" same_curve $rule $rule-tensor 1 2 3 4 5 6
    trains $rule-both --optimizer $rule --lr 3e-3 --steps 6 --devices cpu:0.0,cpu:0.1 --tensor 2 --sync sharded
    check "$rule-both: and with state shared out" same_curve $rule $rule-both 1 2 3 4 5 6
    cp -r $rule-tensor $rule-untensor
    timeout 300 "$geartrain" train --out $rule-untensor --resume --steps 8 --devices cpu:0 --tensor 1 \
        > stdout 2> stderr < /dev/null
    check "$rule: from slices on one rank" [ $? -eq 0 ]
    timeout 300 "$geartrain" train --out $rule-tensor --resume --steps 8 > stdout 2> stderr < /dev/null
    check "$rule: and on its own ranks" [ $? -eq 0 ]
    check "$rule: to the same loss" same_curve $rule-untensor $rule-tensor 7 8
done
check "no run is left" [ ! -e new ]
close_checks
