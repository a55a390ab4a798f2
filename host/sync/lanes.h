/* SPDX-License-Identifier: MIT */
/* host/sync/lanes.h - how many buckets of gradients are under way at once between the same ranks (buckets_lanes.c),
 * for those who reckon what sums take. */
#ifndef GT_SYNC_LANES_H
#define GT_SYNC_LANES_H

#include "net/collective/cost.h"

/* Between ranks that are so many seconds apart, one way; of all pairs of a matrix the longest. */
int sync_lanes_for(double latency);
int sync_lanes_of(const net_link_matrix *m);

#endif
