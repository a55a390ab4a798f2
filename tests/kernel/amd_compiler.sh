# SPDX-License-Identifier: MIT
# tests/kernel/amd_compiler.sh - clang for AMD's GPUs, for the tests that compile for them; sourced, not run.
#
#   amd_bitcode FOLDER      makes FOLDER, ROCm's device libraries with those of newer chips; fails where clang-19 or
#                           they are not installed (packages clang-19, rocm-device-libs)
#
# The device libraries in Debian end before gfx942 and gfx11; what a newer chip adds to them is one number.
amd_bitcode()
{
    local libraries=/usr/lib/x86_64-linux-gnu/amdgcn/bitcode pair
    command -v clang-19 > /dev/null && [ -d $libraries ] || return 1
    mkdir "$1" && cp -s $libraries/*.bc "$1/"
    for pair in 942:9402 1100:11000 1201:12001; do
        echo "__constant const int __oclc_ISA_version = ${pair#*:};" > "$1/isa.cl"
        clang-19 -x cl -cl-std=CL2.0 -target amdgcn-amd-amdhsa -nogpulib -emit-llvm -c \
            "$1/isa.cl" -o "$1/oclc_isa_version_${pair%:*}.bc" || return 1
    done
}
