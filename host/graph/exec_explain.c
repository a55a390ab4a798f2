/* SPDX-License-Identifier: MIT */
/* host/graph/exec_explain.c - looking inside a graph: every node timed, or run and searched.
 *
 *   time             all launches of a list, one after another with the device's clock; a node is
 *                    the sum of its own
 *   explain          the same, but of nodes that are alike (a layer's and the next one's) only as many
 *                    as it takes to know: the others are given the same time
 *   find bad         node by node, each result read back before the next one runs
 *
 * Timing makes no exchanges between ranks, so that one rank alone can be measured; searching makes
 * them, for what comes out of them is searched as well.                                  */
#include "host/base/activity.h"
#include "host/graph/exec_private.h"

#include "host/base/clock.h"
#include "host/base/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Device seconds of every node, by position; waits for every launch. */
static gt_status time_nodes(exec *e, double *seconds)
{
    gt_status st = exec_clear(e);
    for (int list = 0; !st && list < EXEC_LISTS; list++) {
        const int launches = dev_list_count(e->list[list]);
        double *each = calloc((size_t)launches + 1, sizeof *each);
        if (!each)
            return gt_fail(GT_NO_MEMORY, "cannot time a graph: no memory for the times of %d launches", launches);
        st = dev_run_timed(e->list[list], 0, -1, each);
        for (int at = 0; !st && at < e->count; at++)
            if (exec_list_at(e, at) == list)
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
        return gt_fail(GT_NO_MEMORY, "cannot time a graph: no memory for the times of %d nodes", e->count);
    gt_status st = time_nodes(e, seconds);
    *all = *gemms = 0.0;
    for (int at = 0; at < e->count; at++) {
        const graph_op *op = e->g->nodes[e->order[at]].op;
        *all += seconds[at];
        if (op->gemm || op->flags & GRAPH_OP_MULTIPLIES)
            *gemms += seconds[at];
    }
    free(seconds);
    return st;
}

/* Do both the same with as many numbers? */
static int are_alike(const graph *g, const graph_node *a, const graph_node *b)
{
    if (!graph_node_alike(a, b))
        return 0;
    for (int j = 0; j < NODE_INPUTS + NODE_OUTPUTS; j++) {
        const int x = j < NODE_INPUTS ? a->in[j] : a->out[j - NODE_INPUTS];
        const int y = j < NODE_INPUTS ? b->in[j] : b->out[j - NODE_INPUTS];
        if ((x < 0) != (y < 0))
            return 0;
        if (x >= 0
            && (g->values[x].type != g->values[y].type || !shape_equal(&g->values[x].shape, &g->values[y].shape)))
            return 0;
    }
    return 1;
}

/* The launches of one node, once; *took is the host's time for it. */
static gt_status time_node(exec *e, int at, double *seconds, double *took)
{
    dev_list *l = e->list[exec_list_at(e, at)];
    double *each = calloc((size_t)dev_list_count(l) + 1, sizeof *each);
    if (!each)
        return gt_fail(GT_NO_MEMORY, "cannot time node %d of a graph: no memory for the times of %d launches", at,
                       dev_list_count(l));
    const uint64_t start = gt_now_ns();
    const gt_status st = dev_run_timed(l, e->launch_from[at], e->launch_to[at], each);
    *took = (double)(gt_now_ns() - start) * 1e-9;
    *seconds = 0.0;
    for (int i = e->launch_from[at]; i < e->launch_to[at]; i++)
        *seconds += each[i];
    free(each);
    return st;
}

/* Seconds of every node, by position. A short node runs twice, since its first run touches memory and
 * may compile; nodes of a kind are run until that took KNOWN seconds, and the rest are given what
 * the last one took. */
static gt_status sample_nodes(exec *e, double *seconds)
{
    static const double known = 0.05;
    double *spent = calloc((size_t)e->count + 1, sizeof *spent), took = 0.0;
    gt_activity a;
    if (!spent)
        return gt_fail(GT_NO_MEMORY, "cannot time a graph: no memory for the times of %d nodes", e->count);
    gt_activity_begin(&a, "timing node", NULL, (uint64_t)e->count);
    gt_status st = exec_clear(e);
    for (int at = 0; !st && at < e->count; at++) {
        const graph_node *n = &e->g->nodes[e->order[at]];
        int like = at - 1;
        while (like >= 0 && !are_alike(e->g, n, &e->g->nodes[e->order[like]]))
            like--;
        if (like >= 0 && spent[like] > known) {
            seconds[at] = seconds[like];
            spent[at] = spent[like];
            continue;
        }
        st = gt_activity_at(&a, (uint64_t)at + 1);
        if (!st)
            st = time_node(e, at, &seconds[at], &took);
        if (!st && took < known)
            st = time_node(e, at, &seconds[at], &took);
        spent[at] = took + (like >= 0 ? spent[like] : 0.0);
    }
    gt_activity_end(&a);
    free(spent);
    return st;
}

static const char *engine_of(exec *e, const graph_node *n)
{
    gemm_desc d;
    const char *name = "";
    exec_context b = exec_context_of(e);
    if (n->op->engine)
        return n->op->engine(&b.c, n);
    if (n->op->gemm && n->op->gemm(e->g, n, &d) && gemm_engine_name(e->o.gemm, &d, &name))
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
    if (graph_frozen_bytes(e->g))
        fprintf(out, ", frozen %s", gt_format_bytes(a, sizeof a, graph_frozen_bytes(e->g)));
    fprintf(out, ", gradients and two moments %s", gt_format_bytes(a, sizeof a, 3 * masters));
    fprintf(out, ", activations and scratch %s (%s without sharing), inputs %s\n",
            gt_format_bytes(a, sizeof a, e->memory.activations), gt_format_bytes(b, sizeof b, e->memory.unpacked),
            gt_format_bytes(c, sizeof c, e->memory.inputs + e->memory.states));
}

/* What all nodes of a kind take together, in the order of the table. */
static void print_totals(const exec *e, const double *seconds, double total, FILE *out)
{
    fprintf(out, "\n%-28s %9s %7s %10s %9s\n", "operation", "ms", "share", "GFLOP", "GFLOP/s");
    for (int i = 0; graph_op_at(i); i++) {
        const graph_op *op = graph_op_at(i);
        double own = 0.0, flops = 0.0;
        for (int at = 0; at < e->count; at++)
            if (e->g->nodes[e->order[at]].op == op) {
                own += seconds[at];
                flops += op->flops(e->g, &e->g->nodes[e->order[at]]);
            }
        if (own > 0.0)
            fprintf(out, "%-28s %9.3f %6.1f%% %10.3f %9.1f\n", op->name, own * 1e3, 100.0 * own / total, flops * 1e-9,
                    flops / own * 1e-9);
    }
}

gt_status exec_explain(exec *e, FILE *out, double peak_flops)
{
    static const char *const phases[] = { "forward", "input", "weight" };
    double *seconds = calloc((size_t)e->count + 1, sizeof *seconds);
    double total = 0.0, flops = 0.0;
    if (!seconds)
        return gt_fail(GT_NO_MEMORY, "cannot time a graph: no memory for the times of %d nodes", e->count);
    gt_status st = sample_nodes(e, seconds);
    if (st)
        goto out;
    fprintf(out, "%-28s %-22s %-8s %-18s %-8s %9s %9s %8s\n", "node", "operation", "program", "result", "engine", "ms",
            "GFLOP/s", "GB/s");
    for (int at = 0; at < e->count; at++) {
        const graph_node *n = &e->g->nodes[e->order[at]];
        const graph_op *op = n->op;
        const int result = n->out[0];
        char text[64] = "";
        double f = op->flops(e->g, n);
        if (result >= 0)
            shape_format(&e->g->values[result].shape, text, sizeof text);
        fprintf(out, "%-28.28s %-22s %-8s %-18s %-8s %9.3f %9.1f %8.1f\n", n->name, op->name, phases[n->phase], text,
                engine_of(e, n), seconds[at] * 1e3, seconds[at] > 0.0 ? f / seconds[at] * 1e-9 : 0.0,
                seconds[at] > 0.0 ? graph_node_bytes(e->g, n) / seconds[at] * 1e-9 : 0.0);
        total += seconds[at];
        flops += f;
    }
    print_totals(e, seconds, total, out);
    fprintf(out, "%-28s %9.3f %6.1f%% %10.3f %9.1f", "forward + backward", total * 1e3, 100.0, flops * 1e-9,
            total > 0.0 ? flops / total * 1e-9 : 0.0);
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
    if (!b || !dtype_is_storage(type))
        return GT_OK;
    const size_t bytes = (size_t)count * dtype_size(type);
    void *host = malloc(bytes ? bytes : 1);
    if (!host)
        return gt_fail(GT_NO_MEMORY, "cannot look for bad numbers: no memory for %zu bytes of a value", bytes);
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
            gt_status st = exec_make_exchange(e, &e->points[i].x, EXEC_EXCHANGE_START);
            return st ? st : exec_make_exchange(e, &e->points[i].x, EXEC_EXCHANGE_FINISH);
        }
    return dev_run(e->list[exec_list_at(e, at)], e->launch_from[at], e->launch_to[at]);
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
    if (!st)
        st = exec_clear(e);
    gt_activity a;
    gt_activity_begin(&a, "looking for the first bad number", "nodes", (uint64_t)e->count);
    for (int at = 0; !st && at < e->count && !name[0]; at++) {
        const graph_node *n = &e->g->nodes[e->order[at]];
        gt_activity_set(&a, (uint64_t)at);
        if (!e->o.together)
            st = gt_stop_check();
        if (!st)
            st = run_node(e, at);
        for (int j = 0; !st && j < NODE_OUTPUTS; j++) {
            if (n->out[j] < 0)
                continue;
            const graph_value *v = &e->g->values[n->out[j]];
            st = is_finite(e, e->buffer[n->out[j]], v->type, shape_count(&v->shape), &finite);
            if (!st && !finite && !name[0])
                snprintf(name, size, "%s of '%s'", n->op->name, n->name);
        }
    }
    gt_activity_end(&a);
    return st;
}
