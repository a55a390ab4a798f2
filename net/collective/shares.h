/* SPDX-License-Identifier: MIT */
/* net/collective/shares.h - who sums how much, when links are unequal.
 *
 * Workers hold n bytes each, helpers (servers) none; rank i owns a share s_i of the sum: all
 * workers send it theirs, and it sends the sum back. A worker moves S + (w - 2) s_i bytes each
 * way over its link of B_i bytes a second, a helper w s_j. The smallest time t that gives
 * shares adding up to S:
 *
 *      t >= max_i S / B_i,   sum_i max(0, (t B_i - S) / (w - 2)) + sum_j t B_j / w >= S
 *
 * found by bisection ("water filling"). For equal links it gives the theorem of BytePS
 * (Jiang et al., "A unified architecture for accelerating distributed DNN training in
 * heterogeneous GPU/CPU clusters", OSDI 2020).                                          */
#ifndef NET_COLLECTIVE_SHARES_H
#define NET_COLLECTIVE_SHARES_H

#include "host/base/status.h"

/* bandwidth[count] in any unit; worker[i] 1 or 0 (helper). share[count] adds up to 1.
 * *time: seconds for a unit of data at a unit of bandwidth (S = 1). */
gt_status net_shares(const double *bandwidth, const int *worker, int count, double *share, double *time);

#endif
