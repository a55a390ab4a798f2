/* SPDX-License-Identifier: MIT */
/* models/llama_reference.c - the forward and backward pass of llama.c in double, one operation a line.
 *
 * Heads of keys that several heads of queries look at are written out as often as they are looked at. */
#include "models/llama.h"

#include "host/kernel/reference.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS, FINAL, HEAD, OUTSIDE };          /* tensors outside of layers; the head may be none */
enum {
    NORM_1,
    Q,
    Q_BIAS,
    K,
    K_BIAS,
    V,
    V_BIAS,
    O,
    O_BIAS,
    Q_NORM,
    K_NORM,
    NORM_2,
    GATE,
    GATE_BIAS,
    UP,
    UP_BIAS,
    DOWN,
    DOWN_BIAS,
    IN_LAYER
};

/* ---- parameters ---------------------------------------------------------------------------------- */

typedef struct sizes {
    int C, I, D, H, KV, G, V;
} sizes;

static sizes sizes_of(const model_config *c)
{
    return (sizes){ c->channels, c->inner, llama_head(c), c->heads, llama_kv_heads(c), c->heads / llama_kv_heads(c),
                    c->vocab };
}

static int count_tensors(const model_config *c)
{
    return OUTSIDE + c->layers * IN_LAYER;
}

/* A tensor that this model does not have has no numbers, and a name that none has. */
static void describe_tensor(const model_config *c, int i, char name[72], int64_t *count)
{
    const sizes s = sizes_of(c);
    const int64_t C = s.C, q = (int64_t)s.H * s.D, kv = (int64_t)s.KV * s.D, I = s.I;
    const int all = c->own[LLAMA_ATTENTION_BIAS] != 0.0, qkv = all || c->own[LLAMA_QKV_BIAS] != 0.0;
    const int mlp = c->own[LLAMA_MLP_BIAS] != 0.0, heads = c->own[LLAMA_HEAD_NORM] != 0.0;
    const struct {
        const char *name;
        int64_t count;
    } outside[OUTSIDE] = { { "embed_tokens.weight", s.V * C },
                           { "norm.weight", C },
                           { "lm_head.weight", c->untied_head ? s.V * C : 0 } },
      layer[IN_LAYER] = {
          [NORM_1] = { "input_layernorm.weight", C },
          [Q] = { "self_attn.q_proj.weight", q * C },
          [Q_BIAS] = { "self_attn.q_proj.bias", qkv ? q : 0 },
          [K] = { "self_attn.k_proj.weight", kv * C },
          [K_BIAS] = { "self_attn.k_proj.bias", qkv ? kv : 0 },
          [V] = { "self_attn.v_proj.weight", kv * C },
          [V_BIAS] = { "self_attn.v_proj.bias", qkv ? kv : 0 },
          [O] = { "self_attn.o_proj.weight", C * q },
          [O_BIAS] = { "self_attn.o_proj.bias", all ? C : 0 },
          [Q_NORM] = { "self_attn.q_norm.weight", heads ? s.D : 0 },
          [K_NORM] = { "self_attn.k_norm.weight", heads ? s.D : 0 },
          [NORM_2] = { "post_attention_layernorm.weight", C },
          [GATE] = { "mlp.gate_proj.weight", I * C },
          [GATE_BIAS] = { "mlp.gate_proj.bias", mlp ? I : 0 },
          [UP] = { "mlp.up_proj.weight", I * C },
          [UP_BIAS] = { "mlp.up_proj.bias", mlp ? I : 0 },
          [DOWN] = { "mlp.down_proj.weight", C * I },
          [DOWN_BIAS] = { "mlp.down_proj.bias", mlp ? C : 0 }
      };
    const int at = (i - OUTSIDE) % IN_LAYER;
    *count = i < OUTSIDE ? outside[i].count : layer[at].count;
    if (i < OUTSIDE)
        snprintf(name, 72, "%s%s", outside[i].name, *count ? "" : " (none)");
    else
        snprintf(name, 72, "layers.%d.%s%s", (i - OUTSIDE) / IN_LAYER, layer[at].name, *count ? "" : " (none)");
}

/* ---- the pass -------------------------------------------------------------------------------------- */

/* What a layer's backward pass wants of its forward pass; R rows. */
typedef struct saved {
    double *in, *norm_1, *rstd_1, *q, *k, *q_rstd, *k_rstd, *qkv, *attention, *middle, *norm_2, *rstd_2, *gate, *up,
        *act;
} saved;

/* One pass: sizes, and room that all layers use. */
typedef struct pass {
    const model_config *c;
    sizes s;
    int B, T, R;
    double offset;              /* of norms: 1 in Gemma */
    double *table;              /* of rotary positions  */
    double *wide, *wider, *narrow, *heads, *dqkv;
} pass;

/* y (R,out) = x (R,in) w' + bias; w[1] is the bias. */
static void linear(int R, int in, int out, const double *x, const model_reference_tensor *w, double *y)
{
    reference_gemm(0, 1, R, out, in, 1.0, x, in, w[0].value, in, y, out, 0);
    if (w[1].count)
        reference_bias(R, out, y, w[1].value);
}

/* Its derivatives; dx is added to if `add`. */
static void linear_grad(int R, int in, int out, const double *dy, const double *x, model_reference_tensor *w,
                        double *dx, int add)
{
    reference_gemm(1, 0, out, in, R, 1.0, dy, out, x, in, w[0].grad, in, 0);
    if (w[1].count)
        reference_bias_grad(R, out, dy, w[1].grad, 0);
    reference_gemm(0, 0, R, in, out, 1.0, dy, out, w[0].value, in, dx, in, add);
}

/* Columns of a part of [q | k | v], all written out for H heads; part 0 has H heads, 1 and 2 have KV. */
static void write_out(const pass *p, int part, const double *from, double *qkv)
{
    const int D = p->s.D, H = p->s.H, G = part ? p->s.G : 1, n = H / G;
    for (ptrdiff_t r = 0; r < p->R; r++)
        for (int h = 0; h < H; h++)
            memcpy(qkv + (r * 3 + part) * H * D + h * D, from + (r * n + h / G) * D, (size_t)D * sizeof *qkv);
}

static void add_up(const pass *p, int part, const double *dqkv, double *to)
{
    const int D = p->s.D, H = p->s.H, G = part ? p->s.G : 1, n = H / G;
    memset(to, 0, (size_t)p->R * (size_t)n * (size_t)D * sizeof *to);
    for (ptrdiff_t r = 0; r < p->R; r++)
        for (int h = 0; h < H; h++)
            for (int d = 0; d < D; d++)
                to[(r * n + h / G) * D + d] += dqkv[(r * 3 + part) * H * D + h * D + d];
}

/* One of q and k, from the product on, into its part of qkv. */
static void turn(const pass *p, int part, const model_reference_tensor *gain, const double *x, double *rstd,
                 double *qkv)
{
    const int n = part ? p->s.KV : p->s.H, D = p->s.D;
    double *normed = p->wide, *turned = p->wider;
    if (gain->count)
        reference_rmsnorm(p->R * n, D, (double)p->c->eps, p->offset, x, gain->value, normed, rstd);
    reference_rope(p->B, p->T, n, D, gain->count ? normed : x, p->table, 0, 0, turned);
    write_out(p, part, turned, qkv);
}

/* Its gradient into p->wide. */
static void turn_back(const pass *p, int part, model_reference_tensor *gain, const double *x, const double *rstd)
{
    const int n = part ? p->s.KV : p->s.H, D = p->s.D, rows = p->R * n;
    add_up(p, part, p->dqkv, p->wide);
    if (!gain->count) {
        reference_rope(p->B, p->T, n, D, p->wide, p->table, 0, 1, p->wider);
        memcpy(p->wide, p->wider, (size_t)rows * (size_t)D * sizeof *p->wide);
        return;
    }
    reference_rope(p->B, p->T, n, D, p->wide, p->table, 0, 1, p->wider);
    reference_rmsnorm_weight_grad(rows, D, p->wider, x, rstd, gain->grad, 0);
    reference_rmsnorm_input_grad(rows, D, p->offset, p->wider, x, gain->value, rstd, NULL, p->wide);
}

static void add_to(double *x, const double *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] += y[i];
}

/* x becomes the layer's output; s keeps what came by. */
static void layer_forward(const pass *p, int layer, model_reference_tensor *w, saved *s, double *x)
{
    const sizes z = p->s;
    const int R = p->R, C = z.C, I = z.I, q = z.H * z.D, kv = z.KV * z.D;
    const size_t all = (size_t)R * (size_t)C;
    const double eps = (double)p->c->eps;
    const reference_mask mask = { .causal = 1, .window = llama_window(p->c, layer) };
    memcpy(s->in, x, all * sizeof *x);
    reference_rmsnorm(R, C, eps, p->offset, x, w[NORM_1].value, s->norm_1, s->rstd_1);
    linear(R, C, q, s->norm_1, &w[Q], s->q);
    linear(R, C, kv, s->norm_1, &w[K], s->k);
    turn(p, 0, &w[Q_NORM], s->q, s->q_rstd, s->qkv);
    turn(p, 1, &w[K_NORM], s->k, s->k_rstd, s->qkv);
    linear(R, C, kv, s->norm_1, &w[V], p->wide);
    write_out(p, 2, p->wide, s->qkv);
    reference_attention_masked(p->B, p->T, q, z.H, &mask, 1.0 / sqrt((double)z.D), NULL, s->qkv, s->attention, NULL);
    linear(R, q, C, s->attention, &w[O], x);
    add_to(x, s->in, all);
    memcpy(s->middle, x, all * sizeof *x);
    reference_rmsnorm(R, C, eps, p->offset, x, w[NORM_2].value, s->norm_2, s->rstd_2);
    linear(R, C, I, s->norm_2, &w[GATE], s->gate);
    linear(R, C, I, s->norm_2, &w[UP], s->up);
    for (ptrdiff_t i = 0; i < (ptrdiff_t)R * I; i++)
        s->act[i] = reference_activation(llama_activation(p->c), s->gate[i]) * s->up[i];
    linear(R, I, C, s->act, &w[DOWN], x);
    add_to(x, s->middle, all);
}

/* dx becomes the derivative of the layer's input. */
static void layer_backward(const pass *p, int layer, model_reference_tensor *w, const saved *s, double *dx)
{
    const sizes z = p->s;
    const int R = p->R, C = z.C, I = z.I, q = z.H * z.D, kv = z.KV * z.D;
    const size_t bytes = (size_t)R * (size_t)C * sizeof *dx;
    const activation act = llama_activation(p->c);
    const reference_mask mask = { .causal = 1, .window = llama_window(p->c, layer) };
    linear_grad(R, I, C, dx, s->act, &w[DOWN], p->wide, 0);
    for (ptrdiff_t i = 0; i < (ptrdiff_t)R * I; i++) {
        p->wider[i] = p->wide[i] * reference_activation(act, s->gate[i]);
        p->wide[i] *= s->up[i] * reference_activation_slope(act, s->gate[i]);
    }
    linear_grad(R, C, I, p->wide, s->norm_2, &w[GATE], p->narrow, 0);
    linear_grad(R, C, I, p->wider, s->norm_2, &w[UP], p->narrow, 1);
    reference_rmsnorm_weight_grad(R, C, p->narrow, s->middle, s->rstd_2, w[NORM_2].grad, 0);
    reference_rmsnorm_input_grad(R, C, p->offset, p->narrow, s->middle, w[NORM_2].value, s->rstd_2, dx, p->wide);
    memcpy(dx, p->wide, bytes);
    linear_grad(R, q, C, dx, s->attention, &w[O], p->heads, 0);
    reference_attention_masked_grad(p->B, p->T, q, z.H, &mask, 1.0 / sqrt((double)z.D), NULL, s->qkv, p->heads,
                                    p->dqkv);
    turn_back(p, 0, &w[Q_NORM], s->q, s->q_rstd);
    linear_grad(R, C, q, p->wide, s->norm_1, &w[Q], p->narrow, 0);
    turn_back(p, 1, &w[K_NORM], s->k, s->k_rstd);
    linear_grad(R, C, kv, p->wide, s->norm_1, &w[K], p->narrow, 1);
    add_up(p, 2, p->dqkv, p->wide);
    linear_grad(R, C, kv, p->wide, s->norm_1, &w[V], p->narrow, 1);
    reference_rmsnorm_weight_grad(R, C, p->narrow, s->in, s->rstd_1, w[NORM_1].grad, 0);
    reference_rmsnorm_input_grad(R, C, p->offset, p->narrow, s->in, w[NORM_1].value, s->rstd_1, dx, p->wide);
    memcpy(dx, p->wide, bytes);
}

/* Hands out the next `count` doubles of the room. */
static double *take(double **room, size_t count)
{
    double *mine = *room;
    *room += count;
    return mine;
}

static saved take_saved(double **room, const pass *p)
{
    const size_t R = (size_t)p->R, C = (size_t)p->s.C, I = (size_t)p->s.I, H = (size_t)p->s.H, KV = (size_t)p->s.KV,
                 D = (size_t)p->s.D;
    return (saved){
        .in = take(room, R * C),
        .norm_1 = take(room, R * C),
        .rstd_1 = take(room, R),
        .q = take(room, R * H * D),
        .k = take(room, R * KV * D),
        .q_rstd = take(room, R * H),
        .k_rstd = take(room, R * KV),
        .qkv = take(room, 3 * R * H * D),
        .attention = take(room, R * H * D),
        .middle = take(room, R * C),
        .norm_2 = take(room, R * C),
        .rstd_2 = take(room, R),
        .gate = take(room, R * I),
        .up = take(room, R * I),
        .act = take(room, R * I)
    };
}

static size_t room_of(const pass *p, size_t L)
{
    const size_t R = (size_t)p->R, C = (size_t)p->s.C, I = (size_t)p->s.I, H = (size_t)p->s.H, D = (size_t)p->s.D;
    const size_t layer = R * (4 * C + 6 * H * D + 2 * H + 2 + 3 * I), most = C + I + H * D;
    return L * layer + R * (6 * C + 2 * (size_t)p->s.V + 2 * most + 4 * H * D + 2) + (size_t)p->T * D;
}

static gt_status run(const model_config *c, model_reference_tensor *w, int B, int T, const int32_t *tokens,
                     const int32_t *targets, const double *weights, double *loss)
{
    pass p = { .c = c, .s = sizes_of(c), .B = B, .T = T, .R = B * T, .offset = c->own[LLAMA_GEMMA] != 0.0 ? 1.0 : 0.0 };
    const int R = p.R, C = p.s.C, vocab = p.s.V;
    const size_t rows = (size_t)R, narrow = rows * (size_t)C, L = (size_t)c->layers;
    const size_t most = (size_t)C + (size_t)p.s.I + (size_t)p.s.H * (size_t)p.s.D;
    const double embed_scale = c->own[LLAMA_GEMMA] != 0.0 ? (double)sqrtf((float)C) : 1.0;
    assert(T <= c->context);
    saved *s = calloc(L, sizeof *s);
    double *all = calloc(room_of(&p, L), sizeof *all), *room = all;
    if (!s || !all) {
        free(s);
        free(all);
        return gt_fail(GT_NO_MEMORY, "no memory to run the reference of '%s'", c->name);
    }
    for (size_t l = 0; l < L; l++)
        s[l] = take_saved(&room, &p);
    double *x = take(&room, narrow), *norm = take(&room, narrow), *dx = take(&room, narrow);
    double *logits = take(&room, rows * (size_t)vocab), *dlogits = take(&room, rows * (size_t)vocab);
    double *rstd = take(&room, rows), *each = take(&room, rows);
    p.narrow = take(&room, narrow);
    p.wide = take(&room, rows * most);
    p.wider = take(&room, rows * most);
    p.heads = take(&room, rows * (size_t)p.s.H * (size_t)p.s.D);
    p.dqkv = take(&room, 3 * rows * (size_t)p.s.H * (size_t)p.s.D);
    p.table = take(&room, (size_t)T * (size_t)p.s.D);
    llama_rope_table(c, T, p.table);
    model_reference_tensor *head = c->untied_head ? &w[HEAD] : &w[TOKENS];

    reference_embed(B, T, C, tokens, w[TOKENS].value, NULL, 0, x);
    for (size_t i = 0; i < narrow; i++)
        x[i] *= embed_scale;
    for (size_t l = 0; l < L; l++)
        layer_forward(&p, (int)l, &w[OUTSIDE + l * IN_LAYER], &s[l], x);
    reference_rmsnorm(R, C, (double)c->eps, p.offset, x, w[FINAL].value, norm, rstd);
    reference_gemm(0, 1, R, vocab, C, 1.0, norm, C, head->value, C, logits, vocab, 0);
    const double total = weights ? reference_sum(R, weights) : (double)R;
    reference_xent(R, vocab, logits, targets, weights, 1.0 / total, each, dlogits);
    *loss = reference_sum(R, each) / total;

    memset(w[TOKENS].grad, 0, (size_t)w[TOKENS].count * sizeof(double));
    reference_gemm(1, 0, vocab, C, R, 1.0, dlogits, vocab, norm, C, head->grad, C, 0);
    reference_gemm(0, 0, R, C, vocab, 1.0, dlogits, vocab, head->value, C, p.narrow, C, 0);
    reference_rmsnorm_weight_grad(R, C, p.narrow, x, rstd, w[FINAL].grad, 0);
    reference_rmsnorm_input_grad(R, C, p.offset, p.narrow, x, w[FINAL].value, rstd, NULL, dx);
    for (size_t l = L; l-- > 0;)
        layer_backward(&p, (int)l, &w[OUTSIDE + l * IN_LAYER], &s[l], dx);
    for (size_t i = 0; i < narrow; i++)
        dx[i] *= embed_scale;
    reference_embed_token_grad(R, C, tokens, dx, w[TOKENS].grad);
    free(s);
    free(all);
    return GT_OK;
}

const model_reference_rule llama_reference = { count_tensors, describe_tensor, run };
