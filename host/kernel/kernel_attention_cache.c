/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_attention_cache.c - launches of cl/attention_cache.cl and their case.
 *
 *   append: k, v of new tokens -> caches        cached: q of new tokens, caches -> out
 *
 * A work-item of a CPU, or a work-group of a GPU, owns one row of one head in both. */
#include "host/kernel/kernel_args.h"
#include "host/kernel/kernel_cases_private.h"
#include "host/kernel/kernel_private.h"

#include <stdlib.h>

/* One row is one work-item or work-group of WG. */
static dev_grid row_grid(const kernel_set *k, int heads, int T)
{
    return dev_grid_1d((size_t)heads * (size_t)T * k->group, k->group);
}

gt_status kernel_attention_cached(dev_list *l, kernel_set *k, const kernel_attention_shape *s, int capacity,
                                  dev_buffer *first, const kernel_attention_in *in, dev_buffer *keys,
                                  dev_buffer *values, dev_buffer *out)
{
    const dev_arg sizes[] = { dev_arg_i32(s->T), dev_arg_i32(s->H), dev_arg_i32(s->H / s->KV), dev_arg_i32(s->D),
                              dev_arg_i32(capacity) };
    kernel_args append = { .count = 0 }, attend = { .count = 0 };
    for (int i = 0; i < KERNEL_ARGS(sizes); i++) {
        kernel_args_push(&append, sizes[i]);
        kernel_args_push(&attend, sizes[i]);
    }
    kernel_args_push(&attend, dev_arg_f32(s->scale));
    kernel_args_push(&attend, dev_arg_i32(s->window));
    kernel_args_push(&append, dev_arg_buffer(first));
    kernel_args_push(&attend, dev_arg_buffer(first));
    kernel_args_heads(&append, in);
    kernel_args_heads(&attend, in);
    kernel_args_push(&append, dev_arg_buffer(keys));
    kernel_args_push(&attend, dev_arg_buffer(keys));
    kernel_args_push(&append, dev_arg_buffer(values));
    kernel_args_push(&attend, dev_arg_buffer(values));
    kernel_args_push(&attend, dev_arg_buffer(out));
    dev_program *p;
    gt_status st = kernel_attention_sizes(s);
    if (!st)
        st = kernel_program(&p, k, &kernel_attention_cache_family, 0);
    if (!st)
        st = dev_list_kernel(l, p, "attention_append", row_grid(k, s->B * s->KV, s->T), append.at, append.count);
    if (!st)
        st = dev_list_kernel(l, p, "attention_cached", row_grid(k, s->B * s->H, s->T), attend.at, attend.count);
    return st;
}

/* ---- cases ------------------------------------------------------------------------------------- */

/* The last few of R tokens come to those that are in the caches, as if all had been attended to at once. */
static void cached_case(trial *t)
{
    int D = 64;
    while (t->C % D)
        D--;
    const int R = t->R, C = t->C, H = C / D, count = R < 3 ? R : 3, before = R - count, capacity = R + 2;
    const kernel_attention_shape s = {
        .B = 1, .T = count, .H = H, .KV = H, .D = D, .causal = 1, .scale = 1.0f / sqrtf((float)D)
    };
    if (H > 64)
        return;
    operand *qkv = give(t, "qkv", STORED, 3 * elements(t), 1.0), *first = give_below(t, "first", 1, 1);
    operand *keys = give(t, "keys", STORED, (int64_t)H * capacity * D, 1.0);
    operand *values = give(t, "values", STORED, (int64_t)H * capacity * D, 1.0);
    operand *out = take(t, "out", STORED, (int64_t)count * C);
    double *all = t->status ? NULL : malloc((size_t)R * (size_t)(C + H) * sizeof *all);
    if (!t->status && !all)
        t->status = gt_fail(GT_NO_MEMORY, "no memory for the attention of %d tokens", R);
    if (t->status)
        return;

    first->whole[0] = before;
    keys->checked = values->checked = 1;
    for (int h = 0; h < H; h++)
        for (int i = 0; i < R; i++)
            for (int d = 0; d < D; d++) {
                const int64_t at = ((int64_t)h * capacity + i) * D + d, from = (int64_t)i * 3 * C + C + h * D + d;
                keys->want[at] = qkv->value[from];
                values->want[at] = qkv->value[from + C];
                if (i < before) {
                    keys->value[at] = keys->want[at];
                    values->value[at] = values->want[at];
                }
            }
    const int64_t row = (int64_t)before * 3 * C;
    const kernel_attention_in in = {
        { qkv->buffer, row, 3 * C }, { qkv->buffer, row + C, 3 * C }, { qkv->buffer, row + 2 * (int64_t)C, 3 * C }
    };
    append(t, kernel_attention_cached(t->list, t->k, &s, capacity, first->buffer, &in, keys->buffer, values->buffer,
                                      out->buffer));
    t->flops = 4.0 * count * R * C;
    reference_attention(1, R, C, H, 1, (double)s.scale, NULL, NULL, qkv->value, all, all + (size_t)R * (size_t)C);
    for (int64_t i = 0; i < out->n; i++)
        expect(out, i, all[(int64_t)before * C + i], 1e-5);
    free(all);
}

static const kernel_case cases[] = {
    { "attention to a cache", cached_case, 1024, 512 },
    { 0 },
};

const kernel_family kernel_attention_cache_family = {
    .program = { .file = "attention_cache.cl", .stored = 1, .variants = dev_plain_for_all },
    .cases = cases,
};
