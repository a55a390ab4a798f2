/* SPDX-License-Identifier: MIT */
/* host/planner/local_replicas.c - ways to form replicas, and how many sequences each takes.
 *
 *   predicted seconds of     sequences   1    2    3  ...  16
 *                  {0 1}                 .4   .5   .7      2.9      sum of sequences = batch,
 *                  {2}                   .3   .6   .9      4.8      largest time least
 *
 * A partition's shares are a small dynamic program over the tables of its sets. Groups that are alike
 * make partitions alike: only one of those is looked at. Where partitions are still many, the
 * rate at which their sets work (sequences a second) picks those that get the program.     */
#include "host/planner/local_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_PARTITIONS = 4140 /* of eight groups */, MOST_SHARED = 64, MOST_GRAINS = 256 };

typedef struct partition {
    int replicas, set[GROUPS];
    double rate;
    uint64_t kind;
} partition;

typedef struct replica_search {
    const group_table *t;
    arranger *a;
    int stages, replicas, grain, grains, equal;     /* equal: replicas get the same, but for a rest */
    double *table;              /* [set * (grains + 1) + n]: seconds of n grains; NAN: not yet  */
    partition *list;
    int count, alike[GROUPS];   /* alike: the first group like this one                        */
} replica_search;

static int groups_of(int set)
{
    int n = 0;
    for (; set; set &= set - 1)
        n++;
    return n;
}

/* Sequences are distributed in grains, so that there are not too many ways; a batch with few divisors has more
 * grains rather than too few to share out. */
static int grain_of(int batch, int unit, int groups)
{
    const int most = groups <= 4 ? MOST_GRAINS : MOST_GRAINS / 4, least = 8 * groups, parts = batch / unit;
    int finer = 1;
    for (int g = 1; g <= parts; g++) {
        if (parts % g)
            continue;
        if (parts / g > most)
            finer = g;
        else
            return (parts / g >= least ? g : finer) * unit;
    }
    return unit;
}

static int near(double a, double b)
{
    return fabs(a - b) <= 0.005 * fmax(a, b);
}

static int are_alike(const group_table *t, int a, int b)
{
    const int ra = t->rank[a * t->tensor], rb = t->rank[b * t->tensor];
    if (t->job->rank[ra].node != t->job->rank[rb].node || !near(t->memory[a], t->memory[b]))
        return 0;
    for (int i = 0; i < t->sizes; i++)
        for (int kind = 0; kind < PROFILE_KINDS; kind++) {
            const profile_cost *x = group_unit(t, a, i, (profile_kind)kind);
            const profile_cost *y = group_unit(t, b, i, (profile_kind)kind);
            if (!near(x->forward, y->forward) || !near(x->backward_input, y->backward_input)
                || !near(x->backward_weight, y->backward_weight))
                return 0;
        }
    return 1;
}

/* ---- predicted times ------------------------------------------------------------------------ */

static double seconds_of(replica_search *d, int set, int n, int replicas)
{
    double *at = &d->table[(size_t)set * (size_t)(d->grains + 1) + (size_t)n];
    if (!isnan(*at))
        return *at;
    const int sequences = n * d->grain;
    *at = INFINITY;
    for (int i = 0; i < d->t->sizes; i++)
        if (sequences % d->t->size[i] == 0)
            *at = fmin(*at, arranger_predict(d->a, set, i, sequences / d->t->size[i], replicas));
    return *at;
}

/* Grains a second at best. */
static double rate_of(replica_search *d, int set, int replicas)
{
    double rate = 0;
    for (int n = d->grains; n >= 1; n = n > 8 ? n / 2 : n - 1)
        rate = fmax(rate, n / seconds_of(d, set, n, replicas));
    return rate;
}

/* ---- partitions ----------------------------------------------------------------------------- */

/* The same for partitions that differ only by groups that are alike. */
static uint64_t kind_of(const replica_search *d, const partition *p)
{
    uint64_t sum = 0;
    for (int r = 0; r < p->replicas; r++) {
        uint64_t members = 1;
        for (int group = 0; group < d->t->groups; group++)
            members += p->set[r] >> group & 1 ? (uint64_t)1 << 4 * d->alike[group] : 0;
        members *= 0x9e3779b97f4a7c15u;
        sum += (members ^ members >> 29) * 0xbf58476d1ce4e5b9u;
    }
    return sum;
}

static void keep_partition(replica_search *d, partition *p)
{
    p->kind = kind_of(d, p);
    p->rate = 0;
    for (int i = 0; i < d->count; i++)
        if (d->list[i].kind == p->kind)
            return;
    for (int r = 0; r < p->replicas; r++)
        p->rate += rate_of(d, p->set[r], p->replicas);
    if (d->count < MOST_PARTITIONS && p->rate > 0)
        d->list[d->count++] = *p;
}

/* The lowest group that is left begins the next replica, so that no partition comes twice. */
static void partitions(replica_search *d, partition *p, int left, int replicas)
{
    if (!left) {
        if (p->replicas == replicas)
            keep_partition(d, p);
        return;
    }
    if (p->replicas == replicas)
        return;
    const int lowest = left & -left, others = left & ~lowest;
    for (int sub = others;; sub = (sub - 1) & others) {
        if (!d->stages || groups_of(sub) + 1 == d->stages) {
            p->set[p->replicas++] = sub | lowest;
            partitions(d, p, others & ~sub, replicas);
            p->replicas--;
        }
        if (!sub)
            break;
    }
}

/* ---- sequences ------------------------------------------------------------------------------ */

/* Shares with the least largest time; 0: none do. */
static int share_out(replica_search *d, const partition *p, assignment *out)
{
    double *best = malloc((size_t)(d->grains + 1) * (size_t)(p->replicas + 1) * sizeof *best);
    int *taken = malloc((size_t)(d->grains + 1) * (size_t)(p->replicas + 1) * sizeof *taken);
    const int row = d->grains + 1;
    for (int j = 0; best && taken && j < row; j++)
        best[j] = j ? INFINITY : 0.0;
    for (int r = 1; best && taken && r <= p->replicas; r++)
        for (int j = 0; j < row; j++) {
            best[r * row + j] = INFINITY;
            for (int n = 1; n <= j; n++) {
                if (d->equal && n != d->grains / p->replicas + (r <= d->grains % p->replicas))
                    continue;
                const double t = fmax(best[(r - 1) * row + j - n], seconds_of(d, p->set[r - 1], n, p->replicas));
                if (t < best[r * row + j]) {
                    best[r * row + j] = t;
                    taken[r * row + j] = n;
                }
            }
        }
    int found = best && taken && isfinite(best[p->replicas * row + d->grains]);
    if (found) {
        *out = (assignment){ .replicas = p->replicas, .predicted = best[p->replicas * row + d->grains] };
        for (int r = p->replicas, j = d->grains; r > 0; j -= taken[r * row + j], r--) {
            out->set[r - 1] = p->set[r - 1];
            out->sequences[r - 1] = taken[r * row + j] * d->grain;
        }
    }
    free(best);
    free(taken);
    return found;
}

static int by_rate(const void *a, const void *b)
{
    const double x = ((const partition *)a)->rate, y = ((const partition *)b)->rate;
    return (x < y) - (x > y);
}

static int by_time(const void *a, const void *b)
{
    const double x = ((const assignment *)a)->predicted, y = ((const assignment *)b)->predicted;
    return (x > y) - (x < y);
}

static void assign_replicas(replica_search *d, int replicas, assignment *out, int *count)
{
    const size_t cells = ((size_t)1 << d->t->groups) * (size_t)(d->grains + 1);
    partition p = { 0 };
    for (size_t i = 0; i < cells; i++)          /* sums depend on the number of replicas */
        d->table[i] = NAN;
    d->count = 0;
    partitions(d, &p, (1 << d->t->groups) - 1, replicas);
    qsort(d->list, (size_t)d->count, sizeof *d->list, by_rate);
    for (int i = 0; i < d->count && i < MOST_SHARED && *count < MOST_ASSIGNMENTS; i++)
        *count += share_out(d, &d->list[i], &out[*count]);
}

gt_status assignments_find(assignment *out, int *count, const group_table *t, arranger *a)
{
    const local_job *job = t->job;
    const int unit = job->micro_batch ? job->micro_batch : 1;
    replica_search d = { .t = t, .a = a, .stages = job->stages, .grain = grain_of(job->batch, unit, t->groups) };
    d.grains = job->batch / d.grain;
    d.equal = local_shares_equally(job);
    d.table = malloc(((size_t)1 << t->groups) * (size_t)(d.grains + 1) * sizeof *d.table);
    d.list = malloc(MOST_PARTITIONS * sizeof *d.list);
    *count = 0;
    for (int s = 0; s < t->groups; s++)
        for (d.alike[s] = 0; d.alike[s] < s && !are_alike(t, s, d.alike[s]); d.alike[s]++)
            ;
    for (int r = 1; d.table && d.list && r <= t->groups && r <= d.grains; r++)
        if (!job->replicas || job->replicas == r)
            assign_replicas(&d, r, out, count);
    const int held = d.table && d.list;
    free(d.table);
    free(d.list);
    if (!held)
        return gt_fail(GT_NO_MEMORY, "cannot plan: no memory for the partitions of %d tensor groups", t->groups);
    qsort(out, (size_t)*count, sizeof *out, by_time);
    return GT_OK;
}
