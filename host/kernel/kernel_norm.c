/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_norm.c - launches of cl/norm.cl, and their cases: layernorm and rmsnorm, their gradients,
 * bias gradient.
 *
 *     rows      y, dx               sums over C of a row
 *     columns   dgain, dbias        sums over R of a column, in blocks if there are many rows
 *
 * To the gradients' cases mean and rstd are given as layernorm would have left them, in float. */
#include "host/kernel/kernel_cases_private.h"
#include "host/kernel/kernel_private.h"

#include <assert.h>
#include <stdlib.h>

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

gt_status kernel_layernorm(dev_list *l, kernel_set *k, int R, int C, float eps, dev_buffer *x, dev_buffer *gain,
                           dev_buffer *bias, dev_buffer *y, dev_buffer *mean, dev_buffer *rstd)
{
    assert(!mean == !rstd);
    dev_arg args[] = {
        dev_arg_i32(1),       dev_arg_i32(R),       dev_arg_i32(C),    dev_arg_f32(eps),     dev_arg_buffer(x),
        dev_arg_buffer(gain), dev_arg_buffer(bias), dev_arg_buffer(y), dev_arg_buffer(mean), dev_arg_buffer(rstd),
    };
    return kernel_launch_rows(l, k, &kernel_norm_family, "layernorm", R, C, args, KERNEL_ARGS(args));
}

gt_status kernel_layernorm_input_grad(dev_list *l, kernel_set *k, int R, int C, dev_buffer *dy, dev_buffer *x,
                                      dev_buffer *gain, dev_buffer *mean, dev_buffer *rstd, dev_buffer *residual,
                                      dev_buffer *dx)
{
    dev_arg args[] = {
        dev_arg_i32(1),       dev_arg_i32(R),       dev_arg_i32(C),       dev_arg_buffer(dy),       dev_arg_buffer(x),
        dev_arg_buffer(gain), dev_arg_buffer(mean), dev_arg_buffer(rstd), dev_arg_buffer(residual), dev_arg_buffer(dx),
    };
    return kernel_launch_rows(l, k, &kernel_norm_family, "layernorm_input_grad", R, C, args, KERNEL_ARGS(args));
}

/* The second half of a column sum: scratch into out0 and, unless it is NULL, out1. */
static gt_status finish(dev_list *l, kernel_set *k, int R, int C, dev_buffer *scratch, dev_buffer *out0,
                        dev_buffer *out1, int add, kernel_slot *add_at)
{
    dev_arg args[] = {
        dev_arg_i32(C),          dev_arg_i32((int32_t)slabs_of(R)),
        dev_arg_buffer(scratch), dev_arg_buffer(out0),
        dev_arg_buffer(out1),    dev_arg_i32(add),
    };
    const size_t own = k->cpu ? FINISH_CPU : k->group < FINISH_GPU ? k->group : FINISH_GPU;
    const size_t blocks = divide_up((size_t)C, own) * (out1 ? 2 : 1);
    gt_status st = kernel_launch_groups(l, k, &kernel_norm_family, "column_finish", blocks, args, KERNEL_ARGS(args));
    if (!st)
        kernel_slot_last(add_at, l, 5);
    return st;
}

static gt_status partial(dev_list *l, kernel_set *k, const char *name, int R, int C, const dev_arg *args, int count)
{
    const size_t strips = divide_up((size_t)C, k->cpu ? STRIP : k->group);
    return kernel_launch_groups(l, k, &kernel_norm_family, name, slabs_of(R) * strips, args, count);
}

gt_status kernel_layernorm_weight_grad(dev_list *l, kernel_set *k, int R, int C, dev_buffer *dy, dev_buffer *x,
                                       dev_buffer *mean, dev_buffer *rstd, dev_buffer *dgain, dev_buffer *dbias,
                                       dev_buffer *scratch, int add, kernel_slot *add_at)
{
    dev_arg args[] = {
        dev_arg_i32(R),       dev_arg_i32(C),       dev_arg_buffer(dy),      dev_arg_buffer(x),
        dev_arg_buffer(mean), dev_arg_buffer(rstd), dev_arg_buffer(scratch),
    };
    gt_status st = partial(l, k, "layernorm_weight_partial", R, C, args, KERNEL_ARGS(args));
    return st ? st : finish(l, k, R, C, scratch, dgain, dbias, add, add_at);
}

gt_status kernel_rmsnorm(dev_list *l, kernel_set *k, int R, int C, float eps, float offset, dev_buffer *x,
                         dev_buffer *gain, dev_buffer *y, dev_buffer *rstd)
{
    dev_arg args[] = {
        dev_arg_i32(1),    dev_arg_i32(R),       dev_arg_i32(C),    dev_arg_f32(eps),     dev_arg_f32(offset),
        dev_arg_buffer(x), dev_arg_buffer(gain), dev_arg_buffer(y), dev_arg_buffer(rstd),
    };
    return kernel_launch_rows(l, k, &kernel_norm_family, "rmsnorm", R, C, args, KERNEL_ARGS(args));
}

gt_status kernel_rmsnorm_input_grad(dev_list *l, kernel_set *k, int R, int C, float offset, dev_buffer *dy,
                                    dev_buffer *x, dev_buffer *gain, dev_buffer *rstd, dev_buffer *residual,
                                    dev_buffer *dx)
{
    dev_arg args[] = {
        dev_arg_i32(1),    dev_arg_i32(R),       dev_arg_i32(C),       dev_arg_f32(offset),      dev_arg_buffer(dy),
        dev_arg_buffer(x), dev_arg_buffer(gain), dev_arg_buffer(rstd), dev_arg_buffer(residual), dev_arg_buffer(dx),
    };
    return kernel_launch_rows(l, k, &kernel_norm_family, "rmsnorm_input_grad", R, C, args, KERNEL_ARGS(args));
}

gt_status kernel_rmsnorm_weight_grad(dev_list *l, kernel_set *k, int R, int C, dev_buffer *dy, dev_buffer *x,
                                     dev_buffer *rstd, dev_buffer *dgain, dev_buffer *scratch, int add,
                                     kernel_slot *add_at)
{
    dev_arg args[] = {
        dev_arg_i32(R),    dev_arg_i32(C),       dev_arg_buffer(dy),
        dev_arg_buffer(x), dev_arg_buffer(rstd), dev_arg_buffer(scratch),
    };
    gt_status st = partial(l, k, "rmsnorm_weight_partial", R, C, args, KERNEL_ARGS(args));
    return st ? st : finish(l, k, R, C, scratch, dgain, NULL, add, add_at);
}

gt_status kernel_bias_grad(dev_list *l, kernel_set *k, int R, int C, dev_buffer *dy, dev_buffer *dbias,
                           dev_buffer *scratch, int add, kernel_slot *add_at)
{
    dev_arg args[] = {
        dev_arg_i32(R),
        dev_arg_i32(C),
        dev_arg_buffer(dy),
        dev_arg_buffer(scratch),
    };
    gt_status st = partial(l, k, "bias_partial", R, C, args, KERNEL_ARGS(args));
    return st ? st : finish(l, k, R, C, scratch, dbias, NULL, add, add_at);
}

/* ---- cases ------------------------------------------------------------------------------------- */

/* Rows with an offset of a thousand deviations show whether the variance survives it. */
static void layernorm_with(trial *t, int keep, double offset)
{
    const int64_t n = elements(t);
    operand *x = give(t, "x", offset != 0.0 ? FLOAT : STORED, n, 1.0);
    operand *gain = give(t, "gain", FLOAT, t->C, 1.0), *bias = give(t, "bias", FLOAT, t->C, 1.0);
    operand *y = take(t, "y", STORED, n);
    operand *mean = keep ? take(t, "mean", FLOAT, t->R) : NULL;
    operand *rstd = keep ? take(t, "rstd", FLOAT, t->R) : NULL;
    if (t->status)
        return;
    for (int64_t i = 0; i < n && offset != 0.0; i++)
        x->value[i] = x->want[i] = (double)(float)(x->value[i] + offset);
    append(t, kernel_layernorm(t->list, t->k, t->R, t->C, 1e-5f, x->buffer, gain->buffer, bias->buffer, y->buffer,
                               mean ? mean->buffer : NULL, rstd ? rstd->buffer : NULL));
    t->flops = 8.0 * (double)n;
    double *stats = calloc(2 * (size_t)t->R, sizeof *stats);
    if (!stats) {
        t->status = gt_fail(GT_NO_MEMORY, "no memory for the statistics of %d rows", t->R);
        return;
    }
    double *m = stats, *s = stats + t->R;
    reference_layernorm(t->R, t->C, (double)1e-5f, x->value, gain->value, bias->value, y->want, m, s);
    const double f = ROUNDINGS(t->C);
    for (int r = 0; r < t->R; r++) {
        double size = 0.0;
        for (int c = 0; c < t->C; c++)
            size += fabs(x->value[(int64_t)r * t->C + c]) / t->C;
        /* An error e of the mean moves the variance by e^2 and each d by e. */
        const double mean_error = U * f * size,
                     rstd_error = U * f * s[r] + mean_error * mean_error * s[r] * s[r] * s[r];
        for (int c = 0; c < t->C; c++) {
            const int64_t i = (int64_t)r * t->C + c;
            const double d = fabs(x->value[i] - m[r]), g = fabs(gain->value[c]);
            y->slack[i] = (float)((mean_error * s[r] + d * rstd_error) * g
                                  + 4.0 * U * (d * s[r] * g + fabs(bias->value[c])));
        }
        if (keep) {
            expect(mean, r, m[r], mean_error);
            expect(rstd, r, s[r], rstd_error + 4.0 * U * s[r]);
        }
    }
    free(stats);
}

static void layernorm_case(trial *t)
{
    layernorm_with(t, 1, 0.0);
}
static void layernorm_bare_case(trial *t)
{
    layernorm_with(t, 0, 0.0);
}
static void layernorm_far_case(trial *t)
{
    if (kernel_set_storage(t->k) == DTYPE_F32)
        layernorm_with(t, 1, 1000.0);
}

/* mean and rstd as layernorm would have left them. */
static void give_stats(trial *t, const operand *x, operand **mean, operand **rstd)
{
    *mean = give(t, "mean", FLOAT, t->R, 1.0);
    *rstd = give(t, "rstd", FLOAT, t->R, 1.0);
    for (int r = 0; !t->status && r < t->R; r++) {
        double m = 0.0, v = 0.0;
        for (int c = 0; c < t->C; c++)
            m += x->value[(int64_t)r * t->C + c] / t->C;
        for (int c = 0; c < t->C; c++)
            v += pow(x->value[(int64_t)r * t->C + c] - m, 2.0) / t->C;
        (*mean)->value[r] = (*mean)->want[r] = (double)(float)m;
        (*rstd)->value[r] = (*rstd)->want[r] = (double)(float)(1.0 / sqrt(v + 1e-5));
    }
}

static void layernorm_input_grad_with(trial *t, int with_residual)
{
    const int64_t n = elements(t);
    operand *dy = give(t, "dy", STORED, n, 1.0), *x = give(t, "x", STORED, n, 1.0);
    operand *gain = give(t, "gain", FLOAT, t->C, 1.0), *mean, *rstd;
    give_stats(t, x, &mean, &rstd);
    /* in place: dx is the residual's buffer, as a residual stream has it */
    operand *dx = with_residual ? give(t, "dx", STORED, n, 1.0) : take(t, "dx", STORED, n);
    if (t->status)
        return;
    append(t, kernel_layernorm_input_grad(t->list, t->k, t->R, t->C, dy->buffer, x->buffer, gain->buffer, mean->buffer,
                                          rstd->buffer, with_residual ? dx->buffer : NULL, dx->buffer));
    t->flops = 14.0 * (double)n;
    dx->checked = 1;
    reference_layernorm_input_grad(t->R, t->C, dy->value, x->value, gain->value, mean->value, rstd->value,
                                   with_residual ? dx->value : NULL, dx->want);
    const double f = ROUNDINGS(t->C);
    for (int r = 0; r < t->R; r++) {
        double a = 0.0, b = 0.0;
        for (int c = 0; c < t->C; c++) {
            const int64_t i = (int64_t)r * t->C + c;
            const double h = fabs(dy->value[i] * gain->value[c]);
            a += h / t->C;
            b += h * fabs(x->value[i] - mean->value[r]) * rstd->value[r] / t->C;
        }
        for (int c = 0; c < t->C; c++) {
            const int64_t i = (int64_t)r * t->C + c;
            const double h = fabs(dy->value[i] * gain->value[c]);
            const double xhat = fabs(x->value[i] - mean->value[r]) * rstd->value[r];
            dx->slack[i] = (float)(U
                                   * (rstd->value[r] * (6.0 * h + f * (a + xhat * b))
                                      + (with_residual ? 2.0 * fabs(dx->value[i]) : 0.0) + fabs(dx->want[i])));
        }
    }
}

static void layernorm_input_grad_case(trial *t)
{
    layernorm_input_grad_with(t, 0);
}
static void layernorm_residual_grad_case(trial *t)
{
    layernorm_input_grad_with(t, 1);
}

static void layernorm_weight_grad_with(trial *t, int add)
{
    const int64_t n = elements(t);
    operand *dy = give(t, "dy", STORED, n, 1.0), *x = give(t, "x", STORED, n, 1.0), *mean, *rstd;
    give_stats(t, x, &mean, &rstd);
    operand *dgain = give(t, "dgain", FLOAT, t->C, 1.0), *dbias = give(t, "dbias", FLOAT, t->C, 1.0);
    operand *work = scratch(t, kernel_column_scratch(t->k, t->R, t->C, 2));
    if (t->status)
        return;
    kernel_slot slot;
    append(t, kernel_layernorm_weight_grad(t->list, t->k, t->R, t->C, dy->buffer, x->buffer, mean->buffer, rstd->buffer,
                                           dgain->buffer, dbias->buffer, work->buffer, !add, &slot));
    set_slot(t, slot, dev_arg_i32(add));
    t->flops = 5.0 * (double)n;
    dgain->checked = dbias->checked = 1;
    reference_layernorm_weight_grad(t->R, t->C, dy->value, x->value, mean->value, rstd->value, dgain->want, dbias->want,
                                    add);
    for (int c = 0; c < t->C; c++) {
        double g = 0.0, b = 0.0;
        for (int r = 0; r < t->R; r++) {
            const int64_t i = (int64_t)r * t->C + c;
            g += fabs(dy->value[i] * (x->value[i] - mean->value[r]) * rstd->value[r]);
            b += fabs(dy->value[i]);
        }
        dgain->slack[c] = (float)(U * (ROUNDINGS(t->R) * g + 2.0 * fabs(dgain->value[c])));
        dbias->slack[c] = (float)(U * (ROUNDINGS(t->R) * b + 2.0 * fabs(dbias->value[c])));
    }
}

static void layernorm_weight_grad_case(trial *t)
{
    layernorm_weight_grad_with(t, 0);
}
static void layernorm_weight_more_case(trial *t)
{
    layernorm_weight_grad_with(t, 1);
}

/* What the weight is added to: 0, or 1 as in Gemma. */
static void rmsnorm_with(trial *t, int keep, double offset)
{
    const int64_t n = elements(t);
    operand *x = give(t, "x", STORED, n, 1.0), *gain = give(t, "gain", FLOAT, t->C, 1.0);
    operand *y = take(t, "y", STORED, n), *rstd = keep ? take(t, "rstd", FLOAT, t->R) : NULL;
    double *s = calloc((size_t)t->R, sizeof *s);
    if (!s)
        append(t, gt_fail(GT_NO_MEMORY, "no memory for the statistics of %d rows", t->R));
    append(t, kernel_rmsnorm(t->list, t->k, t->R, t->C, 1e-5f, (float)offset, x->buffer, gain->buffer, y->buffer,
                             rstd ? rstd->buffer : NULL));
    t->flops = 5.0 * (double)n;
    if (!t->status)
        reference_rmsnorm(t->R, t->C, (double)1e-5f, offset, x->value, gain->value, y->want, s);
    for (int r = 0; !t->status && r < t->R; r++) {
        const double f = ROUNDINGS(t->C);
        for (int c = 0; c < t->C; c++) {
            const int64_t i = (int64_t)r * t->C + c;
            y->slack[i] = (float)(U * fabs(x->value[i]) * s[r] * (fabs(gain->value[c]) + offset) * (f + 6.0));
        }
        if (keep)
            expect(rstd, r, s[r], U * s[r] * (f + 4.0));
    }
    free(s);
}

static void rmsnorm_case(trial *t)
{
    rmsnorm_with(t, 1, 0.0);
}
static void rmsnorm_bare_case(trial *t)
{
    rmsnorm_with(t, 0, 1.0);
}

/* rstd as rmsnorm would have left it. */
static operand *give_root(trial *t, const operand *x)
{
    operand *rstd = give(t, "rstd", FLOAT, t->R, 1.0);
    for (int r = 0; !t->status && r < t->R; r++) {
        double square = 0.0;
        for (int c = 0; c < t->C; c++)
            square += pow(x->value[(int64_t)r * t->C + c], 2.0) / t->C;
        rstd->value[r] = rstd->want[r] = (double)(float)(1.0 / sqrt(square + 1e-5));
    }
    return rstd;
}

static void rmsnorm_input_grad_with(trial *t, int with_residual, double offset)
{
    const int64_t n = elements(t);
    operand *dy = give(t, "dy", STORED, n, 1.0), *x = give(t, "x", STORED, n, 1.0);
    operand *gain = give(t, "gain", FLOAT, t->C, 1.0), *rstd = give_root(t, x);
    operand *dx = with_residual ? give(t, "dx", STORED, n, 1.0) : take(t, "dx", STORED, n);
    if (t->status)
        return;
    append(t, kernel_rmsnorm_input_grad(t->list, t->k, t->R, t->C, (float)offset, dy->buffer, x->buffer, gain->buffer,
                                        rstd->buffer, with_residual ? dx->buffer : NULL, dx->buffer));
    t->flops = 10.0 * (double)n;
    dx->checked = 1;
    reference_rmsnorm_input_grad(t->R, t->C, offset, dy->value, x->value, gain->value, rstd->value,
                                 with_residual ? dx->value : NULL, dx->want);
    const double f = ROUNDINGS(t->C);
    for (int r = 0; r < t->R; r++) {
        double b = 0.0;
        for (int c = 0; c < t->C; c++) {
            const int64_t i = (int64_t)r * t->C + c;
            b += fabs(dy->value[i]) * (fabs(gain->value[c]) + offset) * fabs(x->value[i]) * rstd->value[r] / t->C;
        }
        for (int c = 0; c < t->C; c++) {
            const int64_t i = (int64_t)r * t->C + c;
            const double h = fabs(dy->value[i]) * (fabs(gain->value[c]) + offset);
            dx->slack[i] = (float)(U
                                   * (rstd->value[r] * (6.0 * h + (f + 4.0) * fabs(x->value[i]) * rstd->value[r] * b)
                                      + (with_residual ? 2.0 * fabs(dx->value[i]) : 0.0) + fabs(dx->want[i])));
        }
    }
}

static void rmsnorm_input_grad_case(trial *t)
{
    rmsnorm_input_grad_with(t, 0, 1.0);
}
static void rmsnorm_residual_grad_case(trial *t)
{
    rmsnorm_input_grad_with(t, 1, 0.0);
}

static void rmsnorm_weight_grad_with(trial *t, int add)
{
    const int64_t n = elements(t);
    operand *dy = give(t, "dy", STORED, n, 1.0), *x = give(t, "x", STORED, n, 1.0), *rstd = give_root(t, x);
    operand *dgain = give(t, "dgain", FLOAT, t->C, 1.0);
    operand *work = scratch(t, kernel_column_scratch(t->k, t->R, t->C, 1));
    if (t->status)
        return;
    kernel_slot slot;
    append(t, kernel_rmsnorm_weight_grad(t->list, t->k, t->R, t->C, dy->buffer, x->buffer, rstd->buffer, dgain->buffer,
                                         work->buffer, !add, &slot));
    set_slot(t, slot, dev_arg_i32(add));
    t->flops = 3.0 * (double)n;
    dgain->checked = 1;
    reference_rmsnorm_weight_grad(t->R, t->C, dy->value, x->value, rstd->value, dgain->want, add);
    for (int c = 0; c < t->C; c++) {
        double g = 0.0;
        for (int r = 0; r < t->R; r++) {
            const int64_t i = (int64_t)r * t->C + c;
            g += fabs(dy->value[i] * x->value[i] * rstd->value[r]);
        }
        dgain->slack[c] = (float)(U * (ROUNDINGS(t->R) * g + 2.0 * fabs(dgain->value[c])));
    }
}

static void rmsnorm_weight_grad_case(trial *t)
{
    rmsnorm_weight_grad_with(t, 0);
}
static void rmsnorm_weight_more_case(trial *t)
{
    rmsnorm_weight_grad_with(t, 1);
}

static void bias_grad_with(trial *t, int add)
{
    operand *dy = give(t, "dy", STORED, elements(t), 1.0);
    operand *dbias = give(t, "dbias", FLOAT, t->C, 1.0);
    operand *work = scratch(t, kernel_column_scratch(t->k, t->R, t->C, 1));
    if (t->status)
        return;
    kernel_slot slot;
    append(t, kernel_bias_grad(t->list, t->k, t->R, t->C, dy->buffer, dbias->buffer, work->buffer, !add, &slot));
    set_slot(t, slot, dev_arg_i32(add));
    t->flops = (double)elements(t);
    dbias->checked = 1;
    reference_bias_grad(t->R, t->C, dy->value, dbias->want, add);
    for (int c = 0; c < t->C; c++) {
        double b = 0.0;
        for (int r = 0; r < t->R; r++)
            b += fabs(dy->value[(int64_t)r * t->C + c]);
        dbias->slack[c] = (float)(U * (ROUNDINGS(t->R) * b + 2.0 * fabs(dbias->value[c])));
    }
}

static void bias_grad_case(trial *t)
{
    bias_grad_with(t, 0);
}
static void bias_grad_more_case(trial *t)
{
    bias_grad_with(t, 1);
}

static const kernel_case cases[] = {
    { "layernorm", layernorm_case, 8192, 768 },
    { "layernorm, nothing kept", layernorm_bare_case, 0, 0 },
    { "layernorm far from 0", layernorm_far_case, 0, 0 },
    { "layernorm input gradient", layernorm_input_grad_case, 8192, 768 },
    { "layernorm input gradient + residual", layernorm_residual_grad_case, 0, 0 },
    { "layernorm weight gradient", layernorm_weight_grad_case, 8192, 768 },
    { "layernorm weight gradient, added", layernorm_weight_more_case, 0, 0 },
    { "rmsnorm", rmsnorm_case, 8192, 768 },
    { "rmsnorm, nothing kept, of 1 + gain", rmsnorm_bare_case, 0, 0 },
    { "rmsnorm input gradient", rmsnorm_input_grad_case, 8192, 768 },
    { "rmsnorm input gradient + residual", rmsnorm_residual_grad_case, 0, 0 },
    { "rmsnorm weight gradient", rmsnorm_weight_grad_case, 8192, 768 },
    { "rmsnorm weight gradient, added", rmsnorm_weight_more_case, 0, 0 },
    { "bias gradient", bias_grad_case, 4096, 3072 },
    { "bias gradient, added", bias_grad_more_case, 0, 0 },
    { 0 },
};

const kernel_family kernel_norm_family = {
    .program = { .file = "norm.cl", .stored = 1, .variants = dev_plain_for_all },
    .cases = cases,
};
