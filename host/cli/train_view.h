/* SPDX-License-Identifier: MIT */
/* host/cli/train_view.h - what a person sees of a training run: a bar, lines, or objects.
 *
 *   step 120/500 [##----] loss 3.1234  lr 0.0003  grad 1.012  12.3k tok/s  1:02 left   on a terminal
 *   step 120  loss 3.1234  lr 0.0003  grad 1.012  83.0 ms  12.3k tok/s  idle 2.1 %  ...   in a pipe
 *
 * It also names a rank that has become slow (planner/slow_rank.h).                            */
#ifndef GT_CLI_TRAIN_VIEW_H
#define GT_CLI_TRAIN_VIEW_H

#include "host/planner/slow_rank.h"
#include "host/train/train.h"

typedef struct train_view {
    train *of;
    net_comm *comm;                 /* NULL: alone                                          */
    uint64_t steps;
    int json, bar, replan;          /* replan: stop when a rank has become slow             */
    struct train_samples *samples;  /* NULL: none are asked for                             */
    const char *prompt;             /* that they begin with                                 */
    double slow;                    /* against the others: from how many times on           */
    uint64_t start_ns;              /* of the run                                           */
    uint64_t *shown;                /* the last step that was told: those up to it are not again; NULL: all are */
    /* What it keeps. */
    uint64_t last_ns, first_step;
    double val;                     /* the last validation loss, NaN: none yet              */
    double ms, tokens_per_s;        /* of a step about now, 0: not known                    */
    double measured[64], measured_idle;     /* milliseconds of the last steps; mean of all  */
    int measured_count;
    metrics_row last;
    double rounding[2], rounding_most[2];   /* between stages, of all steps: mean, and largest      */
    uint64_t rounded;               /* steps of which the mean is                           */
    slow_rank_watch *slow_ranks;
    double *busy;                   /* [rank] seconds of computing in the newest step       */
    int wants_plan;                 /* stopped in order to plan again                       */
} train_view;

/* Fill in the first part, zero the rest. */
gt_status train_view_begin(train_view *v);
void train_view_end(train_view *v);
train_hooks train_view_hooks(train_view *v);
/* "predicted 83.0 ms a step, measured 85.1 (+2.5 %)", when there is something to say. */
void train_view_compare(const train_view *v, FILE *out);

#endif
