/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_xent.c - launches of cl/xent.cl, and their cases: cross-entropy, whole and in
 * parts; sum.
 *
 *     logits   R rows of V columns          one rank:   loss, (p - target) * scale
 *     ranks    |.begin [ held: C ] ......|  several:    statistics ─► combine ─► gradient
 *
 * The error of exp(x - most) grows with the distance from the largest logit, and so does what
 * is allowed.                                                                           */
#include "host/kernel/kernel_cases_private.h"
#include "host/kernel/kernel_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

gt_status kernel_xent(dev_list *l, kernel_set *k, int R, int V, dev_buffer *logits, dev_buffer *target,
                      dev_buffer *weight, dev_buffer *scale, dev_buffer *loss, dev_buffer *dlogits)
{
    assert(V > 0);
    dev_arg args[] = {
        dev_arg_i32(1),         dev_arg_i32(R),         dev_arg_i32(V),
        dev_arg_buffer(logits), dev_arg_buffer(target), dev_arg_buffer(weight),
        dev_arg_buffer(scale),  dev_arg_buffer(loss),   dev_arg_buffer(dlogits),
    };
    return kernel_launch_rows(l, k, &kernel_xent_family, "xent", R, V, args, KERNEL_ARGS(args));
}

gt_status kernel_xent_statistics(dev_list *l, kernel_set *k, int R, kernel_rows held, dev_buffer *logits,
                                 dev_buffer *target, dev_buffer *statistics)
{
    assert(held.count > 0);
    dev_arg args[] = {
        dev_arg_i32(1),         dev_arg_i32(R),         dev_arg_i32(held.begin),    dev_arg_i32(held.count),
        dev_arg_buffer(logits), dev_arg_buffer(target), dev_arg_buffer(statistics),
    };
    return kernel_launch_rows(l, k, &kernel_xent_family, "xent_statistics", R, held.count, args, KERNEL_ARGS(args));
}

gt_status kernel_xent_combine(dev_list *l, kernel_set *k, int R, int ranks, int V, dev_buffer *statistics,
                              dev_buffer *target, dev_buffer *weight, dev_buffer *loss, dev_buffer *top)
{
    assert(R >= 0 && ranks > 0 && V > 0);
    const dev_arg args[] = {
        dev_arg_i32(R),         dev_arg_i32(ranks),     dev_arg_i32(V),       dev_arg_buffer(statistics),
        dev_arg_buffer(target), dev_arg_buffer(weight), dev_arg_buffer(loss), dev_arg_buffer(top),
    };
    const size_t owners = ((size_t)R + k->group - 1) / k->group;
    return kernel_launch_groups(l, k, &kernel_xent_family, "xent_combine", owners < k->items ? owners : k->items, args,
                                KERNEL_ARGS(args));
}

gt_status kernel_xent_hits(dev_list *l, kernel_set *k, int R, int ranks, int V, dev_buffer *statistics,
                           dev_buffer *target, dev_buffer *hit)
{
    assert(R >= 0 && ranks > 0 && V > 0);
    const dev_arg args[] = {
        dev_arg_i32(R),         dev_arg_i32(ranks),  dev_arg_i32(V), dev_arg_buffer(statistics),
        dev_arg_buffer(target), dev_arg_buffer(hit),
    };
    const size_t owners = ((size_t)R + k->group - 1) / k->group;
    return kernel_launch_groups(l, k, &kernel_xent_family, "xent_hits", owners < k->items ? owners : k->items, args,
                                KERNEL_ARGS(args));
}

gt_status kernel_xent_gradient(dev_list *l, kernel_set *k, int R, kernel_rows held, dev_buffer *logits,
                               dev_buffer *target, dev_buffer *weight, dev_buffer *scale, dev_buffer *top,
                               dev_buffer *dlogits)
{
    assert(held.count > 0 && held.begin + held.count <= held.V);
    dev_arg args[] = {
        dev_arg_i32(1),          dev_arg_i32(R),         dev_arg_i32(held.V),     dev_arg_i32(held.begin),
        dev_arg_i32(held.count), dev_arg_buffer(logits), dev_arg_buffer(target),  dev_arg_buffer(weight),
        dev_arg_buffer(scale),   dev_arg_buffer(top),    dev_arg_buffer(dlogits),
    };
    return kernel_launch_rows(l, k, &kernel_xent_family, "xent_gradient", R, held.count, args, KERNEL_ARGS(args));
}

gt_status kernel_sum(dev_list *l, kernel_set *k, int64_t n, dev_buffer *x, dev_buffer *sum, int add,
                     kernel_slot *add_at)
{
    assert(n >= 0);
    dev_arg args[] = {
        dev_arg_u64((uint64_t)n),
        dev_arg_buffer(x),
        dev_arg_buffer(sum),
        dev_arg_i32(add),
    };
    gt_status st = kernel_launch_groups(l, k, &kernel_xent_family, "sum_all", 1, args, KERNEL_ARGS(args));
    if (!st)
        kernel_slot_last(add_at, l, 3);
    return st;
}

/* ---- cases ------------------------------------------------------------------------------------- */

static double largest(const double *x, int n)
{
    double most = -INFINITY;
    for (int i = 0; i < n; i++)
        most = fmax(most, x[i]);
    return most;
}

/* Weights of rows; every third row is ignored. */
static operand *give_weights(trial *t)
{
    operand *o = give(t, "weight", FLOAT, t->R, 1.0);
    for (int r = 0; !t->status && r < t->R; r++)
        o->value[r] = o->want[r] = r % 3 == 1 ? 0.0 : fabs(o->value[r]);
    return o;
}

static double weight_of(const operand *weight, int64_t r)
{
    return weight ? weight->value[r] : 1.0;
}

/* loss->want[r] is set; x: row r of V logits. */
static void xent_expect_loss(operand *loss, int r, int V, const double *x, int target, double weight)
{
    if (target >= 0)
        loss->slack[r] =
            (float)(U * (weight * (ROUNDINGS(V) + fabs(largest(x, V)) + fabs(x[target])) + 9.0 * fabs(loss->want[r])));
}

/* Row r of V logits x, whose gradient is `slope`. */
static void xent_expect_row(operand *dlogits, int r, int V, const double *x, const double *slope, int target,
                            double scale)
{
    const double s = fabs(scale), most = largest(x, V), f = ROUNDINGS(V);
    for (int v = 0; v < V; v++) {
        const double p = target < 0 ? 0.0 : fabs(slope[v] / s) + (v == target ? 2.0 : 0.0);
        expect(dlogits, (int64_t)r * V + v, slope[v], s * p * U * (9.0 + f + 2.0 * (most - x[v])) + TINY);
    }
}

/* deviation 1000 makes most exps underflow: only differences from the largest may count. */
static void xent_with(trial *t, int gradient, double deviation, int weighted)
{
    const int V = t->C;
    const int in_place = gradient && kernel_set_storage(t->k) == DTYPE_F32 && t->R % 2;
    operand *logits = give(t, "logits", FLOAT, elements(t), deviation);
    operand *target = give_below(t, "target", t->R, V), *scale = give(t, "scale", FLOAT, 1, 1.0);
    operand *weight = weighted ? give_weights(t) : NULL, *loss = take(t, "loss", FLOAT, t->R);
    operand *dlogits = !gradient ? NULL : in_place ? logits : take(t, "dlogits", STORED, elements(t));
    double *slope = calloc((size_t)elements(t), sizeof *slope);
    if (!t->status && !slope)
        t->status = gt_fail(GT_NO_MEMORY, "no memory for the slopes of the logits");
    if (t->status) {
        free(slope);
        return;
    }
    for (int r = 4; r < t->R; r += 5)
        target->whole[r] = -1;
    append(t, kernel_xent(t->list, t->k, t->R, V, logits->buffer, target->buffer, operand_buffer(weight), scale->buffer,
                          loss->buffer, operand_buffer(dlogits)));
    t->flops = 12.0 * (double)elements(t);
    reference_xent(t->R, V, logits->value, target->whole, weight ? weight->value : NULL, scale->value[0], loss->want,
                   slope);
    for (int r = 0; r < t->R; r++) {
        const double *x = logits->value + (int64_t)r * V;
        const double w = weight_of(weight, r);
        xent_expect_loss(loss, r, V, x, target->whole[r], w);
        if (dlogits)
            xent_expect_row(dlogits, r, V, x, slope + (int64_t)r * V, w == 0.0 ? -1 : target->whole[r],
                            w == 0.0 ? 1.0 : w * scale->value[0]);
    }
    free(slope);
}

static void xent_case(trial *t)
{
    xent_with(t, 1, 2.0, 0);
}
static void xent_huge_case(trial *t)
{
    xent_with(t, 1, 1000.0, 0);
}
static void xent_loss_case(trial *t)
{
    xent_with(t, 0, 2.0, 0);
}
static void xent_weighted_case(trial *t)
{
    xent_with(t, 1, 2.0, 1);
}

/* The columns of one rank of several: as many again are other ranks'. */
static kernel_rows some_columns(int V)
{
    return (kernel_rows){ V / 4, V, 2 * V };
}

/* Targets of own and of others' columns; every fifth is ignored. */
static operand *give_targets(trial *t, int V)
{
    operand *o = give_below(t, "target", t->R, V);
    for (int r = 4; !t->status && r < t->R; r += 5)
        o->whole[r] = -1;
    return o;
}

static void xent_statistics_with(trial *t, double deviation)
{
    const kernel_rows held = some_columns(t->C);
    operand *logits = give(t, "logits", FLOAT, elements(t), deviation);
    operand *target = give_targets(t, held.V), *out = take(t, "statistics", FLOAT, 3 * (int64_t)t->R);
    append(t, kernel_xent_statistics(t->list, t->k, t->R, held, logits->buffer, target->buffer, out->buffer));
    t->flops = 4.0 * (double)elements(t);
    for (int r = 0; !t->status && r < t->R; r++) {
        const double *x = logits->value + (int64_t)r * t->C, most = largest(x, t->C);
        const int hit = target->whole[r] - held.begin;
        double sum = 0.0, error = 0.0;
        for (int v = 0; v < t->C; v++) {
            const double e = exp(x[v] - most);
            sum += e;
            error += e * (8.0 + 2.0 * (most - x[v]));
        }
        expect(out, 3 * r, most, 0.0);
        expect(out, 3 * r + 1, sum, U * (error + ROUNDINGS(t->C) * sum) + TINY);
        expect(out, 3 * r + 2, 0 <= hit && hit < t->C ? x[hit] : 0.0, 0.0);
    }
}

static void xent_statistics_case(trial *t)
{
    xent_statistics_with(t, 2.0);
}
static void xent_statistics_huge_case(trial *t)
{
    xent_statistics_with(t, 1000.0);
}

/* Of three ranks, the last of which has logits too small to count in some rows. */
static void xent_combine_with(trial *t, int weighted)
{
    enum { RANKS = 3 };
    const int64_t R = t->R;
    operand *given = give(t, "statistics", FLOAT, RANKS * 3 * R, 3.0), *target = give_targets(t, RANKS);
    operand *weight = weighted ? give_weights(t) : NULL;
    operand *loss = take(t, "loss", FLOAT, R), *top = take(t, "top", FLOAT, 2 * R);
    append(t, kernel_xent_combine(t->list, t->k, t->R, RANKS, RANKS, given->buffer, target->buffer,
                                  operand_buffer(weight), loss->buffer, top->buffer));
    for (int64_t r = 0; !t->status && r < R; r++) {
        double most = -INFINITY, sum = 0.0, chosen = 0.0, error = 0.0;
        for (int k = 0; k < RANKS; k++) {
            double *x = given->value + 3 * (k * R + r);
            const int nothing = k == RANKS - 1 && r % 3 == 1;
            x[0] = nothing ? (double)-1e30f : x[0];
            x[1] = nothing ? 0.0 : fabs(x[1]) + 1.0;
            x[1] = (double)(float)x[1];
            x[2] = target->whole[r] == k && !nothing ? x[2] : 0.0;
            most = fmax(most, x[0]);
            chosen += x[2];
            memcpy(given->want + 3 * (k * R + r), x, 3 * sizeof *x);
        }
        for (int k = 0; k < RANKS; k++) {
            const double *x = given->value + 3 * (k * R + r);
            const double e = x[1] * exp(x[0] - most);
            sum += e;
            error += e > 0.0 ? e * (8.0 + 2.0 * (most - x[0])) : 0.0;
        }
        const double want = most - chosen + log(sum), w = weight_of(weight, r);
        const int counts = target->whole[r] >= 0 && w != 0.0;
        expect(top, 2 * r, most, 0.0);
        expect(top, 2 * r + 1, sum, U * error);
        expect(loss, r, counts ? w * want : 0.0,
               counts ? w * U * (error / sum + 9.0 * fabs(want) + fabs(most) + fabs(chosen)) : 0.0);
    }
}

static void xent_combine_case(trial *t)
{
    xent_combine_with(t, 0);
}
static void xent_combine_weighted_case(trial *t)
{
    xent_combine_with(t, 1);
}

/* Every other row's target is the largest; of the others some are next to it. */
static void xent_hits_case(trial *t)
{
    enum { RANKS = 3 };
    const int64_t R = t->R;
    operand *given = give(t, "statistics", FLOAT, RANKS * 3 * R, 3.0), *target = give_targets(t, RANKS);
    operand *hit = take(t, "hit", FLOAT, R);
    append(t, kernel_xent_hits(t->list, t->k, t->R, RANKS, RANKS, given->buffer, target->buffer, hit->buffer));
    for (int64_t r = 0; !t->status && r < R; r++) {
        double most = -INFINITY;
        for (int k = 0; k < RANKS; k++) {
            double *x = given->value + 3 * (k * R + r);
            most = fmax(most, x[0]);
            x[2] = 0.0;
        }
        const int own = target->whole[r];
        if (own >= 0)
            given->value[3 * (own * R + r) + 2] = r % 2 ? most : (double)nextafterf((float)most, -INFINITY);
        for (int k = 0; k < RANKS; k++)
            memcpy(given->want + 3 * (k * R + r), given->value + 3 * (k * R + r), 3 * sizeof(double));
        expect(hit, r, own >= 0 && r % 2 ? 1.0 : 0.0, 0.0);
    }
}

/* Others' columns hold as much again, and in odd rows the largest logit. */
static void xent_gradient_with(trial *t, int weighted)
{
    const kernel_rows held = some_columns(t->C);
    const int in_place = kernel_set_storage(t->k) == DTYPE_F32 && t->R % 2;
    operand *logits = give(t, "logits", FLOAT, elements(t), 2.0), *target = give_targets(t, held.V);
    operand *scale = give(t, "scale", FLOAT, 1, 1.0), *top = give(t, "top", FLOAT, 2 * (int64_t)t->R, 1.0);
    operand *weight = weighted ? give_weights(t) : NULL;
    operand *out = in_place ? logits : take(t, "dlogits", STORED, elements(t));
    append(t, kernel_xent_gradient(t->list, t->k, t->R, held, logits->buffer, target->buffer, operand_buffer(weight),
                                   scale->buffer, top->buffer, out->buffer));
    t->flops = 4.0 * (double)elements(t);
    for (int r = 0; !t->status && r < t->R; r++) {
        const int64_t at = (int64_t)r * t->C;
        const double w = weight_of(weight, r), factor = w * scale->value[0], s = fabs(factor);
        const int hit = target->whole[r] - held.begin, counts = target->whole[r] >= 0 && w != 0.0;
        const double *x = logits->value + at;
        double *m = &top->value[2 * r], *total = &top->value[2 * r + 1];
        *m = (double)(float)(largest(x, t->C) + r % 2);
        *total = 0.0;
        for (int v = 0; v < t->C; v++)
            *total += 2.0 * exp(x[v] - *m);
        *total = (double)(float)*total;
        memcpy(top->want + 2 * r, m, 2 * sizeof *m);
        for (int v = 0; v < t->C; v++) {
            const double p = exp(x[v] - *m) / *total;
            expect(out, at + v, counts ? (p - (v == hit)) * factor : 0.0,
                   counts ? s * (p + 2.0 * (v == hit)) * U * (9.0 + 2.0 * (*m - x[v])) + TINY : 0.0);
        }
    }
}

static void xent_gradient_case(trial *t)
{
    xent_gradient_with(t, 0);
}
static void xent_gradient_weighted_case(trial *t)
{
    xent_gradient_with(t, 1);
}

static void sum_with(trial *t, int add)
{
    const int64_t n = elements(t);
    operand *x = give(t, "x", FLOAT, n, 1.0), *sum = give(t, "sum", FLOAT, 1, 1.0);
    if (t->status)
        return;
    kernel_slot slot;
    append(t, kernel_sum(t->list, t->k, n, x->buffer, sum->buffer, !add, &slot));
    set_slot(t, slot, dev_arg_i32(add));
    t->flops = (double)n;
    double size = fabs(sum->value[0]);
    for (int64_t i = 0; i < n; i++)
        size += fabs(x->value[i]);
    expect(sum, 0, reference_sum(n, x->value) + (add ? sum->value[0] : 0.0), U * ROUNDINGS(n) * size);
}

static void sum_case(trial *t)
{
    sum_with(t, 0);
}
static void sum_more_case(trial *t)
{
    sum_with(t, 1);
}

static const kernel_case cases[] = {
    { "cross-entropy", xent_case, 160, 50257 },
    { "cross-entropy of huge logits", xent_huge_case, 0, 0 },
    { "cross-entropy, loss only", xent_loss_case, 160, 50257 },
    { "cross-entropy, weighted", xent_weighted_case, 0, 0 },
    { "cross-entropy statistics of some columns", xent_statistics_case, 160, 50257 },
    { "cross-entropy statistics of huge logits", xent_statistics_huge_case, 0, 0 },
    { "cross-entropy of all ranks' statistics", xent_combine_case, 0, 0 },
    { "cross-entropy of all ranks' statistics, weighted", xent_combine_weighted_case, 0, 0 },
    { "right answers by all ranks' statistics", xent_hits_case, 0, 0 },
    { "cross-entropy gradient of some columns", xent_gradient_case, 160, 50257 },
    { "cross-entropy gradient of some columns, weighted", xent_gradient_weighted_case, 0, 0 },
    { "sum", sum_case, 8192, 768 },
    { "sum, added", sum_more_case, 0, 0 },
    { 0 },
};

const kernel_family kernel_xent_family = {
    .program = { .file = "xent.cl", .stored = 1, .variants = dev_plain_for_all },
    .cases = cases,
};
