/* SPDX-License-Identifier: MIT */
/* host/data/batch_next_token.c - the batch of a model that predicts each next token. */
#include "host/data/batch.h"

enum { TOKENS, TARGETS, COUNT };

/* Negative targets are ignored. */
static gt_status check_ids(const data_batch *b, uint64_t count, void *const field[])
{
    for (int f = 0; b->vocab && f < COUNT; f++) {
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

static gt_status fill(const data_batch *b, uint64_t position, uint64_t first, uint64_t count, void *const field[])
{
    gt_status st = loader_read(b->loader, position, first, count, field[TOKENS], field[TARGETS]);
    return st ? st : check_ids(b, count, field);
}

static gt_status fill_rows(const data_batch *b, uint64_t first, uint64_t count, uint64_t real, void *const field[])
{
    int32_t *y = field[TARGETS];
    uint64_t filled;
    gt_status st = loader_eval(b->loader, first, count, field[TOKENS], y, &filled);
    if (!st)
        st = check_ids(b, count, field);
    for (uint64_t i = real * b->loader->tokens; y && i < count * b->loader->tokens; i++)
        y[i] = LOADER_IGNORE;
    return st;
}

void data_batch_next_token(data_batch *out, const loader *l, const char *split)
{
    *out = (data_batch){ .fields = COUNT, .fill = fill, .fill_rows = fill_rows, .loader = l, .split = split };
    out->field[TOKENS] = (data_field){ .name = "tokens", .type = DTYPE_I32, .count = l->tokens };
    out->field[TARGETS] = (data_field){ .name = "targets", .type = DTYPE_I32, .count = l->tokens };
}
