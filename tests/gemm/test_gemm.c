/* SPDX-License-Identifier: MIT */
/* tests/gemm/test_gemm.c - every engine against the obvious product; the choice between them.
 *
 * Kernels run in both styles: the GPU body is what GEARTRAIN_STYLE=gpu makes of a CPU
 * device. CLBlast compiles for half a minute on one and has a slow program of its own; products by matrix units
 * have one as well (test_gemm_matrix.c).
 * GT_TEST_DEVICE picks the device (default: the best). GT_TEST_TINY=1 keeps to sizes that an
 * interpreter such as oclgrind gets through.                                            */
#include "tests/gemm/gemm_oracle.h"
#include "tests/gemm/gemm_series.h"
#include "host/gemm/engine.h"
#include "host/gemm/gemm_pool.h"
#include "host/gemm/gemm_tiles.h"

#include "host/base/file.h"
#include "host/base/log.h"

#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* As the kernel tells it; other processors than x86's: no. */
static int has_processor(const char *flag)
{
    char line[8192];
    int has = 0;
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && !has && fgets(line, sizeof line, f))
        has = strstr(line, flag) != NULL;
    if (f)
        fclose(f);
    return has;
}

static int has_processor_bf16(void)
{
    return has_processor(" avx512_bf16");
}

/* Each activation, its slope, and both, of a product and of one that is added to a matrix; two in one product
 * are refused. */
static void activations(place *p)
{
    gemm_desc g = {
        .M = 5, .N = 33, .K = 17, .a_type = DTYPE_F32, .b_type = DTYPE_F32, .c_type = DTYPE_F32, .bias = 1
    };
    int good = 1;
    for (activation a = ACT_NONE + 1; a < ACT_COUNT && good; a++)
        for (int e = 1; e < 8 && good; e++) {
            g.act = e & 1 ? a : ACT_NONE;
            g.act_grad = e & 2 ? a : ACT_NONE;
            g.add = g.residual = e >> 2;
            good = gemm_case(p->c, p->d, &g, 0);
        }
    uint64_t bytes;
    g.act = ACT_SILU;
    g.act_grad = ACT_RELU;
    CHECK_FAILS(gemm_scratch(p->c, &g, &bytes), GT_MISUSE, "silu to a product and the slope of relu");
}

/* With the first `type_count` of the types. */
static void everything(const char *style, const char *engine, int type_count)
{
    place p;
    if (!place_open(&p, style, engine))
        return;
    /* The GPU body crawls on a CPU device, to compile as well as to run: fp32 gets every case
     * there, and the other types what is different about them. */
    const int crawls = !strcmp(style, "gpu") && dev_info_of(p.d)->kind == DEV_CPU;
    for (int t = 0; t < type_count; t++) {
        const int few = crawls && t;
        all_sizes(&p, types[t], types[t], few ? 3 : 1);
        if (t && !few)
            all_sizes(&p, types[t], DTYPE_F32, 1);
        else if (t == 1)
            all_sizes(&p, types[t], DTYPE_F32, 4);
        if (!check_tiny() && !few)
            large_sizes(&p, types[t]);
        if (!few)
            padding_and_batches(&p, types[t]);
        epilogues(&p, types[t]);
    }
    activations(&p);
    place_close(&p);
}

static void native_agrees_with_the_obvious_product(void)
{
    everything("cpu", "native", 1);
}
static void packed_agrees_with_the_obvious_product(void)
{
    everything("cpu", "packed", 1);
}
static void onednn_agrees_with_the_obvious_product(void)
{
    everything("cpu", "onednn", 2);
}

/* M, N and K, transposed by the bits of trans, `gap` elements between rows. */
static gemm_desc with_gaps(const int size[3], int trans, int gap)
{
    const int M = size[0], N = size[1], K = size[2];
    return (gemm_desc){
        .M = M,
        .N = N,
        .K = K,
        .trans_a = trans & 1,
        .trans_b = trans >> 1,
        .lda = (trans & 1 ? M : K) + gap,
        .ldb = (trans >> 1 ? K : N) + gap,
        .ldc = N + gap,
        .alpha = trans == 3 ? 0.5f : 0.0f
    };
}

/* Pieces of C by several threads, the last ones smaller, cut along either side. */
static void native_cuts_products_into_pieces(void)
{
    static const int some[][3] = { { 150, 500, 65 }, { 500, 150, 65 }, { 300, 650, 17 } };
    place p;
    if (check_tiny() || !place_open(&p, "cpu", "native"))
        return;
    int good = 1;
    for (int i = 0; i < 3 && good; i++)
        for (int trans = 0; trans < 4 && good; trans++) {
            const gemm_desc g = with_gaps(some[i], trans, i);
            good = gemm_case(p.c, p.d, &g, 1);
        }
    place_close(&p);
}

static atomic_int pieces_seen[100], threads_at_work[8];

static void see_piece(void *context, int i, int thread)
{
    if (atomic_fetch_add(&threads_at_work[thread], 1) == 0)     /* nobody else has this number now */
        atomic_fetch_add(&pieces_seen[i], *(int *)context);
    atomic_fetch_sub(&threads_at_work[thread], 1);
}

/* Every piece once, whatever the number of threads, of products that follow each other at once. */
static void a_pool_computes_each_piece_once(void)
{
    for (int threads = 1; threads <= 5; threads += 2) {
        gemm_pool *pool = gemm_pool_create(threads);
        CHECK(pool && gemm_pool_threads(pool) == threads);
        memset(pieces_seen, 0, sizeof pieces_seen);
        int want = 0;
        for (int pieces = 0; pieces <= 100; pieces += 20)
            for (int step = 1; step <= 30; step++) {
                gemm_pool_run(pool, pieces, see_piece, &step);
                want += pieces == 100 ? step : 0;
            }
        CHECKF(pieces_seen[99] == want && pieces_seen[80] == want && pieces_seen[0] == 5 * want,
               "%d threads: %d, %d, %d", threads, pieces_seen[99], pieces_seen[80], pieces_seen[0]);
        gemm_pool_release(pool);
    }
    gemm_pool_release(NULL);
}

typedef struct meeting {
    atomic_int there;
    cpu_set_t helper;               /* where the other thread may run */
} meeting;

static void meet(void *context, int i, int thread)
{
    meeting *m = context;
    (void)i;
    if (thread > 0)
        CHECK(!sched_getaffinity(0, sizeof m->helper, &m->helper));
    for (atomic_fetch_add(&m->there, 1); atomic_load(&m->there) < 2;)
        sched_yield();
}

/* Wherever the caller is, the other thread is woken elsewhere, on any processor that the process has. */
static void a_pool_keeps_off_its_callers_processor(void)
{
    cpu_set_t all, want;
    if (!CHECKF(!sched_getaffinity(0, sizeof all, &all), "the process does not say where it runs"))
        return;
    if (CPU_COUNT(&all) < 2) {
        check_skip("this process has one processor");
        return;
    }
    gemm_pool *pool = gemm_pool_create(2);
    if (!CHECKF(pool && gemm_pool_threads(pool) == 2, "no pool of two threads"))
        return;
    int seen = 0;
    for (size_t at = 0; at < CPU_SETSIZE && seen < 2; at++) {
        if (!CPU_ISSET(at, &all))
            continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(at, &one);
        if (!CHECKF(!sched_setaffinity(0, sizeof one, &one), "cannot run on processor %zu", at))
            break;
        meeting m = { .there = 0 };
        CPU_ZERO(&m.helper);
        gemm_pool_run(pool, 2, meet, &m);
        want = all;
        CPU_CLR(at, &want);
        CHECK(CPU_EQUAL(&m.helper, &want));
        seen++;
    }
    sched_setaffinity(0, sizeof all, &all);
    gemm_pool_release(pool);
}

static int launches_of(place *p, const gemm_desc *g, int how)
{
    dev_buffer *some[5] = { 0 };
    dev_list *l = NULL;
    int count = 0;
    for (int i = 0; i < 5; i++)
        CHECK_OK(dev_buffer_create(&some[i], p->d, 1 << 20, "test"));
    const gemm_buffers on = {
        .a = some[0],
        .b = some[1],
        .c = some[2],
        .bias = some[3],
        .residual = how & GEMM_IN_PLACE ? some[2] : some[3],
        .pre = how & GEMM_NO_PRE ? NULL : some[3],
        .scratch = some[4]
    };
    CHECK_OK(dev_list_create(&l, p->d));
    if (CHECK_OK(gemm_append(p->c, l, g, &on, NULL)))
        count = dev_list_count(l);
    dev_list_release(l);
    for (int i = 0; i < 5; i++)
        dev_buffer_release(some[i]);
    return count;
}

/* Sides of C that are not whole panels, a shorter side that is packed in two parts, a K that pieces go through in
 * several strips, and one of two turns, the last ones smaller; with an epilogue behind the last. */
static void packed_cuts_products_into_panels(void)
{
    static const int some[][3] = { { 150, 500, 65 },   { 530, 1100, 41 }, { 1100, 530, 41 }, { 130, 300, 1700 },
                                   { 530, 600, 1000 }, { 8, 50, 200000 }, { 60, 40, 33000 } };
    const int many = 7, short_ones = 5;
    place p;
    if (check_tiny() || !gemm_engine_named("packed") || !has_processor(" avx512dq") || !place_open(&p, "cpu", "packed"))
        return;
    int good = 1;
    for (int i = 0; i < many && good; i++)
        for (int trans = i < short_ones ? 0 : 2; trans < 4 && good; trans++) {
            const gemm_desc g = with_gaps(some[i], trans, i);
            gemm_desc finished = g;
            finished.bias = finished.residual = 1;
            finished.act = ACT_GELU_TANH;
            good = gemm_case(p.c, p.d, &g, 1) && gemm_case(p.c, p.d, &finished, 0);
        }
    CHECK(good);
    const gemm_desc plain = { .M = 530, .N = 70, .K = 800, .bias = 1, .residual = 1, .alpha = 0.5f };
    CHECK(gemm_case_with(p.c, p.d, &plain, 0, GEMM_IN_PLACE) && launches_of(&p, &plain, GEMM_IN_PLACE) == 1);
    for (int tall = 0; tall < 2; tall++)        /* past the caches, but for what is no whole tile; and added to */
        for (int add = 0; add < 2; add++) {
            const gemm_desc cold = {
                .M = tall ? 1101 : 530, .N = tall ? 528 : 1104, .K = 70, .trans_a = 1, .add = add, .cold = 1
            };
            CHECK(gemm_case(p.c, p.d, &cold, 1));
        }
    place_close(&p);
}

/* Bias, activation, slope and residual are done to each piece of C where it is computed; erf, tanh and dropout are
 * a kernel's. */
static void native_finishes_the_pieces_that_it_multiplies(void)
{
    place p;
    if (check_tiny() || !place_open(&p, "cpu", "native"))
        return;
    for (activation a = ACT_NONE; a < ACT_COUNT; a++)
        for (int e = 0; e < 8; e++) {
            const int M = a == ACT_GELU_TANH ? 65 : 5;
            const gemm_desc g = {
                .M = M,
                .N = 1100,                      /* pieces, and more than is activated at once */
                .K = 33,
                .trans_b = 1,
                .ldc = 1103,
                .batch = 2,
                .stride_a = M * 33,
                .stride_c = M * 1103,
                .bias = e & 1,
                .act = e & 2 ? a : ACT_NONE,
                .act_grad = e & 4 ? a : ACT_NONE,
                .residual = !(e & 3),
            };
            CHECK(gemm_case_with(p.c, p.d, &g, 0, e & 1 ? GEMM_NO_PRE : 0));
        }
    for (activation a = ACT_NONE; a < ACT_COUNT; a++) {
        const gemm_desc g = { .M = 40, .N = 70, .K = 50, .trans_b = 1, .bias = 1, .act = a, .residual = 1 };
        const int own = a != ACT_GELU_ERF && a != ACT_TANH;
        CHECKF(launches_of(&p, &g, 0) == (own ? 1 : 2), "%s", activation_name(a));
    }
    const gemm_desc plain = { .M = 40, .N = 70, .K = 50, .bias = 1, .residual = 1, .alpha = 0.5f };
    CHECK(gemm_case_with(p.c, p.d, &plain, 0, GEMM_IN_PLACE) && launches_of(&p, &plain, GEMM_IN_PLACE) == 1);
    gemm_desc lost = plain;
    lost.act = ACT_SILU;
    dev_buffer *some = NULL;
    dev_list *l = NULL;
    CHECK_OK(dev_buffer_create(&some, p.d, 1 << 20, "test"));
    CHECK_OK(dev_list_create(&l, p.d));
    const gemm_buffers all = { .a = some, .b = some, .c = some, .bias = some, .residual = some, .scratch = some };
    CHECK_FAILS(gemm_append(p.c, l, &lost, &all, NULL), GT_UNSUPPORTED, "that its epilogue reads");
    dev_list_release(l);
    dev_buffer_release(some);
    place_close(&p);
}

/* Without a place for the argument of an activation, all of the epilogue is the primitive's. */
static void onednn_fuses_what_it_can(void)
{
    place p;
    if (!place_open(&p, "cpu", "onednn"))
        return;
    for (int t = 0; t < 2; t++)
        for (activation a = ACT_NONE; a < ACT_COUNT; a++)
            for (int in_place = 0; in_place < 2; in_place++) {
                const gemm_desc g = {
                    .M = 40,
                    .N = 70,
                    .K = 50,
                    .trans_b = 1,
                    .a_type = types[t],
                    .b_type = types[t],
                    .c_type = types[t],
                    .bias = 1,
                    .act = a,
                    .residual = 1
                };
                const int how = GEMM_NO_PRE | (in_place ? GEMM_IN_PLACE : 0);
                CHECK(gemm_case_with(p.c, p.d, &g, 0, how));
                if (t == 0 || has_processor_bf16())
                    CHECKF(launches_of(&p, &g, how) == 1, "%s, %s", dtype_name(types[t]), activation_name(a));
            }
    place_close(&p);
}

/* Where the processor has dot products of bf16, products of bf16 are measured with them; nowhere else does the
 * engine take them. */
static void onednn_takes_the_types_that_the_processor_multiplies(void)
{
    place p;
    const char *name = NULL;
    if (!place_open(&p, "cpu", "onednn"))
        return;
    for (int t = 0; t < 3; t++) {
        const gemm_desc g = { .M = 128, .N = 64, .K = 64, .a_type = types[t], .b_type = types[t], .c_type = types[t] };
        CHECK_OK(gemm_engine_name(p.c, &g, &name));
        if (t < 2)
            CHECKF(!strcmp(name, "onednn") == (t == 0 || has_processor_bf16()), "%s by %s", dtype_name(types[t]), name);
    }
    gemm_desc mixed = { .M = 128, .N = 64, .K = 64, .b_type = DTYPE_BF16 };
    CHECK_OK(gemm_engine_name(p.c, &mixed, &name));
    CHECK(strcmp(name, "onednn"));
    place_close(&p);
}

static void tiled_agrees_with_the_obvious_product(void)
{
    everything("cpu", "tiled", 3);
}
static void tiled_agrees_in_the_gpu_style(void)
{
    everything("gpu", "tiled", 3);
}

typedef struct odd_tile {
    gemm_tiles *tiles;
    gemm_tile g;
    uint16_t one[64 * 64];
    float c[64 * 64];
} odd_tile;

static void multiply_odd(void *context, int i, int thread)
{
    odd_tile *x = context;
    (void)i;
    gemm_tiles_multiply(x->tiles, thread, &x->g, x->one, x->one, x->c);
}

/* Where oneDNN has ended the process, with tiles of AMX: such products are others', and such tiles still right. */
static void onednn_is_not_given_odd_depths_below_a_tile(void)
{
    static odd_tile x;
    const int amx = has_processor(" amx_bf16");
    gemm_desc g = { .M = 129, .N = 64, .a_type = DTYPE_BF16, .b_type = DTYPE_BF16, .c_type = DTYPE_BF16 };
    const char *name = NULL;
    place p;
    if (!place_open(&p, "cpu", "onednn"))
        return;
    for (g.K = 61; has_processor_bf16() && g.K < 67; g.K++) {
        CHECK_OK(gemm_engine_name(p.c, &g, &name));
        CHECKF(!strcmp(name, "onednn") == !(amx && g.K < 64 && g.K % 2), "depth %d by %s", g.K, name);
    }
    CHECK_OK(gemm_tiles_of(&x.tiles, p.c, "onednn", DTYPE_BF16));
    for (int i = 0; i < 64 * 64; i++)
        x.one[i] = 0x3f80;
    for (int K = 1; x.tiles && K < 64; K += 2) {
        x.g = (gemm_tile){ .M = 33, .N = 64, .K = K, .lda = K, .ldb = 64, .ldc = 64 };
        gemm_tiles_run(x.tiles, 1, multiply_odd, &x);
        int right = 1;
        for (int i = 0; i < 33 * 64; i++)
            right &= fabsf(x.c[i] - (float)K) < 0.5f;
        CHECKF(right, "depth %d", K);
    }
    place_close(&p);
}

/* What the engine is for: up to four rows, every size of B beside them, every epilogue, batches and
 * distances that allow no vectors. Activations and dropout, each a compilation, with one number of rows. */
static void few_rows(place *p, dtype in, dtype out, int step)
{
    int good = 1;
    for (int i = 0; i < (check_tiny() ? 4 : SIZES) && good; i++)
        for (int rows = 1; rows <= 4 && good; rows++)
            for (int e = (i + rows) % step; e < 32 && good; e += step) {
                gemm_desc g = {
                    .M = rows,
                    .N = sizes[i],
                    .K = sizes[(3 * i + rows) % (check_tiny() ? 4 : SIZES)],
                    .trans_b = 1,
                    .a_type = in,
                    .b_type = in,
                    .c_type = out,
                    .alpha = e % 3 ? 0.0f : 0.5f,
                    .add = !e,
                    .bias = e & 1,
                    .act = e & 2 && rows == 2 ? ACT_GELU_TANH : ACT_NONE,
                    .act_grad = e & 4 && rows == 2 ? ACT_GELU_TANH : ACT_NONE,
                    .drop_p = e & 8 && rows == 3 ? 0.4f : 0.0f,
                    .drop_stream = 5,
                    .drop_sequence = 1000 + i,
                    .residual = e >> 4 & 1,
                    .batch = e % 7 == 3 ? 3 : 1,
                };
                const int pad = e % 2 ? 3 : 4 * (i % 2);
                g.lda = g.ldb = g.K + pad;
                g.ldc = g.N + pad;
                g.stride_a = g.M * g.lda + pad;
                g.stride_b = g.N * g.ldb + pad;
                g.stride_c = g.M * g.ldc + pad;
                good = gemm_case(p->c, p->d, &g, e == 0);
            }
}

static void gemv(const char *style)
{
    place p;
    if (!place_open(&p, style, "gemv"))
        return;
    const int crawls = !strcmp(style, "gpu") && dev_info_of(p.d)->kind == DEV_CPU;
    for (int t = 0; t < 3; t++) {
        if (!crawls || !t)
            few_rows(&p, types[t], types[t], crawls ? 16 : 5);
        if (t == 1)
            few_rows(&p, types[t], DTYPE_F32, crawls ? 31 : 16);
    }
    const char *name;
    gemm_desc g = { .M = 4, .N = 64, .K = 64, .trans_b = 1 };
    CHECK(!gemm_engine_name(p.c, &g, &name) && !strcmp(name, "gemv"));
    g.M = 5;
    CHECK(!gemm_engine_name(p.c, &g, &name) && strcmp(name, "gemv"));
    place_close(&p);
}

static void gemv_agrees_with_the_obvious_product(void)
{
    gemv("cpu");
}
static void gemv_agrees_in_the_gpu_style(void)
{
    gemv("gpu");
}

/* Frozen weights are narrower than what they multiply: 8 bits whose blocks begin with column 0 or before it, or
 * bf16. Sizes on both sides of blocks, panels and vectors; few rows are gemv's. */
static void narrow_weights(place *p, dtype in, dtype weights, int crawls, int few)
{
    static const int some[][3] = { { 1, 33, 31 }, { 2, 64, 100 }, { 3, 129, 65 },   { 4, 31, 257 },
                                   { 5, 65, 33 }, { 33, 1, 64 },  { 65, 100, 129 }, { 100, 130, 300 } };
    const int count = few || check_tiny() ? 4 : crawls ? 6 : 8;
    int good = 1;
    for (int i = 0; i < count && good; i++)
        for (int trans = few ? 2 : 0; trans < (few ? 3 : 4) && good; trans++) {
            gemm_desc g = {
                .M = some[i][0],
                .N = some[i][1],
                .K = some[i][2],
                .trans_a = trans & 1,
                .trans_b = trans >> 1,
                .a_type = in,
                .b_type = weights,
                .c_type = in,
                .b_first = weights == DTYPE_Q8 ? (i + trans) % 3 * 11 : 0,
                .alpha = i % 3 ? 0.0f : 0.5f,
                .add = i & 1,
            };
            if (crawls && (trans & 1))
                continue;
            good = gemm_case(p->c, p->d, &g, 1);
            g.add = 0;
            g.bias = g.residual = 1;
            good = good && (crawls || gemm_case(p->c, p->d, &g, 0));
        }
}

static void narrow(const char *style, const char *engine, int wide_only)
{
    place p;
    if (!place_open(&p, style, engine))
        return;
    const int crawls = !strcmp(style, "gpu") && dev_info_of(p.d)->kind == DEV_CPU;
    const int few = !strcmp(engine, "gemv");
    for (int t = 0; t < (wide_only || crawls ? 1 : 3); t++) {
        narrow_weights(&p, types[t], DTYPE_Q8, crawls, few);
        if (types[t] != DTYPE_BF16)
            narrow_weights(&p, types[t], DTYPE_BF16, crawls, few);
    }
    place_close(&p);
}

static void native_widens_weights_by_panels(void)
{
    narrow("cpu", "native", 1);
    place p;
    if (check_tiny() || !place_open(&p, "cpu", "native"))
        return;
    /* Several panels, the last one narrower. */
    for (int trans_b = 0; trans_b < 2; trans_b++) {
        gemm_desc g = { .M = 7, .N = 600, .K = 1500, .trans_b = trans_b, .b_type = DTYPE_Q8, .b_first = 5 };
        uint64_t bytes;
        CHECK(gemm_case(p.c, p.d, &g, 1));
        CHECK_OK(gemm_scratch(p.c, &g, &bytes));
        CHECKF(bytes < 4ull * 600 * 1500, "%llu bytes of scratch hold all of the matrix", (unsigned long long)bytes);
        g.b_type = DTYPE_BF16;
        g.b_first = 0;
        CHECK(gemm_case(p.c, p.d, &g, 1));
    }
    place_close(&p);
}
static void tiled_widens_weights_as_it_loads_them(void)
{
    narrow("cpu", "tiled", 0);
}
static void tiled_widens_weights_in_the_gpu_style(void)
{
    narrow("gpu", "tiled", 0);
}
static void gemv_widens_weights_as_it_reads_them(void)
{
    narrow("cpu", "gemv", 0);
}
static void gemv_widens_weights_in_the_gpu_style(void)
{
    narrow("gpu", "gemv", 0);
}

/* An engine is measured with weights of the type that it is to multiply, and its result is checked there. */
static void engines_are_measured_with_narrow_weights(void)
{
    place p;
    const char *name = NULL;
    char *old = getenv("GEARTRAIN_CACHE") ? strdup(getenv("GEARTRAIN_CACHE")) : NULL;
    setenv("GEARTRAIN_CACHE", check_folder(), 1);
    if (!place_open(&p, "cpu", "auto"))
        return;
    for (int trans_b = 0; trans_b < 2; trans_b++) {
        gemm_desc g = { .M = 300, .N = 300, .K = 310, .trans_b = trans_b, .b_type = DTYPE_Q8 };
        CHECK_OK(gemm_engine_name(p.c, &g, &name));
        g.b_type = DTYPE_BF16;
        CHECK_OK(gemm_engine_name(p.c, &g, &name));
    }
    place_close(&p);
    if (old)
        setenv("GEARTRAIN_CACHE", old, 1);
    else
        unsetenv("GEARTRAIN_CACHE");
    free(old);
}

static void results_are_the_same_from_run_to_run(void)
{
    enum { M = 150, N = 203, K = 700 };
    static const char *const engines[] = { "native", "onednn", "tiled", "packed" };
    float *host = calloc((size_t)K * N, sizeof *host), *first = malloc(M * N * 4), *again = malloc(M * N * 4);
    for (size_t i = 0; i < (size_t)K * N; i++)
        host[i] = (float)(i % 97) / 97.0f - 0.4f;
    for (int e = 0; e < 4; e++) {
        place p;
        if (!place_open(&p, "cpu", engines[e]))
            continue;
        const gemm_desc g = { .M = M, .N = N, .K = K };
        gemm_buffers on = { 0 };
        dev_list *l = NULL;
        uint64_t bytes = 0;
        CHECK_OK(gemm_scratch(p.c, &g, &bytes));
        CHECK_OK(dev_buffer_create(&on.a, p.d, M * K * 4, "a"));
        CHECK_OK(dev_buffer_create(&on.b, p.d, K * N * 4, "b"));
        CHECK_OK(dev_buffer_create(&on.c, p.d, M * N * 4, "c"));
        CHECK_OK(dev_buffer_create(&on.scratch, p.d, bytes, "scratch"));
        CHECK_OK(dev_write(p.d, on.a, 0, host, M * K * 4));
        CHECK_OK(dev_write(p.d, on.b, 0, host, K * N * 4));
        CHECK_OK(dev_list_create(&l, p.d));
        CHECK_OK(gemm_append(p.c, l, &g, &on, NULL));
        for (int i = 0; i < 5; i++) {
            CHECK_OK(dev_run(l, 0, -1));
            CHECK_OK(dev_read(p.d, on.c, 0, i ? again : first, M * N * 4));
            CHECKF(!i || !memcmp(first, again, M * N * 4), "engine %s, run %d", engines[e], i);
        }
        dev_list_release(l);
        dev_buffer_release(on.a);
        dev_buffer_release(on.b);
        dev_buffer_release(on.c);
        dev_buffer_release(on.scratch);
        place_close(&p);
    }
    free(host);
    free(first);
    free(again);
}

/* The file the choices of the CPU device are kept in. */
static char *choice_file(dev_device *d)
{
    char name[32], *folder = NULL, *path = NULL;
    snprintf(name, sizeof name, "%016llx.txt", (unsigned long long)dev_fingerprint(d));
    if (CHECK_OK(gt_cache_folder(&folder, "gemm")))
        path = gt_path_join(folder, name);
    free(folder);
    return path;
}

static void the_choice_is_kept_and_a_bad_file_is_measured_again(void)
{
    static const char bad[] = "geartrain gemm 5\nnn fp32 fp32 fp32 300 300 300 1 - native 99 1\n"
                              "nonsense\nnn fp32 fp32\n\0\n";
    const gemm_desc g = { .M = 300, .N = 300, .K = 300 };
    const char *first = NULL, *second = NULL;
    char *old = getenv("GEARTRAIN_CACHE") ? strdup(getenv("GEARTRAIN_CACHE")) : NULL;
    setenv("GEARTRAIN_CACHE", check_folder(), 1);
    place p;
    if (!place_open(&p, "cpu", "auto"))
        return;
    char *path = choice_file(p.d);
    CHECK_OK(gemm_engine_name(p.c, &g, &first));
    if (gemm_engine_row(1) && first) {
        CHECKF(gt_path_exists(path), "no '%s'", path);
        gemm_context_release(p.c);

        /* The other engine's name in the file must win over a new measurement. */
        char *text = NULL;
        char line[128];
        const char *other = strcmp(first, "tiled") ? "tiled" : "native";
        CHECK_OK(gt_file_read(&text, NULL, path, 1 << 20));
        CHECK(text && strstr(text, first));
        free(text);
        const int n = snprintf(line, sizeof line,
                               "geartrain gemm 5\n"
                               "nn fp32 fp32 fp32 300 300 300 1 - %s 1 0.5\n",
                               other);
        CHECK_OK(gt_file_write(path, line, (size_t)n));
        CHECK_OK(gemm_context_create(&p.c, p.d, "auto"));
        CHECK_OK(gemm_engine_name(p.c, &g, &second));
        CHECKF(second && !strcmp(second, other), "the file says %s", other);
        gemm_context_release(p.c);

        CHECK_OK(gt_file_write(path, bad, sizeof bad));
        CHECK_OK(gemm_context_create(&p.c, p.d, "auto"));
        CHECK_OK(gemm_engine_name(p.c, &g, &second));
        CHECK_OK(gt_file_read(&text, NULL, path, 1 << 20));
        CHECK(text && strstr(text, "nn fp32 fp32 fp32 300 300 300 1 - ") && !strstr(text, "nonsense"));
        free(text);
    }
    free(path);
    place_close(&p);
    if (old)
        setenv("GEARTRAIN_CACHE", old, 1);
    else
        unsetenv("GEARTRAIN_CACHE");
    free(old);
}

/* Ranks with other layers measure other products, and write one file. What is known is chosen again without a
 * measurement; of a run's own file it is told what cannot be chosen. */
static void what_others_measured_meanwhile_stays(void)
{
    static const char lost[] = "geartrain gemm 5\nnn fp32 fp32 fp32 300 300 300 1 - native 99 1\n";
    const gemm_desc g[2] = { { .M = 300, .N = 300, .K = 300 }, { .M = 310, .N = 300, .K = 300 } };
    const char *fresh[2] = { NULL, NULL }, *kept = NULL;
    gemm_context *other = NULL;
    char *text[2] = { NULL, NULL }, *old = getenv("GEARTRAIN_CACHE") ? strdup(getenv("GEARTRAIN_CACHE")) : NULL;
    char *cache = gt_path_join(check_folder(), "meanwhile");
    place p;
    setenv("GEARTRAIN_CACHE", cache, 1);
    if (!place_open(&p, "cpu", "auto"))
        return;
    char *path = choice_file(p.d), *run = gt_path_join(check_folder(), "run.txt");
    CHECK_OK(gemm_context_create(&other, p.d, "auto"));
    CHECK_OK(gemm_engine_name(p.c, &g[0], &fresh[0]));
    CHECK_OK(gemm_engine_name(other, &g[1], &fresh[1]));
    gemm_context_release(other);
    if (gemm_engine_row(1)) {
        CHECK_OK(gt_file_read(&text[0], NULL, path, 1 << 20));
        CHECK(text[0] && strstr(text[0], " 300 300 300 1 - ") && strstr(text[0], " 310 300 300 1 - "));
        gemm_context_release(p.c);
        CHECK_OK(gemm_context_create(&p.c, p.d, "auto"));
        for (int i = 0; i < 2; i++) {
            CHECK_OK(gemm_engine_name(p.c, &g[i], &kept));
            CHECKF(kept && fresh[i] && !strcmp(kept, fresh[i]), "%d: %s, and %s before", i, kept, fresh[i]);
        }
        CHECK_OK(gt_file_read(&text[1], NULL, path, 1 << 20));
        CHECK(text[0] && text[1] && !strcmp(text[0], text[1]));
        const unsigned before = gt_log_warnings();
        check_allow_warnings();
        CHECK_OK(gt_file_write(run, lost, sizeof lost - 1));
        gemm_choices_load(p.c, run);
        CHECK(gt_log_warnings() == before + 1);
    }
    free(text[0]);
    free(text[1]);
    free(run);
    free(path);
    free(cache);
    place_close(&p);
    if (old)
        setenv("GEARTRAIN_CACHE", old, 1);
    else
        unsetenv("GEARTRAIN_CACHE");
    free(old);
}

static void what_makes_no_sense_is_refused(void)
{
    place p;
    gemm_context *c = NULL;
    uint64_t bytes;
    if (!place_open(&p, "cpu", "tiled"))
        return;
    CHECK_FAILS(gemm_context_create(&c, p.d, "magic"), GT_MISUSE, "magic");
    CHECK(!c);
    CHECK_FAILS(gemm_scratch(p.c, &(gemm_desc){ .M = 0, .N = 1, .K = 1 }, &bytes), GT_MISUSE, "positive");
    CHECK_FAILS(gemm_scratch(p.c, &(gemm_desc){ .M = 2, .N = 3, .K = 4, .ldb = 2 }, &bytes), GT_MISUSE, "wide");
    CHECK_FAILS(gemm_scratch(p.c, &(gemm_desc){ .M = 2, .N = 3, .K = 4, .batch = 2 }, &bytes), GT_MISUSE, "overlap");
    CHECK_FAILS(gemm_scratch(p.c, &(gemm_desc){ .M = 2, .N = 3, .K = 4, .a_type = DTYPE_I32 }, &bytes), GT_MISUSE,
                "i32");
    CHECK_FAILS(gemm_scratch(p.c, &(gemm_desc){ .M = 2, .N = 3, .K = 4, .a_type = DTYPE_F16 }, &bytes), GT_UNSUPPORTED,
                "fp16");
    CHECK_FAILS(gemm_scratch(p.c, &(gemm_desc){ .M = 2, .N = 3, .K = 4, .b_type = DTYPE_F16 }, &bytes), GT_UNSUPPORTED,
                "fp32 by fp16");
    CHECK_FAILS(gemm_scratch(p.c, &(gemm_desc){ .M = 2, .N = 3, .K = 4, .b_type = DTYPE_Q8, .ldb = 5 }, &bytes),
                GT_MISUSE, "dense matrix of blocks");
    place_close(&p);
}

static void count_result(void *context, const gemm_result *r)
{
    int *n = context;
    *n += r->min_s > 0 && r->min_s <= r->median_s && r->median_s <= r->p99_s && r->flops > 0;
}

static void the_benchmark_and_the_peaks_give_plausible_numbers(void)
{
    place p;
    gemm_peak peak = { 0 };
    int results = 0;
    if (!place_open(&p, "cpu", "tiled"))
        return;
    CHECK_OK(gemm_peak_measure(p.d, &peak));
    CHECKF(peak.flops > 1e8 && peak.flops < 1e15, "%g flop/s", peak.flops);
    CHECKF(peak.copy_bytes > 1e7 && peak.copy_bytes < 1e14, "%g byte/s", peak.copy_bytes);
    CHECK_OK(gemm_bench(p.c, &(gemm_desc){ .M = 100, .N = 90, .K = 80 }, 3, peak.flops, count_result, &results));
    CHECK(results == 1);
    place_close(&p);
}

/* 2 M N K a product over its seconds, the best of the storage type asked for; a batch is that many. */
static void the_best_rate_is_that_of_the_measured_products(void)
{
    static const char known[] = "geartrain gemm 5\n"
                                "nt fp32 fp32 fp32 1000 1000 1000 1 - tiled %d 0.1\n"
                                "nn fp32 fp32 fp32 1000 1000 1000 4 - tiled %d 0.2\n"
                                "nt bf16 bf16 bf16 1000 1000 1000 1 - tiled %d 0.001\n"
                                "nt fp32 fp32 fp32 9000 9000 9000 1 - noengine 1 0.001\n";
    char *path = gt_path_join(check_folder(), "rates.txt"), text[512];
    place p;
    if (!place_open(&p, "cpu", "tiled"))
        return;
    const int version = gemm_tiled.version;
    snprintf(text, sizeof text, known, version, version, version);
    CHECK_OK(gt_file_write(path, text, strlen(text)));
    check_allow_warnings();             /* of the last line, whose engine there is not */
    gemm_choices_load(p.c, path);
    CHECKF(fabs(gemm_best_rate(p.c, DTYPE_F32) / 4e10 - 1.0) < 1e-9, "%g", gemm_best_rate(p.c, DTYPE_F32));
    CHECKF(fabs(gemm_best_rate(p.c, DTYPE_BF16) / 2e12 - 1.0) < 1e-9, "%g", gemm_best_rate(p.c, DTYPE_BF16));
    CHECK(gemm_best_rate(p.c, DTYPE_F16) < 1.0); /* none was measured */
    place_close(&p);
    free(path);
}

static void a_peak_that_is_not_measured_is_not_known(void)
{
    const gemm_peak peak = { .flops = 1e12 };
    const dev_info plain = { 0 }, halves = { .fp16 = 1 };
    CHECK(gemm_peak_of(&plain, 0, &peak, DTYPE_F32) == 1e12 && gemm_peak_of(&halves, 1, &peak, DTYPE_F32) == 1e12);
    CHECK(gemm_peak_of(&plain, 0, &peak, DTYPE_BF16) == 1e12 && gemm_peak_of(&plain, 0, &peak, DTYPE_F16) == 1e12);
    CHECK(gemm_peak_of(&halves, 0, &peak, DTYPE_BF16) == 1e12 && gemm_peak_of(&halves, 0, &peak, DTYPE_F16) == 0.0);
    CHECK(gemm_peak_of(&plain, 1, &peak, DTYPE_BF16) == 0.0 && gemm_peak_of(&plain, 1, &peak, DTYPE_F16) == 0.0);
}

const check_case check_cases[] = {
    CASE(native_agrees_with_the_obvious_product),
    CASE(packed_agrees_with_the_obvious_product),
    CASE(native_cuts_products_into_pieces),
    CASE(packed_cuts_products_into_panels),
    CASE(native_finishes_the_pieces_that_it_multiplies),
    CASE(a_pool_computes_each_piece_once),
    CASE(a_pool_keeps_off_its_callers_processor),
    CASE(onednn_agrees_with_the_obvious_product),
    CASE(onednn_fuses_what_it_can),
    CASE(onednn_takes_the_types_that_the_processor_multiplies),
    CASE(onednn_is_not_given_odd_depths_below_a_tile),
    CASE(tiled_agrees_with_the_obvious_product),
    CASE(tiled_agrees_in_the_gpu_style),
    CASE(gemv_agrees_with_the_obvious_product),
    CASE(gemv_agrees_in_the_gpu_style),
    CASE(native_widens_weights_by_panels),
    CASE(tiled_widens_weights_as_it_loads_them),
    CASE(tiled_widens_weights_in_the_gpu_style),
    CASE(gemv_widens_weights_as_it_reads_them),
    CASE(gemv_widens_weights_in_the_gpu_style),
    CASE(engines_are_measured_with_narrow_weights),
    CASE(results_are_the_same_from_run_to_run),
    CASE(the_choice_is_kept_and_a_bad_file_is_measured_again),
    CASE(what_others_measured_meanwhile_stays),
    CASE(what_makes_no_sense_is_refused),
    CASE(the_benchmark_and_the_peaks_give_plausible_numbers),
    CASE(the_best_rate_is_that_of_the_measured_products),
    CASE(a_peak_that_is_not_measured_is_not_known),
    { 0 }
};
