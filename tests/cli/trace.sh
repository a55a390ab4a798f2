#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/trace.sh - train --trace: one picture of all ranks that viewers can read, with what the
# devices computed, what was on the wire and what was waited for.
. "$(dirname "$0")/cli_checks.sh"
if ! command -v python3 > /dev/null; then
    echo "there is no python3 to read a trace with"
    exit 77
fi

# Events in order within each row: none before 0, and two either apart or one within the other. Both ends
# of an arrow are bound to a slice of a rank each, and it leads forward in time. Every program lies
# within its step; its micro-batches are those of the run.
cat > reader.py <<'END'
import json, sys
from collections import defaultdict
trace = json.load(open(sys.argv[1]))
ranks, need = int(sys.argv[2]), sys.argv[3:]
rows, processes, names, flows, counters, last = defaultdict(list), {}, {}, defaultdict(dict), defaultdict(list), {}
for e in trace["traceEvents"]:
    assert e["ph"] in "XMsfC", e
    if e["ph"] in "sf":
        assert e["ph"] not in flows[e["id"]], e
        flows[e["id"]][e["ph"]] = e
        continue
    if e["ph"] == "C":
        counters[e["pid"], e["name"]].append((e["ts"], e["args"]["bytes"]))
        continue
    if e["ph"] == "X":
        assert isinstance(e["args"], dict) and e["dur"] >= 0 and e["ts"] >= last.get((e["pid"], e["tid"]), 0), e
        last[e["pid"], e["tid"]] = e["ts"]
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
assert trace["otherData"]["spans lost"] == "0" and trace["otherData"]["ranks"] == str(ranks)
def slice_at(e):
    return [x for b, d, x in rows[e["pid"], e["tid"]] if x["ts"] <= e["ts"] <= x["ts"] + x["dur"] and "rank" in x["name"]]
for ends in flows.values():
    assert set(ends) == {"s", "f"} and ends["f"]["bp"] == "e", ends
    s, f = slice_at(ends["s"]), slice_at(ends["f"])
    assert s and f and ends["s"]["pid"] != ends["f"]["pid"] and ends["s"]["ts"] <= ends["f"]["ts"], ends
    assert any(x["args"]["bytes"] == y["args"]["bytes"] for x in s for y in f), (s, f)
assert bool(flows) == (ranks > 1)
for rank in range(ranks):
    steps = [e for row, events in rows.items() if row[0] == rank and names[row] == "steps" for b, d, e in events]
    whole = {e["args"]["step"]: e for e in steps if e["name"].startswith("step ")}
    assert sorted(whole) == [1, 2, 3], sorted(whole)
    programs = [e for e in steps if "micro-batch" in e["args"]]
    assert {e["name"] for e in programs} >= {"forward"} and len(programs) % 3 == 0, programs
    assert {e["args"]["step"] for e in programs} == {1, 2, 3}
    assert sum(e["name"] == "update" for e in steps) == 3
    for e in steps:
        of = whole[e["args"]["step"]]
        assert of["ts"] <= e["ts"] and e["ts"] + e["dur"] <= of["ts"] + of["dur"] + 0.001, (of, e)
    assert all(v > 0 for t, v in counters[rank, "device memory"]) and len(counters[rank, "device memory"]) == 3
    sent = [v for t, v in counters[rank, "bytes sent"]]
    assert sent == sorted(sent) and bool(sent) == (ranks > 1)
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
python3 -c 'import json
e = [x for x in json.load(open("trace.json"))["traceEvents"] if x["name"] == "sum of gradients"]
assert e and all(x["args"]["parameters"] and x["args"]["bytes"] and x["args"]["step"] for x in e)' 2> stderr
check "replicas: sums name their parameters" [ $? -eq 0 ]
picture "stages" 2 kernel:h. wire:rank wait: copy: host:save \
    -- --devices cpu:0/2 --stages 2 --micro-batch 2 --schedule 1f1b
python3 -c 'import json
e = [x for x in json.load(open("trace.json"))["traceEvents"] if x["ph"] == "X"]
m = {x["args"]["micro-batch"] for x in e if x["name"] == "forward"}
s = [x for x in e if x["name"].endswith(" to rank 1") and "micro-batch" in x["args"]]
assert m == {0, 1} and len(s) == 6 and {x["args"]["micro-batch"] for x in s} == m, (m, s)' 2> stderr
check "stages: sends name their micro-batch" [ $? -eq 0 ]
train_tiny --steps 3 --out plain > stdout 2> stderr
train_tiny --steps 3 --out traced --trace trace.json > stdout 2> stderr
check "tracing changes no bit" cmp plain/checkpoints/step-000003/params.safetensors \
    traced/checkpoints/step-000003/params.safetensors
refuses "a trace that cannot be written" 1 "/proc/nowhere.json" train --model gpt2-tiny --data "$text" \
    --tokenizer char --seq 32 --batch 4 --steps 2 --out refused --trace /proc/nowhere.json
close_checks
