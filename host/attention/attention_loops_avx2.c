/* SPDX-License-Identifier: MIT */
/* host/attention/attention_loops_avx2.c - for x86 with AVX2 and FMA. */
#define LOOPS_OF avx2
#include "host/attention/attention_loops.h"
