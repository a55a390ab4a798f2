#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/fault/resume.sh - a run that is killed again and again ends where one that was left
# alone ends, bit for bit; and a damaged checkpoint costs some steps, never the run.
. "$(dirname "$0")/../cli/cli_checks.sh"

# Weights as large as these overflow fp16 at its first loss scales.
printf '{"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 64, "initializer_range": 0.99}' \
    > wild.json

STEPS=60
run()       # FOLDER OPTIONS...
{
    start "$@"
    wait $pid
}

# The same in the background, and $pid is the program itself.
start()
{
    folder=$1
    shift
    { as=exec; program train --out "$folder" --model gpt2-tiny --data "$text" --tokenizer char --seq 32 \
        --batch 4 --micro-batch 2 --steps $STEPS --dropout 0.1 --save-every 5 --eval-every 20 "$@"; } \
        > "$work/stdout" 2> "$work/stderr" < /dev/null &
    pid=$!
}

# What a step computed, without how fast it was.
losses()
{
    sed 's/"tokens_per_s".*"bubble": [^,}]*//' "$1/metrics.jsonl"
}

same()      # FOLDER FOLDER
{
    last=checkpoints/step-$(printf %06d $STEPS)
    for file in params optimizer; do
        cmp "$1/$last/$file.safetensors" "$2/$last/$file.safetensors" || return
    done
    losses "$1" > "$work/a" && losses "$2" > "$work/b" && cmp "$work/a" "$work/b" \
        && [ "$(wc -l < "$work/a")" -eq $STEPS ]
}

# Kills the run at odd moments: of twelve kills every other waits for a checkpoint to be in
# the making, after a number of steps that differs, the rest fall where they fall, into the
# start as well. Then lets it end.
survive()   # FOLDER OPTIONS...
{
    kills=0 writing=0 delay=0
    while [ $kills -lt 12 ]; do
        delay=$(((delay + 37) % 95 + 5))
        start "$@" --resume --save-every 1
        if [ $((kills % 2)) -eq 0 ]; then
            seen=0
            while [ $seen -lt $((kills / 2 + 1)) ] && kill -0 $pid 2> /dev/null; do
                for entry in "$1"/checkpoints/.partial-*; do
                    [ ! -e "$entry" ] || seen=$((seen + 1))
                done
            done
        else
            sleep "$(printf '0.%02d' $delay)"
        fi
        kill -9 $pid 2> /dev/null || { wait $pid; break; }
        wait $pid 2> /dev/null
        kills=$((kills + 1))
        for entry in "$1"/checkpoints/.partial-*; do
            [ ! -e "$entry" ] || writing=$((writing + 1))
        done
    done
    echo "    killed $kills times, $writing of them while a checkpoint was being written"
    run "$@" --resume
}

for precision in fp32 fp16; do
    model=gpt2-tiny
    [ $precision = fp32 ] || model=wild.json
    run whole-$precision --precision $precision --model $model
    check "$precision: a run ends" [ $? -eq 0 ]
    run again-$precision --precision $precision --model $model
    check "$precision: the same run again is the same bit for bit" \
        same whole-$precision again-$precision
    survive killed-$precision --precision $precision --model $model
    check "$precision: killed and resumed, it ends" [ $? -eq 0 ]
    check "$precision: and has the weights, moments and losses of the other" \
        same whole-$precision killed-$precision
    check "$precision: nothing half-written is left" \
        [ -z "$(find killed-$precision -name '*.partial*')" ]
done

# ---- asked to stop -------------------------------------------------------------------------

STEPS=3000
start busy --save-every 0
until [ -s busy/metrics.jsonl ] || ! kill -0 $pid 2> /dev/null; do
    sleep 0.05
done
"$geartrain" train --out busy --resume > "$work/stdout" 2> "$work/stderr"
said "two processes do not train in one folder" 2 "another process is training in 'busy'" $?
kill -9 $pid
wait $pid 2> /dev/null
run busy --resume --steps 2
check "a killed one leaves no lock" [ $? -eq 0 ]

for number in 2 15; do
    signal=$(kill -l $number)
    STEPS=3000
    start stopped-$signal --save-every 0
    tries=0
    until [ "$(cat stopped-$signal/metrics.jsonl 2> /dev/null | wc -l)" -gt 3 ] \
          || [ $tries -gt 2400 ]; do
        sleep 0.05
        tries=$((tries + 1))
    done
    kill -$signal $pid
    wait $pid
    said "SIG$signal ends the run with a sentence" $((128 + number)) 'stopped after step [0-9]+ of 3000.*--resume' $?
    done=$(sed -n 's/.*stopped after step \([0-9]*\) .*/\1/p' "$work/stderr")
    check "a checkpoint of that step is there" \
        [ -f "stopped-$signal/checkpoints/step-$(printf %06d "${done:-0}")/manifest.json" ]
    run stopped-$signal --resume --steps $((${done:-0} + 2))
    check "and the run goes on from it" grep -q "resume  after step $done" "$work/stderr"
done
STEPS=60

# ---- damaged checkpoints -------------------------------------------------------------------

# The bytes of a file, but for one.
flip()
{
    python3 - "$1" <<'END' 2> /dev/null || printf X | dd of="$1" bs=1 seek=5000 conv=notrunc 2> /dev/null
import sys
data = bytearray(open(sys.argv[1], "rb").read())
data[len(data) // 2] ^= 1
open(sys.argv[1], "wb").write(data)
END
}

newest=checkpoints/step-000060
for damage in flip-params flip-optimizer truncate-params no-optimizer no-manifest empty-manifest; do
    rm -rf damaged && cp -r whole-fp32 damaged
    case $damage in
    flip-params)     flip damaged/$newest/params.safetensors ;;
    flip-optimizer)  flip damaged/$newest/optimizer.safetensors ;;
    truncate-params) truncate -s 1000 damaged/$newest/params.safetensors ;;
    no-optimizer)    rm damaged/$newest/optimizer.safetensors ;;
    no-manifest)     rm damaged/$newest/manifest.json ;;
    empty-manifest)  : > damaged/$newest/manifest.json ;;
    esac
    run damaged --resume
    check "$damage: the run goes on from the checkpoint before" \
        grep -q 'resume  after step 55' "$work/stderr"
    check "$damage: with one warning that names the damaged one" \
        [ "$(grep -c "passing over checkpoint 'damaged/$newest'" "$work/stderr")" -eq 1 ]
    check "$damage: and ends as it should have" same whole-fp32 damaged
done

rm -rf damaged && cp -r whole-fp32 damaged
flip damaged/$newest/params.safetensors
"$geartrain" eval --from damaged --data "$text" > "$work/stdout" 2> "$work/stderr"
check "eval takes the checkpoint before a damaged one" [ $? -eq 0 ]

# The newest is damaged, and the run is stopped before it gets there again: what is kept must
# be whole.
rm -rf damaged && cp -r whole-fp32 damaged
flip damaged/$newest/params.safetensors
run damaged --resume --steps 57 --keep 1
check "a damaged later checkpoint does not push out the whole one" \
    [ -f damaged/checkpoints/step-000057/params.safetensors ]

# Nothing may be lost of a run whose checkpoints are all damaged, or gone.
sums()
{
    (cd "$1" && find . -type f | sort | xargs cksum)
}
rm -rf damaged && cp -r whole-fp32 damaged
for folder in damaged/checkpoints/step-*; do
    flip "$folder/params.safetensors"
done
sums damaged > before
run damaged --resume
said "a run whose checkpoints are all damaged is refused" 1 \
    "no whole checkpoint in 'damaged/checkpoints'.*the newest: '.*/step-000060/params.safetensors' is damaged.*--from.*--out" $?
sums damaged > after
check "and nothing of it is changed" cmp before after
run damaged --resume --devices cpu:0/2
said_by_ranks=$?
check "two ranks refuse it as well" [ "$said_by_ranks" -eq 1 ]
sums damaged > after
check "and change nothing either" cmp before after

rm -rf damaged && cp -r whole-fp32 damaged
rm -rf damaged/checkpoints/*
sums damaged > before
run damaged --resume --save-every 500
said "a run whose checkpoints are gone is refused" 1 \
    "no checkpoint in 'damaged/checkpoints', but metrics.jsonl has 60 steps, and one was written after step 5;" $?
sums damaged > after
check "and nothing of it is changed" cmp before after

# Killed before its first checkpoint, which may have been in the making.
for rows in 1 5; do
    rm -rf damaged && cp -r whole-fp32 damaged
    rm -rf damaged/checkpoints damaged/loss.svg
    head -n $rows whole-fp32/metrics.jsonl > damaged/metrics.jsonl
    run damaged --resume
    check "killed after step $rows of 5 to the first checkpoint, it begins again and says so" \
        grep -q '^resume  no checkpoint was written yet: begins again at step 1' "$work/stderr"
    check "and ends the same" same whole-fp32 damaged
done
run fresh --resume --steps 2
check "--resume of a run that is not there says that it begins" \
    grep -q "^resume  there is no run in 'fresh' yet: it begins" "$work/stderr"

# ---- numbers that are none ------------------------------------------------------------------

rm -rf diverged
train_tiny --out diverged --steps 200 --lr 1e6 --lr-schedule constant --clip 0 --save-every 1 \
    > "$work/stdout" 2> "$work/stderr"
said "a loss that is not finite stops the run" 1 \
    'step [0-9]+: .*not finite; first bad: .*; (the last good checkpoint is|there is no checkpoint)' $?
count=$(wc -l < diverged/metrics.jsonl)
check "the bad step is not recorded" \
    [ "$(grep -Ec '"(loss|grad_norm)": null' diverged/metrics.jsonl)" -eq 0 ]
if [ "$count" -gt 0 ]; then
    "$geartrain" export diverged -o diverged-export > "$work/stdout" 2> "$work/stderr"
    check "the last good weights are kept, and finite" [ $? -eq 0 ]
fi

check "fp16: steps that overflow are marked as skipped" \
    grep -q '"loss_scale": .*"skipped": true' whole-fp16/metrics.jsonl
check "fp16: and the loss scale sinks" \
    [ "$(sed -n 's/.*"loss_scale": \([0-9]*\).*/\1/p' whole-fp16/metrics.jsonl | tail -n 1)" -lt 65536 ]

close_checks
