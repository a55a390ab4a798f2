/* SPDX-License-Identifier: MIT */
/* host/gemm/packed_loops_avx512.c - the loops of packed_loops.h in AVX-512.
 *
 * Lines that are stored rows are packed as squares of 16 x 16, turned over in registers: 16 rows become two panels of
 * A, or a third of one of B. Nothing is read past a line's end or a matrix's last line. */
#include "host/gemm/packed_loops.h"

#include "host/base/square_avx512.h"

#include <stddef.h>

enum { WIDE = SQUARE, VECTORS = PACKED_COLUMNS / WIDE };

/* ---- packing --------------------------------------------------------------------------------- */

static __mmask16 first_of(int n)
{
    return n >= WIDE ? (__mmask16)0xffff : n > 0 ? (__mmask16)((1u << n) - 1) : (__mmask16)0;
}

/* 16 lines of one k: to their place in a panel of 48, or half of them to each of two panels. */
static inline void put(float *to, int wide, int depth, int line, int at, __m512 x, int lines)
{
    if (wide == PACKED_COLUMNS) {
        _mm512_storeu_ps(to + (ptrdiff_t)at * PACKED_COLUMNS + line, x);
        return;
    }
    float *half = to + (ptrdiff_t)line * depth + (ptrdiff_t)at * PACKED_ROWS;
    _mm256_storeu_ps(half, _mm512_castps512_ps256(x));
    if (line + PACKED_ROWS < lines)
        _mm256_storeu_ps(half + (ptrdiff_t)depth * PACKED_ROWS,
                         _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x), 1)));
}

static void pack_along(float *to, int depth, const packed_factor *from, int wide, int first, int lines, int k0, int k)
{
    const int all = wide == PACKED_COLUMNS ? PACKED_COLUMNS : lines;
    for (int line = 0; line < all; line += WIDE) {
        const float *at = from->at + (first + line) * from->ld + k0;
        for (int j = 0; j < k; j += WIDE, at += WIDE) {
            const __mmask16 there = first_of(k - j);
            __m512 x[WIDE];
            if (line + WIDE <= lines && there == 0xffff) {
#pragma GCC unroll 16
                for (int i = 0; i < WIDE; i++)
                    x[i] = _mm512_loadu_ps(at + i * from->ld);
            } else {
#pragma GCC unroll 16
                for (int i = 0; i < WIDE; i++)
                    x[i] = line + i < lines ? _mm512_maskz_loadu_ps(there, at + i * from->ld) : _mm512_setzero_ps();
            }
            square_turn_over(x);
#pragma GCC unroll 16
            for (int i = 0; i < WIDE; i++)
                if (j + i < k)
                    put(to, wide, depth, line, j + i, x[i], lines);
        }
    }
}

static void pack_across(float *to, int depth, const packed_factor *from, int wide, int first, int lines, int k0, int k)
{
    const int all = wide == PACKED_COLUMNS ? PACKED_COLUMNS : lines;
    const float *at = from->at + k0 * from->ld + first;
    for (int j = 0; j < k; j++, at += from->ld)
#pragma GCC unroll 3
        for (int line = 0; line < PACKED_LINES; line += WIDE)
            if (line < all)
                put(to, wide, depth, line, j, _mm512_maskz_loadu_ps(first_of(lines - line), at + line), lines);
}

static void pack(float *to, int depth, const packed_factor *from, int wide, int first, int lines, int k0, int k)
{
    if (from->along)
        pack_along(to, depth, from, wide, first, lines, k0, k);
    else
        pack_across(to, depth, from, wide, first, lines, k0, k);
}

/* ---- multiplying ----------------------------------------------------------------------------- */

/* LATE: k before a tile's end when C is fetched: earlier, the panels that stream through the first-level cache would
 * drive it out again. */
enum { STRETCH = PACKED_STRETCH, LATE = 32 };

static inline void multiply_add(__m512 sum[PACKED_ROWS][VECTORS], const float *a, const float *b)
{
    __m512 x[VECTORS];
#pragma GCC unroll 3
    for (int j = 0; j < VECTORS; j++)
        x[j] = _mm512_loadu_ps(b + j * WIDE);
#pragma GCC unroll 8
    for (int i = 0; i < PACKED_ROWS; i++) {
        const __m512 y = _mm512_set1_ps(a[i]);
#pragma GCC unroll 3
        for (int j = 0; j < VECTORS; j++)
            sum[i][j] = _mm512_fmadd_ps(y, x[j], sum[i][j]);
    }
}

/* The memory of a tile of C, to the second-level cache or the first. */
#define FETCH(c, ldc, hint) \
    _Pragma("GCC unroll 8") for (int i_ = 0; i_ < PACKED_ROWS; i_++) \
        _Pragma("GCC unroll 3") for (int j_ = 0; j_ < VECTORS; j_++) \
            _mm_prefetch((const char *)((c) + i_ * (ldc) + (ptrdiff_t)j_ * WIDE), hint);

static inline void look_ahead(packed_beside *x)
{
    for (int i = 0; i < x->each && x->left; i++, x->left--) {
        _mm_prefetch(x->at + (ptrdiff_t)x->line * 64, _MM_HINT_T1);
        if (++x->line == x->lines) {
            x->line = 0;
            x->at += x->step;
        }
    }
}

static inline void carry(packed_beside *x)
{
    if (!x->rows)
        return;
#pragma GCC unroll 3
    for (int i = 0; i < PACKED_LINES; i += WIDE)
        put(x->to, x->half ? PACKED_ROWS : PACKED_COLUMNS, (int)(x->half / PACKED_ROWS), i, 0,
            _mm512_loadu_ps(x->from + i), PACKED_LINES);
    x->from += x->ld;
    x->to += x->half ? PACKED_ROWS : PACKED_COLUMNS;
    x->rows--;
}

static inline void multiply(int k, const float *a, const float *b, float *c, int64_t ldc, float alpha, packed_store how,
                            packed_beside *beside)
{
    __m512 sum[PACKED_ROWS][VECTORS];
    packed_beside next = *beside;
    if (how != PACKED_STREAM)
        FETCH(c, ldc, _MM_HINT_T1)
#pragma GCC unroll 8
    for (int i = 0; i < PACKED_ROWS; i++)
#pragma GCC unroll 3
        for (int j = 0; j < VECTORS; j++)
            sum[i][j] = _mm512_setzero_ps();
    int left = k;
    for (int last = 0; last < 2; last++) {
        const int until = last ? 0 : LATE;
        for (; left >= until + STRETCH; left -= STRETCH) {
            look_ahead(&next);
            carry(&next);
#pragma GCC unroll 8
            for (int i = 0; i < STRETCH; i++, a += PACKED_ROWS, b += PACKED_COLUMNS)
                multiply_add(sum, a, b);
        }
        if (!last && how != PACKED_STREAM)
            FETCH(c, ldc, _MM_HINT_T0)
    }
    for (; left > 0; left--, a += PACKED_ROWS, b += PACKED_COLUMNS)
        multiply_add(sum, a, b);
    const __m512 factor = _mm512_set1_ps(alpha);
#pragma GCC unroll 8
    for (int i = 0; i < PACKED_ROWS; i++)
#pragma GCC unroll 3
        for (int j = 0; j < VECTORS; j++) {
            float *to = c + i * ldc + (ptrdiff_t)j * WIDE;
            const __m512 x = _mm512_mul_ps(factor, sum[i][j]);
            if (how == PACKED_STREAM)
                _mm512_stream_ps(to, x);
            else
                _mm512_storeu_ps(to, how == PACKED_ADD ? _mm512_add_ps(_mm512_loadu_ps(to), x) : x);
        }
    *beside = next;
}

/* Compiled apart, so that none asks within its loops how it ends. */
static void tile(int k, const float *a, const float *b, float *c, int64_t ldc, float alpha, packed_store how,
                 packed_beside *beside)
{
    if (how == PACKED_STREAM)
        multiply(k, a, b, c, ldc, alpha, PACKED_STREAM, beside);
    else
        multiply(k, a, b, c, ldc, alpha, how, beside);
}

static void arrive(void)
{
    _mm_sfence();
}

const packed_loops packed_loops_avx512 = { pack, tile, arrive };
