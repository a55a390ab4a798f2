#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/compress_auto.sh - a compressor for each link: what was chosen is said, kept in the plan, the same when the run
# goes on, and to the bit what the compressor of that name does; and forms that a plan says.
. "$(dirname "$0")/../cli/cli_checks.sh"

if ! "$geartrain" devices | grep -q 'cpu:0'; then
    echo "no CPU device to divide"
    exit 77
fi
tiny="--model gpt2-tiny --data $text --tokenizer byte --seq 32 --batch 4 --micro-batch 1 --steps 4 --warmup 1
      --lr 0.003 --eval-every 0 --save-every 2"
two="--devices cpu:0/2"

# A plan of two replicas by hand, which needs no measuring; EXTRA: other members.
plan()  # NAME EXTRA
{
    cat > "$1.json" << END
{ "format": "geartrain plan 1", "batch": 4, "units": 5, "tensor": 1, "chunks": 1, "recompute": false,
  "schedule": "1f1b", "sync": "allreduce", $2 "ranks": [ {}, {} ],
  "replicas": [ { "micro_batches": 2, "micro_batch": 1, "cut": [0, 5], "stages": [[0]] },
                { "micro_batches": 2, "micro_batch": 1, "cut": [0, 5], "stages": [[1]] } ] }
END
}
weights()  # RUN: and the optimizer's state, and what compression held back
{
    find "$1/checkpoints/step-000004" -name '*.safetensors' | sort | xargs cat | cksum | grep -v ' 0$'
}
chosen()  # RUN: the first link's form
{
    tr -d '\n ' < "$1/plan.json" | sed -n 's/.*"links":\[{"ranks":\[0,1\],"form":"\([^"]*\)"}\].*/\1/p'
}

plan plain ''
does "a link is chosen for" 'step 4 ' train $tiny $two --plan plain.json --compress auto --out auto
cp stderr auto.err
check "what and why is said in a line" grep -Eq \
    '^link    ranks 0 1: (none|bf16|int8), [0-9.e+-]+ ms a step( instead of [0-9.e+-]+ \(network .*, device .*\))?; ' auto.err
form=$(sed -n 's/^link    ranks 0 1: \([a-z0-9]*\),.*/\1/p' auto.err)
check "with what the others would take" [ "$(sed -n 's/^link.*; //p' auto.err | tr ',' '\n' | grep -c '[0-9]')" -ge 1 ]
check "the plan has it" [ -n "$form" -a "$(chosen auto)" = "$form" ]
check "and that it was asked for" grep -q '"compress": "auto"' auto/plan.json auto/config.json
does "the named compressor" 'step 4 ' train $tiny $two --plan plain.json --compress "$form" --out named
check "does the same to the bit" [ -n "$(weights auto)" -a "$(weights auto)" = "$(weights named)" ]
cp -r auto again && rm -r again/checkpoints/step-000004
does "the run goes on" 'step 4 ' train --out again --resume
check "with the same" grep -q "^link    ranks 0 1: $form, as the run began" stderr
check "to the bit" [ "$(weights again)" = "$(weights auto)" ]

# What a plan says was chosen is taken, whatever links are like now.
plan told '"compress": "auto", "links": [ { "ranks": [0, 1], "form": "int8,min=16" } ],'
does "a plan says what was chosen" 'step 4 ' train $tiny $two --plan told.json --out told
check "and the run says that" grep -q "^link    ranks 0 1: int8,min=16, as the run began" stderr
check "and the plan's line" grep -q "^plan .*, gradients auto" stderr
does "int8 by name" 'step 4 ' train $tiny $two --plan plain.json --compress int8,min=16 --out int8
check "is the same to the bit" [ -n "$(weights told)" -a "$(weights told)" = "$(weights int8)" ]
cp -r told told-again && rm -r told-again/checkpoints/step-000004
does "it goes on" 'step 4 ' train --out told-again --resume
check "to the bit, with what was held back" [ "$(weights told-again)" = "$(weights told)" ]

# A compressor by name in a plan, and one that contradicts it.
plan bf16 '"compress": "bf16", "compress_stages": "none",'
does "a plan says a compressor" 'step 4 ' train $tiny $two --plan bf16.json --out bf16
check "which is shown" grep -q "^form    of gradients between ranks: bf16" stderr
check "and kept" grep -q '"compress": "bf16"' bf16/plan.json bf16/config.json
refuses "another one" 2 "contradicts the plan 'bf16.json', which has bf16" train $tiny $two --plan bf16.json \
    --compress int8 --out other
plan bad '"compress": "zip",'
refuses "one that is none" 1 "plan 'bad.json': 'compress': 'zip' is not one of" train $tiny $two --plan bad.json --out other
plan bad '"links": [ { "ranks": [0], "form": "bf16" } ],'
refuses "a link of one rank" 1 "'ranks' is not a list of 2 to 2 ranks" train $tiny $two --plan bad.json --out other

# Links of their own for the two stages of two replicas, and for the table that all share.
four="--devices cpu:0.0/2,cpu:0.1/2,cpu:0.0/2,cpu:0.1/2"
cat > four.json << END
{ "format": "geartrain plan 1", "batch": 4, "units": 5, "tensor": 1, "chunks": 1, "recompute": false,
  "schedule": "1f1b", "sync": "sharded", "compress": "auto", "compress_stages": "int8",
  "links": [ { "ranks": [0, 2], "form": "int8" }, { "ranks": [1, 3], "form": "none" },
             { "ranks": [0, 1, 2, 3], "form": "bf16" } ],
  "ranks": [ {}, {}, {}, {} ],
  "replicas": [ { "micro_batches": 2, "micro_batch": 1, "cut": [0, 2, 5], "stages": [[0], [1]] },
                { "micro_batches": 2, "micro_batch": 1, "cut": [0, 2, 5], "stages": [[2], [3]] } ] }
END
does "links differ" 'step 4 ' train $tiny $four --plan four.json --out four
cp stderr four.err
check "each in a line" [ "$(grep -c '^link .*, as the run began' four.err)" -eq 3 ]
check "and what stages send" grep -q "^plan .*, sync sharded, gradients auto, between stages int8" four.err
cp -r four four-again && rm -r four-again/checkpoints/step-000004
does "the run of links goes on" 'step 4 ' train --out four-again --resume
check "as it was" [ "$(grep -c '^link .*, as the run began' stderr)" -eq 3 ]
check "to the bit" [ -n "$(weights four)" -a "$(weights four)" = "$(weights four-again)" ]
sed '/"links"/,/"bf16"/d' four.json > open.json
does "none of them known" 'step 4 ' train $tiny $four --plan open.json --out open
check "all are chosen" [ "$(grep -c '^link    ranks .* ms a step' stderr)" -eq 3 ]

refuses "a mode that compresses nothing" 2 "sends what it sends as it is; leave out --compress auto" train $tiny $two \
    --sync local --compress auto --out other
refuses "what is no compressor" 2 "option --compress: 'zip' is not one of" train $tiny --compress auto:zip --out other
refuses "momentum beside the optimizer's" 2 "goes with --optimizer sgd" train $tiny $two \
    --compress auto:topk:0.1,momentum=0.9 --out other
does "one rank has nothing to compress" 'step 4 ' train $tiny --compress auto --out alone
check "and says so" grep -q "there is one rank, so --compress does nothing" stderr
close_checks
