/* SPDX-License-Identifier: MIT */
/* tests/graph/test_adapters.c - gradients of adapters and of models that are frozen in part, and what they take. */
#include "tests/check.h"
#include "tests/graph/graph_runner.h"
#include "host/base/random.h"
#include "models/lora.h"
#include "models/model_reference.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS_HERE = TINY_B * TINY_T };

/* A model's gradients of one batch: opened, given its tokens, and run. The caller reads what it wants and closes it. */
typedef struct trial {
    runner r;
    dev_buffer *scale, *sum;
    int32_t x[TOKENS_HERE], y[TOKENS_HERE];
} trial;

static int trial_open(trial *t, const model_config *c)
{
    static const float share = 1.0f / TOKENS_HERE;
    *t = (trial){ 0 };
    for (int i = 0; i < TOKENS_HERE; i++) {
        t->x[i] = i * i % TINY_VOCAB;
        t->y[i] = (i + 1) * (i + 1) % TINY_VOCAB;
    }
    if (!runner_open(&t->r) || !CHECK_OK(model_build_loss(t->r.g, c, 1, 0))
        || !CHECK_OK(dev_buffer_create(&t->scale, t->r.d, 4, "scale"))
        || !CHECK_OK(dev_write(t->r.d, t->scale, 0, &share, 4))
        || !CHECK_OK(dev_buffer_create(&t->sum, t->r.d, 4, "sum")))
        return 0;
    const exec_binding bindings[] = { { "grad_scale", t->scale }, { "loss_sum", t->sum }, { NULL, NULL } };
    return runner_ready(&t->r, bindings);
}

static int trial_run(trial *t)
{
    int32_t order[TOKENS_HERE], starts[TOKENS_HERE + 2], scratch[TINY_VOCAB + 1];
    kernel_embed_sort(t->x, TOKENS_HERE, TINY_VOCAB, order, starts, scratch);
    CHECK_OK(dev_write(t->r.d, exec_buffer(t->r.e, "tokens"), 0, t->x, sizeof t->x));
    CHECK_OK(dev_write(t->r.d, exec_buffer(t->r.e, "targets"), 0, t->y, sizeof t->y));
    if (graph_value_find(t->r.g, "embed_order") >= 0
        && graph_value_at(t->r.g, graph_value_find(t->r.g, "embed_order"))->role == GRAPH_INPUT) {
        CHECK_OK(dev_write(t->r.d, exec_buffer(t->r.e, "embed_order"), 0, order, sizeof order));
        CHECK_OK(dev_write(t->r.d, exec_buffer(t->r.e, "embed_starts"), 0, starts, sizeof starts));
    }
    return runner_run(&t->r);
}

static void trial_close(trial *t)
{
    exec_release(t->r.e);
    t->r.e = NULL;
    dev_buffer_release(t->scale);
    dev_buffer_release(t->sum);
    runner_close(&t->r);
}

/* Numbers of a parameter, or of its gradient; free() them. */
static float *numbers_of(params *p, const char *name, int gradient)
{
    const int i = params_find(p, name);
    float *out = i < 0 ? NULL : calloc((size_t)shape_count(&params_info(p, i)->shape), sizeof *out);
    CHECKF(out != NULL, "no '%s'", name);
    if (out)
        CHECK_OK(gradient ? params_read_grad(p, i, out) : params_read(p, i, out));
    return out;
}

/* Adapters as they are after some steps: B is not 0 and magnitudes are not norms any more. */
static void stir(params *p)
{
    gt_random random;
    gt_random_init(&random, 11, 3);
    for (int i = 0; i < params_count(p); i++) {
        const graph_param_info *info = params_info(p, i);
        const size_t n = (size_t)shape_count(&info->shape);
        float *x = malloc(n * sizeof *x);
        gt_random_normal(&random, x, n, 0.0f, 0.3f);
        for (size_t k = 0; strstr(info->name, "magnitude") && k < n; k++)
            x[k] = 0.5f + fabsf(x[k]);
        if (lora_is_adapter(info))
            CHECK_OK(params_write(p, i, x));
        free(x);
    }
}

/* The matrix `name`, with its adapter if it has one, into the reference; v becomes w + s b a, n its rows' norms. */
static void fill_reference(const model_config *c, params *p, int i, model_reference *ref)
{
    const graph_param_info *info = params_info(p, i);
    if (lora_is_adapter(info))
        return;
    model_reference_tensor *t = model_reference_find(ref, info->name);
    float *w = numbers_of(p, info->name, 0);
    CHECK_OK(lora_merge(c, p, info->name, w));
    for (int64_t j = 0; j < t->count; j++)
        t->value[j] = (double)w[j];
    free(w);
}

static double off(const float *got, const double *want, int64_t n)
{
    double difference = 0.0, norm = 1e-30;
    for (int64_t i = 0; i < n; i++) {
        difference += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        norm += want[i] * want[i];
    }
    return sqrt(difference / norm);
}

/* From the gradient G of the matrix that the product and its adapter come to, in double:
 * dV = G, or (m / n) G for DoRA;  dA = s B' dV,  dB = s dV A',  dm = row sums of G V / n. */
static int compare_adapter(const model_config *c, params *p, const char *label, const double *G)
{
    char name[160];
    const int rank = c->tuning.rank;
    const double s = (double)lora_scale(&c->tuning);
    snprintf(name, sizeof name, "%s.weight", label);
    const shape of = params_info(p, params_find(p, name))->shape;
    const int64_t O = of.dim[0], I = of.dim[1];
    float *w = numbers_of(p, name, 0), *m = NULL, *dm = NULL;
    snprintf(name, sizeof name, "%s.lora_A.weight", label);
    float *a = numbers_of(p, name, 0), *da = numbers_of(p, name, 1);
    snprintf(name, sizeof name, "%s.lora_B.weight", label);
    float *b = numbers_of(p, name, 0), *db = numbers_of(p, name, 1);
    snprintf(name, sizeof name, "%s.lora_magnitude_vector", label);
    if (c->tuning.dora) {
        m = numbers_of(p, name, 0);
        dm = numbers_of(p, name, 1);
    }
    double *wa = calloc((size_t)(rank * I), sizeof *wa), *wb = calloc((size_t)(O * rank), sizeof *wb);
    double *wm = calloc((size_t)O, sizeof *wm);
    for (int64_t o = 0; o < O; o++) {
        double square = 0.0, sum = 0.0;
        for (int64_t i = 0; i < I; i++) {
            double v = (double)w[o * I + i];
            for (int r = 0; r < rank; r++)
                v += s * (double)b[o * rank + r] * (double)a[r * I + i];
            square += v * v;
            sum += G[o * I + i] * v;
        }
        const double n = sqrt(square), factor = m ? (double)m[o] / n : 1.0;
        wm[o] = sum / n;
        for (int64_t i = 0; i < I; i++)
            for (int r = 0; r < rank; r++) {
                wa[r * I + i] += s * (double)b[o * rank + r] * factor * G[o * I + i];
                wb[o * rank + r] += s * factor * G[o * I + i] * (double)a[r * I + i];
            }
    }
    CHECKF(off(da, wa, rank * I) < 4e-5, "%s: A is off by %g", label, off(da, wa, rank * I));
    CHECKF(off(db, wb, O * rank) < 4e-5, "%s: B is off by %g", label, off(db, wb, O * rank));
    if (m)
        CHECKF(off(dm, wm, O) < 4e-5, "%s: magnitudes are off by %g", label, off(dm, wm, O));
    free(w), free(a), free(b), free(m), free(da), free(db), free(dm), free(wa), free(wb), free(wm);
    return 1;
}

static void adapters_have_the_gradients_of_what_they_come_to(void)
{
    static const struct {
        const char *family, *targets;
        int dora, rslora, count;
        dtype base;
    } cases[] = { { "gpt2", "", 0, 0, 2, DTYPE_F32 },           { "gpt2", "*", 0, 1, 8, DTYPE_F32 },
                  { "gpt2", "*", 1, 0, 8, DTYPE_F32 },          { "gpt2", "attn.*,h.1.mlp.c_fc", 1, 0, 5, DTYPE_Q8 },
                  { "gpt2", "c_proj,c_fc", 0, 0, 6, DTYPE_Q8 }, { "gpt2", "*", 0, 0, 8, DTYPE_BF16 } };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        model_config c = tiny_config();
        model_reference *ref = NULL;
        trial t;
        double loss = 0.0;
        float sum = 0.0f;
        int compared = 0;
        c.tuning = (model_tuning){
            .rank = 3, .alpha = 5.0f, .dora = cases[k].dora, .rslora = cases[k].rslora, .base = cases[k].base
        };
        snprintf(c.tuning.targets, sizeof c.tuning.targets, "%s", cases[k].targets);
        CHECK_OK(lora_check(&c));
        if (trial_open(&t, &c) && CHECK_OK(model_reference_create(&ref, &c))) {
            stir(t.r.p);
            for (int i = 0; i < params_count(t.r.p); i++)
                fill_reference(&c, t.r.p, i, ref);
            CHECK_OK(model_reference_run(ref, TINY_B, TINY_T, t.x, t.y, NULL, &loss));
            if (trial_run(&t))
                CHECK_OK(dev_read(t.r.d, t.sum, 0, &sum, 4));
            CHECKF(fabs((double)sum / TOKENS_HERE - loss) < 1e-5, "loss %g, not %g", (double)sum / TOKENS_HERE, loss);
            for (int i = 0; i < params_count(t.r.p); i++) {
                const graph_param_info *info = params_info(t.r.p, i);
                char label[96], matrix[128];
                const char *end = strstr(info->name, ".lora_A.weight");
                CHECK(info->frozen == lora_is_base(info) && (params_grad(t.r.p, i) == NULL) == info->frozen);
                if (!end)
                    continue;
                snprintf(label, sizeof label, "%.*s", (int)(end - info->name), info->name);
                snprintf(matrix, sizeof matrix, "%s.weight", label);
                compared += compare_adapter(&c, t.r.p, label, model_reference_find(ref, matrix)->grad);
            }
            CHECKF(compared == cases[k].count, "case %zu: %d adapters, not %d", k, compared, cases[k].count);
        }
        trial_close(&t);
        model_reference_release(ref);
    }
}

/* What is trained learns the same, bit for bit, and no more is computed than leads to it. */
static void what_is_frozen_changes_no_other_gradient(void)
{
    const char *const patterns[] = { "", "wte.*,wpe.*", "wte.*,wpe.*,h.0.*", "*.weight", "w*,h.*" };
    double work[5] = { 0 };
    trial all;
    const model_config c = tiny_config();
    if (!trial_open(&all, &c) || !trial_run(&all)) {
        trial_close(&all);
        return;
    }
    for (int k = 0; k < 5; k++) {
        model_config some = c;
        trial t;
        int trained = 0;
        snprintf(some.tuning.freeze, sizeof some.tuning.freeze, "%s", patterns[k]);
        CHECK_OK(lora_check(&some));
        if (trial_open(&t, &some) && trial_run(&t)) {
            for (int i = 0; i < params_count(t.r.p); i++) {
                const graph_param_info *info = params_info(t.r.p, i);
                const size_t n = (size_t)shape_count(&info->shape);
                if (info->frozen)
                    continue;
                float *a = numbers_of(t.r.p, info->name, 1), *b = numbers_of(all.r.p, info->name, 1);
                CHECKF(a && b && !memcmp(a, b, n * sizeof *a), "freezing '%s': '%s' differs", patterns[k], info->name);
                free(a);
                free(b);
                trained++;
            }
            CHECK(trained > 0);
            work[k] = graph_flops(t.r.g, GRAPH_INPUT_GRAD) + graph_flops(t.r.g, GRAPH_WEIGHT_GRAD)
                      + graph_flops(t.r.g, GRAPH_FORWARD);
        }
        trial_close(&t);
    }
    for (int k = 1; k < 5; k++)
        CHECKF(work[k] < work[0], "freezing '%s' saves nothing", patterns[k]);
    CHECKF(work[2] < work[1] && work[4] < 0.5 * work[0], "of %g: %g with a layer frozen, %g with all", work[0], work[2],
           work[4]);
    trial_close(&all);
}

static void frozen_matrices_take_less(void)
{
    const dtype types[] = { DTYPE_F32, DTYPE_BF16, DTYPE_Q8 };
    double bytes[3];
    float *exact = NULL;
    for (int k = 0; k < 3; k++) {
        model_config c = tiny_config();
        trial t;
        c.tuning = (model_tuning){ .rank = 2, .alpha = 4.0f, .base = types[k] };
        if (trial_open(&t, &c)) {
            const int i = params_find(t.r.p, "h.1.mlp.c_fc.weight");
            const int64_t n = shape_count(&params_info(t.r.p, i)->shape);
            float *x = numbers_of(t.r.p, "h.1.mlp.c_fc.weight", 0), *again;
            double worst = 0.0, most = 0.0;
            bytes[k] = (double)dev_buffer_bytes(params_used(t.r.p, i)) / (double)n;
            exact = exact ? exact : x;
            for (int64_t j = 0; j < n; j++) {
                worst = fmax(worst, fabs((double)x[j] - (double)exact[j]));
                most = fmax(most, fabs((double)exact[j]));
            }
            CHECKF(worst <= (k == 0   ? 0.0
                             : k == 1 ? most / 256.0
                                      : most / 253.0),
                   "%s: off by %g of %g", dtype_name(types[k]), worst, most);
            CHECK_OK(params_write(t.r.p, i, x)); /* as a checkpoint does */
            again = numbers_of(t.r.p, "h.1.mlp.c_fc.weight", 0);
            CHECKF(again && !memcmp(x, again, (size_t)n * sizeof *x), "%s: stored again it differs",
                   dtype_name(types[k]));
            free(again);
            if (x != exact)
                free(x);
        }
        trial_close(&t);
    }
    free(exact);
    CHECKF(bytes[0] == 4.0 && bytes[1] == 2.0 && bytes[2] > 1.1 && bytes[2] < 1.2, "%g, %g and %g bytes a number",
           bytes[0], bytes[1], bytes[2]);
}

static void patterns_that_match_nothing_are_refused(void)
{
    model_config c = tiny_config();
    snprintf(c.tuning.freeze, sizeof c.tuning.freeze, "wte.*,h.7.*");
    CHECK_FAILS(lora_check(&c), GT_MISUSE, "--freeze 'h.7.*' matches no tensor");
    c.tuning.freeze[0] = '*';
    c.tuning.freeze[1] = 0;
    CHECK_FAILS(lora_check(&c), GT_MISUSE, "nothing of 'tiny' is left to train");
    c.tuning = (model_tuning){ .rank = 2, .alpha = 1.0f, .targets = "q_proj" };
    CHECK_FAILS(lora_check(&c), GT_MISUSE, "--lora-targets 'q_proj' matches no matrix");
    c.tuning = (model_tuning){ .rank = 2, .alpha = 1.0f, .targets = "wte" };
    CHECK_FAILS(lora_check(&c), GT_MISUSE, "--lora-targets 'wte' matches no matrix");
}

const check_case check_cases[] = {
    CASE(adapters_have_the_gradients_of_what_they_come_to),
    CASE(what_is_frozen_changes_no_other_gradient),
    CASE(frozen_matrices_take_less),
    CASE(patterns_that_match_nothing_are_refused),
    { 0 }
};
