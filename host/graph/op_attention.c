/* SPDX-License-Identifier: MIT */
/* host/graph/op_attention.c - softmax attention, its gradient, and attention to a cache of earlier keys. */
#include "host/attention/attention.h"
#include "host/graph/ops_private.h"

#include <math.h>
#include <string.h>

enum { Q, K, V, RANDOM, MASK, FORWARD_INPUTS };       /* in[] of all three operations begins so */

typedef struct attention_attributes {
    graph_heads how;
    int32_t first[3];                   /* columns of q, k, v in their values */
    uint32_t stream;
    int32_t starts;                     /* 1: in[MASK] is where queries begin to see, not lengths */
} attention_attributes;

static attention_attributes attributes_of(const graph_node *n)
{
    attention_attributes a;
    graph_attributes_get(n, &a, sizeof a);
    return a;
}

static int attentions_alike(const graph_node *n, const graph_node *m)
{
    const graph_heads a = attributes_of(n).how, b = attributes_of(m).how;
    return a.heads == b.heads && a.kv_heads == b.kv_heads && a.size == b.size && a.causal == b.causal
           && a.window == b.window && attributes_of(n).starts == attributes_of(m).starts
           && (a.drop > 0.0f) == (b.drop > 0.0f) && (n->in[MASK] < 0) == (m->in[MASK] < 0);
}

static const kernel_dropout *drop_of(launch_context *c, const graph_node *n, kernel_dropout *room)
{
    const attention_attributes a = attributes_of(n);
    if (!ops_dropout_of(c, (ops_drop){ a.how.drop, a.stream }, n->in[RANDOM], room))
        return NULL;
    room->first_head = a.how.first_head;
    room->heads = a.how.all_heads;
    return room;
}

/* out: the value of (B,T,heads * size). */
static kernel_attention_shape shape_at(const graph *g, const graph_node *n, int out)
{
    const graph_heads how = attributes_of(n).how;
    const shape *s = &value(g, out)->shape;
    return (kernel_attention_shape){
        .B = (int)s->dim[0],
        .T = (int)s->dim[1],
        .H = how.heads,
        .KV = how.kv_heads,
        .D = how.size,
        .causal = how.causal,
        .window = how.window,
        .scale = how.scale
    };
}

/* The same with what hides keys. */
static kernel_attention_shape masked_shape_at(launch_context *c, const graph_node *n, int out)
{
    kernel_attention_shape s = shape_at(c->g, n, out);
    *(attributes_of(n).starts ? &s.starts : &s.lengths) = c->buffer(c, n->in[MASK]);
    return s;
}

/* q, k and v in these values, which lie as the forward's do. */
static kernel_attention_in heads_in(launch_context *c, const graph_node *n, const int values[3])
{
    const attention_attributes a = attributes_of(n);
    kernel_heads h[3];
    for (int i = 0; i < 3; i++)
        h[i] = (kernel_heads){ c->buffer(c, values[i]), a.first[i], C_of(c->g, values[i]) };
    return (kernel_attention_in){ h[Q], h[K], h[V] };
}

static gt_status attention_launch(launch_context *c, const graph_node *n)
{
    kernel_dropout room;
    const kernel_attention_shape s = masked_shape_at(c, n, n->out[0]);
    const attention_how how = { c->gemm, c->kernels, &s, drop_of(c, n, &room) };
    const kernel_attention_in in = heads_in(c, n, n->in);
    return attention_forward(c->list, &how, &in, c->buffer(c, n->out[0]), c->buffer(c, n->out[1]), c->scratch);
}

/* in: q, k, v, random, mask, out, log-sum-exp, dout; out: gradients of the values that q, k and v are in,
 * which may be one value. */
enum { OUT = FORWARD_INPUTS, LSE, DOUT };

static gt_status attention_grad_launch(launch_context *c, const graph_node *n)
{
    kernel_dropout room;
    int to[3];
    for (int i = 0; i < 3; i++) {
        int same = 0;
        while (n->in[same] != n->in[i])
            same++;
        to[i] = n->out[same];
    }
    const kernel_attention_shape s = masked_shape_at(c, n, n->in[OUT]);
    const attention_how how = { c->gemm, c->kernels, &s, drop_of(c, n, &room) };
    const kernel_attention_in in = heads_in(c, n, n->in), d = heads_in(c, n, to);
    return attention_grad(c->list, &how, &in, c->buffer(c, n->in[OUT]), c->buffer(c, n->in[LSE]),
                          c->buffer(c, n->in[DOUT]), &d, c->scratch);
}

/* Buffers may not be there yet: of dropout it matters only whether there is any. out: as for shape_at(). */
static gt_status scratch_of(launch_context *c, const graph_node *n, int out, int gradient, uint64_t *bytes)
{
    kernel_dropout room;
    const kernel_attention_shape s = shape_at(c->g, n, out);
    const attention_how how = { c->gemm, c->kernels, &s, drop_of(c, n, &room) };
    return attention_scratch(&how, gradient, bytes);
}

static const char *engine_of(launch_context *c, const graph_node *n, int out, int gradient)
{
    kernel_dropout room;
    const char *name;
    const kernel_attention_shape s = shape_at(c->g, n, out);
    const attention_how how = { c->gemm, c->kernels, &s, drop_of(c, n, &room) };
    return attention_engine(&how, gradient, &name) ? "?" : name;
}

static gt_status attention_scratch_bytes(launch_context *c, const graph_node *n, uint64_t *bytes)
{
    return scratch_of(c, n, n->out[0], 0, bytes);
}

static const char *attention_engine_name(launch_context *c, const graph_node *n)
{
    return engine_of(c, n, n->out[0], 0);
}

static gt_status attention_grad_scratch_bytes(launch_context *c, const graph_node *n, uint64_t *bytes)
{
    return scratch_of(c, n, n->in[OUT], 1, bytes);
}

static const char *attention_grad_engine_name(launch_context *c, const graph_node *n)
{
    return engine_of(c, n, n->in[OUT], 1);
}

static double attention_flops(const graph *g, const graph_node *n)
{
    const kernel_attention_shape s = shape_at(g, n, n->out[0]);
    return kernel_attention_flops(&s, 0);
}

static double attention_grad_flops(const graph *g, const graph_node *n)
{
    const kernel_attention_shape s = shape_at(g, n, n->in[OUT]);
    return kernel_attention_flops(&s, 1);
}

enum { KEYS = FORWARD_INPUTS, VALUES, FIRST };

static gt_status attention_cached_launch(launch_context *c, const graph_node *n)
{
    const kernel_attention_shape s = shape_at(c->g, n, n->out[0]);
    const kernel_attention_in in = heads_in(c, n, n->in);
    return kernel_attention_cached(c->list, c->kernels, &s, (int)value(c->g, n->in[KEYS])->shape.dim[2],
                                   c->buffer(c, n->in[FIRST]), &in, c->buffer(c, n->in[KEYS]),
                                   c->buffer(c, n->in[VALUES]), c->buffer(c, n->out[0]));
}

static const graph_op op_attention_grad = {
    .name = "attention grad",
    .launch = attention_grad_launch,
    .flops = attention_grad_flops,
    .scratch = attention_grad_scratch_bytes,
    .engine = attention_grad_engine_name,
    .alike = attentions_alike,
};

static void attention_backward(graph *g, const graph_node *n)
{
    int dout = graph_grad(g, n->out[0]), to[3] = { -1, -1, -1 };
    if (dout < 0)
        return;
    for (int i = 0; i < 3; i++)
        if (i == 0 || (n->in[i] != n->in[0] && (i == 1 || n->in[i] != n->in[1])))
            to[i] = graph_value_add(g, n->name, GRAPH_ACTIVATION, g->storage, value(g, n->in[i])->shape);
    graph_node *b = graph_node_add(g, &op_attention_grad, GRAPH_INPUT_GRAD, n->name);
    if (!b)
        return;
    for (int i = 0; i < 3; i++) {
        b->in[i] = graph_saved(g, n->in[i]);
        b->out[i] = to[i];
    }
    b->in[RANDOM] = n->in[RANDOM];
    b->in[MASK] = n->in[MASK];
    b->in[OUT] = graph_saved(g, n->out[0]);
    b->in[LSE] = graph_saved(g, n->out[1]);
    b->in[DOUT] = dout;
    memcpy(b->attributes, n->attributes, sizeof b->attributes);
    for (int i = 0; i < 3; i++)
        graph_grad_put(g, n->in[i], to[i], n->name);
}

static const graph_op op_attention = {
    .name = "attention",
    .launch = attention_launch,
    .backward = attention_backward,
    .flops = attention_flops,
    .scratch = attention_scratch_bytes,
    .engine = attention_engine_name,
    .alike = attentions_alike,
};
static const graph_op op_attention_cached = {
    .name = "attention cached",
    .launch = attention_cached_launch,
    .flops = ops_no_flops,
    .alike = attentions_alike,
};

/* What is given of the value that view i is in, is that all of its columns, and no column twice? */
static int covers(const graph *g, const graph_columns *const in[3], const int64_t width[3], int i)
{
    int64_t sum = 0;
    for (int j = 0; j < 3; j++) {
        if (in[j]->value != in[i]->value)
            continue;
        sum += width[j];
        for (int k = 0; k < j; k++)
            if (in[k]->value == in[j]->value && in[k]->first < in[j]->first + width[j]
                && in[j]->first < in[k]->first + width[k])
                return 0;
        if (in[j]->first < 0 || in[j]->first + width[j] > columns_of(value(g, in[j]->value)))
            return 0;
    }
    return sum == columns_of(value(g, in[i]->value));
}

static int check_in(graph *g, const char *name, const graph_columns *const in[3], const graph_heads *how)
{
    if (how->heads < 1 || how->kv_heads < 1 || how->size < 1 || how->heads % how->kv_heads) {
        graph_fail_build(g, gt_fail(GT_MISUSE,
                                    "cannot build '%s': %d heads of %d columns cannot look at %d "
                                    "heads of keys",
                                    name, how->heads, how->size, how->kv_heads));
        return 0;
    }
    const int64_t kv = (int64_t)how->kv_heads * how->size, width[] = { (int64_t)how->heads * how->size, kv, kv };
    for (int i = 0; i < 3; i++) {
        if (!graph_has(g, name, in[i]->value, 0))
            return 0;
        if (!covers(g, in, width, i)) {
            graph_fail_build(g, gt_fail(GT_MISMATCH,
                                        "cannot build '%s': its heads are not all of the %lld "
                                        "columns of '%s', each once",
                                        name, (long long)columns_of(value(g, in[i]->value)),
                                        value(g, in[i]->value)->name));
            return 0;
        }
    }
    return 1;
}

/* A node with what both forward operations have; NULL after a failure. */
static graph_node *attention_node(graph *g, const char *name, const graph_op *op, const graph_attention_in *in,
                                  const graph_heads *how, int y, int random)
{
    const graph_columns *const each[] = { &in->q, &in->k, &in->v };
    graph_node *n = graph_node_add(g, op, GRAPH_FORWARD, name);
    if (!n)
        return NULL;
    attention_attributes a = { .how = *how };
    for (int i = 0; i < 3; i++) {
        n->in[i] = each[i]->value;
        a.first[i] = (int32_t)each[i]->first;
    }
    n->in[RANDOM] = random;
    n->out[0] = y;
    a.stream = ops_drop_next(g, how->drop).stream;
    if (!(how->scale > 0.0f))
        a.how.scale = 1.0f / sqrtf((float)how->size);
    graph_attributes_set(n, &a, sizeof a);
    return n;
}

static int attention(graph *g, const char *name, const graph_attention_in *in, const graph_heads *how, int mask,
                     int starts)
{
    const graph_columns *const each[] = { &in->q, &in->k, &in->v };
    if (!check_in(g, name, each, how) || (mask >= 0 && !graph_has(g, name, mask, starts ? g->T : g->B)))
        return -1;
    if ((how->window || starts) && (!how->causal || (mask >= 0 && !starts))) {
        graph_fail_build(g, gt_fail(GT_UNSUPPORTED,
                                    "cannot build '%s': attention within a window or documents must be causal, and "
                                    "its sequences without padding",
                                    name));
        return -1;
    }
    char part[80];
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage,
                            shape_of(3, (int64_t)g->B, (int64_t)g->T, (int64_t)how->heads * how->size));
    snprintf(part, sizeof part, "%.60s.lse", name);
    int lse = graph_value_add(g, part, GRAPH_ACTIVATION, DTYPE_F32,
                              shape_of(3, (int64_t)g->B, (int64_t)how->heads, (int64_t)g->T));
    int random = how->drop > 0.0f ? ops_random_input(g) : -1;
    graph_node *n = attention_node(g, name, &op_attention, in, how, y, random);
    if (!n)
        return -1;
    n->in[MASK] = mask;
    n->out[1] = lse;
    attention_attributes a = attributes_of(n);
    a.starts = starts;
    graph_attributes_set(n, &a, sizeof a);
    return y;
}

int graph_attention(graph *g, const char *name, const graph_attention_in *in, const graph_heads *how, int lengths)
{
    return attention(g, name, in, how, lengths, 0);
}

int graph_attention_within(graph *g, const char *name, const graph_attention_in *in, const graph_heads *how, int starts)
{
    return attention(g, name, in, how, starts, starts >= 0);
}

int graph_attention_cached(graph *g, const char *name, const graph_attention_in *in, const graph_heads *how, int keys,
                           int values, int first)
{
    const graph_columns *const each[] = { &in->q, &in->k, &in->v };
    if (keys < 0 || values < 0 || first < 0 || !check_in(g, name, each, how))
        return -1;
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage,
                            shape_of(3, (int64_t)g->B, (int64_t)g->T, (int64_t)how->heads * how->size));
    graph_node *n = attention_node(g, name, &op_attention_cached, in, how, y, -1);
    if (!n)
        return -1;
    n->in[KEYS] = keys;
    n->in[VALUES] = values;
    n->in[FIRST] = first;
    return y;
}

const graph_op *const graph_attention_ops[] = { &op_attention, &op_attention_grad, &op_attention_cached, NULL };
