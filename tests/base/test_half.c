/* SPDX-License-Identifier: MIT */
/* tests/base/test_half.c - numbers of 16 bits against their definition, in double. */
#include "tests/check.h"

#include "host/base/half.h"

#include <math.h>

/* x >= 0 to the nearest number of so many mantissa bits, even at a tie, and as its bits: units of the last place
 * counted from the least exponent on, so that a carry moves into the exponent by itself. */
static uint32_t nearest(double x, int mantissa, int least)
{
    const int own = x > 0.0 ? ilogb(x) : least, exponent = own > least ? own : least;
    return ((uint32_t)(exponent - least) << mantissa) + (uint32_t)nearbyint(ldexp(x, mantissa - exponent));
}

static uint16_t as_f16(float x)
{
    const uint16_t sign = signbit(x) ? 0x8000u : 0;
    if (isnan(x))
        return sign | 0x7e00u;
    return (uint16_t)(sign | (fabsf(x) >= 65520.0f ? 0x7c00u : nearest(fabs((double)x), 10, -14)));
}

static uint16_t as_bf16(float x)
{
    const uint16_t sign = signbit(x) ? 0x8000u : 0;
    return (uint16_t)(sign | (isinf(x) ? 0x7f80u : nearest(fabs((double)x), 7, -126)));
}

static double of(uint16_t bits, int mantissa, int least)
{
    const uint32_t rest = bits & 0x7fffu, field = rest >> mantissa, low = rest & ((1u << mantissa) - 1u);
    const double n = (double)low + (field ? ldexp(1.0, mantissa) : 0.0);
    const double x = ldexp(n, least - mantissa + (field ? (int)field - 1 : 0));
    return bits & 0x8000u ? -x : x;
}

static void look(float x)
{
    CHECKF(gt_to_f16(x) == as_f16(x), "%a gives %#x as fp16, wanted %#x", (double)x, gt_to_f16(x), as_f16(x));
    if (!isnan(x))
        CHECKF(gt_to_bf16(x) == as_bf16(x), "%a gives %#x as bf16, wanted %#x", (double)x, gt_to_bf16(x), as_bf16(x));
    else
        CHECK(isnan(gt_from_bf16(gt_to_bf16(x))));
}

static void every_number_of_16_bits_reads_as_it_is_defined(void)
{
    int wrong = 0;
    for (uint32_t bits = 0; bits < 0x10000u; bits++) {
        const uint16_t h = (uint16_t)bits;
        const float half = gt_from_f16(h), brain = gt_from_bf16(h);
        if ((h & 0x7c00u) == 0x7c00u)
            wrong += h & 0x3ffu ? !isnan(half) : !isinf(half) || (half < 0.0f) != h >> 15;
        else
            wrong += (double)half != of(h, 10, -14) || !signbit(half) != !signbit(of(h, 10, -14))
                     || gt_to_f16(half) != h;
        if ((h & 0x7f80u) == 0x7f80u)
            wrong += h & 0x7fu ? !isnan(brain) : !isinf(brain) || (brain < 0.0f) != h >> 15;
        else
            wrong += (double)brain != of(h, 7, -126) || gt_to_bf16(brain) != h;
    }
    CHECKF(!wrong, "%d of them read as something else", wrong);
}

static void rounding_is_to_nearest_and_even(void)
{
    for (uint32_t bits = 0; bits < 0x7c00u; bits += 7) {        /* ties, and their neighbours */
        const float low = gt_from_f16((uint16_t)bits),
                    high = bits == 0x7bffu ? 65536.0f : gt_from_f16((uint16_t)(bits + 1));
        const float tie = low + (high - low) / 2.0f;
        look(tie);
        look(-tie);
        look(nextafterf(tie, INFINITY));
        look(nextafterf(tie, 0.0f));
    }
    for (uint64_t u = 0; u < UINT64_C(1) << 32; u += 65537 * 3)     /* all exponents, NaN too */
        look(gt_real((uint32_t)u));
    look(65504.0f);
    look(65519.99f);
    look(65520.0f);
    look(3.4e38f);
    look(-INFINITY);
}

const check_case check_cases[] = {
    CASE(every_number_of_16_bits_reads_as_it_is_defined), CASE(rounding_is_to_nearest_and_even), { 0 }
};
