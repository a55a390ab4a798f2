/* SPDX-License-Identifier: MIT */
/* tests/attention/test_attention.c - attention against the double-precision reference, forward
 * and backward, in both styles and by tiles; the reference's own gradient against finite differences.
 *
 * GT_TEST_DEVICE and GT_TEST_TINY: see attention_oracle.h. Matrix units have a program of their own
 * (test_attention_matrix.c).                                                             */
#include "tests/attention/attention_oracle.h"

#include "host/attention/attention_rows.h"
#include "host/base/random.h"
#include "host/gemm/gemm_tiles.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The tiles of an engine; 0 and a skip if this device or build is without. */
static int place_open_tiles(place *p, const char *engine, dtype type)
{
    gemm_prepare_process();
    if (!place_open(p, "cpu", type))
        return 0;
    const kernel_attention_shape s = { .B = 16, .T = 200, .H = 64, .KV = 64, .D = 64, .causal = 1, .scale = 1.0f };
    const attention_how how = { NULL, p->k, &s, NULL };
    const char *name = "";
    gt_status st = gemm_context_create(&p->g, p->d, engine);
    attention_how with = how;
    with.gemm = p->g;
    if (!st)
        st = attention_engine(&with, 0, &name);
    p->rounding = type == DTYPE_BF16 ? 1.0 / 256 : 0.0;     /* probabilities, where they multiply that */
    if (!st && !strcmp(name, engine))
        return 1;
    check_skip("'%s' has no tiles of engine %s in %s", dev_info_of(p->d)->id, engine, dtype_name(type));
    gemm_context_release(p->g);
    kernel_set_release(p->k);
    dev_close(p->d);
    return 0;
}

/* The GPU bodies crawl on a CPU device, so only some of the shapes are for them there. */
static void all_shapes(const char *style, dtype type)
{
    static const int lengths[] = { 1, 2, 31, 32, 33, 63, 64, 65, 129, 200 };
    static const int heads[] = { 1, 20, 33, 64, 128 };
    place p;
    int good = 1;
    if (!place_open(&p, style, type))
        return;
    const int crawls = !strcmp(style, "gpu") && dev_info_of(p.d)->kind == DEV_CPU;
    for (int t = 0; t < (check_tiny() ? 4 : 10) && good; t++)
        for (int d = 0; d < (check_tiny() ? 3 : 5) && good; d++) {
            if (type != DTYPE_F32 && (t + d) % 3)       /* the arithmetic is the same */
                continue;
            if (!check_tiny() && crawls && (t % 3 || (type != DTYPE_F32 && d == 4)))
                continue;
            good = attention_case(&p, t % 2 ? 1 : 3, lengths[t], heads[d], d % 2 ? 1 : 3, (t + d) % 4 != 1,
                                  (t + d) % 2 ? 0.3f : 0.0f, d % 2 ? t : 0, NULL);
        }
    if (type == DTYPE_F32)                              /* a GPU's groups share such a head's columns */
        good = good && attention_case(&p, 1, 3, 130, 2, 1, 0.1f, 0, NULL)
               && attention_case(&p, 2, 3, 130, 2, 1, 0.1f, 3, NULL);
    if (good && !check_tiny() && (!crawls || type == DTYPE_F32))
        attention_case(&p, 1, 70, 250, 1, 1, 0.1f, 0, NULL);
    place_close(&p);
}

/* Padding: of the first sequence nothing is there, of others a part; keys and values behind are as
 * random as the rest, and must not show. Some heads are other ranks'. */
static void keys_behind_a_length_are_hidden(void)
{
    static const char *const styles[] = { "cpu", "gpu" };
    for (int s = 0; s < 2; s++)
        for (dtype t = DTYPE_F32; t <= DTYPE_F16; t++) {
            place p;
            const int T = check_tiny() ? 5 : 70;
            const int32_t lengths[] = { 0, T - 1, 1, T / 2, T };
            if (!place_open(&p, styles[s], t))
                continue;
            int good = attention_case(&p, 5, T, 12, 1, 0, 0.0f, 0, lengths)
                       && attention_case(&p, 4, T, 12, 1, 1, 0.3f, 0, lengths + 1);
            if (good && !check_tiny() && t == DTYPE_F32)      /* heads enough to own, or not; blocks that are whole */
                good = attention_case(&p, 3, 130, 64, 3, 1, 0.2f, 2, (const int32_t[]){ 64, 129, 65 })
                       && attention_case(&p, 1, 200, 33, 1, 0, 0.0f, 0, (const int32_t[]){ 100 });
            CHECK(good);
            place_close(&p);
        }
}

/* Windows of one token, of some that end within, at and beyond blocks of 64, and of all; documents; both; heads
 * enough for a CPU's core to own one, or not; heads of other ranks. */
static void keys_before_a_window_or_document_are_hidden(void)
{
    static const char *const styles[] = { "cpu", "gpu" };
    static int32_t starts[3 * 300];
    for (int s = 0; s < 2; s++)
        for (dtype t = DTYPE_F32; t <= DTYPE_F16; t++) {
            place p;
            int good = 1;
            if (!place_open(&p, styles[s], t))
                continue;
            const int crawls = !strcmp(styles[s], "gpu") && dev_info_of(p.d)->kind == DEV_CPU;
            const int T = check_tiny() ? 7 : crawls || t != DTYPE_F32 ? 130 : 200;
            const int windows[] = { 1, 3, 63, 64, 65, 129, 500, 0 };
            for (int w = 0; good && w < 8; w++) {
                if ((t != DTYPE_F32 || crawls) && w % 3 != 1)       /* the arithmetic is the same */
                    continue;
                const int B = w % 2 ? 1 : 2, H = w % 3 ? 1 : 3;
                const reference_mask window = { .causal = 1, .window = windows[w] };
                const reference_mask both = { .causal = 1, .window = windows[w], .starts = starts };
                cut_documents(starts, B, T, check_tiny() ? 2 : 5 + 20 * w);
                good = masked_case(&p, B, T, w % 2 ? 12 : 33, H, w == 3 ? 0.3f : 0.0f, w == 3 ? 2 : 0, &window)
                       && masked_case(&p, B, T, w % 2 ? 33 : 12, H, w == 4 ? 0.3f : 0.0f, 0, &both);
            }
            CHECK(good);
            place_close(&p);
        }
}

static void the_cpu_body_matches_in_fp32(void)
{
    all_shapes("cpu", DTYPE_F32);
}
static void the_cpu_body_matches_in_bf16(void)
{
    all_shapes("cpu", DTYPE_BF16);
}
static void the_cpu_body_matches_in_fp16(void)
{
    all_shapes("cpu", DTYPE_F16);
}
static void the_gpu_body_matches_in_fp32(void)
{
    all_shapes("gpu", DTYPE_F32);
}
static void the_gpu_body_matches_in_bf16(void)
{
    all_shapes("gpu", DTYPE_BF16);
}
static void the_gpu_body_matches_in_fp16(void)
{
    all_shapes("gpu", DTYPE_F16);
}

/* d/dx of sum(dout * out) by central differences, against the gradient all cases trust. */
static void the_reference_gradient_is_the_slope_of_the_reference(void)
{
    enum { B = 1, T = 5, H = 2, D = 3, C = H * D, N = B * T * 3 * C };
    const reference_dropout drop = { .p = 0.3f, .seed = 1, .step = 2, .first = 3, .stream = 4 };
    double qkv[N], dout[B * T * C], out[B * T * C], dqkv[N];
    gt_random r;
    gt_random_init(&r, 1, 1);
    for (int i = 0; i < N; i++)
        qkv[i] = 2 * (double)gt_random_unit(&r) - 1;
    for (int i = 0; i < B * T * C; i++)
        dout[i] = 2 * (double)gt_random_unit(&r) - 1;
    for (int way = 0; way < 6; way++) {
        const int32_t some[B] = { 3 }, starts[B * T] = { 0, 0, 2, 2, 2 };
        const reference_mask mask = { .causal = way & 1 || way > 3,
                                      .lengths = way == 2 || way == 3 ? some : NULL,
                                      .window = way > 3 ? 2 : 0,
                                      .starts = way == 5 ? starts : NULL };
        reference_attention_masked_grad(B, T, C, H, &mask, 0.7, &drop, qkv, dout, dqkv);
        for (int i = 0; i < N; i++) {
            const double h = 1e-5, old = qkv[i];
            double slope = 0;
            for (int side = -1; side <= 1; side += 2) {
                qkv[i] = old + side * h;
                reference_attention_masked(B, T, C, H, &mask, 0.7, &drop, qkv, out, NULL);
                for (int j = 0; j < B * T * C; j++)
                    slope += side * dout[j] * out[j] / (2 * h);
            }
            qkv[i] = old;
            CHECKF(fabs(slope - dqkv[i]) < 1e-7, "element %d: slope %g, gradient %g", i, slope, dqkv[i]);
        }
    }
}

/* With equal scores and values of one, a row of the output is the share of probabilities
 * kept, divided by what it is on average. */
static void dropout_keeps_the_asked_share(void)
{
    enum { B = 1, T = 256, H = 4, D = 8, C = H * D };
    place p;
    array qkv = { 0 }, out = { 0 }, lse = { 0 };
    dev_buffer *random = NULL;
    dev_list *l = NULL;
    const size_t n = (size_t)T * C;
    if (check_tiny() || !place_open(&p, "cpu", DTYPE_F32))
        return;
    if (array_make(&qkv, &p, DTYPE_F32, 3 * n, 1) && array_make(&out, &p, DTYPE_F32, n, 2)
        && array_make(&lse, &p, DTYPE_F32, (size_t)T * H, 3) && CHECK_OK(dev_buffer_create(&random, p.d, 16, "random"))
        && CHECK_OK(dev_write(p.d, random, 0, words, 16)) && CHECK_OK(dev_list_create(&l, p.d))) {
        const kernel_dropout drop = { .p = 0.2f, .stream = 1, .random = random };
        float *x = calloc(3 * n, sizeof *x);
        for (size_t i = 0; i < (size_t)T; i++)
            for (size_t c = 0; c < C; c++)
                x[i * 3 * C + 2 * C + c] = 1.0f;
        CHECK_OK(dev_write(p.d, qkv.view, 0, x, 3 * n * 4));
        const kernel_attention_shape sizes = { .B = B, .T = T, .H = H, .KV = H, .D = D, .scale = 0.35f };
        const kernel_attention_in in = side_by_side(qkv.view, C);
        CHECK_OK(kernel_attention(l, p.k, &sizes, &drop, &in, out.view, lse.view));
        CHECK_OK(dev_run(l, 0, -1));
        CHECK_OK(dev_read(p.d, out.view, 0, x, n * 4));
        double sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += (double)x[i];
        CHECKF(fabs(sum / (double)n - 1) < 0.01, "mean %f", sum / (double)n);
        free(x);
    }
    dev_list_release(l);
    dev_buffer_release(random);
    array_release(&qkv);
    array_release(&out);
    array_release(&lse);
    place_close(&p);
}

/* Generation in pieces of several lengths gives the rows of the whole. */
static void cached_case(const char *style, dtype type, int B, int T, int D, int H, int window)
{
    static const int pieces[] = { 5, 1, 1, 17, 2, 64 };
    const int C = H * D, capacity = T + 3;
    const size_t c = (size_t)C, cache = (size_t)B * (size_t)H * (size_t)capacity * (size_t)D;
    place p;
    array keys = { 0 }, values = { 0 };
    if (!place_open(&p, style, type))
        return;
    double *qkv = malloc((size_t)B * (size_t)T * 3 * c * sizeof *qkv);
    double *want = malloc((size_t)B * (size_t)T * c * sizeof *want);
    gt_random r;
    gt_random_init(&r, 9, 9);
    for (size_t i = 0; i < (size_t)B * (size_t)T * 3 * c; i++) {
        uint32_t rounded = 0;
        dtype_store(type, &rounded, 0, 2.0f * gt_random_unit(&r) - 1.0f);
        qkv[i] = (double)dtype_load(type, &rounded, 0);
    }
    const float scale = (T % 2 ? 1.0f : 0.6f) / sqrtf((float)D);
    const reference_mask mask = { .causal = 1, .window = window };
    reference_attention_masked(B, T, C, H, &mask, (double)scale, NULL, qkv, want, NULL);
    int good = array_make(&keys, &p, type, cache, 1) && array_make(&values, &p, type, cache, 2);
    for (int i = 0, first = 0; first < T && good; i++) {
        const int n = pieces[i % 6] < T - first ? pieces[i % 6] : T - first;
        const size_t rows = (size_t)B * (size_t)n;
        array in = { 0 }, out = { 0 };
        dev_buffer *at = NULL;
        dev_list *l = NULL;
        double *rows_want = malloc(rows * c * sizeof *rows_want);
        const kernel_attention_shape sizes = {
            .B = B, .T = n, .H = H, .KV = H, .D = D, .causal = 1, .scale = scale, .window = window
        };
        good = array_make(&in, &p, type, rows * 3 * c, 3) && array_make(&out, &p, type, rows * c, 4)
               && CHECK_OK(dev_buffer_create(&at, p.d, 4, "first")) && CHECK_OK(dev_write(p.d, at, 0, &first, 4))
               && CHECK_OK(dev_list_create(&l, p.d));
        for (int b = 0; b < B && good; b++)
            for (int t = 0; t < n; t++) {
                const size_t from = (size_t)b * (size_t)T + (size_t)(first + t);
                const size_t to = (size_t)b * (size_t)n + (size_t)t;
                for (size_t j = 0; j < 3 * c; j++)
                    dtype_store(type, in.before, guard_of(&in, &p) + to * 3 * c + j, (float)qkv[from * 3 * c + j]);
                memcpy(rows_want + to * c, want + from * c, c * sizeof *want);
            }
        const kernel_attention_in heads = side_by_side(in.view, C);
        good = good && CHECK_OK(dev_write(p.d, in.root, 0, in.before, in.bytes))
               && CHECK_OK(
                   kernel_attention_cached(l, p.k, &sizes, capacity, at, &heads, keys.view, values.view, out.view))
               && CHECK_OK(dev_run(l, 0, -1)) && array_is(&out, &p, rows_want, 1e-5, "cached");
        dev_list_release(l);
        dev_buffer_release(at);
        array_release(&in);
        array_release(&out);
        free(rows_want);
        first += n;
    }
    array_release(&keys);
    array_release(&values);
    free(qkv);
    free(want);
    place_close(&p);
}

static void a_cache_gives_the_rows_of_the_whole(void)
{
    static const char *const styles[] = { "cpu", "gpu" };
    for (int s = 0; s < 2; s++)
        for (dtype t = DTYPE_F32; t <= DTYPE_F16; t++) {
            cached_case(styles[s], t, 1, check_tiny() ? 7 : 40, 33, 3, 0);
            cached_case(styles[s], t, 1, check_tiny() ? 7 : 40, 12, 2, 3);
            if (!check_tiny())
                cached_case(styles[s], t, 3, 300, 64, 2, t == DTYPE_F32 ? 0 : 130);
        }
}

static void heads_of_keys_serve_several_of_queries(void)
{
    static const char *const styles[] = { "cpu", "gpu" };
    for (int s = 0; s < 2; s++)
        for (dtype t = DTYPE_F32; t <= DTYPE_F16; t++) {
            place p;
            if (!place_open(&p, styles[s], t))
                continue;
            int good = grouped_case(&p, 1, check_tiny() ? 5 : 70, 12, 1, 3, 1, 0.0f)
                       && grouped_case(&p, 2, 7, 9, 2, 2, 0, 0.3f);        /* heads enough to own, or not */
            if (good && !check_tiny() && t == DTYPE_F32)
                good = grouped_case(&p, 1, 67, 64, 3, 2, 1, 0.2f) && grouped_case(&p, 4, 33, 40, 2, 4, 1, 0.0f);
            CHECK(good);
            place_close(&p);
        }
}

/* ---- tiles ------------------------------------------------------------------------------------- */

/* Lengths around the steps, rows and panels that tiles are cut by; heads of one column and more than the
 * kernel's panels; a head too few for the threads, which is the kernel's. */
static void tiles_match(const char *engine, dtype type)
{
    static const int lengths[] = { 128, 129, 191, 256, 300, 517, 640 };
    static const int heads[] = { 64, 33, 1, 128, 64, 20, 64 };
    place p;
    int good = 1;
    if (check_tiny() || !place_open_tiles(&p, engine, type))
        return;
    for (int i = 0; good && i < 7; i++)
        if (type == DTYPE_F32 || i == 2 || i == 5)      /* the arithmetic is the same */
            good = attention_case(&p, i == 0 ? 4 : 2, lengths[i], heads[i], i == 0 ? 3 : 2, i % 3 != 1, 0.0f, 0, NULL);
    good = good && grouped_case(&p, 2, 140, 40, 2, 3, 1, 0.0f);
    CHECK(good);
    place_close(&p);
}

static void tiles_hide_what_masks_hide(const char *engine, dtype type)
{
    static int32_t starts[2 * 300];
    static const int windows[] = { 1, 63, 64, 65, 150, 0 };
    const int32_t lengths[] = { 0, 200, 64, 1 };
    place p;
    if (check_tiny() || !place_open_tiles(&p, engine, type))
        return;
    int good = attention_case(&p, 4, 200, 32, 1, 0, 0.0f, 0, lengths)
               && attention_case(&p, 2, 200, 64, 2, 1, 0.0f, 0, lengths + 1);
    for (int w = 0; good && w < 6; w++) {
        if (type != DTYPE_F32 && w != 4)
            continue;
        const reference_mask window = { .causal = 1, .window = windows[w] };
        const reference_mask both = { .causal = 1, .window = windows[w], .starts = starts };
        cut_documents(starts, 2, 300, 5 + 30 * w);
        good = masked_case(&p, 2, 300, 24, 1, 0.0f, 0, &window) && masked_case(&p, 2, 300, 64, 1, 0.0f, 0, &both);
    }
    CHECK(good);
    place_close(&p);
}

/* The loops of engine packed are for short sequences as well, and cut by other steps. */
static void packed_tiles_match_the_reference(void)
{
    static const int lengths[] = { 16, 17, 31, 47, 63, 64, 65, 97, 131, 193, 257, 300 };
    static const int heads[] = { 64, 1, 33, 16, 64, 80, 128, 15, 250, 96, 17, 64 };
    for (dtype t = DTYPE_F32; t <= DTYPE_F16; t++) {
        place p;
        int good = 1;
        tiles_match("packed", t);
        tiles_hide_what_masks_hide("packed", t);
        if (check_tiny() || !place_open_tiles(&p, "packed", t))
            continue;
        for (int i = 0; good && i < 12; i++)
            if (t == DTYPE_F32 || i % 5 == 1)
                good = attention_case(&p, 1, lengths[i], heads[i], 2, i % 4 != 1, 0.0f, 0, NULL);
        CHECK(good);
        place_close(&p);
    }
}

static void native_tiles_match_the_reference(void)
{
    for (dtype t = DTYPE_F32; t <= DTYPE_F16; t++) {
        tiles_match("native", t);
        tiles_hide_what_masks_hide("native", t);
    }
}

static void onednn_tiles_match_the_reference(void)
{
    for (dtype t = DTYPE_F32; t <= DTYPE_F16; t++) {
        tiles_match("onednn", t);
        tiles_hide_what_masks_hide("onednn", t);
    }
}

static void count_ways(void *context, const attention_result *r)
{
    CHECK(r->flops > 0.0 && r->min_s <= r->median_s && r->median_s <= r->p99_s);
    ++*(int *)context;
}

/* The bench compares every way with the kernel, heads that share keys as well. */
static void tiles_match_the_kernel_where_heads_share_keys(void)
{
    const kernel_attention_shape s = { .B = 2, .T = 330, .H = 6, .KV = 2, .D = 40, .causal = 1, .scale = 0.2f };
    for (dtype t = DTYPE_F32; t <= DTYPE_F16; t++) {
        place p;
        int ways = 0;
        if (check_tiny() || !place_open_tiles(&p, "native", t))
            continue;
        gemm_context_release(p.g);
        p.g = NULL;
        if (CHECK_OK(gemm_context_create(&p.g, p.d, NULL)))
            CHECK_OK(attention_bench(p.g, p.k, &s, 1, count_ways, &ways));
        CHECKF(ways >= 4, "%d ways", ways);
        place_close(&p);
    }
}

/* A head's numbers, wherever it stands: the first of 2 x 2 heads, and alone with another one. */
static void a_head_is_the_same_in_every_plan(void)
{
    enum { T = 300, D = 64, C = 2 * D, N = T * C };
    place p;
    float *whole = malloc(3 * N * sizeof *whole), *part = malloc(3 * N * sizeof *part);
    float *outs[2] = { malloc(N * sizeof(float)), malloc(N * sizeof(float)) };
    dev_buffer *qkv = NULL, *out = NULL, *lse = NULL, *scratch = NULL;
    if (!check_tiny() && place_open_tiles(&p, "native", DTYPE_F32)) {
        gt_random r;
        gt_random_init(&r, 3, 9);
        for (int i = 0; i < 3 * N; i++)
            whole[i] = 2.0f * gt_random_unit(&r) - 1.0f;
        for (int t = 0; t < T; t++)             /* head 0 twice */
            for (int i = 0; i < 3 * C; i++)
                part[t * 3 * C + i] = whole[t * 3 * C + i / C * C + i % D];
        for (int way = 0; way < 2; way++) {
            const kernel_attention_shape s = { .B = 1, .T = T, .H = 2, .KV = 2, .D = D, .causal = 1, .scale = 0.125f };
            const kernel_attention_in in = { { NULL, 0, 3 * C }, { NULL, C, 3 * C }, { NULL, 2 * C, 3 * C } };
            const attention_how how = { p.g, p.k, &s, NULL };
            kernel_attention_in from = in;
            uint64_t bytes = 0;
            dev_list *l = NULL;
            CHECK_OK(attention_scratch(&how, 0, &bytes));
            CHECK_OK(dev_buffer_create(&qkv, p.d, 3 * N * 4, "test"));
            CHECK_OK(dev_buffer_create(&out, p.d, N * 4, "test"));
            CHECK_OK(dev_buffer_create(&lse, p.d, 2 * T * 4, "test"));
            CHECK_OK(dev_buffer_create(&scratch, p.d, bytes, "test"));
            from.q.buffer = from.k.buffer = from.v.buffer = qkv;
            CHECK_OK(dev_write(p.d, qkv, 0, way ? part : whole, 3 * N * 4));
            CHECK_OK(dev_list_create(&l, p.d));
            CHECK_OK(attention_forward(l, &how, &from, out, lse, scratch));
            CHECK_OK(dev_run(l, 0, -1));
            CHECK_OK(dev_read(p.d, out, 0, outs[way], N * 4));
            dev_list_release(l);
            dev_buffer_release(qkv);
            dev_buffer_release(out);
            dev_buffer_release(lse);
            dev_buffer_release(scratch);
        }
        for (int t = 0; t < T; t++) {
            CHECK(!memcmp(outs[0] + t * C, outs[1] + t * C, D * sizeof(float)));
            CHECK(!memcmp(outs[1] + t * C, outs[1] + t * C + D, D * sizeof(float)));
        }
        place_close(&p);
    }
    free(whole);
    free(part);
    free(outs[0]);
    free(outs[1]);
}

/* What is short, drops or has too few heads is the kernel's; what an engine has no tiles for, too. Small heads are the
 * loops' where they are. */
static void the_kernel_keeps_what_tiles_are_not_for(void)
{
    const kernel_dropout drop = { .p = 0.1f };
    place p;
    if (!place_open_tiles(&p, "native", DTYPE_F32))
        return;
    kernel_attention_shape s = { .B = 64, .T = ATTENTION_LEAST, .H = 64, .KV = 64, .D = 8, .causal = 1, .scale = 1.0f };
    attention_how how = { p.g, p.k, &s, NULL };
    const char *name = "";
    CHECK(!attention_engine(&how, 1, &name) && !strcmp(name, "native"));
    how.drop = &drop;
    CHECK(!attention_engine(&how, 1, &name) && !strcmp(name, "kernel"));
    how.drop = NULL;
    s.T = ATTENTION_LEAST - 1;
    CHECK(!attention_engine(&how, 0, &name) && !strcmp(name, "kernel"));
    s = (kernel_attention_shape){ .B = 1, .T = 512, .H = 64, .KV = 1, .D = 8, .causal = 1, .scale = 1.0f };
    if (dev_info_of(p.d)->compute_units > 1)
        CHECK(!attention_engine(&how, 1, &name) && !strcmp(name, "kernel"));
    gemm_context_release(p.g);
    p.g = NULL;
    s = (kernel_attention_shape){ .B = 16, .T = 128, .H = 64, .KV = 64, .D = 8, .causal = 1, .scale = 1.0f };
    if (CHECK_OK(gemm_context_create(&p.g, p.d, NULL))) {
        gemm_tiles *loops = NULL;
        how.gemm = p.g;
        CHECK_OK(gemm_tiles_of(&loops, p.g, "packed", DTYPE_F32));
        for (s.T = 128; s.T >= ATTENTION_SHORTEST; s.T -= 112)
            CHECK(!attention_engine(&how, 0, &name) && !strcmp(name, loops ? "packed" : "kernel"));
        s.T = ATTENTION_SHORTEST - 1;
        CHECK(!attention_engine(&how, 0, &name) && !strcmp(name, "kernel"));
    }
    gemm_context_release(p.g);
    p.g = NULL;
    s = (kernel_attention_shape){ .B = 16, .T = 512, .H = 64, .KV = 64, .D = 8, .causal = 1, .scale = 1.0f };
    if (CHECK_OK(gemm_context_create(&p.g, p.d, "tiled"))) {
        how.gemm = p.g;
        CHECK(!attention_engine(&how, 0, &name) && !strcmp(name, "kernel"));
    }
    place_close(&p);
}

/* A choice is measured once, and read back from the file that a run keeps. */
static void a_choice_stays(void)
{
    place p;
    if (check_tiny() || !place_open_tiles(&p, "native", DTYPE_F32))
        return;
    gemm_context_release(p.g);
    p.g = NULL;
    char path[] = "/tmp/geartrain-attention-XXXXXX";
    const int file = mkstemp(path);
    const kernel_attention_shape s = { .B = 8, .T = 128, .H = 32, .KV = 32, .D = 64, .causal = 1, .scale = 0.25f };
    const char *measured = "", *kept = "";
    attention_how how = { NULL, p.k, &s, NULL };
    if (CHECKF(file >= 0, "%s", path) && CHECK_OK(gemm_context_create(&p.g, p.d, "auto"))) {
        how.gemm = p.g;
        CHECK_OK(attention_engine(&how, 0, &measured));
        CHECK_OK(gemm_choices_save(p.g, path));
        gemm_context_release(p.g);
        p.g = NULL;
        const gemm_other kind = { 'f', 'c', DTYPE_F32, { 128, 1, 64, dev_info_of(p.d)->compute_units } };
        CHECK_OK(gemm_context_create(&p.g, p.d, "tiled"));
        CHECK(gemm_other_known(p.g, &kind) == NULL);
        gemm_choices_load(p.g, path);
        kept = gemm_other_known(p.g, &kind);
        CHECKF(kept && !strcmp(kept, strcmp(measured, "kernel") ? measured : "tiled"), "%s became %s", measured,
               kept ? kept : "nothing");
    }
    if (file >= 0) {
        close(file);
        unlink(path);
    }
    place_close(&p);
}

/* Every float from -87 to 0 in steps, and what lies below. */
static void exponentials_are_within_three_units(void)
{
    enum { N = 4099 };
    static float s[N], p[N];
    static uint16_t half[N];
    double worst = 0.0;
    attention_rows_prepare();
    for (int part = 0; part < 8; part++) {
        double sum = 0.0;
        for (int i = 0; i < N; i++)
            s[i] = p[i] = -86.5f * ((float)(i * 8 + part) / (8.0f * N)) / 2.0f + 1.0f;
        const float all = attention_exp(p, N, 2.0f, 2.0f, p, DTYPE_F32);
        const float same = attention_exp(s, N, 2.0f, 2.0f, half, DTYPE_BF16);
        for (int i = 0; i < N; i++) {
            const double want = exp(2.0 * (double)s[i] - 2.0), unit = ldexp(1.0, ilogb(want) - 23);
            worst = fmax(worst, fabs((double)p[i] - want) / unit);
            sum += want;
            CHECK(half[i] == dtype_bf16_from_f32(p[i]));
        }
        CHECKF(fabs((double)all - sum) < 1e-5 * sum && fabs((double)(all - same)) < 1e-6 * sum, "%g, %g and %g",
               (double)all, (double)same, sum);
    }
    CHECKF(worst <= 3.0, "%g units", worst);
    s[0] = -200.0f;
    s[1] = -INFINITY;
    s[2] = NAN;
    attention_exp(s, 3, 1.0f, 0.0f, s, DTYPE_F32);
    CHECK(s[0] >= 0.0f && s[0] < 1e-37f && s[1] >= 0.0f && s[1] < 1e-37f && isnan(s[2]));
}

static void heads_that_are_too_large_are_refused(void)
{
    place p;
    dev_list *l = NULL;
    if (!place_open(&p, "cpu", DTYPE_F32))
        return;
    CHECK_OK(dev_list_create(&l, p.d));
    const kernel_attention_shape wide = { .B = 1, .T = 4, .H = 1, .KV = 1, .D = 257, .scale = 1.0f };
    const kernel_attention_shape uneven = { .B = 1, .T = 4, .H = 3, .KV = 2, .D = 8, .scale = 1.0f };
    const kernel_attention_in in = side_by_side(NULL, 257);
    CHECK_FAILS(kernel_attention(l, p.k, &wide, NULL, &in, NULL, NULL), GT_UNSUPPORTED, "257");
    CHECK_FAILS(kernel_attention(l, p.k, &uneven, NULL, &in, NULL, NULL), GT_UNSUPPORTED, "3 heads of queries to 2");
    dev_list_release(l);
    place_close(&p);
}

const check_case check_cases[] = {
    CASE(the_reference_gradient_is_the_slope_of_the_reference),
    CASE(the_cpu_body_matches_in_fp32),
    CASE(the_cpu_body_matches_in_bf16),
    CASE(the_cpu_body_matches_in_fp16),
    CASE(the_gpu_body_matches_in_fp32),
    CASE(the_gpu_body_matches_in_bf16),
    CASE(the_gpu_body_matches_in_fp16),
    CASE(keys_behind_a_length_are_hidden),
    CASE(keys_before_a_window_or_document_are_hidden),
    CASE(dropout_keeps_the_asked_share),
    CASE(a_cache_gives_the_rows_of_the_whole),
    CASE(heads_of_keys_serve_several_of_queries),
    CASE(heads_that_are_too_large_are_refused),
    CASE(packed_tiles_match_the_reference),
    CASE(native_tiles_match_the_reference),
    CASE(onednn_tiles_match_the_reference),
    CASE(tiles_match_the_kernel_where_heads_share_keys),
    CASE(a_head_is_the_same_in_every_plan),
    CASE(the_kernel_keeps_what_tiles_are_not_for),
    CASE(a_choice_stays),
    CASE(exponentials_are_within_three_units),
    { 0 }
};
