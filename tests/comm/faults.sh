#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/comm/faults.sh - what a job of real processes does when a rank is killed, stopped or
# disturbed: it ends on all ranks, by name, with exit code 3, and never hangs.
# Runs alone: a rank that is late is told from one that hangs.
set -u
: "${GEARTRAIN:?}" "${TMPDIR:=/tmp}"
work=$(mktemp -d "$TMPDIR/faults-XXXXXX") || exit 1
job=
trap '[ -z "$job" ] || kill -9 $job $(pgrep -P "$job") 2> /dev/null; rm -rf "$work"' EXIT
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
        sed 's/^/    /' "$work/err" | tail -n 12
    fi
}

says() { grep -q "$1" "$work/err"; }

# begin RANKS TRANSPORT KNOBS: ranks 0 and 1 talk for a minute, others wait for them; "board": all ranks
# sum through shared memory for as long.
begin()
{
    rm -f "$work/out" "$work/err" "$work"/flight-*
    if [ "$2" = board ]; then
        set -- "$1" shm "$3" allreduce -b 64KiB -e 1MiB -n 1000000 --check 0
    else
        set -- "$1" "$2" "$3" link --test bw -s 100KB -D 60s
    fi
    ranks=$1 over=$2 knobs=$3
    shift 3
    "$GEARTRAIN" bench "$@" --ranks "$ranks" --transport "$over" --net "$knobs" > "$work/out" 2> "$work/err" &
    job=$!
    tries=0
    until [ -s "$work/out" ] || [ $tries -ge 200 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    sleep 0.5
}

# pid RANK
pid()
{
    for child in $(pgrep -P "$job"); do
        tr '\0' '\n' < "/proc/$child/environ" 2> /dev/null | grep -qx "GEARTRAIN_RANK=$1" \
            && echo "$child"
    done
}

# Waits for the end, at most $1 seconds; sets status and seconds.
finish()
{
    start=$(date +%s.%N)
    ( sleep "$1"; kill -9 "$job" ) 2> /dev/null &
    timer=$!
    wait "$job"
    status=$?
    kill "$timer" 2> /dev/null
    seconds=$(awk "BEGIN { printf \"%.2f\", $(date +%s.%N) - $start }")
}

for transport in shm board tcp; do
    for victim in 0 1 2; do
        begin 3 $transport heartbeat=200ms
        kill -9 "$(pid $victim)"
        finish 15
        check "$transport: rank $victim killed: exit code 3 (in $seconds s)" [ $status -eq 3 ]
        check "$transport: rank $victim killed: the others name it" says "rank $victim (.*)"
        check "$transport: rank $victim killed: no rank is left" [ -z "$(pgrep -P "$job")" ]
    done
    begin 2 $transport "heartbeat=200ms,stall-report=1s,stall-limit=3s,dump=$work"
    stopped=$(pid 1)
    kill -STOP "$stopped"
    finish 30
    kill -9 "$stopped" 2> /dev/null
    check "$transport: rank 1 stopped: exit code 3 (in $seconds s, limit 3 s)" [ $status -eq 3 ]
    check "$transport: rank 1 stopped: it is named" says "rank 1 (.*)"
    check "$transport: rank 0 leaves a flight record" grep -q '"waits_for"' "$work/flight-rank-0.json"
done
begin 3 tcp heartbeat=200ms
kill -USR2 "$(pid 0)"
sleep 1
check "SIGUSR2 prints the flight record" says '"why": "SIGUSR2"'
check "and the job goes on" kill -0 "$job"
port=$(ss -ltnpH 2> /dev/null | sed -n "s/.*:\([0-9]*\) .*pid=$(pid 0),.*/\1/p" | head -n 1)
if [ -n "$port" ] && command -v python3 > /dev/null; then
    python3 - "$port" <<'END'
import os, socket, sys
for i in range(100):                    # garbage, silence, half a line
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    s.settimeout(0.01)
    try:
        if i % 3:
            s.sendall(os.urandom(1 + i * 37 % 4000))
    except OSError:
        pass
    if i % 2:
        s.close()
END
    check "garbage on the port disturbs nobody" kill -0 "$job"
    check "and nobody says a word about a lost rank" sh -c "! grep -qi 'lost\|closed' '$work/err'"
fi
kill -TERM "$job"
finish 20
check "SIGTERM ends all ranks" [ -z "$(pgrep -P "$job")" ]
job=
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
