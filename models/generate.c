/* SPDX-License-Identifier: MIT */
/* models/generate.c - two graphs over the same parameters and caches: one takes a chunk of
 * the prompt at once, the other a single token.
 *
 *   prompt of 70   [ 32 ][ 32 ][1][1][1][1][1][1]  -> logits -> sample -> [1] -> ...
 */
#include "models/generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 32

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
    feeder chunk, single;               /* chunk.graph NULL if the context is short */
    exec_binding *bindings;             /* the caches of `single`, for `chunk` */
    uint32_t *history;                  /* what the caches hold, at most context ids */
    int position;
    float *logits;
    int *order;                         /* scratch for top-k */
    int *drawn;                         /* the ids that may be drawn, ascending */
    int drawn_count;
};

static gt_status feeder_create(generate *g, feeder *f, int T)
{
    f->T = T;
    gt_status st = graph_create(&f->graph, kernel_set_storage(g->kernels), 1, T);
    if (!st)
        st = model_build_generate(f->graph, &g->config, g->config.context);
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

gt_status generate_create(generate **out, dev_device *d, const model_config *c, dtype storage, const char *gemm)
{
    *out = NULL;
    generate *g = calloc(1, sizeof *g);
    if (!g)
        return gt_fail(GT_NO_MEMORY, "cannot generate: no memory for the state");
    g->device = d;
    g->config = *c;
    g->history = malloc((size_t)c->context * sizeof *g->history);
    g->logits = malloc((size_t)c->vocab * sizeof *g->logits);
    g->order = malloc((size_t)c->vocab * sizeof *g->order);
    g->drawn = malloc((size_t)c->vocab * sizeof *g->drawn);
    for (int i = 0; g->drawn && i < c->vocab; i++)
        g->drawn[g->drawn_count++] = i;
    gt_status st = g->history && g->logits && g->order && g->drawn
                       ? GT_OK
                       : gt_fail(GT_NO_MEMORY, "cannot generate: no memory for the logits of %d tokens", c->vocab);
    if (!st)
        st = kernel_set_create(&g->kernels, d, storage);
    if (!st)
        st = gemm_context_create(&g->gemm, d, gemm);
    if (!st)
        st = feeder_create(g, &g->single, 1);
    if (!st && c->context > CHUNK) {
        st = share_caches(g);
        if (!st)
            st = feeder_create(g, &g->chunk, CHUNK);
    }
    if (st) {
        generate_release(g);
        return st;
    }
    *out = g;
    return GT_OK;
}

void generate_release(generate *g)
{
    if (!g)
        return;
    if (dev_wait(g->device))
        gt_message_clear();
    feeder_release(&g->chunk);
    feeder_release(&g->single);
    params_release(g->params);
    gemm_context_release(g->gemm);
    kernel_set_release(g->kernels);
    free(g->bindings);
    free(g->history);
    free(g->logits);
    free(g->order);
    free(g->drawn);
    free(g);
}

gt_status generate_allow(generate *g, const unsigned char *may)
{
    g->drawn_count = 0;
    for (int i = 0; i < g->config.vocab; i++)
        if (may[i])
            g->drawn[g->drawn_count++] = i;
    return g->drawn_count ? GT_OK : gt_fail(GT_MISUSE, "cannot generate: no token may be drawn");
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

/* Feeds f->T tokens at the current position; fetches the last logits if `want`. */
static gt_status feed_some(generate *g, feeder *f, const uint32_t *ids, int want)
{
    const size_t bytes = (size_t)f->T * sizeof(int32_t);
    const uint64_t row = 4 * (uint64_t)g->config.vocab;
    const int32_t first = g->position;
    gt_status st = dev_write(g->device, exec_buffer(f->exec, "tokens"), 0, ids, bytes);
    if (!st)
        st = dev_write(g->device, exec_buffer(f->exec, "first"), 0, &first, sizeof first);
    if (!st)
        st = exec_run(f->exec, EXEC_FORWARD);
    if (!st && want)
        st = dev_read(g->device, exec_buffer(f->exec, "logits"), (uint64_t)(f->T - 1) * row, g->logits, row);
    if (!st) {
        memcpy(g->history + g->position, ids, bytes);
        g->position += f->T;
    }
    return st;
}

/* Starts over with the last half of a full context. */
static gt_status slide(generate *g)
{
    const int keep = g->config.context / 2;
    uint32_t *tail = malloc(((size_t)keep + 1) * sizeof *tail);
    if (!tail)
        return gt_fail(GT_NO_MEMORY, "cannot generate: no memory for %d tokens", keep);
    memcpy(tail, g->history + g->position - keep, (size_t)keep * sizeof *tail);
    g->position = 0;
    gt_status st = generate_feed(g, tail, (size_t)keep);
    free(tail);
    return st;
}

gt_status generate_feed(generate *g, const uint32_t *ids, size_t count)
{
    gt_status st = GT_OK;
    for (size_t i = 0; i < count; i++)
        if (ids[i] >= (uint32_t)g->config.vocab)
            return gt_fail(GT_MISMATCH, "token %u is not among the model's %d", ids[i], g->config.vocab);
    while (!st && count) {
        if (g->position == g->config.context)
            st = slide(g);
        const int chunk = g->chunk.exec && count >= (size_t)g->chunk.T && g->position + g->chunk.T <= g->config.context;
        feeder *f = chunk ? &g->chunk : &g->single;
        if (!st)
            st = feed_some(g, f, ids, count == (size_t)f->T);
        ids += f->T;
        count -= (size_t)f->T;
    }
    return st;
}

static int by_logit(const void *a, const void *b, void *logits)
{
    const int x = *(const int *)a, y = *(const int *)b;
    const float *z = logits;
    if (z[x] != z[y])
        return z[x] < z[y] ? 1 : -1;
    return x < y ? -1 : x > y;
}

/* Softmax over the `count` likeliest of the tokens that may be drawn, at a temperature, and one of
 * them by `unit`. */
static uint32_t pick(generate *g, int count, double temperature, double unit)
{
    memcpy(g->order, g->drawn, (size_t)g->drawn_count * sizeof *g->order);
    if (count < g->drawn_count)
        qsort_r(g->order, (size_t)g->drawn_count, sizeof *g->order, by_logit, g->logits);
    double most = -INFINITY, sum = 0.0, reached = 0.0;
    for (int i = 0; i < count; i++)
        most = fmax(most, (double)g->logits[g->order[i]]);
    for (int i = 0; i < count; i++)
        sum += exp(((double)g->logits[g->order[i]] - most) / temperature);
    for (int i = 0; i < count; i++) {
        reached += exp(((double)g->logits[g->order[i]] - most) / temperature) / sum;
        if (unit < reached)
            return (uint32_t)g->order[i];
    }
    return (uint32_t)g->order[count - 1];
}

gt_status generate_next(generate *g, const generate_sampling *s, gt_random *r, uint32_t *id)
{
    const int D = g->drawn_count;
    int best = g->drawn[0];
    if (!g->position)
        return gt_fail(GT_MISUSE, "cannot generate from nothing: the prompt is empty");
    for (int i = 0; i < g->config.vocab; i++)
        if (!isfinite(g->logits[i]))
            return gt_fail(GT_NUMERIC, "the model's output is not finite; are its weights whole?");
    for (int i = 0; i < D; i++)
        if (g->logits[g->drawn[i]] > g->logits[best])
            best = g->drawn[i];
    *id = (uint32_t)best;
    if (s->temperature > 0.0)
        *id = pick(g, s->top_k > 0 && s->top_k < D ? s->top_k : D, s->temperature, (double)gt_random_unit(r));
    return generate_feed(g, id, 1);
}
