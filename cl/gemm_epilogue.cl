/* SPDX-License-Identifier: MIT */
/* cl/gemm_epilogue.cl - what an engine that only multiplies needs around its product.
 *
 *   gemm_epilogue   C = epilogue(C) in place; the formula is in gemm_epilogue.clh
 *   gemm_clear      C = 0 unless `add`, for engines that can only add
 *
 * C: `batch` matrices (M,N), rows ldc apart, matrices stride_c apart. CPU: a work-item owns
 * a row. GPU: a work-item owns four neighbouring columns; dimension 0 runs along a row,
 * dimension 1 over the rows of all matrices.
 *
 * The host sets with -D: STORE and C_F32, see gemm_epilogue.clh; ACT, see activation.clh.                         */
#include "common.clh"
#include "random.clh"
#include "activation.clh"
#include "gemm_epilogue.clh"

#ifdef STYLE_CPU
#define FIRST_PART 0
#define PART_STEP  1
#else
#define FIRST_PART ((int)get_global_id(0))
#define PART_STEP  ((int)get_global_size(0))
#endif

KERNEL void gemm_epilogue(int M, int N, int rows, __global c_t *C, int ldc, ulong stride_c,
                          int flags, __global const float *bias, __global c_t *pre,
                          __global const c_t *aux, __global const c_t *residual,
                          __global const uint *random, uint stream, uint limit, float factor,
                          ulong sequence)
{
    const epilogue e = { flags, bias, pre, aux, residual, random, sequence, stream, limit, factor };
    const int row = get_global_id(1);
    if (row >= rows)
        return;
    const size_t start = (size_t)(row / M) * stride_c + (size_t)(row % M) * ldc;
    for (int n = FIRST_PART * VW; n < N; n += PART_STEP * VW) {
        const int count = min(VW, N - n);
#ifdef STYLE_CPU
        const int wide = count == VW;
#else
        const int wide = count == VW && ((start & 3) == 0);
#endif
        const floatV x = part_load(C, start + n, count, wide);
        part_store(C, start + n,
                   epilogue_apply(x, e, start + n, (ulong)row * N + n, n, count, wide), count, wide);
    }
}

KERNEL void gemm_clear(int M, int N, int rows, __global c_t *C, int ldc, ulong stride_c, int add)
{
    const int row = get_global_id(1);
    if (row >= rows || add)
        return;
    const size_t start = (size_t)(row / M) * stride_c + (size_t)(row % M) * ldc;
    for (int n = FIRST_PART * VW; n < N; n += PART_STEP * VW) {
        const int count = min(VW, N - n);
        part_store(C, start + n, (floatV)0.0f, count, 0);
    }
}
