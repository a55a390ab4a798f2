/* SPDX-License-Identifier: MIT */
/* host/compress/coding.c - see coding.h.
 *
 *   one rank's encoding   | range 0 | range 1 | ...      each from where a view may begin
 *
 * Error feedback is the same for all compressors, so it stands here: the first list adds what was kept to
 * the gradient before it encodes; the last one decodes what this rank alone said and keeps the difference. Compressors
 * that do all of that in one pass over the values (encode_held) move a third of the bytes. */
#include "host/compress/coding.h"

#include <stdlib.h>

/* A part of a range that one rank owns, if sums are encoded again. */
typedef struct piece {
    compress_range range;               /* of these values alone; its views are the piece's        */
    int owner;
    int64_t at;                         /* values of this rank's part before it                    */
    dev_buffer *code;                   /* in the owner's block                                    */
    dev_buffer *error;                  /* view of error.next                                      */
    dev_buffer **said;                  /* [ranks] its own: in the blocks of all                   */
    dev_buffer *sum, *left;             /* its own: of `sum` and served.next                       */
} piece;

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
    kernel_slot share_at, rest_at;      /* of what adds the optimizer's moments, in the first list of level 0 */
    round *round;                       /* [level * rounds + round]                         */
    dev_list *commit, *sent;
    dev_buffer *code, *scratch;
    pair error, velocity, state;        /* state: of the ranges, one after the other        */
    int64_t states;                     /* fp32 values of it                                */
    pair *error_of;                     /* [range] views of error                           */
    int rounds;
    piece *piece;                       /* NULL: sums are not encoded again                 */
    int pieces;
    pair served;                        /* of this rank's part                              */
    dev_buffer *sum;
    int64_t values;                     /* in them, those between pieces included           */
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
    return &c->round[c->level * c->rounds + at];
}

static uint64_t piece_room(const compress_coding *c, const piece *p)
{
    return aligned(c, (uint64_t)c->how->elements(&p->range, 0) * dtype_size(c->how->type));
}

/* Bytes of the largest part's encoding. */
static uint64_t block_of(const compress_coding *c)
{
    uint64_t most = 0, part = 0;
    for (int i = 0; i < c->pieces; i++) {
        part = i && c->piece[i - 1].owner == c->piece[i].owner ? part : 0;
        part += piece_room(c, &c->piece[i]);
        most = part > most ? part : most;
    }
    return most;
}

/* Of the current level. */
static void measure(compress_coding *c)
{
    for (int r = 0; r < c->rounds; r++) {
        round *k = round_at(c, r);
        for (int i = 0; !c->piece && i < c->o.ranges; i++)
            k->stride += room_of(c, i, r);
        k->stride += c->piece ? block_of(c) : 0;
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

/* ---- sums that are encoded again ------------------------------------------------------------------ */

/* Whole chunks, as many to each rank as to the others, in the order of the values. */
static gt_status cut_pieces(compress_coding *c)
{
    const int ranks = c->o.ranks;
    int64_t chunks = 0, before = 0;
    if (!c->how->serves || c->o.spec.server == 0.0 || ranks < 3)
        return GT_OK;
    for (int i = 0; i < c->o.ranges; i++)
        chunks += (c->range[i].count + COMPRESS_CHUNK - 1) / COMPRESS_CHUNK;
    c->piece = calloc((size_t)(c->o.ranges + ranks), sizeof *c->piece);
    if (!c->piece)
        return no_memory();
    for (int i = 0; i < c->o.ranges; i++) {
        const compress_range *r = &c->range[i];
        const int64_t own = (r->count + COMPRESS_CHUNK - 1) / COMPRESS_CHUNK;
        for (int k = 0; k < ranks; k++) {
            uint64_t begin, size;
            net_part((uint64_t)chunks, ranks, k, &begin, &size);
            int64_t from = (int64_t)begin - before, to = from + (int64_t)size;
            from = from > 0 ? from * COMPRESS_CHUNK : 0;
            to = to < own ? to * COMPRESS_CHUNK : r->count;
            if (from >= to)
                continue;
            piece *p = &c->piece[c->pieces++];
            p->owner = k;
            p->range = *r;
            p->range.grad = NULL;
            p->range.first = r->first + from;
            p->range.count = to - from;
        }
        before += own;
    }
    c->rounds = 2;
    return GT_OK;
}

static gt_status view_piece(compress_coding *c, piece *p, uint64_t at)
{
    const compress_range *r = &p->range;
    const uint64_t from = 4 * (uint64_t)r->first, bytes = 4 * (uint64_t)r->count, stride = round_at(c, 0)->stride;
    const uint64_t coded = (uint64_t)c->how->elements(r, 0) * dtype_size(c->how->type);
    gt_status st = dev_buffer_view(&p->range.grad, c->o.grad, from, bytes);
    if (!st)
        st = dev_buffer_view(&p->error, c->error.next, from, bytes);
    if (!st)
        st = dev_buffer_view(&p->code, c->code, (uint64_t)p->owner * stride + at, coded);
    if (st || p->owner != c->mine)
        return st;
    p->said = calloc((size_t)c->o.ranks, sizeof *p->said);
    if (!p->said)
        return no_memory();
    for (int k = 0; !st && k < c->o.ranks; k++)
        st = dev_buffer_view(&p->said[k], c->code, (uint64_t)k * stride + at, coded);
    if (!st)
        st = dev_buffer_view(&p->sum, c->sum, 4 * (uint64_t)p->at, bytes);
    return st ? st : dev_buffer_view(&p->left, c->served.next, 4 * (uint64_t)p->at, bytes);
}

static gt_status make_pair(compress_coding *c, pair *p, int64_t count, const char *what);

static gt_status make_pieces(compress_coding *c)
{
    dev_list *l = NULL;
    uint64_t at = 0;
    for (int i = 0; i < c->pieces; i++)
        if (c->piece[i].owner == c->mine) {
            c->piece[i].at = c->values;
            c->values += (int64_t)aligned(c, 4 * (uint64_t)c->piece[i].range.count) / 4;
        }
    c->values = c->values ? c->values : 1;      /* a buffer of nothing there cannot be */
    gt_status st = make_pair(c, &c->served, c->values, "what is held back of sums of moments");
    if (!st)
        st = dev_buffer_create(&c->sum, c->o.device, 4 * (uint64_t)c->values, "sums of moments");
    if (!st)
        st = dev_list_create(&l, c->o.device);
    if (!st)
        st = dev_list_fill(l, c->sum, 0, 0, 4 * (uint64_t)c->values);
    if (!st)
        st = dev_run(l, 0, -1);
    dev_list_release(l);
    for (int i = 0; !st && i < c->pieces; i++) {
        at = i && c->piece[i - 1].owner == c->piece[i].owner ? at : 0;
        st = view_piece(c, &c->piece[i], at);
        at += piece_room(c, &c->piece[i]);
    }
    return st;
}

static void release_pieces(compress_coding *c)
{
    for (int i = 0; i < c->pieces; i++) {
        piece *p = &c->piece[i];
        for (int k = 0; p->said && k < c->o.ranks; k++)
            dev_buffer_release(p->said[k]);
        dev_buffer_release(p->range.grad);
        dev_buffer_release(p->error);
        dev_buffer_release(p->code);
        dev_buffer_release(p->sum);
        dev_buffer_release(p->left);
        free(p->said);
    }
    dev_buffer_release(c->sum);
    free(c->piece);
}

/* What this rank says of all parts; or of its own, of the sums and what was kept of them. */
static gt_status append_pieces_in(compress_coding *c, int at)
{
    const compress_coding_options *o = &c->o;
    dev_list *l = round_at(c, at)->encode;
    gt_status st = at ? kernel_compress_moment(l, o->kernels, c->values, o->frame, 0.0, 1, c->served.kept,
                                               c->served.kept, c->sum, NULL, NULL)
                      : GT_OK;
    for (int i = 0; !st && i < c->pieces; i++) {
        const piece *p = &c->piece[i];
        compress_range r = p->range;
        if (at && p->owner != c->mine)
            continue;
        r.grad = at ? p->sum : r.grad;
        st = c->how->encode(l, o->kernels, &r, 0, p->code);
        if (!st)
            st = c->how->decode(l, o->kernels, &r, 0, &p->code, 1, at ? p->left : p->error);
    }
    if (st)
        return st;
    return at ? kernel_compress_left(l, o->kernels, c->values, o->frame, c->sum, c->served.next, NULL)
              : kernel_compress_left(l, o->kernels, o->count, o->frame, o->grad, c->error.next, NULL);
}

/* What all say of this rank's part, added up; or what the owners of all parts say. */
static gt_status append_pieces_out(compress_coding *c, int at)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < c->pieces; i++) {
        const piece *p = &c->piece[i];
        if (at)
            st = c->how->decode(round_at(c, at)->decode, c->o.kernels, &p->range, 0, &p->code, 1, p->range.grad);
        else if (p->owner == c->mine)
            st = c->how->decode(round_at(c, at)->decode, c->o.kernels, &p->range, 0, p->said, c->o.ranks, p->sum);
    }
    return st;
}

/* ---- what is kept ----------------------------------------------------------------------------- */

/* Zeros, and on the list of commits. */
static gt_status make_pair(compress_coding *c, pair *p, int64_t count, const char *what)
{
    gt_status st = dev_buffer_create_zero(&p->kept, c->o.device, 4 * (uint64_t)count, what);
    if (!st)
        st = dev_buffer_create_zero(&p->next, c->o.device, 4 * (uint64_t)count, what);
    return st ? st : kernel_compress_commit(c->commit, c->o.kernels, count, c->o.frame, p->next, p->kept);
}

static gt_status view_pair(pair *view, const pair *of, uint64_t offset, uint64_t bytes)
{
    gt_status st = dev_buffer_view(&view->kept, of->kept, offset, bytes);
    return st ? st : dev_buffer_view(&view->next, of->next, offset, bytes);
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
        st = view_pair(&c->error_of[i], &c->error, 4 * (uint64_t)c->range[i].first, 4 * (uint64_t)c->range[i].count);
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
                                      o->grad, &c->share_at, &c->rest_at);
    if (!c->velocity.kept)
        return kernel_compress_feed(l, o->kernels, o->count, o->frame, c->error.kept, o->grad);
    return kernel_compress_velocity(l, o->kernels, o->count, o->frame, (float)o->spec.momentum, c->error.kept,
                                    c->velocity.kept, c->velocity.next, o->grad);
}

static gt_status append_encode(compress_coding *c, int at)
{
    round *k = round_at(c, at);
    const int keeps = c->how->keeps_error, last = at == c->rounds - 1;
    const int held = keeps && c->how->encode_held && !c->o.moment && !c->velocity.kept && !c->piece;
    gt_status st = dev_list_create(&k->encode, c->o.device);
    if (!st)
        dev_list_label(k->encode, "encoding of gradients");
    if (!st && keeps && at == 0 && !held)
        st = append_feed(c, k->encode);
    if (c->piece)
        return st ? st : append_pieces_in(c, at);
    for (int i = 0; !st && i < c->o.ranges; i++) {
        dev_buffer *code = k->part[i * c->encodings + c->mine];
        const kernel_holding h = { c->o.frame, keeps ? c->error_of[i].kept : NULL, keeps ? c->error_of[i].next : NULL };
        st = held ? c->how->encode_held(k->encode, c->o.kernels, &c->range[i], &h, code)
                  : c->how->encode(k->encode, c->o.kernels, &c->range[i], at, code);
    }
    for (int i = 0; !st && keeps && last && !held && i < c->o.ranges; i++)
        st = c->how->decode(k->encode, c->o.kernels, &c->range[i], at, &k->part[i * c->encodings + c->mine], 1,
                            c->error_of[i].next);
    if (!st && keeps && last && !held)
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
    if (c->piece)
        return st ? st : append_pieces_out(c, at);
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
        for (int r = 0; !st && r < c->rounds; r++) {
            st = c->piece ? GT_OK : make_parts(c, r);
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
    round *rounds = calloc((size_t)((o->spec.how->rounds + o->spec.how->serves) * levels), sizeof *rounds);
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
        .rounds = o->spec.how->rounds,
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
    gt_status st = cut_pieces(c);
    for (int v = 0; v < levels; v++) {
        set_level(c, v);
        measure(c);
    }
    if (!st)
        st = dev_list_create(&c->commit, o->device);
    if (!st)
        st = make_code(c);
    if (!st)
        st = make_error(c);
    if (!st && c->piece)
        st = make_pieces(c);
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
    for (int r = 0; r < c->rounds * c->levels; r++) {
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
            release_pair(&c->error_of[i]);
    }
    dev_buffer_release(c->o.grad);
    dev_buffer_release(c->o.moment);
    release_pair(&c->error);
    release_pair(&c->velocity);
    release_pair(&c->state);
    release_pair(&c->served);
    release_pieces(c);
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

int compress_coding_rounds(const compress_coding *c)
{
    return c->rounds;
}

compress_payload compress_coding_payload(const compress_coding *c, int at)
{
    const uint64_t stride = round_at(c, at)->stride, all = stride * (uint64_t)c->encodings;
    const int exchanged = c->piece && at == 0;
    return (compress_payload){
        .way = exchanged         ? COMPRESS_EXCHANGED
               : c->how->gathers ? COMPRESS_GATHERED
                                 : COMPRESS_SUMMED,
        .code = c->code,
        .host = dev_buffer_host(c->code),
        .bytes = all,
        .elements = all / dtype_size(c->how->type),
        .own_at = exchanged ? 0 : stride * (uint64_t)c->mine,
        .own_bytes = exchanged ? all : stride,
        .type = type_of(c->how->type)
    };
}

void compress_coding_level(compress_coding *c, int level)
{
    set_level(c, level);
}

gt_status compress_coding_whole(compress_coding *c, int whole)
{
    const double share = whole ? 0.0 : c->o.beta1 / c->o.ranks, rest = whole ? 1.0 : 1.0 - c->o.beta1;
    dev_list *l = c->round[0].encode;
    gt_status st = dev_list_set(l, c->share_at.launch, c->share_at.arg, dev_arg_f32((float)share));
    return st ? st : dev_list_set(l, c->rest_at.launch, c->rest_at.arg, dev_arg_f32((float)rest));
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

dev_buffer *compress_coding_served(const compress_coding *c)
{
    return c->served.kept;
}

int compress_coding_piece(const compress_coding *c, int i, int64_t *first, int64_t *count, int64_t *at)
{
    int k = 0;
    while (k < c->pieces && (c->piece[k].owner != c->mine || i-- > 0))
        k++;
    if (k == c->pieces)
        return 0;
    *first = c->piece[k].range.first;
    *count = c->piece[k].range.count;
    *at = c->piece[k].at;
    return 1;
}

dev_buffer *compress_coding_state(const compress_coding *c, int range)
{
    return c->range[range].state;
}
