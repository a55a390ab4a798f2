/* SPDX-License-Identifier: MIT */
/* host/data/batch_classify.c - documents and their labels: see batch_classify.h. */
#include "host/data/batch_classify.h"

enum { TOKENS, TYPES, LENGTHS, LABELS, COUNT };

static gt_status check(const data_batch *b, uint64_t count, void *const field[])
{
    const int32_t *x = field[TOKENS], *label = field[LABELS];
    const uint64_t T = b->loader->tokens;
    for (uint64_t i = 0; x && b->vocab && i < count * T; i++)
        if (x[i] >= b->vocab)
            return gt_fail(GT_MISMATCH, "%s data hold token %d, the model has %d; was it tokenized for another model?",
                           b->split, x[i], b->vocab);
    for (uint64_t i = 0; label && i < count; i++)
        if (label[i] >= b->field[LABELS].below)
            return gt_fail(GT_MISMATCH, "%s data hold label number %d, the model tells %d classes apart", b->split,
                           label[i], b->field[LABELS].below);
    return GT_OK;
}

/* Padding is what the tokenizer has for it, and every sequence has a token to look at. */
static void finish(const data_batch *b, uint64_t count, int32_t *lengths, int32_t *tokens)
{
    const data_marks *m = b->how;
    const uint64_t T = b->loader->tokens;
    for (uint64_t i = 0; lengths && i < count; i++) {
        for (uint64_t t = (uint64_t)lengths[i]; m && tokens && t < T; t++)
            tokens[i * T + t] = m->padding;
        lengths[i] = lengths[i] < 1 ? 1 : lengths[i];
    }
}

static loader_fields wanted(void *const field[])
{
    return (loader_fields){
        .tokens = field[TOKENS], .types = field[TYPES], .lengths = field[LENGTHS], .labels = field[LABELS]
    };
}

static gt_status fill(const data_batch *b, uint64_t position, uint64_t first, uint64_t count, void *const field[])
{
    const loader_fields f = wanted(field);
    gt_status st = loader_fill(b->loader, position, first, count, &f);
    if (!st)
        finish(b, count, f.lengths, f.tokens);
    return st ? st : check(b, count, field);
}

static gt_status fill_rows(const data_batch *b, uint64_t first, uint64_t count, uint64_t real, void *const field[])
{
    const loader_fields f = wanted(field);
    gt_status st = loader_fill_rows(b->loader, first, count, real, &f);
    if (!st)
        finish(b, count, f.lengths, f.tokens);
    return st ? st : check(b, count, field);
}

static gt_status total(const data_batch *b, uint64_t position, uint64_t first, uint64_t count, data_total *out)
{
    int32_t length;
    const loader_fields f = { .lengths = &length };
    gt_status st = GT_OK;
    *out = (data_total){ .weights = (double)count };
    for (uint64_t i = 0; !st && i < count; i++) {
        st = loader_fill(b->loader, position, first + i, 1, &f);
        out->tokens += (double)length;
    }
    return st;
}

static gt_status total_rows(const data_batch *b, uint64_t first, uint64_t count, data_total *out)
{
    const uint64_t rows = loader_eval_rows(b->loader), left = first < rows ? rows - first : 0;
    int32_t length;
    const loader_fields f = { .lengths = &length };
    gt_status st = GT_OK;
    *out = (data_total){ .weights = left < count ? (double)left : (double)count };
    for (uint64_t i = 0; !st && i < count && i < left; i++) {
        st = loader_fill_rows(b->loader, first + i, 1, 1, &f);
        out->tokens += (double)length;
    }
    return st;
}

void data_batch_classify(data_batch *out, const loader *l, const char *split, const data_marks *marks, int classes)
{
    const int T = (int)l->tokens;
    *out = (data_batch){
        .fields = COUNT,
        .fill = fill,
        .fill_rows = fill_rows,
        .total = total,
        .total_rows = total_rows,
        .whole_texts = 1,
        .loader = l,
        .split = split,
        .how = marks
    };
    out->field[TOKENS] = (data_field){ .name = "tokens", .type = DTYPE_I32, .count = l->tokens };
    out->field[TYPES] = (data_field){ .name = "token_types", .type = DTYPE_I32, .count = l->tokens, .below = 1 };
    out->field[LENGTHS] = (data_field){ .name = "lengths", .type = DTYPE_I32, .count = 1, .from = T, .below = T + 1 };
    out->field[LABELS] = (data_field){ .name = "labels", .type = DTYPE_I32, .count = 1, .below = classes };
}
