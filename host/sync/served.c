/* SPDX-License-Identifier: MIT */
/* host/sync/served.c - servers get the sums of gradients, update what they serve, and everybody gets the result.
 *
 *   worker    push: gradients, bucket by bucket, beside the backward pass ══► servers     new weights ◄══ pull
 *   server    adds in a fixed order ──► norm and loss of all ──► update of its part with its own state ──► sends it
 *
 * A server is a rank that holds the parameter, and computes as well, unless --servers-train says no: all of them, in
 * proportion to their links, or those that --servers names; one alone makes a central storage. The norm of the whole
 * gradient must be known before anything is updated, so nobody is updated before the last push: what net/ps applies
 * push by push is no use here, and pushes and pulls are the collectives of unequal parts (Jiang et al., "A unified
 * architecture for accelerating distributed DNN training", OSDI 2020: all-reduce and parameter server are one
 * scheme with other shares). With equal shares the bits are those of `sharded`.            */
#include "host/sync/buckets.h"
#include "host/sync/servers.h"

enum { SERVERS, TRAIN };
static const sync_setting settings[] = { [SERVERS] = SYNC_SERVERS_ROW, [TRAIN] = SYNC_SERVERS_TRAIN_ROW };

static gt_status check(const sync_settings *s, int ranks)
{
    return sync_servers_check(s->word[SERVERS], s->word[TRAIN], ranks);
}

static int serves_only(const sync_settings *s, int rank)
{
    return sync_servers_only(s->word[SERVERS], s->word[TRAIN], rank);
}

static double state_share(const sync_settings *s, int holders)
{
    return sync_servers_share(s->word[SERVERS], s->word[TRAIN], holders);
}

static gt_status prepare(const sync_settings *s, sync_holders *h)
{
    return sync_servers_settle(h, s->word[SERVERS]);
}

const sync_mode sync_ps = {
    .name = "ps",
    .help = "gradients to the servers, new weights from them",
    .settings = settings,
    .setting_count = sizeof settings / sizeof *settings,
    .check = check,
    .state_share = state_share,
    .serves_only = serves_only,
    .prepare = prepare,
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
