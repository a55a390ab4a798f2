/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_xent.c - launches of cl/xent.cl. */
#include "host/kernel/kernel_private.h"

#include <assert.h>

gt_status kernel_xent(dev_list *l, kernel_set *k, int R, int V, dev_buffer *logits,
                      dev_buffer *target, dev_buffer *scale, dev_buffer *loss, dev_buffer *dlogits)
{
    assert(V > 0);
    dev_arg args[] = {
        dev_arg_i32(1), dev_arg_i32(R), dev_arg_i32(V), dev_arg_buffer(logits),
        dev_arg_buffer(target), dev_arg_buffer(scale), dev_arg_buffer(loss),
        dev_arg_buffer(dlogits),
    };
    return kernel_launch_rows(l, k, KERNEL_XENT, "xent", R, V, args, KERNEL_ARGS(args));
}

gt_status kernel_xent_statistics(dev_list *l, kernel_set *k, int R, kernel_rows held,
                                 dev_buffer *logits, dev_buffer *target, dev_buffer *statistics)
{
    assert(held.count > 0);
    dev_arg args[] = {
        dev_arg_i32(1), dev_arg_i32(R), dev_arg_i32(held.begin), dev_arg_i32(held.count),
        dev_arg_buffer(logits), dev_arg_buffer(target), dev_arg_buffer(statistics),
    };
    return kernel_launch_rows(l, k, KERNEL_XENT, "xent_statistics", R, held.count, args,
                              KERNEL_ARGS(args));
}

gt_status kernel_xent_combine(dev_list *l, kernel_set *k, int R, int ranks, int V,
                              dev_buffer *statistics, dev_buffer *target, dev_buffer *loss,
                              dev_buffer *top)
{
    assert(R >= 0 && ranks > 0 && V > 0);
    const dev_arg args[] = {
        dev_arg_i32(R), dev_arg_i32(ranks), dev_arg_i32(V), dev_arg_buffer(statistics),
        dev_arg_buffer(target), dev_arg_buffer(loss), dev_arg_buffer(top),
    };
    const size_t owners = ((size_t)R + k->group - 1) / k->group;
    return kernel_launch_groups(l, k, KERNEL_XENT, "xent_combine",
                                owners < k->items ? owners : k->items, args, KERNEL_ARGS(args));
}

gt_status kernel_xent_gradient(dev_list *l, kernel_set *k, int R, kernel_rows held,
                               dev_buffer *logits, dev_buffer *target, dev_buffer *scale,
                               dev_buffer *top, dev_buffer *dlogits)
{
    assert(held.count > 0 && held.begin + held.count <= held.V);
    dev_arg args[] = {
        dev_arg_i32(1), dev_arg_i32(R), dev_arg_i32(held.V), dev_arg_i32(held.begin),
        dev_arg_i32(held.count), dev_arg_buffer(logits), dev_arg_buffer(target),
        dev_arg_buffer(scale), dev_arg_buffer(top), dev_arg_buffer(dlogits),
    };
    return kernel_launch_rows(l, k, KERNEL_XENT, "xent_gradient", R, held.count, args,
                              KERNEL_ARGS(args));
}

gt_status kernel_sum(dev_list *l, kernel_set *k, int64_t n, dev_buffer *x, dev_buffer *sum, int add,
                     kernel_slot *add_at)
{
    assert(n >= 0);
    dev_arg args[] = {
        dev_arg_u64((uint64_t)n), dev_arg_buffer(x), dev_arg_buffer(sum), dev_arg_i32(add),
    };
    gt_status st = kernel_launch_groups(l, k, KERNEL_XENT, "sum_all", 1, args, KERNEL_ARGS(args));
    if (!st)
        kernel_slot_last(add_at, l, 3);
    return st;
}
