/* SPDX-License-Identifier: MIT */
/* cl/adapter.cl - what DoRA, and adapters of some columns, do around a product.
 *
 *   row_norms                n[r] = | W[r] + scale * B[r] A |
 *   scale_columns            y = z * m / n (+ bias)
 *   magnitude_product        p = dy * z / n; its column sums are the gradient of m
 *   add_columns              y = z, and scale * u added to C of its N columns, from `first` on
 *   take_columns             u = scale * those columns of z
 *
 * W: (R,C), as it is kept (right_factor.clh, B_STORE); A: (K,C); B: (R,K); z, y, dy, p: (R,C), storage type.
 * m, n, bias: fp32.
 * Rows: CPU: a work-item owns `per` rows. GPU: a work-group owns a row.                    */
#include "common.clh"
#include "right_factor.clh"

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

KERNEL void row_norms(int per, int R, int C, int K, float scale, __global const right_t *W, ulong scales_at,
                      int each, int first, __global const store_t *A, __global const store_t *B, __global float *n)
{
#ifndef STYLE_CPU
    __local float tmp[WG];
#endif
    const int wide = is_wide(C);
    const right_factor w = right_factor_at(W, C, scales_at, each, first);
    FOR_ROWS(r)
    {
        floatV square = 0.0f;
        for (int c = BEGIN * VW; c < C; c += STRIDE * VW) {
            floatV x = 0.0f;
            for (int k = 0; k < K; k++)
                x += load1(B, (size_t)r * K + k) * read(A, (size_t)k * C + c, C - c, wide);
            const floatV kept = wide && C - c >= VW ? right_V(w, r, c) : right_part(w, r, c, min(C - c, VW));
            x = some(kept + scale * x, C - c);
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
