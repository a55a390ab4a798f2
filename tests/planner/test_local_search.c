/* SPDX-License-Identifier: MIT */
/* tests/planner/test_local_search.c - plans for few measured ranks: never worse than any plan that can be
 * listed, within memory, and with a share of the work for each rank as its speed is. */
#include "host/base/random.h"
#include "host/planner/local_search.h"
#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 16 };

/* ---- jobs ---------------------------------------------------------------------------------- */

typedef struct bench {
    local_job job;
    local_rank rank[MOST];
    double latency[MOST * MOST], bandwidth[MOST * MOST];
} bench;

/* A device of this speed (1: a layer's forward takes 1 ms a sequence), measured for 1, 2 and 4. */
static profile profile_of(double speed, double start)
{
    profile p = { .sizes = 3,
                  .size = { 1, 2, 4 },
                  .parameters = { 2e6, 1e6, 2e6 },
                  .tied = 2e6,
                  .update = { 1e-10 / speed, 1e-10 / speed, 1e-10 / speed },
                  .output = 1e5,
                  .trip = 2e-5 };
    for (int kind = 0; kind < PROFILE_KINDS; kind++)
        for (int again = 0; again < 2; again++)
            for (int phase = 0; phase < 2; phase++) {
                const double count = kind != PROFILE_LAYER ? 1 : again && phase ? 7 : 4;
                p.exchanges[kind][again][phase] = (profile_exchange){ count, count * p.output };
            }
    for (int i = 0; i < 3; i++) {
        const double ms = 1e-3 * (p.size[i] + start) / speed, bytes = 1e6 * p.size[i];
        p.unit[PROFILE_EMBEDDING][i] = (profile_cost){ 0.1 * ms, 0, 0.2 * ms, 0.1 * bytes, 0.1 * bytes, 1e5 };
        p.unit[PROFILE_LAYER][i] = (profile_cost){ ms, 1.1 * ms, 0.9 * ms, bytes, 0.2 * bytes, 1e5 };
        p.unit[PROFILE_HEAD][i] = (profile_cost){ 2.5 * ms, 0.1 * ms, 0.05 * ms, 0.3 * bytes, 0.3 * bytes, 1e6 };
    }
    return p;
}

static void make_bench(bench *b, int ranks, int units, int batch, const double *speed)
{
    *b = (bench){ .job = { .ranks = ranks,
                           .units = units,
                           .batch = batch,
                           .state_bytes = 16,
                           .slot_bytes = 8,
                           .recompute = -1,
                           .sync = "allreduce" } };
    for (int r = 0; r < ranks; r++) {
        b->rank[r] = (local_rank){ .memory = 1e12, .profile = profile_of(speed[r], 0.2) };
        snprintf(b->rank[r].device, sizeof b->rank[r].device, "dev:%d", r);
    }
    for (int i = 0; i < ranks * ranks; i++) {
        b->latency[i] = 1e-5;
        b->bandwidth[i] = 5e9;
    }
}

/* The pointers, where the bench has come to rest. */
static const local_job *job_of(bench *b)
{
    b->job.rank = b->rank;
    b->job.latency = b->latency;
    b->job.bandwidth = b->bandwidth;
    return &b->job;
}

static void random_bench(bench *b, gt_random *r, int ranks)
{
    double speed[MOST];
    for (int i = 0; i < ranks; i++)
        speed[i] = 0.25 + 1.5 * (double)gt_random_unit(r);
    make_bench(b, ranks, 4 + (int)gt_random_below(r, 3), 2 * ranks + (int)gt_random_below(r, 4), speed);
    const double bandwidth = pow(10.0, 7.5 + 2.0 * (double)gt_random_unit(r));
    for (int i = 0; i < ranks * ranks; i++)
        b->bandwidth[i] = bandwidth * (0.5 + (double)gt_random_unit(r));
    for (int i = 0; i < ranks; i++)
        for (int k = 0; k < i; k++)
            b->bandwidth[i * ranks + k] = b->bandwidth[k * ranks + i];
}

/* What must hold of whatever comes back. */
static void check_plan(const run_plan *p, const local_job *job)
{
    CHECK_OK(run_plan_check(p));
    CHECK(p->ranks == job->ranks && p->units == job->units && p->batch == job->batch && p->step > 0);
    for (int i = 0; i < p->replicas; i++) {
        pipe_schedule s;
        if (CHECK_OK(run_plan_schedule(p, i, &s)))
            CHECK_OK(pipe_schedule_check(&s, NULL));
        pipe_schedule_release(&s);
    }
    for (int r = 0; r < p->ranks; r++)
        CHECKF(p->memory[r] > 0 && p->memory[r] <= p->limit[r], "rank %d: %g of %g bytes", r, p->memory[r],
               p->limit[r]);
    run_plan again;
    if (CHECK_OK(run_plan_copy(&again, p)) && CHECK_OK(local_judge(&again, job)))
        CHECKF(fabs(again.step - p->step) <= 1e-12 && fabs(again.idle - p->idle) <= 1e-9, "judged %g s, said %g",
               again.step, p->step);
    run_plan_release(&again);
}

static void check_choice(const local_choice *c, const local_job *job)
{
    check_plan(&c->best, job);
    for (int i = 0; i < c->runners_up; i++) {
        check_plan(&c->runner_up[i], job);
        CHECKF(c->runner_up[i].step * 1.0026 >= c->best.step, "runner-up %d: %g s, best %g s", i, c->runner_up[i].step,
               c->best.step);
        CHECK(strlen(c->why_not[i]) > 10);
    }
}

/* ---- every plan ------------------------------------------------------------------------------ */

/* Lists all plans: orders of ranks, cut into replicas; units cut into stages; sequences, micro-batches and
 * schedules. Remembers the fastest. */
typedef struct lister {
    const local_job *job;
    int order[MOST], stages[MOST], replicas, cut[MOST][MOST], sequences[MOST], size[MOST], chunks;
    const char *schedule;
    double best;
    uint64_t plans;
    int good;
} lister;

static void judge_listed(lister *l)
{
    const local_job *job = l->job;
    run_plan p;
    if (run_plan_create(&p, job->ranks, job->units, job->batch, 1, l->chunks, l->replicas)) {
        l->good = 0;
        return;
    }
    snprintf(p.schedule, sizeof p.schedule, "%s", l->schedule);
    for (int i = 0, at = 0; i < l->replicas; at += l->stages[i++]) {
        l->good &= run_plan_replica(&p, i, l->stages[i]) == GT_OK;
        run_replica *r = &p.replica[i];
        memcpy(r->rank, &l->order[at], (size_t)l->stages[i] * sizeof *r->rank);
        memcpy(r->cut, l->cut[i], (size_t)(l->stages[i] * l->chunks + 1) * sizeof *r->cut);
        r->micro_batch = l->size[i];
        r->micro_batches = l->sequences[i] / l->size[i];
    }
    if (!run_plan_check(&p) && !local_judge(&p, job)) {
        int fits = 1;
        for (int r = 0; r < p.ranks; r++)
            fits &= p.memory[r] <= p.limit[r];
        l->best = fits ? fmin(l->best, p.step) : l->best;
        l->plans++;
    }
    gt_message_clear();
    run_plan_release(&p);
}

static void list_cuts(lister *l, int i, int v);

/* Sequences and micro-batch sizes of replica i and those behind it. */
static void list_sequences(lister *l, int i, int left)
{
    if (i == l->replicas) {
        if (!left)
            list_cuts(l, 0, 1);
        return;
    }
    for (int n = 1; n <= left; n++)
        for (int m = 1; m <= n && m <= 4; m++)
            if (n % m == 0) {
                l->sequences[i] = n;
                l->size[i] = m;
                list_sequences(l, i + 1, left - n);
            }
}

static void list_cuts(lister *l, int i, int v)
{
    if (i == l->replicas) {
        judge_listed(l);
        return;
    }
    const int parts = l->stages[i] * l->chunks;
    l->cut[i][0] = 0;
    if (v == parts) {
        l->cut[i][v] = l->job->units;
        list_cuts(l, i + 1, 1);
        return;
    }
    for (int u = l->cut[i][v - 1] + 1; u <= l->job->units - (parts - v); u++) {
        l->cut[i][v] = u;
        list_cuts(l, i, v + 1);
    }
}

static void list_replicas(lister *l, int left)
{
    if (!left) {
        for (int s = 0; pipe_schedule_at(s); s++) {
            l->schedule = pipe_schedule_at(s)->name;
            l->chunks = strcmp(l->schedule, "interleaved") ? 1 : 2;
            int possible = 1;
            for (int i = 0; i < l->replicas; i++)
                possible &= l->stages[i] * l->chunks <= l->job->units && (l->chunks == 1 || l->stages[i] > 1);
            if (possible)
                list_sequences(l, 0, l->job->batch);
        }
        return;
    }
    for (int n = 1; n <= left; n++) {
        l->stages[l->replicas++] = n;
        list_replicas(l, left - n);
        l->replicas--;
    }
}

static void list_orders(lister *l, int at)
{
    if (at == l->job->ranks)
        list_replicas(l, l->job->ranks);
    for (int i = at; i < l->job->ranks; i++) {
        const int t = l->order[at];
        l->order[at] = l->order[i];
        l->order[i] = t;
        list_orders(l, at + 1);
        l->order[i] = l->order[at];
        l->order[at] = t;
    }
}

/* The fastest of all plans that fit; INFINITY: none does. */
static double list_all(const local_job *job, uint64_t *plans)
{
    lister l = { .job = job, .best = INFINITY, .good = 1 };
    for (int r = 0; r < job->ranks; r++)
        l.order[r] = r;
    list_orders(&l, 0);
    CHECK(l.good);
    *plans += l.plans;
    return l.best;
}

static void no_plan_that_can_be_listed_is_faster(void)
{
    gt_random r;
    uint64_t plans = 0;
    gt_random_init(&r, 1, 0);
    for (int n = 0; n < 26; n++) {
        static bench b;
        local_choice c;
        random_bench(&b, &r, n < 4 ? 1 : n < 18 ? 2 : 3);
        if (n >= 18) {                          /* three ranks have many plans */
            b.job.batch = 3 + n % 3;
            b.job.units = 4 + n / 22;
        }
        if (!CHECK_OK(local_search(&c, job_of(&b))))
            continue;
        check_choice(&c, &b.job);
        const double best = list_all(&b.job, &plans);
        CHECKF(c.best.step <= 1.01 * best, "case %d: found %g s, there is one of %g s", n, c.best.step, best);
        local_choice_release(&c);
    }
    CHECKF(plans > 15000, "%llu plans", (unsigned long long)plans);
}

/* With little memory as well: what fits nowhere for the list fits nowhere for the search. */
static void memory_limits_are_kept(void)
{
    gt_random r;
    uint64_t plans = 0;
    int fitting = 0, misfits = 0;
    gt_random_init(&r, 2, 0);
    for (int n = 0; n < 16; n++) {
        static bench b;
        local_choice c;
        random_bench(&b, &r, 2);
        b.job.recompute = 0;
        b.job.tensor = 1;
        for (int k = 0; k < 2; k++)
            b.rank[k].memory = (4e6 + 1e6 * b.job.units) * 16 * (0.3 + 0.5 * (double)gt_random_unit(&r));
        const double best = list_all(job_of(&b), &plans);
        const gt_status st = local_search(&c, &b.job);
        CHECKF((st == GT_OK) == (isfinite(best) != 0), "case %d: %s, the list's best takes %g s", n,
               st ? gt_message() : "found", best);
        if (st) {
            misfits++;
            CHECKF(strstr(gt_message(), "no plan fits in memory") && strstr(gt_message(), "dev:"), "%s", gt_message());
        } else {
            fitting++;
            check_choice(&c, &b.job);
            CHECKF(c.best.step <= 1.01 * best, "case %d: found %g s, there is one of %g s", n, c.best.step, best);
        }
        local_choice_release(&c);
        gt_message_clear();
    }
    CHECKF(fitting > 2 && misfits > 1, "%d fit, %d do not", fitting, misfits);
}

static void recomputing_comes_when_memory_is_short(void)
{
    static bench b;
    local_choice c;
    const double speed[] = { 1 };
    make_bench(&b, 1, 8, 4, speed);
    b.rank[0].memory = 16 * 8e6 + 1e6 + 3e6;        /* state, the head's passing, three sequences of a layer */
    if (!CHECK_OK(local_search(&c, job_of(&b))))
        return;
    CHECK(c.best.recompute == 1);
    check_choice(&c, &b.job);
    local_choice_release(&c);
    b.job.recompute = 0;
    CHECK_FAILS(local_search(&c, &b.job), GT_MISMATCH, "rank 0 (dev:0) would need");
    b.rank[0].memory *= 10;
    b.job.recompute = -1;
    if (CHECK_OK(local_search(&c, &b.job)))
        CHECK(c.best.recompute == 0);
    local_choice_release(&c);
}

/* ---- unequal ranks ----------------------------------------------------------------------------- */

static void a_slow_rank_gets_as_little_as_it_can(void)
{
    static const double speed[] = { 1.0, 0.25 };
    static bench b;
    local_choice c;
    make_bench(&b, 2, 14, 40, speed);
    b.job.replicas = 2;
    if (CHECK_OK(local_search(&c, job_of(&b)))) {
        int taken[2];
        for (int i = 0; i < 2; i++)
            taken[c.best.replica[i].rank[0]] = c.best.replica[i].micro_batches * c.best.replica[i].micro_batch;
        CHECKF(taken[0] >= 31 && taken[0] <= 33, "the fast one takes %d of 40 sequences", taken[0]);
        check_choice(&c, &b.job);
    }
    local_choice_release(&c);
    b.job.replicas = 1;
    if (CHECK_OK(local_search(&c, &b.job))) {
        const run_replica *r = &c.best.replica[0];
        for (int s = 0; s < 2; s++) {
            double work = 0, all = 0;
            for (int u = 0; u < 14; u++) {
                const double w = u == 0 ? 0.3 : u == 13 ? 2.65 : 3.0;
                all += w;
                for (int v = s; v < 2 * c.best.chunks; v += 2)
                    work += u >= r->cut[v] && u < r->cut[v + 1] ? w : 0.0;
            }
            const double fair = speed[r->rank[s]] / 1.25;
            CHECKF(fabs(work / all - fair) < 0.05, "stage %d on rank %d does %.3f of the work, fair is %.3f", s,
                   r->rank[s], work / all, fair);
        }
        check_choice(&c, &b.job);
    }
    local_choice_release(&c);
}

/* A prime number of sequences cannot be shared out in larger pieces. */
static void a_prime_batch_is_shared_out(void)
{
    static const double speed[] = { 1.0, 0.5 };
    static const int batches[] = { 7, 257, 1031 };
    static bench b;
    for (int i = 0; i < 3; i++) {
        local_choice c;
        make_bench(&b, 2, 6, batches[i], speed);
        b.job.replicas = 2;
        if (!CHECK_OK(local_search(&c, job_of(&b))))
            continue;
        for (int k = 0; k < 2; k++) {
            const run_replica *r = &c.best.replica[k];
            const double share = (double)(r->micro_batches * r->micro_batch) / batches[i];
            CHECKF(fabs(share - (r->rank[0] ? 1.0 : 2.0) / 3.0) < 0.1, "rank %d takes %.3f of %d", r->rank[0], share,
                   batches[i]);
        }
        check_choice(&c, &b.job);
        local_choice_release(&c);
    }
}

static void what_is_fixed_stays(void)
{
    static const double speed[] = { 1.0, 0.8, 0.5, 0.4 };
    static const char *const schedules[] = { "gpipe", "1f1b", "interleaved", "zb-h1", "list" };
    static bench b;
    local_choice c;
    make_bench(&b, 4, 14, 16, speed);
    for (size_t i = 0; i < 5; i++) {
        b.job.schedule = schedules[i];
        b.job.stages = 2;
        b.job.micro_batch = 2;
        if (CHECK_OK(local_search(&c, job_of(&b)))) {
            CHECK(!strcmp(c.best.schedule, schedules[i]) && c.best.replicas == 2);
            for (int k = 0; k < c.best.replicas; k++)
                CHECK(c.best.replica[k].stages == 2 && c.best.replica[k].micro_batch == 2);
            check_choice(&c, &b.job);
        }
        local_choice_release(&c);
    }
    b.job.schedule = NULL;
    b.job.stages = b.job.micro_batch = 0;
    b.job.replicas = 3;
    b.job.sync = "sharded";
    if (CHECK_OK(local_search(&c, &b.job))) {
        CHECK(c.best.replicas == 3 && !strcmp(c.best.sync, "sharded"));
        check_choice(&c, &b.job);
    }
    local_choice_release(&c);
    b.job.replicas = 0;
    b.job.tensor = 2;
    b.job.recompute = 1;
    if (CHECK_OK(local_search(&c, &b.job))) {
        CHECK(c.best.tensor == 2 && c.best.share[0] > c.best.share[1] && c.best.recompute == 1);
        check_choice(&c, &b.job);
    }
    local_choice_release(&c);
}

static void what_cannot_be_is_said(void)
{
    static const double speed[] = { 1, 1, 1 };
    static bench b;
    local_choice c;
    make_bench(&b, 3, 6, 9, speed);
    const local_job *job = job_of(&b), good = *job;
    b.job.schedule = "2f2b";
    CHECK_FAILS(local_search(&c, job), GT_MISUSE, "no schedule '2f2b'");
    b.job = good;
    b.job.micro_batch = 2;
    CHECK_FAILS(local_search(&c, job), GT_MISUSE, "batch 9 is not a multiple of micro-batch 2");
    b.job = good;
    b.job.tensor = 2;
    CHECK_FAILS(local_search(&c, job), GT_MISUSE, "3 ranks cannot be dealt into tensor groups of 2");
    b.job = good;
    b.job.stages = 7;
    CHECK_FAILS(local_search(&c, job), GT_MISUSE, "7 stages cannot be made of 6 units");
    b.job = good;
    b.job.stages = b.job.replicas = 2;
    CHECK_FAILS(local_search(&c, job), GT_MISUSE, "2 replicas of 2 stages need at least 4 ranks, there are 3");
    b.job = good;
    b.job.replicas = 4;
    CHECK_FAILS(local_search(&c, job), GT_MISUSE, "4 replicas need at least 4 ranks, there are 3");
    b.job = good;
    b.job.replicas = 2;
    b.job.tensor = 2;
    CHECK_FAILS(local_search(&c, job), GT_MISUSE, "2 replicas of 2 tensor ranks need at least 4 ranks");
    b.job = good;
    b.job.stages = 2;
    CHECK_FAILS(local_search(&c, job), GT_MISUSE, "3 ranks cannot be dealt into replicas of 2 stages");
    b.job = good;
    b.job.schedule = "interleaved";
    b.job.replicas = 3;
    CHECK_FAILS(local_search(&c, job), GT_MISMATCH, "there is no plan for 3 ranks");
    b.job = good;
    b.job.batch = 2;
    b.job.replicas = 3;
    CHECK_FAILS(local_search(&c, job), GT_MISUSE, "a batch of 2 cannot be shared by 3 replicas");
    b.job.batch = 9;
    b.job.micro_batch = 9;
    CHECK_FAILS(local_search(&c, job), GT_MISUSE, "a batch of 9 in micro-batches of 9 cannot be shared by 3");
}

/* Eight different ranks, and more than partitions are tried for. */
static void many_ranks_are_planned(void)
{
    gt_random r;
    gt_random_init(&r, 3, 0);
    for (int ranks = 5; ranks <= MOST; ranks += ranks < 8 ? 1 : 4) {
        static bench b;
        local_choice c;
        double speed[MOST], sum = 0;
        for (int i = 0; i < ranks; i++)
            sum += speed[i] = 0.5 + (double)gt_random_unit(&r);
        make_bench(&b, ranks, 26, 64, speed);
        for (int i = 0; i < ranks; i++)
            b.rank[i].node = i / 4;
        if (CHECK_OK(local_search(&c, job_of(&b)))) {
            check_choice(&c, &b.job);
            /* All ranks at work without a pause, with the largest micro-batches. */
            const double floor = 64 * 1.05e-3 * (24 * 3.0 + 2.95) / sum;
            CHECKF(c.best.step >= floor && c.best.step <= 1.35 * floor, "%d ranks: %g s, at least %g s", ranks,
                   c.best.step, floor);
        }
        local_choice_release(&c);
        b.job.stages = ranks;
        b.job.micro_batch = 1;
        if (CHECK_OK(local_search(&c, &b.job))) {
            CHECK(c.best.replicas == 1 && c.best.replica[0].stages == ranks);
            check_choice(&c, &b.job);
        }
        local_choice_release(&c);
    }
}

/* Of two forms each link has the faster: here 1.25 bytes of 4, and a ns a value and end. */
static void stages_send_in_the_faster_form(void)
{
    const double speed[] = { 1.0, 1.0 };
    bench b;
    local_choice c;
    make_bench(&b, 2, 6, 4, speed);
    b.job.stages = 2;
    b.job.micro_batch = 1;
    for (int i = 0; i < 4; i++)
        b.bandwidth[i] = 1e7;
    if (!CHECK_OK(local_search(&c, job_of(&b))))
        return;
    const double values = b.rank[0].profile.output / 4.0, ends = 2 * b.rank[0].profile.trip + b.latency[1];
    CHECKF(fabs(c.best.replica[0].cost[0].send / (ends + 4.0 * values / 1e7) - 1.0) < 1e-9, "%g s",
           c.best.replica[0].cost[0].send);
    b.job.forms = 2;
    b.job.value_bytes = 4.0;
    for (int r = 0; r < 2; r++) {
        b.rank[r].between[0] = (wire_rate){ 0.0, 0.0, 4.0 };
        b.rank[r].between[1] = (wire_rate){ 1e-9, 1e-9, 1.25 };
    }
    const double plain = c.best.step;
    if (CHECK_OK(local_judge(&c.best, job_of(&b)))) {
        CHECKF(fabs(c.best.replica[0].cost[0].send / (ends + values * (1.25 / 1e7 + 2e-9)) - 1.0) < 1e-9, "%g s",
               c.best.replica[0].cost[0].send);
        CHECK(c.best.step < plain);
    }
    for (int i = 0; i < 4; i++)
        b.bandwidth[i] = 1e12;
    if (CHECK_OK(local_judge(&c.best, job_of(&b))))
        CHECK(fabs(c.best.replica[0].cost[0].send / (ends + 4.0 * values / 1e12) - 1.0) < 1e-9);
    local_choice_release(&c);
}

const check_case check_cases[] = {
    CASE(stages_send_in_the_faster_form),
    CASE(no_plan_that_can_be_listed_is_faster),
    CASE(memory_limits_are_kept),
    CASE(recomputing_comes_when_memory_is_short),
    CASE(a_slow_rank_gets_as_little_as_it_can),
    CASE(a_prime_batch_is_shared_out),
    CASE(what_is_fixed_stays),
    CASE(what_cannot_be_is_said),
    CASE(many_ranks_are_planned),
    { 0 }
};
