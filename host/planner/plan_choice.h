/* SPDX-License-Identifier: MIT */
/* host/planner/plan_choice.h - which plan a run follows.
 *
 *   --plan FILE · RUN/plan.json of a run that is resumed · else planned from measurements
 *                                └─ if devices, units, sequences and options are still its own; or, where ranks
 *                                   changed while the run goes on, cut anew for those that are there (`recut`)
 *
 * Rank 0 decides and hands the plan to all, so that nobody follows another one.           */
#ifndef GT_PLANNER_PLAN_CHOICE_H
#define GT_PLANNER_PLAN_CHOICE_H

#include "host/planner/plan_local.h"

typedef struct plan_wish {
    plan_local_options local;       /* what options fix, and what is trained                */
    const char *file;               /* --plan; NULL or "auto": see above                    */
    const char *run;                /* its plan.json                                        */
    int resume;
    const char *compress,
        *compress_stages;     /* NULL: as the plan says; else these, which a --plan FILE may only repeat */
    int recut; /* whole replicas: give the batch of that plan to the ranks there are, unmeasured */
    int fresh; /* --plan auto was asked for: not as the run began      */
} plan_wish;

/* What of a wish cannot be with so many ranks, before any is started: GT_MISUSE. */
gt_status plan_choice_check(const plan_wish *w, int ranks);
/* All ranks (c NULL: alone). What cannot be with the options, or with the plan that comes of them, is told on rank 0;
 * others fail without a sentence. *why (rank 0): lines about where it came from and what else there was. */
gt_status plan_choice_settle(run_plan *out, gt_text *why, net_comm *c, dev_device *d, const plan_wish *w);

#endif
