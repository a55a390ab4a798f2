/* SPDX-License-Identifier: MIT */
/* host/base/random_normal.c - normal numbers, Box-Muller, many at a time.
 *
 *   words   |u k u k u k ...|   of the stream, in its order
 *   pair    radius = deviation sqrt(-2 log((u + 1) / 2^32)),   radius cos and radius sin of 2 pi k / 2^32
 *
 * Every bit is what the C library's log, cosine and sine give, for old runs begin with it. They take most
 * of a second for each ten million numbers, so quick ones stand in, which compilers turn into
 * vector instructions: they are off by less than 1e-14 of the radius, and where a float could come out
 * otherwise for that, as in one of a million pairs, the library is asked after all.        */
#include "host/base/multiversion.h"
#include "host/base/random.h"

#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { BATCH = 256 };                   /* pairs */

#define TWO_PI 6.283185307179586

INLINE double real(uint64_t u)
{
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}

INLINE uint64_t bits(double x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

/* Of 0 <= n < 2^52: there is no instruction for it in most vector units. */
INLINE double of_whole(uint64_t n)
{
    return real(n | 0x4330000000000000u) - 0x1p52;
}

/* log(x) for normal x in (0, 1], off by at most 1e-15 of it: x = 2^e (1 + f) with 1 + f around 1, and
 * log(1 + f) = 2 artanh(f / (2 + f)). */
INLINE double quick_log(double x)
{
    const uint64_t half = 0x3fe6a09e667f3bcdu;      /* sqrt(1/2) */
    const uint64_t above = bits(x) - half + ((uint64_t)64 << 52), raised = above >> 52;
    const double e = of_whole(raised) - 64.0, f = real((above & 0xfffffffffffffu) + half) - 1.0;
    const double s = f / (2.0 + f), z = s * s;
    double sum = 1.0 / 19.0;
    sum = sum * z + 1.0 / 17.0;
    sum = sum * z + 1.0 / 15.0;
    sum = sum * z + 1.0 / 13.0;
    sum = sum * z + 1.0 / 11.0;
    sum = sum * z + 1.0 / 9.0;
    sum = sum * z + 1.0 / 7.0;
    sum = sum * z + 1.0 / 5.0;
    sum = sum * z + 1.0 / 3.0;
    return e * 0.6931471805599453 + (2.0 * s + 2.0 * s * z * sum);
}

/* Cosine and sine of 2 pi k / 2^32, off by at most 1e-15: the quarter turn nearest to k, and the
 * series around it. */
INLINE void quick_cos_sin(uint64_t k, double *c, double *s)
{
    const uint64_t quarter = ((k + (1u << 29)) & 0xffffffffu) >> 30;
    const uint64_t left = (k - (quarter << 30) + (1u << 30)) & 0xffffffffu;     /* 2^30 at the quarter turn */
    const double t = (of_whole(left) - 0x1p30) * (TWO_PI * 0x1p-32);
    const double z = t * t;
    double sine = -1.0 / 1307674368000.0;
    sine = sine * z + 1.0 / 6227020800.0;
    sine = sine * z - 1.0 / 39916800.0;
    sine = sine * z + 1.0 / 362880.0;
    sine = sine * z - 1.0 / 5040.0;
    sine = sine * z + 1.0 / 120.0;
    sine = sine * z - 1.0 / 6.0;
    sine = t + t * z * sine;
    double cosine = 1.0 / 20922789888000.0;
    cosine = cosine * z - 1.0 / 87178291200.0;
    cosine = cosine * z + 1.0 / 479001600.0;
    cosine = cosine * z - 1.0 / 3628800.0;
    cosine = cosine * z + 1.0 / 40320.0;
    cosine = cosine * z - 1.0 / 720.0;
    cosine = cosine * z + 1.0 / 24.0;
    cosine = 1.0 - z * (0.5 - z * cosine);
    const uint64_t odd = 0 - (quarter & 1);
    *c = real(((bits(sine) & odd) | (bits(cosine) & ~odd)) ^ ((quarter + 1) & 2) << 62);
    *s = real(((bits(cosine) & odd) | (bits(sine) & ~odd)) ^ (quarter & 2) << 62);
}

/* The words of blocks [first, first + count) of a stream. */
GT_MULTIVERSION static void blocks(uint32_t *out, uint64_t seed, uint64_t stream, uint64_t first, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
        uint32_t c0 = (uint32_t)(first + i), c1 = (uint32_t)((first + i) >> 32);
        uint32_t c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
#pragma GCC unroll 10
        for (int round = 0; round < 10; round++) {      /* gt_philox() */
            const uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
            c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
            c1 = (uint32_t)p1;
            c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
            c3 = (uint32_t)p0;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        out[4 * i] = c0;
        out[4 * i + 1] = c1;
        out[4 * i + 2] = c2;
        out[4 * i + 3] = c3;
    }
}

/* The next n words: what is left of a block, whole blocks, and the beginning of one. */
static void words(gt_random *r, uint32_t *out, size_t n)
{
    for (; n && r->left; n--)
        *out++ = gt_random_u32(r);
    blocks(out, r->seed, r->stream, r->next, n / 4);
    r->next += n / 4;
    out += n / 4 * 4;
    for (n %= 4; n; n--)
        *out++ = gt_random_u32(r);
}

/* Pairs without the mean. Returns 0 if all floats are as the C library gives them, 1 if one may not be. */
GT_MULTIVERSION static uint64_t quick_pairs(float *out, const uint32_t *word, size_t pairs, double deviation)
{
    uint64_t unsettled = 0;
    for (size_t i = 0; i < pairs; i++) {
        double c, s;
        const double radius = sqrt(-2.0 * quick_log((of_whole(word[2 * i]) + 1.0) * 0x1p-32)) * deviation;
        quick_cos_sin(word[2 * i + 1], &c, &s);
        const double x = radius * c, y = radius * s, error = 1e-14 * fabs(radius);
        unsettled |= (float)(x - error) != (float)(x + error);
        unsettled |= (float)(y - error) != (float)(y + error);
        out[2 * i] = (float)x;
        out[2 * i + 1] = (float)y;
    }
    return unsettled;
}

static void library_pairs(float *out, const uint32_t *word, size_t pairs, double deviation)
{
    for (size_t i = 0; i < pairs; i++) {
        const double u = ((double)word[2 * i] + 1.0) * 0x1p-32, angle = (double)word[2 * i + 1] * 0x1p-32 * TWO_PI;
        const double radius = sqrt(-2.0 * log(u)) * deviation;
        out[2 * i] = (float)(radius * cos(angle));
        out[2 * i + 1] = (float)(radius * sin(angle));
    }
}

void gt_random_normal(gt_random *r, float *out, size_t n, float mean, float deviation)
{
    uint32_t word[2 * BATCH];
    float pair[2 * BATCH];
    for (size_t at = 0; at < n; at += 2 * BATCH) {
        const size_t wanted = n - at < 2 * BATCH ? n - at : 2 * BATCH, pairs = (wanted + 1) / 2;
        words(r, word, 2 * pairs);
        if (quick_pairs(pair, word, pairs, (double)deviation))
            library_pairs(pair, word, pairs, (double)deviation);
        for (size_t i = 0; i < wanted; i++)
            out[at + i] = mean + pair[i];
    }
}
