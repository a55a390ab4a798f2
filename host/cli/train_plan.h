/* SPDX-License-Identifier: MIT */
/* host/cli/train_plan.h - the plan that a training run follows, and what became of it.
 *
 *   --plan FILE · RUN/plan.json of a run that is resumed · else planned from measurements
 *                                └─ if devices, units, sequences and options are still its own
 *
 * Rank 0 decides and hands the plan to all, so that nobody follows another one.           */
#ifndef GT_CLI_TRAIN_PLAN_H
#define GT_CLI_TRAIN_PLAN_H

#include "host/cli/plan_local.h"
#include "host/train/train.h"

typedef struct train_plan_wish {
    plan_local_options local;       /* what options fix, and what is trained                */
    const char *file;               /* --plan; NULL or "auto": see above                    */
    const char *run;                /* its plan.json                                        */
    int resume;
    int fresh;                      /* --plan auto was asked for: not as the run began      */
} train_plan_wish;

/* What of a wish cannot be with so many ranks, before any is started: GT_MISUSE. */
gt_status train_plan_check(const train_plan_wish *w, int ranks);
/* All ranks (c NULL: alone). *why (rank 0): lines about where it came from and what else there was. */
gt_status train_plan_settle(run_plan *out, gt_text *why, net_comm *c, dev_device *d,
                            const train_plan_wish *w);

/* Who holds what, a line a rank, at most `most` of them. */
void train_plan_show(const run_plan *p, int most, FILE *out);
/* RUN/plan.json. */
gt_status train_plan_write(const run_plan *p, const char *run);
/* All ranks, after training: RUN/timeline.svg, the newest step's stages and bubbles. */
gt_status train_plan_timeline(train *t, net_comm *c, const char *run);

#endif
