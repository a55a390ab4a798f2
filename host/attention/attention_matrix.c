/* SPDX-License-Identifier: MIT */
/* host/attention/attention_matrix.c - launches of cl/attention_matrix.cl.
 *
 * A program is built for one number of columns a head, since loops over them are unrolled into registers; a run
 * has one or two such numbers. */
#include "host/attention/attention_matrix.h"
#include "host/gemm/gemm_matrix.h"
#include "host/kernel/kernel_args.h"

#include <stdio.h>

/* A group has WAVES waves, of few lanes so many that they are ITEMS together. */
enum { WAVES = 4, ITEMS = 128, TILE = 16, OPTIONS = 96 };

#define GRADIENT " -DGRADIENT"
#define LENGTHS " -DLENGTHS"
#define FLOORS " -DFLOORS"
#define ALIGNED " -DALIGNED"
#define BOTH(options) \
    { options, DEV_FOR_ALL | DEV_16BIT_ONLY }, \
    { \
        options GRADIENT, DEV_FOR_ALL | DEV_16BIT_ONLY \
    }
static const dev_variant variants[] = {
    BOTH("-DHEAD=64" ALIGNED),  BOTH("-DHEAD=64" FLOORS),          BOTH("-DHEAD=80" LENGTHS),
    BOTH("-DHEAD=128" ALIGNED), BOTH("-DHEAD=128" FLOORS ALIGNED), { 0 },
};
#undef BOTH
const dev_family attention_matrix_family = {
    .file = "attention_matrix.cl", .stored = 1, .variants = variants, .intel = "-cl-intel-256-GRF-per-thread"
};

int attention_matrix_can(const attention_how *how)
{
    const int D = how->s->D;
    int lanes;
    if (kernel_set_storage(how->kernels) == DTYPE_F32 || D % TILE || D > ATTENTION_MATRIX_HEAD
        || (how->drop && how->drop->p > 0.0f) || !how->gemm)
        return 0;
    const int unit = gemm_matrix_number(how->gemm, &lanes);
    return unit && (unit != MATRIX_DPAS8 || D <= ATTENTION_MATRIX_ARC_HEAD);
}

/* As the kernel file has it for those who tell it nothing; here it is told. */
static int own_tiles(int unit, int D, int gradient)
{
    const int few = unit == MATRIX_DPAS8 || unit == MATRIX_DPAS16;
    return unit == MATRIX_MFMA || (!few && D <= 64 && !gradient) ? 2 : 1;
}

/* 1 if all rows begin at multiples of the eight elements that are loaded together. */
static int is_aligned(const kernel_attention_in *in)
{
    const kernel_heads *const all[] = { &in->q, &in->k, &in->v };
    uint64_t bits = 0;
    for (int i = 0; i < 3; i++)
        bits |= (uint64_t)all[i]->first | (uint64_t)all[i]->stride;
    return bits % 8 == 0;
}

/* One owner for every group's rows of every head. */
static gt_status launch(dev_list *l, const attention_how *how, const kernel_attention_in *in, const char *name,
                        int gradient, int heads, const kernel_args *a)
{
    const kernel_attention_shape *s = how->s;
    char options[OPTIONS];
    dev_program *p;
    int lanes;
    const int unit = gemm_matrix_number(how->gemm, &lanes), tiles = own_tiles(unit, s->D, gradient);
    const int waves = lanes < ITEMS / WAVES ? ITEMS / lanes : WAVES;
    const int rows = waves * tiles * (unit == MATRIX_DPAS8 ? TILE / 2 : TILE);
    const size_t groups = (size_t)heads * (size_t)((s->T + rows - 1) / rows), items = (size_t)(waves * lanes);
    snprintf(options, sizeof options, "-DHEAD=%d%s%s%s -DOWN_TILES=%d", s->D,
             s->lengths               ? LENGTHS
             : s->window || s->starts ? FLOORS
                                      : "",
             is_aligned(in) ? ALIGNED : "", gradient ? GRADIENT : "", tiles);
    gt_status st = gemm_matrix_program(how->gemm, &attention_matrix_family, kernel_set_storage(how->kernels), options,
                                       &p);
    return st ? st : dev_list_kernel(l, p, name, dev_grid_1d(groups * items, items), a->at, a->count);
}

gt_status attention_matrix_forward(dev_list *l, const attention_how *how, const kernel_attention_in *in,
                                   dev_buffer *out, dev_buffer *lse)
{
    kernel_args a = { .count = 0 };
    kernel_args_shape(&a, how->s);
    kernel_args_heads(&a, in);
    kernel_args_push(&a, dev_arg_buffer(out));
    kernel_args_push(&a, dev_arg_buffer(lse));
    gt_status st = kernel_attention_check(how->kernels, how->s, in);
    return st ? st : launch(l, how, in, "attention_matrix_forward", 0, how->s->B * how->s->H, &a);
}

gt_status attention_matrix_grad(dev_list *l, const attention_how *how, const kernel_attention_in *in, dev_buffer *out,
                                dev_buffer *lse, dev_buffer *dout, const kernel_attention_in *d, dev_buffer *scratch)
{
    const kernel_attention_shape *s = how->s;
    kernel_args a = { .count = 0 };
    kernel_args_shape(&a, s);
    kernel_args_heads(&a, in);
    kernel_args_push(&a, dev_arg_buffer(dout));
    kernel_args_push(&a, dev_arg_buffer(lse));
    kernel_args_push(&a, dev_arg_buffer(scratch));
    kernel_args_heads(&a, d);
    gt_status st = kernel_attention_check(how->kernels, s, in);
    if (!st)
        st = kernel_attention_check(how->kernels, s, d);
    if (!st)
        st = kernel_attention_delta(l, how->kernels, s, out, dout, scratch);
    if (!st)
        st = launch(l, how, in, "attention_matrix_dq", 1, s->B * s->H, &a);
    return st ? st : launch(l, how, in, "attention_matrix_dkv", 1, s->B * s->KV, &a);
}
