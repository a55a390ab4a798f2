/* SPDX-License-Identifier: MIT */
/* host/sync/outer.c - products in double: a share that is not a float must not make weights drift. */
#include "host/sync/outer.h"

#include <stddef.h>
#include <string.h>

static void give_own(float *x, const float *x0, int64_t n, double share)
{
    (void)x0;
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(share * (double)x[i]);
}

static void take_sum(float *x, float *x0, float *m, int64_t n, double lr, double momentum)
{
    (void)m;
    (void)lr;
    (void)momentum;
    if (x0)
        memcpy(x0, x, (size_t)n * sizeof *x);
}

static void give_way(float *x, const float *x0, int64_t n, double share)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(share * ((double)x0[i] - (double)x[i]));
}

static void take_sgd(float *x, float *x0, float *m, int64_t n, double lr, double momentum)
{
    for (int64_t i = 0; i < n; i++) {
        m[i] = (float)(momentum * (double)m[i] + (double)x[i]);
        x0[i] = (float)((double)x0[i] - lr * (double)m[i]);
        x[i] = x0[i];
    }
}

static void take_nesterov(float *x, float *x0, float *m, int64_t n, double lr, double momentum)
{
    for (int64_t i = 0; i < n; i++) {
        const double way = (double)x[i];
        m[i] = (float)(momentum * (double)m[i] + way);
        x0[i] = (float)((double)x0[i] - lr * (way + momentum * (double)m[i]));
        x[i] = x0[i];
    }
}

static void take_plain(float *x, float *x0, float *m, int64_t n, double lr, double momentum)
{
    (void)m;
    (void)momentum;
    for (int64_t i = 0; i < n; i++) {
        x0[i] = (float)((double)x0[i] - lr * (double)x[i]);
        x[i] = x0[i];
    }
}

static const outer_rule rules[] = { { "average", 0, 0, 0, give_own, take_sum },
                                    { "sgd", 1, 1, 0, give_way, take_sgd },
                                    { "nesterov", 1, 1, 0, give_way, take_nesterov },
                                    { "sparse", 1, 0, 1, NULL, take_plain } };

const outer_rule *outer_rule_find(const char *name)
{
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (!strcmp(rules[i].name, name))
            return &rules[i];
    return NULL;
}

void outer_mix(float *own, const float *x, int64_t n, double keep)
{
    for (int64_t i = 0; i < n; i++)
        own[i] = (float)(keep * (double)own[i] + (1.0 - keep) * (double)x[i]);
}
