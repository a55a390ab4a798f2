/* SPDX-License-Identifier: MIT */
/* cl/stages.cl - what pipeline stages send each other in 16 bits a value, and what rounding of any kind did to it.
 *
 * scaled   blocks of BLOCK values in storage type, each divided by the power of two that brings its largest magnitude
 *          into [2^14, 2^15): fp16 neither overflows then, nor loses what is not 2^28 times smaller than the
 *          largest. A value that is not finite makes its block NaN.
 *          code: store_t [blocks * BLOCK] | fp32 powers of two [blocks]
 * error    of y against x: the largest |y - x| against |x|, or against the largest |x| of its block; and the sums of
 *          (y - x)^2 and x^2, times 2^24 so that squares of small gradients are there. Added to what is there, one
 *          slot of three a work-item (CPU) or work-group (GPU), which owns `per` blocks.
 *
 * x, y: fp32, n values. Flat kernels own `block` values a work-item. Blocks: CPU: a work-item owns `per` of them;
 * GPU: 32 work-items share one.
 * Nothing but the macros of cl/common.clh is set by the host.                             */
#include "common.clh"
#include "block.clh"

#define LEAST 0x1p-118f         /* of a magnitude that errors are held against: bf16 ends a little lower */
#define UNIT 0x1p12f

/* most: the largest magnitude's bits. */
static float power_of(uint most)
{
    return most >= 0x7f800000u ? NAN : as_float((uint)max((int)(most >> 23) - 14, 1) << 23);
}

/* Of values without an error: 0. */
static floatV ratio_of(floatV error, floatV against)
{
    return select(error / against, (floatV)0.0f, against < LEAST);
}

static floatV square(floatV x)
{
    return x * UNIT * (x * UNIT);
}

#ifdef STYLE_CPU

KERNEL void scaled_store(int per, ulong n, uint blocks, __global const float *x, __global store_t *code)
{
    __global float *powers = (__global float *)(code + (size_t)blocks * BLOCK);
    const uint first = get_global_id(0) * per, last = min(blocks, first + per);
    for (uint b = first; b < last; b++) {
        const size_t begin = (size_t)b * BLOCK;
        const int count = (int)min((ulong)BLOCK, n - begin);
        const float power = power_of(most_of(x, begin, count));
        powers[b] = power;
        for (int i = 0; i < BLOCK; i += VW) {
            const floatV v = i < count ? load_some_f32(x, begin + i, count - i) : (floatV)0.0f;
            storeV(code, begin + i, v * (1.0f / power));
        }
    }
}

KERNEL void stage_error(int per, ulong n, uint blocks, int own, __global const float *x, __global const float *y,
                        __global float *sums)
{
    const uint slot = get_global_id(0), first = slot * per, last = min(blocks, first + per);
    floatV most = 0.0f, errors = 0.0f, values = 0.0f;
    for (uint b = first; b < last; b++) {
        const size_t begin = (size_t)b * BLOCK;
        const int count = (int)min((ulong)BLOCK, n - begin);
        const float largest = own ? 0.0f : as_float(most_of(x, begin, count));
        for (int i = 0; i < count; i += VW) {
            const floatV v = load_some_f32(x, begin + i, count - i);
            const floatV e = fabs(load_some_f32(y, begin + i, count - i) - v);
            most = fmax(most, ratio_of(e, own ? fabs(v) : (floatV)largest));
            errors += square(e);
            values += square(v);
        }
    }
    sums[3 * slot] = fmax(sums[3 * slot], maxV(most));
    sums[3 * slot + 1] += sumV(errors);
    sums[3 * slot + 2] += sumV(values);
}

#else

static float4 load_lane(__global const float *x, size_t at, ulong n, int inside)
{
    return inside && at < n ? load_some_f32(x, at, (int)min((ulong)4, n - at)) : (float4)0.0f;
}

KERNEL void scaled_store(int per, ulong n, uint blocks, __global const float *x, __global store_t *code)
{
    __local uint tmp[WG];
    __global float *powers = (__global float *)(code + (size_t)blocks * BLOCK);
    const uint me = get_local_id(0), lane = me % 32, b = get_group_id(0) * (WG / 32) + me / 32;
    const size_t at = (size_t)b * BLOCK + 4 * lane;
    const float4 v = load_lane(x, at, n, b < blocks);
    const float power = power_of(most_of(v, tmp));
    if (b >= blocks)
        return;
    if (lane == 0)
        powers[b] = power;
    storeV(code, at, v * (1.0f / power));
}

KERNEL void stage_error(int per, ulong n, uint blocks, int own, __global const float *x, __global const float *y,
                        __global float *sums)
{
    __local uint bits[WG];
    __local float tmp[WG];
    const uint me = get_local_id(0), lane = me % 32, slot = get_group_id(0);
    const uint first = slot * per, last = min(blocks, first + per);
    float4 most = 0.0f, errors = 0.0f, values = 0.0f;
    for (uint start = first; start < last; start += WG / 32) {
        const uint b = start + me / 32;
        const size_t at = (size_t)b * BLOCK + 4 * lane;
        const float4 v = load_lane(x, at, n, b < last), e = fabs(load_lane(y, at, n, b < last) - v);
        const float largest = as_float(most_of(v, bits));
        most = fmax(most, ratio_of(e, own ? fabs(v) : (float4)largest));
        errors += square(e);
        values += square(v);
    }
    const float all = group_max(maxV(most), tmp), error = group_sum(sumV(errors), tmp);
    const float value = group_sum(sumV(values), tmp);
    if (me == 0) {
        sums[3 * slot] = fmax(sums[3 * slot], all);
        sums[3 * slot + 1] += error;
        sums[3 * slot + 2] += value;
    }
}

#endif

KERNEL void scaled_load(ulong n, uint block, uint blocks, __global const store_t *code, __global float *to)
{
    __global const float *powers = (__global const float *)(code + (size_t)blocks * BLOCK);
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    for (ulong i = begin; i < end; i += VW) {       /* blocks are whole, so all lanes are there */
        const int count = (int)min((ulong)VW, end - i);
        store_some_f32(to, i, loadV(code, i) * powers[i / BLOCK], count);
    }
}
