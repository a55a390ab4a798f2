/* SPDX-License-Identifier: MIT */
/* host/graph/exec.c - a graph that is planned and placed runs, program after program.
 *
 *   list       launch launch launch | launch launch | launch ...
 *   exchanges         START  .......  FINISH: between the launches, by the host
 *
 * Whether a gradient is overwritten or added to is an argument of launches that are in
 * their lists already; exec_add() changes those arguments and nothing else (see exec_place.c).       */
#include "host/base/activity.h"
#include "host/base/stop.h"
#include "host/graph/exec_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

gt_status exec_create(exec **out, const graph *g, const exec_options *options)
{
    *out = NULL;
    exec *e = calloc(1, sizeof *e);
    if (!e)
        return gt_fail(GT_NO_MEMORY, "cannot place a graph: no memory for the state of its execution");
    e->g = g;
    e->o = *options;
    gt_status st = exec_lay_out(e);
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
    for (int i = 0; i < EXEC_LISTS; i++)
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
    assert(e->o.split ? program != EXEC_BACKWARD : program == EXEC_FORWARD || program == EXEC_BACKWARD);
    return program == EXEC_FORWARD ? 0 : program == EXEC_WEIGHT_GRAD ? 2 : 1;
}

gt_status exec_set_add(exec *e, int list, int add)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && add != e->add[list] && i < e->slot_count; i++) {
        const exec_slot *s = &e->slots[i];
        if (s->list == list)
            st = dev_list_set(e->list[list], s->launch, s->arg, dev_arg_i32(add));
    }
    e->add[list] = add;
    return st;
}

gt_status exec_add(exec *e, int add)
{
    gt_status st = GT_OK;
    for (int list = 0; !st && list < EXEC_LISTS; list++)
        st = exec_set_add(e, list, add);
    return st;
}

gt_status exec_add_program(exec *e, exec_program program, int add)
{
    return exec_set_add(e, list_of_program(e, program), add);
}

gt_status exec_make_exchange(exec *e, const exec_exchange *x, exec_exchange_step step)
{
    if (!e->o.exchange)
        return gt_fail(GT_MISUSE,
                       "cannot run '%s': it exchanges rows with %d other ranks, and there "
                       "is nothing to do it with",
                       x->name, x->ranks - 1);
    return e->o.exchange(e->o.exchange_context, x, step);
}

int exec_stopped(const exec *e)
{
    return e->stopped;
}

void exec_finish(exec *e, int always)
{
    e->finishes = always;
}

static gt_status run_part(exec *e, int list, int from, int to)
{
    if (e->finishes) {
        e->stopped = 0;
        return dev_run(e->list[list], from, to);
    }
    if (e->stopped && gt_stop_asked())
        return GT_OK;
    e->stopped = 0;
    const gt_status st = dev_run_stoppable(e->list[list], from, to);
    if (st != GT_INTERRUPTED || !e->o.together)
        return st;
    gt_message_clear();
    e->stopped = 1;
    return GT_OK;
}

/* Launches [from, to) of a list and the exchanges before each of them; to < 0: all the rest, and
 * what is exchanged behind the last one. */
static gt_status run_launches(exec *e, int list, int from, int to)
{
    const int end = to < 0 ? dev_list_count(e->list[list]) : to;
    gt_status st = GT_OK;
    for (int i = 0; !st && i < e->point_count; i++) {
        const exec_point *p = &e->points[i];
        if (p->list != list || p->at < from || p->at > end || (p->at == end && to >= 0))
            continue;
        const int begin = p->begin > from ? p->begin : from;
        if (begin > from)
            st = run_part(e, list, from, begin);
        if (!st)
            st = exec_make_exchange(e, &p->x, EXEC_EXCHANGE_START);
        if (!st && p->at > begin)
            st = run_part(e, list, begin, p->at);
        if (!st)
            st = exec_make_exchange(e, &p->x, EXEC_EXCHANGE_FINISH);
        from = p->at;
    }
    return st || from >= end ? st : run_part(e, list, from, end);
}

gt_status exec_clear(exec *e)
{
    return !e->add[0] && dev_list_count(e->clears) ? dev_run(e->clears, 0, -1) : GT_OK;
}

gt_status exec_run(exec *e, exec_program program)
{
    const int list = list_of_program(e, program);
    gt_status st = list == 0 ? exec_clear(e) : GT_OK;
    return st ? st : run_launches(e, list, 0, -1);
}

int exec_gradient_done(const exec *e, int i)
{
    const char *name = params_info(e->o.params, i)->name;
    for (int p = 0; p < e->g->param_count; p++)
        if (!strcmp(e->g->params[p].name, name))
            return e->done[p];
    return -1;
}

int exec_parameter_read(const exec *e, int i)
{
    const char *name = params_info(e->o.params, i)->name;
    for (int at = 0; at < e->count; at++) {
        const graph_node *n = &e->g->nodes[e->order[at]];
        for (int j = 0; exec_list_at(e, at) == 0 && j < NODE_INPUTS; j++) {
            const graph_value *v = n->in[j] < 0 ? NULL : &e->g->values[n->in[j]];
            if (v && v->role == GRAPH_PARAM && !strcmp(e->g->params[v->param].name, name))
                return e->launch_from[at];
        }
    }
    return -1;
}

gt_status exec_run_forward(exec *e, int from, int to)
{
    gt_status st = from ? GT_OK : exec_clear(e);
    return st ? st : run_launches(e, 0, from, to);
}

gt_status exec_run_last(exec *e, int from, int to)
{
    return run_launches(e, e->o.split ? 2 : 1, from, to);
}
