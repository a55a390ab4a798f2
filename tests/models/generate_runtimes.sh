#!/bin/bash
# SPDX-License-Identifier: MIT
# tests/models/generate_runtimes.sh - one model over two OpenCL implementations, in one process: the first layers on PoCL,
# the last ones on Intel's runtime for CPUs, and the other way round.
#
# The text is that of one device: the 200 tokens that are published for stories260K (skipped without ../shared), and
# those of a run of a small GPT-2, greedy and drawn. ../kernel/intel_runtime.sh fetches Intel's runtime; compiled
# programs are kept beside it.
#
# $GEARTRAIN is the program [build/geartrain]. Exit 77 if the runtime is neither there nor to be had.
set -u
cd "$(dirname "$0")/../.." || exit 1

skip()
{
    echo "generation on two runtimes: $*; skipped"
    echo "0 passed, 0 failed"
    exit 77
}

. tests/kernel/intel_runtime.sh
intel_runtime || skip "$why"
vendors=${OCL_ICD_VENDORS:-/etc/OpenCL/vendors}
grep -qs pocl "$vendors"/*.icd || skip "PoCL is not installed in '$vendors'"
. tests/cli/cli_checks.sh
mkdir "$work/vendors" "$work/cache"
ln -s "$intel/programs" "$work/cache/programs"
echo "$intel/lib/libintelocl.so" > "$work/vendors/a.icd"
cp $(grep -l pocl "$vendors"/*.icd | head -n 1) "$work/vendors/b.icd"
export LD_LIBRARY_PATH=$intel/lib OCL_ICD_VENDORS=$work/vendors

# Their ids, whichever the loader lists first.
device_of() { program devices 2> stderr | grep -A 1 '^[a-z]*:[0-9]' | grep -B 1 "$1" | sed -n 's/^\([a-z]*:[0-9]*\) .*/\1/p' | head -n 1; }
pocl=$(device_of 'Portable Computing Language') other=$(device_of 'Intel(R) OpenCL')
check "both are there: '$pocl' and '$other'" [ -n "$pocl" -a -n "$other" -a "$pocl" != "$other" ]

write() { timeout 600 "$geartrain" generate -q --cut even "$@" 2> stderr < /dev/null; }
reference=${GT_SHARED:-$OLDPWD/../shared}/reference
if [ -e "$reference/stories260K.bin" ]; then
    for devices in "$pocl,$other" "$other,$pocl"; do
        story=$(write --from "$reference/stories260K.bin" --tokenizer "$reference/tok512.bin" --prompt Once --tokens 199 \
            --temperature 0 --devices "$devices")
        check "a checkpoint of llama2.c tells its story of 200 tokens: $devices" \
            test "$story" = "$(cat "$reference/stories260K_expected_greedy.txt")"
    done
else
    echo "skipped: no $reference/stories260K.bin"
fi
train_tiny --steps 40 --lr 3e-3 --eval-every 0 --devices "$pocl" --out run > stdout 2> stderr
prompt=$(head -c 50 "$text" | tr '\n' ' ')
for sampling in '--temperature 0' '--temperature 1 --top-p 0.9 --seed 5'; do
    write --from run --prompt "$prompt" -n 60 $sampling --stages 2 --devices "$pocl,$other" > both
    timeout 600 "$geartrain" generate -q --from run --prompt "$prompt" -n 60 $sampling --devices "$pocl" > one 2> stderr < /dev/null
    check "a small GPT-2 writes on both what it does on one, $sampling" cmp -s both one
    check "which is text" [ "$(wc -c < both)" -gt 100 ]
done
close_checks
