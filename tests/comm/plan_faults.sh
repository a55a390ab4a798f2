#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/comm/plan_faults.sh - ranks of a pipeline and of a tensor group that are killed, stopped,
# interrupted or left without room: the job ends on all ranks, by name, with the right exit code,
# and what it had saved is whole and goes on, on fewer devices as well.
# Runs alone: a rank that is late is told from one that hangs.
. "$(dirname "$0")/../cli/cli_checks.sh"
export GEARTRAIN_NET_HEARTBEAT=200ms

common="--model gpt2-tiny --data $text --tokenizer char --seq 32 --batch 8 --micro-batch 2 --eval-every 0"
pid=
trap '[ -z "$pid" ] || kill -9 $pid $(pgrep -P $pid) 2> /dev/null; umount "$work/disk" 2> /dev/null; rm -rf "$work"' EXIT

# begin RUN OPTIONS...: a long one in the background, until step 12; $pid
begin()
{
    folder=$1
    shift
    rm -f stdout stderr
    { as=exec; program train $common --out "$folder" --save-every 5 --steps 100000 "$@"; } > stdout 2> stderr < /dev/null &
    pid=$!
    tries=0
    until grep -q '^step 12 ' stdout 2> /dev/null || [ $tries -ge 2400 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
}

rank_pid()      # RANK
{
    for child in $(pgrep -P "$pid"); do
        tr '\0' '\n' < "/proc/$child/environ" 2> /dev/null | grep -qx "GEARTRAIN_RANK=$1" && echo "$child"
    done
}

# finish: the end of $pid, within four minutes; sets status, which is that of kill after it
finish()
{
    ( sleep 240; kill -9 "$pid" ) 2> /dev/null &
    timer=$!
    wait "$pid"
    status=$?
    kill "$timer" 2> /dev/null
    pid=
}

newest() { ls "$1/checkpoints" | sed -n 's/^step-0*\([0-9]*\)$/\1/p' | sort -n | tail -n 1; }

# ends_well RUN OPTIONS...: it goes on for two steps from its newest checkpoint
ends_well()
{
    folder=$1
    shift
    from=$(newest "$folder")
    timeout 300 "$geartrain" train --out "$folder" --resume --steps $((from + 2)) "$@" > stdout 2> stderr < /dev/null \
        && grep -q "^resume  after step $from " stderr && [ -z "$(find "$folder" -name '*partial*')" ]
}

two="--devices cpu:0/2"
shapes='stages:--stages 2 --replicas 1
tensor:--tensor 2
sharded:--replicas 2 --stages 1 --sync sharded
server:--replicas 2 --stages 1 --sync ps --servers 0
async:--replicas 2 --stages 1 --sync async'

# ---- killed -----------------------------------------------------------------------------------------

for victim in 0 1; do
    echo "$shapes" > shapes
    while IFS=: read -r shape options <&3; do
        run=$shape-$victim
        begin $run $two $options
        victims=$(rank_pid $victim)
        others=$(pgrep -P $pid)
        kill -9 "$victims"
        finish
        check "$shape: rank $victim killed: exit code 3" [ $status -eq 3 ]
        check "$shape: rank $victim killed: the other names it" grep -q "lost rank $victim (.*pid $victims)" stderr
        for other in $others; do
            check "$shape: rank $victim killed: nobody is left" sh -c "! kill -0 $other 2> /dev/null"
        done
        check "$shape: rank $victim killed: it goes on from its checkpoint" ends_well $run
    done 3< shapes
done
check "a pipeline goes on on one device" ends_well stages-1 --devices cpu:0 --ranks 1
check "a tensor group goes on on one device" ends_well tensor-1 --devices cpu:0 --ranks 1
check "shared out moments go on on one device" ends_well sharded-1 --devices cpu:0 --ranks 1 --sync allreduce

# ---- started again -----------------------------------------------------------------------------------

rm -f stdout stderr
"$geartrain" launch --ranks 2 --max-restarts 1 -- train $common --out again --stages 2 --replicas 1 --save-every 5 \
    --steps 300 --resume > stdout 2> stderr < /dev/null &
pid=$!
tries=0
until grep -q '^step 12 ' stdout 2> /dev/null || [ $tries -ge 2400 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
kill -9 "$(rank_pid 1)"
finish
check "launch --max-restarts goes on by itself" [ $status -eq 0 ]
check "from its checkpoint" grep -q '^resume  after step [1-9]' stderr
check "to the last step" [ "$(newest again)" -eq 300 ]

# ---- stopped -----------------------------------------------------------------------------------------

begin stopped $two --stages 2 --replicas 1 --net stall-report=1s,stall-limit=3s
stopped=$(rank_pid 1)
kill -STOP "$stopped"
finish
kill -9 "$stopped" 2> /dev/null
check "a stopped stage ends the job with exit code 3" [ $status -eq 3 ]
check "and is named" grep -q "rank 1 (.*pid $stopped)" stderr
check "its last checkpoint goes on" ends_well stopped

# ---- interrupted ---------------------------------------------------------------------------------------

begin interrupted $two --stages 2 --replicas 1
kill -INT $pid
finish
check "an interrupted pipeline ends as shells expect" [ $status -eq 130 ]
check "and says how to go on" grep -q 'stopped after step [0-9]*.*--resume goes on' stderr
at=$(sed -n 's/.*stopped after step \([0-9]*\).*/\1/p' stderr | head -n 1)
check "with a checkpoint of that step" [ "$(newest interrupted)" = "$at" ]
check "it goes on" ends_well interrupted

# ---- no room -----------------------------------------------------------------------------------------------

# full NAME RUN STATUS: one rank's sentence about writing, and the checkpoint before is whole
full()
{
    check "$1: exit code 1" [ "$3" -eq 1 ]
    check "$1: a rank says so" grep -Eq 'cannot (write|make) .*(No space left|File too large)' stderr
    check "$1: the last checkpoint is whole" timeout 240 "$geartrain" eval --from "$2" --data "$text"
}
# Files may not grow beyond a megabyte: room for what OpenCL's compiler writes, not for a rank's part.
printf '{"model_type": "gpt2", "n_layer": 3, "n_head": 4, "n_embd": 128, "n_positions": 64}' > wide.json
for shape in "--stages 2 --replicas 1" "--replicas 2 --stages 1 --sync sharded"; do
    rm -rf small
    (limit=240 as=exec; program train $common --model wide.json --out small --steps 4 --save-every 2 $two $shape) \
        > stdout 2> stderr < /dev/null
    timeout 240 "$geartrain" train --out small --resume --steps 5 > stdout 2> stderr < /dev/null     # compiles all
    (trap '' XFSZ; ulimit -f 2000; exec timeout 240 "$geartrain" train --out small --resume --steps 8) \
        > stdout 2> stderr < /dev/null
    full "files that cannot grow, $shape" small $?
    check "it goes on with room, $shape" ends_well small
done
if [ "$(id -u)" -eq 0 ] && mkdir disk && mount -t tmpfs -o size=8m tmpfs disk 2> stderr; then
    timeout 240 "$geartrain" train $common --out disk/run --steps 2 --save-every 2 $two --stages 2 --replicas 1 \
        > stdout 2> stderr < /dev/null
    head -c 9000000 /dev/zero > disk/ballast 2> /dev/null
    timeout 240 "$geartrain" train --out disk/run --resume --steps 6 > stdout 2> stderr < /dev/null
    full "a full disk" disk/run $?
    rm disk/ballast
    check "with room again it goes on" ends_well disk/run
else
    echo "cannot mount a small disk here: that part is left out"
fi
close_checks
