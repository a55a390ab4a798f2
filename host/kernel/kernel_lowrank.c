/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_lowrank.c - launches of cl/lowrank.cl, and their cases: matrices as products of thin ones. */
#include "host/kernel/kernel_cases_private.h"
#include "host/kernel/kernel_private.h"

#include <assert.h>
#include <string.h>

enum { ROWS = 256, STRIP = 32, LEAD = 64 };     /* as in cl/lowrank.cl; where partial sums may begin */

static int64_t skip_of(int N, int R)
{
    return ((int64_t)N * R + LEAD - 1) / LEAD * LEAD;
}

static int blocks_of(int N)
{
    return (N + ROWS - 1) / ROWS;
}

gt_status kernel_lowrank_left(dev_list *l, kernel_set *k, int N, int M, int R, dev_buffer *a, dev_buffer *q,
                              dev_buffer *p)
{
    assert(N > 0 && M > 0 && R > 0);
    dev_arg args[] = { dev_arg_i32(1),    dev_arg_i32(N),    dev_arg_i32(M),   dev_arg_i32(R),
                       dev_arg_buffer(a), dev_arg_buffer(q), dev_arg_buffer(p) };
    return kernel_launch_rows(l, k, &kernel_lowrank_family, "lowrank_left", N, M, args, KERNEL_ARGS(args));
}

gt_status kernel_lowrank_product(dev_list *l, kernel_set *k, int N, int M, int R, dev_buffer *p, dev_buffer *q,
                                 dev_buffer *y)
{
    assert(N > 0 && M > 0 && R > 0);
    dev_arg args[] = { dev_arg_i32(1),    dev_arg_i32(N),    dev_arg_i32(M),   dev_arg_i32(R),
                       dev_arg_buffer(p), dev_arg_buffer(q), dev_arg_buffer(y) };
    return kernel_launch_rows(l, k, &kernel_lowrank_family, "lowrank_product", N, M, args, KERNEL_ARGS(args));
}

int64_t kernel_lowrank_work(int N, int M, int R)
{
    return skip_of(N, R) + (int64_t)blocks_of(N) * R * M;
}

gt_status kernel_lowrank_right(dev_list *l, kernel_set *k, int N, int M, int R, dev_buffer *a, dev_buffer *work,
                               dev_buffer *q)
{
    assert(N > 0 && M > 0 && R > 0);
    const size_t width = k->cpu ? STRIP : k->group, strips = ((size_t)M + width - 1) / width;
    const dev_arg args[] = { dev_arg_i32(N),    dev_arg_i32(M),
                             dev_arg_i32(R),    dev_arg_u64((uint64_t)skip_of(N, R)),
                             dev_arg_buffer(a), dev_arg_buffer(work) };
    gt_status st = kernel_launch_groups(l, k, &kernel_lowrank_family, "lowrank_right", strips * (size_t)blocks_of(N),
                                        args, KERNEL_ARGS(args));
    dev_arg sum[] = {
        [2] = dev_arg_i32(blocks_of(N)), dev_arg_u64((uint64_t)skip_of(N, R)), dev_arg_buffer(work), dev_arg_buffer(q)
    };
    return st ? st
              : kernel_launch_flat(l, k, &kernel_lowrank_family, 0, "lowrank_sum", (int64_t)R * M, sum,
                                   KERNEL_ARGS(sum));
}

gt_status kernel_lowrank_orthogonal(dev_list *l, kernel_set *k, int N, int R, int heal, dev_buffer *x)
{
    assert(R > 0 && R <= N);
    const dev_arg args[] = { dev_arg_i32(N), dev_arg_i32(R), dev_arg_i32(heal), dev_arg_buffer(x) };
    return kernel_launch_groups(l, k, &kernel_lowrank_family, "lowrank_orthogonal", 1, args, KERNEL_ARGS(args));
}

/* ---- cases ------------------------------------------------------------------------------------- */

static int rank_of(const trial *t, int most)
{
    const int r = t->R < t->C ? t->R : t->C;
    return r < most ? r : most;
}

static void left_case(trial *t)
{
    const int N = t->R, M = t->C, R = rank_of(t, 5);
    operand *a = give(t, "a", FLOAT, elements(t), 1.0), *q = give(t, "q", FLOAT, (int64_t)R * M, 1.0);
    operand *p = take(t, "p", FLOAT, (int64_t)R * N);
    append(t, kernel_lowrank_left(t->list, t->k, N, M, R, a->buffer, q->buffer, p->buffer));
    t->flops = 2.0 * R * (double)elements(t);
    for (int64_t n = 0; !t->status && n < p->n; n++) {
        double sum = 0.0, size = 0.0;
        for (int64_t c = 0; c < M; c++) {
            const double x = a->value[n % N * M + c] * q->value[n / N * M + c];
            sum += x;
            size += fabs(x);
        }
        expect(p, n, sum, U * ROUNDINGS(M) * size);
    }
}

static void product_case(trial *t)
{
    const int N = t->R, M = t->C, R = rank_of(t, 5);
    operand *p = give(t, "p", FLOAT, (int64_t)R * N, 1.0), *q = give(t, "q", FLOAT, (int64_t)R * M, 1.0);
    operand *y = take(t, "y", FLOAT, elements(t));
    append(t, kernel_lowrank_product(t->list, t->k, N, M, R, p->buffer, q->buffer, y->buffer));
    t->flops = 2.0 * R * (double)elements(t);
    for (int64_t i = 0; !t->status && i < y->n; i++) {
        double sum = 0.0, size = 0.0;
        for (int64_t j = 0; j < R; j++) {
            const double x = p->value[j * N + i / M] * q->value[j * M + i % M];
            sum += x;
            size += fabs(x);
        }
        expect(y, i, sum, U * 8.0 * size);
    }
}

/* What is changed in place is loaded by a kernel: oclgrind does not follow a copy between parts of buffers, and
 * takes what was copied for values that nobody wrote. */
static void right_case(trial *t)
{
    const int N = t->R, M = t->C, R = rank_of(t, 5);
    operand *a = give(t, "a", FLOAT, elements(t), 1.0), *p = give(t, "p", STORED, (int64_t)R * N, 1.0);
    operand *work = scratch(t, 4 * (uint64_t)kernel_lowrank_work(N, M, R));
    operand *q = take(t, "q", FLOAT, (int64_t)R * M);
    append(t, kernel_load(t->list, t->k, p->n, p->buffer, work->buffer));
    append(t, kernel_lowrank_right(t->list, t->k, N, M, R, a->buffer, work->buffer, q->buffer));
    t->flops = 2.0 * R * (double)elements(t);
    for (int64_t n = 0; !t->status && n < q->n; n++) {
        double sum = 0.0, size = 0.0;
        for (int64_t i = 0; i < N; i++) {
            const double x = a->value[i * M + n % M] * p->value[n / M * N + i];
            sum += x;
            size += fabs(x);
        }
        expect(q, n, sum, U * ROUNDINGS(N) * size);
    }
}

/* All inner products of rows that were made orthonormal; the second row is the first one's double, so nothing
 * is left of it. */
static void orthogonal_case(trial *t)
{
    const int N = t->C, R = N < 5 ? N : 5;
    operand *x = give(t, "x", STORED, (int64_t)R * N, 1.0), *work = scratch(t, 4 * (uint64_t)R * (uint64_t)N);
    operand *g = take(t, "inner products", FLOAT, (int64_t)R * R);
    append(t, kernel_load(t->list, t->k, x->n, x->buffer, work->buffer));
    append(t, kernel_lowrank_orthogonal(t->list, t->k, N, R, 0, work->buffer));
    append(t, kernel_lowrank_left(t->list, t->k, R, N, R, work->buffer, work->buffer, g->buffer));
    for (int64_t i = 0; !t->status && R > 1 && i < N; i++)
        x->value[N + i] = x->want[N + i] = 2.0 * x->value[i];
    for (int64_t i = 0; !t->status && i < g->n; i++)
        expect(g, i, i / R == i % R, 1e-5);
}

static const kernel_case cases[] = {
    { "low rank, left", left_case, 8192, 4096 },
    { "low rank, right", right_case, 8192, 4096 },
    { "low rank, product", product_case, 8192, 4096 },
    { "orthonormal rows", orthogonal_case, 0, 0 },
    { 0 },
};

const kernel_family kernel_lowrank_family = {
    .program = { .file = "lowrank.cl", .variants = dev_plain_for_all },
    .cases = cases,
};
