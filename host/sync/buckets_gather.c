/* SPDX-License-Identifier: MIT */
/* host/sync/buckets_gather.c - new weights of the other ranks come layer by layer, beside the next forward.
 *
 *   network   ══ embedding, layer 0 ══ layer 1 ══ layer 2 ══ layer 3 ══
 *   device    update                 | layer 0 | layer 1 | layer 2 | layer 3       each waits for its own weights
 *
 * Gradients leave from the last layer to the first, since that is how they come up; weights come from the first to
 * the last, since that is how they are read (Peng et al., "A generic communication scheduler for distributed DNN
 * training acceleration", SOSP 2019; Jayarajan et al., "Priority-based parameter propagation", MLSys 2019). All sums
 * must be there before anything is updated, for the norm is of all of them, and a gradient that is not finite
 * anywhere stops the update everywhere: sums are not told apart, and the next forward waits for gathers alone. Their
 * order is the order in which they begin, and where several are under way (buckets_lanes.c) the link's
 * (net/comm/queue.c): what is read first has all of it, and the others what that leaves. The first rank of a group says
 * the order, so that all its ranks gather alike; with the same bits as in any other. */
#include "host/sync/buckets_private.h"

#include "host/base/clock.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "no memory for the order in which weights are gathered");
}

/* ---- the order --------------------------------------------------------------------------------- */

/* The first launch of a chunk's forward that reads anything in the bucket. */
static int first_read(const buckets *s, const bucket *b, int chunk)
{
    const int64_t begins = (int64_t)b->offset / 4, ends = begins + (int64_t)b->count;
    int first = -1;
    for (int i = 0; i < params_count(s->o.params); i++) {
        int segment;
        int64_t from;
        params_place(s->o.params, i, &segment, &from);
        if (segment < 0 || params_segment_at(s->o.params, segment)->master != b->master || from >= ends
            || from + shape_count(&params_info(s->o.params, i)->shape) <= begins)
            continue;
        const int at = s->o.read(s->o.context, chunk, i);
        first = at >= 0 && (first < 0 || at < first) ? at : first;
    }
    return first;
}

/* Chunks run one after the other, and within one its launches. */
static int32_t urgency(const buckets *s, int i)
{
    enum { LAUNCHES = 1 << 20 };
    for (int c = 0; c < s->o.chunks; c++) {
        const int at = s->read[i * s->o.chunks + c];
        if (at >= 0)
            return c * LAUNCHES + (at < LAUNCHES ? at : LAUNCHES - 1);
    }
    return INT32_MAX;
}

/* Those of a group into key[bucket], as its first rank says. */
static gt_status agree_in_group(const buckets *s, net_group *net, int32_t *key)
{
    const int ranks = net_group_size(net), me = net_group_rank(net);
    int count = 0, at = 0;
    for (int i = 0; i < s->count; i++)
        count += s->buckets[i].group == net && !s->buckets[i].packs;
    int32_t *all = malloc(((size_t)count * (size_t)ranks + 1) * sizeof *all);
    if (!all)
        return no_memory();
    for (int i = 0; i < s->count; i++)
        if (s->buckets[i].group == net && !s->buckets[i].packs)
            all[me * count + at++] = urgency(s, i);
    gt_status st = net_all_gather(net, all, (uint64_t)count * (uint64_t)ranks, NULL, NET_I32, NULL);
    at = 0;
    for (int i = 0; !st && i < s->count; i++)
        if (s->buckets[i].group == net && !s->buckets[i].packs)
            key[i] = all[at++];
    free(all);
    return st;
}

static gt_status make_renewal(const buckets *s, bucket *b, int segment)
{
    const params_segment *seg = params_segment_at(s->o.params, segment);
    dev_buffer *from = NULL, *to = NULL;
    if (!seg->copy)
        return GT_OK;
    const uint64_t item = dtype_size(kernel_set_storage(s->o.kernels));
    gt_status st = dev_list_create(&b->renew, s->o.device);
    if (!st)
        dev_list_label(b->renew, "copies of new weights");
    if (!st)
        st = dev_buffer_view(&from, seg->master, b->offset, 4 * b->count);
    if (!st)
        st = dev_buffer_view(&to, seg->copy, item * (b->offset / 4), item * b->count);
    if (!st)
        st = kernel_store(b->renew, s->o.kernels, (int64_t)b->count, from, to);
    b->renew_from = from;
    b->renew_to = to;
    return st;
}

gt_status sync_gather_make(buckets *s)
{
    const size_t count = (size_t)s->count, chunks = (size_t)s->o.chunks;
    net_group *before = NULL;
    if (!s->share)
        return GT_OK;
    int32_t *key = malloc((count + 1) * sizeof *key);
    s->read = malloc((count * chunks + 1) * sizeof *s->read);
    s->order = malloc((count + 1) * sizeof *s->order);
    gt_status st = key && s->read && s->order ? GT_OK : no_memory();
    for (int i = 0; !st && i < s->count; i++)
        for (int c = 0; c < s->o.chunks; c++)
            s->read[i * s->o.chunks + c] = s->buckets[i].packs ? -1 : first_read(s, &s->buckets[i], c);
    for (int i = 0; !st && i < s->count; i++) {
        if (s->buckets[i].group != before)
            st = agree_in_group(s, s->buckets[i].group, key);
        before = s->buckets[i].group;
    }
    for (int i = 0; !st && i < s->count; i++) {
        int k = s->gather_count;
        if (s->buckets[i].packs)
            continue;
        for (; k > 0 && key[s->order[k - 1]] > key[i]; k--)
            s->order[k] = s->order[k - 1];
        s->order[k] = i;
        s->gather_count++;
        for (int g = 0; !st && g < params_segments(s->o.params); g++)
            if (params_segment_at(s->o.params, g)->master == s->buckets[i].master)
                st = make_renewal(s, &s->buckets[i], g);
    }
    for (int i = 0; i < s->gather_count; i++)
        s->buckets[s->order[i]].gather_priority = 1 + (uint32_t)i;
    free(key);
    return st;
}

void sync_gather_release(buckets *s)
{
    for (int i = 0; i < s->count; i++) {
        bucket *b = &s->buckets[i];
        if (b->gather && net_collective_wait(b->gather))
            gt_message_clear();
        dev_list_release(b->renew);
        dev_buffer_release(b->renew_from);
        dev_buffer_release(b->renew_to);
    }
    free(s->read);
    free(s->order);
}

/* ---- a step ------------------------------------------------------------------------------------------ */

/* The weights of a bucket on the host, own part and room for the others'. */
static void *weights_of(const bucket *b)
{
    char *here = dev_buffer_host(b->master);
    return here ? here + b->offset : b->memory;
}

/* On the completion thread, when this rank's own weights are new. */
static gt_status begin_gather(void *context, uint64_t now)
{
    bucket *b = context;
    const net_collective_options options = { .priority = b->gather_priority };
    (void)now;
    return net_all_gather_start(b->group, weights_of(b), b->count, b->counts, NET_F32, &options, &b->gather);
}

/* Leaves an event of when the network may read this rank's part. */
static gt_status read_own(const buckets *s, bucket *b, dev_event **event)
{
    dev_event *writing = b->writing;
    b->writing = NULL;
    gt_status st = dev_event_wait(writing);
    if (st || weights_of(b) != b->memory || !b->own_count)
        return st ? st : dev_mark(s->o.device, event);
    return dev_read_start(s->o.device, b->master, b->offset + 4 * b->own_offset, (float *)b->memory + b->own_offset,
                          4 * b->own_count, event);
}

gt_status sync_buckets_gather(sync_run *run)
{
    buckets *s = run->state;
    gt_status st = GT_OK;
    for (int i = 0; !st && i < s->gather_count; i++) {
        bucket *b = &s->buckets[s->order[i]];
        dev_event *event = NULL;
        st = read_own(s, b, &event);
        if (!st)
            st = dev_completion_put(s->o.completion, event, begin_gather, b, &b->gather_ticket);
        b->gathers = !st;
    }
    return st;
}

/* What came of the others, around one's own. */
static gt_status write_others(const buckets *s, bucket *b)
{
    const float *data = b->memory;
    const uint64_t after = b->own_offset + b->own_count;
    gt_status st = GT_OK;
    if (b->own_offset)
        st = dev_write_start(s->o.device, b->master, b->offset, data, 4 * b->own_offset, NULL);
    if (!st && after < b->count)
        st = dev_write_start(s->o.device, b->master, b->offset + 4 * after, data + after, 4 * (b->count - after), NULL);
    return st ? st : dev_mark(s->o.device, &b->writing);
}

static void trace_gather(const bucket *b, uint64_t began, uint64_t ended)
{
    gt_span span = { .begin = began,
                     .end = ended,
                     .bytes = b->count * sizeof(float),
                     .category = GT_TRACE_WIRE,
                     .track = GT_TRACK_WIRE };
    gt_trace_stamp(&span);
    snprintf(span.name, sizeof span.name, "new weights");
    snprintf(span.detail, sizeof span.detail, "%s", b->name);
    gt_trace_put(&span);
}

/* Waits for a bucket's weights, and queues what puts them in place. */
static gt_status settle_bucket(const buckets *s, bucket *b)
{
    uint64_t began = 0, ended = 0;
    if (!b->gathers)
        return GT_OK;
    b->gathers = 0;
    gt_status st = dev_completion_wait(s->o.completion, b->gather_ticket);
    net_collective *gather = b->gather;
    b->gather = NULL;
    if (!st)
        st = net_collective_wait_when(gather, &began, &ended);
    if (!st && gt_trace_on())
        trace_gather(b, began, ended);
    if (!st && weights_of(b) == b->memory)
        st = write_others(s, b);
    return st || !b->renew ? st : dev_run(b->renew, 0, -1);
}

/* chunk -1: all there are. */
static gt_status settle_until(sync_run *run, int chunk, int until)
{
    buckets *s = run->state;
    gt_status st = GT_OK;
    const uint64_t traced = gt_trace_begin();
    for (int i = 0; !st && i < s->gather_count; i++) {
        const int at = chunk < 0 ? 0 : s->read[s->order[i] * s->o.chunks + chunk];
        if (at >= 0 && at < until)
            st = settle_bucket(s, &s->buckets[s->order[i]]);
    }
    gt_trace_end(GT_TRACE_WAIT, GT_TRACK_HOST, "new weights of the others", traced);
    return st;
}

int sync_buckets_wants(const sync_run *run, int chunk, int stops[SYNC_WANTS])
{
    const buckets *s = run->state;
    int count = 0;
    for (int i = 0; i < s->gather_count; i++) {
        const int at = s->read[s->order[i] * s->o.chunks + chunk];
        int k = count;
        while (k > 0 && stops[k - 1] > at)
            k--;
        if (at < 0 || (k > 0 && stops[k - 1] == at) || k == SYNC_WANTS)
            continue;
        if (count == SYNC_WANTS)        /* enough: what is read last waits together */
            count--;
        for (int j = count; j > k; j--)
            stops[j] = stops[j - 1];
        stops[k] = at;
        count++;
    }
    return count;
}

gt_status sync_buckets_wanted(sync_run *run, int chunk, int until)
{
    return settle_until(run, chunk, until);
}

gt_status sync_buckets_gathered(sync_run *run)
{
    return settle_until(run, -1, INT_MAX);
}
