/* SPDX-License-Identifier: MIT */
/* host/graph/ops_private.h - what the files of the operations share, and the list of them.
 *
 * op_FAMILY.c holds what there is of a family: builders, rows with launch, backward and costs. */
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
    return (kernel_rows){ p->slice.parts ? (int)p->slice.begin : 0, (int)p->shape.dim[0], (int)p->full.dim[0] };
}

/* A builder's arguments: these values exist, and the last dimension is `columns` (0: any). */
int graph_has(graph *g, const char *name, int value, int64_t columns);
/* Notes of a parameter that its rows belong to tokens or positions. */
void graph_mark_table(graph *g, int value);

/* Notes of a parameter that linear layers multiply by it: it may be stored as graph_base() says. */
void graph_mark_matrix(graph *g, int value);

/* ---- costs of rows (ops.c) ------------------------------------------------------------------- */
double ops_no_flops(const graph *g, const graph_node *n);
double ops_one_each(const graph *g, const graph_node *n);            /* one an element of the result */
double ops_gemm_flops(const graph *g, const graph_node *n);          /* of the row's gemm            */
gt_status ops_gemm_scratch(launch_context *c, const graph_node *n, uint64_t *bytes);

/* ---- weights that are kept in another type (op_linear.c) ----------------------------------------- */
/* How a matrix of weights is kept: frozen ones may be narrower than what they multiply. *first: where in its
 * block of 8 bits its column 0 is (host/tensor/q8.h), else 0. */
dtype ops_weights(const graph *g, int w, int *first);

/* ---- dropout within an operation --------------------------------------------------------------- */
typedef struct ops_drop {
    float p;
    uint32_t stream;
} ops_drop;

ops_drop ops_drop_next(graph *g, float p);         /* takes the layer's next stream, if p is above 0 */
int ops_random_input(graph *g);               /* the random bits, one input for the whole graph */
/* What kernels take; NULL if nothing is dropped. */
const kernel_dropout *ops_dropout_of(launch_context *c, ops_drop drop, int random, kernel_dropout *room);

/* ---- nodes that other families emit ------------------------------------------------------------ */
/* Each returns its result, -1 after a failure. */
int emit_dropout(graph *g, const char *name, graph_phase phase, int x, int random, ops_drop drop);
int emit_add(graph *g, const char *name, graph_phase phase, int a, int b, dtype type);
/* The column sums of dy go to the gradient of `bias`, which is returned. */
int emit_bias_grad(graph *g, const char *name, int dy, int bias);
/* dy times the derivative of the activation at `pre`. */
int emit_activation_grad(graph *g, const char *name, activation act, int dy, int pre);
/* Every rank's statistics of all rows; 0 after a failure. */
int emit_gather_statistics(graph *g, const char *name, int own, int all);

/* ---- the table --------------------------------------------------------------------------------- */
/* The families: each op_NAME.c ends with its rows, graph_NAME_ops, and a NULL behind them. */
#define GRAPH_OP_FAMILIES(F) \
    F(embed) F(elementwise) F(norm) F(linear) F(rope) F(attention) F(head) F(exchange) F(rows) F(adapter)

#define DECLARE(family) extern const graph_op *const graph_##family##_ops[];
GRAPH_OP_FAMILIES(DECLARE)
#undef DECLARE

#endif
