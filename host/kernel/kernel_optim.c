/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_optim.c - launches of cl/optim.cl and cl/optim_tensor.cl. */
#include "host/kernel/kernel_private.h"

#include <assert.h>
#include <math.h>

enum { SQUARES = 16384 };       /* gradients a partial sum covers, as in cl/optim.cl */
enum { BAND = 64 };              /* columns to a group, as in cl/optim_tensor.cl */

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

gt_status kernel_lion(dev_list *l, kernel_set *k, int64_t n, dev_buffer *p, dev_buffer *g,
                      dev_buffer *m, dev_buffer *copy, dev_buffer *state, float lr, double beta1,
                      double beta2, float decay, kernel_slot *lr_at)
{
    dev_arg args[] = {
        [2] = dev_arg_buffer(p), dev_arg_buffer(g), dev_arg_buffer(m), dev_arg_buffer(copy),
        dev_arg_buffer(state), dev_arg_f32(lr), dev_arg_f32((float)(1.0 - beta1)),
        dev_arg_f32((float)(1.0 - beta2)), dev_arg_f32(decay),
    };
    gt_status st = kernel_launch_flat(l, k, KERNEL_OPTIM, "lion", n, args, KERNEL_ARGS(args));
    if (!st)
        kernel_slot_last(lr_at, l, 7);
    return st;
}

gt_status kernel_muon_momentum(dev_list *l, kernel_set *k, int64_t n, dev_buffer *g, dev_buffer *m,
                               dev_buffer *u, dev_buffer *state, double mu)
{
    dev_arg args[] = {
        [2] = dev_arg_buffer(g), dev_arg_buffer(m), dev_arg_buffer(u), dev_arg_buffer(state),
        dev_arg_f32((float)mu), dev_arg_f32((float)(1.0 - mu)),
    };
    return kernel_launch_flat(l, k, KERNEL_OPTIM_TENSOR, "muon_momentum", n, args, KERNEL_ARGS(args));
}

gt_status kernel_inverse_norm(dev_list *l, kernel_set *k, int64_t count, dev_buffer *partial,
                              dev_buffer *out, float eps)
{
    dev_arg args[] = { dev_arg_u32((uint32_t)count), dev_arg_buffer(partial), dev_arg_buffer(out),
                       dev_arg_f32(eps) };
    gt_status st = kernel_fits("partial sums", count);
    return st ? st : kernel_launch_groups(l, k, KERNEL_OPTIM_TENSOR, "inverse_norm", 1, args,
                                          KERNEL_ARGS(args));
}

gt_status kernel_scale(dev_list *l, kernel_set *k, int64_t n, dev_buffer *x, dev_buffer *y,
                       dev_buffer *by, float factor)
{
    dev_arg args[] = { [2] = dev_arg_buffer(x), dev_arg_buffer(y), dev_arg_buffer(by), dev_arg_f32(factor) };
    return kernel_launch_flat(l, k, KERNEL_OPTIM_TENSOR, "scale", n, args, KERNEL_ARGS(args));
}

gt_status kernel_muon_step(dev_list *l, kernel_set *k, int64_t n, dev_buffer *p, dev_buffer *o,
                           dev_buffer *copy, dev_buffer *state, float lr, float factor, float decay,
                           kernel_slot *lr_at)
{
    dev_arg args[] = {
        [2] = dev_arg_buffer(p), dev_arg_buffer(o), dev_arg_buffer(copy), dev_arg_buffer(state),
        dev_arg_f32(lr), dev_arg_f32(factor), dev_arg_f32(decay),
    };
    gt_status st = kernel_launch_flat(l, k, KERNEL_OPTIM_TENSOR, "muon_step", n, args, KERNEL_ARGS(args));
    if (!st)
        kernel_slot_last(lr_at, l, 6);
    return st;
}

/* ---- Adafactor ------------------------------------------------------------------------------- */

/* Rows and columns of a matrix, or the second moment of a vector. */
static gt_status adafactor_moments(dev_list *l, kernel_set *k, int R, int C, dev_buffer *g,
                                   dev_buffer *rows, dev_buffer *columns, dev_buffer *second,
                                   dev_buffer *found, dev_buffer *state, float rate)
{
    if (second) {
        dev_arg args[] = { [2] = dev_arg_buffer(g), dev_arg_buffer(second), dev_arg_buffer(state),
                           dev_arg_f32(rate) };
        return kernel_launch_flat(l, k, KERNEL_OPTIM_TENSOR, "adafactor_second", C, args, KERNEL_ARGS(args));
    }
    dev_arg by_row[] = { dev_arg_i32(C), dev_arg_buffer(g), dev_arg_buffer(rows), dev_arg_buffer(state),
                         dev_arg_f32(rate) };
    dev_arg by_column[] = { dev_arg_i32(R), dev_arg_i32(C), dev_arg_buffer(g), dev_arg_buffer(columns),
                            dev_arg_buffer(state), dev_arg_f32(rate) };
    dev_arg mean[] = { dev_arg_u32((uint32_t)R), dev_arg_buffer(rows), dev_arg_buffer(found) };
    gt_status st = kernel_launch_groups(l, k, KERNEL_OPTIM_TENSOR, "adafactor_rows", (size_t)R, by_row,
                                        KERNEL_ARGS(by_row));
    if (!st)
        st = kernel_launch_groups(l, k, KERNEL_OPTIM_TENSOR, "adafactor_columns",
                                  ((size_t)C + BAND - 1) / BAND, by_column, KERNEL_ARGS(by_column));
    return st ? st : kernel_launch_groups(l, k, KERNEL_OPTIM_TENSOR, "adafactor_mean", 1, mean,
                                          KERNEL_ARGS(mean));
}

gt_status kernel_adafactor(dev_list *l, kernel_set *k, int R, int C, dev_buffer *p, dev_buffer *g,
                           dev_buffer *rows, dev_buffer *columns, dev_buffer *second,
                           dev_buffer *found, dev_buffer *partial, dev_buffer *copy,
                           dev_buffer *state, float lr, float rate, float limit, float decay,
                           kernel_slot *lr_at)
{
    assert(R > 0 && C > 0 && (second ? R == 1 && !rows && !columns : rows && columns));
    dev_arg squares[] = { dev_arg_i32(C), dev_arg_buffer(g), dev_arg_buffer(rows), dev_arg_buffer(columns),
                          dev_arg_buffer(second), dev_arg_buffer(found), dev_arg_buffer(partial),
                          dev_arg_buffer(state) };
    dev_arg most[] = { dev_arg_u32((uint32_t)R), dev_arg_f32((float)((double)R * (double)C)),
                       dev_arg_buffer(partial), dev_arg_buffer(found), dev_arg_f32(limit) };
    dev_arg step[] = { dev_arg_i32(C), dev_arg_buffer(p), dev_arg_buffer(g), dev_arg_buffer(rows),
                       dev_arg_buffer(columns), dev_arg_buffer(second), dev_arg_buffer(found),
                       dev_arg_buffer(copy), dev_arg_buffer(state), dev_arg_f32(lr), dev_arg_f32(decay) };
    gt_status st = adafactor_moments(l, k, R, C, g, rows, columns, second, found, state, rate);
    if (!st)
        st = kernel_launch_groups(l, k, KERNEL_OPTIM_TENSOR, "adafactor_squares", (size_t)R, squares,
                                  KERNEL_ARGS(squares));
    if (!st)
        st = kernel_launch_groups(l, k, KERNEL_OPTIM_TENSOR, "adafactor_limit", 1, most, KERNEL_ARGS(most));
    if (!st)
        st = kernel_launch_groups(l, k, KERNEL_OPTIM_TENSOR, "adafactor_step", (size_t)R, step,
                                  KERNEL_ARGS(step));
    if (!st)
        kernel_slot_last(lr_at, l, 9);
    return st;
}
