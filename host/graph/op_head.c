/* SPDX-License-Identifier: MIT */
/* host/graph/op_head.c - logits, softmax, cross-entropy and both gradients, a block of rows at
 * a time.
 *
 *   one rank        x --head loss--> loss, dx, dw
 *
 *   several, each   x --statistics--> (R,3) --gather--> (ranks,R,3) --combine--> loss, top (R,2)
 *   with columns    x ------------------------ gradient (top) ------------------> dx (partial), dw
 *   of the logits        \____ logits kept if all rows fit at once, else made again ____/
 *
 * What has a bias adds it to the logits, and sums up their gradient for its own.
 * Logits of B x T x V are never held whole. Where ranks share the vocabulary (Shoeybi et al.,
 * "Megatron-LM", 2019), they exchange three numbers a row, of all rows at once: one exchange
 * instead of one a block costs at most a second product with the table.                   */
#include "host/graph/ops_private.h"

static const graph_op op_head_loss, op_head_statistics, op_head_gradient;

#define LOGIT_BYTES (128u << 20)        /* most logits held at once, fp32 */
#define STEP 128                        /* a block's rows: views of 4 bytes a row stay aligned */

/* Rows of a block. */
static int head_rows(const graph *g, int x, int w)
{
    const int64_t R = R_of(g, x), V = R_of(g, w);
    int64_t most = (int64_t)LOGIT_BYTES / (4 * V) / STEP * STEP;
    if (most < STEP)
        most = STEP;
    const int64_t blocks = (R + most - 1) / most;
    int64_t rows = ((R + blocks - 1) / blocks + STEP - 1) / STEP * STEP;
    return (int)(rows < R ? rows : R);
}

static int head_fits(const graph *g, int x, int w)
{
    return head_rows(g, x, w) == R_of(g, x);
}

/* Of what counts right answers: the output, one a row, and the input that they are added to. */
enum { HITS = 4, HIT_SUM = 7 };

/* What a node does with its logits. */
enum { MAKES = 1, DERIVES = 2 };

static int head_work(const graph_node *n)
{
    if (n->op == &op_head_loss)
        return n->out[1] >= 0 || n->out[2] >= 0 || n->out[3] >= 0 ? MAKES | DERIVES : MAKES;
    if (n->op == &op_head_statistics)
        return MAKES;
    return n->in[5] < 0 ? MAKES | DERIVES : DERIVES;
}

/* The bias of the logits, of nodes that make them; -1: there is none. And where its gradient goes. */
static int head_bias(const graph_node *n)
{
    return n->op == &op_head_loss ? n->in[6] : n->op == &op_head_statistics ? n->in[3] : n->in[7];
}

static int head_bias_grad(const graph_node *n)
{
    return n->op == &op_head_loss ? n->out[3] : n->op == &op_head_gradient ? n->out[2] : -1;
}

static void head_gemms(const graph *g, const graph_node *n, int rows, gemm_desc *logits, gemm_desc *dx, gemm_desc *dw)
{
    const dtype s = g->storage;
    const int V = R_of(g, n->in[1]), C = C_of(g, n->in[0]);
    *logits = (gemm_desc){
        .M = rows,
        .N = V,
        .K = C,
        .trans_b = 1,
        .a_type = s,
        .b_type = s,
        .c_type = DTYPE_F32,
        .bias = head_bias(n) >= 0
    };
    *dx = (gemm_desc){ .M = rows, .N = C, .K = V, .a_type = s, .b_type = s, .c_type = s };
    *dw = (gemm_desc){
        .M = V, .N = C, .K = rows, .trans_a = 1, .a_type = s, .b_type = s, .c_type = DTYPE_F32, .cold = 1
    };
}

/* The weights of targets, of nodes that take them; -1: there are none. */
static int head_weights(const graph_node *n)
{
    return n->op == &op_head_loss ? n->in[5] : n->op == &op_head_gradient ? n->in[6] : -1;
}

/* Logits that stay for another node. */
static int head_kept(const graph_node *n)
{
    return n->op == &op_head_statistics ? n->out[1] : n->op == &op_head_gradient ? n->in[5] : -1;
}

/* Scratch: logits | dlogits, if they are stored otherwise | the GEMMs' own, and the sums of a bias. */
static gt_status head_parts(launch_context *c, const graph_node *n, uint64_t part[3])
{
    const graph *g = c->g;
    const int R = R_of(g, n->in[0]), rows = head_rows(g, n->in[0], n->in[1]), work = head_work(n);
    const uint64_t cells = (uint64_t)rows * (uint64_t)R_of(g, n->in[1]);
    part[0] = head_kept(n) < 0 ? align_up(c, 4 * cells) : 0;
    part[1] = work & DERIVES && g->storage != DTYPE_F32 ? align_up(c, dtype_size(g->storage) * cells) : 0;
    part[2] = head_bias_grad(n) >= 0 ? kernel_column_scratch(c->kernels, rows, R_of(g, n->in[1]), 1) : 0;
    for (int block = rows;; block = R % rows) {        /* a full block and the last one */
        gemm_desc d[3];
        head_gemms(g, n, block, &d[0], &d[1], &d[2]);
        for (int i = work & MAKES ? 0 : 1; i < (work & DERIVES ? 3 : 1); i++) {
            uint64_t bytes;
            gt_status st = gemm_scratch(c->gemm, &d[i], &bytes);
            if (st)
                return st;
            if (bytes > part[2])
                part[2] = bytes;
        }
        if (block != rows || R % rows == 0)
            return GT_OK;
    }
}

static gt_status head_scratch(launch_context *c, const graph_node *n, uint64_t *bytes)
{
    uint64_t part[3];
    gt_status st = head_parts(c, n, part);
    *bytes = st ? 0 : part[0] + part[1] + part[2];
    return st;
}

/* Some rows, and where their things are. */
typedef struct block {
    int from, rows;
    dev_buffer *x, *target, *weight;
    dev_buffer *z, *dz;         /* logits, and their gradient: the same memory in fp32 */
    dev_buffer *own;            /* the GEMMs' scratch                                  */
    gemm_desc logits, dx, dw;
} block;

/* Rows of a buffer of `bytes` a row. */
static dev_buffer *rows_view(launch_context *c, const block *b, int value, uint64_t bytes)
{
    return c->view(c, c->buffer(c, value), (uint64_t)b->from * bytes, (uint64_t)b->rows * bytes);
}

/* A part of the scratch; NULL where there is none. */
static int scratch_view(launch_context *c, uint64_t at, uint64_t bytes, dev_buffer **out)
{
    *out = bytes ? c->view(c, c->scratch, at, bytes) : NULL;
    return !bytes || *out;
}

static gt_status block_open(launch_context *c, const graph_node *n, int from, const uint64_t part[3], block *b)
{
    const graph *g = c->g;
    const int R = R_of(g, n->in[0]), rows = head_rows(g, n->in[0], n->in[1]);
    *b = (block){ .from = from, .rows = R - from < rows ? R - from : rows };
    const uint64_t cells = (uint64_t)b->rows * (uint64_t)R_of(g, n->in[1]);
    head_gemms(g, n, b->rows, &b->logits, &b->dx, &b->dw);
    b->x = rows_view(c, b, n->in[0], (uint64_t)C_of(g, n->in[0]) * dtype_size(g->storage));
    b->target = rows_view(c, b, n->in[2], 4);
    if (head_weights(n) >= 0)
        b->weight = rows_view(c, b, head_weights(n), 4);
    int there = scratch_view(c, 0, part[0] ? 4 * cells : 0, &b->z)
                && scratch_view(c, part[0], part[1] ? dtype_size(g->storage) * cells : 0, &b->dz)
                && scratch_view(c, part[0] + part[1], part[2], &b->own);
    if (!part[0])
        b->z = c->buffer(c, head_kept(n));
    if (!part[1])
        b->dz = b->z;
    there &= b->weight || head_weights(n) < 0;
    return there && b->x && b->target ? GT_OK : GT_DEVICE;      /* the view has said why */
}

static gt_status block_logits(launch_context *c, const graph_node *n, const block *b)
{
    gemm_buffers m = {
        .a = b->x, .b = c->buffer(c, n->in[1]), .c = b->z, .bias = c->buffer(c, head_bias(n)), .scratch = b->own
    };
    return gemm_append(c->gemm, c->list, &b->logits, &m, NULL);
}

/* The outputs of a node that are gradients: dx, and of the table; -1 where nobody needs one. */
static int head_dx(const graph_node *n)
{
    return n->op == &op_head_loss ? n->out[1] : n->op == &op_head_gradient ? n->out[0] : -1;
}

static int head_dw(const graph_node *n)
{
    return n->op == &op_head_loss ? n->out[2] : n->op == &op_head_gradient ? n->out[1] : -1;
}

/* A parameter's gradient: whether it is added to, and whether that changes from run to run. */
typedef struct accumulator {
    int add, changes;
} accumulator;

static accumulator accumulator_of(launch_context *c, int value)
{
    accumulator a = { 0, 0 };
    if (value >= 0)
        a.add = c->add(c, value, &a.changes);
    return a;
}

/* The rows' part of the gradient of the bias. */
static gt_status block_bias(launch_context *c, const graph_node *n, const block *b, accumulator to)
{
    const int dbias = head_bias_grad(n), flips = to.changes && b->from == 0;
    kernel_slot slot;
    if (dbias < 0)
        return GT_OK;
    gt_status st = kernel_bias_grad(c->list, c->kernels, b->rows, R_of(c->g, n->in[1]), b->dz, c->buffer(c, dbias),
                                    b->own, b->from > 0 || to.add, &slot);
    return st ? st : remember(c, flips, slot);
}

/* dx of the rows and their part of dw. */
static gt_status block_products(launch_context *c, const graph_node *n, block *b, accumulator w)
{
    const int add = w.add, changes = w.changes;
    const uint64_t x_row = (uint64_t)C_of(c->g, n->in[0]) * dtype_size(c->g->storage);
    const int dx = head_dx(n), dw = head_dw(n), flips = changes && b->from == 0;
    gemm_slot slot;
    gt_status st = GT_OK;
    if (dx >= 0) {
        dev_buffer *to = rows_view(c, b, dx, x_row);
        if (!to)
            return GT_DEVICE;
        const gemm_buffers m = { .a = b->dz, .b = c->buffer(c, n->in[1]), .c = to, .scratch = b->own };
        st = gemm_append(c->gemm, c->list, &b->dx, &m, NULL);
    }
    if (st || dw < 0)
        return st;
    b->dw.add = b->from > 0 || add;
    const gemm_buffers m = { .a = b->dz, .b = b->x, .c = c->buffer(c, dw), .scratch = b->own };
    st = gemm_append(c->gemm, c->list, &b->dw, &m, flips ? &slot : NULL);
    return st || !flips ? st : c->remember(c, slot.launch, slot.arg);
}

/* Of each block of rows, what block_logits() and block_products() multiply. */
static void head_all_gemms(const graph *g, const graph_node *n, void (*each)(void *context, const gemm_desc *d),
                           void *context)
{
    const int R = R_of(g, n->in[0]), rows = head_rows(g, n->in[0], n->in[1]), work = head_work(n);
    for (int from = 0; from < R; from += rows) {
        gemm_desc logits, dx, dw;
        head_gemms(g, n, R - from < rows ? R - from : rows, &logits, &dx, &dw);
        if (work & MAKES)
            each(context, &logits);
        if (work & DERIVES && head_dx(n) >= 0)
            each(context, &dx);
        if (work & DERIVES && head_dw(n) >= 0)
            each(context, &dw);
    }
}

/* Adds `count` losses to the sum; no losses make it 0, or leave it. */
static gt_status sum_losses(launch_context *c, int loss, int sum, int count)
{
    int changes, add = c->add(c, sum, &changes);
    kernel_slot slot;
    gt_status st = kernel_sum(c->list, c->kernels, count, c->buffer(c, loss), c->buffer(c, sum), add, &slot);
    return st ? st : remember(c, changes, slot);
}

/* Adds the right answers of the first `count` rows, where they are counted. */
static gt_status sum_hits(launch_context *c, int hit, int sum, int count)
{
    return hit < 0 ? GT_OK : sum_losses(c, hit, sum, count);
}

/* The rows' right answers, before their gradient takes the place of the logits. */
static gt_status block_hits(launch_context *c, const graph_node *n, const block *b, int V)
{
    if (n->out[HITS] < 0)
        return GT_OK;
    dev_buffer *hit = rows_view(c, b, n->out[HITS], 4);
    return hit ? kernel_row_hits(c->list, c->kernels, b->rows, V, b->z, b->target, hit) : GT_DEVICE;
}

/* ---- one rank ------------------------------------------------------------------------------- */

/* Another rank of the group computes: nothing is lost or learnt here. */
static gt_status head_idle(launch_context *c, const graph_node *n)
{
    gt_status st = dev_list_fill(c->list, c->buffer(c, n->out[0]), 0, 0, bytes_of(c->g, n->out[0]));
    if (!st && n->out[1] >= 0)
        st = dev_list_fill(c->list, c->buffer(c, n->out[1]), 0, 0, bytes_of(c->g, n->out[1]));
    for (int i = 2; !st && i < 4; i++)
        if (n->out[i] >= 0 && accumulator_of(c, n->out[i]).changes)
            st = c->clear(c, n->out[i]);
    if (!st && n->out[HITS] >= 0)
        st = dev_list_fill(c->list, c->buffer(c, n->out[HITS]), 0, 0, bytes_of(c->g, n->out[HITS]));
    if (!st)
        st = sum_hits(c, n->out[HITS], n->in[HIT_SUM], 0);
    return st ? st : sum_losses(c, n->out[0], n->in[4], 0);
}

static gt_status head_launch(launch_context *c, const graph_node *n)
{
    const int R = R_of(c->g, n->in[0]), V = R_of(c->g, n->in[1]);
    const int train = head_work(n) & DERIVES;
    uint64_t part[3];
    block b = { 0 };
    if (c->g->rank > 0)
        return head_idle(c, n);
    gt_status st = head_parts(c, n, part);
    const accumulator w = accumulator_of(c, n->out[2]), v = accumulator_of(c, n->out[3]);
    for (int from = 0; !st && from < R; from += b.rows) {
        st = block_open(c, n, from, part, &b);
        if (!st)
            st = block_logits(c, n, &b);
        dev_buffer *loss = st ? NULL : rows_view(c, &b, n->out[0], 4);
        if (!st && !loss)
            st = GT_DEVICE;
        if (!st)
            st = block_hits(c, n, &b, V);
        if (!st)
            st = kernel_xent(c->list, c->kernels, b.rows, V, b.z, b.target, b.weight, c->buffer(c, n->in[3]), loss,
                             train ? b.dz : NULL);
        if (!st && train)
            st = block_products(c, n, &b, w);
        if (!st && train)
            st = block_bias(c, n, &b, v);
    }
    if (!st)
        st = sum_hits(c, n->out[HITS], n->in[HIT_SUM], R);
    return st ? st : sum_losses(c, n->out[0], n->in[4], R);
}

static void head_backward(graph *g, const graph_node *n)
{
    const int x = n->in[0];
    char part[80];
    snprintf(part, sizeof part, "%.60s.dx", n->name);
    int dx = graph_value_add(g, part, GRAPH_ACTIVATION, g->storage, value(g, x)->shape);
    int dw = graph_param_grad(g, n->in[1]), dbias = graph_param_grad(g, n->in[6]);
    if (dx < 0 || dw < 0)
        return;
    graph_node *own = &g->nodes[graph_producer(g, n->out[0]) - g->nodes];
    own->out[1] = dx;
    own->out[2] = dw;
    own->out[3] = dbias;
    graph_grad_put(g, x, dx, n->name);
}

/* 2 for each multiply-add: of the logits, and as many of each gradient. */
static double head_flops(const graph *g, const graph_node *n)
{
    return ((head_work(n) & MAKES ? 2.0 : 0.0) + (head_dx(n) >= 0 ? 2.0 : 0.0) + (head_dw(n) >= 0 ? 2.0 : 0.0))
           * (double)R_of(g, n->in[0]) * R_of(g, n->in[1]) * C_of(g, n->in[0]);
}

/* ---- several ranks, each with some columns of the logits ------------------------------------- */

static gt_status head_statistics_launch(launch_context *c, const graph_node *n)
{
    const int R = R_of(c->g, n->in[0]);
    uint64_t part[3];
    block b = { 0 };
    gt_status st = head_parts(c, n, part);
    for (int from = 0; !st && from < R; from += b.rows) {
        st = block_open(c, n, from, part, &b);
        if (!st)
            st = block_logits(c, n, &b);
        dev_buffer *own = st ? NULL : rows_view(c, &b, n->out[0], 12);
        if (!st && !own)
            st = GT_DEVICE;
        if (!st)
            st = kernel_xent_statistics(c->list, c->kernels, b.rows, rows_held(c->g, n->in[1]), b.z, b.target, own);
    }
    return st;
}

static gt_status head_combine_launch(launch_context *c, const graph_node *n)
{
    const graph *g = c->g;
    const int R = (int)count_of(g, n->out[0]);
    int columns;
    graph_attributes_get(n, &columns, sizeof columns);
    gt_status st = kernel_xent_combine(c->list, c->kernels, R, g->ranks, columns, c->buffer(c, n->in[0]),
                                       c->buffer(c, n->in[1]), c->buffer(c, n->in[3]), c->buffer(c, n->out[0]),
                                       c->buffer(c, n->out[1]));
    if (!st && n->out[HITS] >= 0)
        st = kernel_xent_hits(c->list, c->kernels, R, g->ranks, columns, c->buffer(c, n->in[0]), c->buffer(c, n->in[1]),
                              c->buffer(c, n->out[HITS]));
    /* Every rank knows all losses; one alone may count them. */
    if (!st)
        st = sum_hits(c, n->out[HITS], n->in[HIT_SUM], g->rank == 0 ? R : 0);
    return st ? st : sum_losses(c, n->out[0], n->in[2], g->rank == 0 ? R : 0);
}

/* The gradient runs right behind, in the forward program, as it does on one rank. */
static void head_combine_backward(graph *g, const graph_node *n)
{
    const graph_node *gather = graph_producer(g, n->in[0]);
    const graph_node s = *graph_producer(g, gather->in[0]);
    const int x = s.in[0];
    char part[80];
    snprintf(part, sizeof part, "%.60s.dx", n->name);
    int dx = graph_value_add(g, part, GRAPH_ACTIVATION, g->storage, value(g, x)->shape);
    int dw = graph_param_grad(g, s.in[1]), dbias = graph_param_grad(g, s.in[3]);
    int scale = graph_input(g, "grad_scale", DTYPE_F32, shape_of(1, (int64_t)1));
    graph_node *d = graph_node_add(g, &op_head_gradient, GRAPH_FORWARD, n->name);
    if (!d)
        return;
    d->in[0] = x;
    d->in[1] = s.in[1];
    d->in[2] = s.in[2];
    d->in[3] = scale;
    d->in[4] = n->out[1];
    d->in[5] = s.out[1];
    d->in[6] = n->in[3];
    d->in[7] = s.in[3];
    d->out[0] = dx;
    d->out[1] = dw;
    d->out[2] = dbias;
    graph_grad_put(g, x, dx, n->name);
}

static gt_status head_gradient_launch(launch_context *c, const graph_node *n)
{
    const int R = R_of(c->g, n->in[0]);
    uint64_t part[3];
    const accumulator w = accumulator_of(c, n->out[1]), v = accumulator_of(c, n->out[2]);
    block b = { 0 };
    gt_status st = head_parts(c, n, part);
    for (int from = 0; !st && from < R; from += b.rows) {
        st = block_open(c, n, from, part, &b);
        if (!st && head_kept(n) < 0)
            st = block_logits(c, n, &b);
        dev_buffer *top = st ? NULL : rows_view(c, &b, n->in[4], 8);
        if (!st && !top)
            st = GT_DEVICE;
        if (!st)
            st = kernel_xent_gradient(c->list, c->kernels, b.rows, rows_held(c->g, n->in[1]), b.z, b.target, b.weight,
                                      c->buffer(c, n->in[3]), top, b.dz);
        if (!st)
            st = block_products(c, n, &b, w);
        if (!st)
            st = block_bias(c, n, &b, v);
    }
    return st;
}

/* ---- rows and builders ----------------------------------------------------------------------- */

static int logits_gemm(const graph *g, const graph_node *n, gemm_desc *d)
{
    const dtype s = g->storage;
    *d = (gemm_desc){ .M = R_of(g, n->in[0]),
                      .N = R_of(g, n->in[1]),
                      .K = C_of(g, n->in[0]),
                      .trans_b = 1,
                      .a_type = s,
                      .b_type = s,
                      .c_type = DTYPE_F32,
                      .bias = n->in[2] >= 0 };
    return 1;
}

static gt_status logits_launch(launch_context *c, const graph_node *n)
{
    gemm_desc d;
    logits_gemm(c->g, n, &d);
    gemm_buffers b = { .a = c->buffer(c, n->in[0]),
                       .b = c->buffer(c, n->in[1]),
                       .c = c->buffer(c, n->out[0]),
                       .bias = c->buffer(c, n->in[2]),
                       .scratch = c->scratch };
    return gemm_append(c->gemm, c->list, &d, &b, NULL);
}

static const graph_op op_head_loss = {
    .name = "head + loss",
    .optional = 1u << 1 | 1u << 2 | 1u << 3,
    .flags = GRAPH_OP_RESULT | GRAPH_OP_MULTIPLIES,
    .launch = head_launch,
    .backward = head_backward,
    .flops = head_flops,
    .scratch = head_scratch,
    .gemms = head_all_gemms,
};
static const graph_op op_head_statistics = {
    .name = "head statistics",
    .flags = GRAPH_OP_MULTIPLIES,
    .launch = head_statistics_launch,
    .flops = head_flops,
    .scratch = head_scratch,
    .gemms = head_all_gemms,
};
static const graph_op op_head_combine = {
    .name = "head combine",
    .flags = GRAPH_OP_RESULT,
    .launch = head_combine_launch,
    .backward = head_combine_backward,
    .flops = ops_no_flops,
};
static const graph_op op_head_gradient = {
    .name = "head gradient",
    .optional = 1u << 0 | 1u << 1 | 1u << 2,
    .flags = GRAPH_OP_MULTIPLIES,
    .launch = head_gradient_launch,
    .flops = head_flops,
    .scratch = head_scratch,
    .gemms = head_all_gemms,
};
static const graph_op op_logits = {
    .name = "logits",
    .flags = GRAPH_OP_RESULT,
    .launch = logits_launch,
    .flops = ops_gemm_flops,
    .scratch = ops_gemm_scratch,
    .gemm = logits_gemm,
};

/* Has a node count right answers, if that is asked for. */
static void count_hits(graph *g, const char *name, const graph_head *h, graph_node *n)
{
    char part[80];
    if (!h->hits)
        return;
    snprintf(part, sizeof part, "%.60s.hits", name);
    n->in[HIT_SUM] = graph_input(g, "hit_sum", DTYPE_F32, shape_of(1, (int64_t)1));
    n->out[HITS] = graph_value_add(g, part, GRAPH_ACTIVATION, DTYPE_F32, shape_of(1, rows_of(&g->values[h->x])));
}

/* The head of a tensor group. */
static int head_loss_split(graph *g, const char *name, const graph_head *h)
{
    const int x = h->x, w = h->w, targets = h->targets, weights = h->weights;
    const int64_t R = rows_of(&g->values[x]);
    const kernel_rows held = rows_held(g, w);
    char part[80];
    snprintf(part, sizeof part, "%.60s.statistics", name);
    int own = graph_value_add(g, part, GRAPH_ACTIVATION, DTYPE_F32, shape_of(2, (int64_t)1, 3 * R));
    snprintf(part, sizeof part, "%.60s.statistics.all", name);
    int all = graph_value_add(g, part, GRAPH_ACTIVATION, DTYPE_F32, shape_of(2, (int64_t)g->ranks, 3 * R));
    snprintf(part, sizeof part, "%.60s.logits", name);
    int logits = !head_fits(g, x, w)
                     ? -1
                     : graph_value_add(g, part, GRAPH_ACTIVATION, DTYPE_F32, shape_of(2, R, (int64_t)held.count));
    snprintf(part, sizeof part, "%.60s.top", name);
    int top = graph_value_add(g, part, GRAPH_ACTIVATION, DTYPE_F32, shape_of(2, R, (int64_t)2));
    int loss = graph_value_add(g, name, GRAPH_ACTIVATION, DTYPE_F32, shape_of(1, R));
    int sum = graph_input(g, "loss_sum", DTYPE_F32, shape_of(1, (int64_t)1));
    graph_input(g, "grad_scale", DTYPE_F32, shape_of(1, (int64_t)1));

    graph_node *n = graph_node_add(g, &op_head_statistics, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = x;
    n->in[1] = w;
    n->in[2] = targets;
    n->in[3] = h->bias;
    n->out[0] = own;
    n->out[1] = logits;
    if (!emit_gather_statistics(g, name, own, all))
        return -1;
    n = graph_node_add(g, &op_head_combine, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = all;
    n->in[1] = targets;
    n->in[2] = sum;
    n->in[3] = weights;
    n->out[0] = loss;
    n->out[1] = top;
    count_hits(g, name, h, n);
    graph_attributes_set(n, &held.V, sizeof held.V);
    return loss;
}

/* Does this rank have some rows of the table only? */
static int is_slice(const graph *g, int w)
{
    return g->values[w].role == GRAPH_PARAM && g->params[g->values[w].param].slice.parts > 0;
}

int graph_head_loss_of(graph *g, const char *name, const graph_head *h)
{
    if (!graph_has(g, name, h->x, 0) || !graph_has(g, name, h->w, columns_of(&g->values[h->x])) || h->targets < 0
        || (h->bias >= 0 && !graph_has(g, name, h->bias, rows_of(&g->values[h->w]))))
        return -1;
    graph_mark_table(g, h->w);
    if (g->ranks > 1 && is_slice(g, h->w))
        return head_loss_split(g, name, h);
    int loss = graph_value_add(g, name, GRAPH_ACTIVATION, DTYPE_F32, shape_of(1, rows_of(&g->values[h->x])));
    int scale = graph_input(g, "grad_scale", DTYPE_F32, shape_of(1, (int64_t)1));
    int sum = graph_input(g, "loss_sum", DTYPE_F32, shape_of(1, (int64_t)1));
    graph_node *n = graph_node_add(g, &op_head_loss, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = h->x;
    n->in[1] = h->w;
    n->in[2] = h->targets;
    n->in[3] = scale;
    n->in[4] = sum;
    n->in[5] = h->weights;
    n->in[6] = h->bias;
    n->out[0] = loss;
    count_hits(g, name, h, n);
    return loss;
}

int graph_head_loss(graph *g, const char *name, int x, int w, int targets, int weights)
{
    return graph_head_loss_of(g, name, &(graph_head){ x, w, -1, targets, weights, 0 });
}

int graph_logits_biased(graph *g, const char *name, int x, int w, int bias)
{
    if (!graph_has(g, name, x, 0) || !graph_has(g, name, w, columns_of(&g->values[x]))
        || (bias >= 0 && !graph_has(g, name, bias, rows_of(&g->values[w]))))
        return -1;
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, DTYPE_F32,
                            shape_of(2, rows_of(&g->values[x]), g->values[w].shape.dim[0]));
    graph_node *n = graph_node_add(g, &op_logits, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = x;
    n->in[1] = w;
    n->in[2] = bias;
    n->out[0] = y;
    return y;
}

int graph_logits(graph *g, const char *name, int x, int w)
{
    return graph_logits_biased(g, name, x, w, -1);
}

const graph_op *const graph_head_ops[] = { &op_head_loss,    &op_logits,        &op_head_statistics,
                                           &op_head_combine, &op_head_gradient, NULL };
