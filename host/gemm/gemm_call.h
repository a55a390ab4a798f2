/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_call.h - a product of fp32 as one call of a host function in the device's queue, for engines of CPU
 * devices whose threads do the epilogue to what they have computed (gemm_finish.h).
 *
 *   gemm_call_append ── gemm_call, a copy ──► the engine's function(payload, pointers) on the device's thread
 *                                             gemm_call_tail: where product i of a batch has its epilogue
 *                   └── a kernel behind it, for an epilogue that gemm_finish() does not know           */
#ifndef GT_GEMM_CALL_H
#define GT_GEMM_CALL_H

#include "host/gemm/gemm_finish.h"
#include "host/gemm/gemm_pool.h"

/* The payload. */
typedef struct gemm_call {
    gemm_desc g;
    gemm_pool *pool;        /* NULL: the function has threads of its own, and does no epilogue */
    int finishes;           /* 1: it does the epilogue too */
    int keeps_argument;     /* of its activation */
} gemm_call;

/* The pointers. What a product does without is not to be looked at. */
enum { CALL_A, CALL_B, CALL_C, CALL_SCRATCH, CALL_BIAS, CALL_PRE, CALL_AUX, CALL_RESIDUAL, CALL_POINTERS };

/* An engine's append(). `pool` outlives the list. */
gt_status gemm_call_append(gemm_context *c, dev_list *l, const gemm_desc *g, const gemm_buffers *b, gemm_slot *add_at,
                           const char *engine, gemm_pool *pool, dev_native run);

gemm_tail gemm_call_tail(const gemm_call *call, void *const *pointers, int product);

/* `offset` elements behind p; NULL stays NULL. */
float *gemm_call_at(void *p, int64_t offset);

#endif
