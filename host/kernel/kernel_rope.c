/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_rope.c - launches of cl/rope.cl, and their cases: rotary positions, there and back. */
#include "host/kernel/kernel_cases_private.h"
#include "host/kernel/kernel_private.h"

#include <assert.h>

gt_status kernel_rope(dev_list *l, kernel_set *k, int B, int T, int H, int D, int back, dev_buffer *x,
                      dev_buffer *table, dev_buffer *first, dev_buffer *y)
{
    assert(D % 2 == 0);
    dev_arg args[] = {
        dev_arg_i32(1),    dev_arg_i32(B * T), dev_arg_i32(T),        dev_arg_i32(H),        dev_arg_i32(D),
        dev_arg_i32(back), dev_arg_buffer(x),  dev_arg_buffer(table), dev_arg_buffer(first), dev_arg_buffer(y),
    };
    gt_status st = kernel_fits("rotated rows", (int64_t)B * T);
    return st ? st : kernel_launch_rows(l, k, &kernel_rope_family, "rope", B * T, H * D, args, KERNEL_ARGS(args));
}

/* ---- cases ------------------------------------------------------------------------------------- */

/* R rows in one or two sequences, C columns in heads of at most 64 that C divides into, if their width can be
 * even. The table need not hold cosines: it is multiplied by whatever it is. */
static void rope_with(trial *t, int back)
{
    const int B = t->R > 8 && t->R % 2 == 0 ? 2 : 1, T = t->R / B, first = back ? 0 : 3;
    int D = t->C < 64 ? t->C : 64;
    while (D > 1 && (t->C % D || D % 2))
        D--;
    if (D < 2)
        return;
    const int64_t n = elements(t);
    operand *x = give(t, "x", STORED, n, 1.0), *table = give(t, "table", FLOAT, (int64_t)(T + first) * D, 1.0);
    operand *at = give_below(t, "first", 1, 1), *y = take(t, "y", STORED, n);
    if (t->status)
        return;
    at->whole[0] = first;
    append(t, kernel_rope(t->list, t->k, B, T, t->C / D, D, back, x->buffer, table->buffer, back ? NULL : at->buffer,
                          y->buffer));
    t->flops = 3.0 * (double)n;
    reference_rope(B, T, t->C / D, D, x->value, table->value, first, back, y->want);
    for (int64_t i = 0; i < n; i++) {
        const int half = D / 2, column = (int)(i % D);
        const int64_t head = i / D, pair = head * D + column % half;
        const double *turn = table->value + (head / (t->C / D) % T + first) * D + column % half;
        const double c = fabs(turn[0]), s = fabs(turn[half]);
        const double u = fabs(x->value[pair]), v = fabs(x->value[pair + half]);
        y->slack[i] = (float)(2.0 * U * (column < half ? u * c + v * s : v * c + u * s));
    }
}

static void rope_case(trial *t)
{
    rope_with(t, 0);
}
static void rope_back_case(trial *t)
{
    rope_with(t, 1);
}

static const kernel_case cases[] = {
    { "rope", rope_case, 4096, 1024 },
    { "rope, back", rope_back_case, 4096, 1024 },
    { 0 },
};

const kernel_family kernel_rope_family = {
    .program = { .file = "rope.cl", .stored = 1, .variants = dev_plain_for_all },
    .cases = cases,
};
