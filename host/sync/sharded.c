/* SPDX-License-Identifier: MIT */
/* host/sync/sharded.c - every rank gets the sums of its part alone, updates that, and gathers the rest.
 *
 *   gradients ══ reduce-scatter ══► sums of my part ──► update of it ══ all-gather ══► all new weights
 *
 * As many bytes on the wire as all-reduce, a share of the update's work, and of the memory of the
 * optimizer's state. Source: Rajbhandari et al., "ZeRO", SC 2020, stage 1.                 */
#include "host/sync/buckets.h"

const sync_mode sync_sharded = {
    .name = "sharded",
    .help = "sums of gradients, the optimizer's state shared out",
    .shares_state = 1,
    .compresses = 1,
    .parts = sync_buckets_shared_parts,
    .create = sync_buckets_shared_create,
    .release = sync_buckets_release,
    .stops = sync_buckets_stops,
    .ready = sync_buckets_ready,
    .update = sync_buckets_shared_update,
    .when = sync_buckets_when,
    .saved = sync_buckets_saved,
    .wants = sync_buckets_wants,
    .wanted = sync_buckets_wanted,
    .settle = sync_buckets_gathered,
    .explain = sync_buckets_explain
};
