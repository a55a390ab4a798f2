/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_clblast.c - products by CLBlast, which enqueues its own kernels.
 *
 * A second opinion and a baseline on GPUs. On CPU devices it is 15 to 50 times slower than
 * the other engines and takes half a minute to compile, so it runs there only when it is
 * forced. It has no argument for `add` that could travel with a launch; where that must
 * change from run to run, a kernel clears C first (or not), and CLBlast always adds.    */
#include "host/gemm/engine.h"

#include <clblast_c.h>
#include <stdlib.h>

typedef struct clblast_call {
    gemm_desc g;
    float beta;
    gemm_buffers buffers;       /* where they lie is asked at each call: windows move */
} clblast_call;

static size_t element_offset(dev_buffer *b, cl_mem *root)
{
    uint64_t bytes;
    *root = dev_cl_root(b, &bytes);
    return (size_t)(bytes / sizeof(float));
}

static gt_status enqueue(void *context, void *queue, void *event)
{
    const clblast_call *x = context;
    const gemm_desc *g = &x->g;
    const CLBlastTranspose ta = g->trans_a ? CLBlastTransposeYes : CLBlastTransposeNo;
    const CLBlastTranspose tb = g->trans_b ? CLBlastTransposeYes : CLBlastTransposeNo;
    const size_t M = (size_t)g->M, N = (size_t)g->N, K = (size_t)g->K;
    cl_command_queue q = queue;
    CLBlastStatusCode code;
    cl_mem a, b, c;
    const size_t a_offset = element_offset(x->buffers.a, &a), b_offset = element_offset(x->buffers.b, &b);
    const size_t c_offset = element_offset(x->buffers.c, &c);

    if (g->batch == 1)
        code = CLBlastSgemm(CLBlastLayoutRowMajor, ta, tb, M, N, K, g->alpha, a, a_offset, (size_t)g->lda, b, b_offset,
                            (size_t)g->ldb, x->beta, c, c_offset, (size_t)g->ldc, &q, event);
    else
        code = CLBlastSgemmStridedBatched(CLBlastLayoutRowMajor, ta, tb, M, N, K, g->alpha, a, a_offset, (size_t)g->lda,
                                          (size_t)g->stride_a, b, b_offset, (size_t)g->ldb, (size_t)g->stride_b,
                                          x->beta, c, c_offset, (size_t)g->ldc, (size_t)g->stride_c, (size_t)g->batch,
                                          &q, event);
    if (code != CLBlastSuccess)
        return gt_fail(GT_DEVICE,
                       "cannot multiply %d x %d x %d with CLBlast: its status is %d;"
                       " another engine can be chosen with GEARTRAIN_GEMM=tiled",
                       g->M, g->N, g->K, (int)code);
    return GT_OK;
}

static int can(gemm_context *c, const gemm_desc *g)
{
    return (dev_info_of(gemm_device(c))->kind != DEV_CPU || gemm_is_forced(c, &gemm_clblast)) && g->a_type == DTYPE_F32
           && g->b_type == DTYPE_F32 && g->c_type == DTYPE_F32;
}

static uint64_t scratch(gemm_context *c, const gemm_desc *g)
{
    (void)c, (void)g;
    return 0;
}

static gt_status append(gemm_context *c, dev_list *l, const gemm_desc *g, const gemm_buffers *b, gemm_slot *add_at)
{
    clblast_call *x = malloc(sizeof *x);
    if (!x)
        return gt_fail(GT_NO_MEMORY, "no memory for the arguments of a CLBlast call");
    x->g = *g;
    x->beta = add_at || g->add ? 1.0f : 0.0f;
    x->buffers = *b;

    gt_status st = GT_OK;
    if (add_at)
        st = gemm_clear_append(c, l, g, b->c, add_at);
    if (!st)
        st = dev_list_call(l, "clblast", enqueue, x, free);
    if (st) {
        free(x);                        /* the list owns it only after success */
        return st;
    }
    return gemm_has_epilogue(g) ? gemm_epilogue_append(c, l, g, b) : GT_OK;
}

const gemm_engine gemm_clblast = {
    .version = 1,
    .can = can,
    .scratch = scratch,
    .append = append,
};
