/* SPDX-License-Identifier: MIT */
/* host/sync/local_uneven.c - how many steps of a round each replica makes, so that none waits for a slower one.
 *
 *   step of the round   1   2   3   4   5   6   7   8
 *   replica 0, 8        ■   ■   ■   ■   ■   ■   ■   ■
 *   replica 1, 3        .   .   ■   .   .   ■   .   ■      in step i if i h / H is past another whole number
 *
 * Given, they stay. Measured, all make all steps of the first round; at each round's end every rank says how long its
 * steps took, and all work out the same from the same numbers: H for the replica whose steps are shortest, for others
 * as many as fit beside them. They change only where that saves a twentieth of all replicas' time, so that what is
 * measured a little differently each time does not make a run another one. A replica is as slow as its slowest rank. */
#include "host/sync/local_rounds.h"

#include "host/base/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORTH 0.05

int local_uneven_is_off(const char *text)
{
    return !*text || !strcmp(text, "off");
}

static int is_measured(const char *text)
{
    return !strcmp(text, "auto");
}

/* Of a list: how many replicas it names, and the most of them; 0: it is none of numbers from 1 up. */
static int list_of(const char *text, uint64_t *most)
{
    int count = 0;
    *most = 0;
    for (const char *p = text;; p++) {
        char *end;
        const unsigned long long n = strtoull(p, &end, 10);
        if (*p < '0' || *p > '9' || !n || n > 1000000000ull || (*end && *end != ':'))
            return 0;
        *most = n > *most ? n : *most;
        count++;
        p = end;
        if (!*p)
            return count;
    }
}

gt_status local_uneven_check(const char *text, uint64_t every, int replicas)
{
    uint64_t most;
    if (local_uneven_is_off(text) || is_measured(text))
        return GT_OK;
    const int count = list_of(text, &most);
    if (!count)
        return gt_fail(GT_MISUSE, "--local-uneven '%s' is not off, auto or each replica's steps, as 20:7", text);
    if (most != every)
        return gt_fail(GT_MISUSE,
                       "--local-uneven %s: the replica that makes most steps makes %llu, and a round has %llu; give "
                       "--local-steps %llu",
                       text, (unsigned long long)most, (unsigned long long)every, (unsigned long long)most);
    if (replicas && replicas != count)
        return gt_fail(GT_MISUSE, "--local-uneven %s is for %d replicas, and there are %d; say auto, or name as many",
                       text, count, replicas);
    return GT_OK;
}

gt_status local_uneven_create(local *l, const char *text)
{
    if (local_uneven_is_off(text))
        return GT_OK;
    gt_status st = local_uneven_check(text, l->every, l->o.replicas);
    if (st)
        return st;
    l->uneven.measures = is_measured(text);
    l->uneven.steps = malloc((size_t)l->o.replicas * sizeof *l->uneven.steps);
    if (!l->uneven.steps)
        return gt_fail(GT_NO_MEMORY, "no memory for the steps of %d replicas", l->o.replicas);
    for (int r = 0; r < l->o.replicas; r++) {
        l->uneven.steps[r] = (int)(l->uneven.measures ? l->every : strtoull(text, NULL, 10));
        text += l->uneven.measures ? 0 : strcspn(text, ":") + (r + 1 < l->o.replicas);
    }
    return GT_OK;
}

void local_uneven_release(local *l)
{
    free(l->uneven.steps);
}

int local_uneven_has(const local *l, int replica, uint64_t i)
{
    const uint64_t h = l->uneven.steps ? (uint64_t)l->uneven.steps[replica] : l->every;
    return i * h / l->every > (i - 1) * h / l->every;
}

void local_uneven_note(local *l, double seconds)
{
    l->uneven.seconds += seconds;
    l->uneven.made += 1.0;
}

/* The share of all replicas' time in which they would wait. */
static double waiting(const int *steps, const double *seconds, int replicas)
{
    double all = 0.0, most = 0.0;
    for (int r = 0; r < replicas; r++) {
        const double t = steps[r] * seconds[r];
        all += t;
        most = t > most ? t : most;
    }
    return most > 0.0 ? 1.0 - all / (most * replicas) : 0.0;
}

/* seconds: of a step of each replica. 1: steps are others now. */
static int settle(local *l, const double *seconds, int *steps)
{
    const int replicas = l->o.replicas;
    double least = INFINITY;
    for (int r = 0; r < replicas; r++)
        least = seconds[r] < least ? seconds[r] : least;
    for (int r = 0; r < replicas; r++) {
        const double h = seconds[r] > 0.0 ? floor((double)l->every * least / seconds[r] + 0.5) : (double)l->every;
        steps[r] = h < 1.0 ? 1 : (int)h;
    }
    if (waiting(steps, seconds, replicas) >= waiting(l->uneven.steps, seconds, replicas) - WORTH)
        return 0;
    memcpy(l->uneven.steps, steps, (size_t)replicas * sizeof *steps);
    return 1;
}

static void tell(const local *l, uint64_t step)
{
    char list[160];
    size_t n = 0;
    for (int r = 0; r < l->o.replicas && n < sizeof list; r++)
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%d", r ? ":" : "", l->uneven.steps[r]);
    gt_log(GT_LOG_INFO, "sync", "from step %llu on replicas make %s of %llu steps", (unsigned long long)step + 1, list,
           (unsigned long long)l->every);
}

gt_status local_uneven_agree(local *l, uint64_t step)
{
    typedef struct said {
        double replica, seconds;
    } said;
    net_group *world = net_group_world(l->o.comm);
    const int ranks = net_group_size(world), replicas = l->o.replicas;
    said *all = calloc((size_t)ranks, sizeof *all);
    double *seconds = calloc((size_t)replicas, sizeof *seconds);
    int *steps = calloc((size_t)replicas, sizeof *steps);
    gt_status st = all && seconds && steps ? GT_OK
                                           : gt_fail(GT_NO_MEMORY, "no memory for the speeds of %d ranks", ranks);
    if (!st) {
        all[net_group_rank(world)] = (said){ l->o.replica,
                                             l->uneven.made > 0.0 ? l->uneven.seconds / l->uneven.made : 0.0 };
        st = net_all_gather(world, all, (uint64_t)ranks * sizeof *all / 4, NULL, NET_I32, NULL);
    }
    for (int r = 0; !st && r < ranks; r++) {
        double *slowest = &seconds[(int)all[r].replica];
        *slowest = all[r].seconds > *slowest ? all[r].seconds : *slowest;
    }
    if (!st && settle(l, seconds, steps) && !net_group_rank(world))
        tell(l, step);
    l->uneven.seconds = l->uneven.made = 0.0;
    free(all);
    free(seconds);
    free(steps);
    return st;
}
