/* SPDX-License-Identifier: MIT */
/* host/tensor/slice.h - the part of a tensor that a rank holds.
 *
 *   q k v of 4 heads, rank 1 of 2:   [ q0 q1 q2 q3 | k0 k1 k2 k3 | v0 v1 v2 v3 ]   dim 0, parts 3
 *   holds                                  q2 q3         k2 k3         v2 v3       begin 2, count 2
 *
 * Along one dimension the tensor is `parts` runs of `full` entries each; of every run the rank has
 * [begin, begin + count). A row of a matrix, a column, and heads of stacked projections are
 * all of this form. Local tensors are dense, in the order of the full one.                 */
#ifndef GT_TENSOR_SLICE_H
#define GT_TENSOR_SLICE_H

#include "host/tensor/dtype.h"

typedef struct tensor_slice {
    int dim, parts;                 /* parts 0: the whole tensor, and the rest is not looked at */
    int64_t full, begin, count;     /* entries of a part; those held                            */
} tensor_slice;

/* The shape of what is held. */
shape tensor_slice_shape(const shape *full, const tensor_slice *s);
int tensor_slice_equal(const tensor_slice *a, const tensor_slice *b);
/* 1 if it lies within a tensor of that shape. */
int tensor_slice_fits(const shape *full, const tensor_slice *s);

/* Copies between the full tensor and what is held, both fp32. */
void tensor_slice_take(float *local, const float *full, const shape *whole, const tensor_slice *s);
void tensor_slice_put(float *full, const float *local, const shape *whole, const tensor_slice *s);
/* Element `local` of what is held: *full is its index in the full tensor; returns how many
 * elements from there on lie side by side in both. */
int64_t tensor_slice_run(const shape *whole, const tensor_slice *s, int64_t local, int64_t *full);

#endif
