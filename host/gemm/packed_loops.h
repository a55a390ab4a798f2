/* SPDX-License-Identifier: MIT */
/* host/gemm/packed_loops.h - packing and multiplying for engine `packed`, once for each instruction set.
 *
 *   lines of A, k elements each                    the same, packed: ROWS lines a panel, k after k
 *     a b c d ...                                    a e i ... │ b f j ... │ c g k ...
 *     e f g h ...                ->
 *     i j k l ...
 *
 * Columns of B are packed likewise, COLUMNS a panel. A tile of C is one panel of A times one panel of B, and stays in
 * registers: 24 vectors of 16 sums, beside three of B and one element of A. */
#ifndef GT_GEMM_PACKED_LOOPS_H
#define GT_GEMM_PACKED_LOOPS_H

#include <stdint.h>

/* Of a tile; and the lines that are packed at a time, of either factor. */
enum { PACKED_ROWS = 8, PACKED_COLUMNS = 48, PACKED_LINES = 48 };
/* k that a tile multiplies between two bits of what is done beside it. */
enum { PACKED_STRETCH = 8 };

/* A factor: element k of line i. Lines are rows of A or columns of B. */
typedef struct packed_factor {
    const float *at;
    int64_t ld;
    int along;          /* 1: a line is a stored row, at[i * ld + k]; 0: at[k * ld + i] */
} packed_factor;

/* What is done beside a tile, a bit every few of its steps, for a stall or a move there costs nothing. */
typedef struct packed_beside {
    /* Memory that will be read soon is asked for: `lines` cache lines side by side, then `step` bytes on, until none are
     * `left`; `each` at a time. */
    const char *at;
    int64_t step;
    int lines, line, left, each;
    /* Elements of LINES lines that are stored side by side (along: 0) are packed: `rows` of them, ld apart, to a panel
     * of COLUMNS, or, where `half` is not 0, to panels of ROWS that are `half` apart. What is left of them when the
     * tile is done is said there. */
    const float *from;
    int64_t ld, half;
    float *to;
    int rows;
} packed_beside;

/* What becomes of a tile of C: written, added to, or written past the caches (ldc and c are whole cache lines then). */
typedef enum packed_store { PACKED_SET, PACKED_ADD, PACKED_STREAM } packed_store;

typedef struct packed_loops {
    /* `lines` lines from `first` on, at most PACKED_LINES, elements [k0, k0 + k) of them, in panels of `wide`, which is
     * PACKED_ROWS or PACKED_COLUMNS, and of `depth` elements a line, of which `to` has the place of k0; a panel's
     * missing lines are 0. */
    void (*pack)(float *to, int depth, const packed_factor *from, int wide, int first, int lines, int k0, int k);
    /* c (ROWS, COLUMNS) = or += alpha * panel of A * panel of B. */
    void (*tile)(int k, const float *a, const float *b, float *c, int64_t ldc, float alpha, packed_store how,
                 packed_beside *beside);
    /* Behind tiles that were streamed, before another thread is told of them. */
    void (*arrive)(void);
} packed_loops;

extern const packed_loops packed_loops_avx512;

#endif
