/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_adapter.c - launches of cl/adapter.cl, and their cases. */
#include "host/kernel/kernel_cases_private.h"
#include "host/kernel/kernel_private.h"

#include "host/tensor/q8.h"

#include <assert.h>

/* The variants of the program, by how W is kept. */
enum { W_AS_STORED, W_BF16, W_Q8 };
static const dev_variant variants[] = {
    { "", DEV_FOR_ALL },
    { "-DB_STORE=1", DEV_FOR_ALL },
    { "-DB_STORE=3", DEV_FOR_ALL },
    { 0 },
};

gt_status kernel_row_norms(dev_list *l, kernel_set *k, int R, int C, int K, float scale, dtype kept, int first,
                           dev_buffer *w, dev_buffer *a, dev_buffer *b, dev_buffer *n)
{
    const q8 blocks = { R, C, first };
    const int variant = kept == k->storage ? W_AS_STORED : kept == DTYPE_Q8 ? W_Q8 : W_BF16;
    assert(variant != W_BF16 || kept == DTYPE_BF16);
    dev_arg args[] = {
        [1] = dev_arg_i32(R),
        dev_arg_i32(C),
        dev_arg_i32(K),
        dev_arg_f32(scale),
        dev_arg_buffer(w),
        dev_arg_u64(q8_scales_at(blocks)),
        dev_arg_i32((int32_t)q8_in_row(blocks)),
        dev_arg_i32(first),
        dev_arg_buffer(a),
        dev_arg_buffer(b),
        dev_arg_buffer(n)
    };
    return kernel_launch_rows_of(l, k, &kernel_adapter_family, variant, "row_norms", R, C * (K + 1), args,
                                 KERNEL_ARGS(args));
}

gt_status kernel_scale_columns(dev_list *l, kernel_set *k, int R, int C, dev_buffer *z, dev_buffer *m, dev_buffer *n,
                               dev_buffer *bias, dev_buffer *y)
{
    dev_arg args[] = { [1] = dev_arg_i32(R), dev_arg_i32(C),       dev_arg_buffer(z), dev_arg_buffer(m),
                       dev_arg_buffer(n),    dev_arg_buffer(bias), dev_arg_buffer(y) };
    return kernel_launch_rows(l, k, &kernel_adapter_family, "scale_columns", R, C, args, KERNEL_ARGS(args));
}

gt_status kernel_magnitude_product(dev_list *l, kernel_set *k, int R, int C, dev_buffer *dy, dev_buffer *z,
                                   dev_buffer *n, dev_buffer *p)
{
    dev_arg args[] = { [1] = dev_arg_i32(R), dev_arg_i32(C),    dev_arg_buffer(dy),
                       dev_arg_buffer(z),    dev_arg_buffer(n), dev_arg_buffer(p) };
    return kernel_launch_rows(l, k, &kernel_adapter_family, "magnitude_product", R, C, args, KERNEL_ARGS(args));
}

gt_status kernel_add_columns(dev_list *l, kernel_set *k, int R, int C, int N, int first, float scale, dev_buffer *z,
                             dev_buffer *u, dev_buffer *y)
{
    dev_arg args[] = { [1] = dev_arg_i32(R), dev_arg_i32(C),    dev_arg_i32(N),    dev_arg_i32(first),
                       dev_arg_f32(scale),   dev_arg_buffer(z), dev_arg_buffer(u), dev_arg_buffer(y) };
    assert(0 <= first && first + C <= N);
    return kernel_launch_rows(l, k, &kernel_adapter_family, "add_columns", R, N, args, KERNEL_ARGS(args));
}

gt_status kernel_take_columns(dev_list *l, kernel_set *k, int R, int C, int N, int first, float scale, dev_buffer *z,
                              dev_buffer *u)
{
    dev_arg args[] = { [1] = dev_arg_i32(R), dev_arg_i32(C),    dev_arg_i32(N),   dev_arg_i32(first),
                       dev_arg_f32(scale),   dev_arg_buffer(z), dev_arg_buffer(u) };
    assert(0 <= first && first + C <= N);
    return kernel_launch_rows(l, k, &kernel_adapter_family, "take_columns", R, C, args, KERNEL_ARGS(args));
}

/* ---- cases ------------------------------------------------------------------------------------- */

/* W in each way it may be kept. What integers and scales stand for is exact in fp32; their blocks may begin
 * before column 0, in a slice. */
static void row_norms_of(trial *t, dtype kept, int first)
{
    enum { K = 5 };
    const double scale = 0.5;
    const q8 blocks = { t->R, t->C, first };
    const int64_t count = elements(t), each = q8_in_row(blocks);
    operand *w = kept == t->k->storage
                     ? give(t, "w", STORED, count, 1.0)
                     : operand_add(t, "w", INT, (kept == DTYPE_Q8 ? (int64_t)q8_bytes(blocks) + 3 : 2 * count + 3) / 4);
    operand *a = give(t, "a", STORED, (int64_t)K * t->C, 1.0);
    operand *b = give(t, "b", STORED, (int64_t)t->R * K, 1.0), *n = take(t, "n", FLOAT, t->R);
    w->given = 1;
    append(t, kernel_row_norms(t->list, t->k, t->R, t->C, K, (float)scale, kept, first, w->buffer, a->buffer, b->buffer,
                               n->buffer));
    t->flops = (2.0 * K + 3.0) * (double)count;
    if (t->status)
        return;
    int8_t *q = (int8_t *)w->whole;
    float *scales = w->whole ? (float *)((char *)w->whole + q8_scales_at(blocks)) : NULL;
    for (int64_t i = 0; kept != t->k->storage && i < (kept == DTYPE_Q8 ? t->R * each : count); i++) {
        if (kept == DTYPE_Q8)
            scales[i] = gt_random_unit(&t->random) * 0.01f;
        else
            dtype_store(DTYPE_BF16, w->whole, (size_t)i, 2.0f * gt_random_unit(&t->random) - 1.0f);
    }
    for (int64_t i = 0; kept == DTYPE_Q8 && kept != t->k->storage && i < count; i++)
        q[i] = (int8_t)((int)gt_random_below(&t->random, 255) - 127);
    for (int r = 0; r < t->R; r++) {
        double sum = 0.0, size = 0.0;
        for (int c = 0; c < t->C; c++) {
            const int64_t i = (int64_t)r * t->C + c;
            double x = kept == t->k->storage ? w->value[i]
                       : kept == DTYPE_Q8    ? (double)((float)q[i] * scales[r * each + (first + c) / Q8_BLOCK])
                                             : (double)dtype_load(DTYPE_BF16, w->whole, (size_t)i);
            double most = fabs(x);
            for (int k = 0; k < K; k++) {
                const double p = scale * b->value[(int64_t)r * K + k] * a->value[(int64_t)k * t->C + c];
                x += p;
                most += fabs(p);
            }
            sum += x * x;
            size += most * most;
        }
        expect(n, r, sqrt(sum), U * (ROUNDINGS(t->C) + 2.0 * K) * size / sqrt(sum));
    }
}

static void row_norms_case(trial *t)
{
    row_norms_of(t, t->k->storage, 0);
}
static void row_norms_bf16_case(trial *t)
{
    row_norms_of(t, DTYPE_BF16, 0);
}
static void row_norms_q8_case(trial *t)
{
    row_norms_of(t, DTYPE_Q8, 0);
}
static void row_norms_q8_slice_case(trial *t)
{
    row_norms_of(t, DTYPE_Q8, 7);
}

/* Norms are not near 0. */
static operand *give_norms(trial *t)
{
    operand *n = give(t, "n", FLOAT, t->C, 1.0);
    for (int c = 0; !t->status && c < t->C; c++)
        n->value[c] = n->want[c] = (double)(float)(1.0 + fabs(n->value[c]));
    return n;
}

static void scale_columns_case(trial *t)
{
    operand *z = give(t, "z", STORED, elements(t), 1.0), *m = give(t, "m", FLOAT, t->C, 1.0), *n = give_norms(t);
    operand *bias = give(t, "bias", FLOAT, t->C, 1.0), *y = take(t, "y", STORED, elements(t));
    append(t,
           kernel_scale_columns(t->list, t->k, t->R, t->C, z->buffer, m->buffer, n->buffer, bias->buffer, y->buffer));
    t->flops = 2.0 * (double)elements(t);
    for (int64_t i = 0; !t->status && i < elements(t); i++) {
        const int64_t c = i % t->C;
        const double p = z->value[i] * m->value[c] / n->value[c];
        expect(y, i, p + bias->value[c], 8.0 * U * (fabs(p) + fabs(bias->value[c])) + TINY);
    }
}

static void magnitude_product_case(trial *t)
{
    operand *dy = give(t, "dy", STORED, elements(t), 1.0), *z = give(t, "z", STORED, elements(t), 1.0);
    operand *n = give_norms(t), *p = take(t, "p", STORED, elements(t));
    append(t, kernel_magnitude_product(t->list, t->k, t->R, t->C, dy->buffer, z->buffer, n->buffer, p->buffer));
    t->flops = 2.0 * (double)elements(t);
    for (int64_t i = 0; !t->status && i < elements(t); i++) {
        const double want = dy->value[i] * z->value[i] / n->value[i % t->C];
        expect(p, i, want, 8.0 * U * fabs(want) + TINY);
    }
}

/* The middle third, or all of so few that there is none. */
static void columns_case(trial *t)
{
    const int N = t->C, C = N > 2 ? N / 3 : N, first = N > 2 ? N / 3 : 0;
    const double scale = 1.5;
    operand *z = give(t, "z", STORED, elements(t), 1.0), *u = give(t, "u", STORED, (int64_t)t->R * C, 1.0);
    operand *y = take(t, "y", STORED, elements(t)), *back = take(t, "back", STORED, (int64_t)t->R * C);
    append(t, kernel_add_columns(t->list, t->k, t->R, C, N, first, (float)scale, z->buffer, u->buffer, y->buffer));
    append(t, kernel_take_columns(t->list, t->k, t->R, C, N, first, (float)scale, z->buffer, back->buffer));
    for (int64_t i = 0; !t->status && i < elements(t); i++) {
        const int64_t c = i % N - first, at = i / N * C + c;
        const double more = c >= 0 && c < C ? scale * u->value[at] : 0.0;
        expect(y, i, z->value[i] + more, 2.0 * U * (fabs(z->value[i]) + fabs(more)));
        if (c >= 0 && c < C)
            expect(back, at, scale * z->value[i], U * fabs(scale * z->value[i]));
    }
}

static const kernel_case cases[] = {
    { "row norms", row_norms_case, 3072, 768 },
    { "row norms of bf16", row_norms_bf16_case, 0, 0 },
    { "row norms of int8", row_norms_q8_case, 3072, 768 },
    { "row norms of a slice of int8", row_norms_q8_slice_case, 0, 0 },
    { "scale columns", scale_columns_case, 4096, 768 },
    { "magnitude product", magnitude_product_case, 4096, 768 },
    { "columns", columns_case, 4096, 2304 },
    { 0 },
};

const kernel_family kernel_adapter_family = {
    .program = { .file = "adapter.cl", .stored = 1, .variants = variants },
    .cases = cases,
};
