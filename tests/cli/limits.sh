#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/limits.sh - small limits of the shell (ulimit) end in a sentence: no hang, no crash, and no
# wrong number.
. "$(dirname "$0")/cli_checks.sh"

# under LIMIT VALUE COMMAND...: its output goes through a pipe, which no limit of files is for
under()
{
    limit=$1 value=$2
    shift 2
    { (ulimit "$limit" "$value" && exec timeout 240 "$geartrain" "$@" 2>&1 > stdout < /dev/null); echo $? > status; } | cat > stderr
    read -r status < status
}
tiny="train --model gpt2-tiny --data $text --tokenizer char --seq 32 --batch 4 --steps 2 --eval-every 0"
loss() { sed -n 's/^step 2  loss \([0-9.]*\) .*/\1/p' stdout; }

$geartrain $tiny --out free > stdout 2> stderr
check "without limits" [ $? -eq 0 ]
free=$(loss)

for kib in 64 512; do
    under -s $kib $tiny --out small
    said "a stack of $kib KiB" 1 'the stack may not grow beyond .*KiB here .ulimit -s.' "$status"
done
under -s 1024 $tiny --out stack
check "a stack of 1 MiB is enough" [ "$status" -eq 0 ]
check "and the result the same" [ "$(loss)" = "$free" ]
under -s 64 bench allreduce --ranks 2 -e 1K -n 2
said "no rank with a small stack" 1 'the stack may not grow' "$status"

if nm "$geartrain" 2> /dev/null | grep -q __asan_init; then
    echo "without limits of address space: the sanitizer takes terabytes"
else
    OPENBLAS_NUM_THREADS=2
    export OPENBLAS_NUM_THREADS
    for kib in 200000 400000 700000; do
        under -v $kib $tiny --out small
        said "an address space of $kib KiB" 1 'address space .ulimit -v., and its libraries need' "$status"
    done
fi

# With 14 there is no room for a driver beside the files of two ranks, and with 16 none for what ranks share.
under -n 14 $tiny --out small --devices cpu:0.0,cpu:0.1
check "few open files: it ends" [ "$status" -eq 1 ]
check "and says so" grep -Eq 'open files|Too many open files' stderr
under -n 16 $tiny --out small --devices cpu:0.0,cpu:0.1
check "some more: it ends" [ "$status" -eq 1 -o "$status" -eq 3 ]
check "and says so as well" grep -Eq 'open files|Too many open files' stderr

under -f 600 $tiny --out small
check "files of a few hundred kilobytes: it ends" [ "$status" -eq 1 ]
check "and says why" grep -q 'File too large' stderr
under -f 600 bench allreduce --ranks 2 -e 4M -n 2
check "ranks where files are small: they end" [ "$status" -eq 1 ]
check "and say what to do" grep -q 'counts as a file: raise its limit with .ulimit -f unlimited' stderr
under -f 8 tokenize "$text" --tokenizer char -o tokens
said "tokens that do not fit" 1 'cannot write .*File too large' "$status"
check "nothing is left of them" [ ! -e tokens/train-000000.bin ]
close_checks
