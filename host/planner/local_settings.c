/* SPDX-License-Identifier: MIT */
/* host/planner/local_settings.c - what a local search looks at: micro-batch sizes, tensor groups, and what
 * is said of losers.
 *
 *   node 0: ranks 2 (fast) 0 3 1 (slow)     width 2: {2 0} {3 1}, shares by the mean speed
 *                                           of first and second places: all groups share alike,
 *                                           so that stages of all replicas hold equal slices
 */
#include "host/planner/local_private.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Speeds that differ by no more are equal: slices of equal size are simpler, and measured times vary. */
static const double noise = 0.1;

static int by_number(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* Micro-batches to think of: what divides the batch, what was measured, and small ones, which divide
 * uneven parts of a batch; none larger than was measured on all. */
int local_sizes(const local_job *job, int groups, int size[MOST_SIZES])
{
    int most = job->batch, count = 0;
    if (job->micro_batch) {
        size[0] = job->micro_batch;
        return 1;
    }
    for (int r = 0; r < job->ranks; r++) {
        const profile *p = &job->rank[r].profile;
        most = p->size[p->sizes - 1] < most ? p->size[p->sizes - 1] : most;
    }
    const int small = groups <= 4 ? 12 : groups <= 6 ? 8 : 0, kinds = groups <= 4 ? MOST_SIZES : 14;
    for (int n = most; n >= 1; n--) {
        int good = n <= small || n == 1;
        for (int i = 0; i < job->rank[0].profile.sizes; i++)
            good |= n == job->rank[0].profile.size[i];
        if ((good || job->batch % n == 0) && count < kinds - 1)
            size[count++] = n;
    }
    if (size[count - 1] != 1)
        size[count++] = 1;
    qsort(size, (size_t)count, sizeof *size, by_number);
    return count;
}

static double speed(const local_job *job, int rank)
{
    const profile *p = &job->rank[rank].profile;
    const profile_cost c = profile_at(p, PROFILE_LAYER, p->size[p->sizes - 1], 0);
    return p->size[p->sizes - 1] / (c.forward + c.backward_input + c.backward_weight);
}

/* Whether group order wants a before b: by node, then by speed if they differ by more than noise. */
static int goes_before(const local_job *job, int tensor, int a, int b)
{
    if (job->rank[a].node != job->rank[b].node)
        return job->rank[a].node < job->rank[b].node;
    return tensor == 1 || speed(job, a) >= (1.0 - noise) * speed(job, b);
}

int local_groups(const local_job *job, int tensor, int *rank, double *share)
{
    double sum = 0;
    int equal = 1;
    for (int i = 0; i < job->ranks; i++) {
        int at = i;
        for (; at > 0 && !goes_before(job, tensor, rank[at - 1], i); at--)
            rank[at] = rank[at - 1];
        rank[at] = i;
    }
    for (int k = 0; k < tensor; k++)
        share[k] = 0;
    for (int i = 0; i < job->ranks; i++) {
        if (job->rank[rank[i]].node != job->rank[rank[i - i % tensor]].node)
            return 0;
        share[i % tensor] += speed(job, rank[i]);
        sum += speed(job, rank[i]);
    }
    for (int k = 0; k < tensor; k++) {
        share[k] /= sum;
        equal &= fabs(share[k] * tensor - 1.0) <= noise;
    }
    for (int k = 0; equal && k < tensor; k++)
        share[k] = 1.0 / tensor;
    return 1;
}

/* ---- losers ------------------------------------------------------------------------------ */

/* Seconds that the slowest rank sums gradients. */
static double sums(const run_plan *p)
{
    double most = 0;
    for (int i = 0; i < p->replicas; i++)
        for (int v = 0; v < p->replica[i].stages * p->chunks; v++)
            most = fmax(most, p->replica[i].cost[v].reduce);
    return most;
}

void local_say_why_not(char *out, size_t size, const run_plan *loser, const run_plan *best)
{
    const double more = sums(loser) - sums(best);
    if (loser->idle > best->idle + 0.02)
        snprintf(out, size, "its ranks idle %.0f %% of the step", 100.0 * loser->idle);
    else if (more > 0.3 * (loser->step - best->step))
        snprintf(out, size, "it sums gradients for %.1f ms more", 1e3 * more);
    else if (loser->step < best->step * LOCAL_SAME_TIME)
        snprintf(out, size, "as fast as can be told, but less simple");
    else
        snprintf(out, size, "its ranks work longer for the same batch");
}
