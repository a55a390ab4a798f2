/* SPDX-License-Identifier: MIT */
/* host/sync/buckets.c - buckets: who is complete leaves, in an order all ranks know.
 *
 * A bucket has host memory of its own (an arena of the network), unless its gradients lie in such memory
 * anyway, so that ranks which wait for different groups never wait for each other's memory. Where a
 * group has one rank there is nothing to sum and no bucket.
 *
 * Which thread sums a bucket is each rank's own affair: a group's sums run in the order of its
 * buckets on every rank. What is left when the backward pass is over is summed by the thread that would wait
 * for it, if it is of one group, the last; other groups have threads, so that none waits for another. */
#include "host/sync/buckets.h"

#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKET = 4 << 20 };              /* bytes: more tensors than that start the next one */

typedef struct bucket {
    net_group *group;
    int group_number;
    dev_buffer *grad, *master;          /* of the segment                                   */
    uint64_t offset, count;             /* bytes into the segment; elements                 */
    uint64_t *counts;                   /* sharded: elements of each rank's part            */
    uint64_t own_offset, own_count;     /* of this rank's: elements into the bucket         */
    void *data;                         /* what the network reads and writes                */
    int in_place;                       /* it is the device's own memory                    */
    int sent;                           /* in this step                                     */
    dev_event *reading, *writing;       /* of data                                          */
    uint64_t ticket;                    /* of who begins the sum; 0: finish() does           */
    net_collective *sum;
    uint64_t began, ended;              /* of the newest sum                                */
    char name[GT_SPAN_DETAIL];          /* the parameters in it, for the trace              */
} bucket;

typedef struct buckets {
    sync_options o;
    int share;
    bucket *buckets;
    int count, room;
    int *done;                          /* [bucket * chunks + chunk]: see options.done      */
    unsigned char *ended;               /* [chunk]: its last backward-weight is queued      */
    int *queued;                        /* [chunk]: launches of it that are                 */
    uint64_t step_bytes;
} buckets;

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "no memory for the list of gradients to sum");
}

/* ---- buckets -------------------------------------------------------------------------------- */

static gt_status add_bucket(buckets *s, const bucket *b)
{
    if (s->count == s->room) {
        const int room = s->room ? 2 * s->room : 32;
        bucket *more = realloc(s->buckets, (size_t)room * sizeof *more);
        int *done = realloc(s->done, (size_t)(room * s->o.chunks) * sizeof *done);
        s->buckets = more ? more : s->buckets;
        s->done = done ? done : s->done;
        if (!more || !done)
            return no_memory();
        s->room = room;
    }
    for (int c = 0; c < s->o.chunks; c++)
        s->done[s->count * s->o.chunks + c] = -1;
    s->buckets[s->count++] = *b;
    char *here = dev_buffer_host(b->grad);
    bucket *kept = &s->buckets[s->count - 1];
    kept->in_place = here != NULL;
    if (here)
        kept->data = here + b->offset;
    return here ? GT_OK : net_comm_memory(s->o.comm, b->count * sizeof(float), &kept->data);
}

/* How much of a bucket each rank's part has. */
static gt_status share_bucket(const buckets *s, bucket *b, int segment)
{
    const int ranks = net_group_size(b->group), me = net_group_rank(b->group);
    const int64_t from = (int64_t)b->offset / 4, to = from + (int64_t)b->count;
    uint64_t before = 0;
    b->counts = calloc((size_t)ranks, sizeof *b->counts);
    if (!b->counts)
        return no_memory();
    for (int r = 0; r < ranks; r++) {
        int64_t first, count;
        sync_holders_part(s->o.holders, s->o.params, segment, r, &first, &count);
        const int64_t begin = first > from ? first : from;
        const int64_t end = first + count < to ? first + count : to;
        b->counts[r] = end > begin ? (uint64_t)(end - begin) : 0;
        if (r == me)
            b->own_offset = before;
        before += b->counts[r];
    }
    b->own_count = b->counts[me];
    return GT_OK;
}

/* "h.3.mlp.w", or the first and the last of several. */
static void name_bucket(const buckets *s, bucket *b, const int *tensors, int n)
{
    const char *last = params_info(s->o.params, tensors[0])->name;
    const char *first = params_info(s->o.params, tensors[n - 1])->name;
    if (n > 1)
        snprintf(b->name, sizeof b->name, "%.20s ... %.20s", first, last);
    else
        snprintf(b->name, sizeof b->name, "%.45s", first);
}

/* A range of a segment in which the tensors of params [from, to) lie; large ones are cut. */
static gt_status add_range(buckets *s, int segment, int64_t first, int64_t end,
                           const int *tensors, int n)
{
    const params_segment *seg = params_segment_at(s->o.params, segment);
    const int64_t most = 2 * (int64_t)BUCKET / 4;
    gt_status st = GT_OK;
    while (!st && first < end) {
        const int64_t size = end - first > most ? most / 2 : end - first;
        const bucket b = { .group = sync_holders_net(s->o.holders, seg->group),
                           .group_number = seg->group, .grad = seg->grad, .master = seg->master,
                           .offset = 4 * (uint64_t)(end - size), .count = (uint64_t)size };
        st = add_bucket(s, &b);
        if (!st)
            name_bucket(s, &s->buckets[s->count - 1], tensors, n);
        if (!st && s->share)
            st = share_bucket(s, &s->buckets[s->count - 1], segment);
        for (int c = 0; !st && c < s->o.chunks; c++)
            for (int i = 0; i < n; i++) {
                int *at = &s->done[(s->count - 1) * s->o.chunks + c];
                const int done = s->o.done(s->o.context, c, tensors[i]);
                *at = done > *at ? done : *at;
            }
        end -= size;
    }
    return st;
}

/* The buckets of a segment, the last tensors first. */
static gt_status cut_segment(buckets *s, int segment)
{
    const int all = params_count(s->o.params);
    int *tensors = malloc(((size_t)all + 1) * sizeof *tensors), n = 0;
    int64_t end = params_segment_at(s->o.params, segment)->count;
    gt_status st = tensors ? GT_OK : no_memory();
    for (int i = all - 1; !st && i >= 0; i--) {
        int at;
        int64_t first;
        params_place(s->o.params, i, &at, &first);
        if (at != segment)
            continue;
        tensors[n++] = i;
        if (end - first >= BUCKET / 4 || first == 0) {
            st = add_range(s, segment, first, end, tensors, n);
            end = first;
            n = 0;
        }
    }
    free(tensors);
    return st;
}

/* All ranks of a group must have cut alike: they compare names and places. */
static gt_status compare(buckets *s)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < s->count; i++) {
        if (i && s->buckets[i].group == s->buckets[i - 1].group)
            continue;
        net_group *g = s->buckets[i].group;
        const int ranks = net_group_size(g);
        uint64_t mine = 0, *all = malloc((size_t)ranks * sizeof *all);
        if (!all)
            return no_memory();
        for (int p = 0; p < params_count(s->o.params); p++) {
            struct { uint64_t name, segment, first; } place = { 0 };
            int segment, base = 0;
            int64_t first;
            params_place(s->o.params, p, &segment, &first);
            while (params_segment_at(s->o.params, base)->group != s->buckets[i].group_number)
                base++;
            if (params_segment_at(s->o.params, segment)->group != s->buckets[i].group_number)
                continue;
            const char *name = params_info(s->o.params, p)->name;
            place.name = gt_hash(name, strlen(name));
            place.segment = (uint64_t)(segment - base);
            place.first = (uint64_t)first;
            mine ^= gt_hash(&place, sizeof place);
        }
        all[net_group_rank(g)] = mine;
        st = net_all_gather(g, all, 2 * (uint64_t)ranks, NULL, NET_I32, NULL);
        for (int r = 0; !st && r < ranks; r++)
            if (all[r] != mine)
                st = gt_fail(GT_MISMATCH, "rank %d and rank %d do not place the parameters they "
                             "share alike", net_group_member(g, r), net_comm_rank(s->o.comm));
        free(all);
    }
    return st;
}

static void release(buckets *b)
{
    if (dev_courier_drain(b->o.courier))
        gt_message_clear();
    for (int i = 0; i < b->count; i++) {
        bucket *k = &b->buckets[i];
        const gt_status summed = k->sum ? net_collective_wait(k->sum) : GT_OK;
        const gt_status read = dev_event_wait(k->reading), written = dev_event_wait(k->writing);
        if (summed || read || written)
            gt_message_clear();
        if (!k->in_place)
            net_comm_memory_free(b->o.comm, k->data);
        free(k->counts);
    }
    free(b->buckets);
    free(b->done);
    free(b->ended);
    free(b->queued);
    free(b);
}

gt_status sync_buckets_create(sync_run *run, int share)
{
    const sync_options *o = &run->o;
    buckets *s = calloc(1, sizeof *s);
    if (!s)
        return no_memory();
    s->o = *o;
    s->share = share;
    s->ended = calloc((size_t)o->chunks, 1);
    s->queued = calloc((size_t)o->chunks, sizeof *s->queued);
    gt_status st = s->ended && s->queued ? GT_OK : no_memory();
    for (int i = 0; !st && i < params_segments(o->params); i++)
        if (sync_holders_net(o->holders, params_segment_at(o->params, i)->group))
            st = cut_segment(s, i);
    if (!st)
        st = compare(s);
    if (st)
        release(s);
    else
        run->state = s;
    return st;
}

void sync_buckets_release(sync_run *run)
{
    if (run->state)
        release(run->state);
}

int sync_buckets_stops(const sync_run *run, int chunk, int stops[SYNC_STOPS])
{
    const buckets *s = run->state;
    int count = 0;
    for (int i = 0; i < s->count; i++) {
        const int at = s->done[i * s->o.chunks + chunk];
        int k = 0;
        while (k < count && stops[k] < at)
            k++;
        if (at <= 0 || (k < count && stops[k] == at))
            continue;
        if (count == SYNC_STOPS) {              /* enough: the latest goes, the end follows anyway */
            if (k == count)
                continue;
            count--;
        }
        memmove(&stops[k + 1], &stops[k], (size_t)(count - k) * sizeof *stops);
        stops[k] = at;
        count++;
    }
    return count;
}

/* ---- a step ---------------------------------------------------------------------------------- */

static gt_status settle(dev_event **e)
{
    dev_event *event = *e;
    *e = NULL;
    return dev_event_wait(event);
}

/* An event of when the network may read `data`: where it lies on the device, that is all to wait for. */
static gt_status read_start(buckets *s, bucket *b)
{
    gt_status st = settle(&b->writing);
    if (st || b->in_place)
        return st ? st : dev_mark(s->o.device, &b->reading);
    return dev_read_start(s->o.device, b->grad, b->offset, b->data, b->count * sizeof(float), &b->reading);
}

static gt_status begin_sum(void *context, uint64_t now)
{
    bucket *b = context;
    (void)now;
    if (b->counts)
        return net_reduce_scatter_start(b->group, b->data, b->count, b->counts, NET_F32, NULL, &b->sum);
    return net_all_reduce_start(b->group, b->data, b->count, NET_F32, NULL, &b->sum);
}

static gt_status hand_on(buckets *s, bucket *b)
{
    gt_status st = read_start(s, b);
    dev_event *reading = b->reading;
    b->reading = NULL;
    return st ? st : dev_courier_put(s->o.courier, reading, begin_sum, b, &b->ticket);
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

gt_status sync_buckets_ready(sync_run *run, int chunk, int done, int last)
{
    buckets *s = run->state;
    gt_status st = GT_OK;
    s->queued[chunk] = done;
    s->ended[chunk] = (unsigned char)last;
    const int over = last && all_ended(s);
    const net_group *waited_for = s->count ? s->buckets[s->count - 1].group : NULL;
    for (int i = 0; !st && i < s->count; i++) {
        bucket *b = &s->buckets[i];
        if (b->sent)
            continue;
        int first = 1;                      /* of its group among those not sent */
        for (int k = 0; k < i; k++)
            first &= s->buckets[k].sent || s->buckets[k].group != b->group;
        if (!first || !is_complete(s, i))
            continue;
        b->sent = 1;
        s->step_bytes += b->count * sizeof(float);
        st = over && b->group == waited_for ? read_start(s, b) : hand_on(s, b);
    }
    return st;
}

/* Own part of a sharded bucket between a segment's buffer and host memory. */
static gt_status move_own(buckets *s, bucket *b, dev_buffer *segment, int write)
{
    float *own = (float *)b->data + b->own_offset;
    const uint64_t offset = b->offset + 4 * b->own_offset, bytes = 4 * b->own_count;
    if (!bytes)
        return GT_OK;
    return write ? dev_write_start(s->o.device, segment, offset, own, bytes, &b->writing)
                 : dev_read_start(s->o.device, segment, offset, own, bytes, &b->reading);
}

static void trace_sum(const bucket *b)
{
    gt_span span = { .begin = b->began, .end = b->ended, .bytes = b->count * sizeof(float), .category = GT_TRACE_WIRE,
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
            st = dev_courier_wait(s->o.courier, s->buckets[k].ticket);
    if (!st)
        st = settle(&b->reading);
    b->began = gt_now_ns();
    if (!st && b->counts)
        st = net_reduce_scatter(b->group, b->data, b->count, b->counts, NET_F32, NULL);
    else if (!st)
        st = net_all_reduce(b->group, b->data, b->count, NET_F32, NULL);
    b->ended = gt_now_ns();
    return st;
}

static gt_status sum_there(buckets *s, bucket *b)
{
    gt_status st = dev_courier_wait(s->o.courier, b->ticket);
    net_collective *sum = b->sum;
    b->sum = NULL;
    b->ticket = 0;
    return st ? st : net_collective_wait_when(sum, &b->began, &b->ended);
}

static gt_status write_sum(buckets *s, bucket *b)
{
    if (gt_trace_on())
        trace_sum(b);
    if (b->in_place)
        return GT_OK;
    if (b->counts)
        return move_own(s, b, b->grad, 1);
    return dev_write_start(s->o.device, b->grad, b->offset, b->data, b->count * sizeof(float), &b->writing);
}

gt_status sync_buckets_finish(sync_run *run, uint64_t *bytes)
{
    buckets *s = run->state;
    const uint64_t traced = gt_trace_begin();
    gt_status st = GT_OK;
    for (int i = 0; !st && i < s->count; i++)
        if (!s->buckets[i].ticket)
            st = sum_here(s, i);
    for (int i = 0; !st && i < s->count; i++) {
        bucket *b = &s->buckets[i];
        if (b->ticket)
            st = sum_there(s, b);
        if (!st)
            st = write_sum(s, b);
        b->sent = 0;
    }
    memset(s->ended, 0, (size_t)s->o.chunks);
    memset(s->queued, 0, (size_t)s->o.chunks * sizeof *s->queued);
    gt_trace_end(GT_TRACE_WAIT, GT_TRACK_HOST, "sums of gradients", traced);
    *bytes = s->step_bytes;
    s->step_bytes = 0;
    return st;
}

/* What came of the others, around one's own. */
static gt_status write_others(buckets *s, bucket *b)
{
    const float *data = b->data;
    const uint64_t after = b->own_offset + b->own_count;
    gt_status st = GT_OK;
    if (b->own_offset)
        st = dev_write_start(s->o.device, b->master, b->offset, data, 4 * b->own_offset, NULL);
    if (!st && after < b->count)
        st = dev_write_start(s->o.device, b->master, b->offset + 4 * after, data + after,
                             4 * (b->count - after), NULL);
    return st ? st : dev_mark(s->o.device, &b->writing);
}

/* The weights of a bucket on the host, own part and room for the others'. */
static void *weights_of(bucket *b)
{
    char *here = dev_buffer_host(b->master);
    return here ? here + b->offset : b->data;
}

gt_status sync_buckets_gather(sync_run *run)
{
    buckets *s = run->state;
    gt_status st = GT_OK;
    const uint64_t traced = gt_trace_begin();
    for (int i = 0; !st && i < s->count; i++) {
        bucket *b = &s->buckets[i];
        st = settle(&b->writing);
        if (!st && weights_of(b) != b->data)
            st = dev_mark(s->o.device, &b->reading);
        else if (!st)
            st = move_own(s, b, b->master, 0);
    }
    for (int i = 0; !st && i < s->count; i++) {
        bucket *b = &s->buckets[i];
        st = settle(&b->reading);
        if (!st)
            st = net_all_gather(b->group, weights_of(b), b->count, b->counts, NET_F32, NULL);
        if (!st && weights_of(b) == b->data)
            st = write_others(s, b);
    }
    gt_trace_end(GT_TRACE_WAIT, GT_TRACK_HOST, "new weights of the others", traced);
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
