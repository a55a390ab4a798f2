/* SPDX-License-Identifier: MIT */
/* host/compress/coding.c - see coding.h.
 *
 *   one rank's encoding   | range 0 | range 1 | ...      each from where a view may begin
 *
 * Error feedback is the same for all compressors, so it stands here: the first list adds what was kept to
 * the gradient before it encodes; the last one decodes what this rank alone said and keeps the difference. */
#include "host/compress/coding.h"

#include <stdlib.h>

typedef struct round {
    dev_list *encode, *decode;
    dev_buffer **part;                  /* [encodings * ranges] views of code               */
    uint64_t stride;                    /* bytes of one rank's encoding                     */
} round;

/* Two of the same size: what the last step that was taken left, and what this one leaves. */
typedef struct pair {
    dev_buffer *kept, *next;
} pair;

struct compress_coding {
    compress_coding_options o;
    const compressor *how;
    compress_range *range;
    int encodings, mine;                /* in code; which one is this rank's                */
    int levels, level;
    round *round;                       /* [level * rounds + round]                         */
    dev_list *commit, *sent;
    dev_buffer *code, *scratch;
    pair error, velocity, state;        /* state: of the ranges, one after the other        */
    int64_t states;                     /* fp32 values of it                                */
    dev_buffer **error_of;              /* [range] views of error.next                      */
    void *memory;                       /* of the network, that code lies in; NULL: its own */
    uint64_t most;                      /* bytes of the longest code                        */
};

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "no memory for the list of encoded gradients");
}

static int64_t elements_of(const compress_coding *c, int i, int at)
{
    return c->how->elements ? c->how->elements(&c->range[i], at) : c->range[i].count;
}

static uint64_t aligned(const compress_coding *c, uint64_t bytes)
{
    const uint64_t align = dev_info_of(c->o.device)->align;
    return (bytes + align - 1) / align * align;
}

/* Bytes of a range's encoding, with what comes before the next one. */
static uint64_t room_of(const compress_coding *c, int i, int at)
{
    return aligned(c, (uint64_t)elements_of(c, i, at) * dtype_size(c->how->type));
}

static void set_level(compress_coding *c, int level)
{
    for (int i = 0; i < c->o.ranges; i++)
        c->range[i].level = level;
    c->level = level;
}

static round *round_at(const compress_coding *c, int at)
{
    return &c->round[c->level * c->how->rounds + at];
}

/* Of the current level. */
static void measure(compress_coding *c)
{
    for (int r = 0; r < c->how->rounds; r++) {
        round *k = round_at(c, r);
        for (int i = 0; i < c->o.ranges; i++)
            k->stride += room_of(c, i, r);
        const uint64_t all = k->stride * (uint64_t)c->encodings;
        c->most = all > c->most ? all : c->most;
    }
}

static gt_status make_code(compress_coding *c)
{
    const char *what = "encoded gradients";
    const uint64_t bytes = c->most ? c->most : 4;
    if (!c->o.comm || !dev_info_of(c->o.device)->native_kernels)
        return dev_buffer_create(&c->code, c->o.device, bytes, what);
    gt_status st = net_comm_memory(c->o.comm, bytes, &c->memory);
    return st ? st : dev_buffer_create_in(&c->code, c->o.device, c->memory, bytes, what);
}

/* Views of every rank's encoding of every range. */
static gt_status make_parts(compress_coding *c, int at)
{
    round *k = round_at(c, at);
    gt_status st = GT_OK;
    k->part = calloc((size_t)(c->encodings * c->o.ranges) + 1, sizeof *k->part);
    if (!k->part)
        return no_memory();
    for (int e = 0; e < c->encodings; e++) {
        uint64_t from = k->stride * (uint64_t)e;
        for (int i = 0; !st && i < c->o.ranges; i++) {
            const uint64_t bytes = (uint64_t)elements_of(c, i, at) * dtype_size(c->how->type);
            st = dev_buffer_view(&k->part[i * c->encodings + e], c->code, from, bytes);
            from += room_of(c, i, at);
        }
    }
    return st;
}

/* Zeros, and on the list of commits. */
static gt_status make_pair(compress_coding *c, pair *p, int64_t count, const char *what)
{
    gt_status st = dev_buffer_create_zero(&p->kept, c->o.device, 4 * (uint64_t)count, what);
    if (!st)
        st = dev_buffer_create_zero(&p->next, c->o.device, 4 * (uint64_t)count, what);
    return st ? st : kernel_compress_commit(c->commit, c->o.kernels, count, c->o.frame, p->next, p->kept);
}

static gt_status make_error(compress_coding *c)
{
    if (!c->how->keeps_error)
        return GT_OK;
    c->error_of = calloc((size_t)c->o.ranges + 1, sizeof *c->error_of);
    if (!c->error_of)
        return no_memory();
    gt_status st = make_pair(c, &c->error, c->o.count, "what compression holds back of gradients");
    for (int i = 0; !st && i < c->o.ranges; i++)
        st = dev_buffer_view(&c->error_of[i], c->error.next, 4 * (uint64_t)c->range[i].first,
                             4 * (uint64_t)c->range[i].count);
    if (!st && c->o.spec.momentum > 0.0)
        st = make_pair(c, &c->velocity, c->o.count, "momentum of gradients that are compressed");
    return st;
}

/* What the compressor itself wants of each range. */
static gt_status make_state(compress_coding *c)
{
    uint64_t bytes = 0, most = 0;
    for (int i = 0; i < c->o.ranges; i++) {
        const uint64_t scratch = c->how->scratch ? 4 * (uint64_t)c->how->scratch(&c->range[i]) : 0;
        bytes += c->how->state ? aligned(c, 4 * (uint64_t)c->how->state(&c->range[i])) : 0;
        most += aligned(c, scratch);
    }
    c->states = (int64_t)(bytes / 4);
    gt_status st = bytes ? make_pair(c, &c->state, c->states, "state of compression") : GT_OK;
    if (!st && most)
        st = dev_buffer_create(&c->scratch, c->o.device, most, "working memory of compression");
    bytes = most = 0;
    for (int i = 0; !st && i < c->o.ranges; i++) {
        compress_range *r = &c->range[i];
        if (c->how->state) {
            const uint64_t own = 4 * (uint64_t)c->how->state(r);
            st = dev_buffer_view(&r->state, c->state.kept, bytes, own);
            if (!st)
                st = dev_buffer_view(&r->next, c->state.next, bytes, own);
            bytes += aligned(c, own);
        }
        if (!st && c->how->scratch) {
            const uint64_t own = 4 * (uint64_t)c->how->scratch(r);
            st = dev_buffer_view(&r->scratch, c->scratch, most, own);
            most += aligned(c, own);
        }
    }
    return st;
}

/* What was kept, added to the gradient. */
static gt_status append_feed(compress_coding *c, dev_list *l)
{
    const compress_coding_options *o = &c->o;
    if (o->moment)
        return kernel_compress_moment(l, o->kernels, o->count, o->frame, o->beta1, o->ranks, c->error.kept, o->moment,
                                      o->grad);
    if (!c->velocity.kept)
        return kernel_compress_feed(l, o->kernels, o->count, o->frame, c->error.kept, o->grad);
    return kernel_compress_velocity(l, o->kernels, o->count, o->frame, (float)o->spec.momentum, c->error.kept,
                                    c->velocity.kept, c->velocity.next, o->grad);
}

static gt_status append_encode(compress_coding *c, int at)
{
    round *k = round_at(c, at);
    const int keeps = c->how->keeps_error, last = at == c->how->rounds - 1;
    gt_status st = dev_list_create(&k->encode, c->o.device);
    if (!st)
        dev_list_label(k->encode, "encoding of gradients");
    if (!st && keeps && at == 0)
        st = append_feed(c, k->encode);
    for (int i = 0; !st && i < c->o.ranges; i++)
        st = c->how->encode(k->encode, c->o.kernels, &c->range[i], at, k->part[i * c->encodings + c->mine]);
    for (int i = 0; !st && keeps && last && i < c->o.ranges; i++)
        st = c->how->decode(k->encode, c->o.kernels, &c->range[i], at, &k->part[i * c->encodings + c->mine], 1,
                            c->error_of[i]);
    if (!st && keeps && last)
        st = kernel_compress_left(k->encode, c->o.kernels, c->o.count, c->o.moment ? c->o.frame : NULL, c->o.grad,
                                  c->error.next, c->velocity.next);
    if (!st && keeps && last && c->o.spec.decay > 0.0 && c->o.spec.decay < 1.0)
        st = kernel_scale(k->encode, c->o.kernels, c->o.count, c->error.next, c->error.next, NULL,
                          (float)c->o.spec.decay);
    return st;
}

static gt_status append_decode(compress_coding *c, int at)
{
    round *k = round_at(c, at);
    gt_status st = dev_list_create(&k->decode, c->o.device);
    if (!st)
        dev_list_label(k->decode, "decoding of gradients");
    for (int i = 0; !st && i < c->o.ranges; i++)
        st = c->how->decode(k->decode, c->o.kernels, &c->range[i], at, &k->part[i * c->encodings], c->encodings,
                            c->range[i].grad);
    return st;
}

/* The lists of all sizes of encodings. */
static gt_status make_lists(compress_coding *c)
{
    gt_status st = GT_OK;
    for (int v = 0; !st && v < c->levels; v++) {
        set_level(c, v);
        for (int r = 0; !st && r < c->how->rounds; r++) {
            st = make_parts(c, r);
            if (!st)
                st = append_encode(c, r);
            if (!st)
                st = append_decode(c, r);
        }
    }
    set_level(c, 0);
    return st;
}

gt_status compress_coding_create(compress_coding **out, const compress_coding_options *o)
{
    *out = NULL;
    const int levels = compress_levels(&o->spec);
    compress_coding *c = calloc(1, sizeof *c);
    compress_range *range = malloc(((size_t)o->ranges + 1) * sizeof *range);
    round *rounds = calloc((size_t)(o->spec.how->rounds * levels), sizeof *rounds);
    for (int i = 0; range && i < o->ranges; i++)
        range[i] = o->range[i];
    if (!c || !range || !rounds) {
        for (int i = 0; i < o->ranges; i++)
            dev_buffer_release(o->range[i].grad);
        dev_buffer_release(o->grad);
        dev_buffer_release(o->moment);
        free(c);
        free(range);
        free(rounds);
        return no_memory();
    }
    *c = (compress_coding){
        .o = *o,
        .how = o->spec.how,
        .range = range,
        .levels = levels,
        .round = rounds,
        .encodings = o->spec.how->gathers ? o->ranks : 1,
        .mine = o->spec.how->gathers ? o->rank : 0
    };
    for (int i = 0; i < o->ranges; i++) {
        range[i].spec = &c->o.spec;
        range[i].ranks = o->ranks;
        range[i].random = o->random;
        range[i].stream = o->stream + (uint32_t)i;
        range[i].own_stream = range[i].stream + ((uint32_t)o->rank + 1) * 0x9e3779b9u;
        range[i].state = range[i].next = range[i].scratch = NULL;
    }
    for (int v = 0; v < levels; v++) {
        set_level(c, v);
        measure(c);
    }
    gt_status st = dev_list_create(&c->commit, o->device);
    if (!st)
        st = make_code(c);
    if (!st)
        st = make_error(c);
    if (!st)
        st = make_state(c);
    if (!st)
        st = make_lists(c);
    if (!st && c->how->whole)
        st = dev_list_create(&c->sent, o->device);
    if (!st && c->how->whole)
        st = dev_list_fill(c->sent, c->error.next, 0, 0, 4 * (uint64_t)o->count);
    if (st) {
        compress_coding_release(c);
        return st;
    }
    *out = c;
    return GT_OK;
}

static void release_pair(const pair *p)
{
    dev_buffer_release(p->kept);
    dev_buffer_release(p->next);
}

void compress_coding_release(compress_coding *c)
{
    if (!c)
        return;
    for (int r = 0; r < c->how->rounds * c->levels; r++) {
        dev_list_release(c->round[r].encode);
        dev_list_release(c->round[r].decode);
        for (int i = 0; c->round[r].part && i < c->encodings * c->o.ranges; i++)
            dev_buffer_release(c->round[r].part[i]);
        free(c->round[r].part);
    }
    dev_list_release(c->commit);
    dev_list_release(c->sent);
    for (int i = 0; i < c->o.ranges; i++) {
        dev_buffer_release(c->range[i].grad);
        dev_buffer_release(c->range[i].state);
        dev_buffer_release(c->range[i].next);
        dev_buffer_release(c->range[i].scratch);
        if (c->error_of)
            dev_buffer_release(c->error_of[i]);
    }
    dev_buffer_release(c->o.grad);
    dev_buffer_release(c->o.moment);
    release_pair(&c->error);
    release_pair(&c->velocity);
    release_pair(&c->state);
    dev_buffer_release(c->scratch);
    dev_buffer_release(c->code);
    if (c->memory)
        net_comm_memory_free(c->o.comm, c->memory);
    free(c->error_of);
    free(c->range);
    free(c->round);
    free(c);
}

static net_type type_of(dtype t)
{
    return t == DTYPE_BF16 ? NET_BF16 : t == DTYPE_F16 ? NET_F16 : NET_F32;
}

compress_payload compress_coding_payload(const compress_coding *c, int at)
{
    const uint64_t stride = round_at(c, at)->stride;
    return (compress_payload){
        .code = c->code,
        .host = dev_buffer_host(c->code),
        .bytes = stride * (uint64_t)c->encodings,
        .elements = stride * (uint64_t)c->encodings / dtype_size(c->how->type),
        .own_at = stride * (uint64_t)c->mine,
        .own_bytes = stride,
        .type = type_of(c->how->type)
    };
}

void compress_coding_level(compress_coding *c, int level)
{
    set_level(c, level);
}

gt_status compress_coding_commit(compress_coding *c)
{
    return dev_run(c->commit, 0, -1);
}

gt_status compress_coding_encode(compress_coding *c, int at)
{
    return dev_run(round_at(c, at)->encode, 0, -1);
}

gt_status compress_coding_decode(compress_coding *c, int at)
{
    return dev_run(round_at(c, at)->decode, 0, -1);
}

gt_status compress_coding_sent(compress_coding *c)
{
    return dev_run(c->sent, 0, -1);
}

dev_buffer *compress_coding_error(const compress_coding *c)
{
    return c->error.kept;
}

dev_buffer *compress_coding_velocity(const compress_coding *c)
{
    return c->velocity.kept;
}

dev_buffer *compress_coding_state(const compress_coding *c, int range)
{
    return c->range[range].state;
}
