/* SPDX-License-Identifier: MIT */
/* cl/prove.cl - small questions with known answers: does this device compute what kernels stand on?
 *
 * host/device/prove.c asks them when a device is opened and holds the answers. A question is a
 * case of one kernel, for a driver then compiles once; out[i] answers for in[i], i < count.
 *
 * The host sets with -D the number of each question (LONG_LOOP, ...) and STORE=1. Bounds come as
 * arguments, so that no compiler can answer a question itself.                            */
#include "common.clh"

/* One turn depends on the one before, and none can be left out. */
static uint turn(uint x)
{
    return x * 1664525u + 1013904223u;
}

static uint long_loop(uint x, uint n)
{
    for (uint k = 0; k < n; k++)
        x = turn(x);
    return x;
}

static uint nested_loops(uint x, uint n, uint m)
{
    for (uint j = 0; j < n; j++) {
        for (uint k = 0; k < m; k++)
            x = turn(x);
        x ^= j;
    }
    return x;
}

/* Shifts, products of two words apart, and 64-bit indices. */
static uint whole_numbers(uint i, uint a, uint b)
{
    const ulong at = (ulong)a * b + i;
    return (uint)(at >> 32) ^ (uint)at ^ mul_hi(a, b) ^ a << (i & 15u) ^ b >> 7
           ^ (uint)((int)a >> 3);
}

/* What a loss scale, a clipped gradient and a softmax ask of NaN and of infinity. */
static uint special_values(float x)
{
    return (isfinite(x) ? 1u : 0u) | (x != x ? 2u : 0u) | (x > 1.0f ? 4u : 0u)
           | (!(x <= 1.0f) ? 8u : 0u) | (fmax(x, 0.5f) == 0.5f ? 16u : 0u);
}

static float exponential(uint i, float x)
{
    float t[VW];
    vstoreV(expV((floatV)x), 0, t);
    return t[i % VW];
}

/* Whole vectors, ragged ends, and the sum over their lanes. */
static float vectors(uint i, __global const float *x)
{
    const int count = (int)(i % (VW + 1));
    const floatV whole = loadV_f32(x, (size_t)i * 16), part = load_part_f32(x, (size_t)i * 16, count);
    return sumV(whole * 2.0f) + sumV(part) + maxV(some(whole, count));
}

KERNEL void prove(uint question, uint count, uint n, uint m, __global const uint *in,
                  __global uint *out)
{
    const uint i = (uint)get_global_id(0);
    if (i >= count)
        return;
    switch (question) {
    case LONG_LOOP:      out[i] = long_loop(in[i], n); break;
    case NESTED_LOOPS:   out[i] = nested_loops(in[i], n, m); break;
    case WORK_ITEMS:     out[i] = i * 2654435761u + (uint)get_group_id(0) + (uint)get_local_id(0); break;
    case WHOLE_NUMBERS:  out[i] = whole_numbers(i, in[i], in[count - 1 - i]); break;
    case SPECIAL_VALUES: out[i] = special_values(as_float(in[i])); break;
    case BF16:           out[i] = store_narrow(as_float(in[i])) | as_uint(store_widen((ushort)in[i])); break;
    case EXP:            out[i] = as_uint(exponential(i, as_float(in[i]))); break;
    case LOG:            out[i] = as_uint(log(fabs(as_float(in[i])))); break;
    case SQRT:           out[i] = as_uint(sqrt(fabs(as_float(in[i])))); break;
    case FMA:            out[i] = as_uint(fma(as_float(in[i]), as_float(in[i]), -1.0f)); break;
    case VECTORS:        out[i] = as_uint(vectors(i, (__global const float *)in)); break;
    }
}

#ifdef STYLE_GPU

/* Local memory and barriers: out[i] is the sum over i's work-group plus its largest. */
KERNEL void prove_groups(uint count, __global const float *in, __global float *out)
{
    __local float shared[WG];
    const uint i = (uint)get_global_id(0);
    const float x = i < count ? in[i] : 0.0f;
    const float sum = group_sum(x, shared), most = group_max(x, shared);
    if (i < count)
        out[i] = sum + most;
}

/* fp16 in memory: even elements are widened, odd ones narrowed. */
KERNEL void prove_fp16(uint count, __global const uint *in, __global uint *out)
{
    const uint i = (uint)get_global_id(0);
    if (i >= count)
        return;
    if (i & 1u) {
        ushort narrow;
        vstore_half_rte(as_float(in[i]), 0, (half *)&narrow);
        out[i] = narrow;
    } else
        out[i] = as_uint(vload_half(2 * (size_t)i, (__global const half *)in));
}

#endif
