/* SPDX-License-Identifier: MIT */
/* cl/norm.cl - layer normalisation and root-mean-square normalisation of rows, and sums of columns.
 *
 *   y    = xhat * gain + bias,    xhat = (x - mean) * rstd,   rstd = 1 / sqrt(var + eps)
 *   dx   = rstd * (h - mean(h) - xhat * mean(h * xhat)) + residual,    h = dy * gain
 *   dgain = sum over rows of dy * xhat,    dbias = sum over rows of dy
 *
 *   rmsnorm: y = xhat * (gain + offset),   xhat = x * rstd,   rstd = 1 / sqrt(mean of x^2 + eps)
 *   dx   = rstd * (h - xhat * mean(h * xhat)) + residual,    h = dy * (gain + offset)
 *
 * x, y, dx, dy, residual: (R,C) row-major, storage type. gain, bias, dgain, dbias: fp32 (C).
 * mean, rstd: fp32 (R), kept for backward. dx may be residual or dy.
 * The variance is the mean of (x - mean)^2, from a second walk over a row that the cache
 * still holds: the mean of squares less the square of the mean loses all digits when the
 * mean is large.
 *
 * Rows     CPU: a work-item owns `per` rows. GPU: a work-group owns a row.
 * Columns  are summed in two kernels: slabs of SLAB rows into scratch (slabs, C), then the
 *          slabs of a column. Rows are added four at a time before they meet the running
 *          sum, so 8192 rows cost the rounding of 16 + 128 additions, in a fixed order.
 * Nothing but the macros of cl/common.clh is set by the host; SLAB and STRIP stand in
 * host/kernel/kernel_norm.c as well.                                                       */
#include "common.clh"
#include "random.clh"

#define SLAB 64                 /* rows a partial sum covers */
#define STRIP 256               /* CPU: columns a work-item walks in a slab */

#ifdef STYLE_CPU

#define FINISH 64               /* columns a work-item of column_finish owns */

KERNEL void layernorm(int per, int R, int C, float eps, __global const store_t *x,
                      __global const float *gain, __global const float *bias, __global store_t *y,
                      __global float *mean, __global float *rstd)
{
    const int first = get_global_id(0) * per, last = min(R, first + per);
    for (int r = first; r < last; r++) {
        const size_t at = (size_t)r * C;
        floatV sum = 0.0f, square = 0.0f;
        for (int c = 0; c < C; c += VW)
            sum += load_some(x, at + c, C - c);
        const float m = sumV(sum) / C;
        for (int c = 0; c < C; c += VW) {
            const floatV d = some(load_some(x, at + c, C - c) - m, C - c);
            square += d * d;
        }
        const float s = 1.0f / sqrt(sumV(square) / C + eps);
        for (int c = 0; c < C; c += VW) {
            const floatV xhat = (load_some(x, at + c, C - c) - m) * s;
            store_some(y, at + c, xhat * load_some_f32(gain, c, C - c)
                                  + load_some_f32(bias, c, C - c), C - c);
        }
        if (mean) {
            mean[r] = m;
            rstd[r] = s;
        }
    }
}

KERNEL void layernorm_input_grad(int per, int R, int C, __global const store_t *dy,
                                 __global const store_t *x, __global const float *gain,
                                 __global const float *mean, __global const float *rstd,
                                 __global const store_t *residual, __global store_t *dx)
{
    const int first = get_global_id(0) * per, last = min(R, first + per);
    for (int r = first; r < last; r++) {
        const size_t at = (size_t)r * C;
        const float m = mean[r], s = rstd[r];
        floatV sum = 0.0f, product = 0.0f;
        for (int c = 0; c < C; c += VW) {
            const floatV h = load_some(dy, at + c, C - c) * load_some_f32(gain, c, C - c);
            sum += h;
            product += h * ((load_some(x, at + c, C - c) - m) * s);
        }
        const float a = sumV(sum) / C, b = sumV(product) / C;
        for (int c = 0; c < C; c += VW) {
            const floatV h = load_some(dy, at + c, C - c) * load_some_f32(gain, c, C - c);
            const floatV xhat = (load_some(x, at + c, C - c) - m) * s;
            floatV d = s * (h - a - xhat * b);
            if (residual)
                d += load_some(residual, at + c, C - c);
            store_some(dx, at + c, d, C - c);
        }
    }
}

/* A work-item owns a slab of rows of one strip of columns. It walks whole pieces of rows, as
 * memory likes it, and keeps the running sums in its part of scratch, which stays in cache. */
KERNEL void layernorm_weight_partial(int R, int C, __global const store_t *dy,
                                     __global const store_t *x, __global const float *mean,
                                     __global const float *rstd, __global float *scratch)
{
    const int strips = (C + STRIP - 1) / STRIP, slabs = (R + SLAB - 1) / SLAB;
    const int slab = get_global_id(0) / strips, begin = get_global_id(0) % strips * STRIP;
    const int end = min(C, begin + STRIP), last = min(R, (slab + 1) * SLAB);
    __global float *to_gain = scratch + (size_t)slab * C;
    __global float *to_bias = scratch + (size_t)(slabs + slab) * C;

    for (int r = slab * SLAB; r < last; r += 4) {
        const int rows = min(4, last - r);
        for (int c = begin; c < end; c += VW) {
            const int count = end - c;
            floatV g[4], b[4];
            for (int j = 0; j < 4; j++) {
                const size_t at = (size_t)(r + j) * C + c;
                b[j] = j < rows ? load_some(dy, at, count) : (floatV)0.0f;
                g[j] = j < rows ? b[j] * ((load_some(x, at, count) - mean[r + j]) * rstd[r + j])
                                : (floatV)0.0f;
            }
            floatV gain = (g[0] + g[1]) + (g[2] + g[3]), bias = (b[0] + b[1]) + (b[2] + b[3]);
            if (r > slab * SLAB) {
                gain += load_some_f32(to_gain, c, count);
                bias += load_some_f32(to_bias, c, count);
            }
            store_some_f32(to_gain, c, gain, count);
            store_some_f32(to_bias, c, bias, count);
        }
    }
}

KERNEL void rmsnorm(int per, int R, int C, float eps, float offset, __global const store_t *x,
                    __global const float *gain, __global store_t *y, __global float *rstd)
{
    const int first = get_global_id(0) * per, last = min(R, first + per);
    for (int r = first; r < last; r++) {
        const size_t at = (size_t)r * C;
        floatV square = 0.0f;
        for (int c = 0; c < C; c += VW) {
            const floatV v = load_some(x, at + c, C - c);
            square += v * v;
        }
        const float s = 1.0f / sqrt(sumV(square) / C + eps);
        for (int c = 0; c < C; c += VW)
            store_some(y, at + c, load_some(x, at + c, C - c) * s * (load_some_f32(gain, c, C - c) + offset), C - c);
        if (rstd)
            rstd[r] = s;
    }
}

KERNEL void rmsnorm_input_grad(int per, int R, int C, float offset, __global const store_t *dy,
                               __global const store_t *x, __global const float *gain,
                               __global const float *rstd, __global const store_t *residual,
                               __global store_t *dx)
{
    const int first = get_global_id(0) * per, last = min(R, first + per);
    for (int r = first; r < last; r++) {
        const size_t at = (size_t)r * C;
        const float s = rstd[r];
        floatV product = 0.0f;
        for (int c = 0; c < C; c += VW)         /* past the end dy and x are 0 */
            product += load_some(dy, at + c, C - c) * (load_some_f32(gain, c, C - c) + offset)
                       * (load_some(x, at + c, C - c) * s);
        const float b = sumV(product) / C;
        for (int c = 0; c < C; c += VW) {
            const floatV h = load_some(dy, at + c, C - c) * (load_some_f32(gain, c, C - c) + offset);
            floatV d = s * (h - load_some(x, at + c, C - c) * s * b);
            if (residual)
                d += load_some(residual, at + c, C - c);
            store_some(dx, at + c, d, C - c);
        }
    }
}

KERNEL void rmsnorm_weight_partial(int R, int C, __global const store_t *dy,
                                   __global const store_t *x, __global const float *rstd,
                                   __global float *scratch)
{
    const int strips = (C + STRIP - 1) / STRIP;
    const int slab = get_global_id(0) / strips, begin = get_global_id(0) % strips * STRIP;
    const int end = min(C, begin + STRIP), last = min(R, (slab + 1) * SLAB);
    __global float *to = scratch + (size_t)slab * C;

    for (int r = slab * SLAB; r < last; r += 4) {
        const int rows = min(4, last - r);
        for (int c = begin; c < end; c += VW) {
            const int count = end - c;
            floatV g[4];
            for (int j = 0; j < 4; j++) {
                const size_t at = (size_t)(r + j) * C + c;
                g[j] = j < rows ? load_some(dy, at, count) * (load_some(x, at, count) * rstd[r + j])
                                : (floatV)0.0f;
            }
            floatV gain = (g[0] + g[1]) + (g[2] + g[3]);
            if (r > slab * SLAB)
                gain += load_some_f32(to, c, count);
            store_some_f32(to, c, gain, count);
        }
    }
}

KERNEL void bias_partial(int R, int C, __global const store_t *dy, __global float *scratch)
{
    const int strips = (C + STRIP - 1) / STRIP;
    const int slab = get_global_id(0) / strips, begin = get_global_id(0) % strips * STRIP;
    const int end = min(C, begin + STRIP), last = min(R, (slab + 1) * SLAB);
    __global float *to = scratch + (size_t)slab * C;

    for (int r = slab * SLAB; r < last; r += 4) {
        const int rows = min(4, last - r);
        for (int c = begin; c < end; c += VW) {
            const int count = end - c;
            floatV b[4];
            for (int j = 0; j < 4; j++)
                b[j] = j < rows ? load_some(dy, (size_t)(r + j) * C + c, count) : (floatV)0.0f;
            floatV sum = (b[0] + b[1]) + (b[2] + b[3]);
            if (r > slab * SLAB)
                sum += load_some_f32(to, c, count);
            store_some_f32(to, c, sum, count);
        }
    }
}

/* out0 or out1 (+)= sum over slabs of its part of scratch, for FINISH columns. */
KERNEL void column_finish(int C, int slabs, __global const float *scratch, __global float *out0,
                          __global float *out1, int add)
{
    const int blocks = (C + FINISH - 1) / FINISH, part = get_global_id(0) / blocks;
    const int begin = get_global_id(0) % blocks * FINISH, end = min(C, begin + FINISH);
    __global float *out = part ? out1 : out0;
    for (int c = begin; c < end; c += VW) {
        const int count = end - c;
        floatV sum[2] = { 0.0f, 0.0f };
        for (int slab = 0; slab < slabs; slab++)
            sum[slab & 1] += load_some_f32(scratch, ((size_t)part * slabs + slab) * C + c, count);
        floatV total = sum[0] + sum[1];
        if (add)
            total += load_some_f32(out, c, count);
        store_some_f32(out, c, total, count);
    }
}

#else

KERNEL void layernorm(int per, int R, int C, float eps, __global const store_t *x,
                      __global const float *gain, __global const float *bias, __global store_t *y,
                      __global float *mean, __global float *rstd)
{
    __local float tmp[WG];
    const int r = get_group_id(0);
    float sum = 0.0f, square = 0.0f;

    for (int t = 0; t < C; t += TILE)
        sum += sumV(tile_load(x, r, t, C));
    const float m = group_sum(sum, tmp) / C;
    for (int t = 0; t < C; t += TILE) {
        const float4 d = (tile_load(x, r, t, C) - m) * tile_mask(t, C);
        square += sumV(d * d);
    }
    const float s = 1.0f / sqrt(group_sum(square, tmp) / C + eps);
    for (int t = 0; t < C; t += TILE) {
        const float4 xhat = (tile_load(x, r, t, C) - m) * s;
        tile_store(y, r, t, C, xhat * tile_load_f32(gain, 0, t, C) + tile_load_f32(bias, 0, t, C));
    }
    if (mean && get_local_id(0) == 0) {
        mean[r] = m;
        rstd[r] = s;
    }
}

KERNEL void layernorm_input_grad(int per, int R, int C, __global const store_t *dy,
                                 __global const store_t *x, __global const float *gain,
                                 __global const float *mean, __global const float *rstd,
                                 __global const store_t *residual, __global store_t *dx)
{
    __local float tmp[WG];
    const int r = get_group_id(0);
    const float m = mean[r], s = rstd[r];
    float sum = 0.0f, product = 0.0f;

    for (int t = 0; t < C; t += TILE) {
        const float4 h = tile_load(dy, r, t, C) * tile_load_f32(gain, 0, t, C);
        sum += sumV(h);
        product += sumV(h * ((tile_load(x, r, t, C) - m) * s));
    }
    const float a = group_sum(sum, tmp) / C, b = group_sum(product, tmp) / C;
    for (int t = 0; t < C; t += TILE) {
        const float4 h = tile_load(dy, r, t, C) * tile_load_f32(gain, 0, t, C);
        const float4 xhat = (tile_load(x, r, t, C) - m) * s;
        float4 d = s * (h - a - xhat * b);
        if (residual)
            d += tile_load(residual, r, t, C);
        tile_store(dx, r, t, C, d);
    }
}

/* A work-group owns a slab of WG columns; a work-item one column, so that neighbours read
 * neighbours. */
KERNEL void layernorm_weight_partial(int R, int C, __global const store_t *dy,
                                     __global const store_t *x, __global const float *mean,
                                     __global const float *rstd, __global float *scratch)
{
    const int strips = (C + WG - 1) / WG, slabs = (R + SLAB - 1) / SLAB;
    const int slab = get_group_id(0) / strips;
    const int c = get_group_id(0) % strips * WG + get_local_id(0);
    const int last = min(R, (slab + 1) * SLAB);
    float gain = 0.0f, bias = 0.0f;

    if (c >= C)
        return;
    for (int r = slab * SLAB; r < last; r += 4) {
        float g[4], b[4];
        for (int j = 0; j < 4; j++) {
            const size_t at = (size_t)(r + j) * C + c;
            b[j] = r + j < last ? load1(dy, at) : 0.0f;
            g[j] = r + j < last ? b[j] * ((load1(x, at) - mean[r + j]) * rstd[r + j]) : 0.0f;
        }
        gain += (g[0] + g[1]) + (g[2] + g[3]);
        bias += (b[0] + b[1]) + (b[2] + b[3]);
    }
    scratch[(size_t)slab * C + c] = gain;
    scratch[(size_t)(slabs + slab) * C + c] = bias;
}

KERNEL void rmsnorm(int per, int R, int C, float eps, float offset, __global const store_t *x,
                    __global const float *gain, __global store_t *y, __global float *rstd)
{
    __local float tmp[WG];
    const int r = get_group_id(0);
    float square = 0.0f;

    for (int t = 0; t < C; t += TILE) {
        const float4 v = tile_load(x, r, t, C);
        square += sumV(v * v);
    }
    const float s = 1.0f / sqrt(group_sum(square, tmp) / C + eps);
    for (int t = 0; t < C; t += TILE)
        tile_store(y, r, t, C, tile_load(x, r, t, C) * s * (tile_load_f32(gain, 0, t, C) + offset));
    if (rstd && get_local_id(0) == 0)
        rstd[r] = s;
}

KERNEL void rmsnorm_input_grad(int per, int R, int C, float offset, __global const store_t *dy,
                               __global const store_t *x, __global const float *gain,
                               __global const float *rstd, __global const store_t *residual,
                               __global store_t *dx)
{
    __local float tmp[WG];
    const int r = get_group_id(0);
    const float s = rstd[r];
    float product = 0.0f;

    for (int t = 0; t < C; t += TILE)
        product += sumV(tile_load(dy, r, t, C) * (tile_load_f32(gain, 0, t, C) + offset)
                        * (tile_load(x, r, t, C) * s));
    const float b = group_sum(product, tmp) / C;
    for (int t = 0; t < C; t += TILE) {
        const float4 h = tile_load(dy, r, t, C) * (tile_load_f32(gain, 0, t, C) + offset);
        float4 d = s * (h - tile_load(x, r, t, C) * s * b);
        if (residual)
            d += tile_load(residual, r, t, C);
        tile_store(dx, r, t, C, d);
    }
}

KERNEL void rmsnorm_weight_partial(int R, int C, __global const store_t *dy,
                                   __global const store_t *x, __global const float *rstd,
                                   __global float *scratch)
{
    const int strips = (C + WG - 1) / WG, slab = get_group_id(0) / strips;
    const int c = get_group_id(0) % strips * WG + get_local_id(0);
    const int last = min(R, (slab + 1) * SLAB);
    float gain = 0.0f;

    if (c >= C)
        return;
    for (int r = slab * SLAB; r < last; r += 4) {
        float g[4];
        for (int j = 0; j < 4; j++) {
            const size_t at = (size_t)(r + j) * C + c;
            g[j] = r + j < last ? load1(dy, at) * (load1(x, at) * rstd[r + j]) : 0.0f;
        }
        gain += (g[0] + g[1]) + (g[2] + g[3]);
    }
    scratch[(size_t)slab * C + c] = gain;
}

KERNEL void bias_partial(int R, int C, __global const store_t *dy, __global float *scratch)
{
    const int strips = (C + WG - 1) / WG, slab = get_group_id(0) / strips;
    const int c = get_group_id(0) % strips * WG + get_local_id(0);
    const int last = min(R, (slab + 1) * SLAB);
    float bias = 0.0f;

    if (c >= C)
        return;
    for (int r = slab * SLAB; r < last; r += 4) {
        float b[4];
        for (int j = 0; j < 4; j++)
            b[j] = r + j < last ? load1(dy, (size_t)(r + j) * C + c) : 0.0f;
        bias += (b[0] + b[1]) + (b[2] + b[3]);
    }
    scratch[(size_t)slab * C + c] = bias;
}

/* A work-group owns FINISH columns; WG / FINISH work-items share each, one every so many
 * slabs, and meet in local memory. */
#define FINISH (WG < 32 ? WG : 32)
#define SHARE (WG / FINISH)

KERNEL void column_finish(int C, int slabs, __global const float *scratch, __global float *out0,
                          __global float *out1, int add)
{
    __local float tmp[WG];
    const int blocks = (C + FINISH - 1) / FINISH, part = get_group_id(0) / blocks;
    const int me = get_local_id(0), c = get_group_id(0) % blocks * FINISH + me % FINISH;
    __global float *out = part ? out1 : out0;
    float sum = 0.0f;

    if (c < C)
        for (int slab = me / FINISH; slab < slabs; slab += SHARE)
            sum += scratch[((size_t)part * slabs + slab) * C + c];
    tmp[me] = sum;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int reach = WG / 2; reach >= FINISH; reach >>= 1) {
        if (me < reach)
            tmp[me] += tmp[me + reach];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (me < FINISH && c < C)
        out[c] = add ? out[c] + tmp[me] : tmp[me];
}

#endif
