/* SPDX-License-Identifier: MIT */
/* cl/adapter.cl - frozen matrices made wide again for a product, and what DoRA does around one.
 *
 *   expand_q8, expand_bf16   W as it is kept -> W as products read it
 *   row_norms                n[r] = | W[r] + scale * B[r] A |
 *   scale_columns            y = z * m / n (+ bias)
 *   magnitude_product        p = dy * z / n; its column sums are the gradient of m
 *   add_columns              y = z, and scale * u added to C of its N columns, from `first` on
 *   take_columns             u = scale * those columns of z
 *
 * W: (R,C); A: (K,C); B: (R,K); z, y, dy, p: (R,C), storage type. m, n, bias: fp32.
 * 8 bits: C integers a row, dense, and a scale for each 32 of them: `each` scales a row, the first block
 * begins `first` columns before column 0 (host/tensor/q8.h).
 * Rows: CPU: a work-item owns `per` rows. GPU: a work-group owns a row.                    */
#include "common.clh"

#define Q8_BLOCK 32

#ifdef STYLE_CPU
#define FOR_ROWS(r) for (int r = get_global_id(0) * per; r < min(R, (int)(get_global_id(0) + 1) * per); r++)
#define BEGIN 0
#define STRIDE 1
#else
#define FOR_ROWS(r) for (int r = get_group_id(0); r < R; r = R)
#define BEGIN ((int)get_local_id(0))
#define STRIDE WG
#endif

/* VW elements from i on, of which `count` exist; `wide`: rows begin where vectors may be moved. */
static floatV read(__global const store_t *p, size_t i, int count, int wide)
{
    return wide ? load_some(p, i, count) : load_part(p, i, min(count, VW));
}

static void write(__global store_t *p, size_t i, floatV x, int count, int wide)
{
    if (wide)
        store_some(p, i, x, count);
    else
        store_part(p, i, x, min(count, VW));
}

static int is_wide(int C)
{
#ifdef STYLE_CPU
    return 1;
#else
    return (C & 3) == 0;
#endif
}

KERNEL void expand_q8(int per, int R, int C, int first, int each, ulong scales_at,
                      __global const char *q, __global store_t *y)
{
    __global const float *scales = (__global const float *)(q + scales_at);
    FOR_ROWS(r)
    {
        const size_t row = (size_t)r * C;
        for (int b = BEGIN; b < each; b += STRIDE) {
            const float scale = scales[(size_t)r * each + b];
            const int from = max(0, b * Q8_BLOCK - first), to = min(C, (b + 1) * Q8_BLOCK - first);
            for (int c = from; c < to; c++)
                store1(y, row + c, (float)q[row + c] * scale);
        }
    }
}

KERNEL void expand_bf16(int per, int R, int C, __global const ushort *x, __global store_t *y)
{
    FOR_ROWS(r)
    {
        const size_t row = (size_t)r * C;
        for (int c = BEGIN; c < C; c += STRIDE)
            store1(y, row + c, as_float((uint)x[row + c] << 16));
    }
}

KERNEL void row_norms(int per, int R, int C, int K, float scale, __global const store_t *W,
                      __global const store_t *A, __global const store_t *B, __global float *n)
{
#ifndef STYLE_CPU
    __local float tmp[WG];
#endif
    const int wide = is_wide(C);
    FOR_ROWS(r)
    {
        floatV square = 0.0f;
        for (int c = BEGIN * VW; c < C; c += STRIDE * VW) {
            floatV x = 0.0f;
            for (int k = 0; k < K; k++)
                x += load1(B, (size_t)r * K + k) * read(A, (size_t)k * C + c, C - c, wide);
            x = some(read(W, (size_t)r * C + c, C - c, wide) + scale * x, C - c);
            square += x * x;
        }
#ifdef STYLE_CPU
        n[r] = sqrt(sumV(square));
#else
        const float all = group_sum(sumV(square), tmp);
        if (get_local_id(0) == 0)
            n[r] = sqrt(all);
#endif
    }
}

KERNEL void scale_columns(int per, int R, int C, __global const store_t *z, __global const float *m,
                          __global const float *n, __global const float *bias, __global store_t *y)
{
    const int wide = is_wide(C);
    FOR_ROWS(r)
    {
        for (int c = BEGIN * VW; c < C; c += STRIDE * VW) {
            const floatV s = load_some_f32(m, c, C - c) / load_some_f32(n, c, C - c);
            floatV x = read(z, (size_t)r * C + c, C - c, wide) * s;
            if (bias)
                x += load_some_f32(bias, c, C - c);
            write(y, (size_t)r * C + c, x, C - c, wide);
        }
    }
}

KERNEL void magnitude_product(int per, int R, int C, __global const store_t *dy,
                              __global const store_t *z, __global const float *n, __global store_t *p)
{
    const int wide = is_wide(C);
    FOR_ROWS(r)
    {
        for (int c = BEGIN * VW; c < C; c += STRIDE * VW)
            write(p, (size_t)r * C + c, read(dy, (size_t)r * C + c, C - c, wide)
                  * read(z, (size_t)r * C + c, C - c, wide) / load_some_f32(n, c, C - c), C - c, wide);
    }
}

KERNEL void add_columns(int per, int R, int C, int N, int first, float scale, __global const store_t *z,
                        __global const store_t *u, __global store_t *y)
{
    FOR_ROWS(r)
    {
        for (int c = BEGIN; c < N; c += STRIDE) {
            const float more = c >= first && c < first + C ? scale * load1(u, (size_t)r * C + c - first) : 0.0f;
            store1(y, (size_t)r * N + c, load1(z, (size_t)r * N + c) + more);
        }
    }
}

KERNEL void take_columns(int per, int R, int C, int N, int first, float scale, __global const store_t *z,
                         __global store_t *u)
{
    FOR_ROWS(r)
    {
        for (int c = BEGIN; c < C; c += STRIDE)
            store1(u, (size_t)r * C + c, scale * load1(z, (size_t)r * N + first + c));
    }
}
