/* SPDX-License-Identifier: MIT */
/* host/cli/bench_tune.c - tunes the products of a model's training step, or a list of them.
 *
 *        M      N      K      times engine    default      tuned  ratio  tried variant
 *      256   3072    768  NT     12 tiled       171.2      188.4   1.10     31 rows:14,vectors:2,...
 *
 * Seconds are shared out as products share a step's FLOPs, half of them; the other half evenly, for a small
 * product takes as long to compile as a large one. What one leaves over is the next ones'.       */
#include "host/cli/bench_tune.h"

#include "host/base/clock.h"
#include "host/graph/graph_products.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

gt_status bench_products_of(graph_product_list *p, const model_config *c, dtype storage, int B, int T, int recompute)
{
    graph *g = NULL;
    gt_status st = graph_create(&g, storage, B, T);
    if (!st)
        st = model_build_loss(g, c, 1, recompute);
    if (!st)
        graph_product_list_take(p, g);
    graph_release(g);
    return st;
}

static void note_skipped(void *context, const gemm_trial *t)
{
    if (t->why)
        json_array_append_new(context, json_pack("{s:s, s:s}", "variant", t->variant, "why", t->why));
}

static void show(const graph_product *p, const gemm_tune_result *r, json_t *skipped, int json)
{
    const char layout[3] = { p->g.trans_a ? 'T' : 'N', p->g.trans_b ? 'T' : 'N', '\0' };
    const double rate = 2e-9 * r->M * r->N * r->K;
    if (json) {
        json_t *line = json_pack("{s:s, s:i, s:i, s:i, s:s, s:i, s:s, s:s, s:s, s:f, s:f, s:f, s:i, s:O}", "bench",
                                 "gemm tune", "M", p->g.M, "N", p->g.N, "K", p->g.K, "layout", layout, "times",
                                 p->times, "engine", r->engine, "default", r->usual, "variant", r->variant,
                                 "default_gflops", rate / r->usual_s, "tuned_gflops", rate / r->variant_s, "ratio",
                                 r->usual_s / r->variant_s, "tried", r->tried, "skipped", skipped);
        char *text = line ? json_dumps(line, JSON_REAL_PRECISION(6)) : NULL;
        if (text)
            puts(text);
        free(text);
        json_decref(line);
    } else {
        printf("%6d %6d %6d  %s %6d %-7s %9.1f %9.1f  %5.2f %6d %s\n", p->g.M, p->g.N, p->g.K, layout, p->times,
               r->engine, rate / r->usual_s, rate / r->variant_s, r->usual_s / r->variant_s, r->tried,
               strcmp(r->variant, r->usual) ? r->variant : "default");
    }
    fflush(stdout);
}

/* Of one product; what it takes scaled from what was measured, with and without tuning. */
static gt_status tune_one(gemm_context *c, const graph_product *p, const bench_tune_options *o, double seconds,
                          double took[2])
{
    const gemm_tune_limits limits = { seconds, o->variants };
    gemm_tune_result r;
    json_t *skipped = json_array();
    if (!skipped)
        return gt_fail(GT_NO_MEMORY, "no memory for a list of variants");
    gt_status st = gemm_tune(c, &p->g, o->engine, &limits, note_skipped, skipped, &r);
    took[0] = took[1] = 0.0;
    if (!st && r.engine) {
        const double scale = graph_product_flops(p) / (2.0 * r.M * r.N * r.K);
        took[0] = scale * r.usual_s;
        took[1] = scale * r.variant_s;
        show(p, &r, skipped, o->json);
    }
    json_decref(skipped);
    return st;
}

gt_status bench_tune(dev_device *d, graph_product_list *p, const bench_tune_options *o)
{
    gemm_context *c = NULL;
    double left = 0.0, sum[2] = { 0.0, 0.0 };
    if (p->failed)
        return gt_fail(GT_NO_MEMORY, "no memory for a list of products");
    gt_status st = gemm_context_create(&c, d, NULL);
    const char *file = st ? NULL : gemm_tuning_file(c);
    const uint64_t start = gt_now_ns();
    graph_product_list_sort(p);
    for (int i = 0; i < p->count; i++)
        left += graph_product_flops(&p->item[i]);
    if (!st && !o->json)
        printf("# %s, %s: within %g s, at most %d variants a product; all equal the default's result, bit for bit\n"
               "     M      N      K      times engine    default     tuned  ratio  tried variant\n",
               dev_info_of(d)->name, dtype_name(p->count ? p->item[0].g.a_type : DTYPE_F32), o->seconds, o->variants);
    for (int i = 0; !st && i < p->count; i++) {
        const double cost = graph_product_flops(&p->item[i]);
        const double rest = o->seconds - (double)(gt_now_ns() - start) * 1e-9;
        double took[2];
        st = tune_one(c, &p->item[i], o, rest > 0.0 ? 0.5 * rest * (cost / left + 1.0 / (p->count - i)) : 0.0, took);
        left -= cost;
        sum[0] += took[0];
        sum[1] += took[1];
    }
    if (!st && sum[1] <= 0.0)
        st = gt_fail(
            GT_UNSUPPORTED,
            "nothing to tune: no engine of device '%s' has kernels that can be built in several ways for these products",
            dev_info_of(d)->id);
    if (!st && !o->json && o->model)
        printf(
            "%s's products take %.1f ms in one step's forward and backward, and %.1f ms without tuning: %.2f times\n",
            o->model, sum[1] * 1e3, sum[0] * 1e3, sum[0] / sum[1]);
    if (!st && !o->json && file)
        printf("kept in '%s'; training, evaluation and generation use it from now on\n", file);
    else if (!st && !o->json)
        puts("not kept: there is no cache folder");
    gemm_context_release(c);
    return st;
}
