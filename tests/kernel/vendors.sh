#!/bin/bash
# SPDX-License-Identifier: MIT
# tests/kernel/vendors.sh - compiles every kernel with the vendors' compilers, without a GPU.
#
#   amd     clang-19 with ROCm's device libraries, for six generations; no spills, no scratch
#   intel   ocloc, for Arc (dg2) and Data Center Max (pvc); no spills
#   xmx     a newer ocloc, $XMX_OCLOC, for Arc, Data Center Max and Battlemage (bmg): what multiplies by
#           the matrix unit; no spills, and its instruction, dpas, in the assembly of each kernel
#   nvidia  clang-19 to PTX with libclc, sm_80; where ptxas is found, on to machine code for sm_80,
#           sm_90 and sm_120: no spills, and by nvdisasm the matrix unit's instruction, HMMA
#   spirv   clang-15 and llvm-spirv-15 to SPIR-V, which spirv-val reads
#
# A compiler that is not installed leaves its targets out, in one line. Packages: clang-19
# rocm-device-libs libclc-15 clang-15 llvm-spirv-15 spirv-tools; ocloc is downloaded and
# unpacked into a folder of its own, for an installed one would add a platform to the machine.
# ptxas and nvdisasm are looked for in $PTXAS and $NVDISASM, on the path, in /usr/local/cuda/bin and among
# Python's packages (nvidia-cuda-nvcc, nvidia-cuda-nvdisasm).
# vendors.sh --table [CHIP...] tells what became of the matrix kernels: vendors_table.sh.
# With words given, only programs whose line contains one of them: vendors.sh norm.cl. Without, all but those
# of the matrix units, which vendors_matrix.sh has: together they would take a quarter of an hour.
#
# $BUILD is the build folder [build].
# Exit 0 when all passed, 77 when no compiler is there.
set -u
cd "$(dirname "$0")/../.." || exit 1
[ "${1:-}" != --table ] || exec bash tests/kernel/vendors_table.sh "${@:2}"
: "${BUILD:=build}"
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-vendors-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT

# The programs and their texts, from the tables of kernel families. Each compiler's first chip takes
# every storage type; the others, which differ in registers and instructions, what is marked so, in fp32, or in
# both other types what has them alone.
list=$BUILD/tests/kernel/kernel_programs
"$list" > "$work/programs" || exit 1

. tests/kernel/vendor_compilers.sh

# ---- one compilation: "vendor chip number program options..." ------------------------------

compile()
{
    local vendor=$1 chip=$2 number=$3 file=$4 log
    shift 4
    local group=-DWG=256
    if log=$("compile_$vendor" "$chip" "$work/$number.cl" "$work/$number.$chip" -DSTYLE_GPU $group "$@" 2>&1)
    then
        echo passed >> "$work/passed"
    else
        echo "FAILED $vendor $chip: $file $*"
        head -12 <<< "$log"
        echo failed >> "$work/failed"
    fi
    rm -rf "$work/$number.$chip"*
}

touch "$work/passed" "$work/failed"

targets= ptxas=
add_targets()
{
    local vendor=$1
    shift
    if "prepare_$vendor"; then
        for chip in "$@"; do
            targets="$targets $vendor:$chip"
        done
    else
        echo "vendors: no compiler for $vendor here; left out"
    fi
}
add_targets amd gfx906 gfx90a gfx942 gfx1030 gfx1100 gfx1201
add_targets intel dg2 pvc
add_targets xmx dg2 pvc bmg
add_targets nvidia sm_80 sm_90 sm_120
add_targets spirv spirv
if [ -z "$targets" ]; then
    echo "0 passed, 0 failed"
    exit 77
fi

export work matrix_kernels
export -f compile compile_amd compile_intel compile_xmx compile_nvidia compile_spirv
number=0
while read -r who intel more_intel file options; do
    if [ $# -gt 0 ]; then
        wanted=0
        for word in "$@"; do
            [[ "$file $options" == *"$word"* ]] && wanted=1
        done
        [ $wanted = 1 ] || continue
    elif [[ "$file" == *matrix* ]]; then
        continue
    fi
    number=$((number + 1))
    "$list" "$file" > "$work/$number.cl" || exit 1
    before=
    for target in $targets; do
        vendor=${target%%:*}
        [ "$who" = one ] && [ "$vendor" = "$before" ] && continue
        # Without ptxas all of NVIDIA's chips are given nearly the same PTX.
        [ "$vendor:$before:$ptxas" = nvidia:nvidia: ] && continue
        before=$vendor
        more=
        case $vendor:$file in
        xmx:*matrix*) ;;
        xmx:*) continue ;;
        esac
        if [ "$vendor" = intel ] || [ "$vendor" = xmx ]; then
            [ "$intel" = no ] && continue
            [ "$more_intel" = - ] || more=" $more_intel"
        fi
        echo "compile ${target%%:*} ${target#*:} $number $file $options$more"
    done
done < "$work/programs" > "$work/jobs"
xargs -P "$(nproc)" -d '\n' -n 1 bash -c < "$work/jobs"

passed=$(wc -l < "$work/passed") failed=$(wc -l < "$work/failed")
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
