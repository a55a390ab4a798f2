#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/job/elastic_hosts.sh - an elastic job on two hosts: network namespaces, joined by a cable that can be cut.
# Ranks of the other host are started by what stands in for ssh, or join while the job runs.
#
#   host a   10.213.8.1 ──────── 10.213.8.2   host b
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/job/job_checks.sh"
. "$tests/job/elastic_checks.sh"

a=gtea$$ b=gteb$$
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
ip -n $a addr add 10.213.8.1/24 dev cable0
ip -n $b addr add 10.213.8.2/24 dev cable1
for ns in $a $b; do
    ip -n $ns link set lo up
done
ip -n $a link set cable0 up
ip -n $b link set cable1 up

GEARTRAIN_NET_HEARTBEAT=200ms GEARTRAIN_NET_DEAD_AFTER=3s GEARTRAIN_NET_ALGORITHM=ring GEARTRAIN_GEMM=tiled
GT_LOG=warn,train:debug
export GEARTRAIN_NET_HEARTBEAT GEARTRAIN_NET_DEAD_AFTER GEARTRAIN_NET_ALGORITHM GEARTRAIN_GEMM GT_LOG
words="train --model gpt2-tiny --data $text --tokenizer char --seq 32 --batch 12 --micro-batch 1 --eval-every 0
    --transport tcp --steps 100000 --save-every 0"

# launches RUN OPTIONS...: on host a, in the background, $job.
launches()
{
    run=$1
    shift
    ip netns exec $a timeout 240 "$geartrain" launch "$@" -- $words --out "$run" > stdout 2> stderr < /dev/null &
    outer=$!
    until job=$(pgrep -P $outer) && [ -n "$job" ] || ! kill -0 $outer 2> /dev/null; do sleep 0.01; done
}
# joins RUN OPTIONS...: from host b, in the background, $guest.
joins()
{
    run=$1
    shift
    ip netns exec $b timeout 240 "$geartrain" launch --join 10.213.8.1:29100 "$@" -- $words --out "$run" \
        > guest.out 2> guest.err < /dev/null &
    guest=$!
}
# ends RUN: told to, with each step once and each sample once.
ends()
{
    kill -TERM $job
    wait $outer
    code=$? last=$(rows "$1")
    cat stderr guest.err 2> /dev/null > both
    steps both | head -n "$last" | awk -v batch=12 '$3 - $2 + 1 != batch || $1 != NR' > odd
    [ $code -eq 143 ] && each_once "$1" "$last" && [ ! -s odd ]
}
three="--elastic 1:3 --ranks 2 --replacements 0 --listen 10.213.8.1:29100"

# ---- joining from outside -------------------------------------------------------------------------------

launches join $three
until_rows join 5 $job
joins join
await_line "with 3 ranks: from memory" $job
check "a rank of another host joins a job that runs" grep -q '1 new rank joins; going on with 3' stderr
check "and gets all from others' memory" grep -q 'again   after step [1-9][0-9]* with 3 ranks: from memory' stderr
had=$(rows join)
until_rows join $((had + 3)) $job
GEARTRAIN_NET_SECRET_FILE=$work/other ip netns exec $b "$geartrain" launch --join 10.213.8.1:29100 -- $words --out join \
    > out 2> err < /dev/null
check "who does not know the secret stays out" [ $? -eq 1 ]
check "and is told" grep -q 'cannot join the job at 10.213.8.1:29100: it does not know this secret' err
ip netns exec $b "$geartrain" launch --join 10.213.8.1:29100 -- $words --out join > out 2> err < /dev/null
check "one more than MAX is told that the job is full" grep -q 'the job has as many ranks as it takes' err

had=$(rows join)
kill -9 "$(place $job 1)" "$(place $job 2)"
until_rows join $((had + 6)) $job
check "it outlives all ranks of the launcher's host" grep -q 'again   after step [1-9][0-9]* with 1 ranks: from memory' guest.err
check "with each step and each sample once" ends join
wait $guest

# ---- the cable is cut for ten seconds ----------------------------------------------------------------------

launches cut $three
until_rows cut 5 $job
joins cut --max-restarts 100
await_line "with 3 ranks: from memory" $job
had=$(rows cut)
until_rows cut $((had + 3)) $job
ip -n $a link set cable0 down
sleep 10
check "a host that is cut off is dropped by its address" grep -q "dropped rank 2 (10.213.8.2): its line to the launcher broke; going on with 2 of 3" stderr
ip -n $a link set cable0 up
until [ "$(grep -c 'with 3 ranks: from memory' stderr)" -ge 2 ] || ! kill -0 $job 2> /dev/null; do sleep 0.05; done
check "and joins again when the cable is there again" [ "$(grep -c 'with 3 ranks: from memory' stderr)" -ge 2 ]
had=$(rows cut)
until_rows cut $((had + 3)) $job
check "with each step and each sample once" ends cut
kill $guest 2> /dev/null || :
wait $guest
rm -f guest.err

# ---- over ssh -----------------------------------------------------------------------------------------------

cat > no-ssh <<END
#!/bin/sh
for word do last=\$word; done
exec ip netns exec $b sh -c "\$last"
END
chmod +x no-ssh
printf '10.213.8.1 slots=2\n10.213.8.2 slots=1\n' > hosts
launches far --elastic 1:3 --hosts hosts --ssh "$work/no-ssh"
until_rows far 5 $job
check "ranks of two hosts begin a job" grep -q 'formation 0 rank 2 of 3: step 5 ' stderr
kill -9 "$(ip netns pids $b | while read -r pid; do grep -lz geartrain "/proc/$pid/comm" | cut -d / -f 3; done | head -n 1)"
await_line "with 3 ranks: from memory" $job
check "one that is killed on the other host is dropped" grep -q 'dropped rank 2 (10.213.8.2): killed by signal 9' stderr
check "and another is started there and joins" grep -q 'again   after step [1-9][0-9]* with 3 ranks: from memory' stderr
had=$(rows far)
until_rows far $((had + 3)) $job
check "with each step and each sample once" ends far
close_checks
