#!/bin/bash
# SPDX-License-Identifier: MIT
# tests/kernel/vendors_table.sh - what the vendors' compilers made of the kernels for matrix units, without a GPU.
#
#   vendors.sh --table [CHIP...]         [all that a compiler is here for]
#
# In bf16, every product and attention with heads of 64 and 128 columns. Of each kernel:
#
#   registers     those of a lane or, on AMD, vector, scalar and sums'; of an Intel thread; how many are spilled
#   local bytes   local memory of a group; and waves at once by both, of the most that the chip runs: on a SIMD of
#                 AMD's, an SM, a vector engine
#   inner loop    its instructions, those of the matrix unit among them, and how many of these come to a load from
#                 local memory and from global memory; multiply-adds an instruction
#
# machine_code.py reads them out of the disassembly, and says how. A kernel whose inner loop has no matrix instruction
# fails; what spills is shown here, and fails in vendors_matrix.sh.
# Beside them CLBlast's product in fp32, which has no bf16: its Xgemm with the parameters of its database for that chip,
# or else the vendor's, from $CLBLAST, a checkout; nothing of it is kept.
#
# A compiler that is not installed leaves its chips out, in one line; see vendors.sh. $BUILD is the build folder
# [build], $GT_PYTHON the interpreter [python3]. Exit 77 when no compiler is there.
set -u
cd "$(dirname "$0")/../.." || exit 1
: "${BUILD:=build}"
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-table-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
. tests/kernel/vendor_compilers.sh
mkdir "$work/rows"

targets= ptxas= nvdisasm=
prepare_amd && targets="amd:gfx90a amd:gfx942 amd:gfx1100 amd:gfx1201" \
    || echo "vendors: no compiler for amd here; left out"
prepare_xmx && targets="$targets xmx:dg2 xmx:pvc xmx:bmg" \
    || echo "vendors: XMX_OCLOC names no compiler that knows Intel's matrix unit; left out"
if prepare_nvidia && [ -n "$ptxas" ] && [ -n "$nvdisasm" ]; then
    targets="$targets nvidia:sm_80 nvidia:sm_90 nvidia:sm_120"
else
    echo "vendors: NVIDIA's table needs clang-19, libclc-15, ptxas and nvdisasm; left out"
fi
if [ $# -gt 0 ]; then
    targets=$(tr ' ' '\n' <<< "$targets" | grep -E ":($(tr ' ' '|' <<< "$*"))\$")
fi
if [ -z "$targets" ]; then
    echo "0 passed, 0 failed"
    exit 77
fi

# The programs: number, options for Intel, file, options.
list=$BUILD/tests/kernel/kernel_programs
"$list" | awk '$4 ~ /^(gemm|attention)_matrix.cl$/ && $5 == "-DSTORE=1" && !/-DACT|-DFLOORS|-DLENGTHS/ {
                   $1 = ++n; $2 = $3; $3 = ""; print }' > "$work/programs"
for file in gemm_matrix.cl attention_matrix.cl; do
    "$list" $file > "$work/$file" || exit 1
done

clblast=
if [ -n "${CLBLAST:-}" ]; then
    clblast=$work/clblast.cl database=$CLBLAST/src/database/kernels/xgemm/xgemm_32.hpp
    (cd "$CLBLAST/src/kernels" && for part in common level3/level3 level3/xgemm_part{1,2,3,4}; do
        sed '/^R"(/d; /^)"/d' $part.opencl || exit 1
    done) > "$clblast" && [ -f "$database" ] || { echo "vendors: '$CLBLAST' is no checkout of CLBlast"; exit 1; }
else
    echo "vendors: CLBLAST names no checkout of CLBlast, whose product is left out"
fi

# The parameters of CLBlast's database, as -D.
clblast_options()   # vendor chip
{
    local vendor group=$2
    case $1 in
    amd) vendor=AMD ;;
    xmx) vendor=Intel ;;
    nvidia) vendor=NVIDIA group=SM${2#sm_} group=${group%?}.${group: -1} ;;
    esac
    awk -v vendor="\"$vendor\"" -v wanted="$group" '
        /Precision::/ { split(substr($0, index($0, ", {") + 3), names, /[{}", ]+/) }
        /kDeviceType/ { ours = index($0, "kDeviceTypeGPU, " vendor) }
        ours && /^ *\{ "/ { split($0, part, "\""); split(part[2], name, ":") }
        ours && /kDeviceNameDefault/ {
            split(substr($0, index($0, "Params{") + 7), values, /[^0-9]+/)
            for (i = 2; i in names && names[i] != ""; i++)
                text[name[1]] = text[name[1]] " -D" names[i] "=" values[i]
        }
        END { print wanted in text ? text[wanted] : text["default"] }' "$database"
}

row()               # number vendor chip file what options...: a row in a file of its own
{
    local number=$1 vendor=$2 chip=$3 file=$4 what=$5 out=$work/$1.$3 to=$work/rows/$3-$1 said
    shift 5
    said=$("compile_$vendor" "$chip" "$file" "$out" "$@" 2>&1)
    case $vendor in
    amd) set -- "$out" ;;
    xmx) cp "$out/dump/"*.zeinfo "$out/dump/"*.asm "$out" 2> "$out.err"; set -- "$out" ;;
    nvidia)
        cat "$out" >> "$out.log"
        "$nvdisasm" -c "$out.cubin" > "$out.sass" 2> "$out.err"
        set -- "$out.log" "$out.sass"
        ;;
    esac
    "${GT_PYTHON:-python3}" tests/kernel/machine_code.py "$vendor" "$chip" "$what" "$@" > "$to" 2> "$out.err" \
        || echo "FAILED $chip $what: $(tr '\n\t' '  ' <<< "$said" | cut -c 1-300) $(tail -1 "$out.err")" > "$to"
    rm -rf "$out"*
}

export work matrix_kernels ptxas nvdisasm clblast database
export -f row clblast_options compile_amd compile_xmx compile_nvidia
for target in $targets; do
    vendor=${target%%:*} chip=${target#*:}
    while read -r number more file options; do
        what=$(sed 's/-DSTORE=1 *//; s/-D//g; s/  */ /g' <<< "$options")
        [ "$vendor" = xmx ] && [ "$more" != - ] && options="$options $more"
        printf "row %02d $vendor $chip $work/$file '${what:- }' -DSTYLE_GPU -DWG=256 $options\n" "$number"
    done < "$work/programs"
    # Whose functions AMD's driver leaves no calls of.
    more=
    [ "$vendor" = amd ] && more='-mllvm -amdgpu-early-inline-all -mllvm -amdgpu-function-calls=0'
    [ -z "$clblast" ] \
        || echo "row 99 $vendor $chip $clblast CLBlast -DPRECISION=32 $(clblast_options "$vendor" "$chip") $more"
done > "$work/jobs"
xargs -P "$(nproc)" -d '\n' -n 1 bash -c < "$work/jobs"

form='%-8s %-24s %-26s %15s %7s %7s %9s %6s %7s %6s %9s %9s %9s\n'
printf "$form" "" "" "" "" local "" waves "inner" "" "" matrix/ matrix/ products/
printf "$form" chip kernel "options" registers bytes spilled "at once" loop matrix share local global instr.
for target in $targets; do
    cat "$work/rows/${target#*:}"-* 
done > "$work/table"
awk -F '\t' -v form="$form" '
    /^FAILED/ { print; next }
    {
        by = $10 ? $10 : $11                    # where there is no matrix unit, multiply-adds
        printf form, $1, $3, $2, $4, $5, $6, $7 " of " $8, $9, $10 ? $10 : "fma " $11, sprintf("%.0f%%", 100 * by / $9),
            $12 ? sprintf("%.1f", by / $12) : "-", $14 ? sprintf("%.1f", by / $14) : "-", $15
    }
    !$10 && $3 ~ /matrix/ { print "FAILED " $1 " " $3 " " $2 ": no matrix instruction in its inner loop" }' "$work/table" \
    | tee "$work/shown"
rows=$(grep -vc '^FAILED' "$work/shown") failed=$(grep -c '^FAILED' "$work/shown")
echo "$rows passed, $failed failed"
[ "$failed" = 0 ]
