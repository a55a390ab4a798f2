/* SPDX-License-Identifier: MIT */
/* host/planner/cluster_search.c - the search over plans, and its yardstick.
 *
 * Every candidate (tensor width, stages, micro-batch, recomputation, distribution) is cut and
 * reckoned in closed form; the FINALISTS best are simulated with every schedule whose memory
 * fits, and the simulation decides. A simulated replica that equals one before it is not
 * simulated again, which is what makes thousands of devices a matter of seconds.          */
#include "host/planner/cluster_private.h"
#include "host/pipeline/simulate.h"
#include "host/pipeline/timeline.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FINALISTS = 12, SEEN = 16, LIST_WORK = 400000 };

static const int widths[] = { 1, 2, 4, 8, 16 };
static const int batches[] = { 1, 2, 4, 8, 16 };
static const int depths[] = { 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128 };
#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

/* ---- gradient sums --------------------------------------------------------------------- */

/* Seconds in which each node's wire carries its share of what replicas exchange, as far as ranks wait for it. */
static gt_status reduce_times(cluster_layout *p, const cluster_devices *c, const cluster_job *job, const sums *s)
{
    const sync_mode *mode = cluster_mode(job);
    const sync_pace pace = sync_mode_pace(mode, job->settings, job->compress);
    double *load = calloc((size_t)c->nodes, sizeof *load);
    if (!load)
        return gt_fail(GT_NO_MEMORY, "no memory to plan for %d nodes", c->nodes);
    for (int pass = 0; pass < 2; pass++)
        for (int r = 0; r < p->replicas; r++)
            for (int i = 0; i < p->replica[r].stages; i++) {
                cluster_stage *stage = &p->replica[r].stage[i];
                const int node = c->device[stage->first_device].node;
                const sync_volume v = range_volume(s, stage->first_unit, stage->first_unit + stage->units);
                const sync_load one = sync_mode_load(mode, job->settings, job->compress, &v, p->replicas);
                if (pass == 0)
                    load[node] += one.busiest;
                else if (p->replicas > 1)
                    stage->cost.reduce = sync_pace_waits(&pace, load[node] / c->uplink[node],
                                                         sync_load_trips(&one, c->latency), p->step)
                                         + job->host * (v.plain + v.values) / p->tensor / pace.every;
                if (stage->cost.reduce > p->reduce)
                    p->reduce = stage->cost.reduce;
            }
    free(load);
    return GT_OK;
}

static sync_volume whole_volume(const cluster_job *job)
{
    sync_volume all = { 0 };
    for (int u = 0; u < job->units; u++) {
        const sync_volume v = job->volume ? job->volume[u] : (sync_volume){ .plain = job->unit[u].parameters };
        sync_volume_sum(&all, &v, 1.0);
    }
    return all;
}

double cluster_layout_sent(const cluster_job *job, const cluster_layout *p)
{
    const sync_volume all = whole_volume(job);
    return sync_mode_load(cluster_mode(job), job->settings, job->compress, &all, p->replicas).sends
           / sync_mode_pace(cluster_mode(job), job->settings, job->compress).every;
}

double cluster_layout_host(const cluster_job *job, const cluster_layout *p)
{
    double most = 0;
    for (int r = 0; r < p->replicas; r++)
        for (int i = 0; i < p->replica[r].stages; i++) {
            const cluster_stage *stage = &p->replica[r].stage[i];
            double sum = 0;
            for (int u = stage->first_unit; u < stage->first_unit + stage->units; u++)
                sum += job->unit[u].parameters;
            most = fmax(most, sum / p->tensor);
        }
    return most * sync_mode_host_bytes(cluster_mode(job), job->settings, job->slot_bytes, p->replicas, 1);
}

/* ---- candidates ------------------------------------------------------------------------ */

typedef struct finalist {
    candidate how;
    double estimate;
} finalist;

typedef struct search {
    const cluster_devices *c;
    const cluster_job *job;
    sums sums;
    tensor_group *groups;           /* of the width being tried */
    int group_count, unused;
    finalist best[FINALISTS];
    int finalists;
    cluster_choice *out;
} search;

static gt_status build(search *q, const candidate *how, cluster_layout *p, int *fits)
{
    gt_status st = replicas_make(p, q->c, q->job, &q->sums, how, q->groups, q->group_count, fits, q->out->misfit,
                                 sizeof q->out->misfit);
    if (!st && *fits)
        *fits = micro_batches_distribute(p, q->job->batch / how->micro_batch);
    if (!st && *fits)
        st = reduce_times(p, q->c, q->job, &q->sums);
    p->unused = q->unused;
    return st;
}

static void keep_best(search *q, const candidate *how, double estimate)
{
    int at = q->finalists < FINALISTS ? q->finalists++ : FINALISTS;
    for (; at > 0 && q->best[at - 1].estimate > estimate; at--)
        if (at < FINALISTS)
            q->best[at] = q->best[at - 1];
    if (at < FINALISTS)
        q->best[at] = (finalist){ *how, estimate };
}

static int can_split(const cluster_job *job, int width)
{
    return !job->most_tensor || width <= job->most_tensor;
}

static gt_status try_width(search *q, int width)
{
    gt_status st = groups_make(&q->groups, &q->group_count, &q->unused, q->c, width);
    for (int d = 0;
         !st && q->group_count && d < COUNT(depths) && depths[d] <= q->group_count && depths[d] <= q->job->units; d++)
        for (int b = 0; !st && b < COUNT(batches); b++)
            for (int recompute = 0; !st && recompute < 2; recompute++)
                for (int distribution = 0; !st && distribution < DISTRIBUTIONS; distribution++) {
                    const int replicas = q->group_count / depths[d];
                    const candidate how = { width, depths[d], batches[b], recompute, distribution, replicas };
                    if (replicas < q->job->least_replicas)
                        continue;
                    cluster_layout p;
                    int fits;
                    st = build(q, &how, &p, &fits);
                    q->out->tried++;
                    if (!st && fits) {
                        q->out->fitting++;
                        keep_best(q, &how, p.step + p.reduce);
                    }
                    cluster_layout_release(&p);
                }
    free(q->groups);
    q->groups = NULL;
    return st;
}

/* ---- simulation of the best ------------------------------------------------------------ */

typedef struct seen {
    int stages, micro_batches;
    double sum, step, busy;
} seen;

static double cost_sum(const cluster_replica *r)
{
    double h = 0.0;
    for (int s = 0; s < r->stages; s++) {
        const pipe_cost *c = &r->stage[s].cost;
        h = h * 1.3 + c->forward * 3 + c->backward_input * 5 + c->backward_weight * 7 + c->send * 11 + c->reduce * 13;
    }
    return h;
}

/* What a rank may keep, in bytes, beyond its state. */
static void room(const search *q, const candidate *how, const cluster_replica *r, double *memory)
{
    for (int s = 0; s < r->stages; s++) {
        const cluster_stage *t = &r->stage[s];
        memory[s] = t->limit - range_memory(q->job, &q->sums, how, t->first_unit, t->first_unit + t->units, 0);
    }
}

/* *fits 0: the schedule keeps more than there is memory for. */
static gt_status simulate_replica(const search *q, const candidate *how, const cluster_replica *r, const char *name,
                                  int *fits, seen *out)
{
    pipe_schedule s;
    pipe_simulation sim = { 0 };
    pipe_cost *costs = malloc((size_t)r->stages * sizeof *costs);
    double *memory = malloc((size_t)r->stages * sizeof *memory);
    int *kept = malloc((size_t)r->stages * sizeof *kept);
    gt_status st = costs && memory && kept
                       ? GT_OK
                       : gt_fail(GT_NO_MEMORY, "no memory to plan a replica of %d stages", r->stages);
    *fits = 1;
    for (int i = 0; !st && i < r->stages; i++)
        costs[i] = r->stage[i].cost;
    if (!st) {
        room(q, how, r, memory);
        st = pipe_schedule_make(&s, name, r->stages, 1, r->micro_batches, costs, memory);
        if (st == GT_MISUSE) {
            *fits = 0;
            st = GT_OK;
        } else if (!st) {
            st = pipe_schedule_check(&s, kept);
            for (int i = 0; !st && i < r->stages; i++)
                *fits &= kept[i] * costs[i].activation <= memory[i] * (1 + 1e-9);
            if (!st && *fits)
                st = pipe_simulate(&sim, &s, costs, 0);
            pipe_schedule_release(&s);
        }
    }
    *out = (seen){ r->stages, r->micro_batches, cost_sum(r), sim.step, 0.0 };
    for (int i = 0; !st && *fits && i < r->stages; i++)
        out->busy += sim.busy[i] * r->stage[i].devices;
    pipe_simulation_release(&sim);
    free(costs);
    free(memory);
    free(kept);
    return st;
}

static int is_seen(const seen *all, int count, const cluster_replica *r, int *at)
{
    const double sum = cost_sum(r);
    for (*at = 0; *at < count; ++*at)
        if (all[*at].stages == r->stages && all[*at].micro_batches == r->micro_batches && all[*at].sum == sum)
            return 1;
    return 0;
}

static gt_status simulate_plan(const search *q, const candidate *how, cluster_layout *p, const char *name, int *fits)
{
    seen all[SEEN];
    int count = 0, at;
    double busy = 0.0, devices = 0.0;
    gt_status st = GT_OK;
    *fits = 1;
    p->step = 0.0;
    for (int r = 0; !st && *fits && r < p->replicas; r++) {
        cluster_replica *replica = &p->replica[r];
        seen one;
        if (is_seen(all, count, replica, &at)) {
            one = all[at];
        } else {
            st = simulate_replica(q, how, replica, name, fits, &one);
            if (count < SEEN)
                all[count++] = one;
        }
        replica->seconds = one.step;
        p->step = fmax(p->step, one.step);
        busy += one.busy;
        for (int s = 0; s < replica->stages; s++)
            devices += replica->stage[s].devices;
    }
    p->idle = p->step > 0 ? 1.0 - busy / (p->step * devices) : 0.0;
    snprintf(p->schedule, sizeof p->schedule, "%s", name);
    return st;
}

static int same(const cluster_layout *a, const cluster_layout *b)
{
    return a->tensor == b->tensor && a->replicas == b->replicas && a->micro_batch == b->micro_batch
           && a->recompute == b->recompute && a->replica[0].stages == b->replica[0].stages
           && fabs(a->step - b->step) <= 1e-9 * b->step;
}

/* Puts a plan among the three best, unless it is there; releases what drops out. */
static void place(cluster_choice *c, cluster_layout *p, int *count)
{
    cluster_layout *slots[1 + CLUSTER_RUNNERS_UP] = { &c->best };
    for (int i = 0; i < CLUSTER_RUNNERS_UP; i++)
        slots[i + 1] = &c->runner_up[i];
    for (int i = 0; i < *count; i++)
        if (same(slots[i], p)) {
            cluster_layout_release(p);
            return;
        }
    for (int i = 0; i <= CLUSTER_RUNNERS_UP; i++) {
        if (i < *count && slots[i]->step <= p->step)
            continue;
        const cluster_layout moved = *slots[i];
        *slots[i] = *p;
        *p = moved;
        if (i == *count) {
            ++*count;
            return;
        }
    }
    cluster_layout_release(p);
}

static gt_status simulate_finalist(search *q, const candidate *how, int *count)
{
    static const char *const names[] = { "1f1b", "zb-h1", "list" };
    cluster_layout best = { 0 };
    int have = 0, fits;
    gt_status st = groups_make(&q->groups, &q->group_count, &q->unused, q->c, how->tensor);
    for (int n = 0; !st && n < COUNT(names); n++) {
        cluster_layout p;
        st = build(q, how, &p, &fits);
        const double work = st || !fits
                                ? 0.0
                                : (double)p.replica[0].stages * p.replica[0].stages * p.replica[0].micro_batches;
        if (!st && fits && (strcmp(names[n], "list") || work < LIST_WORK))
            st = simulate_plan(q, how, &p, names[n], &fits);
        else
            fits = 0;
        if (!st && fits && (!have || p.step < best.step)) {
            const cluster_layout worse = best;
            best = p;
            p = worse;
            have = 1;
        }
        cluster_layout_release(&p);
    }
    free(q->groups);
    q->groups = NULL;
    if (!st && have)
        place(q->out, &best, count);
    else
        cluster_layout_release(&best);
    return st;
}

gt_status cluster_search(cluster_choice *out, const cluster_devices *c, const cluster_job *job)
{
    *out = (cluster_choice){ 0 };
    search q = { .c = c, .job = job, .out = out };
    int count = 0;
    gt_status st = sums_make(&q.sums, job);
    for (int w = 0; !st && w < COUNT(widths) && can_split(job, widths[w]); w++)
        st = try_width(&q, widths[w]);
    for (int i = 0; !st && i < q.finalists; i++)
        st = simulate_finalist(&q, &q.best[i].how, &count);
    out->runners_up = count > 1 ? count - 1 : 0;
    if (!st && !count)
        st = gt_fail(GT_MISMATCH, "no plan fits: %s",
                     *out->misfit ? out->misfit : "there are fewer micro-batches than replicas; raise --batch");
    sums_release(&q.sums);
    if (st)
        cluster_choice_release(out);
    return st;
}

void cluster_choice_release(cluster_choice *c)
{
    cluster_layout_release(&c->best);
    for (int i = 0; i < CLUSTER_RUNNERS_UP; i++)
        cluster_layout_release(&c->runner_up[i]);
}

/* ---- a picture ------------------------------------------------------------------------- */

/* What a picture needs of each stage. */
typedef struct drawn {
    pipe_cost *costs;
    double *memory;
    const char **name, **place;
    char (*text)[2][64];
} drawn;

static gt_status draw(gt_text *out, const cluster_devices *c, const cluster_layout *p, int replica, const drawn *d)
{
    const cluster_replica *r = &p->replica[replica];
    pipe_schedule s;
    pipe_simulation sim;
    char title[96], note[160];
    for (int i = 0; i < r->stages; i++) {
        const cluster_stage *stage = &r->stage[i];
        const cluster_device *device = &c->device[stage->first_device];
        d->costs[i] = stage->cost;
        d->name[i] = d->text[i][0];
        d->place[i] = d->text[i][1];
        snprintf(d->text[i][0], sizeof d->text[i][0], "stage %d", i);
        snprintf(d->text[i][1], sizeof d->text[i][1], "%d x %s of node %d", stage->devices, device->name, device->node);
        /* stage->memory counts what 1F1B keeps; the rest of the limit may be kept as well. */
        d->memory[i] = stage->limit - stage->memory
                       + stage->cost.activation * (r->stages - i < r->micro_batches ? r->stages - i : r->micro_batches);
    }
    gt_status st = pipe_schedule_make(&s, p->schedule, r->stages, 1, r->micro_batches, d->costs, d->memory);
    if (st)
        return st;
    st = pipe_simulate(&sim, &s, d->costs, 1);
    if (!st) {
        snprintf(title, sizeof title, "One step of replica %d, simulated", replica);
        snprintf(note, sizeof note, "%d stages, %d micro-batches of %d, schedule %s; %.4g s, %.1f %% idle", r->stages,
                 r->micro_batches, p->micro_batch, p->schedule, sim.step, 100.0 * sim.idle);
        st = pipe_timeline_svg(out, &(pipe_picture){ title, note, &s, sim.event, d->name, d->place });
        pipe_simulation_release(&sim);
    }
    pipe_schedule_release(&s);
    return st;
}

gt_status cluster_layout_picture(gt_text *out, const cluster_devices *c, const cluster_layout *p, int replica)
{
    const size_t stages = (size_t)p->replica[replica].stages;
    drawn d = { .costs = malloc(stages * sizeof *d.costs),
                .memory = malloc(stages * sizeof *d.memory),
                .name = malloc(stages * sizeof *d.name),
                .place = malloc(stages * sizeof *d.place),
                .text = malloc(stages * sizeof *d.text) };
    gt_status st = d.costs && d.memory && d.name && d.place && d.text
                       ? draw(out, c, p, replica, &d)
                       : gt_fail(GT_NO_MEMORY, "no memory to draw a replica of %d stages", p->replica[replica].stages);
    free(d.costs);
    free(d.memory);
    free(d.name);
    free(d.place);
    free(d.text);
    return st;
}

/* ---- the yardstick --------------------------------------------------------------------- */

/* Layers in equal numbers, ends taking the rest; every replica the same number of micro-batches;
 * groups in the order of the machines. Infeasible: INFINITY. */
static double uniform_step(const cluster_devices *c, const cluster_job *job, const sums *s, const candidate *how,
                           const tensor_group *groups, int count)
{
    const int replicas = count / how->stages, layers = job->units - 2;
    const int micro_batches = job->batch / how->micro_batch / (replicas ? replicas : 1);
    double slowest = 0.0, load = 0.0;
    if (!replicas || layers % how->stages || !micro_batches || job->batch % (how->micro_batch * replicas))
        return INFINITY;
    for (int r = 0; r < replicas; r++) {
        double once = 0.0, each = 0.0;
        for (int i = 0; i < how->stages; i++) {
            const tensor_group *g = &groups[r * how->stages + i];
            const int per = layers / how->stages, kept = how->stages - i;
            const int from = i ? 1 + i * per : 0, to = i + 1 < how->stages ? 1 + (i + 1) * per : job->units;
            const pipe_cost k = range_cost(c, s, how, g, from, to);
            if (range_memory(job, s, how, from, to, kept < micro_batches ? kept : micro_batches) > g->memory)
                return INFINITY;
            once += k.forward + k.backward_input
                    + 2.0 * (c->latency + cluster_output(job, to) * how->micro_batch / group_wire(c, g));
            each = fmax(each, k.forward + k.backward_input + k.backward_weight);
            load = fmax(load, (s->parameters[to] - s->parameters[from]) * job->gradient_bytes * 2.0 * (replicas - 1)
                                  / replicas / group_wire(c, g));
        }
        slowest = fmax(slowest, once + (micro_batches - 1) * each);
    }
    return slowest + load;
}

gt_status cluster_uniform(const cluster_devices *c, const cluster_job *job, double *seconds, int *tensor, int *stages)
{
    sums s;
    gt_status st = sums_make(&s, job);
    *seconds = INFINITY;
    *tensor = *stages = 0;
    for (int w = 0; !st && w < COUNT(widths) && can_split(job, widths[w]); w++) {
        tensor_group *groups = NULL;
        int count, unused;
        st = groups_make(&groups, &count, &unused, c, widths[w]);
        for (int d = 0; !st && d < COUNT(depths); d++)
            for (int b = 0; b < COUNT(batches); b++)
                for (int recompute = 0; recompute < 2; recompute++) {
                    const candidate how = { widths[w], depths[d], batches[b], recompute, 0, 0 };
                    const double t = uniform_step(c, job, &s, &how, groups, count);
                    if (t < *seconds) {
                        *seconds = t;
                        *tensor = widths[w];
                        *stages = depths[d];
                    }
                }
        free(groups);
    }
    sums_release(&s);
    return st;
}
