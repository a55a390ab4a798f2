/* SPDX-License-Identifier: MIT */
/* net/collective/reduce.c - sums over typed host memory.
 *
 * Every loop is: blocks of BLOCK elements with a constant trip count, then what is left. GCC at
 * -O2 vectorises only loops of the first kind, and trusts `restrict` on parameters alone. Each
 * kernel is compiled for several instruction sets and the right one is picked when the
 * program is loaded, where the platform has that (ifunc); the arithmetic has no fused or
 * reordered step, so all give the same bits.
 *
 * Half precision without a half type: the exponent is moved by an exact multiplication with a
 * power of two, which takes care of subnormals, and rounding is left to one float addition
 * of a power of two whose last mantissa bit weighs what the half's does (the method of
 * Maratyszcza's FP16 library, branches made into selects so that it vectorises).        */
#include "net/collective/reduce.h"
#include "net/collective/reduce_f16c.h"

#include <assert.h>
#include <string.h>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#endif

/* A sanitizer's run time is not up yet when ifuncs are resolved. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__linux__) && !defined(SANITIZED)
#if defined(__clang__)
#define WIDEST "avx512bw"
#else
#define WIDEST "arch=skylake-avx512"        /* GCC ranks whole architectures only */
#endif
#define MULTIVERSION __attribute__((target_clones(WIDEST, "avx2", "default")))
#else
#define MULTIVERSION
#endif
#define INLINE static inline __attribute__((always_inline))

enum { BLOCK = 32 };

/* ---- one element ------------------------------------------------------------------------ */

INLINE uint32_t bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

INLINE float real(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* yes where the condition holds, else no. With ?: compilers move a float operation into a branch,
 * and then cannot vectorise, because it might trap. */
INLINE uint32_t pick(int condition, uint32_t yes, uint32_t no)
{
    const uint32_t mask = 0u - (uint32_t)condition;
    return (yes & mask) | (no & ~mask);
}

INLINE float from_bf16(uint16_t h)
{
    return real((uint32_t)h << 16);
}

INLINE uint16_t to_bf16(float x)
{
    const uint32_t u = bits(x), rounded = u + 0x7fffu + (u >> 16 & 1u);
    const uint32_t quiet = u | 0x400000u;                   /* a NaN stays one */
    return (uint16_t)(pick((u & 0x7fffffffu) > 0x7f800000u, quiet, rounded) >> 16);
}

INLINE float from_f16(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = (uint32_t)(h & 0x7fffu) << 13;
    const uint32_t finite = bits(real(rest) * 0x1p112f);
    return real(sign | pick(rest >= 0x0f800000u, rest | 0x7f800000u, finite));
}

INLINE uint16_t to_f16(float x)
{
    const uint32_t u = bits(x), sign = u >> 16 & 0x8000u, rest = u & 0x7fffffffu;
    /* A float of this power of two has its last bit where x as a half has its own. */
    const uint32_t floor = pick(rest < 0x38800000u, 0x38800000u, rest & 0x7f800000u);
    const uint32_t power = floor + (13u << 23);
    /* Clamped: far above half's range the sum is not used, and must not become NaN. */
    const float magic = real(pick(power < 0x7f000000u, power, 0x7f000000u));
    const uint32_t sum = bits(real(rest) + magic) - bits(magic);    /* units of the last bit */
    const uint32_t exponent = (floor - 0x38800000u) >> 13;
    const uint32_t half = exponent + sum;
    const uint32_t large = pick(rest > 0x7f800000u, 0x7e00u, 0x7c00u);
    return (uint16_t)(sign | pick(rest >= 0x477ff000u, large, half));
}

/* ---- arrays ----------------------------------------------------------------------------- */

MULTIVERSION static void sum_f32(float *restrict d, const float *restrict s, size_t n)
{
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (size_t k = 0; k < BLOCK; k++)
            d[i + k] += s[i + k];
    for (; i < n; i++)
        d[i] += s[i];
}

/* Unsigned: a sum that wraps around is defined, and the same bits as the signed one. */
MULTIVERSION static void sum_i32(uint32_t *restrict d, const uint32_t *restrict s, size_t n)
{
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (size_t k = 0; k < BLOCK; k++)
            d[i + k] += s[i + k];
    for (; i < n; i++)
        d[i] += s[i];
}

MULTIVERSION static void sum_bf16(uint16_t *restrict d, const uint16_t *restrict s, size_t n)
{
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (size_t k = 0; k < BLOCK; k++)
            d[i + k] = to_bf16(from_bf16(d[i + k]) + from_bf16(s[i + k]));
    for (; i < n; i++)
        d[i] = to_bf16(from_bf16(d[i]) + from_bf16(s[i]));
}

MULTIVERSION static void sum_f16(uint16_t *restrict d, const uint16_t *restrict s, size_t n)
{
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (size_t k = 0; k < BLOCK; k++)
            d[i + k] = to_f16(from_f16(d[i + k]) + from_f16(s[i + k]));
    for (; i < n; i++)
        d[i] = to_f16(from_f16(d[i]) + from_f16(s[i]));
}

MULTIVERSION static void widen_bf16(float *restrict acc, const uint16_t *restrict s, size_t n)
{
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (size_t k = 0; k < BLOCK; k++)
            acc[i + k] = from_bf16(s[i + k]);
    for (; i < n; i++)
        acc[i] = from_bf16(s[i]);
}

MULTIVERSION static void widen_f16(float *restrict acc, const uint16_t *restrict s, size_t n)
{
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (size_t k = 0; k < BLOCK; k++)
            acc[i + k] = from_f16(s[i + k]);
    for (; i < n; i++)
        acc[i] = from_f16(s[i]);
}

MULTIVERSION static void widen_add_bf16(float *restrict acc, const uint16_t *restrict s, size_t n)
{
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (size_t k = 0; k < BLOCK; k++)
            acc[i + k] += from_bf16(s[i + k]);
    for (; i < n; i++)
        acc[i] += from_bf16(s[i]);
}

MULTIVERSION static void widen_add_f16(float *restrict acc, const uint16_t *restrict s, size_t n)
{
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (size_t k = 0; k < BLOCK; k++)
            acc[i + k] += from_f16(s[i + k]);
    for (; i < n; i++)
        acc[i] += from_f16(s[i]);
}

MULTIVERSION static void narrow_bf16(uint16_t *restrict d, const float *restrict acc, size_t n)
{
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (size_t k = 0; k < BLOCK; k++)
            d[i + k] = to_bf16(acc[i + k]);
    for (; i < n; i++)
        d[i] = to_bf16(acc[i]);
}

MULTIVERSION static void narrow_f16(uint16_t *restrict d, const float *restrict acc, size_t n)
{
    size_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (size_t k = 0; k < BLOCK; k++)
            d[i + k] = to_f16(acc[i + k]);
    for (; i < n; i++)
        d[i] = to_f16(acc[i]);
}

/* ---- by type ---------------------------------------------------------------------------- */

static void add_f32(void *dst, const void *src, size_t bytes)
{
    sum_f32(dst, src, bytes / sizeof(float));
}

static void add_bf16(void *dst, const void *src, size_t bytes)
{
    sum_bf16(dst, src, bytes / sizeof(uint16_t));
}

static void add_f16(void *dst, const void *src, size_t bytes)
{
    const size_t n = bytes / sizeof(uint16_t);
    const size_t done = net_f16c_available() ? net_f16c_sum(dst, src, n) : 0;
    sum_f16((uint16_t *)dst + done, (const uint16_t *)src + done, n - done);
}

static void add_i32(void *dst, const void *src, size_t bytes)
{
    sum_i32(dst, src, bytes / sizeof(uint32_t));
}

net_reduce net_reduce_of(net_type type)
{
    switch (type) {
    case NET_F32: return add_f32;
    case NET_BF16: return add_bf16;
    case NET_F16: return add_f16;
    case NET_I32: return add_i32;
    }
    return NULL;
}

void net_widen(float *acc, const void *src, size_t count, net_type type)
{
    assert(type != NET_I32);
    if (type == NET_F32)
        memcpy(acc, src, count * sizeof *acc);
    else if (type == NET_BF16)
        widen_bf16(acc, src, count);
    else {
        const size_t done = net_f16c_available() ? net_f16c_widen(acc, src, count) : 0;
        widen_f16(acc + done, (const uint16_t *)src + done, count - done);
    }
}

void net_widen_add(float *acc, const void *src, size_t count, net_type type)
{
    assert(type != NET_I32);
    if (type == NET_F32)
        sum_f32(acc, src, count);
    else if (type == NET_BF16)
        widen_add_bf16(acc, src, count);
    else {
        const size_t done = net_f16c_available() ? net_f16c_widen_add(acc, src, count) : 0;
        widen_add_f16(acc + done, (const uint16_t *)src + done, count - done);
    }
}

void net_narrow(void *dst, const float *acc, size_t count, net_type type)
{
    assert(type != NET_I32);
    if (type == NET_F32)
        memcpy(dst, acc, count * sizeof *acc);
    else if (type == NET_BF16)
        narrow_bf16(dst, acc, count);
    else {
        const size_t done = net_f16c_available() ? net_f16c_narrow(dst, acc, count) : 0;
        narrow_f16((uint16_t *)dst + done, acc + done, count - done);
    }
}
