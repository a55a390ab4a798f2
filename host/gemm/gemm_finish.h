/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_finish.h - the epilogue of a product on the host's threads, while a piece of C is still in the cache
 * of the core that has computed it; for engines of CPU devices that are called for pieces.
 *
 * fp32; the formula is in gemm.h. Not here: dropout, and activations made of erf or tanh, which are left to the
 * kernel (gemm_epilogue_append).                                                                    */
#ifndef GT_GEMM_FINISH_H
#define GT_GEMM_FINISH_H

#include "host/gemm/gemm.h"

/* What lies as C does, from C's first element on; NULL: there is none. */
typedef struct gemm_tail {
    const float *bias;                  /* (N) */
    float *pre;
    const float *aux, *residual;        /* not C itself */
} gemm_tail;

/* 1 if gemm_finish() knows all of the epilogue of g, which is complete. */
int gemm_can_finish(const gemm_desc *g);

/* A residual that is C itself is what is added to: `add` in its place. Behind an activation it would be lost, as an aux
 * that is C would: GT_UNSUPPORTED, which names the engine. */
gt_status gemm_finish_in_place(gemm_desc *g, const gemm_buffers *b, const char *engine);

/* The epilogue of rows [row, row + rows), columns [column, column + columns) of C. */
void gemm_finish(const gemm_desc *g, const gemm_tail *t, float *c, int row, int rows, int column, int columns);

#endif
