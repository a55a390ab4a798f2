/* SPDX-License-Identifier: MIT */
/* host/sync/coding.c - see coding.h.
 *
 *   one rank's encoding   | range 0 | range 1 | ...      each from where a view may begin
 *
 * Error feedback is the same for all compressors, so it stands here: the first list adds the error to the
 * gradient before it encodes, then decodes what this rank alone said and keeps the difference. */
#include "host/sync/coding.h"

#include <stdlib.h>

typedef struct round {
    dev_list *encode, *decode;
    dev_buffer **part;                  /* [encodings * ranges] views of code               */
    uint64_t stride;                    /* bytes of one rank's encoding                     */
} round;

struct sync_coding {
    sync_coding_options o;
    sync_range *range;
    int encodings, mine;                /* in code; which one is this rank's                */
    round *round;
    dev_buffer *code, *error;
    dev_buffer **error_of;              /* [range] views of error                           */
    void *memory;                       /* of the network, that code lies in; NULL: its own */
    uint64_t most;                      /* bytes of the longest code                        */
};

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "no memory for the list of encoded gradients");
}

static int64_t elements_of(const sync_coding *c, int i, int at)
{
    return c->o.how->elements ? c->o.how->elements(&c->range[i], at) : c->range[i].count;
}

/* Bytes of a range's encoding, with what comes before the next one. */
static uint64_t room_of(const sync_coding *c, int i, int at)
{
    const uint64_t align = dev_info_of(c->o.device)->align;
    const uint64_t bytes = (uint64_t)elements_of(c, i, at) * dtype_size(c->o.how->type);
    return (bytes + align - 1) / align * align;
}

static void measure(sync_coding *c)
{
    for (int r = 0; r < c->o.how->rounds; r++) {
        round *k = &c->round[r];
        for (int i = 0; i < c->o.ranges; i++)
            k->stride += room_of(c, i, r);
        const uint64_t all = k->stride * (uint64_t)c->encodings;
        c->most = all > c->most ? all : c->most;
    }
}

static gt_status make_code(sync_coding *c)
{
    const char *what = "encoded gradients";
    const uint64_t bytes = c->most ? c->most : 4;
    if (!dev_info_of(c->o.device)->native_kernels)
        return dev_buffer_create(&c->code, c->o.device, bytes, what);
    gt_status st = net_comm_memory(c->o.comm, bytes, &c->memory);
    return st ? st : dev_buffer_create_in(&c->code, c->o.device, c->memory, bytes, what);
}

/* Views of every rank's encoding of every range. */
static gt_status make_parts(sync_coding *c, int at)
{
    round *k = &c->round[at];
    gt_status st = GT_OK;
    k->part = calloc((size_t)(c->encodings * c->o.ranges) + 1, sizeof *k->part);
    if (!k->part)
        return no_memory();
    for (int e = 0; e < c->encodings; e++) {
        uint64_t from = k->stride * (uint64_t)e;
        for (int i = 0; !st && i < c->o.ranges; i++) {
            const uint64_t bytes = (uint64_t)elements_of(c, i, at) * dtype_size(c->o.how->type);
            st = dev_buffer_view(&k->part[i * c->encodings + e], c->code, from, bytes);
            from += room_of(c, i, at);
        }
    }
    return st;
}

static gt_status make_error(sync_coding *c)
{
    dev_list *l = NULL;
    if (!c->o.how->keeps_error)
        return GT_OK;
    c->error_of = calloc((size_t)c->o.ranges + 1, sizeof *c->error_of);
    if (!c->error_of)
        return no_memory();
    gt_status st = dev_buffer_create(&c->error, c->o.device, 4 * (uint64_t)c->o.count,
                                     "what compression holds back of gradients");
    for (int i = 0; !st && i < c->o.ranges; i++)
        st = dev_buffer_view(&c->error_of[i], c->error, 4 * (uint64_t)c->range[i].first,
                             4 * (uint64_t)c->range[i].count);
    if (!st)
        st = dev_list_create(&l, c->o.device);
    if (!st)
        st = dev_list_fill(l, c->error, 0, 0, 4 * (uint64_t)c->o.count);
    if (!st)
        st = dev_run(l, 0, -1);
    dev_list_release(l);
    return st;
}

static gt_status append_encode(sync_coding *c, int at)
{
    const sync_compressor *how = c->o.how;
    round *k = &c->round[at];
    const int feeds = how->keeps_error && at == 0;
    gt_status st = dev_list_create(&k->encode, c->o.device);
    if (!st)
        dev_list_label(k->encode, "encoding of gradients");
    if (!st && feeds)
        st = kernel_combine(k->encode, c->o.kernels, c->o.count, 1.0f, c->error, 1.0f, c->o.grad);
    for (int i = 0; !st && i < c->o.ranges; i++)
        st = how->encode(k->encode, c->o.kernels, &c->range[i], at, k->part[i * c->encodings + c->mine]);
    for (int i = 0; !st && feeds && i < c->o.ranges; i++)
        st = how->decode(k->encode, c->o.kernels, &c->range[i], at, &k->part[i * c->encodings + c->mine], 1,
                         c->error_of[i]);
    if (!st && feeds)
        st = kernel_combine(k->encode, c->o.kernels, c->o.count, 1.0f, c->o.grad, -1.0f, c->error);
    return st;
}

static gt_status append_decode(sync_coding *c, int at)
{
    round *k = &c->round[at];
    gt_status st = dev_list_create(&k->decode, c->o.device);
    if (!st)
        dev_list_label(k->decode, "decoding of gradients");
    for (int i = 0; !st && i < c->o.ranges; i++)
        st = c->o.how->decode(k->decode, c->o.kernels, &c->range[i], at, &k->part[i * c->encodings], c->encodings,
                              c->range[i].grad);
    return st;
}

gt_status sync_coding_create(sync_coding **out, const sync_coding_options *o)
{
    *out = NULL;
    sync_coding *c = calloc(1, sizeof *c);
    sync_range *range = malloc(((size_t)o->ranges + 1) * sizeof *range);
    round *rounds = calloc((size_t)o->how->rounds, sizeof *rounds);
    for (int i = 0; range && i < o->ranges; i++)
        range[i] = o->range[i];
    if (!c || !range || !rounds) {
        for (int i = 0; i < o->ranges; i++)
            dev_buffer_release(o->range[i].grad);
        dev_buffer_release(o->grad);
        free(c);
        free(range);
        free(rounds);
        return no_memory();
    }
    *c = (sync_coding){ .o = *o,
                        .range = range,
                        .round = rounds,
                        .encodings = o->how->gathers ? o->ranks : 1,
                        .mine = o->how->gathers ? o->rank : 0 };
    measure(c);
    gt_status st = make_code(c);
    if (!st)
        st = make_error(c);
    for (int r = 0; !st && r < o->how->rounds; r++) {
        st = make_parts(c, r);
        if (!st)
            st = append_encode(c, r);
        if (!st)
            st = append_decode(c, r);
    }
    if (st) {
        sync_coding_release(c);
        return st;
    }
    *out = c;
    return GT_OK;
}

void sync_coding_release(sync_coding *c)
{
    if (!c)
        return;
    for (int r = 0; r < c->o.how->rounds; r++) {
        dev_list_release(c->round[r].encode);
        dev_list_release(c->round[r].decode);
        for (int i = 0; c->round[r].part && i < c->encodings * c->o.ranges; i++)
            dev_buffer_release(c->round[r].part[i]);
        free(c->round[r].part);
    }
    for (int i = 0; i < c->o.ranges; i++) {
        dev_buffer_release(c->range[i].grad);
        if (c->error_of)
            dev_buffer_release(c->error_of[i]);
    }
    dev_buffer_release(c->o.grad);
    dev_buffer_release(c->error);
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

sync_payload sync_coding_payload(const sync_coding *c, int at)
{
    const uint64_t stride = c->round[at].stride;
    return (sync_payload){ .code = c->code,
                           .host = dev_buffer_host(c->code),
                           .bytes = stride * (uint64_t)c->encodings,
                           .elements = stride * (uint64_t)c->encodings / dtype_size(c->o.how->type),
                           .own_at = stride * (uint64_t)c->mine,
                           .own_bytes = stride,
                           .type = type_of(c->o.how->type) };
}

gt_status sync_coding_encode(sync_coding *c, int at)
{
    return dev_run(c->round[at].encode, 0, -1);
}

gt_status sync_coding_decode(sync_coding *c, int at)
{
    return dev_run(c->round[at].decode, 0, -1);
}

dev_buffer *sync_coding_error(const sync_coding *c)
{
    return c->error;
}
