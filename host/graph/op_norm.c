/* SPDX-License-Identifier: MIT */
/* host/graph/op_norm.c - layer and root-mean-square normalisation, and their gradients.
 *
 *   x --layernorm(gain, bias)--> y, mean, rstd;   dy --> input grad (+ what reached x around it),
 *                                                       weight grad: dgain, dbias
 *   x --rmsnorm(gain)--> y, rstd, the same way; its rows may be parts of x's               */
#include "host/graph/ops_private.h"

static gt_status layernorm_launch(launch_context *c, const graph_node *n)
{
    float eps;
    graph_attributes_get(n, &eps, sizeof eps);
    return kernel_layernorm(c->list, c->kernels, R_of(c->g, n->in[0]), C_of(c->g, n->in[0]), eps,
                            c->buffer(c, n->in[0]), c->buffer(c, n->in[1]), c->buffer(c, n->in[2]),
                            c->buffer(c, n->out[0]), c->buffer(c, n->out[1]), c->buffer(c, n->out[2]));
}

static gt_status layernorm_input_grad_launch(launch_context *c, const graph_node *n)
{
    return kernel_layernorm_input_grad(c->list, c->kernels, R_of(c->g, n->in[0]), C_of(c->g, n->in[0]),
                                       c->buffer(c, n->in[0]), c->buffer(c, n->in[1]), c->buffer(c, n->in[2]),
                                       c->buffer(c, n->in[3]), c->buffer(c, n->in[4]), c->buffer(c, n->in[5]),
                                       c->buffer(c, n->out[0]));
}

static gt_status layernorm_weight_grad_launch(launch_context *c, const graph_node *n)
{
    int changes, ignored, add = c->add(c, n->out[0], &changes);
    kernel_slot slot;
    c->add(c, n->out[1], &ignored);         /* written by the same launch, so the same answer */
    gt_status st = kernel_layernorm_weight_grad(c->list, c->kernels, R_of(c->g, n->in[0]), C_of(c->g, n->in[0]),
                                                c->buffer(c, n->in[0]), c->buffer(c, n->in[1]), c->buffer(c, n->in[2]),
                                                c->buffer(c, n->in[3]), c->buffer(c, n->out[0]),
                                                c->buffer(c, n->out[1]), c->scratch, add, &slot);
    return st ? st : remember(c, changes, slot);
}

static gt_status layernorm_weight_grad_scratch(launch_context *c, const graph_node *n, uint64_t *bytes)
{
    *bytes = kernel_column_scratch(c->kernels, R_of(c->g, n->in[0]), C_of(c->g, n->in[0]), 2);
    return GT_OK;
}

static double layernorm_flops(const graph *g, const graph_node *n)
{
    return 8.0 * (double)count_of(g, n->in[0]);
}

static const graph_op op_layernorm_input_grad = {
    .name = "layernorm input grad",
    .launch = layernorm_input_grad_launch,
    .flops = layernorm_flops,
};
static const graph_op op_layernorm_weight_grad = {
    .name = "layernorm weight grad",
    .launch = layernorm_weight_grad_launch,
    .flops = layernorm_flops,
    .scratch = layernorm_weight_grad_scratch,
};

static void layernorm_backward(graph *g, const graph_node *n)
{
    int dy = graph_grad(g, n->out[0]), x = n->in[0];
    if (dy < 0)
        return;
    int mean = graph_saved(g, n->out[1]), rstd = graph_saved(g, n->out[2]);
    int dx = graph_value_add(g, n->name, GRAPH_ACTIVATION, value(g, x)->type, value(g, x)->shape);
    graph_node *i = graph_node_add(g, &op_layernorm_input_grad, GRAPH_INPUT_GRAD, n->name);
    if (!i)
        return;
    i->in[0] = dy;
    i->in[1] = graph_saved(g, x);
    i->in[2] = n->in[1];
    i->in[3] = mean;
    i->in[4] = rstd;
    i->in[5] = graph_grad(g, x);            /* what reached x around the norm, if anything */
    i->out[0] = dx;
    g->grad[x] = dx;

    int dgain = graph_param_grad(g, n->in[1]), dbias = graph_param_grad(g, n->in[2]);
    graph_node *w = graph_node_add(g, &op_layernorm_weight_grad, GRAPH_WEIGHT_GRAD, n->name);
    if (!w)
        return;
    w->in[0] = dy;
    w->in[1] = graph_saved(g, x);
    w->in[2] = mean;
    w->in[3] = rstd;
    w->out[0] = dgain;
    w->out[1] = dbias;
}

static const graph_op op_layernorm = {
    .name = "layernorm",
    .launch = layernorm_launch,
    .backward = layernorm_backward,
    .flops = layernorm_flops,
};

int graph_layernorm(graph *g, const char *name, int x, int gain, int bias, float eps)
{
    if (!graph_has(g, name, x, 0))
        return -1;
    shape s = g->values[x].shape;
    int64_t C = columns_of(&g->values[x]), R = rows_of(&g->values[x]);
    if (!graph_has(g, name, gain, C) || !graph_has(g, name, bias, C))
        return -1;
    char part[80];
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage, s);
    snprintf(part, sizeof part, "%.60s.mean", name);
    int mean = graph_value_add(g, part, GRAPH_ACTIVATION, DTYPE_F32, shape_of(1, R));
    snprintf(part, sizeof part, "%.60s.rstd", name);
    int rstd = graph_value_add(g, part, GRAPH_ACTIVATION, DTYPE_F32, shape_of(1, R));
    graph_node *n = graph_node_add(g, &op_layernorm, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = x;
    n->in[1] = gain;
    n->in[2] = bias;
    n->out[0] = y;
    n->out[1] = mean;
    n->out[2] = rstd;
    graph_attributes_set(n, &eps, sizeof eps);
    return y;
}

/* ---- by the root mean square --------------------------------------------------------------------- */

typedef struct rmsnorm_attributes {
    float eps, offset;
    int32_t columns;                    /* of a row: as many as gain has */
} rmsnorm_attributes;

static rmsnorm_attributes rmsnorm_of(const graph_node *n)
{
    rmsnorm_attributes a;
    graph_attributes_get(n, &a, sizeof a);
    return a;
}

static int rmsnorm_rows(const graph *g, const graph_node *n)
{
    return (int)(count_of(g, n->in[0]) / rmsnorm_of(n).columns);
}

static gt_status rmsnorm_launch(launch_context *c, const graph_node *n)
{
    const rmsnorm_attributes a = rmsnorm_of(n);
    return kernel_rmsnorm(c->list, c->kernels, rmsnorm_rows(c->g, n), a.columns, a.eps, a.offset,
                          c->buffer(c, n->in[0]), c->buffer(c, n->in[1]), c->buffer(c, n->out[0]),
                          c->buffer(c, n->out[1]));
}

static gt_status rmsnorm_input_grad_launch(launch_context *c, const graph_node *n)
{
    const rmsnorm_attributes a = rmsnorm_of(n);
    return kernel_rmsnorm_input_grad(c->list, c->kernels, rmsnorm_rows(c->g, n), a.columns, a.offset,
                                     c->buffer(c, n->in[0]), c->buffer(c, n->in[1]), c->buffer(c, n->in[2]),
                                     c->buffer(c, n->in[3]), c->buffer(c, n->in[4]), c->buffer(c, n->out[0]));
}

static gt_status rmsnorm_weight_grad_launch(launch_context *c, const graph_node *n)
{
    int changes, add = c->add(c, n->out[0], &changes);
    kernel_slot slot;
    gt_status st = kernel_rmsnorm_weight_grad(c->list, c->kernels, rmsnorm_rows(c->g, n), rmsnorm_of(n).columns,
                                              c->buffer(c, n->in[0]), c->buffer(c, n->in[1]), c->buffer(c, n->in[2]),
                                              c->buffer(c, n->out[0]), c->scratch, add, &slot);
    return st ? st : remember(c, changes, slot);
}

static gt_status rmsnorm_weight_grad_scratch(launch_context *c, const graph_node *n, uint64_t *bytes)
{
    *bytes = kernel_column_scratch(c->kernels, rmsnorm_rows(c->g, n), rmsnorm_of(n).columns, 1);
    return GT_OK;
}

static double rmsnorm_flops(const graph *g, const graph_node *n)
{
    return 5.0 * (double)count_of(g, n->in[0]);
}

static int rmsnorms_alike(const graph_node *n, const graph_node *m)
{
    return rmsnorm_of(n).columns == rmsnorm_of(m).columns;
}

static const graph_op op_rmsnorm_input_grad = {
    .name = "rmsnorm input grad",
    .launch = rmsnorm_input_grad_launch,
    .flops = rmsnorm_flops,
    .alike = rmsnorms_alike,
};
static const graph_op op_rmsnorm_weight_grad = {
    .name = "rmsnorm weight grad",
    .launch = rmsnorm_weight_grad_launch,
    .flops = rmsnorm_flops,
    .scratch = rmsnorm_weight_grad_scratch,
    .alike = rmsnorms_alike,
};

static void rmsnorm_backward(graph *g, const graph_node *n)
{
    int dy = graph_grad(g, n->out[0]), x = n->in[0];
    const rmsnorm_attributes a = rmsnorm_of(n);
    if (dy < 0)
        return;
    int rstd = graph_saved(g, n->out[1]);
    int dx = graph_value_add(g, n->name, GRAPH_ACTIVATION, value(g, x)->type, value(g, x)->shape);
    graph_node *i = graph_node_add(g, &op_rmsnorm_input_grad, GRAPH_INPUT_GRAD, n->name);
    if (!i)
        return;
    i->in[0] = dy;
    i->in[1] = graph_saved(g, x);
    i->in[2] = n->in[1];
    i->in[3] = rstd;
    i->in[4] = graph_grad(g, x);            /* what reached x around the norm, if anything */
    i->out[0] = dx;
    graph_attributes_set(i, &a, sizeof a);
    g->grad[x] = dx;

    int dgain = graph_param_grad(g, n->in[1]);
    graph_node *w = graph_node_add(g, &op_rmsnorm_weight_grad, GRAPH_WEIGHT_GRAD, n->name);
    if (!w)
        return;
    w->in[0] = dy;
    w->in[1] = graph_saved(g, x);
    w->in[2] = rstd;
    w->out[0] = dgain;
    graph_attributes_set(w, &a, sizeof a);
}

static const graph_op op_rmsnorm = {
    .name = "rmsnorm",
    .launch = rmsnorm_launch,
    .backward = rmsnorm_backward,
    .flops = rmsnorm_flops,
    .alike = rmsnorms_alike,
};

int graph_rmsnorm(graph *g, const char *name, int x, int gain, float eps, float offset)
{
    if (!graph_has(g, name, x, 0) || !graph_has(g, name, gain, 0))
        return -1;
    const int64_t C = columns_of(&g->values[gain]);
    if (columns_of(&g->values[x]) % C) {
        graph_fail_build(g, gt_fail(GT_MISMATCH, "cannot build '%s': the %lld columns of '%s' are no multiple of %lld",
                                    name, (long long)columns_of(&g->values[x]), g->values[x].name, (long long)C));
        return -1;
    }
    char part[80];
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage, g->values[x].shape);
    snprintf(part, sizeof part, "%.60s.rstd", name);
    int rstd = y < 0 ? -1 : graph_value_add(g, part, GRAPH_ACTIVATION, DTYPE_F32, shape_of(1, count_of(g, x) / C));
    graph_node *n = graph_node_add(g, &op_rmsnorm, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = x;
    n->in[1] = gain;
    n->out[0] = y;
    n->out[1] = rstd;
    const rmsnorm_attributes a = { eps, offset, (int32_t)C };
    graph_attributes_set(n, &a, sizeof a);
    return y;
}

const graph_op *const graph_norm_ops[] = { &op_layernorm, &op_layernorm_input_grad, &op_layernorm_weight_grad,
                                           &op_rmsnorm,   &op_rmsnorm_input_grad,   &op_rmsnorm_weight_grad,
                                           NULL };
