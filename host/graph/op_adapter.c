/* SPDX-License-Identifier: MIT */
/* host/graph/op_adapter.c - what DoRA does around a product: columns scaled by magnitudes over norms.
 *
 *   n = | rows of w + scale * b a |            z = x w' + scale * h b'  (op_linear.c)
 *   y = z * m / n + bias
 *   dz = dy * m / n,   dm = column sums of dy * z / n,   n counts as a constant
 *
 * Liu et al., "DoRA: weight-decomposed low-rank adaptation" (2024), sections 4.1 and 4.3.      */
#include "host/graph/ops_private.h"

/* ---- norms of rows -------------------------------------------------------------------------- */

static gt_status row_norms_launch(launch_context *c, const graph_node *n)
{
    const graph *g = c->g;
    float scale;
    int first;
    graph_attributes_get(n, &scale, sizeof scale);
    const dtype kept = ops_weights(g, n->in[0], &first);
    return kernel_row_norms(c->list, c->kernels, R_of(g, n->in[0]), C_of(g, n->in[0]), R_of(g, n->in[1]), scale, kept,
                            first, c->buffer(c, n->in[0]), c->buffer(c, n->in[1]), c->buffer(c, n->in[2]),
                            c->buffer(c, n->out[0]));
}

static double row_norms_flops(const graph *g, const graph_node *n)
{
    return 2.0 * (double)count_of(g, n->in[0]) * (R_of(g, n->in[1]) + 1);
}

static const graph_op op_row_norms = {
    .name = "row norms",
    .launch = row_norms_launch,
    .flops = row_norms_flops,
};

int graph_row_norms(graph *g, const char *name, int w, int a, int b, float scale)
{
    if (!graph_has(g, name, w, 0) || !graph_has(g, name, a, columns_of(&g->values[w]))
        || !graph_has(g, name, b, g->values[a].shape.dim[0]))
        return -1;
    char part[80];
    snprintf(part, sizeof part, "%.60s.norms", name);
    graph_mark_matrix(g, w);
    int y = graph_value_add(g, part, GRAPH_ACTIVATION, DTYPE_F32, shape_of(1, g->values[w].shape.dim[0]));
    graph_node *n = graph_node_add(g, &op_row_norms, GRAPH_FORWARD, part);
    if (!n)
        return -1;
    n->in[0] = w;
    n->in[1] = a;
    n->in[2] = b;
    n->out[0] = y;
    graph_attributes_set(n, &scale, sizeof scale);
    return y;
}

/* ---- scaled columns -------------------------------------------------------------------------- */

enum { Z, M, N, BIAS };

static gt_status scale_columns_launch(launch_context *c, const graph_node *n)
{
    return kernel_scale_columns(c->list, c->kernels, R_of(c->g, n->in[Z]), C_of(c->g, n->in[Z]), c->buffer(c, n->in[Z]),
                                c->buffer(c, n->in[M]), c->buffer(c, n->in[N]), c->buffer(c, n->in[BIAS]),
                                c->buffer(c, n->out[0]));
}

static gt_status magnitude_product_launch(launch_context *c, const graph_node *n)
{
    return kernel_magnitude_product(c->list, c->kernels, R_of(c->g, n->in[0]), C_of(c->g, n->in[0]),
                                    c->buffer(c, n->in[0]), c->buffer(c, n->in[1]), c->buffer(c, n->in[2]),
                                    c->buffer(c, n->out[0]));
}

static double scale_columns_flops(const graph *g, const graph_node *n)
{
    return 2.0 * (double)count_of(g, n->out[0]);
}

static void scale_columns_backward(graph *g, const graph_node *n);

static const graph_op op_scale_columns = {
    .name = "scale columns",
    .launch = scale_columns_launch,
    .backward = scale_columns_backward,
    .flops = scale_columns_flops,
};
static const graph_op op_magnitude_product = {
    .name = "magnitude product",
    .launch = magnitude_product_launch,
    .flops = scale_columns_flops,
};

static int emit_scaled(graph *g, const char *name, graph_phase phase, int z, int m, int norms, int bias)
{
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage, value(g, z)->shape);
    graph_node *n = graph_node_add(g, &op_scale_columns, phase, name);
    if (!n)
        return -1;
    n->in[Z] = z;
    n->in[M] = m;
    n->in[N] = norms;
    n->in[BIAS] = bias;
    n->out[0] = y;
    return y;
}

static void scale_columns_backward(graph *g, const graph_node *n)
{
    const int dy = graph_grad(g, n->out[0]), norms = graph_saved(g, n->in[N]);
    if (dy < 0)
        return;
    graph_grad_put(g, n->in[Z], emit_scaled(g, n->name, GRAPH_INPUT_GRAD, dy, n->in[M], norms, -1), n->name);
    int p = graph_value_add(g, n->name, GRAPH_ACTIVATION, g->storage, value(g, dy)->shape);
    graph_node *product = graph_node_add(g, &op_magnitude_product, GRAPH_WEIGHT_GRAD, n->name);
    if (!product)
        return;
    product->in[0] = dy;
    product->in[1] = graph_saved(g, n->in[Z]);
    product->in[2] = norms;
    product->out[0] = p;
    emit_bias_grad(g, n->name, p, n->in[M]);
    if (n->in[BIAS] >= 0)
        emit_bias_grad(g, n->name, dy, n->in[BIAS]);
}

int graph_scale_columns(graph *g, const char *name, int z, int m, int norms, int bias)
{
    if (!graph_has(g, name, z, 0))
        return -1;
    const int64_t C = columns_of(&g->values[z]);
    if (!graph_has(g, name, m, C) || !graph_has(g, name, norms, C) || (bias >= 0 && !graph_has(g, name, bias, C)))
        return -1;
    return emit_scaled(g, name, GRAPH_FORWARD, z, m, norms, bias);
}

/* ---- some columns ---------------------------------------------------------------------------- */

typedef struct columns_attributes {
    int64_t first;
    float scale;
} columns_attributes;

static columns_attributes columns_at(const graph_node *n)
{
    columns_attributes a;
    graph_attributes_get(n, &a, sizeof a);
    return a;
}

static gt_status add_columns_launch(launch_context *c, const graph_node *n)
{
    const columns_attributes a = columns_at(n);
    return kernel_add_columns(c->list, c->kernels, R_of(c->g, n->in[0]), C_of(c->g, n->in[1]), C_of(c->g, n->in[0]),
                              (int)a.first, a.scale, c->buffer(c, n->in[0]), c->buffer(c, n->in[1]),
                              c->buffer(c, n->out[0]));
}

static gt_status take_columns_launch(launch_context *c, const graph_node *n)
{
    const columns_attributes a = columns_at(n);
    return kernel_take_columns(c->list, c->kernels, R_of(c->g, n->in[0]), C_of(c->g, n->out[0]), C_of(c->g, n->in[0]),
                               (int)a.first, a.scale, c->buffer(c, n->in[0]), c->buffer(c, n->out[0]));
}

static const graph_op op_take_columns = {
    .name = "take columns",
    .launch = take_columns_launch,
    .flops = ops_one_each,
};

static void add_columns_backward(graph *g, const graph_node *n)
{
    const int dy = graph_grad(g, n->out[0]), u = n->in[1];
    const columns_attributes a = columns_at(n);
    if (dy < 0)
        return;
    graph_grad_put(g, n->in[0], dy, n->name);
    const int du = graph_value_add(g, n->name, GRAPH_ACTIVATION, g->storage, value(g, u)->shape);
    graph_node *t = graph_node_add(g, &op_take_columns, GRAPH_INPUT_GRAD, n->name);
    if (!t)
        return;
    t->in[0] = dy;
    t->out[0] = du;
    graph_attributes_set(t, &a, sizeof a);
    graph_grad_put(g, u, du, n->name);
}

static const graph_op op_add_columns = {
    .name = "add columns",
    .launch = add_columns_launch,
    .backward = add_columns_backward,
    .flops = ops_one_each,
};

int graph_add_columns(graph *g, const char *name, int z, int u, int64_t first, float scale)
{
    if (!graph_has(g, name, z, 0) || !graph_has(g, name, u, 0))
        return -1;
    if (first < 0 || first + columns_of(&g->values[u]) > columns_of(&g->values[z])
        || rows_of(&g->values[u]) != rows_of(&g->values[z])) {
        graph_fail_build(g, gt_fail(GT_MISMATCH, "cannot build '%s': '%s' does not fit into '%s'", name,
                                    g->values[u].name, g->values[z].name));
        return -1;
    }
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage, g->values[z].shape);
    graph_node *n = graph_node_add(g, &op_add_columns, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = z;
    n->in[1] = u;
    n->out[0] = y;
    const columns_attributes a = { first, scale };
    graph_attributes_set(n, &a, sizeof a);
    return y;
}

const graph_op *const graph_adapter_ops[] = { &op_row_norms,   &op_scale_columns, &op_magnitude_product,
                                              &op_add_columns, &op_take_columns,  NULL };
