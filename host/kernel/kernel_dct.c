/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_dct.c - launches of cl/dct.cl, and their cases: cosine transforms of the blocks of a matrix. */
#include "host/kernel/kernel_cases_private.h"
#include "host/kernel/kernel_private.h"

#include <assert.h>
#include <math.h>

enum { SIDE = DCT_SIDE, BLOCK = SIDE * SIDE };

static int64_t blocks_of(int N, int M)
{
    return (int64_t)((N + SIDE - 1) / SIDE) * ((M + SIDE - 1) / SIDE);
}

int64_t kernel_dct_count(int N, int M)
{
    return blocks_of(N, M) * BLOCK;
}

static gt_status transform(dev_list *l, kernel_set *k, int N, int M, int inverse, dev_buffer *from, dev_buffer *to)
{
    assert(N > 0 && M > 0);
    const int64_t blocks = blocks_of(N, M);
    gt_status st = kernel_fits("blocks of a gradient", blocks);
    dev_arg args[] = { dev_arg_i32(1),       dev_arg_i32(N),       dev_arg_i32(M),    dev_arg_i32((int)blocks),
                       dev_arg_i32(inverse), dev_arg_buffer(from), dev_arg_buffer(to) };
    return st ? st
              : kernel_launch_rows(l, k, &kernel_dct_family, "dct", (int)blocks, SIDE * BLOCK, args, KERNEL_ARGS(args));
}

gt_status kernel_dct_forward(dev_list *l, kernel_set *k, int N, int M, dev_buffer *x, dev_buffer *y)
{
    return transform(l, k, N, M, 0, x, y);
}

gt_status kernel_dct_inverse(dev_list *l, kernel_set *k, int N, int M, dev_buffer *y, dev_buffer *x)
{
    return transform(l, k, N, M, 1, y, x);
}

/* ---- cases ------------------------------------------------------------------------------------- */

/* c(u, i, n) at u * SIDE + i. */
static void basis(double *c, int64_t n)
{
    for (int64_t u = 0; u < n; u++)
        for (int64_t i = 0; i < n; i++)
            c[u * SIDE + i] = sqrt((u ? 2.0 : 1.0) / (double)n)
                              * cos(acos(-1.0) * (double)((2 * i + 1) * u) / (double)(2 * n));
}

/* Rows of a block, or columns, of which the first is `at`. */
static int64_t extent(int64_t at, int64_t all)
{
    return all - at < SIDE ? all - at : SIDE;
}

/* Block b of an (N,M) matrix, one dim after the other. */
static void expect_block(operand *y, const operand *x, int64_t N, int64_t M, int64_t b, int inverse)
{
    static double down[BLOCK], along[BLOCK], middle[BLOCK];
    const int64_t across = (M + SIDE - 1) / SIDE, row = b / across * SIDE, column = b % across * SIDE;
    const int64_t h = extent(row, N), w = extent(column, M);
    double size = 0.0;
    basis(down, h);
    basis(along, w);
    for (int64_t i = 0; i < h; i++)
        for (int64_t v = 0; v < w; v++) {
            double sum = 0.0;
            for (int64_t j = 0; j < w; j++)
                sum += inverse ? x->value[b * BLOCK + i * SIDE + j] * along[j * SIDE + v]
                               : x->value[(row + i) * M + column + j] * along[v * SIDE + j];
            middle[i * SIDE + v] = sum;
            size = fmax(size, fabs(sum));
        }
    for (int64_t u = 0; u < SIDE; u++)
        for (int64_t v = 0; v < SIDE; v++) {
            const int there = u < h && v < w;
            double sum = 0.0;
            for (int64_t i = 0; there && i < h; i++)
                sum += middle[i * SIDE + v] * down[inverse ? i * SIDE + u : u * SIDE + i];
            if (!inverse)
                expect(y, b * BLOCK + u * SIDE + v, sum, 128.0 * U * size);
            else if (there)
                expect(y, (row + u) * M + column + v, sum, 128.0 * U * size);
        }
}

static void dct_with(trial *t, int inverse)
{
    const int N = t->R, M = t->C;
    const int64_t blocks = blocks_of(N, M);
    operand *x = give(t, "x", FLOAT, inverse ? blocks * BLOCK : elements(t), 1.0);
    operand *y = take(t, "y", FLOAT, inverse ? elements(t) : blocks * BLOCK);
    append(t, transform(t->list, t->k, N, M, inverse, x->buffer, y->buffer));
    t->flops = 4.0 * SIDE * (double)(blocks * BLOCK);
    for (int64_t i = 0; !t->status && inverse && i < x->n; i++)
        if (i % 7)                      /* most coefficients are none */
            x->value[i] = x->want[i] = 0.0;
    for (int64_t b = 0; !t->status && b < blocks; b++)
        expect_block(y, x, N, M, b, inverse);
}

static void forward_case(trial *t)
{
    dct_with(t, 0);
}

static void inverse_case(trial *t)
{
    dct_with(t, 1);
}

static const kernel_case cases[] = {
    { "cosine transform", forward_case, 1024, 1024 },
    { "cosine transform, inverse", inverse_case, 1024, 1024 },
    { 0 },
};

const kernel_family kernel_dct_family = {
    .program = { .file = "dct.cl", .variants = dev_plain_for_all },
    .cases = cases,
};
