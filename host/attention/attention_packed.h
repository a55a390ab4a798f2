/* SPDX-License-Identifier: MIT */
/* host/attention/attention_packed.h - attention in host memory by loops of its own; private to this room.
 *
 * As attention_tiles.h, whose tasks these are: their tiles are engine packed's. */
#ifndef GT_ATTENTION_ATTENTION_PACKED_H
#define GT_ATTENTION_ATTENTION_PACKED_H

#include "host/attention/attention_tiles.h"

/* 1 if tiles are of the engine whose processors these loops are for. */
int attention_packed_is(const gemm_tiles *t);

uint64_t attention_packed_scratch(gemm_tiles *t, const kernel_attention_shape *s, int gradient);

/* dev_native functions, with the pointers of attention_tiles_forward() and attention_tiles_grad(). */
void attention_packed_forward(const void *task, void *const *pointers);
void attention_packed_grad(const void *task, void *const *pointers);

#endif
