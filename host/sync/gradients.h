/* SPDX-License-Identifier: MIT */
/* host/sync/gradients.h - the sum of gradients over all ranks that hold a parameter.
 *
 *   device    last backward-weight  layer 3 | layer 2 | layer 1 | layer 0
 *   courier                          read ──► all-reduce of layer 3, 2, ... on the wire meanwhile
 *   after                                                    waits, writes back ──► update
 *
 * Each rank's loss is already weighted by the tokens of the whole step (optim_create), so the
 * sum of gradients is that of the big batch, whatever part of it a rank took. Neighbouring
 * tensors travel together in buckets (Li et al., "PyTorch Distributed", VLDB 2020, section 3.2),
 * the last layers first, since their gradients are complete first; a bucket leaves when the
 * launches that make it are done. All ranks of a group have the same buckets in the same order,
 * and each algorithm adds in a fixed order, so the same plan gives the same bits.
 *
 * Sharded (Rajbhandari et al., "ZeRO", SC 2020, stage 1): a rank gets the sums of its part alone
 * (parallel_holders_part), updates that, and gathers the others' new weights: as many bytes on
 * the wire, a share of the update's work, and of the memory of the optimizer's moments.     */
#ifndef GT_SYNC_GRADIENTS_H
#define GT_SYNC_GRADIENTS_H

#include "host/device/courier.h"
#include "host/sync/holders.h"

typedef struct parallel_gradients parallel_gradients;

typedef struct parallel_gradients_options {
    parallel_holders *holders;
    net_comm *comm;
    dev_device *device;
    params *params;                 /* made with the grouping of `holders` */
    dev_courier *courier;
    int sharded;
    int chunks;
    /* After how many launches of a chunk's last backward-weight parameter i is complete; -1: it is
     * not the chunk's (exec_gradient_done). */
    int (*done)(void *context, int chunk, int i);
    void *context;
} parallel_gradients_options;

/* All ranks. GT_MISMATCH if ranks of a group do not place their parameters alike. */
gt_status parallel_gradients_create(parallel_gradients **out, const parallel_gradients_options *o);
void      parallel_gradients_release(parallel_gradients *s);        /* takes NULL */

/* Where a chunk's last backward-weight should pause, rising (stage_stops); how many there are. */
enum { PARALLEL_STOPS = 16 };
int parallel_gradients_stops(const parallel_gradients *s, int chunk, int stops[PARALLEL_STOPS]);

/* Launches [0, done) of the chunk are queued, all of them if `last`: sends what they complete. */
gt_status parallel_gradients_ready(parallel_gradients *s, int chunk, int done, int last);
/* After the last one of all chunks: waits for the sums and queues writing them back. */
gt_status parallel_gradients_finish(parallel_gradients *s);

/* Sharded: after the update is queued, queues writing what the other ranks updated. Waits for it to
 * arrive; 16-bit copies are the caller's to renew. */
gt_status parallel_gradients_gather(parallel_gradients *s);

/* From when to when the last step's sums of a chunk were carried out, gt_now_ns(); 0 if it has none. */
int parallel_gradients_when(const parallel_gradients *s, int chunk, uint64_t *began, uint64_t *ended);

/* Of the last step: bytes that were summed, and nanoseconds that finish() took. */
void parallel_gradients_last(const parallel_gradients *s, uint64_t *bytes, uint64_t *ns);

/* What all ranks add up once a step; the same bits on all, whatever the network's algorithm. */
typedef struct parallel_totals {
    double loss, squares;           /* of the loss; of the gradient's norm                  */
    double stop;                    /* > 0: some rank is asked to stop                      */
    double stopped;                 /* > 0: some rank did not compute all of its part       */
    double busy, seconds;           /* of this rank; after: the sum over ranks                 */
    double sent;                    /* bytes of this rank; after: of all                    */
} parallel_totals;
/* each: [ranks], what every rank gave; may be NULL. */
gt_status parallel_totals_sum(net_comm *c, parallel_totals *t, parallel_totals *each);

#endif
