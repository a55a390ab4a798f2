/* SPDX-License-Identifier: MIT */
/* cl/lowrank.cl - a matrix as the product of two thin ones: PowerSGD (Vogels et al., 2019).
 *
 *   p = a q^T       a (N,M) row-major, q (R,M), p (R,N): the R columns of a paper's P and Q are rows here,
 *   q = p a         so that all of them lie side by side
 *   y = p^T q
 *   orthogonal      rows of x (R,N) become orthonormal: Gram-Schmidt, each row against those before it,
 *                   twice. What is left of a row that depends on the others is rounding; it is drawn anew
 *                   from its place, the same on all ranks. heal: also one that is not finite.
 *
 * All fp32. Sums run in an order that depends on the device's style and vector width alone: ROWS rows of a are
 * summed at a time, and then those sums.
 *
 * left, product   CPU: a work-item owns `per` rows of a; GPU: a work-group owns one
 * right           CPU: a work-item owns STRIP columns of ROWS rows; GPU: one column of them
 * orthogonal      one work-item or work-group does it all
 * Nothing but the macros of cl/common.clh is set by the host.                             */
#include "common.clh"

#define ROWS 256
#define STRIP 32
#define DEPENDENT 1e-9f         /* squares that are left of a row, to those it had: fp32 has 2^-48 = 4e-15 */

static uint scrambled(uint x)
{
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

/* In [-1, 1), of element i of row j. */
static float drawn(uint j, uint i)
{
    return (float)(int)scrambled(i * 2654435761u + j * 0x9e3779b9u + 1u) * 0x1p-31f;
}

#ifdef STYLE_CPU

KERNEL void lowrank_left(int per, int N, int M, int R, __global const float *a, __global const float *q,
                         __global float *p)
{
    const int first = get_global_id(0) * per, last = min(N, first + per);
    for (int i = first; i < last; i++)
        for (int j = 0; j < R; j += 4) {
            floatV sum[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
            for (int c = 0; c < M; c += VW) {
                const floatV x = load_some_f32(a, (size_t)i * M + c, M - c);
                for (int k = 0; k < 4; k++)
                    sum[k] += x * load_some_f32(q, (size_t)min(j + k, R - 1) * M + c, M - c);
            }
            for (int k = 0; k < 4 && j + k < R; k++)
                p[(size_t)(j + k) * N + i] = sumV(sum[k]);
        }
}

KERNEL void lowrank_product(int per, int N, int M, int R, __global const float *p, __global const float *q,
                            __global float *y)
{
    const int first = get_global_id(0) * per, last = min(N, first + per);
    for (int i = first; i < last; i++)
        for (int c = 0; c < M; c += VW) {
            floatV sum = 0.0f;
            for (int j = 0; j < R; j++)
                sum += p[(size_t)j * N + i] * load_some_f32(q, (size_t)j * M + c, M - c);
            store_some_f32(y, (size_t)i * M + c, sum, M - c);
        }
}

/* p and the partial sums lie in `work`, those from `skip` on: (blocks of rows, R, M). */
KERNEL void lowrank_right(int N, int M, int R, ulong skip, __global const float *a, __global float *work)
{
    const int strips = (M + STRIP - 1) / STRIP, id = get_global_id(0), block = id / strips;
    const int begin = id % strips * STRIP, end = min(M, begin + STRIP);
    const int first = block * ROWS, last = min(N, first + ROWS);
    __global const float *p = work;
    __global float *partial = work + skip + (size_t)block * R * M;
    for (int c = begin; c < end; c += 2 * VW)
        for (int j = 0; j < R; j += 4) {
            floatV sum[4] = { 0.0f, 0.0f, 0.0f, 0.0f }, more[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
            for (int i = first; i < last; i++) {
                const size_t row = (size_t)i * M;
                const floatV x = load_some_f32(a, row + c, M - c);
                const floatV y = c + VW < M ? load_some_f32(a, row + c + VW, M - c - VW) : (floatV)0.0f;
                for (int k = 0; k < 4; k++) {
                    const float w = p[(size_t)min(j + k, R - 1) * N + i];
                    sum[k] += w * x;
                    more[k] += w * y;
                }
            }
            for (int k = 0; k < 4 && j + k < R; k++) {
                store_some_f32(partial, (size_t)(j + k) * M + c, sum[k], M - c);
                if (c + VW < M)
                    store_some_f32(partial, (size_t)(j + k) * M + c + VW, more[k], M - c - VW);
            }
        }
}

#define TMP
#define TMP_ARG

static float dot_rows(__global const float *x, int i, int j, int N)
{
    floatV sum = 0.0f;
    for (int c = 0; c < N; c += VW)
        sum += load_some_f32(x, (size_t)i * N + c, N - c) * load_some_f32(x, (size_t)j * N + c, N - c);
    return sumV(sum);
}

/* Row j = factor * row j - share * row i. */
static void change_row(__global float *x, int j, float factor, int i, float share, int N)
{
    for (int c = 0; c < N; c += VW) {
        const floatV y = load_some_f32(x, (size_t)j * N + c, N - c) * factor;
        const floatV z = share != 0.0f ? load_some_f32(x, (size_t)i * N + c, N - c) * share : (floatV)0.0f;
        store_some_f32(x, (size_t)j * N + c, y - z, N - c);
    }
}

static void draw_row(__global float *x, int j, int N)
{
    for (int c = 0; c < N; c++)
        x[(size_t)j * N + c] = drawn(j, c);
}

#else

KERNEL void lowrank_left(int per, int N, int M, int R, __global const float *a, __global const float *q,
                         __global float *p)
{
    __local float tmp[WG];
    const int i = get_group_id(0);
    for (int j = 0; j < R; j++) {
        float sum = 0.0f;
        for (int c = 0; c < M; c += TILE)
            sum += sumV(tile_load_f32(a, i, c, M) * tile_load_f32(q, j, c, M));
        sum = group_sum(sum, tmp);
        if (get_local_id(0) == 0)
            p[(size_t)j * N + i] = sum;
    }
}

KERNEL void lowrank_product(int per, int N, int M, int R, __global const float *p, __global const float *q,
                            __global float *y)
{
    const int i = get_group_id(0);
    for (int c = get_local_id(0); c < M; c += WG) {
        float sum = 0.0f;
        for (int j = 0; j < R; j++)
            sum += p[(size_t)j * N + i] * q[(size_t)j * M + c];
        y[(size_t)i * M + c] = sum;
    }
}

KERNEL void lowrank_right(int N, int M, int R, ulong skip, __global const float *a, __global float *work)
{
    const int strips = (M + WG - 1) / WG, id = get_group_id(0);
    const int c = id % strips * WG + (int)get_local_id(0), block = id / strips;
    const int first = block * ROWS, last = min(N, first + ROWS);
    __global const float *p = work;
    __global float *partial = work + skip + (size_t)block * R * M;
    if (c >= M)
        return;
    for (int j = 0; j < R; j += 4) {
        float s0 = 0.0f, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
        for (int i = first; i < last; i++) {
            const float x = a[(size_t)i * M + c];
            s0 += x * p[(size_t)j * N + i];
            s1 += x * p[(size_t)min(j + 1, R - 1) * N + i];
            s2 += x * p[(size_t)min(j + 2, R - 1) * N + i];
            s3 += x * p[(size_t)min(j + 3, R - 1) * N + i];
        }
        partial[(size_t)j * M + c] = s0;
        if (j + 1 < R)
            partial[(size_t)(j + 1) * M + c] = s1;
        if (j + 2 < R)
            partial[(size_t)(j + 2) * M + c] = s2;
        if (j + 3 < R)
            partial[(size_t)(j + 3) * M + c] = s3;
    }
}

#define TMP , tmp
#define TMP_ARG , __local float *tmp

static float dot_rows(__global const float *x, int i, int j, int N TMP_ARG)
{
    float sum = 0.0f;
    for (int c = get_local_id(0); c < N; c += WG)
        sum += x[(size_t)i * N + c] * x[(size_t)j * N + c];
    return group_sum(sum, tmp);
}

/* Each work-item reads what it wrote itself, so nothing waits. */
static void change_row(__global float *x, int j, float factor, int i, float share, int N)
{
    for (int c = get_local_id(0); c < N; c += WG) {
        const float z = share != 0.0f ? x[(size_t)i * N + c] * share : 0.0f;
        x[(size_t)j * N + c] = x[(size_t)j * N + c] * factor - z;
    }
}

static void draw_row(__global float *x, int j, int N)
{
    for (int c = get_local_id(0); c < N; c += WG)
        x[(size_t)j * N + c] = drawn(j, c);
}

#endif

KERNEL void lowrank_sum(ulong n, uint block, int blocks, ulong skip, __global const float *work,
                        __global float *q)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    for (ulong i = begin; i < end; i++) {
        float sum = 0.0f;
        for (int b = 0; b < blocks; b++)
            sum += work[skip + (ulong)b * n + i];
        q[i] = sum;
    }
}

/* What rows before j have of row j is taken away. Returns the squares of what is left. */
static float clear_row(__global float *x, int j, int N TMP_ARG)
{
    for (int i = 0; i < j; i++)
        change_row(x, j, 1.0f, i, dot_rows(x, i, j, N TMP), N);
    return dot_rows(x, j, j, N TMP);
}

KERNEL void lowrank_orthogonal(int N, int R, int heal, __global float *x)
{
#ifdef STYLE_GPU
    __local float tmp[WG];
#endif
    for (int j = 0; j < R; j++) {
        const float before = dot_rows(x, j, j, N TMP);
        float left = before;
        for (int turn = 0; turn < 3; turn++) {
            left = clear_row(x, j, N TMP);
            const int sound = isfinite(left) && isfinite(before);
            if (turn == 0 && (sound ? left <= DEPENDENT * before : heal))
                draw_row(x, j, N);              /* the turns that follow clear it */
        }
        change_row(x, j, 1.0f / sqrt(left), j, 0.0f, N);
    }
}
