/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_desc.c - what a description of a product means: its defaults, its bytes, its class.
 *
 * A choice is made per class: sizes, types, transposes, batch, kind of epilogue. Which engine is the fastest does not
 * change any more beyond some number of rows, so a large product belongs to the class of a smaller one of its kind that
 * takes about a hundredth of a second (gemm_shrink()): measuring a product of seconds would take a minute.
 *
 *   nt fp32 fp32 fp32 1024 768 768 1 -      transposes, types of A B C, M N K, batch, epilogue: g with an activation,
 *                                           e another, - none                                  */
#include "host/gemm/engine.h"

#include <stdio.h>

int gemm_has_epilogue(const gemm_desc *g)
{
    return g->bias || g->act || g->act_grad || g->residual || g->drop_p > 0;
}

gt_status gemm_complete(gemm_desc *out, const gemm_desc *in)
{
    gemm_desc g = *in;
    const int a_width = g.trans_a ? g.M : g.K, b_width = g.trans_b ? g.K : g.N;
    char names[64];

    if (g.M <= 0 || g.N <= 0 || g.K <= 0 || g.batch < 0)
        return gt_fail(GT_MISUSE,
                       "cannot multiply matrices of size %d x %d x %d: sizes must be"
                       " positive",
                       g.M, g.N, g.K);
    if (!dtype_is_storage(g.a_type) || !dtype_is_storage(g.c_type)
        || (!dtype_is_storage(g.b_type) && g.b_type != DTYPE_Q8))
        return gt_fail(GT_MISUSE, "cannot multiply %s by %s into %s: only %s can be multiplied", dtype_name(g.a_type),
                       dtype_name(g.b_type), dtype_name(g.c_type),
                       dtype_storage_names(names, sizeof names, ", ", " and "));
    g.lda = g.lda ? g.lda : a_width;
    g.ldb = g.ldb ? g.ldb : b_width;
    g.ldc = g.ldc ? g.ldc : g.N;
    g.batch = g.batch ? g.batch : 1;
    g.alpha = g.alpha != 0 ? g.alpha : 1.0f;
    if (g.lda < a_width || g.ldb < b_width || g.ldc < g.N)
        return gt_fail(GT_MISUSE,
                       "cannot multiply matrices with rows %d, %d, %d apart: rows are %d,"
                       " %d, %d wide",
                       g.lda, g.ldb, g.ldc, a_width, b_width, g.N);
    if (g.batch > 1 && g.stride_c < (int64_t)(g.M - 1) * g.ldc + g.N)
        return gt_fail(GT_MISUSE, "cannot multiply a batch: its results overlap, %lld elements apart",
                       (long long)g.stride_c);
    if (g.act && g.act_grad && g.act != g.act_grad)
        return gt_fail(GT_MISUSE, "cannot apply %s to a product and the slope of %s: a product has one activation",
                       activation_name(g.act), activation_name(g.act_grad));
    const int narrower = g.b_type != g.a_type;
    if ((narrower && g.b_type != DTYPE_BF16 && g.b_type != DTYPE_Q8) || (g.c_type != g.a_type && g.c_type != DTYPE_F32))
        return gt_fail(GT_UNSUPPORTED,
                       "cannot multiply %s by %s into %s: both factors have one type, or the right one is bf16 or"
                       " int8, and the result has the left one's or fp32",
                       dtype_name(g.a_type), dtype_name(g.b_type), dtype_name(g.c_type));
    if (g.b_type == DTYPE_Q8
        && (g.batch > 1 || g.ldb != b_width || g.b_first < 0 || g.b_first >= Q8_BLOCK || g.K > INT32_MAX - Q8_BLOCK
            || g.N > INT32_MAX - Q8_BLOCK))
        return gt_fail(GT_MISUSE, "cannot multiply by a matrix in 8 bits: it is not one dense matrix of blocks");
    if ((int64_t)g.M * g.batch > INT32_MAX)
        return gt_fail(GT_UNSUPPORTED,
                       "cannot multiply %d matrices of %d rows at once: rows are"
                       " counted with 32 bits",
                       g.batch, g.M);
    if (g.drop_p < 0 || g.drop_p >= 1)
        return gt_fail(GT_MISUSE, "cannot drop a share of %g of the elements: it must be in [0, 1)", (double)g.drop_p);
    *out = g;
    return GT_OK;
}

/* Elements from the first to one past the last of a batch of matrices. */
static uint64_t extent(int rows, int width, int ld, int batch, int64_t stride)
{
    return (uint64_t)(batch - 1) * (uint64_t)stride + (uint64_t)(rows - 1) * (uint64_t)ld + (uint64_t)width;
}

uint64_t gemm_a_bytes(const gemm_desc *g)
{
    return dtype_size(g->a_type)
           * extent(g->trans_a ? g->K : g->M, g->trans_a ? g->M : g->K, g->lda, g->batch, g->stride_a);
}

q8 gemm_q8(const gemm_desc *g)
{
    return (q8){ g->trans_b ? g->N : g->K, g->trans_b ? g->K : g->N, g->b_first };
}

uint64_t gemm_b_bytes(const gemm_desc *g)
{
    if (g->b_type == DTYPE_Q8)
        return q8_bytes(gemm_q8(g));
    return dtype_size(g->b_type)
           * extent(g->trans_b ? g->N : g->K, g->trans_b ? g->K : g->N, g->ldb, g->batch, g->stride_b);
}

uint64_t gemm_c_bytes(const gemm_desc *g)
{
    return dtype_size(g->c_type) * extent(g->M, g->N, g->ldc, g->batch, g->stride_c);
}

void gemm_class(char out[GEMM_CLASS], const gemm_desc *g)
{
    snprintf(out, GEMM_CLASS, "%c%c %s %s %s %d %d %d %d %c", g->trans_a ? 't' : 'n', g->trans_b ? 't' : 'n',
             dtype_name(g->a_type), dtype_name(g->b_type), dtype_name(g->c_type), g->M, g->N, g->K, g->batch,
             g->act || g->act_grad  ? 'g'
             : gemm_has_epilogue(g) ? 'e'
                                    : '-');
}

double gemm_flops(const gemm_desc *g)
{
    return 2.0 * g->M * g->N * g->K * g->batch;
}

/* A product that is measured has no fewer rows than this because of its size, where it can be made smaller otherwise. */
enum { FEWEST_ROWS = 128 };

/* The largest product of g's kind that is measured for it, of 1,300 million operations a core or fewer, or 2,000 a unit
 * of a GPU. Of a layer's three products the tokens are M, M, and K where A is transposed: those are halved first, behind
 * batches, for the sides that the model has decide how a library cuts a product up, and there its speed can jump (oneDNN
 * 2.6 in fp32 with 3,072 columns of B as they lie: half of what it has with 768, or with 2,048). */
gemm_desc gemm_shrink(const gemm_context *c, const gemm_desc *g)
{
    const dev_info *info = dev_info_of(gemm_device(c));
    const double most = (info->kind == DEV_CPU ? 1.3e9 : 2e9) * (info->compute_units > 0 ? info->compute_units : 1);
    gemm_desc s = *g;
    if (gemm_flops(&s) <= most)
        return s;
    while (gemm_flops(&s) > most) {
        int *longest = s.M >= s.N && s.M >= s.K ? &s.M : s.N >= s.K ? &s.N : &s.K;
        int *tokens = s.trans_a ? &s.K : &s.M;
        int *side = s.batch > 1 ? &s.batch : *tokens >= 2 * FEWEST_ROWS ? tokens : longest;
        *side = (*side + 1) / 2;
    }
    s.lda = s.trans_a ? s.M : s.K;
    s.ldb = s.trans_b ? s.K : s.N;
    s.ldc = s.N;
    s.stride_a = (int64_t)s.M * s.K;
    s.stride_b = (int64_t)s.K * s.N;
    s.stride_c = (int64_t)s.M * s.N;
    return s;
}
