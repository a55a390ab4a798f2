/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_optim.c - launches of cl/optim.cl. */
#include "host/kernel/kernel_private.h"

#include <assert.h>
#include <math.h>

enum { SQUARES = 16384 };       /* gradients a partial sum covers, as in cl/optim.cl */

int64_t kernel_norm_blocks(const kernel_set *k, int64_t n)
{
    (void)k;
    return (n + SQUARES - 1) / SQUARES;
}

gt_status kernel_norm_partial(dev_list *l, kernel_set *k, int64_t n, dev_buffer *g,
                              dev_buffer *partial)
{
    assert(n >= 0);
    dev_arg args[] = { dev_arg_u64((uint64_t)n), dev_arg_buffer(g), dev_arg_buffer(partial) };
    return kernel_launch_groups(l, k, KERNEL_OPTIM, "norm_partial",
                                (size_t)kernel_norm_blocks(k, n), args, KERNEL_ARGS(args));
}

gt_status kernel_optim_prepare(dev_list *l, kernel_set *k, int64_t count, dev_buffer *partial,
                               dev_buffer *state, float clip, double beta1, double beta2,
                               int dynamic, int growth)
{
    assert(count >= 0);
    dev_arg args[] = {
        dev_arg_u64((uint64_t)count), dev_arg_buffer(partial), dev_arg_buffer(state),
        dev_arg_f32(clip), dev_arg_f32((float)log(beta1)), dev_arg_f32((float)log(beta2)),
        dev_arg_i32(dynamic), dev_arg_i32(growth),
    };
    return kernel_launch_groups(l, k, KERNEL_OPTIM, "optim_prepare", 1, args, KERNEL_ARGS(args));
}

gt_status kernel_adamw(dev_list *l, kernel_set *k, int64_t n, dev_buffer *p, dev_buffer *g,
                       dev_buffer *m, dev_buffer *v, dev_buffer *copy, dev_buffer *state, float lr,
                       double beta1, double beta2, float eps, float decay, kernel_slot *lr_at)
{
    dev_arg args[] = {
        [2] = dev_arg_buffer(p), dev_arg_buffer(g), dev_arg_buffer(m), dev_arg_buffer(v),
        dev_arg_buffer(copy), dev_arg_buffer(state), dev_arg_f32(lr), dev_arg_f32((float)beta2),
        dev_arg_f32((float)(1.0 - beta1)), dev_arg_f32((float)(1.0 - beta2)), dev_arg_f32(eps),
        dev_arg_f32(decay),
    };
    gt_status st = kernel_launch_flat(l, k, KERNEL_OPTIM, "adamw", n, args, KERNEL_ARGS(args));
    if (!st)
        kernel_slot_last(lr_at, l, 8);
    return st;
}

gt_status kernel_sgd(dev_list *l, kernel_set *k, int64_t n, dev_buffer *p, dev_buffer *g,
                     dev_buffer *m, dev_buffer *copy, dev_buffer *state, float lr, float momentum,
                     float decay, kernel_slot *lr_at)
{
    dev_arg args[] = {
        [2] = dev_arg_buffer(p), dev_arg_buffer(g), dev_arg_buffer(m), dev_arg_buffer(copy),
        dev_arg_buffer(state), dev_arg_f32(lr), dev_arg_f32(momentum), dev_arg_f32(decay),
    };
    gt_status st = kernel_launch_flat(l, k, KERNEL_OPTIM, "sgd", n, args, KERNEL_ARGS(args));
    if (!st)
        kernel_slot_last(lr_at, l, 7);
    return st;
}
