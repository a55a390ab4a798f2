/* SPDX-License-Identifier: MIT */
/* host/planner/local_search.c - the choice among plans for the ranks that are here.
 *
 *   assignments, predicted {0 1} 12, {2} 4     {0 1 2} 16     {0} 6, {1} 6, {2} 4 ...
 *   each, per schedule     arranged and simulated; sequences moved from the slowest replica
 *   kinds                  the best of each number of replicas, depth and schedule
 *
 * What is predicted only says in which order to look, and when to stop: the simulator decides. Of
 * plans that take the same time within a quarter of a percent the simplest is taken, because
 * measured times are not better than that, and an order that everybody knows is easier to
 * follow in a trace.                                                                       */
#include "host/planner/local_private.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_KINDS = 64, MOST_SHIFTS = 24 };
static const double hopeless = 1.4;

/* The best plan of one kind so far. */
typedef struct kind {
    int replicas, stages[GROUPS];       /* stages: of each replica, falling                  */
    int schedule;                       /* of pipe_schedule_at(); the first if all have one stage */
    double step;
    arrangement part[GROUPS];
} kind;

typedef struct choice {
    const group_table *t;
    arranger *a;
    kind kinds[MOST_KINDS];
    int count;
    double best;
} choice;

/* ---- judging assignments -------------------------------------------------------------------- */

static gt_status judge(choice *c, const assignment *d, const char *schedule, double *step)
{
    const arrangement *part;
    gt_status st = GT_OK;
    *step = 0;
    for (int r = 0; !st && r < d->replicas && isfinite(*step); r++) {
        st = arranger_best(c->a, &part, d->set[r], d->sequences[r], d->replicas, schedule);
        if (!st)
            *step = fmax(*step, part->seconds);
    }
    return st;
}

static int slowest(choice *c, const assignment *d, const char *schedule)
{
    int worst = 0;
    double most = -1;
    for (int r = 0; r < d->replicas; r++) {
        const arrangement *part;
        if (!arranger_best(c->a, &part, d->set[r], d->sequences[r], d->replicas, schedule) && part->seconds > most) {
            most = part->seconds;
            worst = r;
        }
    }
    return worst;
}

/* Moves sequences off the slowest replica as long as that helps. */
static gt_status shift(choice *c, assignment *d, const char *schedule, double *step)
{
    const int unit = c->t->job->micro_batch ? c->t->job->micro_batch : 1;
    static const int by[] = { 1, 2, 3, 4, 8 };
    gt_status st = GT_OK;
    if (local_shares_equally(c->t->job))
        return GT_OK;
    for (int round = 0, better = 1; !st && better && round < MOST_SHIFTS; round++) {
        const int from = slowest(c, d, schedule);
        better = 0;
        for (int r = 0; !st && !better && r < d->replicas; r++)
            for (size_t i = 0; !st && !better && i < sizeof by / sizeof *by; i++) {
                const int n = by[i] * unit;
                assignment moved = *d;
                double then;
                if (r == from || d->sequences[from] <= n)
                    continue;
                moved.sequences[from] -= n;
                moved.sequences[r] += n;
                st = judge(c, &moved, schedule, &then);
                if (!st && then < *step) {
                    *d = moved;
                    *step = then;
                    better = 1;
                }
            }
    }
    return st;
}

/* ---- kinds ------------------------------------------------------------------------------------ */

static void describe(choice *c, const assignment *d, int schedule, kind *out)
{
    *out = (kind){ .replicas = d->replicas, .schedule = schedule };
    for (int r = 0; r < d->replicas; r++) {
        const arrangement *part;
        if (arranger_best(c->a, &part, d->set[r], d->sequences[r], d->replicas, pipe_schedule_at(schedule)->name))
            continue;
        out->part[r] = *part;
        out->step = fmax(out->step, part->seconds);
        int at = r;
        for (; at > 0 && out->stages[at - 1] < part->stages; at--)
            out->stages[at] = out->stages[at - 1];
        out->stages[at] = part->stages;
    }
}

static int same_shape(const kind *a, const kind *b)
{
    return a->replicas == b->replicas && !memcmp(a->stages, b->stages, sizeof a->stages);
}

static void keep(choice *c, const kind *k)
{
    int at = 0;
    while (at < c->count && !(same_shape(&c->kinds[at], k) && c->kinds[at].schedule == k->schedule))
        at++;
    if (at == MOST_KINDS)
        return;
    if (at == c->count)
        c->kinds[c->count++] = *k;
    else if (k->step < c->kinds[at].step)
        c->kinds[at] = *k;
    c->best = fmin(c->best, k->step);
}

static int depth(const assignment *d, int least)
{
    int stages = least ? GROUPS : 0;
    for (int r = 0; r < d->replicas; r++) {
        int n = 0;
        for (int set = d->set[r]; set; set &= set - 1)
            n++;
        stages = least ? (n < stages ? n : stages) : n > stages ? n : stages;
    }
    return stages;
}

static gt_status try_schedule(choice *c, assignment d, int schedule)
{
    double step;
    gt_status st = judge(c, &d, pipe_schedule_at(schedule)->name, &step);
    if (!st && step < c->best * 1.1)
        st = shift(c, &d, pipe_schedule_at(schedule)->name, &step);
    if (!st && isfinite(step)) {
        kind k;
        describe(c, &d, schedule, &k);
        keep(c, &k);
    }
    return st;
}

/* Of pipe_schedule_at(), at most. */
enum { SCHEDULES = 16 };

static int wanted(const local_job *job, const assignment *d, int schedule)
{
    if (job->schedule && strcmp(job->schedule, "auto"))
        return !strcmp(job->schedule, pipe_schedule_at(schedule)->name);
    if (pipe_schedule_at(schedule)->interleaves)
        return depth(d, 1) > 1;
    return schedule == 0 || depth(d, 0) > 1;    /* all orders of one stage are alike */
}

static gt_status try_assignments(choice *c, const assignment *list, int count)
{
    const int most = c->t->groups <= 3 ? MOST_ASSIGNMENTS : c->t->groups == 4 ? 24 : 12;
    gt_status st = GT_OK;
    for (int i = 0, tried = 0; !st && i < count && tried < most; i++) {
        if (list[i].predicted > hopeless * c->best)
            continue;
        tried++;
        for (int s = 0; !st && pipe_schedule_at(s); s++)
            if (wanted(c->t->job, &list[i], s))
                st = try_schedule(c, list[i], s);
    }
    return st;
}

/* ---- as a plan -------------------------------------------------------------------------------- */

static gt_status fill_replica(run_plan *p, int i, const arrangement *x, const group_table *t)
{
    gt_status st = run_plan_replica(p, i, x->stages);
    run_replica *r = &p->replica[i];
    if (st)
        return st;
    r->micro_batch = t->size[x->size_at];
    r->micro_batches = x->micro_batches;
    memcpy(r->cut, x->cut, (size_t)(x->stages * x->chunks + 1) * sizeof *r->cut);
    for (int s = 0; s < x->stages; s++)
        memcpy(&r->rank[s * t->tensor], &t->rank[x->group[s] * t->tensor], (size_t)t->tensor * sizeof *r->rank);
    return GT_OK;
}

static gt_status make_plan(run_plan *out, const kind *k, const group_table *t)
{
    const local_job *job = t->job;
    gt_status st = run_plan_create(out, t->groups * t->tensor, job->units, job->batch, t->tensor, k->part[0].chunks,
                                   k->replicas);
    if (st)
        return st;
    memcpy(out->share, t->share, (size_t)t->tensor * sizeof *t->share);
    snprintf(out->schedule, sizeof out->schedule, "%s", pipe_schedule_at(k->schedule)->name);
    run_plan_sync(out, job->sync, job->settings);
    out->recompute = t->recompute;
    for (int i = 0; !st && i < k->replicas; i++)
        st = fill_replica(out, i, &k->part[i], t);
    if (!st)
        st = run_plan_check(out);
    if (!st)
        st = local_judge(out, job);
    if (st)
        run_plan_release(out);
    return st;
}

static int simplicity(const kind *k)
{
    return k->stages[0] * SCHEDULES + k->schedule;
}

/* The fastest that is left; of those that are as fast, the simplest. apart: not of the shape of any
 * that was taken. -1: there is none. */
static int take_best(choice *c, const char *taken, int apart)
{
    int best = -1;
    double least = INFINITY;
    char open[MOST_KINDS];
    for (int i = 0; i < c->count; i++) {
        open[i] = !taken[i];
        for (int k = 0; apart && k < c->count; k++)
            open[i] = (char)(open[i] && !(taken[k] && same_shape(&c->kinds[i], &c->kinds[k])));
        if (open[i])
            least = fmin(least, c->kinds[i].step);
    }
    for (int i = 0; i < c->count; i++)
        if (open[i] && c->kinds[i].step <= least * LOCAL_SAME_TIME
            && (best < 0 || simplicity(&c->kinds[i]) < simplicity(&c->kinds[best])))
            best = i;
    return best;
}

static gt_status pick(local_choice *out, choice *c)
{
    char taken[MOST_KINDS] = { 0 };
    int at = take_best(c, taken, 0);
    gt_status st = make_plan(&out->best, &c->kinds[at], c->t);
    taken[at] = 1;
    while (!st && out->runners_up < LOCAL_RUNNERS_UP) {
        run_plan *p = &out->runner_up[out->runners_up];
        at = take_best(c, taken, 1);
        at = at < 0 ? take_best(c, taken, 0) : at;
        if (at < 0)
            break;
        taken[at] = 1;
        st = make_plan(p, &c->kinds[at], c->t);
        if (!st)
            local_say_why_not(out->why_not[out->runners_up++], sizeof *out->why_not, p, &out->best);
    }
    return st;
}

/* ---- one tensor width ------------------------------------------------------------------------- */

/* *found 0: nothing fits. */
static gt_status search_width(local_choice *out, const local_job *job, int tensor, int recompute, misfit *why,
                              int *found)
{
    int *rank = malloc((size_t)job->ranks * sizeof *rank), size[MOST_SIZES], count = 0;
    double *share = malloc((size_t)job->ranks * sizeof *share);
    assignment *list = malloc(MOST_ASSIGNMENTS * sizeof *list);
    choice *c = calloc(1, sizeof *c);
    group_table t = { 0 };
    arranger *a = NULL;
    const int groups = job->ranks / tensor;
    *found = 0;
    gt_status st = rank && share && list && c
                       ? GT_OK
                       : gt_fail(GT_NO_MEMORY, "cannot plan: no memory for the lists of %d ranks", job->ranks);
    if (!st && local_groups(job, tensor, rank, share)) {
        const int sizes = local_sizes(job, groups, size);
        st = group_table_make(&t, job, tensor, recompute, groups, rank, share, size, sizes);
        if (!st)
            st = arranger_create(&a, &t, why);
        if (!st)
            st = assignments_find(list, &count, &t, a);
        if (!st) {
            c->t = &t;
            c->a = a;
            c->best = INFINITY;
            st = try_assignments(c, list, count);
        }
        if (!st && c->count) {
            *found = 1;
            st = pick(out, c);
        }
        out->simulated += a ? arranger_simulated(a) : 0;
    }
    arranger_release(a);
    group_table_release(&t);
    free(c);
    free(list);
    free(share);
    free(rank);
    return st;
}

/* ---- all ---------------------------------------------------------------------------------------- */

/* What is asked for needs at least so many ranks, whatever is left open. */
static gt_status check_ranks(const local_job *job)
{
    const struct {
        int n;
        const char *one, *many;
    } part[] = { { job->replicas, "replica", "replicas" },
                 { job->stages, "stage", "stages" },
                 { job->tensor, "tensor rank", "tensor ranks" } };
    char what[128] = "";
    int64_t need = 1;
    int n = 0;
    for (int i = 0; i < 3; i++) {
        if (!part[i].n)
            continue;
        need *= part[i].n;
        n += snprintf(what + n, sizeof what - (size_t)n, "%s%d %s", n ? " of " : "", part[i].n,
                      part[i].n == 1 ? part[i].one : part[i].many);
        if (need > INT32_MAX)
            break;
    }
    if (need <= job->ranks)
        return GT_OK;
    return gt_fail(GT_MISUSE,
                   "%s need at least %lld ranks, there %s %d; ask for fewer, or name more devices "
                   "with --devices",
                   what, (long long)need, job->ranks == 1 ? "is" : "are", job->ranks);
}

gt_status local_search_check(const local_job *job)
{
    const int tensor = job->tensor ? job->tensor : 1;
    char names[PIPE_NAMES];
    if (job->schedule && strcmp(job->schedule, "auto") && !pipe_schedule_find(job->schedule)) {
        pipe_schedule_names(names);
        return gt_fail(GT_MISUSE, "there is no schedule '%s'; there are auto|%s", job->schedule, names);
    }
    if (job->micro_batch && job->batch % job->micro_batch)
        return gt_fail(GT_MISUSE, "batch %d is not a multiple of micro-batch %d", job->batch, job->micro_batch);
    if (job->units && job->stages > job->units)
        return gt_fail(GT_MISUSE, "%d stages cannot be made of %d units", job->stages, job->units);
    gt_status st = check_ranks(job);
    if (st)
        return st;
    if (job->ranks % tensor)
        return gt_fail(GT_MISUSE, "%d ranks cannot be dealt into tensor groups of %d", job->ranks, tensor);
    if (job->stages && job->ranks % (job->stages * tensor))
        return gt_fail(GT_MISUSE, "%d ranks cannot be dealt into replicas of %d stages%s", job->ranks, job->stages,
                       tensor > 1 ? " of such tensor groups" : "");
    const int replicas = job->replicas ? job->replicas : job->stages ? job->ranks / (job->stages * tensor) : 1;
    const int parts = job->micro_batch ? job->batch / job->micro_batch : job->batch;
    if (parts < replicas && job->micro_batch > 1)
        return gt_fail(GT_MISUSE,
                       "a batch of %d in micro-batches of %d cannot be shared by %d replicas; take "
                       "fewer replicas, smaller micro-batches or a larger --batch",
                       job->batch, job->micro_batch, replicas);
    if (parts < replicas)
        return gt_fail(GT_MISUSE,
                       "a batch of %d cannot be shared by %d replicas; take fewer replicas or a "
                       "larger --batch",
                       job->batch, replicas);
    return GT_OK;
}

static gt_status nothing_fits(const local_job *job, const misfit *why)
{
    if (why->text[0])
        return gt_fail(GT_MISMATCH,
                       "no plan fits in memory: at best %s; take smaller micro-batches, more "
                       "devices, or --recompute",
                       why->text);
    return gt_fail(GT_MISMATCH,
                   "there is no plan for %d ranks, batch %d and %d units with the stages, "
                   "replicas, tensor width, micro-batch and schedule asked for",
                   job->ranks, job->batch, job->units);
}

gt_status local_search(local_choice *out, const local_job *job)
{
    *out = (local_choice){ 0 };
    misfit why = { .over = INFINITY };
    gt_status st = local_search_check(job);
    int found = 0;
    const int widest = job->tensor ? job->tensor : job->ranks;
    for (int tensor = job->tensor ? job->tensor : 1; !st && !found && tensor <= widest; tensor++) {
        if (job->ranks % tensor)
            continue;
        const int few = job->ranks / tensor <= LOCAL_MOST_RANKS;
        for (int again = job->recompute > 0; !st && !found && again <= (job->recompute ? 1 : 0); again++)
            st = few ? search_width(out, job, tensor, again, &why, &found)
                     : local_search_many(out, job, tensor, again, &why, &found);
    }
    if (!st && !found)
        st = nothing_fits(job, &why);
    if (st)
        local_choice_release(out);
    return st;
}

void local_choice_release(local_choice *c)
{
    run_plan_release(&c->best);
    for (int i = 0; i < LOCAL_RUNNERS_UP; i++)
        run_plan_release(&c->runner_up[i]);
    *c = (local_choice){ 0 };
}
