/* SPDX-License-Identifier: MIT */
/* host/attention/attention_packed_avx512.c - the loops of attention_packed_loops.h in AVX-512. */
#include "host/attention/attention_packed_loops.h"

#include "host/base/half.h"
#include "host/base/square_avx512.h"

#include <math.h>

/* ---- products ---------------------------------------------------------------------------------- */

/* rows, vectors and across are constants where this is called: sums are registers. */
GT_INLINE void multiply(const packed_product *p, int rows, int vectors, int across)
{
    __m512 sum[TILE_ROWS][TILE_VECTORS];
    const float *a = p->a, *b = p->b;
    const ptrdiff_t a_step = p->a_step, b_step = p->b_step, c_step = p->c_step;
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            sum[i][j] = _mm512_setzero_ps();
    for (int n = p->k; n > 0; n--) {
        __m512 x[TILE_VECTORS];
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            x[j] = _mm512_loadu_ps(b + (ptrdiff_t)j * VECTOR);
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
            const __m512 y = _mm512_set1_ps(across ? a[i] : a[i * a_step]);
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++)
                sum[i][j] = _mm512_fmadd_ps(y, x[j], sum[i][j]);
        }
        a += across ? a_step : 1;
        b += b_step;
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) {
            float *to = p->c + i * c_step + (ptrdiff_t)j * VECTOR;
            _mm512_storeu_ps(to, p->add ? _mm512_add_ps(_mm512_loadu_ps(to), sum[i][j]) : sum[i][j]);
        }
}

GT_INLINE void multiply_rows(const packed_product *p, int rows, int across)
{
    switch (p->vectors) {
    case 1: multiply(p, rows, 1, across); break;
    case 2: multiply(p, rows, 2, across); break;
    case 3: multiply(p, rows, 3, across); break;
    default: multiply(p, rows, 4, across);
    }
}

GT_INLINE void multiply_tile(const packed_product *p, int across)
{
    switch (p->rows) {
    case 1: multiply_rows(p, 1, across); break;
    case 2: multiply_rows(p, 2, across); break;
    case 3: multiply_rows(p, 3, across); break;
    case 4: multiply_rows(p, 4, across); break;
    case 5: multiply_rows(p, 5, across); break;
    default: multiply_rows(p, 6, across);
    }
}

static void along(const packed_product *p)
{
    multiply_tile(p, 0);
}

static void across(const packed_product *p)
{
    multiply_tile(p, 1);
}

/* ---- panels ------------------------------------------------------------------------------------ */

/* Lanes [lo, hi) of the vector that begins at `at`. */
GT_INLINE __mmask16 lanes(int lo, int hi, int at)
{
    const unsigned from = lo > at ? (unsigned)(lo - at) : 0, to = hi - at < VECTOR ? (unsigned)(hi - at) : VECTOR;
    return (__mmask16)(((1u << to) - 1) & ~((1u << from) - 1));
}

static void turn(float *panel, const float *rows, ptrdiff_t step, int count, int columns, float factor)
{
    const __m512 by = _mm512_set1_ps(factor);
    for (int lane = 0; lane < count; lane += VECTOR)
        for (int k = 0; k < columns; k += VECTOR) {
            const __mmask16 there = lanes(k, columns, k);
            const float *from = rows + lane * step + k;
            __m512 x[VECTOR];
#pragma GCC unroll 16
            for (int i = 0; i < VECTOR; i++)
                x[i] = lane + i < count ? _mm512_maskz_loadu_ps(there, from + i * step) : _mm512_setzero_ps();
            square_turn_over(x);
#pragma GCC unroll 16
            for (int i = 0; i < VECTOR; i++)
                if (k + i < columns)
                    _mm512_storeu_ps(panel + (ptrdiff_t)(k + i) * LANES + lane, _mm512_mul_ps(by, x[i]));
        }
}

/* ---- rows -------------------------------------------------------------------------------------- */

/* 2^x within 2 units in the last place, from -126 on upwards; below it is 0. NaN stays. x = n + r with |r| <= 1/2,
 * a minimax polynomial in r, and n put into the exponent. */
GT_INLINE __m512 power(__m512 x)
{
    const __m512 shift = _mm512_set1_ps(12582912.0f);
    const __m512 n = _mm512_sub_ps(_mm512_add_ps(x, shift), shift), r = _mm512_sub_ps(x, n);
    __m512 p = _mm512_set1_ps(1.534581243e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.339993090e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.618489072e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.550328642e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.402264625e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.931471825e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ), p, n);
}

/* 0 in the vectors of [from, to) that have none of [lo, hi). */
GT_INLINE void hide(float *s, int from, int lo, int hi, int to)
{
    const int until = lo < hi ? lo / VECTOR * VECTOR : to;
    for (int i = from / VECTOR * VECTOR; i < until; i += VECTOR)
        _mm512_storeu_ps(s + i, _mm512_setzero_ps());
    for (int i = (hi + VECTOR - 1) / VECTOR * VECTOR; lo < hi && i < to; i += VECTOR)
        _mm512_storeu_ps(s + i, _mm512_setzero_ps());
}

GT_INLINE float largest(const float *s, int lo, int hi)
{
    __m512 a = _mm512_set1_ps(-INFINITY), b = a;
    int i = lo / VECTOR * VECTOR;
    if (i < lo || hi < i + VECTOR) {
        a = _mm512_mask_max_ps(a, lanes(lo, hi, i), _mm512_loadu_ps(s + i), a);
        i += VECTOR;
    }
    for (; i + 2 * VECTOR <= hi; i += 2 * VECTOR) {
        a = _mm512_max_ps(_mm512_loadu_ps(s + i), a);
        b = _mm512_max_ps(_mm512_loadu_ps(s + i + VECTOR), b);
    }
    for (; i < hi; i += VECTOR)
        b = _mm512_mask_max_ps(b, lanes(lo, hi, i), _mm512_loadu_ps(s + i), b);
    return _mm512_reduce_max_ps(_mm512_max_ps(a, b));
}

/* Returns the sum. */
GT_INLINE float powers(float *s, int lo, int hi, float most)
{
    const __m512 m = _mm512_set1_ps(most);
    __m512 a = _mm512_setzero_ps(), b = a;
    int i = lo / VECTOR * VECTOR;
    if (i < lo || hi < i + VECTOR) {
        a = _mm512_maskz_mov_ps(lanes(lo, hi, i), power(_mm512_sub_ps(_mm512_loadu_ps(s + i), m)));
        _mm512_storeu_ps(s + i, a);
        i += VECTOR;
    }
    for (; i + 2 * VECTOR <= hi; i += 2 * VECTOR) {
        const __m512 p = power(_mm512_sub_ps(_mm512_loadu_ps(s + i), m));
        const __m512 q = power(_mm512_sub_ps(_mm512_loadu_ps(s + i + VECTOR), m));
        a = _mm512_add_ps(a, p);
        b = _mm512_add_ps(b, q);
        _mm512_storeu_ps(s + i, p);
        _mm512_storeu_ps(s + i + VECTOR, q);
    }
    for (; i < hi; i += VECTOR) {
        const __m512 p = _mm512_maskz_mov_ps(lanes(lo, hi, i), power(_mm512_sub_ps(_mm512_loadu_ps(s + i), m)));
        b = _mm512_add_ps(b, p);
        _mm512_storeu_ps(s + i, p);
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(a, b));
}

/* All rows' largest before all rows' powers: nothing waits for a row's reductions. */
static int soften(const packed_scores *x, float *most, float *sum, float shrink[VECTOR])
{
    const __mmask16 rows = lanes(0, x->rows, 0);
    float part[VECTOR];
    for (int r = 0; r < x->rows; r++)
        part[r] = x->lo[r] < x->hi[r] ? largest(x->s + r * x->step, x->lo[r], x->hi[r]) : most[r];
    const __m512 old = _mm512_maskz_loadu_ps(rows, most);
    const __m512 now = _mm512_max_ps(_mm512_maskz_loadu_ps(rows, part), old);
    const __m512 less = power(_mm512_sub_ps(old, now));
    _mm512_mask_storeu_ps(most, rows, now);
    _mm512_storeu_ps(shrink, less);
    for (int r = 0; r < x->rows; r++) {
        float *s = x->s + r * x->step;
        hide(s, x->from, x->lo[r], x->hi[r], x->to);
        part[r] = x->lo[r] < x->hi[r] ? powers(s, x->lo[r], x->hi[r], most[r]) : 0.0f;
    }
    const __m512 all = _mm512_fmadd_ps(less, _mm512_maskz_loadu_ps(rows, sum), _mm512_maskz_loadu_ps(rows, part));
    _mm512_mask_storeu_ps(sum, rows, all);
    return _mm512_mask_cmp_ps_mask(rows, now, old, _CMP_GT_OQ) != 0;
}

static void slope(float *s, float *dp, const float *lse, const float *delta, int from, int lo, int hi, int to)
{
    hide(s, from, lo, hi, to);
    hide(dp, from, lo, hi, to);
    for (int i = lo / VECTOR * VECTOR; i < hi; i += VECTOR) {
        const __m512 x = _mm512_sub_ps(_mm512_loadu_ps(s + i), _mm512_loadu_ps(lse + i));
        const __m512 p = _mm512_maskz_mov_ps(lanes(lo, hi, i), power(x));
        const __m512 ds = _mm512_sub_ps(_mm512_loadu_ps(dp + i), _mm512_loadu_ps(delta + i));
        _mm512_storeu_ps(s + i, p);
        _mm512_storeu_ps(dp + i, _mm512_maskz_mul_ps(lanes(lo, hi, i), p, ds));
    }
}

const attention_packed_loops attention_packed_avx512 = { along, across, turn, soften, slope };
