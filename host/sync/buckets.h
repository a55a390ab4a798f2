/* SPDX-License-Identifier: MIT */
/* host/sync/buckets.h - the sum of gradients over all ranks that hold a parameter, for modes that want it.
 *
 *   device       last backward-weight  layer 3 | layer 2 | layer 1 | layer 0
 *   completion                          sum of layer 3, 2, ... on the wire meanwhile
 *   after                                                    sum of the last ones, update
 *
 * Each rank's loss is already weighted by the tokens of the whole step (optim_create), so the
 * sum of gradients is that of the big batch, whatever part of it a rank took. Neighbouring
 * tensors travel together in buckets (Li et al., "PyTorch Distributed", VLDB 2020, section 3.2),
 * the last layers first, since their gradients are complete first; a bucket leaves when the
 * launches that make it are done. What is complete only when the backward pass is over has nothing to
 * be overlapped with: the thread that waits for it sums it itself, and no other has to wake for it.
 * All ranks of a group have the same buckets in the same order, and each algorithm adds in
 * a fixed order, so the same plan gives the same bits.
 *
 * Where the device computes in host memory, the gradients themselves are what the network reads and
 * writes (sync_holders_grouping), and nothing is copied.                                        */
#ifndef GT_SYNC_BUCKETS_H
#define GT_SYNC_BUCKETS_H

#include "host/sync/mode.h"

/* These fit the members of sync_mode; the buckets are the run's state. */
typedef enum sync_bucket_form {
    SYNC_SUM_ALL,
    SYNC_SUM_PART,                      /* a rank gets the sums of its parts alone (blocks.h)            */
    SYNC_SUM_WITHIN                     /* over the holders in the rank's own replica                    */
} sync_bucket_form;
gt_status sync_buckets_create(sync_run *s, sync_bucket_form form);
void sync_buckets_release(sync_run *s);
int sync_buckets_stops(const sync_run *s, int chunk, int stops[SYNC_STOPS]);
gt_status sync_buckets_ready(sync_run *s, int chunk, int done, int last);
int sync_buckets_when(const sync_run *s, int chunk, uint64_t *began, uint64_t *ended);
int sync_buckets_saved(sync_run *s, checkpoint_state *states);
void sync_buckets_explain(const sync_run *s, gt_text *out);

/* After the last ready() of all chunks: waits for the sums, and queues writing back what is not in place.
 * *bytes: that were summed. */
gt_status sync_buckets_finish(sync_run *s, uint64_t *bytes);
/* Compressors with how->moments: in place of a step's gradients, which then is none of ready() and finish(), each
 * rank's share of new first moments lies in the gradients' memory, and their sum afterwards does. kept: by how much
 * what was held back counts more than it did. What this leaves is kept whatever comes of the step. */
gt_status sync_buckets_put_together(sync_run *s, double kept);
/* Queues that gradients which no step touches are zeros again, before those of a step are used. */
gt_status sync_buckets_clear(sync_run *s);
/* Bytes that put_together() sends. */
uint64_t sync_buckets_given_bytes(const sync_run *s);
/* What the newest step left is kept, if that was taken, before another update makes that unknown. */
gt_status sync_buckets_keep_left(sync_run *s);

/* Form SYNC_SUM_PART: after the update is queued, begins to gather what the other ranks updated, what the next forward
 * reads first before the rest; and what of it is to be there by a launch, or at all: written, 16-bit copies too. */
gt_status sync_buckets_gather(sync_run *s);
int sync_buckets_wants(const sync_run *s, int chunk, int stops[SYNC_WANTS]);
gt_status sync_buckets_wanted(sync_run *s, int chunk, int until);
gt_status sync_buckets_gathered(sync_run *s);

/* Do the ranks of a group place the parameters that they share (group `number` of holders.h) alike? */
gt_status sync_places_compare(const params *p, net_group *g, int number);

/* The whole of a mode that gets the sums of its parts, updates those and gathers the rest. */
gt_status sync_buckets_shared_parts(const sync_settings *settings, const sync_holders *h, const params *p,
                                    optim_part **list, int *count);
gt_status sync_buckets_shared_create(sync_run *s);
gt_status sync_buckets_shared_update(sync_run *s, double lr);

#endif
