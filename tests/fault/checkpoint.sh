#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/fault/checkpoint.sh - ranks that save together are killed, one at a time and at odd
# moments: whatever is called a checkpoint is whole, and the next job goes on from it, under
# another plan. And a rank whose disk is full: all ranks say so, and nothing is left behind.
. "$(dirname "$0")/../cli/cli_checks.sh"
: "${BUILD:=$(dirname "$geartrain")}"
rank=$BUILD/tests/fault/save_rank
if [ ! -x "$rank" ]; then
    echo "there is no program '$rank'; build it first"
    exit 77
fi
export GEARTRAIN_NET_HEARTBEAT=200ms

newest()    # of run/, or 0
{
    ls run/checkpoints 2> /dev/null | sed -n 's/^step-0*\([1-9][0-9]*\)$/\1/p' | sort -n | tail -n 1 \
        | grep . || echo 0
}

saved_more()    # than $before, by some steps
{
    [ "$(newest)" -gt $((before + 2)) ]
}

await()     # COMMAND...: until it succeeds, or the job is over, or a minute has passed
{
    tries=0
    until "$@" 2> /dev/null; do
        tries=$((tries + 1))
        [ $tries -lt 1200 ] && kill -0 $job 2> /dev/null || return 1
        sleep 0.05
    done
}

all_whole()
{
    for folder in run/checkpoints/step-*; do
        step=${folder##*-}
        said=$("$rank" "$folder" 2> stderr) && [ "$said" = "step $(echo "$step" | sed 's/^0*//')" ] \
            || { echo "    $folder: $said"; return 1; }
    done
}

"$rank" nothing > stdout 2> stderr
check "a run without a checkpoint is none" [ $? -eq 1 ]

round=0 writing=0
for plan in "1 3 1" "1 1 3" "3 1 1" "1 3 1" "1 1 3" "1 3 1"; do
    victim=$((round % 3))
    before=$(newest)
    rm -f say.*
    "$geartrain" launch --ranks 3 -- "$rank" run $plan 1000000 say > stdout 2> stderr < /dev/null &
    job=$!
    await saved_more
    check "plan $plan: goes on from step $before" [ $? -eq 0 ]
    # A different moment each time: of a save that was seen to begin, or any.
    if [ $((round % 2)) -eq 0 ]; then
        seen=0
        until [ $seen -gt $round ] || ! kill -0 $job 2> /dev/null; do
            for entry in run/checkpoints/.partial-*; do
                [ ! -e "$entry" ] || seen=$((seen + 1))
            done
        done
    else
        sleep 0.0$((round * 17 % 9 + 1))
    fi
    kill -9 "$(cat say.$victim)"
    wait $job
    check "plan $plan: without rank $victim the job ends" [ $? -eq 3 ]
    check "plan $plan: by name" grep -q "lost rank $victim " stderr
    for entry in run/checkpoints/.partial-*; do
        [ ! -e "$entry" ] || writing=$((writing + 1))
    done
    check "plan $plan: every checkpoint is whole" all_whole
    round=$((round + 1))
done
echo "    $writing of $round were killed while they wrote a checkpoint"

last=$(($(newest) + 2))
"$geartrain" launch --ranks 2 -- "$rank" run 1 1 2 $last > stdout 2> stderr < /dev/null
check "two ranks end what three began" [ $? -eq 0 ]
check "at its last step" [ "$("$rank" run)" = "step $last" ]
check "nothing half-written is left" [ -z "$(find run -name '*.partial*')" ]

# ---- one rank without room ----------------------------------------------------------------------

if ! command -v prlimit > /dev/null; then
    echo "there is no prlimit here: that part is left out"
    close_checks
    exit
fi
before=$last
rm -f say.*
"$geartrain" launch --ranks 3 -- sh -c 'trap "" XFSZ; exec "$@"' sh \
    "$rank" run 1 3 1 1000000 say > stdout 2> stderr < /dev/null &
job=$!
await saved_more
prlimit --pid "$(cat say.1)" --fsize=2048
wait $job
check "a rank without room for its file fails them all" [ $? -eq 1 ]
grep -o 'rank [0-9] ([^)]*): cannot write .*File too large' stderr | sort -u > sentences
check "with one sentence, that of the rank" \
    [ "$(wc -l < sentences)$(grep -c '^rank 1 ' sentences)" = 11 ]
check "which all of them say" [ "$(grep -c 'save_rank: rank 1 .*File too large' stderr)" -eq 3 ]
check "nothing half-written is left behind" [ -z "$(find run -name '*.partial*')" ]
check "the checkpoints before it are whole" all_whole

close_checks
