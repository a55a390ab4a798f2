/* SPDX-License-Identifier: MIT */
/* host/data/batch_next_token.c - the batch of a model that predicts each next token.
 *
 * Fields are the same whatever the data are: a model reads those that it was built for, and where targets do not
 * weigh alike it must read their weights. */
#include "host/data/batch.h"

enum { TOKENS, TARGETS, WEIGHTS, STARTS, LENGTHS, COUNT };

/* Negative targets are ignored. */
static gt_status check_ids(const data_batch *b, uint64_t count, void *const field[])
{
    for (int f = 0; b->vocab && f <= TARGETS; f++) {
        const int32_t *x = field[f];
        for (uint64_t i = 0; x && i < count * b->field[f].count; i++)
            if (x[i] >= b->vocab)
                return gt_fail(GT_MISMATCH,
                               "%s data holds token %d, the model has %d; was it tokenized for "
                               "another model?",
                               b->split, x[i], b->vocab);
    }
    return GT_OK;
}

static loader_fields wanted(void *const field[])
{
    return (loader_fields){ .tokens = field[TOKENS],
                            .targets = field[TARGETS],
                            .weights = field[WEIGHTS],
                            .starts = field[STARTS],
                            .lengths = field[LENGTHS] };
}

static gt_status fill(const data_batch *b, uint64_t position, uint64_t first, uint64_t count, void *const field[])
{
    const loader_fields f = wanted(field);
    gt_status st = loader_fill(b->loader, position, first, count, &f);
    return st ? st : check_ids(b, count, field);
}

static gt_status fill_rows(const data_batch *b, uint64_t first, uint64_t count, uint64_t real, void *const field[])
{
    const loader_fields f = wanted(field);
    gt_status st = loader_fill_rows(b->loader, first, count, real, &f);
    return st ? st : check_ids(b, count, field);
}

static gt_status total(const data_batch *b, uint64_t position, uint64_t first, uint64_t count, data_total *out)
{
    gt_status st = loader_weigh(b->loader, position, first, count, &out->weights);
    out->tokens = out->weights;
    return st;
}

static gt_status total_rows(const data_batch *b, uint64_t first, uint64_t count, data_total *out)
{
    gt_status st = loader_weigh_rows(b->loader, first, count, &out->weights);
    out->tokens = out->weights;
    return st;
}

void data_batch_next_token(data_batch *out, const loader *l, const char *split)
{
    *out = (data_batch){ .fields = COUNT, .fill = fill, .fill_rows = fill_rows, .loader = l, .split = split };
    out->field[TOKENS] = (data_field){ .name = "tokens", .type = DTYPE_I32, .count = l->tokens };
    out->field[TARGETS] = (data_field){ .name = "targets", .type = DTYPE_I32, .count = l->tokens };
    out->field[WEIGHTS] = (data_field){ .name = "weights", .type = DTYPE_F32, .count = l->tokens };
    out->field[STARTS] = (data_field){ .name = "starts", .type = DTYPE_I32, .count = l->tokens, .below = 1 };
    out->field[LENGTHS] = (data_field){
        .name = "lengths", .type = DTYPE_I32, .count = 1, .from = (int)l->tokens, .below = (int)l->tokens + 1
    };
    if (loader_weighs(l)) {
        out->weights = "weights";
        out->total = total;
        out->total_rows = total_rows;
    }
}
