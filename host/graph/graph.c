/* SPDX-License-Identifier: MIT */
/* host/graph/graph.c - values and nodes, and the builders that models call.
 *
 * A builder checks shapes, adds its node, and returns the output value. The first thing
 * that goes wrong is kept with its sentence; later builders do nothing.                 */
#include "host/graph/ops_private.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STREAMS_A_LAYER = 16 };          /* dropouts of a layer, at most */

gt_status graph_create(graph **out, dtype storage, int B, int T)
{
    *out = NULL;
    if (B < 1 || T < 1)
        return gt_fail(GT_MISUSE, "cannot build a graph of %d sequences of %d tokens", B, T);
    graph *g = calloc(1, sizeof *g);
    if (!g)
        return gt_fail(GT_NO_MEMORY, "cannot build a graph: out of memory");
    g->storage = storage;
    g->B = B;
    g->T = T;
    g->layer = -1;
    g->ranks = 1;
    g->ends = (graph_ends){ -1, -1, -1, -1 };
    *out = g;
    return GT_OK;
}

void graph_release(graph *g)
{
    if (!g)
        return;
    free(g->values);
    free(g->nodes);
    free(g->params);
    free(g->rows);
    free(g->grad);
    free(g->alias);
    free(g->grad_is_pre);
    free(g);
}

gt_status graph_failed(graph *g)
{
    return g->status ? gt_fail(g->status, "%s", g->message) : GT_OK;
}

void graph_fail_build(graph *g, gt_status st)
{
    if (g->status)
        return;
    g->status = st;
    snprintf(g->message, sizeof g->message, "%.*s", (int)sizeof g->message - 1, gt_message());
}

int graph_batch(const graph *g)
{
    return g->B;
}

int graph_tokens(const graph *g)
{
    return g->T;
}

dtype graph_storage(const graph *g)
{
    return g->storage;
}

void graph_layer(graph *g, int layer)
{
    g->layer = layer;
    g->streams = (uint32_t)(layer + 1) * STREAMS_A_LAYER;
}

graph_ends graph_ends_of(const graph *g)
{
    graph_ends ends = g->ends;
    if (!g->grad && g->node_count && !g->status) {      /* forward alone */
        const graph_node *last = &g->nodes[g->node_count - 1];
        ends.x = graph_value_find(g, "x");
        ends.y = last->op == OP_HEAD_LOSS || last->op == OP_LOGITS ? -1 : last->out[0];
    }
    return ends;
}

void graph_part_of(const graph_part *p, int64_t count, int64_t quantum, int k, int64_t *begin,
                   int64_t *size)
{
    const int ranks = p->ranks > 1 ? p->ranks : 1;
    const int64_t pieces = (count + quantum - 1) / quantum;
    const int enough = pieces >= ranks;
    double before = 0.0;
    int64_t edge[2] = { 0, 0 };             /* where rank k and the next one begin */
    for (int r = 1; r <= k + 1; r++) {
        before += p->share && ranks > 1 ? p->share[r - 1] : 1.0 / ranks;
        int64_t at = r >= ranks ? pieces : (int64_t)((double)pieces * before + 0.5);
        edge[0] = edge[1];
        if (enough && at < edge[0] + 1)     /* a piece for each before and each after */
            at = edge[0] + 1;
        if (enough && at > pieces - (ranks - r))
            at = pieces - (ranks - r);
        edge[1] = at < edge[0] ? edge[0] : at;
    }
    *begin = edge[0] * quantum < count ? edge[0] * quantum : count;
    const int64_t end = edge[1] * quantum < count ? edge[1] * quantum : count;
    *size = end - *begin;
}

gt_status graph_part_check(const graph_part *p)
{
    double sum = 0.0;
    if (p->ranks < 2)
        return GT_OK;
    if (p->rank < 0 || p->rank >= p->ranks)
        return gt_fail(GT_MISUSE, "cannot split a model over %d ranks for rank %d", p->ranks, p->rank);
    for (int k = 0; p->share && k < p->ranks; k++) {
        if (!(p->share[k] > 0.0))
            return gt_fail(GT_MISUSE, "cannot split a model over %d ranks: the share of rank %d is %g, "
                           "it must be above 0", p->ranks, k, p->share[k]);
        sum += p->share[k];
    }
    if (p->share && !(fabs(sum - 1.0) < 1e-3))
        return gt_fail(GT_MISUSE, "cannot split a model over %d ranks: their shares add up to %g, not "
                       "to 1", p->ranks, sum);
    return GT_OK;
}

void graph_split(graph *g, const graph_part *p)
{
    const int64_t all = (int64_t)g->B * g->T;
    if (p->ranks < 2 || g->status)
        return;
    assert(g->value_count == 0 && !g->rows);
    gt_status st = graph_part_check(p);
    if (!st && all < p->ranks)
        st = gt_fail(GT_MISUSE, "cannot split micro-batches of %lld tokens over %d ranks: each needs "
                     "at least one; make the micro-batch larger", (long long)all, p->ranks);
    g->rows = st ? NULL : calloc(2 * (size_t)p->ranks, sizeof *g->rows);
    if (!st && !g->rows)
        st = gt_fail(GT_NO_MEMORY, "cannot build a graph: out of memory");
    if (st) {
        graph_fail_build(g, st);
        return;
    }
    g->ranks = p->ranks;
    g->rank = p->rank;
    g->all_rows = g->rows + p->ranks;
    for (int k = 0; k < p->ranks; k++) {
        int64_t begin;
        graph_part_of(p, all, 1, k, &begin, &g->rows[k]);
        g->all_rows[k] = all;
    }
}

int64_t graph_rows(const graph *g)
{
    return g->ranks > 1 ? g->rows[g->rank] : (int64_t)g->B * g->T;
}

/* Makes room for one more element of an array of the graph; 0 when out of memory. */
static int grow(graph *g, void **array, int count, int *room, size_t size)
{
    if (count < *room)
        return 1;
    int more = *room ? 2 * *room : 128;
    void *p = realloc(*array, (size_t)more * size);
    if (!p) {
        graph_fail_build(g, gt_fail(GT_NO_MEMORY, "cannot build a graph: out of memory"));
        return 0;
    }
    memset((char *)p + (size_t)*room * size, 0, (size_t)(more - *room) * size);
    *array = p;
    *room = more;
    return 1;
}

int graph_value_add(graph *g, const char *name, graph_role role, dtype type, shape s)
{
    if (g->status || !grow(g, (void **)&g->values, g->value_count, &g->value_room,
                           sizeof *g->values))
        return -1;
    graph_value *v = &g->values[g->value_count];
    snprintf(v->name, sizeof v->name, "%s", name);
    v->role = role;
    v->type = type;
    v->shape = s;
    v->param = -1;
    return g->value_count++;
}

graph_node *graph_node_add(graph *g, graph_op_kind op, graph_phase phase, const char *name)
{
    if (g->status || !grow(g, (void **)&g->nodes, g->node_count, &g->node_room, sizeof *g->nodes))
        return NULL;
    graph_node *n = &g->nodes[g->node_count++];
    memset(n, 0, sizeof *n);
    n->op = op;
    n->phase = phase;
    n->layer = g->layer;
    snprintf(n->name, sizeof n->name, "%s", name);
    for (int i = 0; i < NODE_INPUTS; i++)
        n->in[i] = -1;
    for (int i = 0; i < NODE_OUTPUTS; i++)
        n->out[i] = -1;
    return n;
}

int graph_uses(const graph *g, int value)
{
    int uses = 0;
    for (int i = 0; i < g->node_count; i++)
        for (int j = 0; j < NODE_INPUTS; j++)
            uses += g->nodes[i].in[j] == value;
    return uses;
}

const graph_node *graph_producer(const graph *g, int value)
{
    for (int i = 0; value >= 0 && i < g->node_count; i++)
        for (int j = 0; j < NODE_OUTPUTS; j++)
            if (g->nodes[i].out[j] == value)
                return &g->nodes[i];
    return NULL;
}

int graph_input(graph *g, const char *name, dtype type, shape s)
{
    int existing = graph_value_find(g, name);
    return existing >= 0 ? existing : graph_value_add(g, name, GRAPH_INPUT, type, s);
}

int graph_state(graph *g, const char *name, shape s)
{
    return graph_value_add(g, name, GRAPH_STATE, g->storage, s);
}

int graph_param(graph *g, const char *name, shape s, graph_init init, float deviation)
{
    return graph_param_sliced(g, name, s, NULL, init, deviation);
}

int graph_param_sliced(graph *g, const char *name, shape full, const tensor_slice *slice,
                       graph_init init, float deviation)
{
    const tensor_slice all = { 0 };
    if (!slice)
        slice = &all;
    if (!tensor_slice_fits(&full, slice)) {
        graph_fail_build(g, gt_fail(GT_MISUSE, "cannot build '%s': its slice does not lie within it",
                                    name));
        return -1;
    }
    const shape s = tensor_slice_shape(&full, slice);
    dtype type = s.rank >= 2 ? g->storage : DTYPE_F32;
    int value = graph_value_add(g, name, GRAPH_PARAM, type, s);
    if (value < 0 || !grow(g, (void **)&g->params, g->param_count, &g->param_room,
                           sizeof *g->params))
        return -1;
    graph_param_info *p = &g->params[g->param_count];
    snprintf(p->name, sizeof p->name, "%s", name);
    p->shape = s;
    p->full = full;
    p->slice = *slice;
    p->init = init;
    p->deviation = deviation;
    p->decay = s.rank >= 2;
    p->value = value;
    p->grad = -1;
    g->values[value].param = g->param_count++;
    return value;
}

/* The random bits of dropout, one input for the whole graph. */
static int random_input(graph *g)
{
    return graph_input(g, "random", DTYPE_U32, shape_of(1, (int64_t)4));
}

/* A builder's arguments: these values exist, and their last dimension is `columns`. */
static int has(graph *g, const char *name, int value, int64_t columns)
{
    if (g->status || value < 0)
        return 0;
    const graph_value *v = &g->values[value];
    if (columns && columns_of(v) != columns) {
        char text[64];
        graph_fail_build(g, gt_fail(GT_MISMATCH, "cannot build '%s': '%s' is %s, its last "
                                    "dimension must be %lld", name, v->name,
                                    shape_format(&v->shape, text, sizeof text),
                                    (long long)columns));
        return 0;
    }
    return 1;
}

int graph_embed(graph *g, const char *name, int tokens, int token_table, int position_table,
                int first)
{
    if (!has(g, name, tokens, 0) || !has(g, name, token_table, 0))
        return -1;
    int64_t C = columns_of(&g->values[token_table]);
    if (position_table >= 0 && !has(g, name, position_table, C))
        return -1;
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage,
                            shape_of(3, (int64_t)g->B, (int64_t)g->T, C));
    graph_node *n = graph_node_add(g, OP_EMBED, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = tokens;
    n->in[1] = token_table;
    n->in[2] = position_table;
    n->in[3] = first;
    n->out[0] = y;
    return y;
}

int graph_dropout(graph *g, const char *name, int x, float drop)
{
    if (drop <= 0.0f || !has(g, name, x, 0))
        return x;
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage, g->values[x].shape);
    int random = random_input(g);
    graph_node *n = graph_node_add(g, OP_DROPOUT, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = x;
    n->in[1] = random;
    n->drop = drop;
    n->stream = g->streams++;
    n->out[0] = y;
    return y;
}

int graph_add(graph *g, const char *name, int a, int b)
{
    if (!has(g, name, a, 0) || !has(g, name, b, columns_of(&g->values[a])))
        return -1;
    if (rows_of(&g->values[a]) != rows_of(&g->values[b])) {
        graph_fail_build(g, gt_fail(GT_MISMATCH, "cannot build '%s': '%s' and '%s' differ in their "
                                    "rows", name, g->values[a].name, g->values[b].name));
        return -1;
    }
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage, g->values[a].shape);
    graph_node *n = graph_node_add(g, OP_ADD, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = a;
    n->in[1] = b;
    n->out[0] = y;
    return y;
}

int graph_layernorm(graph *g, const char *name, int x, int gain, int bias, float eps)
{
    if (!has(g, name, x, 0))
        return -1;
    shape s = g->values[x].shape;
    int64_t C = columns_of(&g->values[x]), R = rows_of(&g->values[x]);
    if (!has(g, name, gain, C) || !has(g, name, bias, C))
        return -1;
    char part[80];
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage, s);
    snprintf(part, sizeof part, "%.60s.mean", name);
    int mean = graph_value_add(g, part, GRAPH_ACTIVATION, DTYPE_F32, shape_of(1, R));
    snprintf(part, sizeof part, "%.60s.rstd", name);
    int rstd = graph_value_add(g, part, GRAPH_ACTIVATION, DTYPE_F32, shape_of(1, R));
    graph_node *n = graph_node_add(g, OP_LAYERNORM, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = x;
    n->in[1] = gain;
    n->in[2] = bias;
    n->out[0] = y;
    n->out[1] = mean;
    n->out[2] = rstd;
    n->eps = eps;
    return y;
}

int graph_linear(graph *g, const char *name, int x, int w, int bias, graph_act act, int residual,
                 float drop)
{
    if (!has(g, name, x, 0) || !has(g, name, w, columns_of(&g->values[x])))
        return -1;
    int64_t N = g->values[w].shape.dim[0];
    shape s = g->values[x].shape;
    s.dim[s.rank - 1] = N;
    if ((bias >= 0 && !has(g, name, bias, N)) || (residual >= 0 && !has(g, name, residual, N)))
        return -1;
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage, s), pre = -1, random = -1;
    if (act == GRAPH_ACT_GELU) {
        char part[80];
        snprintf(part, sizeof part, "%.60s.pre", name);
        pre = graph_value_add(g, part, GRAPH_ACTIVATION, g->storage, s);
    }
    if (drop > 0.0f)
        random = random_input(g);
    graph_node *n = graph_node_add(g, OP_LINEAR, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = x;
    n->in[1] = w;
    n->in[2] = bias;
    n->in[3] = residual;
    n->in[4] = random;
    n->out[0] = y;
    n->out[1] = pre;
    n->act = act;
    n->drop = drop;
    n->stream = drop > 0.0f ? g->streams++ : 0;
    return y;
}

/* (B,T,3C) -> C, or 0 with a failure recorded. */
static int64_t attention_width(graph *g, const char *name, int qkv, int heads)
{
    if (!has(g, name, qkv, 0))
        return 0;
    int64_t width = columns_of(&g->values[qkv]);
    if (heads < 1 || width % (3 * (int64_t)heads) != 0) {
        graph_fail_build(g, gt_fail(GT_MISUSE, "cannot build '%s': %lld channels do not divide "
                                    "into %d heads", name, (long long)width / 3, heads));
        return 0;
    }
    return width / 3;
}

static float attention_scale(float scale, int64_t C, int heads)
{
    return scale > 0.0f ? scale : 1.0f / sqrtf((float)(C / heads));
}

int graph_attention(graph *g, const char *name, int qkv, int heads, int causal, float scale,
                    float drop)
{
    return graph_attention_part(g, name, qkv, heads, 0, heads, causal, scale, drop);
}

int graph_attention_part(graph *g, const char *name, int qkv, int heads, int first_head,
                         int all_heads, int causal, float scale, float drop)
{
    int64_t C = attention_width(g, name, qkv, heads);
    if (!C)
        return -1;
    char part[80];
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage,
                            shape_of(3, (int64_t)g->B, (int64_t)g->T, C));
    snprintf(part, sizeof part, "%.60s.lse", name);
    int lse = graph_value_add(g, part, GRAPH_ACTIVATION, DTYPE_F32,
                              shape_of(3, (int64_t)g->B, (int64_t)heads, (int64_t)g->T));
    int random = drop > 0.0f ? random_input(g) : -1;
    graph_node *n = graph_node_add(g, OP_ATTENTION, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = qkv;
    n->in[1] = random;
    n->out[0] = y;
    n->out[1] = lse;
    n->heads = heads;
    n->first_head = first_head;
    n->all_heads = all_heads;
    n->causal = causal;
    n->scale = attention_scale(scale, C, heads);
    n->drop = drop;
    n->stream = drop > 0.0f ? g->streams++ : 0;
    return y;
}

int graph_attention_cached(graph *g, const char *name, int qkv, int heads, int keys, int values,
                           int first, float scale)
{
    int64_t C = attention_width(g, name, qkv, heads);
    if (!C || keys < 0 || values < 0 || first < 0)
        return -1;
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, g->storage,
                            shape_of(3, (int64_t)g->B, (int64_t)g->T, C));
    graph_node *n = graph_node_add(g, OP_ATTENTION_CACHED, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = qkv;
    n->in[1] = keys;
    n->in[2] = values;
    n->in[3] = first;
    n->out[0] = y;
    n->heads = heads;
    n->scale = attention_scale(scale, C, heads);
    return y;
}

/* The head of a tensor group; see ops_head.c. */
static int head_loss_split(graph *g, const char *name, int x, int w, int targets)
{
    const int64_t R = rows_of(&g->values[x]);
    const kernel_rows held = rows_held(g, w);
    char part[80];
    snprintf(part, sizeof part, "%.60s.statistics", name);
    int own = graph_value_add(g, part, GRAPH_ACTIVATION, DTYPE_F32, shape_of(2, R, (int64_t)3));
    snprintf(part, sizeof part, "%.60s.statistics.all", name);
    int all = graph_value_add(g, part, GRAPH_ACTIVATION, DTYPE_F32,
                              shape_of(3, (int64_t)g->ranks, R, (int64_t)3));
    snprintf(part, sizeof part, "%.60s.logits", name);
    int logits = !head_fits(g, x, w) ? -1
               : graph_value_add(g, part, GRAPH_ACTIVATION, DTYPE_F32, shape_of(2, R, (int64_t)held.count));
    snprintf(part, sizeof part, "%.60s.top", name);
    int top = graph_value_add(g, part, GRAPH_ACTIVATION, DTYPE_F32, shape_of(2, R, (int64_t)2));
    int loss = graph_value_add(g, name, GRAPH_ACTIVATION, DTYPE_F32, shape_of(1, R));
    int sum = graph_input(g, "loss_sum", DTYPE_F32, shape_of(1, (int64_t)1));
    graph_input(g, "grad_scale", DTYPE_F32, shape_of(1, (int64_t)1));

    graph_node *n = graph_node_add(g, OP_HEAD_STATISTICS, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = x;
    n->in[1] = w;
    n->in[2] = targets;
    n->out[0] = own;
    n->out[1] = logits;
    n = graph_node_add(g, OP_GATHER_STATISTICS, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = own;
    n->out[0] = all;
    n = graph_node_add(g, OP_HEAD_COMBINE, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = all;
    n->in[1] = targets;
    n->in[2] = sum;
    n->out[0] = loss;
    n->out[1] = top;
    n->columns = held.V;
    return loss;
}

int graph_head_loss(graph *g, const char *name, int x, int w, int targets)
{
    if (!has(g, name, x, 0) || !has(g, name, w, columns_of(&g->values[x])) || targets < 0)
        return -1;
    if (g->ranks > 1)
        return head_loss_split(g, name, x, w, targets);
    int loss = graph_value_add(g, name, GRAPH_ACTIVATION, DTYPE_F32,
                               shape_of(1, rows_of(&g->values[x])));
    int scale = graph_input(g, "grad_scale", DTYPE_F32, shape_of(1, (int64_t)1));
    int sum = graph_input(g, "loss_sum", DTYPE_F32, shape_of(1, (int64_t)1));
    graph_node *n = graph_node_add(g, OP_HEAD_LOSS, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = x;
    n->in[1] = w;
    n->in[2] = targets;
    n->in[3] = scale;
    n->in[4] = sum;
    n->out[0] = loss;
    return loss;
}

int graph_logits(graph *g, const char *name, int x, int w)
{
    if (!has(g, name, x, 0) || !has(g, name, w, columns_of(&g->values[x])))
        return -1;
    int y = graph_value_add(g, name, GRAPH_ACTIVATION, DTYPE_F32,
                            shape_of(2, rows_of(&g->values[x]), g->values[w].shape.dim[0]));
    graph_node *n = graph_node_add(g, OP_LOGITS, GRAPH_FORWARD, name);
    if (!n)
        return -1;
    n->in[0] = x;
    n->in[1] = w;
    n->out[0] = y;
    return y;
}

int graph_value_count(const graph *g)
{
    return g->value_count;
}

const graph_value *graph_value_at(const graph *g, int value)
{
    assert(0 <= value && value < g->value_count);
    return &g->values[value];
}

int graph_value_find(const graph *g, const char *name)
{
    for (int i = 0; i < g->value_count; i++)
        if (!strcmp(g->values[i].name, name))
            return i;
    return -1;
}

int graph_param_count(const graph *g)
{
    return g->param_count;
}

const graph_param_info *graph_param_at(const graph *g, int param)
{
    assert(0 <= param && param < g->param_count);
    return &g->params[param];
}

int64_t graph_param_elements(const graph *g)
{
    int64_t n = 0;
    for (int i = 0; i < g->param_count; i++)
        n += shape_count(&g->params[i].shape);
    return n;
}

int graph_vocabulary(const graph *g)
{
    for (int i = 0; i < g->node_count; i++)
        if (g->nodes[i].op == OP_EMBED)
            return (int)g->params[g->values[g->nodes[i].in[1]].param].full.dim[0];
    return 0;
}

double graph_flops(const graph *g, graph_phase phase)
{
    double sum = 0.0;
    for (int i = 0; i < g->node_count; i++)
        if (g->nodes[i].phase == phase)
            sum += op_table[g->nodes[i].op].flops(g, &g->nodes[i]);
    return sum;
}
