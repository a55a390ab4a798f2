/* SPDX-License-Identifier: MIT */
/* host/planner/cluster_cut.c - from a cluster to replicas, and from a model to stages.
 *
 *   groups in an order ──► slices of equal speed, or round robin ──► replicas
 *   replica: A A b b       units 0 1 2 3 4 5 6 7 8 9
 *   bottleneck t:          [0 1 2 3][4 5 6 7][8][9]     greedy from the front; bisect on t
 */
#include "host/planner/cluster_private.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const distribution_names[DISTRIBUTIONS] = { "in order", "by kind", "evenly mixed" };

enum { BISECTIONS = 30, SEEN = 64 };

/* ---- sums ------------------------------------------------------------------------------ */

gt_status sums_make(sums *out, const cluster_job *job)
{
    const size_t n = (size_t)job->units + 1;
    double *all = calloc(13 * n, sizeof *all);
    *out = (sums){ all,          all + n,      all + 2 * n,  all + 3 * n,           all + 4 * n,
                   all + 5 * n,  all + 6 * n,  all + 7 * n,  all + 8 * n,           all + 9 * n,
                   all + 10 * n, all + 11 * n, all + 12 * n, calloc(n, sizeof(int)) };
    if (!all || !out->reductions) {
        sums_release(out);
        return gt_fail(GT_NO_MEMORY, "no memory to plan for a model of %d units", job->units);
    }
    for (size_t i = 0; i + 1 < n; i++) {
        const cluster_unit *u = &job->unit[i];
        out->flops[i + 1] = out->flops[i] + u->flops;
        out->parameters[i + 1] = out->parameters[i] + u->parameters;
        out->kept[i + 1] = out->kept[i] + u->kept;
        out->kept_recompute[i + 1] = out->kept_recompute[i] + u->kept_recompute;
        out->saved_input[i + 1] = out->saved_input[i] + u->saved_input;
        out->saved_weight[i + 1] = out->saved_weight[i] + u->saved_weight;
        out->frozen[i + 1] = out->frozen[i] + u->frozen;
        const sync_volume v = job->volume ? job->volume[i] : (sync_volume){ .plain = u->parameters };
        out->plain[i + 1] = out->plain[i] + v.plain;
        out->values[i + 1] = out->values[i] + v.values;
        out->bytes[i + 1] = out->bytes[i] + v.bytes;
        out->code[i + 1] = out->code[i] + v.code;
        out->kept_back[i + 1] = out->kept_back[i] + v.kept;
        out->reduced[i + 1] = out->reduced[i] + u->reductions * u->output;
        out->reductions[i + 1] = out->reductions[i] + u->reductions;
    }
    return GT_OK;
}

void sums_release(sums *s)
{
    free(s->flops);
    free(s->reductions);
    *s = (sums){ 0 };
}

const sync_mode *cluster_mode(const cluster_job *job)
{
    return job->mode ? job->mode : sync_mode_at(0);
}

sync_volume range_volume(const sums *s, int from, int to)
{
    return (sync_volume){ .plain = s->plain[to] - s->plain[from],
                          .values = s->values[to] - s->values[from],
                          .bytes = s->bytes[to] - s->bytes[from],
                          .code = s->code[to] - s->code[from],
                          .kept = s->kept_back[to] - s->kept_back[from] };
}

/* ---- groups ---------------------------------------------------------------------------- */

static int alike(const cluster_device *a, const cluster_device *b)
{
    return a->node == b->node && a->flops == b->flops && a->memory == b->memory;
}

gt_status groups_make(tensor_group **out, int *count, int *unused, const cluster_devices *c, int tensor)
{
    *count = *unused = 0;
    *out = malloc((size_t)c->devices * sizeof **out);
    if (!*out)
        return gt_fail(GT_NO_MEMORY, "no memory to plan for %d devices", c->devices);
    for (int i = 0; i < c->devices;) {
        int run = 1;
        while (run < tensor && i + run < c->devices && alike(&c->device[i], &c->device[i + run]))
            run++;
        if (run == tensor)
            (*out)[(*count)++] = (tensor_group){ i, tensor, c->device[i].node, c->device[i].flops * tensor,
                                                 c->device[i].memory };
        else
            *unused += run;
        i += run;
    }
    return GT_OK;
}

double group_reduce(const cluster_devices *c, const tensor_group *g, double bytes)
{
    const double t = g->devices;
    return t < 2 ? 0.0 : 2.0 * (t - 1.0) / t * bytes / c->local_bandwidth[g->node] + 2.0 * (t - 1.0) * c->local_latency;
}

/* ---- costs ----------------------------------------------------------------------------- */

pipe_cost range_cost(const cluster_devices *c, const sums *s, const candidate *how, const tensor_group *g, int from,
                     int to)
{
    const double b = how->micro_batch;
    const double work = (s->flops[to] - s->flops[from]) * b / g->flops;
    const int reductions = s->reductions[to] - s->reductions[from];
    const double t = g->devices;
    const double sums_up = t < 2 ? 0.0
                                 : 2.0 * (t - 1.0) / t * (s->reduced[to] - s->reduced[from]) * b
                                           / c->local_bandwidth[g->node]
                                       + reductions * 2.0 * (t - 1.0) * c->local_latency;
    pipe_cost cost = { .forward = work + sums_up,
                       .backward_input = work - (s->saved_input[to] - s->saved_input[from]) * b / g->flops + sums_up,
                       .backward_weight = work - (s->saved_weight[to] - s->saved_weight[from]) * b / g->flops };
    if (how->recompute)
        cost.backward_input += work + sums_up;
    cost.activation = (how->recompute ? s->kept_recompute[to] - s->kept_recompute[from] : s->kept[to] - s->kept[from])
                      * b / t;
    return cost;
}

double range_memory(const cluster_job *job, const sums *s, const candidate *how, int from, int to, int kept)
{
    const double t = how->tensor, b = how->micro_batch;
    const double part = how->replicas > 1 ? sync_mode_state_share(cluster_mode(job), job->settings, how->replicas)
                                          : 1.0;
    const double each_state = job->state_bytes + (part - 1.0) * job->slot_bytes;
    const sync_volume v = range_volume(s, from, to);
    const double coding = sync_mode_coding_bytes(cluster_mode(job), job->compress, &v, how->replicas);
    const double state =
        ((s->parameters[to] - s->parameters[from]) * each_state + s->frozen[to] - s->frozen[from] + coding) / t;
    const double each = how->recompute ? s->kept_recompute[to] - s->kept_recompute[from] : s->kept[to] - s->kept[from];
    /* A layer that is run again needs all of its own activations while it is. */
    double again = 0.0;
    for (int i = from; how->recompute && i < to; i++)
        again = fmax(again, job->unit[i].kept);
    return state + (each * kept + again) * b / t;
}

/* ---- cutting --------------------------------------------------------------------------- */

typedef struct cutter {
    const cluster_devices *c;
    const cluster_job *job;
    const sums *s;
    const candidate *how;
    const tensor_group *const *group;   /* the replica's, in order */
    int stages, micro_batches;          /* micro_batches: the most that can be in flight */
} cutter;

/* Fills stages greedily; first[s] is where stage s begins, first[stages] the end. 1: all fit. */
static int fill(const cutter *k, double bottleneck, int *first)
{
    int at = 0;
    for (int s = 0; s < k->stages; s++) {
        const int kept = k->stages - s < k->micro_batches ? k->stages - s : k->micro_batches;
        const int most = k->job->units - (k->stages - 1 - s);     /* one for each that follows */
        int to = at;
        first[s] = at;
        while (to < most) {
            const pipe_cost c = range_cost(k->c, k->s, k->how, k->group[s], at, to + 1);
            if (c.forward + c.backward_input + c.backward_weight > bottleneck
                || range_memory(k->job, k->s, k->how, at, to + 1, kept) > k->group[s]->memory)
                break;
            to++;
        }
        if (to == at)
            return 0;
        at = to;
    }
    first[k->stages] = at;
    return at == k->job->units;
}

/* 0: memory does not suffice whatever the bottleneck. */
static int cut(const cutter *k, int *first)
{
    double high = 0.0, low = 0.0, all = 0.0;
    if (k->stages > k->job->units || !fill(k, INFINITY, first))
        return 0;
    for (int s = 0; s < k->stages; s++) {
        const pipe_cost c = range_cost(k->c, k->s, k->how, k->group[s], 0, k->job->units);
        high = fmax(high, c.forward + c.backward_input + c.backward_weight);
        all += k->group[s]->flops;
    }
    const int n = k->job->units;
    low = (3.0 * k->s->flops[n] - k->s->saved_input[n] - k->s->saved_weight[n]) * k->how->micro_batch / all * 0.5;
    for (int i = 0; i < BISECTIONS; i++) {
        const double middle = 0.5 * (low + high);
        if (fill(k, middle, first))
            high = middle;
        else
            low = middle;
    }
    return fill(k, high, first);
}

/* ---- replicas -------------------------------------------------------------------------- */

static int by_speed(const void *a, const void *b)
{
    const tensor_group *x = *(const tensor_group *const *)a, *y = *(const tensor_group *const *)b;
    if (x->flops != y->flops)
        return x->flops < y->flops ? 1 : -1;
    if (x->memory != y->memory)
        return x->memory < y->memory ? 1 : -1;
    return x->first - y->first;
}

/* First stages keep the most micro-batches: they get the most memory for what they compute. */
static int by_room(const void *a, const void *b)
{
    const tensor_group *x = *(const tensor_group *const *)a, *y = *(const tensor_group *const *)b;
    const double p = x->memory / x->flops, q = y->memory / y->flops;
    return p != q ? (p < q ? 1 : -1) : x->first - y->first;
}

/* Which replica each of the ordered groups goes to. */
static void distribute(int *to, const tensor_group *const *order, int count, int replicas, int distribution)
{
    double all = 0.0, before = 0.0;
    for (int i = 0; i < count; i++)
        all += order[i]->flops;
    for (int i = 0; i < count; i++) {
        const int round = i / replicas, place = i % replicas;
        if (distribution == DISTRIBUTE_EVENLY)  /* there and back, so that no replica is always first */
            to[i] = round % 2 ? replicas - 1 - place : place;
        else
            to[i] = (int)((before + 0.5 * order[i]->flops) / all * replicas);
        before += order[i]->flops;
    }
}

double group_wire(const cluster_devices *c, const tensor_group *g)
{
    int devices = 0;
    for (int i = g->first; i >= 0 && c->device[i].node == g->node; i--)
        devices++;
    for (int i = g->first + 1; i < c->devices && c->device[i].node == g->node; i++)
        devices++;
    return c->uplink[g->node] * g->devices / devices;
}

double cluster_output(const cluster_job *job, int to)
{
    return job->unit[to - 1].output * (job->sent > 0.0 ? job->sent : 1.0);
}

static double send_time(const cluster_devices *c, const tensor_group *a, const tensor_group *b, double bytes)
{
    if (a->node == b->node)
        return c->local_latency + bytes / c->local_bandwidth[a->node];
    return c->latency + bytes / fmin(group_wire(c, a), group_wire(c, b));
}

static gt_status write_stages(cluster_replica *r, const cutter *k, const int *first)
{
    r->stages = k->stages;
    r->stage = calloc((size_t)k->stages, sizeof *r->stage);
    if (!r->stage)
        return gt_fail(GT_NO_MEMORY, "no memory for a replica of %d stages", k->stages);
    for (int s = 0; s < k->stages; s++) {
        const tensor_group *g = k->group[s];
        const int kept = k->stages - s < k->micro_batches ? k->stages - s : k->micro_batches;
        cluster_stage *stage = &r->stage[s];
        *stage = (cluster_stage){ .first_device = g->first,
                                  .devices = g->devices,
                                  .first_unit = first[s],
                                  .units = first[s + 1] - first[s],
                                  .limit = g->memory };
        stage->memory = range_memory(k->job, k->s, k->how, first[s], first[s + 1], kept);
        stage->cost = range_cost(k->c, k->s, k->how, g, first[s], first[s + 1]);
        if (s + 1 < k->stages)
            stage->cost.send = send_time(k->c, g, k->group[s + 1],
                                         cluster_output(k->job, first[s + 1]) * k->how->micro_batch);
    }
    return GT_OK;
}

/* Cuts that were found before, for replicas that look the same. */
typedef struct memory {
    int count, ok[SEEN], stages[SEEN];
    const tensor_group **of[SEEN];
    int *first[SEEN];
} memory;

static int alike_groups(const cutter *k, const tensor_group *const *seen)
{
    for (int s = 0; s < k->stages; s++)
        if (k->group[s]->flops != seen[s]->flops || k->group[s]->memory != seen[s]->memory
            || k->c->local_bandwidth[k->group[s]->node] != k->c->local_bandwidth[seen[s]->node])
            return 0;
    return 1;
}

static const int *cut_once(const cutter *k, memory *m, int *scratch, int *ok)
{
    for (int i = 0; i < m->count; i++)
        if (m->stages[i] == k->stages && alike_groups(k, m->of[i])) {
            *ok = m->ok[i];
            return m->first[i];
        }
    *ok = cut(k, scratch);
    int *copy = m->count < SEEN ? malloc((size_t)(k->stages + 1) * sizeof *copy) : NULL;
    const tensor_group **of = copy ? malloc((size_t)k->stages * sizeof *of) : NULL;
    if (!of) {
        free(copy);
        return scratch;
    }
    memcpy(of, k->group, (size_t)k->stages * sizeof *of);
    memcpy(copy, scratch, (size_t)(k->stages + 1) * sizeof *copy);
    m->of[m->count] = of;
    m->stages[m->count] = k->stages;
    m->ok[m->count] = *ok;
    m->first[m->count++] = copy;
    return copy;
}

gt_status replicas_make(cluster_layout *out, const cluster_devices *c, const cluster_job *job, const sums *s,
                        const candidate *how, const tensor_group *groups, int count, int *fits, char *misfit,
                        size_t misfit_size)
{
    const int replicas = count / how->stages > 0 ? count / how->stages : 1;
    memory seen = { 0 };
    gt_status st = GT_OK;
    *fits = 0;
    *out = (cluster_layout){
        .tensor = how->tensor, .replicas = replicas, .micro_batch = how->micro_batch, .recompute = how->recompute
    };
    snprintf(out->distribution, sizeof out->distribution, "%s", distribution_names[how->distribution]);
    if (job->batch / how->micro_batch < replicas || job->batch % how->micro_batch)
        return GT_OK;
    const tensor_group **order = malloc((size_t)count * sizeof *order);
    const tensor_group **mine = malloc((size_t)count * sizeof *mine);
    int *to = malloc((size_t)count * sizeof *to);
    int *first = malloc(((size_t)count + 1) * sizeof *first);
    out->replica = calloc((size_t)replicas, sizeof *out->replica);
    if (!order || !mine || !to || !first || !out->replica)
        st = gt_fail(GT_NO_MEMORY, "no memory for a plan of %d replicas", replicas);
    for (int i = 0; !st && i < count; i++)
        order[i] = &groups[i];
    if (!st && how->distribution != DISTRIBUTE_IN_ORDER)
        qsort(order, (size_t)count, sizeof *order, by_speed);
    if (!st)
        distribute(to, order, count, replicas, how->distribution);
    int good = !st;
    for (int r = 0; good && !st && r < replicas; r++) {
        cutter k = { c, job, s, how, mine, 0, job->batch / how->micro_batch };
        for (int i = 0; i < count; i++)
            if (to[i] == r)
                mine[k.stages++] = order[i];
        if (!k.stages || k.stages > job->units) {
            good = 0;
            break;
        }
        if (how->distribution != DISTRIBUTE_IN_ORDER)
            qsort(mine, (size_t)k.stages, sizeof *mine, by_room);
        int ok;
        const int *at = cut_once(&k, &seen, first, &ok);
        if (!ok) {
            snprintf(misfit, misfit_size,
                     "with %d stages of %d devices, micro-batches of %d and %s "
                     "recomputation the model does not fit device '%s' and its neighbours",
                     k.stages, how->tensor, how->micro_batch, how->recompute ? "" : "no",
                     c->device[mine[0]->first].name);
            good = 0;
        } else {
            st = write_stages(&out->replica[r], &k, at);
        }
    }
    for (int i = 0; i < seen.count; i++) {
        free(seen.first[i]);
        free(seen.of[i]);
    }
    free(order);
    free(mine);
    free(to);
    free(first);
    *fits = good && !st;
    return st;
}

void cluster_layout_release(cluster_layout *p)
{
    for (int r = 0; p->replica && r < p->replicas; r++)
        free(p->replica[r].stage);
    free(p->replica);
    *p = (cluster_layout){ 0 };
}

/* ---- micro-batches --------------------------------------------------------------------- */

/* Seconds of a replica: once through the pipeline, then its bottleneck for each further one. */
static void speed_of(const cluster_replica *r, double *once, double *each)
{
    *once = *each = 0.0;
    for (int s = 0; s < r->stages; s++) {
        const pipe_cost *c = &r->stage[s].cost;
        const double work = c->forward + c->backward_input + c->backward_weight;
        *once += c->forward + c->backward_input + 2.0 * c->send;
        *each = fmax(*each, fmax(work, c->send));
        if (s == 0)
            *once += c->backward_weight;
    }
}

int micro_batches_distribute(cluster_layout *p, int total)
{
    double low = 0.0, high = 0.0, once, each;
    if (total < p->replicas)
        return 0;
    for (int r = 0; r < p->replicas; r++) {
        speed_of(&p->replica[r], &once, &each);
        high = fmax(high, once + total * each);
    }
    for (int i = 0; i < 60; i++) {                  /* the least time in which all can be done */
        const double t = 0.5 * (low + high);
        double done = 0.0;
        for (int r = 0; r < p->replicas; r++) {
            speed_of(&p->replica[r], &once, &each);
            done += 1.0 + floor(fmax(0.0, (t - once) / each));
        }
        if (done >= total)
            high = t;
        else
            low = t;
    }
    int left = total;
    for (int r = 0; r < p->replicas; r++) {
        speed_of(&p->replica[r], &once, &each);
        p->replica[r].micro_batches = 1 + (int)floor(fmax(0.0, (high - once) / each) + 1e-9);
        left -= p->replica[r].micro_batches;
    }
    for (; left < 0; left++) {                      /* rounding handed out too many: the latest gives */
        int latest = -1;
        double most = -1.0;
        for (int r = 0; r < p->replicas; r++) {
            speed_of(&p->replica[r], &once, &each);
            const double t = once + (p->replica[r].micro_batches - 1) * each;
            if (p->replica[r].micro_batches > 1 && t > most) {
                most = t;
                latest = r;
            }
        }
        if (latest < 0)
            return 0;
        p->replica[latest].micro_batches--;
    }
    for (; left > 0; left--) {
        int soonest = 0;
        double least = INFINITY;
        for (int r = 0; r < p->replicas; r++) {
            speed_of(&p->replica[r], &once, &each);
            const double t = once + p->replica[r].micro_batches * each;
            if (t < least) {
                least = t;
                soonest = r;
            }
        }
        p->replica[soonest].micro_batches++;
    }
    p->step = 0.0;
    for (int r = 0; r < p->replicas; r++) {
        speed_of(&p->replica[r], &once, &each);
        p->replica[r].seconds = once + (p->replica[r].micro_batches - 1) * each;
        p->step = fmax(p->step, p->replica[r].seconds);
    }
    return 1;
}
