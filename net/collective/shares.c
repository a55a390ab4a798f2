/* SPDX-License-Identifier: MIT */
/* net/collective/shares.c - the water-filling solver.
 *
 *   time t ─┬───────────────────────────── smallest t where the water adds up to S
 *           │▓▓▓▓│    │▓▓▓▓│▓▓▓│           ▓ what rank i can still sum within t
 *           │░░░░│    │░░░░│░░░│           ░ its own data has to leave and the sum to come
 *           └────┴────┴────┴───┘             back: S / B_i; a slow rank may have no room left
 *
 * What fits within t grows with t on every rank, so the smallest t is found by bisection. Shares
 * are then scaled to add up to 1; the room that rounding leaves is far below a byte.
 *
 * With two workers a share costs a worker nothing extra: what it does not send to the
 * other, the other sends to it (w - 2 = 0). Any split is then optimal, and equal shares
 * (helpers: none) are taken.                                                            */
#include "net/collective/shares.h"

#include <math.h>

/* What rank i can own within t: of S = 1. */
static double room(double bandwidth, int worker, int workers, double t)
{
    if (!worker)
        return t * bandwidth / workers;
    const double left = t * bandwidth - 1.0;
    return left > 0.0 ? left / (workers - 2) : 0.0;
}

static double room_of_all(const double *bandwidth, const int *worker, int count, int workers, double t)
{
    double sum = 0.0;
    for (int i = 0; i < count; i++)
        sum += room(bandwidth[i], worker[i], workers, t);
    return sum;
}

static gt_status check(const double *bandwidth, const int *worker, int count, int *workers)
{
    *workers = 0;
    for (int i = 0; i < count; i++) {
        if (!(bandwidth[i] >= 0.0) || isinf(bandwidth[i]))
            return gt_fail(GT_MISUSE, "cannot share a sum out: rank %d has a bandwidth of %g", i, bandwidth[i]);
        if (worker[i] && bandwidth[i] <= 0.0 && count > 1)
            return gt_fail(GT_MISUSE,
                           "cannot share a sum out: worker %d has no bandwidth, so its "
                           "data reaches nobody",
                           i);
        *workers += worker[i] != 0;
    }
    if (*workers == 0)
        return gt_fail(GT_MISUSE,
                       "cannot share a sum out: none of %d ranks is a worker, so there "
                       "is nothing to sum",
                       count);
    return GT_OK;
}

/* One worker keeps everything; two of them halve it. */
static void share_trivially(const double *bandwidth, const int *worker, int count, int workers, double *share,
                            double *time)
{
    *time = 0.0;
    for (int i = 0; i < count; i++) {
        share[i] = worker[i] ? 1.0 / workers : 0.0;
        if (worker[i] && workers > 1)
            *time = fmax(*time, 1.0 / bandwidth[i]);
    }
}

gt_status net_shares(const double *bandwidth, const int *worker, int count, double *share, double *time)
{
    int workers;
    gt_status st = check(bandwidth, worker, count, &workers);
    if (st)
        return st;
    if (workers <= 2) {
        share_trivially(bandwidth, worker, count, workers, share, time);
        return GT_OK;
    }

    double low = 0.0;
    for (int i = 0; i < count; i++)
        if (worker[i])
            low = fmax(low, 1.0 / bandwidth[i]);
    double high = low;
    while (room_of_all(bandwidth, worker, count, workers, high) < 1.0)
        high *= 2.0;
    /* At `low` there may be room to spare already: then low is the answer. */
    if (room_of_all(bandwidth, worker, count, workers, low) >= 1.0)
        high = low;
    for (int i = 0; i < 200 && high - low > 1e-15 * high; i++) {
        const double middle = 0.5 * (low + high);
        if (room_of_all(bandwidth, worker, count, workers, middle) < 1.0)
            low = middle;
        else
            high = middle;
    }

    const double sum = room_of_all(bandwidth, worker, count, workers, high);
    for (int i = 0; i < count; i++)
        share[i] = room(bandwidth[i], worker[i], workers, high) / sum;
    *time = high;
    return GT_OK;
}
