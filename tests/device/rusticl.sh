#!/bin/bash
# SPDX-License-Identifier: MIT
# tests/device/rusticl.sh - Mesa's rusticl on llvmpipe, which computes wrongly without an error: it is
# refused by name, and never chosen while there is another device.
#
# Version 22.3 ends every loop of a work-item after 65,535 turns, and stamps every event 0, 1, 2, 3. A
# later one may be right: then it must train as PoCL does. The package is downloaded and unpacked into
# the cache folder ($GT_VENDORS overrides), for an installed one would add a platform to the machine.
# Exit 77 if it is not to be had, or what it needs is not installed (libllvm15 comes with PoCL, libclc-15
# with the vendors' compilers).
. "$(dirname "$0")/../cli/cli_checks.sh"
root=${GT_VENDORS:-${XDG_CACHE_HOME:-$HOME/.cache}/geartrain/vendors}/rusticl
library=$root/usr/lib/$(uname -m)-linux-gnu/libRusticlOpenCL.so.1

skip()
{
    echo "rusticl: $*; skipped"
    echo "0 passed, 0 failed"
    exit 77
}

unpack()
{
    command -v apt-get > /dev/null && command -v dpkg > /dev/null || skip "there is no apt-get to download it"
    mkdir -p "$work/debs" "$root"
    (cd "$work/debs" && apt-get download mesa-opencl-icd libllvmspirvlib15) > "$work/apt.log" 2>&1 \
        || skip "it cannot be downloaded"
    for deb in "$work"/debs/*.deb; do
        dpkg -x "$deb" "$root" || skip "'${deb##*/}' cannot be unpacked"
    done
}

[ -e /usr/lib/clc/spirv64-mesa3d-.spv ] || skip "libclc-15 is not installed"
[ -e "$library" ] || unpack
LD_LIBRARY_PATH=${library%/*}
export LD_LIBRARY_PATH
! ldd "$library" | grep -q 'not found' || skip "it lacks $(ldd "$library" | sed -n 's/ => not found//p' | tr -d '\n')"
mkdir "$work/alone" "$work/both"
echo "$library" | tee "$work/alone/rusticl.icd" > "$work/both/rusticl.icd"
cp /etc/OpenCL/vendors/pocl.icd "$work/both/" 2> /dev/null

OCL_ICD_VENDORS=$work/alone
export OCL_ICD_VENDORS
timeout 240 "$geartrain" doctor > stdout 2> stderr
check "without its variable the doctor names it" grep -q "^BAD .*RUSTICL_ENABLE names, and that is not set" stdout

RUSTICL_ENABLE=llvmpipe
export RUSTICL_ENABLE
timeout 300 "$geartrain" doctor > stdout 2> stderr
grep -q 'llvmpipe' stdout || skip "it shows no llvmpipe"
if grep -q "^ok .*long loop" stdout; then
    OCL_ICD_VENDORS=$work/alone timeout 600 "$geartrain" doctor --prove > stdout 2> stderr
    check "a version whose loops are right trains as the host does" grep -q "^ok .*training step" stdout
    close_checks
fi
check "the doctor says what its loops do" grep -Eq "^BAD .*llvmpipe.*driver .*long loop: a loop of 200003 turns ended after 65535" stdout
check "and its nested loops" grep -Eq "^BAD .*nested loops: 500 loops of 401 turns gave" stdout
check "and its stamps" grep -Eq "^BAD .*clock: a kernel that took .* ms took 1e-06 ms by its event's stamps" stdout
refused()       # rusticl writes warnings of its own
{
    timeout 300 "$geartrain" train --model gpt2-tiny --data "$text" --tokenizer char --steps 1 --out run \
        > stdout 2> stderr
    [ $? -eq 1 ] && grep -q "device 'cpu:0' (llvmpipe.*rusticl, driver .*computes wrongly: a loop of 200003" stderr
}
check "training is refused, with name and reason" refused
check "and nothing is written" test ! -e run/checkpoints

if [ -e both/pocl.icd ]; then
    export OCL_ICD_VENDORS=$work/both
    timeout 240 "$geartrain" devices > stdout 2> stderr
    check "beside another it is listed as not used" sh -c "grep -A5 llvmpipe stdout | grep -q 'not used, for it computes wrongly'"
    timeout 300 "$geartrain" train --model gpt2-tiny --data "$text" --tokenizer char --seq 32 --batch 4 --steps 2 \
        --out run > stdout 2> stderr
    check "and training takes the other one" sh -c "grep -q '^device .*pthread' stderr && grep -q '^step 2' stdout"
    train_two() { timeout 300 "$geartrain" train --model gpt2-tiny --data "$text" --tokenizer char --seq 32 \
        --batch 4 --steps 2 --ranks 2 --out two > stdout 2> stderr; }
    check "two ranks without a list share the other one" train_two
fi
close_checks
