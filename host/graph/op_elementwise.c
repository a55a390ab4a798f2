/* SPDX-License-Identifier: MIT */
/* host/graph/op_elementwise.c - one element, one result: dropout, sums, the gradient of an activation, and a
 * product with one. */
#include "host/graph/ops_private.h"

static const graph_op op_dropout;

/* Which elements of a micro-batch a value has: all, or those of this rank's rows. */
static void place_rows(const graph *g, int x, kernel_dropout *drop)
{
    const int64_t all = (int64_t)g->B * g->T, columns = columns_of(value(g, x)), rows = rows_of(value(g, x));
    drop->sequence = columns * rows / g->B;
    if (g->ranks < 2 || rows != g->rows[g->rank] || rows == all)
        return;
    drop->sequence = columns * g->T;
    for (int k = 0; k < g->rank; k++)
        drop->before += columns * g->rows[k];
}

static gt_status dropout_launch(launch_context *c, const graph_node *n)
{
    ops_drop drop;
    kernel_dropout room;
    graph_attributes_get(n, &drop, sizeof drop);
    ops_dropout_of(c, drop, n->in[1], &room);
    place_rows(c->g, n->in[0], &room);
    return kernel_dropout_apply(c->list, c->kernels, count_of(c->g, n->in[0]), &room, c->buffer(c, n->in[0]),
                                c->buffer(c, n->out[0]));
}

int emit_dropout(graph *g, const char *name, graph_phase phase, int x, int random, ops_drop drop)
{
    if (g->status || x < 0)
        return -1;
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, value(g, x)->type, value(g, x)->shape);
    graph_node *n = graph_node_add(g, &op_dropout, phase, name);
    if (!n)
        return -1;
    n->in[0] = x;
    n->in[1] = random;
    n->out[0] = y;
    graph_attributes_set(n, &drop, sizeof drop);
    return y;
}

static void dropout_backward(graph *g, const graph_node *n)
{
    int dy = graph_grad(g, n->out[0]);
    ops_drop drop;
    graph_attributes_get(n, &drop, sizeof drop);
    if (dy >= 0)
        graph_grad_put(g, n->in[0], emit_dropout(g, n->name, GRAPH_INPUT_GRAD, dy, n->in[1], drop), n->name);
}

int graph_dropout(graph *g, const char *name, int x, float drop)
{
    if (drop <= 0.0f || !graph_has(g, name, x, 0))
        return x;
    const ops_drop how = ops_drop_next(g, drop);
    return emit_dropout(g, name, GRAPH_FORWARD, x, ops_random_input(g), how);
}

static const graph_op op_dropout = {
    .name = "dropout",
    .launch = dropout_launch,
    .backward = dropout_backward,
    .flops = ops_one_each,
};

static gt_status add_launch(launch_context *c, const graph_node *n)
{
    return kernel_add(c->list, c->kernels, count_of(c->g, n->in[0]), c->buffer(c, n->in[0]), c->buffer(c, n->in[1]),
                      c->buffer(c, n->out[0]));
}

static void add_backward(graph *g, const graph_node *n)
{
    int dy = graph_grad(g, n->out[0]);
    graph_grad_put(g, n->in[0], dy, n->name);
    graph_grad_put(g, n->in[1], dy, n->name);
}

static const graph_op op_add = {
    .name = "add",
    .launch = add_launch,
    .backward = add_backward,
    .flops = ops_one_each,
};

int emit_add(graph *g, const char *name, graph_phase phase, int a, int b, dtype type)
{
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, type, value(g, a)->shape);
    graph_node *n = graph_node_add(g, &op_add, phase, name);
    if (!n)
        return -1;
    n->in[0] = a;
    n->in[1] = b;
    n->out[0] = y;
    return y;
}

int graph_add(graph *g, const char *name, int a, int b)
{
    if (!graph_has(g, name, a, 0) || !graph_has(g, name, b, columns_of(&g->values[a])))
        return -1;
    if (rows_of(&g->values[a]) != rows_of(&g->values[b])) {
        graph_fail_build(g, gt_fail(GT_MISMATCH,
                                    "cannot build '%s': '%s' and '%s' differ in their "
                                    "rows",
                                    name, g->values[a].name, g->values[b].name));
        return -1;
    }
    return emit_add(g, name, GRAPH_FORWARD, a, b, g->storage);
}

static const graph_op op_scale;

static gt_status scale_launch(launch_context *c, const graph_node *n)
{
    float factor;
    graph_attributes_get(n, &factor, sizeof factor);
    return kernel_times(c->list, c->kernels, count_of(c->g, n->in[0]), factor, c->buffer(c, n->in[0]),
                        c->buffer(c, n->out[0]));
}

static int emit_scale(graph *g, const char *name, graph_phase phase, int x, float factor)
{
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage, value(g, x)->shape);
    graph_node *n = graph_node_add(g, &op_scale, phase, name);
    if (!n)
        return -1;
    n->in[0] = x;
    n->out[0] = y;
    graph_attributes_set(n, &factor, sizeof factor);
    return y;
}

static void scale_backward(graph *g, const graph_node *n)
{
    int dy = graph_grad(g, n->out[0]);
    float factor;
    graph_attributes_get(n, &factor, sizeof factor);
    if (dy >= 0)
        graph_grad_put(g, n->in[0], emit_scale(g, n->name, GRAPH_INPUT_GRAD, dy, factor), n->name);
}

static const graph_op op_scale = {
    .name = "scale",
    .launch = scale_launch,
    .backward = scale_backward,
    .flops = ops_one_each,
};

int graph_scale(graph *g, const char *name, int x, float factor)
{
    return graph_has(g, name, x, 0) ? emit_scale(g, name, GRAPH_FORWARD, x, factor) : -1;
}

static activation activation_of(const graph_node *n)
{
    activation act;
    graph_attributes_get(n, &act, sizeof act);
    return act;
}

static gt_status activation_grad_launch(launch_context *c, const graph_node *n)
{
    return kernel_activation_grad(c->list, c->kernels, activation_of(n), count_of(c->g, n->in[0]),
                                  c->buffer(c, n->in[0]), c->buffer(c, n->in[1]), c->buffer(c, n->out[0]));
}

static int activations_alike(const graph_node *n, const graph_node *m)
{
    return activation_of(n) == activation_of(m);
}

static double activation_flops(const graph *g, const graph_node *n)
{
    return 12.0 * (double)count_of(g, n->in[0]);
}

static const graph_op op_activation_grad = {
    .name = "activation grad",
    .launch = activation_grad_launch,
    .flops = activation_flops,
    .alike = activations_alike,
};

int emit_activation_grad(graph *g, const char *name, activation act, int dy, int pre)
{
    int dx = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage, value(g, pre)->shape);
    graph_node *n = graph_node_add(g, &op_activation_grad, GRAPH_INPUT_GRAD, name);
    if (!n)
        return -1;
    n->in[0] = dy;
    n->in[1] = pre;
    n->out[0] = dx;
    graph_attributes_set(n, &act, sizeof act);
    return dx;
}

/* ---- act(gate) * up ---- */

static gt_status gated_launch(launch_context *c, const graph_node *n)
{
    return kernel_gated(c->list, c->kernels, activation_of(n), count_of(c->g, n->in[0]), c->buffer(c, n->in[0]),
                        c->buffer(c, n->in[1]), c->buffer(c, n->out[0]));
}

static gt_status gated_grad_launch(launch_context *c, const graph_node *n)
{
    return kernel_gated_grad(c->list, c->kernels, activation_of(n), count_of(c->g, n->in[0]), c->buffer(c, n->in[0]),
                             c->buffer(c, n->in[1]), c->buffer(c, n->in[2]), c->buffer(c, n->out[0]),
                             c->buffer(c, n->out[1]));
}

static const graph_op op_gated_grad = {
    .name = "gated grad",
    .launch = gated_grad_launch,
    .flops = activation_flops,
    .alike = activations_alike,
};

static void gated_backward(graph *g, const graph_node *n)
{
    int dy = graph_grad(g, n->out[0]);
    const activation act = activation_of(n);
    if (dy < 0)
        return;
    int to[2];
    for (int i = 0; i < 2; i++)
        to[i] = graph_value_add(g, n->name, GRAPH_ACTIVATION, g->storage, value(g, n->out[0])->shape);
    graph_node *b = graph_node_add(g, &op_gated_grad, GRAPH_INPUT_GRAD, n->name);
    if (!b)
        return;
    b->in[0] = dy;
    for (int i = 0; i < 2; i++) {
        b->in[1 + i] = graph_saved(g, n->in[i]);
        b->out[i] = to[i];
    }
    graph_attributes_set(b, &act, sizeof act);
    for (int i = 0; i < 2; i++)
        graph_grad_put(g, n->in[i], to[i], n->name);
}

static const graph_op op_gated = {
    .name = "gated",
    .launch = gated_launch,
    .backward = gated_backward,
    .flops = activation_flops,
    .alike = activations_alike,
};

int graph_gated(graph *g, const char *name, int gate, int up, activation act)
{
    if (!graph_has(g, name, gate, 0) || !graph_has(g, name, up, columns_of(&g->values[gate])))
        return -1;
    if (rows_of(&g->values[gate]) != rows_of(&g->values[up]) || act == ACT_NONE) {
        graph_fail_build(g, gt_fail(GT_MISMATCH, "cannot build '%s': '%s' cannot gate '%s'", name, g->values[gate].name,
                                    g->values[up].name));
        return -1;
    }
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage, g->values[gate].shape);
    graph_node *n = graph_node_add(g, &op_gated, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = gate;
    n->in[1] = up;
    n->out[0] = y;
    graph_attributes_set(n, &act, sizeof act);
    return y;
}

/* ---- an activation on its own ---- */

static gt_status activation_launch(launch_context *c, const graph_node *n)
{
    return kernel_activation(c->list, c->kernels, activation_of(n), count_of(c->g, n->in[0]), c->buffer(c, n->in[0]),
                             c->buffer(c, n->out[0]));
}

static void activation_backward(graph *g, const graph_node *n)
{
    int dy = graph_grad(g, n->out[0]);
    if (dy >= 0)
        graph_grad_put(g, n->in[0], emit_activation_grad(g, n->name, activation_of(n), dy, graph_saved(g, n->in[0])),
                       n->name);
}

static const graph_op op_activation = {
    .name = "activation",
    .launch = activation_launch,
    .backward = activation_backward,
    .flops = activation_flops,
    .alike = activations_alike,
};

int graph_activation(graph *g, const char *name, int x, activation act)
{
    if (!graph_has(g, name, x, 0) || act == ACT_NONE)
        return g->status ? -1 : x;
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage, g->values[x].shape);
    graph_node *n = graph_node_add(g, &op_activation, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = x;
    n->out[0] = y;
    graph_attributes_set(n, &act, sizeof act);
    return y;
}

const graph_op *const graph_elementwise_ops[] = { &op_dropout,    &op_add,   &op_scale,      &op_activation_grad,
                                                  &op_activation, &op_gated, &op_gated_grad, NULL };
