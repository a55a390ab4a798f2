#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/bench/collectives.sh - all-reduce here, in Open MPI and in gloo, side by side.
#
#   sh tests/bench/collectives.sh [--ranks N] [--rounds N] [--sizes "BYTES..."] [--over "shm tcp"]
#
# fp32, in place, all ranks on this machine. Shared memory against Open MPI's vader; tcp against
# its tcp and against gloo, which has nothing else (it is shown beside both). The programs
# take turns, round by round; what counts is the median over the rounds. The numbers are bus
# bandwidths: bytes / time x 2(p-1)/p, in GB/s of 1e9, and how many times the peer's. Each verifies its
# sums first. On a machine that others use as well, `chrt -r 1 sh tests/bench/collectives.sh` gives all
# of them the processors to themselves.
#
#   $GEARTRAIN   the program                       [build/geartrain]
#   $BEFORE      another build of it, shown beside []
#   $PYTHON      a Python that has torch           [/usr/bin/python3, of package python3-torch]
#
# Whichever peer is not installed is left out, by name. A measurement, not a test: it ends with
# 0 unless geartrain itself failed.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
ranks=2 rounds=3 sizes="8 64 1024 8192 65536 262144 1048576 4194304 16777216 67108864 268435456" over="shm tcp"
while [ $# -gt 0 ]; do
    case $1 in
    --ranks) ranks=$2 ;;
    --rounds) rounds=$2 ;;
    --sizes) sizes=$2 ;;
    --over) over=$2 ;;
    *) sed -n '2,21s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift 2 || exit 2
done
program=${GEARTRAIN:-$root/build/geartrain} before=${BEFORE:-} python=${PYTHON:-/usr/bin/python3}
[ -x "$program" ] || { echo "collectives.sh: no program at $program; build it, or set GEARTRAIN"; exit 1; }
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-collectives-XXXXXX") || exit 1
running=
trap '[ -z "$running" ] || kill $running 2> /dev/null; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# ---- the three of them: "BYTES MICROSECONDS" lines -------------------------------------------

ours()          # PROGRAM TRANSPORT
{
    for bytes in $sizes; do
        "$1" bench allreduce --ranks "$ranks" --transport "$2" -b "$bytes" -e "$bytes" --json \
            < /dev/null > "$work/line" || return 1
        sed -n 's/.*"bytes": \([0-9]*\).*"time_us": \([0-9.]*\).*"wrong": 0,.*/\1 \2/p' "$work/line"
    done
}

mpi()           # TRANSPORT
{
    btl=vader,self
    [ "$1" = tcp ] && btl=tcp,self
    user=
    [ "$(id -u)" = 0 ] && user=--allow-run-as-root
    mpirun $user --oversubscribe -n "$ranks" --mca pml ob1 --mca btl "$btl" "$work/allreduce_mpi" \
        $sizes < /dev/null 2> "$work/mpi.err"
}

gloo()
{
    rm -f "$work/store"
    rank=1
    while [ "$rank" -lt "$ranks" ]; do
        "$python" "$root/tests/bench/allreduce_gloo.py" "$rank" "$ranks" "$work/store" $sizes &
        running="$running $!"
        rank=$((rank + 1))
    done
    "$python" "$root/tests/bench/allreduce_gloo.py" 0 "$ranks" "$work/store" $sizes
    wait $running
    running=
}

have_mpi=0 have_gloo=0
if command -v mpicc > /dev/null && command -v mpirun > /dev/null \
    && mpicc -O2 -o "$work/allreduce_mpi" "$root/tests/bench/allreduce_mpi.c" 2> "$work/mpi.err"; then
    have_mpi=1
else
    echo "# without Open MPI: no mpicc and mpirun (packages openmpi-bin, libopenmpi-dev)"
fi
if "$python" -c 'import torch.distributed as d, sys; sys.exit(not d.is_available())' 2> /dev/null; then
    have_gloo=1
else
    echo "# without gloo: $python has no torch.distributed (package python3-torch)"
fi
export GLOO_SOCKET_IFNAME=lo

# ---- rounds ----------------------------------------------------------------------------------

round=1
while [ "$round" -le "$rounds" ]; do
    for transport in $over; do
        ours "$program" "$transport" >> "$work/ours.$transport" || { echo "collectives.sh: geartrain failed"; exit 1; }
        [ -z "$before" ] || ours "$before" "$transport" >> "$work/before.$transport" || before=
        [ $have_mpi = 0 ] || mpi "$transport" >> "$work/mpi.$transport" || { cat "$work/mpi.err"; have_mpi=0; }
    done
    [ $have_gloo = 0 ] || gloo >> "$work/gloo" || have_gloo=0
    round=$((round + 1))
done

# ---- table -----------------------------------------------------------------------------------

median()        # FILE BYTES: bus bandwidth in GB/s
{
    [ -f "$1" ] || { echo -; return; }
    awk -v b="$2" '$1 == b { print $2 }' "$1" | sort -g | awk -v b="$2" -v p="$ranks" '
        { t[NR] = $1 }
        END { if (!NR) { print "-"; exit }
              m = NR % 2 ? t[(NR + 1) / 2] : (t[NR / 2] + t[NR / 2 + 1]) / 2
              printf "%.4g", b * 2 * (p - 1) / p / m / 1e3 }'
}

echo "# all-reduce, fp32, in place, $ranks ranks, median of $rounds rounds, bus bandwidth in GB/s"
echo "# $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
ratio()         # OURS THEIRS: how many times theirs
{
    echo "$1 $2" | awk '{ if ($2 + 0 > 0) printf "%.2f", $1 / $2; else print "-" }'
}

for transport in $over; do
    [ -z "$before" ] || head=$(printf '%12s %6s' before x)
    printf '%-5s %12s %12s %12s %6s %12s %6s %s\n' "$transport" bytes geartrain "Open MPI" x "gloo (tcp)" x "${head:-}"
    for bytes in $sizes; do
        a=$(median "$work/ours.$transport" "$bytes")
        b=$(median "$work/mpi.$transport" "$bytes")
        c=$(median "$work/gloo" "$bytes")
        d=$(median "$work/before.$transport" "$bytes")
        [ -z "$before" ] || head=$(printf '%12s %6s' "$d" "$(ratio "$a" "$d")")
        printf '%-5s %12s %12s %12s %6s %12s %6s %s\n' "" "$bytes" "$a" "$b" "$(ratio "$a" "$b")" "$c" \
            "$(ratio "$a" "$c")" "${head:-}"
    done
done
