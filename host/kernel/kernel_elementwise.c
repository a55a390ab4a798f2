/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_elementwise.c - launches of cl/elementwise.cl, and their cases: one element, one
 * result.
 *
 *     y ─► + bias ─► gelu ─► dropout ─► + residual ─► y        bias_act, each part optional
 *                └► pre
 *
 * Dropout draws the same bits on the device and in the reference, so masks agree exactly and
 * only rounding is compared.                                                            */
#include "host/kernel/kernel_cases_private.h"
#include "host/kernel/kernel_private.h"

#include <assert.h>

/* A flat kernel between two or three tensors. */
static gt_status flat(dev_list *l, kernel_set *k, const char *name, int64_t n, dev_buffer *a,
                      dev_buffer *b, dev_buffer *c)
{
    dev_arg args[5] = { [2] = dev_arg_buffer(a), [3] = dev_arg_buffer(b), [4] = dev_arg_buffer(c) };
    return kernel_launch_flat(l, k, &kernel_elementwise_family, name, n, args, c ? 5 : 4);
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

gt_status kernel_combine(dev_list *l, kernel_set *k, int64_t n, float a, dev_buffer *x, float b, dev_buffer *y)
{
    dev_arg args[] = { [2] = dev_arg_f32(a), dev_arg_buffer(x), dev_arg_f32(b), dev_arg_buffer(y) };
    return kernel_launch_flat(l, k, &kernel_elementwise_family, "combine", n, args, KERNEL_ARGS(args));
}

gt_status kernel_dropout_apply(dev_list *l, kernel_set *k, int64_t n, const kernel_dropout *drop,
                               dev_buffer *x, dev_buffer *y)
{
    dev_arg args[] = {
        [2] = dev_arg_buffer(x), dev_arg_buffer(y), dev_arg_buffer(drop->random),
        dev_arg_u32(drop->stream), dev_arg_u32(kernel_dropout_limit(drop)),
        dev_arg_f32(kernel_dropout_factor(drop)), dev_arg_u64((uint64_t)drop->sequence),
    };
    return kernel_launch_flat(l, k, &kernel_elementwise_family, "dropout", n, args, KERNEL_ARGS(args));
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
        return kernel_launch_rows(l, k, &kernel_elementwise_family, "bias_act", R, C, args,
                                  KERNEL_ARGS(args));
    return kernel_launch(l, k, &kernel_elementwise_family, "bias_act",
                         dev_grid_1d((size_t)quads, k->group), args, KERNEL_ARGS(args));
}

/* ---- cases ------------------------------------------------------------------------------------- */

/* The random buffer of dropout, and the same for the reference. The first sequence is so far from
 * the step's first that its elements' numbers need more than 32 bits; where a sequence's length is no
 * multiple of four, as in some cases, words do not begin at a quad. */
static kernel_dropout dropout_of(trial *t, reference_dropout *same)
{
    operand *o = operand_add(t, "random", INT, 4);
    o->given = 1;
    for (int i = 0; !t->status && i < 4; i++)
        o->whole[i] = (int32_t)(gt_random_u32(&t->random) >> 1);
    const int64_t sequence = elements(t);
    if (!t->status)
        *same = (reference_dropout){
            .p = 0.2f, .stream = 11, .step = (uint32_t)o->whole[2], .first = (uint32_t)o->whole[3],
            .sequence = sequence,
            .seed = (uint32_t)o->whole[0] | (uint64_t)(uint32_t)o->whole[1] << 32,
        };
    return (kernel_dropout){ .p = 0.2f, .stream = 11, .random = o->buffer, .sequence = sequence };
}

/* The exponent 2u carries its own rounding, so the relative error of e^2u grows with it. */
static double gelu_slack(double x)
{
    return U * (8.0 + 6.4 * fabs(x) * (1.0 + 0.05 * x * x));
}

static void gelu_case(trial *t)
{
    const int64_t n = elements(t);
    operand *x = give(t, "x", STORED, n, 2.0), *y = take(t, "y", STORED, n);
    append(t, kernel_gelu(t->list, t->k, n, x->buffer, y->buffer));
    t->flops = 14.0 * (double)n;
    for (int64_t i = 0; !t->status && i < n; i++) {
        const double want = reference_gelu(x->value[i]);
        expect(y, i, want, gelu_slack(x->value[i]) * fabs(want) + TINY);
    }
}

static void gelu_grad_case(trial *t)
{
    const int64_t n = elements(t);
    operand *dy = give(t, "dy", STORED, n, 1.0), *x = give(t, "x", STORED, n, 2.0);
    operand *dx = take(t, "dx", STORED, n);
    append(t, kernel_gelu_grad(t->list, t->k, n, dy->buffer, x->buffer, dx->buffer));
    t->flops = 20.0 * (double)n;
    for (int64_t i = 0; !t->status && i < n; i++) {
        const double a = x->value[i], s = 1.0 / (1.0 + exp(-1.5957691216 * (a + 0.044715 * a * a * a)));
        const double size = s + fabs(a) * s * (1.0 - s) * (1.6 + 0.22 * a * a);
        expect(dx, i, dy->value[i] * reference_gelu_slope(a),
               fabs(dy->value[i]) * (size * gelu_slack(a) + 0x1p-110));   /* x is held at -10 */
    }
}

static void bias_act_with(trial *t, int with_bias, int act, int drop, int with_residual)
{
    const int64_t n = elements(t);
    reference_dropout same = { 0 };
    kernel_dropout dropout = { 0 };
    operand *y = give(t, "y", STORED, n, 1.0);
    operand *bias = with_bias ? give(t, "bias", FLOAT, t->C, 1.0) : NULL;
    operand *pre = act ? take(t, "pre", STORED, n) : NULL;
    operand *residual = with_residual ? give(t, "residual", STORED, n, 1.0) : NULL;
    if (drop)
        dropout = dropout_of(t, &same);
    if (t->status)
        return;
    append(t, kernel_bias_act(t->list, t->k, t->R, t->C, y->buffer, bias ? bias->buffer : NULL,
                              pre ? pre->buffer : NULL, drop ? &dropout : NULL,
                              residual ? residual->buffer : NULL));
    t->flops = (act ? 15.0 : 1.0) * (double)n;
    for (int64_t i = 0; i < n; i++)
        y->want[i] = y->value[i];
    reference_bias_act(t->R, t->C, y->want, bias ? bias->value : NULL, pre ? pre->want : NULL,
                       drop ? &same : NULL, residual ? residual->value : NULL);
    y->checked = 1;
    for (int64_t i = 0; i < n; i++) {
        const double b = bias ? bias->value[i % t->C] : 0.0, x = y->value[i] + b;
        const double size = fabs(y->value[i]) + fabs(b);
        if (pre)
            pre->slack[i] = (float)(U * size);
        const double act_error = act ? U * 2.2 * size + gelu_slack(x) * fabs(reference_gelu(x))
                                     : U * size;
        y->slack[i] = (float)(1.25 * act_error + 4.0 * U * (size + fabs(y->want[i])) + TINY);
    }
}

static void bias_case(trial *t)     { bias_act_with(t, 1, 0, 0, 0); }
static void bias_gelu_case(trial *t) { bias_act_with(t, 1, 1, 0, 0); }
static void bias_drop_case(trial *t) { bias_act_with(t, 1, 0, 1, 1); }
static void all_of_it_case(trial *t) { bias_act_with(t, 1, 1, 1, 1); }
static void residual_case(trial *t) { bias_act_with(t, 0, 0, 0, 1); }

static void add_case(trial *t)
{
    const int64_t n = elements(t);
    operand *a = give(t, "a", STORED, n, 1.0), *b = give(t, "b", STORED, n, 1.0);
    operand *y = take(t, "y", STORED, n);
    append(t, kernel_add(t->list, t->k, n, a->buffer, b->buffer, y->buffer));
    t->flops = (double)n;
    for (int64_t i = 0; !t->status && i < n; i++)
        expect(y, i, a->value[i] + b->value[i], U * fabs(a->value[i] + b->value[i]));
}

static void dropout_case(trial *t)
{
    const int64_t n = elements(t);
    reference_dropout same;
    operand *x = give(t, "x", STORED, n, 1.0), *y = take(t, "y", STORED, n);
    const kernel_dropout drop = dropout_of(t, &same);
    append(t, kernel_dropout_apply(t->list, t->k, n, &drop, x->buffer, y->buffer));
    for (int64_t i = 0; !t->status && i < n; i++) {
        const double want = x->value[i] * reference_keep(&same, (uint64_t)i);
        expect(y, i, want, 2.0 * U * fabs(want));
    }
}

static void combine_case(trial *t)
{
    const int64_t n = elements(t);
    const double a = 0.75, b = -1.0;
    operand *x = give(t, "x", FLOAT, n, 1.0), *y = give(t, "y", FLOAT, n, 1.0);
    append(t, kernel_combine(t->list, t->k, n, (float)a, x->buffer, (float)b, y->buffer));
    t->flops = 3.0 * (double)n;
    y->checked = 1;
    for (int64_t i = 0; !t->status && i < n; i++)
        expect(y, i, a * x->value[i] + b * y->value[i], 2.0 * U * (fabs(a * x->value[i]) + fabs(y->value[i])));
}

typedef gt_status (*convert)(dev_list *l, kernel_set *k, int64_t n, dev_buffer *from, dev_buffer *to);

static void convert_with(trial *t, convert kernel, kind from, kind to)
{
    const int64_t n = elements(t);
    operand *x = give(t, "x", from, n, 1.0), *y = take(t, "y", to, n);
    append(t, kernel(t->list, t->k, n, x->buffer, y->buffer));
    for (int64_t i = 0; !t->status && i < n; i++)
        expect(y, i, x->value[i], 0.0);
}

static void store_case(trial *t) { convert_with(t, kernel_store, FLOAT, STORED); }
static void load_case(trial *t)  { convert_with(t, kernel_load, STORED, FLOAT); }

static const kernel_case cases[] = {
    { "gelu", gelu_case, 4096, 3072 },
    { "gelu gradient", gelu_grad_case, 4096, 3072 },
    { "bias", bias_case, 8192, 768 },
    { "bias + gelu", bias_gelu_case, 4096, 3072 },
    { "bias + dropout + residual", bias_drop_case, 8192, 768 },
    { "bias + gelu + dropout + residual", all_of_it_case, 0, 0 },
    { "residual", residual_case, 0, 0 },
    { "add", add_case, 8192, 768 },
    { "dropout", dropout_case, 8192, 768 },
    { "store", store_case, 8192, 768 },
    { "load", load_case, 8192, 768 },
    { "combine", combine_case, 8192, 768 },
    { 0 },
};

const kernel_family kernel_elementwise_family = {
    .program = { .file = "elementwise.cl", .stored = 1, .variants = dev_plain_for_all }, .cases = cases,
};
