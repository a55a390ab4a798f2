/* SPDX-License-Identifier: MIT */
/* host/cli/plan_show.h - plans for people: what `geartrain plan` prints, writes and draws. */
#ifndef GT_CLI_PLAN_SHOW_H
#define GT_CLI_PLAN_SHOW_H

#include "host/planner/plan_local.h"
#include "models/model.h"

#include <jansson.h>

/* What is to be planned, and how it is to be told. */
typedef struct plan_question {
    const model_config *model;
    dtype storage;
    int batch, seq, json;
    int compare;                /* ways of staying together as well */
    optim_config optim;
    const char *sync, *compress, *compress_stages;
    const sync_settings *settings;
    uint64_t compress_after;
    const char *timeline;       /* an SVG of replica 0's step, or NULL */
    const char *out;            /* a plan for `train --plan`, or NULL  */
} plan_question;

/* What planning asks of a model; c must outlive it. NULL: it is not known yet. */
plan_model plan_model_of(const model_config *c);

/* "embedding, layers 0-5, head" of units [from, to) into out. */
void plan_unit_range(int from, int to, int units, char *out, size_t size);

/* Ways of staying together, side by side. `note`: what was not reckoned with, or "". */
void plan_compare_print(const plan_question *q, const compare_table *t, const char *note);
/* The same as a list of objects. */
json_t *plan_compare_json(const plan_question *q, const compare_table *t);

/* A plan for the devices that are here, on standard output. */
gt_status plan_show(const plan_question *q, const plan_local_result *r);
/* Plans for a cluster file's devices, and shows it. */
gt_status plan_cluster(const plan_question *q, const char *path);

#endif
