/* SPDX-License-Identifier: MIT */
/* host/attention/attention_loops_avx512_bf16.c - for x86 with AVX-512 F, BW, DQ, VL and BF16. */
#include <immintrin.h>
#include <string.h>

static inline void round_block(unsigned short *to, const float *x)
{
    const __m512bh half = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 16), _mm512_loadu_ps(x));
    memcpy(to, &half, sizeof half);
}

#define LOOPS_BF16(to, x) round_block(to, x);
#define LOOPS_OF avx512_bf16
#include "host/attention/attention_loops.h"
