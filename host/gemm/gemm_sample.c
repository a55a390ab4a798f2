/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_sample.c - random operands, and some elements of their product in double. */
#include "host/gemm/gemm_sample.h"
#include "host/gemm/engine.h"

#include "host/base/random.h"

#include <math.h>
#include <stdlib.h>

enum { SAMPLES = 512 };

static gt_status make_operand(dev_device *d, void **host, dev_buffer **on, dtype type, uint64_t count, uint64_t stream)
{
    const uint64_t bytes = (count * dtype_size(type) + 3) & ~3ull;
    gt_random r;
    *host = calloc(1, bytes);
    if (!*host)
        return gt_fail(GT_NO_MEMORY, "cannot hold a benchmark's matrix of %llu bytes", (unsigned long long)bytes);
    gt_random_init(&r, 1, stream);
    for (uint64_t i = 0; i < count; i++)
        dtype_store(type, *host, i, 2.0f * gt_random_unit(&r) - 1.0f);
    gt_status st = dev_buffer_create(on, d, bytes, "GEMM benchmark");
    return st ? st : dev_write(d, *on, 0, *host, bytes);
}

gt_status gemm_sample_make(gemm_sample *out, dev_device *d, const gemm_desc *g)
{
    gemm_sample *s = out;
    const uint64_t M = (uint64_t)g->M, N = (uint64_t)g->N, K = (uint64_t)g->K;
    *s = (gemm_sample){ .g = *g, .c_bytes = (M * N * dtype_size(g->c_type) + 3) & ~3ull };
    if (g->batch != 1 || g->add || gemm_has_epilogue(g) || g->b_type == DTYPE_Q8 || g->ldc != g->N
        || g->lda != (g->trans_a ? g->M : g->K) || g->ldb != (g->trans_b ? g->K : g->N))
        return gt_fail(GT_UNSUPPORTED, "cannot time this product: only plain dense ones are timed");
    gt_status st = make_operand(d, &s->a, &s->on.a, g->a_type, M * K, 1);
    if (!st)
        st = make_operand(d, &s->b, &s->on.b, g->b_type, K * N, 2);
    if (!st)
        st = make_operand(d, &s->c, &s->on.c, g->c_type, M * N, 3);
    return st;
}

void gemm_sample_release(gemm_sample *s)
{
    dev_buffer_release(s->on.a);
    dev_buffer_release(s->on.b);
    dev_buffer_release(s->on.c);
    dev_buffer_release(s->on.scratch);
    free(s->a);
    free(s->b);
    free(s->c);
}

gt_status gemm_sample_read(gemm_sample *s, dev_device *d)
{
    return dev_read(d, s->on.c, 0, s->c, s->c_bytes);
}

double gemm_sample_error(const gemm_sample *s)
{
    const gemm_desc *g = &s->g;
    const size_t M = (size_t)g->M, N = (size_t)g->N, K = (size_t)g->K;
    double worst = 0;
    gt_random r;
    gt_random_init(&r, 2, 0);
    for (int i = 0; i < SAMPLES; i++) {
        const size_t m = (size_t)gt_random_below(&r, (uint64_t)M), n = (size_t)gt_random_below(&r, (uint64_t)N);
        double sum = 0, size = 0;
        for (size_t k = 0; k < K; k++) {
            const double p = (double)dtype_load(g->a_type, s->a, g->trans_a ? k * M + m : m * K + k)
                             * (double)dtype_load(g->b_type, s->b, g->trans_b ? n * K + k : k * N + n);
            sum += p;
            size += fabs(p);
        }
        const double off = fabs((double)dtype_load(g->c_type, s->c, m * N + n) - sum) / (size > 0 ? size : 1);
        worst = off <= worst ? worst : isnan(off) ? INFINITY : off;
    }
    return worst;
}

double gemm_sample_allowed(const gemm_sample *s)
{
    const dtype type = s->g.c_type;
    return (type == DTYPE_BF16 ? 1.0 / 256 : type == DTYPE_F16 ? 1.0 / 2048 : 0) + 1e-5;
}
