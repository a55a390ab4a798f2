/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_bench.c - times one product on every engine, after checking it. */
#include "host/gemm/engine.h"
#include "host/gemm/gemm_sample.h"

#include "host/base/clock.h"

#include <stdlib.h>

enum { WARM_UP = 2, MOST_RUNS = 1000 };

static int by_time(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static gt_status time_engine(gemm_context *c, gemm_sample *x, const gemm_engine *e, int runs, gemm_result *out)
{
    dev_device *d = gemm_device(c);
    double *seconds = malloc(MOST_RUNS * sizeof *seconds);
    uint64_t scratch = e->scratch(c, &x->g);
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
        st = e->append(c, l, &x->g, &x->on, NULL);
    for (int i = -WARM_UP; !st && i < runs; i++) {
        const uint64_t start = gt_now_ns();
        st = dev_run(l, 0, -1);
        if (!st)
            st = dev_wait(d);
        if (i >= 0)
            seconds[i] = (double)(gt_now_ns() - start) * 1e-9;
    }
    if (!st)
        st = gemm_sample_read(x, d);
    if (!st) {
        const double flop = 2.0 * x->g.M * x->g.N * x->g.K;
        qsort(seconds, (size_t)runs, sizeof *seconds, by_time);
        *out = (gemm_result){
            .engine = gemm_name_of(e),
            .runs = runs,
            .min_s = seconds[0],
            .median_s = seconds[runs / 2],
            .p99_s = seconds[(runs * 99) / 100],
            .error = gemm_sample_error(x),
            .flops = flop / seconds[runs / 2],
        };
        if (!(out->error <= gemm_sample_allowed(x)))
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
    gemm_sample x = { .a = NULL };
    gemm_desc g;
    gt_status st = gemm_complete(&g, desc);
    if (!st)
        st = gemm_sample_make(&x, gemm_device(c), &g);
    for (int i = 0; !st && gemm_engine_row(i); i++) {
        const gemm_engine *e = gemm_engine_row(i);
        gemm_result r;
        if (!gemm_may_use(c, e) || !e->can(c, &g))
            continue;
        st = time_engine(c, &x, e, runs, &r);
        if (!st) {
            r.share = peak_flops > 0 ? r.flops / peak_flops : 0;
            each(context, &r);
        }
    }
    gemm_sample_release(&x);
    return st;
}
