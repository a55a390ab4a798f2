/* SPDX-License-Identifier: MIT */
/* host/attention/attention_loops_plain.c - for what every processor has. */
#define LOOPS_OF plain
#include "host/attention/attention_loops.h"
