/* SPDX-License-Identifier: MIT */
/* cl/dct.cl - the discrete cosine transform of the square blocks of a matrix, and back.
 *
 *   x (N,M) row-major   | 64 x 64 | 64 x 64 | 64 x w |      blocks of 64 rows and columns, at the edges less
 *                       | h x 64  | h x 64  | h x w  |
 *   y                   SIDE * SIDE values a block, block by block: coefficient (u, v) at u * SIDE + v, zeros where
 *                       a block has fewer
 *
 *   forward   y[u][v] = sum over i, j of  c(u, i, h) x[i][j] c(v, j, w)
 *   inverse   x[i][j] = sum over u, v of  c(u, i, h) y[u][v] c(v, j, w)
 *   c(u, i, n) = sqrt((u ? 2 : 1) / n) cos(pi (2 i + 1) u / 2 n)      DCT-II, orthonormal: the inverse is its transpose
 *
 * fp32. CPU: a work-item owns `per` blocks; most coefficients may be zero, and those cost nothing. GPU: a work-group owns
 * a block, which lies in local memory; 4 n values of the cosine are all that a block of n needs.
 * Nothing but the macros of cl/common.clh is set by the host.                             */
#include "common.clh"

#define SIDE 64
#define BLOCK (SIDE * SIDE)

static float scale_of(int u, int n)
{
    return sqrt((u ? 2.0f : 1.0f) / (float)n);
}

/* cos(pi k / 2 n), k below 4 n. */
static float cosine(int k, int n)
{
    return cospi((float)k / (float)(2 * n));
}

#ifdef STYLE_CPU

/* c(u, i, n) at u * SIDE + i, or at i * SIDE + u; zeros to the end of a row. */
static void basis(float *to, int n, int turned)
{
    for (int u = 0; u < n; u++) {
        for (int i = 0; i < n; i++)
            to[turned ? i * SIDE + u : u * SIDE + i] = scale_of(u, n) * cosine((2 * i + 1) * u % (4 * n), n);
        for (int i = n; i < SIDE; i++)
            to[u * SIDE + i] = 0.0f;
    }
}

/* z (A,SIDE) = x (A,B) y (B,SIDE), rows SIDE apart; what is zero in x costs nothing. */
static void multiply(int A, int B, const float *x, const float *y, float *z)
{
    float value[SIDE];
    int at[SIDE];
    for (int a = 0; a < A; a++) {
        int count = 0;
        for (int b = 0; b < B; b++) {
            value[count] = x[a * SIDE + b];
            at[count] = b * SIDE;
            count += x[a * SIDE + b] != 0.0f;
        }
        for (int c = 0; c < SIDE; c += VW) {
            floatV sum = 0.0f;
            for (int k = 0; k < count; k++)
                sum += value[k] * vloadV(0, y + at[k] + c);
            vstoreV(sum, 0, z + a * SIDE + c);
        }
    }
}

KERNEL void dct(int per, int N, int M, int blocks, int inverse, __global const float *from, __global float *to)
{
    float left[BLOCK], right[BLOCK], in[BLOCK], half_way[BLOCK];
    const int across = (M + SIDE - 1) / SIDE, first = get_global_id(0) * per, last = min(blocks, first + per);
    int rows = 0, columns = 0;
    for (int b = first; b < last; b++) {
        const int row = b / across * SIDE, column = b % across * SIDE, h = min(SIDE, N - row), w = min(SIDE, M - column);
        const size_t block = (size_t)b * BLOCK, corner = (size_t)row * M + column;
        if (h != rows)
            basis(left, h, inverse);
        if (w != columns)
            basis(right, w, !inverse);
        rows = h;
        columns = w;
        for (int i = 0; i < h; i++)
            for (int j = 0; j < w; j++)
                in[i * SIDE + j] = inverse ? from[block + i * SIDE + j] : from[corner + (size_t)i * M + j];
        multiply(h, w, in, right, half_way);
        multiply(h, h, left, half_way, in);
        if (!inverse && h * w < BLOCK)
            for (int i = 0; i < BLOCK; i++)
                to[block + i] = 0.0f;
        for (int i = 0; i < h; i++)
            for (int j = 0; j < w; j++)
                to[inverse ? corner + (size_t)i * M + j : block + i * SIDE + j] = in[i * SIDE + j];
    }
}

#else

#define OWN (BLOCK / WG)

/* The cosine of every angle of a block of n. */
static void fill(__local float *table, int n)
{
    for (int k = get_local_id(0); k < 4 * n; k += WG)
        table[k] = cosine(k, n);
}

/* Sum over b of x[b * stride] c(., ., n), whose other index is `out`: forward c(out, b), inverse c(b, out), the latter
 * without its scale, which x has. */
static float transformed(__local const float *x, int stride, __local const float *table, int out, int n, int inverse)
{
    float sum = 0.0f;
    const int step = inverse ? 2 * out + 1 : 2 * out;
    int angle = inverse ? 0 : out;
    for (int b = 0; b < n; b++) {
        sum += x[b * stride] * table[angle];
        angle += step;
        angle -= angle >= 4 * n ? 4 * n : 0;
    }
    return inverse ? sum : sum * scale_of(out, n);
}

KERNEL void dct(int per, int N, int M, int blocks, int inverse, __global const float *from, __global float *to)
{
    __local float x[BLOCK], down[4 * SIDE], along[4 * SIDE];
    const int across = (M + SIDE - 1) / SIDE, b = get_group_id(0), me = get_local_id(0);
    const int row = b / across * SIDE, column = b % across * SIDE, h = min(SIDE, N - row), w = min(SIDE, M - column);
    const size_t at = (size_t)b * BLOCK;
    float own[OWN];
    fill(down, h);
    fill(along, w);
    for (int e = me; e < BLOCK; e += WG) {
        const int i = e / SIDE, j = e % SIDE;
        const int there = i < h && j < w;
        x[e] = !there    ? 0.0f
               : inverse ? from[at + e] * scale_of(i, h) * scale_of(j, w)
                         : from[(size_t)(row + i) * M + column + j];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int k = 0; k < OWN; k++) {
        const int e = me + k * WG, i = e / SIDE, j = e % SIDE;
        own[k] = i < h && j < w ? transformed(x + i * SIDE, 1, along, j, w, inverse) : 0.0f;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int k = 0; k < OWN; k++)
        x[me + k * WG] = own[k];
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int k = 0; k < OWN; k++) {
        const int e = me + k * WG, i = e / SIDE, j = e % SIDE, there = i < h && j < w;
        const float y = there ? transformed(x + j, SIDE, down, i, h, inverse) : 0.0f;
        if (!inverse)
            to[at + e] = y;
        else if (there)
            to[(size_t)(row + i) * M + column + j] = y;
    }
}

#endif
