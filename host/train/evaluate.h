/* SPDX-License-Identifier: MIT */
/* host/train/evaluate.h - the mean loss of a model over a split, nothing trained.
 *
 * Follows the plan: each replica takes its part of the rows, through its stages, and the sums of all
 * are added up.                                                                          */
#ifndef GT_TRAIN_EVALUATE_H
#define GT_TRAIN_EVALUATE_H

#include "host/data/batch.h"
#include "host/pipeline/stage.h"

typedef struct evaluate evaluate;

typedef struct evaluate_options {
    stage_place_options place;      /* device, kernels, gemm, params, arena; no bindings */
    const run_plan *plan;
    int rank;
    net_comm *comm;                 /* NULL: the only rank */
    const token_split *split;
    data_batch_maker batch;         /* NULL: tokens, and the next ones                   */
    const char *name;               /* of the data, for sentences; NULL: "validation"    */
    uint64_t seq;
    uint64_t rows;                  /* stop after so many sequences; 0: the whole split  */
} evaluate_options;

/* evaluate_ready follows when everything that shares memory was created. The plan must stay. */
gt_status evaluate_create(evaluate **out, const stage_model *m, const evaluate_options *o);
gt_status evaluate_ready(evaluate *e);
void evaluate_release(evaluate *e);            /* takes NULL */

/* How many sequences evaluate_run() measures, and of how many. */
uint64_t evaluate_rows(const evaluate *e, uint64_t *all);

/* Mean loss a token, in nats, and how many tokens that was (may be NULL). Waits. All ranks. */
gt_status evaluate_run(evaluate *e, double *loss, uint64_t *tokens);

#endif
