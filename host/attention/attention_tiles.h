/* SPDX-License-Identifier: MIT */
/* host/attention/attention_tiles.h - attention in host memory, made of tile products; private to this room.
 *
 * Arrays lie as host/kernel/kernel.h says of kernel_attention() and kernel_attention_grad(), without dropout. */
#ifndef GT_ATTENTION_ATTENTION_TILES_H
#define GT_ATTENTION_ATTENTION_TILES_H

#include "host/gemm/gemm_tiles.h"
#include "host/kernel/kernel.h"

enum { ATTENTION_ALL, ATTENTION_LENGTHS, ATTENTION_STARTS };    /* what the mask says: kernel_attention_shape */

typedef struct attention_place {
    int64_t first;
    int stride;
} attention_place;

/* What a launch keeps: sizes, and where q, k, v and their gradients begin in their buffers. */
typedef struct attention_task {
    gemm_tiles *tiles;
    int B, T, H, KV, D, causal, window, mask;
    float scale;
    dtype storage;
    attention_place in[3], d[3];
} attention_task;

/* Bytes, for all threads. */
uint64_t attention_tiles_scratch(gemm_tiles *t, const kernel_attention_shape *s, dtype storage, int gradient);

/* dev_native functions. Pointers: q, k, v, out, lse, mask, scratch; */
void attention_tiles_forward(const void *task, void *const *pointers);
/* q, k, v, out, lse, mask, scratch, dout, dq, dk, dv. */
void attention_tiles_grad(const void *task, void *const *pointers);

#endif
