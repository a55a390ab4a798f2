#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/bench_sizes.sh - sizes of the network's benches mean what they mean in nccl-tests and
# perftest, whose options these are: K, M and G are powers of 1024.
. "$(dirname "$0")/cli_checks.sh"

sizes()     # the sizes that the last `does` measured, joined by commas
{
    sed -n 's/.*"bytes": \([0-9]*\),.*/\1/p' stdout | tr '\n' ,
}
does "a sweep up to 1M" '"bytes": 1048576,' bench allreduce --ranks 2 -b 64K -e 1M -n 1 -w 1 --json
check "by fours from 64K" [ "$(sizes)" = 65536,262144,1048576, ]
does "a sweep of kilobytes" '"bytes": 1000,' bench broadcast --ranks 2 -b 1kB -e 4K -f 2 -n 1 -w 1 --json
check "ends below what is too large" [ "$(sizes)" = 1000,2000,4000, ]
does "a factor that overshoots" '"bytes": 1024,' bench all-gather --ranks 2 -b 1K -e 3K -f 4 -n 1 -w 1 --json
check "measures nothing larger than was asked for" [ "$(sizes)" = 1024, ]
does "one message of 64K" '"bytes": 65536,' bench link --ranks 2 -s 64K -n 10 --test lat --json
does "defaults are printed as they are read" '--max-bytes .*\[64MiB\]' bench allreduce -h
refuses "a sweep that goes down" 2 'sizes must go up' bench allreduce --ranks 2 -b 2M -e 1MB
close_checks
