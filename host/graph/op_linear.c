/* SPDX-License-Identifier: MIT */
/* host/graph/op_linear.c - y = dropout(act(x w' + bias)) + residual: a product and what its epilogue does.
 *
 * Fused here: the input gradient of a linear layer whose input came straight out of
 * another linear layer's activation multiplies by the activation's derivative in its epilogue, so the
 * gradient of the activation itself is never stored. Where several linear layers read one input, each
 * adds its gradient to that of those before it in its epilogue.                                 */
#include "host/graph/ops_private.h"
#include "host/tensor/q8.h"

/* Inputs of a linear node; of an input gradient dy, w, aux and what reached x already. */
enum { X, W, BIAS, RESIDUAL, RANDOM, LOW_H, LOW_B };
enum { DY, GRAD_W, AUX, REACHED };

typedef struct linear_attributes {
    activation act;
    ops_drop drop;
    float scale;                /* of the low-rank part, and of gradients through it; 0: 1 */
} linear_attributes;

dtype ops_weights(const graph *g, int w, int *first)
{
    const graph_value *v = value(g, w);
    const graph_param_info *p = v->type == DTYPE_Q8 ? &g->params[v->param] : NULL;
    *first = p ? q8_of(&p->shape, &p->slice).first : 0;
    return v->type;
}

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
    d->b_type = ops_weights(g, n->in[W], &d->b_first);
    return 1;
}

/* The low-rank part; only adds to what is there. */
static void low_rank_gemm(const graph *g, const graph_node *n, gemm_desc *d)
{
    linear_gemm(g, n, d);
    d->b_type = ops_weights(g, n->in[LOW_B], &d->b_first);
    d->K = C_of(g, n->in[LOW_H]);
    d->alpha = attributes_of(n).scale;
    d->add = 1;
}

/* The product that comes first where two are added up. */
static void first_gemm(const graph *g, const graph_node *n, gemm_desc *d)
{
    linear_gemm(g, n, d);
    d->bias = d->residual = 0;
    d->act = ACT_NONE;
    d->drop_p = 0.0f;
}

static void linear_gemms(const graph *g, const graph_node *n, void (*each)(void *context, const gemm_desc *d),
                         void *context)
{
    gemm_desc d;
    if (n->in[LOW_B] < 0) {
        linear_gemm(g, n, &d);
        each(context, &d);
        return;
    }
    first_gemm(g, n, &d);
    each(context, &d);
    low_rank_gemm(g, n, &d);
    each(context, &d);
}

static gt_status linear_launch(launch_context *c, const graph_node *n)
{
    gemm_desc d;
    gemm_buffers b = { .a = c->buffer(c, n->in[X]),
                       .c = c->buffer(c, n->out[0]),
                       .b = c->buffer(c, n->in[W]),
                       .bias = c->buffer(c, n->in[BIAS]),
                       .pre = c->buffer(c, n->out[1]),
                       .residual = c->buffer(c, n->in[RESIDUAL]),
                       .random = c->buffer(c, n->in[RANDOM]),
                       .scratch = c->scratch };
    linear_gemm(c->g, n, &d);
    if (n->in[LOW_B] < 0)
        return gemm_append(c->gemm, c->list, &d, &b, NULL);
    first_gemm(c->g, n, &d);
    gt_status st = gemm_append(c->gemm, c->list, &d, &b, NULL);
    if (st)
        return st;
    low_rank_gemm(c->g, n, &d);
    b.a = c->buffer(c, n->in[LOW_H]);
    b.b = c->buffer(c, n->in[LOW_B]);
    return gemm_append(c->gemm, c->list, &d, &b, NULL);
}

static gt_status linear_scratch(launch_context *c, const graph_node *n, uint64_t *bytes)
{
    gemm_desc d;
    uint64_t more = 0;
    linear_gemm(c->g, n, &d);
    if (n->in[LOW_B] >= 0)
        first_gemm(c->g, n, &d);
    gt_status st = gemm_scratch(c->gemm, &d, bytes);
    if (!st && n->in[LOW_B] >= 0) {
        low_rank_gemm(c->g, n, &d);
        st = gemm_scratch(c->gemm, &d, &more);
    }
    *bytes = *bytes > more ? *bytes : more;
    return st;
}

static double linear_flops(const graph *g, const graph_node *n)
{
    const double low = n->in[LOW_B] < 0 ? 0.0 : 2.0 * (double)count_of(g, n->out[0]) * C_of(g, n->in[LOW_H]);
    return ops_gemm_flops(g, n) + low;
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
                      .alpha = attributes_of(n).scale,
                      .act_grad = attributes_of(n).act,
                      .residual = n->in[REACHED] >= 0 };
    d->b_type = ops_weights(g, n->in[GRAD_W], &d->b_first);
    return 1;
}

static gt_status linear_input_grad_launch(launch_context *c, const graph_node *n)
{
    gemm_desc d;
    linear_input_grad_gemm(c->g, n, &d);
    gemm_buffers b = { .a = c->buffer(c, n->in[DY]),
                       .b = c->buffer(c, n->in[GRAD_W]),
                       .c = c->buffer(c, n->out[0]),
                       .aux = c->buffer(c, n->in[AUX]),
                       .residual = c->buffer(c, n->in[REACHED]),
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
                      .c_type = DTYPE_F32,
                      .alpha = attributes_of(n).scale,
                      .cold = 1 };
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
    .flops = linear_flops,
    .scratch = linear_scratch,
    .gemm = linear_gemm,
    .gemms = linear_gemms,
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

/* What reaches x through w: dx = scale * dy w, and what has reached it before in the same epilogue. */
static void input_grad(graph *g, const graph_node *n, int dy, int x, int w, float scale)
{
    const graph_node *from = activated_by(g, x);
    const activation act = from ? attributes_of(from).act : ACT_NONE;
    const int pre = from ? graph_saved(g, from->out[1]) : -1, reached = graph_grad(g, x);
    int dx = graph_value_add(g, n->name, GRAPH_ACTIVATION, g->storage, value(g, x)->shape);
    graph_node *i = graph_node_add(g, &op_linear_input_grad, GRAPH_INPUT_GRAD, n->name);
    if (!i)
        return;
    i->in[DY] = dy;
    i->in[GRAD_W] = w;
    i->in[AUX] = pre;
    i->in[REACHED] = reached;
    i->out[0] = dx;
    const linear_attributes a = { .act = act, .scale = scale };
    graph_attributes_set(i, &a, sizeof a);
    g->grad_is_pre[x] = act != ACT_NONE;
    g->grad[x] = dx;
}

/* dw (+)= scale * dy' x. */
static void weight_grad(graph *g, const char *name, int dy, int x, int w, float scale)
{
    int dw = graph_param_grad(g, w);
    graph_node *wn = graph_node_add(g, &op_linear_weight_grad, GRAPH_WEIGHT_GRAD, name);
    if (!wn)
        return;
    wn->in[0] = dy;
    wn->in[1] = graph_saved(g, x);
    wn->out[0] = dw;
    const linear_attributes a = { .scale = scale };
    graph_attributes_set(wn, &a, sizeof a);
}

int emit_bias_grad(graph *g, const char *name, int dy, int bias)
{
    int db = graph_param_grad(g, bias);
    graph_node *bn = graph_node_add(g, &op_bias_grad, GRAPH_WEIGHT_GRAD, name);
    if (!bn)
        return -1;
    bn->in[0] = dy;
    bn->out[0] = db;
    return db;
}

static int takes_gradient(const graph *g, int x)
{
    return value(g, x)->role == GRAPH_ACTIVATION || value(g, x)->stage_input;
}

static void linear_backward(graph *g, const graph_node *n)
{
    const linear_attributes a = attributes_of(n);
    int dy = graph_grad(g, n->out[0]);
    const int x = n->in[X], h = n->in[LOW_H];
    if (dy < 0)
        return;
    if (n->in[RESIDUAL] >= 0)
        graph_grad_put(g, n->in[RESIDUAL], dy, n->name);
    if (a.drop.p > 0.0f)
        dy = emit_dropout(g, n->name, GRAPH_INPUT_GRAD, dy, n->in[RANDOM], a.drop);
    if (a.act != ACT_NONE && !g->grad_is_pre[n->out[0]])
        dy = emit_activation_grad(g, n->name, a.act, dy, graph_saved(g, n->out[1]));
    if (takes_gradient(g, x))
        input_grad(g, n, dy, x, n->in[W], 0.0f);
    if (h >= 0 && takes_gradient(g, h))
        input_grad(g, n, dy, h, n->in[LOW_B], a.scale);
    weight_grad(g, n->name, dy, x, n->in[W], 0.0f);
    if (h >= 0)
        weight_grad(g, n->name, dy, h, n->in[LOW_B], a.scale);
    if (n->in[BIAS] >= 0)
        emit_bias_grad(g, n->name, dy, n->in[BIAS]);
}

int graph_linear(graph *g, const char *name, int x, int w, int bias, activation act, int residual, float drop)
{
    return graph_linear_low_rank(g, name, x, w, NULL, bias, act, residual, drop);
}

/* b (out, rank) fits the rows h of x, and w. */
static int low_rank_fits(graph *g, const char *name, int x, int w, const graph_low_rank *low)
{
    if (!graph_has(g, name, low->h, 0) || !graph_has(g, name, low->b, columns_of(&g->values[low->h])))
        return 0;
    if (g->values[low->b].shape.dim[0] == g->values[w].shape.dim[0]
        && rows_of(&g->values[low->h]) == rows_of(&g->values[x]))
        return 1;
    graph_fail_build(g, gt_fail(GT_MISMATCH, "cannot build '%s': '%s' and '%s' do not fit '%s'", name,
                                g->values[low->h].name, g->values[low->b].name, g->values[w].name));
    return 0;
}

int graph_linear_low_rank(graph *g, const char *name, int x, int w, const graph_low_rank *low, int bias, activation act,
                          int residual, float drop)
{
    if (!graph_has(g, name, x, 0) || !graph_has(g, name, w, columns_of(&g->values[x]))
        || (low && !low_rank_fits(g, name, x, w, low)))
        return -1;
    int64_t N = g->values[w].shape.dim[0];
    shape s = g->values[x].shape;
    s.dim[s.rank - 1] = N;
    if ((bias >= 0 && !graph_has(g, name, bias, N)) || (residual >= 0 && !graph_has(g, name, residual, N)))
        return -1;
    graph_mark_matrix(g, w);
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
    n->in[X] = x;
    n->in[W] = w;
    n->in[BIAS] = bias;
    n->in[RESIDUAL] = residual;
    n->in[RANDOM] = random;
    n->in[LOW_H] = low ? low->h : -1;
    n->in[LOW_B] = low ? low->b : -1;
    n->out[0] = y;
    n->out[1] = pre;
    const linear_attributes a = { act, ops_drop_next(g, drop), low ? low->scale : 0.0f };
    graph_attributes_set(n, &a, sizeof a);
    return y;
}

const graph_op *const graph_linear_ops[] = { &op_linear, &op_linear_input_grad, &op_linear_weight_grad, &op_bias_grad,
                                             NULL };
