/* SPDX-License-Identifier: MIT */
/* tests/gemm/gemm_oracle.c - see gemm_oracle.h. */
#include "tests/gemm/gemm_oracle.h"

#include "host/base/random.h"
#include "host/tensor/q8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD = 64 };                    /* elements before and after every matrix        */

static const uint32_t random_words[4] = { 11, 22, 33, 44 };

typedef struct operand {
    void *host, *seen;
    dev_buffer *root, *view;
    dtype type;
    size_t count;                       /* without the guards                            */
    q8 blocks;                          /* DTYPE_Q8                                      */
} operand;

static size_t guard_elements(const dev_device *d, dtype t)
{
    const size_t align = dev_info_of(d)->align, size = dtype_size(t);
    return align > GUARD * size ? align / size : GUARD;
}

/* A matrix between guards, all random: what must not be touched is known as well. */
static int operand_make(operand *x, dev_device *d, dtype type, size_t count, uint64_t stream)
{
    const size_t guard = guard_elements(d, type), all = count + 2 * guard;
    const size_t bytes = (all * dtype_size(type) + 3) & ~(size_t)3;
    gt_random r;
    *x = (operand){ .type = type, .count = count };
    x->host = calloc(1, bytes);
    x->seen = calloc(1, bytes);
    if (!x->host || !x->seen)
        return 0;
    gt_random_init(&r, 7, stream);
    for (size_t i = 0; i < all; i++)
        dtype_store(type, x->host, i, 2.0f * gt_random_unit(&r) - 1.0f);
    return CHECK_OK(dev_buffer_create(&x->root, d, bytes, "test")) && CHECK_OK(dev_write(d, x->root, 0, x->host, bytes))
           && CHECK_OK(dev_buffer_view(&x->view, x->root, guard * dtype_size(type), bytes - guard * dtype_size(type)));
}

/* In 8 bits, with random integers and scales; bytes stand for elements. */
static int operand_make_q8(operand *x, dev_device *d, q8 blocks, uint64_t stream)
{
    const size_t guard = guard_elements(d, DTYPE_Q8), count = q8_bytes(blocks),
                 bytes = (count + 2 * guard + 3) & ~(size_t)3;
    gt_random r;
    *x = (operand){ .type = DTYPE_Q8, .count = count, .blocks = blocks };
    x->host = calloc(1, bytes);
    x->seen = calloc(1, bytes);
    if (!x->host || !x->seen)
        return 0;
    gt_random_init(&r, 7, stream);
    int8_t *q = (int8_t *)x->host + guard;
    for (int64_t i = 0; i < blocks.rows * blocks.columns; i++)
        q[i] = (int8_t)((int)gt_random_below(&r, 255) - 127);
    for (uint64_t i = q8_scales_at(blocks); i < count; i += 4) {
        const float scale = gt_random_unit(&r) / 64.0f;
        memcpy(q + i, &scale, 4);
    }
    return CHECK_OK(dev_buffer_create(&x->root, d, bytes, "test")) && CHECK_OK(dev_write(d, x->root, 0, x->host, bytes))
           && CHECK_OK(dev_buffer_view(&x->view, x->root, guard, bytes - guard));
}

static void operand_release(operand *x)
{
    dev_buffer_release(x->view);
    dev_buffer_release(x->root);
    free(x->host);
    free(x->seen);
}

static double at(const operand *x, const dev_device *d, size_t i)
{
    if (x->type == DTYPE_Q8) {
        const char *from = (char *)x->host + guard_elements(d, DTYPE_Q8);
        const int64_t row = (int64_t)i / x->blocks.columns, column = (int64_t)i % x->blocks.columns;
        float scale;
        memcpy(&scale,
               from + q8_scales_at(x->blocks)
                   + 4 * (row * q8_in_row(x->blocks) + (x->blocks.first + column) / Q8_BLOCK),
               4);
        return (double)(float)((float)(int8_t)from[i] * scale);
    }
    return (double)dtype_load(x->type, x->host, guard_elements(d, x->type) + i);
}

static double activated(activation a, double x)
{
    switch (a) {
    case ACT_GELU_TANH: return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case ACT_GELU_ERF: return 0.5 * x * (1 + erf(x / sqrt(2.0)));
    case ACT_SILU: return x / (1 + exp(-x));
    case ACT_RELU: return fmax(x, 0);
    case ACT_TANH: return tanh(x);
    default: return x;
    }
}

static double slope(activation a, double x)
{
    const double h = 1e-4;
    return a == ACT_RELU ? x > 0 : (activated(a, x + h) - activated(a, x - h)) / (2 * h);
}

static double kept(const gemm_desc *g, uint64_t element)
{
    uint32_t w[4];
    const uint64_t seed = random_words[0] | (uint64_t)random_words[1] << 32;
    element += random_words[3] * (uint64_t)g->drop_sequence;
    gt_philox(w, seed, (uint32_t)(element / 4) | (uint64_t)g->drop_stream << 32,
              random_words[2] | element / 4 >> 32 << 32);
    const double limit = (double)g->drop_p * 4294967296.0;
    return (double)w[element % 4] < floor(limit) ? 0 : 1 / (1 - (double)g->drop_p);
}

static double storage_error(dtype t)
{
    return t == DTYPE_BF16 ? 1.0 / 256 : t == DTYPE_F16 ? 1.0 / 2048 : 0;
}

/* Of the sum of two bf16, up to 2^-16 is missing in each factor, and as much in the product of what is left over. */
static double product_error(const char *engine)
{
    return strcmp(engine, "bf16x3") ? 0 : 3 * 0x1p-16;
}

/* Elements of a batch of stored matrices. */
static size_t extent(int rows, int width, int ld, int batch, int64_t stride)
{
    return (size_t)(batch - 1) * (size_t)stride + (size_t)(rows - 1) * (size_t)(ld ? ld : width) + (size_t)width;
}

typedef struct run {
    gemm_desc g;
    int batch, lda, ldb, ldc;
    operand a, b, c, bias, pre, aux, residual;
    int how;
} run;

/* Compares what came back in c->seen; `before` is C's old content, added if `add`. */
static int compare(const run *x, const dev_device *d, int add, const char *engine)
{
    const gemm_desc *g = &x->g;
    const double alpha = g->alpha != 0 ? (double)g->alpha : 1;
    const size_t guard = guard_elements(d, g->c_type), all = x->c.count + 2 * guard;
    char *inside = calloc(1, all);
    int good = 1;
    if (!inside)
        return 0;

    for (int b = 0; b < x->batch && good; b++)
        for (int m = 0; m < g->M && good; m++)
            for (int n = 0; n < g->N && good; n++) {
                double sum = 0, size = 0;
                for (int k = 0; k < g->K; k++) {
                    const size_t ai = (size_t)(b * g->stride_a)
                                      + (g->trans_a ? (size_t)k * (size_t)x->lda + (size_t)m
                                                    : (size_t)m * (size_t)x->lda + (size_t)k);
                    const size_t bi = (size_t)(b * g->stride_b)
                                      + (g->trans_b ? (size_t)n * (size_t)x->ldb + (size_t)k
                                                    : (size_t)k * (size_t)x->ldb + (size_t)n);
                    const double p = alpha * at(&x->a, d, ai) * at(&x->b, d, bi);
                    sum += p;
                    size += fabs(p);
                }
                const size_t ci = (size_t)(b * g->stride_c) + (size_t)m * (size_t)x->ldc + (size_t)n;
                if (add) {
                    sum += at(&x->c, d, ci);
                    size += fabs(at(&x->c, d, ci));
                }
                double want = sum, allowed = (2e-6 + product_error(engine)) * size + 1e-6;
                if (g->bias)
                    want += at(&x->bias, d, (size_t)n);
                const double pre = want;
                want = activated(g->act, want);
                if (g->act_grad)
                    want *= slope(g->act_grad, at(&x->aux, d, ci));
                if (g->drop_p > 0)
                    want *= kept(g, ((uint64_t)b * (uint64_t)g->M + (uint64_t)m) * (uint64_t)g->N + (uint64_t)n);
                /* An engine that multiplies only stores the product once before the rest. */
                allowed += storage_error(g->c_type) * (fabs(want) + fabs(pre)) * 1.01;
                if (g->residual)
                    want += at(x->how & GEMM_IN_PLACE ? &x->c : &x->residual, d, ci);
                allowed += storage_error(g->c_type) * fabs(want) * 1.01;
                allowed *= g->drop_p > 0 ? 1 / (1 - (double)g->drop_p) : 1;

                const double got = (double)dtype_load(g->c_type, x->c.seen, guard + ci);
                good &= CHECKF(fabs(got - want) <= allowed,
                               "%s %c%c %s by %s -> %s %dx%dx%d batch %d, element %d,%d,%d: %.8g is not %.8g"
                               " within %.2g",
                               engine, g->trans_a ? 't' : 'n', g->trans_b ? 't' : 'n', dtype_name(g->a_type),
                               dtype_name(g->b_type), dtype_name(g->c_type), g->M, g->N, g->K, x->batch, b, m, n, got,
                               want, allowed);
                if (g->act && !(x->how & GEMM_NO_PRE)) {
                    const double p = (double)dtype_load(g->c_type, x->pre.seen, guard + ci);
                    good &= CHECKF(fabs(p - pre) <= allowed + storage_error(g->c_type) * fabs(pre),
                                   "%s: pre %d,%d,%d is %.8g, not %.8g", engine, b, m, n, p, pre);
                }
                inside[guard + ci] = 1;
            }
    for (size_t i = 0; i < all && good; i++)
        if (!inside[i]) {
            const size_t w = dtype_size(g->c_type);
            good &= CHECKF(!memcmp((char *)x->c.seen + i * w, (char *)x->c.host + i * w, w),
                           "%s %dx%dx%d wrote element %zu, outside of C", engine, g->M, g->N, g->K, i);
            if (g->act)
                good &= CHECKF(!memcmp((char *)x->pre.seen + i * w, (char *)x->pre.host + i * w, w),
                               "%s wrote element %zu, outside of pre", engine, i);
        }
    free(inside);
    return good;
}

static int read_back(operand *x, dev_device *d)
{
    return CHECK_OK(dev_read(d, x->root, 0, x->seen, dev_buffer_bytes(x->root)));
}

int gemm_case(gemm_context *c, dev_device *d, const gemm_desc *g, int flip)
{
    return gemm_case_with(c, d, g, flip, 0);
}

int gemm_case_with(gemm_context *c, dev_device *d, const gemm_desc *g, int flip, int how)
{
    run x = { .g = *g, .batch = g->batch ? g->batch : 1, .how = how };
    const int a_rows = g->trans_a ? g->K : g->M, a_width = g->trans_a ? g->M : g->K;
    const int b_rows = g->trans_b ? g->N : g->K, b_width = g->trans_b ? g->K : g->N;
    dev_buffer *scratch = NULL, *random = NULL;
    dev_list *l = NULL;
    uint64_t scratch_bytes = 0;
    gemm_slot slot;
    const char *engine = "?";

    x.lda = g->lda ? g->lda : a_width;
    x.ldb = g->ldb ? g->ldb : b_width;
    x.ldc = g->ldc ? g->ldc : g->N;
    const size_t c_count = extent(g->M, g->N, x.ldc, x.batch, g->stride_c);
    int good = operand_make(&x.a, d, g->a_type, extent(a_rows, a_width, x.lda, x.batch, g->stride_a), 1)
               && (g->b_type == DTYPE_Q8
                       ? operand_make_q8(&x.b, d, (q8){ b_rows, b_width, g->b_first }, 2)
                       : operand_make(&x.b, d, g->b_type, extent(b_rows, b_width, x.ldb, x.batch, g->stride_b), 2))
               && operand_make(&x.c, d, g->c_type, c_count, 3) && operand_make(&x.bias, d, DTYPE_F32, (size_t)g->N, 4)
               && operand_make(&x.pre, d, g->c_type, c_count, 5) && operand_make(&x.aux, d, g->c_type, c_count, 6)
               && operand_make(&x.residual, d, g->c_type, c_count, 7) && CHECK_OK(gemm_engine_name(c, g, &engine))
               && CHECK_OK(gemm_scratch(c, g, &scratch_bytes))
               && CHECK_OK(dev_buffer_create(&scratch, d, scratch_bytes, "test scratch"))
               && CHECK_OK(dev_buffer_create(&random, d, 16, "test random"))
               && CHECK_OK(dev_write(d, random, 0, random_words, 16)) && CHECK_OK(dev_list_create(&l, d));
    const gemm_buffers on = {
        .a = x.a.view,
        .b = x.b.view,
        .c = x.c.view,
        .bias = x.bias.view,
        .pre = how & GEMM_NO_PRE ? NULL : x.pre.view,
        .aux = x.aux.view,
        .residual = how & GEMM_IN_PLACE ? x.c.view : x.residual.view,
        .random = random,
        .scratch = scratch,
    };
    good = good && CHECK_OK(gemm_append(c, l, g, &on, flip ? &slot : NULL)) && CHECK_OK(dev_run(l, 0, -1))
           && read_back(&x.c, d) && read_back(&x.pre, d) && compare(&x, d, g->add, engine);

    /* The other value of `add`, queued, and the slot turned back before it has run. */
    if (good && flip) {
        good = CHECK_OK(dev_write(d, x.c.root, 0, x.c.host, dev_buffer_bytes(x.c.root)))
               && CHECK_OK(dev_list_set(l, slot.launch, slot.arg, dev_arg_i32(!g->add))) && CHECK_OK(dev_run(l, 0, -1))
               && CHECK_OK(dev_list_set(l, slot.launch, slot.arg, dev_arg_i32(g->add))) && read_back(&x.c, d)
               && compare(&x, d, !g->add, engine);
    }
    dev_list_release(l);
    dev_buffer_release(scratch);
    dev_buffer_release(random);
    operand *const all[] = { &x.a, &x.b, &x.c, &x.bias, &x.pre, &x.aux, &x.residual };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        operand_release(all[i]);
    return good;
}
