#!/bin/sh
# tests/cli/trace.sh - train --trace: one picture of all ranks that viewers can read, with what the
# devices computed, what was on the wire and what was waited for.
. "$(dirname "$0")/cli_checks.sh"
if ! command -v python3 > /dev/null; then
    echo "there is no python3 to read a trace with"
    exit 77
fi

# Events in order within each row: none before 0, and two either apart or one within the other.
cat > reader.py <<'END'
import json, sys
from collections import defaultdict
trace = json.load(open(sys.argv[1]))
ranks, need = int(sys.argv[2]), sys.argv[3:]
rows, processes, names = defaultdict(list), {}, {}
for e in trace["traceEvents"]:
    if e["ph"] == "X":
        rows[e["pid"], e["tid"]].append((round(e["ts"] * 1000), -round(e["dur"] * 1000), e))
    elif e["name"] == "process_name":
        processes[e["pid"]] = e["args"]["name"]
    elif e["name"] == "thread_name":
        names[e["pid"], e["tid"]] = e["args"]["name"]
assert sorted(processes) == list(range(ranks)), processes
for rank, name in processes.items():
    assert name.startswith("rank %d cpu:0" % rank), name
for row, events in rows.items():
    assert row in names, row
    open_ends = []
    for begin, minus, event in sorted(events, key=lambda x: x[:2]):
        end = begin - minus
        assert begin >= 0 and end >= begin, event
        while open_ends and open_ends[-1] <= begin:
            open_ends.pop()
        assert not open_ends or end <= open_ends[-1], (names[row], event)
        open_ends.append(end)
for rank in range(ranks):
    for wanted in need:
        category, part = wanted.split(":", 1)
        assert any(row[0] == rank and e[2]["cat"] == category and part in e[2]["name"]
                   for row, events in rows.items() for e in events), (rank, wanted)
assert trace["otherData"]["spans lost"] == "0"
END

# picture TITLE RANKS NEEDS -- OPTIONS...
picture()
{
    title=$1 ranks=$2 needs=
    shift 2
    while [ "$1" != -- ]; do
        needs="$needs $1"
        shift
    done
    shift
    rm -rf run trace.json
    train_tiny --steps 3 --out run --trace trace.json "$@" > stdout 2> stderr
    check "$title: a traced run" [ $? -eq 0 ]
    python3 reader.py trace.json "$ranks" $needs > stderr 2>&1
    check "$title: everything is in its row" [ $? -eq 0 ]
}

picture "one device" 1 kernel:h.0.attn kernel:optimizer copy:write copy:read host:save -- --devices cpu:0
picture "replicas" 2 kernel:h.1.mlp wire:all-reduce wire:rank wait: host:save \
    -- --devices cpu:0/2 --replicas 2 --stages 1 --micro-batch 2
picture "stages" 2 kernel:h. wire:rank wait: copy: host:save \
    -- --devices cpu:0/2 --stages 2 --micro-batch 2
train_tiny --steps 3 --out plain > stdout 2> stderr
train_tiny --steps 3 --out traced --trace trace.json > stdout 2> stderr
check "tracing changes no bit" cmp plain/checkpoints/step-000003/params.safetensors \
    traced/checkpoints/step-000003/params.safetensors
refuses "a trace that cannot be written" 1 "/proc/nowhere.json" train --model gpt2-tiny --data "$text" \
    --tokenizer char --seq 32 --batch 4 --steps 2 --out refused --trace /proc/nowhere.json
close_checks
