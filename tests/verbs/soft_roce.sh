#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/verbs/soft_roce.sh - the verbs transport over the kernel's Soft-RoCE, in a guest.
#
#   one guest    two ends on one device, under every setting; ranks of a job as threads; a user
#                who may lock no memory; a peer that is killed; perftest's figures beside ours
#   two guests   a wire between them: healthy, losing packets, and cut
#
# See guest.sh for the guest. Figures are of an emulated processor and are only shown; what is
# judged is whether bytes, sentences and times are right. Takes four minutes or so.
# Runs alone: the guests are emulated and need every core.
set -u
root_of_tests=$(cd "$(dirname "$0")/.." && pwd)
: "${BUILD:=$root_of_tests/../build-test}"
work=$(mktemp -d "${TMPDIR:-/tmp}/soft-roce-XXXXXX") || exit 1
guest_pid_one= guest_pid_left= guest_pid_right=
trap 'kill $guest_pid_one $guest_pid_left $guest_pid_right 2> /dev/null; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
. "$root_of_tests/verbs/guest.sh"
guest_prepare || exit 77
mkdir "$work/bin"
cp "$BUILD/tests/verbs/verbs_pair" "$BUILD/tests/comm/test_comm" \
    "$BUILD/tests/collective/test_collective" "$BUILD/geartrain" "$work/bin" \
    || { echo "skipped: the build in $BUILD has no verbs"; exit 77; }

# What every guest's script begins with.
cat > "$work/common" <<'END'
PATH=$work/bin:$PATH
until_holding()     # PID LOG: until that end says that both hold, or is gone
{
    while kill -0 $1 2> /dev/null && ! grep -q holding "$2"; do
        sleep 0.1
    done
}
try()       # NAME COMMAND...
{
    what=$1 start=$(date +%s)
    shift
    if "$@" > /tmp/log 2>&1; then
        echo "ok $what ($(($(date +%s) - start)) s)"
    else
        echo "FAILED $what: status $?, after $(($(date +%s) - start)) s"
        tail -n 15 /tmp/log | sed 's/^/    /'
    fi
    grep -E '^verbs |^broken | B  (window|one way)' /tmp/log | sed 's/^/    /'
}
END

# ---- one guest -----------------------------------------------------------------------------

cat "$work/common" - > "$work/one" <<'END'
ip link add wire0 type dummy
rxe_up wire0 10.77.0.1 4200 || exit 1

try "bytes arrive at MTU 4096" verbs_pair
try "bytes arrive at MTU 1024" verbs_pair ib_mtu=1024 quick=1
try "bytes arrive with nothing inline" verbs_pair inline=0 quick=1
try "bytes arrive when devices take 64 KiB at a time" verbs_pair max_message=65536 quick=1
try "bytes arrive without immediate data" verbs_pair immediate=0 quick=1
try "bytes arrive over four queue pairs" verbs_pair queue_pairs=4 quick=1
try "a device of another name is refused" verbs_pair hca=mlx5 expect="there are: rxe0"
try "a GID that is not there is refused" verbs_pair gid_index=9 expect="no usable GID 9"

doctor()    # no drivers of OpenCL, whose look at a device takes long here
{
    OCL_ICD_VENDORS=/tmp geartrain doctor > /tmp/doctor
    sed -n '/RDMA/,$p' /tmp/doctor
    grep -q "rxe0:1 is active: Ethernet (in software).* MTU 4096" /tmp/doctor \
        && grep -q "GID 1 10.77.0.1 (IPv4, RoCE v2): tried first" /tmp/doctor \
        && grep -q "memory may be locked without limit" /tmp/doctor
}
try "the doctor shows the device and its choice" doctor

GT_TEST_NET="transport=verbs"
export GT_TEST_NET
try "messages of ranks arrive over verbs" test_comm either_end_may_be_late \
    a_flood_of_early_messages_is_held_back
try "ranks that end, differ or lose messages are told so over verbs" test_comm \
    a_difference_of_sizes_is_named_on_both_ends lost_cut_and_broken_end_in_a_sentence
try "collectives sum over verbs" test_collective \
    started_operations_run_in_order_beside_blocking_ones groups_of_the_same_ranks_work_at_the_same_time
try "ranks that disagree are told so over verbs" test_collective ranks_that_disagree_are_told_so_by_name

# A user may use the device, but lock only 64 KiB.
chmod 666 /dev/infiniband/uverbs*
poor()
{
    (ulimit -l 64 && exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@")
}
try "too little memory to lock is refused with the fix" poor verbs_pair expect="--ulimit memlock=-1"
GT_TEST_NET="transport=verbs,tcp"
try "... and the job falls back to tcp" poor test_comm groups_keep_their_messages_apart

# A peer that dies tells nobody; the survivor must notice by itself, and not too late.
killed()
{
    verbs_pair listen 7001 quick=1 hold=1 > /tmp/killed 2>&1 &
    victim=$!
    verbs_pair connect 127.0.0.1 7001 quick=1 hold=1 > /tmp/survivor 2>&1 &
    survivor=$!
    until_holding $survivor /tmp/survivor
    until_holding $victim /tmp/killed
    kill -9 $victim
    wait $survivor
    status=$?
    cat /tmp/survivor
    tail -n 3 /tmp/killed
    [ $status -eq 0 ] && grep -q "broken after [0-4]\.[0-9]* s, .*without an answer.*rxe0:1 (GID 1, 10.77.0.1" /tmp/survivor
}
try "a killed peer is noticed and named" killed

if command -v ib_write_bw > /dev/null; then
    echo "perftest, in this guest:"
    for tool in "ib_write_bw -s 65536 -n 300" "ib_write_bw -s 1048576 -n 40" "ib_write_lat -s 8 -n 500" \
                "ib_send_lat -s 8 -n 500"; do
        timeout 20 $tool -d rxe0 -x 1 -F > /tmp/server 2>&1 &
        sleep 1
        timeout 20 $tool -d rxe0 -x 1 -F 127.0.0.1 2>&1 | awk -v tool="$tool" '/#bytes/ { getline line; print "    " tool ": " line }'
        wait $!
    done
    echo "    #bytes iterations, then MB/s peak and average, or us min max typical average ..."
fi
END

# ---- two guests ----------------------------------------------------------------------------

cat "$work/common" - > "$work/left" <<'END'
rxe_up eth0 10.77.0.1 4200 || exit 1
try "left: bytes cross a wire" verbs_pair listen 7001
try "left: bytes cross a wire that loses packets" verbs_pair listen 7002 quick=1
try "left: a cut wire is noticed" verbs_pair listen 7003 quick=1 hold=1
END
cat "$work/common" - > "$work/right" <<'END'
rxe_up eth0 10.77.0.2 4200 || exit 1
try "right: bytes cross a wire" verbs_pair connect 10.77.0.1 7001
tc qdisc add dev eth0 root netem loss 0.3%
try "right: bytes cross a wire that loses packets" verbs_pair connect 10.77.0.1 7002 quick=1
tc qdisc del dev eth0 root
cut()
{
    verbs_pair connect 10.77.0.1 7003 quick=1 hold=1 > /tmp/cut 2>&1 &
    until_holding $! /tmp/cut
    ip link set eth0 down
    wait $!
    status=$?
    cat /tmp/cut
    return $status
}
try "right: a cut wire is noticed" cut
END

guest_start one "$work/one"
guest_wait one 300 || echo "FAILED the guest: status $?" >> "$work/one.out"
cat "$work/one.out"

# A port nobody listens at: the first guest listens, so a taken one shows at once.
port=$((20000 + $$ % 20000))
guest_start left "$work/left" -netdev "socket,id=wire,listen=127.0.0.1:$port" \
    -device virtio-net-pci,netdev=wire,mac=52:54:00:00:00:01,host_mtu=9000,romfile=
sleep 1
guest_start right "$work/right" -netdev "socket,id=wire,connect=127.0.0.1:$port" \
    -device virtio-net-pci,netdev=wire,mac=52:54:00:00:00:02,host_mtu=9000,romfile=
guest_wait left 150 || echo "FAILED the left guest: status $?" >> "$work/left.out"
guest_wait right 60 || echo "FAILED the right guest: status $?" >> "$work/right.out"
cat "$work/left.out" "$work/right.out"

cat "$work/one.out" "$work/left.out" "$work/right.out" | awk '
    /^ok /     { passed++ }
    /^FAILED / { failed++ }
    END        { printf "%d passed, %d failed\n", passed, failed; exit failed > 0 || !passed }'
