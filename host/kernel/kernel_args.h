/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_args.h - arguments of the kernels of attention, in the order of cl/attention_args.clh's macros.
 *
 * For who launches kernels of its own on the same operands. */
#ifndef GT_KERNEL_KERNEL_ARGS_H
#define GT_KERNEL_KERNEL_ARGS_H

#include "host/kernel/kernel.h"

enum { KERNEL_ARGS_MOST = 40 };

typedef struct kernel_args {
    dev_arg at[KERNEL_ARGS_MOST];
    int count;                  /* 0 at first */
} kernel_args;

void kernel_args_push(kernel_args *a, dev_arg value);
/* SHAPE_ARGS. */
void kernel_args_shape(kernel_args *a, const kernel_attention_shape *s);
/* QKV_ARGS, or DQKV_ARGS. */
void kernel_args_heads(kernel_args *a, const kernel_attention_in *in);

#endif
