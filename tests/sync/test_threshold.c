/* SPDX-License-Identifier: MIT */
/* tests/sync/test_threshold.c - tensors that wait until they have changed enough (--send-threshold).
 *
 *   gradients of this test's own ─► buckets ─► SGD        beside the same in double, tensor by tensor
 *   training                                              a threshold of nothing has the bits of none; what is held
 *                                                         back outlives a stop and a change of plan          */
#include "host/base/file.h"
#include "host/base/random.h"
#include "host/sync/mode.h"
#include "host/train/train_private.h"
#include "tests/check.h"
#include "tests/comm/ranks.h"
#include "tests/train/tiny_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RANKS = 2, STEPS = 10, UNITS = 4, MOST_TENSORS = 64, WEIGHING = 2 };

static model_config config;

typedef struct job {
    run_plan plan;
    train_options o;
    int by_hand;                        /* the test's gradients, and no batches             */
    float *x[RANKS];
    size_t count;
    double sent, held;                  /* of all steps                                     */
} job;

static void note_row(void *context, const metrics_row *row)
{
    (void)context;
    (void)row;
}

/* ---- by hand ---------------------------------------------------------------------------------------- */

/* The gradient that a rank has of a tensor in a step: all ranks can reckon it. Tensors differ in size, and every third
 * step brings more. */
static void gradient_of(int rank, int tensor, int step, float *out, int64_t n)
{
    gt_random random;
    gt_random_init(&random, (uint64_t)(1000 * step + 10 * tensor + rank), 5);
    gt_random_normal(&random, out, (size_t)n, 0.0f, (float)(0.001 * (1 + tensor % 4) * (step % 3 ? 1.0 : 4.0)));
}

typedef struct reference {
    int64_t n;
    int may_wait;                       /* a matrix of 1024 values at least                 */
    double *w, *kept[RANKS], *given, *sent;
} reference;

static double norm(const double *x, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sqrt(sum);
}

/* A step in double; *held grows by 1 if the tensor waits. 0: too near to the threshold to tell. */
static int reference_step(reference *f, int tensor, int step, double x, double lr, int *held)
{
    float *g = malloc((size_t)f->n * sizeof *g);
    const double limit = x * norm(f->w, f->n);
    int sends = !f->may_wait, clear = g != NULL;
    for (int r = 0; g && r < RANKS; r++) {
        gradient_of(r, tensor, step, g, f->n);
        for (int64_t i = 0; i < f->n; i++) {
            f->kept[r][i] += (double)g[i];
            f->given[i] += (double)g[i];
        }
        const double size = RANKS * WEIGHING * norm(f->kept[r], f->n);
        sends |= size > limit;
        clear &= !f->may_wait || fabs(size / limit - 1.0) > 1e-4;
    }
    *held += !sends;
    for (int r = 0; sends && r < RANKS; r++)
        for (int64_t i = 0; i < f->n; i++) {
            f->w[i] -= lr * WEIGHING * f->kept[r][i];
            f->sent[i] += f->kept[r][i];
            f->kept[r][i] = 0.0;
        }
    free(g);
    return clear;
}

static gt_status make_reference(params *p, int i, reference *f)
{
    const graph_param_info *info = params_info(p, i);
    *f = (reference){ .n = shape_count(&info->shape) };
    f->may_wait = info->shape.rank >= 2 && f->n >= 1024;
    float *w = malloc((size_t)f->n * sizeof *w);
    double **arrays[] = { &f->w, &f->kept[0], &f->kept[1], &f->given, &f->sent };
    for (size_t k = 0; k < sizeof arrays / sizeof *arrays; k++) {
        *arrays[k] = calloc((size_t)f->n, sizeof **arrays[k]);
        RANK_CHECK(*arrays[k]);
    }
    RANK_CHECK(w);
    gt_status st = params_read(p, i, w);
    for (int64_t k = 0; k < f->n; k++)
        f->w[k] = (double)w[k];
    free(w);
    return st;
}

static gt_status write_gradients(train *t, int rank, int step)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < params_count(t->params); i++) {
        const int64_t n = shape_count(&params_info(t->params, i)->shape);
        float *g = malloc((size_t)n * sizeof *g);
        RANK_CHECK(g);
        gradient_of(rank, i, step, g, n);
        st = dev_write(t->device, params_grad(t->params, i), 0, g, 4 * (uint64_t)n);
        free(g);
    }
    return st;
}

/* What is held back lies in the state for checkpoints. */
static gt_status check_kept(train *t, int rank, const reference *f)
{
    checkpoint_state states[2];
    RANK_CHECK(sync_saved(t->sync, states) == 1);
    for (int e = 0; e < states[0].count(states[0].context); e++) {
        checkpoint_entry entry;
        states[0].entry(states[0].context, e, &entry);
        const reference *r = &f[entry.param];
        float *kept = malloc((size_t)r->n * sizeof *kept);
        RANK_CHECK(kept);
        gt_status st = states[0].read(states[0].context, e, kept);
        for (int64_t i = 0; !st && i < r->n; i++)
            if (fabs((double)kept[i] - r->kept[rank][i]) > 1e-6)
                st = gt_fail(GT_MISMATCH, "of '%s' %g is held back at %lld, not %g", entry.name, (double)kept[i],
                             (long long)i, r->kept[rank][i]);
        free(kept);
        if (st)
            return st;
    }
    return GT_OK;
}

static gt_status check_weights(train *t, const reference *f)
{
    for (int i = 0; i < params_count(t->params); i++) {
        float *w = malloc((size_t)f[i].n * sizeof *w);
        RANK_CHECK(w);
        gt_status st = params_read(t->params, i, w);
        for (int64_t k = 0; !st && k < f[i].n; k++)
            if (fabs((double)w[k] - f[i].w[k]) > 1e-5)
                st = gt_fail(GT_MISMATCH, "weight %lld of '%s' is %g, not %g", (long long)k,
                             params_info(t->params, i)->name, (double)w[k], f[i].w[k]);
        free(w);
        if (st)
            return st;
        for (int64_t k = 0; k < f[i].n; k++) /* nothing is lost */
            RANK_CHECK(fabs(f[i].given[k] - f[i].sent[k] - f[i].kept[0][k] - f[i].kept[1][k]) < 1e-12);
    }
    return GT_OK;
}

static gt_status steps_by_hand(train *t, int rank, job *j)
{
    static const double lr = 0.5;
    reference f[MOST_TENSORS];
    const int tensors = params_count(t->params);
    int all = 0;
    RANK_CHECK(tensors <= MOST_TENSORS);
    for (int i = 0; i < tensors; i++)
        RANK_OK(make_reference(t->params, i, &f[i]));
    for (int step = 1; step <= STEPS; step++) {
        flight flying = { .step = (uint64_t)step - 1 };
        int held = 0;
        for (int i = 0; i < tensors; i++)
            RANK_CHECK(reference_step(&f[i], i, step, j->o.compress.parameter, lr, &held));
        RANK_OK(write_gradients(t, rank, step));
        t->updating = &flying;
        optim_weigh(t->optim, TINY_B * TINY_T / WEIGHING);
        sync_step(t->sync, (uint64_t)step, 1.0, 1.0);
        RANK_OK(sync_ready(t->sync, 0, 0, 1));
        RANK_OK(sync_update(t->sync, lr));
        RANK_OK(sync_settle(t->sync));
        if ((int)sync_totals_of(t->sync)->held != held)
            return gt_fail(GT_MISMATCH, "step %d: %g tensors are held back, not %d", step,
                           sync_totals_of(t->sync)->held, held);
        RANK_CHECK(!held == !(sync_totals_of(t->sync)->spared > 0.0));
        all += held;
        RANK_OK(check_kept(t, rank, f));
    }
    RANK_OK(check_weights(t, f));
    if (!rank)
        j->held = all;
    for (int i = 0; i < tensors; i++) {
        free(f[i].w);
        free(f[i].kept[0]);
        free(f[i].kept[1]);
        free(f[i].given);
        free(f[i].sent);
    }
    return GT_OK;
}

/* ---- runs ---------------------------------------------------------------------------------------------- */

static gt_status body(net_comm *c, void *context)
{
    job *j = context;
    const int rank = net_comm_rank(c);
    const train_hooks hooks = { .context = j, .step = note_row };
    train_options o = j->o;
    dev_device *d = NULL;
    train *t = NULL;
    size_t count = 0;
    o.comm = c;
    o.plan = &j->plan;
    gt_status st = tiny_open(&d);
    if (!st)
        st = tiny_create(&t, d, &config, &o);
    if (!st)
        st = j->by_hand ? steps_by_hand(t, rank, j) : train_run(t, rank ? NULL : &hooks);
    if (!st)
        j->x[rank] = tiny_params(t, 0, &count);
    if (!st && !rank) {
        j->count = count;
        j->sent = (double)train_balance_of(t)->sent;
    }
    train_release(t);
    dev_close(d);
    return st;
}

static void release(job *j)
{
    for (int r = 0; r < RANKS; r++)
        free(j->x[r]);
    run_plan_release(&j->plan);
    *j = (job){ 0 };
}

static int run(job *j, const char *mode, double x, uint64_t steps, const char *folder)
{
    static const tiny_replica replicas[] = { { 1, 2, 2 }, { 1, 1, 2 } };
    sync_settings s;
    j->o = tiny_options();
    j->o.gemm = "native";
    j->o.steps = steps;
    j->o.run = folder;
    j->o.save_every = folder ? STEPS / 2 : 0;
    j->o.resume = folder && gt_path_exists(folder);
    j->o.optim.eps = 1e-4;
    if (j->by_hand) {
        optim_config_rule(&j->o.optim, optim_rule_find("sgd"));
        j->o.optim.momentum = j->o.optim.weight_decay = j->o.optim.clip = 0.0;
    }
    config = tiny_config();
    if (!CHECK_OK(compress_threshold(&j->o.compress, x))
        || !tiny_plan(&j->plan, UNITS, TINY_B, "1f1b", mode, replicas, 2, 1))
        return 0;
    sync_settings_usual(sync_mode_find(mode), &s);
    if (sync_setting_find(sync_mode_find(mode), "servers", NULL)
        && !CHECK_OK(sync_settings_set(sync_mode_find(mode), &s, "servers", "0:1,1:2")))
        return 0;
    run_plan_sync(&j->plan, mode, &s);
    return CHECK_OK(ranks_run(RANKS, "algorithm=direct", body, j));
}

static const char *const modes[] = { "allreduce", "sharded", "ps" };

static void waits_as_in_double(void)
{
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
        job j = { .by_hand = 1 };
        if (run(&j, modes[m], 0.15, STEPS, NULL))
            CHECKF(j.held > STEPS && !memcmp(j.x[0], j.x[1], j.count * sizeof(float)), "%s: %g tensors waited",
                   modes[m], j.held);
        release(&j);
    }
}

static void nothing_waits_for_nothing(void)
{
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
        job none = { 0 }, least = { 0 }, much = { 0 };
        if (run(&none, modes[m], 0.0, STEPS, NULL) && run(&least, modes[m], 1e-30, STEPS, NULL)
            && run(&much, modes[m], 1e3, STEPS, NULL)) {
            CHECKF(!memcmp(none.x[0], least.x[0], none.count * sizeof(float)), "%s: other bits", modes[m]);
            CHECKF(none.sent == least.sent && much.sent < none.sent, "%s: %.0f, %.0f and %.0f bytes", modes[m],
                   none.sent, least.sent, much.sent);
        }
        release(&none);
        release(&least);
        release(&much);
    }
}

static void what_waits_outlives_a_stop(void)
{
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
        char *folder = gt_path_join(check_folder(), modes[m]);
        job whole = { 0 }, part = { 0 }, rest = { 0 };
        if (run(&whole, modes[m], 0.5, STEPS, NULL) && run(&part, modes[m], 0.5, STEPS / 2, folder)
            && run(&rest, modes[m], 0.5, STEPS, folder))
            CHECKF(!memcmp(rest.x[0], whole.x[0], whole.count * sizeof(float)), "%s: going on gives other bits",
                   modes[m]);
        release(&whole);
        release(&part);
        release(&rest);
        free(folder);
    }
}

static void numbers_that_are_none_are_refused(void)
{
    compress_spec c = { 0 };
    CHECK_FAILS(compress_threshold(&c, -1.0), GT_MISUSE, "no number from 0 up");
    CHECK_OK(compress_threshold(&c, 0.0));
    CHECK(!compress_changes(&c));
    CHECK_OK(compress_parse(&c, "bf16"));
    CHECK_FAILS(compress_threshold(&c, 0.1), GT_MISUSE, "--compress bf16");
}

const check_case check_cases[] = {
    CASE(numbers_that_are_none_are_refused),
    CASE(waits_as_in_double),
    CASE(nothing_waits_for_nothing),
    CASE(what_waits_outlives_a_stop),
    { 0 }
};
