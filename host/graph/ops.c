/* SPDX-License-Identifier: MIT */
/* host/graph/ops.c - the table of operations, and what their rows share.
 *
 * A row's launch function only fetches buffers and calls kernel.h or gemm.h. Its backward
 * function emits nodes; what it needs from forward it asks for through graph_saved(), so
 * that recomputation works without its knowledge.                                        */
#include "host/graph/ops_private.h"

#include <string.h>

const graph_op *graph_op_at(int i)
{
#define ROWS(family) graph_##family##_ops,
    static const graph_op *const *const families[] = { GRAPH_OP_FAMILIES(ROWS) NULL };
#undef ROWS
    for (int f = 0; families[f]; f++)
        for (int k = 0; families[f][k]; k++)
            if (!i--)
                return families[f][k];
    return NULL;
}

int graph_node_alike(const graph_node *a, const graph_node *b)
{
    return a->op == b->op && a->phase == b->phase && (!a->op->alike || a->op->alike(a, b));
}

/* An earlier input is the same value. */
static int read_before(const graph_node *n, int i)
{
    for (int j = 0; j < i; j++)
        if (n->in[j] == n->in[i])
            return 1;
    return 0;
}

/* What --explain shows as traffic: every input read and every output written once. */
double graph_node_bytes(const graph *g, const graph_node *n)
{
    double sum = 0.0;
    for (int i = 0; i < NODE_INPUTS; i++)
        if (n->in[i] >= 0 && !read_before(n, i) && !(n->op->flags & GRAPH_OP_LOOKS_UP && i == GRAPH_TABLE_INPUT))
            sum += (double)bytes_of(g, n->in[i]);
    for (int i = 0; i < NODE_OUTPUTS; i++)
        if (n->out[i] >= 0)
            sum += (double)bytes_of(g, n->out[i]);
    return sum;
}

/* ---- costs ----------------------------------------------------------------------------------- */

double ops_no_flops(const graph *g, const graph_node *n)
{
    (void)g;
    (void)n;
    return 0.0;
}

double ops_one_each(const graph *g, const graph_node *n)
{
    return (double)count_of(g, n->out[0]);
}

double ops_gemm_flops(const graph *g, const graph_node *n)
{
    gemm_desc d;
    n->op->gemm(g, n, &d);
    return 2.0 * d.M * d.N * d.K;
}

gt_status ops_gemm_scratch(launch_context *c, const graph_node *n, uint64_t *bytes)
{
    gemm_desc d;
    n->op->gemm(c->g, n, &d);
    return gemm_scratch(c->gemm, &d, bytes);
}

/* ---- dropout ---------------------------------------------------------------------------------- */

ops_drop ops_drop_next(graph *g, float p)
{
    return (ops_drop){ .p = p, .stream = p > 0.0f ? g->streams++ : 0 };
}

int ops_random_input(graph *g)
{
    return graph_input(g, "random", DTYPE_U32, shape_of(1, (int64_t)4));
}

const kernel_dropout *ops_dropout_of(launch_context *c, ops_drop drop, int random, kernel_dropout *room)
{
    if (drop.p <= 0.0f)
        return NULL;
    *room = (kernel_dropout){ .p = drop.p, .stream = drop.stream, .random = c->buffer(c, random) };
    return room;
}
