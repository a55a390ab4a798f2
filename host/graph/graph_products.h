/* SPDX-License-Identifier: MIT */
/* host/graph/graph_products.h - which matrices a graph multiplies, read from its nodes: no device, no memory.
 *
 *   graph_create(&g, storage, B, T);  model_build_loss(g, ..., 1, recompute);
 *   graph_products(g, note, &list);       a training step's, of one micro-batch
 *
 * For those who tune (gemm_tune()) or measure them. Products within attention are no GEMMs, nor are those of an
 * optimizer a graph's.                                                                     */
#ifndef GT_GRAPH_GRAPH_PRODUCTS_H
#define GT_GRAPH_GRAPH_PRODUCTS_H

#include "host/gemm/gemm.h"
#include "host/graph/graph.h"

/* Calls each(context, product) for every product, as often as one run multiplies it. */
void graph_products(const graph *g, void (*each)(void *context, const gemm_desc *d), void *context);

/* Products that differ in sizes, transposes or types, whatever stands behind them in their epilogues. Zero-initialise
 * it. */
typedef struct graph_product {
    gemm_desc g;
    int times;                  /* as often as it is multiplied */
} graph_product;

typedef struct graph_product_list {
    graph_product *item;
    int count;
    int failed;                 /* there was no memory for one */
} graph_product_list;

void graph_product_list_add(graph_product_list *list, const gemm_desc *g);
/* Those of a graph. */
void graph_product_list_take(graph_product_list *list, const graph *g);
/* All times together. */
double graph_product_flops(const graph_product *p);
/* The most costly first. */
void graph_product_list_sort(graph_product_list *list);
void graph_product_list_release(graph_product_list *list);

#endif
