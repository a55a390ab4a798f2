/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_tune.c - tuning from outside: at once, or beside other work.
 *
 *   gemm_tune()     search until the bounds · keep · choose between engines anew
 *   gemm_tuner      a trial · (a training step) · a trial · ... · keep
 *
 * Beside a run the choice between engines stays: another engine's sums differ in their last bits, a variant's do
 * not. For the same reason a run that is going on may take a variant over as soon as it is found.       */
#include "host/gemm/engine.h"
#include "host/gemm/gemm_search.h"

#include <stdlib.h>
#include <string.h>

/* The first engine that multiplies g by a kernel that can be tuned; NULL: none, or another one is always taken. */
static const gemm_tunable *tunable_for(gemm_context *c, const gemm_desc *g, const char *engine)
{
    for (int i = 0; gemm_engine_row(i); i++) {
        const gemm_engine *e = gemm_engine_row(i);
        const int asked = engine && !strcmp(gemm_name_of(e), engine);
        if ((engine && !asked) || !gemm_may_use(c, e) || !e->can(c, g))
            continue;
        if (e->tunable || e->always)
            return e->tunable ? e->tunable(c) : NULL;
    }
    return NULL;
}

/* The product by itself, whatever stands behind it; GT_MISUSE. */
static gt_status plain_of(gemm_desc *plain, const gemm_desc *g)
{
    *plain = (gemm_desc){
        .M = g->M,
        .N = g->N,
        .K = g->K,
        .trans_a = g->trans_a,
        .trans_b = g->trans_b,
        .a_type = g->a_type,
        .b_type = g->b_type,
        .c_type = g->c_type
    };
    return gemm_complete(plain, plain);
}

static int is_one_dense(const gemm_desc *g)
{
    return g->batch == 1 && g->b_type != DTYPE_Q8;
}

gt_status gemm_tune(gemm_context *c, const gemm_desc *desc, const char *engine, const gemm_tune_limits *limits,
                    gemm_tune_each *each, void *context, gemm_tune_result *out)
{
    char all[64];
    gemm_desc g, plain;
    gemm_variant best;
    *out = (gemm_tune_result){ 0 };
    gt_status st = gemm_complete(&g, desc);
    if (!st && engine && !gemm_engine_named(engine))
        st = gt_fail(GT_MISUSE, "cannot tune GEMM engine '%s': it is none of %s", engine,
                     gemm_engine_names(all, sizeof all, ", "));
    if (st)
        return st;
    const gemm_tunable *t = is_one_dense(&g) ? tunable_for(c, &g, engine) : NULL;
    if (!t)
        return GT_OK;
    st = plain_of(&plain, &g);
    const gemm_desc measured = gemm_shrink(c, &plain);
    if (!st)
        st = gemm_search_all(c, t, &measured, limits, each, context, &best, out);
    if (!st)
        st = gemm_tuning_keep(c, t, &measured, &best, out->variant_s);
    return st ? st : gemm_choose_anew(c, &plain);
}

/* ---- beside other work -------------------------------------------------------------------------- */

struct gemm_tuner {
    gemm_context *context;
    const gemm_tunable *tunable;
    gemm_desc plain, measured;
    gemm_search_options o;
    gemm_search *search;            /* NULL: it has not begun */
};

gt_status gemm_tuner_create(gemm_tuner **out, gemm_context *c, const gemm_desc *desc, const gemm_tune_limits *limits)
{
    gemm_desc g;
    const char *engine = NULL;
    *out = NULL;
    gt_status st = gemm_complete(&g, desc);
    if (!st)
        st = gemm_engine_name(c, &g, &engine);
    const gemm_tunable *t = !st && is_one_dense(&g) ? tunable_for(c, &g, engine) : NULL;
    if (st || !t || gemm_is_tuned(c, t, &g))
        return st;
    gemm_tuner *n = calloc(1, sizeof *n);
    if (!n)
        return gt_fail(GT_NO_MEMORY, "no memory to tune a product of %d x %d x %d", g.M, g.N, g.K);
    gemm_variant usual;
    n->context = c;
    n->tunable = t;
    st = plain_of(&n->plain, &g);
    n->measured = gemm_shrink(c, &n->plain);
    t->usual(c, &n->plain, &usual);
    n->o = (gemm_search_options){ *limits, &n->plain, t->scratch(c, &n->plain, &usual) };
    if (st)
        gemm_tuner_release(n);
    else
        *out = n;
    return st;
}

gt_status gemm_tuner_try(gemm_tuner *t, int *over, gemm_tune_result *out)
{
    gemm_variant best;
    *over = 0;
    if (!t->search)
        return gemm_search_begin(&t->search, t->context, t->tunable, &t->measured, &t->o);
    gt_status st = gemm_search_try(t->search, over, NULL, NULL);
    if (!st && *over)
        st = gemm_search_decide(t->search, &best, out);
    return st || !*over ? st : gemm_tuning_keep(t->context, t->tunable, &t->measured, &best, out->variant_s);
}

void gemm_tuner_release(gemm_tuner *t)
{
    if (!t)
        return;
    gemm_search_release(t->search);
    free(t);
}
