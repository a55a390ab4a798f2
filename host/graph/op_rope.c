/* SPDX-License-Identifier: MIT */
/* host/graph/op_rope.c - rotary positions; their gradient is the rotation back. */
#include "host/graph/ops_private.h"

static gt_status launch(launch_context *c, const graph_node *n, int back)
{
    const int D = C_of(c->g, n->in[1]);
    return kernel_rope(c->list, c->kernels, c->g->B, c->g->T, C_of(c->g, n->in[0]) / D, D, back, c->buffer(c, n->in[0]),
                       c->buffer(c, n->in[1]), c->buffer(c, n->in[2]), c->buffer(c, n->out[0]));
}

static gt_status rope_launch(launch_context *c, const graph_node *n)
{
    return launch(c, n, 0);
}

static gt_status rope_grad_launch(launch_context *c, const graph_node *n)
{
    return launch(c, n, 1);
}

static double rope_flops(const graph *g, const graph_node *n)
{
    return 3.0 * (double)count_of(g, n->in[0]);
}

static const graph_op op_rope_grad = {
    .name = "rope grad",
    .launch = rope_grad_launch,
    .flops = rope_flops,
};

/* in: x or dy, table, first */
static int emit(graph *g, const char *name, const graph_op *op, graph_phase phase, int x, int table, int first)
{
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage, value(g, x)->shape);
    graph_node *n = graph_node_add(g, op, phase, name);
    if (!n)
        return -1;
    n->in[0] = x;
    n->in[1] = table;
    n->in[2] = first;
    n->out[0] = y;
    return y;
}

static void rope_backward(graph *g, const graph_node *n)
{
    int dy = graph_grad(g, n->out[0]);
    if (dy >= 0)
        graph_grad_put(g, n->in[0], emit(g, n->name, &op_rope_grad, GRAPH_INPUT_GRAD, dy, n->in[1], n->in[2]), n->name);
}

static const graph_op op_rope = {
    .name = "rope",
    .launch = rope_launch,
    .backward = rope_backward,
    .flops = rope_flops,
};

int graph_rope(graph *g, const char *name, int x, int table, int first)
{
    if (!graph_has(g, name, x, 0) || !graph_has(g, name, table, 0))
        return -1;
    const graph_value *v = value(g, x), *t = value(g, table);
    const int64_t D = columns_of(t);
    if (D % 2 || columns_of(v) % D || rows_of(v) != (int64_t)g->B * g->T || (first < 0 && rows_of(t) < g->T)) {
        graph_fail_build(g, gt_fail(GT_MISMATCH, "cannot build '%s': '%s' does not consist of heads that '%s' turns",
                                    name, v->name, t->name));
        return -1;
    }
    return emit(g, name, &op_rope, GRAPH_FORWARD, x, table, first);
}

const graph_op *const graph_rope_ops[] = { &op_rope, &op_rope_grad, NULL };
