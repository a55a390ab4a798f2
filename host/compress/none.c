/* SPDX-License-Identifier: MIT */
/* host/compress/none.c - gradients travel as they are, in fp32. */
#include "host/compress/compressor.h"

const compressor compress_none = { .name = "none", .help = "gradients in fp32", .type = DTYPE_F32, .rounds = 1 };
