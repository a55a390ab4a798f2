/* SPDX-License-Identifier: MIT */
/* host/graph/graph_cost.c - sums over a graph's nodes, values and lifetimes. */
#include "host/graph/graph_cost.h"

#include "host/graph/order.h"
#include "host/graph/ops_private.h"

#include <stdlib.h>

/* A gather's result and a scatter's operand are whole. */
static void add_exchange(const graph *g, const graph_node *n, graph_cost *out)
{
    const double from = (double)bytes_of(g, n->in[0]), to = (double)bytes_of(g, n->out[0]);
    out->exchanges[n->phase]++;
    out->exchanged[n->phase] += from > to ? from : to;
}

static void add_parameters(const graph *g, graph_cost *out)
{
    out->parameters = graph_trained_elements(g);
    out->frozen = graph_frozen_bytes(g);
    for (int i = 0; i < g->param_count; i++)
        if (g->params[i].decay && !g->params[i].frozen)
            out->decayed += shape_count(&g->params[i].shape);
}

/* The most bytes that live at once, of values that outlive the list that makes them, or of others. */
static double peak(const graph *g, int split, const int *order, const int *first, const int *last, int outlives,
                   double *live)
{
    double most = 0.0;
    memset(live, 0, (size_t)g->node_count * sizeof *live);
    for (int v = 0; v < g->value_count; v++) {
        if (g->values[v].role != GRAPH_ACTIVATION || first[v] < 0)
            continue;
        const graph_phase made = g->nodes[order[first[v]]].phase, read = g->nodes[order[last[v]]].phase;
        if ((graph_list_of(made, split) != graph_list_of(read, split)) == outlives)
            for (int at = first[v]; at <= last[v]; at++)
                live[at] += (double)bytes_of(g, v);
    }
    for (int at = 0; at < g->node_count; at++)
        if (live[at] > most)
            most = live[at];
    return most;
}

/* life: room for a number a node and two a value; live: one a node. */
static void add_activations(const graph *g, int split, int *life, double *live, graph_cost *out)
{
    int *order = life, *first = order + g->node_count, *last = first + g->value_count;
    graph_order(g, split, order);
    graph_lifetimes(g, split, order, first, last);
    out->kept = peak(g, split, order, first, last, 1, live);
    out->passing = peak(g, split, order, first, last, 0, live);
}

gt_status graph_cost_of(const graph *g, int split, graph_cost *out)
{
    const graph_ends ends = graph_ends_of(g);
    *out = (graph_cost){ 0 };
    int *life = malloc(((size_t)g->node_count + 2 * (size_t)g->value_count + 1) * sizeof *life);
    double *live = malloc(((size_t)g->node_count + 1) * sizeof *live);
    if (!life || !live) {
        free(life);
        free(live);
        return gt_fail(GT_NO_MEMORY,
                       "cannot work out what a graph takes: no memory for the lifetimes "
                       "of %d values",
                       g->value_count);
    }
    for (int i = 0; i < g->node_count; i++) {
        const graph_node *n = &g->nodes[i];
        out->flops[n->phase] += n->op->flops(g, n);
        if (n->op->flags & GRAPH_OP_EXCHANGES)
            add_exchange(g, n, out);
    }
    add_parameters(g, out);
    add_activations(g, split, life, live, out);
    out->input = ends.x >= 0 ? (double)bytes_of(g, ends.x) : 0.0;
    out->output = ends.y >= 0 ? (double)bytes_of(g, ends.y) : 0.0;
    free(life);
    free(live);
    return GT_OK;
}
