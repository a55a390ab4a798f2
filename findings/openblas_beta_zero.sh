#!/bin/sh
# SPDX-License-Identifier: MIT
# findings/openblas_beta_zero.sh - OpenBLAS writes the whole of C twice when beta is 0, and once when it is 1.
#
# One would guess: with beta 0 a product need not read C, and is written once; with beta 1 it is read and written, which
# costs more. So whoever has the choice clears nothing and asks for beta 0.
# Seen with OpenBLAS 0.3.21 (Debian 12), single precision, 64 x 64 x 64, by watching an element: with beta 0 it becomes 0
# first and the product then, since all of C is cleared before the kernels add to it; with beta 1 it is written once. Of
# matrices larger than the caches with few terms a sum that is a pass over memory more than adding to what
# is there takes: a gradient that is added to fresh zeros costs no more than one that is "only written".
#
# Installs libopenblas0-pthread, libopenblas-pthread-dev and gdb with apt-get download into a temporary folder; gcc, what
# gdb depends on, and a processor with debug registers that the system lends out must be there. Exit 0 if it is as
# described, 1 if not, 77 if it cannot be tried.
set -u
version=0.3.21+ds-4
work=$(mktemp -d "${TMPDIR:-/tmp}/finding-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
apt-get download libopenblas0-pthread=$version libopenblas-pthread-dev=$version gdb > log 2>&1 || { cat log; exit 77; }
for deb in *.deb; do dpkg -x "$deb" root || exit 77; done
libraries=$(dirname "$(find root -name 'libopenblas.so.0' | head -n 1)")
headers=$(dirname "$(find root -name cblas.h | head -n 1)")

cat > beta.c <<'C'
#include <cblas.h>
#include <stdlib.h>
enum { N = 64 };
float *c;                                       /* of which the debugger watches the first */
int main(int argc, char **argv)
{
    float *a = malloc(N * N * sizeof *a), *b = malloc(N * N * sizeof *b);
    c = malloc(N * N * sizeof *c);
    for (int i = 0; i < N * N; i++)
        a[i] = b[i] = 1.0f, c[i] = 7.0f;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, N, N, N, 1.0f, a, N, b, N, argc > 1 ? (float)atof(argv[1]) : 0.0f,
                c, N);
    return c[0] > 0.0f ? 0 : 1;
}
C
gcc -g -O1 -o beta beta.c -I"$headers" -L"$libraries" -l:libopenblas.so.0 -Wl,-rpath,"$PWD/$libraries" || exit 77

# What the element becomes, one value after the other.
values()        # BETA
{
    OPENBLAS_NUM_THREADS=1 timeout 300 root/usr/bin/gdb -q -batch -nx -ex 'break cblas_sgemm' -ex "run $1" -ex 'watch -l *c' \
        -ex continue -ex continue -ex continue ./beta 2> gdb.err | sed -n 's/^New value = //p' | tr '\n' ' '
}
zero=$(values 0) one=$(values 1)
[ -n "$one" ] || { echo "nothing can be watched here: $(tail -n 1 gdb.err)"; exit 77; }
echo "OpenBLAS $version, C is 7, the product 64"
echo "beta 0: C becomes $zero"
echo "beta 1: C becomes $one"
[ "$zero" = "0 64 " ] && [ "$one" = "71 " ]
