/* SPDX-License-Identifier: MIT */
/* host/planner/plan_local.h - a plan for the devices that are here, from what they were measured to do.
 *
 *   all ranks    profile: each unit of the model, forward and backward, all at once     (cached)
 *   rank 0       search: replicas, stages, micro-batches, schedule      local_search.h
 *   all ranks    the same plan, from rank 0's text
 *
 * `geartrain plan` shows the plan, `geartrain train --plan auto` follows it. What the options fix is
 * kept, what they leave open is searched.                                                 */
#ifndef GT_PLANNER_PLAN_LOCAL_H
#define GT_PLANNER_PLAN_LOCAL_H

#include "host/data/batch.h"
#include "host/device/device.h"
#include "host/graph/graph.h"
#include "host/optim/optim.h"
#include "host/pipeline/run_plan.h"
#include "host/planner/compare.h"
#include "net/comm/comm.h"

/* A model as planning knows it. */
typedef struct plan_model {
    const char *name;           /* for people                                                 */
    gt_status (*build)(graph *g, const void *config, const graph_part *part, int train, int recompute);
    const void *config;
    int units;                  /* 0: not known                                               */
    double parameters;          /* that are trained                                           */
    data_batch_maker batch;     /* what it is fed with; NULL: tokens, and the next ones       */
    double frozen;              /* bytes of those that are not                                */
} plan_model;

typedef struct plan_local_options {
    plan_model model;
    dtype storage;
    int batch, seq;             /* sequences a step; tokens a sequence                        */
    /* 0, NULL and -1: open. stages: of every replica. */
    int stages, replicas, tensor, micro_batch;
    const char *schedule;       /* NULL or "auto": open                                       */
    int recompute;
    const char *sync;           /* NULL: the usual                                            */
    const sync_settings *settings;      /* of that mode; NULL: its usual ones                 */
    unsigned fixed;             /* bit i: a plan of before must have setting i as it is there  */
    const char *compress, *compress_stages;     /* as options of these names take them; NULL: none */
    uint64_t compress_after;    /* steps before the first of them; of a plan's file UINT64_MAX: any */
    int compare;                /* 1: fill in the result's table                              */
    optim_config optim;         /* rule NULL: the usual one                                   */
    int again;                  /* measure even what the cache folder "profile" has           */
    int in_passing;             /* and do not keep it: what slows a device now may pass       */
} plan_local_options;

/* What was found, and how. Only the plan is there on ranks other than 0. */
typedef struct plan_local_result {
    run_plan plan;
    gt_text runners_up;         /* lines for people: the next best of other kinds, and why not */
    compare_table *compare;     /* ways of staying together, if it was asked for              */
    int measured;               /* 0: everything was in the cache                             */
    double profile_seconds, search_seconds;
} plan_local_result;

/* All ranks of c together, or c NULL: alone. GT_MISMATCH when nothing fits, on all ranks: the sentence
 * says what came nearest, on rank 0; on others there is no sentence. */
gt_status plan_local(plan_local_result *out, net_comm *c, dev_device *d, const plan_local_options *o);
void plan_local_release(plan_local_result *r);

/* What of the options cannot be with so many ranks, before any is started: GT_MISUSE. The model's units
 * may be unknown. */
gt_status plan_local_check(const plan_local_options *o, int ranks);

/* GT_MISUSE if what travels between stages has a form, and no replica has several of them. form NULL: none. */
gt_status plan_check_stages(int stages, const char *form);

/* Options' words: "auto" or a number from 1 up. GT_MISUSE names the option. */
gt_status plan_local_number(int *out, const char *option, const char *word);

#endif
