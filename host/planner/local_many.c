/* SPDX-License-Identifier: MIT */
/* host/planner/local_many.c - plans for more ranks than all partitions can be tried of.
 *
 *   groups by node  0 1 2 3 | 4 5 6 7 | 8 9         replicas are neighbours, of one depth or one more:
 *   depth 4         [0 1 2 3][4 5 6 7 8 9]          stages stand in the order of the groups
 *
 * Every depth and micro-batch size is cut by bisection and distributed by rate, and the judge decides, with the
 * measured times. cluster_search.h is for devices that are only thought of: it wants FLOP/s, leaves odd
 * devices out and knows one micro-batch size for all, where here every rank has its place.  */
#include "host/planner/local_private.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIST_DEPTH = 8 };

typedef struct many {
    const group_table *t;
    local_choice *out;
    misfit *why;
    int plans;                  /* in out: the best, then runners-up                       */
} many;

/* Groups [*first, *first + stages) of replica r of `replicas`. */
static int span_of(int groups, int replicas, int r, int *first)
{
    *first = (int)((int64_t)groups * r / replicas);
    return (int)((int64_t)groups * (r + 1) / replicas) - *first;
}

static int cut_within(const group_table *t, int first, int stages, int i, int flight, double limit, int *cut)
{
    cut[0] = 0;
    for (int s = 0; s < stages; s++) {
        cut[s + 1] = group_reach(t, first + s, i, cut[s], s, stages, flight, limit);
        if (cut[s + 1] < 0)
            return 0;
    }
    return 1;
}

/* The least bottleneck of groups in this order; INFINITY: they cannot hold the model. */
static double cut_replica(const group_table *t, int first, int stages, int i, int flight, int *cut)
{
    double low = 0, high = 0;
    for (int s = 0; s < stages; s++)
        for (int u = 0; u < t->job->units; u++) {
            const profile_cost *c = group_unit(t, first + s, i, profile_kind_of(u, t->job->units));
            high += c->forward + c->backward_input + c->backward_weight;
        }
    high *= 1.0 + 1e-9;
    if (stages > t->job->units || !cut_within(t, first, stages, i, flight, high, cut))
        return INFINITY;
    while (high - low > 1e-5 * high) {
        const double middle = 0.5 * (low + high);
        if (cut_within(t, first, stages, i, flight, middle, cut))
            high = middle;
        else
            low = middle;
    }
    return cut_within(t, first, stages, i, flight, high, cut) ? high : INFINITY;
}

/* Micro-batches one by one to whoever would end first; each has one. */
static void distribute(run_plan *p, const double *bottleneck, int total, int equal)
{
    for (int r = 0; r < p->replicas; r++)
        p->replica[r].micro_batches = 1;
    for (int left = total - p->replicas; left > 0; left--) {
        int next = 0;
        double least = INFINITY;
        for (int r = 0; r < p->replicas; r++) {
            const double end = equal ? p->replica[r].micro_batches
                                     : (p->replica[r].micro_batches + p->replica[r].stages) * bottleneck[r];
            if (end < least) {
                least = end;
                next = r;
            }
        }
        p->replica[next].micro_batches++;
    }
}

/* *fits 0: some replica cannot be cut. */
static gt_status fill(run_plan *p, const group_table *t, int i, int *fits)
{
    const int total = t->job->batch / t->size[i];
    double *bottleneck = malloc((size_t)p->replicas * sizeof *bottleneck);
    gt_status st = bottleneck ? GT_OK
                              : gt_fail(GT_NO_MEMORY, "cannot plan: no memory for the bottlenecks of %d replicas",
                                        p->replicas);
    *fits = 1;
    for (int r = 0; !st && *fits && r < p->replicas; r++) {
        int first;
        const int stages = span_of(t->groups, p->replicas, r, &first);
        st = run_plan_replica(p, r, stages);
        if (st)
            break;
        run_replica *q = &p->replica[r];
        q->micro_batch = t->size[i];
        memcpy(q->rank, &t->rank[first * t->tensor], (size_t)(stages * t->tensor) * sizeof *q->rank);
        bottleneck[r] = cut_replica(t, first, stages, i, total < stages ? total : stages, q->cut);
        *fits = isfinite(bottleneck[r]);
    }
    if (!st && *fits)
        distribute(p, bottleneck, total, local_shares_equally(t->job));
    free(bottleneck);
    return st;
}

static int holds(const run_plan *p, misfit *why)
{
    int good = 1;
    for (int r = 0; r < p->ranks; r++) {
        char a[24], b[24];
        const double over = p->memory[r] / p->limit[r];
        if (over <= 1.0)
            continue;
        good = 0;
        if (over < why->over) {
            why->over = over;
            snprintf(why->text, sizeof why->text, "rank %d (%s) would need %s and may use %s", r, p->device[r],
                     gt_format_bytes(a, sizeof a, (uint64_t)p->memory[r]),
                     gt_format_bytes(b, sizeof b, (uint64_t)p->limit[r]));
        }
    }
    return good;
}

static int same_shape(const run_plan *a, const run_plan *b)
{
    return a->replicas == b->replicas && !strcmp(a->schedule, b->schedule);
}

/* Puts a plan among the best, one of each shape; releases what drops out. */
static void place(many *m, run_plan *p)
{
    run_plan *slot[1 + LOCAL_RUNNERS_UP] = { &m->out->best };
    for (int i = 0; i < LOCAL_RUNNERS_UP; i++)
        slot[i + 1] = &m->out->runner_up[i];
    for (int i = 0; i < m->plans; i++)
        if (same_shape(slot[i], p)) {
            if (p->step >= slot[i]->step) {
                run_plan_release(p);
                return;
            }
            run_plan_release(slot[i]);          /* it comes in again where it belongs */
            for (int k = i; k + 1 < m->plans; k++)
                *slot[k] = *slot[k + 1];
            *slot[--m->plans] = (run_plan){ 0 };
            break;
        }
    int at = m->plans;
    while (at > 0 && p->step < slot[at - 1]->step)
        at--;
    if (at > LOCAL_RUNNERS_UP) {
        run_plan_release(p);
        return;
    }
    run_plan_release(slot[LOCAL_RUNNERS_UP]);
    for (int k = LOCAL_RUNNERS_UP; k > at; k--)
        *slot[k] = *slot[k - 1];
    *slot[at] = *p;
    m->plans += m->plans <= LOCAL_RUNNERS_UP;
}

static gt_status try_plan(many *m, int replicas, int i, const char *schedule)
{
    const local_job *job = m->t->job;
    run_plan p;
    int fits = 0;
    gt_status st = run_plan_create(&p, m->t->groups * m->t->tensor, job->units, job->batch, m->t->tensor, 1, replicas);
    if (st)
        return st;
    memcpy(p.share, m->t->share, (size_t)m->t->tensor * sizeof *p.share);
    snprintf(p.schedule, sizeof p.schedule, "%s", schedule);
    run_plan_sync(&p, job->sync, job->settings);
    p.recompute = m->t->recompute;
    st = fill(&p, m->t, i, &fits);
    if (!st && fits) {
        st = run_plan_check(&p);
        if (st == GT_MISMATCH) {                /* no such schedule for this many micro-batches */
            gt_message_clear();
            st = GT_OK;
            fits = 0;
        }
    }
    if (!st && fits) {
        st = local_judge(&p, job);
        m->out->simulated += (uint64_t)replicas;
    }
    if (!st && fits && holds(&p, m->why))
        place(m, &p);
    else
        run_plan_release(&p);
    return st;
}

static int is_wanted(const local_job *job, const char *schedule, int depth)
{
    if (job->schedule && strcmp(job->schedule, "auto"))
        return !strcmp(job->schedule, schedule);
    const pipe_schedule_kind *kind = pipe_schedule_find(schedule);
    if (kind == pipe_schedule_at(0))
        return 1;
    return depth > 1 && !kind->dominated && !kind->interleaves && (!kind->searched || depth <= LIST_DEPTH);
}

static gt_status try_all(many *m)
{
    const group_table *t = m->t;
    const local_job *job = t->job;
    gt_status st = GT_OK;
    for (int replicas = 1; !st && replicas <= t->groups; replicas++) {
        const int depth = (t->groups + replicas - 1) / replicas;
        if ((job->replicas && job->replicas != replicas) || depth > job->units
            || (job->stages && job->stages * replicas != t->groups))
            continue;
        for (int i = 0; !st && i < t->sizes; i++)
            for (int s = 0; !st && pipe_schedule_at(s); s++)
                if (job->batch % t->size[i] == 0 && job->batch / t->size[i] >= replicas
                    && is_wanted(job, pipe_schedule_at(s)->name, depth))
                    st = try_plan(m, replicas, i, pipe_schedule_at(s)->name);
    }
    return st;
}

gt_status local_search_many(local_choice *out, const local_job *job, int tensor, int recompute, misfit *why, int *found)
{
    int *rank = malloc((size_t)job->ranks * sizeof *rank), size[MOST_SIZES];
    double *share = malloc((size_t)job->ranks * sizeof *share);
    group_table t = { 0 };
    many m = { .t = &t, .out = out, .why = why };
    *found = 0;
    gt_status st = rank && share ? GT_OK
                                 : gt_fail(GT_NO_MEMORY, "cannot plan: no memory for a list of %d ranks", job->ranks);
    if (!st && local_groups(job, tensor, rank, share)) {
        const int groups = job->ranks / tensor;
        st = group_table_make(&t, job, tensor, recompute, groups, rank, share, size, local_sizes(job, groups, size));
        if (!st)
            st = try_all(&m);
    }
    *found = m.plans > 0;
    out->runners_up = m.plans ? m.plans - 1 : 0;
    for (int i = 0; i < out->runners_up; i++)
        local_say_why_not(out->why_not[i], sizeof out->why_not[i], &out->runner_up[i], &out->best);
    group_table_release(&t);
    free(share);
    free(rank);
    return st;
}
