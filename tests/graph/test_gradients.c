/* SPDX-License-Identifier: MIT */
/* tests/graph/test_gradients.c - losses and gradients of every family and operation, as the reference has them in double. */
#include "tests/check.h"
#include "tests/graph/graph_runner.h"
#include "host/base/random.h"
#include "host/kernel/reference.h"
#include "models/gpt2.h"
#include "models/llama.h"
#include "models/model_reference.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
            for (int64_t j = 0; j < t->count; j++) { /* vectors begin with 0 or 1: let them be something */
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

const check_case check_cases[] = {
    CASE(a_model_has_the_activation_it_asks_for),
    CASE(llama_and_its_relatives_have_gradients_as_in_double),
    CASE(rotary_positions_are_stretched_in_every_way),
    CASE(an_activation_at_the_end_of_a_stage_has_its_slope),
    CASE(attention_in_a_graph_sees_no_padding),
    CASE(attention_in_a_graph_stays_within_documents),
    { 0 }
};
