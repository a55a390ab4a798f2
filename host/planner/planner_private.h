/* SPDX-License-Identifier: MIT */
/* host/planner/planner_private.h - what the planner's files share.
 *
 *   planner.c        the search: candidates, and simulation of the best
 *   planner_cut.c    tensor groups, replicas, cutting layers, handing out micro-batches   */
#ifndef GT_PLANNER_PLANNER_PRIVATE_H
#define GT_PLANNER_PLANNER_PRIVATE_H

#include "host/planner/planner.h"

/* Devices that split every layer among them. */
typedef struct tensor_group {
    int first, devices, node;
    double flops, memory;
} tensor_group;

/* Sums over units [0, i), so that a range costs two look-ups. */
typedef struct sums {
    double *flops, *parameters, *kept, *kept_recompute, *reduced;
    int *reductions;
} sums;

/* One way to plan. */
typedef struct candidate {
    int tensor, stages, micro_batch, recompute, distribution;
} candidate;

enum { DISTRIBUTE_IN_ORDER, DISTRIBUTE_BY_KIND, DISTRIBUTE_EVENLY, DISTRIBUTIONS };
extern const char *const distribution_names[DISTRIBUTIONS];

gt_status sums_make(sums *out, const pipe_job *job);
void sums_release(sums *s);

/* Groups of `tensor` equal neighbours in a node; *unused counts devices that are left over. */
gt_status groups_make(tensor_group **out, int *count, int *unused, const pipe_cluster *c, int tensor);

/* Replicas of about `stages` groups each, stages cut, costs known; no micro-batches yet. *fits 0:
 * memory does not suffice (misfit says where). */
gt_status replicas_make(pipe_plan *out, const pipe_cluster *c, const pipe_job *job, const sums *s, const candidate *how,
                        const tensor_group *groups, int count, int *fits, char *misfit, size_t misfit_size);
/* Hands out `total` micro-batches so that the slowest replica is as fast as can be; sets each
 * replica's estimate. 0: there are fewer micro-batches than replicas. */
int micro_batches_distribute(pipe_plan *p, int total);

void pipe_plan_release(pipe_plan *p);

/* Seconds to all-reduce `bytes` among the devices of a group. */
double group_reduce(const pipe_cluster *c, const tensor_group *g, double bytes);
/* Bytes a second that the group has of its node's wire when the whole node sends. */
double group_wire(const pipe_cluster *c, const tensor_group *g);
/* Cost of a range of units on a group for one micro-batch. */
pipe_cost range_cost(const pipe_cluster *c, const sums *s, const candidate *how, const tensor_group *g, int from,
                     int to);
/* Bytes of a device of the group that holds the range and keeps `kept` micro-batches. */
double range_memory(const pipe_job *job, const sums *s, const candidate *how, int from, int to, int kept);

#endif
