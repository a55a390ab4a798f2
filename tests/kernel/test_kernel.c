/* SPDX-License-Identifier: MIT */
/* tests/kernel/test_kernel.c - every kernel against the reference, at awkward sizes.
 *
 * GT_TEST_DEVICE picks the device (default: the best), GEARTRAIN_STYLE=cpu|gpu the bodies.
 * GT_TEST_TINY=1 keeps to sizes that an interpreter such as oclgrind gets through.        */
#include "tests/check.h"

#include "cl/kernels.h"
#include "host/attention/attention_matrix.h"
#include "host/base/random.h"
#include "host/gemm/engine.h"
#include "host/kernel/kernel_cases.h"
#include "host/kernel/kernel_cases_private.h"
#include "host/kernel/kernel_private.h"
#include "host/kernel/reference.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static dev_device *open_device(void)
{
    dev_device *d = NULL;
    const char *spec = getenv("GT_TEST_DEVICE");
    char **specs = NULL;
    int count = 0;
    if (CHECK_OK(dev_specs(&specs, &count, spec)))
        CHECK_OK(dev_open(&d, specs[0]));
    dev_specs_free(specs, count);
    return d;
}

/* How many rows of the tables have this file. */
static int families_of(const char *file)
{
    int found = 0;
    for (int i = 0; dev_family_at(i); i++)
        found += !strcmp(dev_family_at(i)->file, file);
    for (int i = 0; kernel_family_at(i); i++)
        found += !strcmp(kernel_family_at(i)->program.file, file);
    for (int i = 0; gemm_family_at(i); i++)
        found += !strcmp(gemm_family_at(i)->file, file);
    return found + !strcmp(attention_matrix_family.file, file);
}

static void every_kernel_file_has_one_family_and_every_family_cases(void)
{
    int files = 0;
    for (; cl_file_name(files); files++)
        CHECKF(families_of(cl_file_name(files)) == 1, "%s is in %d rows", cl_file_name(files),
               families_of(cl_file_name(files)));
    CHECKF(files >= 12, "%d files", files);
    for (int i = 0; kernel_family_at(i); i++)
        CHECKF(kernel_family_at(i)->cases->name, "%s has no cases", kernel_family_at(i)->program.file);
}

static void every_case_matches_its_reference(dtype storage)
{
    /* around powers of two, around VW, WG, 4 WG, SLAB, STRIP, and sizes models have */
    static const int all[][2] = {
        { 1, 1 },     { 2, 2 },    { 3, 3 },    { 1, 15 },   { 2, 16 },    { 6, 17 },    { 5, 31 },
        { 7, 32 },    { 1, 33 },   { 63, 63 },  { 64, 64 },  { 65, 65 },   { 127, 66 },  { 128, 127 },
        { 129, 128 }, { 3, 129 },  { 4, 255 },  { 9, 256 },  { 300, 257 }, { 66, 768 },  { 5, 1000 },
        { 2, 1023 },  { 3, 1024 }, { 1, 1025 }, { 2, 4100 }, { 33, 3072 }, { 1, 16385 }, { 3, 50257 },
    };
    static const int few[][2] = { { 1, 1 }, { 3, 5 }, { 6, 33 }, { 69, 4 }, { 2, 260 }, { 1, 1027 } };
    const int(*sizes)[2] = check_tiny() ? few : all;
    const size_t count = check_tiny() ? sizeof few / sizeof *few : sizeof all / sizeof *all;
    dev_device *d = open_device();
    kernel_set *k = NULL;
    if (d && CHECK_OK(kernel_set_create(&k, d, storage)))
        for (int c = 0; c < kernel_case_count(); c++)
            for (size_t s = 0; s < count; s++)
                if (!CHECK_OK(kernel_case_check(k, c, sizes[s][0], sizes[s][1], 1 + s)))
                    break;                      /* one size a case says enough */
    kernel_set_release(k);
    dev_close(d);
}

static void every_case_matches_in_fp32(void)
{
    every_case_matches_its_reference(DTYPE_F32);
}
static void every_case_matches_in_bf16(void)
{
    every_case_matches_its_reference(DTYPE_BF16);
}
static void every_case_matches_in_fp16(void)
{
    every_case_matches_its_reference(DTYPE_F16);
}

/* A device buffer with these contents; NULL after a failed check. */
static dev_buffer *buffer_of(dev_device *d, const void *data, size_t bytes)
{
    dev_buffer *b = NULL;
    if (CHECK_OK(dev_buffer_create(&b, d, bytes, "test")) && data)
        CHECK_OK(dev_write(d, b, 0, data, bytes));
    return b;
}

/* Runs the list and empties it. */
static void run(dev_list **l, dev_device *d)
{
    CHECK_OK(dev_run(*l, 0, -1));
    CHECK_OK(dev_wait(d));
    dev_list_release(*l);
    CHECK_OK(dev_list_create(l, d));
}

/* Every bf16 and fp16 widens to the host's float, and floats of every exponent, halfway
 * cases among them, narrow to the host's bits. */
static void storage_has_the_bits_of_the_host(void)
{
    enum { N = 65536 };
    dev_device *d = open_device();
    float *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);
    uint16_t *h = malloc(N * sizeof *h);
    const int n = check_tiny() ? 2048 : N;
    dev_list *l = NULL;
    if (!d || !CHECK_OK(dev_list_create(&l, d)))
        goto out;
    for (dtype t = DTYPE_BF16; t <= DTYPE_F16; t++) {
        kernel_set *k = NULL;
        CHECK_OK(kernel_set_create(&k, d, t));
        gt_random r;
        gt_random_init(&r, 5, (uint64_t)t);
        for (int i = 0; i < n; i++) {
            uint32_t u = gt_random_u32(&r);
            const uint32_t cut = t == DTYPE_BF16 ? 16 : 13;
            if (i % 3 == 0)                     /* exactly halfway between neighbours */
                u = (u >> cut << cut) | 1u << (cut - 1);
            if (i % 5 == 0)                     /* where fp16 is subnormal or overflows */
                u = (u & 0x807fffffu) | (i % 10 ? 100u + u % 16u : 140u + u % 6u) << 23;
            memcpy(&x[i], &u, 4);
            h[i] = (uint16_t)(check_tiny() ? i * 32 + i % 32 : i);
        }
        dev_buffer *bx = buffer_of(d, x, N * 4), *bh = buffer_of(d, h, N * 2);
        CHECK_OK(kernel_load(l, k, n, bh, bx));
        run(&l, d);
        CHECK_OK(dev_read(d, bx, 0, y, N * 4));
        for (int i = 0; i < n; i++) {
            const float want = dtype_load(t, h, (size_t)i);
            if (!CHECKF(isnan(want) ? isnan(y[i]) : !memcmp(&want, &y[i], 4), "%s %04x: got %a, want %a", dtype_name(t),
                        h[i], (double)y[i], (double)want))
                break;
        }
        CHECK_OK(dev_write(d, bx, 0, x, N * 4));
        CHECK_OK(kernel_store(l, k, n, bx, bh));
        run(&l, d);
        CHECK_OK(dev_read(d, bh, 0, h, N * 2));
        for (int i = 0; i < n; i++) {
            uint16_t want;
            dtype_store(t, &want, 0, x[i]);
            if (!CHECKF(isnan(x[i]) ? isnan(dtype_load(t, h, (size_t)i)) : h[i] == want,
                        "%s of %a: got %04x, want %04x", dtype_name(t), (double)x[i], h[i], want))
                break;
        }
        dev_buffer_release(bx);
        dev_buffer_release(bh);
        kernel_set_release(k);
    }
out:
    dev_list_release(l);
    free(x);
    free(y);
    free(h);
    dev_close(d);
}

/* Losses and gradients of rows with infinite, equal, huge and undefined logits. */
static void cross_entropy_keeps_its_head(void)
{
    enum { V = 37, R = 7 };
    static float x[R][V], slope[R][V], loss[R];
    int32_t target[R];
    const float one = 1.0f;
    for (int r = 0; r < R; r++) {
        target[r] = 36;
        for (int v = 0; v < V; v++)
            x[r][v] = 0.0f;
    }
    for (int v = 0; v < 36; v++)
        x[0][v] = -INFINITY;                    /* all but the target impossible */
    x[1][3] = 3e38f;                            /* the target impossible by far */
    x[2][5] = -3e38f;
    x[3][36] = -INFINITY;                       /* the target impossible: loss infinite */
    x[4][7] = NAN;
    target[5] = -1;
    target[6] = V;                              /* not a class: ignored */

    dev_device *d = open_device();
    kernel_set *k = NULL;
    dev_list *l = NULL;
    if (d && CHECK_OK(kernel_set_create(&k, d, DTYPE_F32)) && CHECK_OK(dev_list_create(&l, d))) {
        dev_buffer *bx = buffer_of(d, x, sizeof x), *bt = buffer_of(d, target, sizeof target);
        dev_buffer *bs = buffer_of(d, &one, 4), *bl = buffer_of(d, NULL, sizeof loss);
        CHECK_OK(kernel_xent(l, k, R, V, bx, bt, NULL, bs, bl, bx));
        run(&l, d);
        CHECK_OK(dev_read(d, bl, 0, loss, sizeof loss));
        CHECK_OK(dev_read(d, bx, 0, slope, sizeof slope));
        CHECKF(fabsf(loss[0]) < 1e-6f && slope[0][0] == 0.0f, "loss %g", (double)loss[0]);
        CHECKF(loss[1] == 3e38f && slope[1][3] == 1.0f && slope[1][36] == -1.0f, "loss %g", (double)loss[1]);
        CHECKF(fabsf(loss[2] - logf(36.0f)) < 1e-5f && slope[2][5] == 0.0f, "loss %g", (double)loss[2]);
        CHECKF(isinf(loss[3]), "loss %g", (double)loss[3]);
        CHECKF(isnan(loss[4]), "loss %g", (double)loss[4]);
        CHECKF(loss[5] == 0.0f && loss[6] == 0.0f && slope[5][0] == 0.0f && slope[6][36] == 0.0f,
               "ignored rows: loss %g and %g", (double)loss[5], (double)loss[6]);
        dev_buffer_release(bx);
        dev_buffer_release(bt);
        dev_buffer_release(bs);
        dev_buffer_release(bl);
    }
    dev_list_release(l);
    kernel_set_release(k);
    dev_close(d);
}

/* Activations and their slopes at the ends of the number range: no NaN where there is a limit. */
static void activations_have_their_limits(void)
{
    static const float x[] = { 0.0f,    -0.0f, 1e-30f, 5.0f,  -5.0f,  13.0f,    -13.0f, 100.0f,
                               -100.0f, 1e20f, -1e20f, 3e38f, -3e38f, INFINITY, NAN };
    enum { N = sizeof x / sizeof *x };
    float y[N], slope[N], ones[N];
    for (int i = 0; i < N; i++)
        ones[i] = 1.0f;
    dev_device *d = open_device();
    kernel_set *k = NULL;
    dev_list *l = NULL;
    if (d && CHECK_OK(kernel_set_create(&k, d, DTYPE_F32)) && CHECK_OK(dev_list_create(&l, d)))
        for (activation a = ACT_NONE + 1; a < ACT_COUNT; a++) {
            dev_buffer *bx = buffer_of(d, x, sizeof x), *by = buffer_of(d, ones, sizeof ones);
            dev_buffer *bs = buffer_of(d, NULL, sizeof slope);
            CHECK_OK(kernel_activation_grad(l, k, a, N, by, bx, bs));
            CHECK_OK(kernel_activation(l, k, a, N, bx, by));
            run(&l, d);
            CHECK_OK(dev_read(d, by, 0, y, sizeof y));
            CHECK_OK(dev_read(d, bs, 0, slope, sizeof slope));
            for (int i = 0; i < N - 1; i++) {
                const double v = (double)x[i];
                const int far = a != ACT_TANH && fabs(v) > 99.0;     /* x gate(x) is x or 0 there */
                const double want = far ? fmax(v, 0.0) : reference_activation(a, v);
                const double rise = far ? v > 0.0 : reference_activation_slope(a, v);
                CHECKF((double)y[i] == want || fabs((double)y[i] - want) <= 1e-5 * fabs(want) + 1e-30, "%s(%g) = %g",
                       activation_name(a), v, (double)y[i]);
                CHECKF(fabs((double)slope[i] - rise) <= 1e-5 * fabs(rise) + 1e-30, "%s'(%g) = %g", activation_name(a),
                       v, (double)slope[i]);
            }
            CHECKF(isnan(y[N - 1]), "%s of no number is %g", activation_name(a), (double)y[N - 1]);
            dev_buffer_release(bx);
            dev_buffer_release(by);
            dev_buffer_release(bs);
        }
    dev_list_release(l);
    kernel_set_release(k);
    dev_close(d);
}

static void a_foreign_token_gives_not_a_number(void)
{
    enum { V = 5, C = 9 };
    const int32_t x[3] = { 4, 5, -1 };
    float token[V * C], y[3 * C];
    int32_t order[3], starts[5], counts[V + 1];
    for (int i = 0; i < V * C; i++)
        token[i] = (float)i;
    dev_device *d = open_device();
    kernel_set *k = NULL;
    dev_list *l = NULL;
    if (d && CHECK_OK(kernel_set_create(&k, d, DTYPE_F32)) && CHECK_OK(dev_list_create(&l, d))) {
        dev_buffer *bx = buffer_of(d, x, sizeof x), *bt = buffer_of(d, token, sizeof token);
        dev_buffer *by = buffer_of(d, NULL, sizeof y);
        CHECK_OK(
            kernel_embed(l, k, 1, 3, C, (kernel_rows){ 0, V, V }, &(kernel_embedding){ .x = bx, .token = bt }, by));
        run(&l, d);
        CHECK_OK(dev_read(d, by, 0, y, sizeof y));
        CHECK(y[0] == 36.0f && y[C - 1] == 44.0f);
        for (int i = C; i < 3 * C; i++)
            CHECK(isnan(y[i]));
        dev_buffer_release(bx);
        dev_buffer_release(bt);
        dev_buffer_release(by);
    }
    kernel_embed_sort(x, 3, V, order, starts, counts);
    CHECK(starts[0] == 1 && starts[1] == 0 && starts[2] == 1 && order[0] == 0);
    dev_list_release(l);
    kernel_set_release(k);
    dev_close(d);
}

/* What ranks say of rows where one has only -inf, all have, one has +inf, and one has NaN. */
static void statistics_of_odd_rows_combine(void)
{
    enum { R = 4, RANKS = 2 };
    const float inf = INFINITY,
                given[RANKS][R][3] = { { { 1, 2, 0 }, { -inf, 0, -inf }, { inf, NAN, inf }, { -inf, NAN, 0 } },
                                       { { -inf, 0, -inf }, { -inf, 0, 0 }, { 0, 1, 0 }, { 0, 1, 0 } } };
    const int32_t target[R] = { 0, 0, 0, 0 };
    float loss[R], top[R][2];
    dev_device *d = open_device();
    kernel_set *k = NULL;
    dev_list *l = NULL;
    if (d && CHECK_OK(kernel_set_create(&k, d, DTYPE_F32)) && CHECK_OK(dev_list_create(&l, d))) {
        dev_buffer *from = buffer_of(d, given, sizeof given), *hit = buffer_of(d, target, sizeof target);
        dev_buffer *a = buffer_of(d, NULL, sizeof loss), *b = buffer_of(d, NULL, sizeof top);
        CHECK_OK(kernel_xent_combine(l, k, R, RANKS, 3, from, hit, NULL, a, b));
        run(&l, d);
        CHECK_OK(dev_read(d, a, 0, loss, sizeof loss));
        CHECK_OK(dev_read(d, b, 0, top, sizeof top));
        CHECK(top[0][0] == 1.0f && top[0][1] == 2.0f && loss[0] == INFINITY);
        CHECK(isnan(loss[1]) && isnan(loss[2]) && isnan(loss[3]));
        dev_buffer_release(from);
        dev_buffer_release(hit);
        dev_buffer_release(a);
        dev_buffer_release(b);
    }
    dev_list_release(l);
    kernel_set_release(k);
    dev_close(d);
}

/* ---- the optimizer's scalars ------------------------------------------------------------ */

typedef struct optimizer {
    dev_device *d;
    kernel_set *k;
    dev_list *l;
    dev_buffer *partial, *state;
    kernel_slot weigh;
    float share;                        /* tokens / weights */
} optimizer;

static int optimizer_open(optimizer *o)
{
    memset(o, 0, sizeof *o);
    o->share = 1.0f;
    o->d = open_device();
    float state[OPTIM_STATE_FLOATS] = { 0 };
    state[OPTIM_LOSS_SCALE] = 1024.0f;
    state[OPTIM_GRAD_SCALE] = 4.0f;
    if (!o->d || !CHECK_OK(kernel_set_create(&o->k, o->d, DTYPE_F32)) || !CHECK_OK(dev_list_create(&o->l, o->d)))
        return 0;
    o->partial = buffer_of(o->d, NULL, 3 * sizeof(float));
    o->state = buffer_of(o->d, state, sizeof state);
    return 1;
}

static void optimizer_close(optimizer *o)
{
    dev_buffer_release(o->partial);
    dev_buffer_release(o->state);
    dev_list_release(o->l);
    kernel_set_release(o->k);
    dev_close(o->d);
}

/* One prepare with these partial sums; the state afterwards. */
static void prepare(optimizer *o, float a, float b, float c, float clip, int dynamic, float *state)
{
    const float partial[3] = { a, b, c };
    CHECK_OK(dev_write(o->d, o->partial, 0, partial, sizeof partial));
    CHECK_OK(kernel_optim_prepare(o->l, o->k, 3, o->partial, o->state, clip, 0.9, 0.999, dynamic, 3, &o->weigh, NULL));
    CHECK_OK(dev_list_set(o->l, o->weigh.launch, o->weigh.arg, dev_arg_f32(o->share)));
    run(&o->l, o->d);
    CHECK_OK(dev_read(o->d, o->state, 0, state, OPTIM_STATE_FLOATS * sizeof *state));
}

static void near(float got, double want, const char *what)
{
    CHECKF(fabs((double)got - want) <= 4e-7 * fabs(want), "%s is %.9g, want %.9g", what, (double)got, want);
}

static void a_step_sets_norm_clip_and_bias_corrections(void)
{
    optimizer o;
    float s[OPTIM_STATE_FLOATS];
    if (optimizer_open(&o)) {
        const float unit = 1024.0f * 1024.0f;           /* the loss scale, squared */
        prepare(&o, 1.0f * unit, 2.0f * unit, 6.0f * unit, 1.0f, 0, s);
        near(s[OPTIM_GRAD_NORM], 3.0, "norm");
        near(s[OPTIM_CLIP], 1.0 / (3.0 + 1e-6) / 1024.0, "clip");
        near(s[OPTIM_BIAS1], 0.1, "bias1");
        near(s[OPTIM_BIAS2], 0.001, "bias2");
        CHECK(s[OPTIM_STEP] == 1.0f && s[OPTIM_SKIP] == 0.0f && s[OPTIM_LOSS_SCALE] == 1024.0f);
        prepare(&o, unit, 2.0f * unit, 6.0f * unit, 5.0f, 0, s);
        near(s[OPTIM_CLIP], 1.0 / 1024.0, "clip of a small gradient");
        for (int step = 3; step <= 40; step++)
            prepare(&o, unit, 0.0f, 0.0f, 0.0f, 0, s);
        near(s[OPTIM_BIAS1], 1.0 - pow(0.9, 40), "bias1 after 40");
        near(s[OPTIM_BIAS2], 1.0 - pow(0.999, 40), "bias2 after 40");
        near(s[OPTIM_CLIP], 1.0 / 1024.0, "clip when off");
    }
    optimizer_close(&o);
}

/* A mean over fewer targets than there are has larger gradients; over none, nothing moves. */
static void weights_make_the_gradient_that_of_their_mean(void)
{
    optimizer o;
    float s[OPTIM_STATE_FLOATS], still[OPTIM_STATE_FLOATS];
    if (optimizer_open(&o)) {
        const float unit = 1024.0f * 1024.0f;
        o.share = 4.0f;
        prepare(&o, unit, 2.0f * unit, 6.0f * unit, 100.0f, 1, s);
        near(s[OPTIM_GRAD_NORM], 12.0, "norm");
        near(s[OPTIM_CLIP], 4.0 / 1024.0, "clip of a small gradient");
        prepare(&o, unit, 2.0f * unit, 6.0f * unit, 1.0f, 1, s);
        near(s[OPTIM_CLIP], 1.0 / (3.0 * 1024.0), "clip");
        o.share = 0.0f;
        prepare(&o, 0.0f, 0.0f, 0.0f, 1.0f, 1, still);
        CHECK(still[OPTIM_SKIP] == 1.0f && still[OPTIM_GRAD_NORM] == 0.0f);
        still[OPTIM_SKIP] = s[OPTIM_SKIP];
        still[OPTIM_GRAD_NORM] = s[OPTIM_GRAD_NORM];
        CHECK(!memcmp(still, s, sizeof s));
    }
    optimizer_close(&o);
}

static void overflow_halves_the_scale_and_good_steps_double_it(void)
{
    optimizer o;
    float s[OPTIM_STATE_FLOATS];
    if (optimizer_open(&o)) {
        prepare(&o, INFINITY, 1.0f, 1.0f, 1.0f, 1, s);
        CHECK(s[OPTIM_SKIP] == 1.0f && s[OPTIM_SKIPPED] == 1.0f && s[OPTIM_HALTED] == 0.0f);
        CHECK(s[OPTIM_LOSS_SCALE] == 512.0f && s[OPTIM_GRAD_SCALE] == 2.0f && s[OPTIM_STEP] == 0.0f);
        prepare(&o, NAN, 1.0f, 1.0f, 1.0f, 1, s);
        CHECK(s[OPTIM_SKIPPED] == 2.0f && s[OPTIM_LOSS_SCALE] == 256.0f);
        for (int i = 0; i < 3; i++)
            prepare(&o, 1.0f, 1.0f, 1.0f, 1.0f, 1, s);
        CHECKF(s[OPTIM_LOSS_SCALE] == 512.0f && s[OPTIM_GOOD_STEPS] == 0.0f && s[OPTIM_SKIP] == 0.0f, "scale %g",
               (double)s[OPTIM_LOSS_SCALE]);
        CHECK(s[OPTIM_GRAD_SCALE] == 2.0f && s[OPTIM_STEP] == 3.0f);
        near(s[OPTIM_CLIP], 1.0 / 256.0, "clip belongs to the scale the gradients had");
        for (int i = 0; i < 40; i++)
            prepare(&o, NAN, 1.0f, 1.0f, 1.0f, 1, s);
        CHECKF(s[OPTIM_HALTED] == 1.0f && s[OPTIM_LOSS_SCALE] > 0.0f, "scale %g", (double)s[OPTIM_LOSS_SCALE]);
    }
    optimizer_close(&o);
}

static void without_a_loss_scale_one_bad_step_halts(void)
{
    optimizer o;
    float s[OPTIM_STATE_FLOATS];
    if (optimizer_open(&o)) {
        const float loss = NAN;
        prepare(&o, 1.0f, 1.0f, 1.0f, 1.0f, 0, s);
        CHECK(s[OPTIM_HALTED] == 0.0f);
        CHECK_OK(dev_write(o.d, o.state, OPTIM_LOSS_SUM * 4, &loss, 4));
        prepare(&o, 1.0f, 1.0f, 1.0f, 1.0f, 0, s);
        CHECK(s[OPTIM_HALTED] == 1.0f && s[OPTIM_SKIP] == 1.0f && s[OPTIM_STEP] == 1.0f);
    }
    optimizer_close(&o);
}

static void results_are_the_same_bits_every_time(void)
{
    enum { R = 300, C = 257 };
    static float dy[R * C], x[R * C], stats[R], first[2][C], again[2][C];
    gt_random r;
    gt_random_init(&r, 3, 3);
    gt_random_normal(&r, dy, R * C, 0.0f, 1.0f);
    gt_random_normal(&r, x, R * C, 0.0f, 1.0f);
    gt_random_normal(&r, stats, R, 1.0f, 0.1f);
    dev_device *d = open_device();
    kernel_set *k = NULL;
    dev_list *l = NULL;
    if (d && CHECK_OK(kernel_set_create(&k, d, DTYPE_F32)) && CHECK_OK(dev_list_create(&l, d))) {
        dev_buffer *bdy = buffer_of(d, dy, sizeof dy), *bx = buffer_of(d, x, sizeof x);
        dev_buffer *bs = buffer_of(d, stats, sizeof stats), *bg = buffer_of(d, NULL, sizeof first[0]);
        dev_buffer *bb = buffer_of(d, NULL, sizeof first[0]);
        dev_buffer *work = buffer_of(d, NULL, kernel_column_scratch(k, R, C, 2));
        CHECK_OK(kernel_layernorm_weight_grad(l, k, R, C, bdy, bx, bs, bs, bg, bb, work, 0, NULL));
        for (int i = 0; i < (check_tiny() ? 2 : 10); i++) {
            CHECK_OK(dev_run(l, 0, -1));
            CHECK_OK(dev_read(d, bg, 0, i ? again[0] : first[0], sizeof first[0]));
            CHECK_OK(dev_read(d, bb, 0, i ? again[1] : first[1], sizeof first[1]));
            CHECK(!i || !memcmp(first, again, sizeof first));
        }
        dev_buffer_release(bdy);
        dev_buffer_release(bx);
        dev_buffer_release(bs);
        dev_buffer_release(bg);
        dev_buffer_release(bb);
        dev_buffer_release(work);
    }
    dev_list_release(l);
    kernel_set_release(k);
    dev_close(d);
}

/* Over many streams of random numbers: every value, and all of them together, to 1/512 of an integer's step and what
 * chance leaves (five standard deviations; of one rounding it is half a step at most). */
static void int8_is_the_value_in_the_mean(void)
{
    enum { N = 5 * COMPRESS_BLOCK - 3, MOST = 512 };
    static float x[N], y[N];
    static double mean[N];
    const uint32_t random[4] = { 1, 2, 3 };
    const int streams = check_tiny() ? 16 : MOST;
    double all = 0.0;
    gt_random r;
    gt_random_init(&r, 3, 5);
    gt_random_normal(&r, x, N, 0.0f, 1.0f);
    memset(mean, 0, sizeof mean);
    dev_device *d = open_device();
    kernel_set *k = NULL;
    dev_list *l = NULL;
    if (d && CHECK_OK(kernel_set_create(&k, d, DTYPE_F32)) && CHECK_OK(dev_list_create(&l, d))) {
        dev_buffer *bx = buffer_of(d, x, sizeof x), *by = buffer_of(d, NULL, sizeof y);
        dev_buffer *br = buffer_of(d, random, sizeof random);
        dev_buffer *code = buffer_of(d, NULL, 4 * (size_t)kernel_int8_words(N));
        kernel_slot number;
        CHECK_OK(kernel_int8_encode_numbered(l, k, N, br, bx, code, &number));
        CHECK_OK(kernel_int8_decode(l, k, N, 0, code, NULL, by));
        for (int s = 0; s < streams; s++) {
            CHECK_OK(dev_list_set(l, number.launch, number.arg, dev_arg_u32((uint32_t)s)));
            CHECK_OK(dev_run(l, 0, -1));
            CHECK_OK(dev_read(d, by, 0, y, sizeof y));
            for (int i = 0; i < N; i++)
                mean[i] += (double)y[i] / streams;
        }
        dev_buffer_release(bx);
        dev_buffer_release(by);
        dev_buffer_release(br);
        dev_buffer_release(code);
    }
    for (int b = 0; b < N; b += COMPRESS_BLOCK) {
        const int end = b + COMPRESS_BLOCK < N ? b + COMPRESS_BLOCK : N;
        float most = 0.0f;
        for (int i = b; i < end; i++)
            most = fmaxf(most, fabsf(x[i]));
        for (int i = b; i < end; i++) {
            const double off = (mean[i] - (double)x[i]) / ((double)most / 127.0);
            all += off / N;
            CHECKF(fabs(off) < 1.0 / 512 + 2.5 / sqrt(streams), "value %d is off by %.3g steps in the mean", i, off);
        }
    }
    CHECKF(fabs(all) < 1.0 / 512 + 2.5 / sqrt((double)N * streams), "all are off by %.3g steps in the mean", all);
    dev_list_release(l);
    kernel_set_release(k);
    dev_close(d);
}

static void too_many_elements_are_refused(void)
{
    dev_device *d = open_device();
    kernel_set *k = NULL;
    dev_list *l = NULL;
    if (d && CHECK_OK(kernel_set_create(&k, d, DTYPE_F32)) && CHECK_OK(dev_list_create(&l, d))) {
        CHECK_FAILS(kernel_embed(l, k, 1 << 20, 1 << 12, 8, (kernel_rows){ 0, 8, 8 }, &(kernel_embedding){ 0 }, NULL),
                    GT_UNSUPPORTED, "use a smaller micro-batch");
        CHECK(dev_list_count(l) == 0);
    }
    dev_list_release(l);
    kernel_set_release(k);
    dev_close(d);
}

const check_case check_cases[] = {
    CASE(every_kernel_file_has_one_family_and_every_family_cases),
    CASE(every_case_matches_in_fp32),
    CASE(every_case_matches_in_bf16),
    CASE(every_case_matches_in_fp16),
    CASE(storage_has_the_bits_of_the_host),
    CASE(cross_entropy_keeps_its_head),
    CASE(statistics_of_odd_rows_combine),
    CASE(activations_have_their_limits),
    CASE(a_foreign_token_gives_not_a_number),
    CASE(a_step_sets_norm_clip_and_bias_corrections),
    CASE(weights_make_the_gradient_that_of_their_mean),
    CASE(overflow_halves_the_scale_and_good_steps_double_it),
    CASE(without_a_loss_scale_one_bad_step_halts),
    CASE(results_are_the_same_bits_every_time),
    CASE(int8_is_the_value_in_the_mean),
    CASE(too_many_elements_are_refused),
    { 0 }
};
