/* SPDX-License-Identifier: MIT */
/* host/graph/ops_private.h - what the rows of the op table share.
 *
 * The table is in ops.c; the head's operations and those between ranks have files of their own. */
#ifndef GT_GRAPH_OPS_PRIVATE_H
#define GT_GRAPH_OPS_PRIVATE_H

#include "host/graph/node.h"

static inline const graph_value *value(const graph *g, int v)
{
    return &g->values[v];
}

static inline int R_of(const graph *g, int v)
{
    return (int)rows_of(value(g, v));
}

static inline int C_of(const graph *g, int v)
{
    return (int)columns_of(value(g, v));
}

static inline int64_t count_of(const graph *g, int v)
{
    return shape_count(&value(g, v)->shape);
}

static inline uint64_t bytes_of(const graph *g, int v)
{
    return (uint64_t)count_of(g, v) * dtype_size(value(g, v)->type);
}

static inline uint64_t align_up(const launch_context *c, uint64_t bytes)
{
    const uint64_t a = dev_info_of(c->device)->align;
    return (bytes + a - 1) / a * a;
}

/* Passes a result's add flag to a kernel, and remembers where it stands if it changes. */
static inline gt_status remember(launch_context *c, int changes, kernel_slot slot)
{
    return changes ? c->remember(c, slot.launch, slot.arg) : GT_OK;
}

/* Which rows of its table a parameter (or the gradient of one) holds here. */
static inline kernel_rows rows_held(const graph *g, int v)
{
    const graph_param_info *p = &g->params[value(g, v)->param];
    return (kernel_rows){ p->slice.parts ? (int)p->slice.begin : 0, (int)p->shape.dim[0],
                          (int)p->full.dim[0] };
}

/* ops_head.c */
int       head_fits(const graph *g, int x, int w);      /* 1: all rows' logits fit at once */
gt_status head_scratch(launch_context *c, const graph_node *n, uint64_t *bytes);
double    head_flops(const graph *g, const graph_node *n);
gt_status head_launch(launch_context *c, const graph_node *n);
void      head_backward(graph *g, const graph_node *n);
gt_status head_statistics_launch(launch_context *c, const graph_node *n);
gt_status head_combine_launch(launch_context *c, const graph_node *n);
void      head_combine_backward(graph *g, const graph_node *n);
gt_status head_gradient_launch(launch_context *c, const graph_node *n);

/* ops_exchange.c */
gt_status gather_rows_launch(launch_context *c, const graph_node *n);
void      gather_rows_backward(graph *g, const graph_node *n);
gt_status scatter_rows_launch(launch_context *c, const graph_node *n);
void      scatter_rows_backward(graph *g, const graph_node *n);
gt_status gather_statistics_launch(launch_context *c, const graph_node *n);

#endif
