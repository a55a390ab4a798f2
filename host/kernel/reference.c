/* SPDX-License-Identifier: MIT */
/* host/kernel/reference.c - the formulas of host/kernel/kernel.h, one loop each, in double. */
#include "host/kernel/reference.h"

#include "host/base/random.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>

double reference_keep(const reference_dropout *drop, uint64_t i)
{
    if (!drop)
        return 1.0;
    uint32_t word[4];
    i += drop->first * (uint64_t)drop->sequence;
    gt_philox(word, drop->seed, (uint32_t)(i / 4) | (uint64_t)drop->stream << 32, drop->step | i / 4 >> 32 << 32);
    return (double)word[i % 4] >= floor((double)drop->p * 0x1p32) ? 1.0 / (1.0 - (double)drop->p) : 0.0;
}

/* ---- embedding ------------------------------------------------------------------------ */

void reference_embed(int B, int T, int C, const int32_t *x, const double *token, const double *position, int first,
                     double *y)
{
    for (int b = 0; b < B; b++)
        for (int t = 0; t < T; t++)
            for (int c = 0; c < C; c++) {
                const size_t r = (size_t)b * (size_t)T + (size_t)t;
                y[r * (size_t)C + (size_t)c] = token[(size_t)x[r] * (size_t)C + (size_t)c]
                                               + (position ? position[(size_t)(first + t) * (size_t)C + (size_t)c]
                                                           : 0.0);
            }
}

void reference_embed_token_grad(int R, int C, const int32_t *x, const double *dy, double *dtoken)
{
    for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++)
            dtoken[(ptrdiff_t)x[r] * C + c] += dy[(ptrdiff_t)r * C + c];
}

void reference_embed_position_grad(int B, int T, int C, const double *dy, double *dposition, int add)
{
    for (ptrdiff_t i = 0; i < (ptrdiff_t)T * C; i++) {
        double sum = add ? dposition[i] : 0.0;
        for (int b = 0; b < B; b++)
            sum += dy[(ptrdiff_t)b * T * C + i];
        dposition[i] = sum;
    }
}

/* ---- layer normalisation ---------------------------------------------------------------- */

void reference_layernorm(int R, int C, double eps, const double *x, const double *gain, const double *bias, double *y,
                         double *mean, double *rstd)
{
    for (int r = 0; r < R; r++, x += C, y += C) {
        double sum = 0.0, square = 0.0;
        for (int c = 0; c < C; c++)
            sum += x[c];
        const double m = sum / C;
        for (int c = 0; c < C; c++)
            square += (x[c] - m) * (x[c] - m);
        const double s = 1.0 / sqrt(square / C + eps);
        for (int c = 0; c < C; c++)
            y[c] = (x[c] - m) * s * gain[c] + bias[c];
        if (mean)
            mean[r] = m;
        if (rstd)
            rstd[r] = s;
    }
}

void reference_layernorm_input_grad(int R, int C, const double *dy, const double *x, const double *gain,
                                    const double *mean, const double *rstd, const double *residual, double *dx)
{
    for (int r = 0; r < R; r++) {
        const ptrdiff_t row = (ptrdiff_t)r * C;
        double a = 0.0, b = 0.0;
        for (int c = 0; c < C; c++) {
            a += dy[row + c] * gain[c];
            b += dy[row + c] * gain[c] * (x[row + c] - mean[r]) * rstd[r];
        }
        for (int c = 0; c < C; c++)
            dx[row + c] = rstd[r] * (dy[row + c] * gain[c] - a / C - (x[row + c] - mean[r]) * rstd[r] * b / C)
                          + (residual ? residual[row + c] : 0.0);
    }
}

void reference_layernorm_weight_grad(int R, int C, const double *dy, const double *x, const double *mean,
                                     const double *rstd, double *dgain, double *dbias, int add)
{
    for (int c = 0; c < C; c++) {
        double g = add ? dgain[c] : 0.0, b = add ? dbias[c] : 0.0;
        for (int r = 0; r < R; r++) {
            const ptrdiff_t i = (ptrdiff_t)r * C + c;
            g += dy[i] * (x[i] - mean[r]) * rstd[r];
            b += dy[i];
        }
        dgain[c] = g;
        dbias[c] = b;
    }
}

void reference_rmsnorm(int R, int C, double eps, double offset, const double *x, const double *gain, double *y,
                       double *rstd)
{
    for (int r = 0; r < R; r++, x += C, y += C) {
        double square = 0.0;
        for (int c = 0; c < C; c++)
            square += x[c] * x[c];
        const double s = 1.0 / sqrt(square / C + eps);
        for (int c = 0; c < C; c++)
            y[c] = x[c] * s * (gain[c] + offset);
        if (rstd)
            rstd[r] = s;
    }
}

void reference_rmsnorm_input_grad(int R, int C, double offset, const double *dy, const double *x, const double *gain,
                                  const double *rstd, const double *residual, double *dx)
{
    for (int r = 0; r < R; r++) {
        const ptrdiff_t row = (ptrdiff_t)r * C;
        double b = 0.0;
        for (int c = 0; c < C; c++)
            b += dy[row + c] * (gain[c] + offset) * x[row + c] * rstd[r];
        for (int c = 0; c < C; c++)
            dx[row + c] = rstd[r] * (dy[row + c] * (gain[c] + offset) - x[row + c] * rstd[r] * b / C)
                          + (residual ? residual[row + c] : 0.0);
    }
}

void reference_rmsnorm_weight_grad(int R, int C, const double *dy, const double *x, const double *rstd, double *dgain,
                                   int add)
{
    for (int c = 0; c < C; c++) {
        double g = add ? dgain[c] : 0.0;
        for (int r = 0; r < R; r++)
            g += dy[(ptrdiff_t)r * C + c] * x[(ptrdiff_t)r * C + c] * rstd[r];
        dgain[c] = g;
    }
}

void reference_bias_grad(int R, int C, const double *dy, double *dbias, int add)
{
    for (int c = 0; c < C; c++) {
        double sum = add ? dbias[c] : 0.0;
        for (int r = 0; r < R; r++)
            sum += dy[(ptrdiff_t)r * C + c];
        dbias[c] = sum;
    }
}

/* ---- rotary positions ------------------------------------------------------------------- */

void reference_rope(int B, int T, int H, int D, const double *x, const double *table, int first, int back, double *y)
{
    for (ptrdiff_t head = 0; head < (ptrdiff_t)B * T * H; head++) {
        const double *turn = table + (first + head / H % T) * D;
        const ptrdiff_t at = head * D;
        for (int i = 0; i < D / 2; i++) {
            const double c = turn[i], s = back ? -turn[D / 2 + i] : turn[D / 2 + i];
            const double u = x[at + i], v = x[at + D / 2 + i];
            y[at + i] = u * c - v * s;
            y[at + D / 2 + i] = v * c + u * s;
        }
    }
}

/* ---- elementwise ------------------------------------------------------------------------ */

static const double gelu_factor = 0.79788456080286535588;       /* sqrt(2/pi) */

/* (1 + tanh u) / 2; written with tanh, nothing would be left of it where tanh is -1. */
static double gelu_gate(double x)
{
    return 1.0 / (1.0 + exp(-2.0 * gelu_factor * (x + 0.044715 * x * x * x)));
}

static double reference_gelu_tanh(double x)
{
    return x * gelu_gate(x);
}

static double reference_gelu_tanh_slope(double x)
{
    const double s = gelu_gate(x);
    return s + x * s * (1.0 - s) * 2.0 * gelu_factor * (1.0 + 3.0 * 0.044715 * x * x);
}

static double reference_gelu_erf(double x)
{
    return x * 0.5 * erfc(-x / sqrt(2.0));
}

static double reference_gelu_erf_slope(double x)
{
    return 0.5 * erfc(-x / sqrt(2.0)) + x * exp(-0.5 * x * x) * 0.5 * gelu_factor;  /* 1 / sqrt(2 pi) */
}

static double reference_silu(double x)
{
    return x / (1.0 + exp(-x));
}

static double reference_silu_slope(double x)
{
    const double s = 1.0 / (1.0 + exp(-x));
    return s + x * s * (1.0 - s);
}

static double reference_relu(double x)
{
    return x > 0.0 ? x : 0.0;
}

static double reference_relu_slope(double x)
{
    return x > 0.0 ? 1.0 : 0.0;
}

static double reference_act_tanh(double x)
{
    return tanh(x);
}

static double reference_act_tanh_slope(double x)
{
    const double e = exp(-2.0 * fabs(x));
    return 4.0 * e / ((1.0 + e) * (1.0 + e));
}

static const struct {
    double (*at)(double), (*slope)(double);
} activations[] = {
#define ROW(constant, name, option) [constant] = { reference_##name, reference_##name##_slope },
    ACTIVATIONS(ROW)
#undef ROW
};

double reference_activation(activation act, double x)
{
    return act == ACT_NONE ? x : activations[act].at(x);
}

double reference_activation_slope(activation act, double x)
{
    return act == ACT_NONE ? 1.0 : activations[act].slope(x);
}

void reference_bias(int R, int C, double *y, const double *bias)
{
    for (ptrdiff_t i = 0; i < (ptrdiff_t)R * C; i++)
        y[i] += bias[i % C];
}

void reference_dropout_apply(int64_t n, const reference_dropout *drop, const double *x, double *y)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] * reference_keep(drop, (uint64_t)i);
}

/* ---- attention -------------------------------------------------------------------------- */

/* Where one head's q, k and v lie. */
typedef struct head {
    int T, D, causal, keys, window;
    const int32_t *starts;              /* (T) or NULL */
    double scale;
    ptrdiff_t step;                     /* from one token to the next: 3C */
    const double *q, *k, *v;
} head;

static head head_of(int T, int C, int H, const reference_mask *m, double scale, const double *qkv, int b, int h)
{
    const int D = C / H;
    const double *base = qkv + (ptrdiff_t)b * T * 3 * C + (ptrdiff_t)h * D;
    return (head){ .T = T,
                   .D = D,
                   .causal = m->causal,
                   .keys = m->lengths ? m->lengths[b] : T,
                   .window = m->window,
                   .starts = m->starts ? m->starts + (ptrdiff_t)b * T : NULL,
                   .scale = scale,
                   .step = (ptrdiff_t)3 * C,
                   .q = base,
                   .k = base + C,
                   .v = base + 2 * (ptrdiff_t)C };
}

/* p (T,T) receives the softmax of the scores, lse (T), if not NULL, its log-sum-exp. */
static void probabilities(const head *a, double *p, double *lse)
{
    for (int i = 0; i < a->T; i++) {
        const int last = a->causal && i < a->keys ? i : a->keys - 1;
        const int begin = a->window && i >= a->window ? i - a->window + 1 : 0;
        const int first = a->starts && a->starts[i] > begin ? a->starts[i] : begin;
        double most = -INFINITY, sum = 0.0;
        for (int j = 0; j < a->T; j++) {
            double score = 0.0;
            for (int d = 0; d < a->D; d++)
                score += a->q[i * a->step + d] * a->k[j * a->step + d];
            score = first <= j && j <= last ? score * a->scale : -INFINITY;
            p[(ptrdiff_t)i * a->T + j] = score;
            most = fmax(most, score);
        }
        for (int j = first; j <= last; j++)
            sum += exp(p[(ptrdiff_t)i * a->T + j] - most);
        for (int j = 0; j < a->T; j++)
            p[(ptrdiff_t)i * a->T + j] = first <= j && j <= last ? exp(p[(ptrdiff_t)i * a->T + j] - most) / sum : 0.0;
        if (lse)
            lse[i] = last >= first ? most + log(sum) : 0.0;
    }
}

static double keep_at(const reference_dropout *drop, int T, int b, int h, int H, int i, int j)
{
    if (!drop)
        return 1.0;
    const int heads = drop->heads ? drop->heads : H;
    const uint64_t row = (uint64_t)(b * heads + drop->first_head + h) * (uint64_t)T + (uint64_t)i;
    reference_dropout whole = *drop;
    whole.sequence = (int64_t)heads * T * T;
    return reference_keep(&whole, row * (uint64_t)T + (uint64_t)j);
}

void reference_attention_masked(int B, int T, int C, int H, const reference_mask *mask, double scale,
                                const reference_dropout *drop, const double *qkv, double *out, double *lse)
{
    const int D = C / H;
    double *p = malloc((size_t)T * (size_t)T * sizeof *p + 1);

    for (int b = 0; b < B; b++)
        for (int h = 0; h < H; h++) {
            const head a = head_of(T, C, H, mask, scale, qkv, b, h);
            if (p)
                probabilities(&a, p, lse ? lse + ((ptrdiff_t)b * H + h) * T : NULL);
            for (int i = 0; i < T; i++)
                for (int d = 0; d < D; d++) {
                    double sum = p ? 0.0 : (double)NAN;
                    for (int j = 0; p && j < T; j++)
                        sum += p[(ptrdiff_t)i * T + j] * keep_at(drop, T, b, h, H, i, j) * a.v[j * a.step + d];
                    out[((ptrdiff_t)b * T + i) * C + h * D + d] = sum;
                }
        }
    free(p);
}

void reference_attention_masked_grad(int B, int T, int C, int H, const reference_mask *mask, double scale,
                                     const reference_dropout *drop, const double *qkv, const double *dout, double *dqkv)
{
    const int D = C / H;
    const ptrdiff_t step = (ptrdiff_t)3 * C;
    double *p = malloc((size_t)T * (size_t)T * sizeof *p + 1);

    for (ptrdiff_t i = 0; i < (ptrdiff_t)B * T * 3 * C; i++)
        dqkv[i] = p ? 0.0 : (double)NAN;
    for (int b = 0; p && b < B; b++)
        for (int h = 0; h < H; h++) {
            const head a = head_of(T, C, H, mask, scale, qkv, b, h);
            double *dq = dqkv + (a.q - qkv), *dk = dqkv + (a.k - qkv), *dv = dqkv + (a.v - qkv);
            const double *dy = dout + (ptrdiff_t)b * T * C + (ptrdiff_t)h * D;
            probabilities(&a, p, NULL);
            for (int i = 0; i < T; i++) {
                double mean = 0.0;              /* sum over j of p[i,j] dp[i,j] */
                for (int pass = 0; pass < 2; pass++)
                    for (int j = 0; j < T; j++) {
                        const double keep = keep_at(drop, T, b, h, H, i, j);
                        const double prob = p[(ptrdiff_t)i * T + j];
                        double dp = 0.0;
                        for (int d = 0; d < D; d++)
                            dp += dy[(ptrdiff_t)i * C + d] * a.v[j * step + d] * keep;
                        if (pass == 0) {
                            mean += prob * dp;
                            continue;
                        }
                        const double ds = prob * (dp - mean) * scale;
                        for (int d = 0; d < D; d++) {
                            dq[i * step + d] += ds * a.k[j * step + d];
                            dk[j * step + d] += ds * a.q[i * step + d];
                            dv[j * step + d] += prob * keep * dy[(ptrdiff_t)i * C + d];
                        }
                    }
            }
        }
    free(p);
}

void reference_attention(int B, int T, int C, int H, int causal, double scale, const reference_dropout *drop,
                         const int32_t *lengths, const double *qkv, double *out, double *lse)
{
    const reference_mask mask = { .causal = causal, .lengths = lengths };
    reference_attention_masked(B, T, C, H, &mask, scale, drop, qkv, out, lse);
}

void reference_attention_grad(int B, int T, int C, int H, int causal, double scale, const reference_dropout *drop,
                              const int32_t *lengths, const double *qkv, const double *dout, double *dqkv)
{
    const reference_mask mask = { .causal = causal, .lengths = lengths };
    reference_attention_masked_grad(B, T, C, H, &mask, scale, drop, qkv, dout, dqkv);
}

/* ---- loss ------------------------------------------------------------------------------- */

void reference_xent(int R, int V, const double *logits, const int32_t *target, const double *weight, double scale,
                    double *loss, double *dlogits)
{
    for (int r = 0; r < R; r++) {
        const double *x = logits + (ptrdiff_t)r * V;
        const int known = 0 <= target[r] && target[r] < V;
        const double w = weight ? weight[r] : 1.0;
        double most = -INFINITY, sum = 0.0;
        for (int v = 0; v < V; v++)
            most = fmax(most, x[v]);
        for (int v = 0; v < V; v++)
            sum += exp(x[v] - most);
        loss[r] = known ? w * (most + log(sum) - x[target[r]]) : 0.0;
        for (int v = 0; dlogits && v < V; v++)
            dlogits[(ptrdiff_t)r * V + v] = known ? (exp(x[v] - most) / sum - (v == target[r])) * w * scale : 0.0;
    }
}

double reference_sum(int64_t n, const double *x)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    return sum;
}

double reference_square_sum(int64_t n, const double *x)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sum;
}

/* ---- matrix product --------------------------------------------------------------------- */

void reference_gemm(int trans_a, int trans_b, int M, int N, int K, double alpha, const double *a, int lda,
                    const double *b, int ldb, double *c, int ldc, int add)
{
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            double sum = 0.0;
            for (int k = 0; k < K; k++)
                sum += (trans_a ? a[(ptrdiff_t)k * lda + i] : a[(ptrdiff_t)i * lda + k])
                       * (trans_b ? b[(ptrdiff_t)j * ldb + k] : b[(ptrdiff_t)k * ldb + j]);
            double *out = &c[(ptrdiff_t)i * ldc + j];
            *out = alpha * sum + (add ? *out : 0.0);
        }
}

/* ---- optimizers ------------------------------------------------------------------------- */

void reference_adamw(int64_t n, double *p, const double *g, double *m, double *v, int64_t step, double clip, double lr,
                     double beta1, double beta2, double eps, double decay)
{
    const double bias1 = 1.0 - pow(beta1, (double)step), bias2 = 1.0 - pow(beta2, (double)step);
    for (int64_t i = 0; i < n; i++) {
        const double grad = g[i] * clip;
        m[i] = beta1 * m[i] + (1.0 - beta1) * grad;
        v[i] = beta2 * v[i] + (1.0 - beta2) * grad * grad;
        p[i] -= lr * (m[i] / bias1 / (sqrt(v[i] / bias2) + eps) + decay * p[i]);
    }
}

void reference_sgd(int64_t n, double *p, const double *g, double *m, double clip, double lr, double momentum,
                   double decay)
{
    for (int64_t i = 0; i < n; i++) {
        double move = g[i] * clip + decay * p[i];
        if (m) {
            move += momentum * m[i];
            m[i] = move;
        }
        p[i] -= lr * move;
    }
}

void reference_lion(int64_t n, double *p, const double *g, double *m, double clip, double lr, double beta1,
                    double beta2, double decay)
{
    for (int64_t i = 0; i < n; i++) {
        const double grad = g[i] * clip, c = beta1 * m[i] + (1.0 - beta1) * grad;
        p[i] -= lr * ((c > 0.0 ? 1.0 : c < 0.0 ? -1.0 : 0.0) + decay * p[i]);
        m[i] = beta2 * m[i] + (1.0 - beta2) * grad;
    }
}

/* x (R,C) becomes a x + (b A + c A A) x with A = x x', whatever is larger. */
static void newton_schulz(int R, int C, double *x, double *A, double *B, double *y)
{
    const double a = 3.4445, b = -4.7750, c = 2.0315;
    for (int i = 0; i < R; i++)
        for (int j = 0; j < R; j++) {
            A[i * R + j] = 0.0;
            for (int k = 0; k < C; k++)
                A[i * R + j] += x[i * C + k] * x[j * C + k];
        }
    for (int i = 0; i < R; i++)
        for (int j = 0; j < R; j++) {
            B[i * R + j] = b * A[i * R + j];
            for (int k = 0; k < R; k++)
                B[i * R + j] += c * A[i * R + k] * A[k * R + j];
        }
    for (int i = 0; i < R; i++)
        for (int j = 0; j < C; j++) {
            y[i * C + j] = a * x[i * C + j];
            for (int k = 0; k < R; k++)
                y[i * C + j] += B[i * R + k] * x[k * C + j];
        }
    for (int i = 0; i < R * C; i++)
        x[i] = y[i];
}

void reference_muon(int R, int C, double *p, const double *g, double *m, double clip, double lr, double mu,
                    double decay)
{
    const int n = R * C;
    double *x = malloc((size_t)(2 * n + 2 * R * R) * sizeof *x), squares = 0.0;
    assert(x);
    for (int i = 0; i < n; i++) {
        const double grad = g[i] * clip;
        m[i] = mu * m[i] + (1.0 - mu) * grad;
        x[i] = (1.0 - mu) * grad + mu * m[i];
        squares += x[i] * x[i];
    }
    for (int i = 0; i < n; i++)
        x[i] /= sqrt(squares) + 1e-7;
    for (int k = 0; k < 5; k++)
        newton_schulz(R, C, x, x + 2 * n, x + 2 * n + R * R, x + n);
    for (int i = 0; i < n; i++)
        p[i] -= lr * (0.2 * sqrt((double)(R > C ? R : C)) * x[i] + decay * p[i]);
    free(x);
}

void reference_adafactor(int R, int C, double *p, const double *g, double *rows, double *columns, double *second,
                         int64_t step, double clip, double lr, double rate, double limit, double decay)
{
    const double keep = 1.0 - pow((double)step, -rate);
    double mean = 0.0, squares = 0.0;
    for (int i = 0; rows && i < R; i++) {
        double sum = 0.0;
        for (int j = 0; j < C; j++)
            sum += pow(g[i * C + j] * clip, 2.0) + 1e-30;
        rows[i] = keep * rows[i] + (1.0 - keep) * sum / C;
        mean += rows[i] / R;
    }
    for (int j = 0; j < C; j++) {
        double sum = 0.0, *v = second ? &second[j] : &columns[j];
        for (int i = 0; i < R; i++)
            sum += pow(g[i * C + j] * clip, 2.0) + 1e-30;
        *v = keep * *v + (1.0 - keep) * sum / R;
    }
    for (int pass = 0; pass < 2; pass++) {          /* how large, then the update */
        const double most = fmax(1.0, sqrt(squares / R / C) / limit);
        for (int i = 0; i < R; i++)
            for (int j = 0; j < C; j++) {
                const double v = second ? second[j] : rows[i] * columns[j] / mean;
                const double u = g[i * C + j] * clip / sqrt(fmax(v, 1e-30));
                if (pass == 0)
                    squares += u * u;
                else
                    p[i * C + j] -= lr * (u / most + decay * p[i * C + j]);
            }
    }
}
