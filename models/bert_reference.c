/* SPDX-License-Identifier: MIT */
/* models/bert_reference.c - bert.c's forward and backward pass in double, one operation a line.
 *
 *   x = norm(word[token] + position[t] + type[0])                    of RoBERTa positions behind padding's id
 *   layer:  x = norm(x + attn(x));   x = norm(x + mlp(x))
 *   loss = cross-entropy(norm(act(dense(x))) word' + bias, target)
 *
 * Of the task mlm alone, with a tied decoder; sequences are whole and of type 0. A target may stand at any token. */
#include "models/bert.h"

#include "host/kernel/reference.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORD, POSITION, TYPE, GAIN, BIAS, DENSE, DENSE_BIAS, HEAD_GAIN, HEAD_BIAS, DECODER_BIAS, OUTSIDE };
enum { QKV, QKV_BIAS, OUT, OUT_BIAS, GAIN_1, BIAS_1, UP, UP_BIAS, DOWN, DOWN_BIAS, GAIN_2, BIAS_2, IN_LAYER };

typedef struct entry {
    const char *name;
    int64_t count;
} entry;

static int count_tensors(const model_config *c)
{
    return OUTSIDE + c->layers * IN_LAYER;
}

static void describe_tensor(const model_config *c, int i, char name[72], int64_t *count)
{
    const int64_t C = c->channels, I = c->inner;
    const entry outside[OUTSIDE] = {
        { "embeddings.word_embeddings.weight", c->vocab * C },
        { "embeddings.position_embeddings.weight", (int64_t)c->own[BERT_POSITIONS] * C },
        { "embeddings.token_type_embeddings.weight", (int64_t)c->own[BERT_TYPES] * C },
        { "embeddings.LayerNorm.weight", C },
        { "embeddings.LayerNorm.bias", C },
        { "cls.predictions.transform.dense.weight", C * C },
        { "cls.predictions.transform.dense.bias", C },
        { "cls.predictions.transform.LayerNorm.weight", C },
        { "cls.predictions.transform.LayerNorm.bias", C },
        { "cls.predictions.bias", c->vocab }
    };
    const entry layer[IN_LAYER] = {
        { "attention.self.qkv.weight", 3 * C * C }, { "attention.self.qkv.bias", 3 * C },
        { "attention.output.dense.weight", C * C }, { "attention.output.dense.bias", C },
        { "attention.output.LayerNorm.weight", C }, { "attention.output.LayerNorm.bias", C },
        { "intermediate.dense.weight", I * C },     { "intermediate.dense.bias", I },
        { "output.dense.weight", C * I },           { "output.dense.bias", C },
        { "output.LayerNorm.weight", C },           { "output.LayerNorm.bias", C }
    };
    const int at = (i - OUTSIDE) % IN_LAYER;
    if (i < OUTSIDE)
        snprintf(name, 72, "%s", outside[i].name);
    else
        snprintf(name, 72, "encoder.layer.%d.%s", (i - OUTSIDE) / IN_LAYER, layer[at].name);
    *count = i < OUTSIDE ? outside[i].count : layer[at].count;
}

/* ---- the pass -------------------------------------------------------------------------------- */

/* What a norm's or a layer's backward pass wants of its forward pass; R rows. */
typedef struct normed {
    double *in, *out, *mean, *rstd;
} normed;
typedef struct saved {
    double *in, *qkv, *attention, *pre, *act;
    normed first, second;
} saved;

static void linear(int R, int in, int out, const double *x, const model_reference_tensor *w, double *y)
{
    reference_gemm(0, 1, R, out, in, 1.0, x, in, w[0].value, in, y, out, 0);
    reference_bias(R, out, y, w[1].value);
}

static void linear_grad(int R, int in, int out, const double *dy, const double *x, model_reference_tensor *w,
                        double *dx)
{
    reference_gemm(1, 0, out, in, R, 1.0, dy, out, x, in, w[0].grad, in, 0);
    reference_bias_grad(R, out, dy, w[1].grad, 0);
    reference_gemm(0, 0, R, in, out, 1.0, dy, out, w[0].value, in, dx, in, 0);
}

/* n->in is filled; x becomes the norm of it. */
static void norm(const model_config *c, int R, const model_reference_tensor *gain, normed *n, double *x)
{
    reference_layernorm(R, c->channels, (double)c->eps, n->in, gain[0].value, gain[1].value, n->out, n->mean, n->rstd);
    memcpy(x, n->out, (size_t)R * (size_t)c->channels * sizeof *x);
}

/* dx becomes the derivative of what was normed. */
static void norm_grad(const model_config *c, int R, model_reference_tensor *gain, const normed *n, double *dx,
                      double *room)
{
    const int C = c->channels;
    reference_layernorm_weight_grad(R, C, dx, n->in, n->mean, n->rstd, gain[0].grad, gain[1].grad, 0);
    reference_layernorm_input_grad(R, C, dx, n->in, gain[0].value, n->mean, n->rstd, NULL, room);
    memcpy(dx, room, (size_t)R * (size_t)C * sizeof *dx);
}

static activation activation_of(const model_config *c)
{
    return c->own[BERT_ACTIVATION] != 0.0 ? (activation)c->own[BERT_ACTIVATION] : ACT_GELU_ERF;
}

static double scale_of(const model_config *c)
{
    return 1.0 / sqrt((double)(c->channels / c->heads));
}

/* y = x + y */
static void add(ptrdiff_t n, const double *x, double *y)
{
    for (ptrdiff_t i = 0; i < n; i++)
        y[i] += x[i];
}

static void layer_forward(const model_config *c, int B, int T, const model_reference_tensor *w, saved *s, double *x)
{
    const int R = B * T, C = c->channels, I = c->inner;
    const ptrdiff_t n = (ptrdiff_t)R * C;
    memcpy(s->in, x, (size_t)n * sizeof *x);
    linear(R, C, 3 * C, x, &w[QKV], s->qkv);
    reference_attention(B, T, C, c->heads, 0, scale_of(c), NULL, NULL, s->qkv, s->attention, NULL);
    linear(R, C, C, s->attention, &w[OUT], s->first.in);
    add(n, s->in, s->first.in);
    norm(c, R, &w[GAIN_1], &s->first, x);
    linear(R, C, I, x, &w[UP], s->pre);
    for (ptrdiff_t i = 0; i < (ptrdiff_t)R * I; i++)
        s->act[i] = reference_activation(activation_of(c), s->pre[i]);
    linear(R, I, C, s->act, &w[DOWN], s->second.in);
    add(n, s->first.out, s->second.in);
    norm(c, R, &w[GAIN_2], &s->second, x);
}

/* dx becomes the derivative of the layer's input; wide and narrow are room. */
static void layer_backward(const model_config *c, int B, int T, model_reference_tensor *w, const saved *s, double *dx,
                           double *wide, double *narrow)
{
    const int R = B * T, C = c->channels, I = c->inner;
    const ptrdiff_t n = (ptrdiff_t)R * C;
    norm_grad(c, R, &w[GAIN_2], &s->second, dx, narrow);
    linear_grad(R, I, C, dx, s->act, &w[DOWN], wide);
    for (ptrdiff_t i = 0; i < (ptrdiff_t)R * I; i++)
        wide[i] *= reference_activation_slope(activation_of(c), s->pre[i]);
    linear_grad(R, C, I, wide, s->first.out, &w[UP], narrow);
    add(n, narrow, dx);
    norm_grad(c, R, &w[GAIN_1], &s->first, dx, narrow);
    linear_grad(R, C, C, dx, s->attention, &w[OUT], narrow);
    reference_attention_grad(B, T, C, c->heads, 0, scale_of(c), NULL, NULL, s->qkv, narrow, wide);
    linear_grad(R, C, 3 * C, wide, s->in, &w[QKV], narrow);
    add(n, narrow, dx);
}

/* ---- all of it --------------------------------------------------------------------------------- */

static double *take(double **room, size_t count)
{
    double *mine = *room;
    *room += count;
    return mine;
}

static normed take_normed(double **room, size_t R, size_t C)
{
    return (normed){ take(room, R * C), take(room, R * C), take(room, R), take(room, R) };
}

/* Rows of RoBERTa's positions that stand before the first. */
static size_t offset_of(const model_config *c)
{
    return c->own[BERT_PADDING] > 0.0 ? (size_t)c->own[BERT_PADDING] + 1 : 0;
}

static void embed(const model_config *c, int B, int T, const model_reference_tensor *w, const int32_t *tokens,
                  normed *n, double *x)
{
    const int R = B * T, C = c->channels;
    reference_embed(B, T, C, tokens, w[WORD].value, w[POSITION].value, (int)offset_of(c), n->in);
    for (ptrdiff_t i = 0; i < (ptrdiff_t)R * C; i++)
        n->in[i] += w[TYPE].value[i % C];
    norm(c, R, &w[GAIN], n, x);
}

static void embed_grad(const model_config *c, int B, int T, model_reference_tensor *w, const int32_t *tokens,
                       const normed *n, double *dx, double *room)
{
    const int R = B * T, C = c->channels;
    norm_grad(c, R, &w[GAIN], n, dx, room);
    reference_embed_token_grad(R, C, tokens, dx, w[WORD].grad);
    memset(w[POSITION].grad, 0, (size_t)w[POSITION].count * sizeof(double));
    reference_embed_position_grad(B, T, C, dx, w[POSITION].grad + offset_of(c) * (size_t)C, 0);
    memset(w[TYPE].grad, 0, (size_t)w[TYPE].count * sizeof(double));
    for (ptrdiff_t i = 0; i < (ptrdiff_t)R * C; i++)
        w[TYPE].grad[i % C] += dx[i];
}

static gt_status run(const model_config *c, model_reference_tensor *w, int B, int T, const int32_t *tokens,
                     const int32_t *targets, const double *weights, double *loss)
{
    const size_t R = (size_t)B * (size_t)T, C = (size_t)c->channels, I = (size_t)c->inner, V = (size_t)c->vocab;
    const size_t L = (size_t)c->layers, most = I > 3 * C ? I : 3 * C;
    const int rows = (int)R, cols = (int)C, vocab = (int)V;
    assert(T <= c->context);
    if (c->task != MODEL_MLM || c->pairs || c->untied_head)
        return gt_fail(GT_UNSUPPORTED,
                       "the reference of '%s' finds hidden tokens with a tied decoder, and nothing else", c->name);
    saved *s = calloc(L, sizeof *s);
    double *all = calloc(L * R * (9 * C + 2 * I + 4) + R * (10 * C + 2 * V + most + 5), sizeof *all);
    if (!s || !all) {
        free(s);
        free(all);
        return gt_fail(GT_NO_MEMORY, "no memory to run the reference of '%s'", c->name);
    }
    double *room = all;
    for (size_t l = 0; l < L; l++)
        s[l] = (saved){ .in = take(&room, R * C),
                        .qkv = take(&room, 3 * R * C),
                        .attention = take(&room, R * C),
                        .pre = take(&room, R * I),
                        .act = take(&room, R * I),
                        .first = take_normed(&room, R, C),
                        .second = take_normed(&room, R, C) };
    normed begin = take_normed(&room, R, C), end = take_normed(&room, R, C);
    double *x = take(&room, R * C), *last = take(&room, R * C), *pre = take(&room, R * C), *dx = take(&room, R * C);
    double *narrow = take(&room, R * C), *wide = take(&room, R * most);
    double *logits = take(&room, R * V), *dlogits = take(&room, R * V), *each = take(&room, R);

    embed(c, B, T, w, tokens, &begin, x);
    for (size_t l = 0; l < L; l++)
        layer_forward(c, B, T, &w[OUTSIDE + l * IN_LAYER], &s[l], x);
    memcpy(last, x, R * C * sizeof *x);
    linear(rows, cols, cols, last, &w[DENSE], pre);
    for (size_t i = 0; i < R * C; i++)
        end.in[i] = reference_activation(activation_of(c), pre[i]);
    norm(c, rows, &w[HEAD_GAIN], &end, x);
    reference_gemm(0, 1, rows, vocab, cols, 1.0, x, cols, w[WORD].value, cols, logits, vocab, 0);
    reference_bias(rows, vocab, logits, w[DECODER_BIAS].value);
    double total = 0.0;
    for (size_t i = 0; i < R; i++)
        total += targets[i] < 0 ? 0.0 : weights ? weights[i] : 1.0;
    reference_xent(rows, vocab, logits, targets, weights, 1.0 / total, each, dlogits);
    *loss = reference_sum((int64_t)R, each) / total;

    reference_gemm(1, 0, vocab, cols, rows, 1.0, dlogits, vocab, x, cols, w[WORD].grad, cols, 0);
    reference_bias_grad(rows, vocab, dlogits, w[DECODER_BIAS].grad, 0);
    reference_gemm(0, 0, rows, cols, vocab, 1.0, dlogits, vocab, w[WORD].value, cols, dx, cols, 0);
    norm_grad(c, rows, &w[HEAD_GAIN], &end, dx, narrow);
    for (size_t i = 0; i < R * C; i++)
        dx[i] *= reference_activation_slope(activation_of(c), pre[i]);
    linear_grad(rows, cols, cols, dx, last, &w[DENSE], narrow);
    memcpy(dx, narrow, R * C * sizeof *dx);
    for (size_t l = L; l-- > 0;)
        layer_backward(c, B, T, &w[OUTSIDE + l * IN_LAYER], &s[l], dx, wide, narrow);
    embed_grad(c, B, T, w, tokens, &begin, dx, narrow);
    free(s);
    free(all);
    return GT_OK;
}

const model_reference_rule bert_reference = { count_tensors, describe_tensor, run };
