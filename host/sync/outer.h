/* SPDX-License-Identifier: MIT */
/* host/sync/outer.h - from where replicas have come to, to where all go on: rules of an outer step.
 *
 *   x0      where all replicas began          x_r   where replica r is now
 *   w_r     its share of the targets since then; the shares of all replicas add up to 1
 *   give    what a replica adds to the sum     take  what all make of the sum
 *
 *   average     give  w_r x_r                  take  x = sum
 *   sgd         give  w_r (x0 - x_r)           take  m = momentum m + sum;  x = x0 - lr m
 *   nesterov    give  w_r (x0 - x_r)           take  m = momentum m + sum;  x = x0 - lr (sum + momentum m)
 *   sparse      give  w_r (sparse.h of x0 - x_r and what was left over)      take  x = x0 - lr sum
 *
 * Sources: averages, McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
 * Data", AISTATS 2017, and Lin et al., "Don't Use Large Mini-Batches, Use Local SGD", ICLR 2020; the outer
 * gradient with Nesterov's momentum, Douillard et al., "DiLoCo", arXiv 2311.08105.
 * Plain functions over host memory. Every rank that takes computes the same from the same bits. */
#ifndef GT_SYNC_OUTER_H
#define GT_SYNC_OUTER_H

#include <stdint.h>

typedef struct outer_rule {
    const char *name;
    int starts;                         /* needs x0                                        */
    int moves;                          /* keeps m                                         */
    int sparse;                         /* what is given is an encoding (sparse.h); give NULL */
    /* x: x_r; becomes what this replica gives. x0 NULL unless it starts. */
    void (*give)(float *x, const float *x0, int64_t n, double share);
    /* x: the sum; becomes, as x0 does, where all go on. m NULL unless it moves. */
    void (*take)(float *x, float *x0, float *m, int64_t n, double lr, double momentum);
} outer_rule;

/* "average|sgd|nesterov|sparse" are there; NULL: there is none of that name. */
const outer_rule *outer_rule_find(const char *name);

/* own: this replica's now; becomes keep * own + (1 - keep) * x. */
void outer_mix(float *own, const float *x, int64_t n, double keep);

#endif
