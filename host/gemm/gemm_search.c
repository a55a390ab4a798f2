/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_search.c - the search for the fastest way to build a kernel, for one product.
 *
 *   usual   what ships: held to the host's product; its result is what all others have to give
 *   alike   what has been found for products of the same types and transposes, whose programs are often there
 *   coarse  combinations of far-apart values of all knobs, spread over what is legal, for half of what is left
 *   fine    from the best so far, one knob one value up or down, as long as that helps; then coarse again, and so on
 *   turns   the best against what ships, several times each, when the bounds are reached or nothing is left to try
 *
 * It is made of single trials, so that a training run can do one now and then between its steps. The bounds are a
 * number of variants and seconds of trying, of which most go into compiling. Machines are shared and noisy: each
 * variant's fastest run counts, and in the end what ships stays unless the other one is 3 % faster in turns.     */
#include "host/gemm/gemm_search.h"

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

enum { RUNS = 5, TURNS = 5, MOST_ALIKE = 4 };

/* Where the search is, and its place in each part. */
typedef enum part { ALIKE, COARSE, FINE, OVER } part;

struct gemm_search {
    gemm_context *context;
    const gemm_tunable *tunable;
    gemm_search_options o;
    gemm_sample sample;
    void *want;                     /* C as the usual variant has it   */
    void *poison;                   /* what C holds before each result */
    gemm_variant usual, best;
    double best_s;
    int usual_launches;
    gemm_variant *seen;             /* those that were tried, and the usual one */
    int seen_count;
    part part;
    uint64_t at;                    /* alike, coarse: the next one; fine: knob and direction, 2 * knob + up */
    int round_tried;                /* when coarse began              */
    int coarse_most;                /* when it ends: variants         */
    double coarse_seconds;          /* and seconds                    */
    int better;                     /* the newest trial's variant is the best now */
    int improved;                   /* this round over all knobs found a better one */
    double spent;                   /* seconds of trying              */
    gemm_tune_result result;
};

static int was_seen(const gemm_search *s, const gemm_variant *v)
{
    for (int i = 0; i < s->seen_count; i++)
        if (gemm_variant_same(s->tunable, &s->seen[i], v))
            return 1;
    return 0;
}

/* A list with the product by a variant, and its scratch memory in s->sample.on. */
static gt_status prepare(gemm_search *s, const gemm_variant *v, dev_list **l)
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
static gt_status measure(gemm_search *s, const gemm_variant *v, double *seconds)
{
    dev_device *d = gemm_device(s->context);
    dev_list *l = NULL;
    double first;
    const int is_usual = !s->seen_count;
    gt_status st = dev_write(d, s->sample.on.c, 0, s->poison, s->sample.c_bytes);
    if (!st)
        st = prepare(s, v, &l);
    if (!st && is_usual)
        s->usual_launches = dev_list_count(l);
    else if (!st && s->o.in_place && dev_list_count(l) != s->usual_launches)
        st = gt_fail(GT_UNSUPPORTED, "it takes %d launches, which the lists it is to be in have %d places for",
                     dev_list_count(l), s->usual_launches);
    if (!st)
        st = run_once(l, d, &first);
    if (!st)
        st = gemm_sample_read(&s->sample, d);
    if (!st && !is_usual && memcmp(s->sample.c, s->want, s->sample.c_bytes))
        st = gt_fail(GT_NUMERIC, "its product is another one: off by %.3g of the sum of its terms",
                     gemm_sample_error(&s->sample));
    if (!st)
        st = time_runs(l, d, RUNS, s->best_s, seconds);
    dev_list_release(l);
    return st;
}

/* The usual variant, to which all others are held. */
static gt_status begin_with_usual(gemm_search *s)
{
    gt_status st = measure(s, &s->usual, &s->best_s);
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

/* ---- what to try next ------------------------------------------------------------------------- */

static int is_over(const gemm_search *s, int most, double seconds)
{
    return s->result.tried >= most || s->spent >= seconds;
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

static uint64_t combinations(const gemm_tunable *t)
{
    uint64_t n = 1;
    for (int k = 0; k < t->count; k++)
        n *= (uint64_t)__builtin_popcount(t->knobs[k].coarse);
    return n;
}

static void begin_coarse(gemm_search *s)
{
    s->part = COARSE;
    s->at = 0;
    s->round_tried = s->result.tried;
    s->coarse_most = s->result.tried + (s->o.limits.variants - s->result.tried + 1) / 2;
    s->coarse_seconds = s->spent + 0.5 * (s->o.limits.seconds - s->spent);
}

static void begin_fine(gemm_search *s)
{
    s->part = FINE;
    s->at = 0;
    s->better = s->improved = 0;
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

/* A neighbour of the best: the next value of the same knob while that helps, then of the next; 0: the round is over. */
static int next_fine(gemm_search *s, gemm_variant *v)
{
    s->improved |= s->better;
    s->at += !s->better;
    s->better = 0;
    for (; s->at <= 2 * (uint64_t)s->tunable->count; s->at++) {
        *v = s->best;
        if (step(s->tunable, v, (int)(s->at - 1) / 2, (s->at - 1) % 2 ? 1 : -1))
            return 1;
    }
    return 0;
}

/* The next variant worth a trial, into *v; 0: none is left, or the bounds are reached. */
static int next_variant(gemm_search *s, gemm_variant *v)
{
    while (s->part != OVER && !is_over(s, s->o.limits.variants, s->o.limits.seconds)) {
        int there = 0;
        switch (s->part) {
        case ALIKE:
            there = s->at < MOST_ALIKE && gemm_tuned_alike(s->context, s->tunable, &s->sample.g, (int)s->at++, v);
            if (!there)
                begin_coarse(s);
            break;
        case COARSE: /* in an order that has been all over the space before it is through */
            there = s->at < combinations(s->tunable) && !is_over(s, s->coarse_most, s->coarse_seconds);
            if (there)
                *v = coarse(s->tunable, gt_random_permute(1, 0, combinations(s->tunable), s->at++));
            else
                begin_fine(s);
            break;
        case FINE:
            there = next_fine(s, v);
            if (!there && s->improved)
                begin_fine(s);
            else if (!there && s->result.tried > s->round_tried)
                begin_coarse(s);
            else if (!there)
                s->part = OVER;
            break;
        case OVER: break;
        }
        if (there && !was_seen(s, v) && s->tunable->legal(s->context, v))
            return 1;
    }
    s->part = OVER;
    return 0;
}

/* ---- from outside ------------------------------------------------------------------------------ */

gt_status gemm_search_begin(gemm_search **out, gemm_context *c, const gemm_tunable *t, const gemm_desc *g,
                            const gemm_search_options *o)
{
    const uint64_t start = gt_now_ns();
    gemm_search *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return gt_fail(GT_NO_MEMORY, "no memory to tune a product of %d x %d x %d", g->M, g->N, g->K);
    *s = (gemm_search){ .context = c, .tunable = t, .o = *o, .best_s = INFINITY };
    s->result = (gemm_tune_result){ .engine = t->engine, .M = g->M, .N = g->N, .K = g->K };
    gt_status st = gemm_sample_make(&s->sample, gemm_device(c), g);
    if (!st) {
        s->want = malloc(s->sample.c_bytes);
        s->poison = malloc(s->sample.c_bytes);
        s->seen = malloc(((size_t)o->limits.variants + 1) * sizeof *s->seen);
        if (!s->want || !s->poison || !s->seen)
            st = gt_fail(GT_NO_MEMORY, "no memory to tune a product of %d x %d x %d", g->M, g->N, g->K);
        else
            memset(s->poison, 0xff, s->sample.c_bytes);
    }
    dev_full_speed(gemm_device(c), 1);
    t->usual(c, g, &s->usual);
    gemm_variant_text(s->result.usual, t, &s->usual);
    if (!st)
        st = begin_with_usual(s);
    dev_full_speed(gemm_device(c), 0);
    s->spent = (double)(gt_now_ns() - start) * 1e-9;
    if (st)
        gemm_search_release(s);
    else
        *out = s;
    return st;
}

gt_status gemm_search_try(gemm_search *s, int *over, gemm_tune_each *each, void *context)
{
    const uint64_t start = gt_now_ns();
    char text[GEMM_VARIANT_CHARS], why[512] = "";
    gemm_variant v;
    double seconds = 0.0;
    *over = !next_variant(s, &v);
    s->better = 0;
    if (*over)
        return GT_OK;
    s->seen[s->seen_count++] = v;
    s->result.tried++;
    gt_status st = GT_OK;
    dev_full_speed(gemm_device(s->context), 1);
    if (s->o.in_place && s->tunable->scratch(s->context, s->o.in_place, &v) > s->o.scratch)
        st = gt_fail(GT_UNSUPPORTED, "it takes more scratch memory than there is where it is to run");
    if (!st)
        st = measure(s, &v, &seconds);
    dev_full_speed(gemm_device(s->context), 0);
    s->spent += (double)(gt_now_ns() - start) * 1e-9;
    if (st == GT_INTERRUPTED)
        return st;
    gemm_variant_text(text, s->tunable, &v);
    if (st) {
        snprintf(why, sizeof why, "%.*s", (int)strcspn(gt_message(), "\n"), gt_message());
        gt_message_clear();
        gt_log(GT_LOG_INFO, "gemm", "%s of engine '%s' is passed over: %s", text, s->tunable->engine, why);
        s->result.skipped++;
        seconds = 0.0;
    } else {
        gt_log(GT_LOG_DEBUG, "gemm", "%d x %d x %d: %s takes %.3f ms", s->sample.g.M, s->sample.g.N, s->sample.g.K,
               text, seconds * 1e3);
        s->better = seconds < s->best_s;
    }
    if (s->better) {
        s->best = v;
        s->best_s = seconds;
    }
    if (each)
        each(context, &(gemm_trial){ text, seconds, st ? why : NULL });
    return GT_OK;
}

gt_status gemm_search_decide(gemm_search *s, gemm_variant *best, gemm_tune_result *out)
{
    dev_device *d = gemm_device(s->context);
    double usual_s = INFINITY, best_s = INFINITY, took;
    gt_status st = GT_OK;
    dev_full_speed(d, 1);
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
    dev_full_speed(d, 0);
    if (!st && !(best_s <= 0.97 * usual_s)) {
        s->best = s->usual;
        best_s = usual_s;
    }
    s->result.usual_s = usual_s;
    s->result.variant_s = best_s;
    gemm_variant_text(s->result.variant, s->tunable, &s->best);
    *best = s->best;
    *out = s->result;
    return st;
}

void gemm_search_release(gemm_search *s)
{
    if (!s)
        return;
    gemm_sample_release(&s->sample);
    free(s->want);
    free(s->poison);
    free(s->seen);
    free(s);
}

gt_status gemm_search_all(gemm_context *c, const gemm_tunable *t, const gemm_desc *g, const gemm_tune_limits *limits,
                          gemm_tune_each *each, void *context, gemm_variant *best, gemm_tune_result *out)
{
    gemm_search *s;
    gt_activity activity;
    char what[80];
    int over = 0;
    *out = (gemm_tune_result){ .engine = t->engine, .M = g->M, .N = g->N, .K = g->K };
    snprintf(what, sizeof what, "tuning a product of %d x %d x %d", g->M, g->K, g->N);
    gt_activity_begin(&activity, what, "variants", (uint64_t)limits->variants);
    gt_status st = gemm_search_begin(&s, c, t, g, &(gemm_search_options){ .limits = *limits });
    for (int i = 0; !st && !over; i++) {
        st = gt_activity_at(&activity, (uint64_t)i);
        if (!st)
            st = gemm_search_try(s, &over, each, context);
    }
    if (!st)
        st = gemm_search_decide(s, best, out);
    gt_activity_end(&activity);
    gemm_search_release(s);
    return st;
}
