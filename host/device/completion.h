/* SPDX-License-Identifier: MIT */
/* host/device/completion.h - runs a continuation on the host as soon as an event has completed.
 *
 *   queue    | forward 3 | read y | forward 4 | ...
 *   completion                └─► send y to the next stage     while forward 4 computes
 *
 * A thread of its own waits for one event after the other, in the order they were handed over, and
 * runs its continuation; the caller goes on queueing work. Events of one in-order queue end in
 * that order, so nothing is kept waiting by an earlier one.
 *
 * Errors     the first failure, of an event or of a continuation, is what every later call gives; later
 *            continuations are not run then.
 * Threads    any may hand over; continuations run on the completion thread, one at a time.  */
#ifndef GT_DEVICE_COMPLETION_H
#define GT_DEVICE_COMPLETION_H

#include "host/device/device.h"

typedef struct dev_completion dev_completion;
typedef gt_status (*dev_continuation)(void *context, uint64_t now_ns);  /* now: gt_now_ns() after the event */

gt_status dev_completion_create(dev_completion **out);
/* Waits for what was handed over. Takes NULL. */
void dev_completion_release(dev_completion *c);

/* Takes over the event (NULL: nothing to wait for). *ticket (may be NULL) is what to wait for;
 * tickets rise. */
gt_status dev_completion_put(dev_completion *c, dev_event *event, dev_continuation run, void *context,
                             uint64_t *ticket);
/* Until that continuation has returned. Ticket 0 is done. */
gt_status dev_completion_wait(dev_completion *c, uint64_t ticket);
/* Until all have. */
gt_status dev_completion_drain(dev_completion *c);

#endif
