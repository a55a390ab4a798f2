/* SPDX-License-Identifier: MIT */
/* tests/train/test_stop.c - a wish to stop within a step: the step is given up on all ranks, what was
 * done is kept, and the run that goes on ends with the bits of one that was never stopped.
 *
 *   step   0 1 2 3 ..x                  stopped anywhere, by a thread that waits a while
 *                  3 4 5 6 ..x          goes on
 *                          6 7 ... 19   until it is done
 */
#include "tests/check.h"
#include "tests/comm/ranks.h"
#include "tests/train/tiny_run.h"

#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/stop.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 20, PARTS = 6, MOST_RANKS = 4 };

static model_config config;

typedef struct job {
    const run_plan *plan;               /* NULL: one rank without others */
    train_options options;
    float *x[MOST_RANKS];               /* parameters at the end */
    size_t count[MOST_RANKS];
    int goes_on;                        /* x is to be the same */
    uint64_t ask_after_ns;              /* 0: nobody asks        */
    atomic_int trained, over;
    uint64_t done;
    int same[MOST_RANKS];
} job;

/* Asks to stop some time after the first step of a turn. */
static void *ask(void *context)
{
    job *j = context;
    while (!atomic_load(&j->trained) && !atomic_load(&j->over))
        gt_sleep_ns(100000);
    gt_sleep_ns(j->ask_after_ns);
    gt_stop_note(SIGTERM);
    return NULL;
}

static void note_step(void *context, const metrics_row *row)
{
    (void)row;
    atomic_store(&((job *)context)->trained, 1);
}

static gt_status train_part(net_comm *c, void *context)
{
    job *j = context;
    const int rank = c ? net_comm_rank(c) : 0;
    const train_hooks hooks = { .context = j, .step = note_step };
    train_options o = j->options;
    dev_device *d = NULL;
    train *t = NULL;
    o.comm = c;
    o.plan = j->plan;
    gt_status st = dev_open(&d, c ? "cpu:0.0" : NULL);
    if (!st)
        st = tiny_create(&t, d, &config, &o);
    if (!st)
        st = train_run(t, rank ? NULL : &hooks);
    if (t && rank == 0)
        j->done = train_steps_done(t);
    if (!st) {
        size_t count;
        float *x = tiny_params(t, 0, &count);
        j->same[rank] = j->goes_on && count == j->count[rank] && !memcmp(x, j->x[rank], 4 * count);
        if (j->goes_on) {
            free(x);
        } else {
            j->x[rank] = x;
            j->count[rank] = count;
        }
    }
    train_release(t);
    dev_close(d);
    return st;
}

/* All ranks' statuses must be alike. */
static gt_status train_all(job *j)
{
    const int ranks = j->plan ? j->plan->ranks : 1;
    ranks_result r[MOST_RANKS];
    pthread_t asker;
    const int asks = j->ask_after_ns > 0;
    atomic_store(&j->trained, 0);
    atomic_store(&j->over, 0);
    if (asks && pthread_create(&asker, NULL, ask, j))
        return gt_fail(GT_NO_MEMORY, "no thread");
    gt_status st = GT_OK;
    if (j->plan) {
        ranks_run_each(ranks, "", train_part, j, r);
        st = r[0].status;
        if (st)
            gt_fail(st, "%s", r[0].sentence);
        for (int i = 1; i < ranks; i++)
            CHECKF(r[i].status == st, "rank %d: %s, rank 0: %s", i, r[i].sentence, r[0].sentence);
    } else {
        st = train_part(NULL, j);
    }
    atomic_store(&j->over, 1);
    if (asks)
        pthread_join(asker, NULL);
    gt_stop_withdraw();
    return st;
}

static void check_stops(const char *name, const run_plan *plan, uint64_t batch, uint64_t micro_batch)
{
    job j = { .plan = plan, .options = tiny_options() };
    char *whole = gt_path_join(check_folder(), name), *parts;
    char again[64];
    int stops = 0;
    uint64_t before = 0;
    snprintf(again, sizeof again, "%s-in-parts", name);
    parts = gt_path_join(check_folder(), again);
    config = tiny_config();
    config.layers = 4;
    config.heads = 4;
    j.options.steps = STEPS;
    j.options.batch = batch;
    j.options.micro_batch = micro_batch;
    j.options.eval_every = 5;
    j.options.gemm = "native";
    j.options.run = whole;
    const uint64_t start = gt_now_ns();
    if (!CHECK_OK(train_all(&j)))
        return;
    const uint64_t step_ns = (gt_now_ns() - start) / STEPS;
    j.goes_on = 1;
    j.options.run = parts;
    j.options.resume = 1;
    for (int i = 0; i < PARTS && j.done < STEPS + 1; i++) {
        j.ask_after_ns = i + 1 < PARTS ? 1 + step_ns * (uint64_t)(3 * i + 1) / 8 : 0;
        const gt_status st = train_all(&j);
        if (st == GT_OK)
            break;
        stops++;
        CHECKF(st == GT_INTERRUPTED && strstr(gt_message(), "stopped after step"), "%s: %s", name, gt_message());
        CHECKF(j.done > before && j.done < STEPS, "%s: %llu steps after %llu", name, (unsigned long long)j.done,
               (unsigned long long)before);
        before = j.done;
    }
    CHECKF(stops > 0, "%s: was never stopped", name);
    CHECK(j.done == STEPS);
    for (int r = 0; r < (plan ? plan->ranks : 1); r++) {
        CHECKF(j.same[r], "%s: rank %d has other parameters", name, r);
        free(j.x[r]);
    }
    free(whole);
    free(parts);
}

static void alone(void)
{
    check_stops("alone", NULL, 24, 2);
}

static void together(const char *name, int replicas, int stages, int tensor)
{
    run_plan p = { 0 };
    int rank = 0, good;
    good = CHECK_OK(run_plan_create(&p, replicas * stages * tensor, 6, 24, tensor, 1, replicas));
    for (int r = 0; good && r < replicas; r++) {
        run_replica *q = &p.replica[r];
        good = CHECK_OK(run_plan_replica(&p, r, stages));
        q->micro_batches = 12 / replicas;
        q->micro_batch = 2;
        for (int i = 0; good && i < stages * tensor; i++)
            q->rank[i] = rank++;
        for (int v = 0; good && v <= stages; v++)
            q->cut[v] = v * p.units / stages;
    }
    snprintf(p.schedule, sizeof p.schedule, "1f1b");
    if (good && CHECK_OK(run_plan_check(&p)))
        check_stops(name, &p, 24, 2);
    run_plan_release(&p);
}

static void replicas_together(void)
{
    together("replicas", 2, 1, 1);
}

static void stages_together(void)
{
    together("stages", 1, 2, 1);
}

static void tensor_ranks_together(void)
{
    together("tensor", 1, 1, 2);
}

/* Asked before anything was done: nothing is written that would have to be resumed. */
static void before_the_first_step(void)
{
    train_options o = tiny_options();
    char *run = gt_path_join(check_folder(), "early"), *path = NULL;
    checkpoint_info info;
    dev_device *d = tiny_device();
    config = tiny_config();
    o.run = run;
    train *t = d ? tiny_train(d, &config, &o) : NULL;
    gt_stop_note(SIGINT);
    if (t)
        CHECK_FAILS(train_run(t, NULL), GT_INTERRUPTED, "stopped before the first of");
    train_release(t);
    CHECK_FAILS(checkpoint_find(&path, &info, run), GT_NOT_FOUND, "checkpoint");
    train *other = NULL;
    CHECK_FAILS(tiny_create(&other, d, &config, &o), GT_INTERRUPTED, "stopped");
    gt_stop_withdraw();
    free(path);
    free(run);
    dev_close(d);
}

const check_case check_cases[] = {
    CASE(alone),
    CASE(replicas_together),
    CASE(stages_together),
    CASE(tensor_ranks_together),
    CASE(before_the_first_step),
    { 0 }
};
