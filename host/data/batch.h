/* SPDX-License-Identifier: MIT */
/* host/data/batch.h - what a step is fed with: named fields, and a function that fills rows of them.
 *
 *   loader ──► data_batch: fields (tokens, targets, ...) ──► the inputs of the graph by the same names
 *
 * A kind of batch is one file that fills in this struct; whoever runs a graph goes over the fields and
 * knows none by name. A stage asks only for the fields that its graph has.
 * The loss of a step is the mean of its targets by weight, so what is padding or masked weighs 0.
 *
 * Threads    a batch never changes once it is made; filling may run anywhere.                   */
#ifndef GT_DATA_BATCH_H
#define GT_DATA_BATCH_H

#include "host/data/loader.h"
#include "host/tensor/dtype.h"

enum { DATA_FIELDS = 8 };               /* of a batch, at most */

typedef struct data_field {
    const char *name;                   /* of the graph's input that it is for */
    dtype type;
    uint64_t count;                     /* elements of one sequence            */
    int below;                          /* i32: values are from `from` to below it; 0: ids of tokens */
    int from;
} data_field;

/* Of some sequences: what their targets weigh together, and how many tokens they are. Those are the ones that count in
 * the loss, of next tokens, and otherwise all of the text: padding is none. */
typedef struct data_total {
    double weights, tokens;
} data_total;

typedef struct data_batch data_batch;
struct data_batch {
    data_field field[DATA_FIELDS];
    int fields;
    int vocab;                          /* ids must be below it; 0: not known here */
    /* Sequences [first, first + count) of the step at a position, into field[i] (count sequences) of
     * each field; NULL: that field is not wanted. GT_MISMATCH for an id that the model lacks. */
    gt_status (*fill)(const data_batch *b, uint64_t position, uint64_t first, uint64_t count, void *const field[]);
    /* The same of an evaluation's rows, of which only the first `real` count in the loss. */
    gt_status (*fill_rows)(const data_batch *b, uint64_t first, uint64_t count, uint64_t real, void *const field[]);
    /* Where targets do not count alike: the f32 field of their weights, each >= 0; and the sum of these over
     * sequences [first, first + count) of the step at a position, or of an evaluation's rows, which any rank can ask for.
     * NULL, all three: each target weighs 1. Totals without a field: targets weigh 1 each, and there are so many. */
    const char *weights;
    gt_status (*total)(const data_batch *b, uint64_t position, uint64_t first, uint64_t count, data_total *out);
    gt_status (*total_rows)(const data_batch *b, uint64_t first, uint64_t count, data_total *out);
    int whole_texts;                    /* 1: a target is of all of a sequence, none is of a token */
    const loader *loader;
    const char *split;                  /* its name, for sentences */
    const void *how;                    /* what the kind needs beside the loader; NULL: nothing */
};

/* Makes a batch of a kind; which, may depend on the model's config. The loader must outlive it; its `tokens`
 * alone need be there to ask for the fields. */
typedef void (*data_batch_maker)(data_batch *out, const void *config, const loader *l, const char *split);

/* By make, or as data_batch_next_token() does where that is NULL. */
void data_batch_make(data_batch *out, data_batch_maker make, const void *config, const loader *l, const char *split);

/* Bytes of `count` sequences of a field. */
size_t data_field_bytes(const data_field *f, uint64_t count);

/* Of sequences [first, first + count) of the step at a position, and of evaluation rows [first, first + count). GT_MISMATCH if weights
 * are no number from 0 up. */
gt_status data_batch_total(const data_batch *b, uint64_t position, uint64_t first, uint64_t count, data_total *out);
gt_status data_batch_total_rows(const data_batch *b, uint64_t first, uint64_t count, data_total *out);
/* GT_MISMATCH, with what to do, if in all of a pass over the data, or of the evaluation's rows, no target counts. */
gt_status data_batch_check_targets(const data_batch *b, const char *name);
gt_status data_batch_check_target_rows(const data_batch *b, const char *name);

/* Fields `tokens`, `targets`, each the token behind it, their `weights`, and of documents `starts` and `lengths`: as
 * loader_fields has them. */
void data_batch_next_token(data_batch *out, const loader *l, const char *split);

#endif
