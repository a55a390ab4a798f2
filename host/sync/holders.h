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
 * groups follow from who holds what, and nobody has to know models or plans to find them.    */
#ifndef GT_SYNC_HOLDERS_H
#define GT_SYNC_HOLDERS_H

#include "host/graph/params.h"
#include "net/collective/collective.h"

typedef struct parallel_holders parallel_holders;

/* All ranks of the communicator, each with the graphs of what it holds; makes the groups. */
gt_status parallel_holders_find(parallel_holders **out, net_comm *c, const dev_device *d,
                                const graph *const *graphs, int count);
void      parallel_holders_release(parallel_holders *h);    /* takes NULL */

/* For params_create_grouped(): groups are numbered alike on all ranks. Valid as long as h. */
params_grouping parallel_holders_grouping(parallel_holders *h);
/* NULL: this rank holds that group's parameters alone. */
net_group *parallel_holders_net(const parallel_holders *h, int group);
/* 1 if this rank is the one that counts and writes that group's parameters. */
int        parallel_holders_first(const parallel_holders *h, int group);

/* What rank k of the segment's group owns when its state is shared out: as equal as can be, in multiples
 * of params_step(), and without cutting a tensor that params_keep_whole() names. All of it where the group is one rank. */
void       parallel_holders_part(const parallel_holders *h, const params *p, int segment, int k,
                                 int64_t *first, int64_t *count);

#endif
