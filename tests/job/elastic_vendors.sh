#!/bin/sh
# SPDX-License-Identifier: MIT
# tests/job/elastic_vendors.sh - an elastic job that a device of another OpenCL implementation joins, and goes on with
# alone once the first one is killed: Intel's runtime for CPUs beside PoCL.
#
#   PoCL   step 1 ─────────────────────── kill -9
#   Intel             joins from memory ──────────── alone ── end
#
# The batch is the same whoever is there, so the losses are those of one device of PoCL, but for how the two
# compilers contract multiplications and additions.
#
# tests/kernel/intel_runtime.sh fetches that runtime; without it, or without PoCL, exit 77.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/kernel/intel_runtime.sh"
. "$tests/job/job_checks.sh"
. "$tests/job/elastic_checks.sh"

why= pocl=$(cat /etc/OpenCL/vendors/pocl.icd 2> /dev/null)
if [ -z "$pocl" ] || ! intel_runtime; then
    echo "skipped: ${why:-needs PoCL beside Intel's runtime}"
    exit 77
fi
mkdir pocl intel
echo "$pocl" > pocl/pocl.icd
echo "$intel/lib/libintelocl.so" > intel/intel.icd
mkdir "$work/cache"
ln -s "$intel/programs" "$work/cache/programs"
export XDG_CACHE_HOME="$work/cache" GT_LOG=warn,train:debug

# as pocl|intel COMMAND...: in this shell's place, with that implementation alone.
as()
{
    OCL_ICD_VENDORS=$work/$1
    [ "$1" = pocl ] || LD_LIBRARY_PATH=$intel/lib
    export OCL_ICD_VENDORS LD_LIBRARY_PATH
    shift
    exec "$@"
}
(as intel "$geartrain" devices) > devices 2>&1
if ! grep -q 'Intel(R) OpenCL' devices; then
    echo "skipped: Intel's runtime has no device here: $(head -n 1 devices)"
    exit 77
fi
words="train --model gpt2-tiny --data $text --tokenizer char --seq 32 --batch 8 --micro-batch 1 --eval-every 0
    --save-every 0 --lr-schedule constant --transport tcp"
port=$((20000 + $$ % 10000))

(as pocl timeout 240 "$geartrain" launch --elastic 1:2 --ranks 1 --replacements 0 --listen 127.0.0.1:$port -- \
    $words --steps 100000 --out run) > stdout 2> stderr < /dev/null &
outer=$!
until job=$(pgrep -P $outer) && [ -n "$job" ] || ! kill -0 $outer 2> /dev/null; do sleep 0.01; done
until_rows run 5 "$job"
(as intel timeout 240 "$geartrain" launch --join 127.0.0.1:$port -- $words --steps 100000 --out run) \
    > guest.out 2> guest.err < /dev/null &
guest=$!
await_line "with 2 ranks: from memory" "$job"
check "a device of another implementation joins a job that runs" \
    grep -q 'again   after step [1-9][0-9]* with 2 ranks: from memory' stderr
had=$(rows run)
until_rows run $((had + 10)) "$job"
kill -9 "$(place "$job" 1)"
joint=$(rows run)
until_rows run $((joint + 10)) $guest
check "and goes on alone when the first is killed" grep -q 'with 1 ranks: from memory' guest.err
kill -TERM "$job"
wait $outer
wait $guest
last=$(rows run)
check "each step is done once" each_once run "$last"
(as pocl "$geartrain" $words --steps "$last" --out alone) > alone.out 2>&1 < /dev/null
check "one device trains as far" [ $? -eq 0 ]
losses run > a && losses alone > b
check "with the losses of one device" awk '
    NR == FNR { want[$1] = $2; next }
    { d = $2 - want[$1]; if (!($2 > 0) || d > 1e-4 * $2 || d < -1e-4 * $2) { print "      step " $1 ": " want[$1], $2; bad = 1 } }
    END { exit bad || FNR < 25 }' a b
close_checks
