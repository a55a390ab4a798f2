/* SPDX-License-Identifier: MIT */
/* models/generate_stage.c - see generate_stage.h.
 *
 *   prompt of 70   [ 32 ][ 32 ][ 6 and padding ]  -> logits -> sample -> [1] -> ...
 *
 * What a chunk puts into the caches for its padding is never looked at: the next tokens take its place,
 * and a token sees none behind it. */
#include "models/generate_stage.h"

#include "host/graph/exec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 2 };

typedef struct feeder {
    graph *graph;
    exec_arena *arena;
    exec *exec;
    int T;
} feeder;

/* What a device is given for a piece; it may still be reading until `written`. */
typedef struct slot {
    uint32_t tokens[GENERATE_CHUNK];
    int32_t first;
    void *x;                            /* activations, of the stage in front; NULL: there is none */
    dev_event *arrived, *written;
} slot;

struct generate_stage {
    dev_device *device;
    model_config config;
    graph_part part;
    kernel_set *kernels;
    gemm_context *gemm;
    params *params;
    int owns_params, positions;
    feeder chunk, single;               /* chunk.graph NULL where caches are short */
    exec_binding *bindings;             /* the caches of `single`, for `chunk` */
    slot slot[SLOTS];
    unsigned fed;                       /* pieces, of which the next one's slot follows */
};

static int has_embedding(const generate_stage *s)
{
    return s->part.first_unit == 0;
}

/* ---- making it ------------------------------------------------------------------------------------ */

static gt_status feeder_create(generate_stage *s, feeder *f, int T)
{
    f->T = T;
    gt_status st = graph_create(&f->graph, kernel_set_storage(s->kernels), 1, T);
    if (!st)
        st = model_build_generate_part(f->graph, &s->config, &s->part, s->positions);
    if (!st && !s->params)
        st = params_create(&s->params, s->device, f->graph, 0);
    if (!st)
        st = exec_arena_create(&f->arena, s->device);
    exec_options o = { .device = s->device,
                       .kernels = s->kernels,
                       .gemm = s->gemm,
                       .params = s->params,
                       .arena = f->arena,
                       .bindings = s->bindings };
    if (!st)
        st = exec_create(&f->exec, f->graph, &o);
    return st ? st : exec_ready(f->exec);
}

static void feeder_release(feeder *f)
{
    exec_release(f->exec);
    exec_arena_release(f->arena);
    graph_release(f->graph);
    *f = (feeder){ 0 };
}

/* Names the caches of the single-token graph so that the chunk graph uses them too. */
static gt_status share_caches(generate_stage *s)
{
    const int count = graph_value_count(s->single.graph);
    int n = 0;
    s->bindings = calloc((size_t)count + 1, sizeof *s->bindings);
    if (!s->bindings)
        return gt_fail(GT_NO_MEMORY, "cannot generate: no memory for the bindings of %d values", count);
    for (int i = 0; i < count; i++) {
        const graph_value *v = graph_value_at(s->single.graph, i);
        if (v->role == GRAPH_STATE)
            s->bindings[n++] = (exec_binding){ v->name, exec_buffer(s->single.exec, v->name) };
    }
    return GT_OK;
}

/* Both graphs, over caches of s->positions. */
static gt_status make_feeders(generate_stage *s)
{
    gt_status st = feeder_create(s, &s->single, 1);
    if (!st && s->positions > GENERATE_CHUNK)
        st = share_caches(s);
    return st || s->positions <= GENERATE_CHUNK ? st : feeder_create(s, &s->chunk, GENERATE_CHUNK);
}

static void drop_feeders(generate_stage *s)
{
    feeder_release(&s->chunk);
    feeder_release(&s->single);
    free(s->bindings);
    s->bindings = NULL;
}

void generate_stage_freeze(model_config *c)
{
    snprintf(c->tuning.freeze, sizeof c->tuning.freeze, "*");
}

static size_t row_bytes(const generate_stage *s)
{
    return (size_t)s->config.channels * dtype_size(kernel_set_storage(s->kernels));
}

static gt_status make_inbox(generate_stage *s)
{
    for (int i = 0; !has_embedding(s) && i < SLOTS; i++)
        if (!(s->slot[i].x = calloc(GENERATE_CHUNK, row_bytes(s))))
            return gt_fail(GT_NO_MEMORY, "cannot generate: no memory for %d rows of activations", GENERATE_CHUNK);
    return GT_OK;
}

gt_status generate_stage_create(generate_stage **out, dev_device *d, const model_config *c, const graph_part *part,
                                dtype storage, const char *gemm, int positions, params *p)
{
    *out = NULL;
    generate_stage *s = calloc(1, sizeof *s);
    if (!s)
        return gt_fail(GT_NO_MEMORY, "cannot generate: no memory for a stage");
    s->device = d;
    s->config = *c;
    s->part = *part;
    s->params = p;
    s->owns_params = !p;
    if (!p)
        generate_stage_freeze(&s->config);
    s->positions = positions;
    gt_status st = kernel_set_create(&s->kernels, d, storage);
    if (!st)
        st = gemm_context_create(&s->gemm, d, gemm);
    if (!st)
        st = make_feeders(s);
    if (!st)
        st = make_inbox(s);
    if (st) {
        generate_stage_release(s);
        return st;
    }
    *out = s;
    return GT_OK;
}

/* Nothing is under way in the memory of slots any more. */
static gt_status settle(generate_stage *s)
{
    gt_status st = dev_wait(s->device);
    for (int i = 0; i < SLOTS; i++) {
        const gt_status arrived = dev_event_wait(s->slot[i].arrived), written = dev_event_wait(s->slot[i].written);
        s->slot[i].arrived = s->slot[i].written = NULL;
        st = st ? st : arrived ? arrived : written;
    }
    return st;
}

void generate_stage_release(generate_stage *s)
{
    if (!s)
        return;
    if (settle(s))
        gt_message_clear();
    drop_feeders(s);
    if (s->owns_params)
        params_release(s->params);
    gemm_context_release(s->gemm);
    kernel_set_release(s->kernels);
    for (int i = 0; i < SLOTS; i++)
        free(s->slot[i].x);
    free(s);
}

params *generate_stage_params(generate_stage *s)
{
    return s->params;
}

gt_status generate_stage_refresh(generate_stage *s)
{
    return params_refresh(s->params, s->kernels);
}

gt_status generate_stage_resize(generate_stage *s, int positions)
{
    gt_status st = settle(s);
    if (st)
        return st;
    drop_feeders(s);
    s->positions = positions;
    return make_feeders(s);
}

/* ---- running it ------------------------------------------------------------------------------------ */

static feeder *feeder_of(generate_stage *s, const generate_piece *piece)
{
    return piece->chunk ? &s->chunk : &s->single;
}

/* What the stage reads: where the piece begins, and its tokens or what came of them in the stage in front. */
static gt_status take(generate_stage *s, feeder *f, slot *in, const generate_piece *piece)
{
    const size_t rest = (size_t)(f->T - piece->count);
    dev_buffer *first = exec_buffer(f->exec, "first");
    gt_status st = dev_event_wait(in->written);
    in->written = NULL;
    if (!st) {
        st = dev_event_wait(in->arrived);
        in->arrived = NULL;
    }
    if (st)
        return st;
    in->first = piece->first;
    if (first)
        st = dev_write_start(s->device, first, 0, &in->first, sizeof in->first, NULL);
    const void *from = in->x;
    uint64_t bytes = (uint64_t)f->T * row_bytes(s);
    if (has_embedding(s)) {
        memcpy(in->tokens, piece->ids, (size_t)piece->count * sizeof *piece->ids);
        memset(in->tokens + piece->count, 0, rest * sizeof *piece->ids);
        from = in->tokens;
        bytes = (uint64_t)f->T * sizeof *in->tokens;
    }
    dev_buffer *to = exec_buffer(f->exec, has_embedding(s) ? "tokens" : "x");
    return st ? st : dev_write_start(s->device, to, 0, from, bytes, piece->last ? NULL : &in->written);
}

gt_status generate_stage_feed(generate_stage *s, const generate_piece *piece, generate_stage *next)
{
    feeder *f = feeder_of(s, piece);
    slot *in = &s->slot[s->fed++ % SLOTS];
    gt_status st = take(s, f, in, piece);
    if (!st)
        st = exec_run(f->exec, EXEC_FORWARD);
    if (st || !next)
        return st;
    slot *out = &next->slot[next->fed % SLOTS];
    st = dev_event_wait(out->written);
    out->written = NULL;
    dev_buffer *y = exec_value(f->exec, graph_ends_of(f->graph).y);
    return st ? st : dev_read_start(s->device, y, 0, out->x, (uint64_t)f->T * row_bytes(s), &out->arrived);
}

gt_status generate_stage_logits(generate_stage *s, const generate_piece *piece, float *logits)
{
    const uint64_t row = sizeof *logits * (uint64_t)s->config.vocab;
    return dev_read(s->device, exec_buffer(feeder_of(s, piece)->exec, "logits"), (uint64_t)(piece->count - 1) * row,
                    logits, row);
}
