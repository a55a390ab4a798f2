/* SPDX-License-Identifier: MIT */
/* tests/train/test_weights.c - targets that do not count alike: the loss of a step is their weighted mean,
 * whoever computes how much of it.
 *
 *   a batch of this file's own      weights at random, 0 in one of three, and of one sequence all
 *   loss, norm and every gradient   as in double
 *   every kind of plan              the losses and parameters of one device
 */
#include "tests/check.h"

#include "host/base/random.h"
#include "host/kernel/reference.h"
#include "models/model_reference.h"
#include "tests/comm/ranks.h"
#include "tests/train/tiny_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 6, EMPTY = 3, LAYERS = 2, UNITS = LAYERS + 2, BATCH = 12, UNREAD = 4 };

/* ---- the batch ------------------------------------------------------------------------------- */

static int all_alike;                   /* every target weighs 1 */

/* Of the sample at a place in the data; no target of the step EMPTY counts, nor of its sequence UNREAD. */
static void weights_of(uint64_t sample, float *to)
{
    gt_random random;
    gt_random_init(&random, 11, sample);
    for (int i = 0; i < TINY_T; i++) {
        const float x = 2.0f * gt_random_unit(&random);
        const int counts = gt_random_below(&random, 3) && sample / BATCH != EMPTY && sample % BATCH != UNREAD;
        to[i] = all_alike ? 1.0f : counts ? x : 0.0f;
    }
}

static double total_of(uint64_t first, uint64_t count)
{
    float weights[TINY_T];
    double sum = 0.0;
    for (uint64_t i = 0; i < count; i++) {
        weights_of(first + i, weights);
        for (int t = 0; t < TINY_T; t++)
            sum += (double)weights[t];
    }
    return sum;
}

static gt_status fill(const data_batch *b, uint64_t position, uint64_t first, uint64_t count, void *const field[])
{
    for (uint64_t i = 0; field[2] && i < count; i++)
        weights_of(position + first + i, (float *)field[2] + i * TINY_T);
    return loader_read(b->loader, position, first, count, field[0], field[1]);
}

static gt_status fill_rows(const data_batch *b, uint64_t first, uint64_t count, uint64_t real, void *const field[])
{
    uint64_t filled;
    for (uint64_t i = 0; field[2] && i < count; i++) {
        weights_of(first + i, (float *)field[2] + i * TINY_T);
        if (i >= real)
            memset((float *)field[2] + i * TINY_T, 0, TINY_T * sizeof(float));
    }
    return loader_eval(b->loader, first, count, field[0], field[1], &filled);
}

static gt_status total(const data_batch *b, uint64_t position, uint64_t first, uint64_t count, data_total *out)
{
    (void)b;
    out->weights = total_of(position + first, count);
    return GT_OK;
}

static gt_status total_rows(const data_batch *b, uint64_t first, uint64_t count, data_total *out)
{
    (void)b;
    out->weights = total_of(first, count);
    return GT_OK;
}

static void weighted(data_batch *out, const void *config, const loader *l, const char *split)
{
    (void)config;
    *out = (data_batch){
        .field = { { .name = "tokens", .type = DTYPE_I32, .count = TINY_T },
                   { .name = "targets", .type = DTYPE_I32, .count = TINY_T },
                   { .name = "weights", .type = DTYPE_F32, .count = TINY_T } },
        .fields = 3,
        .fill = fill,
        .fill_rows = fill_rows,
        .weights = "weights",
        .total = total,
        .total_rows = total_rows,
        .loader = l,
        .split = split
    };
}

static model_config config;

static train_options options(void)
{
    train_options o = tiny_options();
    config = tiny_config();
    config.layers = LAYERS;
    config.weighted = 1;
    tiny_batch = weighted;
    o.order = LOADER_SEQUENTIAL;
    o.steps = STEPS;
    o.batch = BATCH;
    o.optim.eps = 1e-4;
    return o;
}

/* ---- one device ------------------------------------------------------------------------------ */

/* The first step in double, from the device's parameters. */
static model_reference *in_double(train *t, const train_options *o, double *loss, double *norm)
{
    static int32_t tokens[BATCH * TINY_T], targets[BATCH * TINY_T];
    static double weights[BATCH * TINY_T];
    float row[TINY_T];
    loader l;
    model_reference *r = NULL;
    params *p = train_params(t);
    token_split text;
    CHECK_OK(tiny_text(&text));
    CHECK_OK(loader_open(&l, &text, "it", o->order, BATCH, TINY_T, o->seed));
    CHECK_OK(loader_read(&l, 0, 0, BATCH, tokens, targets));
    for (int b = 0; b < BATCH; b++) {
        weights_of((uint64_t)b, row);
        for (int i = 0; i < TINY_T; i++)
            weights[b * TINY_T + i] = (double)row[i];
    }
    CHECK_OK(model_reference_create(&r, &config));
    for (int i = 0; i < params_count(p); i++) {
        model_reference_tensor *x = model_reference_find(r, params_info(p, i)->name);
        float *value = malloc((size_t)x->count * sizeof *value);
        CHECK_OK(params_read(p, i, value));
        for (int64_t k = 0; k < x->count; k++)
            x->value[k] = (double)value[k];
        free(value);
    }
    CHECK_OK(model_reference_run(r, BATCH, TINY_T, tokens, targets, weights, loss));
    *norm = 0.0;
    for (int i = 0; i < params_count(p); i++) {
        const model_reference_tensor *x = model_reference_find(r, params_info(p, i)->name);
        *norm += reference_square_sum(x->count, x->grad);
    }
    *norm = sqrt(*norm);
    return r;
}

/* Gradients come in as if each target weighed 1: the update makes them those of the mean. */
static void compare_gradients(train *t, model_reference *r)
{
    params *p = train_params(t);
    const double share = BATCH * TINY_T / total_of(0, BATCH);
    for (int i = 0; i < params_count(p); i++) {
        const model_reference_tensor *x = model_reference_find(r, params_info(p, i)->name);
        float *got = malloc((size_t)x->count * sizeof *got);
        double off = 0.0, size = 0.0;
        CHECK_OK(params_read_grad(p, i, got));
        for (int64_t k = 0; k < x->count; k++) {
            off += pow((double)got[k] * share - x->grad[k], 2);
            size += x->grad[k] * x->grad[k];
        }
        CHECKF(sqrt(off) <= 1e-5 * sqrt(size) + 1e-9, "%s is off by %.2g of %.2g", x->name, sqrt(off), sqrt(size));
        free(got);
    }
}

static void loss_and_gradients_are_those_of_the_weighted_mean(void)
{
    static const uint64_t micro[] = { BATCH, 2 };
    dev_device *d = tiny_device();
    for (int i = 0; d && i < 2; i++) {
        train_options o = options();
        double want, want_norm, loss, norm;
        o.micro_batch = micro[i];
        train *t = tiny_train(d, &config, &o);
        if (!t)
            break;
        model_reference *r = in_double(t, &o, &want, &want_norm);
        CHECK_OK(train_once(t, 0, 1, &loss, &norm));
        CHECKF(fabs(loss - want) <= 1e-6 * want, "the loss is %.9g, in double %.9g", loss, want);
        CHECKF(fabs(norm - want_norm) <= 1e-5 * want_norm, "the norm is %.9g, in double %.9g", norm, want_norm);
        compare_gradients(t, r);
        model_reference_release(r);
        train_release(t);
    }
    dev_close(d);
}

/* With no target there is no mean: the step moves nothing, and the next one goes on. */
static void a_step_without_a_target_moves_nothing(void)
{
    train_options o = options();
    dev_device *d = tiny_device();
    train *t = d ? tiny_train(d, &config, &o) : NULL;
    float scalars[OPTIM_STATE_FLOATS], after[OPTIM_STATE_FLOATS];
    double loss, norm;
    size_t count, same;
    dev_event *event = NULL;
    if (t && CHECK_OK(train_once(t, 0, 1, &loss, &norm))) {
        float *before = tiny_params(t, 0, &count);
        CHECK_OK(optim_state_read(train_optim(t), scalars, &event));
        CHECK_OK(dev_event_wait(event));
        CHECK_OK(train_once(t, EMPTY, 1, &loss, &norm));
        CHECK(isnan(loss) && norm == 0.0);
        float *now = tiny_params(t, 0, &same);
        CHECK(count == same && !memcmp(before, now, count * sizeof *now));
        CHECK_OK(optim_state_read(train_optim(t), after, &event));
        CHECK_OK(dev_event_wait(event));
        CHECK(after[OPTIM_STEP] == scalars[OPTIM_STEP] && after[OPTIM_SKIPPED] == 0.0f && after[OPTIM_HALTED] == 0.0f
              && after[OPTIM_SKIP] == 1.0f);
        CHECK_OK(train_once(t, EMPTY + 1, 1, &loss, &norm));
        CHECK(isfinite(loss) && norm > 0.0);
        free(before);
        free(now);
    }
    train_release(t);
    dev_close(d);
}

/* Weights of 1 are the bits of no weights. */
static void weights_of_one_change_no_bit(void)
{
    dev_device *d = tiny_device();
    float *x[2] = { NULL, NULL };
    size_t count[2] = { 0 };
    all_alike = 1;
    for (int i = 0; d && i < 2; i++) {
        train_options o = options();
        config.weighted = i;
        tiny_batch = i ? weighted : NULL;
        train *t = tiny_train(d, &config, &o);
        if (t && CHECK_OK(train_run(t, NULL)))
            x[i] = tiny_params(t, 0, &count[i]);
        train_release(t);
    }
    CHECK(x[0] && x[1] && count[0] == count[1] && !memcmp(x[0], x[1], count[0] * sizeof(float)));
    all_alike = 0;
    free(x[0]);
    free(x[1]);
    dev_close(d);
}

static void tokens_alone(data_batch *out, const void *of, const loader *l, const char *split)
{
    (void)of;
    data_batch_next_token(out, l, split);
    out->fields = 2;
}

static void model_and_batch_must_agree_on_weights(void)
{
    train_options o = options();
    dev_device *d = tiny_device();
    train *t = NULL;
    if (!d)
        return;
    config.weighted = 0;
    CHECK_FAILS(tiny_create(&t, d, &config, &o), GT_MISMATCH, "weigh their targets by 'weights', which the model");
    config.weighted = 1;
    tiny_batch = tokens_alone;
    CHECK_FAILS(tiny_create(&t, d, &config, &o), GT_MISMATCH, "reads 'weights', which its batches do not have");
    dev_close(d);
}

/* ---- plans ----------------------------------------------------------------------------------- */

typedef struct outcome {
    double loss[STEPS], norm[STEPS], val;
    int empty[STEPS];
} outcome;

static void note(void *context, const metrics_row *row)
{
    outcome *out = context;
    out->loss[row->step - 1] = row->loss;
    out->norm[row->step - 1] = row->grad_norm;
    out->empty[row->step - 1] = row->skipped && !strcmp(row->skipped, "no target counts");
    if (!isnan(row->val.loss))
        out->val = row->val.loss;
}

typedef struct job {
    const run_plan *plan;
    outcome out;
} job;

static gt_status body(net_comm *c, void *context)
{
    job *j = context;
    train_options o = options();
    const train_hooks hooks = { .context = &j->out, .step = note };
    dev_device *d = NULL;
    train *t = NULL;
    o.comm = c;
    o.plan = j->plan;
    o.gemm = "native";
    o.eval_every = STEPS;
    o.eval_batches = 3;
    o.micro_batch = 0;
    gt_status st = tiny_open(&d);
    if (!st)
        st = tiny_create(&t, d, &config, &o);
    if (!st)
        st = train_run(t, c && net_comm_rank(c) ? NULL : &hooks);
    train_release(t);
    dev_close(d);
    return st;
}

static void follows(const char *what, const outcome *want, const char *schedule, const char *sync,
                    const tiny_replica *r, int count, int tensor)
{
    run_plan p = { 0 };
    job j = { .plan = &p };
    options();
    if (tiny_plan(&p, UNITS, BATCH, schedule, sync, r, count, tensor) && CHECK_OK(ranks_run(p.ranks, "", body, &j)))
        for (int s = 0; s < STEPS; s++) {
            CHECKF(j.out.empty[s] == (s == EMPTY) && isnan(j.out.loss[s]) == (s == EMPTY), "%s, step %d", what, s);
            if (s == EMPTY)
                continue;
            CHECKF(fabs(j.out.loss[s] - want->loss[s]) <= 1e-6 * want->loss[s], "%s, step %d: loss %.9g, not %.9g",
                   what, s, j.out.loss[s], want->loss[s]);
            CHECKF(fabs(j.out.norm[s] - want->norm[s]) <= 1e-5 * want->norm[s], "%s, step %d: norm %.9g, not %.9g",
                   what, s, j.out.norm[s], want->norm[s]);
        }
    CHECKF(fabs(j.out.val - want->val) <= 1e-6 * want->val, "%s: %.9g validated, not %.9g", what, j.out.val, want->val);
    run_plan_release(&p);
}

static void every_plan_has_the_same_mean(void)
{
    job one = { .plan = NULL };
    options();
    if (!CHECK_OK(body(NULL, &one)))
        return;
    CHECK(one.out.empty[EMPTY] && one.out.loss[0] > 3.0);
    const double rows = total_of(0, 3 * BATCH);
    CHECK(rows > 0.0 && one.out.val > 3.0 && one.out.val < 4.0);
    follows("accumulated", &one.out, "1f1b", "allreduce", (tiny_replica[]){ { 1, 6, 2 } }, 1, 1);
    follows("two unequal replicas", &one.out, "1f1b", "allreduce", (tiny_replica[]){ { 1, 4, 2 }, { 1, 4, 1 } }, 2, 1);
    follows("two replicas, state shared out", &one.out, "1f1b", "sharded", (tiny_replica[]){ { 1, 4, 2 }, { 1, 1, 4 } },
            2, 1);
    follows("two stages", &one.out, "1f1b", "allreduce", (tiny_replica[]){ { 2, 4, 3 } }, 1, 1);
    follows("two tensor ranks", &one.out, "1f1b", "allreduce", (tiny_replica[]){ { 1, 4, 3 } }, 1, 2);
}

const check_case check_cases[] = {
    CASE(loss_and_gradients_are_those_of_the_weighted_mean),
    CASE(a_step_without_a_target_moves_nothing),
    CASE(weights_of_one_change_no_bit),
    CASE(model_and_batch_must_agree_on_weights),
    CASE(every_plan_has_the_same_mean),
    { 0 }
};
