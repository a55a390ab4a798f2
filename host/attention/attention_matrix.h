/* SPDX-License-Identifier: MIT */
/* host/attention/attention_matrix.h - attention by a device's matrix unit, cl/attention_matrix.cl.
 *
 * 16-bit storage, heads of a multiple of 16 columns up to ATTENTION_MATRIX_HEAD, every mask, no dropout. Results are
 * laid out as kernel_attention()'s, so forward one way and the gradient another go together.
 *
 * Errors   as in host/kernel/kernel.h; GT_DEVICE where the device's compiler refuses the kernels */
#ifndef GT_ATTENTION_ATTENTION_MATRIX_H
#define GT_ATTENTION_ATTENTION_MATRIX_H

#include "host/attention/attention.h"

/* Of units with sub-groups of 8, Intel's Arc, whose registers hold less, up to ATTENTION_MATRIX_ARC_HEAD. */
enum { ATTENTION_MATRIX_HEAD = 128, ATTENTION_MATRIX_ARC_HEAD = 80 };

/* 1 if this shape is for it, and the device has a unit that multiplied rightly. */
int attention_matrix_can(const attention_how *how);
gt_status attention_matrix_forward(dev_list *l, const attention_how *how, const kernel_attention_in *in,
                                   dev_buffer *out, dev_buffer *lse);
/* scratch: kernel_attention_scratch() bytes. */
gt_status attention_matrix_grad(dev_list *l, const attention_how *how, const kernel_attention_in *in, dev_buffer *out,
                                dev_buffer *lse, dev_buffer *dout, const kernel_attention_in *d, dev_buffer *scratch);

/* The kernel file and how it is built. */
extern const dev_family attention_matrix_family;

#endif
