/* SPDX-License-Identifier: MIT */
/* host/attention/attention_loops.h - the loops over rows, compiled once for each instruction set.
 *
 *   attention_loops_NAME.c      #define LOOPS_OF NAME, and this file; CMakeLists.txt has the compiler's options
 *                               LOOPS_BF16(to, x): BLOCK numbers to bf16 by the processor's own rounding, if it has one
 *
 * Blocks of BLOCK elements with a constant trip count, then what is left. Sums are kept in as many parts, added
 * up at the end in one order. */
#ifndef GT_ATTENTION_ATTENTION_LOOPS_H
#define GT_ATTENTION_ATTENTION_LOOPS_H

#include "host/base/exponential.h"
#include "host/tensor/dtype.h"

/* What attention_rows.h says, for one instruction set; of storage types one after the other. */
typedef struct attention_loops {
    float (*most)(const float *restrict s, int n, float scale, float least);
    float (*exp_f32)(float *restrict s, int n, float scale, float most);
    float (*exp_bf16)(const float *restrict s, int n, float scale, float most, uint16_t *restrict to);
    void (*slopes_f32)(float *restrict s, float *restrict dp, int n, const float *restrict lse,
                       const float *restrict delta, float scale);
    void (*slopes_bf16)(const float *restrict s, const float *restrict dp, int n, const float *restrict lse,
                        const float *restrict delta, float scale, uint16_t *restrict p_to, uint16_t *restrict ds_to);
    void (*multiply)(float *restrict x, int n, float factor);
    void (*widen[DTYPE_STORAGES])(float *restrict to, const void *x, int n);
    void (*narrow[DTYPE_STORAGES])(void *to, const float *restrict x, int n, float factor);
    float (*dot[DTYPE_STORAGES])(const void *a, const void *b, int n);
} attention_loops;

extern const attention_loops attention_loops_plain, attention_loops_avx2, attention_loops_avx512,
    attention_loops_avx512_bf16;

#ifdef LOOPS_OF

enum { BLOCK = 32 };

#ifndef LOOPS_BF16
#define LOOPS_BF16(to, x) \
    for (int k_ = 0; k_ < BLOCK; k_++) \
        (to)[k_] = gt_to_bf16((x)[k_]);
#endif

static float sum_of(const float parts[BLOCK])
{
    float part[BLOCK];
    memcpy(part, parts, sizeof part);
    for (int half = BLOCK / 2; half; half /= 2)
        for (int k = 0; k < half; k++)
            part[k] += part[k + half];
    return part[0];
}

/* ---- loops --------------------------------------------------------------------------------- */

static float most(const float *restrict s, int n, float scale, float least)
{
    float part[BLOCK];
    int i = 0;
    for (int k = 0; k < BLOCK; k++)
        part[k] = least;
    for (; i + BLOCK <= n; i += BLOCK)
        for (int k = 0; k < BLOCK; k++) {
            const float x = scale * s[i + k];
            part[k] = x > part[k] ? x : part[k];
        }
    for (; i < n; i++) {
        const float x = scale * s[i];
        part[0] = x > part[0] ? x : part[0];
    }
    for (int k = 1; k < BLOCK; k++)
        part[0] = part[k] > part[0] ? part[k] : part[0];
    return part[0];
}

static float exp_f32(float *restrict s, int n, float scale, float largest)
{
    float part[BLOCK] = { 0 };
    int i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (int k = 0; k < BLOCK; k++) {
            const float p = gt_exponential(scale * s[i + k] - largest);
            part[k] += p;
            s[i + k] = p;
        }
    for (; i < n; i++)
        part[0] += s[i] = gt_exponential(scale * s[i] - largest);
    return sum_of(part);
}

static float exp_bf16(const float *restrict s, int n, float scale, float largest, uint16_t *restrict to)
{
    float part[BLOCK] = { 0 };
    int i = 0;
    for (; i + BLOCK <= n; i += BLOCK) {
        float p[BLOCK];
        for (int k = 0; k < BLOCK; k++) {
            p[k] = gt_exponential(scale * s[i + k] - largest);
            part[k] += p[k];
        }
        LOOPS_BF16(to + i, p)
    }
    for (; i < n; i++) {
        const float p = gt_exponential(scale * s[i] - largest);
        part[0] += p;
        to[i] = gt_to_bf16(p);
    }
    return sum_of(part);
}

static void slopes_f32(float *restrict s, float *restrict dp, int n, const float *restrict lse,
                       const float *restrict delta, float scale)
{
    int i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (int k = 0; k < BLOCK; k++) {
            const float p = gt_exponential(scale * s[i + k] - lse[i + k]);
            s[i + k] = p;
            dp[i + k] = scale * p * (dp[i + k] - delta[i + k]);
        }
    for (; i < n; i++) {
        const float p = gt_exponential(scale * s[i] - lse[i]);
        s[i] = p;
        dp[i] = scale * p * (dp[i] - delta[i]);
    }
}

static void slopes_bf16(const float *restrict s, const float *restrict dp, int n, const float *restrict lse,
                        const float *restrict delta, float scale, uint16_t *restrict p_to, uint16_t *restrict ds_to)
{
    int i = 0;
    for (; i + BLOCK <= n; i += BLOCK) {
        float p[BLOCK], ds[BLOCK];
        for (int k = 0; k < BLOCK; k++) {
            p[k] = gt_exponential(scale * s[i + k] - lse[i + k]);
            ds[k] = scale * p[k] * (dp[i + k] - delta[i + k]);
        }
        LOOPS_BF16(p_to + i, p)
        LOOPS_BF16(ds_to + i, ds)
    }
    for (; i < n; i++) {
        const float p = gt_exponential(scale * s[i] - lse[i]);
        p_to[i] = gt_to_bf16(p);
        ds_to[i] = gt_to_bf16(scale * p * (dp[i] - delta[i]));
    }
}

static void multiply(float *restrict x, int n, float factor)
{
    int i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (int k = 0; k < BLOCK; k++)
            x[i + k] *= factor;
    for (; i < n; i++)
        x[i] *= factor;
}

/* Loops that differ by the storage type alone; FROM(x) and TO(x) convert one element. */
#define LOOPS(name, element, FROM, TO) \
    static void widen_##name(float *restrict to, const void *from, int n) \
    { \
        const element *restrict x = from; \
        int i = 0; \
        for (; i + BLOCK <= n; i += BLOCK) \
            for (int k = 0; k < BLOCK; k++) \
                to[i + k] = FROM(x[i + k]); \
        for (; i < n; i++) \
            to[i] = FROM(x[i]); \
    } \
    static void narrow_##name(void *into, const float *restrict x, int n, float factor) \
    { \
        element *restrict to = into; \
        int i = 0; \
        for (; i + BLOCK <= n; i += BLOCK) \
            for (int k = 0; k < BLOCK; k++) \
                to[i + k] = TO(factor * x[i + k]); \
        for (; i < n; i++) \
            to[i] = TO(factor * x[i]); \
    } \
    static float dot_##name(const void *left, const void *right, int n) \
    { \
        const element *restrict a = left, *restrict b = right; \
        float part[BLOCK] = { 0 }; \
        int i = 0; \
        for (; i + BLOCK <= n; i += BLOCK) \
            for (int k = 0; k < BLOCK; k++) \
                part[k] += FROM(a[i + k]) * FROM(b[i + k]); \
        for (; i < n; i++) \
            part[0] += FROM(a[i]) * FROM(b[i]); \
        return sum_of(part); \
    }
#define SAME(x) (x)
LOOPS(f32, float, SAME, SAME)
LOOPS(bf16, uint16_t, gt_from_bf16, gt_to_bf16)
LOOPS(f16, uint16_t, gt_from_f16, gt_to_f16)
#undef SAME
#undef LOOPS

#define LOOPS_TABLE_(name) attention_loops_##name
#define LOOPS_TABLE(name) LOOPS_TABLE_(name)
const attention_loops LOOPS_TABLE(LOOPS_OF) = {
    .most = most,
    .exp_f32 = exp_f32,
    .exp_bf16 = exp_bf16,
    .slopes_f32 = slopes_f32,
    .slopes_bf16 = slopes_bf16,
    .multiply = multiply,
    .widen = { widen_f32, widen_bf16, widen_f16 },
    .narrow = { narrow_f32, narrow_bf16, narrow_f16 },
    .dot = { dot_f32, dot_bf16, dot_f16 },
};

#endif
#endif
