/* SPDX-License-Identifier: MIT */
/* models/gpt2.c - GPT-2 and GPT-3 as graphs.
 *
 *   x = wte[token] + wpe[position]
 *   layer:  x = x + attn(ln_1(x));   x = x + mlp(ln_2(x))          pre-norm residual stream
 *   loss = cross-entropy(ln_f(x) wte', target)                      tied head, or lm_head for wte
 *
 * Radford et al., "Language models are unsupervised multitask learners" (2019); Brown et
 * al., "Language models are few-shot learners" (2020). GPT-3's sparse layers are dense
 * here: the paper does not publish their pattern's parameters.
 * Residual additions are epilogues of the projections, so the stream is never read twice.
 *
 * Over the ranks of a tensor group:
 *   x (own rows) -ln- gather -[ qkv of own heads, attention | own inner columns ]- c_proj - scatter
 *   + x;   each has own rows of the vocabulary for embedding and loss                     */
#include "models/model_private.h"

#include <math.h>
#include <stdio.h>

typedef struct layer_caches { int keys, values; } layer_caches;

/* A model or a part of it, being built. */
typedef struct builder {
    graph *g;
    const model_config *c;
    graph_part part;            /* ranks 1: not split                              */
    int train;
} builder;

/* ---- what a rank of a tensor group holds ----------------------------------------------------- */

/* Of `count` columns or rows; pieces of 16 keep matrices aligned where there are enough to share. */
static tensor_slice own(const builder *b, int dim, int parts, int64_t count, int64_t quantum)
{
    tensor_slice s = { .dim = dim, .parts = parts, .full = count };
    if (b->part.ranks < 2)
        return (tensor_slice){ 0 };
    if (!quantum)
        quantum = count >= 64 * b->part.ranks ? 16 : 1;
    graph_part_of(&b->part, count, quantum, b->part.rank, &s.begin, &s.count);
    return s;
}

static tensor_slice whole(void)
{
    return (tensor_slice){ 0 };
}

/* There must be a head, a column and a row of the vocabulary for each rank. */
static gt_status check_split(const builder *b)
{
    const model_config *c = b->c;
    const int ranks = b->part.ranks;
    const struct { int count; const char *what; } things[] = {
        { c->heads, "heads" }, { c->inner, "inner columns" }, { c->vocab, "tokens" } };
    gt_status st = graph_part_check(&b->part);
    for (int i = 0; !st && i < 3; i++)
        if (things[i].count < ranks)
            st = gt_fail(GT_MISUSE, "cannot split '%s' over %d ranks: it has %d %s, and every rank "
                         "needs one; use a smaller --tensor", c->name, ranks, things[i].count,
                         things[i].what);
    return st;
}

/* ---- parameters and layers -------------------------------------------------------------------- */

static int weight(const builder *b, const char *prefix, const char *name, int64_t out, int64_t in,
                  tensor_slice held, float deviation)
{
    char text[64];
    snprintf(text, sizeof text, "%s%s.weight", prefix, name);
    return graph_param_sliced(b->g, text, shape_of(2, out, in), &held, GRAPH_INIT_NORMAL, deviation);
}

static int vector(const builder *b, const char *prefix, const char *name, int64_t n,
                  tensor_slice held, graph_init init)
{
    char text[64];
    snprintf(text, sizeof text, "%s%s", prefix, name);
    return graph_param_sliced(b->g, text, shape_of(1, n), &held, init, 0.0f);
}

static int norm(const builder *b, const char *prefix, const char *name, int x)
{
    char label[64], part[32];
    snprintf(label, sizeof label, "%s%s", prefix, name);
    snprintf(part, sizeof part, "%s.weight", name);
    int gain = vector(b, prefix, part, b->c->channels, whole(), GRAPH_INIT_ONE);
    snprintf(part, sizeof part, "%s.bias", name);
    int bias = vector(b, prefix, part, b->c->channels, whole(), GRAPH_INIT_ZERO);
    return graph_layernorm(b->g, label, x, gain, bias, b->c->eps);
}

/* Every rank has some of the `out` columns of all rows. */
static int linear(const builder *b, const char *prefix, const char *name, int x, int64_t out,
                  int64_t in, tensor_slice held, graph_act act)
{
    char label[64], part[32];
    snprintf(label, sizeof label, "%s%s", prefix, name);
    snprintf(part, sizeof part, "%s.bias", name);
    int w = weight(b, prefix, name, out, in, held, b->c->init_deviation);
    int v = vector(b, prefix, part, out, held, GRAPH_INIT_ZERO);
    return graph_linear(b->g, label, x, w, v, act, -1, 0.0f);
}

/* x has some of the `in` columns, and the sum over ranks goes back to the residual stream. Rank 0
 * alone adds the bias; all drop alike what they add, which is the same as dropping the sum. */
static int project(const builder *b, const char *prefix, const char *name, int x, int64_t out,
                   int64_t in, tensor_slice held, int residual)
{
    const float narrow = b->c->init_deviation / sqrtf(2.0f * (float)b->c->layers);
    const float drop = b->train ? b->c->dropout_residual : 0.0f;
    char label[64], part[32];
    int v = -1;
    snprintf(label, sizeof label, "%s%s", prefix, name);
    snprintf(part, sizeof part, "%s.bias", name);
    int w = weight(b, prefix, name, out, in, held, narrow);
    if (b->part.rank == 0)
        v = vector(b, prefix, part, out, whole(), GRAPH_INIT_ZERO);
    if (b->part.ranks < 2)
        return graph_linear(b->g, label, x, w, v, GRAPH_ACT_NONE, residual, drop);
    int y = graph_linear(b->g, label, x, w, v, GRAPH_ACT_NONE, -1, drop);
    y = graph_scatter_rows(b->g, label, y);
    return graph_add(b->g, label, y, residual);
}

/* What scores are multiplied by: 1 / sqrt(D), unless the description says otherwise. */
static float attention_scale(const model_config *c, int layer)
{
    const float usual = c->attention_unscaled ? 1.0f : 1.0f / sqrtf((float)(c->channels / c->heads));
    return c->attention_by_layer ? usual / (float)(layer + 1) : usual;
}

/* One layer; `cache` is NULL when whole sequences are processed. */
static int block(const builder *b, int layer, int x, const layer_caches *cache, int first)
{
    const model_config *c = b->c;
    const int64_t C = c->channels, D = C / c->heads;
    const tensor_slice qkv = own(b, 0, 3, C, D), columns = own(b, 0, 1, c->inner, 0);
    const float drop = b->train ? c->dropout_attention : 0.0f, scale = attention_scale(c, layer);
    const int heads = qkv.parts ? (int)(qkv.count / D) : c->heads;
    char prefix[32], label[64];

    graph_layer(b->g, layer);
    snprintf(prefix, sizeof prefix, "h.%d.", layer);
    snprintf(label, sizeof label, "%sattn", prefix);
    int a = graph_gather_rows(b->g, label, norm(b, prefix, "ln_1", x));
    a = linear(b, prefix, "attn.c_attn", a, 3 * C, C, qkv, GRAPH_ACT_NONE);
    a = cache ? graph_attention_cached(b->g, label, a, heads, cache->keys, cache->values, first, scale)
              : graph_attention_part(b->g, label, a, heads, (int)(qkv.begin / D), c->heads, 1, scale,
                                     drop);
    x = project(b, prefix, "attn.c_proj", a, C, C, own(b, 1, 1, C, D), x);

    snprintf(label, sizeof label, "%smlp", prefix);
    a = graph_gather_rows(b->g, label, norm(b, prefix, "ln_2", x));
    a = linear(b, prefix, "mlp.c_fc", a, c->inner, C, columns, GRAPH_ACT_GELU);
    return project(b, prefix, "mlp.c_proj", a, C, c->inner, own(b, 1, 1, c->inner, 0), x);
}

/* The rows of the vocabulary as the head sees them: wte's, unless it has its own. */
static int head_table(const builder *b, int wte)
{
    const model_config *c = b->c;
    return !c->untied_head ? wte : weight(b, "", "lm_head", c->vocab, c->channels,
                                          own(b, 0, 1, c->vocab, 0), c->init_deviation);
}

/* wte, wpe: values; a rank without positions has wpe -1. */
static int embed(const builder *b, int wte, int wpe)
{
    const int64_t B = graph_batch(b->g), T = graph_tokens(b->g);
    int tokens = graph_input(b->g, "tokens", DTYPE_I32, shape_of(2, B, T));
    int x = graph_embed(b->g, "embed", tokens, wte, wpe, -1);
    x = graph_dropout(b->g, "embed.drop", x, b->train ? b->c->dropout_embed : 0.0f);
    return graph_scatter_rows(b->g, "embed", x);
}

static void head(const builder *b, int x, int table)
{
    const int64_t B = graph_batch(b->g), T = graph_tokens(b->g);
    int targets = graph_input(b->g, "targets", DTYPE_I32, shape_of(2, B, T));
    x = graph_gather_rows(b->g, "ln_f", norm(b, "", "ln_f", x));
    graph_head_loss(b->g, "loss", x, table, targets);
}

/* The activations that come from the stage before. */
static int stage_input(const builder *b)
{
    const int64_t B = graph_batch(b->g), T = graph_tokens(b->g), C = b->c->channels;
    return graph_stage_input(b->g, "x", b->part.ranks > 1 ? shape_of(2, graph_rows(b->g), C)
                                                         : shape_of(3, B, T, C));
}

static gt_status check_part(const builder *b, int last)
{
    const model_config *c = b->c;
    if (graph_tokens(b->g) > c->context)
        return gt_fail(GT_MISUSE, "cannot build '%s' for sequences of %d tokens: it has %d positions",
                       c->name, graph_tokens(b->g), c->context);
    if (b->part.first_unit < 0 || b->part.units < 1 || last > c->layers + 1)
        return gt_fail(GT_MISUSE, "cannot build units %d to %d of '%s': it has %d",
                       b->part.first_unit, last, c->name, model_units(c));
    return check_split(b);
}

gt_status gpt2_build_part(graph *g, const model_config *c, const graph_part *part, int train,
                          int recompute)
{
    builder b = { .g = g, .c = c, .part = *part, .train = train };
    const int first = part->first_unit, last = first + part->units - 1, end = c->layers + 1;
    int wte = -1, wpe = -1, x, input = -1;
    if (b.part.ranks < 2)
        b.part = (graph_part){ .first_unit = first, .units = part->units, .ranks = 1 };
    gt_status st = check_part(&b, last);
    if (st)
        return st;
    graph_split(g, &b.part);
    if (first == 0 || (last == end && !c->untied_head))
        wte = weight(&b, "", "wte", c->vocab, c->channels, own(&b, 0, 1, c->vocab, 0),
                     c->init_deviation);
    if (first == 0 && b.part.rank == 0)
        wpe = weight(&b, "", "wpe", c->context, c->channels, whole(), c->init_deviation);
    if (first == 0)
        x = embed(&b, wte, wpe);
    else
        x = input = stage_input(&b);
    for (int unit = first; unit <= last; unit++)
        if (unit > 0 && unit < end)
            x = block(&b, unit - 1, x, NULL, -1);
    graph_layer(g, -1);
    if (last == end)
        head(&b, x, head_table(&b, wte));
    return train ? graph_backward(g, last == end ? -1 : x, input, recompute) : graph_failed(g);
}

gt_status gpt2_build_generate(graph *g, const model_config *c, int capacity)
{
    const int64_t B = graph_batch(g), T = graph_tokens(g);
    const int64_t H = c->heads, D = c->channels / c->heads;
    int tokens = graph_input(g, "tokens", DTYPE_I32, shape_of(2, B, T));
    int first = graph_input(g, "first", DTYPE_I32, shape_of(1, (int64_t)1));
    const builder b = { .g = g, .c = c, .part = { .ranks = 1 } };
    int wte = weight(&b, "", "wte", c->vocab, c->channels, whole(), c->init_deviation);
    int wpe = weight(&b, "", "wpe", c->context, c->channels, whole(), c->init_deviation);
    int x = graph_embed(g, "embed", tokens, wte, wpe, first);
    for (int layer = 0; layer < c->layers; layer++) {
        char name[48];
        layer_caches cache;
        snprintf(name, sizeof name, "h.%d.keys", layer);
        cache.keys = graph_state(g, name, shape_of(4, B, H, (int64_t)capacity, D));
        snprintf(name, sizeof name, "h.%d.values", layer);
        cache.values = graph_state(g, name, shape_of(4, B, H, (int64_t)capacity, D));
        x = block(&b, layer, x, &cache, first);
    }
    graph_layer(g, -1);
    x = norm(&b, "", "ln_f", x);
    graph_logits(g, "logits", x, head_table(&b, wte));
    return graph_failed(g);
}
