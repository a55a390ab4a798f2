#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/verbs/training.sh - training over the kernel's Soft-RoCE, in a guest: the same losses, to the
# last bit, as the same two ranks come to on the host over tcp and over shared memory.
#
# An emulated processor would compile kernels for minutes, so the guest gets those that the host
# has just compiled: PoCL is told on both sides to compile for one kind of processor that the guest
# knows as well (plain_processor.c hides what it lacks), and the guest's carries the host's name, which
# is part of what a cache is kept by. Both multiply by engine native, whose library is told that kind too:
# left to choose, the host might take an engine whose instructions the guest lacks, and round otherwise.
# Guest: see guest.sh. Takes a minute where nothing else runs, and is given up after seven.
# Runs alone: the guest is emulated and needs every core.
set -u
root_of_tests=$(cd "$(dirname "$0")/.." && pwd)
: "${BUILD:=$root_of_tests/../build-test}"
work=$(mktemp -d "${TMPDIR:-/tmp}/verbs-training-XXXXXX") || exit 1
guest_pid_train=
trap 'kill $guest_pid_train 2> /dev/null; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
. "$root_of_tests/verbs/guest.sh"
guest_prepare || exit 77
[ -x "$BUILD/tests/verbs/verbs_pair" ] || { echo "skipped: the build in $BUILD has no verbs"; exit 77; }
mkdir "$work/bin" "$work/kept" "$work/runs"
cp "$BUILD/geartrain" "$work/bin"
"${CC:-cc}" -shared -fPIC -o "$work/bin/plain_processor.so" "$root_of_tests/verbs/plain_processor.c" \
    || { echo "skipped: no compiler makes a library to preload"; exit 77; }

# AVX2 is what the emulator has of vectors; PoCL calls what has it haswell.
processor=haswell
grep -qw avx2 /proc/cpuinfo || { echo "skipped: this host has no AVX2, which kernels for the guest need"; exit 77; }
awk 'BEGIN { for (i = 0; i < 400; i++) printf "wheel %d turns wheel %d, which turns %d. ", i, i * 7 % 31, i * i % 97 }' \
    > "$work/text"

# What both sides run: 3 steps on 2 ranks, as replicas and as stages, by plans that need no measuring.
plan()      # NAME REPLICAS
{
    printf '{ "format": "geartrain plan 1", "batch": 4, "units": 5, "tensor": 1, "chunks": 1, "recompute": false,
  "schedule": "1f1b", "sync": "allreduce", "ranks": [ {}, {} ], "replicas": [ %s ] }\n' "$2" > "$work/$1.json"
}
replica='"micro_batches": 1, "micro_batch": 2, "cut": [0, 5]'
plan replicas "{ $replica, \"stages\": [[0]] }, { $replica, \"stages\": [[1]] }"
plan stages '{ "micro_batches": 2, "micro_batch": 2, "cut": [0, 2, 5], "stages": [[0], [1]] }'
cat > "$work/ranks" <<'END'
export LD_PRELOAD=$work/bin/plain_processor.so POCL_KERNELLIB_NAME=avx2 OPENBLAS_CORETYPE=Haswell XDG_CACHE_HOME POCL_CACHE_DIR=$XDG_CACHE_HOME/pocl
unset GEARTRAIN_CACHE
END
cat > "$work/tiny" <<'END'
tiny="--model gpt2-tiny --data $work/text --tokenizer byte --seq 32 --batch 4 --steps 3 --warmup 1 --eval-every 0
      --devices cpu:0/2 --gemm native"
END
. "$work/tiny"
XDG_CACHE_HOME=$work/kept
geartrain()
{
    (. "$work/ranks" && exec timeout 200 "$work/bin/geartrain" "$@")
}

passed=0 failed=0
check()     # NAME COMMAND...
{
    what=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        echo "ok $what"
    else
        failed=$((failed + 1))
        echo "FAILED $what"
    fi
}
close()
{
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
    exit
}
losses()    # RUN: of every step, with all digits
{
    sed -n 's/.*"loss": \([0-9.eE+-]*\).*/\1/p' "$work/runs/$1/metrics.jsonl" | tr '\n' ' '
}
weights()   # RUN: and the optimizer's state
{
    find "$work/runs/$1/checkpoints/step-000003" -name '*.safetensors' | sort | xargs cat | cksum
}

if ! geartrain devices > "$work/log" 2>&1 || ! grep -q "pthread-$processor" "$work/log"; then
    echo "skipped: there is no PoCL here that compiles for $processor"
    exit 77
fi
host_trains()   # PLAN TRANSPORT
{
    # shellcheck disable=SC2086
    geartrain train $tiny --plan "$work/$1.json" --transport "$2" --out "$work/runs/$1-$2" \
        > "$work/log" 2>&1 || { tail -n 5 "$work/log"; return 1; }
}
for plan in replicas stages; do
    for transport in tcp shm; do
        check "$plan train over $transport on the host" host_trains $plan $transport
    done
done
[ "$failed" -eq 0 ] || close

cat > "$work/train" <<'END'
XDG_CACHE_HOME=/tmp/kept
cp -r "$work/kept" /tmp/kept
. "$work/tiny"
ip link add wire0 type dummy
rxe_up wire0 10.77.0.1 4200 || exit 1
packets()
{
    cat /sys/class/infiniband/rxe0/ports/1/hw_counters/sent_pkts
}
geartrain()
{
    (. "$work/ranks" && exec "$work/bin/geartrain" "$@")
}
for plan in replicas stages; do
    start=$(date +%s) before=$(packets)
    # shellcheck disable=SC2086
    geartrain train $tiny --plan "$work/$plan.json" --transport verbs --out "/tmp/$plan" > "$work/$plan.log" 2>&1
    echo "$plan ended with status $? after $(($(date +%s) - start)) s"
    echo "$plan sent $(($(packets) - before)) packets of at most 4096 bytes"
    cp -r "/tmp/$plan" "$work/runs/$plan-verbs"
done
END
# QEMU wants a comma within a value twice.
name=$(awk -F ': ' '/^model name/ { gsub(",", ",,", $2); print $2; exit }' /proc/cpuinfo)
GUEST_PROCESSOR="max,model-id=$name" guest_start train "$work/train"
guest_wait train 400 || echo "the guest ended with status $?" >> "$work/train.out"
cat "$work/train.out"
[ -z "${KEEP:-}" ] || { rm -rf "$KEEP"; cp -r "$work" "$KEEP"; }

# As many packets as what the steps say was sent must fill.
through_device()    # PLAN
{
    packets=$(sed -n "s/^$1 sent \([0-9]*\) packets.*/\1/p" "$work/train.out")
    sed -n 's/^step .* sent \([0-9.]*\) \([kM]\)B.*/\1 \2/p' "$work/$1.log" | awk -v packets="${packets:-0}" '
        { bytes += $1 * ($2 == "M" ? 1e6 : 1e3) }
        END { exit !(bytes > 0 && packets * 4096 >= 0.99 * bytes) }'
}

for plan in replicas stages; do
    check "$plan train over verbs in the guest" grep -q "^$plan ended with status 0" "$work/train.out"
    sed -n 's/^step /    &/p' "$work/$plan.log" 2> /dev/null
    check "what the ranks sent went through the device" through_device $plan
    if [ -f "$work/runs/$plan-verbs/metrics.jsonl" ]; then
        echo "    losses over verbs: $(losses $plan-verbs)"
    fi
    for transport in tcp shm; do
        check "$plan come to the losses of $transport, to the last digit" \
            [ "$(losses $plan-verbs)" = "$(losses $plan-$transport)" ]
        check "$plan come to the weights of $transport, to the bit" \
            [ "$(weights $plan-verbs)" = "$(weights $plan-$transport)" ]
    done
done
close
