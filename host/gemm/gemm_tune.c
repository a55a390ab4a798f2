/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_tune.c - the search for the fastest way to build a kernel, for one product.
 *
 *   usual   what ships: held to the host's product; its result is what all others have to give
 *   alike   what has been found for products of the same types and transposes, whose programs are often there
 *   coarse  combinations of far-apart values of all knobs, spread over what is legal, for half of what is left
 *   fine    from the best so far, one knob one value up or down, as long as that helps; then coarse again, and so on
 *   turns   the best against what ships, several times each, when the bounds are reached or nothing is left to try
 *
 * The bounds are a number of variants and seconds, of which most go into compiling. Machines are shared and noisy: each
 * variant's fastest run counts, and in the end what ships stays unless the other one is 3 % faster in turns.     */
#include "host/gemm/engine.h"
#include "host/gemm/gemm_sample.h"

#include "host/base/activity.h"
#include "host/base/clock.h"
#include "host/base/log.h"
#include "host/base/random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS = 5, TURNS = 5, ALIKE = 4 };

typedef struct search {
    gemm_context *context;
    const gemm_tunable *tunable;
    gemm_sample sample;
    void *want;                     /* C as the usual variant has it   */
    void *poison;                   /* what C holds before each result */
    gemm_variant usual, best;
    double best_s;
    gemm_variant *seen;             /* those that were tried, and the usual one */
    int seen_count;
    int most;                       /* of them, at most                         */
    uint64_t end_ns;
    gt_activity activity;
    void (*each)(void *context, const gemm_trial *trial);
    void *each_context;
    gemm_tune_result *result;
} search;

static int was_seen(const search *s, const gemm_variant *v)
{
    for (int i = 0; i < s->seen_count; i++)
        if (gemm_variant_same(s->tunable, &s->seen[i], v))
            return 1;
    return 0;
}

static int is_over(const search *s, int most, uint64_t end_ns)
{
    return s->result->tried >= most || gt_now_ns() >= end_ns;
}

/* A list with the product by a variant, and its scratch memory in s->sample.on. */
static gt_status prepare(search *s, const gemm_variant *v, dev_list **l)
{
    dev_device *d = gemm_device(s->context);
    gemm_buffers *on = &s->sample.on;
    const uint64_t scratch = s->tunable->scratch(s->context, &s->sample.g, v);
    dev_buffer_release(on->scratch);
    on->scratch = NULL;
    gt_status st = dev_list_create(l, d);
    if (!st)
        st = dev_buffer_create(&on->scratch, d, scratch < 64 ? 64 : scratch, "GEMM tuning");
    return st ? st : s->tunable->append(s->context, *l, &s->sample.g, on, v, NULL);
}

static gt_status run_once(dev_list *l, dev_device *d, double *seconds)
{
    const uint64_t start = gt_now_ns();
    gt_status st = dev_run(l, 0, -1);
    if (!st)
        st = dev_wait(d);
    *seconds = (double)(gt_now_ns() - start) * 1e-9;
    return st;
}

/* The fastest of several runs; fewer of one that is far behind `best_s`. */
static gt_status time_runs(dev_list *l, dev_device *d, int runs, double best_s, double *seconds)
{
    gt_status st = GT_OK;
    *seconds = INFINITY;
    for (int i = 0; !st && i < runs; i++) {
        double took;
        st = run_once(l, d, &took);
        *seconds = fmin(*seconds, took);
        if (i >= 2 && *seconds > 1.5 * best_s)
            break;
    }
    return st;
}

/* Builds, runs, checks and times a variant. */
static gt_status measure(search *s, const gemm_variant *v, int check, double *seconds)
{
    dev_device *d = gemm_device(s->context);
    dev_list *l = NULL;
    double first;
    gt_status st = dev_write(d, s->sample.on.c, 0, s->poison, s->sample.c_bytes);
    if (!st)
        st = prepare(s, v, &l);
    if (!st)
        st = run_once(l, d, &first);
    if (!st)
        st = gemm_sample_read(&s->sample, d);
    if (!st && check && memcmp(s->sample.c, s->want, s->sample.c_bytes))
        st = gt_fail(GT_NUMERIC, "its product is another one: off by %.3g of the sum of its terms",
                     gemm_sample_error(&s->sample));
    if (!st)
        st = time_runs(l, d, RUNS, s->best_s, seconds);
    dev_list_release(l);
    return st;
}

/* The usual variant, to which all others are held. */
static gt_status begin_with_usual(search *s)
{
    gt_status st = measure(s, &s->usual, 0, &s->best_s);
    if (st)
        return st;
    const double error = gemm_sample_error(&s->sample);
    if (!(error <= gemm_sample_allowed(&s->sample)))
        return gt_fail(GT_NUMERIC, "engine '%s' is wrong: %d x %d x %d is off by %.3g of the sum of its products",
                       s->tunable->engine, s->sample.g.M, s->sample.g.N, s->sample.g.K, error);
    memcpy(s->want, s->sample.c, s->sample.c_bytes);
    s->best = s->usual;
    s->seen[s->seen_count++] = s->usual;
    return GT_OK;
}

/* One more variant; *better: it is the best now. One that fails does not count, and the search goes on. */
static gt_status attempt(search *s, const gemm_variant *v, int *better)
{
    char text[GEMM_VARIANT_CHARS], why[512] = "";
    double seconds = 0.0;
    *better = 0;
    gt_status st = gt_activity_at(&s->activity, (uint64_t)s->result->tried);
    if (st)
        return st;
    s->seen[s->seen_count++] = *v;
    s->result->tried++;
    st = measure(s, v, 1, &seconds);
    if (st == GT_INTERRUPTED)
        return st;
    gemm_variant_text(text, s->tunable, v);
    if (st) {
        snprintf(why, sizeof why, "%.*s", (int)strcspn(gt_message(), "\n"), gt_message());
        gt_message_clear();
        gt_log(GT_LOG_INFO, "gemm", "%s of engine '%s' is passed over: %s", text, s->tunable->engine, why);
        s->result->skipped++;
        seconds = 0.0;
    } else {
        gt_log(GT_LOG_DEBUG, "gemm", "%d x %d x %d: %s takes %.3f ms", s->sample.g.M, s->sample.g.N, s->sample.g.K,
               text, seconds * 1e3);
        *better = seconds < s->best_s;
    }
    if (*better) {
        s->best = *v;
        s->best_s = seconds;
    }
    if (s->each)
        s->each(s->each_context, &(gemm_trial){ text, seconds, st ? why : NULL });
    return GT_OK;
}

static gt_status attempt_new(search *s, const gemm_variant *v, int *better)
{
    *better = 0;
    return was_seen(s, v) || !s->tunable->legal(s->context, v) ? GT_OK : attempt(s, v, better);
}

static gt_status search_alike(search *s)
{
    gemm_variant v;
    int better;
    gt_status st = GT_OK;
    for (int i = 0; !st && i < ALIKE && !is_over(s, s->most, s->end_ns)
                    && gemm_tuned_alike(s->context, s->tunable, &s->sample.g, i, &v);
         i++)
        st = attempt_new(s, &v, &better);
    return st;
}

/* The i-th combination of the coarse values. */
static gemm_variant coarse(const gemm_tunable *t, uint64_t i)
{
    gemm_variant v = { { 0 } };
    for (int k = 0; k < t->count; k++) {
        uint64_t nth = i % (uint64_t)__builtin_popcount(t->knobs[k].coarse);
        i /= (uint64_t)__builtin_popcount(t->knobs[k].coarse);
        int at = 0;
        while (!(t->knobs[k].coarse >> at & 1) || nth--)
            at++;
        v.value[k] = t->knobs[k].values[at];
    }
    return v;
}

static gt_status search_coarse(search *s)
{
    const uint64_t now = gt_now_ns(), half = s->end_ns > now ? now + (s->end_ns - now) / 2 : now;
    const int most = s->result->tried + (s->most - s->result->tried + 1) / 2;
    uint64_t combinations = 1;
    int better;
    gt_status st = GT_OK;
    for (int k = 0; k < s->tunable->count; k++)
        combinations *= (uint64_t)__builtin_popcount(s->tunable->knobs[k].coarse);
    /* In an order that has been all over the space before it is through. */
    for (uint64_t i = 0; !st && i < combinations && !is_over(s, most, half); i++) {
        const gemm_variant v = coarse(s->tunable, gt_random_permute(1, 0, combinations, i));
        st = attempt_new(s, &v, &better);
    }
    return st;
}

/* 0: there is no value further on. */
static int step(const gemm_tunable *t, gemm_variant *v, int knob, int direction)
{
    const int at = gemm_knob_index(&t->knobs[knob], v->value[knob]) + direction;
    if (at < 0 || at >= GEMM_VALUES || !t->knobs[knob].values[at])
        return 0;
    v->value[knob] = t->knobs[knob].values[at];
    return 1;
}

static gt_status search_fine(search *s)
{
    gt_status st = GT_OK;
    for (int improved = 1; !st && improved;) {
        improved = 0;
        for (int k = 0; k < s->tunable->count; k++)
            for (int direction = -1; direction <= 1; direction += 2)
                for (int better = 1; !st && better && !is_over(s, s->most, s->end_ns);) {
                    gemm_variant v = s->best;
                    better = 0;
                    if (step(s->tunable, &v, k, direction))
                        st = attempt_new(s, &v, &better);
                    improved |= better;
                }
    }
    return st;
}

static gt_status search_all(search *s)
{
    gt_status st = search_alike(s);
    for (int before = -1; !st && s->result->tried > before && !is_over(s, s->most, s->end_ns);) {
        before = s->result->tried;
        st = search_coarse(s);
        if (!st)
            st = search_fine(s);
    }
    return st;
}

/* Both times from now on are of runs in turns. */
static gt_status decide(search *s)
{
    dev_device *d = gemm_device(s->context);
    double usual_s = INFINITY, best_s = INFINITY, took;
    gt_status st = GT_OK;
    for (int i = 0; !st && i < TURNS; i++)
        for (int usual = 0; !st && usual < 2; usual++) {
            dev_list *l = NULL;
            double *kept = usual ? &usual_s : &best_s;
            st = prepare(s, usual ? &s->usual : &s->best, &l);
            if (!st)
                st = time_runs(l, d, RUNS, INFINITY, &took);
            if (!st)
                *kept = fmin(*kept, took);
            dev_list_release(l);
        }
    if (!st && !(best_s <= 0.97 * usual_s)) {
        s->best = s->usual;
        best_s = usual_s;
    }
    s->result->usual_s = usual_s;
    s->result->variant_s = best_s;
    return st;
}

gt_status gemm_tune_search(gemm_context *c, const gemm_tunable *t, const gemm_desc *g, const gemm_tune_limits *limits,
                           void (*each)(void *context, const gemm_trial *trial), void *context, gemm_variant *best,
                           gemm_tune_result *out)
{
    search s = { .context = c,
                 .tunable = t,
                 .most = limits->variants,
                 .end_ns = gt_now_ns() + (uint64_t)(fmin(fmax(limits->seconds, 0.0), 1e8) * 1e9),
                 .best_s = INFINITY,
                 .each = each,
                 .each_context = context,
                 .result = out };
    char what[80];
    *out = (gemm_tune_result){ .engine = t->engine, .M = g->M, .N = g->N, .K = g->K };
    gt_status st = gemm_sample_make(&s.sample, gemm_device(c), g);
    if (!st) {
        s.want = malloc(s.sample.c_bytes);
        s.poison = malloc(s.sample.c_bytes);
        s.seen = malloc(((size_t)s.most + 1) * sizeof *s.seen);
        if (!s.want || !s.poison || !s.seen)
            st = gt_fail(GT_NO_MEMORY, "no memory to tune a product of %d x %d x %d", g->M, g->N, g->K);
        else
            memset(s.poison, 0xff, s.sample.c_bytes);
    }
    snprintf(what, sizeof what, "tuning a product of %d x %d x %d", g->M, g->K, g->N);
    gt_activity_begin(&s.activity, what, "variants", (uint64_t)s.most);
    dev_full_speed(gemm_device(c), 1);
    t->usual(c, g, &s.usual);
    gemm_variant_text(out->usual, t, &s.usual);
    if (!st)
        st = begin_with_usual(&s);
    if (!st)
        st = search_all(&s);
    if (!st)
        st = decide(&s);
    dev_full_speed(gemm_device(c), 0);
    gt_activity_end(&s.activity);
    if (!st) {
        gemm_variant_text(out->variant, t, &s.best);
        *best = s.best;
    }
    gemm_sample_release(&s.sample);
    free(s.want);
    free(s.poison);
    free(s.seen);
    return st;
}

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

gt_status gemm_tune(gemm_context *c, const gemm_desc *desc, const char *engine, const gemm_tune_limits *limits,
                    void (*each)(void *context, const gemm_trial *trial), void *context, gemm_tune_result *out)
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
    const gemm_tunable *t = g.batch == 1 && g.b_type != DTYPE_Q8 ? tunable_for(c, &g, engine) : NULL;
    if (!t)
        return GT_OK;
    plain = (gemm_desc){
        .M = g.M,
        .N = g.N,
        .K = g.K,
        .trans_a = g.trans_a,
        .trans_b = g.trans_b,
        .a_type = g.a_type,
        .b_type = g.b_type,
        .c_type = g.c_type
    };
    st = gemm_complete(&plain, &plain);
    const gemm_desc measured = gemm_shrink(c, &plain);
    if (!st)
        st = gemm_tune_search(c, t, &measured, limits, each, context, &best, out);
    if (!st)
        st = gemm_tuning_keep(c, t, &measured, &best, out->variant_s);
    return st ? st : gemm_choose_anew(c, &plain);
}
