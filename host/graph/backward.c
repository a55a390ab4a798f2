/* SPDX-License-Identifier: MIT */
/* host/graph/backward.c - gradients: walks the forward nodes in reverse and lets every op
 * emit its own gradient nodes.
 *
 *   forward      x --ln--> a --linear--> h --linear(+x)--> y
 *   backward    dx <-ln'-- da <-linear'- dh <--linear'---- dy
 *                 \______________ + ______________________/   the residual joins in ln'
 *
 * Gradients are never updated in place: a weight-gradient node may run much later than the
 * input-gradient node that shares its dy (zero-bubble schedules), so dy must stay what it
 * was. Where two gradients meet, the later node takes the earlier as an operand.
 *
 * Recomputation copies a layer's forward nodes, with new outputs, in front of the layer's
 * gradient nodes; `alias` then leads backward functions to the copies, and copies nobody
 * reads are dropped again. So are, at the end, all gradient nodes that lead to no trained parameter:
 * operations emit gradients of whatever they read, and know nothing of what is frozen.  */
#include "host/graph/ops_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int graph_grad(const graph *g, int value)
{
    return value >= 0 && value < g->grad_room ? g->grad[value] : -1;
}

int graph_saved(const graph *g, int value)
{
    return value >= 0 && value < g->grad_room && g->alias[value] >= 0 ? g->alias[value] : value;
}

void graph_grad_put(graph *g, int value, int grad, const char *name)
{
    if (g->status || value < 0 || grad < 0)
        return;
    assert(value < g->grad_room);
    if (g->grad[value] < 0) {
        g->grad[value] = grad;
        return;
    }
    char part[80];
    snprintf(part, sizeof part, "%.60s.sum", name);
    int sum = emit_add(g, part, GRAPH_INPUT_GRAD, g->grad[value], grad, g->values[grad].type);
    if (sum < 0)
        return;
    g->grad[value] = sum;
}

int graph_param_grad(graph *g, int param_value)
{
    if (g->status || param_value < 0)
        return -1;
    const graph_value *v = &g->values[param_value];
    assert(v->role == GRAPH_PARAM);
    int param = v->param;
    if (g->params[param].frozen) {
        char part[80];
        snprintf(part, sizeof part, "%.60s.unread", v->name);
        const shape s = g->params[param].shape;
        const int unread = graph_value_add(g, part, GRAPH_ACTIVATION, DTYPE_F32, s);
        if (unread >= 0)
            g->values[unread].param = param;
        return unread;
    }
    if (g->params[param].grad < 0) {
        char part[80];
        snprintf(part, sizeof part, "%.60s.grad", v->name);
        int grad = graph_value_add(g, part, GRAPH_PARAM_GRAD, DTYPE_F32, g->params[param].shape);
        if (grad < 0)
            return -1;
        g->values[grad].param = param;
        g->params[param].grad = grad;
    }
    return g->params[param].grad;
}

/* Copies forward nodes [from, to) of one layer as part of the input-gradient program. */
static void recompute_layer(graph *g, int from, int to)
{
    for (int i = from; i < to && !g->status; i++) {
        const graph_node old = g->nodes[i];
        char part[80];
        graph_node copy = old;
        copy.phase = GRAPH_INPUT_GRAD;
        snprintf(copy.name, sizeof copy.name, "%.60s.again", old.name);
        for (int j = 0; j < NODE_INPUTS; j++)
            copy.in[j] = graph_saved(g, old.in[j]);
        for (int j = 0; j < NODE_OUTPUTS; j++)
            if (old.out[j] >= 0) {
                const graph_value v = g->values[old.out[j]];
                snprintf(part, sizeof part, "%.60s.again", v.name);
                copy.out[j] = graph_value_add(g, part, v.role, v.type, v.shape);
                g->alias[old.out[j]] = copy.out[j];
            }
        graph_node *n = graph_node_add(g, old.op, GRAPH_INPUT_GRAD, copy.name);
        if (n)
            *n = copy;
    }
}

/* Drops recomputed nodes whose outputs nobody reads, last first. */
static void drop_unread(graph *g, int from, int to)
{
    for (int i = to - 1; i >= from; i--) {
        int read = 0;
        for (int j = 0; j < NODE_OUTPUTS; j++)
            if (g->nodes[i].out[j] >= 0)
                read |= graph_uses(g, g->nodes[i].out[j]) > 0;
        if (!read) {
            memmove(&g->nodes[i], &g->nodes[i + 1], (size_t)(g->node_count - i - 1) * sizeof *g->nodes);
            g->node_count--;
        }
    }
}

/* Is it needed by anything outside the nodes, or by a node that stays? */
static int is_read(const graph *g, const unsigned char *read, int v)
{
    return v >= 0 && (g->values[v].role != GRAPH_ACTIVATION || read[v]);
}

/* The first forward node that reads a trained parameter, on any rank of the group. Exchanges of gradients behind it
 * are made by all ranks. */
static int first_trained(const graph *g, int forward)
{
    if (g->ends.dx >= 0)
        return -1;
    for (int i = 0; i < forward && i < g->elsewhere; i++)
        for (int j = 0; j < NODE_INPUTS; j++) {
            const int v = g->nodes[i].in[j];
            if (v >= 0 && g->values[v].role == GRAPH_PARAM && !g->params[g->values[v].param].frozen)
                return i;
        }
    return g->elsewhere < forward ? g->elsewhere : forward;
}

/* Drops gradient nodes that lead to no trained parameter and not to dx: those of frozen parameters, and of
 * all activations before the first trained one. Nodes stand in an order in which they can run, so
 * from the last one back each is known to be read or not. */
static void drop_unneeded(graph *g, int forward)
{
    int kept = g->node_count;
    const int first = first_trained(g, forward);
    unsigned char *read = calloc((size_t)g->value_count + 1, 1);
    if (!read) {
        graph_fail_build(g, gt_fail(GT_NO_MEMORY, "cannot build a backward pass: no memory for marks of %d values",
                                    g->value_count));
        return;
    }
    if (g->ends.dx >= 0)
        read[g->ends.dx] = 1;
    for (int i = g->node_count - 1; i >= 0; i--) {
        graph_node *n = &g->nodes[i];
        int some = i < forward || (n->op->flags & GRAPH_OP_EXCHANGES && n->of > first);
        for (int j = 0; j < NODE_OUTPUTS; j++)
            some |= is_read(g, read, n->out[j]);
        for (int j = 0; j < NODE_OUTPUTS; j++)
            if (n->op->optional >> j & 1 && !is_read(g, read, n->out[j]))
                n->out[j] = -1;
        for (int j = 0; some && j < NODE_INPUTS; j++)
            if (n->in[j] >= 0)
                read[n->in[j]] = 1;
        if (some)
            g->nodes[--kept] = *n;
    }
    for (int v = g->grad_room; v < g->value_count; v++)
        if (g->values[v].role == GRAPH_INPUT && !read[v] && v != g->ends.dy)
            g->values[v].role = GRAPH_ACTIVATION;       /* nobody has to fill it */
    g->node_count -= kept;
    memmove(g->nodes, g->nodes + kept, (size_t)g->node_count * sizeof *g->nodes);
    free(read);
}

gt_status graph_backward(graph *g, int y, int x, int recompute)
{
    const int forward = g->node_count;
    if (graph_failed(g))
        return g->status;
    g->grad_room = g->value_count;
    g->grad = malloc((size_t)g->value_count * sizeof *g->grad);
    g->alias = malloc((size_t)g->value_count * sizeof *g->alias);
    g->grad_is_pre = calloc((size_t)g->value_count, 1);
    if (!g->grad || !g->alias || !g->grad_is_pre) {
        graph_fail_build(g, gt_fail(GT_NO_MEMORY,
                                    "cannot build a backward pass: no memory for a gradient of each of %d values",
                                    g->value_count));
        return g->status;
    }
    memset(g->grad, -1, (size_t)g->value_count * sizeof *g->grad);
    memset(g->alias, -1, (size_t)g->value_count * sizeof *g->alias);
    if (y >= 0) {
        shape s = g->values[y].shape;
        g->grad[y] = graph_input(g, "dy", g->storage, s);
        g->ends.dy = g->grad[y];
    }
    g->ends.y = y;
    g->ends.x = x;
    for (int i = forward - 1; i >= 0 && !g->status;) {
        const int layer = g->nodes[i].layer;
        int first = i;
        while (first > 0 && g->nodes[first - 1].layer == layer)
            first--;
        int again = g->node_count, emitted = again;
        g->layer = layer;
        if (recompute && layer >= 0) {
            recompute_layer(g, first, i + 1);
            emitted = g->node_count;
        }
        for (; i >= first && !g->status; i--) {
            const graph_node n = g->nodes[i];       /* the array may move while emitting */
            g->emitting = i;
            if (n.op->backward)
                n.op->backward(g, &n);
        }
        g->emitting = -1;
        drop_unread(g, again, emitted);
    }
    g->layer = -1;
    if (!g->status && x >= 0 && graph_grad(g, x) < 0)
        graph_fail_build(g, gt_fail(GT_MISMATCH, "cannot build gradients: '%s' is not used", g->values[x].name));
    g->ends.dx = g->status ? -1 : graph_grad(g, x);
    if (!g->status)
        drop_unneeded(g, forward);
    return graph_failed(g);
}
