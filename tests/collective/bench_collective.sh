#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/collective/bench_collective.sh - `geartrain bench allreduce` and its like, as processes:
# every verb, type and algorithm sums right, says what it ran, and refuses what it cannot do.
. "$(dirname "$0")/../cli/cli_checks.sh"

# bench VERB OPTIONS...: its JSON lines in $work/lines
bench()
{
    "$geartrain" bench "$@" --iters 3 --warmup 1 --json > "$work/lines" 2> "$work/stderr" < /dev/null
}

# right NAME LINES PATTERN VERB OPTIONS...: so many lines, all without a wrong element and with
# PATTERN
right()
{
    name=$1 lines=$2 pattern=$3
    shift 3
    if ! bench "$@"; then
        fail "$name" "it ended with an error"
    elif [ "$(grep -c '"wrong": 0,' "$work/lines")" -ne "$lines" ] \
        || [ "$(grep -c "$pattern" "$work/lines")" -ne "$lines" ]; then
        fail "$name" "it did not print $lines right lines with '$pattern'"
        cat "$work/lines"
    else
        pass "$name"
    fi
}

for verb in allreduce reduce-scatter all-gather broadcast; do
    for type in f32 bf16 f16 i32; do
        right "$verb of $type on 3 ranks" 3 "\"type\": \"$type\"" \
            "$verb" --ranks 3 -b 4 -e 70000 -f 128 -d "$type"
    done
done
for algorithm in ring halving-doubling recursive-doubling direct tree; do
    right "allreduce by $algorithm over tcp" 2 "\"algorithm\": \"$algorithm\"" \
        allreduce --ranks 3 --transport tcp -b 1000 -e 300000 -f 300 --algorithm "$algorithm"
done
right "a root that is not the first" 1 '"bench": "broadcast"' broadcast --ranks 3 -b 4KiB -e 4KiB -r 2
right "ordinary memory" 1 '"transport": "shm"' allreduce --ranks 2 -b 1MiB -e 1MiB --plain
right "an algorithm from --net" 1 '"algorithm": "tree"' \
    allreduce --ranks 2 -b 1KiB -e 1KiB --net 'algorithm=ring;allreduce:tree'

NCCL_ALGO='ring;allreduce:tree'
export NCCL_ALGO
right "NCCL_ALGO for this collective" 1 '"algorithm": "tree"' allreduce --ranks 2 -b 1KiB -e 1KiB
right "NCCL_ALGO for another" 1 '"algorithm": "ring"' all-gather --ranks 2 -b 1KiB -e 1KiB
unset NCCL_ALGO

refuses "an unknown algorithm" 2 "no collective algorithm 'rings'" \
    bench allreduce --ranks 2 --algorithm rings
refuses "an algorithm of another collective" 2 "all-gather has no algorithm 'tree'" \
    bench all-gather --ranks 2 --algorithm allgather:tree
refuses "sizes that go down" 2 'sizes must go up' bench allreduce --ranks 2 -b 1MiB -e 1KiB
refuses "one rank" 2 'needs two ranks' bench allreduce
refuses "two verbs" 2 "one name, not 'allreduce' and 'broadcast'" bench allreduce broadcast
close_checks
