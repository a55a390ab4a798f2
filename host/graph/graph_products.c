/* SPDX-License-Identifier: MIT */
/* host/graph/graph_products.c - asks every node for its products. */
#include "host/graph/graph_products.h"

#include "host/graph/ops_private.h"

void graph_products(const graph *g, void (*each)(void *context, const gemm_desc *d), void *context)
{
    for (int i = 0; i < g->node_count; i++) {
        const graph_node *n = &g->nodes[i];
        gemm_desc d;
        if (n->op->gemms)
            n->op->gemms(g, n, each, context);
        else if (n->op->gemm && n->op->gemm(g, n, &d))
            each(context, &d);
    }
}
