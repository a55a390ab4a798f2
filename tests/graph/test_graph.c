/* SPDX-License-Identifier: MIT */
/* tests/graph/test_graph.c - one model's gradients, made in every way that must not matter. */
#include "tests/check.h"
#include "tests/train/tiny_run.h"
#include "host/base/random.h"
#include "models/gpt2.h"
#include "models/llama.h"
#include "models/lora.h"
#include "models/model_reference.h"

#include "host/graph/graph_cost.h"
#include "host/kernel/reference.h"
#include "host/optim/optim.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double relative(const float *a, const float *b, size_t n)
{
    double difference = 0.0, norm = 0.0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(difference / (norm > 0.0 ? norm : 1.0));
}

/* Gradients and loss of step 3 under these options; NULL after a failed check. */
static float *gradients(dev_device *d, const model_config *c, const train_options *o, size_t *count, double *loss,
                        train_memory *memory)
{
    double norm;
    float *g = NULL;
    train *t = tiny_train(d, c, o);
    if (t && CHECK_OK(train_once(t, 3, 0, loss, &norm)))
        g = tiny_params(t, 1, count);
    if (t)
        *memory = train_memory_of(t);
    train_release(t);
    return g;
}

static model_config with_dropout(int layers)
{
    model_config c = tiny_config();
    c.layers = layers;
    c.dropout_embed = 0.1f;
    c.dropout_attention = 0.2f;
    c.dropout_residual = 0.15f;
    return c;
}

static void recomputing_changes_no_bit_and_takes_less(void)
{
    static const dtype types[] = { DTYPE_F32, DTYPE_BF16, DTYPE_F16 };
    dev_device *d = tiny_device();
    const model_config c = with_dropout(6);
    for (int i = 0; d && i < 3; i++) {
        train_options o = tiny_options();
        double loss[2] = { 0.0, 1.0 };
        size_t n = 0, m = 1;
        train_memory a = { 0 }, b = { 0 };
        o.precision = types[i];
        float *kept = gradients(d, &c, &o, &n, &loss[0], &a);
        o.recompute = 1;
        float *again = gradients(d, &c, &o, &m, &loss[1], &b);
        CHECK(kept && again && n == m && !memcmp(kept, again, n * sizeof *kept));
        CHECK(loss[0] == loss[1] && isfinite(loss[0]));
        CHECKF(b.activations < a.activations, "%s: %llu bytes kept, %llu recomputed", dtype_name(types[i]),
               (unsigned long long)a.activations, (unsigned long long)b.activations);
        free(kept);
        free(again);
    }
    dev_close(d);
}

static void micro_batches_add_up_to_the_batch(void)
{
    dev_device *d = tiny_device();
    const model_config c = tiny_config();
    train_options o = tiny_options();
    double whole_loss = 0.0, loss = 0.0;
    size_t n = 0, m = 0;
    train_memory memory;
    float *whole = d ? gradients(d, &c, &o, &n, &whole_loss, &memory) : NULL;
    for (uint64_t micro = 1; whole && micro < TINY_B; micro++) {
        if (TINY_B % micro)
            continue;
        o.micro_batch = micro;
        float *parts = gradients(d, &c, &o, &m, &loss, &memory);
        CHECK(parts && n == m);
        CHECKF(parts && relative(parts, whole, n) < 2e-6, "micro-batches of %d: off by %g", (int)micro,
               parts ? relative(parts, whole, n) : NAN);
        CHECKF(fabs(loss / whole_loss - 1.0) < 1e-6, "loss %.9g and %.9g", loss, whole_loss);
        free(parts);
    }
    free(whole);
    dev_close(d);
}

static void the_same_step_twice_is_the_same(void)
{
    dev_device *d = tiny_device();
    const model_config c = with_dropout(2);
    train *t = NULL;
    const train_options o = tiny_options();
    double loss[3] = { 0 }, norm;
    size_t n;
    if (d && (t = tiny_train(d, &c, &o))) {
        CHECK_OK(train_once(t, 5, 0, &loss[0], &norm));
        float *a = tiny_params(t, 1, &n);
        CHECK_OK(train_once(t, 6, 0, &loss[1], &norm));
        float *b = tiny_params(t, 1, &n);
        CHECK_OK(train_once(t, 5, 0, &loss[2], &norm));
        float *e = tiny_params(t, 1, &n);
        CHECK(loss[0] == loss[2] && !memcmp(a, e, n * sizeof *a));
        CHECK(loss[0] != loss[1] && memcmp(a, b, n * sizeof *a));
        free(a);
        free(b);
        free(e);
    }
    train_release(t);
    dev_close(d);
}

/* (loss(p + h d) - loss(p - h d)) / 2h along each tensor's own gradient d, against the
 * gradient's length: with dropout on, whose bits depend on step and place alone. */
static void gradients_are_slopes(void)
{
    dev_device *d = tiny_device();
    const model_config c = with_dropout(2);
    const train_options o = tiny_options();
    train *t = d ? tiny_train(d, &c, &o) : NULL;
    double loss, low = 0.0, high = 0.0, norm;
    int compared = 0;
    if (t && CHECK_OK(train_once(t, 3, 0, &loss, &norm))) {
        params *p = train_params(t);
        for (int i = 0; i < params_count(p); i++) {
            const size_t n = (size_t)shape_count(&params_info(p, i)->shape);
            float *g = malloc(4 * n), *x = malloc(4 * n), *moved = malloc(4 * n);
            double length = 0.0;
            CHECK_OK(train_once(t, 3, 0, &loss, &norm));
            CHECK_OK(params_read_grad(p, i, g));
            CHECK_OK(params_read(p, i, x));
            for (size_t k = 0; k < n; k++)
                length += (double)g[k] * (double)g[k];
            length = sqrt(length);
            if (length > 1e-3) {
                const double h = fmin(4e-3 / length, 0.1);      /* moves the loss by 4e-3 */
                for (size_t k = 0; k < n; k++)
                    moved[k] = (float)((double)x[k] + h * (double)g[k] / length);
                CHECK_OK(params_write(p, i, moved));
                CHECK_OK(train_once(t, 3, 0, &high, &norm));
                for (size_t k = 0; k < n; k++)
                    moved[k] = (float)((double)x[k] - h * (double)g[k] / length);
                CHECK_OK(params_write(p, i, moved));
                CHECK_OK(train_once(t, 3, 0, &low, &norm));
                CHECK_OK(params_write(p, i, x));
                const double slope = (high - low) / (2.0 * h);
                CHECKF(fabs(slope / length - 1.0) < 0.02, "'%s': slope %g, gradient %g", params_info(p, i)->name, slope,
                       length);
                compared++;
            }
            free(g);
            free(x);
            free(moved);
        }
        CHECKF(compared > 20, "only %d of %d tensors had a gradient", compared, params_count(p));
    }
    train_release(t);
    dev_close(d);
}

/* Scores multiplied by another number are those of queries multiplied by what makes up for it, and so
 * are loss and gradients: GPT-2s that are not scaled by sqrt(D), and by the layer's number instead. */
static void attention_scales_as_described(void)
{
    dev_device *d = tiny_device();
    const train_options o = tiny_options();
    for (int way = 0; d && way < 4; way++) {
        const model_config usual = tiny_config();
        model_config c = usual;
        double loss[2], norm;
        c.own[GPT2_UNSCALED] = way & 1;
        c.own[GPT2_BY_LAYER] = way >> 1;
        train *a = tiny_train(d, &usual, &o), *b = tiny_train(d, &c, &o);
        const size_t C = (size_t)c.channels, room = 3 * C * C;
        float *x = malloc(room * sizeof *x), *y = malloc(room * sizeof *y);
        float factor[8];
        for (int layer = 0; a && b && layer < c.layers; layer++) {
            static const char *const parts[] = { "weight", "bias" };
            factor[layer] = (way & 1 ? 1.0f / sqrtf((float)(c.channels / c.heads)) : 1.0f)
                            * (way >> 1 ? (float)(layer + 1) : 1.0f);
            for (int part = 0; part < 2; part++) {
                char name[64];
                snprintf(name, sizeof name, "h.%d.attn.c_attn.%s", layer, parts[part]);
                const int i = params_find(train_params(b), name);
                CHECK_OK(params_read(train_params(b), i, x));
                for (size_t k = 0; k < (part ? C : C * C); k++)
                    x[k] *= factor[layer];
                CHECK_OK(params_write(train_params(b), i, x));
            }
        }
        if (a && b && CHECK_OK(train_once(a, 3, 0, &loss[0], &norm))
            && CHECK_OK(train_once(b, 3, 0, &loss[1], &norm))) {
            CHECKF(fabs(loss[1] / loss[0] - 1.0) < 1e-6, "way %d: %.9g and %.9g", way, loss[0], loss[1]);
            for (int i = 0; i < params_count(train_params(a)); i++) {
                const graph_param_info *info = params_info(train_params(a), i);
                const size_t n = (size_t)shape_count(&info->shape);
                float *ga = malloc(n * sizeof *ga), *gb = malloc(n * sizeof *gb);
                CHECK_OK(params_read_grad(train_params(a), i, ga));
                CHECK_OK(params_read_grad(train_params(b), params_find(train_params(b), info->name), gb));
                if (strstr(info->name, "attn.c_attn."))     /* of queries: the other way round */
                    for (size_t k = 0; k < n / 3; k++)
                        gb[k] *= factor[info->name[2] - '0'];
                CHECKF(relative(gb, ga, n) < 2e-5, "way %d, '%s': off by %g", way, info->name, relative(gb, ga, n));
                free(ga);
                free(gb);
            }
        }
        free(x);
        free(y);
        train_release(a);
        train_release(b);
    }
    dev_close(d);
}

/* A head of its own that is the embedding gives the tied model's loss, and its gradient and the
 * embedding's add up to the tied one's. */
static void a_head_of_its_own_takes_its_part_of_the_gradient(void)
{
    dev_device *d = tiny_device();
    const model_config tied = tiny_config();
    const train_options o = tiny_options();
    model_config c = tied;
    double loss[2], norm;
    c.untied_head = 1;
    train *a = d ? tiny_train(d, &tied, &o) : NULL, *b = d ? tiny_train(d, &c, &o) : NULL;
    const size_t n = (size_t)c.vocab * (size_t)c.channels;
    float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y), *z = malloc(n * sizeof *z);
    if (a && b) {
        params *p = train_params(a), *q = train_params(b);
        for (int i = 0; i < params_count(p); i++) {
            float *w = malloc((size_t)shape_count(&params_info(p, i)->shape) * sizeof *w);
            CHECK_OK(params_read(p, i, w));
            CHECK_OK(params_write(q, params_find(q, params_info(p, i)->name), w));
            free(w);
        }
        const int wte = params_find(q, "wte.weight"), head = params_find(q, "lm_head.weight");
        CHECK(params_count(q) == params_count(p) + 1 && wte >= 0 && head >= 0);
        CHECK_OK(params_read(q, wte, x));
        CHECK_OK(params_write(q, head, x));
        CHECK_OK(train_once(a, 3, 0, &loss[0], &norm));
        CHECK_OK(train_once(b, 3, 0, &loss[1], &norm));
        CHECKF(fabs(loss[1] / loss[0] - 1.0) < 1e-6, "%.9g and %.9g", loss[0], loss[1]);
        CHECK_OK(params_read_grad(p, params_find(p, "wte.weight"), x));
        CHECK_OK(params_read_grad(q, wte, y));
        CHECK_OK(params_read_grad(q, head, z));
        CHECK(relative(y, x, n) > 0.01 && relative(z, x, n) > 0.01);
        for (size_t k = 0; k < n; k++)
            y[k] += z[k];
        CHECKF(relative(y, x, n) < 2e-5, "off by %g", relative(y, x, n));
    }
    free(x);
    free(y);
    free(z);
    train_release(a);
    train_release(b);
    dev_close(d);
}

/* Forward, input gradients and weight gradients as separate programs against the two
 * interleaved, on the same inputs and weights. */
static void split_programs_change_no_bit(void)
{
    enum { N = TINY_B * TINY_T };
    dev_device *d = tiny_device();
    const model_config c = with_dropout(3);
    const optim_config oc = optim_defaults();
    kernel_set *k = NULL;
    gemm_context *gemm = NULL;
    graph *g = NULL;
    params *p = NULL;
    optim *o = NULL;
    float *grads[2] = { NULL, NULL };
    size_t count = 0;
    if (!d)
        return;
    CHECK_OK(kernel_set_create(&k, d, DTYPE_F32));
    CHECK_OK(gemm_context_create(&gemm, d, "tiled"));
    CHECK_OK(graph_create(&g, DTYPE_F32, TINY_B, TINY_T));
    CHECK_OK(model_build_loss(g, &c, 1, 0));
    CHECK_OK(params_create(&p, d, g, 1));
    CHECK_OK(params_init(p, 5));
    CHECK_OK(optim_create(&o, d, k, NULL, p, &oc, N, NULL));
    for (int split = 0; split < 2; split++) {
        const exec_binding bindings[] = {
            { "grad_scale", optim_grad_scale(o) }, { "loss_sum", optim_loss_sum(o) }, { NULL, NULL }
        };
        exec_arena *arena = NULL;
        exec *e = NULL;
        int32_t x[N], y[N], order[N], starts[N + 2], scratch[TINY_VOCAB + 1];
        const uint32_t random[4] = { 1, 2, 3, 4 };
        for (int i = 0; i < N; i++) {
            x[i] = i * i % TINY_VOCAB;
            y[i] = (i + 1) * (i + 1) % TINY_VOCAB;
        }
        kernel_embed_sort(x, N, TINY_VOCAB, order, starts, scratch);
        CHECK_OK(exec_arena_create(&arena, d));
        const exec_options place = {
            .device = d, .kernels = k, .gemm = gemm, .params = p, .arena = arena, .bindings = bindings, .split = split
        };
        if (!CHECK_OK(exec_create(&e, g, &place)) || !CHECK_OK(exec_ready(e)))
            break;
        CHECK_OK(dev_write(d, exec_buffer(e, "tokens"), 0, x, sizeof x));
        CHECK_OK(dev_write(d, exec_buffer(e, "targets"), 0, y, sizeof y));
        CHECK_OK(dev_write(d, exec_buffer(e, "random"), 0, random, sizeof random));
        CHECK_OK(dev_write(d, exec_buffer(e, "embed_order"), 0, order, sizeof order));
        CHECK_OK(dev_write(d, exec_buffer(e, "embed_starts"), 0, starts, sizeof starts));
        CHECK_OK(exec_add(e, 0));
        CHECK_OK(exec_run(e, EXEC_FORWARD));
        if (split) {
            CHECK_OK(exec_run(e, EXEC_INPUT_GRAD));
            CHECK_OK(exec_run(e, EXEC_WEIGHT_GRAD));
        } else {
            CHECK_OK(exec_run(e, EXEC_BACKWARD));
        }
        CHECK_OK(dev_wait(d));
        size_t at = 0;
        for (int i = 0; i < params_count(p); i++)
            at += (size_t)shape_count(&params_info(p, i)->shape);
        count = at;
        grads[split] = calloc(count + 1, sizeof(float));
        at = 0;
        for (int i = 0; i < params_count(p); i++) {
            CHECK_OK(params_read_grad(p, i, grads[split] + at));
            at += (size_t)shape_count(&params_info(p, i)->shape);
        }
        exec_release(e);
        exec_arena_release(arena);
    }
    CHECK(count && grads[0] && grads[1] && relative(grads[0], grads[0], count) == 0.0);
    CHECK(grads[0] && grads[1] && !memcmp(grads[0], grads[1], count * sizeof(float)));
    double sum = 0.0;
    for (size_t i = 0; grads[0] && i < count; i++)
        sum += fabs((double)grads[0][i]);
    CHECK(sum > 0.0 && isfinite(sum));
    free(grads[0]);
    free(grads[1]);
    optim_release(o);
    params_release(p);
    graph_release(g);
    gemm_context_release(gemm);
    kernel_set_release(k);
    dev_close(d);
}

/* What a graph runs on. */
typedef struct runner {
    dev_device *d;
    kernel_set *k;
    gemm_context *gemm;
    graph *g;
    params *p;
    exec_arena *arena;
    exec *e;
} runner;

static int runner_open(runner *r)
{
    *r = (runner){ .d = tiny_device() };
    return r->d && CHECK_OK(kernel_set_create(&r->k, r->d, DTYPE_F32))
           && CHECK_OK(gemm_context_create(&r->gemm, r->d, "tiled"))
           && CHECK_OK(graph_create(&r->g, DTYPE_F32, TINY_B, TINY_T));
}

/* r->g has been built. */
static int runner_ready(runner *r, const exec_binding *bindings)
{
    const exec_options o = { .device = r->d, .kernels = r->k, .gemm = r->gemm, .bindings = bindings };
    exec_options with = o;
    int good = CHECK_OK(params_create(&r->p, r->d, r->g, 1)) && CHECK_OK(params_init(r->p, 5))
               && CHECK_OK(exec_arena_create(&r->arena, r->d));
    with.params = r->p;
    with.arena = r->arena;
    return good && CHECK_OK(exec_create(&r->e, r->g, &with)) && CHECK_OK(exec_ready(r->e))
           && CHECK_OK(exec_add(r->e, 0));
}

static int runner_run(runner *r)
{
    return CHECK_OK(exec_run(r->e, EXEC_FORWARD)) && CHECK_OK(exec_run(r->e, EXEC_BACKWARD))
           && CHECK_OK(dev_wait(r->d));
}

static void runner_close(runner *r)
{
    exec_release(r->e);
    exec_arena_release(r->arena);
    params_release(r->p);
    graph_release(r->g);
    gemm_context_release(r->gemm);
    kernel_set_release(r->k);
    dev_close(r->d);
}

/* Loss and all gradients of a model, as in double. */
static void compare_with_reference(const model_config *c, int recompute, const char *what)
{
    enum { N = TINY_B * TINY_T };
    int32_t x[N], y[N], order[N], starts[N + 2], scratch[TINY_VOCAB + 1];
    for (int i = 0; i < N; i++) {
        x[i] = i * i % TINY_VOCAB;
        y[i] = (i + 1) * (i + 1) % TINY_VOCAB;
    }
    kernel_embed_sort(x, N, TINY_VOCAB, order, starts, scratch);
    model_reference *ref = NULL;
    runner r;
    dev_buffer *scale = NULL, *sum = NULL;
    const float share = 1.0f / N, zero = 0.0f;
    float got_loss = 0.0f;
    double loss = 0.0;
    int compared = 0;
    if (runner_open(&r) && CHECK_OK(model_build_loss(r.g, c, 1, recompute))
        && CHECK_OK(dev_buffer_create(&scale, r.d, 4, "scale")) && CHECK_OK(dev_write(r.d, scale, 0, &share, 4))
        && CHECK_OK(dev_buffer_create(&sum, r.d, 4, "sum")) && CHECK_OK(dev_write(r.d, sum, 0, &zero, 4))
        && CHECK_OK(model_reference_create(&ref, c))) {
        const exec_binding bindings[] = { { "grad_scale", scale }, { "loss_sum", sum }, { NULL, NULL } };
        if (runner_ready(&r, bindings)) {
            CHECK_OK(dev_write(r.d, exec_buffer(r.e, "tokens"), 0, x, sizeof x));
            CHECK_OK(dev_write(r.d, exec_buffer(r.e, "targets"), 0, y, sizeof y));
            CHECK_OK(dev_write(r.d, exec_buffer(r.e, "embed_order"), 0, order, sizeof order));
            CHECK_OK(dev_write(r.d, exec_buffer(r.e, "embed_starts"), 0, starts, sizeof starts));
        }
        gt_random random;
        gt_random_init(&random, 4, 1);
        for (int i = 0; i < params_count(r.p); i++) {
            model_reference_tensor *t = model_reference_find(ref, params_info(r.p, i)->name);
            if (!CHECKF(t != NULL, "%s: the reference has no '%s'", what, params_info(r.p, i)->name))
                continue;
            float *w = malloc((size_t)t->count * sizeof *w);
            CHECK_OK(params_read(r.p, i, w));
            for (int64_t j = 0; j < t->count; j++) {    /* vectors begin with 0 or 1: let them be something */
                if (params_info(r.p, i)->shape.rank == 1)
                    w[j] += 0.4f * gt_random_unit(&random) - 0.2f;
                t->value[j] = (double)w[j];
            }
            CHECK_OK(params_write(r.p, i, w));
            free(w);
        }
        CHECK_OK(model_reference_run(ref, TINY_B, TINY_T, x, y, NULL, &loss));
        if (runner_run(&r))
            CHECK_OK(dev_read(r.d, sum, 0, &got_loss, 4));
        CHECKF(fabs((double)got_loss / N / loss - 1.0) < 1e-6, "%s: loss %.9g, in double %.9g", what,
               (double)got_loss / N, loss);
        for (int i = 0; i < params_count(r.p); i++) {
            const model_reference_tensor *t = model_reference_find(ref, params_info(r.p, i)->name);
            if (!t)
                continue;
            float *got = malloc((size_t)t->count * sizeof *got), *want = malloc((size_t)t->count * sizeof *want);
            CHECK_OK(params_read_grad(r.p, i, got));
            for (int64_t j = 0; j < t->count; j++)
                want[j] = (float)t->grad[j];
            /* A key's bias moves all scores of a query alike: nothing but rounding is left of its gradient. */
            double most = 0.0;
            for (int64_t j = 0; j < t->count; j++)
                most = fmax(most, fabs((double)want[j]));
            CHECKF(relative(got, want, (size_t)t->count) < 1e-5 || most < 1e-9, "%s: '%s' is off by %g", what, t->name,
                   relative(got, want, (size_t)t->count));
            compared++;
            free(got);
            free(want);
        }
        CHECKF(compared > 10, "%s: %d tensors compared", what, compared);
    }
    exec_release(r.e);
    r.e = NULL;
    dev_buffer_release(scale);
    dev_buffer_release(sum);
    runner_close(&r);
    model_reference_release(ref);
}

/* A GPT-2 with every activation, whose slope is part of a product: all gradients as in double. */
static void a_model_has_the_activation_it_asks_for(void)
{
    for (activation a = ACT_NONE + 1; a < ACT_COUNT; a++) {
        model_config c = tiny_config();
        c.layers = 1;
        c.own[GPT2_ACTIVATION] = a == ACT_GELU_TANH ? 0 : a;
        compare_with_reference(&c, 0, activation_name(a));
    }
}

/* Grouped heads of 6 and of 8 columns, biases, norms of heads, windows, tied and own heads, kept and recomputed. */
static void llama_and_its_relatives_have_gradients_as_in_double(void)
{
    static const char *const families[] = { "llama", "mistral", "qwen2", "qwen3", "gemma" };
    for (int f = 0; f < 5; f++) {
        model_config c = tiny_llama(families[f], f & 1);
        compare_with_reference(&c, f & 1, families[f]);
    }
    model_config biased = tiny_llama("llama", 1);
    biased.own[LLAMA_ATTENTION_BIAS] = biased.own[LLAMA_MLP_BIAS] = 1.0;
    biased.untied_head = 0;
    compare_with_reference(&biased, 0, "llama with biases");
    model_config some = tiny_llama("qwen2", 0); /* the second layer has a window, the first has none */
    some.own[LLAMA_USES_WINDOW] = 1.0;
    some.own[LLAMA_WINDOW] = 1.0;
    some.own[LLAMA_WINDOW_FROM] = 1.0;
    compare_with_reference(&some, 1, "qwen2 with a window");
}

/* Every way to stretch positions changes the loss, and in its own way. */
static void rotary_positions_are_stretched_in_every_way(void)
{
    double first[5] = { 0.0 };
    for (int way = LLAMA_ROPE_PLAIN; way <= LLAMA_ROPE_3; way++) {
        model_config c = tiny_llama("llama", 1);
        double table[2 * 8];
        c.own[LLAMA_ROPE] = way;
        c.own[LLAMA_ROPE_FACTOR] = 4.0;
        c.own[LLAMA_ROPE_LOW] = 1.0;
        c.own[LLAMA_ROPE_HIGH] = 4.0;
        c.own[LLAMA_ROPE_ORIGINAL] = 12.0;
        c.own[LLAMA_ROPE_FAST] = 32.0;
        c.own[LLAMA_ROPE_SLOW] = 1.0;
        compare_with_reference(&c, 0, "stretched");
        llama_rope_table(&c, 2, table);
        first[way] = table[8 + 1]; /* position 1, pair 1: angle 0.1, stretched */
    }
    CHECK(fabs(first[LLAMA_ROPE_PLAIN] - cos(0.1)) < 1e-12 && first[LLAMA_ROPE_DYNAMIC] == first[LLAMA_ROPE_PLAIN]);
    CHECK(fabs(first[LLAMA_ROPE_LINEAR] - cos(0.025)) < 1e-12);
    /* 0.1 turns in 62.8 positions, more than 12 / 1: as slow as can be. */
    CHECK(fabs(first[LLAMA_ROPE_3] - cos(0.025)) < 1e-12);
    CHECK(fabs(first[LLAMA_ROPE_YARN] - (0.1 * log(4.0) + 1.0) * cos(0.025)) < 1e-12);
}

/* A linear layer that ends a stage: the slope of its activation is a launch of its own. */
static void an_activation_at_the_end_of_a_stage_has_its_slope(void)
{
    enum { R = TINY_B * TINY_T, K = 5, N = 7 };
    static float x[R * K], dy[R * N], w[N * K], y[R * N], dw[N * K], want_y[R * N];
    static double pre[R * N];
    for (int i = 0; i < R * K; i++)
        x[i] = (float)((i * 7 % 23) - 11) / 6.0f;
    for (int i = 0; i < R * N; i++)
        dy[i] = (float)((i * 5 % 17) - 8) / 8.0f;
    for (activation a = ACT_NONE + 1; a < ACT_COUNT; a++) {
        runner r;
        float want[N * K] = { 0 };
        if (runner_open(&r)) {
            int in = graph_stage_input(r.g, "x", shape_of(3, (int64_t)TINY_B, (int64_t)TINY_T, (int64_t)K));
            int weight = graph_param(r.g, "w", shape_of(2, (int64_t)N, (int64_t)K), GRAPH_INIT_NORMAL, 0.7f);
            int out = graph_linear(r.g, "end", in, weight, -1, a, -1, 0.0f);
            if (CHECK_OK(graph_backward(r.g, out, in, 0)) && runner_ready(&r, NULL)) {
                CHECK_OK(dev_write(r.d, exec_value(r.e, in), 0, x, sizeof x));
                CHECK_OK(dev_write(r.d, exec_buffer(r.e, "dy"), 0, dy, sizeof dy));
                CHECK_OK(params_read(r.p, 0, w));
                CHECK_OK(exec_run(r.e, EXEC_FORWARD));
                CHECK_OK(dev_read(r.d, exec_value(r.e, out), 0, y, sizeof y));
                CHECK_OK(exec_run(r.e, EXEC_BACKWARD));
                CHECK_OK(dev_wait(r.d));
                CHECK_OK(params_read_grad(r.p, 0, dw));
                for (int i = 0; i < R * N; i++) {
                    pre[i] = 0.0;
                    for (int k = 0; k < K; k++)
                        pre[i] += (double)x[i / N * K + k] * (double)w[i % N * K + k];
                    want_y[i] = (float)reference_activation(a, pre[i]);
                    for (int k = 0; k < K; k++)
                        want[i % N * K + k] += (float)((double)dy[i] * reference_activation_slope(a, pre[i])
                                                       * (double)x[i / N * K + k]);
                }
                CHECKF(relative(y, want_y, R * N) < 1e-6, "%s: y is off by %g", activation_name(a),
                       relative(y, want_y, R * N));
                CHECKF(relative(dw, want, N * K) < 1e-5, "%s: dw is off by %g", activation_name(a),
                       relative(dw, want, N * K));
            }
        }
        runner_close(&r);
    }
}

/* Attention in a graph to tokens of which the last are padding: out and the gradient of q, k and v. */
static void attention_in_a_graph_sees_no_padding(void)
{
    enum { R = TINY_B * TINY_T, H = 2, D = 4, C = H * D };
    static float x[R * 3 * C], dy[R * C], y[R * C], dx[R * 3 * C], want_y[R * C], want_dx[R * 3 * C];
    static double qkv[R * 3 * C], out[R * C], dout[R * C], dqkv[R * 3 * C];
    int32_t keys[TINY_B];
    runner r;
    for (int b = 0; b < TINY_B; b++)
        keys[b] = b * 5 % (TINY_T + 1);
    for (int i = 0; i < R * 3 * C; i++)
        qkv[i] = (double)(x[i] = (float)((i * 7 % 23) - 11) / 8.0f);
    for (int i = 0; i < R * C; i++)
        dout[i] = (double)(dy[i] = (float)((i * 5 % 17) - 8) / 8.0f);
    reference_attention(TINY_B, TINY_T, C, H, 0, 0.5, NULL, keys, qkv, out, NULL);
    reference_attention_grad(TINY_B, TINY_T, C, H, 0, 0.5, NULL, keys, qkv, dout, dqkv);
    for (int i = 0; i < R * C; i++)
        want_y[i] = (float)out[i];
    for (int i = 0; i < R * 3 * C; i++)
        want_dx[i] = (float)dqkv[i];
    if (runner_open(&r)) {
        int in = graph_stage_input(r.g, "x", shape_of(3, (int64_t)TINY_B, (int64_t)TINY_T, (int64_t)3 * C));
        int lengths = graph_input(r.g, "lengths", DTYPE_I32, shape_of(1, (int64_t)TINY_B));
        const graph_attention_in heads = { .q = { in, 0 }, .k = { in, C }, .v = { in, 2 * C } };
        const graph_heads how = { .heads = H, .kv_heads = H, .size = D, .scale = 0.5f };
        int attended = graph_attention(r.g, "attn", &heads, &how, lengths);
        if (CHECK_OK(graph_backward(r.g, attended, in, 0)) && runner_ready(&r, NULL)) {
            const graph_ends ends = graph_ends_of(r.g);
            CHECK_OK(dev_write(r.d, exec_value(r.e, in), 0, x, sizeof x));
            CHECK_OK(dev_write(r.d, exec_buffer(r.e, "lengths"), 0, keys, sizeof keys));
            CHECK_OK(dev_write(r.d, exec_buffer(r.e, "dy"), 0, dy, sizeof dy));
            CHECK_OK(exec_run(r.e, EXEC_FORWARD));
            CHECK_OK(dev_read(r.d, exec_value(r.e, attended), 0, y, sizeof y));
            CHECK_OK(exec_run(r.e, EXEC_BACKWARD));
            CHECK_OK(dev_read(r.d, exec_value(r.e, ends.dx), 0, dx, sizeof dx));
            CHECKF(relative(y, want_y, R * C) < 1e-5, "out is off by %g", relative(y, want_y, R * C));
            CHECKF(relative(dx, want_dx, R * 3 * C) < 1e-5, "the gradient is off by %g",
                   relative(dx, want_dx, R * 3 * C));
        }
    }
    runner_close(&r);
}

/* Documents in one sequence, with and without a window: a token sees nothing of those before its own. */
static void attention_in_a_graph_stays_within_documents(void)
{
    enum { R = TINY_B * TINY_T, H = 2, D = 4, C = H * D };
    static float x[R * 3 * C], dy[R * C], y[R * C], dx[R * 3 * C], want_y[R * C], want_dx[R * 3 * C];
    static double qkv[R * 3 * C], out[R * C], dout[R * C], dqkv[R * 3 * C];
    static int32_t first[R];
    for (int i = 0; i < R; i++) /* documents of 7, 8, 9, ... tokens */
        first[i] = i % TINY_T / (7 + i / TINY_T) * (7 + i / TINY_T);
    for (int i = 0; i < R * 3 * C; i++)
        qkv[i] = (double)(x[i] = (float)((i * 7 % 23) - 11) / 8.0f);
    for (int i = 0; i < R * C; i++)
        dout[i] = (double)(dy[i] = (float)((i * 5 % 17) - 8) / 8.0f);
    for (int window = 0; window < 8; window += 3) {
        const reference_mask mask = { .causal = 1, .window = window, .starts = first };
        runner r;
        reference_attention_masked(TINY_B, TINY_T, C, H, &mask, 0.5, NULL, qkv, out, NULL);
        reference_attention_masked_grad(TINY_B, TINY_T, C, H, &mask, 0.5, NULL, qkv, dout, dqkv);
        for (int i = 0; i < R * C; i++)
            want_y[i] = (float)out[i];
        for (int i = 0; i < R * 3 * C; i++)
            want_dx[i] = (float)dqkv[i];
        if (runner_open(&r)) {
            int in = graph_stage_input(r.g, "x", shape_of(3, (int64_t)TINY_B, (int64_t)TINY_T, (int64_t)3 * C));
            int starts = graph_input(r.g, "starts", DTYPE_I32, shape_of(2, (int64_t)TINY_B, (int64_t)TINY_T));
            const graph_attention_in heads = { .q = { in, 0 }, .k = { in, C }, .v = { in, 2 * C } };
            const graph_heads how = {
                .heads = H, .kv_heads = H, .size = D, .scale = 0.5f, .causal = 1, .window = window
            };
            int attended = graph_attention_within(r.g, "attn", &heads, &how, starts);
            if (CHECK_OK(graph_backward(r.g, attended, in, 0)) && runner_ready(&r, NULL)) {
                const graph_ends ends = graph_ends_of(r.g);
                CHECK_OK(dev_write(r.d, exec_value(r.e, in), 0, x, sizeof x));
                CHECK_OK(dev_write(r.d, exec_buffer(r.e, "starts"), 0, first, sizeof first));
                CHECK_OK(dev_write(r.d, exec_buffer(r.e, "dy"), 0, dy, sizeof dy));
                CHECK_OK(exec_run(r.e, EXEC_FORWARD));
                CHECK_OK(dev_read(r.d, exec_value(r.e, attended), 0, y, sizeof y));
                CHECK_OK(exec_run(r.e, EXEC_BACKWARD));
                CHECK_OK(dev_read(r.d, exec_value(r.e, ends.dx), 0, dx, sizeof dx));
                CHECKF(relative(y, want_y, R * C) < 1e-5, "window %d: out is off by %g", window,
                       relative(y, want_y, R * C));
                CHECKF(relative(dx, want_dx, R * 3 * C) < 1e-5, "window %d: the gradient is off by %g", window,
                       relative(dx, want_dx, R * 3 * C));
            }
        }
        runner_close(&r);
    }
}

/* A part of the tiny model, priced. */
static graph_cost price(const model_config *c, const graph_part *part, int recompute, int split)
{
    graph_cost cost = { 0 };
    graph *g = NULL;
    if (CHECK_OK(graph_create(&g, DTYPE_BF16, TINY_B, TINY_T)) && CHECK_OK(model_build_part(g, c, part, 1, recompute)))
        CHECK_OK(graph_cost_of(g, split, &cost));
    graph_release(g);
    return cost;
}

/* Sums by hand, of a graph that no device has seen. */
static void a_graph_says_what_it_takes_without_a_device(void)
{
    const model_config c = tiny_config();
    const double R = TINY_B * TINY_T, C = c.channels, I = c.inner, V = c.vocab;
    const double matrices = 4 * C * C + 2 * C * I, products = R * TINY_T * C; /* of attention */
    const graph_part layer = { .first_unit = 1, .units = 1 }, first = { .first_unit = 0, .units = 1 };
    const graph_part head = { .first_unit = c.layers + 1, .units = 1 };
    const graph_cost a = price(&c, &layer, 0, 1), e = price(&c, &first, 0, 1), h = price(&c, &head, 0, 1);
    const double norms = 2 * 8 * R * C;
    CHECKF(a.flops[GRAPH_FORWARD] == 2 * R * matrices + 2 * products + norms, "%.9g", a.flops[GRAPH_FORWARD]);
    CHECK(a.flops[GRAPH_WEIGHT_GRAD] > 2 * R * matrices && a.flops[GRAPH_INPUT_GRAD] > 2 * R * matrices);
    CHECK(a.parameters == (int64_t)(matrices + 9 * C + I) && a.decayed == (int64_t)matrices);
    CHECK(a.input == 2 * R * C && a.output == 2 * R * C && a.exchanges[GRAPH_FORWARD] == 0);
    CHECK(e.input == 0 && e.output == 2 * R * C && e.parameters == (int64_t)((V + c.context) * C));
    CHECK(h.output == 0 && h.input == 2 * R * C && h.flops[GRAPH_FORWARD] == 6 * R * V * C + 8 * R * C);
    /* Two norms and their two numbers a row, q k v, attention and its number a row and head, the stream
     * once (the second sum goes to the next stage), the inner layer before and after its activation. */
    const double kept = 2 * (2 * R * C + 2 * 4 * R) + 3 * 2 * R * C + 2 * R * C + 4 * R * c.heads + 2 * R * C
                        + 2 * 2 * R * I;
    const graph_cost together = price(&c, &layer, 0, 0);
    CHECKF(together.kept == kept, "kept %.0f, want %.0f", together.kept, kept);
    CHECKF(a.kept >= kept, "kept %.0f, not less than %.0f", a.kept, kept);
    const graph_cost again = price(&c, &layer, 1, 0);
    CHECKF(again.kept == 0 && again.passing > kept / 2, "kept %.0f, passing %.0f", again.kept, again.passing);
    CHECK(again.flops[GRAPH_INPUT_GRAD] > a.flops[GRAPH_INPUT_GRAD] + 2 * R * matrices / 2);
    /* Of a tensor group: rows of the norm's result to all and sums of the projections back, twice. */
    const graph_part half = { .first_unit = 1, .units = 1, .ranks = 2 };
    const graph_cost two = price(&c, &half, 0, 1);
    CHECK(two.exchanges[GRAPH_FORWARD] == 4 && two.exchanges[GRAPH_INPUT_GRAD] == 4
          && two.exchanges[GRAPH_WEIGHT_GRAD] == 0);
    CHECK(two.exchanged[GRAPH_FORWARD] == 4 * 2 * R * C && two.input == R * C);
}

/* The same lifetimes as the memory layout of the device: what it keeps is that, but for alignment. */
static void the_layout_of_a_device_keeps_what_the_graph_says(void)
{
    dev_device *d = tiny_device();
    const model_config c = with_dropout(3);
    kernel_set *k = NULL;
    gemm_context *gemm = NULL;
    graph *g = NULL;
    exec_arena *keeps = NULL, *passing = NULL;
    exec *e = NULL;
    graph_cost cost = { 0 };
    if (!d || !CHECK_OK(kernel_set_create(&k, d, DTYPE_F32)) || !CHECK_OK(gemm_context_create(&gemm, d, "tiled")))
        return;
    for (int split = 0; split < 2; split++) {
        if (CHECK_OK(graph_create(&g, DTYPE_F32, TINY_B, TINY_T)) && CHECK_OK(model_build_loss(g, &c, 1, 0))
            && CHECK_OK(graph_cost_of(g, split, &cost)) && CHECK_OK(exec_arena_create(&keeps, d))
            && CHECK_OK(exec_arena_create(&passing, d))) {
            const exec_options o = {
                .device = d, .kernels = k, .gemm = gemm, .arena = keeps, .passing = passing, .split = split
            };
            CHECK_OK(exec_create(&e, g, &o));
            const double bytes = (double)exec_arena_bytes(keeps);
            const double most = cost.kept + (double)dev_info_of(d)->align * graph_value_count(g);
            CHECKF(cost.kept > 0 && cost.kept <= bytes && bytes <= most, "split %d: %.0f of %.0f kept", split,
                   cost.kept, bytes);
        }
        exec_release(e);
        exec_arena_release(keeps);
        exec_arena_release(passing);
        graph_release(g);
        e = NULL;
        keeps = passing = NULL;
        g = NULL;
    }
    gemm_context_release(gemm);
    kernel_set_release(k);
    dev_close(d);
}

/* ---- adapters and what is frozen --------------------------------------------------------------- */

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
    CHECKF(off(da, wa, rank * I) < 2e-5, "%s: A is off by %g", label, off(da, wa, rank * I));
    CHECKF(off(db, wb, O * rank) < 2e-5, "%s: B is off by %g", label, off(db, wb, O * rank));
    if (m)
        CHECKF(off(dm, wm, O) < 2e-5, "%s: magnitudes are off by %g", label, off(dm, wm, O));
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
    CASE(a_graph_says_what_it_takes_without_a_device),
    CASE(the_layout_of_a_device_keeps_what_the_graph_says),
    CASE(recomputing_changes_no_bit_and_takes_less),
    CASE(micro_batches_add_up_to_the_batch),
    CASE(the_same_step_twice_is_the_same),
    CASE(gradients_are_slopes),
    CASE(attention_scales_as_described),
    CASE(a_head_of_its_own_takes_its_part_of_the_gradient),
    CASE(split_programs_change_no_bit),
    CASE(a_model_has_the_activation_it_asks_for),
    CASE(llama_and_its_relatives_have_gradients_as_in_double),
    CASE(rotary_positions_are_stretched_in_every_way),
    CASE(an_activation_at_the_end_of_a_stage_has_its_slope),
    CASE(attention_in_a_graph_sees_no_padding),
    CASE(attention_in_a_graph_stays_within_documents),
    CASE(adapters_have_the_gradients_of_what_they_come_to),
    CASE(what_is_frozen_changes_no_other_gradient),
    CASE(frozen_matrices_take_less),
    CASE(patterns_that_match_nothing_are_refused),
    { 0 }
};
