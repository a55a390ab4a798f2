/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_elementwise.c - launches of cl/elementwise.cl, and their cases: one element, one
 * result.
 *
 * Dropout draws the same bits on the device and in the reference, so masks agree exactly and
 * only rounding is compared.                                                            */
#include "host/kernel/kernel_cases_private.h"
#include "host/kernel/kernel_private.h"

#include <assert.h>

/* Each program has one activation; the first variant's serves all other kernels as well. */
#define VARIANT(constant, name, option) [constant - 1] = { option, DEV_FOR_ALL },
static const dev_variant variants[] = { ACTIVATIONS(VARIANT){ 0 } };
#undef VARIANT

/* A flat kernel between two or three tensors. */
static gt_status flat(dev_list *l, kernel_set *k, int variant, const char *name, int64_t n, dev_buffer *a,
                      dev_buffer *b, dev_buffer *c)
{
    dev_arg args[5] = { [2] = dev_arg_buffer(a), [3] = dev_arg_buffer(b), [4] = dev_arg_buffer(c) };
    return kernel_launch_flat(l, k, &kernel_elementwise_family, variant, name, n, args, c ? 5 : 4);
}

gt_status kernel_activation(dev_list *l, kernel_set *k, activation act, int64_t n, dev_buffer *x, dev_buffer *y)
{
    assert(act != ACT_NONE);
    return flat(l, k, (int)act - 1, "activation", n, x, y, NULL);
}

gt_status kernel_activation_grad(dev_list *l, kernel_set *k, activation act, int64_t n, dev_buffer *dy, dev_buffer *x,
                                 dev_buffer *dx)
{
    assert(act != ACT_NONE);
    return flat(l, k, (int)act - 1, "activation_grad", n, dy, x, dx);
}

gt_status kernel_gated(dev_list *l, kernel_set *k, activation act, int64_t n, dev_buffer *gate, dev_buffer *up,
                       dev_buffer *y)
{
    assert(act != ACT_NONE);
    return flat(l, k, (int)act - 1, "gated", n, gate, up, y);
}

gt_status kernel_gated_grad(dev_list *l, kernel_set *k, activation act, int64_t n, dev_buffer *dy, dev_buffer *gate,
                            dev_buffer *up, dev_buffer *dgate, dev_buffer *dup)
{
    assert(act != ACT_NONE);
    dev_arg args[] = {
        [2] = dev_arg_buffer(dy), dev_arg_buffer(gate), dev_arg_buffer(up), dev_arg_buffer(dgate), dev_arg_buffer(dup)
    };
    return kernel_launch_flat(l, k, &kernel_elementwise_family, (int)act - 1, "gated_grad", n, args, KERNEL_ARGS(args));
}

gt_status kernel_times(dev_list *l, kernel_set *k, int64_t n, float a, dev_buffer *x, dev_buffer *y)
{
    dev_arg args[] = { [2] = dev_arg_f32(a), dev_arg_buffer(x), dev_arg_buffer(y) };
    return kernel_launch_flat(l, k, &kernel_elementwise_family, 0, "times", n, args, KERNEL_ARGS(args));
}

gt_status kernel_add(dev_list *l, kernel_set *k, int64_t n, dev_buffer *a, dev_buffer *b, dev_buffer *y)
{
    return flat(l, k, 0, "add", n, a, b, y);
}

gt_status kernel_store(dev_list *l, kernel_set *k, int64_t n, dev_buffer *from_f32, dev_buffer *to)
{
    return flat(l, k, 0, "narrow", n, from_f32, to, NULL);
}

gt_status kernel_load(dev_list *l, kernel_set *k, int64_t n, dev_buffer *from, dev_buffer *to_f32)
{
    return flat(l, k, 0, "widen", n, from, to_f32, NULL);
}

gt_status kernel_combine(dev_list *l, kernel_set *k, int64_t n, float a, dev_buffer *x, float b, dev_buffer *y)
{
    dev_arg args[] = { [2] = dev_arg_f32(a), dev_arg_buffer(x), dev_arg_f32(b), dev_arg_buffer(y) };
    return kernel_launch_flat(l, k, &kernel_elementwise_family, 0, "combine", n, args, KERNEL_ARGS(args));
}

gt_status kernel_dropout_apply(dev_list *l, kernel_set *k, int64_t n, const kernel_dropout *drop, dev_buffer *x,
                               dev_buffer *y)
{
    dev_arg args[] = {
        [2] = dev_arg_buffer(x),
        dev_arg_buffer(y),
        dev_arg_buffer(drop->random),
        dev_arg_u32(drop->stream),
        dev_arg_u32(kernel_dropout_limit(drop)),
        dev_arg_f32(kernel_dropout_factor(drop)),
        dev_arg_u64((uint64_t)drop->sequence),
        dev_arg_u64((uint64_t)drop->before),
    };
    return kernel_launch_flat(l, k, &kernel_elementwise_family, 0, "dropout", n, args, KERNEL_ARGS(args));
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
            .p = 0.2f,
            .stream = 11,
            .step = (uint32_t)o->whole[2],
            .first = (uint32_t)o->whole[3],
            .sequence = sequence,
            .seed = (uint32_t)o->whole[0] | (uint64_t)(uint32_t)o->whole[1] << 32,
        };
    return (kernel_dropout){ .p = 0.2f, .stream = 11, .random = o->buffer, .sequence = sequence };
}

/* The argument of an exp or erfc carries its own rounding, so the relative error grows with it; OpenCL
 * allows erfc itself 16 units. */
static double act_slack(activation act, double x)
{
    const double least = act == ACT_GELU_ERF ? 40.0 : 8.0;
    return act == ACT_RELU ? 0.0 : U * (least + 6.4 * fabs(x) * (1.0 + 0.05 * x * x));
}

static void activation_with(trial *t, activation act)
{
    const int64_t n = elements(t);
    operand *x = give(t, "x", STORED, n, 2.0), *y = take(t, "y", STORED, n);
    append(t, kernel_activation(t->list, t->k, act, n, x->buffer, y->buffer));
    t->flops = 14.0 * (double)n;
    for (int64_t i = 0; !t->status && i < n; i++) {
        const double want = reference_activation(act, x->value[i]);
        expect(y, i, want, act_slack(act, x->value[i]) * fabs(want) + TINY);
    }
}

/* Of x gate(x) the slope has two terms: gate and x times its derivative. */
static void activation_grad_with(trial *t, activation act)
{
    const int64_t n = elements(t);
    operand *dy = give(t, "dy", STORED, n, 1.0), *x = give(t, "x", STORED, n, 2.0);
    operand *dx = take(t, "dx", STORED, n);
    append(t, kernel_activation_grad(t->list, t->k, act, n, dy->buffer, x->buffer, dx->buffer));
    t->flops = 20.0 * (double)n;
    for (int64_t i = 0; !t->status && i < n; i++) {
        const double a = x->value[i], slope = reference_activation_slope(act, a);
        const double gate = a == 0.0 ? slope : reference_activation(act, a) / a;
        const double size = fabs(gate) + fabs(slope - gate);
        expect(dx, i, dy->value[i] * slope, fabs(dy->value[i]) * (size * (act_slack(act, a) + U) + 0x1p-110));
    }
}

static void gated_with(trial *t, activation act)
{
    const int64_t n = elements(t);
    operand *gate = give(t, "gate", STORED, n, 2.0), *up = give(t, "up", STORED, n, 1.0);
    operand *y = take(t, "y", STORED, n);
    append(t, kernel_gated(t->list, t->k, act, n, gate->buffer, up->buffer, y->buffer));
    t->flops = 15.0 * (double)n;
    for (int64_t i = 0; !t->status && i < n; i++) {
        const double want = reference_activation(act, gate->value[i]) * up->value[i];
        expect(y, i, want, (act_slack(act, gate->value[i]) + U) * fabs(want) + TINY);
    }
}

static void gated_grad_with(trial *t, activation act)
{
    const int64_t n = elements(t);
    operand *dy = give(t, "dy", STORED, n, 1.0), *gate = give(t, "gate", STORED, n, 2.0);
    operand *up = give(t, "up", STORED, n, 1.0);
    operand *dgate = take(t, "dgate", STORED, n), *dup = take(t, "dup", STORED, n);
    append(t,
           kernel_gated_grad(t->list, t->k, act, n, dy->buffer, gate->buffer, up->buffer, dgate->buffer, dup->buffer));
    t->flops = 30.0 * (double)n;
    for (int64_t i = 0; !t->status && i < n; i++) {
        const double a = gate->value[i], slope = reference_activation_slope(act, a), y = reference_activation(act, a);
        const double share = a == 0.0 ? slope : y / a, slack = act_slack(act, a) + 2.0 * U;
        const double both = fabs(dy->value[i] * up->value[i]);
        expect(dgate, i, dy->value[i] * up->value[i] * slope,
               both * ((fabs(share) + fabs(slope - share)) * slack + 0x1p-110));
        expect(dup, i, dy->value[i] * y, fabs(dy->value[i]) * (fabs(y) * slack + 0x1p-110));
    }
}

#define CASES(constant, name, option) \
    static void name##_case(trial *t) \
    { \
        activation_with(t, constant); \
    } \
    static void name##_grad_case(trial *t) \
    { \
        activation_grad_with(t, constant); \
    } \
    static void name##_gated_case(trial *t) \
    { \
        gated_with(t, constant); \
    } \
    static void name##_gated_grad_case(trial *t) \
    { \
        gated_grad_with(t, constant); \
    }
ACTIVATIONS(CASES)
#undef CASES

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

static void times_case(trial *t)
{
    const int64_t n = elements(t);
    const double a = (double)45.254834f;                /* sqrt(2048) */
    operand *x = give(t, "x", STORED, n, 1.0), *y = take(t, "y", STORED, n);
    append(t, kernel_times(t->list, t->k, n, (float)a, x->buffer, y->buffer));
    t->flops = (double)n;
    for (int64_t i = 0; !t->status && i < n; i++)
        expect(y, i, a * x->value[i], U * fabs(a * x->value[i]));
}

static void dropout_case(trial *t)
{
    const int64_t n = elements(t);
    reference_dropout same;
    operand *x = give(t, "x", STORED, n, 1.0), *y = take(t, "y", STORED, n);
    kernel_dropout drop = dropout_of(t, &same);
    drop.before = 6;
    append(t, kernel_dropout_apply(t->list, t->k, n, &drop, x->buffer, y->buffer));
    for (int64_t i = 0; !t->status && i < n; i++) {
        const double want = x->value[i] * reference_keep(&same, (uint64_t)(i + drop.before));
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

static void store_case(trial *t)
{
    convert_with(t, kernel_store, FLOAT, STORED);
}
static void load_case(trial *t)
{
    convert_with(t, kernel_load, STORED, FLOAT);
}

static const kernel_case cases[] = {
#define ROWS(constant, name, option) \
    { #name, name##_case, 4096, 3072 }, { #name " gradient", name##_grad_case, 4096, 3072 }, \
        { "gated " #name, name##_gated_case, 4096, 3072 }, \
        { "gated " #name " gradient", name##_gated_grad_case, 4096, 3072 },
    ACTIVATIONS(ROWS)
#undef ROWS
        { "add", add_case, 8192, 768 },
    { "times a number", times_case, 8192, 768 },
    { "dropout", dropout_case, 8192, 768 },
    { "store", store_case, 8192, 768 },
    { "load", load_case, 8192, 768 },
    { "combine", combine_case, 8192, 768 },
    { 0 },
};

const kernel_family kernel_elementwise_family = {
    .program = { .file = "elementwise.cl", .stored = 1, .variants = variants },
    .cases = cases,
};
