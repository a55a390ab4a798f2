/* SPDX-License-Identifier: MIT */
/* host/attention/attention_private.h - the ways that there are, and trying one of them. */
#ifndef GT_ATTENTION_ATTENTION_PRIVATE_H
#define GT_ATTENTION_ATTENTION_PRIVATE_H

#include "host/attention/attention.h"
#include "host/gemm/gemm_tiles.h"

/* One way: tiles, or the loops that engine packed stands for, or the matrix unit, or else the kernel. */
typedef struct attention_way {
    gemm_tiles *tiles;
    int matrix;
} attention_way;

enum { ATTENTION_WAYS = 5 };
/* All that can do this here, the kernel first; returns how many. Only the one asked for, if one is. */
gt_status attention_ways(attention_way out[ATTENTION_WAYS], int *count, const attention_how *how, int gradient);
const char *attention_way_name(const attention_way *w);

uint64_t attention_way_scratch(const attention_way *w, const attention_how *how, int gradient);
gt_status attention_way_forward(const attention_way *w, dev_list *l, const attention_how *how,
                                const kernel_attention_in *in, dev_buffer *out, dev_buffer *lse, dev_buffer *scratch);
gt_status attention_way_grad(const attention_way *w, dev_list *l, const attention_how *how,
                             const kernel_attention_in *in, dev_buffer *out, dev_buffer *lse, dev_buffer *dout,
                             const kernel_attention_in *d, dev_buffer *scratch);

/* Random operands of a shape without masks, and one way after the other run on them. */
typedef struct attention_trial attention_trial;
gt_status attention_trial_create(attention_trial **out, const attention_how *how);
void attention_trial_release(attention_trial *t);       /* takes NULL */
/* Runs it once, keeps what comes out of the first way, and holds later ones to that: GT_NUMERIC if it differs. */
gt_status attention_trial_check(attention_trial *t, const attention_way *w, int gradient);
/* Up to `runs` runs, as long as they take less than a second together; *count: how many there were. */
gt_status attention_trial_time(attention_trial *t, const attention_way *w, int gradient, int runs, double *seconds,
                               int *count);

#endif
