/* SPDX-License-Identifier: MIT */
/* cl/peak.cl - what a device can do at most: the ceilings that other numbers are held against.
 *
 *   peak_fma    chains of fused multiply-adds in registers. A chain's next step waits for
 *               its last, so CHAINS of them run side by side: more than latency times width
 *               of any arithmetic unit. 2 * VW * CHAINS * rounds flops a work-item.
 *   peak_copy   to = from, `block` vectors of VW floats a work-item.
 *
 * The host sets with -D: nothing; see common.clh for VW.                                 */
#include "common.clh"

#define CHAINS 12

KERNEL void peak_fma(__global float *out, int rounds, float a, float b)
{
    floatV x[CHAINS];
#pragma unroll
    for (int i = 0; i < CHAINS; i++)
        x[i] = (floatV)(a + (float)i + (float)get_global_id(0));
    for (int r = 0; r < rounds; r++)
#pragma unroll
        for (int i = 0; i < CHAINS; i++)
            x[i] = fma(x[i], (floatV)a, (floatV)b);
    floatV sum = 0.0f;
#pragma unroll
    for (int i = 0; i < CHAINS; i++)
        sum += x[i];
    vstoreV(sum, get_global_id(0), out);        /* or nothing would be computed */
}

KERNEL void peak_copy(__global const float *from, __global float *to, int block, int vectors)
{
#ifdef STYLE_CPU
    const size_t first = get_global_id(0) * (size_t)block, step = 1;
#else
    const size_t first = get_global_id(0), step = get_global_size(0);
#endif
    for (int j = 0; j < block; j++) {
        const size_t i = first + j * step;
        if (i < (size_t)vectors)
            vstoreV(vloadV(i, from), i, to);
    }
}
