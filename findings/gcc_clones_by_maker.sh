#!/bin/sh
# SPDX-License-Identifier: MIT
# findings/gcc_clones_by_maker.sh - GCC's clone for arch=skylake-avx512 is never taken on AMD's processors with AVX-512.
#
# One would guess: of a function with target_clones("arch=skylake-avx512", "avx2", "default") the first is taken wherever the
# processor has all the instructions that -march=skylake-avx512 may use, for that option only says which those are.
# Seen with GCC 12.2 (Debian 12) on a Zen 4 server processor: the avx2 clone is taken, for in clones a processor's
# name is a question of its maker and model; with arch=x86-64-v4, a level and no processor, the AVX-512 clone
# is. So loops run at half the width there, right but slower, and nothing says so.
#
# Needs gcc-12 and an AMD processor with AVX512F, BW, CD, DQ and VL. Exit 0 if it is as described, 1 if not, 77 if
# it cannot be tried.
set -u
grep -q AuthenticAMD /proc/cpuinfo || { echo "not a processor of AMD's"; exit 77; }
for flag in avx512f avx512bw avx512cd avx512dq avx512vl; do
    grep -qw $flag /proc/cpuinfo || { echo "a processor without $flag"; exit 77; }
done
command -v gcc-12 > /dev/null || { echo "no gcc-12"; exit 77; }
work=$(mktemp -d "${TMPDIR:-/tmp}/finding-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

cat > clones.c <<'C'
#include <stdio.h>
__attribute__((noinline)) unsigned long here(void)
{
    return (unsigned long)__builtin_return_address(0);
}
__attribute__((noinline, target_clones(WIDEST, "avx2", "default"))) unsigned long clone(void)
{
    volatile unsigned long at = here();          /* no tail call: the address is one of this clone's */
    return at;
}
int main(void)
{
    printf("%lx\n", clone());
    return 0;
}
C
# Which clone's code an address lies in: the last symbol that is not behind it.
taken()         # WIDEST
{
    gcc-12 -O2 -no-pie -DWIDEST="\"$1\"" -o clones clones.c || exit 77
    at=$(./clones)
    { nm clones | grep -i ' t clone\.'; echo "$at ? at"; } | sed 's/^0*//' | sort | sed -n '/ ? at/q;p' | tail -n 1 | sed 's/.* clone\.//'
}
by_name=$(taken arch=skylake-avx512) by_level=$(taken arch=x86-64-v4)
echo "$(gcc-12 -dumpfullversion), $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
echo "of arch=skylake-avx512, avx2 and default, taken: $by_name"
echo "of arch=x86-64-v4, avx2 and default, taken:      $by_level"
case $by_name,$by_level in avx2*,arch_x86_64_v4*) exit 0 ;; esac
exit 1
