#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/job/openmpi.sh - mpirun starts ranks; PMIx tells them where rank 0 is.
. "$(dirname "$0")/job_checks.sh"

if ! command -v mpirun > /dev/null; then
    echo "skipped: mpirun is missing (openmpi-bin)"
    exit 77
fi
OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_orte_tmpdir_base=$work
export OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM OMPI_MCA_rmaps_base_oversubscribe
export OMPI_MCA_orte_tmpdir_base

by_mpirun()
{
    timeout 360 mpirun "$@" > stdout 2> stderr < /dev/null
}
by_mpirun -n 1 true
if [ $? -ne 0 ]; then
    echo "skipped: mpirun does not run here: $(grep -v '^[- ]*$' stderr | head -n 2 | tr '\n' ' ')"
    exit 77
fi

by_mpirun -n 4 "$rank"
check "four ranks meet" [ $? -eq 0 ]
check "all of them came" [ "$(grep -c '^rank [0-3] of 4 by Open MPI at ' stdout)" -eq 4 ]
if ! grep -q 'by Open MPI' stdout; then
    sed 's/^/    /' stderr
fi
check "with a secret that PMIx carried" [ ! -e secret ]
by_mpirun -n 1 "$rank"
check "one rank alone" [ $? -eq 0 ]
by_mpirun -n 3 -x GEARTRAIN_NET_INTERFACE="=lo" -x GEARTRAIN_NET_PORT_RANGE=27000-27099 "$rank"
check "on a named interface, in a range of ports" [ $? -eq 0 ]
by_mpirun -n 2 -x GEARTRAIN_NET_INTERFACE=nosuch "$rank"
check "an interface that is not there fails" [ $? -ne 0 ]
check "and lists those there are" grep -q "no interface .*'nosuch'; there are .*lo" stderr

rm -f pid.*
by_mpirun -n 3 "$rank" --rounds 1000000 --pause 20 --say "$work/pid" &
job=$!
await 120 [ -s pid.0 -a -s pid.1 -a -s pid.2 ]
kill -9 "$(cat pid.2)"
wait $job
check "mpirun fails when a rank is killed" [ $? -ne 0 ]
check "no rank is left" await 40 gone "$(cat pid.0)"
check "nor the other" await 40 gone "$(cat pid.1)"

# Without the PMIx library the user's file and a named place do.
GEARTRAIN_NET_RENDEZVOUS=127.0.0.1:27150
export GEARTRAIN_NET_RENDEZVOUS
by_mpirun -n 2 -x RANK=7 -x GEARTRAIN_NET_RENDEZVOUS "$rank"
check "a named rendezvous" [ $? -eq 0 ]
close_checks
