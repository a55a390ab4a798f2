#!/bin/sh
# tests/cli/replicas.sh - train on several devices: the curve of one, in the same bits each time,
# shared out by speed, resumed, interrupted, killed and started again.
set -u
: "${GEARTRAIN:?}" "${TMPDIR:=/tmp}"
work=$(mktemp -d "$TMPDIR/replicas-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
passed=0 failed=0

check()         # TEXT CONDITION...
{
    what=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        echo "ok $what"
    else
        failed=$((failed + 1))
        echo "FAILED $what"
        tail -n 8 err 2> /dev/null | sed 's/^/    /'
    fi
}

i=0
while [ $i -lt 4000 ]; do
    echo "the wheel $i of the train turns $((i * 7 % 13)) times and then $((i * i % 97)) more"
    i=$((i + 1))
done > text.txt
common="--model gpt2-tiny --data text.txt --tokenizer char --batch 8 --micro-batch 1 --seq 32
        --eval-every 10 --save-every 10 --dropout 0.1 --lr 1e-3 --warmup 4"

# train RUN OPTIONS...
train()
{
    run=$1
    shift
    timeout 300 "$GEARTRAIN" train $common --out "$run" "$@" > out 2> err
}

losses() { sed -n 's/.*"loss": *\([0-9.]*\).*/\1/p' "$1/metrics.jsonl"; }

# near A B: as many steps, and losses within 1e-5 of each other
near()
{
    losses "$1" > a; losses "$2" > b
    [ -s a ] && [ "$(wc -l < a)" = "$(wc -l < b)" ] && paste a b | awk '
        { d = $1 - $2; if (d < 0) d = -d; if (d > 1e-5 * $1) bad = 1 } END { exit bad }'
}

same_weights()
{
    cmp -s "$1/checkpoints/step-000020/$3" "$2/checkpoints/step-000020/$3"
}

train one --steps 20
check "one device trains" [ $? -eq 0 ]
train two --steps 20 --devices cpu:0/2
check "two equal ones train" [ $? -eq 0 ]
check "and follow the same curve" near one two
check "rank 0 says who takes what" grep -q '^ranks   2 replicas share 8 micro-batches' err
train again --steps 20 --devices cpu:0/2
# What they were given may differ by a micro-batch from run to run; with the same plan all bits agree.
cp two/plan.json plan.kept
check "plan.json names devices and shares" grep -q '"micro_batches": 8' plan.kept

for transport in shm tcp; do
    train over-$transport --steps 20 --devices cpu:0/2 --transport $transport
    check "over $transport it is the same curve" near one over-$transport
done

train unequal --steps 20 --devices cpu:0.0/2,cpu:0.1/2@0.25
check "unequal devices train" [ $? -eq 0 ]
check "and follow the same curve" near one unequal
fast=$(sed -n 's/.*"micro_batches": \([0-9]*\),$/\1/p' unequal/plan.json | sed -n 2p)
slow=$(sed -n 's/.*"micro_batches": \([0-9]*\),$/\1/p' unequal/plan.json | sed -n 3p)
check "the slow one takes fewer micro-batches ($fast and $slow)" [ "${slow:-9}" -lt "${fast:-0}" ]

train three --steps 20 --ranks 3 --precision bf16
check "three ranks find devices by themselves" [ $? -eq 0 ]

# ---- resuming ------------------------------------------------------------------------------

train whole --steps 20 --devices cpu:0/2
train halves --steps 10 --devices cpu:0/2 --lr-schedule constant
cp -r whole resumed
rm -rf resumed/checkpoints/step-000020
timeout 300 "$GEARTRAIN" train --out resumed --resume > out 2> err
check "a run resumes on as many ranks, with its plan" [ $? -eq 0 ]
for file in $(cd whole/checkpoints/step-000020 && ls ./*.safetensors); do
    check "and ends with the same bits in $file" same_weights whole resumed "$file"
done
cp -r whole alone
rm -rf alone/checkpoints/step-000020
timeout 300 "$GEARTRAIN" train --out alone --resume --devices cpu:0 --ranks 1 > out 2> err
check "it resumes on one device as well" [ $? -eq 0 ]
check "and follows the same curve" near whole alone

# ---- ends ----------------------------------------------------------------------------------

children() { pgrep -P "$1"; }

# finish: the end of $job, or two minutes; sets status
finish()
{
    ( sleep 120; kill -9 "$job" ) 2> /dev/null &
    timer=$!
    wait "$job"
    status=$?
    kill "$timer" 2> /dev/null
}

# begin RUN: a long one in the background, after its first steps
begin()
{
    rm -f out err
    "$GEARTRAIN" train $common --out "$1" --steps 100000 --devices cpu:0/2 > out 2> err &
    job=$!
    tries=0
    until grep -q '^step 12 ' out 2> /dev/null || [ $tries -ge 600 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
}

begin killed
kill -9 "$(children $job | tail -n 1)"
finish
check "a killed rank ends the job with exit code 3" [ $status -eq 3 ]
check "which names it" grep -q 'lost rank 1\|rank 1 .*killed' err
check "its last checkpoint is whole" [ -d killed/checkpoints/step-000010 ]
begin stopped
kill -INT $job
finish
check "an interrupted job fails" [ $status -ne 0 ]
check "says so once it has a checkpoint" grep -q 'stopped after step .*--resume goes on' err
"$GEARTRAIN" train $common --out no --steps 5 --batch 1 --devices cpu:0/2 > out 2> err
check "fewer micro-batches than replicas are refused" grep -q 'cannot be shared by 2 replicas' err
"$GEARTRAIN" train $common --out no2 --steps 5 --devices cpu:0/2 --ranks 3 > out 2> err
check "ranks and devices must agree" [ $? -eq 2 ]

if command -v mpirun > /dev/null; then
    root=
    [ "$(id -u)" -ne 0 ] || root=--allow-run-as-root
    timeout 300 mpirun $root --oversubscribe -n 2 "$GEARTRAIN" train $common --out mpi --steps 20 > out 2> err
    check "mpirun starts replicas" [ $? -eq 0 ]
    check "which follow the same curve" near one mpi
fi
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
