/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_norm.c - launches of cl/norm.cl. */
#include "host/kernel/kernel_private.h"

#include <assert.h>

/* As in cl/norm.cl: rows a partial sum covers, columns of a CPU work-item, and columns a
 * work-item (CPU) or group (GPU) of column_finish owns. */
enum { SLAB = 64, STRIP = 256, FINISH_CPU = 64, FINISH_GPU = 32 };

static size_t divide_up(size_t n, size_t by)
{
    return (n + by - 1) / by;
}

static size_t slabs_of(int R)
{
    return divide_up((size_t)R, SLAB);
}

uint64_t kernel_column_scratch(const kernel_set *k, int R, int C, int sums)
{
    (void)k;
    return (uint64_t)sums * slabs_of(R) * (uint64_t)C * sizeof(float);
}

gt_status kernel_layernorm(dev_list *l, kernel_set *k, int R, int C, float eps, dev_buffer *x,
                           dev_buffer *gain, dev_buffer *bias, dev_buffer *y, dev_buffer *mean,
                           dev_buffer *rstd)
{
    assert(!mean == !rstd);
    dev_arg args[] = {
        dev_arg_i32(1), dev_arg_i32(R), dev_arg_i32(C), dev_arg_f32(eps), dev_arg_buffer(x),
        dev_arg_buffer(gain), dev_arg_buffer(bias), dev_arg_buffer(y), dev_arg_buffer(mean),
        dev_arg_buffer(rstd),
    };
    return kernel_launch_rows(l, k, KERNEL_NORM, "layernorm", R, C, args, KERNEL_ARGS(args));
}

gt_status kernel_layernorm_input_grad(dev_list *l, kernel_set *k, int R, int C, dev_buffer *dy,
                                      dev_buffer *x, dev_buffer *gain, dev_buffer *mean,
                                      dev_buffer *rstd, dev_buffer *residual, dev_buffer *dx)
{
    dev_arg args[] = {
        dev_arg_i32(1), dev_arg_i32(R), dev_arg_i32(C), dev_arg_buffer(dy), dev_arg_buffer(x),
        dev_arg_buffer(gain), dev_arg_buffer(mean), dev_arg_buffer(rstd),
        dev_arg_buffer(residual), dev_arg_buffer(dx),
    };
    return kernel_launch_rows(l, k, KERNEL_NORM, "layernorm_input_grad", R, C, args,
                              KERNEL_ARGS(args));
}

/* The second half of a column sum: scratch into out0 and, unless it is NULL, out1. */
static gt_status finish(dev_list *l, kernel_set *k, int R, int C, dev_buffer *scratch,
                        dev_buffer *out0, dev_buffer *out1, int add, kernel_slot *add_at)
{
    dev_arg args[] = {
        dev_arg_i32(C), dev_arg_i32((int32_t)slabs_of(R)), dev_arg_buffer(scratch),
        dev_arg_buffer(out0), dev_arg_buffer(out1), dev_arg_i32(add),
    };
    const size_t own = k->cpu ? FINISH_CPU : k->group < FINISH_GPU ? k->group : FINISH_GPU;
    const size_t blocks = divide_up((size_t)C, own) * (out1 ? 2 : 1);
    gt_status st = kernel_launch_groups(l, k, KERNEL_NORM, "column_finish", blocks, args,
                                        KERNEL_ARGS(args));
    if (!st)
        kernel_slot_last(add_at, l, 5);
    return st;
}

static gt_status partial(dev_list *l, kernel_set *k, const char *name, int R, int C,
                         const dev_arg *args, int count)
{
    const size_t strips = divide_up((size_t)C, k->cpu ? STRIP : k->group);
    return kernel_launch_groups(l, k, KERNEL_NORM, name, slabs_of(R) * strips, args, count);
}

gt_status kernel_layernorm_weight_grad(dev_list *l, kernel_set *k, int R, int C, dev_buffer *dy,
                                       dev_buffer *x, dev_buffer *mean, dev_buffer *rstd,
                                       dev_buffer *dgain, dev_buffer *dbias, dev_buffer *scratch,
                                       int add, kernel_slot *add_at)
{
    dev_arg args[] = {
        dev_arg_i32(R), dev_arg_i32(C), dev_arg_buffer(dy), dev_arg_buffer(x),
        dev_arg_buffer(mean), dev_arg_buffer(rstd), dev_arg_buffer(scratch),
    };
    gt_status st = partial(l, k, "layernorm_weight_partial", R, C, args, KERNEL_ARGS(args));
    return st ? st : finish(l, k, R, C, scratch, dgain, dbias, add, add_at);
}

gt_status kernel_bias_grad(dev_list *l, kernel_set *k, int R, int C, dev_buffer *dy,
                           dev_buffer *dbias, dev_buffer *scratch, int add, kernel_slot *add_at)
{
    dev_arg args[] = {
        dev_arg_i32(R), dev_arg_i32(C), dev_arg_buffer(dy), dev_arg_buffer(scratch),
    };
    gt_status st = partial(l, k, "bias_partial", R, C, args, KERNEL_ARGS(args));
    return st ? st : finish(l, k, R, C, scratch, dbias, NULL, add, add_at);
}
