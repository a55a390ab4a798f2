/* SPDX-License-Identifier: MIT */
/* tests/train/test_training.c - whole training against an independent implementation.
 *
 * The reference file holds a tiny GPT-2 of llm.c's train_gpt2.py: its weights, the logits,
 * loss and gradients of the first batch in float64, and 200 AdamW steps on tinyshakespeare
 * characters. It is not part of the repository; without it these cases are skipped.      */
#include "tests/check.h"

#include "host/data/dataset.h"
#include "host/tensor/safetensors.h"
#include "host/train/train.h"
#include "models/generate.h"
#include "models/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { B = 4, T = 64, V = 65 };

static model_config config(void)
{
    return (model_config){
        .family = "gpt2",
        .name = "reference",
        .layers = 3,
        .heads = 4,
        .channels = 64,
        .inner = 256,
        .context = T,
        .vocab = V,
        .eps = 1e-5f,
        .init_deviation = 0.02f
    };
}

static st_file *reference;
static data_set text;

/* Opens the reference and the text once; 0 after skipping. */
static int have_reference(void)
{
    if (reference)
        return 1;
    const char *path = check_shared("reference/gpt2_tiny_llmc_ref.safetensors");
    if (!path || st_open(&reference, path)) {
        check_skip("no reference/gpt2_tiny_llmc_ref.safetensors");
        return 0;
    }
    path = check_shared("data/tinyshakespeare.txt");
    if (!path || data_open(&text, path, "char", NULL, NULL)) {
        check_skip("no data/tinyshakespeare.txt");
        st_close(reference);
        reference = NULL;
        return 0;
    }
    return 1;
}

/* Copies "PREFIX.transformer.NAME" of the reference, as double. */
static double *fetch(const char *prefix, const char *name, size_t *count)
{
    char full[128];
    snprintf(full, sizeof full, name[0] ? "%s.transformer.%s" : "%s%s", prefix, name);
    const st_tensor *t = st_find(reference, full);
    if (!CHECKF(t != NULL, "tensor '%s'", full))
        return NULL;
    *count = (size_t)shape_count(&t->dims);
    double *out = malloc((*count + 1) * sizeof *out);
    for (size_t i = 0; out && i < *count; i++) {
        if (t->type == DTYPE_F64) {
            memcpy(&out[i], (const char *)t->data + 8 * i, 8);
        } else {
            float x;
            memcpy(&x, (const char *)t->data + 4 * i, 4);
            out[i] = (double)x;
        }
    }
    return out;
}

static gt_status fill(const void *unused, params *p, void *context)
{
    (void)unused;
    (void)context;
    gt_status st = GT_OK;
    for (int i = 0; !st && i < params_count(p); i++) {
        size_t n;
        double *from = fetch("init", params_info(p, i)->name, &n);
        float *x = from ? malloc(n * sizeof *x) : NULL;
        if (!x || n != (size_t)shape_count(&params_info(p, i)->shape))
            st = gt_fail(GT_MISMATCH, "reference tensor '%s'", params_info(p, i)->name);
        for (size_t j = 0; !st && j < n; j++)
            x[j] = (float)from[j];
        if (!st)
            st = params_write(p, i, x);
        free(from);
        free(x);
    }
    return st;
}

static gt_status build(graph *g, const void *c, const graph_part *part, int training, int recompute)
{
    return model_build_part(g, c, part, training, recompute);
}

static train *make(dev_device *d, dtype precision, int recompute, uint64_t micro, uint64_t steps)
{
    static model_config c;
    train *t = NULL;
    c = config();
    train_options o = {
        .steps = steps,
        .batch = B,
        .micro_batch = micro,
        .seq = T,
        .seed = 1,
        .order = LOADER_SEQUENTIAL,
        .precision = precision,
        .recompute = recompute,
        .optim = optim_defaults()
    };
    o.optim.lr = 1e-3;
    o.optim.schedule = LR_CONSTANT;
    const train_model m = { .config = &c, .units = model_units(&c), .build = build, .fill = fill };
    const train_data data = { &text.train, &text.val };
    CHECK_OK(train_create(&t, d, &m, &data, &o));
    return t;
}

/* L2 distance over the reference's L2 norm. */
static double relative(const double *want, const float *got, size_t n)
{
    double difference = 0.0, norm = 0.0;
    for (size_t i = 0; i < n; i++) {
        difference += (want[i] - (double)got[i]) * (want[i] - (double)got[i]);
        norm += want[i] * want[i];
    }
    return sqrt(difference / (norm > 0.0 ? norm : 1.0));
}

static void logits_equal_the_reference(void)
{
    size_t n = 0;
    dev_device *d = NULL;
    if (!have_reference() || !CHECK_OK(dev_open(&d, getenv("GT_TEST_DEVICE"))))
        return;
    const model_config c = config();
    kernel_set *k = NULL;
    gemm_context *gemm = NULL;
    graph *g = NULL;
    params *p = NULL;
    exec_arena *arena = NULL;
    exec *e = NULL;
    float *got = malloc(sizeof(float) * B * T * V);
    CHECK_OK(kernel_set_create(&k, d, DTYPE_F32));
    CHECK_OK(gemm_context_create(&gemm, d, NULL));
    CHECK_OK(graph_create(&g, DTYPE_F32, B, T));
    CHECK_OK(model_build_generate(g, &c, T));
    CHECK_OK(params_create(&p, d, g, 0));
    CHECK_OK(fill(NULL, p, NULL));
    CHECK_OK(exec_arena_create(&arena, d));
    const exec_options o = { .device = d, .kernels = k, .gemm = gemm, .params = p, .arena = arena };
    CHECK_OK(exec_create(&e, g, &o));
    CHECK_OK(exec_ready(e));
    CHECK_OK(dev_write(d, exec_buffer(e, "tokens"), 0, st_find(reference, "x")->data, 4 * B * T));
    CHECK_OK(exec_run(e, EXEC_FORWARD));
    CHECK_OK(dev_read(d, exec_buffer(e, "logits"), 0, got, sizeof(float) * B * T * V));
    double *want = fetch("logits_f64", "", &n), worst = 0.0, largest = 0.0;
    CHECK(n == B * T * V);
    for (size_t i = 0; want && i < n; i++) {
        worst = fmax(worst, fabs(want[i] - (double)got[i]));
        largest = fmax(largest, fabs(want[i]));
    }
    CHECKF(worst <= 1e-5 * largest, "worst difference %g, largest logit %g", worst, largest);
    free(want);
    free(got);
    exec_release(e);
    exec_arena_release(arena);
    params_release(p);
    graph_release(g);
    gemm_context_release(gemm);
    kernel_set_release(k);
    dev_close(d);
}

/* Loss and every gradient of batch 0; with all of the batch at once, in micro-batches, and
 * with recomputation. */
static void gradients_equal_the_reference(void)
{
    static const struct {
        uint64_t micro;
        int recompute;
    } ways[] = { { 4, 0 }, { 2, 0 }, { 1, 0 }, { 4, 1 } };
    dev_device *d = NULL;
    if (!have_reference() || !CHECK_OK(dev_open(&d, getenv("GT_TEST_DEVICE"))))
        return;
    for (size_t way = 0; way < sizeof ways / sizeof *ways; way++) {
        double loss = 0.0, norm = 0.0, want_loss;
        size_t n;
        train *t = make(d, DTYPE_F32, ways[way].recompute, ways[way].micro, 10);
        if (!t)
            break;
        CHECK_OK(train_once(t, 0, 0, &loss, &norm));
        double *scalar = fetch("loss_f64", "", &n);
        want_loss = scalar ? scalar[0] : NAN;
        free(scalar);
        CHECKF(fabs(loss / want_loss - 1.0) <= 1e-5, "loss %.8f, want %.8f", loss, want_loss);
        params *p = train_params(t);
        for (int i = 0; i < params_count(p); i++) {
            const char *name = params_info(p, i)->name;
            double *want = fetch("grad_f64", name, &n);
            float *got = malloc((n + 1) * sizeof *got);
            CHECK_OK(params_read_grad(p, i, got));
            CHECKF(relative(want, got, n) <= 1e-4, "way %zu, gradient of '%s' is off by %g", way, name,
                   relative(want, got, n));
            free(want);
            free(got);
        }
        train_release(t);
    }
    dev_close(d);
}

typedef struct curve {
    double loss[200];
    int count;
} curve;

static void note_loss(void *context, const metrics_row *row)
{
    curve *c = context;
    if (c->count < 200)
        c->loss[c->count++] = row->loss;
}

static void two_hundred_steps_follow_the_reference(void)
{
    dev_device *d = NULL;
    if (!have_reference() || !CHECK_OK(dev_open(&d, getenv("GT_TEST_DEVICE"))))
        return;
    size_t n;
    double *want = fetch("losses", "", &n);
    static const dtype types[] = { DTYPE_F32, DTYPE_BF16, DTYPE_F16 };
    curve curves[3] = { { .count = 0 } };
    for (int i = 0; i < 3 && want; i++) {
        const train_hooks hooks = { .context = &curves[i], .step = note_loss };
        train *t = make(d, types[i], 0, 4, 200);
        if (!t)
            break;
        CHECK_OK(train_run(t, &hooks));
        CHECK(curves[i].count == 200);
        if (types[i] == DTYPE_F32) {
            double val = 0.0;
            for (int s = 0; s < 200; s++)
                CHECKF(fabs(curves[i].loss[s] - want[s]) <= (s < 10 ? 1e-4 : 2e-3) * want[s],
                       "step %d: loss %.6f, want %.6f", s, curves[i].loss[s], want[s]);
            evaluate_result found;
            CHECK_OK(train_evaluate(t, &found));
            val = found.loss;
            printf(" val %.6f ", val);
        }
        train_release(t);
    }
    /* 16-bit storage: the same course, within 2 % at every step after the first hundred, and
     * on average. */
    for (int i = 1; i < 3; i++) {
        double off = 0.0, worst = 0.0;
        for (int s = 0; s < 200; s++) {
            const double ratio = fabs(curves[i].loss[s] / curves[0].loss[s] - 1.0);
            off += ratio / 200.0;
            worst = fmax(worst, ratio);
        }
        CHECKF(worst <= 0.02, "%s: worst %.4f, mean %.4f", dtype_name(types[i]), worst, off);
    }
    free(want);
    dev_close(d);
}

const check_case check_cases[] = { CASE(logits_equal_the_reference),
                                   CASE(gradients_equal_the_reference),
                                   CASE(two_hundred_steps_follow_the_reference),
                                   { 0 } };
