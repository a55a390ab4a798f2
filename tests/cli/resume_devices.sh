#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/resume_devices.sh - what is said on the command line of a resumed run wins over what the
# run began with: fewer, more and other devices, ranks, a part of the plan. The header tells what
# runs and what did before.
. "$(dirname "$0")/cli_checks.sh"

begin() { train_tiny --steps 2 --eval-every 0 --out "$@" > stdout 2> stderr < /dev/null; }
# resumes NAME RUN OPTIONS...: on a copy, to step 3; the header is in stderr
resumes()
{
    title=$1
    rm -rf run && cp -r "$2" run
    shift 2
    timeout 300 "$geartrain" train --out run --resume --steps 3 "$@" > stdout 2> stderr < /dev/null
    check "$title" [ $? -eq 0 ]
    check "$title: from the step before" grep -q '^resume  after step 2 ' stderr
}
tells() { check "$title: $1" grep -Eq "$2" stderr; }
ranks_in_plan() { grep -c '^        rank [0-9]' stderr; }

begin two --devices cpu:0.0,cpu:0.1@0.25
check "two devices" [ $? -eq 0 ]
resumes "nothing said" two
tells "the plan of before" '^        as the run began'
resumes "one device" two --devices cpu:0
tells "it is the one" '^device  cpu:0,'
tells "what was before" '^before  2 ranks on cpu:0.0, cpu:0.1@0.25; now on this one'
check "one device: no other rank runs" [ "$(ranks_in_plan)" -eq 0 ]
check "one device: one file" [ -f run/checkpoints/step-000003/params.safetensors ]
cp -r run one
resumes "as many others" two --devices cpu:0.1,cpu:0.0
tells "the first" '^        rank 0   cpu:0.1 '
tells "the second" '^        rank 1   cpu:0.0 '
tells "a new plan" '^before  2 ranks on cpu:0.0, cpu:0.1@0.25; planned anew'
resumes "one rank" two --ranks 1
tells "it takes the first device" '^device  cpu:0,'
resumes "three ranks" two --ranks 3
check "three ranks: all of them" [ "$(ranks_in_plan)" -eq 3 ]
resumes "tensor parallel" two --tensor 2
tells "a plan of that width" '^plan    2 ranks: 1 replica, tensor width 2'
tells "that it is another" '^before  another plan; planned anew'
rm -rf run && cp -r two run
timeout 300 "$geartrain" launch --ranks 1 -- train --out run --resume --steps 3 > stdout 2> stderr < /dev/null
check "a launcher with one rank" [ $? -eq 0 ]
title="a launcher with one rank"
tells "what was before" '^before  2 ranks on '

timeout 300 "$geartrain" train --out one --resume --steps 4 --devices cpu:0.0,cpu:0.1 > stdout 2> stderr < /dev/null
check "from one to two" [ $? -eq 0 ]
title="from one to two"
tells "what was before" '^before  1 rank on cpu:0; planned anew'
check "from one to two: both run" [ "$(ranks_in_plan)" -eq 2 ]
# A run of one step has no time to get ahead of its checkpoint and validation.
train_tiny --steps 1 --eval-every 1 --out short > stdout 2> stderr < /dev/null
check "one step is saved" [ -f short/checkpoints/step-000001/params.safetensors ]
check "and validated" grep -q '"val_loss": [0-9]' short/metrics.jsonl
refuses "two devices for one rank" 2 'names 2 devices, --ranks asks for 1' train --out new --model gpt2-tiny \
    --data "$text" --tokenizer char --devices cpu:0.0,cpu:0.1 --ranks 1
close_checks
