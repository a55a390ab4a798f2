/* SPDX-License-Identifier: MIT */
/* host/attention/attention_packed_loops.h - tiles of attention's products, and what becomes of rows between them.
 *
 *   c (rows, 16 vectors)  =  a (rows, k)  b (k, 16 vectors)         stays in registers while k goes by: 6 x 4 vectors
 *                                                                   of sums, 4 of b and one element of a
 *   a panel               LANES rows turned over: column k of row i is at[k * LANES + i]
 *
 * Scores are in units of log 2 / scale: their factors have been multiplied by it.                */
#ifndef GT_ATTENTION_ATTENTION_PACKED_LOOPS_H
#define GT_ATTENTION_ATTENTION_PACKED_LOOPS_H

#include <stddef.h>

enum { TILE_ROWS = 6, TILE_VECTORS = 4, VECTOR = 16, LANES = TILE_VECTORS * VECTOR };

/* Steps are elements from a row of the matrix to the next. */
typedef struct packed_product {
    int rows, vectors, k, add;      /* rows up to TILE_ROWS, vectors up to TILE_VECTORS; add: c +=, not = */
    const float *a, *b;
    float *c;
    ptrdiff_t a_step, b_step, c_step;
} packed_product;

/* Rows of scores, up to TILE_ROWS, `step` apart: of row r those of [lo, hi) are seen, the others of [from, to) become
 * 0. Whole vectors are written. */
typedef struct packed_scores {
    float *s;
    ptrdiff_t step;
    int rows, from, to, lo[TILE_ROWS], hi[TILE_ROWS];
} packed_scores;

typedef struct attention_packed_loops {
    /* a: element k of row i is at a[i * a_step + k], or with `across` at a[k * a_step + i]. */
    void (*along)(const packed_product *p);
    void (*across)(const packed_product *p);
    /* A panel of factor * `count` rows, up to LANES, of `columns`; lanes up to the next VECTOR are 0. */
    void (*turn)(float *panel, const float *rows, ptrdiff_t step, int count, int columns, float factor);
    /* Scores of a tile become 2^(s - most), where most grows to the largest of a row; says by what the sums of rows
     * shrink (`sum` already has), and returns 0 if none does. */
    int (*soften)(const packed_scores *x, float *most, float *sum, float shrink[VECTOR]);
    /* Of a row, likewise, with one lse (in log 2) and delta a lane: s becomes p = 2^(s - lse), dp becomes
     * p (dp - delta). */
    void (*slope)(float *s, float *dp, const float *lse, const float *delta, int from, int lo, int hi, int to);
} attention_packed_loops;

extern const attention_packed_loops attention_packed_avx512;

#endif
