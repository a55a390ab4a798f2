/* SPDX-License-Identifier: MIT */
/* host/base/activity.h - what a thread is busy with, for whoever shows it, and whether to stop.
 *
 *   gt_activity a;
 *   gt_activity_begin(&a, "reading weights", "tensors", count);
 *   for (uint64_t i = 0; !st && i < count; i++) {
 *       st = gt_activity_at(&a, i);            GT_INTERRUPTED once the user has asked to stop
 *       ...
 *   }
 *   gt_activity_end(&a);
 *
 * Whatever may take longer than a second says so here, in steps of well under a second, wherever
 * it is written; the rooms neither print nor know of signals. Activities nest: the innermost of
 * the thread that begins them is the detail of those around it.
 *
 * Cost     gt_activity_at() is a lock and a few stores: for pieces of a microsecond and more.
 * Threads  any; each has activities of its own. What is shown is the main thread's, which is the
 *          first one to begin an activity; those of others only notice the wish to stop.  */
#ifndef GT_BASE_ACTIVITY_H
#define GT_BASE_ACTIVITY_H

#include "host/base/status.h"

#include <stdint.h>

/* A literal or a text that outlives the activity; `units` names what is counted and may be NULL.
 * total 0: not known. */
typedef struct gt_activity {
    const char *what, *units;
    uint64_t done, total, since_ns;         /* since_ns: gt_now_ns() at its begin          */
    struct gt_activity *around;             /* NULL: the outermost                         */
} gt_activity;

void gt_activity_begin(gt_activity *a, const char *what, const char *units, uint64_t total);
/* So many are done. */
void gt_activity_set(gt_activity *a, uint64_t done);
/* The same; GT_INTERRUPTED with a sentence if the user has asked to stop. */
gt_status gt_activity_at(gt_activity *a, uint64_t done);
/* In any order of success or failure, but innermost first. */
void gt_activity_end(gt_activity *a);

/* Called on the main thread when its outermost activity has ended; NULL: nothing is. */
void gt_activity_after(void (*hook)(void));

/* What the main thread is busy with now, outermost first, as one line: "laying out memory 12/340
 * nodes: measuring a product". *since_ns is when the outermost began. 0: with nothing. Any thread. */
int gt_activity_describe(char *out, size_t size, uint64_t *since_ns);

/* GT_OK, or GT_INTERRUPTED with a sentence once gt_stop_asked(). */
gt_status gt_stop_check(void);

#endif
