/* host/parallel/balance.h - how many micro-batches each replica takes.
 *
 * In proportion to measured speed: the slowest replica decides when a step is over, so the shares
 * are those with the least of max_r (micro-batches of r x seconds of r).                   */
#ifndef PARALLEL_BALANCE_H
#define PARALLEL_BALANCE_H

#include "host/base/status.h"

/* seconds[r]: what replica r takes for one micro-batch, > 0. share[r] adds up to `total`; every
 * replica takes at least one. GT_MISMATCH if there are fewer micro-batches than replicas. */
gt_status parallel_balance(const double *seconds, int replicas, int total, int *share);

#endif
