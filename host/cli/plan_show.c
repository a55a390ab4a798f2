/* SPDX-License-Identifier: MIT */
/* host/cli/plan_show.c - a plan of a run as a person reads it.
 *
 *   what     model, batch                       where the times come from
 *   plan     step and idle share, as predicted
 *   tables   a row a rank: device, units, times of a micro-batch, memory against its limit
 *   why      the runners-up, and what makes them slower                                    */
#include "host/cli/plan_show.h"

#include "host/base/file.h"
#include "host/base/text.h"
#include "host/pipeline/simulate.h"
#include "host/pipeline/timeline.h"
#include "host/planner/advice.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

plan_model plan_model_of(const model_config *c)
{
    if (!c)
        return (plan_model){ 0 };
    return (
        plan_model){ c->name, model_build_config, c, model_units(c), (double)model_parameters(c), model_batch, 0.0 };
}

void plan_unit_range(int from, int to, int units, char *out, size_t size)
{
    const int first = from < 1 ? 1 : from, last = to > units - 1 ? units - 1 : to;
    int n = snprintf(out, size, "%s", from == 0 ? "embedding" : "");
    if (last == first + 1)
        n += snprintf(out + n, size - (size_t)n, "%slayer %d", n ? ", " : "", first - 1);
    else if (last > first)
        n += snprintf(out + n, size - (size_t)n, "%slayers %d-%d", n ? ", " : "", first - 1, last - 2);
    if (to == units)
        snprintf(out + n, size - (size_t)n, "%shead", n ? ", " : "");
}

/* ---- tables -------------------------------------------------------------------------------- */

/* All that a stage holds, its chunks joined by " + ". */
static void stage_units(const run_plan *p, const run_replica *r, int stage, char *out, size_t size)
{
    size_t n = 0;
    for (int v = stage; v < r->stages * p->chunks && n < size; v += r->stages) {
        char part[64];
        plan_unit_range(r->cut[v], r->cut[v + 1], p->units, part, sizeof part);
        n += (size_t)snprintf(out + n, size - n, "%s%s", n ? " + " : "", part);
    }
}

static pipe_cost stage_cost(const run_plan *p, const run_replica *r, int stage)
{
    pipe_cost sum = { 0 };
    for (int v = stage; v < r->stages * p->chunks; v += r->stages) {
        sum.forward += r->cost[v].forward;
        sum.backward_input += r->cost[v].backward_input;
        sum.backward_weight += r->cost[v].backward_weight;
    }
    return sum;
}

/* Wide enough for the longest, so that columns stand. */
static int widest(const run_plan *p)
{
    int most = 6;
    for (int r = 0; r < p->ranks; r++)
        most = (int)strlen(p->device[r]) > most ? (int)strlen(p->device[r]) : most;
    return most;
}

static void print_rank(const run_plan *p, const run_replica *r, int k, int devices)
{
    char what[160], need[24], limit[24], host[24], beside[40] = "";
    const int stage = k / p->tensor, rank = r->rank[k];
    const pipe_cost c = stage_cost(p, r, stage);
    stage_units(p, r, stage, what, sizeof what);
    if (p->host_memory[rank] >= 1.0)
        snprintf(beside, sizeof beside, "and %s of the host  ",
                 gt_format_bytes(host, sizeof host, (uint64_t)p->host_memory[rank]));
    printf("%7d %5d  %-*s %7.2f %7.2f %7.2f  %8s of %-8s %s%s\n", stage, rank, devices, p->device[rank],
           1e3 * c.forward, 1e3 * c.backward_input, 1e3 * c.backward_weight,
           gt_format_bytes(need, sizeof need, (uint64_t)p->memory[rank]),
           gt_format_bytes(limit, sizeof limit, (uint64_t)p->limit[rank]), beside, what);
}

static void print_replicas(const run_plan *p)
{
    const int devices = widest(p);
    for (int i = 0; i < p->replicas; i++) {
        const run_replica *r = &p->replica[i];
        const int sequences = r->micro_batches * r->micro_batch;
        char need[24], limit[24];
        if (!sequences) {
            const int rank = r->rank[0];
            printf("\nrank %d only serves, on %s: %s of %s\n", rank, p->device[rank],
                   gt_format_bytes(need, sizeof need, (uint64_t)p->memory[rank]),
                   gt_format_bytes(limit, sizeof limit, (uint64_t)p->limit[rank]));
            continue;
        }
        printf("\nreplica %d   %d of %d sequences: %d micro-batch%s of %d\n", i, sequences, p->batch, r->micro_batches,
               r->micro_batches > 1 ? "es" : "", r->micro_batch);
        printf("  stage  rank  %-*s    F ms    B ms    W ms  memory               holds\n", devices, "device");
        for (int k = 0; k < r->stages * p->tensor; k++)
            print_rank(p, r, k, devices);
    }
}

/* ---- the whole ------------------------------------------------------------------------------- */

static void print_why(const plan_local_result *r)
{
    const char *line = r->runners_up.data;
    if (r->plan.ranks < 2)
        return;
    printf("\nrunners-up\n%s", line ? "" : "  none: of what was left open nothing comes near it\n");
    while (line && *line) {
        const char *end = strchr(line, '\n');
        printf("  %.*s\n", (int)(end - line), line);
        line = end + 1;
    }
}

static void print_all(const plan_question *q, const plan_local_result *r)
{
    const run_plan *p = &r->plan;
    char count[32];
    printf("model      %s: %s parameters, %d layers, %s\n", q->model->name,
           gt_format_count(count, sizeof count, (double)model_parameters(q->model)), q->model->layers,
           dtype_name(q->storage));
    printf("batch      %d sequences of %d tokens\n", q->batch, q->seq);
    printf("profile    %s, %.2f s; search %.3f s\n",
           r->measured ? "measured now, all ranks at once" : "from the cache (--again measures)", r->profile_seconds,
           r->search_seconds);
    printf("plan       %d rank%s in %d replica%s, %s, sync %s", p->ranks, p->ranks > 1 ? "s" : "", run_plan_training(p),
           run_plan_training(p) > 1 ? "s" : "", p->schedule, p->sync);
    if (p->tensor > 1)
        printf(", tensor %d", p->tensor);
    if (p->chunks > 1)
        printf(", %d chunks a stage", p->chunks);
    printf("%s\n", p->recompute ? ", layers recomputed" : "");
    printf("step       %.1f ms, %.0f tok/s, %.1f %% idle (predicted)\n", 1e3 * p->step,
           (double)q->batch * q->seq / p->step, 100.0 * p->idle);
    print_replicas(p);
    print_why(r);
    gt_text advice = { 0 };
    if (plan_advice(&advice, p))
        gt_message_clear();             /* a plan is shown without */
    else if (advice.size)
        printf("\n%s", advice.data);
    gt_text_release(&advice);
    if (r->compare)
        plan_compare_print(q, r->compare, "");
}

static gt_status print_json(const plan_question *q, const plan_local_result *r)
{
    gt_text text = { 0 };
    gt_status st = run_plan_text(&r->plan, &text);
    json_t *plan = st ? NULL : json_loadb(text.data, text.size, 0, NULL), *lines = json_array();
    for (const char *line = r->runners_up.data; line && *line; line = strchr(line, '\n') + 1)
        json_array_append_new(lines, json_stringn(line, (size_t)(strchr(line, '\n') - line)));
    json_t *all = json_pack("{s:b, s:f, s:f, s:o?, s:o, s:o*}", "measured", r->measured, "profile_s",
                            r->profile_seconds, "search_s", r->search_seconds, "plan", plan, "runners_up", lines,
                            "compare", r->compare ? plan_compare_json(q, r->compare) : NULL);
    char *out = all ? json_dumps(all, JSON_INDENT(1)) : NULL;
    if (out)
        puts(out);
    else
        st = st ? st : gt_fail(GT_NO_MEMORY, "no memory for the plan as JSON");
    free(out);
    json_decref(all);
    gt_text_release(&text);
    return st;
}

static gt_status draw(const plan_question *q, const run_plan *p)
{
    const run_replica *r = &p->replica[0];
    pipe_schedule s = { 0 };
    pipe_simulation sim = { 0 };
    gt_text svg = { 0 };
    char note[160];
    const char **names = calloc((size_t)r->stages, sizeof *names);
    char(*text)[64] = calloc((size_t)r->stages, sizeof *text);
    gt_status st = names && text ? run_plan_schedule(p, 0, &s)
                                 : gt_fail(GT_NO_MEMORY, "no memory to draw a plan of %d stages", r->stages);
    if (!st)
        st = pipe_simulate(&sim, &s, r->cost, 1);
    for (int k = 0; !st && k < r->stages; k++) {
        const int rank = r->rank[k * p->tensor];
        char more[16] = "";
        if (p->tensor > 1)                      /* of a tensor group the first stands for all */
            snprintf(more, sizeof more, "-%d", r->rank[(k + 1) * p->tensor - 1]);
        snprintf(text[k], sizeof text[k], "rank %d%s %.40s", rank, more, p->device[rank]);
        names[k] = text[k];
    }
    snprintf(note, sizeof note, "%d stage%s, %d micro-batch%s of %d, schedule %s; %.1f ms, %.1f %% idle", r->stages,
             r->stages > 1 ? "s" : "", r->micro_batches, r->micro_batches > 1 ? "es" : "", r->micro_batch, p->schedule,
             1e3 * sim.step, 100.0 * sim.idle);
    if (!st)
        st = pipe_timeline_svg(&svg,
                               &(pipe_picture){ "One step of replica 0, predicted", note, &s, sim.event, names, NULL });
    if (!st)
        st = gt_file_write(q->timeline, svg.data, svg.size);
    gt_text_release(&svg);
    pipe_simulation_release(&sim);
    pipe_schedule_release(&s);
    free(names);
    free(text);
    return st;
}

gt_status plan_show(const plan_question *q, const plan_local_result *r)
{
    gt_status st = GT_OK;
    if (q->json)
        st = print_json(q, r);
    else
        print_all(q, r);
    return st || !q->timeline ? st : draw(q, &r->plan);
}
