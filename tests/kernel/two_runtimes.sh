#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/kernel/two_runtimes.sh - devices of two OpenCL implementations train one model: Intel's
# runtime for CPUs beside PoCL, as replicas and as stages.
#
# Losses may differ from one device's by 1e-5: the two compilers contract multiplications and
# additions as they like and have exp and tanh of their own, all within rounding of fp32.
#
# intel_runtime.sh fetches that; without it, or without PoCL, exit 77.
. "$(dirname "$0")/intel_runtime.sh"
. "$(dirname "$0")/../cli/cli_checks.sh"

why= pocl=$(cat /etc/OpenCL/vendors/pocl.icd 2> /dev/null)
if [ -z "$pocl" ] || ! intel_runtime; then
    echo "skipped: ${why:-needs PoCL beside Intel's runtime}"
    exit 77
fi
mkdir vendors
echo "$pocl" > vendors/pocl.icd
echo "$intel/lib/libintelocl.so" > vendors/intel.icd
mkdir "$work/cache"
ln -s "$intel/programs" "$work/cache/programs"
export LD_LIBRARY_PATH="$intel/lib" OCL_ICD_VENDORS="$work/vendors"
"$geartrain" devices > devices
id_of() { awk -v what="$1" '/^[a-z]/ { id = $1 } index($0, what) { print id; exit }' devices; }
one=$(id_of 'Portable Computing Language') two=$(id_of 'Intel(R) OpenCL')
if [ -z "$one" ] || [ -z "$two" ]; then
    echo "skipped: both runtimes do not load side by side: found '$one' and '$two'"
    exit 77
fi

train()     # RUN OPTIONS...
{
    run=$1
    shift
    timeout 600 "$geartrain" train --model gpt2-tiny --data "$text" --tokenizer char --seq 32 --batch 8 \
        --micro-batch 2 --steps 10 --dropout 0.1 --out "$run" "$@" > stdout 2> stderr < /dev/null
}
losses() { sed -n 's/.*"loss": \([0-9.]*\),.*/\1/p' "$1/metrics.jsonl"; }
near()      # RUN RUN
{
    losses "$1" > a && losses "$2" > b && [ "$(wc -l < b)" -eq 10 ] && paste a b | awk '
        { d = $1 - $2; if (!($1 > 0) || d > 1e-5 * $1 || d < -1e-5 * $1) bad = 1 } END { exit bad || NR != 10 }'
}

train alone --devices "$one"
check "one device of PoCL trains" [ $? -eq 0 ]
train replicas --devices "$one,$two" --replicas 2 --stages 1
check "replicas of two implementations train" [ $? -eq 0 ]
check "on the curve of one" near alone replicas
train stages --devices "$one,$two" --stages 2 --replicas 1
check "stages of two implementations train" [ $? -eq 0 ]
check "on the same curve" near alone stages
check "each rank has its own device" \
    [ "$(grep -c "\"device\": \"$one\"" stages/plan.json) $(grep -c "\"device\": \"$two\"" stages/plan.json)" = "1 1" ]
close_checks
