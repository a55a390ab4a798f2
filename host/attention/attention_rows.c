/* SPDX-License-Identifier: MIT */
/* host/attention/attention_rows.c - the loops for the processor that the program runs on. */
#include "host/attention/attention_rows.h"
#include "host/attention/attention_loops.h"

#include <pthread.h>

static const attention_loops *loops = &attention_loops_plain;

static void choose(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        loops = &attention_loops_avx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")
        && __builtin_cpu_supports("avx512vl"))
        loops = __builtin_cpu_supports("avx512bf16") ? &attention_loops_avx512_bf16 : &attention_loops_avx512;
#endif
}

void attention_rows_prepare(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, choose);
}

float attention_most(const float *s, int n, float scale, float least)
{
    return loops->most(s, n, scale, least);
}

float attention_exp(float *s, int n, float scale, float most, void *p, dtype type)
{
    return type == DTYPE_BF16 ? loops->exp_bf16(s, n, scale, most, p) : loops->exp_f32(s, n, scale, most);
}

void attention_slopes(float *s, float *dp, int n, const float *lse, const float *delta, float scale, void *p, void *ds,
                      dtype type)
{
    if (type == DTYPE_BF16)
        loops->slopes_bf16(s, dp, n, lse, delta, scale, p, ds);
    else
        loops->slopes_f32(s, dp, n, lse, delta, scale);
}

void attention_multiply(float *x, int n, float factor)
{
    loops->multiply(x, n, factor);
}

void attention_widen(float *to, const void *x, int n, dtype type)
{
    loops->widen[type](to, x, n);
}

void attention_narrow(void *to, const float *x, int n, float factor, dtype type)
{
    loops->narrow[type](to, x, n, factor);
}

float attention_dot(const void *a, const void *b, int n, dtype type)
{
    return loops->dot[type](a, b, n);
}
