/* SPDX-License-Identifier: MIT */
/* models/block.c - what the graphs of all families are built of: see block.h. */
#include "models/block.h"

#include "models/lora.h"

#include <math.h>
#include <stdio.h>

int block_has_embedding(const builder *b)
{
    return b->part.first_unit == 0;
}

int block_has_head(const builder *b)
{
    return b->part.first_unit + b->part.units == model_units(b->c);
}

float block_drop(const builder *b, float p)
{
    return b->train ? p : 0.0f;
}

/* ---- what a rank of a tensor group holds ----------------------------------------------------- */

tensor_slice block_own(const builder *b, int dim, int parts, int64_t count, int64_t quantum)
{
    tensor_slice s = { .dim = dim, .parts = parts, .full = count };
    if (b->part.ranks < 2)
        return (tensor_slice){ 0 };
    if (!quantum)
        quantum = count >= 64 * b->part.ranks ? 16 : 1;
    graph_part_of(&b->part, count, quantum, b->part.rank, &s.begin, &s.count);
    return s;
}

tensor_slice block_whole(void)
{
    return (tensor_slice){ 0 };
}

tensor_slice block_own_tokens(const builder *b)
{
    return block_own(b, 0, 1, b->c->vocab, 0);
}

/* There must be a head, a column and a row of the vocabulary for each rank. */
static gt_status check_split(const builder *b)
{
    const model_config *c = b->c;
    const int ranks = b->part.ranks;
    const struct {
        int count;
        const char *what;
    } things[] = { { c->heads, "heads" }, { c->inner, "inner columns" }, { c->vocab, "tokens" } };
    gt_status st = graph_part_check(&b->part);
    for (int i = 0; !st && i < 3; i++)
        if (things[i].count < ranks)
            st = gt_fail(GT_MISUSE,
                         "cannot split '%s' over %d ranks: it has %d %s, and every rank "
                         "needs one; use a smaller --tensor",
                         c->name, ranks, things[i].count, things[i].what);
    return st;
}

/* ---- parameters and layers -------------------------------------------------------------------- */

int block_weight(const builder *b, const char *prefix, const char *name, int64_t out, int64_t in, tensor_slice held,
                 float deviation)
{
    char text[BLOCK_NAME];
    snprintf(text, sizeof text, "%s%s.weight", prefix, name);
    return graph_param_sliced(b->g, text, shape_of(2, out, in), &held, GRAPH_INIT_NORMAL, deviation);
}

int block_vector(const builder *b, const char *prefix, const char *name, int64_t n, tensor_slice held, graph_init init)
{
    char text[BLOCK_NAME];
    snprintf(text, sizeof text, "%s%s", prefix, name);
    return graph_param_sliced(b->g, text, shape_of(1, n), &held, init, 0.0f);
}

void block_elsewhere(const builder *b, const char *prefix, const char *name, const char *part)
{
    char text[2 * BLOCK_NAME];
    snprintf(text, sizeof text, "%s%s%s", prefix, name, part);
    graph_param_elsewhere(b->g, text);
}

int block_layernorm(const builder *b, const char *prefix, const char *name, int x)
{
    char label[BLOCK_NAME], part[BLOCK_NAME];
    snprintf(label, sizeof label, "%s%s", prefix, name);
    snprintf(part, sizeof part, "%s.weight", name);
    int gain = block_vector(b, prefix, part, b->c->channels, block_whole(), GRAPH_INIT_ONE);
    snprintf(part, sizeof part, "%s.bias", name);
    int bias = block_vector(b, prefix, part, b->c->channels, block_whole(), GRAPH_INIT_ZERO);
    return graph_layernorm(b->g, label, x, gain, bias, b->c->eps);
}

/* What is done to a product on its way out. */
typedef struct epilogue {
    float deviation;            /* the weights begin with */
    tensor_slice bias;          /* what is held of it     */
    activation act;
    int residual;               /* -1: none               */
    float drop;
} epilogue;

/* The one place where activations meet a matrix of weights. */
static int block_multiply(const builder *b, const block_matrix *m, const char *label, int x, const epilogue *e)
{
    char part[BLOCK_NAME];
    int v = -1;
    snprintf(part, sizeof part, "%s.bias", m->name);
    int w = block_weight(b, m->prefix, m->name, m->out, m->in, m->held, e->deviation);
    if (m->bias)
        v = block_vector(b, m->prefix, part, m->out, e->bias, GRAPH_INIT_ZERO);
    if (lora_joined(b->c, label)) {
        const lora_site of = {
            .label = label, .x = x, .w = w, .out = m->out, .in = m->in, .held = m->held, .train = b->train
        };
        int y = graph_linear(b->g, label, x, w, v, ACT_NONE, -1, 0.0f);
        y = graph_activation(b->g, label, lora_add_pieces(b->g, b->c, &of, y), e->act);
        y = graph_dropout(b->g, label, y, e->drop);
        return e->residual < 0 ? y : graph_add(b->g, label, y, e->residual);
    }
    if (!lora_has(b->c, label))
        return graph_linear(b->g, label, x, w, v, e->act, e->residual, e->drop);
    const lora_site at = {
        .label = label, .x = x, .w = w, .out = m->out, .in = m->in, .held = m->held, .train = b->train
    };
    const graph_low_rank low = lora_low_rank(b->g, b->c, &at);
    if (!b->c->tuning.dora)
        return graph_linear_low_rank(b->g, label, x, w, &low, v, e->act, e->residual, e->drop);
    int y = graph_linear_low_rank(b->g, label, x, w, &low, -1, ACT_NONE, -1, 0.0f);
    y = graph_activation(b->g, label, lora_scaled(b->g, b->c, &at, &low, y, v), e->act);
    y = graph_dropout(b->g, label, y, e->drop);
    return e->residual < 0 ? y : graph_add(b->g, label, y, e->residual);
}

int block_linear(const builder *b, const block_matrix *m, int x, activation act)
{
    const epilogue e = { .deviation = m->deviation > 0.0f ? m->deviation : b->c->init_deviation,
                         .bias = m->held,
                         .act = act,
                         .residual = -1 };
    char label[BLOCK_NAME];
    snprintf(label, sizeof label, "%s%s", m->prefix, m->name);
    return block_multiply(b, m, label, x, &e);
}

/* Rank 0 alone adds the bias; all drop alike what they add, which is the same as dropping the sum. */
int block_project(const builder *b, const block_matrix *m, int x, int residual)
{
    const int split = b->part.ranks > 1;
    const float narrow = b->c->init_deviation / sqrtf(2.0f * (float)b->c->layers);
    const epilogue e = { .deviation = m->deviation > 0.0f ? m->deviation : narrow,
                         .bias = block_whole(),
                         .residual = split ? -1 : residual,
                         .drop = block_drop(b, b->c->dropout_residual) };
    block_matrix own = *m;
    char label[BLOCK_NAME];
    snprintf(label, sizeof label, "%s%s", m->prefix, m->name);
    own.bias = m->bias && b->part.rank == 0;
    if (m->bias && !own.bias)
        block_elsewhere(b, m->prefix, m->name, ".bias");
    int y = block_multiply(b, &own, label, x, &e);
    if (!split)
        return y;
    y = graph_scatter_rows(b->g, label, y);
    return graph_add(b->g, label, y, residual);
}

/* The first position that each token may see, i32 (B,T). */
static int block_starts(const builder *b)
{
    return graph_input(b->g, "starts", DTYPE_I32, shape_of(2, (int64_t)graph_batch(b->g), (int64_t)graph_tokens(b->g)));
}

int block_attention(const builder *b, const char *prefix, const char *name, const graph_attention_in *in,
                    const graph_heads *how)
{
    char label[BLOCK_NAME], part[BLOCK_NAME];
    snprintf(label, sizeof label, "%s%s", prefix, name);
    if (!b->capacity && b->c->documents && how->causal)
        return graph_attention_within(b->g, label, in, how, block_starts(b));
    if (!b->capacity)
        return graph_attention(b->g, label, in, how, -1);
    const shape s = shape_of(4, (int64_t)graph_batch(b->g), (int64_t)how->kv_heads, (int64_t)b->capacity,
                             (int64_t)how->size);
    snprintf(part, sizeof part, "%skeys", prefix);
    int keys = graph_state(b->g, part, s);
    snprintf(part, sizeof part, "%svalues", prefix);
    int values = graph_state(b->g, part, s);
    return graph_attention_cached(b->g, label, in, how, keys, values, b->first);
}

int block_tokens(const builder *b)
{
    return graph_input(b->g, "tokens", DTYPE_I32, shape_of(2, (int64_t)graph_batch(b->g), (int64_t)graph_tokens(b->g)));
}

void block_head(const builder *b, const char *name, int x, int table)
{
    const int64_t B = graph_batch(b->g), T = graph_tokens(b->g);
    if (b->capacity) {
        graph_logits(b->g, "logits", x, table);
        return;
    }
    int targets = graph_input(b->g, "targets", DTYPE_I32, shape_of(2, B, T));
    int weights = b->c->weighted ? graph_input(b->g, "weights", DTYPE_F32, shape_of(2, B, T)) : -1;
    x = graph_gather_rows(b->g, name, x);
    graph_head_loss(b->g, "loss", x, table, targets, weights);
}

/* ---- the frame ----------------------------------------------------------------------------------- */

/* The activations that come from the stage before. */
static int stage_input(const builder *b)
{
    const int64_t B = graph_batch(b->g), T = graph_tokens(b->g), C = b->c->channels;
    return graph_stage_input(b->g, "x", b->part.ranks > 1 ? shape_of(2, graph_rows(b->g), C) : shape_of(3, B, T, C));
}

static gt_status check_part(const builder *b, int last)
{
    const model_config *c = b->c;
    if (graph_tokens(b->g) > c->context)
        return gt_fail(GT_MISUSE, "cannot build '%s' for sequences of %d tokens: it has %d positions", c->name,
                       graph_tokens(b->g), c->context);
    if (b->part.first_unit < 0 || b->part.units < 1 || last > c->layers + 1)
        return gt_fail(GT_MISUSE, "cannot build units %d to %d of '%s': it has %d", b->part.first_unit, last, c->name,
                       model_units(c));
    return check_split(b);
}

static builder builder_of(graph *g, const model_config *c)
{
    builder b = { .g = g, .c = c, .part = { .units = model_units(c), .ranks = 1 }, .first = -1 };
    for (int i = 0; i < BLOCK_TABLES; i++)
        b.tables[i] = -1;
    return b;
}

/* Builds the units of b->part. Returns the activations behind the last of them; *input are those that come in,
 * -1 where it begins with the embedding. */
static int build_units(builder *b, const block_stack *stack, int *input)
{
    const int first = b->part.first_unit, last = first + b->part.units - 1, end = b->c->layers + 1;
    int x;
    *input = -1;
    if (stack->begin)
        stack->begin(b);
    if (first == 0)
        x = graph_scatter_rows(b->g, "embed", stack->embed(b));
    else
        x = *input = stage_input(b);
    if (first == 0 && stack->embedded)
        x = stack->embedded(b, x);
    for (int unit = first; unit <= last; unit++)
        if (unit > 0 && unit < end) {
            graph_layer(b->g, unit - 1);
            x = stack->layer(b, unit - 1, x);
        }
    graph_layer(b->g, -1);
    if (last == end)
        stack->head(b, x);
    return x;
}

gt_status block_build_part(graph *g, const model_config *c, const graph_part *part, int train, int recompute,
                           const block_stack *stack)
{
    builder b = builder_of(g, c);
    int input;
    b.train = train;
    b.part.first_unit = part->first_unit;
    b.part.units = part->units;
    if (part->ranks > 1)
        b.part = *part;
    gt_status st = check_part(&b, part->first_unit + part->units - 1);
    if (st)
        return st;
    graph_split(g, &b.part);
    const int x = build_units(&b, stack, &input);
    return train ? graph_backward(g, block_has_head(&b) ? -1 : x, input, recompute) : graph_failed(g);
}

gt_status block_build_generate(graph *g, const model_config *c, const graph_part *part, int capacity,
                               const block_stack *stack)
{
    builder b = builder_of(g, c);
    int input;
    b.part.first_unit = part->first_unit;
    b.part.units = part->units;
    b.capacity = capacity;
    gt_status st = check_part(&b, part->first_unit + part->units - 1);
    if (st)
        return st;
    b.first = graph_input(g, "first", DTYPE_I32, shape_of(1, (int64_t)1));
    build_units(&b, stack, &input);
    return graph_failed(g);
}
