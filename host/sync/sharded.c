/* SPDX-License-Identifier: MIT */
/* host/sync/sharded.c - every rank gets the sums of its part alone, updates that, and gathers the rest.
 *
 *   gradients ══ reduce-scatter ══► sums of my part ──► update of it ══ all-gather ══► all new weights
 *
 * As many bytes on the wire as all-reduce, a share of the update's work, and of the memory of the
 * optimizer's state. Source: Rajbhandari et al., "ZeRO", SC 2020, stage 1.                 */
#include "host/sync/buckets.h"

static optim_part part(const sync_settings *settings, const sync_holders *h, const params *p, int segment)
{
    (void)settings;
    const net_group *g = sync_holders_net(h, params_segment_at(p, segment)->group);
    optim_part mine = { .counted = 1 };
    sync_holders_part(h, p, segment, g ? net_group_rank(g) : 0, &mine.first, &mine.count);
    return mine;
}

static gt_status create(sync_run *s)
{
    return sync_buckets_create(s, SYNC_SUM_PART);
}

static gt_status update(sync_run *s, double lr)
{
    uint64_t sent;
    gt_status st = sync_buckets_finish(s, &sent);
    if (!st)
        st = sync_update_summed(s, lr, sent);
    if (!st)
        st = sync_buckets_gather(s);
    if (!st && kernel_set_storage(s->o.kernels) != DTYPE_F32)
        st = params_refresh(s->o.params, s->o.kernels);
    return st;
}

const sync_mode sync_sharded = {
    .name = "sharded",
    .help = "sums of gradients, the optimizer's state shared out",
    .shares_state = 1,
    .compresses = 1,
    .part = part,
    .create = create,
    .release = sync_buckets_release,
    .stops = sync_buckets_stops,
    .ready = sync_buckets_ready,
    .update = update,
    .when = sync_buckets_when,
    .saved = sync_buckets_saved
};
