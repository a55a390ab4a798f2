/* SPDX-License-Identifier: MIT */
/* cl/gemv.cl - the `gemv` engine: a few rows times a matrix, as fast as the matrix can be read.
 *
 *   C (M,N) = epilogue(alpha * A (M,K) * B' (K,N)), B stored (N,K)     or C += alpha * A * B'
 *
 * Row-major, M = ROWS. An element of C is one row of B times one of A, both contiguous in memory, so
 * nothing is packed: B passes by once, and A stays in the first cache. That is what a model that writes
 * text a token at a time consists of; every weight is used once a token.
 *
 * CPU body. A work-item owns a run of panels of VW columns of C, that is of VW rows of B, and reads it in
 * STREAMS places at once, a part of the run apart:
 *
 *              K
 *   B   n    [ b b b b b b b ... ]      one stream a core is not enough to keep memory busy, and several
 *       ...                             that are close by disturb each other: each of these is row after
 *       n+S  [ b b b b b b b ... ]      row, as hardware that reads ahead expects
 *       ...                             the sums of a panel become one vector, which goes through the
 *   A        [ a a a a a a a ... ]      epilogue and is stored
 *
 * Of B in bf16 two neighbours are one 32-bit word, of which a shift makes the first a float and a mask the
 * second. So A is laid out that way beforehand, by each work-item for itself in its part of scratch:
 *
 *   A   0 1 2 3 ... | ... 2 VW - 1      packed   0 2 4 ... 2 VW - 2 | 1 3 5 ... 2 VW - 1 | next 2 VW
 *
 * GPU body. LANES work-items share a column, neighbours read neighbouring quads of it, and a work-group
 * owns four columns, whose sums meet in local memory.
 *
 * The host sets with -D (defaults in brackets); STORE and C_F32 are in gemm_epilogue.clh, ACT in
 * activation.clh, B_STORE in right_factor.clh:
 *   ROWS    rows of A and C, 1 to 4                                                      [1] */
#include "common.clh"
#include "random.clh"
#include "right_factor.clh"
#include "activation.clh"
#include "gemm_epilogue.clh"

#ifndef ROWS
#define ROWS 1
#endif

#ifdef STYLE_CPU

#define STREAMS 4

#if B_STORE == 1
#define PAIR (2 * VW)

/* Whole pairs of vectors of A's rows, the even elements in front of the odd ones. */
static void pack_pairs(__global float *d, __global const store_t *A, size_t lda, int K)
{
    const int whole = K / PAIR * PAIR;
    for (int r = 0; r < ROWS; r++)
        for (int k = 0; k < whole; k += PAIR) {
            const floatV x = loadV(A, r * lda + k), y = loadV(A, r * lda + k + VW);
            vstoreV((floatV)(x.even, y.even), 0, d + r * whole + k);
            vstoreV((floatV)(x.odd, y.odd), 0, d + r * whole + k + VW);
        }
}

/* As columns(), with the pairs of A in `a`, and rows of B that begin at whole words. */
static void columns_of_pairs(float *t, __global const float *a, __global const store_t *A, size_t lda,
                             __global const right_t *b[STREAMS], int K)
{
    const int whole = K / PAIR * PAIR;
    floatV s[ROWS][STREAMS];
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int j = 0; j < STREAMS; j++)
            s[r][j] = 0.0f;
    for (int k = 0; k < whole; k += PAIR) {
        floatV even[ROWS], odd[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            even[r] = vloadV(0, a + r * whole + k);
            odd[r] = vloadV(0, a + r * whole + k + VW);
        }
#pragma unroll
        for (int j = 0; j < STREAMS; j++) {
            const uintV w = vloadV(0, (__global const uint *)(b[j] + k));
            const floatV x = as_floatV(w << 16), y = as_floatV(w & 0xffff0000u);
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                s[r][j] = fma(odd[r], y, fma(even[r], x, s[r][j]));
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int j = 0; j < STREAMS; j++) {
            float rest = 0.0f;
            for (int k = whole; k < K; k++)
                rest = fma(load1(A, r * lda + k), as_float((uint)b[j][k] << 16), rest);
            t[(j * ROWS + r) * VW] = sumV(s[r][j]) + rest;
        }
}
#endif

/* The sums of a column of each stream, whose rows of B these are, go to t[(stream * ROWS + r) * VW]. */
static void columns(float *t, __global const store_t *A, size_t lda, right_factor b, const int row[STREAMS], int K)
{
    floatV s[ROWS][STREAMS];
    int k = 0;
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int j = 0; j < STREAMS; j++)
            s[r][j] = 0.0f;
    for (; k + VW <= K; k += VW) {
        floatV a[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            a[r] = loadV(A, r * lda + k);
#pragma unroll
        for (int j = 0; j < STREAMS; j++) {
            const floatV x = right_V(b, row[j], k);
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                s[r][j] = fma(a[r], x, s[r][j]);
        }
    }
    if (k < K)
        for (int r = 0; r < ROWS; r++)
            for (int j = 0; j < STREAMS; j++)
                s[r][j] = fma(load_part(A, r * lda + k, K - k), right_part(b, row[j], k, K - k), s[r][j]);
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int j = 0; j < STREAMS; j++)
            t[(j * ROWS + r) * VW] = sumV(s[r][j]);
}

/* Work-item i of a product owns panels [i * each, (i + 1) * each), a stream `part` of them; dimension 1: batch.
 * scratch: of B in bf16, item_floats for each work-item. */
KERNEL void gemv_cpu(int M, int N, int K, __global const store_t *A, int lda, ulong stride_a,
                     __global const right_t *B, int ldb, ulong stride_b, ulong scales_at, int blocks, int first,
                     __global c_t *C, int ldc, ulong stride_c, float alpha, int add, int flags, __global const float *bias,
                     __global c_t *pre, __global const c_t *aux, __global const c_t *residual,
                     __global const uint *random, uint stream, uint limit, float factor, ulong sequence, int each,
                     __global float *scratch, ulong item_floats)
{
    const epilogue e = { flags, bias, pre, aux, residual, random, sequence, stream, limit, factor };
    const int which = get_global_id(1), part = (each + STREAMS - 1) / STREAMS;
    const int from = get_global_id(0) * each * VW, to = min(N, from + each * VW);
    const size_t c_start = which * stride_c;
    A += which * stride_a;
    const right_factor right = right_factor_at(B + which * stride_b, ldb, scales_at, blocks, first);
#if B_STORE == 1
    __global float *pairs = scratch + (get_global_id(1) * get_global_size(0) + get_global_id(0)) * item_floats;
    const int by_pairs = ((ldb | (int)stride_b) & 1) == 0;
    if (by_pairs)
        pack_pairs(pairs, A, lda, K);
#endif
    for (int p = 0; p < part; p++) {
        float t[STREAMS * ROWS * VW];
        for (int j = 0; j < VW; j++) {
            /* Where a stream has no column its last one's sum comes again, and is not stored. */
            int row[STREAMS];
            for (int i = 0; i < STREAMS; i++)
                row[i] = min(from + (i * part + p) * VW + j, to - 1);
#if B_STORE == 1
            if (by_pairs) {
                __global const right_t *b[STREAMS];
                for (int i = 0; i < STREAMS; i++)
                    b[i] = right.p + row[i] * right.ld;
                columns_of_pairs(t + j, pairs, A, lda, b, K);
                continue;
            }
#endif
            columns(t + j, A, lda, right, row, K);
        }
#pragma nounroll
        for (int i = 0; i < STREAMS * ROWS; i++) {
            const int n = from + (i / ROWS * part + p) * VW, row = i % ROWS;
            const int count = min(VW, to - n), wide = count == VW;
            const size_t at = c_start + (size_t)row * ldc + n;
            if (count <= 0)
                continue;
            floatV x = alpha * vloadV(i, t);
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
              __global const right_t *B, int ldb, ulong stride_b, ulong scales_at, int blocks, int first,
              __global c_t *C, int ldc, ulong stride_c, float alpha, int add, int flags, __global const float *bias,
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
    const right_factor right = right_factor_at(B + which * stride_b, ldb, scales_at, blocks, first);
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        sum[r] = 0.0f;
    for (int k = 4 * lane; k < whole; k += 4 * LANES) {
        const float4 b = right_V(right, n, k);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            sum[r] = fma(loadV(A, (size_t)r * lda + k), b, sum[r]);
    }
    for (int k = whole + lane; k < K; k += LANES)
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            sum[r].x = fma(load1(A, (size_t)r * lda + k), right_1(right, n, k), sum[r].x);
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
