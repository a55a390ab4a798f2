/* SPDX-License-Identifier: MIT */
/* cl/gemm.cl - the `tiled` engine: matrix products with everything around them fused.
 *
 *   C (M,N) = epilogue(alpha * op(A) (M,K) * op(B) (K,N))      or C += alpha * op(A) * op(B)
 *
 * Row-major. op(A) is A (M,K), or with TRANS_A the transpose of A (K,M); op(B) is B (K,N),
 * or with TRANS_B the transpose of B (N,K). A is of type STORE, B too or narrower, C of type STORE
 * or fp32; sums are fp32, and C is rounded once.
 *
 * CPU body. The unit is the register tile of tile.clh, MR rows and NR = NV * VW columns, fed
 * by one broadcast of A a row and NV vectors of B a k:
 *
 *        K                NR            a work-item's block: rows_each x (groups of panels)
 *   MR [ a0 ---> ]   k [ b b b b ]      for each KC of K
 *      [ a1 ---> ]     [ b b b b ]        pack B: KC x NR panels, so that b is contiguous
 *      [ ...     ]     [ ...     ]        for each MC rows
 *                                           pack A if it is not fp32 rows already
 *                                           for each panel, for each MR rows: the tile
 *
 * B's panels stay in the second-level cache while all rows pass by; A's rows (6 x KC) in
 * the first. A work-item packs for itself, into its own part of scratch, so there is one
 * launch and no barrier. Between two KC the tile's sums wait in scratch too: C is written
 * once, so it may be 16-bit, and may be the residual.
 *
 * GPU body. A work-group of TILE_X x TILE_Y owns a TILE_M x TILE_N block of C, each work-item TM x TN
 * of it in groups of 4 columns. Slices of TILE_K k of A and B go through local memory, the next
 * one being fetched into registers while the present one is used. With room for two slices there
 * the next one goes beside it, and the group meets once a slice instead of twice: who puts a slice in the
 * place of one has met all others since they read it.
 *
 * Whatever the host sets, an element's terms are added one by one in the order of k: how a product is cut
 * changes no bit of it.
 *
 * The host sets with -D (defaults in brackets); STORE and C_F32 are in
 * gemm_epilogue.clh, ACT in activation.clh, B_STORE in right_factor.clh:
 *   TRANS_A, TRANS_B                                                              [unset]
 *   KC      CPU: k between two visits of a tile                                   [256]
 *   MC      CPU: rows of A kept in cache; the multiple of MR below it is meant    [192]
 *   KU      CPU: k in a turn of the innermost loop                                  [4]
 *   PACKED  CPU: factors that are packed: 2, or 1 where A has fp32 rows already     [1]
 *   MR, NV                       CPU: the register tile, see tile.clh
 *   TM, TN, TILE_X, TILE_Y, TILE_K   GPU: who owns what of C, see tile.clh
 *   SLICES  GPU: room in local memory for so many slices, 1 or 2                    [1] */
#include "common.clh"
#include "random.clh"
#include "right_factor.clh"
#include "tile.clh"
#include "activation.clh"
#include "gemm_epilogue.clh"

#ifndef KC
#define KC 256
#endif
#ifndef MC
#define MC 192
#endif
#ifndef KU
#define KU 4
#endif
#ifndef PACKED
#define PACKED 1
#endif
#ifndef SLICES
#define SLICES 1
#endif

#ifdef STYLE_CPU

#define ROWS_KEPT (MC / MR * MR)
/* Row distance of packed A: not a power of two, so that rows fall into different sets. */
#define LDP (KC + VW)

/* Copies the transpose of a `rows` x `columns` corner at p (rows ld apart) to d (rows ldd
 * apart, room for whole vectors); what is outside the corner becomes 0. rows and columns
 * are at most VW. */
static void pack_transposed(__global float *d, int ldd, __global const store_t *p, size_t ld,
                            int rows, int columns)
{
    floatV r[VW];
    load_transposed(r, p, ld, rows, columns);
#pragma unroll
    for (int i = 0; i < VW; i++)
        if (i < columns)
            vstoreV(r[i], 0, d + i * ldd);
}

#ifdef TRANS_B
/* The same of B's rows from `row` on and columns from `column` on. */
static void pack_right_transposed(__global float *d, right_factor b, int row, int column, int rows, int columns)
{
    floatV r[VW];
    if (rows == VW && columns == VW) {
#pragma unroll
        for (int i = 0; i < VW; i++)
            r[i] = right_V(b, row + i, column);
    } else {
        float t[VW * VW];
#pragma nounroll
        for (int i = 0; i < VW * VW; i++)
            t[i] = i / VW < rows && i % VW < columns ? right_1(b, row + i / VW, column + i % VW) : 0.0f;
#pragma unroll
        for (int i = 0; i < VW; i++)
            r[i] = vloadV(i, t);
    }
    transpose(r);
#pragma unroll
    for (int i = 0; i < VW; i++)
        if (i < columns)
            vstoreV(r[i], 0, d + i * NR);
}
#endif

/* Columns [n, n + NR) of rows [k, k + depth) of op(B), row after row; columns past N are 0. */
static void pack_b(__global float *d, right_factor b, int k, int depth, int n, int N)
{
#ifdef TRANS_B
    for (int kk = 0; kk < depth; kk += VW)
        for (int j = 0; j < NR; j += VW)
            pack_right_transposed(d + kk * NR + j, b, n + j, k + kk, min(VW, N - n - j), min(VW, depth - kk));
#else
    if (n + NR <= N) {
        for (int kk = 0; kk < depth; kk++)
#pragma unroll
            for (int v = 0; v < NV; v++)
                vstoreV(right_V(b, k + kk, n + v * VW), 0, d + kk * NR + v * VW);
        return;
    }
    for (int kk = 0; kk < depth; kk++)
        for (int v = 0; v < NV; v++) {
            const int count = max(0, min(VW, N - n - v * VW));
            vstoreV(count == VW ? right_V(b, k + kk, n + v * VW) : right_part(b, k + kk, n + v * VW, count), 0,
                    d + kk * NR + v * VW);
        }
#endif
}

#if STORE != 0 || defined(TRANS_A) || PACKED == 2
#define PACK_A
/* Rows [m, m + rows) of columns [k, k + depth) of op(A), as fp32 rows LDP apart. */
static void pack_a(__global float *d, __global const store_t *A, int lda, int m, int rows, int k,
                   int depth)
{
#ifdef TRANS_A
    for (int i = 0; i < rows; i += VW)
        for (int kk = 0; kk < depth; kk += VW)
            pack_transposed(d + i * LDP + kk, LDP, A + (size_t)(k + kk) * lda + m + i, lda,
                            min(VW, depth - kk), min(VW, rows - i));
#else
    for (int i = 0; i < rows; i++)
        for (int kk = 0; kk < depth; kk += VW)
            vstoreV(load_some(A, (size_t)(m + i) * lda + k + kk, min(VW, depth - kk)), 0,
                    d + i * LDP + kk);
#endif
}
#endif

#define LEFT(i, k) row[i][k]

/* One tile: MR rows of A (`a`, `lda` apart; rows past `rows` repeat the last one) times one
 * packed panel, added to the sums of earlier k (`sums`, rows NR apart) if there are any. */
static void tile(floatV c[MR][NV], __global const float *a, size_t lda, int rows,
                 __global const float *b, int depth, __global const float *sums, int first)
{
    __global const float *row[MR];
#pragma unroll
    for (int i = 0; i < MR; i++) {
        row[i] = a + min(i, rows - 1) * lda;
#pragma unroll
        for (int v = 0; v < NV; v++)
            c[i][v] = first ? (floatV)0.0f : vloadV(0, sums + i * NR + v * VW);
    }
    int k = 0;
    for (; k + KU <= depth; k += KU, b += KU * NR)
#pragma unroll
        for (int u = 0; u < KU; u++)
            TILE_PRODUCT(LEFT, k + u, b + u * NR)
    for (; k < depth; k++, b += NR)
        TILE_PRODUCT(LEFT, k, b)
}

/* scratch, for each work-item: panels_each * KC * NR of packed B, then (where A is packed)
 * ROWS_KEPT * LDP of A and (where K > KC) rows_each * panels_each * NR of sums; `item_floats` in all.
 * Blocks of C are numbered group of panels first, then row block, then batch; a work-item
 * takes every get_global_size(0)-th. rows_each is a multiple of MR. */
KERNEL void gemm_cpu(int M, int N, int K, __global const store_t *A, int lda, ulong stride_a,
                     __global const right_t *B, int ldb, ulong stride_b, ulong scales_at, int each, int first,
                     __global c_t *C, int ldc, ulong stride_c, float alpha, int add, int flags, __global const float *bias,
                     __global c_t *pre, __global const c_t *aux, __global const c_t *residual,
                     __global const uint *random, uint stream, uint limit, float factor, ulong sequence,
                     __global float *scratch, ulong item_floats, int panels_each, int rows_each,
                     int groups, int row_blocks, int blocks)
{
    const epilogue e = { flags, bias, pre, aux, residual, random, sequence, stream, limit, factor };
    __global float *packed_b = scratch + get_global_id(0) * item_floats;
    __global float *rest = packed_b + (size_t)panels_each * KC * NR;
#ifdef PACK_A
    __global float *packed_a = rest;
    rest += ROWS_KEPT * LDP;
#endif

    for (int block = get_global_id(0); block < blocks; block += get_global_size(0)) {
        const int n0 = block % groups * panels_each * NR, n1 = min(N, n0 + panels_each * NR);
        const int m0 = block / groups % row_blocks * rows_each, m1 = min(M, m0 + rows_each);
        const int which = block / groups / row_blocks;
        __global const store_t *a = A + which * stride_a;
        const right_factor b = right_factor_at(B + which * stride_b, ldb, scales_at, each, first);
        const size_t c_start = which * stride_c;

        for (int k = 0; k < K; k += KC) {
            const int depth = min(KC, K - k), last = k + KC >= K;
            for (int n = n0, p = 0; n < n1; n += NR, p++)
                pack_b(packed_b + (size_t)p * KC * NR, b, k, depth, n, N);
            for (int mc = m0; mc < m1; mc += ROWS_KEPT) {
                const int mc1 = min(m1, mc + ROWS_KEPT);
#ifdef PACK_A
                pack_a(packed_a, a, lda, mc, mc1 - mc, k, depth);
#endif
                for (int n = n0, p = 0; n < n1; n += NR, p++)
                    for (int m = mc; m < mc1; m += MR) {
                        const int rows = min(MR, mc1 - m);
                        __global float *sums = rest + ((size_t)p * rows_each + (m - m0)) * NR;
                        float t[MR * NR];
                        floatV c[MR][NV];
#ifdef PACK_A
                        tile(c, packed_a + (m - mc) * LDP, LDP, rows,
#else
                        tile(c, a + (size_t)m * lda + k, lda, rows,
#endif
                             packed_b + (size_t)p * KC * NR, depth, sums, k == 0);
                        if (!last) {
#pragma unroll
                            for (int i = 0; i < MR; i++)
#pragma unroll
                                for (int v = 0; v < NV; v++)
                                    vstoreV(c[i][v], 0, sums + i * NR + v * VW);
                            continue;
                        }
#pragma unroll
                        for (int i = 0; i < MR; i++)
#pragma unroll
                            for (int v = 0; v < NV; v++)
                                vstoreV(c[i][v], i * NV + v, t);
                        /* One copy of the epilogue, not one a register. */
#pragma nounroll
                        for (int i = 0; i < rows * NV; i++) {
                            const int row = m + i / NV, column = n + i % NV * VW;
                            const int count = min(VW, N - column), wide = count == VW;
                            const size_t at = c_start + (size_t)row * ldc + column;
                            floatV x = alpha * vloadV(i, t);
                            if (count <= 0)
                                continue;
                            if (add)
                                x += part_load(C, at, count, wide);
                            else if (flags)
                                x = epilogue_apply(x, e, at, ((ulong)which * M + row) * N + column,
                                                   column, count, wide);
                            part_store(C, at, x, count, wide);
                        }
                    }
            }
        }
    }
}

#else

#define C_AT(i, h) c[i][h]

#ifdef TRANS_A
#define A_BY_K 0
#else
#define A_BY_K 1
#endif
#ifdef TRANS_B
#define B_BY_K 1
#else
#define B_BY_K 0
#endif

/* Of B's row four neighbours; those at or past `count` are 0. Wide loads want alignment. */
static float4 fetch_right(right_factor b, int row, int column, int count, int aligned)
{
    if (count >= 4 && aligned)
        return right_V(b, row, column);
    return right_part(b, row, column, min(count, 4));
}
#define FROM_RIGHT(row, column, count) fetch_right(right, row, column, count, b_aligned)

/* Dimension 0: blocks of columns; 1: blocks of rows; 2: batch. */
__kernel __attribute__((reqd_work_group_size(TILE_X, TILE_Y, 1)))
void gemm_gpu(int M, int N, int K, __global const store_t *A, int lda, ulong stride_a,
              __global const right_t *B, int ldb, ulong stride_b, ulong scales_at, int each, int first,
              __global c_t *C, int ldc, ulong stride_c, float alpha, int add, int flags, __global const float *bias,
              __global c_t *pre, __global const c_t *aux, __global const c_t *residual,
              __global const uint *random, uint stream, uint limit, float factor,
              ulong sequence)
{
    __local float as[SLICES * TILE_K * TILE_LD(TILE_M)] __attribute__((aligned(16)));
    __local float bs[SLICES * TILE_K * TILE_LD(TILE_N)] __attribute__((aligned(16)));
    const epilogue e = { flags, bias, pre, aux, residual, random, sequence, stream, limit, factor };
    const int x = get_local_id(0), y = get_local_id(1), which = get_group_id(2);
    const int m0 = get_group_id(1) * TILE_M, n0 = get_group_id(0) * TILE_N;
    const size_t c_start = which * stride_c;
    const int a_aligned = ((lda | (int)stride_a) & 3) == 0, b_aligned = ((ldb | (int)stride_b) & 3) == 0;
    const int c_aligned = ((ldc | (int)stride_c) & 3) == 0;
    A += which * stride_a;
    const right_factor right = right_factor_at(B + which * stride_b, ldb, scales_at, each, first);

    float4 c[TM][TN / 4], next_a[TILE_FETCHES(TILE_M)], next_b[TILE_FETCHES(TILE_N)];
#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
        for (int h = 0; h < TN / 4; h++)
            c[i][h] = 0.0f;

    tile_fetch_slice(next_a, TILE_M, A_BY_K, A, lda, m0, M, 0, K, a_aligned);
    TILE_FETCH_SLICE(next_b, TILE_N, B_BY_K, FROM_RIGHT, n0, N, 0, K)
    for (int k = 0; k < K; k += TILE_K) {
        __local float *a_slice = as + k / TILE_K % SLICES * (TILE_K * TILE_LD(TILE_M));
        __local float *b_slice = bs + k / TILE_K % SLICES * (TILE_K * TILE_LD(TILE_N));
        tile_keep_slice(a_slice, TILE_M, A_BY_K, next_a);
        tile_keep_slice(b_slice, TILE_N, B_BY_K, next_b);
        barrier(CLK_LOCAL_MEM_FENCE);
        if (k + TILE_K < K) {
            tile_fetch_slice(next_a, TILE_M, A_BY_K, A, lda, m0, M, k + TILE_K, K, a_aligned);
            TILE_FETCH_SLICE(next_b, TILE_N, B_BY_K, FROM_RIGHT, n0, N, k + TILE_K, K)
        }
        TILE_PRODUCT(C_AT, a_slice, b_slice, "unroll")
#if SLICES == 1
        barrier(CLK_LOCAL_MEM_FENCE);   /* all have read before the next slice is kept */
#endif
    }

#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
        for (int h = 0; h < TN / 4; h++) {
            const int row = m0 + i / 4 * (4 * TILE_Y) + y * 4 + i % 4, column = n0 + h * (4 * TILE_X) + x * 4;
            const int count = min(4, N - column), wide = count == 4 && c_aligned;
            if (row >= M || count <= 0)
                continue;
            const size_t at = c_start + (size_t)row * ldc + column;
            float4 r = alpha * c[i][h];
            if (add)
                r += part_load(C, at, count, wide);
            else if (flags)
                r = epilogue_apply(r, e, at, ((ulong)which * M + row) * N + column, column, count,
                                   wide);
            part_store(C, at, r, count, wide);
        }
}

#endif
