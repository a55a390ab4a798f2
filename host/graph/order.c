/* SPDX-License-Identifier: MIT */
/* host/graph/order.c - the order of nodes and the lifetimes of values. */
#include "host/graph/order.h"

#include "host/graph/node.h"

int graph_list_of(graph_phase phase, int split)
{
    return phase == GRAPH_FORWARD ? 0 : phase == GRAPH_INPUT_GRAD || !split ? 1 : 2;
}

int graph_order(const graph *g, int split, int *order)
{
    int count = 0;
    for (int list = 0; list < GRAPH_LISTS; list++)
        for (int i = 0; i < g->node_count; i++)
            if (graph_list_of(g->nodes[i].phase, split) == list)
                order[count++] = i;
    return count;
}

static int list_at(const graph *g, int split, const int *order, int at)
{
    return graph_list_of(g->nodes[order[at]].phase, split);
}

static void live_while_used(const graph *g, const int *order, int *first, int *last)
{
    for (int v = 0; v < g->value_count; v++)
        first[v] = last[v] = -1;
    for (int at = 0; at < g->node_count; at++) {
        const graph_node *n = &g->nodes[order[at]];
        for (int j = 0; j < NODE_OUTPUTS; j++)
            if (n->out[j] >= 0 && g->values[n->out[j]].role == GRAPH_ACTIVATION) {
                first[n->out[j]] = at;
                if (last[n->out[j]] < at)
                    last[n->out[j]] = at;
            }
        for (int j = 0; j < NODE_INPUTS; j++)
            if (n->in[j] >= 0 && last[n->in[j]] < at)
                last[n->in[j]] = at;
    }
}

void graph_lifetimes(const graph *g, int split, const int *order, int *first, int *last)
{
    live_while_used(g, order, first, last);
    /* What a graph hands out is read after the run, unless a node has read it. */
    for (int at = 0; at < g->node_count; at++) {
        const graph_node *n = &g->nodes[order[at]];
        for (int j = 0; j < NODE_OUTPUTS; j++)
            if (n->op->flags & GRAPH_OP_RESULT && n->out[j] >= 0 && last[n->out[j]] == at
                && g->values[n->out[j]].role == GRAPH_ACTIVATION)
                last[n->out[j]] = g->node_count - 1;
    }
    /* What goes to another stage is fetched after its program. */
    const graph_ends out = graph_ends_of(g);
    const int ends[] = { out.y, out.dx };
    for (int i = 0; i < 2; i++)
        if (ends[i] >= 0 && first[ends[i]] >= 0)
            for (int at = first[ends[i]];
                 at < g->node_count && list_at(g, split, order, at) == list_at(g, split, order, first[ends[i]]); at++)
                if (last[ends[i]] < at)
                    last[ends[i]] = at;
}
