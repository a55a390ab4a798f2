#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/compress.sh - gradients in fewer bytes between ranks: what is sent, what a checkpoint holds of it, and
# what has no meaning is said.
. "$(dirname "$0")/../cli/cli_checks.sh"

if ! "$geartrain" devices | grep -q 'cpu:0'; then
    echo "no CPU device to divide"
    exit 77
fi
tiny="--model gpt2-tiny --data $text --tokenizer byte --seq 32 --batch 4 --steps 4 --eval-every 0 --save-every 2"
two="--devices cpu:0/2 --replicas 2 --stages 1"

# sent FILE: megabytes of the last step, as the run told them.
sent()
{
    sed -n 's/.*sent \([0-9.]*\) \([kMG]\)B.*/\1 \2/p' "$1" | tail -n 1 \
        | awk '{ print $1 * ($2 == "G" ? 1000 : $2 == "k" ? 0.001 : 1) }'
}
loss()  # RUN
{
    sed -n 's/.*"loss": \([0-9.]*\).*/\1/p' "$1/metrics.jsonl" | tail -n 1
}

does "gradients in fp32" 'sent' train $tiny $two --out whole
cp stdout whole.txt
does "gradients in bf16" 'sent' train $tiny $two --out half --compress bf16
cp stdout half.txt
check "take half the bytes" awk -v a="$(sent whole.txt)" -v b="$(sent half.txt)" \
    'BEGIN { exit !(a > 0 && b / a > 0.45 && b / a < 0.55) }'
check "and come to nearly the same loss" awk -v a="$(loss whole)" -v b="$(loss half)" \
    'BEGIN { d = a - b; exit !(a > 0 && d < 0.01 && d > -0.01) }'
check "each rank keeps what rounding took" test -f half/checkpoints/step-000004/residuals-00001.safetensors
check "as without compression none does" test ! -f whole/checkpoints/step-000004/residuals-00001.safetensors
check "the run remembers it" grep -q '"compress": "bf16"' half/config.json

does "a run goes on with it" 'step 6 ' train --out half --resume --steps 6
check "and keeps it still" test -f half/checkpoints/step-000006/residuals-00000.safetensors
does "or without" 'step 8 ' train --out half --resume --steps 8 --compress none
check "which is said" grep -q 'residuals, which this run does not keep' stderr
check "and they are gone" test ! -f half/checkpoints/step-000008/residuals-00000.safetensors

does "one rank has nobody to send to" 'step 4 ' train $tiny --devices cpu:0 --out alone --compress bf16
check "and is told so" grep -q 'there is one rank, so --compress does nothing' stderr

# Every form under every plan: replicas that are alike and unlike, stages that share a table, tensor ranks, shared
# state, 16 bits, adapters.
close_to()  # RUN RUN: the loss of the last step
{
    awk -v a="$(loss "$1")" -v b="$(loss "$2")" 'BEGIN { d = a - b; exit !(a > 0 && d < 0.15 && d > -0.15) }'
}
three="--devices cpu:0.0/2,cpu:0.1/2,cpu:0 --replicas 2"
four="--devices cpu:0.0,cpu:0.1,cpu:0.0,cpu:0.1 --replicas 2 --tensor 2"
n=0
while IFS='|' read -r form plan; do
    n=$((n + 1))
    does "$form with $plan" 'step 4 ' train $tiny $plan --out form$n --compress $form
    check "says what travels" grep -q "form    of gradients between ranks: ${form%%,*}" stderr
    check "comes near the same loss" close_to form$n whole
    check "keeps what was left out" test -f form$n/checkpoints/step-000004/residuals-00001.safetensors
done << END
fp16|$two --precision bf16
int8|$two --precision fp16 --sync sharded
topk:0.05,ramp=1|$three
topk:0.05,ramp=1,clip=1,sample=0.1|$four
randomk:0.1|--devices cpu:0/2 --replicas 1 --stages 2
powersgd:2,rate=1|$four
onebit|$three --compress-after 2
onebit|$two --precision fp16 --compress-after 3
zeroone:1|$four
zeroone:1,freeze=3|$two --precision bf16
zeroone:1,freeze=2,local=2|$three --beta2 0.5
zeroone:1,freeze=2,local=2|$four --beta2 0.5
zeroone:1,freeze=2,local=2|$two --precision bf16 --beta2 0.5
END
check "factors are kept, of rows that a tensor rank holds apart" sh -c \
    "cat form6/checkpoints/step-000004/factors-*.safetensors | grep -q 'factor2.*weight\\.[0-9]*-[0-9]*'"
does "another plan goes on with them" 'step 6 ' train --out form6 --resume --steps 6 --devices cpu:0/2 --replicas 2 --stages 1
check "and has factors of whole tensors" sh -c \
    "! grep -q 'factor2.*weight\\.[0-9]*-[0-9]*' form6/checkpoints/step-000006/factors-00000.safetensors"
does "one rank has them no longer" 'step 8 ' train --out form6 --resume --steps 8 --devices cpu:0
does "adapters" 'step 4 ' train $tiny $two --out lora --lora 4 --compress powersgd:1,rate=0,min=1
does "adapters that are all too small" 'step 4 ' train $tiny $two --out small --lora 4 --compress powersgd:4
check "is said" grep -q 'powersgd:4; it compresses nothing, for of what ranks share no tensor is large enough' stderr
does "signs of adapters' momentum" 'step 4 ' train $tiny $two --out lorasigns --lora 4 --compress onebit --compress-after 2
check "have no smallest one" grep -q "signs of AdamW's momentum (1-bit Adam)\$" stderr
does "stages that share the table alone" 'step 6 ' train --out form3 --resume --steps 6 --devices cpu:0/2 --replicas 1 \
    --stages 2
check "leave out what is owed to the rest, and say so" grep -q \
    "holds what compression held back of gradients that no rank keeps in this plan: 'residual.* and others; left out" stderr
does "momentum before the choice" 'step 4 ' train $tiny $two --out deep --compress topk:0.05,momentum=0.9 \
    --compress-after 1 --optimizer sgd --momentum 0
check "how much of the gradients that is of is said" grep -q 'form .*when they have grown; [0-9.]* % of what they share' stderr
check "which is kept as well" grep -q 'velocity\.' deep/checkpoints/step-000004/residuals-00000.safetensors
check "and remembered, with when it begins" grep -q '"compress-after": "1"' deep/config.json
check "the first step has all bytes, the others few" sh -c 'grep "^step" stdout | awk "{ print \$(NF - 1), \$NF }" |
    awk "{ x[NR] = \$1 * (\$2 == \"MB\" ? 1000 : 1) } END { exit !(x[1] > 5 * x[2] && x[2] > 0 && x[2] == x[4]) }"'

# Momentum in place of gradients.
onebit="$tiny $two --compress onebit --compress-after 2"
does "AdamW's momentum as signs" 'step 4 ' train $onebit --out signs
check "the first steps have all bytes, the others a thirtieth" sh -c 'grep "^step" stdout |
    awk "{ x[NR] = \$(NF - 1) * (\$NF == \"MB\" ? 1000 : 1) } END { exit !(x[2] > 20 * x[3] && x[3] > 0) }"'
does "a run goes on without" 'step 6 ' train --out signs --resume --steps 6 --compress none
does "one rank goes on with them" 'step 8 ' train --out signs --resume --steps 8 --devices cpu:0 --compress onebit
check "and is told that nothing travels" grep -q 'there is one rank, so --compress does nothing' stderr

# Steps apart: what they put together is sent once a round, and where they meet the run saves; whatever the replicas
# are made of, going on changes no bit.
apart="--model gpt2-tiny --data $text --tokenizer byte --seq 32 --batch 4 --steps 14 --eval-every 0 --save-every 5 \
    --beta2 0.5 --keep 9 --gemm tiled $three"
does "steps apart" 'step 14 ' train $apart --out apart --compress zeroone:1,freeze=2,local=4
check "send nothing between replicas until they meet" sh -c 'grep "^step" stdout | awk "{ x[NR] = \$(NF - 1) * (\$NF == \"MB\" ? 1000 : \$NF == \"kB\" ? 1 : 0.001) }
    END { exit !(x[2] > 20 * (x[6] - x[5]) && x[6] > x[5] && x[5] == x[3] && x[6] == x[10] && x[10] == x[14]) }"'
check "and save there" test -d apart/checkpoints/step-000006 -a -d apart/checkpoints/step-000010
cp -R apart again
rm -rf again/checkpoints/step-000014 again/checkpoints/step-000010
does "a run goes on after a round" 'step 14 ' train --out again --resume
same_weights()  # RUN RUN STEP
{
    for shard in "$1/checkpoints/step-$3"/*.safetensors; do
        cmp -s "$shard" "$2/checkpoints/step-$3/${shard##*/}" || return 1
    done
}
check "with the bits of one that never stopped" same_weights apart again 000014
does "longer rounds by and by" 'step 14 ' train $apart --out longer --compress zeroone:1,freeze=2,local=4,double=4
check "begin as single steps" test -d longer/checkpoints/step-000005
does "without steps apart" 'step 14 ' train $apart --out single --compress zeroone:1,freeze=2
# By the same plan: one that is measured anew may give a replica other micro-batches.
sed 's/"compress": "[^"]*"/"compress": "zeroone:1,freeze=2,local=1,double=3"/' single/plan.json > one.json
does "rounds of one step" 'step 14 ' train ${apart% --replicas 2} --out one --plan one.json
check "are those, to the bit" same_weights single one 000014

refuses "replicas apart that scale losses each by itself" 2 'each would skip and scale its own; use bf16 or fp32' \
    train $tiny $two --out other --compress zeroone:1,freeze=20,local=2 --precision fp16
refuses "variances that have not settled" 2 'needs freeze=N of 20 or more' \
    train $tiny $two --out other --compress zeroone:1,freeze=19,local=2
refuses "variances of one gradient" 2 'freeze=1 of --compress zeroone holds the variances of one gradient' \
    train $tiny $two --out other --compress zeroone:1,freeze=1
refuses "steps apart of momentum that no rank has all of" 2 'leaves a part of it to each; use --sync allreduce' \
    train $tiny $two --out other --compress zeroone:1,freeze=20,local=2 --sync sharded
refuses "steps apart of replicas apart" 2 '--sync local sends what it sends as it is; leave out --compress zeroone' \
    train $tiny $two --out other --compress zeroone:1,freeze=20,local=2 --sync local
refuses "signs of variances that nobody has found" 2 '--compress onebit needs --compress-after N' \
    train $tiny $two --out other --compress onebit
refuses "momentum that is another rule's" 2 \
    '--compress zeroone sends the momentum of --optimizer adamw, and this run has lion' \
    train $tiny $two --out other --compress zeroone --optimizer lion
refuses "momentum that no rank has all of" 2 '--compress zeroone needs all of the momentum on every rank' \
    train $tiny $two --out other --compress zeroone --sync sharded
refuses "the same of servers" 2 'and --sync ps leaves a part of it to each; use --sync allreduce' \
    train $tiny $two --out other --compress zeroone --sync ps
refuses "a form that is none" 2 "'fp4' is not one of none[|]bf16" train $tiny $two --out other --compress fp4
refuses "a share that is not given" 2 "'topk' needs its FRACTION" train $tiny $two --out other --compress topk
refuses "a share of nothing" 2 "FRACTION of 'topk': '0' is no number from" train $tiny $two --out other --compress topk:0
refuses "a rank that is no whole number" 2 "RANK of 'powersgd': '2.5' is no whole number from 1 to 256" \
    train $tiny $two --out other --compress powersgd:2.5
refuses "a sample of more than a tenth" 2 "sample of 'topk': '0.5' is no number from 0 to 0.1" \
    train $tiny $two --out other --compress topk:0.1,sample=0.5
refuses "a number that it does not take" 2 "'int8' takes no 'momentum=0.9'; it takes NAME=NUMBER of min" \
    train $tiny $two --out other --compress int8,momentum=0.9
refuses "a parameter where there is none" 2 "'bf16' takes nothing behind ':'" \
    train $tiny $two --out other --compress bf16:3
refuses "momentum twice" 2 'goes with --optimizer sgd --momentum 0 alone' \
    train $tiny $two --out other --compress topk:0.1,momentum=0.9
refuses "a warm-up of nothing" 2 'option --compress-after: --compress none compresses nothing' \
    train $tiny $two --out other --compress-after 3
close_checks
