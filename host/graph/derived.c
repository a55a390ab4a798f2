/* SPDX-License-Identifier: MIT */
/* host/graph/derived.c - finds the operations that want inputs computed from another input. */
#include "host/graph/derived.h"

#include "host/graph/ops_private.h"

int graph_derived_count(const graph *g)
{
    int count = 0;
    for (int n = 0; n < g->node_count; n++)
        count += g->nodes[n].op->derive != NULL;
    return count;
}

/* in[0] is the source, and the inputs behind it are what is computed. */
graph_derived graph_derived_at(const graph *g, int i)
{
    graph_derived d = { 0 };
    for (int n = 0; n < g->node_count; n++) {
        const graph_node *node = &g->nodes[n];
        if (!node->op->derive || i-- > 0)
            continue;
        d.node = n;
        d.source = value(g, node->in[0])->name;
        for (int k = 0; k < GRAPH_DERIVED_OUTPUTS; k++) {
            d.name[k] = value(g, node->in[1 + k])->name;
            d.count[k] = shape_count(&value(g, node->in[1 + k])->shape);
        }
        d.scratch = node->op->derive_scratch(g, node);
        break;
    }
    return d;
}

void graph_derive(const graph *g, const graph_derived *d, const int32_t *source, int32_t *const out[], int32_t *scratch)
{
    const graph_node *n = &g->nodes[d->node];
    n->op->derive(g, n, source, out, scratch);
}
