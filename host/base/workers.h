/* SPDX-License-Identifier: MIT */
/* host/base/workers.h - a loop whose turns do not depend on each other, on all cores.
 *
 * For the host's own work at start-up and at checkpoints (random numbers, hashes); what a step does
 * is the devices'.                                                                       */
#ifndef GT_BASE_WORKERS_H
#define GT_BASE_WORKERS_H

#include <stddef.h>

/* Calls turn(context, i) once for every i in [0, turns), on as many threads as this process may use
 * cores, in no order, and returns when all are done. Without threads to be had: on this one. */
void gt_workers_run(size_t turns, void (*turn)(void *context, size_t i), void *context);

#endif
