/* SPDX-License-Identifier: MIT */
/* host/graph/op_attention.c - softmax attention, its gradient, and attention to a cache of earlier keys. */
#include "host/graph/ops_private.h"

#include <math.h>
#include <string.h>

typedef struct attention_attributes {
    int heads, causal;
    int first_head, all_heads;          /* of the whole layer, of which some ranks hold some */
    float scale;
    ops_drop drop;
} attention_attributes;

static attention_attributes attributes_of(const graph_node *n)
{
    attention_attributes a;
    graph_attributes_get(n, &a, sizeof a);
    return a;
}

static int attentions_alike(const graph_node *n, const graph_node *m)
{
    const attention_attributes a = attributes_of(n), b = attributes_of(m);
    return a.heads == b.heads && a.causal == b.causal && (a.drop.p > 0.0f) == (b.drop.p > 0.0f);
}

static const kernel_dropout *drop_of(launch_context *c, const attention_attributes *a, int random,
                                     kernel_dropout *room)
{
    if (!ops_dropout_of(c, a->drop, random, room))
        return NULL;
    room->first_head = a->first_head;
    room->heads = a->all_heads;
    return room;
}

static gt_status attention_launch(launch_context *c, const graph_node *n)
{
    const attention_attributes a = attributes_of(n);
    kernel_dropout room;
    const shape *s = &value(c->g, n->out[0])->shape;
    return kernel_attention(c->list, c->kernels, (int)s->dim[0], (int)s->dim[1], (int)s->dim[2],
                            a.heads, a.causal, a.scale, drop_of(c, &a, n->in[1], &room),
                            c->buffer(c, n->in[0]), c->buffer(c, n->out[0]),
                            c->buffer(c, n->out[1]));
}

static gt_status attention_grad_launch(launch_context *c, const graph_node *n)
{
    const attention_attributes a = attributes_of(n);
    kernel_dropout room;
    const shape *s = &value(c->g, n->in[1])->shape;
    return kernel_attention_grad(c->list, c->kernels, (int)s->dim[0], (int)s->dim[1],
                                 (int)s->dim[2], a.heads, a.causal, a.scale,
                                 drop_of(c, &a, n->in[4], &room), c->buffer(c, n->in[0]),
                                 c->buffer(c, n->in[1]), c->buffer(c, n->in[2]),
                                 c->buffer(c, n->in[3]), c->buffer(c, n->out[0]), c->scratch);
}

static gt_status attention_grad_scratch(launch_context *c, const graph_node *n, uint64_t *bytes)
{
    const shape *s = &value(c->g, n->in[1])->shape;
    *bytes = kernel_attention_scratch(c->kernels, (int)s->dim[0], (int)s->dim[1], (int)s->dim[2],
                                      attributes_of(n).heads);
    return GT_OK;
}

/* Two products of T x T x D a head forward, five backward; half of each if causal. */
static double attention_products(const graph *g, const graph_node *n, int out, double products)
{
    const shape *s = &value(g, out)->shape;
    return 2.0 * products * (double)s->dim[0] * (double)s->dim[1] * (double)s->dim[1]
           * (double)s->dim[2] * (attributes_of(n).causal ? 0.5 : 1.0);
}

static double attention_flops(const graph *g, const graph_node *n)
{
    return attention_products(g, n, n->out[0], 2.0);
}

static double attention_grad_flops(const graph *g, const graph_node *n)
{
    return attention_products(g, n, n->in[1], 5.0);
}

static gt_status attention_cached_launch(launch_context *c, const graph_node *n)
{
    const shape *s = &value(c->g, n->out[0])->shape;
    return kernel_attention_cached(c->list, c->kernels, (int)s->dim[0], (int)s->dim[1],
                                   (int)s->dim[2], attributes_of(n).heads,
                                   (int)value(c->g, n->in[1])->shape.dim[2], attributes_of(n).scale,
                                   c->buffer(c, n->in[3]), c->buffer(c, n->in[0]),
                                   c->buffer(c, n->in[1]), c->buffer(c, n->in[2]),
                                   c->buffer(c, n->out[0]));
}

static const graph_op op_attention_grad = {
    .name = "attention grad",
    .launch = attention_grad_launch, .flops = attention_grad_flops,
    .scratch = attention_grad_scratch, .alike = attentions_alike,
};

static void attention_backward(graph *g, const graph_node *n)
{
    int dout = graph_grad(g, n->out[0]), qkv = n->in[0];
    if (dout < 0)
        return;
    int dqkv = graph_value_add(g, n->name, GRAPH_ACTIVATION, g->storage, value(g, qkv)->shape);
    graph_node *b = graph_node_add(g, &op_attention_grad, GRAPH_INPUT_GRAD, n->name);
    if (!b)
        return;
    b->in[0] = graph_saved(g, qkv);
    b->in[1] = graph_saved(g, n->out[0]);
    b->in[2] = graph_saved(g, n->out[1]);
    b->in[3] = dout;
    b->in[4] = n->in[1];
    b->out[0] = dqkv;
    memcpy(b->attributes, n->attributes, sizeof b->attributes);
    graph_grad_put(g, qkv, dqkv, n->name);
}

static const graph_op op_attention = {
    .name = "attention",
    .launch = attention_launch, .backward = attention_backward, .flops = attention_flops,
    .alike = attentions_alike,
};
static const graph_op op_attention_cached = {
    .name = "attention cached",
    .launch = attention_cached_launch, .flops = ops_no_flops, .alike = attentions_alike,
};

/* (B,T,3C) -> C, or 0 with a failure recorded. */
static int64_t attention_width(graph *g, const char *name, int qkv, int heads)
{
    if (!graph_has(g, name, qkv, 0))
        return 0;
    int64_t width = columns_of(&g->values[qkv]);
    if (heads < 1 || width % (3 * (int64_t)heads) != 0) {
        graph_fail_build(g, gt_fail(GT_MISUSE, "cannot build '%s': %lld channels do not divide "
                                    "into %d heads", name, (long long)width / 3, heads));
        return 0;
    }
    return width / 3;
}

static float attention_scale(float scale, int64_t C, int heads)
{
    return scale > 0.0f ? scale : 1.0f / sqrtf((float)(C / heads));
}

int graph_attention(graph *g, const char *name, int qkv, int heads, int causal, float scale,
                    float drop)
{
    return graph_attention_part(g, name, qkv, heads, 0, heads, causal, scale, drop);
}

int graph_attention_part(graph *g, const char *name, int qkv, int heads, int first_head,
                         int all_heads, int causal, float scale, float drop)
{
    int64_t C = attention_width(g, name, qkv, heads);
    if (!C)
        return -1;
    char part[80];
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage,
                            shape_of(3, (int64_t)g->B, (int64_t)g->T, C));
    snprintf(part, sizeof part, "%.60s.lse", name);
    int lse = graph_value_add(g, part, GRAPH_ACTIVATION, DTYPE_F32,
                              shape_of(3, (int64_t)g->B, (int64_t)heads, (int64_t)g->T));
    int random = drop > 0.0f ? ops_random_input(g) : -1;
    graph_node *n = graph_node_add(g, &op_attention, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = qkv;
    n->in[1] = random;
    n->out[0] = y;
    n->out[1] = lse;
    const attention_attributes a = { .heads = heads, .first_head = first_head, .all_heads = all_heads,
                                     .causal = causal, .scale = attention_scale(scale, C, heads),
                                     .drop = ops_drop_next(g, drop) };
    graph_attributes_set(n, &a, sizeof a);
    return y;
}

int graph_attention_cached(graph *g, const char *name, int qkv, int heads, int keys, int values,
                           int first, float scale)
{
    int64_t C = attention_width(g, name, qkv, heads);
    if (!C || keys < 0 || values < 0 || first < 0)
        return -1;
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage,
                            shape_of(3, (int64_t)g->B, (int64_t)g->T, C));
    graph_node *n = graph_node_add(g, &op_attention_cached, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = qkv;
    n->in[1] = keys;
    n->in[2] = values;
    n->in[3] = first;
    n->out[0] = y;
    const attention_attributes a = { .heads = heads, .all_heads = heads, .causal = 1,
                                     .scale = attention_scale(scale, C, heads) };
    graph_attributes_set(n, &a, sizeof a);
    return y;
}

const graph_op *const graph_attention_ops[] = { &op_attention, &op_attention_grad, &op_attention_cached, NULL };
