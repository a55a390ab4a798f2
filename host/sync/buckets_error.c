/* SPDX-License-Identifier: MIT */
/* host/sync/buckets_error.c - what compression keeps between steps, as state of checkpoints.
 *
 *   buckets    |= error of bucket 1 =|= error of bucket 0 =|
 *   entries       residual.h.0.w | residual.h.1.w | ...        a parameter may lie in several buckets
 *                 velocity.h.0.w | ...                         of those that collect momentum
 *                 served.h.0.w | ...                           of those who encode sums again, of their part
 *
 * Each rank has errors of its own, and their sum is what is still owed to the weights: under another plan
 * the ranks that hold a parameter share that out anew (checkpoint_state.h, each_rank). In files they have
 * today's loss scale, whichever the one was under which they came up.                      */
#include "host/sync/buckets_private.h"

#include "host/base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static int summed(const buckets *s)
{
    int n = 0, segment;
    int64_t first;
    for (int p = 0; p < params_count(s->o.params); p++) {
        params_place(s->o.params, p, &segment, &first);
        n += is_summed(s, segment);
    }
    return n;
}

typedef enum owed_as { RESIDUAL, VELOCITY, SERVED } owed_as;

/* Of entry i, which has a number within its kind as well. */
static owed_as kind_of(const buckets *s, int i)
{
    const int which = i / summed(s);
    return which == 0 ? RESIDUAL : which == 1 && s->keeps_momentum ? VELOCITY : SERVED;
}

/* Residuals, then the others. */
static int count(void *context)
{
    const buckets *s = ((sync_run *)context)->state;
    return summed(s) * (1 + s->keeps_momentum + s->keeps_served);
}

static void entry(void *context, int i, checkpoint_entry *out)
{
    static const char *const names[] = { [RESIDUAL] = "residual", [VELOCITY] = "velocity", [SERVED] = "served" };
    const buckets *s = ((sync_run *)context)->state;
    const owed_as kind = kind_of(s, i);
    const int p = param_of(s, i % summed(s));
    const graph_param_info *info = params_info(s->o.params, p);
    *out = (checkpoint_entry){ .param = p,
                               .full = info->full,
                               .slice = info->slice,
                               .end = shape_count(&info->shape),
                               .optional = kind != RESIDUAL };
    snprintf(out->name, sizeof out->name, "%s.%.110s", names[kind], info->name);
}

/* What lies in a bucket of a parameter: elements [*from, *to) of the segment, of which the parameter's first
 * is *first; 0: none. */
static int overlap(const buckets *s, const bucket *b, int param, int64_t *first, int64_t *from, int64_t *to)
{
    int segment;
    params_place(s->o.params, param, &segment, first);
    const int64_t end = *first + shape_count(&params_info(s->o.params, param)->shape);
    const int64_t begins = (int64_t)b->offset / 4, ends = begins + (int64_t)b->count;
    *from = *first > begins ? *first : begins;
    *to = end < ends ? end : ends;
    return b->grad == params_segment_at(s->o.params, segment)->grad && *from < *to;
}

static gt_status copy(const buckets *s, dev_buffer *b, int64_t at, int64_t count, float *host, int write)
{
    return write ? dev_write(s->o.device, b, 4 * (uint64_t)at, host, 4 * (uint64_t)count)
                 : dev_read(s->o.device, b, 4 * (uint64_t)at, host, 4 * (uint64_t)count);
}

/* Values [from, to) of a bucket, of what is held back of sums: those that this rank owns. */
static gt_status move_served(const buckets *s, const bucket *b, int64_t from, int64_t to, float *host, int write)
{
    int64_t first, count, at;
    gt_status st = GT_OK;
    for (int i = 0; !st && compress_coding_piece(b->coding, i, &first, &count, &at); i++) {
        const int64_t begin = first > from ? first : from, end = first + count < to ? first + count : to;
        if (begin < end)
            st = copy(s, compress_coding_served(b->coding), at + begin - first, end - begin, host + (begin - from),
                      write);
        for (int64_t k = begin; write && k < end; k++)
            host[k - from] = 0.0f;
    }
    return st;
}

/* What other ranks own now, or what nobody encodes again any more, is owed all the same. */
static gt_status owe(const buckets *s, const bucket *b, int64_t from, int64_t to, const float *host)
{
    dev_buffer *kept = compress_coding_error(b->coding);
    const size_t count = (size_t)(to - from);
    int any = 0;
    for (size_t k = 0; kept && !any && k < count; k++)
        any = host[k] != 0.0f;
    if (!any)
        return GT_OK;
    float *sum = malloc(count * sizeof *sum);
    gt_status st = sum ? copy(s, kept, from, to - from, sum, 0)
                       : gt_fail(GT_NO_MEMORY, "no memory for what compression held back");
    for (size_t k = 0; !st && k < count; k++)
        sum[k] += host[k];
    if (!st)
        st = copy(s, kept, from, to - from, sum, 1);
    free(sum);
    return st;
}

/* The elements of a parameter that lie in a bucket, between what is kept and `host`, which has all of it. Of what is
 * written of sums, what has been taken is cleared there. */
static gt_status move(const buckets *s, const bucket *b, int param, owed_as kind, float *host, int write)
{
    int64_t first, from, to;
    if (!b->coding || !overlap(s, b, param, &first, &from, &to))
        return GT_OK;
    const int64_t at = from - (int64_t)b->offset / 4, end = at + to - from;
    if (kind == SERVED) {
        gt_status st = move_served(s, b, at, end, host + (from - first), write);
        return st || !write ? st : owe(s, b, at, end, host + (from - first));
    }
    dev_buffer *of = kind == VELOCITY ? compress_coding_velocity(b->coding) : compress_coding_error(b->coding);
    /* NULL: of a compressor that keeps none */
    return of ? copy(s, of, at, to - from, host + (from - first), write) : GT_OK;
}

static gt_status move_all(const buckets *s, int i, float *host, int write)
{
    gt_status st = GT_OK;
    for (int k = 0; !st && k < s->count; k++)
        st = move(s, &s->buckets[k], param_of(s, i % summed(s)), kind_of(s, i), host, write);
    return st;
}

static gt_status read(void *context, int i, float *to)
{
    sync_run *run = context;
    buckets *s = run->state;
    float frame[COMPRESS_FRAME];
    const int64_t n = shape_count(&params_info(s->o.params, param_of(s, i % summed(s)))->shape);
    gt_status st = s->settled ? GT_OK : sync_buckets_settle(run, 0);
    if (!st)
        st = dev_read(s->o.device, s->frame, 0, frame, sizeof frame);
    memset(to, 0, (size_t)n * sizeof *to);      /* what travels as it is leaves nothing */
    if (!st)
        st = move_all(s, i, to, 0);
    for (int64_t k = 0; !st && frame[COMPRESS_RATIO] != 1.0f && k < n; k++)
        to[k] *= frame[COMPRESS_RATIO];
    return st;
}

/* A tensor that was compressed before and is not any more has nowhere to keep what it is owed. */
static void tell_lost(const buckets *s, int i, const float *from)
{
    const int param = param_of(s, i % summed(s));
    const graph_param_info *info = params_info(s->o.params, param);
    const compress_spec spec = sync_buckets_spec(s, params_group(s->o.params, param));
    int any = 0;
    for (int64_t k = 0; k < shape_count(&info->shape) && !any; k++)
        any = from[k] != 0.0f;
    if (any && !compress_takes(&spec, info))
        gt_log(GT_LOG_WARN, "sync", "what compression held back of '%s' is left out: it now travels as it is",
               info->name);
}

static gt_status write(void *context, int i, const float *from)
{
    static const float frame[COMPRESS_FRAME] = { 0 };
    buckets *s = ((sync_run *)context)->state;
    tell_lost(s, i, from);
    s->left = 0;
    gt_status st = dev_write(s->o.device, s->frame, 0, frame, sizeof frame);
    if (st || kind_of(s, i) != SERVED)
        return st ? st : move_all(s, i, (float *)(uintptr_t)from, 1);
    const size_t bytes = (size_t)shape_count(&params_info(s->o.params, param_of(s, i % summed(s)))->shape)
                         * sizeof(float);
    float *own = malloc(bytes);
    if (!own)
        return gt_fail(GT_NO_MEMORY, "no memory for what compression held back");
    memcpy(own, from, bytes);
    st = move_all(s, i, own, 1);
    free(own);
    return st;
}

int sync_buckets_saved(sync_run *run, checkpoint_state *states)
{
    const buckets *s = run->state;
    if (!s->keeps_error)
        return 0;
    states[0] = (checkpoint_state){
        .owner = "residuals",
        .what = "what compression held back of gradients",
        .each_rank = 1,
        .optional = 1,
        .context = run,
        .count = count,
        .entry = entry,
        .read = read,
        .write = write
    };
    if (s->keeps_state)
        states[1] = sync_buckets_factors(run);
    return s->keeps_state ? 2 : 1;
}
