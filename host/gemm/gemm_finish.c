/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_finish.c - see gemm_finish.h.
 *
 *   a row of a piece, a few KiB, in the first-level cache:  + bias │ pre, act │ * slope │ + residual
 *
 * One pass a term, each a loop that the compiler vectorises; activations are those of cl/activation.clh. */
#include "host/gemm/gemm_finish.h"

#include "host/base/exponential.h"
#include "host/base/multiversion.h"

int gemm_can_finish(const gemm_desc *g)
{
    const activation a = g->act ? g->act : g->act_grad;
    return g->c_type == DTYPE_F32 && !(g->drop_p > 0)
           && (a == ACT_NONE || a == ACT_GELU_TANH || a == ACT_SILU || a == ACT_RELU);
}

static int is_c(const dev_buffer *x, const gemm_buffers *b)
{
    return x && dev_buffer_host(x) == dev_buffer_host(b->c);
}

gt_status gemm_finish_in_place(gemm_desc *g, const gemm_buffers *b, const char *engine)
{
    const int residual = g->residual && is_c(b->residual, b);
    if ((g->act_grad && is_c(b->aux, b)) || (residual && (g->act || g->act_grad || g->drop_p > 0)))
        return gt_fail(GT_UNSUPPORTED, "engine %s cannot multiply into a matrix that its epilogue reads", engine);
    if (residual) {
        g->residual = 0;
        g->add = 1;
    }
    return GT_OK;
}

/* ---- numbers ----------------------------------------------------------------------------------- */

/* Beyond `most` the slope does not change any more. NaN stays. */
GT_INLINE float within(float x, float most)
{
    x = gt_real(gt_pick(x < -most, gt_bits(-most), gt_bits(x)));
    return gt_real(gt_pick(x > most, gt_bits(most), gt_bits(x)));
}

/* 1 / (1 + e^-x), by an exponential that never overflows. */
GT_INLINE float logistic(float x)
{
    const float e = gt_exponential(gt_real(gt_bits(x) | 0x80000000u));
    return gt_real(gt_pick(x < 0.0f, gt_bits(e), gt_bits(1.0f))) / (1.0f + e);
}

GT_INLINE float gelu_gate(float x)
{
    return logistic(1.5957691216f * (x + 0.044715f * x * x * x));
}

GT_INLINE float gelu_slope(float x)
{
    x = within(x, 11.0f);
    const float gate = gelu_gate(x);
    return gate + x * gate * (1.0f - gate) * (1.5957691216f * (1.0f + 0.134145f * x * x));
}

GT_INLINE float silu_slope(float x)
{
    x = within(x, 100.0f);
    const float gate = logistic(x);
    return gate + x * gate * (1.0f - gate);
}

GT_INLINE float relu(float x)
{
    return gt_real(gt_pick(x < 0.0f, 0, gt_bits(x)));
}

GT_INLINE float relu_slope(float x)
{
    return gt_real(gt_pick(x > 0.0f, gt_bits(1.0f), 0));
}

/* ---- rows -------------------------------------------------------------------------------------- */

/* LOOP(name, x): c becomes x of c[i] and with[i]. */
#define LOOP(name, x) \
    GT_MULTIVERSION static void name(float *restrict c, const float *restrict with, int n) \
    { \
        for (int i = 0; i < n; i++) \
            c[i] = x; \
    }
LOOP(add, c[i] + with[i])
LOOP(take, with[i])
LOOP(act_gelu, with[i] * gelu_gate(with[i]))
LOOP(act_silu, with[i] * logistic(with[i]))
LOOP(act_relu, relu(with[i]))
LOOP(times_gelu, c[i] * gelu_slope(with[i]))
LOOP(times_silu, c[i] * silu_slope(with[i]))
LOOP(times_relu, c[i] * relu_slope(with[i]))

/* A row's columns that the activation takes at once, where nobody keeps its argument. */
enum { SOME = 512 };

static void activate(activation a, float *c, const float *x, int n)
{
    if (a == ACT_GELU_TANH)
        act_gelu(c, x, n);
    else if (a == ACT_SILU)
        act_silu(c, x, n);
    else
        act_relu(c, x, n);
}

static void slope(activation a, float *c, const float *x, int n)
{
    if (a == ACT_GELU_TANH)
        times_gelu(c, x, n);
    else if (a == ACT_SILU)
        times_silu(c, x, n);
    else
        times_relu(c, x, n);
}

static void finish_some(const gemm_desc *g, const gemm_tail *t, float *c, int64_t at, int column, int n)
{
    float own[SOME];
    c += at;
    if (t->bias)
        add(c, t->bias + column, n);
    if (g->act) {
        float *const pre = t->pre ? t->pre + at : own;
        take(pre, c, n);
        activate(g->act, c, pre, n);
    }
    if (g->act_grad)
        slope(g->act_grad, c, t->aux + at, n);
    if (t->residual)
        add(c, t->residual + at, n);
}

/* Rows that are asked for before they are read: those of a narrow piece lie too far apart for the processor to see
 * what comes next. */
enum { ROWS_AHEAD = 4, FLOATS_OF_LINE = 16 };

static void ask_for(const float *x, int64_t at, int n)
{
    for (int i = 0; x && i < n; i += FLOATS_OF_LINE)
        __builtin_prefetch(x + at + i);
}

void gemm_finish(const gemm_desc *g, const gemm_tail *t, float *c, int row, int rows, int column, int columns)
{
    for (int i = row; i < row + rows; i++)
        for (int j = column; j < column + columns; j += SOME) {
            const int rest = column + columns - j, n = rest < SOME ? rest : SOME;
            const int64_t at = (int64_t)i * g->ldc + j;
            if (i + ROWS_AHEAD < row + rows) {
                ask_for(t->aux, at + ROWS_AHEAD * (int64_t)g->ldc, n);
                ask_for(t->residual, at + ROWS_AHEAD * (int64_t)g->ldc, n);
            }
            finish_some(g, t, c, at, j, n);
        }
}
