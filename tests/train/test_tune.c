/* SPDX-License-Identifier: MIT */
/* tests/train/test_tune.c - products that are tuned while a run goes on change its time and no bit of it.
 *
 *   launches made again     with variants planted for every product; refused where one wants more scratch memory
 *   a run that tunes        the losses and parameters of one that does not; what is found is kept for the next
 *   ranks                   replicas and stages, each of which tunes for itself
 */
#include "tests/check.h"

#include "host/gemm/engine.h"
#include "host/graph/graph_products.h"
#include "host/train/train_private.h"
#include "tests/comm/ranks.h"
#include "tests/train/tiny_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MANY = 200, FEW = 40, UNITS = 4 };

typedef struct record {
    int count;
    double loss[MANY];
} record;

static void note_step(void *context, const metrics_row *row)
{
    record *r = context;
    if (r->count < MANY)
        r->loss[r->count++] = row->loss;
}

static int check_same(const record *a, const record *b)
{
    int good = CHECKF(a->count && a->count == b->count, "%d and %d steps", a->count, b->count);
    for (int i = 0; good && i < a->count; i++)
        good = CHECKF(a->loss[i] == b->loss[i], "step %d: %.9g and %.9g", i + 1, a->loss[i], b->loss[i]);
    return good;
}

static void use_cache(const char *name)
{
    char *cache = gt_path_join(check_folder(), name);
    setenv("GEARTRAIN_CACHE", cache, 1);
    free(cache);
}

static train_options usual(uint64_t steps)
{
    train_options o = tiny_options();
    o.gemm = "tiled";
    o.steps = steps;
    return o;
}

/* ---- launches made again ------------------------------------------------------------------------ */

/* The first variant in the order of their knobs that is legal, not the usual one, and takes more scratch memory
 * than that, or does not. */
static int find_variant(gemm_context *c, const gemm_tunable *u, const gemm_desc *g, int more, gemm_variant *out)
{
    gemm_variant usual_one;
    u->usual(c, g, &usual_one);
    for (uint64_t i = 0;; i++) {
        uint64_t rest = i;      /* its digits are the knobs' values */
        for (int k = 0; k < u->count; k++) {
            uint64_t values = 1;
            while (values < GEMM_VALUES && u->knobs[k].values[values])
                values++;
            out->value[k] = u->knobs[k].values[rest % values];
            rest /= values;
        }
        if (rest)
            return 0;
        if (u->legal(c, out) && !gemm_variant_same(u, out, &usual_one)
            && (u->scratch(c, g, out) > u->scratch(c, g, &usual_one)) == more)
            return 1;
    }
}

/* For every product of the run; returns how many. */
static int plant(train *t, const gemm_tunable *u, int more)
{
    graph_product_list list = { 0 };
    int planted = 0;
    graph_product_list_take(&list, stage_graph(train_stage(t), 0));
    for (int i = 0; i < list.count; i++) {
        gemm_desc g;
        gemm_variant v;
        if (CHECK_OK(gemm_complete(&g, &list.item[i].g)) && g.batch == 1 && find_variant(t->gemm, u, &g, more, &v)) {
            CHECK_OK(gemm_tuning_keep(t->gemm, u, &g, &v, 0.5));
            planted++;
        }
    }
    graph_product_list_release(&list);
    return planted;
}

static void steps_of(train *t, uint64_t from, uint64_t to, record *r)
{
    double norm;
    for (uint64_t step = from; step < to && r->count < MANY; step++)
        CHECK_OK(train_once(t, step, 1, &r->loss[r->count++], &norm));
}

static void launches_made_again_compute_the_same(void)
{
    dev_device *d = tiny_device();
    const model_config c = tiny_config();
    train_options o = usual(8);
    record plain = { 0 }, again = { 0 };
    train *t;
    int renewed = -1;
    o.micro_batch = 3;                      /* so that gradients are added to, before and after */
    if (!d)
        return;
    const gemm_tunable *u = dev_info_of(d)->kind == DEV_GPU ? &gemm_tiled_gpu : &gemm_tiled_cpu;
    use_cache("planted");
    if ((t = tiny_train(d, &c, &o)))
        steps_of(t, 0, 8, &plain);
    train_release(t);
    if ((t = tiny_train(d, &c, &o))) {
        steps_of(t, 0, 3, &again);
        CHECK(plant(t, u, 0) > 4);
        CHECK_OK(stage_renew(train_stage(t), &renewed));
        CHECKF(renewed == 1, "%d were made again", renewed);
        steps_of(t, 3, 6, &again);
        if (plant(t, u, 1)) {
            CHECK_OK(stage_renew(train_stage(t), &renewed));
            CHECKF(renewed == 0, "what wants more scratch memory than there is was taken");
        }
        steps_of(t, 6, 8, &again);
        check_same(&plain, &again);
    }
    train_release(t);
    dev_close(d);
}

/* ---- a run that tunes --------------------------------------------------------------------------- */

static train_tuned run(dev_device *d, const train_options *o, record *r)
{
    const model_config c = tiny_config();
    train_tuned found = { 0 };
    train *t = tiny_train(d, &c, o);
    if (t) {
        CHECK_OK(train_run(t, &(train_hooks){ .context = r, .step = note_step }));
        found = train_tuned_of(t);
    }
    train_release(t);
    return found;
}

static void a_run_that_tunes_has_the_same_losses(void)
{
    dev_device *d = tiny_device();
    train_options o = usual(MANY);
    record plain = { 0 }, tuned = { 0 }, next = { 0 };
    if (!d)
        return;
    use_cache("tuned");
    o.tune_variants = 1;
    train_tuned found = run(d, &o, &plain);
    CHECKF(!found.trials && !found.products && !found.over, "%d trials of a run that does not tune", found.trials);
    o.tune = 1e9;
    found = run(d, &o, &tuned);
    CHECKF(found.products > 4 && found.over && found.trials >= 2 * found.products, "%d products in %d trials",
           found.products, found.trials);
    CHECK(found.faster <= found.products && found.seconds > 0.0 && found.tuned_s > 0.0
          && found.tuned_s <= found.usual_s);
    check_same(&plain, &tuned);
    found = run(d, &o, &next);
    CHECKF(!found.products && found.over, "%d products are tuned once more", found.products);
    check_same(&plain, &next);
    dev_close(d);
}

/* No share of the time is none, and a run's first trial follows steps. */
static void trials_keep_to_their_share(void)
{
    dev_device *d = tiny_device();
    train_options o = usual(MANY);
    record r = { 0 };
    if (!d)
        return;
    use_cache("share");
    o.tune = 1e-9;
    const train_tuned found = run(d, &o, &r);
    CHECKF(found.trials == 1 && !found.products && !found.over, "%d trials", found.trials);
    dev_close(d);
}

/* ---- ranks ----------------------------------------------------------------------------------------- */

typedef struct ranks_run_of {
    const run_plan *plan;
    double share;
    record *record;
    train_tuned found[2];
} ranks_run_of;

static gt_status train_rank(net_comm *c, void *context)
{
    ranks_run_of *x = context;
    const int rank = net_comm_rank(c);
    const model_config config = tiny_config();
    train_options o = usual(FEW);
    train *t = NULL;
    dev_device *d = NULL;
    o.comm = c;
    o.plan = x->plan;
    o.tune = x->share;
    o.tune_variants = 1;
    gt_status st = tiny_open(&d);
    if (!st)
        st = tiny_create(&t, d, &config, &o);
    if (!st)
        st = train_run(t, rank ? NULL : &(train_hooks){ .context = x->record, .step = note_step });
    if (!st)
        x->found[rank] = train_tuned_of(t);
    train_release(t);
    dev_close(d);
    return st;
}

static void check_ranks(const tiny_replica *replicas, int count, const char *schedule, const char *cache)
{
    run_plan plan;
    record plain = { 0 }, tuned = { 0 };
    ranks_run_of x = { .plan = &plan, .record = &plain };
    use_cache(cache);
    if (tiny_plan(&plan, UNITS, TINY_B, schedule, "allreduce", replicas, count, 1)) {
        CHECK_OK(ranks_run(2, NULL, train_rank, &x));
        x.share = 1e9;
        x.record = &tuned;
        CHECK_OK(ranks_run(2, NULL, train_rank, &x));
        CHECKF(x.found[0].trials == FEW / 4 - 1 || x.found[0].over, "%d trials", x.found[0].trials);
        CHECKF(x.found[1].trials == FEW / 4 - 1 || x.found[1].over, "%d trials", x.found[1].trials);
        check_same(&plain, &tuned);
    }
    run_plan_release(&plan);
}

static void replicas_tune_each_for_itself(void)
{
    const tiny_replica two[] = { { 1, 1, 3 }, { 1, 1, 3 } };
    check_ranks(two, 2, "1f1b", "replicas");
}

static void stages_tune_each_for_itself(void)
{
    const tiny_replica one[] = { { 2, 3, 2 } };
    check_ranks(one, 1, "1f1b", "stages");
}

const check_case check_cases[] = {
    CASE(launches_made_again_compute_the_same), CASE(a_run_that_tunes_has_the_same_losses),
    CASE(trials_keep_to_their_share),           CASE(replicas_tune_each_for_itself),
    CASE(stages_tune_each_for_itself),          { 0 }
};
