/* SPDX-License-Identifier: MIT */
/* cl/elementwise.cl - formulas an element: GELU, bias and activation, dropout, sums, casts.
 *
 *   gelu(x)  = x/2 (1 + tanh u) = x / (1 + e^-2u),   u = sqrt(2/pi) (x + 0.044715 x^3)
 *   gelu'(x) = s + x s (1 - s) 2 u',                  s = 1 / (1 + e^-2u)
 *
 * The quotient needs one exp instead of a tanh, and loses no digits where tanh is near -1.
 * Tensors are flat, n elements of the storage type; bias_act's are rows (R,C). Flat kernels
 * own `block` elements a work-item (cl/common.clh). In bias_act a CPU work-item owns `per`
 * rows, a GPU work-item up to four columns of a row. y may be x, dx may be dy or x.
 * Nothing but the macros of cl/common.clh is set by the host.                             */
#include "common.clh"
#include "random.clh"

#define GELU_1 0.797884561f             /* sqrt(2/pi) */
#define GELU_3 0.0356774081f            /* sqrt(2/pi) * 0.044715 */

static floatV geluV(floatV x)
{
    return x / (1.0f + expV(x * (-2.0f * GELU_1 - 2.0f * GELU_3 * (x * x))));
}

/* Beyond +-10 the derivative is 0 or 1 to the last bit, and the exp would overflow. */
static floatV gelu_slopeV(floatV x)
{
    const floatV low = -10.0f, high = 10.0f;
    x = select(x, low, x < low);
    x = select(x, high, x > high);
    const floatV square = x * x;
    const floatV e = expV(x * (-2.0f * GELU_1 - 2.0f * GELU_3 * square));
    const floatV s = 1.0f / (1.0f + e);
    return s + x * s * (e * s) * (2.0f * GELU_1 + 6.0f * GELU_3 * square);
}

KERNEL void gelu(ulong n, uint block, __global const store_t *x, __global store_t *y)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        store_some(y, i, geluV(load_some(x, i, count)), count);
    }
}

KERNEL void gelu_grad(ulong n, uint block, __global const store_t *dy, __global const store_t *x,
                      __global store_t *dx)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        const floatV slope = gelu_slopeV(load_some(x, i, count));
        store_some(dx, i, load_some(dy, i, count) * slope, count);
    }
}

KERNEL void add(ulong n, uint block, __global const store_t *a, __global const store_t *b,
                __global store_t *y)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        store_some(y, i, load_some(a, i, count) + load_some(b, i, count), count);
    }
}

/* fp32 to the storage type, and back. */
KERNEL void narrow(ulong n, uint block, __global const float *x, __global store_t *y)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        store_some(y, i, load_some_f32(x, i, count), count);
    }
}

KERNEL void widen(ulong n, uint block, __global const store_t *x, __global float *y)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        store_some_f32(y, i, load_some(x, i, count), count);
    }
}

/* y = a x + b y, fp32. */
KERNEL void combine(ulong n, uint block, float a, __global const float *x, float b, __global float *y)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        store_some_f32(y, i, a * load_some_f32(x, i, count) + b * load_some_f32(y, i, count), count);
    }
}

/* What bias_act does to VW elements after the bias; `word` holds their random words. */
static floatV bias_act_formula(floatV x, floatV residual, uintV word, uint limit, float factor,
                               int act)
{
    if (act)
        x = geluV(x);
    if (limit)
        x = random_keep(x, word, limit, factor);
    return x + residual;
}

#ifdef STYLE_CPU

KERNEL void dropout(ulong n, uint block, __global const store_t *x, __global store_t *y,
                    __global const uint *random, uint stream, uint limit, float factor,
                    ulong sequence)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    const ulong from = random_first(random, sequence);
    for (ulong i = begin; i < end; i += RANDOM_BATCH) {
        uint room[2 * RANDOM_BATCH];
        const uint *words = random_batch_at(room, random, stream, from + i);
        for (int j = 0; j < RANDOM_BATCH && i + j < end; j += VW) {
            const int count = (int)min((ulong)VW, end - i - j);
            const floatV v = load_some(x, i + j, count);
            store_some(y, i + j, random_keep(v, vloadV(0, words + j), limit, factor), count);
        }
    }
}

KERNEL void bias_act(int per, int R, int C, __global store_t *y, __global const float *bias,
                     __global store_t *pre, __global const store_t *residual,
                     __global const uint *random, uint stream, uint limit, float factor,
                     ulong sequence)
{
    const int first = get_global_id(0) * per, last = min(R, first + per);
    const ulong from = limit ? random_first(random, sequence) : 0;
    uint room[2 * RANDOM_BATCH];

    for (int r = first; r < last; r++)
        for (int c = 0; c < C; c += RANDOM_BATCH) {
            const ulong i = (ulong)r * C + c;
            const uint *words = room;
            if (limit)
                words = random_batch_at(room, random, stream, from + i);
            for (int j = 0; j < RANDOM_BATCH && c + j < C; j += VW) {
                const int count = min(VW, C - c - j);
                floatV x = load_some(y, i + j, count), rest = 0.0f;
                uintV word = 0;
                if (bias)
                    x += load_some_f32(bias, c + j, count);
                if (pre)
                    store_some(pre, i + j, x, count);
                if (limit)
                    word = vloadV(0, words + j);
                if (residual)
                    rest = load_some(residual, i + j, count);
                x = bias_act_formula(x, rest, word, limit, factor, pre != 0);
                store_some(y, i + j, x, count);
            }
        }
}

#else

KERNEL void dropout(ulong n, uint block, __global const store_t *x, __global store_t *y,
                    __global const uint *random, uint stream, uint limit, float factor,
                    ulong sequence)
{
    const ulong i = get_global_id(0) * (ulong)block;
    if (i >= n)
        return;
    const int count = (int)min((ulong)VW, n - i);
    const uint4 word = random_words4(random, stream, random_first(random, sequence) + i);
    store_some(y, i, random_keep(load_some(x, i, count), word, limit, factor), count);
}

/* Unless C is a multiple of 4 rows do not begin where vector loads may. */
KERNEL void bias_act(int per, int R, int C, __global store_t *y, __global const float *bias,
                     __global store_t *pre, __global const store_t *residual,
                     __global const uint *random, uint stream, uint limit, float factor,
                     ulong sequence)
{
    const uint quads = ((uint)C + 3u) / 4u, r = get_global_id(0) / quads;
    if (r >= (uint)R)
        return;
    const int c = (int)(get_global_id(0) % quads) * 4;
    const int count = min(4, C - c);
    const int whole = (C & 3) == 0;
    const ulong i = (ulong)r * C + c;

    float4 x = whole ? loadV(y, i) : load_part(y, i, count), rest = 0.0f;
    uint4 word = 0;
    if (bias)
        x += whole ? loadV_f32(bias, c) : load_part_f32(bias, c, count);
    if (pre && whole)
        storeV(pre, i, x);
    else if (pre)
        store_part(pre, i, x, count);
    if (limit)
        word = random_words4(random, stream, random_first(random, sequence) + i);
    if (residual)
        rest = whole ? loadV(residual, i) : load_part(residual, i, count);
    x = bias_act_formula(x, rest, word, limit, factor, pre != 0);
    if (whole)
        storeV(y, i, x);
    else
        store_part(y, i, x, count);
}

#endif
