/* SPDX-License-Identifier: MIT */
/* host/planner/advice.h - how much of a step ranks of a plan wait for links to stay together, and what would help. */
#ifndef GT_PLANNER_ADVICE_H
#define GT_PLANNER_ADVICE_H

#include "host/pipeline/run_plan.h"

/* Share of the predicted step that is there for exchanges alone: 0 if it is not known, or there are none. */
gt_status plan_waits(double *share, const run_plan *p);
/* One line for people if a plan whose ranks wait for each other's gradients waits for more than half of a step: how
 * long, and with which options less. Else nothing. */
gt_status plan_advice(gt_text *out, const run_plan *p);

#endif
