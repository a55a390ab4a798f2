/* SPDX-License-Identifier: MIT */
/* host/attention/attention_loops_avx512.c - for x86 with AVX-512 F, BW, DQ and VL. */
#define LOOPS_OF avx512
#include "host/attention/attention_loops.h"
