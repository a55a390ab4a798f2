/* SPDX-License-Identifier: MIT */
/* tests/sync/test_residuals.c - what compression holds back is state of a run, as weights are.
 *
 *   10 steps ─────────────────────────────────► the same bits
 *   5 steps ──► checkpoint ──► 5 steps ───────►
 *                        └──► other ranks, who owe in all what the first ones did
 *
 * Residuals are each rank's own, so a run of other ranks cannot have the same ones: only their sum is owed. */
#include "host/base/file.h"
#include "host/compress/compressor.h"
#include "host/train/train_private.h"
#include "tests/check.h"
#include "tests/comm/ranks.h"
#include "tests/sync/replicas.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is held back is state: a run that goes on has the bits of one that never stopped; without it, it has not. The
 * warm-up, the ramp and random words go by the run's steps, wherever it was stopped. Some rows of a table have no
 * gradient in any step, and what encodings say of them must not become one. */
static void errors_outlive_a_stop(void)
{
    static const struct {
        const char *spec;
        uint64_t after;
    } cases[] = {
        { "bf16", 0 },
        { "fp16", 2 },
        { "int8,min=16", 0 },
        { "topk:0.05,min=16,ramp=3", 1 },
        { "randomk:0.1", 7 },
        { "topk:0.05,momentum=0.5", 2 },
        { "topk:0.02,sample=0.1,clip=0.5", 0 },
        { "powersgd:2,rate=0", 1 },
        { "onebit", 3 },
        { "onebit", 7 },
        { "zeroone:2", 0 },
        { "zeroone:1,freeze=3", 1 },
        { "demo:16,decay=0.9", 2 }
    };
    replicas_spare_positions = 5;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *mode = sync_mode_name(sync_mode_at(strstr(cases[i].spec, "one") ? 0 : (int)i % 2));
        char name[64], *file = NULL;
        snprintf(name, sizeof name, "%s-%zu", cases[i].spec, i);
        char *folder = gt_path_join(check_folder(), name);
        replicas whole = { 0 }, part = { 0 }, rest = { 0 };
        compress_spec c;
        if (!CHECK_OK(compress_parse(&c, cases[i].spec)))
            return;
        c.after = cases[i].after;
        const int ranks = c.how->serves && !check_tiny() ? REPLICAS_MOST : 2;
        if (replicas_run(&whole, ranks, mode, &c, REPLICAS_STEPS, NULL)
            && replicas_run(&part, ranks, mode, &c, REPLICAS_STEPS / 2, folder)) {
            file = gt_path_join(folder, "checkpoints/step-000005/residuals-00001.safetensors");
            CHECKF(gt_path_exists(file), "%s: there is no '%s'", mode, file);
            if (replicas_run(&rest, ranks, mode, &c, REPLICAS_STEPS, folder))
                CHECKF(!memcmp(rest.x[0], whole.x[0], whole.count * sizeof(float)), "%s, %s: going on gives other bits",
                       mode, cases[i].spec);
        }
        free(file);
        free(folder);
        replicas_release(&whole);
        replicas_release(&part);
        replicas_release(&rest);
    }
    replicas_spare_positions = 0;
}

/* ---- another plan ------------------------------------------------------------------------------ */

typedef struct owed {
    replicas *j;
    float *kept[REPLICAS_MOST]; /* residuals, or velocities behind them, one after the other */
    size_t count[REPLICAS_MOST];
} owed;

static gt_status all_kept(train *t, float **out, size_t *count)
{
    checkpoint_state states[CHECKPOINT_STATES];
    const int n = train_states(t, states);
    float *x;
    *out = NULL;
    *count = 0;
    for (int s = 0; s < n; s++)
        for (int i = 0; !strcmp(states[s].owner, "residuals") && i < states[s].count(states[s].context); i++) {
            checkpoint_entry e;
            states[s].entry(states[s].context, i, &e);
            x = realloc(*out, (*count + (size_t)e.end) * sizeof *x);
            RANK_CHECK(x);
            *out = x;
            RANK_OK(states[s].read(states[s].context, i, x + *count));
            *count += (size_t)e.end;
        }
    return GT_OK;
}

/* Trains, or goes on from a checkpoint and does not. */
static gt_status owing(net_comm *c, void *context)
{
    owed *w = context;
    const int rank = net_comm_rank(c);
    train_options o = w->j->o;
    dev_device *d = NULL;
    train *t = NULL;
    o.comm = c;
    o.plan = &w->j->plan;
    gt_status st = dev_open(&d, getenv("GT_TEST_DEVICE"));
    if (!st)
        st = tiny_create(&t, d, &replicas_model, &o);
    if (!st && !o.resume)
        st = train_run(t, NULL);
    if (!st)
        st = all_kept(t, &w->kept[rank], &w->count[rank]);
    train_release(t);
    dev_close(d);
    return st;
}

static int run_owing(owed *w, replicas *j, int ranks, const compress_spec *c, const char *folder, int resume)
{
    *w = (owed){ .j = j };
    j->o = tiny_options();
    j->o.steps = REPLICAS_STEPS / 2;
    j->o.compress = *c;
    j->o.run = folder;
    j->o.resume = resume;
    if (!c->how->moments) {
        optim_config_rule(&j->o.optim, optim_rule_find("sgd"));
        j->o.optim.momentum = 0.0;
    }
    replicas_model = tiny_config();
    return replicas_plan(&j->plan, ranks, "allreduce") && CHECK_OK(ranks_run(ranks, "algorithm=direct", owing, w));
}

/* Of all ranks; residuals of sums are owed as those of ranks are. */
static double owed_in_all(const owed *w, int ranks, size_t i, size_t each)
{
    double sum = 0.0;
    for (int r = 0; r < ranks; r++)
        for (size_t k = i; k < w->count[0]; k += each)
            sum += (double)w->kept[r][k];
    return sum;
}

/* Some ranks trained, others go on: each has its own residuals, and what they owe in all is what the first did. */
static void another_plan_owes_the_same(void)
{
    static const struct {
        const char *spec;
        int before, then;
    } cases[] = { { "bf16", 2, 3 },
                  { "int8,min=16", 2, 3 },
                  { "topk:0.02,momentum=0.5", 2, 3 },
                  { "powersgd:1,rate=0", 2, 3 },
                  { "onebit", 2, 3 },
                  { "onebit", 3, 2 },
                  { "zeroone:1", 3, 2 },
                  { "demo:8,decay=0.75", 2, 3 } };
    for (size_t k = 0; !check_tiny() && k < sizeof cases / sizeof *cases; k++) {
        const int before = cases[k].before, then = cases[k].then;
        char name[64];
        snprintf(name, sizeof name, "plan%zu", k);
        char *folder = gt_path_join(check_folder(), name);
        replicas j = { 0 };
        owed was, is;
        compress_spec c;
        double off = 0.0, size = 0.0;
        if (!CHECK_OK(compress_parse(&c, cases[k].spec)))
            return;
        c.after = (uint64_t)c.how->warms_up;
        if (!run_owing(&was, &j, before, &c, folder, 0))
            return;
        replicas_release(&j);
        if (!run_owing(&is, &j, then, &c, folder, 1))
            return;
        CHECK(was.count[0] > 0 && was.count[0] == was.count[1] && was.count[0] == is.count[then - 1]);
        const size_t each = c.how->serves ? was.count[0] / 2 : was.count[0];
        int served = 0;
        for (size_t i = 0; i < each; i++) {
            const double x = owed_in_all(&was, before, i, each), y = owed_in_all(&is, then, i, each);
            off = fmax(off, fabs(x - y));
            size = fmax(size, fabs(x));
            for (int r = 0; r < before && each < was.count[0]; r++)
                served |= was.kept[r][each + i] != 0.0f;
        }
        CHECKF(size > 0.0 && off <= 1e-6 * size, "%s: of at most %.3g, %.3g is not there any more", cases[k].spec, size,
               off);
        CHECK(served == (c.how->serves && before > 2));
        for (int r = 0; r < REPLICAS_MOST; r++) {
            free(was.kept[r]);
            free(is.kept[r]);
        }
        replicas_release(&j);
        free(folder);
    }
}

const check_case check_cases[] = { CASE(another_plan_owes_the_same), CASE(errors_outlive_a_stop), { 0 } };
