/* SPDX-License-Identifier: MIT */
/* host/pipeline/simulate.c - plays a schedule with times.
 *
 * Ranks take turns as in the proof (schedule_check.c): each runs until it meets a receive whose
 * message has not been sent. When a message arrives depends only on instructions before its
 * send, so the order of turns does not matter, and one pass is exact.                       */
#include "host/pipeline/simulate.h"

#include <stdlib.h>

typedef struct wire {
    double *arrival;
    int sent, received;
    double free_at;
} wire;

typedef struct play {
    const pipe_schedule *s;
    const pipe_cost *costs;
    pipe_simulation *out;
    wire *activations, *gradients;  /* [virtual stage]: what arrives at it */
    int *next;
    double *now, *reduced;          /* [rank]                              */
} play;

static double later(double a, double b)
{
    return a > b ? a : b;
}

static void transmit(wire *w, double now, double seconds)
{
    w->free_at = later(w->free_at, now) + seconds;
    w->arrival[w->sent++] = w->free_at;
}

/* 0: it must wait for a message that has not been sent. */
static int step(play *p, int r)
{
    const pipe_schedule *s = p->s;
    const pipe_instruction *i = &s->list[r][p->next[r]];
    const int v = i->chunk * s->ranks + r;
    const pipe_cost *c = &p->costs[v];
    const double begin = p->now[r];
    double work = 0, summing = 0;
    wire *w;
    switch (i->kind) {
    case PIPE_RECEIVE_ACTIVATION:
    case PIPE_RECEIVE_GRADIENT:
        w = i->kind == PIPE_RECEIVE_ACTIVATION ? &p->activations[v] : &p->gradients[v];
        if (w->received == w->sent)
            return 0;
        p->now[r] = later(begin, w->arrival[w->received++]);
        break;
    case PIPE_SEND_ACTIVATION: transmit(&p->activations[v + 1], begin, c->send); break;
    case PIPE_SEND_GRADIENT: transmit(&p->gradients[v - 1], begin, p->costs[v - 1].send); break;
    case PIPE_FORWARD: work = c->forward; break;
    case PIPE_BACKWARD_INPUT: work = c->backward_input; break;
    case PIPE_BACKWARD_WEIGHT: work = c->backward_weight; break;
    case PIPE_REDUCE:
        summing = later(p->reduced[r], begin);
        p->reduced[r] = summing + c->reduce;
        break;
    default:
        p->now[r] = later(begin, p->reduced[r]);
        for (int chunk = 0; chunk < s->chunks; chunk++)
            work += p->costs[chunk * s->ranks + r].update;
    }
    p->now[r] += work;
    p->out->busy[r] += work;
    if (p->out->event)
        p->out->event[r][p->next[r]] = i->kind == PIPE_REDUCE
                                           ? (pipe_event){ summing, p->reduced[r] }
                                           : (pipe_event){ work > 0 ? p->now[r] - work : begin, p->now[r] };
    p->next[r]++;
    return 1;
}

static gt_status run(play *p)
{
    const pipe_schedule *s = p->s;
    int left = 1;
    for (int any = 1; left && any;) {
        left = any = 0;
        for (int r = 0; r < s->ranks; r++) {
            while (p->next[r] < s->count[r] && step(p, r))
                any = 1;
            left |= p->next[r] < s->count[r];
        }
    }
    return left ? gt_fail(GT_MISMATCH, "schedule %s waits forever", s->name) : GT_OK;
}

static void sum_up(pipe_simulation *out, const play *p)
{
    double busy = 0;
    for (int r = 0; r < out->ranks; r++) {
        out->end[r] = p->now[r];
        out->step = later(out->step, p->now[r]);
        busy += out->busy[r];
    }
    out->idle = out->step > 0 ? 1.0 - busy / (out->step * out->ranks) : 0.0;
}

static int allocate(play *p, int want_events)
{
    const pipe_schedule *s = p->s;
    pipe_simulation *out = p->out;
    const size_t ranks = (size_t)s->ranks, stages = ranks * (size_t)s->chunks;
    p->activations = calloc(stages, sizeof *p->activations);
    p->gradients = calloc(stages, sizeof *p->gradients);
    p->next = calloc(ranks, sizeof *p->next);
    p->now = calloc(ranks, sizeof *p->now);
    p->reduced = calloc(ranks, sizeof *p->reduced);
    out->busy = calloc(ranks, sizeof *out->busy);
    out->end = calloc(ranks, sizeof *out->end);
    out->event = want_events ? calloc(ranks, sizeof *out->event) : NULL;
    if (!p->activations || !p->gradients || !p->next || !p->now || !p->reduced || !out->busy || !out->end
        || (want_events && !out->event))
        return 0;
    for (size_t v = 0; v < stages; v++) {
        p->activations[v].arrival = malloc((size_t)s->micro_batches * sizeof(double));
        p->gradients[v].arrival = malloc((size_t)s->micro_batches * sizeof(double));
        if (!p->activations[v].arrival || !p->gradients[v].arrival)
            return 0;
    }
    for (size_t r = 0; want_events && r < ranks; r++)
        if (!(out->event[r] = calloc((size_t)s->count[r], sizeof **out->event)))
            return 0;
    return 1;
}

static void release(play *p)
{
    const size_t stages = (size_t)p->s->ranks * (size_t)p->s->chunks;
    for (size_t v = 0; v < stages; v++) {
        if (p->activations)
            free(p->activations[v].arrival);
        if (p->gradients)
            free(p->gradients[v].arrival);
    }
    free(p->activations);
    free(p->gradients);
    free(p->next);
    free(p->now);
    free(p->reduced);
}

gt_status pipe_simulate(pipe_simulation *out, const pipe_schedule *s, const pipe_cost *costs, int want_events)
{
    *out = (pipe_simulation){ .ranks = s->ranks };
    play p = { .s = s, .costs = costs, .out = out };
    gt_status st = allocate(&p, want_events)
                       ? run(&p)
                       : gt_fail(GT_NO_MEMORY, "no memory to simulate a schedule of %d ranks", s->ranks);
    if (!st)
        sum_up(out, &p);
    else
        pipe_simulation_release(out);
    release(&p);
    return st;
}

void pipe_simulation_release(pipe_simulation *s)
{
    for (int r = 0; s->event && r < s->ranks; r++)
        free(s->event[r]);
    free(s->event);
    free(s->busy);
    free(s->end);
    *s = (pipe_simulation){ 0 };
}
