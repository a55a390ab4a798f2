/* SPDX-License-Identifier: MIT */
/* cl/gemv.cl - the `gemv` engine: a few rows times a matrix, as fast as the matrix can be read.
 *
 *   C (M,N) = epilogue(alpha * A (M,K) * B' (K,N)), B stored (N,K)     or C += alpha * A * B'
 *
 * Row-major, M = ROWS. An element of C is one row of B times one of A, both contiguous in memory, so
 * nothing is packed: B passes by once, and A stays in the first cache. That is what a model that writes
 * text a token at a time consists of; every weight is used once a token.
 *
 * CPU body. A work-item owns a run of panels of VW columns of C, that is of VW rows of B:
 *
 *            K                              row after row of B, as it lies in memory: several
 *   B  n   [ b b b b | b b b b | ...]       rows at once are slower, for hardware looks ahead
 *      n+1 [ b b b b | b b b b | ...]       along one; VW sums become one vector, which goes
 *   A      [ a a a a | a a a a | ...]       through the epilogue and is stored
 *
 * GPU body. LANES work-items share a column, neighbours read neighbouring quads of it, and a work-group
 * owns four columns, whose sums meet in local memory.
 *
 * The host sets with -D (defaults in brackets); STORE and C_F32 are in gemm_epilogue.clh, ACT in
 * activation.clh:
 *   ROWS    rows of A and C, 1 to 4                                                      [1] */
#include "common.clh"
#include "random.clh"
#include "activation.clh"
#include "gemm_epilogue.clh"

#ifndef ROWS
#define ROWS 1
#endif

#ifdef STYLE_CPU

#define AHEAD 4                 /* vectors of a row at once: their sums do not wait for each other */

/* The sums of the column whose row of B this is go to t[r * VW]. */
static void column(float *t, __global const store_t *A, size_t lda, __global const store_t *b, int K)
{
    floatV s[ROWS][AHEAD];
    int k = 0;
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int j = 0; j < AHEAD; j++)
            s[r][j] = 0.0f;
    for (; k + AHEAD * VW <= K; k += AHEAD * VW) {
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            const floatV x = loadV(b, k + j * VW);
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                s[r][j] = fma(loadV(A, r * lda + k + j * VW), x, s[r][j]);
        }
    }
    for (; k < K; k += VW)
        for (int r = 0; r < ROWS; r++)
            s[r][0] = fma(load_some(A, r * lda + k, K - k), load_some(b, k, K - k), s[r][0]);
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        t[r * VW] = sumV((s[r][0] + s[r][1]) + (s[r][2] + s[r][3]));
}

/* Work-item i of a product owns panels [i * each, (i + 1) * each); dimension 1: batch. */
KERNEL void gemv_cpu(int M, int N, int K, __global const store_t *A, int lda, ulong stride_a,
                     __global const store_t *B, int ldb, ulong stride_b, __global c_t *C, int ldc,
                     ulong stride_c, float alpha, int add, int flags, __global const float *bias,
                     __global c_t *pre, __global const c_t *aux, __global const c_t *residual,
                     __global const uint *random, uint stream, uint limit, float factor, ulong sequence, int each)
{
    const epilogue e = { flags, bias, pre, aux, residual, random, sequence, stream, limit, factor };
    const int which = get_global_id(1);
    const int from = get_global_id(0) * each * VW, to = min(N, from + each * VW);
    const size_t c_start = which * stride_c;
    A += which * stride_a;
    B += which * stride_b;
    for (int n = from; n < to; n += VW) {
        const int count = min(VW, N - n), wide = count == VW;
        float t[ROWS * VW];
        for (int j = 0; j < VW; j++)            /* past the last column its sum comes again, and is not stored */
            column(t + j, A, lda, B + (size_t)min(n + j, N - 1) * ldb, K);
#pragma nounroll
        for (int row = 0; row < ROWS; row++) {
            const size_t at = c_start + (size_t)row * ldc + n;
            floatV x = alpha * vloadV(row, t);
            if (add)
                x += part_load(C, at, count, wide);
            else if (flags)
                x = epilogue_apply(x, e, at, ((ulong)which * M + row) * N + n, n, count, wide);
            part_store(C, at, x, count, wide);
        }
    }
}

#else

#define LANES 32
#define OWNED 4                 /* columns of a work-group: VW */

/* Dimension 0: groups of columns, LANES * OWNED work-items each; 1: batch. */
__kernel __attribute__((reqd_work_group_size(LANES * OWNED, 1, 1)))
void gemv_gpu(int M, int N, int K, __global const store_t *A, int lda, ulong stride_a,
              __global const store_t *B, int ldb, ulong stride_b, __global c_t *C, int ldc,
              ulong stride_c, float alpha, int add, int flags, __global const float *bias,
              __global c_t *pre, __global const c_t *aux, __global const c_t *residual,
              __global const uint *random, uint stream, uint limit, float factor, ulong sequence)
{
    __local float part[ROWS][LANES * OWNED];
    const epilogue e = { flags, bias, pre, aux, residual, random, sequence, stream, limit, factor };
    const int me = get_local_id(0), lane = me % LANES, which = get_global_id(1);
    const int n0 = get_group_id(0) * OWNED, n = min(n0 + me / LANES, N - 1);
    const int whole = ((lda | ldb | (int)stride_a | (int)stride_b) & 3) == 0 ? K & ~3 : 0;
    float4 sum[ROWS];
    A += which * stride_a;
    B += which * stride_b + (size_t)n * ldb;
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        sum[r] = 0.0f;
    for (int k = 4 * lane; k < whole; k += 4 * LANES) {
        const float4 b = loadV(B, k);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            sum[r] = fma(loadV(A, (size_t)r * lda + k), b, sum[r]);
    }
    for (int k = whole + lane; k < K; k += LANES)
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            sum[r].x = fma(load1(A, (size_t)r * lda + k), load1(B, k), sum[r].x);
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        part[r][me] = sumV(sum[r]);
    for (int half_ = LANES / 2; half_ > 0; half_ >>= 1) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (lane < half_)
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                part[r][me] += part[r][me + half_];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (me >= ROWS)
        return;
    const int count = min(OWNED, N - n0), wide = count == OWNED && ((ldc | (int)stride_c) & 3) == 0;
    const size_t at = which * stride_c + (size_t)me * ldc + n0;
    float4 x = alpha * (float4)(part[me][0], part[me][LANES], part[me][2 * LANES], part[me][3 * LANES]);
    if (add)
        x += part_load(C, at, count, wide);
    else if (flags)
        x = epilogue_apply(x, e, at, ((ulong)which * M + me) * N + n0, n0, count, wide);
    part_store(C, at, x, count, wide);
}

#endif
