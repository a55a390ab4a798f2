/* SPDX-License-Identifier: MIT */
/* tests/sync/replicas.h - a training run of a few steps by ranks that are replicas of each other, in one process.
 *
 *   rank 0 ──┐
 *   rank 1 ──┼─ threads, the tiny model ──► its parameters on each rank, losses, bytes told and bytes that crossed
 *   rank 2 ──┘
 *
 * Shares of the batch are as unlike as can be, so that a sum that is weighted wrongly shows.           */
#ifndef TESTS_REPLICAS_H
#define TESTS_REPLICAS_H

#include "host/compress/compress.h"
#include "tests/train/tiny_run.h"

#include "net/comm/comm.h"

enum { REPLICAS_MOST = 3, REPLICAS_STEPS = 10 };

typedef struct replicas {
    run_plan plan;
    train_options o;
    float *x[REPLICAS_MOST];
    size_t count;
    double loss[REPLICAS_STEPS], sent;
    uint64_t crossed[REPLICAS_MOST];       /* bytes that the transport took of each rank       */
} replicas;

/* What is trained: tiny_config(), and positions that no sequence reaches, of which no step makes a gradient [0]. */
extern model_config replicas_model;
extern int replicas_spare_positions;

/* As many replicas as ranks. 0 after a failed check. */
int replicas_plan(run_plan *p, int ranks, const char *mode);
/* A body for ranks_run(), context the replicas: j->o over j->plan. */
gt_status replicas_train(net_comm *c, void *context);
/* So many steps; c: NULL for sums in fp32. With a folder it saves half-way, and goes on if the folder is there.
 * 1: it ran, and all ranks ended with the same bits. */
int replicas_run(replicas *j, int ranks, const char *mode, const compress_spec *c, uint64_t steps, const char *folder);
void replicas_release(replicas *j);
/* How far rank 0's parameters are from b's, of their norm. */
double replicas_distance(const replicas *a, const replicas *b);

#endif
