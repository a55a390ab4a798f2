/* SPDX-License-Identifier: MIT */
/* host/graph/ops.c - the op table: launching, gradients and cost of every operation.
 *
 * A row's launch function only fetches buffers and calls kernel.h or gemm.h. Its backward
 * function emits nodes; what it needs from forward it asks for through graph_saved(), so
 * that recomputation works without its knowledge.
 *
 * The one fusion done here: the input gradient of a linear layer whose input came straight
 * out of another linear layer's GELU multiplies by gelu' in its epilogue, so the gradient
 * of the activation itself is never stored.                                             */
#include "host/graph/ops_private.h"

#include <string.h>

/* NULL if the node drops nothing. */
static const kernel_dropout *dropout_of(launch_context *c, const graph_node *n, int random,
                                        kernel_dropout *room)
{
    if (n->drop <= 0.0f)
        return NULL;
    *room = (kernel_dropout){ .p = n->drop, .stream = n->stream, .random = c->buffer(c, random),
                              .first_head = n->first_head, .heads = n->all_heads };
    return room;
}

static double no_flops(const graph *g, const graph_node *n)
{
    (void)g;
    (void)n;
    return 0.0;
}

/* ---- embedding ---------------------------------------------------------------------------- */

static gt_status embed_launch(launch_context *c, const graph_node *n)
{
    const graph *g = c->g;
    const shape *s = &value(g, n->out[0])->shape;
    return kernel_embed(c->list, c->kernels, (int)s->dim[0], (int)s->dim[1], (int)s->dim[2],
                        rows_held(g, n->in[1]), c->buffer(c, n->in[0]), c->buffer(c, n->in[1]),
                        c->buffer(c, n->in[2]), c->buffer(c, n->in[3]), c->buffer(c, n->out[0]));
}

static void embed_backward(graph *g, const graph_node *n)
{
    int dy = graph_grad(g, n->out[0]);
    if (dy < 0)
        return;
    const int64_t R = rows_of(value(g, dy));
    int order = graph_input(g, "embed_order", DTYPE_I32, shape_of(1, R));
    int starts = graph_input(g, "embed_starts", DTYPE_I32, shape_of(1, R + 2));
    int dtoken = graph_param_grad(g, n->in[1]);
    graph_node *t = graph_node_add(g, OP_EMBED_TOKEN_GRAD, GRAPH_WEIGHT_GRAD, n->name);
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
    graph_node *p = graph_node_add(g, OP_EMBED_POSITION_GRAD, GRAPH_WEIGHT_GRAD, n->name);
    if (!p)
        return;
    p->in[0] = dy;
    p->out[0] = dposition;
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
    return kernel_embed_token_grad(c->list, c->kernels, R_of(g, n->in[3]), C_of(g, n->in[3]),
                                   rows_held(g, n->out[0]), c->buffer(c, n->in[0]),
                                   c->buffer(c, n->in[1]), c->buffer(c, n->in[2]),
                                   c->buffer(c, n->in[3]), c->buffer(c, n->out[0]));
}

static gt_status embed_position_grad_launch(launch_context *c, const graph_node *n)
{
    const graph *g = c->g;
    const shape *s = &value(g, n->in[0])->shape;
    int changes, add = c->add(c, n->out[0], &changes);
    kernel_slot slot;
    gt_status st = kernel_embed_position_grad(c->list, c->kernels, (int)s->dim[0], (int)s->dim[1],
                                              (int)s->dim[2], c->buffer(c, n->in[0]),
                                              c->buffer(c, n->out[0]), add, &slot);
    return st ? st : remember(c, changes, slot);
}

/* ---- elementwise ------------------------------------------------------------------------------ */

static gt_status dropout_launch(launch_context *c, const graph_node *n)
{
    kernel_dropout room;
    return kernel_dropout_apply(c->list, c->kernels, count_of(c->g, n->in[0]),
                                dropout_of(c, n, n->in[1], &room), c->buffer(c, n->in[0]),
                                c->buffer(c, n->out[0]));
}

/* Emits dropout of a gradient with the same mask; returns the new gradient. */
static int dropout_again(graph *g, const graph_node *n, int random, int dy)
{
    int dx = graph_value_add(g, n->name, GRAPH_ACTIVATION, value(g, dy)->type, value(g, dy)->shape);
    graph_node *d = graph_node_add(g, OP_DROPOUT, GRAPH_INPUT_GRAD, n->name);
    if (!d)
        return -1;
    d->in[0] = dy;
    d->in[1] = random;
    d->out[0] = dx;
    d->drop = n->drop;
    d->stream = n->stream;
    return dx;
}

static void dropout_backward(graph *g, const graph_node *n)
{
    int dy = graph_grad(g, n->out[0]);
    if (dy >= 0)
        graph_grad_put(g, n->in[0], dropout_again(g, n, n->in[1], dy), n->name);
}

static gt_status add_launch(launch_context *c, const graph_node *n)
{
    return kernel_add(c->list, c->kernels, count_of(c->g, n->in[0]), c->buffer(c, n->in[0]),
                      c->buffer(c, n->in[1]), c->buffer(c, n->out[0]));
}

static void add_backward(graph *g, const graph_node *n)
{
    int dy = graph_grad(g, n->out[0]);
    graph_grad_put(g, n->in[0], dy, n->name);
    graph_grad_put(g, n->in[1], dy, n->name);
}

static double one_flop_each(const graph *g, const graph_node *n)
{
    return (double)count_of(g, n->out[0]);
}

static gt_status gelu_grad_launch(launch_context *c, const graph_node *n)
{
    return kernel_gelu_grad(c->list, c->kernels, count_of(c->g, n->in[0]), c->buffer(c, n->in[0]),
                            c->buffer(c, n->in[1]), c->buffer(c, n->out[0]));
}

static double gelu_flops(const graph *g, const graph_node *n)
{
    return 12.0 * (double)count_of(g, n->in[0]);
}

/* ---- layernorm ---------------------------------------------------------------------------------- */

static gt_status layernorm_launch(launch_context *c, const graph_node *n)
{
    return kernel_layernorm(c->list, c->kernels, R_of(c->g, n->in[0]), C_of(c->g, n->in[0]), n->eps,
                            c->buffer(c, n->in[0]), c->buffer(c, n->in[1]), c->buffer(c, n->in[2]),
                            c->buffer(c, n->out[0]), c->buffer(c, n->out[1]),
                            c->buffer(c, n->out[2]));
}

static void layernorm_backward(graph *g, const graph_node *n)
{
    int dy = graph_grad(g, n->out[0]), x = n->in[0];
    if (dy < 0)
        return;
    int mean = graph_saved(g, n->out[1]), rstd = graph_saved(g, n->out[2]);
    int dx = graph_value_add(g, n->name, GRAPH_ACTIVATION, value(g, x)->type, value(g, x)->shape);
    graph_node *i = graph_node_add(g, OP_LAYERNORM_INPUT_GRAD, GRAPH_INPUT_GRAD, n->name);
    if (!i)
        return;
    i->in[0] = dy;
    i->in[1] = graph_saved(g, x);
    i->in[2] = n->in[1];
    i->in[3] = mean;
    i->in[4] = rstd;
    i->in[5] = graph_grad(g, x);            /* what reached x around the norm, if anything */
    i->out[0] = dx;
    g->grad[x] = dx;

    int dgain = graph_param_grad(g, n->in[1]), dbias = graph_param_grad(g, n->in[2]);
    graph_node *w = graph_node_add(g, OP_LAYERNORM_WEIGHT_GRAD, GRAPH_WEIGHT_GRAD, n->name);
    if (!w)
        return;
    w->in[0] = dy;
    w->in[1] = graph_saved(g, x);
    w->in[2] = mean;
    w->in[3] = rstd;
    w->out[0] = dgain;
    w->out[1] = dbias;
}

static gt_status layernorm_input_grad_launch(launch_context *c, const graph_node *n)
{
    return kernel_layernorm_input_grad(c->list, c->kernels, R_of(c->g, n->in[0]),
                                       C_of(c->g, n->in[0]), c->buffer(c, n->in[0]),
                                       c->buffer(c, n->in[1]), c->buffer(c, n->in[2]),
                                       c->buffer(c, n->in[3]), c->buffer(c, n->in[4]),
                                       c->buffer(c, n->in[5]), c->buffer(c, n->out[0]));
}

static gt_status layernorm_weight_grad_launch(launch_context *c, const graph_node *n)
{
    int changes, ignored, add = c->add(c, n->out[0], &changes);
    kernel_slot slot;
    c->add(c, n->out[1], &ignored);         /* written by the same launch, so the same answer */
    gt_status st = kernel_layernorm_weight_grad(
        c->list, c->kernels, R_of(c->g, n->in[0]), C_of(c->g, n->in[0]), c->buffer(c, n->in[0]),
        c->buffer(c, n->in[1]), c->buffer(c, n->in[2]), c->buffer(c, n->in[3]),
        c->buffer(c, n->out[0]), c->buffer(c, n->out[1]), c->scratch, add, &slot);
    return st ? st : remember(c, changes, slot);
}

static gt_status layernorm_weight_grad_scratch(launch_context *c, const graph_node *n,
                                               uint64_t *bytes)
{
    *bytes = kernel_column_scratch(c->kernels, R_of(c->g, n->in[0]), C_of(c->g, n->in[0]), 2);
    return GT_OK;
}

static double layernorm_flops(const graph *g, const graph_node *n)
{
    return 8.0 * (double)count_of(g, n->in[0]);
}

/* ---- linear --------------------------------------------------------------------------------------- */

static int linear_gemm(const graph *g, const graph_node *n, gemm_desc *d)
{
    const dtype s = g->storage;
    memset(d, 0, sizeof *d);
    *d = (gemm_desc){ .M = R_of(g, n->in[0]), .N = C_of(g, n->out[0]), .K = C_of(g, n->in[0]),
                      .trans_b = 1, .a_type = s, .b_type = s, .c_type = s,
                      .bias = n->in[2] >= 0, .gelu = n->act == GRAPH_ACT_GELU,
                      .residual = n->in[3] >= 0, .drop_p = n->drop, .drop_stream = n->stream };
    return 1;
}

static gt_status linear_launch(launch_context *c, const graph_node *n)
{
    gemm_desc d;
    linear_gemm(c->g, n, &d);
    gemm_buffers b = { .a = c->buffer(c, n->in[0]), .b = c->buffer(c, n->in[1]),
                       .c = c->buffer(c, n->out[0]), .bias = c->buffer(c, n->in[2]),
                       .pre = c->buffer(c, n->out[1]), .residual = c->buffer(c, n->in[3]),
                       .random = c->buffer(c, n->in[4]), .scratch = c->scratch };
    return gemm_append(c->gemm, c->list, &d, &b, NULL);
}

static void linear_backward(graph *g, const graph_node *n)
{
    int dy = graph_grad(g, n->out[0]);
    const int x = n->in[0], w = n->in[1];
    if (dy < 0)
        return;
    if (n->in[3] >= 0)
        graph_grad_put(g, n->in[3], dy, n->name);
    if (n->drop > 0.0f)
        dy = dropout_again(g, n, n->in[4], dy);
    if (n->act == GRAPH_ACT_GELU && !g->grad_is_pre[n->out[0]]) {
        int dpre = graph_value_add(g, n->name, GRAPH_ACTIVATION, g->storage,
                                   value(g, n->out[0])->shape);
        graph_node *a = graph_node_add(g, OP_GELU_GRAD, GRAPH_INPUT_GRAD, n->name);
        if (!a)
            return;
        a->in[0] = dy;
        a->in[1] = graph_saved(g, n->out[1]);
        a->out[0] = dpre;
        dy = dpre;
    }
    if (value(g, x)->role == GRAPH_ACTIVATION || !strcmp(value(g, x)->name, "x")) {
        const graph_node *from = graph_producer(g, x);
        int fused = from && from->op == OP_LINEAR && from->act == GRAPH_ACT_GELU
                    && from->drop <= 0.0f && from->in[3] < 0 && graph_grad(g, x) < 0;
        for (int i = 0, uses = 0; fused && i < g->node_count; i++)     /* forward readers */
            for (int j = 0; j < NODE_INPUTS; j++)
                if (g->nodes[i].phase == GRAPH_FORWARD && g->nodes[i].in[j] == x && ++uses > 1)
                    fused = 0;
        int pre = fused ? graph_saved(g, from->out[1]) : -1;
        int dx = graph_value_add(g, n->name, GRAPH_ACTIVATION, g->storage, value(g, x)->shape);
        graph_node *i = graph_node_add(g, OP_LINEAR_INPUT_GRAD, GRAPH_INPUT_GRAD, n->name);
        if (!i)
            return;
        i->in[0] = dy;
        i->in[1] = w;
        i->in[2] = pre;
        i->out[0] = dx;
        g->grad_is_pre[x] = (unsigned char)fused;
        graph_grad_put(g, x, dx, n->name);
    }
    int dw = graph_param_grad(g, w);
    graph_node *wn = graph_node_add(g, OP_LINEAR_WEIGHT_GRAD, GRAPH_WEIGHT_GRAD, n->name);
    if (!wn)
        return;
    wn->in[0] = dy;
    wn->in[1] = graph_saved(g, x);
    wn->out[0] = dw;
    if (n->in[2] < 0)
        return;
    int db = graph_param_grad(g, n->in[2]);
    graph_node *bn = graph_node_add(g, OP_BIAS_GRAD, GRAPH_WEIGHT_GRAD, n->name);
    if (!bn)
        return;
    bn->in[0] = dy;
    bn->out[0] = db;
}

static int linear_input_grad_gemm(const graph *g, const graph_node *n, gemm_desc *d)
{
    const dtype s = g->storage;
    *d = (gemm_desc){ .M = R_of(g, n->in[0]), .N = C_of(g, n->in[1]), .K = C_of(g, n->in[0]),
                      .a_type = s, .b_type = s, .c_type = s, .gelu_grad = n->in[2] >= 0 };
    return 1;
}

static gt_status linear_input_grad_launch(launch_context *c, const graph_node *n)
{
    gemm_desc d;
    linear_input_grad_gemm(c->g, n, &d);
    gemm_buffers b = { .a = c->buffer(c, n->in[0]), .b = c->buffer(c, n->in[1]),
                       .c = c->buffer(c, n->out[0]), .aux = c->buffer(c, n->in[2]),
                       .scratch = c->scratch };
    return gemm_append(c->gemm, c->list, &d, &b, NULL);
}

static int linear_weight_grad_gemm(const graph *g, const graph_node *n, gemm_desc *d)
{
    const dtype s = g->storage;
    *d = (gemm_desc){ .M = C_of(g, n->in[0]), .N = C_of(g, n->in[1]), .K = R_of(g, n->in[0]),
                      .trans_a = 1, .a_type = s, .b_type = s, .c_type = DTYPE_F32 };
    return 1;
}

static gt_status linear_weight_grad_launch(launch_context *c, const graph_node *n)
{
    gemm_desc d;
    linear_weight_grad_gemm(c->g, n, &d);
    int changes;
    d.add = c->add(c, n->out[0], &changes);
    gemm_buffers b = { .a = c->buffer(c, n->in[0]), .b = c->buffer(c, n->in[1]),
                       .c = c->buffer(c, n->out[0]), .scratch = c->scratch };
    gemm_slot slot;
    gt_status st = gemm_append(c->gemm, c->list, &d, &b, changes ? &slot : NULL);
    return st || !changes ? st : c->remember(c, slot.launch, slot.arg);
}

/* Scratch of the GEMM inside a node, whichever it is. */
static gt_status gemm_node_scratch(launch_context *c, const graph_node *n, uint64_t *bytes)
{
    gemm_desc d;
    op_table[n->op].gemm(c->g, n, &d);
    return gemm_scratch(c->gemm, &d, bytes);
}

static double gemm_flops(const graph *g, const graph_node *n)
{
    gemm_desc d;
    op_table[n->op].gemm(g, n, &d);
    return 2.0 * d.M * d.N * d.K;
}

static gt_status bias_grad_launch(launch_context *c, const graph_node *n)
{
    int changes, add = c->add(c, n->out[0], &changes);
    kernel_slot slot;
    gt_status st = kernel_bias_grad(c->list, c->kernels, R_of(c->g, n->in[0]),
                                    C_of(c->g, n->in[0]), c->buffer(c, n->in[0]),
                                    c->buffer(c, n->out[0]), c->scratch, add, &slot);
    return st ? st : remember(c, changes, slot);
}

static gt_status bias_grad_scratch(launch_context *c, const graph_node *n, uint64_t *bytes)
{
    *bytes = kernel_column_scratch(c->kernels, R_of(c->g, n->in[0]), C_of(c->g, n->in[0]), 1);
    return GT_OK;
}

static double bias_grad_flops(const graph *g, const graph_node *n)
{
    return (double)count_of(g, n->in[0]);
}

/* ---- attention ---------------------------------------------------------------------------------- */

static gt_status attention_launch(launch_context *c, const graph_node *n)
{
    kernel_dropout room;
    const shape *s = &value(c->g, n->out[0])->shape;
    return kernel_attention(c->list, c->kernels, (int)s->dim[0], (int)s->dim[1], (int)s->dim[2],
                            n->heads, n->causal, n->scale, dropout_of(c, n, n->in[1], &room),
                            c->buffer(c, n->in[0]), c->buffer(c, n->out[0]),
                            c->buffer(c, n->out[1]));
}

static void attention_backward(graph *g, const graph_node *n)
{
    int dout = graph_grad(g, n->out[0]), qkv = n->in[0];
    if (dout < 0)
        return;
    int dqkv = graph_value_add(g, n->name, GRAPH_ACTIVATION, g->storage, value(g, qkv)->shape);
    graph_node *b = graph_node_add(g, OP_ATTENTION_GRAD, GRAPH_INPUT_GRAD, n->name);
    if (!b)
        return;
    b->in[0] = graph_saved(g, qkv);
    b->in[1] = graph_saved(g, n->out[0]);
    b->in[2] = graph_saved(g, n->out[1]);
    b->in[3] = dout;
    b->in[4] = n->in[1];
    b->out[0] = dqkv;
    b->heads = n->heads;
    b->causal = n->causal;
    b->scale = n->scale;
    b->drop = n->drop;
    b->stream = n->stream;
    b->first_head = n->first_head;
    b->all_heads = n->all_heads;
    graph_grad_put(g, qkv, dqkv, n->name);
}

static gt_status attention_grad_launch(launch_context *c, const graph_node *n)
{
    kernel_dropout room;
    const shape *s = &value(c->g, n->in[1])->shape;
    return kernel_attention_grad(c->list, c->kernels, (int)s->dim[0], (int)s->dim[1],
                                 (int)s->dim[2], n->heads, n->causal, n->scale,
                                 dropout_of(c, n, n->in[4], &room), c->buffer(c, n->in[0]),
                                 c->buffer(c, n->in[1]), c->buffer(c, n->in[2]),
                                 c->buffer(c, n->in[3]), c->buffer(c, n->out[0]), c->scratch);
}

static gt_status attention_grad_scratch(launch_context *c, const graph_node *n, uint64_t *bytes)
{
    const shape *s = &value(c->g, n->in[1])->shape;
    *bytes = kernel_attention_scratch(c->kernels, (int)s->dim[0], (int)s->dim[1], (int)s->dim[2],
                                      n->heads);
    return GT_OK;
}

/* Two products of T x T x D a head forward, five backward; half of each if causal. */
static double attention_products(const graph *g, const graph_node *n, int out, double products)
{
    const shape *s = &value(g, out)->shape;
    return 2.0 * products * (double)s->dim[0] * (double)s->dim[1] * (double)s->dim[1]
           * (double)s->dim[2] * (n->causal ? 0.5 : 1.0);
}

static double attention_flops(const graph *g, const graph_node *n)
{
    return attention_products(g, n, n->out[0], 2.0);
}

static double attention_grad_flops(const graph *g, const graph_node *n)
{
    return attention_products(g, n, n->in[1], 5.0);
}

static gt_status attention_cached_launch(launch_context *c, const graph_node *n)
{
    const shape *s = &value(c->g, n->out[0])->shape;
    return kernel_attention_cached(c->list, c->kernels, (int)s->dim[0], (int)s->dim[1],
                                   (int)s->dim[2], n->heads,
                                   (int)value(c->g, n->in[1])->shape.dim[2], n->scale,
                                   c->buffer(c, n->in[3]), c->buffer(c, n->in[0]),
                                   c->buffer(c, n->in[1]), c->buffer(c, n->in[2]),
                                   c->buffer(c, n->out[0]));
}

/* ---- logits ------------------------------------------------------------------------------------- */

static int logits_gemm(const graph *g, const graph_node *n, gemm_desc *d)
{
    const dtype s = g->storage;
    *d = (gemm_desc){ .M = R_of(g, n->in[0]), .N = R_of(g, n->in[1]), .K = C_of(g, n->in[0]),
                      .trans_b = 1, .a_type = s, .b_type = s, .c_type = DTYPE_F32 };
    return 1;
}

static gt_status logits_launch(launch_context *c, const graph_node *n)
{
    gemm_desc d;
    logits_gemm(c->g, n, &d);
    gemm_buffers b = { .a = c->buffer(c, n->in[0]), .b = c->buffer(c, n->in[1]),
                       .c = c->buffer(c, n->out[0]), .scratch = c->scratch };
    return gemm_append(c->gemm, c->list, &d, &b, NULL);
}

/* What --explain shows as traffic: every input read and every output written once. */
double graph_node_bytes(const graph *g, const graph_node *n)
{
    double sum = 0.0;
    for (int i = 0; i < NODE_INPUTS; i++)
        if (n->in[i] >= 0 && !(n->op == OP_EMBED && i == 1))
            sum += (double)bytes_of(g, n->in[i]);
    for (int i = 0; i < NODE_OUTPUTS; i++)
        if (n->out[i] >= 0)
            sum += (double)bytes_of(g, n->out[i]);
    return sum;
}

const graph_op op_table[OP_COUNT] = {
    [OP_EMBED] = { "embed", embed_launch, embed_backward, one_flop_each, NULL, NULL },
    [OP_EMBED_TOKEN_GRAD] = { "embed token grad", embed_token_grad_launch, NULL, no_flops, NULL,
                              NULL },
    [OP_EMBED_POSITION_GRAD] = { "embed position grad", embed_position_grad_launch, NULL, no_flops,
                                 NULL, NULL },
    [OP_DROPOUT] = { "dropout", dropout_launch, dropout_backward, one_flop_each, NULL, NULL },
    [OP_ADD] = { "add", add_launch, add_backward, one_flop_each, NULL, NULL },
    [OP_LAYERNORM] = { "layernorm", layernorm_launch, layernorm_backward, layernorm_flops, NULL,
                       NULL },
    [OP_LAYERNORM_INPUT_GRAD] = { "layernorm input grad", layernorm_input_grad_launch, NULL,
                                  layernorm_flops, NULL, NULL },
    [OP_LAYERNORM_WEIGHT_GRAD] = { "layernorm weight grad", layernorm_weight_grad_launch, NULL,
                                   layernorm_flops, layernorm_weight_grad_scratch, NULL },
    [OP_LINEAR] = { "linear", linear_launch, linear_backward, gemm_flops, gemm_node_scratch,
                    linear_gemm },
    [OP_LINEAR_INPUT_GRAD] = { "linear input grad", linear_input_grad_launch, NULL, gemm_flops,
                               gemm_node_scratch, linear_input_grad_gemm },
    [OP_LINEAR_WEIGHT_GRAD] = { "linear weight grad", linear_weight_grad_launch, NULL, gemm_flops,
                                gemm_node_scratch, linear_weight_grad_gemm },
    [OP_BIAS_GRAD] = { "bias grad", bias_grad_launch, NULL, bias_grad_flops, bias_grad_scratch,
                       NULL },
    [OP_GELU_GRAD] = { "gelu grad", gelu_grad_launch, NULL, gelu_flops, NULL, NULL },
    [OP_ATTENTION] = { "attention", attention_launch, attention_backward, attention_flops, NULL,
                       NULL },
    [OP_ATTENTION_GRAD] = { "attention grad", attention_grad_launch, NULL, attention_grad_flops,
                            attention_grad_scratch, NULL },
    [OP_ATTENTION_CACHED] = { "attention cached", attention_cached_launch, NULL, no_flops, NULL,
                              NULL },
    [OP_HEAD_LOSS] = { "head + loss", head_launch, head_backward, head_flops, head_scratch, NULL },
    [OP_HEAD_STATISTICS] = { "head statistics", head_statistics_launch, NULL, head_flops,
                             head_scratch, NULL },
    [OP_GATHER_STATISTICS] = { "gather statistics", gather_statistics_launch, NULL, no_flops, NULL,
                               NULL },
    [OP_HEAD_COMBINE] = { "head combine", head_combine_launch, head_combine_backward, no_flops, NULL,
                          NULL },
    [OP_HEAD_GRADIENT] = { "head gradient", head_gradient_launch, NULL, head_flops, head_scratch,
                           NULL },
    [OP_GATHER_ROWS] = { "gather rows", gather_rows_launch, gather_rows_backward, no_flops, NULL,
                         NULL },
    [OP_SCATTER_ROWS] = { "scatter rows", scatter_rows_launch, scatter_rows_backward, no_flops, NULL,
                          NULL },
    [OP_LOGITS] = { "logits", logits_launch, NULL, gemm_flops, gemm_node_scratch, logits_gemm },
};
