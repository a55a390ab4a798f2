/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_measure.c - the fastest engine for a product, by running it.
 *
 * What is measured is checked as well, since an engine that a runtime lets down is often the fastest. Machines are
 * shared and noisy: engines take turns over several rounds, each one's best run counts, and the first engine of the
 * table wins unless another is 10 % faster.                                                     */
#include "host/gemm/engine.h"

#include "host/base/activity.h"
#include "host/base/clock.h"
#include "host/base/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The fastest of a few runs of the launches from `first` on; stops after 30 ms of them. The
 * first run is not counted: it compiles. */
static gt_status time_list(dev_list *l, int first, dev_device *d, double *seconds)
{
    const uint64_t budget = 30000000;
    uint64_t spent = 0, best = UINT64_MAX;
    gt_status st = dev_run(l, first, -1);
    if (!st)
        st = dev_wait(d);
    for (int i = 0; !st && i < 5 && (i == 0 || spent + best < budget); i++) {
        const uint64_t start = gt_now_ns();
        st = dev_run(l, first, -1);
        if (!st)
            st = dev_wait(d);
        const uint64_t took = gt_now_ns() - start;
        spent += took;
        best = took < best ? took : best;
    }
    *seconds = (double)best * 1e-9;
    return st;
}

/* What every operand of a measurement is filled with: a little off zero, for denormals and zeros
 * would not be typical; 1 in fp16, 1/128 or so in the others. */
static const uint32_t pattern = 0x3c003c00;
/* The integers of a B in 8 bits; their scales are the pattern in fp32. */
static const uint32_t integers = 0x3c3c3c3c;

static double b_element(const gemm_desc *g)
{
    return g->b_type == DTYPE_Q8 ? (double)(integers & 0xff) * (double)dtype_load(DTYPE_F32, &pattern, 0)
                                 : (double)dtype_load(g->b_type, &pattern, 0);
}

/* Is the plain product of `g` right, at the size it will have? All its elements are the same sum, so
 * that turns, tiles or work-items left out show. Runtimes that cut long loops short return success. */
static gt_status check_product(gemm_context *c, const gemm_engine *e, const gemm_desc *g, const gemm_buffers *b)
{
    const size_t size = dtype_size(g->c_type);
    gemm_desc plain = *g;
    dev_list *l = NULL;
    unsigned char *got = malloc(gemm_c_bytes(g) + 4), want_bits[4] = { 0 };
    plain.bias = plain.residual = plain.add = 0;
    plain.act = plain.act_grad = ACT_NONE;
    plain.drop_p = 0;
    gt_status st = got ? GT_OK
                       : gt_fail(GT_NO_MEMORY, "cannot check a GEMM engine: no memory for a product of %zu bytes",
                                 (size_t)gemm_c_bytes(g));
    if (!st)
        st = dev_list_create(&l, gemm_device(c));
    if (!st)
        st = e->append(c, l, &plain, b, NULL);
    if (!st)
        st = dev_run(l, 0, -1);
    if (!st)
        st = dev_read(gemm_device(c), b->c, 0, got, gemm_c_bytes(g));
    const double a = (double)dtype_load(g->a_type, &pattern, 0);
    dtype_store(g->c_type, want_bits, 0, (float)((double)g->alpha * g->K * a * b_element(g)));
    const double want = (double)dtype_load(g->c_type, want_bits, 0);
    const double allowed = (1e-5 + 6e-8 * g->K + (size == 2 ? 1.0 / 128 : 0.0)) * fabs(want);
    for (int i = 0; !st && i < g->batch; i++)
        for (int m = 0; !st && m < g->M; m++)
            for (int n = 0; !st && n < g->N; n++) {
                const size_t at = (size_t)i * (size_t)g->stride_c + (size_t)m * (size_t)g->ldc + (size_t)n;
                const double x = (double)dtype_load(g->c_type, got, at);
                if (!(fabs(x - want) <= allowed) && memcmp(got + at * size, want_bits, size))
                    st = gt_fail(GT_NUMERIC, "%d x %d x %d gave %g at row %d, column %d, not %g", g->M, g->N, g->K, x,
                                 m, n, want);
            }
    dev_list_release(l);
    free(got);
    return st;
}

/* What all engines of a measurement share: its memory is made and filled once, which takes longer than many a
 * product. Scratch memory is each engine's own. */
typedef struct operands {
    gemm_buffers b;
    dev_list *fill;
} operands;

static void operands_release(operands *o)
{
    dev_list_release(o->fill);
    dev_buffer_release(o->b.a);
    dev_buffer_release(o->b.b);
    dev_buffer_release(o->b.c);
    dev_buffer_release(o->b.bias);
    dev_buffer_release(o->b.random);
    dev_buffer_release(o->b.pre);
}

static gt_status operands_make(operands *o, gemm_context *c, const gemm_desc *g)
{
    gemm_buffers *b = &o->b;
    *o = (operands){ 0 };
    gt_status st = dev_list_create(&o->fill, gemm_device(c));
    if (!st)
        st = dev_buffer_create(&b->a, gemm_device(c), (gemm_a_bytes(g) + 3) & ~3ull, "GEMM measurement");
    if (!st)
        st = dev_buffer_create(&b->b, gemm_device(c), (gemm_b_bytes(g) + 3) & ~3ull, "GEMM measurement");
    if (!st)
        st = dev_buffer_create(&b->c, gemm_device(c), (gemm_c_bytes(g) + 3) & ~3ull, "GEMM measurement");
    if (!st)
        st = dev_buffer_create(&b->bias, gemm_device(c), (uint64_t)g->N * 4, "GEMM measurement");
    if (!st)
        st = dev_buffer_create(&b->random, gemm_device(c), 16, "GEMM measurement");
    if (!st && gemm_has_epilogue(g))
        st = dev_buffer_create(&b->pre, gemm_device(c), (gemm_c_bytes(g) + 3) & ~3ull, "GEMM measurement");
    b->aux = b->residual = b->pre;

    dev_buffer *const filled[] = { b->a, b->b, b->c, b->bias, b->random, b->pre };
    for (size_t i = 0; !st && i < sizeof filled / sizeof filled[0]; i++)
        if (filled[i])
            st = dev_list_fill(o->fill, filled[i], 0, pattern, dev_buffer_bytes(filled[i]) & ~3ull);
    if (!st && g->b_type == DTYPE_Q8)
        st = dev_list_fill(o->fill, b->b, 0, integers, q8_scales_at(gemm_q8(g)));
    if (!st)
        st = dev_run(o->fill, 0, -1);
    if (st)
        operands_release(o);
    return st;
}

/* check: look at the result as well. */
static gt_status measure(gemm_context *c, const gemm_engine *e, const gemm_desc *g, const operands *o, int check,
                         double *seconds)
{
    gemm_buffers b = o->b;
    dev_list *l = NULL;
    uint64_t scratch = e->scratch(c, g);
    scratch = scratch < 64 ? 64 : scratch;

    gt_status st = dev_list_create(&l, gemm_device(c));
    if (!st)
        st = dev_buffer_create(&b.scratch, gemm_device(c), scratch, "GEMM measurement");
    if (!st)
        st = e->append(c, l, g, &b, NULL);
    if (!st)
        st = time_list(l, 0, gemm_device(c), seconds);
    if (!st && check)
        st = check_product(c, e, g, &b);

    dev_list_release(l);
    dev_buffer_release(b.scratch);
    return st;
}

/* Takes the fastest engine that can. One that fails to run, or computes wrongly, is left out; if
 * there is none left, so is the device, and its error is the caller's. Engines take turns; one that is far
 * behind after a round is not run again, and when only one is left nothing can change any more. */
static gt_status measure_on(gemm_context *c, const gemm_desc *g, const operands *o, const gemm_engine **out,
                            double *seconds)
{
    enum { ROUNDS = 3 };
    double best[GEMM_ENGINES];
    gt_status st = GT_OK;
    int winner = -1, left = GEMM_ENGINES;
    for (int i = 0; i < GEMM_ENGINES; i++)
        best[i] = INFINITY;
    for (int round = 0; round < ROUNDS && left > 1; round++) {
        for (int i = 0; gemm_engine_row(i); i++) {
            const gemm_engine *e = gemm_engine_row(i);
            double took = INFINITY;
            const int behind = round > 0 && !(best[i] <= 1.5 * best[winner]);
            if (!e->can(c, g) || behind)
                continue;
            gt_status tried = gt_stop_check();
            if (!tried)
                tried = measure(c, e, g, o, round == 0, &took);
            if (tried == GT_INTERRUPTED)
                return tried;
            if (tried) {
                st = tried;
                gt_log(tried == GT_NUMERIC ? GT_LOG_WARN : GT_LOG_INFO, "gemm",
                       "engine '%s' %son '%s' "
                       "and is left out: %s",
                       gemm_name_of(e), tried == GT_NUMERIC ? "computes wrongly " : "fails ",
                       dev_info_of(gemm_device(c))->id, gt_message());
            }
            best[i] = tried ? INFINITY : fmin(best[i], took);
        }
        winner = -1;
        for (int i = 0; gemm_engine_row(i); i++)
            if (isfinite(best[i]) && (winner < 0 || best[i] < 0.9 * best[winner]))
                winner = i;
        if (winner < 0)
            return gt_fail_in(st, "no GEMM engine can be used on device '%s'", dev_info_of(gemm_device(c))->id);
        left = 0;
        for (int i = 0; gemm_engine_row(i); i++)
            left += best[i] <= 1.5 * best[winner];
    }
    for (int i = 0; gemm_engine_row(i); i++)
        if (isfinite(best[i]))
            gt_log(GT_LOG_DEBUG, "gemm", "%d x %d x %d: %s takes %.3f ms", g->M, g->N, g->K,
                   gemm_name_of(gemm_engine_row(i)), best[i] * 1e3);
    *out = gemm_engine_row(winner);
    *seconds = best[winner];
    return GT_OK;
}

gt_status gemm_measure(gemm_context *c, const gemm_desc *g, const gemm_engine **out, double *seconds)
{
    operands o;
    gt_status st = operands_make(&o, c, g);
    if (st)
        return gt_fail_in(st, "no GEMM engine can be measured on device '%s'", dev_info_of(gemm_device(c))->id);
    st = measure_on(c, g, &o, out, seconds);
    operands_release(&o);
    return st;
}
