/* SPDX-License-Identifier: MIT */
/* host/graph/params.c - placing, filling and moving parameters. */
#include "host/graph/params.h"

#include "host/base/activity.h"
#include "host/base/file.h"
#include "host/base/random.h"
#include "host/base/workers.h"
#include "host/kernel/kernel.h"
#include "host/tensor/q8.h"

#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A segment's usual size, 512 MiB of fp32. Not simply the largest allocation: some drivers
 * derive that from the memory free at the moment, and the order in which the gradient's norm
 * is summed must not change from run to run. A tensor larger than this gets its own. */
#define SEGMENT_ELEMENTS ((int64_t)128 << 20)

typedef struct param {
    graph_param_info info;
    int group, segment;                     /* segment -1: frozen         */
    int64_t first;                          /* element within the segment */
    dev_buffer *master, *grad, *copy;       /* views; frozen: copy alone, a buffer of its own */
    int hashed;                             /* 1: `hash` is that of the frozen copy           */
    uint64_t hash;
} param;

struct params {
    dev_device *device;
    dtype storage;
    int count, segments;
    int64_t step, most;                     /* elements: of places, of a segment */
    param *param;
    params_segment *segment;
    void **lent;                            /* [2 * segment]: of masters, of gradients; NULL: their own */
    params_grouping how;
    int (*whole)(const graph_param_info *info);
};

/* Elements after which the next tensor may start: aligned in fp32 and in 16-bit storage. */
static int64_t spacing(const dev_device *d)
{
    return (int64_t)(d ? dev_info_of(d)->align : 128) / 2;
}

static int64_t padded(int64_t count, int64_t step)
{
    return (count + step - 1) / step * step;
}

void params_bytes(const graph *g, uint64_t *masters, uint64_t *copies)
{
    int64_t n = 0;
    for (int i = 0; i < graph_param_count(g); i++)
        if (!graph_param_at(g, i)->frozen)
            n += padded(shape_count(&graph_param_at(g, i)->shape), spacing(NULL));
    *masters = 4 * (uint64_t)n;
    *copies = graph_storage(g) == DTYPE_F32 ? 0 : dtype_size(graph_storage(g)) * (uint64_t)n;
}

/* Places the tensors of one kind; returns GT_NO_MEMORY if one alone is too big. */
static gt_status place_kind(params *p, int group, int decay)
{
    const int64_t full = p->most < SEGMENT_ELEMENTS ? p->most : SEGMENT_ELEMENTS;
    int open = -1;                          /* the segment being filled */
    for (int i = 0; i < p->count; i++) {
        param *t = &p->param[i];
        if (t->info.frozen || t->info.decay != decay || t->group != group)
            continue;
        int64_t n = padded(shape_count(&t->info.shape), p->step);
        if (n > p->most)
            return gt_fail(GT_NO_MEMORY,
                           "cannot hold parameter '%s' on device '%s': %lld "
                           "bytes in one piece, the device allows %lld",
                           t->info.name, dev_info_of(p->device)->id, (long long)n * 4, (long long)p->most * 4);
        if (open < 0 || p->segment[open].count + n > full) {
            params_segment *more = realloc(p->segment, (size_t)(p->segments + 1) * sizeof *more);
            if (!more)
                return gt_fail(GT_NO_MEMORY, "cannot place parameters: no memory for %d segments", p->segments + 1);
            p->segment = more;
            open = p->segments++;
            memset(&more[open], 0, sizeof *more);
            more[open].decay = decay;
            more[open].group = group;
        }
        t->segment = open;
        t->first = p->segment[open].count;
        p->segment[open].count += n;
    }
    return GT_OK;
}

/* Gives every tensor its segment and place. */
static gt_status place(params *p)
{
    gt_status st = GT_OK;
    for (int i = 0; i < p->count; i++)
        p->param[i].segment = -1;
    for (int group = 0, next = 0; !st && next < INT_MAX; group = next) {
        next = INT_MAX;
        for (int i = 0; i < p->count; i++)
            if (p->param[i].group > group && p->param[i].group < next)
                next = p->param[i].group;
        st = place_kind(p, group, 1);
        if (!st)
            st = place_kind(p, group, 0);
    }
    return st;
}

/* Takes over what a graph declares and is not there yet. */
static gt_status declare(params *p, const graph *g)
{
    for (int i = 0; i < graph_param_count(g); i++) {
        const graph_param_info *info = graph_param_at(g, i);
        const int at = params_find(p, info->name);
        if (at < 0)
            p->param[p->count++].info = *info;
        else if (!shape_equal(&p->param[at].info.shape, &info->shape)
                 || !tensor_slice_equal(&p->param[at].info.slice, &info->slice))
            return gt_fail(GT_MISMATCH,
                           "cannot place parameter '%s': two parts of the model hold "
                           "it in different shapes",
                           info->name);
        else if (p->param[at].info.type != info->type || p->param[at].info.frozen != info->frozen)
            return gt_fail(GT_MISMATCH, "cannot place parameter '%s': two parts of the model store it differently",
                           info->name);
        else
            p->param[at].info.table |= info->table;
    }
    return GT_OK;
}

/* Masters or gradients of segment i, all zero. */
static gt_status hold(params *p, int i, int masters, dev_buffer **out)
{
    const params_segment *s = &p->segment[i];
    const char *what = masters ? "the parameters" : "the gradients";
    const uint64_t bytes = 4 * (uint64_t)s->count;
    void **lent = &p->lent[2 * i + !masters];
    gt_status st = GT_OK;
    if (p->how.memory && dev_info_of(p->device)->native_kernels)
        st = p->how.memory(p->how.context, s->group, masters, bytes, lent);
    if (st)
        return st;
    return *lent ? dev_buffer_create_in(out, p->device, *lent, bytes, what)
                 : dev_buffer_create_zero(out, p->device, bytes, what);
}

/* What a frozen tensor is computed with, and all there is of it. */
static gt_status hold_frozen(params *p, param *t)
{
    const graph_param_info *info = &t->info;
    if (info->type == DTYPE_Q8 && !q8_fits(&info->full, &info->slice))
        return gt_fail(GT_UNSUPPORTED,
                       "cannot hold '%s' in 8 bits: a rank has several runs of its columns; use --base-precision bf16",
                       info->name);
    return dev_buffer_create_zero(&t->copy, p->device, graph_param_bytes(info), "the frozen parameters");
}

gt_status params_create(params **out, dev_device *d, const graph *g, int gradients)
{
    return params_create_grouped(out, d, &g, 1, NULL, gradients);
}

gt_status params_create_grouped(params **out, dev_device *d, const graph *const *g, int graphs,
                                const params_grouping *how, int gradients)
{
    *out = NULL;
    params *p = calloc(1, sizeof *p);
    if (!p)
        return gt_fail(GT_NO_MEMORY, "cannot place parameters: no memory for an empty set");
    gt_status st = GT_OK;
    p->device = d;
    p->storage = graph_storage(g[0]);
    int room = 1;
    for (int i = 0; i < graphs; i++)
        room += graph_param_count(g[i]);
    p->param = calloc((size_t)room, sizeof *p->param);
    if (!p->param) {
        st = gt_fail(GT_NO_MEMORY, "cannot place parameters: no memory for %d descriptions", room);
        goto out;
    }
    for (int i = 0; !st && i < graphs; i++)
        st = declare(p, g[i]);
    for (int i = 0; how && how->group && i < p->count; i++)
        p->param[i].group = how->group(how->context, &p->param[i].info);
    if (how)
        p->how = *how;
    p->step = how && how->align ? (int64_t)how->align / 2 : spacing(d);
    p->most = (int64_t)((how && how->most ? how->most : dev_info_of(d)->max_alloc_bytes) / 4);
    if (!st)
        st = place(p);
    const size_t item = dtype_size(p->storage);
    p->lent = calloc(2 * (size_t)p->segments + 1, sizeof *p->lent);
    if (!st && !p->lent)
        st = gt_fail(GT_NO_MEMORY, "no memory for the list of parameters");
    for (int i = 0; !st && i < p->segments; i++) {
        params_segment *s = &p->segment[i];
        st = hold(p, i, 1, &s->master);
        if (!st && gradients)
            st = hold(p, i, 0, &s->grad);
        if (!st && s->decay && p->storage != DTYPE_F32)
            st = dev_buffer_create_zero(&s->copy, d, item * (uint64_t)s->count, "the parameters' 16-bit copies");
    }
    for (int i = 0; !st && i < p->count; i++) {
        param *t = &p->param[i];
        if (t->info.frozen) {
            st = hold_frozen(p, t);
            continue;
        }
        const params_segment *s = &p->segment[t->segment];
        const uint64_t first = (uint64_t)t->first, n = (uint64_t)shape_count(&t->info.shape);
        st = dev_buffer_view(&t->master, s->master, 4 * first, 4 * n);
        if (!st && s->grad)
            st = dev_buffer_view(&t->grad, s->grad, 4 * first, 4 * n);
        if (!st && s->copy)
            st = dev_buffer_view(&t->copy, s->copy, item * first, item * n);
    }
    if (st)
        goto out;
    *out = p;
    p = NULL;
out:
    params_release(p);
    return st;
}

void params_release(params *p)
{
    if (!p)
        return;
    for (int i = 0; p->param && i < p->count; i++) {
        dev_buffer_release(p->param[i].master);
        dev_buffer_release(p->param[i].grad);
        dev_buffer_release(p->param[i].copy);
    }
    for (int i = 0; i < p->segments; i++) {
        dev_buffer_release(p->segment[i].master);
        dev_buffer_release(p->segment[i].grad);
        dev_buffer_release(p->segment[i].copy);
        for (int k = 0; k < 2; k++)
            if (p->lent && p->lent[2 * i + k])
                p->how.memory_free(p->how.context, p->lent[2 * i + k]);
    }
    free(p->lent);
    free(p->segment);
    free(p->param);
    free(p);
}

int params_count(const params *p)
{
    return p->count;
}

const graph_param_info *params_info(const params *p, int i)
{
    assert(0 <= i && i < p->count);
    return &p->param[i].info;
}

int params_find(const params *p, const char *name)
{
    for (int i = 0; i < p->count; i++)
        if (!strcmp(p->param[i].info.name, name))
            return i;
    return -1;
}

dev_buffer *params_master(params *p, int i)
{
    return p->param[i].master;
}

dev_buffer *params_grad(params *p, int i)
{
    return p->param[i].grad;
}

dev_buffer *params_used(params *p, int i)
{
    return p->param[i].copy ? p->param[i].copy : p->param[i].master;
}

int params_group(const params *p, int i)
{
    return p->param[i].group;
}

uint64_t params_frozen_bytes(const params *p)
{
    uint64_t bytes = 0;
    for (int i = 0; i < p->count; i++)
        bytes += p->param[i].info.frozen ? dev_buffer_bytes(p->param[i].copy) : 0;
    return bytes;
}

int64_t params_step(const params *p)
{
    return p->step;
}

int params_segments(const params *p)
{
    return p->segments;
}

const params_segment *params_segment_at(const params *p, int i)
{
    assert(0 <= i && i < p->segments);
    return &p->segment[i];
}

void params_keep_whole(params *p, int (*whole)(const graph_param_info *info))
{
    p->whole = whole;
}

int params_is_whole(const params *p, int i)
{
    return p->whole && p->whole(&p->param[i].info);
}

void params_place(const params *p, int i, int *segment, int64_t *first)
{
    *segment = p->param[i].segment;
    *first = p->param[i].first;
}

/* A tensor of random numbers, filled in pieces. */
typedef struct random_fill {
    uint64_t seed;
    const graph_param_info *info;
    float *out;
    size_t count;
} random_fill;

enum { PIECE = 1 << 16 };

static void fill_piece(void *context, size_t i)
{
    const random_fill *f = context;
    const size_t first = i * PIECE, left = f->count - first;
    gt_random r;
    gt_random_init(&r, f->seed, gt_hash(f->info->name, strlen(f->info->name)));
    gt_random_seek(&r, first);
    if (f->info->init == GRAPH_INIT_UNIFORM)
        for (size_t j = 0; j < left && j < PIECE; j++)
            f->out[first + j] = f->info->deviation * (2.0f * gt_random_unit(&r) - 1.0f);
    else
        gt_random_normal(&r, f->out + first, left < PIECE ? left : PIECE, 0.0f, f->info->deviation);
}

static void fill(float *x, const graph_param_info *info, size_t n, uint64_t seed)
{
    random_fill f = { seed, info, x, n };
    if (info->init == GRAPH_INIT_NORMAL || info->init == GRAPH_INIT_UNIFORM)
        gt_workers_run((n + PIECE - 1) / PIECE, fill_piece, &f);
    else
        for (size_t j = 0; j < n; j++)
            x[j] = 1.0f;
}

float *params_in_place(params *p, int i)
{
    const param *t = &p->param[i];
    return t->info.frozen || t->info.slice.parts ? NULL : dev_buffer_host(t->master);
}

gt_status params_init(params *p, uint64_t seed)
{
    return params_init_some(p, seed, NULL);
}

gt_status params_init_some(params *p, uint64_t seed, int (*wants)(const graph_param_info *info))
{
    size_t most = 1;
    for (int i = 0; i < p->count; i++)
        if ((size_t)shape_count(&p->param[i].info.full) > most)
            most = (size_t)shape_count(&p->param[i].info.full);
    float *x = malloc(most * sizeof *x);
    if (!x)
        return gt_fail(GT_NO_MEMORY,
                       "cannot initialise parameters: no memory for the largest, %zu "
                       "numbers",
                       most);
    gt_status st = GT_OK;
    gt_activity a;
    gt_activity_begin(&a, "initialising", "tensors", (uint64_t)p->count);
    st = dev_wait(p->device);           /* fills in place overtake what is queued */
    for (int i = 0; !st && i < p->count; i++) {
        const graph_param_info *info = &p->param[i].info;
        st = gt_activity_at(&a, (uint64_t)i);
        if (st || info->init == GRAPH_INIT_ZERO || (wants && !wants(info)))
            continue;                               /* as created */
        float *place = params_in_place(p, i);
        fill(place ? place : x, info, (size_t)shape_count(&info->full), seed);
        if (!place)
            st = params_write_full(p, i, x);
    }
    gt_activity_end(&a);
    free(x);
    return st;
}

/* Numbers of fp32 to those of a narrower type, in pieces. */
typedef struct rounding {
    dtype type;
    void *to;
    const float *from;
    size_t count;
} rounding;

static void round_piece(void *context, size_t turn)
{
    const rounding *r = context;
    const size_t first = turn * PIECE, end = first + PIECE < r->count ? first + PIECE : r->count;
    for (size_t i = first; i < end; i++)
        dtype_store(r->type, r->to, i, r->from[i]);
}

/* Numbers of a frozen tensor as they are stored, from all of it. */
static gt_status write_frozen(params *p, param *t, const float *full)
{
    const graph_param_info *info = &t->info;
    const int64_t n = shape_count(&info->shape);
    t->hashed = 0;
    if (info->type == DTYPE_F32 && !info->slice.parts)
        return dev_write(p->device, t->copy, 0, full, 4 * (uint64_t)n);
    void *stored = calloc(1, (size_t)dev_buffer_bytes(t->copy));
    float *held = info->slice.parts ? malloc((size_t)n * sizeof *held) : NULL;
    if (!stored || (info->slice.parts && !held)) {
        free(stored);
        free(held);
        return gt_fail(GT_NO_MEMORY, "cannot write '%s': no memory for this rank's part of it", info->name);
    }
    if (info->type == DTYPE_Q8) {
        q8_store(stored, full, &info->full, &info->slice);
    } else {
        if (held)
            tensor_slice_take(held, full, &info->full, &info->slice);
        rounding r = { info->type, stored, held ? held : full, (size_t)n };
        gt_workers_run(((size_t)n + PIECE - 1) / PIECE, round_piece, &r);
    }
    gt_status st = dev_write(p->device, t->copy, 0, stored, dev_buffer_bytes(t->copy));
    free(stored);
    free(held);
    return st;
}

static gt_status read_frozen(params *p, param *t, float *to)
{
    const graph_param_info *info = &t->info;
    const int64_t n = shape_count(&info->shape);
    if (info->type == DTYPE_F32)
        return dev_read(p->device, t->copy, 0, to, 4 * (uint64_t)n);
    void *stored = malloc((size_t)dev_buffer_bytes(t->copy));
    if (!stored)
        return gt_fail(GT_NO_MEMORY, "cannot read '%s': no memory for it as it is stored", info->name);
    gt_status st = dev_read(p->device, t->copy, 0, stored, dev_buffer_bytes(t->copy));
    if (!st && info->type == DTYPE_Q8)
        q8_load(to, stored, q8_of(&info->shape, &info->slice));
    for (int64_t i = 0; !st && info->type != DTYPE_Q8 && i < n; i++)
        to[i] = dtype_load(info->type, stored, (size_t)i);
    free(stored);
    return st;
}

gt_status params_read_stored(params *p, int i, void *to)
{
    const param *t = &p->param[i];
    assert(t->info.frozen);
    return dev_read(p->device, t->copy, 0, to, graph_param_bytes(&t->info));
}

gt_status params_stored_hash(params *p, int i, uint64_t *hash)
{
    param *t = &p->param[i];
    const uint64_t bytes = graph_param_bytes(&t->info);
    gt_status st = GT_OK;
    if (!t->hashed) {
        void *stored = malloc((size_t)bytes + 1);
        st = stored ? params_read_stored(p, i, stored)
                    : gt_fail(GT_NO_MEMORY, "cannot read '%s': no memory for it as it is stored", t->info.name);
        if (!st)
            t->hash = gt_hash(stored, (size_t)bytes);
        t->hashed = !st;
        free(stored);
    }
    *hash = t->hash;
    return st;
}

gt_status params_write_full(params *p, int i, const float *full)
{
    const graph_param_info *info = &p->param[i].info;
    if (info->frozen)
        return write_frozen(p, &p->param[i], full);
    if (!info->slice.parts)
        return params_write(p, i, full);
    float *held = malloc((size_t)shape_count(&info->shape) * sizeof *held);
    if (!held)
        return gt_fail(GT_NO_MEMORY, "cannot write '%s': no memory for this rank's part of it", info->name);
    tensor_slice_take(held, full, &info->full, &info->slice);
    gt_status st = params_write(p, i, held);
    free(held);
    return st;
}

gt_status params_write(params *p, int i, const float *from)
{
    param *t = &p->param[i];
    assert(!t->info.frozen || !t->info.slice.parts);
    if (t->info.frozen)
        return write_frozen(p, t, from);
    return dev_write(p->device, t->master, 0, from, 4 * (uint64_t)shape_count(&t->info.shape));
}

gt_status params_read(params *p, int i, float *to)
{
    param *t = &p->param[i];
    if (t->info.frozen)
        return read_frozen(p, t, to);
    return dev_read(p->device, t->master, 0, to, 4 * (uint64_t)shape_count(&t->info.shape));
}

gt_status params_read_grad(params *p, int i, float *to)
{
    param *t = &p->param[i];
    return dev_read(p->device, t->grad, 0, to, 4 * (uint64_t)shape_count(&t->info.shape));
}

gt_status params_refresh(params *p, struct kernel_set *k)
{
    dev_list *l;
    gt_status st = dev_list_create(&l, p->device);
    for (int i = 0; !st && i < p->segments; i++)
        if (p->segment[i].copy)
            st = kernel_store(l, k, p->segment[i].count, p->segment[i].master, p->segment[i].copy);
    if (!st)
        st = dev_run(l, 0, -1);
    if (!st)
        st = dev_wait(p->device);
    dev_list_release(l);
    return st;
}
