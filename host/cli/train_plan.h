/* SPDX-License-Identifier: MIT */
/* host/cli/train_plan.h - the plan of a training run, shown, written and drawn. */
#ifndef GT_CLI_TRAIN_PLAN_H
#define GT_CLI_TRAIN_PLAN_H

#include "host/pipeline/run_plan.h"
#include "host/train/train.h"

/* Who holds what, a line a rank, at most `most` of them. */
void train_plan_show(const run_plan *p, int most, FILE *out);
/* RUN/plan.json. */
gt_status train_plan_write(const run_plan *p, const char *run);
/* All ranks, after training: RUN/timeline.svg, the newest step's stages and bubbles. */
gt_status train_plan_timeline(train *t, net_comm *c, const char *run);

#endif
