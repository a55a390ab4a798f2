# SPDX-License-Identifier: MIT
# tests/cli/cli_checks.sh - what shell tests of the program share; sourced, not run.
#
#   . "$(dirname "$0")/../cli/cli_checks.sh"
#   refuses "a missing file" 1 'cannot open .*No such file' train --data nothing ...
#   close_checks
#
# Leaves $geartrain (the program), $work (an empty folder, removed at the end) and, in it,
# $text, some kilobytes to train on. Programs compiled for the device are kept in $work, so
# that the first run of a test is a cold one.
set -u
: "${GEARTRAIN:=build/geartrain}"
case $GEARTRAIN in /*) ;; *) GEARTRAIN=$PWD/$GEARTRAIN ;; esac
geartrain=$GEARTRAIN
if [ ! -x "$geartrain" ]; then
    echo "there is no program '$geartrain'; name it with \$GEARTRAIN"
    exit 77
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-cli-XXXXXX") || exit 1
trap 'chmod -R u+w "$work" 2> /dev/null; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
GEARTRAIN_CACHE=$work/cache
export GEARTRAIN_CACHE
cd "$work" || exit 1
passed=0 failed=0 limit= as=

text=$work/text.txt
awk 'BEGIN {
    split("the wheel turns a gear of the train and its teeth meet another", word, " ")
    for (i = 0; i < 1500; i++) {
        x = (x * 1103515245 + 12345) % 2147483648
        printf "%s%s", word[1 + int(x / 65536) % 13], i % 11 == 10 ? ".\n" : " "
    }
}' > "$text"

# program ARGUMENTS...: the program, without options that are given again further on: it refuses
# those, and tests lay theirs over what they share. An option's value must not begin with "--".
# $limit are the seconds it may take, none if empty; with as=exec it takes the place of the shell.
program()
{
    left=$#
    while [ "$left" -gt 0 ]; do
        word=$1 again=0 i=0
        shift
        left=$((left - 1))
        case $word in --?*)
            for other do
                [ "$i" -lt "$left" ] && [ "$other" = "$word" ] && again=1
                i=$((i + 1))
            done ;;
        esac
        if [ "$again" -eq 0 ]; then
            set -- "$@" "$word"
        else
            case $1 in --*) ;; *) shift; left=$((left - 1)) ;; esac
        fi
    done
    ${as:+exec} ${limit:+timeout "$limit"} "$geartrain" "$@"
}

# A run of a second: options may follow.
train_tiny()
{
    program train --model gpt2-tiny --data "$text" --tokenizer char --seq 32 --batch 4 "$@"
}

pass()
{
    passed=$((passed + 1))
    echo "ok $1"
}

# fail NAME WHY: with what the program said last.
fail()
{
    failed=$((failed + 1))
    echo "FAILED $1: $2"
    [ ! -s "$work/stderr" ] || sed 's/^/    /' "$work/stderr" | tail -n 5
}

check()     # NAME COMMAND...: passes if the command does
{
    name=$1
    shift
    if "$@"; then pass "$name"; else fail "$name" "not so: $*"; fi
}

# said NAME CODE PATTERN STATUS: the exit status is CODE, and $work/stderr holds exactly one
# line of the program, which matches PATTERN (an extended regular expression).
said()
{
    lines=$(grep -c '^geartrain' "$work/stderr")
    if [ "$4" -ne "$2" ]; then
        fail "$1" "exit status $4, not $2"
    elif [ "$lines" -ne 1 ]; then
        fail "$1" "$lines sentences, not one"
    elif ! grep '^geartrain' "$work/stderr" | grep -Eq -- "$3"; then
        fail "$1" "the sentence does not say '$3'"
    elif grep -Eq 'ERROR:|WARNING:|Sanitizer|core dumped' "$work/stderr"; then
        fail "$1" "more was said than the sentence"
    else
        pass "$1"
    fi
}

refuses()   # NAME CODE PATTERN ARGUMENTS...
{
    name=$1 code=$2 pattern=$3
    shift 3
    limit=300
    program "$@" > "$work/stdout" 2> "$work/stderr" < /dev/null
    said "$name" "$code" "$pattern" $?
    limit=
}

does()      # NAME PATTERN ARGUMENTS...: exits 0 and prints a line that matches
{
    name=$1 pattern=$2
    shift 2
    limit=300
    program "$@" > "$work/stdout" 2> "$work/stderr" < /dev/null
    status=$?
    limit=
    if [ $status -ne 0 ]; then
        fail "$name" "exit status $status"
    elif ! grep -Eq -- "$pattern" "$work/stdout"; then
        fail "$name" "standard output does not say '$pattern'"
    else
        pass "$name"
    fi
}

close_checks()
{
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
    exit
}
