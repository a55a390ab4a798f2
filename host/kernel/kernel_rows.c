/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_rows.c - launches of cl/rows.cl, and their cases: some rows of each sequence, which
 * rows of logits are right, and rows of a table side by side.
 *
 *     x     |row 0|row 1|...|row T - 1|   of each of B sequences
 *     at    P rows of them, some twice, some that are not there                              */
#include "host/kernel/kernel_cases_private.h"
#include "host/kernel/kernel_private.h"

#include <assert.h>

gt_status kernel_take_rows(dev_list *l, kernel_set *k, const kernel_taken *s, dev_buffer *x, dev_buffer *y)
{
    assert(s->B > 0 && s->T > 0 && s->P > 0 && s->C > 0);
    gt_status st = kernel_fits("rows", (int64_t)s->B * s->P);
    if (st)
        return st;
    dev_arg args[] = {
        dev_arg_i32(1),    dev_arg_i32(s->B * s->P), dev_arg_i32(s->T),     dev_arg_i32(s->P),
        dev_arg_i32(s->C), dev_arg_buffer(x),        dev_arg_buffer(s->at), dev_arg_buffer(y),
    };
    return kernel_launch_rows(l, k, &kernel_rows_family, "take_rows", s->B * s->P, s->C, args, KERNEL_ARGS(args));
}

gt_status kernel_take_rows_grad(dev_list *l, kernel_set *k, const kernel_taken *s, dev_buffer *dy, dev_buffer *dx)
{
    assert(s->B > 0 && s->T > 0 && s->P > 0 && s->C > 0);
    gt_status st = kernel_fits("tokens", (int64_t)s->B * s->T);
    if (st)
        return st;
    dev_arg args[] = {
        dev_arg_i32(1),    dev_arg_i32(s->B * s->T), dev_arg_i32(s->T),  dev_arg_i32(s->P),
        dev_arg_i32(s->C), dev_arg_buffer(s->at),    dev_arg_buffer(dy), dev_arg_buffer(dx),
    };
    return kernel_launch_rows(l, k, &kernel_rows_family, "take_rows_grad", s->B * s->T, s->C, args, KERNEL_ARGS(args));
}

gt_status kernel_pack_rows(dev_list *l, kernel_set *k, int most, int C, int back, dev_buffer *list, dev_buffer *table,
                           dev_buffer *packed, kernel_slot *rows)
{
    assert(most > 0 && C > 0);
    const dev_arg args[] = {
        dev_arg_i32(0),       dev_arg_i32(C),        dev_arg_i32(back),
        dev_arg_buffer(list), dev_arg_buffer(table), dev_arg_buffer(packed),
    };
    const size_t owners = (size_t)most < k->items ? (size_t)most : k->items;
    gt_status st = kernel_launch_groups(l, k, &kernel_rows_family, "pack_rows", owners, args, KERNEL_ARGS(args));
    if (!st)
        kernel_slot_last(rows, l, 0);
    return st;
}

gt_status kernel_row_hits(dev_list *l, kernel_set *k, int R, int V, dev_buffer *logits, dev_buffer *target,
                          dev_buffer *hit)
{
    assert(R >= 0 && V > 0);
    const dev_arg args[] = {
        dev_arg_i32(R), dev_arg_i32(V), dev_arg_buffer(logits), dev_arg_buffer(target), dev_arg_buffer(hit),
    };
    const size_t owners = ((size_t)R + k->group - 1) / k->group;
    return kernel_launch_groups(l, k, &kernel_rows_family, "row_hits", owners < k->items ? owners : k->items, args,
                                KERNEL_ARGS(args));
}

/* ---- cases ------------------------------------------------------------------------------------- */

/* R rows become B sequences of T; a third of them is taken, some places lying outside on either side. */
static operand *give_places(trial *t, kernel_taken *s)
{
    s->B = t->R % 3 == 0 ? 3 : 1;
    s->T = t->R / s->B;
    s->P = s->T / 3 + 1;
    s->C = t->C;
    operand *at = give_below(t, "at", (int64_t)s->B * s->P, s->T + 2);
    for (int64_t i = 0; !t->status && i < at->n; i++)
        at->whole[i]--;
    s->at = at->buffer;
    return at;
}

static void take_rows_case(trial *t)
{
    kernel_taken s;
    operand *at = give_places(t, &s), *x = give(t, "x", STORED, elements(t), 1.0);
    operand *y = take(t, "y", STORED, (int64_t)s.B * s.P * s.C);
    append(t, kernel_take_rows(t->list, t->k, &s, x->buffer, y->buffer));
    for (int64_t i = 0; !t->status && i < y->n; i++) {
        const int64_t n = i / s.C, row = at->whole[n];
        expect(y, i, row < 0 || row >= s.T ? 0.0 : x->value[(n / s.P * s.T + row) * s.C + i % s.C], 0.0);
    }
}

static void take_first_case(trial *t)
{
    operand *x = give(t, "x", STORED, elements(t), 1.0);
    const kernel_taken s = { .B = t->R % 3 == 0 ? 3 : 1, .T = t->R % 3 == 0 ? t->R / 3 : t->R, .P = 1, .C = t->C };
    operand *y = take(t, "y", STORED, (int64_t)s.B * s.C);
    append(t, kernel_take_rows(t->list, t->k, &s, x->buffer, y->buffer));
    for (int64_t i = 0; !t->status && i < y->n; i++)
        expect(y, i, x->value[i / s.C * s.T * s.C + i % s.C], 0.0);
}

static void take_rows_grad_case(trial *t)
{
    kernel_taken s;
    operand *at = give_places(t, &s), *dy = give(t, "dy", STORED, (int64_t)s.B * s.P * s.C, 1.0);
    operand *dx = take(t, "dx", STORED, elements(t));
    append(t, kernel_take_rows_grad(t->list, t->k, &s, dy->buffer, dx->buffer));
    t->flops = (double)elements(t);
    for (int64_t i = 0; !t->status && i < dx->n; i++) {
        double sum = 0.0, size = 0.0;
        for (int64_t n = i / s.C / s.T * s.P, p = 0; p < s.P; p++)
            if (at->whole[n + p] == i / s.C % s.T) {
                sum += dy->value[(n + p) * s.C + i % s.C];
                size += fabs(dy->value[(n + p) * s.C + i % s.C]);
            }
        expect(dx, i, sum, U * 3.0 * size + U * fabs(sum));
    }
}

/* Logits of whole numbers, so that there are equal ones. */
static void row_hits_case(trial *t)
{
    operand *logits = give(t, "logits", FLOAT, elements(t), 1.0), *target = give_below(t, "target", t->R, t->C + 1);
    operand *hit = take(t, "hit", FLOAT, t->R);
    append(t, kernel_row_hits(t->list, t->k, t->R, t->C, logits->buffer, target->buffer, hit->buffer));
    for (int64_t i = 0; !t->status && i < elements(t); i++)
        logits->value[i] = logits->want[i] = rint(logits->value[i]);
    for (int r = 0; !t->status && r < t->R; r++) {
        int best = 0;
        for (int v = 1; v < t->C; v++)
            if (logits->value[(int64_t)r * t->C + v] > logits->value[(int64_t)r * t->C + best])
                best = v;
        if (r % 2)
            target->whole[r] = best;
        expect(hit, r, target->whole[r] == best, 0.0);
    }
}

/* Every second row of the table, from the last on, and back to another one. */
static void pack_rows_case(trial *t)
{
    const int N = (t->R + 1) / 2;
    kernel_slot out = { 0 }, in = { 0 };
    operand *table = give(t, "table", FLOAT, elements(t), 1.0), *list = give_below(t, "list", t->R, t->R);
    operand *packed = give(t, "packed", FLOAT, elements(t), 1.0), *back = give(t, "back", FLOAT, elements(t), 1.0);
    for (int n = 0; !t->status && n < t->R; n++)
        list->whole[n] = t->R - 1 - n * 2 < 0 ? 0 : t->R - 1 - n * 2;
    append(t, kernel_pack_rows(t->list, t->k, t->R, t->C, 0, list->buffer, table->buffer, packed->buffer, &out));
    append(t, kernel_pack_rows(t->list, t->k, t->R, t->C, 1, list->buffer, back->buffer, packed->buffer, &in));
    set_slot(t, out, dev_arg_i32(N));
    set_slot(t, in, dev_arg_i32(N));
    for (int64_t i = 0; !t->status && i < (int64_t)N * t->C; i++) {
        const int64_t at = (int64_t)list->whole[i / t->C] * t->C + i % t->C;
        expect(packed, i, table->value[at], 0.0);
        expect(back, at, table->value[at], 0.0);
    }
}

static const kernel_case cases[] = {
    { "rows taken", take_rows_case, 8190, 768 },
    { "first rows taken", take_first_case, 0, 0 },
    { "rows taken, gradient", take_rows_grad_case, 8190, 768 },
    { "rows packed", pack_rows_case, 0, 0 },
    { "rows of logits that are right", row_hits_case, 0, 0 },
    { 0 },
};

const kernel_family kernel_rows_family = {
    .program = { .file = "rows.cl", .stored = 1, .variants = dev_plain_for_all },
    .cases = cases,
};
