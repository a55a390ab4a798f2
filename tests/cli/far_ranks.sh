#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/far_ranks.sh - ranks that are far apart have several sums under way at once, near ones one after the other;
# the numbers are the same.
. "$(dirname "$0")/../cli/cli_checks.sh"

if ! "$geartrain" devices | grep -q 'cpu:0'; then
    echo "no CPU device to divide"
    exit 77
fi
tiny="--model gpt2-tiny --data $text --tokenizer byte --seq 32 --batch 4 --micro-batch 2 --steps 3 --eval-every 0 --save-every 0"
two="--devices cpu:0/2 --replicas 2 --stages 1"

# overlaps.py FILE: how many sums of a rank began before another had ended.
cat > overlaps.py << 'END'
import json, sys
spans = {}
for e in json.load(open(sys.argv[1]))["traceEvents"]:
    if e["name"] == "sum of gradients":
        spans.setdefault(e["pid"], []).append((e["ts"], e["ts"] + e["dur"]))
count = 0
for of_rank in spans.values():
    of_rank.sort()
    end = 0
    for begin, until in of_rank:
        count += begin < end - 1
        end = max(end, until)
print(count, "of", sum(map(len, spans.values())))
END
losses() { sed -n 's/.*"loss": \([^,]*\),.*"grad_norm": \([^,]*\),.*/\1 \2/p' "$1/metrics.jsonl"; }
run()           # OUT OPTIONS...
{
    out=$1
    shift
    rm -rf "$out" && "$geartrain" train $tiny $two --out "$out" --trace "$out.json" "$@" > stdout 2> stderr < /dev/null
}

for how in "--compress topk:0.1" "--compress powersgd:2" "--sync sharded" "--compress int8 --sync ps"; do
    run near --transport shm $how
    check "$how, near: a run" [ $? -eq 0 ]
    run far --transport tcp --net fault=delay=5ms $how
    check "$how, far: a run" [ $? -eq 0 ]
    losses near > a
    losses far > b
    check "$how: the same losses and norms, bit for bit" [ "$(wc -l < a)" = 3 ] && cmp a b
    near=$(python3 overlaps.py near.json) far=$(python3 overlaps.py far.json)
    echo "      $how: sums beside another: near $near, far $far"
    check "$how, far: several at once" [ "${far%% *}" -gt 0 ]
    case $how in *powersgd*) ;; *)      # a span has both of its rounds, between which others have theirs
        check "$how, near: one after the other" [ "${near%% *}" -eq 0 ] ;;
    esac
done
close_checks
