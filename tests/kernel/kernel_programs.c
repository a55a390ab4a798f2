/* SPDX-License-Identifier: MIT */
/* tests/kernel/kernel_programs.c - tells vendors.sh what the tables of kernel families hold.
 *
 *   kernel_programs            a line a program: all|one  no|any  WORD...  FILE OPTIONS...
 *                                  all: for every chip; one: for the first of each vendor
 *                                  no: not for Intel's GPUs; WORD: more options there, "-" for none
 *   kernel_programs FILE       the text that the host gives a compiler for it              */
#include "cl/kernels.h"
#include "host/attention/attention_matrix.h"
#include "host/gemm/engine.h"
#include "host/kernel/kernel_private.h"

#include <stdio.h>

static void show(const dev_family *f)
{
    for (const dev_variant *v = f->variants; v->options; v++) {
        const dtype first = v->flags & DEV_16BIT_ONLY ? DTYPE_BF16 : DTYPE_F32;
        for (dtype t = first; t <= (f->stored ? DTYPE_F16 : DTYPE_F32); t++) {
            if (v->flags & DEV_CPU_ONLY)
                continue;
            printf("%s %s %s %s %s %s\n",
                   v->flags & DEV_FOR_ALL && (t == DTYPE_F32 || first != DTYPE_F32) ? "all" : "one",
                   v->flags & DEV_NOT_INTEL ? "no" : "any", f->intel ? f->intel : "-", f->file,
                   f->stored ? dev_store_option(t) : "", v->options);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        const char *const *parts = cl_parts(argv[1]);
        for (int i = 0; parts && parts[i]; i++)
            fputs(parts[i], stdout);
        return !parts;
    }
    for (int i = 0; dev_family_at(i); i++)
        show(dev_family_at(i));
    for (int i = 0; kernel_family_at(i); i++)
        show(&kernel_family_at(i)->program);
    for (int i = 0; gemm_family_at(i); i++)
        show(gemm_family_at(i));
    show(&attention_matrix_family);
    return 0;
}
