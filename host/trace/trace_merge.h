/* SPDX-License-Identifier: MIT */
/* host/trace/trace_merge.h - one trace of all ranks, on rank 0's clock.
 *
 *   rank 0   t0 ──────ping──────► │        ahead = t - (t0 + t1) / 2, right to (t1 - t0) / 2
 *   rank r                        t
 *   rank 0   t1 ◄─────pong─────── │        of many rounds the quickest counts
 *
 * Source: Cristian, "Probabilistic clock synchronization", 1989. Ranks of one host read the
 * same clock: where the measurement allows it, they are taken not to differ at all.
 *
 * All ranks call these, in the same order, when nothing else is under way between them.   */
#ifndef GT_TRACE_TRACE_MERGE_H
#define GT_TRACE_TRACE_MERGE_H

#include "host/base/trace.h"
#include "net/comm/comm.h"

typedef struct trace_clock {
    int64_t ahead;                  /* gt_trace_now() of the rank less rank 0's */
    uint64_t error;                 /* at most so wrong                         */
} trace_clock;

/* clock[size], filled on rank 0; others may pass NULL. */
gt_status trace_clocks(net_comm *c, trace_clock *clock);

/* What every rank recorded, on rank 0 as *all, one a rank, with its clock; elsewhere *all is NULL.
 * Release with trace_merge_release(). */
gt_status trace_merge(net_comm *c, const gt_trace *mine, gt_trace **all);
void trace_merge_release(gt_trace *all, int ranks);      /* takes NULL */

/* What this process recorded so far, and all others (c NULL: it is the only one), in a file that
 * rank 0 writes. `device` is this rank's id; wait for the device before. */
gt_status trace_save(net_comm *c, const char *device, const char *path);

#endif
