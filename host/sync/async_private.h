/* SPDX-License-Identifier: MIT */
/* host/sync/async_private.h - what the files of --sync async share.
 *
 *   async.c           settings; a replica's step: gradients out, weights in
 *   async_server.c    the server: updates, their order, its state in checkpoints            */
#ifndef GT_SYNC_ASYNC_PRIVATE_H
#define GT_SYNC_ASYNC_PRIVATE_H

#include "host/sync/buckets_private.h"
#include "net/ps/ps.h"

/* Rows of its settings. */
enum {
    ASYNC_SERVERS,
    ASYNC_STALENESS,
    ASYNC_COMPENSATION,
    ASYNC_PUSH_EVERY,
    ASYNC_PULL_EVERY,
    ASYNC_LR_SCALE,
    ASYNC_BARRIER_EVERY,
    ASYNC_SIMULATE,
    ASYNC_SERVERS_TRAIN
};

/* What one server keeps of a part that is its own. */
typedef struct owned {
    int segment;
    int64_t first, count;
    float decay;
    float *slot[4], *mean_square;       /* NULL: not kept                                   */
} owned;

/* A bucket's share of one server: a key of net/ps. */
typedef struct piece {
    const bucket *of;
    const owned *own;                   /* NULL: another rank's                             */
    int64_t first;                      /* element of the segment                           */
    uint64_t at, count;                 /* in the arenas of its group                       */
    net_ps_request *push, *pull;
} piece;

/* The parameters that the same ranks hold, and their server. */
typedef struct shelf {
    struct async *of;
    net_group *net, *within;
    int number, leads;                  /* leads: pushes for its replica                    */
    int watched, first;                 /* some of them only serve; the first that pushes    */
    net_ps *ps;
    piece *keys;
    int count, *owner;
    uint64_t elements;
    float *sum, *value;                 /* of pushes; as pulled                             */
    int workers;
    float *scratch;                     /* of the server's thread                           */
    uint64_t updates, behind, most_behind;      /* of its first part, for the log           */
} shelf;

typedef struct async {
    sync_run *run;
    buckets *buckets;
    shelf *shelves;
    int count;
    owned *owned;                       /* this rank's parts                                */
    int owned_count;
    uint16_t *order;                    /* [updates] whose push each is; NULL: as they come */
    uint64_t ordered;
    uint64_t base;                      /* updates before this run                          */
    uint64_t pushes;                    /* of each replica in this run                      */
    int held;                           /* steps in shelf.sum                               */
    double held_weight;                 /* of their targets                                 */
    float lambda;
    int adaptive, by_staleness, by_batch;
    const optim_config *config;
} async;

/* As sync_mode.host_seconds (host_rate.c): what the busiest server applies of one step of each replica. */
gt_status sync_async_host_seconds(const sync_settings *s, const optim_config *c, int holders, double *seconds);

/* Does a replica push after this step, 1, 2, ...? */
int async_pushes_after(const sync_run *run, uint64_t step);
/* 1: that rank of the communicator only serves. It has new weights where ranks meet. */
int async_serves(const async *a, int rank);
/* The scalars that optim_state_read() reads. */
gt_status async_scalars(const sync_run *run, float scalars[OPTIM_STATE_FLOATS]);

/* Keys, arenas and the room for state; then the members of sync_mode of the same names. */
gt_status async_make(async *a);
void async_release(async *a);
gt_status async_begin(async *a);
gt_status async_keep(async *a);
int async_saved(async *a, checkpoint_state *states);

#endif
