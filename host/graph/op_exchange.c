/* SPDX-License-Identifier: MIT */
/* host/graph/op_exchange.c - what the ranks of a tensor group tell each other.
 *
 *   rows of rank 0 | rank 1 | rank 2        gather    (R_k,C) on each  ->  (R,C), all of it
 *   own rows of the sum over ranks          scatter   (R,C) partial    ->  (R_k,C)
 *
 * Each is the other's gradient: what all ranks read gets a partial gradient from each of them, and
 * what was summed hands its gradient to every summand (Korthikanti et al., "Reducing activation
 * recomputation in large transformer models", 2022, section 4.2.2).
 * They append no launch: the host acts between two launches (exec.h).                      */
#include "host/graph/ops_private.h"

static const graph_op op_gather_rows, op_scatter_rows;

static int exchange_node(graph *g, const graph_op *op, graph_phase phase, const char *name, int x)
{
    const int64_t C = columns_of(value(g, x));
    const shape whole = shape_of(3, (int64_t)g->B, (int64_t)g->T, C);
    const shape own = shape_of(2, g->rows[g->rank], C);
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage, op == &op_gather_rows ? whole : own);
    graph_node *n = graph_node_add(g, op, phase, name);
    if (!n)
        return -1;
    n->in[0] = x;
    n->out[0] = y;
    return y;
}

/* A builder: x has as many rows as it must. */
static int exchange_rows(graph *g, const graph_op *op, const char *name, int x, int64_t rows)
{
    char text[64], label[80];
    if (g->status || x < 0 || g->ranks < 2)
        return g->status ? -1 : x;
    if (rows_of(value(g, x)) != rows) {
        graph_fail_build(g, gt_fail(GT_MISMATCH,
                                    "cannot build '%s': '%s' is %s, it must have %lld "
                                    "rows",
                                    name, value(g, x)->name, shape_format(&value(g, x)->shape, text, sizeof text),
                                    (long long)rows));
        return -1;
    }
    snprintf(label, sizeof label, "%.60s.%s", name, op == &op_gather_rows ? "all" : "rows");
    return exchange_node(g, op, GRAPH_FORWARD, label, x);
}

int graph_gather_rows(graph *g, const char *name, int x)
{
    return exchange_rows(g, &op_gather_rows, name, x, graph_rows(g));
}

int graph_scatter_rows(graph *g, const char *name, int x)
{
    return exchange_rows(g, &op_scatter_rows, name, x, (int64_t)g->B * g->T);
}

static void backward_through(graph *g, const graph_node *n, const graph_op *op)
{
    int dy = graph_grad(g, n->out[0]);
    if (dy >= 0)
        graph_grad_put(g, n->in[0], exchange_node(g, op, GRAPH_INPUT_GRAD, n->name, dy), n->name);
}

static void gather_rows_backward(graph *g, const graph_node *n)
{
    backward_through(g, n, &op_scatter_rows);
}

static void scatter_rows_backward(graph *g, const graph_node *n)
{
    backward_through(g, n, &op_gather_rows);
}

static gt_status gather_rows_launch(launch_context *c, const graph_node *n)
{
    return c->exchange(c, n, GRAPH_GATHER, c->g->rows);
}

static gt_status scatter_rows_launch(launch_context *c, const graph_node *n)
{
    return c->exchange(c, n, GRAPH_SCATTER_SUM, c->g->rows);
}

/* Every rank has statistics of all rows, side by side in one. */
static gt_status gather_statistics_launch(launch_context *c, const graph_node *n)
{
    return c->exchange(c, n, GRAPH_GATHER, c->g->one_row);
}

static const graph_op op_gather_rows = {
    .name = "gather rows",
    .flags = GRAPH_OP_EXCHANGES,
    .launch = gather_rows_launch,
    .backward = gather_rows_backward,
    .flops = ops_no_flops,
};
static const graph_op op_scatter_rows = {
    .name = "scatter rows",
    .flags = GRAPH_OP_EXCHANGES,
    .launch = scatter_rows_launch,
    .backward = scatter_rows_backward,
    .flops = ops_no_flops,
};
static const graph_op op_gather_statistics = {
    .name = "gather statistics",
    .flags = GRAPH_OP_EXCHANGES,
    .launch = gather_statistics_launch,
    .flops = ops_no_flops,
};

int emit_gather_statistics(graph *g, const char *name, int own, int all)
{
    graph_node *n = graph_node_add(g, &op_gather_statistics, GRAPH_FORWARD, name);
    if (!n)
        return 0;
    n->in[0] = own;
    n->out[0] = all;
    return 1;
}

const graph_op *const graph_exchange_ops[] = { &op_gather_statistics, &op_gather_rows, &op_scatter_rows, NULL };
