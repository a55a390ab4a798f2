/* SPDX-License-Identifier: MIT */
/* host/cli/plan_cluster.c - plans for machines that need not be here.
 *
 * Costs come from the model's description alone: its units' graphs are built without a device and
 * counted (unit_cost.h). A device's "tflops" in the cluster file is
 * therefore what `geartrain bench step` reaches on it, not what its data sheet says.       */
#include "host/cli/plan_show.h"

#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/text.h"
#include "host/optim/optim.h"
#include "host/pipeline/stage_choice.h"
#include "host/planner/cluster_search.h"
#include "host/sync/compress_choice.h"
#include "host/planner/unit_cost.h"
#include "host/planner/wire_volumes.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- printing ------------------------------------------------------------------------------ */

static const char *device_name(const cluster_devices *c, const cluster_stage *s, char *out, size_t size)
{
    const cluster_device *d = &c->device[s->first_device];
    snprintf(out, size, "%d x %s of node %d", s->devices, d->name, d->node);
    return out;
}

static int same_shape(const cluster_devices *c, const cluster_replica *a, const cluster_replica *b)
{
    if (a->stages != b->stages || a->micro_batches != b->micro_batches)
        return 0;
    for (int s = 0; s < a->stages; s++)
        if (a->stage[s].units != b->stage[s].units
            || strcmp(c->device[a->stage[s].first_device].name, c->device[b->stage[s].first_device].name))
            return 0;
    return 1;
}

static void print_replica(const cluster_devices *c, const cluster_job *job, const cluster_layout *p, int r, int alike)
{
    const cluster_replica *replica = &p->replica[r];
    char where[96], what[64], need[24], limit[24];
    printf("\nreplica %d", r);
    if (alike > 1)
        printf(" and %d like it", alike - 1);
    printf(": %d micro-batches of %d, %.3f s\n", replica->micro_batches, p->micro_batch, replica->seconds);
    for (int s = 0; s < replica->stages; s++) {
        const cluster_stage *own = &replica->stage[s];
        plan_unit_range(own->first_unit, own->first_unit + own->units, job->units, what, sizeof what);
        printf("  stage %-3d %-28s %-32s %9s of %-9s %7.1f ms\n", s, device_name(c, own, where, sizeof where), what,
               gt_format_bytes(need, sizeof need, (uint64_t)own->memory),
               gt_format_bytes(limit, sizeof limit, (uint64_t)own->limit),
               1e3 * (own->cost.forward + own->cost.backward_input + own->cost.backward_weight));
    }
}

static void describe(const cluster_layout *p, char *out, size_t size)
{
    int least = p->replica[0].stages, most = least;
    for (int r = 1; r < p->replicas; r++) {
        least = p->replica[r].stages < least ? p->replica[r].stages : least;
        most = p->replica[r].stages > most ? p->replica[r].stages : most;
    }
    char stages[32];
    snprintf(stages, sizeof stages, least == most ? "%d" : "%d-%d", least, most);
    snprintf(out, size, "%d replicas x %s stages x %d tensor, micro-batches of %d%s, %s, dealt %s", p->replicas, stages,
             p->tensor, p->micro_batch, p->recompute ? ", recomputed" : "", p->schedule, p->distribution);
}

static void print_plan(const cluster_devices *c, const cluster_job *job, const cluster_choice *choice, double uniform,
                       int tensor, int stages, double took)
{
    const cluster_layout *p = &choice->best;
    char what[160];
    describe(p, what, sizeof what);
    printf("%d devices in %d nodes, %llu plans tried, %llu fit, %.2f s\n\nplan       %s\n"
           "step       %.3f s, %.1f %% idle, gradient sums %.3f s beside it, sync %s\n",
           c->devices, c->nodes, (unsigned long long)choice->tried, (unsigned long long)choice->fitting, took, what,
           p->step, 100.0 * p->idle, p->reduce, sync_mode_name(job->mode));
    if (p->unused)
        printf("unused     %d devices without equal neighbours\n", p->unused);
    for (int i = 0; i < choice->runners_up; i++) {
        const cluster_layout *q = &choice->runner_up[i];
        describe(q, what, sizeof what);
        printf("%-10s %s: %+.1f %%, idles %.1f %%, gradient sums %.3f s\n", i ? "" : "runners-up", what,
               100.0 * (q->step / p->step - 1.0), 100.0 * q->idle, q->reduce);
    }
    if (isfinite(uniform))
        printf("uniform    %.3f s with %d stages x %d tensor and equal shares: %.2f x slower\n", uniform, stages,
               tensor, uniform / p->step);
    else
        printf("uniform    no split with equal shares fits\n");
    enum { SHOWN = 2 };
    int shown = 0;
    char *done = calloc((size_t)p->replicas, 1);
    for (int r = 0; done && r < p->replicas && shown < SHOWN; r++) {
        int alike = 0;
        if (done[r])
            continue;
        for (int k = r; k < p->replicas; k++)
            if (!done[k] && same_shape(c, &p->replica[r], &p->replica[k])) {
                done[k] = 1;
                alike++;
            }
        print_replica(c, job, p, r, alike);
        shown++;
    }
    int left = 0;
    for (int r = 0; done && r < p->replicas; r++)
        left += !done[r];
    if (left)
        printf("\n%d more replicas of other shapes; --json has them all\n", left);
    free(done);
}

static gt_status print_json(const plan_question *q, const cluster_devices *c, const cluster_choice *choice,
                            double uniform, const compare_table *ways)
{
    const cluster_layout *p = &choice->best;
    json_t *replicas = json_array();
    for (int r = 0; r < p->replicas; r++) {
        json_t *stages = json_array();
        for (int s = 0; s < p->replica[r].stages; s++) {
            const cluster_stage *t = &p->replica[r].stage[s];
            json_array_append_new(stages, json_pack("{s:s, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f}", "device",
                                                    c->device[t->first_device].name, "first_device", t->first_device,
                                                    "devices", t->devices, "first_unit", t->first_unit, "units",
                                                    t->units, "memory", t->memory, "limit", t->limit, "forward_s",
                                                    t->cost.forward, "backward_input_s", t->cost.backward_input,
                                                    "backward_weight_s", t->cost.backward_weight));
        }
        json_array_append_new(replicas, json_pack("{s:i, s:f, s:o}", "micro_batches", p->replica[r].micro_batches,
                                                  "seconds", p->replica[r].seconds, "stages", stages));
    }
    json_t *all = json_pack("{s:f, s:f, s:f, s:i, s:i, s:b, s:s, s:s, s:o, s:o, s:o*}", "step_s", p->step, "idle",
                            p->idle, "reduce_s", p->reduce, "tensor", p->tensor, "micro_batch", p->micro_batch,
                            "recompute", p->recompute, "schedule", p->schedule, "dealt", p->distribution, "uniform_s",
                            isfinite(uniform) ? json_real(uniform) : json_null(), "replicas", replicas, "compare",
                            ways ? plan_compare_json(q, ways) : NULL);
    char *text = all ? json_dumps(all, JSON_INDENT(1)) : NULL;
    json_decref(all);
    if (!text)
        return gt_fail(GT_NO_MEMORY, "no memory for the plan as JSON");
    puts(text);
    free(text);
    return GT_OK;
}

/* For `train --plan`. */
static gt_status write_plan(const plan_question *q, const cluster_devices *c, const cluster_job *job,
                            const cluster_layout *p)
{
    run_plan run;
    gt_status st = cluster_layout_plan(&run, c, job, p);
    if (!st) {
        run_plan_forms(&run, q->compress, q->compress_stages);
        run.compress_after = q->compress_after;
        st = run_plan_write(&run, q->out);
    }
    run_plan_release(&run);
    return st;
}

static gt_status draw(const char *path, const cluster_devices *c, const cluster_layout *p)
{
    gt_text svg = { 0 };
    gt_status st = cluster_layout_picture(&svg, c, p, 0);
    if (!st)
        st = gt_file_write(path, svg.data, svg.size);
    gt_text_release(&svg);
    return st;
}

/* ---- ways of staying together --------------------------------------------------------------- */

static compare_way way_asked(const plan_question *q)
{
    compare_way w = { .mode = sync_mode_find(q->sync), .settings = *q->settings, .asked = 1 };
    snprintf(w.compress, sizeof w.compress, "%s",
             sync_compress_is_auto(q->compress) ? compressor_name(compressor_at(0)) : q->compress);
    if (compress_parse(&w.form, w.compress))       /* said by verb_plan */
        gt_message_clear();
    w.form.after = q->compress_after;
    return w;
}

/* The job of a way. Of devices that are not here it is not known what encoding takes; hosts are taken to be as this. */
static gt_status take_way(cluster_job *job, sync_volume *volume, const compare_way *w, const profile_model *m,
                          int devices)
{
    sync_volume kinds[PROFILE_KINDS];
    job->mode = w->mode;
    job->settings = &w->settings;
    job->compress = &w->form;
    job->volume = volume;
    gt_status st = wire_volumes(kinds, m, &w->form);
    for (int u = 0; !st && u < m->units; u++)
        volume[u] = kinds[profile_kind_of(u, m->units)];
    return st ? st : sync_mode_host_seconds(w->mode, &w->settings, &m->optim, devices < 2 ? 1 : 2, &job->host);
}

static void take_row(compare_row *row, const cluster_job *job, const cluster_layout *p)
{
    row->fits = 1;
    row->replicas = p->replicas;
    row->step = p->step;
    row->waits = fmax(0.0, p->idle);
    row->sent = cluster_layout_sent(job, p);
    row->host_memory = cluster_layout_host(job, p);
    for (int r = 0; r < p->replicas; r++) {
        row->stages = p->replica[r].stages > row->stages ? p->replica[r].stages : row->stages;
        for (int s = 0; s < p->replica[r].stages; s++)
            row->memory = fmax(row->memory, p->replica[r].stage[s].memory);
    }
}

static gt_status compare(compare_table *t, const plan_question *q, const cluster_devices *c, const cluster_job *base,
                         sync_volume *volume, const profile_model *m)
{
    const compare_way own = way_asked(q);
    compare_way *list = calloc(COMPARE_MOST, sizeof *list);
    if (!list)
        return gt_fail(GT_NO_MEMORY, "no memory for a list of ways to stay together");
    const int count = compare_ways(list, &own, &q->optim, q->storage, q->model->layers);
    gt_status st = GT_OK;
    for (int i = 0; !st && i < count; i++) {
        compare_row *row = &t->row[t->count++];
        cluster_job job = *base;
        cluster_choice choice = { 0 };
        row->way = list[i];
        job.least_replicas = list[i].settles ? 2 : 0;
        st = take_way(&job, volume, &list[i], m, c->devices);
        if (!st)
            st = cluster_search(&choice, c, &job);
        if (!st)
            take_row(row, &job, &choice.best);
        if (st == GT_MISMATCH) {
            snprintf(row->why, sizeof row->why, "%s", gt_message());
            gt_message_clear();
            st = GT_OK;
        }
        cluster_choice_release(&choice);
    }
    compare_sort(t);
    free(list);
    return st;
}

/* ---- all together --------------------------------------------------------------------------- */

static gt_status plan(const plan_question *q, const cluster_devices *c)
{
    const int full = q->storage == DTYPE_F32;
    double least, most;
    optim_state_bytes(&q->optim, &least, &most);
    cluster_job job = {
        .batch = q->batch, .state_bytes = 8.0 + most + (full ? 0.0 : 2.0), .slot_bytes = most, .gradient_bytes = 4.0
    };
    const plan_model model = plan_model_of(q->model);
    const profile_model m = { model.build, model.config, model.units, q->seq, q->storage, model.batch, q->optim };
    const compare_way own = way_asked(q);
    stage_forms between;
    if (stage_forms_parse(&between, q->compress_stages)) /* said by verb_plan */
        gt_message_clear();
    else if (between.count == 1) /* what auto would choose is not known: as if it were none */
        job.sent = wire_kind_bytes(between.kind[0], q->storage) / (double)dtype_size(q->storage);
    cluster_unit *units = calloc((size_t)m.units, sizeof *units);
    sync_volume *volume = calloc((size_t)m.units, sizeof *volume);
    compare_table *ways = q->compare ? calloc(1, sizeof *ways) : NULL;
    cluster_choice choice = { 0 };
    double uniform = INFINITY;
    int tensor, stages;
    gt_status st = units && volume && (ways || !q->compare)
                       ? GT_OK
                       : gt_fail(GT_NO_MEMORY, "no memory for the costs of %d units", m.units);
    job.unit = units;
    job.units = m.units;
    if (!st)
        st = unit_costs(units, &job.most_tensor, &m);
    const uint64_t begin = gt_now_ns();
    if (!st && ways)
        st = compare(ways, q, c, &job, volume, &m);
    if (!st)
        st = take_way(&job, volume, &own, &m, c->devices);
    if (!st)
        st = cluster_search(&choice, c, &job);
    const double took = (double)(gt_now_ns() - begin) * 1e-9;
    if (!st)
        st = cluster_uniform(c, &job, &uniform, &tensor, &stages);
    if (!st && q->json)
        st = print_json(q, c, &choice, uniform, ways);
    else if (!st)
        print_plan(c, &job, &choice, uniform, tensor, stages, took);
    if (!st && !q->json && ways)
        plan_compare_print(q, ways, "; what encoding takes there is not known");
    if (!st && q->out)
        st = write_plan(q, c, &job, &choice.best);
    if (!st && q->timeline)
        st = draw(q->timeline, c, &choice.best);
    cluster_choice_release(&choice);
    free(ways);
    free(volume);
    free(units);
    return st;
}

gt_status plan_cluster(const plan_question *q, const char *path)
{
    cluster_devices c;
    gt_status st = cluster_read(&c, path);
    if (st)
        return st;
    st = plan(q, &c);
    cluster_release(&c);
    return st;
}
