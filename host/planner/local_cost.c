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
    t.mode = sync_mode_find(job->sync);
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

/* What of a unit's parameters travels, and how. */
static sync_volume unit_volume(const local_job *job, const profile *p, profile_kind kind)
{
    return job->volume ? job->volume[kind] : (sync_volume){ .plain = p->parameters[kind] };
}

/* Takes out so many values of a unit: of what is encoded, if that has as many. */
static void take_out(sync_volume *sum, const sync_volume *unit, double values)
{
    sync_volume encoded = *unit;
    encoded.plain = 0.0;
    if (unit->values >= values && values > 0)
        sync_volume_sum(sum, &encoded, -values / unit->values);
    else
        sum->plain -= values;
}

/* A ring over two ranks, on the worst link: of what the model's ends share. */
static double ring(const group_table *t, double bytes)
{
    return 2.0 * (bytes / 2 / t->bandwidth + t->latency);
}

/* Messages by which all ranks learn loss and norm, one after the other: each round twice as many know. */
static double agreeing(int ranks)
{
    return ranks > 1 ? ceil(log2(ranks)) : 0.0;
}

/* Seconds of a step, on average, that ranks wait to stay together, if they compute for `step` seconds in it. */
static double together(const group_table *t, int group, const sync_volume *v, int replicas, double step)
{
    const sync_load load = sync_mode_load(t->mode, t->job->settings, t->job->compress, v, replicas);
    const sync_pace pace = sync_mode_pace(t->mode, t->job->settings, t->job->compress);
    double host = 0;
    for (int k = 0; replicas > 1 && k < t->tensor; k++)
        host = largest(host, t->job->rank[t->rank[group * t->tensor + k]].host);
    const double trips = sync_load_trips(&load, t->latency) + agreeing(t->job->ranks) * t->latency;
    return sync_pace_waits(&pace, load.busiest / t->bandwidth, replicas > 1 ? trips : 0.0, step)
           + host * (v->plain + v->values) / pace.every;
}

static double widest_share(const group_table *t)
{
    double share = 0;
    for (int k = 0; k < t->tensor; k++)
        share = largest(share, t->share[k]);
    return share;
}

double group_ring(const group_table *t, double parameters, int replicas)
{
    const profile *p = &t->job->rank[t->rank[0]].profile;
    const sync_volume layer = unit_volume(t->job, p, PROFILE_LAYER);
    const double all = layer.plain + layer.values;
    sync_volume v = { .plain = parameters };
    if (all > 0) {
        v = (sync_volume){ 0 };
        sync_volume_sum(&v, &layer, widest_share(t) * parameters / all);
    }
    return together(t, 0, &v, replicas, 0.0);
}

/* Seconds of a device in a step: its gradients encoded, and what comes decoded. */
static double coding(const group_table *t, int group, const sync_volume *v, int replicas)
{
    double most = 0;
    const sync_load load = sync_mode_load(t->mode, t->job->settings, t->job->compress, v, replicas);
    for (int k = 0; replicas > 1 && k < t->tensor; k++) {
        const local_rank *r = &t->job->rank[t->rank[group * t->tensor + k]];
        most = largest(most, r->encode + load.decodes * r->decode);
    }
    return most * v->values;
}

part_price group_price(const group_table *t, int group, int i, int from, int to, int replicas, int split)
{
    const int units = t->job->units;
    const profile *p = &t->job->rank[t->rank[group * t->tensor]].profile;
    const int first = from == 0, last = to == units, layers = to - from - first - last;
    const int count[PROFILE_KINDS] = { first, layers, last };
    part_price sum = { 0 };
    for (int k = 0; k < PROFILE_KINDS; k++) {
        const sync_volume unit = unit_volume(t->job, p, (profile_kind)k);
        add_units(&sum, group_unit(t, group, i, (profile_kind)k), count[k], p, (profile_kind)k);
        sync_volume_sum(&sum.volume, &unit, count[k]);
    }
    if (first && last) {
        const sync_volume head = unit_volume(t->job, p, PROFILE_HEAD);
        sum.parameters -= p->tied;
        sum.frozen -= p->tied_frozen;
        take_out(&sum.volume, &head, p->tied);
    }
    const double share = widest_share(t);
    sync_volume mine = { 0 };
    sync_volume_sum(&mine, &sum.volume, share);
    double update = 0;
    for (int k = 0; k < t->tensor; k++)
        update = largest(update,
                         t->share[k]
                             * update_of(&t->job->rank[t->rank[group * t->tensor + k]].profile, first, layers, last));
    sum.cost.reduce = together(t, group, &mine, replicas, 0.0);
    if (split && (first || last))
        sum.cost.reduce += ring(t, GRADIENT_BYTES * share * p->tied);
    sum.cost.update = update * sync_mode_state_share(t->mode, t->job->settings, replicas)
                      + coding(t, group, &mine, replicas);
    return sum;
}

/* Over one link, in the form that is fastest there. Encoding and decoding count as the link's, though devices do them. */
static double seconds_of(const local_job *job, int a, int b, double bytes)
{
    const double bandwidth = link_of(job->bandwidth, job, a, b, INFINITY);
    double best = job->forms ? INFINITY : bytes / bandwidth;
    for (int k = 0; k < job->forms; k++) {
        const wire_rate *x = &job->rank[a].between[k], *y = &job->rank[b].between[k];
        best = fmin(best, bytes / job->value_bytes * (x->bytes / bandwidth + x->encode + y->decode));
    }
    return best;
}

double group_send(const group_table *t, int from, int to, int i)
{
    double seconds = 0;
    for (int k = 0; k < t->tensor; k++) {
        const int a = t->rank[from * t->tensor + k], b = t->rank[to * t->tensor + k];
        const double bytes = t->share[k] * t->job->rank[a].profile.output * t->size[i];
        const double ends = t->job->rank[a].profile.trip + t->job->rank[b].profile.trip;
        seconds = largest(seconds,
                          ends + link_of(t->job->latency, t->job, a, b, 0.0) + seconds_of(t->job, a, b, bytes));
    }
    return seconds;
}

static double rank_bytes(const group_table *t, const part_price *all, int kept, int replicas, double share)
{
    const double part = sync_mode_state_share(t->mode, t->job->settings, replicas);
    const double state = t->job->state_bytes + (part - 1.0) * t->job->slot_bytes;
    const double coding = sync_mode_coding_bytes(t->mode, t->job->compress, &all->volume, replicas);
    return (all->parameters * state + all->frozen + coding) * share + all->cost.activation * kept + all->passing;
}

/* Of host memory. */
static double host_bytes(const group_table *t, int rank, const part_price *all, int replicas, double share)
{
    return share * all->parameters
           * sync_mode_host_bytes(t->mode, t->job->settings, t->job->slot_bytes, replicas, !t->job->rank[rank].on_host);
}

double group_bytes(const group_table *t, int group, const part_price *all, int kept, int replicas)
{
    const double share = widest_share(t);
    double host = 0;
    for (int k = 0; k < t->tensor; k++) {
        const int rank = t->rank[group * t->tensor + k];
        if (t->job->rank[rank].on_host)
            host = largest(host, host_bytes(t, rank, all, replicas, share));
    }
    return rank_bytes(t, all, kept, replicas, share) + host;
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
        sync_volume_sum(&all.volume, &part.volume, 1.0);
        all.frozen += part.frozen;
        all.passing = largest(all.passing, part.passing);
        all.cost.activation = largest(all.cost.activation, part.cost.activation);
    }
    return all;
}

/* What travels beside steps is waited for only as far as steps are shorter: known when the step is. */
static gt_status hide_exchanges(run_plan *p, const group_table *t, int i, int group, const pipe_schedule *s)
{
    run_replica *r = &p->replica[i];
    const int parts = r->stages * p->chunks, at = size_index(t, r->micro_batch);
    const double share = widest_share(t);
    pipe_simulation alone = { 0 };
    if (sync_mode_pace(t->mode, t->job->settings, t->job->compress).beside <= 0.0 || p->replicas < 2)
        return GT_OK;
    for (int v = 0; v < parts; v++)
        r->cost[v].reduce = 0.0;
    gt_status st = pipe_simulate(&alone, s, r->cost, 0);
    for (int v = 0; !st && v < parts; v++) {
        const int stage = v % r->stages;
        const part_price part = group_price(t, group + stage, at, r->cut[v], r->cut[v + 1], p->replicas, r->stages > 1);
        sync_volume mine = { 0 };
        sync_volume_sum(&mine, &part.volume, share);
        r->cost[v].reduce = part.cost.reduce - together(t, group + stage, &mine, p->replicas, 0.0)
                            + together(t, group + stage, &mine, p->replicas, alone.step);
    }
    pipe_simulation_release(&alone);
    return st;
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
        st = hide_exchanges(p, t, i, group, &s);
    if (!st)
        st = pipe_simulate(&sim, &s, r->cost, 0);
    for (int k = 0; !st && k < r->stages * p->tensor; k++) {
        const int stage = k / p->tensor;
        const int rank = r->rank[k];
        p->memory[rank] = rank_bytes(t, &all[stage], kept[stage], p->replicas, p->share[k % p->tensor]);
        p->host_memory[rank] = host_bytes(t, rank, &all[stage], p->replicas, p->share[k % p->tensor]);
        p->limit[rank] = t->job->rank[rank].memory - (t->job->rank[rank].on_host ? p->host_memory[rank] : 0.0);
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

double local_sent(const run_plan *p, const local_job *job)
{
    const sync_mode *mode = sync_mode_find(job->sync);
    const sync_pace pace = sync_mode_pace(mode, job->settings, job->compress);
    const profile *x = &job->rank[p->replica[0].rank[0]].profile;
    sync_volume all = { 0 };
    for (int k = 0; k < PROFILE_KINDS; k++) {
        const sync_volume unit = unit_volume(job, x, (profile_kind)k);
        sync_volume_sum(&all, &unit, k == PROFILE_LAYER ? p->units - 2 : 1);
    }
    const sync_volume head = unit_volume(job, x, PROFILE_HEAD);
    take_out(&all, &head, x->tied);
    return sync_mode_load(mode, job->settings, job->compress, &all, p->replicas).sends / pace.every;
}
