/* SPDX-License-Identifier: MIT */
/* host/graph/op_embed.c - rows of the tables of tokens, positions and token types, and their gradients.
 *
 *   tokens, kinds --embed(token, position, type table)--> x;   dx --> token grad, position grad, type grad
 *
 * The tables' gradients add rows up in a fixed order: the host gives the rows sorted by token in the
 * inputs NAME_order and NAME_starts (kernel_embed_sort) of the embedding NAME.              */
#include "host/graph/ops_private.h"

/* in[] of the forward operation. */
enum { TOKENS, TABLE, POSITIONS, FIRST, KINDS, TYPES };

static int offset_of(const graph_node *n)
{
    int offset;
    graph_attributes_get(n, &offset, sizeof offset);
    return offset;
}

static gt_status embed_launch(launch_context *c, const graph_node *n)
{
    const graph *g = c->g;
    const shape *s = &value(g, n->out[0])->shape;
    const kernel_embedding in = {
        .x = c->buffer(c, n->in[TOKENS]),
        .token = c->buffer(c, n->in[TABLE]),
        .position = c->buffer(c, n->in[POSITIONS]),
        .first = c->buffer(c, n->in[FIRST]),
        .kind = c->buffer(c, n->in[KINDS]),
        .type = c->buffer(c, n->in[TYPES]),
        .offset = offset_of(n),
        .types = n->in[TYPES] < 0 ? 0 : R_of(g, n->in[TYPES])
    };
    return kernel_embed(c->list, c->kernels, (int)s->dim[0], (int)s->dim[1], (int)s->dim[2], rows_held(g, n->in[TABLE]),
                        &in, c->buffer(c, n->out[0]));
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
                                              offset_of(n), c->buffer(c, n->in[0]), c->buffer(c, n->out[0]), add,
                                              &slot);
    return st ? st : remember(c, changes, slot);
}

static gt_status embed_type_grad_launch(launch_context *c, const graph_node *n)
{
    const graph *g = c->g;
    int changes, add = c->add(c, n->out[0], &changes);
    kernel_slot slot;
    gt_status st = kernel_embed_type_grad(c->list, c->kernels, R_of(g, n->in[1]), C_of(g, n->in[1]), R_of(g, n->out[0]),
                                          c->buffer(c, n->in[0]), c->buffer(c, n->in[1]), c->buffer(c, n->out[0]), add,
                                          &slot);
    return st ? st : remember(c, changes, slot);
}

/* Rows of the table whose gradient this is, those of other ranks too. */
static int tokens_of(const graph *g, const graph_node *n)
{
    return rows_held(g, n->out[0]).V;
}

static void sort_tokens(const graph *g, const graph_node *n, const int32_t *tokens, int32_t *const out[],
                        int32_t *scratch)
{
    kernel_embed_sort(tokens, (int)count_of(g, n->in[0]), tokens_of(g, n), out[0], out[1], scratch);
}

static int64_t sort_scratch(const graph *g, const graph_node *n)
{
    return (int64_t)tokens_of(g, n) + 1;
}

static void tokens_touched(const graph *g, const graph_node *n, graph_touched *out)
{
    out->source = value(g, n->in[0])->name;
}

static void positions_touched(const graph *g, const graph_node *n, graph_touched *out)
{
    out->first = offset_of(n);
    out->count = value(g, n->in[0])->shape.dim[1];
}

static const graph_op op_embed_token_grad = {
    .name = "embed token grad",
    .touched = tokens_touched,
    .derive = sort_tokens,
    .derive_scratch = sort_scratch,
    .launch = embed_token_grad_launch,
    .flops = ops_no_flops,
};
static const graph_op op_embed_position_grad = {
    .name = "embed position grad",
    .touched = positions_touched,
    .launch = embed_position_grad_launch,
    .flops = ops_no_flops,
};

static const graph_op op_embed_type_grad = {
    .name = "embed type grad",
    .launch = embed_type_grad_launch,
    .flops = ops_no_flops,
};

/* An input that the host computes for this embedding. */
static int derived_input(graph *g, const graph_node *n, const char *what, int64_t count)
{
    char name[80];
    snprintf(name, sizeof name, "%.60s_%s", n->name, what);
    return graph_input(g, name, DTYPE_I32, shape_of(1, count));
}

static void token_backward(graph *g, const graph_node *n, int dy)
{
    const int64_t R = rows_of(value(g, dy));
    int order = derived_input(g, n, "order", R), starts = derived_input(g, n, "starts", R + 2);
    int dtoken = graph_param_grad(g, n->in[TABLE]);
    graph_node *t = graph_node_add(g, &op_embed_token_grad, GRAPH_WEIGHT_GRAD, n->name);
    if (!t)
        return;
    t->in[0] = n->in[TOKENS];
    t->in[1] = order;
    t->in[2] = starts;
    t->in[3] = dy;
    t->out[0] = dtoken;
}

static void position_backward(graph *g, const graph_node *n, int dy)
{
    const int offset = offset_of(n);
    int dposition = graph_param_grad(g, n->in[POSITIONS]);
    graph_node *p = graph_node_add(g, &op_embed_position_grad, GRAPH_WEIGHT_GRAD, n->name);
    if (!p)
        return;
    p->in[0] = dy;
    p->out[0] = dposition;
    graph_attributes_set(p, &offset, sizeof offset);
}

static void type_backward(graph *g, const graph_node *n, int dy)
{
    int dtypes = graph_param_grad(g, n->in[TYPES]);
    graph_node *t = graph_node_add(g, &op_embed_type_grad, GRAPH_WEIGHT_GRAD, n->name);
    if (!t)
        return;
    t->in[0] = n->in[KINDS];
    t->in[1] = dy;
    t->out[0] = dtypes;
}

static void embed_backward(graph *g, const graph_node *n)
{
    int dy = graph_grad(g, n->out[0]);
    if (dy < 0)
        return;
    token_backward(g, n, dy);
    if (n->in[POSITIONS] >= 0)
        position_backward(g, n, dy);
    if (n->in[TYPES] >= 0)
        type_backward(g, n, dy);
}

static const graph_op op_embed = {
    .name = "embed",
    .flags = GRAPH_OP_LOOKS_UP,
    .launch = embed_launch,
    .backward = embed_backward,
    .flops = ops_one_each,
};

/* Every sequence's positions lie in their table. */
static int check_positions(graph *g, const char *name, const graph_embedding *in)
{
    const int64_t rows = rows_of(&g->values[in->positions]);
    if (in->first >= 0 || rows >= in->offset + (int64_t)g->T)
        return 1;
    graph_fail_build(g,
                     gt_fail(GT_MISUSE,
                             "cannot build '%s': sequences of %d tokens need %lld rows of '%s', which has %lld", name,
                             g->T, (long long)in->offset + g->T, g->values[in->positions].name, (long long)rows));
    return 0;
}

int graph_embed_sum(graph *g, const char *name, const graph_embedding *in)
{
    if (!graph_has(g, name, in->tokens, 0) || !graph_has(g, name, in->table, 0))
        return -1;
    int64_t C = columns_of(&g->values[in->table]);
    if (in->positions >= 0 && (!graph_has(g, name, in->positions, C) || !check_positions(g, name, in)))
        return -1;
    if (in->types >= 0 && (!graph_has(g, name, in->types, C) || !graph_has(g, name, in->kinds, 0)))
        return -1;
    graph_mark_table(g, in->table);
    graph_mark_table(g, in->positions);
    graph_mark_table(g, in->types);
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage, shape_of(3, (int64_t)g->B, (int64_t)g->T, C));
    graph_node *n = graph_node_add(g, &op_embed, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[TOKENS] = in->tokens;
    n->in[TABLE] = in->table;
    n->in[POSITIONS] = in->positions;
    n->in[FIRST] = in->first;
    n->in[KINDS] = in->types < 0 ? -1 : in->kinds;
    n->in[TYPES] = in->types;
    n->out[0] = y;
    graph_attributes_set(n, &in->offset, sizeof in->offset);
    return y;
}

int graph_embed(graph *g, const char *name, int tokens, int token_table, int position_table, int first)
{
    return graph_embed_sum(g, name,
                           &(graph_embedding){ .tokens = tokens,
                                               .table = token_table,
                                               .positions = position_table,
                                               .first = first,
                                               .kinds = -1,
                                               .types = -1 });
}

const graph_op *const graph_embed_ops[] = { &op_embed, &op_embed_token_grad, &op_embed_position_grad,
                                            &op_embed_type_grad, NULL };
