/* SPDX-License-Identifier: MIT */
/* host/planner/slow_rank.c - what is usual, and what is beyond it: see slow_rank.h. */
#include "host/planner/slow_rank.h"

#include <math.h>
#include <stdlib.h>

static const double share = 0.1;        /* of a step: less is not worth a new plan */
static const double variations = 3.0;   /* standard deviations of what was learnt  */

/* Times of something that is done in each step. */
typedef struct usual {
    double seen[SLOW_RANK_LEARN], mean, variation;
} usual;

struct slow_rank_watch {
    int ranks, steps, told;
    double factor;
    usual step, *rank;
    int *behind;                        /* [rank] steps in a row that it was slow */
};

gt_status slow_rank_create(slow_rank_watch **out, int ranks, double factor)
{
    *out = NULL;
    slow_rank_watch *w = calloc(1, sizeof *w);
    if (w) {
        w->ranks = ranks;
        w->factor = factor;
        w->rank = calloc((size_t)ranks, sizeof *w->rank);
        w->behind = calloc((size_t)ranks, sizeof *w->behind);
    }
    if (!w || !w->rank || !w->behind) {
        slow_rank_release(w);
        return gt_fail(GT_NO_MEMORY, "no memory to watch the times of %d ranks", ranks);
    }
    *out = w;
    return GT_OK;
}

void slow_rank_release(slow_rank_watch *w)
{
    if (!w)
        return;
    free(w->rank);
    free(w->behind);
    free(w);
}

/* The mean and the standard deviation. */
static void settle(usual *u)
{
    for (int i = 0; i < SLOW_RANK_LEARN; i++)
        u->mean += u->seen[i] / SLOW_RANK_LEARN;
    double squares = 0.0;
    for (int i = 0; i < SLOW_RANK_LEARN; i++)
        squares += (u->seen[i] - u->mean) * (u->seen[i] - u->mean);
    u->variation = sqrt(squares / SLOW_RANK_LEARN);
}

static double times_usual(const slow_rank_watch *w, int rank, const double *busy)
{
    return w->rank[rank].mean > 0.0 ? busy[rank] / w->rank[rank].mean : 1.0;
}

static int is_longer(const slow_rank_watch *w, double step)
{
    const double longer = step - w->step.mean;
    return longer > share * w->step.mean && longer > variations * w->step.variation;
}

static int is_slow(const slow_rank_watch *w, int rank, double others, const double *busy, double step,
                   slow_rank_finding *found)
{
    const usual *u = &w->rank[rank];
    *found = (slow_rank_finding){ rank, times_usual(w, rank, busy) / others, busy[rank] - others * u->mean };
    return found->factor > w->factor && found->longer > share * step && found->longer > variations * u->variation;
}

int slow_rank_step(slow_rank_watch *w, const double *busy, double step, slow_rank_finding *found)
{
    const int at = w->steps - SLOW_RANK_WARM_UP;
    if (w->steps < SLOW_RANK_WARM_UP + SLOW_RANK_LEARN)
        w->steps++;
    if (at < 0)
        return 0;
    if (at < SLOW_RANK_LEARN) {
        w->step.seen[at] = step;
        for (int i = 0; i < w->ranks; i++)
            w->rank[i].seen[at] = busy[i];
        if (at == SLOW_RANK_LEARN - 1) {
            settle(&w->step);
            for (int i = 0; i < w->ranks; i++)
                settle(&w->rank[i]);
        }
        return 0;
    }
    double others = INFINITY;
    for (int i = 0; i < w->ranks; i++)
        others = fmin(others, times_usual(w, i, busy));
    if (!(others > 0.0))                /* a rank that computed nothing says nothing of others */
        others = 1.0;
    int told = 0;
    for (int i = 0; i < w->ranks; i++) {
        slow_rank_finding one;
        const int slow = is_longer(w, step) && is_slow(w, i, others, busy, step, &one);
        w->behind[i] = slow ? w->behind[i] + 1 : 0;
        if (w->behind[i] >= SLOW_RANK_PATIENCE && !w->told) {
            w->told = told = 1;
            *found = one;
        }
    }
    return told;
}
