/* SPDX-License-Identifier: MIT */
/* host/sync/buckets.c - a step: who is complete leaves, in an order all ranks know.
 *
 * Which thread sums a bucket is each rank's own affair: a group's sums run in the order of its
 * buckets on every rank. What is left when the backward pass is over is summed by the thread that would wait
 * for it, if it is of one group, the last; other groups have threads, so that none waits for another.
 * Where ranks are far apart a group's buckets have several groups of the same ranks (buckets_lanes.c). */
#include "host/sync/buckets_private.h"

#include "host/base/clock.h"

#include <stdio.h>
#include <string.h>

static gt_status settle(dev_event **e)
{
    dev_event *event = *e;
    *e = NULL;
    return dev_event_wait(event);
}

/* Bytes of new weights that leave this rank in a step, whatever the form of gradients is. */
static uint64_t gathered(const buckets *s)
{
    uint64_t sum = 0;
    for (int i = 0; i < s->count; i++) {
        const bucket *b = &s->buckets[i];
        if (b->counts && !b->packs)
            sum += (uint64_t)(net_group_size(b->group) - 1) * 4 * b->own_count;
    }
    return sum;
}

/* Bytes of gradients that leave this rank for a bucket in a step; as those of all ranks together, whatever the
 * network's algorithm is: sums in parts, which then go to everybody, or encodings that do. */
uint64_t sync_bucket_crossing(const bucket *b)
{
    const uint64_t ranks = (uint64_t)net_group_size(b->group);
    uint64_t sum = 0;
    for (int r = 0; r < sync_bucket_rounds(b); r++) {
        const travel t = sync_bucket_travel(b, r);
        sum += t.way == COMPRESS_EXCHANGED  ? (ranks - 1) * (t.bytes / ranks)
               : t.way == COMPRESS_GATHERED ? (ranks - 1) * t.own_bytes
               : sync_bucket_scatters(b)    ? net_type_size(t.type) * (b->count - b->own_count)
                                            : 2 * (ranks - 1) * t.bytes / ranks;
    }
    return sum;
}

/* Queues the encoding, and leaves an event of when the network may read it: where it lies on the device, that
 * is all to wait for. */
static gt_status read_start(buckets *s, bucket *b, int round)
{
    const travel t = sync_bucket_travel(b, round);
    gt_status st = settle(&b->writing);
    if (!st && b->packs)
        st = sync_table_pack(b, 0);
    if (!st && sync_bucket_how(b)->encode)
        st = compress_coding_encode(b->coding, round);
    if (st || t.in_place)
        return st ? st : dev_mark(s->o.device, &b->reading);
    return sync_filling_start(b, &t, &b->reading);
}

/* Any round's, on the group's thread. */
static gt_status start_exchange(bucket *b, int round)
{
    const net_collective_options options = { .priority = SYNC_SUM_PRIORITY, .filling = sync_filling_of(b) };
    const travel t = sync_bucket_travel(b, round);
    if (t.way == COMPRESS_EXCHANGED)
        return net_all_to_all_start(b->group, t.host, t.elements, t.type, &b->sum);
    if (t.way == COMPRESS_GATHERED)
        return net_all_gather_start(b->group, t.host, t.elements, NULL, t.type, &options, &b->sum);
    if (sync_bucket_scatters(b))
        return net_reduce_scatter_start(b->group, t.host, b->count, b->counts, t.type, &options, &b->sum);
    return net_all_reduce_start(b->group, t.host, t.elements, t.type, &options, &b->sum);
}

static gt_status begin_sum(void *context, uint64_t now)
{
    (void)now;
    return start_exchange(context, 0);
}

/* Any round's, on this thread. */
static gt_status exchange(bucket *b, int round)
{
    const net_collective_options options = { .priority = SYNC_SUM_PRIORITY, .filling = sync_filling_of(b) };
    const travel t = sync_bucket_travel(b, round);
    if (t.way == COMPRESS_EXCHANGED)
        return net_all_to_all(b->group, t.host, t.elements, t.type);
    if (t.way == COMPRESS_GATHERED)
        return net_all_gather(b->group, t.host, t.elements, NULL, t.type, &options);
    if (sync_bucket_scatters(b))
        return net_reduce_scatter(b->group, t.host, b->count, b->counts, t.type, &options);
    return net_all_reduce(b->group, t.host, t.elements, t.type, &options);
}

static gt_status hand_on(buckets *s, bucket *b)
{
    const gt_status st = read_start(s, b, 0);
    dev_event *reading = b->reading;
    if (st)                                     /* of several pieces the first may be under way */
        return st;
    b->reading = NULL;
    return dev_completion_put(s->o.completion, reading, begin_sum, b, &b->ticket);
}

static int is_complete(const buckets *s, int i)
{
    for (int c = 0; c < s->o.chunks; c++)
        if (!s->ended[c] && s->done[i * s->o.chunks + c] >= 0
            && (s->done[i * s->o.chunks + c] > s->queued[c] || !s->queued[c]))
            return 0;
    return 1;
}

static int all_ended(const buckets *s)
{
    for (int c = 0; c < s->o.chunks; c++)
        if (!s->ended[c])
            return 0;
    return 1;
}

gt_status sync_buckets_settle(sync_run *run, uint64_t step)
{
    buckets *s = run->state;
    const int pending = s->left && run->updates != s->seen;
    s->seen = run->updates;
    s->settled = 1;
    gt_status st = dev_list_set(s->begin, s->pending_at.launch, s->pending_at.arg, dev_arg_i32(pending));
    if (!st)
        st = dev_list_set(s->begin, s->step_at.launch, s->step_at.arg, dev_arg_u32((uint32_t)step));
    if (!st)
        st = dev_list_set(s->begin, s->weigh_at.launch, s->weigh_at.arg, dev_arg_f32((float)optim_weighs(s->o.optim)));
    if (!st)
        st = dev_run(s->begin, 0, -1);
    for (int i = 0; !st && i < s->count; i++)
        if (s->buckets[i].coding)
            st = compress_coding_commit(s->buckets[i].coding);
    return st;
}

/* What this step's gradients are to the optimizer, where ranks may put together first moments. */
static void set_forms(buckets *s)
{
    const compressor *how = s->o.compress.how;
    for (int i = 0; !s->o.choice && how && how->moments && i < params_segments(s->o.params); i++) {
        const int summed = sync_buckets_net(s, params_segment_at(s->o.params, i)->group) != NULL;
        optim_form_set(s->o.optim, i, s->plain ? ADAMW_GRADIENTS : summed ? ADAMW_MOMENTS : ADAMW_HELD);
    }
}

/* In front of the first bucket of a step. What the one before left is looked at even if this one is plain: a later
 * one that is not would know no more whether that was taken. */
static gt_status begin_step(sync_run *run)
{
    buckets *s = run->state;
    const uint64_t step = run->step ? run->step - 1 : 0;
    if (s->begun)
        return GT_OK;
    s->begun = 1;
    if (s->given)
        return GT_OK;
    s->step_bytes += gathered(s);
    gt_status st = sync_buckets_gathered(run); /* what no forward reads is there as well */
    if (!st)
        st = sync_buckets_clear(run);
    if (!st)
        st = sync_tables_step(s);
    if (st || !s->begin)
        return st;
    s->plain = s->o.choice ? step < s->after : compress_waits(&s->o.compress, step);
    for (int i = 0; i < s->count; i++)
        if (s->buckets[i].coding)
            compress_coding_level(s->buckets[i].coding, compress_level(&s->buckets[i].spec, step));
    set_forms(s);
    st = s->plain && !s->left ? GT_OK : sync_buckets_settle(run, step);
    s->settled = 0;
    s->left = !s->plain;
    return st;
}

gt_status sync_buckets_ready(sync_run *run, int chunk, int done, int last)
{
    buckets *s = run->state;
    gt_status st = begin_step(run);
    s->queued[chunk] = done;
    s->ended[chunk] = (unsigned char)last;
    const int over = last && all_ended(s);
    if (!st && (s->clip || sync_buckets_hold(s)) && !s->plain) {
        if (!over) /* the whole gradient decides */
            return GT_OK;
        st = s->clip ? sync_buckets_clip(s) : sync_held_decide(run);
    }
    const net_group *waited_for = s->count ? s->buckets[s->count - 1].group : NULL;
    for (int i = 0; !st && i < s->count; i++) {
        bucket *b = &s->buckets[i];
        if (b->sent)
            continue;
        int first = 1; /* of its group among those not sent */
        for (int k = 0; k < i; k++)
            first &= s->buckets[k].sent || s->buckets[k].group != b->group;
        if (!first || !is_complete(s, i))
            continue;
        b->sent = 1;
        s->step_bytes += sync_bucket_crossing(b);
        st = over && b->group == waited_for ? read_start(s, b, 0) : hand_on(s, b);
    }
    return st;
}

static void trace_sum(const bucket *b)
{
    gt_span span = { .begin = b->began,
                     .end = b->ended,
                     .bytes = b->count * sizeof(float),
                     .category = GT_TRACE_WIRE,
                     .track = GT_TRACK_WIRE };
    gt_trace_stamp(&span);
    snprintf(span.name, sizeof span.name, "sum of gradients");
    snprintf(span.detail, sizeof span.detail, "%s", b->name);
    gt_trace_put(&span);
}

/* On this thread: what other threads began of the same group comes first. */
static gt_status sum_here(buckets *s, int i)
{
    bucket *b = &s->buckets[i];
    gt_status st = GT_OK;
    for (int k = 0; !st && k < i; k++)
        if (s->buckets[k].group == b->group)
            st = dev_completion_wait(s->o.completion, s->buckets[k].ticket);
    if (!st)
        st = settle(&b->reading);
    b->began = gt_now_ns();
    if (!st)
        st = exchange(b, 0);
    b->ended = gt_now_ns();
    return st;
}

static gt_status sum_there(buckets *s, bucket *b)
{
    gt_status st = dev_completion_wait(s->o.completion, b->ticket);
    net_collective *sum = b->sum;
    b->sum = NULL;
    b->ticket = 0;
    return st ? st : net_collective_wait_when(sum, &b->began, &b->ended);
}

/* Queues what a round's exchange has left: written to the device, and decoded. */
static gt_status write_sum(buckets *s, bucket *b, int round)
{
    const travel t = sync_bucket_travel(b, round);
    const uint64_t item = net_type_size(t.type), from = sync_bucket_scatters(b) ? item * b->own_offset : 0;
    const uint64_t bytes = sync_bucket_scatters(b) ? item * b->own_count : t.bytes;
    gt_status st = sync_filling_end(b);
    if (!st && !t.in_place && bytes)
        st = dev_write_start(s->o.device, t.buffer, t.at + from, t.host + from, bytes, &b->writing);
    if (!st && b->packs)
        st = sync_table_pack(b, 1);
    return st || !sync_bucket_how(b)->encode ? st : compress_coding_decode(b->coding, round);
}

/* When the first round of all buckets is over: rounds in the same order on all ranks. */
static gt_status later_round(buckets *s, int round)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < s->count; i++)
        if (round < sync_bucket_rounds(&s->buckets[i]))
            st = read_start(s, &s->buckets[i], round);
    for (int i = 0; !st && i < s->count; i++) {
        bucket *b = &s->buckets[i];
        if (round >= sync_bucket_rounds(b))
            continue;
        st = settle(&b->reading);
        if (!st)
            st = s->lanes[b->group_number].count > 1 ? start_exchange(b, round) : exchange(b, round);
    }
    for (int i = 0; !st && i < s->count; i++) {
        bucket *b = &s->buckets[i];
        net_collective *sum = b->sum;
        if (round >= sync_bucket_rounds(b))
            continue;
        b->sum = NULL;
        st = sum ? net_collective_wait(sum) : GT_OK;
        b->ended = gt_now_ns();
        if (!st)
            st = write_sum(s, b, round);
    }
    return st;
}

gt_status sync_buckets_finish(sync_run *run, uint64_t *bytes)
{
    buckets *s = run->state;
    const uint64_t traced = gt_trace_begin();
    gt_status st = GT_OK;
    for (int i = 0; !st && i < s->count; i++)
        if (!s->buckets[i].ticket && !s->buckets[i].idle)
            st = sum_here(s, i);
    for (int i = 0; !st && i < s->count; i++) {
        bucket *b = &s->buckets[i];
        if (b->ticket)
            st = sum_there(s, b);
        if (!st && !b->idle)
            st = write_sum(s, b, 0);
        b->sent = 0;
    }
    for (int r = 1; !st && r < s->rounds; r++)
        st = later_round(s, r);
    for (int i = 0; gt_trace_on() && i < s->count; i++)
        if (!s->buckets[i].idle)
            trace_sum(&s->buckets[i]);
    memset(s->ended, 0, (size_t)s->o.chunks);
    memset(s->queued, 0, (size_t)s->o.chunks * sizeof *s->queued);
    gt_trace_end(GT_TRACE_WAIT, GT_TRACK_HOST, "sums of gradients", traced);
    *bytes = s->step_bytes;
    s->step_bytes = 0;
    s->begun = 0;
    return st;
}

int sync_buckets_when(const sync_run *run, int chunk, uint64_t *began, uint64_t *ended)
{
    const buckets *s = run->state;
    *began = UINT64_MAX;
    *ended = 0;
    for (int i = 0; i < s->count; i++) {
        const bucket *b = &s->buckets[i];
        if (s->done[i * s->o.chunks + chunk] < 0 || !b->ended)
            continue;
        *began = b->began < *began ? b->began : *began;
        *ended = b->ended > *ended ? b->ended : *ended;
    }
    return *ended > 0;
}

/* ---- modes whose ranks update a part each --------------------------------------------------------- */

gt_status sync_buckets_shared_parts(const sync_settings *settings, const sync_holders *h, const params *p,
                                    optim_part **list, int *count)
{
    (void)settings;
    return sync_blocks_parts(h, p, list, count);
}

gt_status sync_buckets_shared_create(sync_run *s)
{
    return sync_buckets_create(s, SYNC_SUM_PART);
}

gt_status sync_buckets_shared_update(sync_run *s, double lr)
{
    uint64_t sent;
    gt_status st = sync_buckets_finish(s, &sent);
    if (!st)
        st = sync_update_summed(s, lr, sent);
    return st ? st : sync_buckets_gather(s);
}
