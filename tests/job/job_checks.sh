# SPDX-License-Identifier: MIT
# tests/job/job_checks.sh - what shell tests of jobs share, on top of tests/cli/cli_checks.sh;
# sourced, not run. Leaves $rank, a program that joins and works (job_rank.c).
. "$(dirname "$0")/../cli/cli_checks.sh"
: "${BUILD:=$(dirname "$geartrain")}"
rank=$BUILD/tests/job/job_rank
if [ ! -x "$rank" ]; then
    echo "there is no program '$rank'; build it first"
    exit 77
fi
GEARTRAIN_NET_SECRET_FILE=$work/secret
export GEARTRAIN_NET_SECRET_FILE

# await SECONDS COMMAND...: until the command succeeds, or the time is over.
await()
{
    tries=$(($1 * 20))
    shift
    while ! "$@" 2> /dev/null; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.05
    done
}

gone()      # PID
{
    ! kill -0 "$1" 2> /dev/null
}

# same_sentence FILE PART: every rank of the job ended with one and the same sentence, which
# holds PART.
same_sentence()
{
    sed -n 's/^.*job_rank: //p' "$1" | sort -u > sentences
    [ "$(wc -l < sentences)" -eq 1 ] && grep -q "$2" sentences
}

# ended NAME CODE PATTERN STATUS: the exit status is CODE, and the launcher's one sentence in
# $work/stderr matches PATTERN; ranks may have said more.
ended()
{
    if [ "$4" -ne "$2" ]; then
        fail "$1" "exit status $4, not $2"
    elif [ "$(grep -c '^geartrain launch: ' "$work/stderr")" -ne 1 ]; then
        fail "$1" "the launcher did not say one sentence"
    elif ! grep '^geartrain launch: ' "$work/stderr" | grep -Eq -- "$3"; then
        fail "$1" "the sentence does not say '$3'"
    elif grep -Eq 'Sanitizer|core dumped' "$work/stderr"; then
        fail "$1" "more was said than the sentence"
    else
        pass "$1"
    fi
}
