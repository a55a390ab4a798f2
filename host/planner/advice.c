/* SPDX-License-Identifier: MIT */
/* host/planner/advice.c - see advice.h.
 *
 *   step = computation + waiting w      apart for H steps, ranks wait about w / H for each; encoded, w times the
 *                                       share of bytes that is left
 *
 * No more than that is known where a plan is only followed: `geartrain plan --compare` measures and simulates. */
#include "host/planner/advice.h"

#include "host/pipeline/simulate.h"
#include "host/sync/traffic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double much = 0.5, little = 0.2;
static const int steps[] = { 10, 30, 100, 300, 1000 };
enum { STEPS = sizeof steps / sizeof *steps };

/* Of the slowest replica, with its exchanges or without. */
static gt_status longest(double *seconds, const run_plan *p, int alone)
{
    gt_status st = GT_OK;
    *seconds = 0.0;
    for (int i = 0; !st && i < p->replicas; i++) {
        const size_t parts = (size_t)p->replica[i].stages * (size_t)p->chunks;
        pipe_cost *cost = malloc(parts * sizeof *cost);
        pipe_schedule s = { 0 };
        pipe_simulation sim = { 0 };
        if (!cost)
            return gt_fail(GT_NO_MEMORY, "no memory for the costs of %zu stages", parts);
        memcpy(cost, p->replica[i].cost, parts * sizeof *cost);
        for (size_t v = 0; alone && v < parts; v++)
            cost[v].reduce = 0.0;
        st = run_plan_schedule(p, i, &s);
        if (!st)
            st = pipe_simulate(&sim, &s, cost, 0);
        *seconds = fmax(*seconds, sim.step);
        pipe_simulation_release(&sim);
        pipe_schedule_release(&s);
        free(cost);
    }
    return st;
}

static gt_status split(const run_plan *p, double *step, double *alone)
{
    gt_status st = longest(step, p, 0);
    return st ? st : longest(alone, p, 1);
}

gt_status plan_waits(double *share, const run_plan *p)
{
    double step, alone;
    *share = 0.0;
    gt_status st = p->step > 0.0 ? split(p, &step, &alone) : GT_OK;
    if (!st && p->step > 0.0 && step > 0.0)
        *share = 1.0 - alone / step;
    return st;
}

/* Bytes that are left of a matrix' gradients, as a share of those of fp32. */
static double left_over(const sync_mode *m, const sync_settings *s, const char *form, int holders)
{
    compress_spec c, none = { 0 };
    const shape matrix = { .rank = 2, .dim = { 1024, 1024 } };
    const graph_param_info info = { .shape = matrix, .full = matrix };
    sync_volume plain = { 0 }, encoded = { 0 };
    if (compress_parse(&c, form)) {
        gt_message_clear();
        return 1.0;
    }
    sync_volume_add(&plain, &none, &info);
    sync_volume_add(&encoded, &c, &info);
    return sync_mode_load(m, s, &c, &encoded, holders).busiest / sync_mode_load(m, s, NULL, &plain, holders).busiest;
}

gt_status plan_advice(gt_text *out, const run_plan *p)
{
    static const char *const forms[] = { "int8", "topk:0.01" };
    const sync_mode *m = sync_mode_find(p->sync);
    double step = 0.0, alone = 0.0;
    if (p->step <= 0.0 || p->replicas < 2 || sync_mode_changes(m, &p->settings))
        return GT_OK;
    gt_status st = split(p, &step, &alone);
    const double wait = step - alone;
    if (st || wait <= much * step)
        return st;
    int at = 0;
    while (at + 1 < STEPS && wait / steps[at] > little * (alone + wait / steps[at]))
        at++;
    const int apart = steps[at];
    gt_text_printf(out,
                   "links   ranks would wait %.0f %% of a step to stay together: about %.0f %% with --sync local "
                   "--local-steps %d",
                   100.0 * wait / step, 100.0 * wait / apart / (alone + wait / apart), apart);
    for (int i = 0; sync_mode_compresses(m) && (!*p->compress || !strcmp(p->compress, "none")) && i < 2; i++) {
        const double left = wait * left_over(m, &p->settings, forms[i], p->replicas);
        if (left < wait)
            gt_text_printf(out, ", %.0f %% with --compress %s", 100.0 * left / (alone + left), forms[i]);
    }
    gt_text_printf(out,
                   "; these change the result, and encoding takes time: `geartrain plan --compare` has all ways\n");
    return out->failed ? gt_fail(GT_NO_MEMORY, "no memory for a line about links") : GT_OK;
}
