/* SPDX-License-Identifier: MIT */
/* host/attention/attention.h - softmax attention by the fastest of four ways.
 *
 *   kernel   cl/attention.cl, as host/kernel has it: any device
 *   packed   loops of this room for CPU devices with AVX-512 (attention_packed.h), in fp32 whatever is stored
 *   tiles    products of tiles by one of the matrix engines of CPU devices (host/gemm/gemm_tiles.h), and loops
 *            over rows between them: with the processor's own bf16 products where engine onednn has them
 *   matrix   cl/attention_matrix.cl (attention_matrix.h): 16-bit types on the matrix unit of a GPU
 *
 * Which one runs is measured once a device and kind (storage type, length, head size, mask, forward or
 * gradient; not how many heads or sequences there are, so that plans which share them out differently compute alike),
 * and kept along with the choices of engines for products. GEARTRAIN_GEMM=NAME, or an engine that is asked for,
 * decides by hand: that engine's tiles, or the kernel where it has none. The kernel it is for dropout; instead of tiles,
 * for sequences of less than ATTENTION_LEAST tokens (ATTENTION_SHORTEST, for the loops) and where there are so few heads
 * that threads would wait. Of heads so small that there is nothing to measure, unless an engine is asked for, it is
 * the loops, or the kernel where there are none.
 *
 * Errors   as in host/kernel/kernel.h and host/gemm/gemm.h                                 */
#ifndef GT_ATTENTION_ATTENTION_H
#define GT_ATTENTION_ATTENTION_H

#include "host/gemm/gemm.h"
#include "host/kernel/kernel.h"

enum { ATTENTION_LEAST = 128, ATTENTION_SHORTEST = 16 };

/* What is common to a forward launch and its gradient. drop may be NULL; the masks of s are looked at when
 * something is appended, not before. */
typedef struct attention_how {
    gemm_context *gemm;
    kernel_set *kernels;
    const kernel_attention_shape *s;
    const kernel_dropout *drop;
} attention_how;

/* kernel_attention() and kernel_attention_grad(), either way; scratch: attention_scratch() bytes. */
gt_status attention_forward(dev_list *l, const attention_how *how, const kernel_attention_in *in, dev_buffer *out,
                            dev_buffer *lse, dev_buffer *scratch);
gt_status attention_grad(dev_list *l, const attention_how *how, const kernel_attention_in *in, dev_buffer *out,
                         dev_buffer *lse, dev_buffer *dout, const kernel_attention_in *d, dev_buffer *scratch);
/* Settles which way it will be, so the first call of a kind may measure. */
gt_status attention_scratch(const attention_how *how, int gradient, uint64_t *bytes);
/* "kernel", or the engine whose tiles it will be. */
gt_status attention_engine(const attention_how *how, int gradient, const char **name);

typedef struct attention_result {
    const char *engine;
    int gradient;
    double min_s, median_s, p99_s, flops;       /* flops: a second, of the median run */
} attention_result;

/* Runs a shape without masks on random numbers, every way there is or the one that is asked for: compares with
 * the kernel, times at least `runs` times, and hands each result to `each`. GT_NUMERIC if one is wrong. */
gt_status attention_bench(gemm_context *c, kernel_set *k, const kernel_attention_shape *s, int runs,
                          void (*each)(void *context, const attention_result *r), void *context);

#endif
