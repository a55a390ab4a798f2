/* SPDX-License-Identifier: MIT */
/* models/generate.c - two graphs over the same parameters and caches: one takes a chunk of
 * the prompt at once, the other a single token.
 *
 *   prompt of 70   [ 32 ][ 32 ][ 6 and padding ]  -> logits -> sample -> [1] -> ...
 *
 * What a chunk puts into the caches for its padding is never looked at: the next tokens take its place,
 * and a token sees none behind it. */
#include "models/generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 32
/* Positions that caches begin with; they double as the text grows, up to the model's context, which may be a
 * hundred times as long as any text. */
#define ROOM 1024
#define FEW 3                           /* tokens that one by one are faster than a chunk */

typedef struct feeder {
    graph *graph;
    exec_arena *arena;
    exec *exec;
    int T;
} feeder;

struct generate {
    dev_device *device;
    model_config config;
    kernel_set *kernels;
    gemm_context *gemm;
    params *params;
    int owns_params;
    feeder chunk, single;               /* chunk.graph NULL if the context is short */
    exec_binding *bindings;             /* the caches of `single`, for `chunk` */
    uint32_t *history;                  /* what the caches hold, at most context ids */
    int room, position;                 /* positions the caches have; the next one */
    uint32_t fed[CHUNK];                /* the inputs of what was queued last  */
    int32_t first;
    int queued;                         /* 1: nobody has waited for that yet   */
    float *logits;
    unsigned char *seen;                /* [id] it was fed */
    sampling *sampling;
};

static gt_status feeder_create(generate *g, feeder *f, int T)
{
    f->T = T;
    gt_status st = graph_create(&f->graph, kernel_set_storage(g->kernels), 1, T);
    if (!st)
        st = model_build_generate(f->graph, &g->config, g->room);
    if (!st && !g->params)
        st = params_create(&g->params, g->device, f->graph, 0);
    if (!st)
        st = exec_arena_create(&f->arena, g->device);
    exec_options o = { .device = g->device,
                       .kernels = g->kernels,
                       .gemm = g->gemm,
                       .params = g->params,
                       .arena = f->arena,
                       .bindings = g->bindings };
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
static gt_status share_caches(generate *g)
{
    const int count = graph_value_count(g->single.graph);
    int n = 0;
    g->bindings = calloc((size_t)count + 1, sizeof *g->bindings);
    if (!g->bindings)
        return gt_fail(GT_NO_MEMORY, "cannot generate: no memory for the bindings of %d values", count);
    for (int i = 0; i < count; i++) {
        const graph_value *v = graph_value_at(g->single.graph, i);
        if (v->role == GRAPH_STATE)
            g->bindings[n++] = (exec_binding){ v->name, exec_buffer(g->single.exec, v->name) };
    }
    return GT_OK;
}

/* Both graphs, over caches of g->room positions. */
static gt_status make_feeders(generate *g)
{
    gt_status st = feeder_create(g, &g->single, 1);
    if (!st && g->room > CHUNK)
        st = share_caches(g);
    return st || g->room <= CHUNK ? st : feeder_create(g, &g->chunk, CHUNK);
}

gt_status generate_create_over(generate **out, dev_device *d, const model_config *c, dtype storage, const char *gemm,
                               params *p)
{
    *out = NULL;
    generate *g = calloc(1, sizeof *g);
    if (!g)
        return gt_fail(GT_NO_MEMORY, "cannot generate: no memory for the state");
    g->device = d;
    g->config = *c;
    g->params = p;
    g->owns_params = !p;
    g->room = c->context < ROOM ? c->context : ROOM;
    g->history = malloc((size_t)c->context * sizeof *g->history);
    g->logits = malloc((size_t)c->vocab * sizeof *g->logits);
    g->seen = calloc((size_t)c->vocab, 1);
    gt_status st = g->history && g->logits && g->seen
                       ? sampling_create(&g->sampling, c->vocab)
                       : gt_fail(GT_NO_MEMORY, "cannot generate: no memory for the logits of %d tokens", c->vocab);
    if (!st)
        st = kernel_set_create(&g->kernels, d, storage);
    if (!st)
        st = gemm_context_create(&g->gemm, d, gemm);
    if (!st)
        st = make_feeders(g);
    if (st) {
        generate_release(g);
        return st;
    }
    *out = g;
    return GT_OK;
}

gt_status generate_create(generate **out, dev_device *d, const model_config *c, dtype storage, const char *gemm)
{
    return generate_create_over(out, d, c, storage, gemm, NULL);
}

void generate_release(generate *g)
{
    if (!g)
        return;
    if (dev_wait(g->device))
        gt_message_clear();
    feeder_release(&g->chunk);
    feeder_release(&g->single);
    if (g->owns_params)
        params_release(g->params);
    gemm_context_release(g->gemm);
    kernel_set_release(g->kernels);
    free(g->bindings);
    free(g->history);
    free(g->logits);
    free(g->seen);
    sampling_release(g->sampling);
    free(g);
}

gt_status generate_allow(generate *g, const unsigned char *may)
{
    return sampling_allow(g->sampling, may);
}

params *generate_params(generate *g)
{
    return g->params;
}

gt_status generate_refresh(generate *g)
{
    return params_refresh(g->params, g->kernels);
}

const float *generate_logits(const generate *g)
{
    return g->logits;
}

void generate_restart(generate *g)
{
    g->position = 0;
    memset(g->seen, 0, (size_t)g->config.vocab);
}

/* Feeds `count` tokens at the current position, padded to f->T; fetches the last logits if `want`. */
static gt_status feed_some(generate *g, feeder *f, const uint32_t *ids, int count, int want)
{
    const uint64_t row = 4 * (uint64_t)g->config.vocab;
    gt_status st = GT_OK;
    if (g->queued)                      /* its inputs may still be read */
        st = dev_wait(g->device);
    g->first = g->position;
    memcpy(g->fed, ids, (size_t)count * sizeof *ids);
    memset(g->fed + count, 0, (size_t)(f->T - count) * sizeof *ids);
    if (!st)
        st = dev_write_start(g->device, exec_buffer(f->exec, "tokens"), 0, g->fed, (size_t)f->T * sizeof(int32_t),
                             NULL);
    if (!st)
        st = dev_write_start(g->device, exec_buffer(f->exec, "first"), 0, &g->first, sizeof g->first, NULL);
    if (!st)
        st = exec_run(f->exec, EXEC_FORWARD);
    if (!st && want)
        st = dev_read(g->device, exec_buffer(f->exec, "logits"), (uint64_t)(count - 1) * row, g->logits, row);
    g->queued = !want;                  /* to read is to wait */
    if (!st) {
        memcpy(g->history + g->position, ids, (size_t)count * sizeof *ids);
        g->position += count;
    }
    return st;
}

/* Feeds the last `keep` tokens again, from the first position on. */
static gt_status feed_again(generate *g, int keep)
{
    uint32_t *tail = malloc(((size_t)keep + 1) * sizeof *tail);
    if (!tail)
        return gt_fail(GT_NO_MEMORY, "cannot generate: no memory for %d tokens", keep);
    memcpy(tail, g->history + g->position - keep, (size_t)keep * sizeof *tail);
    g->position = 0;
    gt_status st = generate_feed(g, tail, (size_t)keep);
    free(tail);
    return st;
}

/* Caches for `count` more tokens, or for as many as there can be; what they hold is computed again. */
static gt_status grow(generate *g, size_t count)
{
    const int64_t twice = 2 * (int64_t)g->room, all = g->position + (int64_t)count, most = g->config.context;
    const int64_t want = all > twice ? all : twice;
    gt_status st = dev_wait(g->device);
    if (st)
        return st;
    feeder_release(&g->chunk);
    feeder_release(&g->single);
    free(g->bindings);
    g->bindings = NULL;
    g->room = (int)(want < most ? want : most);
    st = make_feeders(g);
    return st || !g->position ? st : feed_again(g, g->position);
}

gt_status generate_feed(generate *g, const uint32_t *ids, size_t count)
{
    gt_status st = GT_OK;
    for (size_t i = 0; i < count; i++)
        if (ids[i] >= (uint32_t)g->config.vocab)
            return gt_fail(GT_MISMATCH, "token %u is not among the model's %d", ids[i], g->config.vocab);
    for (size_t i = 0; i < count; i++)
        g->seen[ids[i]] = 1;
    while (!st && count) {
        if (g->position == g->config.context)           /* full: on with its last half */
            st = feed_again(g, g->config.context / 2);
        if (!st && (size_t)g->position + count > (size_t)g->room && g->room < g->config.context)
            st = grow(g, count);
        if (st)
            break;
        const int chunk = g->chunk.exec && count > FEW && g->position + g->chunk.T <= g->room;
        feeder *f = chunk ? &g->chunk : &g->single;
        const int some = count < (size_t)f->T ? (int)count : f->T;
        if (!st)
            st = feed_some(g, f, ids, some, count == (size_t)some);
        ids += some;
        count -= (size_t)some;
    }
    return st;
}

gt_status generate_next(generate *g, const sampling_rule *s, gt_random *r, uint32_t *id)
{
    if (!g->position)
        return gt_fail(GT_MISUSE, "cannot generate from nothing: the prompt is empty");
    for (int i = 0; i < g->config.vocab; i++)
        if (!isfinite(g->logits[i]))
            return gt_fail(GT_NUMERIC, "the model's output is not finite; are its weights whole?");
    const double unit = s->temperature > 0.0 ? (double)gt_random_unit(r) : 0.0;
    *id = sampling_pick(g->sampling, s, g->logits, g->seen, unit);
    return generate_feed(g, id, 1);
}
