#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/job/site.sh - what a site sets for NCCL on all its machines ends no job of ours: read as the
# nearest that there is, or passed over with one line.
. "$(dirname "$0")/job_checks.sh"

# goes_on NAME WARNINGS VARIABLE...: two ranks of a bench
goes_on()
{
    name=$1 lines=$2
    shift 2
    env "$@" timeout 240 "$geartrain" bench allreduce --ranks 2 -b 1K -e 1K -n 2 -w 1 --json > stdout 2> stderr < /dev/null
    check "$name" [ $? -eq 0 ]
    check "$name: $lines lines" [ "$(grep -c 'warning: .*NCCL_' stderr)" -eq "$lines" ]
}
goes_on "more queue pairs than there are" 1 NCCL_IB_QPS_PER_CONNECTION=32
check "it is said what is done" grep -q "NCCL_IB_QPS_PER_CONNECTION = '32' is read as 16" stderr
goes_on "an algorithm of NCCL's own, excluded" 0 NCCL_ALGO=^NVLS
goes_on "a list" 0 NCCL_ALGO=Ring,Tree
check "the first of it" grep -q '"algorithm": "ring"' stdout
goes_on "an exclusion" 0 NCCL_ALGO=^recursive-doubling,halving-doubling
check "is one" sh -c '! grep -q "halving\|recursive" stdout'
goes_on "an algorithm of tomorrow" 1 NCCL_ALGO=warp
goes_on "another protocol" 0 NCCL_PROTO=^LL128
goes_on "interfaces by exclusion" 0 NCCL_SOCKET_IFNAME=^docker,lo
goes_on "an interface of other hosts" 1 NCCL_SOCKET_IFNAME==eth77
goes_on "devices by exclusion" 0 NCCL_IB_HCA=^mlx5_3
goes_on "a list that nobody understands" 1 NCCL_IB_HCA=^^mlx5_3:x
goes_on "the place of another job" 0 NCCL_COMM_ID=192.0.2.7:5000
goes_on "the same, malformed" 0 NCCL_COMM_ID=here
export NCCL_IB_TIMEOUT=99
does "no need of the network, no end" 'cpu' devices
unset NCCL_IB_TIMEOUT
refuses "our own stay strict" 2 'ib-timeout cannot be .99.' bench allreduce --ranks 2 --net ib-timeout=99
refuses "all of them" 2 "no collective algorithm 'warp'" bench allreduce --ranks 2 --net algorithm=warp -e 1K --algorithm warp
close_checks
