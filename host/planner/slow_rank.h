/* SPDX-License-Identifier: MIT */
/* host/planner/slow_rank.h - notices when one rank of a run has become slow, from the times of its steps.
 *
 *   steps   1 2 3 | 4 ........ 11 | 12 ...
 *           warm  | what is       | is a rank slow, six steps in a row?
 *           up    | usual         |
 *
 * A rank is slow when all of this is so:
 *   it computes `factor` times as long as was usual for it, against what became of the others
 *     (moving work helps only against them)
 *   what it computes longer is a tenth of the step at least, and more than three standard deviations
 *     of what it took while that was learnt
 *   the step has become longer, by as much of what is usual for it
 * So a millisecond that a busy machine takes from a tiny model is no slow rank.
 *
 * Units: seconds.                                                                         */
#ifndef GT_PLANNER_SLOW_RANK_H
#define GT_PLANNER_SLOW_RANK_H

#include "host/base/status.h"

enum { SLOW_RANK_WARM_UP = 3, SLOW_RANK_LEARN = 8, SLOW_RANK_PATIENCE = 6 };

typedef struct slow_rank_watch slow_rank_watch;

typedef struct slow_rank_finding {
    int rank;
    double factor;              /* times as slow as the others have become                  */
    double longer;              /* seconds a step that it computes longer                   */
} slow_rank_finding;

/* factor: above 1. */
gt_status slow_rank_create(slow_rank_watch **out, int ranks, double factor);
void slow_rank_release(slow_rank_watch *w);        /* takes NULL */
/* One more step, with what each rank computed in it, [ranks], and how long it took from end to end. 1 and the
 * finding, once in a run, when a rank has been slow for SLOW_RANK_PATIENCE steps. */
int slow_rank_step(slow_rank_watch *w, const double *busy, double step, slow_rank_finding *found);

#endif
