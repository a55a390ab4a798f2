#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/cli/plan_compare.sh - ways of staying together side by side, on devices that are here and on described ones;
# plans that say how, which train follows wholly; and what cannot be, said once and before anything is measured.
. "$(dirname "$0")/../cli/cli_checks.sh"

if ! "$geartrain" devices | grep -q 'cpu:0'; then
    echo "no CPU device to divide"
    exit 77
fi
shape="--model gpt2-tiny --seq 32 --batch 4"
two="--devices cpu:0/2"
run="$shape --data $text --tokenizer byte --steps 4 --eval-every 0"

# ---- the table ---------------------------------------------------------------------------------------------

# column NUMBER FILE: of rows that have times, behind the options of a way.
ways() { sed -n '/^ways of staying/,/^  sent:/p' "$1" | grep -- '--sync'; }

does "ways are compared here" '^ways of staying together' plan $shape $two --micro-batch 1 --compare --sync local --local-steps 7
ways stdout > rows
check "every mode is there" sh -c 'for m in allreduce sharded ps async local; do grep -q -e "--sync $m" rows || exit 1; done'
check "and forms of gradients" sh -c 'for f in bf16 int8 topk:0.01 powersgd:4; do grep -q -e "--compress $f" rows || exit 1; done'
check "what was asked for is marked" [ "$(grep -c '^> --sync local --local-steps 7 ' rows)" -eq 1 -a "$(grep -c '^>' rows)" -eq 1 ]
check "the best is first, ratios rise" sh -c "sed 's/.* \([0-9][0-9.]*\)  *[0-9.]* [kMG]*B  *[0-9.]* [kMG]*B .*/\1/' rows |
    awk 'NR == 1 && \$1 != 1 { exit 1 } \$1 < x { exit 1 } { x = \$1 } END { exit NR < 10 }'"
check "what changes the result is said" sh -c "grep -q -e '--sync async .* asynchronous\$' rows && grep -q 'local-steps 7 .* local\$' rows &&
    grep -q -e '--compress int8 .* lossy\$' rows && ! grep -e '--sync sharded' rows | grep -q '[a-z]\$'"
does "an object for machines" '"compare": \[' plan $shape $two --micro-batch 1 --compare --json
if command -v python3 > /dev/null; then
    check "whose rows are whole" python3 -c '
import json
t = json.load(open("stdout"))["compare"]
assert [r["ratio"] for r in t] == sorted(r["ratio"] for r in t) and len(t) > 10
for r in t:
    assert r["step_s"] > 0 and abs(r["hours_per_1e9_tokens"] - 1e9 / 128 * r["step_s"] / 3600) < 1e-6 * r["step_s"] * 1e9
whole = [r for r in t if r["way"] == "--sync allreduce" and r["replicas"] == 2]
ten = [r for r in t if r["way"] == "--sync local --local-steps 10"]
assert not whole or abs(whole[0]["sent_bytes"] / ten[0]["sent_bytes"] - 10) < 1e-6'
fi

# slow FILE UPLINK: four nodes of a device each.
cat > slow.json << END
{ "latency": "10ms", "nodes": [ { "count": 4, "uplink": 12500000, "local": "200GB",
  "devices": [ { "name": "A", "count": 1, "tflops": 20, "memory": "24GB" } ] } ] }
END
sed 's/12500000/"500GB"/; s/10ms/1us/' slow.json > fast.json
does "described devices" 'what encoding takes there is not known' plan --model gpt2-124m --seq 512 --batch 64 --cluster slow.json --compare
# Which way of being apart is the best depends on how fast this host adds up, which is measured.
check "slow links: apart is faster than sums" sh -c 'grep -e "--sync" stdout | head -n 1 | grep -Eq " local(, lossy)?$"'
does "fast links: nothing that changes the result is twice as fast" '--sync allreduce' plan --model gpt2-124m --seq 512 --batch 64 \
    --cluster fast.json --compare
check "as the table says" sh -c "grep -e '--sync allreduce  ' stdout | sed 's/.* \([0-9][0-9.]*\)  *[0-9.]* [kMG]*B  *[0-9.]* [kMG]*B .*/\1/' |
    awk '{ exit !(\$1 >= 1 && \$1 < 1.2) }'"

# ---- plans that are followed ----------------------------------------------------------------------------------

does "a plan of steps apart" '^plan .* sync local' plan $shape $two --replicas 2 --sync local --local-steps 3 --outer nesterov \
    --out apart.json
check "tells the host's memory apart" grep -q 'and [0-9.]* [kM]B of the host' stdout
check "says all of it" sh -c "grep -q '\"local-steps\": \"3\"' apart.json && grep -q '\"outer\": \"nesterov\"' apart.json"
does "train follows it" 'step 3 .* sent [1-9]' train $run $two --plan apart.json --out apart
check "and tells the host's memory" grep -q '; of the host [0-9.]* [kM]B, to stay together' stderr
check "and keeps what ran" sh -c "grep -q '\"sync\": \"local\"' apart/config.json && grep -q '\"local-steps\": \"3\"' apart/config.json"
does "it goes on so" 'step 6 ' train --out apart --resume --steps 6
check "as it began" grep -q 'as the run began' stderr
does "a plan of fewer bytes" '^plan ' plan $shape $two --replicas 2 --compress topk:0.05 --compress-after 2 --out few.json
check "has them" sh -c "grep -q '\"compress\": \"topk:0.05\"' few.json && grep -q '\"compress_after\": 2' few.json"
does "train follows it too" 'step 4 ' train $run $two --plan few.json --out few
check "and sends so" grep -q 'form    of gradients between ranks: topk:0.05 after step 2' stderr
does "which may be repeated" 'step 4 ' train $run $two --plan few.json --out same --compress topk:0.050
refuses "but not contradicted" 2 "--compress int8 contradicts the plan 'few.json', which has topk:0.05" \
    train $run $two --plan few.json --out new --compress int8
refuses "nor when it begins" 2 "--compress-after 3 contradicts the plan 'few.json', which has 2" \
    train $run $two --plan few.json --out new --compress-after 3
sed 's/"compress": "topk:0.05"/"compress": "topk"/' few.json > wrong.json
refuses "a form that is none" 1 "'compress': 'topk' needs its FRACTION" train $run $two --plan wrong.json --out new
does "a cluster's plan has a mode as well" '^step .* sync ps' plan $shape --cluster slow.json --sync ps --servers 0 --compress bf16 --out ps.json
check "with its options" sh -c "grep -q '\"servers\": \"0\"' ps.json && grep -q '\"compress\": \"bf16\"' ps.json"
refuses "an option of another mode" 2 '--servers is an option of --sync ps or async, not of --sync allreduce' \
    plan $shape $two --servers 0
refuses "compression where there is none" 2 'async sends what it sends as it is; leave out --compress bf16' \
    plan $shape $two --sync async --compress bf16
refuses "one rank has nobody" 2 'option --compare: one rank has nobody to stay together with' plan $shape --devices cpu:0 --compare

# ---- said once, and early --------------------------------------------------------------------------------------

# once NAME SENTENCE COMMAND...: refused, by one rank, before anything is measured.
once()
{
    name=$1 says=$2
    shift 2
    refuses "$name" 2 "$says" "$@"
    check "$name: once" [ "$(grep -c -e "$says" stderr)" -eq 1 ]
}
once "more fragments than layers" "--fragments 20 are more than the model's 3 layers" \
    train $run $two --replicas 2 --sync local --fragments 20 --out new
once "in a plan too" "--fragments 20 are more than the model's 3 layers" plan $shape $two --sync local --fragments 20
once "one replica without staleness" '--sync async is for several replicas, and there is one' \
    train $run $two --stages 2 --sync async --out new
once "no stages to send between" 'no replica of the plan has stages' train $run $two --stages 1 --compress-stages bf16 --out new
program train $run --devices cpu:0 --out alone --sync local --local-steps 3 --outer sparse > stdout 2> stderr
check "what one rank has no use for is told with its options" grep -q \
    'there is one rank, so --sync, --local-steps, --outer do nothing' stderr
check "nothing was left by what was refused" [ ! -e new ]
close_checks
