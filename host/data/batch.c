/* SPDX-License-Identifier: MIT */
/* host/data/batch.c - what can be asked of a batch of any kind. */
#include "host/data/batch.h"

#include <math.h>

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

gt_status data_batch_total(const data_batch *b, uint64_t position, uint64_t first, uint64_t count, double *weights)
{
    *weights = (double)(count * b->loader->tokens);
    gt_status st = b->total ? b->total(b, position, first, count, weights) : GT_OK;
    return st ? st : check_total(b, *weights);
}

gt_status data_batch_total_rows(const data_batch *b, uint64_t first, uint64_t count, double *weights)
{
    *weights = (double)(count * b->loader->tokens);
    gt_status st = b->total_rows ? b->total_rows(b, first, count, weights) : GT_OK;
    return st ? st : check_total(b, *weights);
}
