/* SPDX-License-Identifier: MIT */
/* host/graph/op_embed.c - rows of the token table and of the positions, and the gradients of both.
 *
 *   tokens --embed(token table, position table)--> x;   dx --> token grad, position grad
 *
 * The tables' gradients add rows up in a fixed order: the host gives the rows sorted by token in the
 * inputs "embed_order" and "embed_starts" (kernel_embed_sort).                            */
#include "host/graph/ops_private.h"

static gt_status embed_launch(launch_context *c, const graph_node *n)
{
    const graph *g = c->g;
    const shape *s = &value(g, n->out[0])->shape;
    return kernel_embed(c->list, c->kernels, (int)s->dim[0], (int)s->dim[1], (int)s->dim[2], rows_held(g, n->in[1]),
                        c->buffer(c, n->in[0]), c->buffer(c, n->in[1]), c->buffer(c, n->in[2]), c->buffer(c, n->in[3]),
                        c->buffer(c, n->out[0]));
}

static gt_status embed_token_grad_launch(launch_context *c, const graph_node *n)
{
    const graph *g = c->g;
    int changes;
    c->add(c, n->out[0], &changes);
    if (changes) {                          /* first to write, yet it can only add */
        gt_status st = c->clear(c, n->out[0]);
        if (st)
            return st;
    }
    return kernel_embed_token_grad(c->list, c->kernels, R_of(g, n->in[3]), C_of(g, n->in[3]), rows_held(g, n->out[0]),
                                   c->buffer(c, n->in[0]), c->buffer(c, n->in[1]), c->buffer(c, n->in[2]),
                                   c->buffer(c, n->in[3]), c->buffer(c, n->out[0]));
}

static gt_status embed_position_grad_launch(launch_context *c, const graph_node *n)
{
    const graph *g = c->g;
    const shape *s = &value(g, n->in[0])->shape;
    int changes, add = c->add(c, n->out[0], &changes);
    kernel_slot slot;
    gt_status st = kernel_embed_position_grad(c->list, c->kernels, (int)s->dim[0], (int)s->dim[1], (int)s->dim[2],
                                              c->buffer(c, n->in[0]), c->buffer(c, n->out[0]), add, &slot);
    return st ? st : remember(c, changes, slot);
}

static void sort_tokens(const graph *g, const graph_node *n, const int32_t *tokens, int32_t *const out[],
                        int32_t *scratch)
{
    kernel_embed_sort(tokens, (int)count_of(g, n->in[0]), graph_vocabulary(g), out[0], out[1], scratch);
}

static int64_t sort_scratch(const graph *g, const graph_node *n)
{
    (void)n;
    return (int64_t)graph_vocabulary(g) + 1;
}

static const graph_op op_embed_token_grad = {
    .name = "embed token grad",
    .derive = sort_tokens,
    .derive_scratch = sort_scratch,
    .launch = embed_token_grad_launch,
    .flops = ops_no_flops,
};
static const graph_op op_embed_position_grad = {
    .name = "embed position grad",
    .launch = embed_position_grad_launch,
    .flops = ops_no_flops,
};

static void embed_backward(graph *g, const graph_node *n)
{
    int dy = graph_grad(g, n->out[0]);
    if (dy < 0)
        return;
    const int64_t R = rows_of(value(g, dy));
    int order = graph_input(g, "embed_order", DTYPE_I32, shape_of(1, R));
    int starts = graph_input(g, "embed_starts", DTYPE_I32, shape_of(1, R + 2));
    int dtoken = graph_param_grad(g, n->in[1]);
    graph_node *t = graph_node_add(g, &op_embed_token_grad, GRAPH_WEIGHT_GRAD, n->name);
    if (!t)
        return;
    t->in[0] = n->in[0];
    t->in[1] = order;
    t->in[2] = starts;
    t->in[3] = dy;
    t->out[0] = dtoken;
    if (n->in[2] < 0)
        return;
    int dposition = graph_param_grad(g, n->in[2]);
    graph_node *p = graph_node_add(g, &op_embed_position_grad, GRAPH_WEIGHT_GRAD, n->name);
    if (!p)
        return;
    p->in[0] = dy;
    p->out[0] = dposition;
}

static const graph_op op_embed = {
    .name = "embed",
    .flags = GRAPH_OP_LOOKS_UP,
    .launch = embed_launch,
    .backward = embed_backward,
    .flops = ops_one_each,
};

int graph_embed(graph *g, const char *name, int tokens, int token_table, int position_table, int first)
{
    if (!graph_has(g, name, tokens, 0) || !graph_has(g, name, token_table, 0))
        return -1;
    int64_t C = columns_of(&g->values[token_table]);
    if (position_table >= 0 && !graph_has(g, name, position_table, C))
        return -1;
    graph_mark_table(g, token_table);
    graph_mark_table(g, position_table);
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage, shape_of(3, (int64_t)g->B, (int64_t)g->T, C));
    graph_node *n = graph_node_add(g, &op_embed, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = tokens;
    n->in[1] = token_table;
    n->in[2] = position_table;
    n->in[3] = first;
    n->out[0] = y;
    return y;
}

const graph_op *const graph_embed_ops[] = { &op_embed, &op_embed_token_grad, &op_embed_position_grad, NULL };
