/* SPDX-License-Identifier: MIT */
/* host/device/courier.h - acts on the host as soon as the device has come so far.
 *
 *   queue    | forward 3 | read y | forward 4 | ...
 *   courier                   └─► send y to the next stage     while forward 4 computes
 *
 * A thread of its own waits for one event after the other, in the order they were handed over, and
 * calls what came with it; the caller goes on queueing work. Events of one in-order queue end in
 * that order, so nothing is kept waiting by an earlier one.
 *
 * Errors     the first failure, of an event or of an act, is what every later call gives; later
 *            acts are not called then.
 * Threads    any may hand over; acts run on the courier's thread, one at a time.         */
#ifndef GT_DEVICE_COURIER_H
#define GT_DEVICE_COURIER_H

#include "host/device/device.h"

typedef struct dev_courier dev_courier;
typedef gt_status (*dev_act)(void *context, uint64_t now_ns);   /* now: gt_now_ns() after the event */

gt_status dev_courier_create(dev_courier **out);
/* Waits for what was handed over. Takes NULL. */
void      dev_courier_release(dev_courier *c);

/* Takes over the event (NULL: nothing to wait for). *ticket (may be NULL) is what to wait for;
 * tickets rise. */
gt_status dev_courier_put(dev_courier *c, dev_event *event, dev_act act, void *context,
                          uint64_t *ticket);
/* Until that act has returned. Ticket 0 is done. */
gt_status dev_courier_wait(dev_courier *c, uint64_t ticket);
/* Until all have. */
gt_status dev_courier_drain(dev_courier *c);

#endif
