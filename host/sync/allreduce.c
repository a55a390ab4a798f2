/* SPDX-License-Identifier: MIT */
/* host/sync/allreduce.c - every rank gets the sum of gradients, and updates all that it holds.
 *
 *   gradients  ═══ all-reduce, bucket by bucket, beside the backward pass ═══►  sums  ──► update of all
 *
 * Ranks that hold a parameter do the same arithmetic on the same bits, and so never part. */
#include "host/sync/blocks.h"
#include "host/sync/buckets.h"

static gt_status parts(const sync_settings *settings, const sync_holders *h, const params *p, optim_part **list,
                       int *count)
{
    gt_status st = GT_OK;
    (void)settings;
    for (int i = 0; !st && i < params_segments(p); i++) {
        const params_segment *s = params_segment_at(p, i);
        st = sync_part_add(list, count, (optim_part){ i, 0, s->count, sync_holders_first(h, s->group) });
    }
    return st;
}

static gt_status create(sync_run *s)
{
    return sync_buckets_create(s, SYNC_SUM_ALL);
}

static gt_status update(sync_run *s, double lr)
{
    uint64_t sent;
    gt_status st = sync_buckets_finish(s, &sent);
    return st ? st : sync_update_summed(s, lr, sent);
}

const sync_mode sync_allreduce = {
    .name = "allreduce",
    .help = "sums of gradients",
    .compresses = 1,
    .holds_all = 1,
    .parts = parts,
    .create = create,
    .release = sync_buckets_release,
    .stops = sync_buckets_stops,
    .ready = sync_buckets_ready,
    .update = update,
    .when = sync_buckets_when,
    .saved = sync_buckets_saved,
    .explain = sync_buckets_explain
};
