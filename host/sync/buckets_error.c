/* SPDX-License-Identifier: MIT */
/* host/sync/buckets_error.c - what compression holds back, as state of checkpoints.
 *
 *   buckets    |= error of bucket 1 =|= error of bucket 0 =|
 *   entries       residual.h.0.w | residual.h.1.w | ...        a parameter may lie in several buckets
 *
 * Each rank has errors of its own, and their sum is what is still owed to the weights: under another plan
 * the ranks that hold a parameter share that out anew (checkpoint_state.h, each_rank).       */
#include "host/sync/buckets_private.h"

#include <stdio.h>

/* What buckets hold of segment i at all: a group of one rank has none. */
static int is_summed(const buckets *s, int segment)
{
    return segment >= 0 && sync_buckets_net(s, params_segment_at(s->o.params, segment)->group) != NULL;
}

/* The parameter of entry i: the i-th that is summed. */
static int param_of(const buckets *s, int i)
{
    int p = -1, segment;
    int64_t first;
    while (i >= 0 && ++p < params_count(s->o.params)) {
        params_place(s->o.params, p, &segment, &first);
        i -= is_summed(s, segment);
    }
    return p;
}

static int count(void *context)
{
    const buckets *s = context;
    int n = 0, segment;
    int64_t first;
    for (int p = 0; p < params_count(s->o.params); p++) {
        params_place(s->o.params, p, &segment, &first);
        n += is_summed(s, segment);
    }
    return n;
}

static void entry(void *context, int i, checkpoint_entry *out)
{
    const buckets *s = context;
    const int p = param_of(s, i);
    const graph_param_info *info = params_info(s->o.params, p);
    *out = (checkpoint_entry){ .param = p, .full = info->full, .slice = info->slice, .end = shape_count(&info->shape) };
    snprintf(out->name, sizeof out->name, "residual.%.110s", info->name);
}

/* The elements of a parameter that lie in a bucket, between its error and `host`, which has all of it. */
static gt_status move(const buckets *s, const bucket *b, int param, float *host, int write)
{
    int segment;
    int64_t first;
    params_place(s->o.params, param, &segment, &first);
    const int64_t end = first + shape_count(&params_info(s->o.params, param)->shape);
    const int64_t begins = (int64_t)b->offset / 4, ends = begins + (int64_t)b->count;
    const int64_t from = first > begins ? first : begins, to = end < ends ? end : ends;
    if (b->grad != params_segment_at(s->o.params, segment)->grad || from >= to)
        return GT_OK;
    const uint64_t at = 4 * (uint64_t)(from - begins), bytes = 4 * (uint64_t)(to - from);
    dev_buffer *error = sync_coding_error(b->coding);
    return write ? dev_write(s->o.device, error, at, host + (from - first), bytes)
                 : dev_read(s->o.device, error, at, host + (from - first), bytes);
}

static gt_status move_all(const buckets *s, int i, float *host, int write)
{
    gt_status st = GT_OK;
    for (int k = 0; !st && k < s->count; k++)
        st = move(s, &s->buckets[k], param_of(s, i), host, write);
    return st;
}

static gt_status read(void *context, int i, float *to)
{
    return move_all(context, i, to, 0);
}

static gt_status write(void *context, int i, const float *from)
{
    return move_all(context, i, (float *)(uintptr_t)from, 1);
}

int sync_buckets_saved(sync_run *run, checkpoint_state *states)
{
    buckets *s = run->state;
    if (!s->how->keeps_error)
        return 0;
    states[0] = (checkpoint_state){
        .owner = "residuals",
        .what = "what compression held back of gradients",
        .each_rank = 1,
        .optional = 1,
        .context = s,
        .count = count,
        .entry = entry,
        .read = read,
        .write = write
    };
    return 1;
}
