/* host/graph/exec.c - from a graph to launch lists, with every buffer placed beforehand.
 *
 *   order      F0 F1 .. Fn | B W B B W ...      positions are the times of the plan
 *   activation    [def ........ last use]
 *   scratch                  [node]
 *
 * Lists are built once: a node's launch function appends to the list of its program while
 * `buffer` hands out the places. What accumulates asks `add`: the first node that writes a
 * gradient overwrites it on the first micro-batch and adds on later ones, so its argument
 * is remembered and set by exec_add(); every further writer always adds.                */
#include "host/graph/exec.h"

#include "host/base/log.h"
#include "host/base/text.h"
#include "host/graph/node.h"
#include "host/graph/plan.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LISTS 3                             /* forward, input grad (or all), weight grad */

struct exec_arena {
    dev_device *device;
    uint64_t bytes[64];
    dev_buffer *chunk[64];
    int chunks;
};

typedef struct slot { int list, launch, arg; } slot;

/* An exchange, to be done before launch `at` of its list; what it reads is there before `begin`. */
typedef struct point { int list, begin, at, position; exec_exchange x; } point;

struct exec {
    const graph *g;
    exec_options o;
    int count;                              /* nodes, in the order they run */
    int *order;
    plan_area *areas;                       /* of values, then of nodes' scratch */
    int *first, *last;                      /* of each value, in positions; first -1: no area */
    dev_buffer **buffer, **scratch;         /* of each value; of each position */
    unsigned char *owned;                   /* the value's buffer is released here */
    dev_buffer **views;
    int view_count, view_room;
    dev_list *list[LISTS], *clears;
    int *launch_from, *launch_to;           /* of each position, in its list */
    int *done;                              /* of each graph parameter: see exec_gradient_done */
    unsigned char *passing;                 /* of each area: lives within one program          */
    unsigned char *written;                 /* values that accumulate: somebody wrote it */
    slot *slots;
    int slot_count, slot_room;
    point *points;                          /* in the order they are met */
    int point_count, point_room;
    int add[LISTS], building, position;     /* building: index of the list being built */
    exec_memory memory;
};

/* What launch functions see; the launch_context comes first so that one casts to the other. */
typedef struct build_context { launch_context c; exec *e; } build_context;

gt_status exec_arena_create(exec_arena **out, dev_device *d)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return gt_fail(GT_NO_MEMORY, "cannot make an arena: out of memory");
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

/* Which list a phase goes to. */
static int list_of(const exec *e, graph_phase phase)
{
    return phase == GRAPH_FORWARD ? 0 : phase == GRAPH_INPUT_GRAD || !e->o.split ? 1 : 2;
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
    if (!e->order || !e->areas || !e->first || !e->last || !e->buffer || !e->owned || !e->written
        || !e->scratch || !e->passing || !e->done || !e->launch_from || !e->launch_to)
        return gt_fail(GT_NO_MEMORY, "cannot plan a graph: out of memory");
    return GT_OK;
}

static void order_nodes(exec *e)
{
    for (int list = 0; list < LISTS; list++)
        for (int i = 0; i < e->g->node_count; i++)
            if (list_of(e, e->g->nodes[i].phase) == list)
                e->order[e->count++] = i;
}

/* The list that position `at` of the order belongs to. */
static int program_at(const exec *e, int at)
{
    return list_of(e, e->g->nodes[e->order[at]].phase);
}

static void find_lifetimes(exec *e)
{
    const graph *g = e->g;
    for (int v = 0; v < g->value_count; v++)
        e->first[v] = e->last[v] = -1;
    for (int at = 0; at < e->count; at++) {
        const graph_node *n = &g->nodes[e->order[at]];
        for (int j = 0; j < NODE_OUTPUTS; j++)
            if (n->out[j] >= 0 && g->values[n->out[j]].role == GRAPH_ACTIVATION) {
                e->first[n->out[j]] = at;
                if (e->last[n->out[j]] < at)
                    e->last[n->out[j]] = at;
            }
        for (int j = 0; j < NODE_INPUTS; j++)
            if (n->in[j] >= 0 && e->last[n->in[j]] < at)
                e->last[n->in[j]] = at;
    }
    /* What a forward-only graph hands out is read after the run. */
    for (int at = 0; at < e->count; at++)
        for (int j = 0; j < NODE_OUTPUTS; j++) {
            int v = g->nodes[e->order[at]].out[j];
            const graph_op_kind op = g->nodes[e->order[at]].op;
            if (v >= 0 && g->values[v].role == GRAPH_ACTIVATION && e->last[v] == at
                && (op == OP_LOGITS || op == OP_HEAD_LOSS || op == OP_HEAD_COMBINE))
                e->last[v] = e->count - 1;
        }
    /* What goes to another stage is fetched after its program. */
    const graph_ends out = graph_ends_of(g);
    const int ends[] = { out.y, out.dx };
    for (int i = 0; i < 2; i++)
        if (ends[i] >= 0 && e->first[ends[i]] >= 0)
            for (int at = e->first[ends[i]]; at < e->count
                 && program_at(e, at) == program_at(e, e->first[ends[i]]); at++)
                if (e->last[ends[i]] < at)
                    e->last[ends[i]] = at;
}

static uint64_t value_bytes(const graph_value *v)
{
    return (uint64_t)shape_count(&v->shape) * dtype_size(v->type);
}

/* Packs the areas of one arena, and lets the arena grow to what they take. */
static gt_status pack(exec *e, int passing)
{
    const dev_info *info = dev_info_of(e->o.device);
    exec_arena *arena = passing ? e->o.passing : e->o.arena;
    const int all = e->g->value_count + e->count;
    plan_area *some = malloc(((size_t)all + 1) * sizeof *some);
    plan_result r;
    int n = 0;
    if (!some)
        return gt_fail(GT_NO_MEMORY, "cannot plan a graph: out of memory");
    for (int i = 0; i < all; i++)
        if (e->passing[i] == passing)
            some[n++] = e->areas[i];
    gt_status st = plan_pack(some, n, info->align, info->max_alloc_bytes, &r);
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

static gt_status plan_memory(exec *e, launch_context *c)
{
    const graph *g = e->g;
    gt_status st = GT_OK;
    for (int v = 0; v < g->value_count; v++) {
        plan_area *a = &e->areas[v];
        *a = (plan_area){ 0 };
        if (g->values[v].role == GRAPH_ACTIVATION && e->first[v] >= 0)
            *a = (plan_area){ .bytes = value_bytes(&g->values[v]), .from = e->first[v],
                              .to = e->last[v] };
        e->memory.unpacked += a->bytes;
        if (g->values[v].role == GRAPH_INPUT)
            e->memory.inputs += value_bytes(&g->values[v]);
        if (g->values[v].role == GRAPH_STATE)
            e->memory.states += value_bytes(&g->values[v]);
    }
    for (int at = 0; !st && at < e->count; at++) {
        const graph_node *n = &g->nodes[e->order[at]];
        plan_area *a = &e->areas[g->value_count + at];
        *a = (plan_area){ .from = at, .to = at };
        if (op_table[n->op].scratch)
            st = op_table[n->op].scratch(c, n, &a->bytes);
        e->memory.unpacked += a->bytes;
    }
    for (int i = 0; i < g->value_count + e->count; i++)
        e->passing[i] = e->o.passing && e->areas[i].bytes
                        && program_at(e, e->areas[i].from) == program_at(e, e->areas[i].to);
    if (!st)
        st = pack(e, 0);
    return st || !e->o.passing ? st : pack(e, 1);
}

/* ---- what launch functions call back ------------------------------------------------------- */

static dev_buffer *buffer_of(launch_context *c, int value)
{
    exec *e = ((build_context *)c)->e;
    return value < 0 ? NULL : e->buffer[value];
}

static gt_status keep_view(exec *e, dev_buffer *view)
{
    if (e->view_count == e->view_room) {
        int room = e->view_room ? 2 * e->view_room : 64;
        dev_buffer **more = realloc(e->views, (size_t)room * sizeof *more);
        if (!more) {
            dev_buffer_release(view);
            return gt_fail(GT_NO_MEMORY, "cannot place a graph: out of memory");
        }
        e->views = more;
        e->view_room = room;
    }
    e->views[e->view_count++] = view;
    return GT_OK;
}

static dev_buffer *view_of(launch_context *c, dev_buffer *from, uint64_t offset, uint64_t bytes)
{
    dev_buffer *view;
    if (dev_buffer_view(&view, from, offset, bytes) || keep_view(((build_context *)c)->e, view))
        return NULL;
    return view;
}

static int add_of(launch_context *c, int value, int *changes)
{
    exec *e = ((build_context *)c)->e;
    const int first = !e->written[value];
    e->written[value] = 1;
    *changes = first;
    return !first;
}

static gt_status remember_slot(launch_context *c, int launch, int arg)
{
    exec *e = ((build_context *)c)->e;
    if (e->slot_count == e->slot_room) {
        int room = e->slot_room ? 2 * e->slot_room : 64;
        slot *more = realloc(e->slots, (size_t)room * sizeof *more);
        if (!more)
            return gt_fail(GT_NO_MEMORY, "cannot place a graph: out of memory");
        e->slots = more;
        e->slot_room = room;
    }
    e->slots[e->slot_count++] = (slot){ e->building, launch, arg };
    return GT_OK;
}

static gt_status clear_before(launch_context *c, int value)
{
    exec *e = ((build_context *)c)->e;
    return dev_list_fill(e->clears, e->buffer[value], 0, 0, value_bytes(&e->g->values[value]));
}

static gt_status exchange_here(launch_context *c, const graph_node *n, graph_exchange kind,
                               const int64_t *rows)
{
    exec *e = ((build_context *)c)->e;
    const graph_value *v = &e->g->values[n->in[0]];
    if (e->point_count == e->point_room) {
        int room = e->point_room ? 2 * e->point_room : 64;
        point *more = realloc(e->points, (size_t)room * sizeof *more);
        if (!more)
            return gt_fail(GT_NO_MEMORY, "cannot place a graph: out of memory");
        e->points = more;
        e->point_room = room;
    }
    const point *before = e->point_count ? &e->points[e->point_count - 1] : NULL;
    const int made = e->first[n->in[0]];    /* -1: an input */
    int begin = made >= 0 && program_at(e, made) == e->building ? e->launch_to[made] : 0;
    if (before && before->list == e->building && before->at > begin)
        begin = before->at;
    e->points[e->point_count++] = (point){
        .list = e->building, .begin = begin, .at = dev_list_count(c->list), .position = e->position,
        .x = { .kind = kind, .name = n->name, .from = e->buffer[n->in[0]],
               .to = e->buffer[n->out[0]], .type = v->type, .width = columns_of(v),
               .ranks = e->g->ranks, .rank = e->g->rank, .rows = rows },
    };
    return GT_OK;
}

static build_context context_of(exec *e)
{
    return (build_context){ .c = { .device = e->o.device, .kernels = e->o.kernels,
                                   .gemm = e->o.gemm, .g = e->g, .buffer = buffer_of,
                                   .view = view_of, .add = add_of, .remember = remember_slot,
                                   .clear = clear_before, .exchange = exchange_here },
                            .e = e };
}

gt_status exec_create(exec **out, const graph *g, const exec_options *options)
{
    *out = NULL;
    exec *e = calloc(1, sizeof *e);
    if (!e)
        return gt_fail(GT_NO_MEMORY, "cannot plan a graph: out of memory");
    e->g = g;
    e->o = *options;
    gt_status st = allocate(e);
    if (!st) {
        order_nodes(e);
        find_lifetimes(e);
        build_context b = context_of(e);
        st = plan_memory(e, &b.c);
    }
    if (st) {
        exec_release(e);
        return st;
    }
    *out = e;
    return GT_OK;
}

void exec_release(exec *e)
{
    if (!e)
        return;
    for (int i = 0; i < LISTS; i++)
        dev_list_release(e->list[i]);
    dev_list_release(e->clears);
    for (int v = 0; e->buffer && v < e->g->value_count; v++)
        if (e->owned[v])
            dev_buffer_release(e->buffer[v]);
    for (int i = 0; i < e->view_count; i++)
        dev_buffer_release(e->views[i]);
    free(e->views);
    free(e->order);
    free(e->areas);
    free(e->first);
    free(e->last);
    free(e->buffer);
    free(e->owned);
    free(e->written);
    free(e->scratch);
    free(e->launch_from);
    free(e->launch_to);
    free(e->passing);
    free(e->done);
    free(e->slots);
    free(e->points);
    free(e);
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

/* An own, zeroed buffer for an input or state. */
static gt_status own_buffer(exec *e, int v)
{
    const graph_value *value = &e->g->values[v];
    const uint64_t bytes = (value_bytes(value) + 3) / 4 * 4;
    gt_status st = dev_buffer_create(&e->buffer[v], e->o.device, bytes, value->name);
    if (st)
        return st;
    e->owned[v] = 1;
    dev_list *l;
    st = dev_list_create(&l, e->o.device);
    if (!st)
        st = dev_list_fill(l, e->buffer[v], 0, 0, bytes);
    if (!st)
        st = dev_run(l, 0, -1);
    if (!st)
        st = dev_wait(e->o.device);
    dev_list_release(l);
    return st;
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
            if (!shape_equal(&params_info(e->o.params, param)->shape,
                             &e->g->params[value->param].shape))
                return gt_fail(GT_MISMATCH, "cannot place parameter '%s': its shape differs", name);
        }
        switch (value->role) {
        case GRAPH_PARAM:
            e->buffer[v] = params_used(e->o.params, param);
            break;
        case GRAPH_PARAM_GRAD:
            e->buffer[v] = params_grad(e->o.params, param);
            if (!e->buffer[v])
                st = gt_fail(GT_MISUSE, "cannot train '%s': parameters were made without "
                             "gradients", value->name);
            break;
        case GRAPH_ACTIVATION:
            if (e->first[v] < 0)
                break;
            st = dev_buffer_view(&e->buffer[v], chunk_of(e, v), e->areas[v].offset,
                                 value_bytes(value));
            e->owned[v] = !st;
            break;
        case GRAPH_INPUT:
        case GRAPH_STATE:
            e->buffer[v] = bound(e, value->name);
            if (!e->buffer[v])
                st = own_buffer(e, v);
            break;
        }
    }
    for (int at = 0; !st && at < e->count; at++) {
        const plan_area *a = &e->areas[e->g->value_count + at];
        if (!a->bytes)
            continue;
        st = dev_buffer_view(&e->scratch[at], chunk_of(e, e->g->value_count + at), a->offset,
                             a->bytes);
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

gt_status exec_ready(exec *e)
{
    gt_status st = fill_arena(e->o.arena);
    if (!st && e->o.passing)
        st = fill_arena(e->o.passing);
    if (!st)
        st = place_values(e);
    if (!st)
        st = dev_list_create(&e->clears, e->o.device);
    for (int i = 0; !st && i < LISTS; i++)
        st = dev_list_create(&e->list[i], e->o.device);
    build_context b = context_of(e);
    for (int at = 0; !st && at < e->count; at++) {
        const graph_node *n = &e->g->nodes[e->order[at]];
        char label[96];
        e->building = list_of(e, n->phase);
        e->position = at;
        b.c.list = e->list[e->building];
        b.c.scratch = e->scratch[at];
        snprintf(label, sizeof label, "%s %s", n->name,
                 n->phase == GRAPH_FORWARD ? "forward" : n->phase == GRAPH_INPUT_GRAD
                                                             ? "input grad" : "weight grad");
        dev_list_label(b.c.list, label);
        e->launch_from[at] = dev_list_count(b.c.list);
        st = op_table[n->op].launch(&b.c, n);
        e->launch_to[at] = dev_list_count(b.c.list);
        note_gradients(e, at);
    }
    return st;
}

dev_buffer *exec_value(exec *e, int value)
{
    return value < 0 ? NULL : e->buffer[value];
}

dev_buffer *exec_buffer(exec *e, const char *name)
{
    return exec_value(e, graph_value_find(e->g, name));
}

exec_memory exec_memory_of(const exec *e)
{
    return e->memory;
}

static int list_of_program(const exec *e, exec_program program)
{
    (void)e;                                /* asserts alone need it */
    assert(e->o.split ? program != EXEC_BACKWARD
                      : program == EXEC_FORWARD || program == EXEC_BACKWARD);
    return program == EXEC_FORWARD ? 0 : program == EXEC_WEIGHT_GRAD ? 2 : 1;
}

static gt_status set_add(exec *e, int list, int add)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && add != e->add[list] && i < e->slot_count; i++) {
        const slot *s = &e->slots[i];
        if (s->list == list)
            st = dev_list_set(e->list[list], s->launch, s->arg, dev_arg_i32(add));
    }
    e->add[list] = add;
    return st;
}

gt_status exec_add(exec *e, int add)
{
    gt_status st = GT_OK;
    for (int list = 0; !st && list < LISTS; list++)
        st = set_add(e, list, add);
    return st;
}

gt_status exec_add_program(exec *e, exec_program program, int add)
{
    return set_add(e, list_of_program(e, program), add);
}

static gt_status make_exchange(exec *e, const exec_exchange *x, exec_exchange_step step)
{
    if (!e->o.exchange)
        return gt_fail(GT_MISUSE, "cannot run '%s': it exchanges rows with %d other ranks, and there "
                       "is nothing to do it with", x->name, x->ranks - 1);
    return e->o.exchange(e->o.exchange_context, x, step);
}

/* Launches [from, to) of a list and the exchanges before each of them; to < 0: all the rest, and
 * what is exchanged behind the last one. */
static gt_status run_launches(exec *e, int list, int from, int to)
{
    const int end = to < 0 ? dev_list_count(e->list[list]) : to;
    gt_status st = GT_OK;
    for (int i = 0; !st && i < e->point_count; i++) {
        const point *p = &e->points[i];
        if (p->list != list || p->at < from || p->at > end || (p->at == end && to >= 0))
            continue;
        const int begin = p->begin > from ? p->begin : from;
        if (begin > from)
            st = dev_run(e->list[list], from, begin);
        if (!st)
            st = make_exchange(e, &p->x, EXEC_EXCHANGE_START);
        if (!st && p->at > begin)
            st = dev_run(e->list[list], begin, p->at);
        if (!st)
            st = make_exchange(e, &p->x, EXEC_EXCHANGE_FINISH);
        from = p->at;
    }
    return st || from >= end ? st : dev_run(e->list[list], from, end);
}

gt_status exec_run(exec *e, exec_program program)
{
    const int list = list_of_program(e, program);
    if (list == 0 && !e->add[0] && dev_list_count(e->clears)) {
        gt_status st = dev_run(e->clears, 0, -1);
        if (st)
            return st;
    }
    return run_launches(e, list, 0, -1);
}

int exec_gradient_done(const exec *e, int i)
{
    const char *name = params_info(e->o.params, i)->name;
    for (int p = 0; p < e->g->param_count; p++)
        if (!strcmp(e->g->params[p].name, name))
            return e->done[p];
    return -1;
}

gt_status exec_run_last(exec *e, int from, int to)
{
    return run_launches(e, e->o.split ? 2 : 1, from, to);
}

/* ---- looking inside ------------------------------------------------------------------------- */

/* Device seconds of every node, by position; waits for every launch. */
static gt_status time_nodes(exec *e, double *seconds)
{
    gt_status st = GT_OK;
    if (!e->add[0] && dev_list_count(e->clears))
        st = dev_run(e->clears, 0, -1);
    for (int list = 0; !st && list < LISTS; list++) {
        const int launches = dev_list_count(e->list[list]);
        double *each = calloc((size_t)launches + 1, sizeof *each);
        if (!each)
            return gt_fail(GT_NO_MEMORY, "cannot time a graph: out of memory");
        st = dev_run_timed(e->list[list], each);
        for (int at = 0; !st && at < e->count; at++)
            if (list_of(e, e->g->nodes[e->order[at]].phase) == list)
                for (int i = e->launch_from[at]; i < e->launch_to[at]; i++)
                    seconds[at] += each[i];
        free(each);
    }
    return st;
}

gt_status exec_time(exec *e, double *all, double *gemms)
{
    double *seconds = calloc((size_t)e->count + 1, sizeof *seconds);
    if (!seconds)
        return gt_fail(GT_NO_MEMORY, "cannot time a graph: out of memory");
    gt_status st = time_nodes(e, seconds);
    *all = *gemms = 0.0;
    for (int at = 0; at < e->count; at++) {
        graph_op_kind op = e->g->nodes[e->order[at]].op;
        *all += seconds[at];
        if (op_table[op].gemm || op == OP_HEAD_LOSS || op == OP_HEAD_STATISTICS
            || op == OP_HEAD_GRADIENT)
            *gemms += seconds[at];
    }
    free(seconds);
    return st;
}

static const char *engine_of(exec *e, const graph_node *n)
{
    gemm_desc d;
    const char *name = "";
    if (op_table[n->op].gemm && op_table[n->op].gemm(e->g, n, &d)
        && gemm_engine_name(e->o.gemm, &d, &name))
        name = "?";
    return name;
}

static void print_memory(const exec *e, FILE *out)
{
    char a[32], b[32], c[32];
    uint64_t masters, copies;
    params_bytes(e->g, &masters, &copies);
    fprintf(out, "memory: parameters %s (+ copies %s)", gt_format_bytes(a, sizeof a, masters),
            gt_format_bytes(b, sizeof b, copies));
    fprintf(out, ", gradients and two moments %s", gt_format_bytes(a, sizeof a, 3 * masters));
    fprintf(out, ", activations and scratch %s (%s without sharing), inputs %s\n",
            gt_format_bytes(a, sizeof a, e->memory.activations),
            gt_format_bytes(b, sizeof b, e->memory.unpacked),
            gt_format_bytes(c, sizeof c, e->memory.inputs + e->memory.states));
}

gt_status exec_explain(exec *e, FILE *out, double peak_flops)
{
    static const char *const phases[] = { "forward", "input", "weight" };
    double *seconds = calloc((size_t)e->count + 1, sizeof *seconds);
    double op_seconds[OP_COUNT] = { 0 }, op_flops[OP_COUNT] = { 0 }, total = 0.0, flops = 0.0;
    if (!seconds)
        return gt_fail(GT_NO_MEMORY, "cannot time a graph: out of memory");
    gt_status st = time_nodes(e, seconds);              /* once to warm up, once to count */
    memset(seconds, 0, (size_t)e->count * sizeof *seconds);
    if (!st)
        st = time_nodes(e, seconds);
    if (st)
        goto out;
    fprintf(out, "%-28s %-22s %-8s %-18s %-8s %9s %9s %8s\n", "node", "operation", "program",
            "result", "engine", "ms", "GFLOP/s", "GB/s");
    for (int at = 0; at < e->count; at++) {
        const graph_node *n = &e->g->nodes[e->order[at]];
        const graph_op *op = &op_table[n->op];
        const int result = n->out[0];
        char text[64] = "";
        double f = op->flops(e->g, n);
        if (result >= 0)
            shape_format(&e->g->values[result].shape, text, sizeof text);
        fprintf(out, "%-28.28s %-22s %-8s %-18s %-8s %9.3f %9.1f %8.1f\n", n->name, op->name,
                phases[n->phase], text, engine_of(e, n), seconds[at] * 1e3,
                seconds[at] > 0.0 ? f / seconds[at] * 1e-9 : 0.0,
                seconds[at] > 0.0 ? graph_node_bytes(e->g, n) / seconds[at] * 1e-9 : 0.0);
        op_seconds[n->op] += seconds[at];
        op_flops[n->op] += f;
        total += seconds[at];
        flops += f;
    }
    fprintf(out, "\n%-28s %9s %7s %10s %9s\n", "operation", "ms", "share", "GFLOP", "GFLOP/s");
    for (int op = 0; op < OP_COUNT; op++)
        if (op_seconds[op] > 0.0)
            fprintf(out, "%-28s %9.3f %6.1f%% %10.3f %9.1f\n", op_table[op].name,
                    op_seconds[op] * 1e3, 100.0 * op_seconds[op] / total, op_flops[op] * 1e-9,
                    op_flops[op] / op_seconds[op] * 1e-9);
    fprintf(out, "%-28s %9.3f %6.1f%% %10.3f %9.1f", "forward + backward", total * 1e3, 100.0,
            flops * 1e-9, total > 0.0 ? flops / total * 1e-9 : 0.0);
    if (peak_flops > 0.0 && total > 0.0)
        fprintf(out, "  (%.0f%% of the GEMM peak)", 100.0 * flops / total / peak_flops);
    fprintf(out, "\n");
    print_memory(e, out);
out:
    free(seconds);
    return st;
}

/* 1 if all of a float buffer is finite (or if it is no float buffer). */
static gt_status is_finite(exec *e, dev_buffer *b, dtype type, int64_t count, int *finite)
{
    *finite = 1;
    if (!b || (type != DTYPE_F32 && type != DTYPE_BF16 && type != DTYPE_F16))
        return GT_OK;
    const size_t bytes = (size_t)count * dtype_size(type);
    void *host = malloc(bytes ? bytes : 1);
    if (!host)
        return gt_fail(GT_NO_MEMORY, "cannot look for bad numbers: out of memory");
    gt_status st = dev_read(e->o.device, b, 0, host, bytes);
    for (int64_t i = 0; !st && *finite && i < count; i++)
        *finite = isfinite(dtype_load(type, host, (size_t)i));
    free(host);
    return st;
}

/* The launches of one node, or its exchange. */
static gt_status run_node(exec *e, int at)
{
    for (int i = 0; i < e->point_count; i++)
        if (e->points[i].position == at) {
            gt_status st = make_exchange(e, &e->points[i].x, EXEC_EXCHANGE_START);
            return st ? st : make_exchange(e, &e->points[i].x, EXEC_EXCHANGE_FINISH);
        }
    return dev_run(e->list[program_at(e, at)], e->launch_from[at], e->launch_to[at]);
}

gt_status exec_find_bad(exec *e, char *name, size_t size)
{
    gt_status st = GT_OK;
    int finite = 1;
    name[0] = '\0';
    for (int i = 0; !st && i < params_count(e->o.params); i++) {
        const graph_param_info *p = params_info(e->o.params, i);
        st = is_finite(e, params_master(e->o.params, i), DTYPE_F32, shape_count(&p->shape), &finite);
        if (!st && !finite) {
            snprintf(name, size, "weight '%s'", p->name);
            return GT_OK;
        }
    }
    if (!st && !e->add[0] && dev_list_count(e->clears))
        st = dev_run(e->clears, 0, -1);
    for (int at = 0; !st && at < e->count; at++) {
        const graph_node *n = &e->g->nodes[e->order[at]];
        st = run_node(e, at);
        for (int j = 0; !st && j < NODE_OUTPUTS; j++) {
            if (n->out[j] < 0)
                continue;
            const graph_value *v = &e->g->values[n->out[j]];
            st = is_finite(e, e->buffer[n->out[j]], v->type, shape_count(&v->shape), &finite);
            if (!st && !finite) {
                snprintf(name, size, "%s of '%s'", op_table[n->op].name, n->name);
                return GT_OK;
            }
        }
    }
    return st;
}
