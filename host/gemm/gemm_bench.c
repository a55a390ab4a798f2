/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_bench.c - times one product on every engine, after checking it. */
#include "host/gemm/engine.h"

#include "host/base/clock.h"
#include "host/base/random.h"

#include <math.h>
#include <stdlib.h>

/* Elements of C that are computed again on the host, in double: all would take longer
 * than the measurement. */
enum { SAMPLES = 512, WARM_UP = 2, MOST_RUNS = 1000 };

typedef struct bench {
    gemm_context *context;
    gemm_desc g;
    void *a, *b;                    /* host copies */
    void *c;
    uint64_t a_count, b_count, c_count;
    gemm_buffers on;
} bench;

static int by_time(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

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

/* The largest error over sampled elements, in units of the sum of |a * b|. */
static double largest_error(const bench *x)
{
    const gemm_desc *g = &x->g;
    double worst = 0;
    gt_random r;
    gt_random_init(&r, 2, 0);
    for (int s = 0; s < SAMPLES; s++) {
        const size_t m = (size_t)gt_random_below(&r, (uint64_t)g->M);
        const size_t n = (size_t)gt_random_below(&r, (uint64_t)g->N);
        const size_t K = (size_t)g->K, M = (size_t)g->M, N = (size_t)g->N;
        double sum = 0, size = 0;
        for (size_t k = 0; k < K; k++) {
            const double p = (double)dtype_load(g->a_type, x->a, g->trans_a ? k * M + m : m * K + k)
                             * (double)dtype_load(g->b_type, x->b, g->trans_b ? n * K + k : k * N + n);
            sum += p;
            size += fabs(p);
        }
        const double off = fabs((double)dtype_load(g->c_type, x->c, m * N + n) - sum);
        worst = fmax(worst, off / (size > 0 ? size : 1));
    }
    return worst;
}

/* What storing the result may cost, and what adding K products in fp32 may. */
static double allowed_error(const gemm_desc *g)
{
    const double store = g->c_type == DTYPE_BF16 ? 1.0 / 256 : g->c_type == DTYPE_F16 ? 1.0 / 2048 : 0;
    return store + 1e-5;
}

static gt_status time_engine(bench *x, const gemm_engine *e, int runs, gemm_result *out)
{
    dev_device *d = gemm_device(x->context);
    double *seconds = malloc(MOST_RUNS * sizeof *seconds);
    uint64_t scratch = e->scratch(x->context, &x->g);
    dev_list *l = NULL;
    gt_status st = GT_OK;

    runs = runs < 1 ? 1 : runs > MOST_RUNS ? MOST_RUNS : runs;
    if (!seconds)
        st = gt_fail(GT_NO_MEMORY, "no memory for the times of the GEMM benchmark");
    if (!st)
        st = dev_buffer_create(&x->on.scratch, d, scratch < 64 ? 64 : scratch, "GEMM scratch");
    if (!st)
        st = dev_list_create(&l, d);
    if (!st)
        st = e->append(x->context, l, &x->g, &x->on, NULL);
    for (int i = -WARM_UP; !st && i < runs; i++) {
        const uint64_t start = gt_now_ns();
        st = dev_run(l, 0, -1);
        if (!st)
            st = dev_wait(d);
        if (i >= 0)
            seconds[i] = (double)(gt_now_ns() - start) * 1e-9;
    }
    if (!st)
        st = dev_read(d, x->on.c, 0, x->c, (x->c_count * dtype_size(x->g.c_type) + 3) & ~3ull);
    if (!st) {
        const double flop = 2.0 * x->g.M * x->g.N * x->g.K;
        qsort(seconds, (size_t)runs, sizeof *seconds, by_time);
        *out = (gemm_result){
            .engine = gemm_name_of(e),
            .runs = runs,
            .min_s = seconds[0],
            .median_s = seconds[runs / 2],
            .p99_s = seconds[(runs * 99) / 100],
            .error = largest_error(x),
            .flops = flop / seconds[runs / 2],
        };
        if (!(out->error <= allowed_error(&x->g)))
            st = gt_fail(GT_NUMERIC,
                         "engine '%s' is wrong: %d x %d x %d is off by %.3g of the sum of"
                         " its products",
                         gemm_name_of(e), x->g.M, x->g.N, x->g.K, out->error);
    }
    dev_list_release(l);
    dev_buffer_release(x->on.scratch);
    x->on.scratch = NULL;
    free(seconds);
    return st;
}

gt_status gemm_bench(gemm_context *c, const gemm_desc *desc, int runs, double peak_flops,
                     void (*each)(void *context, const gemm_result *r), void *context)
{
    bench x = { .context = c };
    dev_device *d = gemm_device(c);
    gt_status st = gemm_complete(&x.g, desc);
    if (st)
        return st;
    if (x.g.batch != 1 || x.g.add || gemm_has_epilogue(&x.g) || x.g.ldc != x.g.N
        || x.g.lda != (x.g.trans_a ? x.g.M : x.g.K) || x.g.ldb != (x.g.trans_b ? x.g.K : x.g.N))
        return gt_fail(GT_UNSUPPORTED, "cannot time this product: only plain dense ones are timed");

    x.a_count = (uint64_t)x.g.M * (uint64_t)x.g.K;
    x.b_count = (uint64_t)x.g.K * (uint64_t)x.g.N;
    x.c_count = (uint64_t)x.g.M * (uint64_t)x.g.N;
    st = make_operand(d, &x.a, &x.on.a, x.g.a_type, x.a_count, 1);
    if (!st)
        st = make_operand(d, &x.b, &x.on.b, x.g.b_type, x.b_count, 2);
    if (!st)
        st = make_operand(d, &x.c, &x.on.c, x.g.c_type, x.c_count, 3);
    for (int i = 0; !st && gemm_engine_row(i); i++) {
        const gemm_engine *e = gemm_engine_row(i);
        gemm_result r;
        if (!gemm_may_use(c, e) || !e->can(c, &x.g))
            continue;
        st = time_engine(&x, e, runs, &r);
        if (!st) {
            r.share = peak_flops > 0 ? r.flops / peak_flops : 0;
            each(context, &r);
        }
    }
    dev_buffer_release(x.on.a);
    dev_buffer_release(x.on.b);
    dev_buffer_release(x.on.c);
    free(x.a);
    free(x.b);
    free(x.c);
    return st;
}
