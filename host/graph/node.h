/* SPDX-License-Identifier: MIT */
/* host/graph/node.h - nodes, and what a row of the op table says: all that is known of an operation.
 *
 * To add an operation: a builder in graph.h, and its rows with their functions in the op_FAMILY.c
 * it belongs to (a new family: a line in ops_private.h). Autodiff, planning, execution, costs and
 * --explain follow the rows. */
#ifndef GT_GRAPH_NODE_H
#define GT_GRAPH_NODE_H

#include "host/graph/touched.h"
#include "host/kernel/kernel.h"
#include "host/gemm/gemm.h"

#include <assert.h>
#include <string.h>

#define NODE_INPUTS 8
#define NODE_OUTPUTS 5
#define NODE_ATTRIBUTES 64

typedef struct graph_op graph_op;

typedef struct graph_node {
    const graph_op *op;
    graph_phase phase;
    int layer;
    int of;                                     /* of a gradient: the forward node, else -1 */
    char name[72];
    int in[NODE_INPUTS], out[NODE_OUTPUTS];     /* values, -1 where there is none        */
    unsigned char attributes[NODE_ATTRIBUTES];  /* the operation's own: see graph_attributes_get */
} graph_node;

struct graph {
    dtype storage;
    int B, T, layer;
    gt_status status;
    char message[512];
    graph_value *values;
    int value_count, value_room;
    graph_node *nodes;
    int node_count, node_room;
    graph_param_info *params;
    int param_count, param_room;
    uint32_t streams;                           /* the next dropout               */
    const char *only, *too, *but;               /* patterns: graph_train()        */
    int elsewhere;                              /* see graph_param_elsewhere()    */
    int emitting;                               /* the forward node whose gradients are emitted; -1 */
    dtype base;                                 /* of frozen matrices             */
    int ranks, rank;                            /* of the tensor group, at least 1 */
    int64_t *rows, *one_row;                    /* [ranks]: of activations between blocks; 1    */
    graph_ends ends;
    int *grad;                                  /* of each value: its gradient's value */
    int *alias;                                 /* of each value: its recomputed copy  */
    int grad_room;
    unsigned char *grad_is_pre;                 /* gradient is already before the activation */
};

/* What launching needs besides the node. */
typedef struct launch_context {
    dev_device *device;
    dev_list *list;
    kernel_set *kernels;
    gemm_context *gemm;
    dev_buffer *(*buffer)(struct launch_context *c, int value);     /* NULL for -1 */
    dev_buffer *scratch;                        /* op->scratch bytes               */
    /* A part of a buffer, kept alive as long as the list; NULL after recording a failure. */
    dev_buffer *(*view)(struct launch_context *c, dev_buffer *from, uint64_t offset, uint64_t bytes);
    const graph *g;
    /* For results that accumulate: 0/1 now, and whether the launch is to be remembered
     * because the answer changes from run to run. */
    int (*add)(struct launch_context *c, int value, int *changes);
    gt_status (*remember)(struct launch_context *c, int launch, int arg);
    /* Clears the value before each run that does not add. */
    gt_status (*clear)(struct launch_context *c, int value);
    /* Here the host exchanges n->in[0] for n->out[0] with the group; rows[ranks] is kept, not copied. */
    gt_status (*exchange)(struct launch_context *c, const graph_node *n, graph_exchange kind, const int64_t *rows);
} launch_context;

/* What others must know of an operation. */
enum {
    GRAPH_OP_RESULT = 1,        /* its outputs are handed out: they stay until the graph has run, and
                                   a graph that ends with it hands no activation on               */
    GRAPH_OP_MULTIPLIES = 2,    /* its time is the GEMMs', though it is more than the one in `gemm` */
    GRAPH_OP_LOOKS_UP = 4,      /* in[GRAPH_TABLE_INPUT] is a table of which some rows are read    */
    GRAPH_OP_EXCHANGES = 8,     /* no launch: in[0] for out[0] between the ranks of a tensor group */
};
enum { GRAPH_TABLE_INPUT = 1 };

struct graph_op {
    const char *name;
    unsigned flags;
    unsigned optional;                          /* bits of outputs that may be -1 where nobody reads them */
    gt_status (*launch)(launch_context *c, const graph_node *n);
    /* Emits the nodes that carry gradients from the node's outputs to its inputs; NULL: none do. */
    void (*backward)(graph *g, const graph_node *n);
    double (*flops)(const graph *g, const graph_node *n);
    /* Bytes of scratch; NULL for none. */
    gt_status (*scratch)(launch_context *c, const graph_node *n, uint64_t *bytes);
    /* The GEMM inside, for --explain; NULL if there is none. */
    int (*gemm)(const graph *g, const graph_node *n, gemm_desc *out);
    /* All GEMMs inside, where they are others than the one in `gemm`; optional. */
    void (*gemms)(const graph *g, const graph_node *n, void (*each)(void *context, const gemm_desc *d), void *context);
    /* What computes it, for --explain, where that is chosen among several but is no GEMM; optional. */
    const char *(*engine)(launch_context *c, const graph_node *n);
    /* 1 if nodes of this row take the same time for equal shapes; NULL: always. */
    int (*alike)(const graph_node *a, const graph_node *b);
    /* Computes inputs in[1], in[2] from the input in[0], on the host (derived.h), and the int32s that
     * this needs beside them; NULL: nothing is computed. */
    void (*derive)(const graph *g, const graph_node *n, const int32_t *source, int32_t *const out[], int32_t *scratch);
    int64_t (*derive_scratch)(const graph *g, const graph_node *n);
    /* Of a gradient out[0], which rows alone it writes to: source, or first and count (touched.h). NULL: all. */
    void (*touched)(const graph *g, const graph_node *n, graph_touched *out);
};

/* The rows of all operations, 0, 1, 2, ...; NULL behind the last. */
const graph_op *graph_op_at(int i);
int graph_node_alike(const graph_node *a, const graph_node *b);
/* Bytes a node must move: inputs read and outputs written once. */
double graph_node_bytes(const graph *g, const graph_node *n);

/* A node's attributes are a struct that only the file of its operation knows; size <= NODE_ATTRIBUTES. */
static inline void graph_attributes_set(graph_node *n, const void *from, size_t size)
{
    assert(size <= sizeof n->attributes);
    memcpy(n->attributes, from, size);
}

static inline void graph_attributes_get(const graph_node *n, void *to, size_t size)
{
    assert(size <= sizeof n->attributes);
    memcpy(to, n->attributes, size);
}

/* ---- for builders and backward functions ------------------------------------------------ */
int graph_value_add(graph *g, const char *name, graph_role role, dtype type, shape s);
graph_node *graph_node_add(graph *g, const graph_op *op, graph_phase phase, const char *name);
/* The gradient that has reached a value so far, -1 if none. */
int graph_grad(const graph *g, int value);
/* Another gradient reaches `value`: the first is taken as it is, later ones are added. */
void graph_grad_put(graph *g, int value, int grad, const char *name);
/* The value as it exists while backward runs: its recomputed copy, if there is one. */
int graph_saved(const graph *g, int value);
/* The accumulator of a parameter's gradient; of a frozen one a value that nobody reads, so that a node
 * which makes nothing else is dropped again. */
int graph_param_grad(graph *g, int param_value);
/* How many nodes read a value. */
int graph_uses(const graph *g, int value);
/* The node that writes an activation, NULL for others. */
const graph_node *graph_producer(const graph *g, int value);

static inline int64_t rows_of(const graph_value *v)
{
    int64_t rows = 1;
    for (int i = 0; i + 1 < v->shape.rank; i++)
        rows *= v->shape.dim[i];
    return rows;
}

static inline int64_t columns_of(const graph_value *v)
{
    return v->shape.rank ? v->shape.dim[v->shape.rank - 1] : 1;
}

#endif
