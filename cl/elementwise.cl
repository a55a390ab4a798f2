/* SPDX-License-Identifier: MIT */
/* cl/elementwise.cl - formulas an element: activations, dropout, sums, casts.
 *
 * Tensors are flat, n elements of the storage type. Kernels own `block` elements a work-item
 * (cl/common.clh). y may be x, dx may be dy or x. The host may set ACT, see activation.clh. */
#include "common.clh"
#include "random.clh"
#include "activation.clh"

KERNEL void activation(ulong n, uint block, __global const store_t *x, __global store_t *y)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        store_some(y, i, ACT(load_some(x, i, count)), count);
    }
}

KERNEL void activation_grad(ulong n, uint block, __global const store_t *dy,
                            __global const store_t *x, __global store_t *dx)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        const floatV slope = ACT_SLOPE(load_some(x, i, count));
        store_some(dx, i, load_some(dy, i, count) * slope, count);
    }
}

KERNEL void gated(ulong n, uint block, __global const store_t *gate, __global const store_t *up,
                  __global store_t *y)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        store_some(y, i, ACT(load_some(gate, i, count)) * load_some(up, i, count), count);
    }
}

KERNEL void gated_grad(ulong n, uint block, __global const store_t *dy, __global const store_t *gate,
                       __global const store_t *up, __global store_t *dgate, __global store_t *dup)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        const floatV d = load_some(dy, i, count), x = load_some(gate, i, count);
        store_some(dgate, i, d * load_some(up, i, count) * ACT_SLOPE(x), count);
        store_some(dup, i, d * ACT(x), count);
    }
}

KERNEL void times(ulong n, uint block, float a, __global const store_t *x, __global store_t *y)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        store_some(y, i, a * load_some(x, i, count), count);
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

#ifdef STYLE_CPU

KERNEL void dropout(ulong n, uint block, __global const store_t *x, __global store_t *y,
                    __global const uint *random, uint stream, uint limit, float factor,
                    ulong sequence, ulong before)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    const ulong from = random_first(random, sequence) + before;
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

#else

KERNEL void dropout(ulong n, uint block, __global const store_t *x, __global store_t *y,
                    __global const uint *random, uint stream, uint limit, float factor,
                    ulong sequence, ulong before)
{
    const ulong i = get_global_id(0) * (ulong)block;
    if (i >= n)
        return;
    const int count = (int)min((ulong)VW, n - i);
    const uint4 word = random_words4(random, stream, random_first(random, sequence) + before + i);
    store_some(y, i, random_keep(load_some(x, i, count), word, limit, factor), count);
}

#endif
