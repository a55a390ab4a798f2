/* SPDX-License-Identifier: MIT */
/* host/sync/buckets_factors.c - what compressors keep of whole tensors, as state of checkpoints.
 *
 *   tensor (N,M), in memory (RANK,M)      factor4.NAME            (M,RANK): cut as the tensor's columns are
 *                                         factor4.NAME.8-16       where ranks hold rows: of rows 8 to 15
 *
 * Ranks that sum a tensor have the same. It is a good place to begin from and no more, so that what does not
 * fit another plan or rank begins anew.                                                    */
#include "host/sync/buckets_private.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct factor {
    const bucket *b;
    int range;
    const graph_param_info *info;
    dev_buffer *at;
    int64_t columns, rank;
} factor;

/* The i-th; 0: there are not so many. */
static int factor_at(const buckets *s, int i, factor *out)
{
    for (int k = 0; k < s->count; k++) {
        const bucket *b = &s->buckets[k];
        for (int r = 0; b->coding && r < b->tensors; r++) {
            dev_buffer *at = compress_coding_state(b->coding, r);
            if (!at || i--)
                continue;
            const graph_param_info *info = params_info(s->o.params, b->tensor[r]);
            const int64_t columns = shape_count(&info->shape) / info->shape.dim[0];
            *out = (factor){ b, r, info, at, columns, (int64_t)dev_buffer_bytes(at) / 4 / columns };
            return 1;
        }
    }
    return 0;
}

static int count(void *context)
{
    const buckets *s = ((sync_run *)context)->state;
    factor f;
    int n = 0;
    while (factor_at(s, n, &f))
        n++;
    return n;
}

static void entry(void *context, int i, checkpoint_entry *out)
{
    const buckets *s = ((sync_run *)context)->state;
    factor f;
    if (!factor_at(s, i, &f))
        return;
    const tensor_slice *cut = &f.info->slice;
    const int by_columns = cut->parts > 0 && f.info->full.rank == 2 && cut->dim == 1;
    *out = (checkpoint_entry){ .param = f.b->tensor[f.range],
                               .full = { .rank = 2, .dim = { f.columns, f.rank } },
                               .end = f.columns * f.rank,
                               .leaves = !sync_holders_first(s->o.holders, f.b->group_number),
                               .optional = 1 };
    if (by_columns) {
        out->full.dim[0] = f.info->full.dim[1];
        out->slice = *cut;
        out->slice.dim = 0;
    }
    int used = snprintf(out->name, sizeof out->name, "factor%d.%.72s", (int)f.rank, f.info->name);
    if (cut->parts > 0 && !by_columns)
        snprintf(out->name + used, sizeof out->name - (size_t)used, ".%lld-%lld", (long long)cut->begin,
                 (long long)(cut->begin + cut->count));
}

/* Between (rank, columns) on the device and (columns, rank). */
static gt_status move(void *context, int i, float *host, int write)
{
    sync_run *run = context;
    buckets *s = run->state;
    factor f;
    if (!factor_at(s, i, &f))
        return GT_OK;
    const uint64_t bytes = 4 * (uint64_t)(f.columns * f.rank);
    float *x = malloc(bytes);
    gt_status st = x ? GT_OK : gt_fail(GT_NO_MEMORY, "no memory for what compression keeps of '%s'", f.info->name);
    if (!st && !write && !s->settled)
        st = sync_buckets_settle(run, 0);
    if (!st && !write)
        st = dev_read(s->o.device, f.at, 0, x, bytes);
    for (int64_t c = 0; !st && c < f.columns; c++)
        for (int64_t r = 0; r < f.rank; r++) {
            float *there = &x[r * f.columns + c], *here = &host[c * f.rank + r];
            *(write ? there : here) = *(write ? here : there);
        }
    if (!st && write)
        st = dev_write(s->o.device, f.at, 0, x, bytes);
    free(x);
    return st;
}

static gt_status read(void *context, int i, float *to)
{
    return move(context, i, to, 0);
}

static gt_status write(void *context, int i, const float *from)
{
    return move(context, i, (float *)(uintptr_t)from, 1);
}

checkpoint_state sync_buckets_factors(sync_run *run)
{
    return (checkpoint_state){
        .owner = "factors",
        .what = "what compression keeps of tensors",
        .optional = 1,
        .context = run,
        .count = count,
        .entry = entry,
        .read = read,
        .write = write
    };
}
