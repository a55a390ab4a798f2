/* SPDX-License-Identifier: MIT */
/* host/graph/op_rows.c - some rows of each sequence, what is handed out of a graph, and right answers counted.
 *
 *   x (B,T,C) --take rows (places)--> (B,P,C);   dy --> gradient, 0 in rows that were not taken
 *   x --result--> fp32, to be read when the graph has run
 *   logits, targets --hits--> how many are right, added to the input "hit_sum"                    */
#include "host/graph/ops_private.h"

/* s: of y, (B,P,C). */
static kernel_taken taken_of(launch_context *c, const graph_node *n, const shape *s)
{
    return (kernel_taken){
        .B = c->g->B, .T = c->g->T, .P = (int)s->dim[1], .C = (int)s->dim[2], .at = c->buffer(c, n->in[1])
    };
}

static gt_status take_rows_launch(launch_context *c, const graph_node *n)
{
    const kernel_taken s = taken_of(c, n, &value(c->g, n->out[0])->shape);
    return kernel_take_rows(c->list, c->kernels, &s, c->buffer(c, n->in[0]), c->buffer(c, n->out[0]));
}

static gt_status take_rows_grad_launch(launch_context *c, const graph_node *n)
{
    const kernel_taken s = taken_of(c, n, &value(c->g, n->in[0])->shape);
    return kernel_take_rows_grad(c->list, c->kernels, &s, c->buffer(c, n->in[0]), c->buffer(c, n->out[0]));
}

static const graph_op op_take_rows_grad = {
    .name = "take rows grad",
    .launch = take_rows_grad_launch,
    .flops = ops_no_flops,
};

static void take_rows_backward(graph *g, const graph_node *n)
{
    int dy = graph_grad(g, n->out[0]);
    if (dy < 0)
        return;
    int dx = graph_value_add(g, n->name, GRAPH_ACTIVATION, g->storage, value(g, n->in[0])->shape);
    graph_node *d = graph_node_add(g, &op_take_rows_grad, GRAPH_INPUT_GRAD, n->name);
    if (!d)
        return;
    d->in[0] = dy;
    d->in[1] = n->in[1];
    d->out[0] = dx;
    graph_grad_put(g, n->in[0], dx, n->name);
}

static const graph_op op_take_rows = {
    .name = "take rows",
    .launch = take_rows_launch,
    .backward = take_rows_backward,
    .flops = ops_no_flops,
};

int graph_take_rows(graph *g, const char *name, int x, int places)
{
    if (!graph_has(g, name, x, 0) || (places >= 0 && !graph_has(g, name, places, 0)))
        return -1;
    const int64_t P = places < 0 ? 1 : columns_of(&g->values[places]), C = columns_of(&g->values[x]);
    if (rows_of(&g->values[x]) != (int64_t)g->B * g->T || (places >= 0 && rows_of(&g->values[places]) != g->B)) {
        graph_fail_build(g, gt_fail(GT_MISMATCH, "cannot build '%s': '%s' does not have all rows of %d sequences", name,
                                    g->values[x].name, g->B));
        return -1;
    }
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage, shape_of(3, (int64_t)g->B, P, C));
    graph_node *n = graph_node_add(g, &op_take_rows, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = x;
    n->in[1] = places;
    n->out[0] = y;
    return y;
}

static gt_status result_launch(launch_context *c, const graph_node *n)
{
    return kernel_load(c->list, c->kernels, count_of(c->g, n->in[0]), c->buffer(c, n->in[0]), c->buffer(c, n->out[0]));
}

static const graph_op op_result = {
    .name = "result",
    .flags = GRAPH_OP_RESULT,
    .launch = result_launch,
    .flops = ops_no_flops,
};

int graph_result(graph *g, const char *name, int x)
{
    if (!graph_has(g, name, x, 0))
        return -1;
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, DTYPE_F32, g->values[x].shape);
    graph_node *n = graph_node_add(g, &op_result, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = x;
    n->out[0] = y;
    return y;
}

static gt_status hits_launch(launch_context *c, const graph_node *n)
{
    const int R = R_of(c->g, n->in[0]);
    int changes, add = c->add(c, n->in[2], &changes);
    kernel_slot slot;
    gt_status st = kernel_row_hits(c->list, c->kernels, R, C_of(c->g, n->in[0]), c->buffer(c, n->in[0]),
                                   c->buffer(c, n->in[1]), c->buffer(c, n->out[0]));
    if (!st)        /* every rank of a tensor group knows all of them; one alone may count them */
        st = kernel_sum(c->list, c->kernels, c->g->rank == 0 ? R : 0, c->buffer(c, n->out[0]), c->buffer(c, n->in[2]),
                        add, &slot);
    return st ? st : remember(c, changes, slot);
}

static const graph_op op_hits = {
    .name = "hits",
    .flags = GRAPH_OP_RESULT,
    .launch = hits_launch,
    .flops = ops_no_flops,
};

int graph_hits(graph *g, const char *name, int logits, int targets)
{
    if (!graph_has(g, name, logits, 0) || !graph_has(g, name, targets, 0))
        return -1;
    int hit = graph_value_add(g, name, GRAPH_ACTIVATION, DTYPE_F32, shape_of(1, rows_of(&g->values[logits])));
    int sum = graph_input(g, "hit_sum", DTYPE_F32, shape_of(1, (int64_t)1));
    graph_node *n = graph_node_add(g, &op_hits, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = logits;
    n->in[1] = targets;
    n->in[2] = sum;
    n->out[0] = hit;
    return hit;
}

const graph_op *const graph_rows_ops[] = { &op_take_rows, &op_take_rows_grad, &op_result, &op_hits, NULL };
