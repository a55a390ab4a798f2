/* SPDX-License-Identifier: MIT */
/* host/train/train_tune.c - products are tuned beside the run: between two steps a trial, now and then.
 *
 *   step step step step [trial] step step step step ... [trial: a faster one] step step
 *                                                        launches made again
 *
 * Nobody waits for a tuning before training begins, and none is lost: a trial is one variant built and timed, trials
 * have a small share of the run's time, and what is found is kept for later runs. Variants give the same bits, so
 * losses are those of a run without it. Ranks try after steps of the same numbers, since the others wait for one
 * that does.                                                                                    */
#include "host/base/clock.h"
#include "host/base/log.h"
#include "host/graph/graph_products.h"
#include "host/train/train_private.h"

#include <stdlib.h>

enum { EVERY = 4, VARIANTS = 24 };
static const double most_seconds = 60.0;    /* for one product */

struct train_tuning {
    graph_product_list products;
    int at;                         /* the one that is tuned, or to be tuned next */
    gemm_tuner *tuner;              /* NULL: none has begun */
    uint64_t begin_ns;
    train_tuned so_far;
};

gt_status train_tune_create(train *t)
{
    if (t->o.tune <= 0.0 || !t->micros)
        return GT_OK;
    train_tuning *n = calloc(1, sizeof *n);
    t->tuning = n;
    if (!n)
        return gt_fail(GT_NO_MEMORY, "cannot tune: no memory for its state");
    for (int c = 0; c < stage_chunks(t->stage); c++)
        graph_product_list_take(&n->products, stage_graph(t->stage, c));
    graph_product_list_sort(&n->products);
    n->begin_ns = gt_now_ns();
    return n->products.failed ? gt_fail(GT_NO_MEMORY, "cannot tune: no memory for a list of products") : GT_OK;
}

void train_tune_release(train *t)
{
    if (!t->tuning)
        return;
    gemm_tuner_release(t->tuning->tuner);
    graph_product_list_release(&t->tuning->products);
    free(t->tuning);
    t->tuning = NULL;
}

int train_tune_is_due(const train *t)
{
    const train_tuning *n = t->tuning;
    const uint64_t step = t->queued;
    if (!n || n->so_far.over || !step || step % EVERY || train_looks_at(t, step))
        return 0;
    if (sync_is_apart(t->sync, step) && sync_meets(t->sync, step)) /* to which all ranks come in the same order */
        return 0;
    return n->so_far.seconds <= t->o.tune * (double)(gt_now_ns() - n->begin_ns) * 1e-9;
}

/* The product that is tuned now; none left: it is over. */
static gt_status next_product(train *t)
{
    train_tuning *n = t->tuning;
    const gemm_tune_limits limits = { most_seconds, t->o.tune_variants ? t->o.tune_variants : VARIANTS };
    gt_status st = GT_OK;
    while (!st && !n->tuner && n->at < n->products.count) {
        st = gemm_tuner_create(&n->tuner, t->gemm, &n->products.item[n->at].g, &limits);
        n->at += !st && !n->tuner;
    }
    n->so_far.over = !st && !n->tuner;
    return st;
}

/* A tuner is through with its product. */
static gt_status take_result(train *t, const gemm_tune_result *r)
{
    train_tuning *n = t->tuning;
    const graph_product *p = &n->products.item[n->at++];
    const double scale = graph_product_flops(p) / (2.0 * r->M * r->N * r->K);
    int renewed = 0;
    gemm_tuner_release(n->tuner);
    n->tuner = NULL;
    n->so_far.products++;
    n->so_far.usual_s += scale * r->usual_s;
    n->so_far.tuned_s += scale * r->variant_s;
    if (r->variant_s >= r->usual_s)
        return GT_OK;
    n->so_far.faster++;
    gt_log(GT_LOG_INFO, "train", "products of %d x %d x %d take %.2f of the time with %s", p->g.M, p->g.N, p->g.K,
           r->variant_s / r->usual_s, r->variant);
    return stage_renew(t->stage, &renewed);
}

gt_status train_tune_try(train *t)
{
    train_tuning *n = t->tuning;
    const uint64_t start = gt_now_ns();
    gemm_tune_result r;
    int over = 0, began = 0;
    if (t->o.comm)
        net_comm_busy(t->o.comm, "tuning a product");
    gt_status st = next_product(t);
    if (!st && n->tuner) {
        began = 1;
        st = gemm_tuner_try(n->tuner, &over, &r);
    }
    if (st == GT_INTERRUPTED) { /* the loop ends by itself */
        gt_message_clear();
        st = GT_OK;
    } else if (st && st != GT_LOST) {
        gt_log(GT_LOG_INFO, "train", "%s: no further products are tuned", gt_message());
        gt_message_clear();
        gemm_tuner_release(n->tuner); /* and the device's memory that it has */
        n->tuner = NULL;
        n->so_far.over = 1;
        st = GT_OK;
    } else if (!st && over) {
        st = take_result(t, &r);
    }
    if (t->o.comm)
        net_comm_busy(t->o.comm, NULL);
    n->so_far.trials += began;
    n->so_far.seconds += (double)(gt_now_ns() - start) * 1e-9;
    return st;
}

train_tuned train_tuned_of(const train *t)
{
    return t->tuning ? t->tuning->so_far : (train_tuned){ 0 };
}
