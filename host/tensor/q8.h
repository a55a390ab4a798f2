/* SPDX-License-Identifier: MIT */
/* host/tensor/q8.h - matrices in 8 bits: an integer a number, a scale a block (DTYPE_Q8).
 *
 *   row      | 32 numbers | 32 numbers | ... |       x = q * scale,  q in -127 .. 127
 *   stored   int8 (rows, columns), dense | fp32 (rows, blocks)
 *
 * The scale is the largest magnitude of its block over 127, rounded up to 16 bits of mantissa: so x is
 * exact, the largest number comes back as 127 scales, and what was read from here is stored again as
 * the same bits (checkpoints hold it as fp32). The difference from what was stored is at most half a
 * scale, 1/254 of the block's largest magnitude and a 16-bit rounding more.
 * Blocks begin at multiples of Q8_BLOCK of the whole tensor's columns, whichever of them a rank holds.     */
#ifndef GT_TENSOR_Q8_H
#define GT_TENSOR_Q8_H

#include "host/tensor/slice.h"

enum { Q8_BLOCK = 32, Q8_ALIGN = 256 };        /* bytes: where the scales begin */

typedef struct q8 {
    int64_t rows, columns;
    int first;                  /* of column 0 within its block */
} q8;

/* Of what a rank holds of a tensor of rank 2 or more. */
q8 q8_of(const shape *held, const tensor_slice *s);
int64_t q8_in_row(q8 b);
uint64_t q8_scales_at(q8 b);            /* bytes */
uint64_t q8_bytes(q8 b);
/* 1 if a slice's rows are whole or one run of columns: what blocks can hold. */
int q8_fits(const shape *full, const tensor_slice *s);

/* From the whole tensor; out has q8_bytes(). */
void q8_store(void *out, const float *full, const shape *whole, const tensor_slice *s);
/* What is held, rows * columns numbers. */
void q8_load(float *to, const void *from, q8 b);
/* Rows [row, row + rows) of columns [column, column + columns) of it, rows of `to` ld apart. */
void q8_load_part(float *to, int64_t ld, const void *from, q8 b, int64_t row, int64_t rows, int64_t column,
                  int64_t columns);

#endif
