/* SPDX-License-Identifier: MIT */
/* net/collective/reduce_f16c.c - see reduce_f16c.h.
 *
 * Compilers turn no integer arithmetic into these instructions, so they are asked for by name.
 * Every x86 processor with AVX2 has F16C as well, and AVX2 is what both compilers can test for. */
#include "net/collective/reduce_f16c.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define F16C __attribute__((target("avx2,f16c")))

int net_f16c_available(void)
{
    return __builtin_cpu_supports("avx2") != 0;
}

F16C static inline __m256 load(const uint16_t *s)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)s));
}

F16C static inline void store(uint16_t *d, __m256 x)
{
    _mm_storeu_si128((__m128i *)(void *)d, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

F16C size_t net_f16c_sum(uint16_t *d, const uint16_t *s, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        store(d + i, _mm256_add_ps(load(d + i), load(s + i)));
    return i;
}

F16C size_t net_f16c_widen(float *acc, const uint16_t *s, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(acc + i, load(s + i));
    return i;
}

F16C size_t net_f16c_widen_add(float *acc, const uint16_t *s, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(acc + i, _mm256_add_ps(_mm256_loadu_ps(acc + i), load(s + i)));
    return i;
}

F16C size_t net_f16c_narrow(uint16_t *d, const float *acc, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        store(d + i, _mm256_loadu_ps(acc + i));
    return i;
}

#else

int net_f16c_available(void)
{
    return 0;
}

size_t net_f16c_sum(uint16_t *d, const uint16_t *s, size_t n)
{
    (void)d, (void)s, (void)n;
    return 0;
}

size_t net_f16c_widen(float *acc, const uint16_t *s, size_t n)
{
    (void)acc, (void)s, (void)n;
    return 0;
}

size_t net_f16c_widen_add(float *acc, const uint16_t *s, size_t n)
{
    (void)acc, (void)s, (void)n;
    return 0;
}

size_t net_f16c_narrow(uint16_t *d, const float *acc, size_t n)
{
    (void)d, (void)acc, (void)n;
    return 0;
}

#endif
