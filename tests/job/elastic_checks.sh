# SPDX-License-Identifier: MIT
# tests/job/elastic_checks.sh - what shell tests of elastic jobs share, on top of tests/cli/cli_checks.sh; sourced,
# not run. start() trains with $words.

rows() { cat "$1/metrics.jsonl" 2> /dev/null | wc -l; }
losses() { sed -n 's/.*"step": \([0-9]*\),.*"loss": \([^,]*\),.*/\1 \2/p' "$1/metrics.jsonl"; }
until_rows()    # RUN N JOB: until it has so many rows, or the job is over
{
    until [ "$(rows "$1")" -ge "$2" ] || ! kill -0 "$3" 2> /dev/null; do sleep 0.01; done
}
place()         # JOB N: the process in the N-th place, from 1, of those that are there
{
    pgrep -P "$1" | sed -n "$2p"
}
now() { date +%s%N; }
print_pause()   # RUN JOB SINCE: how long until there is another step
{
    had=$(rows "$1")
    until_rows "$1" $((had + 3)) "$2"
    echo "      going on after $((($(now) - $3) / 1000000)) ms"
}
each_once()     # RUN N
{
    losses "$1" | cut -d ' ' -f 1 > a && seq 1 "$2" > b && cmp a b
}
# start RUN STEPS OPTIONS... -- WORDS...: in the background, $job
start()
{
    run=$1 steps=$2 launch=
    shift 2
    while [ "$1" != -- ]; do launch="$launch $1"; shift; done
    shift
    timeout 240 "$geartrain" launch $launch -- $words --steps "$steps" --out "$run" "$@" > stdout 2> stderr < /dev/null &
    outer=$!
    until job=$(pgrep -P $outer) && [ -n "$job" ] || ! kill -0 $outer 2> /dev/null; do sleep 0.01; done
}

# ---- samples: GT_LOG=warn,train:debug says which rank trains on which -----------------------------------

# steps FILE: "STEP FIRST LAST" of each step, by the ranks that did it last, their ranges put together; a gap or an
# overlap between them shows as a line of its own.
steps()
{
    sed -n 's/.*formation \([0-9]*\) rank [0-9]* of [0-9]*: step \([0-9]*\) trains on samples \([0-9]*\) to \([0-9]*\)$/\2 \1 \3 \4/p' \
        "$1" | sort -k1,1n -k2,2nr -k3,3n | awk '
        $1 != step { if (step) print step, first, last; step = $1; formation = $2; first = $3; last = $4; next }
        $2 != formation { next }
        $3 != last + 1 { print step, first, last; first = $3 }
        { last = $4 }
        END { if (step) print step, first, last }'
}

# await_line PATTERN JOB: until stderr has such a line, or the job is over.
await_line()
{
    until grep -q "$1" stderr || ! kill -0 "$2" 2> /dev/null; do sleep 0.02; done
}
