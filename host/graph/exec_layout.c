/* SPDX-License-Identifier: MIT */
/* host/graph/exec_layout.c - when the nodes of a graph run, and where their results lie.
 *
 *   lists      forward | input gradients (or all) | weight gradients
 *   areas      one a value and one a node's scratch, from the position that writes it to the
 *              last that reads it; those of one arena are packed by packing.c
 *
 * With a `passing` arena, what dies within the program that made it goes there, and the rest into
 * an arena of its own for each micro-batch in flight.                                     */
#include "host/base/activity.h"
#include "host/graph/exec_private.h"
#include "host/graph/order.h"

#include <assert.h>
#include <stdlib.h>

gt_status exec_arena_create(exec_arena **out, dev_device *d)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return gt_fail(GT_NO_MEMORY, "cannot make an arena: no memory for its handle");
    (*out)->device = d;
    return GT_OK;
}

void exec_arena_release(exec_arena *a)
{
    if (!a)
        return;
    for (int i = 0; i < a->chunks; i++)
        dev_buffer_release(a->chunk[i]);
    free(a);
}

uint64_t exec_arena_bytes(const exec_arena *a)
{
    uint64_t sum = 0;
    for (int i = 0; i < a->chunks; i++)
        sum += a->bytes[i];
    return sum;
}

/* ---- planning ----------------------------------------------------------------------------- */

int exec_list_of(const exec *e, graph_phase phase)
{
    return graph_list_of(phase, e->o.split);
}

static gt_status allocate(exec *e)
{
    const size_t nodes = (size_t)e->g->node_count + 1, values = (size_t)e->g->value_count + 1;
    e->order = calloc(nodes, sizeof *e->order);
    e->areas = calloc(nodes + values, sizeof *e->areas);
    e->first = malloc(values * sizeof *e->first);
    e->last = malloc(values * sizeof *e->last);
    e->buffer = calloc(values, sizeof *e->buffer);
    e->owned = calloc(values, 1);
    e->written = calloc(values, 1);
    e->scratch = calloc(nodes, sizeof *e->scratch);
    e->passing = calloc(nodes + values, 1);
    e->done = calloc((size_t)e->g->param_count + 1, sizeof *e->done);
    e->launch_from = calloc(nodes, sizeof *e->launch_from);
    e->launch_to = calloc(nodes, sizeof *e->launch_to);
    if (!e->order || !e->areas || !e->first || !e->last || !e->buffer || !e->owned || !e->written || !e->scratch
        || !e->passing || !e->done || !e->launch_from || !e->launch_to)
        return gt_fail(GT_NO_MEMORY, "cannot lay memory out: no memory for the tables of %zu nodes and %zu values",
                       nodes, values);
    return GT_OK;
}

int exec_list_at(const exec *e, int at)
{
    return exec_list_of(e, e->g->nodes[e->order[at]].phase);
}

uint64_t exec_value_bytes(const graph_value *v)
{
    return (uint64_t)shape_count(&v->shape) * dtype_size(v->type);
}

dev_buffer *exec_end_of(const exec *e, int value)
{
    const graph_ends g = graph_ends_of(e->g);
    const exec_ends *o = &e->o.ends;
    return value == g.x ? o->x : value == g.dx ? o->dx : value == g.y ? o->y : value == g.dy ? o->dy : NULL;
}

/* Packs the areas of one arena, and lets the arena grow to what they take. */
static gt_status pack(exec *e, int passing)
{
    const dev_info *info = dev_info_of(e->o.device);
    exec_arena *arena = passing ? e->o.passing : e->o.arena;
    const int all = e->g->value_count + e->count;
    packing_area *some = malloc(((size_t)all + 1) * sizeof *some);
    packing r;
    int n = 0;
    if (!some)
        return gt_fail(GT_NO_MEMORY, "cannot lay memory out: no memory for %d areas", all);
    for (int i = 0; i < all; i++)
        if (e->passing[i] == passing)
            some[n++] = e->areas[i];
    gt_status st = packing_make(some, n, info->align, info->max_alloc_bytes, &r);
    n = 0;
    for (int i = 0; !st && i < all; i++)
        if (e->passing[i] == passing)
            e->areas[i] = some[n++];
    free(some);
    if (st)
        return st;
    for (int i = 0; i < r.chunks; i++) {
        e->memory.activations += r.chunk_bytes[i];
        assert(i >= arena->chunks || !arena->chunk[i] || r.chunk_bytes[i] <= arena->bytes[i]);
        if (r.chunk_bytes[i] > arena->bytes[i])
            arena->bytes[i] = r.chunk_bytes[i];
    }
    if (r.chunks > arena->chunks)
        arena->chunks = r.chunks;
    return GT_OK;
}

static gt_status lay_memory_out(exec *e)
{
    const graph *g = e->g;
    exec_context b = exec_context_of(e);
    gt_status st = GT_OK;
    for (int v = 0; v < g->value_count; v++) {
        packing_area *a = &e->areas[v];
        *a = (packing_area){ 0 };
        if (g->values[v].role == GRAPH_ACTIVATION && e->first[v] >= 0 && !exec_end_of(e, v))
            *a = (packing_area){ .bytes = exec_value_bytes(&g->values[v]), .from = e->first[v], .to = e->last[v] };
        e->memory.unpacked += a->bytes;
        if (g->values[v].role == GRAPH_INPUT && !exec_end_of(e, v))
            e->memory.inputs += exec_value_bytes(&g->values[v]);
        if (g->values[v].role == GRAPH_STATE)
            e->memory.states += exec_value_bytes(&g->values[v]);
    }
    gt_activity now;
    gt_activity_begin(&now, "laying out memory of", "nodes", (uint64_t)e->count);
    for (int at = 0; !st && at < e->count; at++) {
        const graph_node *n = &g->nodes[e->order[at]];
        packing_area *a = &e->areas[g->value_count + at];
        *a = (packing_area){ .from = at, .to = at };
        st = gt_activity_at(&now, (uint64_t)at);
        if (!st && n->op->scratch)
            st = n->op->scratch(&b.c, n, &a->bytes);
        e->memory.unpacked += a->bytes;
    }
    gt_activity_end(&now);
    for (int i = 0; i < g->value_count + e->count; i++)
        e->passing[i] = e->o.passing && e->areas[i].bytes
                        && exec_list_at(e, e->areas[i].from) == exec_list_at(e, e->areas[i].to);
    if (!st)
        st = pack(e, 0);
    return st || !e->o.passing ? st : pack(e, 1);
}

gt_status exec_lay_out(exec *e)
{
    gt_status st = allocate(e);
    if (st)
        return st;
    e->count = graph_order(e->g, e->o.split, e->order);
    graph_lifetimes(e->g, e->o.split, e->order, e->first, e->last);
    return lay_memory_out(e);
}
