/* SPDX-License-Identifier: MIT */
/* host/sync/compress_none.c - gradients travel as they are, in fp32. */
#include "host/sync/compressor.h"

const sync_compressor sync_compress_none = {
    .name = "none", .help = "gradients in fp32", .type = DTYPE_F32, .rounds = 1
};
