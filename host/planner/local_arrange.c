/* SPDX-License-Identifier: MIT */
/* host/planner/local_arrange.c - one replica: which group is which stage, where the cuts are, how large a
 * micro-batch is.
 *
 *   set {a b c}, t seconds:   f({})    = 0 units
 *                             f({b})   = 5          as many as b can run in t
 *                             f({a b}) = max(f({a}) + what b adds, f({b}) + what a adds)
 *                             f({a b c}) = all units?  then t is enough
 *
 * A bisection over t finds the least bottleneck of all orders and cuts at once (in-flight
 * activations included: the place in the pipe is how many are in the set). It knows nothing
 * of filling and draining, so it is a start: with few orders and cuts every one is
 * then judged whose lower bound is below the best so far, with more it is moved about.     */
#include "host/planner/local_private.h"

#include "host/pipeline/simulate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_EXHAUSTIVE = 20000, MOST_MOVES = 400, BUCKETS = 1024 };

/* The least bottleneck of a set, for micro-batches of one size and so many in flight. */
typedef struct bottleneck {
    int known, group[GROUPS], cut[GROUPS + 1];
    double seconds, fill;           /* fill: forward and backward-input of all stages, once */
    double parameters, update;      /* of the stage that has most                           */
} bottleneck;

typedef struct entry {
    struct entry *next;
    int set, sequences, replicas;
    const char *schedule;
    arrangement best;
} entry;

struct arranger {
    const group_table *t;
    misfit *why;
    bottleneck *bottlenecks;        /* [(set * sizes + i) * GROUPS + in flight - 1]         */
    entry *bucket[BUCKETS];
    uint64_t simulated;
};

gt_status arranger_create(arranger **out, const group_table *t, misfit *why)
{
    arranger *a = *out = calloc(1, sizeof *a);
    if (a) {
        a->t = t;
        a->why = why;
        a->bottlenecks = calloc((size_t)(1 << t->groups) * (size_t)t->sizes * GROUPS, sizeof *a->bottlenecks);
    }
    if (a && a->bottlenecks)
        return GT_OK;
    free(a);
    *out = NULL;
    return gt_fail(GT_NO_MEMORY, "cannot plan: no memory for the bottlenecks of %d tensor groups", t->groups);
}

void arranger_release(arranger *a)
{
    if (!a)
        return;
    for (int i = 0; i < BUCKETS; i++)
        for (entry *e = a->bucket[i], *next; e; e = next) {
            next = e->next;
            free(e);
        }
    free(a->bottlenecks);
    free(a);
}

uint64_t arranger_simulated(const arranger *a)
{
    return a->simulated;
}

static double program_seconds(const profile_cost *c)
{
    return c->forward + c->backward_input + c->backward_weight;
}

static int groups_of(int set)
{
    int n = 0;
    for (; set; set &= set - 1)
        n++;
    return n;
}

/* ---- the least bottleneck ----------------------------------------------------------------- */

/* Seconds of one micro-batch's computation of units [from, to). */
static double span_seconds(const group_table *t, int group, int i, int from, int to)
{
    const int first = from == 0, last = to == t->job->units;
    return (to - from - first - last) * program_seconds(group_unit(t, group, i, PROFILE_LAYER))
           + (first ? program_seconds(group_unit(t, group, i, PROFILE_EMBEDDING)) : 0.0)
           + (last ? program_seconds(group_unit(t, group, i, PROFILE_HEAD)) : 0.0);
}

static int span_fits(const group_table *t, int group, int i, int from, int to, int kept)
{
    const part_price p = group_price(t, group, i, from, to, 1, 0);
    return group_bytes(t, group, &p, kept, 1) <= t->memory[group];
}

int group_reach(const group_table *t, int group, int i, int from, int place, int stages, int flight, double limit)
{
    const int ahead = stages - place, kept = ahead < flight ? ahead : flight;
    const int units = t->job->units, most = units - (ahead - 1);
    int low = place == stages - 1 ? units : from + 1, high = most;
    if (low > most || from >= units || span_seconds(t, group, i, from, low) > limit
        || !span_fits(t, group, i, from, low, kept))
        return -1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (span_seconds(t, group, i, from, middle) <= limit && span_fits(t, group, i, from, middle, kept))
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* 1: the set can do it in `limit`; then group[] and cut[] say how. */
static int feasible(const group_table *t, int set, int i, int flight, double limit, bottleneck *out)
{
    int far[GROUP_SETS], last[GROUP_SETS];
    const int stages = groups_of(set);
    far[0] = 0;
    for (int sub = (0 - set) & set; sub; sub = (sub - set) & set) {
        far[sub] = -1;
        for (int group = 0; group < t->groups; group++) {
            const int before = sub & ~(1 << group);
            if (before == sub || far[before] < 0)
                continue;
            const int to = group_reach(t, group, i, far[before], groups_of(before), stages, flight, limit);
            if (to > far[sub]) {
                far[sub] = to;
                last[sub] = group;
            }
        }
    }
    if (far[set] != t->job->units)
        return 0;
    for (int sub = set, place = stages - 1; sub; sub &= ~(1 << last[sub]), place--) {
        out->group[place] = last[sub];
        out->cut[place + 1] = far[sub];
    }
    out->cut[0] = 0;
    return 1;
}

/* Remembers what came nearest to fitting. */
static void note_misfit(misfit *why, const group_table *t, int group, double need)
{
    char a[24], b[24];
    const local_rank *r = &t->job->rank[t->rank[group * t->tensor]];
    if (need / t->memory[group] >= why->over)
        return;
    why->over = need / t->memory[group];
    snprintf(why->text, sizeof why->text, "rank %d (%s) would need %s and may use %s", t->rank[group * t->tensor],
             r->device, gt_format_bytes(a, sizeof a, (uint64_t)need),
             gt_format_bytes(b, sizeof b, (uint64_t)t->memory[group]));
}

/* Nothing fits: says what an even cut would need. */
static void note_even_cut(const arranger *a, int set, int i)
{
    const int stages = groups_of(set), units = a->t->job->units;
    double over = 0, most = 0;
    int worst = 0;
    for (int group = 0, s = 0; group < a->t->groups; group++) {
        if (!(set >> group & 1))
            continue;
        const part_price p = group_price(a->t, group, i, units * s / stages, units * (s + 1) / stages, 1, 0);
        const double need = group_bytes(a->t, group, &p, 1, 1);
        if (need / a->t->memory[group] > over) {
            over = need / a->t->memory[group];
            most = need;
            worst = group;
        }
        s++;
    }
    if (over > 1.0)
        note_misfit(a->why, a->t, worst, most);
}

static void sum_up(const group_table *t, int stages, int i, bottleneck *b)
{
    b->seconds = b->fill = 0;
    for (int s = 0; s < stages; s++) {
        const part_price p = group_price(t, b->group[s], i, b->cut[s], b->cut[s + 1], 1, 0);
        b->seconds = fmax(b->seconds, p.cost.forward + p.cost.backward_input + p.cost.backward_weight);
        b->parameters = fmax(b->parameters, p.parameters);
        b->update = fmax(b->update, p.cost.update);
        b->fill += p.cost.forward + p.cost.backward_input
                   + (s + 1 < stages ? 2 * group_send(t, b->group[s], b->group[s + 1], i) : p.cost.backward_weight);
    }
}

static void find_bottleneck(const arranger *a, int set, int i, int flight, bottleneck *b)
{
    const group_table *t = a->t;
    double low = 0, high = 0;
    b->known = 1;
    b->seconds = INFINITY;
    for (int group = 0; group < t->groups; group++)
        high += set >> group & 1 ? span_seconds(t, group, i, 0, t->job->units) : 0.0;
    high *= 1.0 + 1e-9;
    if (!feasible(t, set, i, flight, high, b)) {
        note_even_cut(a, set, i);
        return;
    }
    while (high - low > 1e-5 * high) {
        const double middle = 0.5 * (low + high);
        if (feasible(t, set, i, flight, middle, b))
            high = middle;
        else
            low = middle;
    }
    feasible(t, set, i, flight, high, b);
    sum_up(t, groups_of(set), i, b);
}

static const bottleneck *bottleneck_of(const arranger *a, int set, int i, int k)
{
    const int stages = groups_of(set), flight = k < stages ? k : stages;
    bottleneck *b = &a->bottlenecks[(set * a->t->sizes + i) * GROUPS + flight - 1];
    if (!b->known)
        find_bottleneck(a, set, i, flight, b);
    return b;
}

double arranger_predict(arranger *a, int set, int i, int k, int replicas)
{
    if (k > PIPE_MOST_MICRO_BATCHES || groups_of(set) > a->t->job->units)
        return INFINITY;
    const bottleneck *b = bottleneck_of(a, set, i, k);
    return isinf(b->seconds) ? INFINITY
                             : b->fill + (k - 1) * b->seconds + b->update + group_ring(a->t, b->parameters, replicas);
}

/* ---- judging one -------------------------------------------------------------------------- */

/* Fills the costs; all[stage] is for memory. */
static void price(const group_table *t, arrangement *x, int replicas, part_price *all)
{
    const int parts = x->stages * x->chunks;
    memset(all, 0, (size_t)x->stages * sizeof *all);
    for (int v = 0; v < parts; v++) {
        const int s = v % x->stages, next = (v + 1) % x->stages;
        const part_price p = group_price(t, x->group[s], x->size_at, x->cut[v], x->cut[v + 1], replicas, x->stages > 1);
        x->cost[v] = p.cost;
        x->cost[v].send = v + 1 < parts ? group_send(t, x->group[s], x->group[next], x->size_at) : 0.0;
        all[s].parameters += p.parameters;
        all[s].frozen += p.frozen;
        sync_volume_sum(&all[s].volume, &p.volume, 1.0);
        all[s].passing = p.passing > all[s].passing ? p.passing : all[s].passing;
        if (p.cost.activation > all[s].cost.activation)
            all[s].cost.activation = p.cost.activation;
    }
}

static int holds(arranger *a, const arrangement *x, const part_price *all, const int *kept, int replicas)
{
    int good = 1;
    for (int s = 0; s < x->stages; s++) {
        const double need = group_bytes(a->t, x->group[s], &all[s], kept[s], replicas);
        if (need <= a->t->memory[x->group[s]])
            continue;
        note_misfit(a->why, a->t, x->group[s], need);
        good = 0;
    }
    return good;
}

/* Sets seconds and busy; INFINITY if it does not fit in memory. */
static gt_status judge(arranger *a, arrangement *x, int replicas, const char *schedule)
{
    part_price all[GROUPS];
    int kept[GROUPS];
    pipe_schedule s = { 0 };
    pipe_simulation sim = { 0 };
    x->seconds = INFINITY;
    price(a->t, x, replicas, all);
    gt_status st = pipe_schedule_make(&s, schedule, x->stages, x->chunks, x->micro_batches, x->cost, NULL);
    if (!st)
        st = pipe_schedule_check(&s, kept);
    if (!st && holds(a, x, all, kept, replicas)) {
        st = pipe_simulate(&sim, &s, x->cost, 0);
        x->seconds = sim.step;
        x->busy = 0;
        for (int r = 0; !st && r < x->stages; r++)
            x->busy += sim.busy[r];
        a->simulated++;
    }
    pipe_simulation_release(&sim);
    pipe_schedule_release(&s);
    return st;
}

/* No schedule is faster: a stage begins after one forward of those before it, and the last gradient
 * still goes back through them. */
static double bound(const group_table *t, const arrangement *x)
{
    const int parts = x->stages * x->chunks, k = x->micro_batches, i = x->size_at;
    double work[GROUPS] = { 0 }, before = 0, behind = 0, least = 0;
    for (int v = 0; v < parts; v++) {
        const int s = v % x->stages, group = x->group[s], first = v == 0, last = v == parts - 1;
        const profile_cost *c = group_unit(t, group, i, PROFILE_LAYER);
        const int layers = x->cut[v + 1] - x->cut[v] - first - last;
        double forward = layers * c->forward, back = layers * c->backward_input;
        if (first || last) {
            const profile_cost *e = group_unit(t, group, i, first ? PROFILE_EMBEDDING : PROFILE_HEAD);
            forward += e->forward;
            back += e->backward_input;
        }
        work[s] += span_seconds(t, group, i, x->cut[v], x->cut[v + 1]);
        if (v < x->stages)
            least = fmax(least, before + k * work[s]);
        if (x->chunks == 1)
            least = fmax(least, before + k * (forward + back) + behind);
        before += forward;
        behind += back;
    }
    for (int s = 0; s < x->stages; s++)
        least = fmax(least, k * work[s]);
    return least;
}

/* Judges a candidate and keeps it if it is better. */
static gt_status consider(arranger *a, arrangement *best, arrangement *x, int replicas, const char *schedule)
{
    if (bound(a->t, x) >= best->seconds)
        return GT_OK;
    gt_status st = judge(a, x, replicas, schedule);
    if (!st && x->seconds < best->seconds)
        *best = *x;
    return st;
}

/* ---- many of them --------------------------------------------------------------------------- */

/* Ways to cut `units` into `parts`, in `orders` orders; MOST_EXHAUSTIVE + 1 if there are more. */
static int count_all(int units, int parts, int stages)
{
    double ways = 1;
    for (int i = 1; i < parts; i++)
        ways = ways * (units - i) / i;
    for (int i = 2; i <= stages; i++)
        ways *= i;
    return ways > MOST_EXHAUSTIVE ? MOST_EXHAUSTIVE + 1 : (int)ways;
}

/* The next rising row of cut[1 .. parts - 1] in (0, units); 0 after the last. */
static int next_cuts(int *cut, int parts, int units)
{
    for (int v = parts - 1; v > 0; v--)
        if (cut[v] < units - (parts - v)) {
            cut[v]++;
            for (int w = v + 1; w < parts; w++)
                cut[w] = cut[w - 1] + 1;
            return 1;
        }
    return 0;
}

/* The next permutation in lexicographic order; 0 after the last. */
static int next_order(int *group, int n)
{
    int i = n - 2, k = n - 1;
    while (i >= 0 && group[i] > group[i + 1])
        i--;
    if (i < 0)
        return 0;
    while (group[k] < group[i])
        k--;
    const int swapped = group[i];
    group[i] = group[k];
    group[k] = swapped;
    for (int low = i + 1, high = n - 1; low < high; low++, high--) {
        const int t = group[low];
        group[low] = group[high];
        group[high] = t;
    }
    return 1;
}

static gt_status try_all(arranger *a, arrangement *best, arrangement x, int set, int replicas, const char *schedule)
{
    const int parts = x.stages * x.chunks, units = a->t->job->units;
    gt_status st = GT_OK;
    for (int group = 0, n = 0; group < a->t->groups; group++)
        if (set >> group & 1)
            x.group[n++] = group;
    do {
        for (int v = 0; v < parts; v++)
            x.cut[v] = v;
        x.cut[parts] = units;
        do
            st = consider(a, best, &x, replicas, schedule);
        while (!st && next_cuts(x.cut, parts, units));
    } while (!st && next_order(x.group, x.stages));
    return st;
}

/* One move: a cut by one or two units, or two stages in each other's place. 0: there is no such. */
static int move(arrangement *x, int which)
{
    const int parts = x->stages * x->chunks, cuts = 4 * (parts - 1);
    if (which < cuts) {
        const int v = 1 + which / 4, by = (which & 1 ? -1 : 1) * (1 + (which >> 1 & 1));
        x->cut[v] += by;
        return x->cut[v - 1] < x->cut[v] && x->cut[v] < x->cut[v + 1];
    }
    const int pair = which - cuts, i = pair / x->stages, k = pair % x->stages, group = x->group[i];
    x->group[i] = x->group[k];
    x->group[k] = group;
    return i < k;
}

static gt_status move_about(arranger *a, arrangement *best, int replicas, const char *schedule)
{
    const int moves = 4 * (best->stages * best->chunks - 1) + best->stages * best->stages;
    gt_status st = GT_OK;
    for (int which = 0, failed = 0, tries = 0; !st && failed < moves && tries < MOST_MOVES;
         which = (which + 1) % moves, tries++) {
        arrangement x = *best;
        const double before = best->seconds;
        if (move(&x, which))
            st = consider(a, best, &x, replicas, schedule);
        failed = best->seconds < before ? 0 : failed + 1;
    }
    return st;
}

/* The program's answer as an arrangement; with several chunks each group's units are distributed to them. */
static void start_from(const bottleneck *b, int chunks, int units, arrangement *x)
{
    memcpy(x->group, b->group, sizeof x->group);
    if (chunks == 1) {
        memcpy(x->cut, b->cut, (size_t)(x->stages + 1) * sizeof *x->cut);
        return;
    }
    const int parts = x->stages * chunks;
    int left = units;
    x->cut[0] = 0;
    for (int v = 0; v < parts; v++) {
        const int s = v % x->stages, all = b->cut[s + 1] - b->cut[s];
        int n = v < x->stages ? (all + 1) / 2 : all / 2;
        const int later = parts - 1 - v;
        n = n < 1 ? 1 : n;
        n = n > left - later ? left - later : n;
        x->cut[v + 1] = later ? x->cut[v] + n : units;
        left -= n;
    }
}

/* Every order and cut where they are few, else the program's answer moved about. A list is searched
 * for anew each time it is judged, so fewer are few. */
static gt_status arrange_size(arranger *a, arrangement *best, int set, int i, int k, int replicas, const char *schedule)
{
    const int chunks = pipe_schedule_find(schedule)->interleaves ? CHUNKS : 1, units = a->t->job->units;
    const int few = pipe_schedule_find(schedule)->searched ? MOST_EXHAUSTIVE / 50 : MOST_EXHAUSTIVE;
    const bottleneck *b = bottleneck_of(a, set, i, k);
    arrangement x = {
        .stages = groups_of(set), .chunks = chunks, .micro_batches = k, .size_at = i, .seconds = INFINITY
    };
    gt_status st = GT_OK;
    if (isfinite(b->seconds)) {
        start_from(b, chunks, units, &x);
        st = judge(a, &x, replicas, schedule);
    }
    if (!st && count_all(units, x.stages * chunks, x.stages) > few && isfinite(x.seconds))
        st = move_about(a, &x, replicas, schedule);
    if (!st && x.seconds < best->seconds)
        *best = x;
    if (!st && count_all(units, x.stages * chunks, x.stages) <= few)
        st = try_all(a, best, x, set, replicas, schedule);
    return st;
}

/* Whether the schedule exists for the set with k micro-batches. */
static int can_run(const group_table *t, int set, int k, const char *schedule)
{
    const int stages = groups_of(set);
    if (k > PIPE_MOST_MICRO_BATCHES || stages > t->job->units)
        return 0;
    return !pipe_schedule_find(schedule)->interleaves
           || (stages > 1 && k % stages == 0 && stages * CHUNKS <= t->job->units);
}

static gt_status arrange(arranger *a, entry *e)
{
    const group_table *t = a->t;
    gt_status st = GT_OK;
    e->best.seconds = INFINITY;
    for (int i = t->sizes - 1; !st && i >= 0; i--) {
        const int k = e->sequences / t->size[i];
        if (e->sequences % t->size[i] || !can_run(t, e->set, k, e->schedule))
            continue;
        const bottleneck *b = bottleneck_of(a, e->set, i, k);
        if (isinf(b->seconds) || k * b->seconds < e->best.seconds)
            st = arrange_size(a, &e->best, e->set, i, k, e->replicas, e->schedule);
    }
    return st;
}

gt_status arranger_best(arranger *a, const arrangement **out, int set, int sequences, int replicas,
                        const char *schedule)
{
    const unsigned hash = (unsigned)set * 2654435761u + (unsigned)sequences * 40503u + (unsigned)replicas * 97u
                          + (unsigned char)schedule[0];
    entry **at = &a->bucket[hash % BUCKETS];
    for (const entry *e = *at; e; e = e->next)
        if (e->set == set && e->sequences == sequences && e->replicas == replicas && !strcmp(e->schedule, schedule)) {
            *out = &e->best;
            return GT_OK;
        }
    entry *e = calloc(1, sizeof *e);
    if (!e)
        return gt_fail(GT_NO_MEMORY, "cannot plan: no memory for one more arrangement");
    *e = (entry){ .next = *at, .set = set, .sequences = sequences, .replicas = replicas, .schedule = schedule };
    *at = e;
    *out = &e->best;
    return arrange(a, e);
}
