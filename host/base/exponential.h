/* SPDX-License-Identifier: MIT */
/* host/base/exponential.h - e^x of one number in fp32, written so that loops of it vectorise. */
#ifndef GT_BASE_EXPONENTIAL_H
#define GT_BASE_EXPONENTIAL_H

#include "host/base/half.h"

/* As expV in cl/common.clh: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial in r (coefficients of Cephes' expf),
 * and n put into the exponent. Adding and subtracting 1.5 * 2^23 rounds to a whole number and leaves it in
 * the low bits as well. x is at most a rounding above 0. NaN stays. */
GT_INLINE float gt_exponential(float x)
{
    const float clamped = gt_real(gt_pick(x < -87.0f, gt_bits(-87.0f), gt_bits(x)));
    const float t = clamped * 1.44269504f + 12582912.0f;
    const float n = t - 12582912.0f;
    const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + (r + 1.0f);
    return p * gt_real((gt_bits(t) + 126u) << 23) * 2.0f;
}

#endif
