#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/job/hosts.sh - ranks on hosts with addresses of their own: network namespaces, joined by
# a cable that can be cut.
#
#   host a   10.213.7.1 ──────── 10.213.7.2   host b
. "$(dirname "$0")/job_checks.sh"

a=gta$$ b=gtb$$
if ! command -v ip > /dev/null; then
    echo "skipped: ip is missing (iproute2)"
    exit 77
fi
if ! ip netns add $a 2> stderr || ! ip netns add $b 2> stderr; then
    ip netns del $a 2> /dev/null
    echo "skipped: no network namespaces here: $(cat stderr)"
    exit 77
fi
trap 'ip netns del $a 2> /dev/null; ip netns del $b 2> /dev/null; rm -rf "$work"' EXIT
if ! ip link add cable0 netns $a type veth peer name cable1 netns $b 2> stderr; then
    echo "skipped: no cable between namespaces: $(cat stderr)"
    exit 77
fi
ip -n $a addr add 10.213.7.1/24 dev cable0
ip -n $b addr add 10.213.7.2/24 dev cable1
for ns in $a $b; do
    ip -n $ns link set lo up
done
ip -n $a link set cable0 up
ip -n $b link set cable1 up

# host NAMESPACE RANK ARGUMENTS...: rank RANK of $size, by torchrun's variables.
size=2
host()
{
    ns=$1 number=$2
    shift 2
    exec ip netns exec "$ns" env RANK="$number" WORLD_SIZE=$size MASTER_ADDR=10.213.7.1 \
        MASTER_PORT=27500 timeout 240 "$rank" "$@" > "out.$number" 2> "err.$number" < /dev/null
}

host $a 0 & zero=$!
host $b 1 & one=$!
wait $zero && wait $one
check "ranks of two hosts meet" [ $? -eq 0 ]
check "rank 0 is where others reach it" grep -q 'at 10.213.7.1,' out.0
check "rank 1 listens on the route to rank 0" grep -q 'at 10.213.7.2,' out.1

size=3
host $a 0 & zero=$!
host $a 1 & one=$!
host $b 2 & two=$!
wait $zero && wait $one && wait $two
check "three ranks on two hosts meet" [ $? -eq 0 ]
size=2

GEARTRAIN_NET_INTERFACE=cable host $a 0 & zero=$!
GEARTRAIN_NET_INTERFACE=^lo host $b 1 & one=$!
wait $zero && wait $one
check "interfaces by prefix and by exclusion" [ $? -eq 0 ]
GEARTRAIN_NET_INTERFACE=eth9 GEARTRAIN_NET_START_TIMEOUT=2s host $a 0 & zero=$!
wait $zero
check "an interface that is not there" [ $? -eq 2 ]
check "is refused with a list" grep -q "'eth9'; there are .*cable0" err.0

(GEARTRAIN_RANK=1 GEARTRAIN_SIZE=2 GEARTRAIN_ROOT=10.213.7.1:27500 host $b 1) & one=$!
wait $one
check "no rank joins over a network without a secret" [ $? -eq 2 ]
check "and the ways out are named" grep -q 'without a secret; start with geartrain launch' err.1
GEARTRAIN_NET_INSECURE=1 GEARTRAIN_RANK=0 GEARTRAIN_SIZE=2 GEARTRAIN_ROOT=10.213.7.1:27500 host $a 0 & zero=$!
GEARTRAIN_NET_INSECURE=1 GEARTRAIN_RANK=1 GEARTRAIN_SIZE=2 GEARTRAIN_ROOT=10.213.7.1:27500 host $b 1 & one=$!
wait $zero && wait $one
check "insecure=1 lets them" [ $? -eq 0 ]
GEARTRAIN_NET_SECRET_FILE=$work/other GEARTRAIN_NET_START_TIMEOUT=2s host $b 1 & one=$!
GEARTRAIN_NET_START_TIMEOUT=3s host $a 0 & zero=$!
wait $one
check "a host with another secret stays out" [ $? -eq 3 ]
check "and is told" grep -q "it does not know this job's secret" err.1
wait $zero
check "rank 0 names who is missing" grep -q 'waited 3 s for rank 1; it never connected to 10.213.7.1:27500; .* turned away, the last from 10.213.7.2' err.0

# ---- training --------------------------------------------------------------------------------------

# trainer NAMESPACE RANK RUN: one stage of two; both write below the same folder.
trainer()
{
    ns=$1 number=$2 out=$3
    exec ip netns exec "$ns" env RANK="$number" WORLD_SIZE=2 MASTER_ADDR=10.213.7.1 MASTER_PORT=27500 \
        timeout 300 "$geartrain" train --model gpt2-tiny --data "$text" --tokenizer char --seq 32 --batch 8 \
        --micro-batch 2 --steps 10 --dropout 0.1 --devices cpu:0/2 --stages 2 --replicas 1 --transport tcp \
        --out "$out" > "out.$number" 2> "err.$number" < /dev/null
}
losses() { sed -n 's/.*"loss": \([0-9.]*\),.*/\1/p' "$1/metrics.jsonl"; }
train_tiny --batch 8 --micro-batch 2 --steps 10 --dropout 0.1 --out one > stdout 2> stderr
trainer $a 0 piped & zero=$!
trainer $b 1 piped & one=$!
wait $zero && wait $one
check "two stages train on two hosts" [ $? -eq 0 ]
losses one > curve.one
losses piped > curve.piped
check "on the curve of one device" sh -c '[ "$(wc -l < curve.piped)" -eq 10 ] && paste curve.one curve.piped | awk "
    { d = \$1 - \$2; if (!(\$1 > 0) || d > 1e-5 * \$1 || d < -1e-5 * \$1) bad = 1 } END { exit bad || NR != 10 }"'

# ---- the cable is cut ---------------------------------------------------------------------------

GEARTRAIN_NET_HEARTBEAT=200ms GEARTRAIN_NET_DEAD_AFTER=2s
export GEARTRAIN_NET_HEARTBEAT GEARTRAIN_NET_DEAD_AFTER
rm -f pid.*
host $a 0 --rounds 1000000 --pause 20 --say pid & zero=$!
host $b 1 --rounds 1000000 --pause 20 --say pid & one=$!
await 80 [ -s pid.0 -a -s pid.1 ]
ip -n $a link set cable0 down
wait $zero
check "a cut cable ends rank 0" [ $? -eq 3 ]
check "which says that the host does not answer" grep -q 'lost rank 1 (.*its host has not answered for 2 s' err.0
wait $one
check "and rank 1" [ $? -eq 3 ]
check "which says so of rank 0" grep -q 'lost rank 0 (.*its host has not answered for 2 s' err.1
GEARTRAIN_NET_START_TIMEOUT=1s host $b 1 & one=$!
wait $one
check "without a cable nobody meets" [ $? -eq 3 ]
check "and the place is named" grep -q 'rank 1 waited 1 s for rank 0 at 10.213.7.1:27500: .*firewall' err.1
close_checks
