/* SPDX-License-Identifier: MIT */
/* host/pipeline/schedule_list.c - a schedule for stages that are not equal.
 *
 * Several orders are made, simulated with the measured times, and the fastest that fits the
 * memory is taken: 1F1B and ZB-H1 as they are, and orders found by playing the pipeline forward
 * in time. In play, a rank that is free takes
 *
 *     a backward-input that is ready, else a forward that is ready and allowed,
 *     else a backward-weight that was put off, else it waits
 *
 * where a forward is allowed while the rank keeps fewer activations than its limit. How far
 * forwards may run ahead is tried from what 1F1B needs up to what memory holds: running far
 * ahead can help a slow stage in the middle and hurt elsewhere, which no rule predicts.     */
#include "host/pipeline/schedule_private.h"
#include "host/pipeline/simulate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One rank while the pipeline is played. */
typedef struct rank_progress {
    double now;                 /* when it is free                                         */
    int forwards, inputs, weights;
    int most_ahead;             /* forwards without their backward-input                    */
    int most_kept;              /* forwards without their backward-weight                   */
    int left;
} rank_progress;

typedef struct list_scheduler {
    pipe_schedule *s;
    const pipe_cost *costs;
    rank_progress *progress;
    double *activation_at, *gradient_at;    /* [rank * micro_batches + m]: when it has arrived */
} list_scheduler;

static double at(const double *times, const list_scheduler *g, int rank, int m)
{
    return times[(size_t)rank * (size_t)g->s->micro_batches + (size_t)m];
}

/* When each kind of work could begin on a rank; INFINITY: not now. */
static double forward_ready(const list_scheduler *g, int r)
{
    const rank_progress *p = &g->progress[r];
    if (p->forwards == g->s->micro_batches || p->forwards - p->inputs >= p->most_ahead
        || p->forwards - p->weights >= p->most_kept)
        return INFINITY;
    return r == 0 ? 0.0 : at(g->activation_at, g, r, p->forwards);
}

static double input_ready(const list_scheduler *g, int r)
{
    const rank_progress *p = &g->progress[r];
    if (p->inputs == p->forwards)
        return INFINITY;
    return r == g->s->ranks - 1 ? 0.0 : at(g->gradient_at, g, r, p->inputs);
}

static double later(double a, double b)
{
    return a > b ? a : b;
}

/* What rank r does next, and when: a backward-input or forward that is ready when it is free,
 * in that order; else a backward-weight; else whatever is ready first. */
static pipe_kind choose(const list_scheduler *g, int r, double *when)
{
    const rank_progress *p = &g->progress[r];
    const double forward_at = forward_ready(g, r), input_at = input_ready(g, r);
    const int has_weight = p->weights < p->inputs;
    *when = p->now;
    if (input_at <= p->now)
        return PIPE_BACKWARD_INPUT;
    if (forward_at <= p->now)
        return PIPE_FORWARD;
    if (has_weight)
        return PIPE_BACKWARD_WEIGHT;
    *when = later(p->now, input_at <= forward_at ? input_at : forward_at);
    return input_at <= forward_at ? PIPE_BACKWARD_INPUT : PIPE_FORWARD;
}

static void issue(list_scheduler *g, int r, pipe_kind kind, double when)
{
    rank_progress *p = &g->progress[r];
    const writer w = { g->s, r };
    const pipe_cost *c = &g->costs[r];
    const size_t all = (size_t)g->s->micro_batches;
    switch (kind) {
    case PIPE_FORWARD:
        p->now = when + c->forward;
        if (r < g->s->ranks - 1)
            g->activation_at[(size_t)(r + 1) * all + (size_t)p->forwards] = p->now + c->send;
        schedule_forward(&w, 0, p->forwards++);
        break;
    case PIPE_BACKWARD_INPUT:
        p->now = when + c->backward_input;
        if (r > 0)
            g->gradient_at[(size_t)(r - 1) * all + (size_t)p->inputs] = p->now + g->costs[r - 1].send;
        schedule_backward_input(&w, 0, p->inputs++);
        break;
    default: p->now = when + c->backward_weight; schedule_backward_weight(&w, 0, p->weights++, &p->left);
    }
}

/* Always the rank whose next work begins first, so that what it depends on has been played. */
static gt_status issue_all(list_scheduler *g)
{
    const int ranks = g->s->ranks;
    for (;;) {
        int next = -1;
        double first = INFINITY;
        pipe_kind kind = PIPE_KINDS;
        for (int r = 0; r < ranks; r++) {
            double when;
            const pipe_kind k = choose(g, r, &when);
            if (g->progress[r].weights < g->s->micro_batches && when < first) {
                next = r;
                first = when;
                kind = k;
            }
        }
        if (next < 0)
            break;
        issue(g, next, kind, first);
    }
    for (int r = 0; r < ranks; r++)
        if (g->progress[r].weights < g->s->micro_batches)
            return gt_fail(GT_MISUSE, "rank %d cannot keep the activations of one micro-batch", r);
    return GT_OK;
}

/* How many micro-batches rank r may keep. */
static int limit(const pipe_schedule *s, const pipe_cost *costs, const double *memory, int r)
{
    const int usual = s->ranks < s->micro_batches ? s->ranks : s->micro_batches;
    if (!memory)
        return usual;
    if (costs[r].activation <= 0 || memory[r] / costs[r].activation >= s->micro_batches)
        return s->micro_batches;
    return (int)(memory[r] / costs[r].activation);
}

/* An order found by play, in which rank r runs at most its place's number + extra ahead. */
static gt_status play_order(pipe_schedule *s, const pipe_cost *costs, const double *memory, int extra)
{
    const size_t cells = (size_t)s->ranks * (size_t)s->micro_batches;
    list_scheduler g = { s, costs, calloc((size_t)s->ranks, sizeof(rank_progress)), malloc(cells * sizeof(double)),
                         malloc(cells * sizeof(double)) };
    gt_status st = g.progress && g.activation_at && g.gradient_at
                       ? GT_OK
                       : gt_fail(GT_NO_MEMORY, "no memory to search a schedule of %d ranks", s->ranks);
    for (size_t i = 0; !st && i < cells; i++)
        g.activation_at[i] = g.gradient_at[i] = INFINITY;
    for (int r = 0; !st && r < s->ranks; r++) {
        rank_progress *p = &g.progress[r];
        const int place = s->ranks - r;
        p->left = s->micro_batches;
        p->most_kept = limit(s, costs, memory, r);
        p->most_ahead = place + extra < p->most_kept ? place + extra : p->most_kept;
    }
    if (!st)
        st = issue_all(&g);
    for (int r = 0; !st && r < s->ranks; r++)
        schedule_put(&(writer){ s, r }, PIPE_UPDATE, 0, 0);
    free(g.progress);
    free(g.activation_at);
    free(g.gradient_at);
    return st;
}

static int fits(const pipe_schedule *s, const pipe_cost *costs, const double *memory, const int *kept)
{
    for (int r = 0; r < s->ranks; r++)
        if (kept[r] > limit(s, costs, memory, r))
            return 0;
    return 1;
}

/* Takes `candidate` over if it fits and is faster than what *best holds; releases the other. */
static gt_status consider(pipe_schedule *best, double *seconds, pipe_schedule *candidate, const pipe_cost *costs,
                          const double *memory, int *kept)
{
    pipe_simulation sim;
    gt_status st = pipe_schedule_check(candidate, kept);
    if (!st && fits(candidate, costs, memory, kept)) {
        st = pipe_simulate(&sim, candidate, costs, 0);
        if (!st && sim.step < *seconds) {
            const pipe_schedule old = *best;
            *best = *candidate;
            *candidate = old;
            *seconds = sim.step;
        }
        if (!st)
            pipe_simulation_release(&sim);
    }
    pipe_schedule_release(candidate);
    return st;
}

gt_status schedule_search(pipe_schedule *s, const pipe_cost *costs, const double *memory)
{
    static const char *const known[] = { "1f1b", "zb-h1" };
    pipe_schedule best = { 0 }, candidate;
    double seconds = INFINITY;
    int *kept = malloc((size_t)s->ranks * sizeof *kept);
    gt_status st = kept ? GT_OK : gt_fail(GT_NO_MEMORY, "no memory to search a schedule of %d ranks", s->ranks);
    for (int r = 0; !st && r < s->ranks; r++)
        if (limit(s, costs, memory, r) < 1)
            st = gt_fail(GT_MISUSE, "rank %d cannot keep the activations of one micro-batch", r);
    for (int i = 0; !st && i < 2; i++) {
        st = pipe_schedule_make(&candidate, known[i], s->ranks, 1, s->micro_batches, NULL, NULL);
        if (!st)
            st = consider(&best, &seconds, &candidate, costs, memory, kept);
    }
    for (int extra = 0; !st && extra <= s->ranks; extra = extra ? 2 * extra : 1) {
        candidate = (pipe_schedule){ .ranks = s->ranks, .chunks = 1, .micro_batches = s->micro_batches };
        memcpy(candidate.name, s->name, sizeof s->name);
        st = schedule_allocate(&candidate);
        if (!st)
            st = play_order(&candidate, costs, memory, extra);
        if (!st)
            st = consider(&best, &seconds, &candidate, costs, memory, kept);
        else
            pipe_schedule_release(&candidate);
    }
    free(kept);
    if (!st) {
        memcpy(best.name, s->name, sizeof s->name);
        pipe_schedule_release(s);
        *s = best;
    } else {
        pipe_schedule_release(&best);
    }
    return st;
}
