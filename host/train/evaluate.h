/* SPDX-License-Identifier: MIT */
/* host/train/evaluate.h - the mean loss of a model over a split, and what else its graph puts out; nothing
 * trained.
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
    /* Bytes of text that each id spells, [ids]: targets are then counted in bytes, too. NULL: not known. */
    const unsigned char *bytes;
    uint32_t ids;
} evaluate_options;

/* What a validation found. */
typedef struct evaluate_result {
    double loss;                    /* mean of a target, in nats; NaN: none was measured  */
    uint64_t tokens;                /* that were read: of next tokens those that count, else all of the text */
    double targets;                 /* that were weighed, by weight                       */
    double bytes;                   /* that the targets spell; 0: not known               */
    double hits;                    /* targets that were answered right; NaN: the graph has no "hit_sum" */
    int whole_texts;                /* targets are of texts, not of tokens: they have no perplexity */
    int parts;                      /* of a mixture: all of each part is measured by itself, and `loss` is the mean
                                       of theirs by the mixture's weights; else 0 */
    double part_loss[LOADER_SOURCES];
} evaluate_result;

/* What follows from it; NaN where it does not. */
double evaluate_perplexity(const evaluate_result *r);      /* e^loss: so many tokens seemed equally likely */
double evaluate_bits_per_byte(const evaluate_result *r);
double evaluate_accuracy(const evaluate_result *r);        /* share of targets            */

/* evaluate_ready follows when everything that shares memory was created. The plan must stay. */
gt_status evaluate_create(evaluate **out, const stage_model *m, const evaluate_options *o);
gt_status evaluate_ready(evaluate *e);
void evaluate_release(evaluate *e);            /* takes NULL */

/* How many sequences evaluate_run() measures, and of how many. */
uint64_t evaluate_rows(const evaluate *e, uint64_t *all);

/* Waits. All ranks, which get the same. */
gt_status evaluate_run(evaluate *e, evaluate_result *out);

#endif
