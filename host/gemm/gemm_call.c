/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_call.c - see gemm_call.h. Buffers that a product does without are passed as A, so that pointers have
 * fixed places. */
#include "host/gemm/gemm_call.h"

#include "host/gemm/engine.h"

#include <stddef.h>

gt_status gemm_call_append(gemm_context *c, dev_list *l, const gemm_desc *g, const gemm_buffers *b, gemm_slot *add_at,
                           const char *engine, gemm_pool *pool, dev_native run)
{
    gemm_desc d = *g;
    gt_status st = gemm_finish_in_place(&d, b, engine);
    if (st)
        return st;
    const gemm_call call = {
        .g = d,
        .pool = pool,
        .finishes = pool && gemm_has_epilogue(&d) && gemm_can_finish(&d),
        .keeps_argument = d.act && b->pre,
    };
    dev_buffer *const given[CALL_POINTERS] = { b->a, b->b, b->c, b->scratch, b->bias, b->pre, b->aux, b->residual };
    dev_buffer *buffers[CALL_POINTERS];
    for (int i = 0; i < CALL_POINTERS; i++)
        buffers[i] = given[i] ? given[i] : b->a;
    if (add_at)
        *add_at = (gemm_slot){ dev_list_count(l), offsetof(gemm_call, g.add) };
    st = dev_list_native(l, engine, run, &call, sizeof call, buffers, CALL_POINTERS);
    if (!st && gemm_has_epilogue(&d) && !call.finishes)
        st = gemm_epilogue_append(c, l, &d, b);
    return st;
}

float *gemm_call_at(void *p, int64_t offset)
{
    return p ? (float *)p + offset : NULL;
}

gemm_tail gemm_call_tail(const gemm_call *call, void *const *pointers, int product)
{
    const gemm_desc *g = &call->g;
    const int64_t here = product * g->stride_c;
    return (gemm_tail){ .bias = g->bias ? pointers[CALL_BIAS] : NULL,
                        .pre = gemm_call_at(call->keeps_argument ? pointers[CALL_PRE] : NULL, here),
                        .aux = gemm_call_at(g->act_grad ? pointers[CALL_AUX] : NULL, here),
                        .residual = gemm_call_at(g->residual ? pointers[CALL_RESIDUAL] : NULL, here) };
}
