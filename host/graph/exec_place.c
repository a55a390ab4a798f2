/* SPDX-License-Identifier: MIT */
/* host/graph/exec_place.c - from a memory layout to buffers and launch lists.
 *
 *   values    a parameter's buffer · a view of the arena · a bound or an own buffer
 *   nodes     launch(context) ──► buffer, view, scratch, add, clear, exchange ──► the list
 *
 * Lists are built once: a node's launch function appends to the list of its program while
 * `buffer` hands out the places. What accumulates asks `add`: the first node that writes a
 * gradient overwrites it on the first micro-batch and adds on later ones, so its argument
 * is remembered and set by exec_add(); every further writer always adds.                */
#include "host/base/activity.h"
#include "host/graph/exec_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what launch functions call back ------------------------------------------------------- */

static dev_buffer *buffer_of(launch_context *c, int value)
{
    exec *e = ((exec_context *)c)->e;
    return value < 0 ? NULL : e->buffer[value];
}

/* The array, with room for one element of `size` bytes behind `count`; NULL when out of memory. */
static void *grown(void *array, int count, int *room, size_t size)
{
    if (count < *room)
        return array;
    const int more = *room ? 2 * *room : 64;
    void *p = realloc(array, (size_t)more * size);
    if (p)
        *room = more;
    else
        gt_fail(GT_NO_MEMORY, "cannot place a graph: no memory for %d entries of %zu bytes", more, size);
    return p;
}

static gt_status keep_view(exec *e, dev_buffer *view)
{
    dev_buffer **more = grown(e->views, e->view_count, &e->view_room, sizeof *more);
    if (!more) {
        dev_buffer_release(view);
        return GT_NO_MEMORY;
    }
    e->views = more;
    e->views[e->view_count++] = view;
    return GT_OK;
}

static dev_buffer *view_of(launch_context *c, dev_buffer *from, uint64_t offset, uint64_t bytes)
{
    dev_buffer *view;
    if (dev_buffer_view(&view, from, offset, bytes) || keep_view(((exec_context *)c)->e, view))
        return NULL;
    return view;
}

static int add_of(launch_context *c, int value, int *changes)
{
    exec *e = ((exec_context *)c)->e;
    const int first = !e->written[value];
    e->written[value] = 1;
    *changes = first;
    return !first;
}

static gt_status remember_slot(launch_context *c, int launch, int arg)
{
    exec *e = ((exec_context *)c)->e;
    exec_slot *more = grown(e->slots, e->slot_count, &e->slot_room, sizeof *more);
    if (!more)
        return GT_NO_MEMORY;
    e->slots = more;
    e->slots[e->slot_count++] = (exec_slot){ e->building, launch, arg };
    return GT_OK;
}

static gt_status clear_before(launch_context *c, int value)
{
    exec *e = ((exec_context *)c)->e;
    return dev_list_fill(e->clears, e->buffer[value], 0, 0, exec_value_bytes(&e->g->values[value]));
}

static gt_status exchange_here(launch_context *c, const graph_node *n, graph_exchange kind, const int64_t *rows)
{
    exec *e = ((exec_context *)c)->e;
    const graph_value *v = &e->g->values[n->in[0]];
    exec_point *more = grown(e->points, e->point_count, &e->point_room, sizeof *more);
    if (!more)
        return GT_NO_MEMORY;
    e->points = more;
    const exec_point *before = e->point_count ? &e->points[e->point_count - 1] : NULL;
    const int made = e->first[n->in[0]];    /* -1: an input */
    int begin = made >= 0 && exec_list_at(e, made) == e->building ? e->launch_to[made] : 0;
    if (before && before->list == e->building && before->at > begin)
        begin = before->at;
    e->points[e->point_count++] = (exec_point){
        .list = e->building,
        .begin = begin,
        .at = dev_list_count(c->list),
        .position = e->position,
        .x = { .kind = kind,
               .name = n->name,
               .from = e->buffer[n->in[0]],
               .to = e->buffer[n->out[0]],
               .type = v->type,
               .width = columns_of(v),
               .ranks = e->g->ranks,
               .rank = e->g->rank,
               .rows = rows,
               .alone = begin == dev_list_count(c->list) },
    };
    return GT_OK;
}

exec_context exec_context_of(exec *e)
{
    return (exec_context){
        .c = { .device = e->o.device,
               .kernels = e->o.kernels,
               .gemm = e->o.gemm,
               .g = e->g,
               .buffer = buffer_of,
               .view = view_of,
               .add = add_of,
               .remember = remember_slot,
               .clear = clear_before,
               .exchange = exchange_here },
        .e = e
    };
}

/* ---- placing ------------------------------------------------------------------------------- */

static gt_status fill_arena(exec_arena *a)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < a->chunks; i++)
        if (!a->chunk[i])
            st = dev_buffer_create(&a->chunk[i], a->device, a->bytes[i], "the activations");
    return st;
}

static dev_buffer *bound(const exec *e, const char *name)
{
    for (const exec_binding *b = e->o.bindings; b && b->name; b++)
        if (!strcmp(b->name, name))
            return b->buffer;
    return NULL;
}

/* An own buffer for an input or state: zeroed, or with its numbers. */
static gt_status own_buffer(exec *e, int v)
{
    const graph_value *value = &e->g->values[v];
    gt_status st = dev_buffer_create_zero(&e->buffer[v], e->o.device, exec_value_bytes(value), value->name);
    if (st)
        return st;
    e->owned[v] = 1;
    return value->numbers ? dev_write(e->o.device, e->buffer[v], 0, value->numbers, exec_value_bytes(value)) : GT_OK;
}

/* The memory that an area lies in. */
static dev_buffer *chunk_of(const exec *e, int area)
{
    const exec_arena *arena = e->passing[area] ? e->o.passing : e->o.arena;
    return arena->chunk[e->areas[area].chunk];
}

static gt_status place_values(exec *e)
{
    gt_status st = GT_OK;
    for (int v = 0; !st && v < e->g->value_count; v++) {
        const graph_value *value = &e->g->values[v];
        int param = -1;
        if (value->role == GRAPH_PARAM || value->role == GRAPH_PARAM_GRAD) {
            const char *name = e->g->params[value->param].name;
            param = params_find(e->o.params, name);
            if (param < 0)
                return gt_fail(GT_MISMATCH, "cannot place parameter '%s': it is not there", name);
            if (!shape_equal(&params_info(e->o.params, param)->shape, &e->g->params[value->param].shape))
                return gt_fail(GT_MISMATCH, "cannot place parameter '%s': its shape differs", name);
            if (params_info(e->o.params, param)->type != e->g->params[value->param].type)
                return gt_fail(GT_MISMATCH, "cannot place parameter '%s': it is stored as %s, not %s", name,
                               dtype_name(params_info(e->o.params, param)->type),
                               dtype_name(e->g->params[value->param].type));
        }
        switch (value->role) {
        case GRAPH_PARAM: e->buffer[v] = params_used(e->o.params, param); break;
        case GRAPH_PARAM_GRAD:
            e->buffer[v] = params_grad(e->o.params, param);
            if (!e->buffer[v])
                st = gt_fail(GT_MISUSE,
                             "cannot train '%s': parameters were made without "
                             "gradients",
                             value->name);
            break;
        case GRAPH_ACTIVATION:
            e->buffer[v] = exec_end_of(e, v);
            if (e->first[v] < 0 || e->buffer[v])
                break;
            st = dev_buffer_view(&e->buffer[v], chunk_of(e, v), e->areas[v].offset, exec_value_bytes(value));
            e->owned[v] = !st;
            break;
        case GRAPH_INPUT:
        case GRAPH_STATE:
            e->buffer[v] = exec_end_of(e, v);
            if (!e->buffer[v])
                e->buffer[v] = bound(e, value->name);
            if (!e->buffer[v])
                st = own_buffer(e, v);
            break;
        }
    }
    for (int at = 0; !st && at < e->count; at++) {
        const packing_area *a = &e->areas[e->g->value_count + at];
        if (!a->bytes)
            continue;
        st = dev_buffer_view(&e->scratch[at], chunk_of(e, e->g->value_count + at), a->offset, a->bytes);
        if (!st)
            st = keep_view(e, e->scratch[at]);
    }
    return st;
}

/* Position `at` may be the last so far to write a gradient. */
static void note_gradients(exec *e, int at)
{
    const graph_node *n = &e->g->nodes[e->order[at]];
    if (e->building != (e->o.split ? 2 : 1))
        return;
    for (int j = 0; j < NODE_OUTPUTS; j++)
        if (n->out[j] >= 0 && e->g->values[n->out[j]].role == GRAPH_PARAM_GRAD)
            e->done[e->g->values[n->out[j]].param] = e->launch_to[at];
}

/* Every node's launches, into the lists. */
static gt_status make_launches(exec *e)
{
    gt_status st = dev_list_create(&e->clears, e->o.device);
    for (int i = 0; !st && i < EXEC_LISTS; i++)
        st = dev_list_create(&e->list[i], e->o.device);
    exec_context b = exec_context_of(e);
    gt_activity a;
    gt_activity_begin(&a, "making launches of", "nodes", (uint64_t)e->count);
    for (int at = 0; !st && at < e->count; at++) {
        const graph_node *n = &e->g->nodes[e->order[at]];
        char label[96];
        st = gt_activity_at(&a, (uint64_t)at);
        if (st)
            break;
        e->building = exec_list_of(e, n->phase);
        e->position = at;
        b.c.list = e->list[e->building];
        b.c.scratch = e->scratch[at];
        snprintf(label, sizeof label, "%s %s", n->name,
                 n->phase == GRAPH_FORWARD      ? "forward"
                 : n->phase == GRAPH_INPUT_GRAD ? "input grad"
                                                : "weight grad");
        dev_list_label(b.c.list, label);
        e->launch_from[at] = dev_list_count(b.c.list);
        st = n->op->launch(&b.c, n);
        e->launch_to[at] = dev_list_count(b.c.list);
        note_gradients(e, at);
    }
    gt_activity_end(&a);
    return st;
}

gt_status exec_ready(exec *e)
{
    gt_status st = fill_arena(e->o.arena);
    if (!st && e->o.passing)
        st = fill_arena(e->o.passing);
    if (!st)
        st = place_values(e);
    e->placed_views = e->view_count;
    return st ? st : make_launches(e);
}

/* 1 if no node wants more scratch memory than it has. */
static int still_fits(exec *e, gt_status *st)
{
    exec_context b = exec_context_of(e);
    int fits = 1;
    for (int at = 0; !*st && fits && at < e->count; at++) {
        const graph_node *n = &e->g->nodes[e->order[at]];
        uint64_t bytes = 0;
        if (n->op->scratch)
            *st = n->op->scratch(&b.c, n, &bytes);
        fits = bytes <= e->areas[e->g->value_count + at].bytes;
    }
    return fits;
}

/* What others remember of launches by number must still be so. */
static gt_status check_launches(const exec *e, const int *before)
{
    for (int at = 0; at < e->count; at++)
        if (e->launch_to[at] != before[at])
            return gt_fail(GT_MISMATCH, "node '%s' ended with launch %d, and with %d when launches were made again",
                           e->g->nodes[e->order[at]].name, before[at], e->launch_to[at]);
    return GT_OK;
}

gt_status exec_renew(exec *e, int *renewed)
{
    int add[EXEC_LISTS];
    gt_status st = GT_OK;
    *renewed = still_fits(e, &st);
    if (st || !*renewed)
        return st;
    int *before = malloc(((size_t)e->count + 1) * sizeof *before);
    if (!before)
        return gt_fail(GT_NO_MEMORY, "cannot make launches again: no memory for where %d nodes had theirs", e->count);
    memcpy(before, e->launch_to, (size_t)e->count * sizeof *before);
    for (int i = 0; i < EXEC_LISTS; i++) {
        dev_list_release(e->list[i]);
        e->list[i] = NULL;
        add[i] = e->add[i];
        e->add[i] = 0;
    }
    dev_list_release(e->clears);
    e->clears = NULL;
    while (e->view_count > e->placed_views)
        dev_buffer_release(e->views[--e->view_count]);
    memset(e->written, 0, (size_t)e->g->value_count);
    memset(e->done, 0, (size_t)e->g->param_count * sizeof *e->done);
    e->slot_count = e->point_count = 0;
    st = make_launches(e);
    if (!st)
        st = check_launches(e, before);
    free(before);
    for (int i = 0; !st && i < EXEC_LISTS; i++)
        st = exec_set_add(e, i, add[i]);
    return st;
}
