/* SPDX-License-Identifier: MIT */
/* host/planner/local_cost.c - what a range of units costs on a rank or a tensor group, and plans judged.
 *
 *   group = ranks {2, 3}, shares 3/4 1/4     a layer: the slower of its shares' times
 *                                            + rows gathered and summed, as its graph says
 *
 * A tensor group's times are not measured but scaled from whole units: measuring each share would
 * multiply the time of profiling, and groups are the last resort on the machines that are
 * measured here.                                                                          */
#include "host/planner/local_private.h"

#include "host/pipeline/simulate.h"
#include "host/sync/sync.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { GRADIENT_BYTES = 4 };

static double link_of(const double *matrix, const local_job *job, int a, int b, double none)
{
    return matrix && a != b ? matrix[(size_t)a * (size_t)job->ranks + (size_t)b] : none;
}

/* ---- tables ------------------------------------------------------------------------------- */

static double largest(double a, double b)
{
    return a > b ? a : b;
}

/* Seconds to gather, or to sum, over the ranks of a group: read, exchanged, written. */
static double exchange(const group_table *t, int group, const profile_exchange *e, int n)
{
    const int *rank = &t->rank[group * t->tensor], p = t->tensor;
    double latency = 0, bandwidth = INFINITY, trip = 0;
    for (int i = 0; i < p; i++)
        trip = largest(trip, t->job->rank[rank[i]].profile.trip);
    for (int i = 0; i < p; i++)
        for (int k = 0; k < p; k++) {
            latency = largest(latency, link_of(t->job->latency, t->job, rank[i], rank[k], 0.0));
            bandwidth = fmin(bandwidth, link_of(t->job->bandwidth, t->job, rank[i], rank[k], INFINITY));
        }
    return e->count * (2 * trip + (p - 1) * latency) + e->bytes * n * (p - 1) / p / bandwidth;
}

static profile_cost group_cost(const group_table *t, int group, profile_kind kind, int n)
{
    profile_cost sum = { 0 };
    for (int k = 0; k < t->tensor; k++) {
        const profile *p = &t->job->rank[t->rank[group * t->tensor + k]].profile;
        const profile_cost c = profile_at(p, kind, n, t->recompute);
        sum.forward = largest(sum.forward, t->share[k] * c.forward);
        sum.backward_input = largest(sum.backward_input, t->share[k] * c.backward_input);
        sum.backward_weight = largest(sum.backward_weight, t->share[k] * c.backward_weight);
        sum.kept = largest(sum.kept, t->share[k] * c.kept);
        sum.passing = largest(sum.passing, t->tensor > 1 ? t->share[k] * c.passing + p->output * n : c.passing);
    }
    if (t->tensor > 1) {
        const profile *p = &t->job->rank[t->rank[group * t->tensor]].profile;
        const profile_exchange *e = p->exchanges[kind][t->recompute != 0];
        sum.forward += exchange(t, group, &e[GRAPH_FORWARD], n);
        sum.backward_input += exchange(t, group, &e[GRAPH_INPUT_GRAD], n);
        sum.backward_weight += exchange(t, group, &e[GRAPH_WEIGHT_GRAD], n);
    }
    return sum;
}

static void worst_link(group_table *t)
{
    const local_job *job = t->job;
    t->bandwidth = INFINITY;
    for (int i = 0; i < job->ranks; i++)
        for (int k = 0; k < job->ranks; k++) {
            t->latency = largest(t->latency, link_of(job->latency, job, i, k, 0.0));
            t->bandwidth = fmin(t->bandwidth, link_of(job->bandwidth, job, i, k, INFINITY));
        }
}

gt_status group_table_make(group_table *out, const local_job *job, int tensor, int recompute, int groups,
                           const int *rank, const double *share, const int *size, int sizes)
{
    const size_t n = (size_t)groups, ranks = n * (size_t)tensor;
    group_table t = { .job = job, .tensor = tensor, .recompute = recompute, .groups = groups, .sizes = sizes };
    *out = (group_table){ 0 };
    t.share = malloc((size_t)tensor * sizeof *t.share);
    t.rank = malloc(ranks * sizeof *t.rank);
    t.memory = malloc(n * sizeof *t.memory);
    t.unit = calloc(n * (size_t)sizes * PROFILE_KINDS, sizeof *t.unit);
    if (!t.share || !t.rank || !t.memory || !t.unit) {
        group_table_release(&t);
        return gt_fail(GT_NO_MEMORY, "cannot plan: no memory for the times of %zu ranks", ranks);
    }
    memcpy(t.share, share, (size_t)tensor * sizeof *share);
    memcpy(t.rank, rank, ranks * sizeof *rank);
    memcpy(t.size, size, (size_t)sizes * sizeof *size);
    worst_link(&t);
    for (int s = 0; s < groups; s++) {
        t.memory[s] = INFINITY;
        for (int k = 0; k < tensor; k++)
            t.memory[s] = fmin(t.memory[s], job->rank[t.rank[s * tensor + k]].memory);
        for (int i = 0; i < sizes; i++)
            for (int kind = 0; kind < PROFILE_KINDS; kind++)
                t.unit[(s * sizes + i) * PROFILE_KINDS + kind] = group_cost(&t, s, (profile_kind)kind, size[i]);
    }
    *out = t;
    return GT_OK;
}

void group_table_release(group_table *t)
{
    free(t->share);
    free(t->rank);
    free(t->memory);
    free(t->unit);
    *t = (group_table){ 0 };
}

const profile_cost *group_unit(const group_table *t, int group, int i, profile_kind kind)
{
    return &t->unit[(group * t->sizes + i) * PROFILE_KINDS + (int)kind];
}

/* ---- prices ------------------------------------------------------------------------------- */

/* Seconds of updating all that units [from, to) hold. */
static double update_of(const profile *p, int first, int layers, int last)
{
    const int count[PROFILE_KINDS] = { first, layers, last };
    double sum = first && last ? -p->tied * p->update[PROFILE_HEAD] : 0.0;
    for (int k = 0; k < PROFILE_KINDS; k++)
        sum += count[k] * p->parameters[k] * p->update[k];
    return sum;
}

static void add_units(part_price *sum, const profile_cost *c, int count, const profile *p, profile_kind kind)
{
    sum->cost.forward += count * c->forward;
    sum->cost.backward_input += count * c->backward_input;
    sum->cost.backward_weight += count * c->backward_weight;
    sum->cost.activation += count * c->kept;
    sum->parameters += count * p->parameters[kind];
    sum->frozen += count * p->frozen[kind];
    if (count)
        sum->passing = largest(sum->passing, c->passing);
}

int local_shares_equally(const local_job *job)
{
    return sync_mode_shares_equally(sync_mode_find(job->sync), job->settings);
}

/* A ring over `holders` ranks, on the worst link (NCCL's cost: 2 (p-1)/p of the bytes). */
/* Of what replicas exchange, in a step on average. */
static double travels(const group_table *t)
{
    return sync_mode_travels(sync_mode_find(t->job->sync), t->job->settings);
}

static double ring(const group_table *t, double bytes, int holders)
{
    return holders < 2 ? 0.0 : 2.0 * (holders - 1) * (bytes / holders / t->bandwidth + t->latency);
}

double group_ring(const group_table *t, double parameters, int replicas)
{
    double share = 0;
    for (int k = 0; k < t->tensor; k++)
        share = largest(share, t->share[k]);
    return travels(t) * ring(t, GRADIENT_BYTES * share * parameters, replicas);
}

part_price group_price(const group_table *t, int group, int i, int from, int to, int replicas, int split)
{
    const int units = t->job->units;
    const profile *p = &t->job->rank[t->rank[group * t->tensor]].profile;
    const int first = from == 0, last = to == units;
    part_price sum = { 0 };
    add_units(&sum, group_unit(t, group, i, PROFILE_EMBEDDING), first, p, PROFILE_EMBEDDING);
    add_units(&sum, group_unit(t, group, i, PROFILE_LAYER), to - from - first - last, p, PROFILE_LAYER);
    add_units(&sum, group_unit(t, group, i, PROFILE_HEAD), last, p, PROFILE_HEAD);
    const double tied = first && last ? p->tied : 0.0;
    sum.parameters -= tied;
    sum.frozen -= first && last ? p->tied_frozen : 0.0;
    double share = 0, update = 0;
    for (int k = 0; k < t->tensor; k++) {
        share = largest(share, t->share[k]);
        update = largest(update, t->share[k]
                                     * update_of(&t->job->rank[t->rank[group * t->tensor + k]].profile, first,
                                                 to - from - first - last, last));
    }
    const double part = sync_mode_state_share(sync_mode_find(t->job->sync), t->job->settings, replicas);
    sum.cost.reduce = travels(t) * ring(t, GRADIENT_BYTES * share * sum.parameters, replicas);
    if (split && (first || last))
        sum.cost.reduce += ring(t, GRADIENT_BYTES * share * p->tied, 2);
    sum.cost.update = update * part;
    return sum;
}

double group_send(const group_table *t, int from, int to, int i)
{
    double seconds = 0;
    for (int k = 0; k < t->tensor; k++) {
        const int a = t->rank[from * t->tensor + k], b = t->rank[to * t->tensor + k];
        const double bytes = t->share[k] * t->job->rank[a].profile.output * t->size[i];
        const double ends = t->job->rank[a].profile.trip + t->job->rank[b].profile.trip;
        seconds = largest(seconds, ends + link_of(t->job->latency, t->job, a, b, 0.0)
                                       + bytes / link_of(t->job->bandwidth, t->job, a, b, INFINITY));
    }
    return seconds;
}

static double rank_bytes(const group_table *t, const part_price *all, int kept, int replicas, double share)
{
    const double part = sync_mode_state_share(sync_mode_find(t->job->sync), t->job->settings, replicas);
    const double state = t->job->state_bytes + (part - 1.0) * t->job->slot_bytes;
    return (all->parameters * state + all->frozen) * share + all->cost.activation * kept + all->passing;
}

double group_bytes(const group_table *t, const part_price *all, int kept, int replicas)
{
    double share = 0;
    for (int k = 0; k < t->tensor; k++)
        share = largest(share, t->share[k]);
    return rank_bytes(t, all, kept, replicas, share);
}

/* ---- whole plans -------------------------------------------------------------------------- */

/* A table with the plan's own groups, in its order, and its sizes. */
static gt_status table_of(group_table *out, const run_plan *p, const local_job *job)
{
    int sizes = 0, size[MOST_SIZES], groups = 0;
    int *rank = malloc((size_t)p->ranks * sizeof *rank);
    if (!rank)
        return gt_fail(GT_NO_MEMORY, "cannot plan: no memory for a list of %d ranks", p->ranks);
    for (int i = 0; i < p->replicas; i++) {
        const run_replica *r = &p->replica[i];
        int at = 0;
        while (at < sizes && size[at] != r->micro_batch)
            at++;
        if (at == sizes && sizes < MOST_SIZES)
            size[sizes++] = r->micro_batch;
        memcpy(rank + groups * p->tensor, r->rank, (size_t)r->stages * (size_t)p->tensor * sizeof *rank);
        groups += r->stages;
    }
    gt_status st = group_table_make(out, job, p->tensor, p->recompute, groups, rank, p->share, size, sizes);
    free(rank);
    return st;
}

static int size_index(const group_table *t, int size)
{
    int i = 0;
    while (i + 1 < t->sizes && t->size[i] != size)
        i++;
    return i;
}

/* All chunks of a stage as one. */
static part_price price_stage(const group_table *t, const run_plan *p, int i, int stage, int group, int at)
{
    const run_replica *r = &p->replica[i];
    const int parts = r->stages * p->chunks;
    part_price all = { 0 };
    for (int v = stage; v < parts; v += r->stages) {
        const part_price part = group_price(t, group, at, r->cut[v], r->cut[v + 1], p->replicas, r->stages > 1);
        const int next = group - stage + (v + 1) % r->stages;
        r->cost[v] = part.cost;
        r->cost[v].send = v + 1 < parts ? group_send(t, group, next, at) : 0.0;
        all.parameters += part.parameters;
        all.frozen += part.frozen;
        all.passing = largest(all.passing, part.passing);
        all.cost.activation = largest(all.cost.activation, part.cost.activation);
    }
    return all;
}

/* Costs of replica i, whose first group is `group`; its schedule gives memory, step and work. */
static gt_status judge_replica(run_plan *p, const group_table *t, int i, int group, double *step, double *busy)
{
    const run_replica *r = &p->replica[i];
    const int at = size_index(t, r->micro_batch);
    pipe_schedule s = { 0 };
    pipe_simulation sim = { 0 };
    part_price *all = malloc((size_t)r->stages * sizeof *all);
    int *kept = malloc((size_t)r->stages * sizeof *kept);
    gt_status st = all && kept ? GT_OK
                               : gt_fail(GT_NO_MEMORY, "cannot plan: no memory for the costs of %d stages", r->stages);
    for (int k = 0; !st && k < r->stages; k++)
        all[k] = price_stage(t, p, i, k, group + k, at);
    if (!st)
        st = run_plan_schedule(p, i, &s);
    if (!st)
        st = pipe_schedule_check(&s, kept);
    if (!st)
        st = pipe_simulate(&sim, &s, r->cost, 0);
    for (int k = 0; !st && k < r->stages * p->tensor; k++) {
        const int stage = k / p->tensor;
        p->memory[r->rank[k]] = rank_bytes(t, &all[stage], kept[stage], p->replicas, p->share[k % p->tensor]);
        p->limit[r->rank[k]] = t->job->rank[r->rank[k]].memory;
    }
    for (int k = 0; !st && k < r->stages; k++)
        *busy += sim.busy[k] * p->tensor;
    *step = largest(*step, sim.step);
    pipe_simulation_release(&sim);
    pipe_schedule_release(&s);
    free(kept);
    free(all);
    return st;
}

gt_status local_judge(run_plan *p, const local_job *job)
{
    group_table t;
    double step = 0, busy = 0;
    int group = 0;
    gt_status st = table_of(&t, p, job);
    if (st)
        return st;
    for (int i = 0; !st && i < p->replicas; i++) {
        st = judge_replica(p, &t, i, group, &step, &busy);
        group += p->replica[i].stages;
    }
    group_table_release(&t);
    for (int r = 0; r < p->ranks; r++)
        memcpy(p->device[r], job->rank[r].device, sizeof p->device[r]);
    p->step = step;
    p->idle = step > 0 ? fmax(0.0, 1.0 - busy / (step * p->ranks)) : 0.0;
    return st;
}
