/* SPDX-License-Identifier: MIT */
/* tests/optim/test_optim.c - schedules at known points; updates on the device against the
 * same formulas in double precision; what happens when a gradient is not finite.          */
#include "tests/check.h"

#include "host/base/random.h"
#include "host/kernel/reference.h"
#include "host/optim/optim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- schedules --------------------------------------------------------------------------- */

static int near(double a, double b)
{
    return fabs(a - b) <= 1e-12 + 1e-9 * fabs(b);
}

static void schedules_pass_known_points(void)
{
    optim_config c = optim_defaults();
    c.lr = 1.0;
    c.min_lr = 0.2;
    c.warmup = 10;
    c.steps = 110;
    static const optim_schedule all[] = { LR_CONSTANT, LR_COSINE, LR_LINEAR, LR_WSD };
    for (int i = 0; i < 4; i++) {
        c.schedule = all[i];
        CHECK(near(optim_lr(&c, 0), 0.1));
        CHECK(near(optim_lr(&c, 4), 0.5));
        CHECK(near(optim_lr(&c, 9), 1.0));
        CHECK(near(optim_lr(&c, 10), 1.0));
        CHECK(near(optim_lr(&c, 110), all[i] == LR_CONSTANT ? 1.0 : 0.2));
        CHECK(near(optim_lr(&c, 5000), all[i] == LR_CONSTANT ? 1.0 : 0.2));
        for (uint64_t s = 10; s < 120; s++)
            CHECK(optim_lr(&c, s + 1) <= optim_lr(&c, s) + 1e-12);
    }
    c.schedule = LR_COSINE;
    CHECK(near(optim_lr(&c, 60), 0.6));
    CHECK(near(optim_lr(&c, 35), 0.2 + 0.4 * (1.0 + sqrt(0.5))));
    c.schedule = LR_LINEAR;
    CHECK(near(optim_lr(&c, 60), 0.6));
    CHECK(near(optim_lr(&c, 35), 0.8));
    c.schedule = LR_WSD;
    c.decay_share = 0.2;                    /* the last 20 of 100 */
    CHECK(near(optim_lr(&c, 89), 1.0));
    CHECK(near(optim_lr(&c, 90), 1.0));
    CHECK(near(optim_lr(&c, 100), 0.6));
    c.decay_share = 0.0;
    CHECK(near(optim_lr(&c, 109), 1.0));
    c.schedule = LR_COSINE;
    c.min_lr = -1.0;                        /* a tenth of the peak */
    CHECK(near(optim_lr(&c, 110), 0.1));
    c.warmup = 0;
    CHECK(near(optim_lr(&c, 0), 1.0));
    c.warmup = 500;                         /* longer than the run */
    CHECK(near(optim_lr(&c, 109), 110.0 / 500.0));
}

static void settings_out_of_range_are_refused(void)
{
    const optim_config good = optim_defaults();
    optim_config c = good;
    CHECK_OK(optim_config_check(&c));
    c.lr = -1.0;
    CHECK_FAILS(optim_config_check(&c), GT_MISUSE, "learning rate");
    c.lr = NAN;
    CHECK_FAILS(optim_config_check(&c), GT_MISUSE, "learning rate");
    c = good;
    c.beta2 = 1.0;
    CHECK_FAILS(optim_config_check(&c), GT_MISUSE, "beta2 of adamw, 1, is not in [0, 1)");
    c = good;
    c.eps = 0.0;
    CHECK_FAILS(optim_config_check(&c), GT_MISUSE, "eps");
    c = good;
    optim_config_rule(&c, optim_rule_find("sgd"));
    c.momentum = 1.0;
    CHECK_FAILS(optim_config_check(&c), GT_MISUSE, "momentum");
    c = good;
    c.decay_share = 1.5;
    CHECK_FAILS(optim_config_check(&c), GT_MISUSE, "decays");
}

/* ---- updates ------------------------------------------------------------------------------- */

/* Sizes around a work-item's share, a vector, and a block of the norm (16384). */
static const struct {
    const char *name;
    int64_t rows, cols;
} shapes[] = {
    { "a.weight", 3, 5 }, { "a.bias", 0, 5 },      { "b.weight", 129, 131 },
    { "b.bias", 0, 1 },   { "c.weight", 64, 256 }, { "c.bias", 0, 16385 },
};
enum { TENSORS = sizeof shapes / sizeof *shapes, MOST = 16900 };

typedef struct bench {
    dev_device *device;
    kernel_set *kernels;
    gemm_context *gemm;
    graph *graph;
    params *params;
    optim *optim;
    optim_config config;
    double *p[TENSORS], *m[TENSORS], *v[TENSORS];       /* the reference */
    double *g[TENSORS];
    size_t n[TENSORS];
    gt_random random;
} bench;

static int bench_open(bench *b, dtype storage, const optim_config *c)
{
    memset(b, 0, sizeof *b);
    b->config = *c;
    gt_random_init(&b->random, 11, 1);
    if (!CHECK_OK(dev_open(&b->device, getenv("GT_TEST_DEVICE")))
        || !CHECK_OK(kernel_set_create(&b->kernels, b->device, storage))
        || !CHECK_OK(gemm_context_create(&b->gemm, b->device, NULL))
        || !CHECK_OK(graph_create(&b->graph, storage, 1, 1)))
        return 0;
    for (int i = 0; i < TENSORS; i++)
        graph_param(b->graph, shapes[i].name,
                    shapes[i].rows ? shape_of(2, shapes[i].rows, shapes[i].cols) : shape_of(1, shapes[i].cols),
                    GRAPH_INIT_NORMAL, 0.5f);
    if (!CHECK_OK(graph_failed(b->graph)) || !CHECK_OK(params_create(&b->params, b->device, b->graph, 1))
        || !CHECK_OK(params_init(b->params, 3)) || !CHECK_OK(params_refresh(b->params, b->kernels))
        || !CHECK_OK(optim_create(&b->optim, b->device, b->kernels, b->gemm, b->params, c, 1.0, NULL)))
        return 0;
    float x[MOST];
    for (int i = 0; i < TENSORS; i++) {
        b->n[i] = (size_t)shape_count(&params_info(b->params, i)->shape);
        b->p[i] = calloc(b->n[i], sizeof(double));
        b->m[i] = calloc(b->n[i], sizeof(double));
        b->v[i] = calloc(b->n[i], sizeof(double));
        b->g[i] = calloc(b->n[i], sizeof(double));
        CHECK_OK(params_read(b->params, i, x));
        for (size_t k = 0; k < b->n[i]; k++)
            b->p[i][k] = (double)x[k];
    }
    return 1;
}

static void bench_close(bench *b)
{
    for (int i = 0; i < TENSORS; i++) {
        free(b->p[i]);
        free(b->m[i]);
        free(b->v[i]);
        free(b->g[i]);
    }
    optim_release(b->optim);
    params_release(b->params);
    graph_release(b->graph);
    gemm_context_release(b->gemm);
    kernel_set_release(b->kernels);
    dev_close(b->device);
}

/* New random gradients of this size, multiplied by `scale` on the device; element `bad` of
 * the first tensor is not finite if that is not negative. */
static void put_gradients(bench *b, float size, float scale, int bad)
{
    float x[MOST];
    const float zero = 0.0f;
    for (int i = 0; i < TENSORS; i++) {
        int segment;
        int64_t first;
        gt_random_normal(&b->random, x, b->n[i], 0.0f, size);
        for (size_t k = 0; k < b->n[i]; k++) {
            b->g[i][k] = (double)x[k];
            x[k] *= scale;
        }
        if (i == 0 && bad >= 0)
            x[bad] = INFINITY;
        params_place(b->params, i, &segment, &first);
        CHECK_OK(
            dev_write(b->device, params_segment_at(b->params, segment)->grad, 4 * (uint64_t)first, x, 4 * b->n[i]));
    }
    CHECK_OK(dev_write(b->device, optim_loss_sum(b->optim), 0, &zero, 4));
}

static double reference_norm(const bench *b)
{
    double squares = 0.0;
    for (int i = 0; i < TENSORS; i++)
        for (size_t k = 0; k < b->n[i]; k++)
            squares += b->g[i][k] * b->g[i][k];
    return sqrt(squares);
}

/* What Lion adds to is near 0: its sign is a matter of rounding, and the element is not looked at again. */
static void doubt(bench *b, int i, double clip)
{
    for (size_t k = 0; k < b->n[i]; k++) {
        const double m = b->config.beta1 * b->m[i][k], g = (1.0 - b->config.beta1) * clip * b->g[i][k];
        if (fabs(m + g) < 1e-5 * (fabs(m) + fabs(g)))
            b->p[i][k] = NAN;
    }
}

/* Step t = 1, 2, ... in double. Of Adafactor, m holds rows and then columns. */
static void reference_step(bench *b, double lr, int t)
{
    const optim_config *c = &b->config;
    const char *rule = optim_rule_name(c->rule);
    const double norm = reference_norm(b);
    const double clip = c->clip > 0.0 ? fmin(1.0, c->clip / (norm + 1e-6)) : 1.0;
    for (int i = 0; i < TENSORS; i++) {
        const int64_t n = (int64_t)b->n[i];
        const int R = shapes[i].rows ? (int)shapes[i].rows : 1, C = (int)shapes[i].cols;
        const double decay = shapes[i].rows ? c->weight_decay : 0.0;
        const double adam = !strcmp(rule, "muon") && c->adamw_lr > 0.0 ? c->adamw_lr / c->lr : 1.0;
        double *p = b->p[i], *m = b->m[i], *v = b->v[i];
        if (!strcmp(rule, "sgd"))
            reference_sgd(n, p, b->g[i], m, clip, lr, c->momentum, decay);
        else if (!strcmp(rule, "lion")) {
            doubt(b, i, clip);
            reference_lion(n, p, b->g[i], m, clip, lr, c->beta1, c->beta2, decay);
        } else if (!strcmp(rule, "adafactor"))
            reference_adafactor(R, C, p, b->g[i], R > 1 ? m : NULL, R > 1 ? m + R : NULL, R > 1 ? NULL : v, t, clip, lr,
                                c->decay_rate, c->update_clip, decay);
        else if (!strcmp(rule, "muon") && R > 1)
            reference_muon(R, C, p, b->g[i], m, clip, lr, c->momentum, decay);
        else
            reference_adamw(n, p, b->g[i], m, v, t, clip, lr * adam, c->beta1, c->beta2, c->eps, decay);
    }
}

static void read_state(bench *b, float *state)
{
    dev_event *event = NULL;
    CHECK_OK(optim_state_read(b->optim, state, &event));
    CHECK_OK(dev_event_wait(event));
}

static double worst_difference(bench *b)
{
    float x[MOST];
    double worst = 0.0;
    for (int i = 0; i < TENSORS; i++) {
        CHECK_OK(params_read(b->params, i, x));
        for (size_t k = 0; k < b->n[i]; k++)
            worst = fmax(worst, fabs((double)x[k] - b->p[i][k]));
    }
    return worst;
}

static void updates_follow_the_formulas(void)
{
    static const struct {
        const char *rule;
        double decay, clip, momentum;
        float size;
    } cases[] = {
        { "adamw", 0.1, 1.0, 0.0, 1.0f },     { "adamw", 0.0, 0.0, 0.0, 1e-4f },     { "adamw", 0.5, 1e6, 0.0, 10.0f },
        { "sgd", 0.1, 1.0, 0.9, 1.0f },       { "sgd", 0.0, 0.0, 0.0, 0.1f },        { "lion", 0.3, 1.0, 0.0, 1.0f },
        { "lion", 0.0, 0.0, 0.0, 0.1f },      { "muon", 0.1, 1.0, 0.95, 1.0f },      { "muon", 0.0, 0.0, 0.0, 1e-3f },
        { "adafactor", 0.1, 1.0, 0.0, 1.0f }, { "adafactor", 0.0, 0.0, 0.0, 1e-4f },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        optim_config c = optim_defaults();
        optim_config_rule(&c, optim_rule_find(cases[i].rule));
        c.weight_decay = cases[i].decay;
        c.clip = cases[i].clip;
        c.momentum = cases[i].momentum;
        c.adamw_lr = 2.0 * c.lr;
        bench b;
        float state[OPTIM_STATE_FLOATS];
        if (bench_open(&b, DTYPE_F32, &c)) {
            for (int t = 1; t <= 8; t++) {
                const double lr = 0.01 / t;
                put_gradients(&b, cases[i].size, 1.0f, -1);
                CHECK_OK(optim_step(b.optim, lr));
                reference_step(&b, lr, t);
                read_state(&b, state);
                CHECKF(fabs((double)state[OPTIM_GRAD_NORM] / reference_norm(&b) - 1.0) < 1e-5,
                       "case %zu, step %d: norm %g, want %g", i, t, (double)state[OPTIM_GRAD_NORM], reference_norm(&b));
                CHECK(state[OPTIM_STEP] == (float)t && state[OPTIM_SKIP] == 0.0f);
            }
            CHECKF(worst_difference(&b) < 2e-6, "case %zu, %s: off by %g", i, cases[i].rule, worst_difference(&b));
        }
        bench_close(&b);
    }
}

/* A rule's state of all tensors and its scalars, in the order of a checkpoint; or back. */
static void carry_state(bench *b, float *state, int back)
{
    const checkpoint_state s = optim_saved(b->optim);
    for (int i = 0; i < s.count(s.context); i++) {
        checkpoint_entry e;
        s.entry(s.context, i, &e);
        CHECK(e.begin < e.end && (e.param >= 0 || !strcmp(e.name, "scalars")));
        CHECK_OK(back ? s.write(s.context, i, state) : s.read(s.context, i, state));
        state += e.end - e.begin;
    }
}

static void all_params(bench *b, float *x)
{
    for (int i = 0; i < TENSORS; i++) {
        CHECK_OK(params_read(b->params, i, x));
        x += b->n[i];
    }
}

static void take_steps(bench *b, int first, int end)
{
    for (int t = 1; t <= end; t++) {
        put_gradients(b, 1.0f, 1.0f, -1);       /* those of all steps are drawn, from one seed */
        if (t >= first)
            CHECK_OK(optim_step(b->optim, 0.01 / t));
    }
}

/* Three steps, then two more of another optimizer that took over the state: the same bits. */
static void every_rule_goes_on_from_its_state(void)
{
    enum { ALL = 1 << 17 };
    float *x[2] = { calloc(ALL, sizeof(float)), calloc(ALL, sizeof(float)) }, *state = calloc(ALL, sizeof(float));
    for (int r = 0; optim_rules[r]; r++) {
        optim_config c = optim_defaults();
        optim_config_rule(&c, optim_rules[r]);
        bench a, b;
        if (bench_open(&a, DTYPE_F32, &c)) {
            take_steps(&a, 1, 3);
            carry_state(&a, state, 0);
            if (bench_open(&b, DTYPE_F32, &c)) {
                for (int i = 0; i < TENSORS; i++) {
                    CHECK_OK(params_read(a.params, i, x[0]));
                    CHECK_OK(params_write(b.params, i, x[0]));
                }
                carry_state(&b, state, 1);
                take_steps(&b, 4, 5);
                gt_random_init(&a.random, 11, 1);
                take_steps(&a, 4, 5);
                all_params(&a, x[0]);
                all_params(&b, x[1]);
                CHECKF(!memcmp(x[0], x[1], ALL * sizeof(float)), "%s: other parameters", optim_rule_name(c.rule));
                carry_state(&a, x[0], 0);
                carry_state(&b, x[1], 0);
                CHECKF(!memcmp(x[0], x[1], ALL * sizeof(float)), "%s: other state", optim_rule_name(c.rule));
            }
            bench_close(&b);
        }
        bench_close(&a);
    }
    free(x[0]);
    free(x[1]);
    free(state);
}

/* Slots are what estimates count, and what lies on the device. */
static void slots_say_what_is_kept(void)
{
    static const struct {
        const char *rule;
        double least, most;
    } kept[] = { { "adamw", 8, 8 }, { "sgd", 4, 4 }, { "lion", 4, 4 }, { "muon", 4, 8 }, { "adafactor", 0, 0 } };
    const int64_t matrices = 3 * 5 + 129 * 131 + 64 * 256, vectors = 5 + 1 + 16385;
    const int64_t want[] = { 8 * (matrices + vectors), 4 * (matrices + vectors), 4 * (matrices + vectors),
                             4 * matrices + 8 * vectors, 4 * (3 + 5 + 129 + 131 + 64 + 256) + 4 * vectors };
    for (int i = 0; i < 5; i++) {
        optim_config c = optim_defaults();
        double least, most;
        int64_t bytes = 0;
        bench b;
        optim_config_rule(&c, optim_rule_find(kept[i].rule));
        optim_state_bytes(&c, &least, &most);
        CHECK(least == kept[i].least && most == kept[i].most);
        if (bench_open(&b, DTYPE_F32, &c)) {
            const checkpoint_state s = optim_saved(b.optim);
            for (int k = 0; k < s.count(s.context); k++) {
                checkpoint_entry e;
                s.entry(s.context, k, &e);
                bytes += e.param < 0 ? 0 : 4 * (e.end - e.begin);
            }
            CHECKF(bytes == want[i], "%s: %lld bytes", kept[i].rule, (long long)bytes);
        }
        bench_close(&b);
    }
}

/* Without a gradient, matrices shrink by lr * decay a step and vectors stay. */
static void only_matrices_decay(void)
{
    optim_config c = optim_defaults();
    bench b;
    if (bench_open(&b, DTYPE_F32, &c)) {
        float x[MOST];
        put_gradients(&b, 0.0f, 1.0f, -1);
        CHECK_OK(optim_step(b.optim, 0.5));
        for (int i = 0; i < TENSORS; i++) {
            const double keep = shapes[i].rows ? 1.0 - 0.5 * c.weight_decay : 1.0;
            CHECK_OK(params_read(b.params, i, x));
            for (size_t k = 0; k < b.n[i]; k++)
                CHECK(fabs((double)x[k] - keep * b.p[i][k]) <= 1e-7 * fabs(b.p[i][k]));
        }
    }
    bench_close(&b);
}

static void a_gradient_that_is_not_finite_halts_fp32(void)
{
    optim_config c = optim_defaults();
    bench b;
    float state[OPTIM_STATE_FLOATS];
    if (bench_open(&b, DTYPE_F32, &c)) {
        put_gradients(&b, 1.0f, 1.0f, -1);
        CHECK_OK(optim_step(b.optim, 0.01));
        reference_step(&b, 0.01, 1);
        const double before = worst_difference(&b);
        put_gradients(&b, 1.0f, 1.0f, 7);
        CHECK_OK(optim_step(b.optim, 0.01));
        read_state(&b, state);
        CHECK(state[OPTIM_SKIP] == 1.0f && state[OPTIM_HALTED] == 1.0f && state[OPTIM_STEP] == 1.0f);
        CHECK(worst_difference(&b) == before);
        put_gradients(&b, 1.0f, 1.0f, -1);      /* queued behind it, and good: too late */
        CHECK_OK(optim_step(b.optim, 0.01));
        CHECK(worst_difference(&b) == before);
    }
    bench_close(&b);
}

static void the_loss_scale_grows_and_backs_off(void)
{
    optim_config c = optim_defaults();
    c.loss_scale = 1024.0;
    c.scale_growth = 3;
    bench b;
    float state[OPTIM_STATE_FLOATS];
    int t = 0;
    if (bench_open(&b, DTYPE_F16, &c)) {
        /* g: a good step; b: a bad one. The scale that each step finds. */
        static const char course[] = "ggggbgggbbggg";
        static const float scales[] = {
            1024, 1024, 1024, 2048, 2048, 1024, 1024, 1024, 2048, 1024, 512, 512, 512, 1024
        };
        read_state(&b, state);
        for (int i = 0; course[i]; i++) {
            CHECKF(state[OPTIM_LOSS_SCALE] == scales[i] && state[OPTIM_GRAD_SCALE] == scales[i],
                   "step %d: scale %g, want %g", i, (double)state[OPTIM_LOSS_SCALE], (double)scales[i]);
            const int bad = course[i] == 'b';
            put_gradients(&b, 0.5f, state[OPTIM_LOSS_SCALE], bad ? 3 : -1);
            CHECK_OK(optim_step(b.optim, 0.01));
            if (!bad)
                reference_step(&b, 0.01, ++t);
            read_state(&b, state);
            CHECK(state[OPTIM_SKIP] == (bad ? 1.0f : 0.0f) && state[OPTIM_STEP] == (float)t);
            CHECK(state[OPTIM_HALTED] == 0.0f);
            CHECKF(worst_difference(&b) < 2e-6, "step %d: off by %g", i, worst_difference(&b));
        }
        CHECK(state[OPTIM_SKIPPED] == 3.0f && state[OPTIM_LOSS_SCALE] == 1024.0f);
        for (int i = 0; i < 40 && state[OPTIM_HALTED] == 0.0f; i++) {
            put_gradients(&b, 0.5f, 1.0f, 0);
            CHECK_OK(optim_step(b.optim, 0.01));
            read_state(&b, state);
        }
        CHECKF(state[OPTIM_HALTED] == 1.0f && state[OPTIM_LOSS_SCALE] > 0.0f,
               "a gradient that never is finite: halted %g, scale %g", (double)state[OPTIM_HALTED],
               (double)state[OPTIM_LOSS_SCALE]);
    }
    bench_close(&b);
}

/* What kernels read is what the update left, rounded. */
static void copies_follow_the_masters(void)
{
    static const dtype types[] = { DTYPE_BF16, DTYPE_F16 };
    for (int k = 0; k < 2; k++) {
        optim_config c = optim_defaults();
        c.loss_scale = 1.0;
        bench b;
        if (bench_open(&b, types[k], &c)) {
            float x[MOST];
            uint16_t half[MOST];
            put_gradients(&b, 1.0f, 1.0f, -1);
            CHECK_OK(optim_step(b.optim, 0.01));
            CHECK_OK(params_read(b.params, 2, x));
            CHECK_OK(dev_read(b.device, params_used(b.params, 2), 0, half, 2 * b.n[2]));
            for (size_t i = 0; i < b.n[2]; i++) {
                uint16_t want;
                dtype_store(types[k], &want, 0, x[i]);
                CHECK(half[i] == want);
            }
        }
        bench_close(&b);
    }
}

/* On the host the formulas are the same, and what has no such update is asked for none. */
static void the_host_updates_by_the_same_formulas(void)
{
    enum { COUNT = 1003, TIMES = 20 };
    static float w[COUNT], g[COUNT], m[COUNT], v[COUNT];
    static double dw[COUNT], dg[COUNT], dm[COUNT], dv[COUNT];
    int found = 0;
    for (int r = 0; optim_rules[r]; r++) {
        const char *name = optim_rule_name(optim_rules[r]);
        optim_config c = optim_defaults();
        gt_random random;
        optim_config_rule(&c, optim_rules[r]);
        c.eps = 1e-5;
        CHECK(optim_rule_on_host(optim_rules[r]) == !optim_rule_sees_tensors(optim_rules[r]));
        if (!optim_rule_on_host(optim_rules[r]))
            continue;
        found++;
        gt_random_init(&random, 11, 1);
        gt_random_normal(&random, w, COUNT, 0.0f, 1.0f);
        for (int i = 0; i < COUNT; i++) {
            dw[i] = (double)w[i];
            m[i] = v[i] = 0.0f;
            dm[i] = dv[i] = 0.0;
        }
        for (int t = 1; t <= TIMES; t++) {
            const double lr = 1e-3 * t;
            gt_random_normal(&random, g, COUNT, 0.0f, 0.1f);
            for (int i = 0; i < COUNT; i++)
                dg[i] = (double)g[i];
            optim_host_update(&c, &(optim_host){ COUNT, w, g, { m, v }, lr, (uint64_t)t, 0.1f });
            if (!strcmp(name, "adamw"))
                reference_adamw(COUNT, dw, dg, dm, dv, t, 1.0, lr, c.beta1, c.beta2, c.eps, 0.1);
            else if (!strcmp(name, "sgd"))
                reference_sgd(COUNT, dw, dg, dm, 1.0, lr, c.momentum, 0.1);
            else
                reference_lion(COUNT, dw, dg, dm, 1.0, lr, c.beta1, c.beta2, 0.1);
        }
        for (int i = 0; i < COUNT; i++)
            CHECKF(fabs((double)w[i] - dw[i]) <= 4e-6, "%s: element %d is %.9g, not %.9g", name, i, (double)w[i],
                   dw[i]);
    }
    CHECK(found == 3);
}

const check_case check_cases[] = {
    CASE(schedules_pass_known_points),
    CASE(settings_out_of_range_are_refused),
    CASE(updates_follow_the_formulas),
    CASE(every_rule_goes_on_from_its_state),
    CASE(slots_say_what_is_kept),
    CASE(only_matrices_decay),
    CASE(a_gradient_that_is_not_finite_halts_fp32),
    CASE(the_loss_scale_grows_and_backs_off),
    CASE(copies_follow_the_masters),
    CASE(the_host_updates_by_the_same_formulas),
    { 0 }
};
