#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/slow_link.sh - two replicas over a slow link: sums of gradients each step, and local training.
#
#   sh tests/bench/slow_link.sh [--mbit N] [--ms N] [--steps N] [--sums N] [--apart H]     [100 20 60 6 30]
#
#      rank 0 ── a link of N Mbit/s, both ways, and so many milliseconds there and back ── rank 1
#
# Each rank in a network namespace of its own; tc's token bucket limits the link, and the
# transport itself is late (setting fault=delay), since netem is not in every kernel. 10.8 M parameters, 6 layers of 384 channels, 8
# sequences of 128 tokens a step, one core a rank. Sums run --sums steps, since each takes as long as the last; the
# others --steps. tokens/s is over all steps but the first, outer steps included; bytes are what both ranks sent in
# all, a step on average; the loss is the validation's after the last step, of sums after as many as they had.
#
#   $GEARTRAIN   the program      [build/geartrain]
#
# Needs root, ip and tc. A measurement; it fails if a run does.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
mbit=100 ms=20 steps=60 sums=6 apart=30
while [ $# -gt 0 ]; do
    case $1 in
    --mbit) mbit=$2 ;;
    --ms) ms=$2 ;;
    --steps) steps=$2 ;;
    --sums) sums=$2 ;;
    --apart) apart=$2 ;;
    *) sed -n '2,18s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift 2 || exit 2
done
program=${GEARTRAIN:-$root/build/geartrain}
[ -x "$program" ] || { echo "slow_link.sh: no program at $program; build it, or set GEARTRAIN"; exit 1; }
tag=gtl$$
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-local-XXXXXX") || exit 1
running=
clear_up()
{
    [ -z "$running" ] || kill $running 2> /dev/null
    ip netns del "$tag-0" 2> /dev/null
    ip netns del "$tag-1" 2> /dev/null
    rm -rf "$work"
}
trap clear_up EXIT
trap 'exit 1' HUP INT TERM

end()           # RANK
{
    ip -n "$tag-$1" addr add "10.78.0.$(($1 + 1))/24" dev gt && ip -n "$tag-$1" link set lo up &&
    ip -n "$tag-$1" link set gt up &&
    ip netns exec "$tag-$1" tc qdisc add dev gt root tbf rate "${mbit}mbit" burst 32kbit latency 400ms
}

if ! { ip netns add "$tag-0" && ip netns add "$tag-1" &&
       ip link add name gt netns "$tag-0" type veth peer name gt netns "$tag-1" && end 0 && end 1; }; then
    echo "slow_link.sh: cannot make network namespaces with a slow link here; skipped"
    exit 77
fi

i=0
while [ $i -lt 20000 ]; do
    echo "$i wheels turn $((i * 7919 % 10007)) teeth, then $((i * i % 9973)) more of them"
    i=$((i + 1))
done > "$work/text.txt"
cat > "$work/model.json" <<'END'
{ "model_type": "gpt2", "n_layer": 6, "n_head": 6, "n_embd": 384, "n_positions": 128, "n_ctx": 128 }
END
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$work/secret"
chmod 600 "$work/secret"
export GEARTRAIN_CACHE="$work/cache"

run()           # NAME STEPS OPTIONS...
{
    name=$1 count=$2 running=
    shift 2
    port=$((20000 + ($$ + $(date +%N | sed 's/^0*//') / 1000) % 20000))
    for rank in 1 0; do
        ip netns exec "$tag-$rank" env RANK=$rank WORLD_SIZE=2 LOCAL_RANK=0 LOCAL_WORLD_SIZE=1 \
            MASTER_ADDR=10.78.0.1 MASTER_PORT=$port GEARTRAIN_NET_SECRET_FILE="$work/secret" \
            "$program" train --model "$work/model.json" --data "$work/text.txt" --tokenizer byte --out "$work/$name" \
            --seq 128 --batch 8 --micro-batch 4 --steps "$count" --warmup 0 --lr 1e-3 --lr-schedule constant --dropout 0 \
            --eval-every "$count" --eval-batches 2 --save-every 0 --devices "cpu:0.$rank/2" --replicas 2 --stages 1 \
            --transport tcp --net "fault=delay=$((ms / 2))ms" "$@" < /dev/null > "$work/out.$rank" 2> "$work/err.$rank" &
        running="$running $!"
    done
    failed=0
    for pid in $running; do
        wait "$pid" || failed=1
    done
    running=
    [ $failed = 0 ] || { echo "$name fails:"; tail -n 3 "$work"/err.*; exit 1; }
    ms_all=$(sed -n 's/.*"step_ms": *\([0-9.]*\).*/\1/p' "$work/$name/metrics.jsonl" | awk 'NR > 1 { t += $1 } END { print t }')
    sent=$(sed -n 's/.*  sent \([0-9.]*\) \([kMG]*\)B.*/\1 \2/p' "$work/out.0" |
        awk '{ x += $1 * ($2 == "G" ? 1e9 : $2 == "M" ? 1e6 : $2 == "k" ? 1e3 : 1) } END { print x }')
    val=$(sed -n 's/.*"val_loss": *\([0-9.]*\).*/\1/p' "$work/$name/metrics.jsonl" | tail -n 1)
    awk -v n="$name" -v s="$count" -v t="$ms_all" -v b="$sent" -v v="$val" 'BEGIN {
        printf "%-12s %6d %12.1f %14.0f %10s\n", n, s, (s - 1) * 8 * 128 / t * 1e3, b / s, v }'
}

echo "# two replicas of one core, $mbit Mbit/s, $ms ms there and back; H $apart"
printf '%-12s %6s %12s %14s %10s\n' sync steps tokens/s bytes/step val_loss
run allreduce "$sums"
run bf16 "$sums" --compress bf16
run average "$steps" --sync local --local-steps "$apart"
run diloco "$steps" --sync local --local-steps "$apart" --outer nesterov
run streaming "$steps" --sync local --local-steps "$apart" --outer nesterov --fragments 3 --overlap 5
run sparse "$steps" --sync local --local-steps "$apart" --outer sparse --outer-lr 1
