/* SPDX-License-Identifier: MIT */
/* host/planner/cluster_private.h - what the planner's files share.
 *
 *   cluster_search.c        the search: candidates, and simulation of the best
 *   cluster_cut.c    tensor groups, replicas, cutting layers, handing out micro-batches   */
#ifndef GT_PLANNER_CLUSTER_PRIVATE_H
#define GT_PLANNER_CLUSTER_PRIVATE_H

#include "host/planner/cluster_search.h"

/* Devices that split every layer among them. */
typedef struct tensor_group {
    int first, devices, node;
    double flops, memory;
} tensor_group;

/* Sums over units [0, i), so that a range costs two look-ups. */
typedef struct sums {
    double *flops, *parameters, *kept, *kept_recompute, *reduced, *saved_input, *saved_weight, *frozen;
    double *plain, *values, *bytes, *code, *kept_back;      /* what travels between replicas: sync_volume */
    int *reductions;
} sums;

/* One way to plan. */
typedef struct candidate {
    int tensor, stages, micro_batch, recompute, distribution, replicas;     /* replicas 0: one */
} candidate;

enum { DISTRIBUTE_IN_ORDER, DISTRIBUTE_BY_KIND, DISTRIBUTE_EVENLY, DISTRIBUTIONS };
extern const char *const distribution_names[DISTRIBUTIONS];

/* The mode of a job, and what travels of units [from, to). */
const sync_mode *cluster_mode(const cluster_job *job);
sync_volume range_volume(const sums *s, int from, int to);

gt_status sums_make(sums *out, const cluster_job *job);
void sums_release(sums *s);

/* Groups of `tensor` equal neighbours in a node; *unused counts devices that are left over. */
gt_status groups_make(tensor_group **out, int *count, int *unused, const cluster_devices *c, int tensor);

/* Replicas of about `stages` groups each, stages cut, costs known; no micro-batches yet. *fits 0:
 * memory does not suffice (misfit says where). */
gt_status replicas_make(cluster_layout *out, const cluster_devices *c, const cluster_job *job, const sums *s,
                        const candidate *how, const tensor_group *groups, int count, int *fits, char *misfit,
                        size_t misfit_size);
/* Hands out `total` micro-batches so that the slowest replica is as fast as can be; sets each
 * replica's estimate. 0: there are fewer micro-batches than replicas. */
int micro_batches_distribute(cluster_layout *p, int total);

void cluster_layout_release(cluster_layout *p);

/* Seconds to all-reduce `bytes` among the devices of a group. */
double group_reduce(const cluster_devices *c, const tensor_group *g, double bytes);
/* Bytes of a sequence that units up to `to` send to the next stage. */
double cluster_output(const cluster_job *job, int to);
/* Bytes a second that the group has of its node's wire when the whole node sends. */
double group_wire(const cluster_devices *c, const tensor_group *g);
/* Cost of a range of units on a group for one micro-batch. */
pipe_cost range_cost(const cluster_devices *c, const sums *s, const candidate *how, const tensor_group *g, int from,
                     int to);
/* Bytes of a device of the group that holds the range and keeps `kept` micro-batches. */
double range_memory(const cluster_job *job, const sums *s, const candidate *how, int from, int to, int kept);

#endif
