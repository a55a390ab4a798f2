/* SPDX-License-Identifier: MIT */
/* host/graph/op_linear.c - y = dropout(act(x w' + bias)) + residual: a product and what its epilogue does.
 *
 * Fused here: the input gradient of a linear layer whose input came straight out of
 * another linear layer's activation multiplies by the activation's derivative in its epilogue, so the
 * gradient of the activation itself is never stored. Where several linear layers read one input, each
 * adds its gradient to that of those before it in its epilogue.                                 */
#include "host/graph/ops_private.h"

typedef struct linear_attributes {
    activation act;
    ops_drop drop;
} linear_attributes;

static linear_attributes attributes_of(const graph_node *n)
{
    linear_attributes a;
    graph_attributes_get(n, &a, sizeof a);
    return a;
}

static int linear_gemm(const graph *g, const graph_node *n, gemm_desc *d)
{
    const linear_attributes a = attributes_of(n);
    const dtype s = g->storage;
    *d = (gemm_desc){
        .M = R_of(g, n->in[0]),
        .N = C_of(g, n->out[0]),
        .K = C_of(g, n->in[0]),
        .trans_b = 1,
        .a_type = s,
        .b_type = s,
        .c_type = s,
        .bias = n->in[2] >= 0,
        .act = a.act,
        .residual = n->in[3] >= 0,
        .drop_p = a.drop.p,
        .drop_stream = a.drop.stream,
        .drop_sequence = count_of(g, n->out[0]) / g->B
    };
    return 1;
}

static gt_status linear_launch(launch_context *c, const graph_node *n)
{
    gemm_desc d;
    linear_gemm(c->g, n, &d);
    gemm_buffers b = { .a = c->buffer(c, n->in[0]),
                       .b = c->buffer(c, n->in[1]),
                       .c = c->buffer(c, n->out[0]),
                       .bias = c->buffer(c, n->in[2]),
                       .pre = c->buffer(c, n->out[1]),
                       .residual = c->buffer(c, n->in[3]),
                       .random = c->buffer(c, n->in[4]),
                       .scratch = c->scratch };
    return gemm_append(c->gemm, c->list, &d, &b, NULL);
}

static int linear_input_grad_gemm(const graph *g, const graph_node *n, gemm_desc *d)
{
    const dtype s = g->storage;
    *d = (gemm_desc){ .M = R_of(g, n->in[0]),
                      .N = C_of(g, n->in[1]),
                      .K = C_of(g, n->in[0]),
                      .a_type = s,
                      .b_type = s,
                      .c_type = s,
                      .residual = n->in[3] >= 0,
                      .act_grad = attributes_of(n).act };
    return 1;
}

static gt_status linear_input_grad_launch(launch_context *c, const graph_node *n)
{
    gemm_desc d;
    linear_input_grad_gemm(c->g, n, &d);
    gemm_buffers b = { .a = c->buffer(c, n->in[0]),
                       .b = c->buffer(c, n->in[1]),
                       .c = c->buffer(c, n->out[0]),
                       .aux = c->buffer(c, n->in[2]),
                       .residual = c->buffer(c, n->in[3]),
                       .scratch = c->scratch };
    return gemm_append(c->gemm, c->list, &d, &b, NULL);
}

static int linear_weight_grad_gemm(const graph *g, const graph_node *n, gemm_desc *d)
{
    const dtype s = g->storage;
    *d = (gemm_desc){ .M = C_of(g, n->in[0]),
                      .N = C_of(g, n->in[1]),
                      .K = R_of(g, n->in[0]),
                      .trans_a = 1,
                      .a_type = s,
                      .b_type = s,
                      .c_type = DTYPE_F32 };
    return 1;
}

static gt_status linear_weight_grad_launch(launch_context *c, const graph_node *n)
{
    gemm_desc d;
    linear_weight_grad_gemm(c->g, n, &d);
    int changes;
    d.add = c->add(c, n->out[0], &changes);
    gemm_buffers b = {
        .a = c->buffer(c, n->in[0]), .b = c->buffer(c, n->in[1]), .c = c->buffer(c, n->out[0]), .scratch = c->scratch
    };
    gemm_slot slot;
    gt_status st = gemm_append(c->gemm, c->list, &d, &b, changes ? &slot : NULL);
    return st || !changes ? st : c->remember(c, slot.launch, slot.arg);
}

static gt_status bias_grad_launch(launch_context *c, const graph_node *n)
{
    int changes, add = c->add(c, n->out[0], &changes);
    kernel_slot slot;
    gt_status st = kernel_bias_grad(c->list, c->kernels, R_of(c->g, n->in[0]), C_of(c->g, n->in[0]),
                                    c->buffer(c, n->in[0]), c->buffer(c, n->out[0]), c->scratch, add, &slot);
    return st ? st : remember(c, changes, slot);
}

static gt_status bias_grad_scratch(launch_context *c, const graph_node *n, uint64_t *bytes)
{
    *bytes = kernel_column_scratch(c->kernels, R_of(c->g, n->in[0]), C_of(c->g, n->in[0]), 1);
    return GT_OK;
}

static double bias_grad_flops(const graph *g, const graph_node *n)
{
    return (double)count_of(g, n->in[0]);
}

static int linears_alike(const graph_node *n, const graph_node *m)
{
    const linear_attributes a = attributes_of(n), b = attributes_of(m);
    return a.act == b.act && (a.drop.p > 0.0f) == (b.drop.p > 0.0f) && (n->in[3] < 0) == (m->in[3] < 0);
}

static void linear_backward(graph *g, const graph_node *n);

static const graph_op op_linear = {
    .name = "linear",
    .launch = linear_launch,
    .backward = linear_backward,
    .flops = ops_gemm_flops,
    .scratch = ops_gemm_scratch,
    .gemm = linear_gemm,
    .alike = linears_alike,
};
static const graph_op op_linear_input_grad = {
    .name = "linear input grad",
    .launch = linear_input_grad_launch,
    .flops = ops_gemm_flops,
    .scratch = ops_gemm_scratch,
    .gemm = linear_input_grad_gemm,
    .alike = linears_alike,
};
static const graph_op op_linear_weight_grad = {
    .name = "linear weight grad",
    .launch = linear_weight_grad_launch,
    .flops = ops_gemm_flops,
    .scratch = ops_gemm_scratch,
    .gemm = linear_weight_grad_gemm,
};
static const graph_op op_bias_grad = {
    .name = "bias grad",
    .launch = bias_grad_launch,
    .flops = bias_grad_flops,
    .scratch = bias_grad_scratch,
};

/* The node whose activation made x, if a gradient of x may be multiplied by its derivative on the way:
 * nothing but node n reads x, and nothing was done to it behind the activation. */
static const graph_node *activated_by(const graph *g, int x)
{
    const graph_node *from = graph_producer(g, x);
    int readers = 0;                                    /* in forward */
    if (!from || from->op != &op_linear || from->in[3] >= 0 || graph_grad(g, x) >= 0)
        return NULL;
    const linear_attributes a = attributes_of(from);
    if (a.act == ACT_NONE || a.drop.p > 0.0f)
        return NULL;
    for (int i = 0; i < g->node_count; i++)
        for (int j = 0; j < NODE_INPUTS; j++)
            readers += g->nodes[i].phase == GRAPH_FORWARD && g->nodes[i].in[j] == x;
    return readers == 1 ? from : NULL;
}

static void input_grad(graph *g, const graph_node *n, int dy)
{
    const int x = n->in[0];
    const graph_node *from = activated_by(g, x);
    const activation act = from ? attributes_of(from).act : ACT_NONE;
    const int pre = from ? graph_saved(g, from->out[1]) : -1;
    int dx = graph_value_add(g, n->name, GRAPH_ACTIVATION, g->storage, value(g, x)->shape);
    graph_node *i = graph_node_add(g, &op_linear_input_grad, GRAPH_INPUT_GRAD, n->name);
    if (!i)
        return;
    i->in[0] = dy;
    i->in[1] = n->in[1];
    i->in[2] = pre;
    i->in[3] = graph_grad(g, x);            /* of others that read x; none if it is multiplied by act' */
    i->out[0] = dx;
    const linear_attributes a = { .act = act };
    graph_attributes_set(i, &a, sizeof a);
    g->grad_is_pre[x] = act != ACT_NONE;
    g->grad[x] = dx;
}

static void linear_backward(graph *g, const graph_node *n)
{
    const linear_attributes a = attributes_of(n);
    int dy = graph_grad(g, n->out[0]);
    const int x = n->in[0], w = n->in[1];
    if (dy < 0)
        return;
    if (n->in[3] >= 0)
        graph_grad_put(g, n->in[3], dy, n->name);
    if (a.drop.p > 0.0f)
        dy = emit_dropout(g, n->name, GRAPH_INPUT_GRAD, dy, n->in[4], a.drop);
    if (a.act != ACT_NONE && !g->grad_is_pre[n->out[0]])
        dy = emit_activation_grad(g, n->name, a.act, dy, graph_saved(g, n->out[1]));
    if (value(g, x)->role == GRAPH_ACTIVATION || value(g, x)->stage_input)
        input_grad(g, n, dy);
    int dw = graph_param_grad(g, w);
    graph_node *wn = graph_node_add(g, &op_linear_weight_grad, GRAPH_WEIGHT_GRAD, n->name);
    if (!wn)
        return;
    wn->in[0] = dy;
    wn->in[1] = graph_saved(g, x);
    wn->out[0] = dw;
    if (n->in[2] < 0)
        return;
    int db = graph_param_grad(g, n->in[2]);
    graph_node *bn = graph_node_add(g, &op_bias_grad, GRAPH_WEIGHT_GRAD, n->name);
    if (!bn)
        return;
    bn->in[0] = dy;
    bn->out[0] = db;
}

int graph_linear(graph *g, const char *name, int x, int w, int bias, activation act, int residual, float drop)
{
    if (!graph_has(g, name, x, 0) || !graph_has(g, name, w, columns_of(&g->values[x])))
        return -1;
    int64_t N = g->values[w].shape.dim[0];
    shape s = g->values[x].shape;
    s.dim[s.rank - 1] = N;
    if ((bias >= 0 && !graph_has(g, name, bias, N)) || (residual >= 0 && !graph_has(g, name, residual, N)))
        return -1;
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage, s), pre = -1, random = -1;
    if (act != ACT_NONE) {
        char part[80];
        snprintf(part, sizeof part, "%.60s.pre", name);
        pre = graph_value_add(g, part, GRAPH_ACTIVATION, g->storage, s);
    }
    if (drop > 0.0f)
        random = ops_random_input(g);
    graph_node *n = graph_node_add(g, &op_linear, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = x;
    n->in[1] = w;
    n->in[2] = bias;
    n->in[3] = residual;
    n->in[4] = random;
    n->out[0] = y;
    n->out[1] = pre;
    const linear_attributes a = { act, ops_drop_next(g, drop) };
    graph_attributes_set(n, &a, sizeof a);
    return y;
}

const graph_op *const graph_linear_ops[] = { &op_linear, &op_linear_input_grad, &op_linear_weight_grad, &op_bias_grad,
                                             NULL };
