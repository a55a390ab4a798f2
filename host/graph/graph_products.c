/* SPDX-License-Identifier: MIT */
/* host/graph/graph_products.c - asks every node for its products, and counts those that are alike. */
#include "host/graph/graph_products.h"

#include "host/graph/ops_private.h"

#include <stdlib.h>

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

void graph_product_list_add(graph_product_list *list, const gemm_desc *g)
{
    for (int i = 0; i < list->count; i++) {
        const gemm_desc *o = &list->item[i].g;
        if (o->M == g->M && o->N == g->N && o->K == g->K && o->trans_a == g->trans_a && o->trans_b == g->trans_b
            && o->a_type == g->a_type && o->b_type == g->b_type && o->c_type == g->c_type) {
            list->item[i].times++;
            return;
        }
    }
    graph_product *grown = realloc(list->item, ((size_t)list->count + 1) * sizeof *grown);
    list->failed |= !grown;
    if (!grown)
        return;
    list->item = grown;
    grown[list->count++] = (graph_product){ *g, 1 };
}

static void note(void *list, const gemm_desc *g)
{
    graph_product_list_add(list, g);
}

void graph_product_list_take(graph_product_list *list, const graph *g)
{
    graph_products(g, note, list);
}

double graph_product_flops(const graph_product *p)
{
    return 2.0 * p->times * p->g.M * p->g.N * p->g.K;
}

static int by_cost(const void *a, const void *b)
{
    const double left = graph_product_flops(a), right = graph_product_flops(b);
    return (left < right) - (left > right);
}

void graph_product_list_sort(graph_product_list *list)
{
    qsort(list->item, (size_t)list->count, sizeof *list->item, by_cost);
}

void graph_product_list_release(graph_product_list *list)
{
    free(list->item);
    *list = (graph_product_list){ 0 };
}
