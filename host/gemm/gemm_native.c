/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_native.c - products by a CBLAS inside the device's own queue.
 *
 * A CPU device's memory is the host's, and OpenCL can call a host function in queue order
 * (clEnqueueNativeKernel). So a BLAS written for exactly this processor costs no copy and
 * no more overhead than a kernel. It multiplies fp32 only; the epilogue is done to each piece of C by the thread
 * that has computed it (gemm_call.h), or, what that does not know, by a kernel.
 *
 * A right factor in fewer bits is widened in panels of columns of C, a few at a time, which the BLAS reads from
 * the cache that they were written to:
 *
 *   B stored (N,K)   w rows of it               B stored (K,N)   w of its columns       C (M,N)   w columns
 *
 * OpenBLAS is called on one thread, for a piece of C, by each of a pool of threads (gemm_pool.h). Another CBLAS
 * gets the product whole. While it is computed, the driver's threads are idle: the queue is in order. */
#include "host/gemm/engine.h"

#include "host/base/log.h"
#include "host/gemm/gemm_call.h"

#include <cblas.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

/* Only OpenBLAS has it; with another CBLAS the address is NULL. */
extern void openblas_set_num_threads(int num_threads) __attribute__((weak));
extern int openblas_get_num_threads(void) __attribute__((weak));

/* Pieces a thread; the least side of one, what it is a multiple of, and what is worth one. */
enum { PIECES = 2, PIECE_LEAST = 64, PIECE_STEP = 16 };
#define PIECE_FLOPS 1e6

/* Bytes of a panel: it should stay in a core's cache, but the BLAS packs all of A for each. */
enum { PANEL = 2 << 20, PANEL_STEP = 64 };

/* Columns of C that a panel is for; 0: B is read as it is. */
static int panel_width(const gemm_desc *g)
{
    if (g->b_type == DTYPE_F32)
        return 0;
    const int most = PANEL / (int)sizeof(float) / (g->K < PANEL ? g->K : PANEL) / PANEL_STEP * PANEL_STEP;
    const int panels = most ? (g->N + most - 1) / most : (g->N + PANEL_STEP - 1) / PANEL_STEP;
    const int even = ((g->N + panels - 1) / panels + PANEL_STEP - 1) / PANEL_STEP * PANEL_STEP;
    return even < g->N ? even : g->N;
}

static void widen(float *to, int64_t ld, const gemm_desc *g, const void *b, int row, int rows, int column, int columns)
{
    if (g->b_type == DTYPE_Q8) {
        q8_load_part(to, ld, b, gemm_q8(g), row, rows, column, columns);
        return;
    }
    const uint16_t *from = (const uint16_t *)b + (int64_t)row * g->ldb + column;
    for (int r = 0; r < rows; r++, from += g->ldb, to += ld)
        for (int i = 0; i < columns; i++) {
            const uint32_t bits = (uint32_t)from[i] << 16;
            memcpy(&to[i], &bits, sizeof bits);
        }
}

/* A product, whose parts are `columns` wide in C. */
typedef struct whole {
    gemm_desc g;
    int columns;
    const float *a, *b;
    float *c;
    const gemm_tail *tail;      /* NULL: no epilogue */
    int first;                  /* column of C, where a panel begins: c is the product's */
    int ldb, add;
    int down, across, h, w;     /* pieces, and how large they are but for the last ones */
} whole;

static void multiply_part(const whole *x, int row, int rows, int column, int columns)
{
    const gemm_desc *g = &x->g;
    const float *a = x->a + (int64_t)row * (g->trans_a ? 1 : g->lda);
    const float *b = x->b + (int64_t)column * (g->trans_b ? x->ldb : 1);
    cblas_sgemm(CblasRowMajor, g->trans_a ? CblasTrans : CblasNoTrans, g->trans_b ? CblasTrans : CblasNoTrans, rows,
                columns, g->K, g->alpha, a, g->lda, b, x->ldb, x->add ? 1.0f : 0.0f,
                x->c + (int64_t)row * g->ldc + x->first + column, g->ldc);
    if (x->tail)
        gemm_finish(g, x->tail, x->c, row, rows, x->first + column, columns);
}

static void multiply_piece(void *context, int i, int thread)
{
    (void)thread;
    const whole *x = context;
    const int row = i / x->across * x->h, column = i % x->across * x->w;
    const int rows = x->g.M - row, columns = x->columns - column;
    multiply_part(x, row, rows < x->h ? rows : x->h, column, columns < x->w ? columns : x->w);
}

/* As many as are wanted and have the least side; at least 1. */
static int pieces_of(int side, int wanted)
{
    const int most = (side + PIECE_LEAST - 1) / PIECE_LEAST, n = wanted < most ? wanted : most;
    return n > 1 ? n : 1;
}

static int part(int side, int pieces)
{
    return ((side + pieces - 1) / pieces + PIECE_STEP - 1) / PIECE_STEP * PIECE_STEP;
}

/* Some pieces a thread, since cores are never equally fast, of the longer side first: what is shared along the
 * other is packed anew for each. Small products are one piece. */
static void cut_into_pieces(whole *x, int threads)
{
    const gemm_desc *g = &x->g;
    const int tall = g->M > x->columns;
    int *const first = tall ? &x->down : &x->across, *const second = tall ? &x->across : &x->down;
    const int longer = tall ? g->M : x->columns, shorter = tall ? x->columns : g->M;
    const double worth = 2.0 * g->M * x->columns * g->K / PIECE_FLOPS;
    int wanted = threads > 1 ? PIECES * threads : 1;
    wanted = worth < wanted ? (int)worth : wanted;
    *first = pieces_of(longer, wanted);
    *second = pieces_of(shorter, wanted / *first);
    x->h = part(g->M, x->down);
    x->w = part(x->columns, x->across);
    x->down = (g->M + x->h - 1) / x->h;
    x->across = (x->columns + x->w - 1) / x->w;
}

static void multiply_one(gemm_pool *pool, whole *x)
{
    if (!pool) {
        multiply_part(x, 0, x->g.M, 0, x->columns);
        return;
    }
    openblas_set_num_threads(1);
    cut_into_pieces(x, gemm_pool_threads(pool));
    gemm_pool_run(pool, x->down * x->across, multiply_piece, x);
}

static void multiply_panels(gemm_pool *pool, whole *x, const void *b, float *panel)
{
    const gemm_desc *g = &x->g;
    const int width = panel_width(g);
    for (int n = 0; n < g->N; n += width) {
        const int w = width < g->N - n ? width : g->N - n, ld = g->trans_b ? g->K : w;
        if (g->trans_b)
            widen(panel, ld, g, b, n, w, 0, g->K);
        else
            widen(panel, ld, g, b, 0, g->K, n, w);
        x->first = n;
        x->columns = w;
        x->b = panel;
        x->ldb = ld;
        multiply_one(pool, x);
    }
}

static void multiply(const void *payload, void *const *pointers)
{
    gemm_call call;
    memcpy(&call, payload, sizeof call);
    const gemm_desc *g = &call.g;
    for (int i = 0; i < g->batch; i++) {
        const gemm_tail tail = gemm_call_tail(&call, pointers, i);
        whole x = {
            .g = *g,
            .columns = g->N,
            .a = gemm_call_at(pointers[CALL_A], i * g->stride_a),
            .b = gemm_call_at(pointers[CALL_B], i * g->stride_b),
            .c = gemm_call_at(pointers[CALL_C], i * g->stride_c),
            .tail = call.finishes ? &tail : NULL,
            .ldb = g->ldb,
            .add = g->add,
        };
        if (panel_width(g))
            multiply_panels(call.pool, &x, pointers[CALL_B], pointers[CALL_SCRATCH]);
        else
            multiply_one(call.pool, &x);
    }
}

/* OpenBLAS takes a buffer for each thread that multiplies, keeps it, and where the address space is
 * limited (ulimit -v) and full tries for one for ever. There it takes them all now, or is not used. */
static int has_room;

static void look_for_room(void)
{
    enum { BUFFER = 128 << 20, N = 192 };
    struct rlimit limit;
    const size_t bytes = (size_t)BUFFER * ((size_t)(openblas_get_num_threads ? openblas_get_num_threads() : 0) + 1);
    has_room = 1;
    if (!openblas_get_num_threads || getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return;
    void *trial = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    float *x = calloc(3 * (size_t)N * N, sizeof *x);
    has_room = trial != MAP_FAILED && x;
    if (trial != MAP_FAILED)
        munmap(trial, bytes);
    if (has_room)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, N, N, N, 1.0f, x, N, x + N * N, N, 0.0f, x + 2 * N * N,
                    N);
    else
        gt_log(GT_LOG_WARN, "gemm",
               "this shell's limit of address space (ulimit -v) leaves no room for "
               "OpenBLAS; going on without engine native");
    free(x);
}

static int can(gemm_context *c, const gemm_desc *g)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, look_for_room);
    if (!has_room)
        return 0;
    const dev_info *info = dev_info_of(gemm_device(c));
    return info->kind == DEV_CPU && info->native_kernels && g->a_type == DTYPE_F32 && g->c_type == DTYPE_F32
           && (g->b_type == DTYPE_F32 || g->batch == 1);
}

static uint64_t scratch(gemm_context *c, const gemm_desc *g)
{
    (void)c;
    return sizeof(float) * (uint64_t)panel_width(g) * (uint64_t)g->K;
}

static gt_status append(gemm_context *c, dev_list *l, const gemm_desc *g, const gemm_buffers *b, gemm_slot *add_at)
{
    gemm_pool *const pool = openblas_set_num_threads ? gemm_pool_of(c) : NULL;
    if (openblas_set_num_threads && !pool)
        return gt_fail(GT_NO_MEMORY, "no memory for the threads of engine native");
    return gemm_call_append(c, l, g, b, add_at, "native", pool, multiply);
}

/* Of OpenBLAS alone, which can be told to stay on the calling thread. */
static int can_tiles(gemm_context *c, dtype type)
{
    const gemm_desc one = { .M = 1, .N = 1, .K = 1, .lda = 1, .ldb = 1, .ldc = 1, .batch = 1, .alpha = 1 };
    return type == DTYPE_F32 && openblas_set_num_threads && can(c, &one);
}

static void begin_tiles(gemm_context *c)
{
    (void)c;
    openblas_set_num_threads(1);
}

static void multiply_tile(gemm_context *c, int thread, dtype type, const gemm_tile *t, const void *a, const void *b,
                          float *to)
{
    (void)c;
    (void)thread;
    (void)type;
    cblas_sgemm(CblasRowMajor, t->trans_a ? CblasTrans : CblasNoTrans, t->trans_b ? CblasTrans : CblasNoTrans, t->M,
                t->N, t->K, 1.0f, a, t->lda, b, t->ldb, t->add ? 1.0f : 0.0f, to, t->ldc);
}

static const gemm_tile_functions tiles = { can_tiles, begin_tiles, multiply_tile };

const gemm_engine gemm_native = {
    .version = 1,
    .can = can,
    .scratch = scratch,
    .append = append,
    .tiles = &tiles,
};
