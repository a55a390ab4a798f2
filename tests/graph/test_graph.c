/* SPDX-License-Identifier: MIT */
/* tests/graph/test_graph.c - one model's gradients, made in every way that must not matter; and what a graph says it takes. */
#include "tests/check.h"
#include "tests/graph/graph_runner.h"
#include "host/base/file.h"
#include "host/base/random.h"
#include "host/graph/graph_cost.h"
#include "host/optim/optim.h"
#include "models/gpt2.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
                const double h = fmin(4e-3 / length, 0.1); /* moves the loss by 4e-3 */
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
                if (strstr(info->name, "attn.c_attn.")) /* of queries: the other way round */
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

/* All initial weights, one after the other, from as many threads as this one may use cores. */
static float *initial_weights(dev_device *d, const graph *g, size_t *count)
{
    params *p = NULL;
    float *x = NULL;
    *count = 0;
    if (!CHECK_OK(params_create(&p, d, g, 0)) || !CHECK_OK(params_init(p, 5)))
        goto out;
    for (int i = 0; i < params_count(p); i++)
        *count += (size_t)shape_count(&params_info(p, i)->shape);
    x = calloc(*count + 1, sizeof *x);
    for (int i = 0, at = 0; x && i < params_count(p); i++) {
        CHECK_OK(params_read(p, i, x + at));
        at += (int)shape_count(&params_info(p, i)->shape);
    }
out:
    params_release(p);
    return x;
}

static void initial_weights_are_the_same_on_any_number_of_cores(void)
{
    dev_device *d = tiny_device();
    model_config c = tiny_config();
    graph *g = NULL;
    cpu_set_t before, one;
    c.vocab = 9001; /* a tensor of several pieces and a rest */
    if (!d)
        return;
    CHECK_OK(graph_create(&g, DTYPE_F32, 1, TINY_T));
    CHECK_OK(model_build_loss(g, &c, 0, 0));
    size_t n = 0, m = 1, at = 0;
    float *all = initial_weights(d, g, &n);
    CHECK(!sched_getaffinity(0, sizeof before, &before));
    CPU_ZERO(&one);
    CPU_SET((size_t)sched_getcpu(), &one);
    CHECK(!sched_setaffinity(0, sizeof one, &one));
    float *alone = initial_weights(d, g, &m);
    CHECK(!sched_setaffinity(0, sizeof before, &before));
    CHECK(all && alone && n == m && n > 9001 && !memcmp(all, alone, n * sizeof *all));
    for (int i = 0; all && i < graph_param_count(g); i++) { /* and those of one stream a name */
        const graph_param_info *info = graph_param_at(g, i);
        const size_t count = (size_t)shape_count(&info->shape);
        float *want = calloc(count + 1, sizeof *want);
        gt_random r;
        gt_random_init(&r, 5, gt_hash(info->name, strlen(info->name)));
        if (want && info->init == GRAPH_INIT_NORMAL) {
            gt_random_normal(&r, want, count, 0.0f, info->deviation);
            CHECKF(!memcmp(want, all + at, count * sizeof *want), "%s", info->name);
        }
        at += count;
        free(want);
    }
    free(all);
    free(alone);
    graph_release(g);
    dev_close(d);
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
    CASE(initial_weights_are_the_same_on_any_number_of_cores),
    { 0 }
};
