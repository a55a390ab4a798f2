/* SPDX-License-Identifier: MIT */
/* host/graph/graph.c - values, parameters and nodes; what is asked of a graph.
 *
 * The builders of operations are in op_FAMILY.c: each checks shapes, adds its node, and returns
 * the output value. The first thing that goes wrong is kept with its sentence; later builders do
 * nothing.                                                                                */
#include "host/graph/ops_private.h"
#include "host/tensor/q8.h"

#include <assert.h>
#include <fnmatch.h>
#include <limits.h>
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
        return gt_fail(GT_NO_MEMORY, "cannot build a graph: no memory for an empty one");
    g->storage = g->base = storage;
    g->B = B;
    g->T = T;
    g->layer = -1;
    g->ranks = 1;
    g->ends = (graph_ends){ -1, -1, -1, -1 };
    g->elsewhere = INT_MAX;
    g->emitting = -1;
    *out = g;
    return GT_OK;
}

void graph_release(graph *g)
{
    if (!g)
        return;
    for (int v = 0; v < g->value_count; v++)
        free(g->values[v].numbers);
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
        for (int v = 0; v < g->value_count; v++)
            if (g->values[v].stage_input)
                ends.x = v;
        ends.y = last->op->flags & GRAPH_OP_RESULT ? -1 : last->out[0];
    }
    return ends;
}

void graph_part_of(const graph_part *p, int64_t count, int64_t quantum, int k, int64_t *begin, int64_t *size)
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
            return gt_fail(GT_MISUSE,
                           "cannot split a model over %d ranks: the share of rank %d is %g, "
                           "it must be above 0",
                           p->ranks, k, p->share[k]);
        sum += p->share[k];
    }
    if (p->share && !(fabs(sum - 1.0) < 1e-3))
        return gt_fail(GT_MISUSE,
                       "cannot split a model over %d ranks: their shares add up to %g, not "
                       "to 1",
                       p->ranks, sum);
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
        st = gt_fail(GT_MISUSE,
                     "cannot split micro-batches of %lld tokens over %d ranks: each needs "
                     "at least one; make the micro-batch larger",
                     (long long)all, p->ranks);
    g->rows = st ? NULL : calloc(2 * (size_t)p->ranks, sizeof *g->rows);
    if (!st && !g->rows)
        st = gt_fail(GT_NO_MEMORY, "cannot build a graph: no memory for the rows of %d ranks", p->ranks);
    if (st) {
        graph_fail_build(g, st);
        return;
    }
    g->ranks = p->ranks;
    g->rank = p->rank;
    g->one_row = g->rows + p->ranks;
    for (int k = 0; k < p->ranks; k++) {
        int64_t begin;
        graph_part_of(p, all, 1, k, &begin, &g->rows[k]);
        g->one_row[k] = 1;
    }
}

int64_t graph_rows(const graph *g)
{
    return g->ranks > 1 ? g->rows[g->rank] : (int64_t)g->B * g->T;
}

void graph_mark_table(graph *g, int value)
{
    if (value < 0 || g->values[value].role != GRAPH_PARAM)
        return;
    graph_param_info *p = &g->params[g->values[value].param];
    p->table = 1;
    if (p->decay)
        p->type = g->values[value].type = g->storage;
}

void graph_mark_matrix(graph *g, int value)
{
    if (value < 0 || g->values[value].role != GRAPH_PARAM)
        return;
    graph_param_info *p = &g->params[g->values[value].param];
    if (p->frozen && p->decay && !p->table)
        p->type = g->values[value].type = g->base;
}

/* Makes room for one more element of an array of the graph; 0 when out of memory. */
static int grow(graph *g, void **array, int count, int *room, size_t size)
{
    if (count < *room)
        return 1;
    int more = *room ? 2 * *room : 128;
    void *p = realloc(*array, (size_t)more * size);
    if (!p) {
        graph_fail_build(g, gt_fail(GT_NO_MEMORY, "cannot build a graph: no memory for %d entries of %zu bytes", more,
                                    size));
        return 0;
    }
    memset((char *)p + (size_t)*room * size, 0, (size_t)(more - *room) * size);
    *array = p;
    *room = more;
    return 1;
}

int graph_value_add(graph *g, const char *name, graph_role role, dtype type, shape s)
{
    if (g->status || !grow(g, (void **)&g->values, g->value_count, &g->value_room, sizeof *g->values))
        return -1;
    graph_value *v = &g->values[g->value_count];
    snprintf(v->name, sizeof v->name, "%s", name);
    v->role = role;
    v->type = type;
    v->shape = s;
    v->param = -1;
    return g->value_count++;
}

graph_node *graph_node_add(graph *g, const graph_op *op, graph_phase phase, const char *name)
{
    if (g->status || !grow(g, (void **)&g->nodes, g->node_count, &g->node_room, sizeof *g->nodes))
        return NULL;
    graph_node *n = &g->nodes[g->node_count++];
    memset(n, 0, sizeof *n);
    n->op = op;
    n->phase = phase;
    n->layer = g->layer;
    n->of = g->emitting;
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

int graph_stage_input(graph *g, const char *name, shape s)
{
    int value = graph_input(g, name, g->storage, s);
    if (value >= 0)
        g->values[value].stage_input = 1;
    return value;
}

int graph_state(graph *g, const char *name, shape s)
{
    return graph_value_add(g, name, GRAPH_STATE, g->storage, s);
}

int graph_constant(graph *g, const char *name, shape s, const float *numbers)
{
    const int existing = graph_value_find(g, name);
    const size_t bytes = (size_t)shape_count(&s) * sizeof *numbers;
    if (existing >= 0)
        return existing;
    int value = graph_value_add(g, name, GRAPH_STATE, DTYPE_F32, s);
    float *copy = value < 0 ? NULL : malloc(bytes + 1);
    if (value >= 0 && !copy)
        graph_fail_build(g, gt_fail(GT_NO_MEMORY, "cannot build '%s': no memory for its numbers", name));
    if (!copy)
        return -1;
    memcpy(copy, numbers, bytes);
    g->values[value].numbers = copy;
    return value;
}

void graph_train(graph *g, const char *only, const char *but)
{
    g->only = only;
    g->but = but;
}

void graph_train_too(graph *g, const char *patterns)
{
    g->too = patterns;
}

void graph_base(graph *g, dtype type)
{
    g->base = type;
}

static int is_frozen(const graph *g, const char *name)
{
    const int others = g->only && !graph_pattern_matches(g->only, name) && !graph_pattern_matches(g->too, name);
    return others || graph_pattern_matches(g->but, name);
}

void graph_param_elsewhere(graph *g, const char *name)
{
    if (!is_frozen(g, name) && g->node_count < g->elsewhere)
        g->elsewhere = g->node_count;
}

int graph_pattern_matches(const char *patterns, const char *name)
{
    char one[128];
    while (patterns && *patterns) {
        const size_t n = strcspn(patterns, ",");
        snprintf(one, sizeof one, "%.*s", (int)(n < sizeof one ? n : sizeof one - 1), patterns);
        if (n && !fnmatch(one, name, 0))
            return 1;
        patterns += n + (patterns[n] == ',');
    }
    return 0;
}

int graph_param(graph *g, const char *name, shape s, graph_init init, float deviation)
{
    return graph_param_sliced(g, name, s, NULL, init, deviation);
}

int graph_param_sliced(graph *g, const char *name, shape full, const tensor_slice *slice, graph_init init,
                       float deviation)
{
    const tensor_slice all = { 0 };
    if (!slice)
        slice = &all;
    if (!tensor_slice_fits(&full, slice)) {
        graph_fail_build(g, gt_fail(GT_MISUSE, "cannot build '%s': its slice does not lie within it", name));
        return -1;
    }
    const shape s = tensor_slice_shape(&full, slice);
    dtype type = s.rank >= 2 ? g->storage : DTYPE_F32;
    int value = graph_value_add(g, name, GRAPH_PARAM, type, s);
    if (value < 0 || !grow(g, (void **)&g->params, g->param_count, &g->param_room, sizeof *g->params))
        return -1;
    graph_param_info *p = &g->params[g->param_count];
    snprintf(p->name, sizeof p->name, "%s", name);
    p->shape = s;
    p->full = full;
    p->slice = *slice;
    p->init = init;
    p->deviation = deviation;
    p->decay = s.rank >= 2;
    p->type = type;
    p->frozen = is_frozen(g, name);
    p->value = value;
    p->grad = -1;
    g->values[value].param = g->param_count++;
    return value;
}

int graph_has(graph *g, const char *name, int value, int64_t columns)
{
    if (g->status || value < 0)
        return 0;
    const graph_value *v = &g->values[value];
    if (columns && columns_of(v) != columns) {
        char text[64];
        graph_fail_build(g, gt_fail(GT_MISMATCH,
                                    "cannot build '%s': '%s' is %s, its last "
                                    "dimension must be %lld",
                                    name, v->name, shape_format(&v->shape, text, sizeof text), (long long)columns));
        return 0;
    }
    return 1;
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

uint64_t graph_param_bytes(const graph_param_info *p)
{
    return p->type == DTYPE_Q8 ? q8_bytes(q8_of(&p->shape, &p->slice))
                               : dtype_size(p->type) * (uint64_t)shape_count(&p->shape);
}

int64_t graph_trained_elements(const graph *g)
{
    int64_t n = 0;
    for (int i = 0; i < g->param_count; i++)
        n += g->params[i].frozen ? 0 : shape_count(&g->params[i].shape);
    return n;
}

uint64_t graph_frozen_bytes(const graph *g)
{
    uint64_t n = 0;
    for (int i = 0; i < g->param_count; i++)
        n += g->params[i].frozen ? graph_param_bytes(&g->params[i]) : 0;
    return n;
}

int graph_vocabulary(const graph *g)
{
    for (int i = 0; i < g->node_count; i++)
        if (g->nodes[i].op->flags & GRAPH_OP_LOOKS_UP)
            return (int)g->params[g->values[g->nodes[i].in[GRAPH_TABLE_INPUT]].param].full.dim[0];
    return 0;
}

double graph_flops(const graph *g, graph_phase phase)
{
    double sum = 0.0;
    for (int i = 0; i < g->node_count; i++)
        if (g->nodes[i].phase == phase)
            sum += g->nodes[i].op->flops(g, &g->nodes[i]);
    return sum;
}
