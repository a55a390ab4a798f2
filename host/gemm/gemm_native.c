/* host/gemm/gemm_native.c - products by a CBLAS inside the device's own queue.
 *
 * A CPU device's memory is the host's, and OpenCL can call a host function in queue order
 * (clEnqueueNativeKernel). So a BLAS written for exactly this processor costs no copy and
 * no more overhead than a kernel. It multiplies fp32 only; the epilogue is a kernel.
 *
 * While the BLAS runs with its own threads, the driver's are idle: the queue is in order. */
#include "host/gemm/engine.h"

#include <cblas.h>
#include <string.h>

/* Only OpenBLAS has it; with another CBLAS the address is NULL. */
extern void openblas_set_num_threads(int num_threads) __attribute__((weak));

typedef struct native_payload {
    gemm_desc g;
    int threads;
    int flagged;            /* 1: the fourth pointer holds `add` */
} native_payload;

static void multiply(const void *payload, void *const *pointers)
{
    native_payload p;
    memcpy(&p, payload, sizeof p);
    const gemm_desc *g = &p.g;
    const float *a = pointers[0], *b = pointers[1];
    float *c = pointers[2];
    int add = g->add;
    if (p.flagged) {
        int32_t flag;
        memcpy(&flag, pointers[3], sizeof flag);
        add = flag;
    }
    if (openblas_set_num_threads)
        openblas_set_num_threads(p.threads);
    for (int i = 0; i < g->batch; i++)
        cblas_sgemm(CblasRowMajor, g->trans_a ? CblasTrans : CblasNoTrans,
                    g->trans_b ? CblasTrans : CblasNoTrans, g->M, g->N, g->K, g->alpha,
                    a + i * g->stride_a, g->lda, b + i * g->stride_b, g->ldb,
                    add ? 1.0f : 0.0f, c + i * g->stride_c, g->ldc);
}

static int can(gemm_context *c, const gemm_desc *g)
{
    const dev_info *info = dev_info_of(gemm_device(c));
    return info->kind == DEV_CPU && info->native_kernels && g->a_type == DTYPE_F32
        && g->b_type == DTYPE_F32 && g->c_type == DTYPE_F32;
}

static uint64_t scratch(gemm_context *c, const gemm_desc *g)
{
    (void)c, (void)g;
    return sizeof(int32_t);
}

static gt_status append(gemm_context *c, dev_list *l, const gemm_desc *g, const gemm_buffers *b,
                        gemm_slot *add_at)
{
    const native_payload p = {
        .g = *g,
        .threads = dev_info_of(gemm_device(c))->compute_units,
        .flagged = add_at != NULL,
    };
    dev_buffer *const buffers[] = { b->a, b->b, b->c, b->scratch };
    gt_status st = GT_OK;

    if (add_at)
        st = gemm_flag_append(c, l, g->add, b->scratch, add_at);
    if (!st)
        st = dev_list_native(l, "sgemm", multiply, &p, sizeof p, buffers, add_at ? 4 : 3);
    if (!st && gemm_has_epilogue(g))
        st = gemm_epilogue_append(c, l, g, b);
    return st;
}

const gemm_engine gemm_native = {
    .name = "native", .version = 1, .can = can, .scratch = scratch, .append = append,
};
