/* SPDX-License-Identifier: MIT */
/* tests/train/parts.h - a few tensors, held by ranks as a plan would have it, never trained.
 *
 *   wte (31, 10)           first and last stage, rows cut
 *   h.L.qkv (24, 10)       three stacks of 8 rows, each cut
 *   h.L.proj (10, 12)      columns cut
 *   h.L.norm (10)          on every rank of the tensor group
 *   ln_f (10)              last stage
 *
 * Three layers. Ranks of a tensor group hold unequal shares. Sharded: of the replicas, each keeps the
 * moments of a part of every segment. Which element lies where is
 * reckoned here once more, one element at a time, and not by host/tensor/slice.c.        */
#ifndef TESTS_PARTS_H
#define TESTS_PARTS_H

#include "host/optim/optim.h"

enum { PARTS_MAX = 16 };        /* parameters a rank may hold */

typedef struct parts_plan {
    int replicas, stages, tensor, sharded;
} parts_plan;
int parts_ranks(const parts_plan *p);

typedef struct parts {
    dev_device *device;
    graph *graph;
    kernel_set *kernels;
    params *params;
    optim *optim;
    unsigned char mine[PARTS_MAX], mine_moments[PARTS_MAX];     /* as checkpoint_ranks */
} parts;

/* A rank's; on $GT_TEST_DEVICE. Release what came even after a failure. */
gt_status parts_open(parts *out, const parts_plan *plan, int rank);
void parts_close(parts *p);
/* Parameters, moments and scalars become a function of seed, name and element of the whole. */
gt_status parts_fill(parts *p, unsigned seed);
/* GT_MISMATCH if any of them is not what parts_fill() gave whoever wrote them. */
gt_status parts_check(parts *p, unsigned seed);

#endif
