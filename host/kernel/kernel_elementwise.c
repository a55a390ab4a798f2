/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_elementwise.c - launches of cl/elementwise.cl. */
#include "host/kernel/kernel_private.h"

#include <assert.h>

/* A flat kernel between two or three tensors. */
static gt_status flat(dev_list *l, kernel_set *k, const char *name, int64_t n, dev_buffer *a,
                      dev_buffer *b, dev_buffer *c)
{
    dev_arg args[5] = { [2] = dev_arg_buffer(a), [3] = dev_arg_buffer(b), [4] = dev_arg_buffer(c) };
    return kernel_launch_flat(l, k, KERNEL_ELEMENTWISE, name, n, args, c ? 5 : 4);
}

gt_status kernel_gelu(dev_list *l, kernel_set *k, int64_t n, dev_buffer *x, dev_buffer *y)
{
    return flat(l, k, "gelu", n, x, y, NULL);
}

gt_status kernel_gelu_grad(dev_list *l, kernel_set *k, int64_t n, dev_buffer *dy, dev_buffer *x,
                           dev_buffer *dx)
{
    return flat(l, k, "gelu_grad", n, dy, x, dx);
}

gt_status kernel_add(dev_list *l, kernel_set *k, int64_t n, dev_buffer *a, dev_buffer *b,
                     dev_buffer *y)
{
    return flat(l, k, "add", n, a, b, y);
}

gt_status kernel_store(dev_list *l, kernel_set *k, int64_t n, dev_buffer *from_f32, dev_buffer *to)
{
    return flat(l, k, "narrow", n, from_f32, to, NULL);
}

gt_status kernel_load(dev_list *l, kernel_set *k, int64_t n, dev_buffer *from, dev_buffer *to_f32)
{
    return flat(l, k, "widen", n, from, to_f32, NULL);
}

gt_status kernel_dropout_apply(dev_list *l, kernel_set *k, int64_t n, const kernel_dropout *drop,
                               dev_buffer *x, dev_buffer *y)
{
    dev_arg args[] = {
        [2] = dev_arg_buffer(x), dev_arg_buffer(y), dev_arg_buffer(drop->random),
        dev_arg_u32(drop->stream), dev_arg_u32(kernel_dropout_limit(drop)),
        dev_arg_f32(kernel_dropout_factor(drop)), dev_arg_u64((uint64_t)drop->sequence),
    };
    return kernel_launch_flat(l, k, KERNEL_ELEMENTWISE, "dropout", n, args, KERNEL_ARGS(args));
}

gt_status kernel_bias_act(dev_list *l, kernel_set *k, int R, int C, dev_buffer *y, dev_buffer *bias,
                          dev_buffer *pre, const kernel_dropout *drop, dev_buffer *residual)
{
    assert(R >= 0 && C > 0);
    dev_arg args[] = {
        dev_arg_i32(1), dev_arg_i32(R), dev_arg_i32(C), dev_arg_buffer(y), dev_arg_buffer(bias),
        dev_arg_buffer(pre), dev_arg_buffer(residual), dev_arg_buffer(drop ? drop->random : NULL),
        dev_arg_u32(drop ? drop->stream : 0), dev_arg_u32(kernel_dropout_limit(drop)),
        dev_arg_f32(kernel_dropout_factor(drop)), dev_arg_u64(drop ? (uint64_t)drop->sequence : 0),
    };
    const int64_t quads = (int64_t)R * ((C + 3) / 4);
    gt_status st = kernel_fits("groups of four columns", quads);
    if (st)
        return st;
    if (k->cpu)
        return kernel_launch_rows(l, k, KERNEL_ELEMENTWISE, "bias_act", R, C, args,
                                  KERNEL_ARGS(args));
    return kernel_launch(l, k, KERNEL_ELEMENTWISE, "bias_act",
                         dev_grid_1d((size_t)quads, k->group), args, KERNEL_ARGS(args));
}
