/* SPDX-License-Identifier: MIT */
/* tests/train/test_whole_rules.c - rules that need tensors whole, where ranks have slices of them.
 *
 *   one device, 8 steps ──► losses, parameters
 *   tensor ranks, alone, in stages and in replicas ──► the same; resumed by each other from half way on
 */
#include "host/base/file.h"
#include "tests/check.h"
#include "tests/comm/ranks.h"
#include "tests/train/tiny_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 8, LAYERS = 2, UNITS = LAYERS + 2, BATCH = 12 };

static model_config config;

typedef struct outcome {
    double loss[STEPS];
    float *x;                           /* all parameters of one device */
    size_t count;
} outcome;

typedef struct job {
    const char *rule, *run;             /* run NULL: nothing is kept */
    const run_plan *plan;
    uint64_t steps;
    int resume;
    outcome out;
    const outcome *want;                /* NULL: this is what others are held against */
    double worst;                       /* rank 0's parameters, relative */
} job;

static train_options options(const job *j)
{
    train_options o = tiny_options();
    config = tiny_config();
    config.layers = LAYERS;
    config.heads = 4;
    optim_config_rule(&o.optim, optim_rule_find(j->rule));
    o.optim.lr = 1e-3;
    o.optim.eps = 1e-4;
    o.optim.clip = 0.5;                 /* its factor belongs to the whole gradient */
    o.steps = j->steps;
    o.batch = BATCH;
    o.gemm = "native";
    o.run = j->run;
    o.save_every = STEPS / 2;
    o.resume = j->resume;
    o.plan = j->plan;
    return o;
}

static void note(void *context, const metrics_row *row)
{
    job *j = context;
    j->out.loss[row->step - 1] = row->loss;
}

/* Of rank 0, which has a slice of most. */
static gt_status compare(train *t, job *j)
{
    params *p = train_params(t);
    graph *whole = NULL;
    gt_status st = graph_create(&whole, DTYPE_F32, 1, TINY_T);
    if (!st)
        st = model_build_part(whole, &config, NULL, 0, 0);
    for (int i = 0; !st && i < params_count(p); i++) {
        const graph_param_info *info = params_info(p, i);
        const size_t n = (size_t)shape_count(&info->shape);
        size_t at = 0;
        for (int k = 0; strcmp(graph_param_at(whole, k)->name, info->name); k++)
            at += (size_t)shape_count(&graph_param_at(whole, k)->shape);
        float *got = malloc(n * sizeof *got), *part = malloc(n * sizeof *part);
        double off = 0.0, size = 0.0;
        tensor_slice_take(part, j->want->x + at, &info->full, &info->slice);
        st = params_read(p, i, got);
        for (size_t k = 0; !st && k < n; k++) {
            off += pow((double)got[k] - (double)part[k], 2);
            size += pow((double)part[k], 2);
        }
        /* A key's bias has no gradient but rounding, of which Adafactor makes whole steps. */
        if (strcmp(j->rule, "adafactor") || !strstr(info->name, "attn.c_attn.bias"))
            j->worst = fmax(j->worst, sqrt(off / fmax(size, 1e-30)));
        free(got);
        free(part);
    }
    graph_release(whole);
    return st;
}

static gt_status body(net_comm *c, void *context)
{
    job *j = context;
    const int speaks = !c || net_comm_rank(c) == 0;
    train_options o = options(j);
    const train_hooks hooks = { .context = j, .step = note };
    dev_device *d = NULL;
    train *t = NULL;
    o.comm = c;
    gt_status st = tiny_open(&d);
    if (!st)
        st = tiny_create(&t, d, &config, &o);
    if (!st)
        st = train_run(t, speaks ? &hooks : NULL);
    if (!st && speaks && j->want)
        st = compare(t, j);
    else if (!st && speaks && !c)
        j->out.x = tiny_params(t, 0, &j->out.count);
    train_release(t);
    dev_close(d);
    return st;
}

static int goes(job *j)
{
    options(j);                         /* before the threads of ranks do */
    return CHECK_OK(j->plan ? ranks_run(j->plan->ranks, "", body, j) : body(NULL, j));
}

static void check_same(const char *what, const job *j, int from)
{
    double worst = 0.0;
    for (int s = from; s < STEPS; s++)
        worst = fmax(worst, fabs(j->out.loss[s] - j->want->loss[s]) / j->want->loss[s]);
    CHECKF(worst <= 1e-6, "%s, %s: a loss differs by %.2g of itself", j->rule, what, worst);
    /* Without an eps Adafactor makes as long steps of small gradients, and of their rounding, as of large ones. */
    CHECKF(j->worst <= (strcmp(j->rule, "adafactor") ? 1e-5 : 2e-4), "%s, %s: a parameter differs by %.2g of itself",
           j->rule, what, j->worst);
}

static void follows(const char *rule, const outcome *want, const char *what, const char *sync, const tiny_replica *r,
                    int count, const double *share)
{
    run_plan p;
    job j = { .rule = rule, .plan = &p, .steps = STEPS, .want = want };
    if (tiny_plan(&p, UNITS, BATCH, "1f1b", sync, r, count, 2)) {
        for (int k = 0; share && k < 2; k++)
            p.share[k] = share[k];
        if (goes(&j))
            check_same(what, &j, 0);
    }
    run_plan_release(&p);
}

/* Half of the steps by one, the others by two tensor ranks, and the other way round. */
static void goes_on(const char *rule, const outcome *want, int tensor_first)
{
    char name[32];
    run_plan p;
    job j = { .rule = rule, .steps = STEPS / 2, .want = want };
    snprintf(name, sizeof name, "%s-%d", rule, tensor_first);
    char *run = gt_path_join(check_folder(), name);
    j.run = run;
    if (tiny_plan(&p, UNITS, BATCH, "1f1b", "allreduce", (tiny_replica[]){ { 1, 2, 6 } }, 1, 2)) {
        j.plan = tensor_first ? &p : NULL;
        if (goes(&j)) {
            j.plan = tensor_first ? NULL : &p;
            j.steps = STEPS;
            j.resume = 1;
            j.worst = 0.0;
            if (goes(&j))
                check_same(tensor_first ? "one device after two" : "two devices after one", &j, 0);
        }
    }
    run_plan_release(&p);
    free(run);
}

/* The bits of ranks that were interrupted are those of ranks that were not. */
static void repeats(const char *rule)
{
    char name[32];
    run_plan p;
    job whole = { .rule = rule, .plan = &p, .steps = STEPS }, half = whole;
    snprintf(name, sizeof name, "%s-again", rule);
    char *run = gt_path_join(check_folder(), name);
    if (tiny_plan(&p, UNITS, BATCH, "1f1b", "allreduce", (tiny_replica[]){ { 1, 2, 6 } }, 1, 2)) {
        half.run = run;
        half.steps = STEPS / 2;
        int good = goes(&whole) && goes(&half);
        half.steps = STEPS;
        half.resume = 1;
        if (good && goes(&half))
            CHECKF(!memcmp(whole.out.loss, half.out.loss, sizeof whole.out.loss), "%s: a loss differs", rule);
    }
    run_plan_release(&p);
    free(run);
}

static void holds(const char *rule)
{
    static const double unequal[] = { 0.75, 0.25 };
    job one = { .rule = rule, .steps = STEPS };
    if (!goes(&one))
        return;
    CHECK(one.out.loss[STEPS - 1] < one.out.loss[0]);
    follows(rule, &one.out, "two tensor ranks", "allreduce", (tiny_replica[]){ { 1, 2, 6 } }, 1, NULL);
    follows(rule, &one.out, "two stages of unequal tensor ranks", "allreduce", (tiny_replica[]){ { 2, 4, 3 } }, 1,
            unequal);
    follows(rule, &one.out, "two replicas of two tensor ranks", "allreduce",
            (tiny_replica[]){ { 1, 2, 4 }, { 1, 4, 1 } }, 2, NULL);
    follows(rule, &one.out, "the same, state shared out", "sharded", (tiny_replica[]){ { 1, 2, 4 }, { 1, 4, 1 } }, 2,
            unequal);
    follows(rule, &one.out, "replicas of unlike depth, state shared out", "sharded",
            (tiny_replica[]){ { 2, 4, 2 }, { 1, 2, 2 } }, 2, unequal);
    goes_on(rule, &one.out, 1);
    goes_on(rule, &one.out, 0);
    repeats(rule);
    free(one.out.x);
}

static void muon_needs_no_whole_matrix_on_a_rank(void)
{
    holds("muon");
}
static void adafactor_needs_no_whole_tensor_on_a_rank(void)
{
    holds("adafactor");
}

const check_case check_cases[] = {
    CASE(muon_needs_no_whole_matrix_on_a_rank), CASE(adafactor_needs_no_whole_tensor_on_a_rank), { 0 }
};
