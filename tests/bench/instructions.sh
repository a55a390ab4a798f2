#!/bin/bash
# SPDX-License-Identifier: MIT
# tests/bench/instructions.sh - how many instructions a wave runs with and without AMD's matrix units, without a GPU.
#
#   TINYGRAD=CHECKOUT instructions.sh [CHIP...]         [gfx1100 gfx1201 gfx942 gfx90a]
#
# On the emulated chips of tests/kernel/emulated.sh, in bf16:
#
#   product      512 x 512 x 512 by the tiled kernel and by the matrix unit, every instruction of every wave
#   attention    one causal head of 64 columns, forward and backward. Counted at 128, 256 and 512 tokens; a kernel has groups
#                by rows, a group a loop over blocks of the rows before it, so its count is a polynomial of degree 2
#                in the tokens, which these three give at 4096. It is compared with what 384 tokens count.
#   inner loop   of blocks of 128 x 128 that are whole: a wave's instructions from one slice of k to the next, as those of
#                k = 192 less those of k = 128. Waits, and hints to the scheduler, are instructions there; and, by
#                machine_code.py, what the compiler says of registers and waves, and the same loop as it is written down
#   projection   flop a second: of its matrix instructions' cycles, by AMD's tables, the part that the loop's
#                leave them, times what the vendor says the chip does at most
#
# The projection is none of memory, caches, waits and clocks under load, which only a chip has: a bound, not
# a rate. Cycles: https://github.com/ROCm/amd_matrix_instruction_calculator. A matrix instruction of RDNA takes its SIMD's
# place for vector instructions, of CDNA it runs beside them; "apart" counts them one after the other, "beside" at
# once. Local memory gives a CU 128 bytes a cycle.
#
# $BUILD is the build folder [build]. A measurement; it fails if a result is wrong. Exit 77 without what emulated.sh needs.
set -u
cd "$(dirname "$0")/../.." || exit 1
: "${BUILD:=build}"
work=$(mktemp -d "${TMPDIR:-/tmp}/geartrain-instructions-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
. tests/kernel/emulated_device.sh
emulated_device "$work" || { echo "instructions: $why; skipped"; exit 77; }
cmake --build "$BUILD" --target matrix_work kernel_programs > "$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
work_of=$BUILD/tests/kernel/matrix_work

# chip, what it is sold as, CUs, SIMDs a CU, GHz, cycles of a product of 16 x 16 x 16, and of a vector instruction;
# the vendor's own rate for its library, TFLOP/s, or -
chips='gfx1100 RX-7900-XTX 96 2 2.5 32 1 -
gfx1201 RX-9070-XT 64 2 2.97 16 1 -
gfx942 MI300X 304 4 2.1 16 4 708
gfx90a MI250X 220 4 1.7 32 4 -'

counted()           # FILE ARGUMENTS...: runs that work, and leaves the counts in FILE
{
    local file=$work/$1
    shift
    rm -f "$file"
    GT_EMULATED_COUNTS=$file "$work_of" "$@" > "$work/out" 2> "$work/err" && return
    echo "instructions: $chip: $*: $(tail -1 "$work/err")"
    exit 1
}

# Of kernels whose names match, the launches with most groups: "ALL VECTOR MEMORY LOCAL MATRIX SCALAR" of one launch each, summed.
of()                # FILE PATTERN
{
    awk -v pattern="^($2)\$" '
        $2 ~ pattern {
            split($4, g, "x"); size = g[1] * g[2] * g[3]
            if (size < most[$2]) next
            most[$2] = size
            for (i = 0; i < 6; i++) c[$2, i] = $(10 + 2 * i) / $8
        }
        END { for (k in most) for (i = 0; i < 6; i++) s[i] += c[k, i]
              printf "%.0f %.0f %.0f %.0f %.0f %.0f\n", s[0], s[1], s[2], s[3], s[4], s[5] }' "$work/$1"
}

row()               # WHAT COUNTS
{
    printf '%-8s %-34s %12s %12s %9s %9s %9s %12s\n' "$chip" "$1" $2
}

times()             # COUNTS COUNTS
{
    awk -v a="${1%% *}" -v b="${2%% *}" 'BEGIN { printf "%.1f", a / b }'
}

# At 4096, through 128, 256 and 512; and at 384.
through()           # COUNTS COUNTS COUNTS TOKENS
{
    printf '%s\n%s\n%s\n' "$1" "$2" "$3" | awk -v t="$4" '
        { for (i = 1; i <= 6; i++) c[NR, i] = $i }
        END { for (i = 1; i <= 6; i++)
                  printf "%.0f%s", c[1, i] * (t - 256) * (t - 512) / (128 * 384) - c[2, i] * (t - 128) * (t - 512) / (128 * 256) \
                      + c[3, i] * (t - 128) * (t - 256) / (384 * 256), i < 6 ? " " : "\n" }'
}

registers()         # the large variant's, and its waves a SIMD
{
    "$BUILD/tests/kernel/kernel_programs" gemm_matrix.cl > "$work/kernel.cl"
    clang-19 -x cl -cl-std=CL1.2 -Xclang -finclude-default-header -target amdgcn-amd-amdhsa -mcpu="$chip" -O3 -S \
        --rocm-device-lib-path="$work/bitcode" -DSTYLE_GPU -DSTORE=1 -DTRANS_B "$work/kernel.cl" -o "$work/kernel.s" || exit 1
    "${GT_PYTHON:-python3}" tests/kernel/machine_code.py amd "$chip" - "$work/kernel.s" | awk -F '\t' '$3 == "gemm_matrix" {
        printf "registers %s, %d spilled, %d bytes of local memory, %d waves a SIMD; written down, %d of %d instructions", $4, $6,
            $5, $7, $10, $9 }'
}

list=${*:-gfx1100 gfx1201 gfx942 gfx90a}
printf '%-8s %-34s %12s %12s %9s %9s %9s %12s\n' chip "one launch each" all vector memory local matrix scalar
for chip in $list; do
    emulated_faults "$chip" 2> "$work/err" || { cat "$work/err"; exit 1; }
    emulated_chips "$chip"
    counted tiled product tiled 512 512 512
    counted matrix product matrix 512 512 512
    tiled=$(of tiled gemm_gpu) matrix=$(of matrix gemm_matrix)
    row "product, tiled" "$tiled"
    row "product, matrix unit" "$matrix"
    echo "         $(times "$tiled" "$matrix") times as few"
    for tokens in 128 256 384 512; do
        counted attention-$tokens attention $tokens 64
    done
    for way in 'kernel attention_[^m].*' 'matrix attention_matrix_.*'; do
        name=${way%% *} pattern=${way#* }
        for tokens in 128 256 384 512; do
            declare "at_$tokens=$(of attention-$tokens "$pattern")"
        done
        at_4096=$(through "$at_128" "$at_256" "$at_512" 4096)
        check=$(through "$at_128" "$at_256" "$at_512" 384)
        row "attention of 512, $name" "$at_512"
        row "attention of 4096, $name, derived" "$at_4096"
        echo "         of 384 tokens: ${at_384%% *} counted, ${check%% *} derived"
        declare "$name=$at_4096"
    done
    echo "         $(times "$kernel" "$matrix") times as few"
    counted large-128 many matrix 128
    blocks=$(awk '$1 == "blocks" { print $2 }' "$work/out")
    counted large-192 many matrix 192
    printf '%s\n%s\n' "$(of large-128 gemm_matrix)" "$(of large-192 gemm_matrix)" | awk -v waves=$((4 * blocks)) '
        { for (i = 1; i <= 6; i++) { d[i] = $i - last[i]; last[i] = $i } }
        END { for (i = 1; i <= 6; i++) printf "%.1f ", d[i] / waves / 2; print "" }' > "$work/loop-$chip"
    row "inner loop, a wave and slice" "$(cat "$work/loop-$chip")"
    awk '{ printf "         matrix instructions: %.1f%% of the inner loop\n", 100 * $5 / $1 }' "$work/loop-$chip"
    echo "         $(registers)"
done

echo
printf '%-8s %-12s %6s %6s %14s %14s %12s %12s %16s %12s\n' chip sold-as CUs GHz 'matrix cycles' 'vector cycles' 'local cycles' \
    'peak, TF/s' 'projected, TF/s' "library's"
for chip in $list; do
    grep "^$chip " <<< "$chips" | while read -r _ sold units simds ghz cycles vector library; do
        awk -v chip="$chip" -v sold="$sold" -v units="$units" -v simds="$simds" -v ghz="$ghz" -v cycles="$cycles" \
            -v vector="$vector" -v library="$library" '
            { m = $5 * cycles; v = $2 * vector; peak = units * simds * 8192 / cycles * ghz / 1000
              # pieces of A and B that a wave reads for 2 x 16 k, twice where both halves of a wave hold them; a quarter of what is kept
              bytes = 16 * 512 * (chip == "gfx1100" ? 2 : 1) + 256 * 32 * 2 / 4; l = bytes / 128 * simds
              apart = m + v; beside = m > v ? m : v; if (l > apart) apart = l; if (l > beside) beside = l
              if (vector == 1) beside = apart
              printf "%-8s %-12s %6d %6.2f %14.0f %14.0f %12.0f %12.1f %16s %12s\n", chip, sold, units, ghz, m, v, l, peak,
                  beside == apart ? sprintf("%.0f", peak * m / apart) : sprintf("%.0f..%.0f", peak * m / apart, peak * m / beside), library }' \
            "$work/loop-$chip"
    done
done
echo "projected: by the inner loop's instructions and the vendor's clocks alone, a bound; no chip was there"
echo "library's: hipBLASLt in bf16, by AMD (rocm.blogs.amd.com, Measuring Max-Achievable FLOPs, part 2, 2025; at 1.21 GHz); -: none known"
