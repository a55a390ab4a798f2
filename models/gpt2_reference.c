/* SPDX-License-Identifier: MIT */
/* models/gpt2_reference.c - GPT-2's forward and backward pass in double, one operation a line.
 *
 * The same formulas as gpt2.c's head, with their derivatives in reverse order:
 *   x = wte[token] + wpe[position]
 *   layer:  x = x + attn(ln_1(x));   x = x + mlp(ln_2(x))
 *   loss = cross-entropy(ln_f(x) wte', target)                                            */
#include "models/gpt2.h"

#include "host/kernel/reference.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WTE, WPE, FINAL_GAIN, FINAL_BIAS, OUTSIDE };      /* tensors outside of layers */
enum { GAIN_1, BIAS_1, QKV, QKV_BIAS, PROJECT, PROJECT_BIAS, GAIN_2, BIAS_2, FC, FC_BIAS, OUT, OUT_BIAS, IN_LAYER };

/* What a layer's backward pass wants of its forward pass; R rows. */
typedef struct saved {
    double *in, *norm_1, *mean_1, *rstd_1, *qkv, *attention, *middle, *norm_2, *mean_2, *rstd_2, *pre, *act;
} saved;

/* ---- parameters ---------------------------------------------------------------------------- */

static int count_tensors(const model_config *c)
{
    return OUTSIDE + c->layers * IN_LAYER;
}

static void describe_tensor(const model_config *c, int i, char name[72], int64_t *count)
{
    const int64_t C = c->channels, I = c->inner;
    const struct {
        const char *name;
        int64_t count;
    } outside[OUTSIDE] = {
        { "wte.weight", c->vocab * C }, { "wpe.weight", c->context * C }, { "ln_f.weight", C }, { "ln_f.bias", C }
    };
    const struct {
        const char *name;
        int64_t count;
    } layer[IN_LAYER] = {
        { "ln_1.weight", C },
        { "ln_1.bias", C },
        { "attn.c_attn.weight", 3 * C * C },
        { "attn.c_attn.bias", 3 * C },
        { "attn.c_proj.weight", C * C },
        { "attn.c_proj.bias", C },
        { "ln_2.weight", C },
        { "ln_2.bias", C },
        { "mlp.c_fc.weight", I * C },
        { "mlp.c_fc.bias", I },
        { "mlp.c_proj.weight", C * I },
        { "mlp.c_proj.bias", C }
    };
    const int at = (i - OUTSIDE) % IN_LAYER;
    if (i < OUTSIDE)
        snprintf(name, 72, "%s", outside[i].name);
    else
        snprintf(name, 72, "h.%d.%s", (i - OUTSIDE) / IN_LAYER, layer[at].name);
    *count = i < OUTSIDE ? outside[i].count : layer[at].count;
}

/* ---- the pass -------------------------------------------------------------------------------- */

/* y (R,out) = x (R,in) w' + bias */
static void linear(int R, int in, int out, const double *x, const model_reference_tensor *w, double *y)
{
    reference_gemm(0, 1, R, out, in, 1.0, x, in, w[0].value, in, y, out, 0);
    reference_bias(R, out, y, w[1].value);
}

/* Its derivatives; dx may be NULL. */
static void linear_grad(int R, int in, int out, const double *dy, const double *x, model_reference_tensor *w,
                        double *dx)
{
    reference_gemm(1, 0, out, in, R, 1.0, dy, out, x, in, w[0].grad, in, 0);
    reference_bias_grad(R, out, dy, w[1].grad, 0);
    reference_gemm(0, 0, R, in, out, 1.0, dy, out, w[0].value, in, dx, in, 0);
}

/* What scores are multiplied by, as in gpt2.c. */
static double attention_scale(const model_config *c, int layer)
{
    const double usual = c->own[GPT2_UNSCALED] != 0.0 ? 1.0 : 1.0 / sqrt((double)(c->channels / c->heads));
    return c->own[GPT2_BY_LAYER] != 0.0 ? usual / (layer + 1) : usual;
}

/* x becomes the layer's output; s keeps what came by. */
static void layer_forward(const model_config *c, int layer, int B, int T, model_reference_tensor *w, saved *s,
                          double *x)
{
    const int R = B * T, C = c->channels, I = c->inner;
    const size_t row_bytes = (size_t)R * (size_t)C * sizeof(double);
    memcpy(s->in, x, row_bytes);
    reference_layernorm(R, C, (double)c->eps, x, w[GAIN_1].value, w[BIAS_1].value, s->norm_1, s->mean_1, s->rstd_1);
    linear(R, C, 3 * C, s->norm_1, &w[QKV], s->qkv);
    reference_attention(B, T, C, c->heads, 1, attention_scale(c, layer), NULL, NULL, s->qkv, s->attention, NULL);
    linear(R, C, C, s->attention, &w[PROJECT], x);
    for (ptrdiff_t i = 0; i < (ptrdiff_t)R * C; i++)
        x[i] += s->in[i];
    memcpy(s->middle, x, row_bytes);
    reference_layernorm(R, C, (double)c->eps, x, w[GAIN_2].value, w[BIAS_2].value, s->norm_2, s->mean_2, s->rstd_2);
    linear(R, C, I, s->norm_2, &w[FC], s->pre);
    for (ptrdiff_t i = 0; i < (ptrdiff_t)R * I; i++)
        s->act[i] = reference_activation(gpt2_activation(c), s->pre[i]);
    linear(R, I, C, s->act, &w[OUT], x);
    for (ptrdiff_t i = 0; i < (ptrdiff_t)R * C; i++)
        x[i] += s->middle[i];
}

/* dx becomes the derivative of the layer's input; wide (R, 3C and R, I) and narrow (R,C) are room. */
static void layer_backward(const model_config *c, int layer, int B, int T, model_reference_tensor *w, const saved *s,
                           double *dx, double *wide, double *narrow)
{
    const int R = B * T, C = c->channels, I = c->inner;
    linear_grad(R, I, C, dx, s->act, &w[OUT], wide);
    for (ptrdiff_t i = 0; i < (ptrdiff_t)R * I; i++)
        wide[i] *= reference_activation_slope(gpt2_activation(c), s->pre[i]);
    linear_grad(R, C, I, wide, s->norm_2, &w[FC], narrow);
    reference_layernorm_weight_grad(R, C, narrow, s->middle, s->mean_2, s->rstd_2, w[GAIN_2].grad, w[BIAS_2].grad, 0);
    reference_layernorm_input_grad(R, C, narrow, s->middle, w[GAIN_2].value, s->mean_2, s->rstd_2, dx, wide);
    memcpy(dx, wide, (size_t)R * (size_t)C * sizeof(double));
    linear_grad(R, C, C, dx, s->attention, &w[PROJECT], narrow);
    reference_attention_grad(B, T, C, c->heads, 1, attention_scale(c, layer), NULL, NULL, s->qkv, narrow, wide);
    linear_grad(R, C, 3 * C, wide, s->norm_1, &w[QKV], narrow);
    reference_layernorm_weight_grad(R, C, narrow, s->in, s->mean_1, s->rstd_1, w[GAIN_1].grad, w[BIAS_1].grad, 0);
    reference_layernorm_input_grad(R, C, narrow, s->in, w[GAIN_1].value, s->mean_1, s->rstd_1, dx, wide);
    memcpy(dx, wide, (size_t)R * (size_t)C * sizeof(double));
}

/* Hands out the next `count` doubles of the room. */
static double *take(double **room, size_t count)
{
    double *mine = *room;
    *room += count;
    return mine;
}

static gt_status run(const model_config *c, model_reference_tensor *w, int B, int T, const int32_t *tokens,
                     const int32_t *targets, const double *weights, double *loss)
{
    const size_t R = (size_t)B * (size_t)T, C = (size_t)c->channels, I = (size_t)c->inner;
    const size_t V = (size_t)c->vocab, L = (size_t)c->layers, most = I > 3 * C ? I : 3 * C;
    const int rows = (int)R;
    assert(T <= c->context);
    if (c->untied_head)
        return gt_fail(GT_UNSUPPORTED, "the reference of '%s' has no head of its own", c->name);
    saved *s = calloc(L, sizeof *s);
    double *all = calloc(L * R * (8 * C + 2 * I + 4) + R * (4 * C + 2 * V + most + 3), sizeof *all);
    if (!s || !all) {
        free(s);
        free(all);
        return gt_fail(GT_NO_MEMORY, "no memory to run the reference of '%s'", c->name);
    }
    double *room = all;
    for (size_t l = 0; l < L; l++)
        s[l] = (saved){
            .in = take(&room, R * C),
            .norm_1 = take(&room, R * C),
            .mean_1 = take(&room, R),
            .rstd_1 = take(&room, R),
            .qkv = take(&room, 3 * R * C),
            .attention = take(&room, R * C),
            .middle = take(&room, R * C),
            .norm_2 = take(&room, R * C),
            .mean_2 = take(&room, R),
            .rstd_2 = take(&room, R),
            .pre = take(&room, R * I),
            .act = take(&room, R * I)
        };
    double *x = take(&room, R * C), *norm = take(&room, R * C), *dx = take(&room, R * C);
    double *narrow = take(&room, R * C), *logits = take(&room, R * V), *dlogits = take(&room, R * V);
    double *wide = take(&room, R * most), *mean = take(&room, R), *rstd = take(&room, R);
    double *each = take(&room, R);

    reference_embed(B, T, (int)C, tokens, w[WTE].value, w[WPE].value, 0, x);
    for (size_t l = 0; l < L; l++)
        layer_forward(c, (int)l, B, T, &w[OUTSIDE + l * IN_LAYER], &s[l], x);
    reference_layernorm(rows, (int)C, (double)c->eps, x, w[FINAL_GAIN].value, w[FINAL_BIAS].value, norm, mean, rstd);
    reference_gemm(0, 1, rows, (int)V, (int)C, 1.0, norm, (int)C, w[WTE].value, (int)C, logits, (int)V, 0);
    const double total = weights ? reference_sum((int64_t)R, weights) : (double)R;
    reference_xent(rows, (int)V, logits, targets, weights, 1.0 / total, each, dlogits);
    *loss = reference_sum((int64_t)R, each) / total;

    reference_gemm(1, 0, (int)V, (int)C, rows, 1.0, dlogits, (int)V, norm, (int)C, w[WTE].grad, (int)C, 0);
    reference_gemm(0, 0, rows, (int)C, (int)V, 1.0, dlogits, (int)V, w[WTE].value, (int)C, narrow, (int)C, 0);
    reference_layernorm_weight_grad(rows, (int)C, narrow, x, mean, rstd, w[FINAL_GAIN].grad, w[FINAL_BIAS].grad, 0);
    reference_layernorm_input_grad(rows, (int)C, narrow, x, w[FINAL_GAIN].value, mean, rstd, NULL, dx);
    for (size_t l = L; l-- > 0;)
        layer_backward(c, (int)l, B, T, &w[OUTSIDE + l * IN_LAYER], &s[l], dx, wide, narrow);
    reference_embed_token_grad(rows, (int)C, tokens, dx, w[WTE].grad);
    memset(w[WPE].grad, 0, (size_t)w[WPE].count * sizeof(double));
    reference_embed_position_grad(B, T, (int)C, dx, w[WPE].grad, 0);
    free(s);
    free(all);
    return GT_OK;
}

const model_reference_rule gpt2_reference = { count_tensors, describe_tensor, run };
