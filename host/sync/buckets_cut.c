/* SPDX-License-Identifier: MIT */
/* host/sync/buckets_cut.c - which tensors travel together, and in what memory.
 *
 *   segment   | wte | h.0 | h.1 | h.2 | h.3 | ln_f |
 *   buckets   |    2      |     1     |      0     |     from the end, where gradients are complete first
 *
 * Where ranks own parts of each, buckets are the blocks of blocks.h, or lie in one.
 *
 * A bucket has memory of its own (an arena of the network), unless what travels lies in such memory
 * anyway, so that ranks which wait for different groups never wait for each other's memory. Where a
 * group has one rank there is nothing to sum and no bucket.                                */
#include "host/sync/buckets_private.h"
#include "host/sync/compress_choice.h"

#include "host/base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKET = SYNC_BLOCK_BYTES };     /* more tensors than that start the next one */

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
    return GT_OK;
}

/* How much of a bucket each rank's part has. */
static gt_status share_bucket(const buckets *s, bucket *b, int segment)
{
    const int ranks = net_group_size(b->group), me = net_group_rank(b->group);
    const int64_t from = (int64_t)b->offset / 4, to = from + (int64_t)b->count;
    const sync_block *of = sync_blocks_find(&s->blocks, segment, from);
    uint64_t before = 0;
    b->counts = calloc((size_t)ranks, sizeof *b->counts);
    if (!b->counts)
        return no_memory();
    for (int r = 0; r < ranks; r++) {
        const int64_t begin = of->at[r] > from ? of->at[r] : from;
        const int64_t end = of->at[r + 1] < to ? of->at[r + 1] : to;
        b->counts[r] = end > begin ? (uint64_t)(end - begin) : 0;
        if (r == me)
            b->own_offset = before;
        before += b->counts[r];
    }
    b->own_count = b->counts[me];
    return GT_OK;
}

/* ---- what travels of a bucket ------------------------------------------------------------------ */

const compressor *sync_bucket_how(const bucket *b)
{
    return b->coding && !b->of->plain && !b->spec.how->whole ? b->spec.how : &compress_none;
}

travel sync_bucket_travel(const bucket *b, int round)
{
    travel t = { .buffer = b->grad,
                 .at = b->offset,
                 .host = b->memory,
                 .bytes = 4 * b->count,
                 .elements = b->count,
                 .own_bytes = 4 * b->count,
                 .type = NET_F32 };
    char *here = dev_buffer_host(b->grad);
    if (sync_bucket_how(b)->encode) {
        const compress_payload p = compress_coding_payload(b->coding, round);
        t = (travel){ .way = p.way,
                      .buffer = p.code,
                      .host = b->memory,
                      .bytes = p.bytes,
                      .elements = p.elements,
                      .own_at = p.own_at,
                      .own_bytes = p.own_bytes,
                      .type = p.type };
        here = p.host;
    }
    t.in_place = here != NULL;
    if (here)
        t.host = here + t.at;
    return t;
}

int sync_bucket_rounds(const bucket *b)
{
    return sync_bucket_how(b)->encode ? compress_coding_rounds(b->coding) : 1;
}

int sync_bucket_scatters(const bucket *b)
{
    const compressor *how = sync_bucket_how(b);
    return b->counts && !how->elements && !how->tensors && !how->gathers && how->rounds == 1;
}

compress_spec sync_buckets_spec(const buckets *s, int group)
{
    compress_spec spec = s->o.choice ? sync_choice_of(s->o.choice, group) : s->o.compress;
    spec.how = spec.how ? spec.how : &compress_none;
    return spec;
}

/* Kernels of a compressor's type. */
static gt_status kernels_of(buckets *s, dtype type, kernel_set **out)
{
    gt_status st = GT_OK;
    *out = s->o.kernels;
    if (type == kernel_set_storage(s->o.kernels))
        return GT_OK;
    if (!s->own_kernels[type])
        st = kernel_set_create(&s->own_kernels[type], s->o.device, type);
    *out = s->own_kernels[type];
    return st;
}

static gt_status add_coding(buckets *s, bucket *b, int segment, const int *tensors, int n)
{
    compress_range *range = calloc((size_t)n + 1, sizeof *range);
    const int64_t from = (int64_t)b->offset / 4;
    const int by_tensor = b->spec.how->tensors;
    int ranges = by_tensor ? n : 1;
    if (!range)
        return no_memory();
    range[0] = (compress_range){ .count = (int64_t)b->count };
    for (int i = 0; by_tensor && i < n; i++) {
        int at;
        int64_t first;
        params_place(s->o.params, tensors[i], &at, &first);
        const graph_param_info *info = params_info(s->o.params, tensors[i]);
        range[i] = (compress_range){ .first = first - from, .count = shape_count(&info->shape), .info = info };
    }
    char name[80];
    snprintf(name, sizeof name, "%s", params_info(s->o.params, tensors[0])->name);
    compress_coding_options o = {
        .spec = b->spec,
        .device = s->o.device,
        .comm = s->o.comm,
        .range = range,
        .ranges = ranges,
        .count = (int64_t)b->count,
        .rank = net_group_rank(b->group),
        .ranks = net_group_size(b->group),
        .stream = (uint32_t)gt_hash(name, strlen(name)) + (uint32_t)(b->offset / 4),
        .random = s->random,
        .frame = s->frame
    };
    if (by_tensor) {
        b->tensor = malloc((size_t)n * sizeof *b->tensor);
        if (!b->tensor) {
            free(range);
            return no_memory();
        }
        memcpy(b->tensor, tensors, (size_t)n * sizeof *b->tensor);
        b->tensors = n;
    }
    gt_status st = kernels_of(s, b->spec.how->type, &o.kernels);
    if (!st)
        st = dev_buffer_view(&o.grad, b->grad, b->offset, 4 * b->count);
    if (!st && b->spec.how->moments) {
        dev_buffer *all = optim_moments(s->o.optim, segment);
        o.beta1 = optim_beta1(s->o.optim);
        st = all ? dev_buffer_view(&o.moment, all, b->offset, 4 * b->count)
                 : gt_fail(GT_UNSUPPORTED, "--compress %s needs all of the momentum on every rank", b->spec.how->name);
    }
    for (int i = 0; !st && i < ranges; i++)
        st = dev_buffer_view(&range[i].grad, b->grad, b->offset + 4 * (uint64_t)range[i].first,
                             4 * (uint64_t)range[i].count);
    if (!st) {
        st = compress_coding_create(&b->coding, &o);
    } else {
        for (int i = 0; i < ranges; i++)
            dev_buffer_release(range[i].grad);
        dev_buffer_release(o.grad);
        dev_buffer_release(o.moment);
    }
    free(range);
    return st;
}

/* Host memory for a bucket of a device whose own the network cannot reach: for encodings, and where parts of
 * weights are gathered, for those. */
static gt_status add_memory(buckets *s, bucket *b)
{
    uint64_t bytes = s->share ? 4 * b->count : 0;
    int far = 0;
    for (s->plain = s->after > 0 || b->spec.how->plain; s->plain >= 0; s->plain--)
        for (int v = 0; v < (b->coding ? compress_levels(&b->spec) : 1); v++) {
            if (b->coding)
                compress_coding_level(b->coding, v);
            for (int r = 0; r < sync_bucket_rounds(b); r++) {
                const travel t = sync_bucket_travel(b, r);
                bytes = t.bytes > bytes ? t.bytes : bytes;
                far |= !t.in_place;
            }
        }
    s->plain = 0;
    return far ? net_comm_memory(s->o.comm, bytes, &b->memory) : GT_OK;
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

/* After how many launches of each chunk the newest bucket is complete. */
static void note_done(buckets *s, const int *tensors, int n)
{
    for (int c = 0; c < s->o.chunks; c++)
        for (int i = 0; i < n; i++) {
            int *at = &s->done[(s->count - 1) * s->o.chunks + c];
            const int done = s->o.done(s->o.context, c, tensors[i]);
            *at = done > *at ? done : *at;
        }
}

/* Beside the buckets of a table, one for its rows: in a step either they or it are idle. */
static gt_status add_rows(buckets *s, int segment, int index)
{
    const params_segment *seg = params_segment_at(s->o.params, segment);
    const int tensor = s->tables[index].param;
    const bucket b = { .of = s,
                       .group = sync_lanes_next(s, seg->group),
                       .group_number = seg->group,
                       .spec = { .how = &compress_none },
                       .table = index };
    gt_status st = add_bucket(s, &b);
    if (st)
        return st;
    bucket *k = &s->buckets[s->count - 1];
    snprintf(k->name, sizeof k->name, "rows of %.36s", params_info(s->o.params, tensor)->name);
    st = sync_table_make(s, index, k);
    if (!st)
        st = add_memory(s, k);
    note_done(s, &tensor, 1);
    return st;
}

static int takes(const buckets *s, int tensor)
{
    const compress_spec spec = sync_buckets_spec(s, params_group(s->o.params, tensor));
    return compress_takes(&spec, params_info(s->o.params, tensor));
}

int sync_buckets_hold(const buckets *s)
{
    return !s->o.choice && s->o.compress.how && s->o.compress.how->whole;
}

/* It shares a bucket with no other tensor. */
static int goes_alone(const buckets *s, int tensor)
{
    return sync_table_of(s, tensor) >= 0 || (sync_buckets_hold(s) && takes(s, tensor));
}

/* A range of a segment in which the tensors of params [from, to) lie; large ones are cut, unless each rank has a part
 * of them: where those lie one behind the other, that would be a bucket of one rank's part and then of another's. */
static gt_status add_range(buckets *s, int segment, int64_t first, int64_t end, const int *tensors, int n)
{
    const params_segment *seg = params_segment_at(s->o.params, segment);
    const int encoded = takes(s, tensors[0]), index = sync_table_of(s, tensors[0]);
    const compress_spec spec = sync_buckets_spec(s, seg->group);
    const int64_t most = s->share || (encoded && spec.how->tensors) ? INT64_MAX : 2 * (int64_t)BUCKET / 4;
    gt_status st = GT_OK;
    while (!st && first < end) {
        const int64_t size = end - first > most ? most / 2 : end - first;
        const bucket b = {
            .of = s,
            .group = sync_lanes_next(s, seg->group),
            .group_number = seg->group,
            .spec = spec,
            .grad = seg->grad,
            .master = seg->master,
            .table = index,
            .offset = 4 * (uint64_t)(end - size),
            .count = (uint64_t)size
        };
        st = add_bucket(s, &b);
        if (!st)
            name_bucket(s, &s->buckets[s->count - 1], tensors, n);
        if (!st && s->share)
            st = share_bucket(s, &s->buckets[s->count - 1], segment);
        if (!st && encoded)
            st = add_coding(s, &s->buckets[s->count - 1], segment, tensors, n);
        if (!st && encoded && sync_buckets_hold(s))
            st = sync_held_make(s, &s->buckets[s->count - 1]);
        if (!st)
            st = add_memory(s, &s->buckets[s->count - 1]);
        if (!st)
            note_done(s, tensors, n);
        end -= size;
    }
    return st || index < 0 ? st : add_rows(s, segment, index);
}

static int is_full(const buckets *s, int segment, int64_t first, int64_t end)
{
    return s->share ? sync_blocks_find(&s->blocks, segment, first)->at[0] == first
                    : end - first >= BUCKET / 4 || first == 0;
}

/* The buckets of a segment, the last tensors first. Those that are encoded and those that are not have
 * buckets of their own, and so has a table that may travel by rows, and a tensor that may be held back. */
static gt_status cut_segment(buckets *s, int segment)
{
    const int all = params_count(s->o.params);
    int *tensors = malloc(((size_t)all + 1) * sizeof *tensors), n = 0;
    int64_t end = params_segment_at(s->o.params, segment)->count, begin = end;
    gt_status st = tensors ? GT_OK : no_memory();
    for (int i = all - 1; !st && i >= 0; i--) {
        int at;
        int64_t first;
        params_place(s->o.params, i, &at, &first);
        if (at != segment)
            continue;
        if (n && (takes(s, i) != takes(s, tensors[0]) || goes_alone(s, i) || goes_alone(s, tensors[0]))) {
            st = add_range(s, segment, begin, end, tensors, n);
            end = begin;
            n = 0;
        }
        if (st)
            break;
        begin = first;
        tensors[n++] = i;
        if (is_full(s, segment, first, end)) {
            st = add_range(s, segment, first, end, tensors, n);
            end = first;
            n = 0;
        }
    }
    free(tensors);
    return st;
}

net_group *sync_buckets_net(const buckets *s, int group)
{
    return s->form == SYNC_SUM_WITHIN ? sync_holders_net_within(s->o.holders, group)
                                      : sync_holders_net(s->o.holders, group);
}

/* What ranks compare: names and places. */
static uint64_t places_of(const params *p, int number)
{
    uint64_t mine = 0;
    for (int i = 0; i < params_count(p); i++) {
        struct {
            uint64_t name, segment, first;
        } place = { 0 };
        int segment, base = 0;
        int64_t first;
        params_place(p, i, &segment, &first);
        if (segment < 0 || params_segment_at(p, segment)->group != number)
            continue;
        while (params_segment_at(p, base)->group != number)
            base++;
        const char *name = params_info(p, i)->name;
        place.name = gt_hash(name, strlen(name));
        place.segment = (uint64_t)(segment - base);
        place.first = (uint64_t)first;
        mine ^= gt_hash(&place, sizeof place);
    }
    return mine;
}

gt_status sync_places_compare(const params *p, net_group *g, int number)
{
    const int ranks = net_group_size(g);
    const uint64_t mine = places_of(p, number);
    uint64_t *all = malloc((size_t)ranks * sizeof *all);
    if (!all)
        return no_memory();
    all[net_group_rank(g)] = mine;
    gt_status st = net_all_gather(g, all, 2 * (uint64_t)ranks, NULL, NET_I32, NULL);
    for (int r = 0; !st && r < ranks; r++)
        if (all[r] != mine)
            st = gt_fail(GT_MISMATCH, "rank %d and rank %d do not place the parameters they share alike",
                         net_group_member(g, r), net_group_member(g, net_group_rank(g)));
    free(all);
    return st;
}

/* All ranks of a group will then cut alike. */
static gt_status compare(buckets *s)
{
    gt_status st = GT_OK;
    int before = -1;
    for (int i = 0; !st && i < params_segments(s->o.params); i++) {
        const int group = params_segment_at(s->o.params, i)->group;
        net_group *net = sync_buckets_net(s, group);
        if (net && group != before)
            st = sync_places_compare(s->o.params, net, group);
        before = group;
    }
    return st;
}

static void release(buckets *b)
{
    if (dev_completion_drain(b->o.completion))
        gt_message_clear();
    for (int i = 0; i < b->count; i++) {
        bucket *k = &b->buckets[i];
        const gt_status summed = k->sum ? net_collective_wait(k->sum) : GT_OK;
        const gt_status read = dev_event_wait(k->reading), written = dev_event_wait(k->writing);
        const gt_status filled = sync_filling_end(k);
        if (summed || read || written || filled)
            gt_message_clear();
        compress_coding_release(k->coding);
        sync_held_release(k->held);
        if (k->memory)
            net_comm_memory_free(b->o.comm, k->memory);
        free(k->counts);
        free(k->tensor);
    }
    sync_lanes_release(b);
    sync_tables_release(b);
    sync_gather_release(b);
    sync_blocks_release(&b->blocks);
    dev_list_release(b->begin);
    dev_list_release(b->clear);
    sync_buckets_clip_release(b->clip);
    dev_buffer_release(b->random);
    dev_buffer_release(b->frame);
    for (int i = 0; i < DTYPE_STORAGES; i++)
        kernel_set_release(b->own_kernels[i]);
    free(b->buckets);
    free(b->done);
    free(b->ended);
    free(b->queued);
    free(b);
}

/* What steps are told of each other, and random words. */
static gt_status make_frame(buckets *s)
{
    static const uint32_t random[4] = { 0x67656172u, 0x7472616eu };
    static const float frame[COMPRESS_FRAME] = { 0 };
    if (!s->encodes)
        return GT_OK;
    gt_status st = dev_buffer_create(&s->random, s->o.device, sizeof random, "random words of compression");
    if (!st)
        st = dev_buffer_create(&s->frame, s->o.device, sizeof frame, "scales of compression");
    if (!st)
        st = dev_write(s->o.device, s->random, 0, random, sizeof random);
    if (!st)
        st = dev_write(s->o.device, s->frame, 0, frame, sizeof frame);
    if (!st)
        st = dev_list_create(&s->begin, s->o.device);
    return st ? st
              : kernel_compress_begin(s->begin, s->o.kernels, optim_state(s->o.optim), s->random, s->frame,
                                      &s->pending_at, &s->step_at, &s->weigh_at);
}

/* How much of what is summed is encoded, over all ranks. */
static gt_status count_encoded(const buckets *s, sync_run *run)
{
    const int ranks = net_comm_size(s->o.comm);
    double(*all)[2] = calloc((size_t)ranks, sizeof *all);
    if (!all)
        return no_memory();
    double *mine = all[net_comm_rank(s->o.comm)];
    for (int i = 0; i < s->count; i++) {
        mine[0] += (double)s->buckets[i].count;
        mine[1] += s->buckets[i].coding ? (double)s->buckets[i].count : 0.0;
    }
    gt_status st = net_all_gather(net_group_world(s->o.comm), all, 4 * (uint64_t)ranks, NULL, NET_I32, NULL);
    for (int r = 0; !st && r < ranks; r++) {
        run->summed += all[r][0];
        run->encoded += all[r][1];
    }
    free(all);
    return st;
}

/* Checkpoints have the same kinds of state of all ranks, so what one link keeps counts for all. */
static void note_specs(buckets *s)
{
    for (int i = 0; i < (s->o.choice ? s->o.choice->links : 1); i++) {
        const compress_spec *c = s->o.choice ? &s->o.choice->spec[i] : &s->o.compress;
        const compressor *how = c->how ? c->how : &compress_none;
        s->after = c->after > s->after ? c->after : s->after;
        const int serves = how->serves && c->server != 0.0, rounds = how->rounds + serves;
        s->rounds = rounds > s->rounds ? rounds : s->rounds;
        s->keeps_served |= serves;
        s->encodes |= how->encode != NULL;
        s->keeps_error |= how->keeps_error;
        s->keeps_momentum |= c->momentum > 0.0;
        s->keeps_state |= how->state != NULL;
    }
}

gt_status sync_buckets_create(sync_run *run, sync_bucket_form form)
{
    const sync_options *o = &run->o;
    buckets *s = calloc(1, sizeof *s);
    if (!s)
        return no_memory();
    s->o = *o;
    s->form = form;
    s->share = form == SYNC_SUM_PART;
    s->ended = calloc((size_t)o->chunks, 1);
    s->queued = calloc((size_t)o->chunks, sizeof *s->queued);
    note_specs(s);
    gt_status st = s->ended && s->queued ? GT_OK : no_memory();
    if (!st)
        st = make_frame(s);
    if (!st)
        st = compare(s);
    if (!st && s->share)
        st = sync_blocks_make(&s->blocks, o->holders, o->params);
    if (!st)
        st = sync_lanes_make(s);
    if (!st)
        st = sync_tables_find(s);
    if (!st && s->encodes)
        st = sync_tables_clear_make(s);
    for (int i = 0; !st && i < params_segments(o->params); i++)
        if (sync_buckets_net(s, params_segment_at(o->params, i)->group))
            st = cut_segment(s, i);
    if (!st && s->encodes)
        st = count_encoded(s, run);
    if (!st && !s->o.choice && s->o.compress.clip > 0.0)
        st = sync_buckets_clip_create(s);
    if (!st)
        st = sync_gather_make(s);
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
        if (count == SYNC_STOPS) { /* enough: the latest goes, the end follows anyway */
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
