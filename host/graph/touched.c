/* SPDX-License-Identifier: MIT */
/* host/graph/touched.c - goes over the nodes that write a gradient: each says which of its rows. */
#include "host/graph/touched.h"

#include "host/graph/ops_private.h"

static int writes(const graph_node *n, int gradient)
{
    for (int i = 0; i < NODE_OUTPUTS; i++)
        if (n->out[i] == gradient)
            return 1;
    return 0;
}

graph_touches graph_touched_rows(const graph *g, int param, graph_touched *out)
{
    const int gradient = g->params[param].grad;
    int writers = 0, rows = 0;
    *out = (graph_touched){ 0 };
    for (int n = 0; gradient >= 0 && n < g->node_count; n++) {
        const graph_node *node = &g->nodes[n];
        if (!writes(node, gradient))
            continue;
        writers++;
        if (node->op->touched && node->out[0] == gradient) {
            node->op->touched(g, node, out);
            rows++;
        }
    }
    out->held = gradient >= 0 ? rows_held(g, gradient).begin : 0;
    return !rows ? GRAPH_TOUCHES_ALL : writers > 1 ? GRAPH_TOUCHES_MORE : GRAPH_TOUCHES_ROWS;
}
