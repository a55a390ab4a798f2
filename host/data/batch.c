/* SPDX-License-Identifier: MIT */
/* host/data/batch.c - what can be asked of a batch of any kind. */
#include "host/data/batch.h"

#include <math.h>
#include <string.h>

void data_batch_make(data_batch *out, data_batch_maker make, const void *config, const loader *l, const char *split)
{
    if (make)
        make(out, config, l, split);
    else
        data_batch_next_token(out, l, split);
}

size_t data_field_bytes(const data_field *f, uint64_t count)
{
    return (size_t)(f->count * count) * dtype_size(f->type);
}

static gt_status check_total(const data_batch *b, double weights)
{
    return isfinite(weights) && weights >= 0.0
               ? GT_OK
               : gt_fail(GT_MISMATCH, "targets of the %s data weigh %g together, which is no weight", b->split,
                         weights);
}

gt_status data_batch_total(const data_batch *b, uint64_t position, uint64_t first, uint64_t count, data_total *out)
{
    const double all = (double)(count * b->loader->tokens);
    *out = (data_total){ all, all };
    gt_status st = b->total ? b->total(b, position, first, count, out) : GT_OK;
    return st ? st : check_total(b, out->weights);
}

gt_status data_batch_total_rows(const data_batch *b, uint64_t first, uint64_t count, data_total *out)
{
    const double all = (double)(count * b->loader->tokens);
    *out = (data_total){ all, all };
    gt_status st = b->total_rows ? b->total_rows(b, first, count, out) : GT_OK;
    return st ? st : check_total(b, out->weights);
}

static gt_status no_target(const data_batch *b, const char *name)
{
    return gt_fail(
        GT_MISMATCH,
        "no target of the %s data, '%s', counts within sequences of %llu tokens, so that there is nothing to "
        "%s; raise --seq, or give data with answers that begin earlier",
        b->split, name, (unsigned long long)b->loader->tokens, strcmp(b->split, "training") ? "measure" : "learn");
}

gt_status data_batch_check_targets(const data_batch *b, const char *name)
{
    const uint64_t steps = b->total ? loader_epoch_steps(b->loader) : 0;
    data_total t = { 0 };
    gt_status st = GT_OK;
    for (uint64_t s = 0; !st && s < steps && t.weights <= 0.0; s++)
        st = data_batch_total(b, loader_step(b->loader, s, 0), 0, b->loader->batch, &t);
    return !st && steps && t.weights <= 0.0 ? no_target(b, name) : st;
}

gt_status data_batch_check_target_rows(const data_batch *b, const char *name)
{
    const uint64_t rows = b->total_rows ? loader_eval_rows(b->loader) : 0;
    data_total t = { 0 };
    gt_status st = GT_OK;
    for (uint64_t r = 0; !st && r < rows && t.weights <= 0.0; r++)
        st = data_batch_total_rows(b, r, 1, &t);
    return !st && rows && t.weights <= 0.0 ? no_target(b, name) : st;
}
