/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_tiles.h - products of small matrices in host memory, for operations made of many of them.
 *
 *   C (M,N) = op(A) (M,K) * op(B) (K,N) (+ C)          row-major; C fp32
 *
 * For CPU devices, inside a native kernel (dev_list_native): gemm_tiles_run() shares pieces of work out to the
 * device's threads, and each of them multiplies one tile after the other by a library that stays on the thread
 * that calls it. Sums are fp32; results do not depend on which thread computes them.          */
#ifndef GT_GEMM_GEMM_TILES_H
#define GT_GEMM_GEMM_TILES_H

#include "host/gemm/gemm.h"

typedef struct gemm_tiles gemm_tiles;

/* Sizes as in gemm_desc; lda, ldb, ldc: elements from a stored row to the next. */
typedef struct gemm_tile {
    int M, N, K, trans_a, trans_b, lda, ldb, ldc, add;
} gemm_tile;

/* Tiles of `type` by an engine. *out NULL: it has none here, for the device, this build or the processor is
 * without. They are the context's. Engine packed's have threads alone, for loops of the caller's own: it multiplies
 * nothing here. GT_NO_MEMORY. */
gt_status gemm_tiles_of(gemm_tiles **out, gemm_context *c, const char *engine, dtype type);
int gemm_tiles_threads(const gemm_tiles *t);
const char *gemm_tiles_engine(const gemm_tiles *t);
dtype gemm_tiles_type(const gemm_tiles *t);

/* Calls piece(context, i, thread) for every i in [0, pieces) and returns when all are done; 0 <= thread <
 * gemm_tiles_threads(). One caller at a time. */
void gemm_tiles_run(gemm_tiles *t, int pieces, void (*piece)(void *context, int i, int thread), void *context);
/* For a piece, which passes its own thread. What a library fails to compute becomes not a number, and an error
 * in the log. */
void gemm_tiles_multiply(gemm_tiles *t, int thread, const gemm_tile *g, const void *a, const void *b, float *c);

#endif
