/* SPDX-License-Identifier: MIT */
/* host/sync/holders.h - which ranks hold the same parameters, found by asking.
 *
 *   rank 0  wte wpe h.0 h.1 h.2        stage 0 of replica 0
 *   rank 1  h.3 ln_f wte               stage 1 of replica 0        groups   { 0 1 2 }  wte
 *   rank 2  wte wpe h.0 ... ln_f       replica 1 in one piece               { 0 2 }    wpe h.0 h.1 h.2
 *                                                                           { 1 2 }    h.3 ln_f
 *
 * A parameter's gradient is the sum over all ranks that hold it (or the same slice of it): replicas,
 * of whatever shape, stages that share a tied table, and tensor ranks that hold a norm. So the
 * groups follow from who holds what, and nobody has to know models or plans to find them.
 *
 * Each rank also says which replica it belongs to. Of every group the ranks of one replica are a group
 * within it: ranks that go on apart from other replicas still share gradients there.            */
#ifndef GT_SYNC_HOLDERS_H
#define GT_SYNC_HOLDERS_H

#include "host/graph/params.h"
#include "net/collective/collective.h"

typedef struct sync_holders sync_holders;

/* All ranks of the communicator, each with the graphs of what it holds and the number of its replica; makes the
 * groups. */
gt_status sync_holders_find(sync_holders **out, net_comm *c, const dev_device *d, const graph *const *graphs, int count,
                            int replica);
void sync_holders_release(sync_holders *h);    /* takes NULL */

/* For params_create_grouped(): groups are numbered alike on all ranks. Where devices compute in host memory,
 * gradients of several holders lie in arenas of the network, and masters if others write to them,
 * too (sync_mode_shares_state). Valid as long as h. */
params_grouping sync_holders_grouping(sync_holders *h, int shares_masters);
/* NULL: this rank holds that group's parameters alone. */
net_group *sync_holders_net(const sync_holders *h, int group);
/* 1 if this rank is the one that counts and writes that group's parameters. */
int sync_holders_first(const sync_holders *h, int group);

/* The same among the ranks of this one's replica. */
net_group *sync_holders_net_within(const sync_holders *h, int group);
int sync_holders_first_within(const sync_holders *h, int group);
/* 1 if rank k of the group's net is the first of its replica there. */
int sync_holders_first_at(const sync_holders *h, int group, int k);
/* All ranks of the replica; NULL: this one alone. */
net_group *sync_holders_replica(const sync_holders *h);
/* 1 if this is the lowest of them; 1 if this is a rank of replica 0. */
int sync_holders_leads(const sync_holders *h);
int sync_holders_in_first_replica(const sync_holders *h);

/* Groups of all ranks, and who is in one: rising. */
int sync_holders_groups(const sync_holders *h);
const int *sync_holders_members(const sync_holders *h, int group, int *count);

/* Of the communicator. */
int sync_holders_ranks(const sync_holders *h);
/* In what proportion the ranks of every group own its parameters (blocks.h): share[rank of the communicator], 0:
 * nothing, NaN: as their links are, which is measured. All ranks, alike. GT_UNSUPPORTED, on all, if none of a group's
 * ranks owns anything. */
gt_status sync_holders_serve(sync_holders *h, const double *share);
/* Of a group, [its ranks], adding up to 1; NULL: equal. */
const double *sync_holders_shares(const sync_holders *h, int group);

#endif
