/* SPDX-License-Identifier: MIT */
/* host/base/half.h - numbers of 16 bits as fp32 and back, one at a time, written so that loops of them vectorise.
 *
 * Half precision without a half type: the exponent is moved by an exact multiplication with a
 * power of two, which takes care of subnormals, and rounding is left to one float addition
 * of a power of two whose last mantissa bit weighs what the half's does (the method of
 * Maratyszcza's FP16 library, branches made into selects so that it vectorises). Rounding is to nearest even,
 * overflow gives infinity, NaN stays NaN.                                                */
#ifndef GT_BASE_HALF_H
#define GT_BASE_HALF_H

#include <stdint.h>
#include <string.h>

#define GT_INLINE static inline __attribute__((always_inline))

GT_INLINE uint32_t gt_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

GT_INLINE float gt_real(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* yes where the condition holds, else no. With ?: compilers move a float operation into a branch,
 * and then cannot vectorise, because it might trap. */
GT_INLINE uint32_t gt_pick(int condition, uint32_t yes, uint32_t no)
{
    const uint32_t mask = 0u - (uint32_t)condition;
    return (yes & mask) | (no & ~mask);
}

GT_INLINE float gt_from_bf16(uint16_t h)
{
    return gt_real((uint32_t)h << 16);
}

GT_INLINE uint16_t gt_to_bf16(float x)
{
    const uint32_t u = gt_bits(x), rounded = u + 0x7fffu + (u >> 16 & 1u);
    const uint32_t quiet = u | 0x400000u;                   /* a NaN stays one */
    return (uint16_t)(gt_pick((u & 0x7fffffffu) > 0x7f800000u, quiet, rounded) >> 16);
}

GT_INLINE float gt_from_f16(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = (uint32_t)(h & 0x7fffu) << 13;
    const uint32_t finite = gt_bits(gt_real(rest) * 0x1p112f);
    return gt_real(sign | gt_pick(rest >= 0x0f800000u, rest | 0x7f800000u, finite));
}

GT_INLINE uint16_t gt_to_f16(float x)
{
    const uint32_t u = gt_bits(x), sign = u >> 16 & 0x8000u, rest = u & 0x7fffffffu;
    /* A float of this power of two has its last bit where x as a half has its own. */
    const uint32_t floor = gt_pick(rest < 0x38800000u, 0x38800000u, rest & 0x7f800000u);
    const uint32_t power = floor + (13u << 23);
    /* Clamped: far above half's range the sum is not used, and must not become NaN. */
    const float magic = gt_real(gt_pick(power < 0x7f000000u, power, 0x7f000000u));
    const uint32_t sum = gt_bits(gt_real(rest) + magic) - gt_bits(magic);    /* units of the last bit */
    const uint32_t exponent = (floor - 0x38800000u) >> 13;
    const uint32_t half = exponent + sum;
    const uint32_t large = gt_pick(rest > 0x7f800000u, 0x7e00u, 0x7c00u);
    return (uint16_t)(sign | gt_pick(rest >= 0x477ff000u, large, half));
}

#endif
