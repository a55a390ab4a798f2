/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_packed.c - products of fp32 on a CPU by Geartrain's own loops, in the device's own queue.
 *
 *   the shorter side of C    its factor is packed by all threads together, DEPTH of k at a time, for the second-level
 *                            cache of every core
 *   the longer side          shared out; a thread packs LINES of its factor's lines for itself, and multiplies them
 *                            with all that is packed of the other one:
 *
 *     A packed  ┌────┐   │ │ of B       while one panel of B is multiplied, the next one's memory is asked for;
 *               │    │ x │ │ packed     its time in the first- and second-level caches is all it is read in
 *               └────┘   │ │
 *
 * After Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008, with the roles of the two
 * factors settled by which is shorter. A library that is called for pieces of C packs what they share for each of them;
 * here it is packed once. A shorter side of more than SHARED / SHORTEST lines is multiplied in parts.
 * How k is cut depends on the product alone, so results do not depend on the number of threads.
 *
 * A product is one run of the pool, whose pieces are those of packing and of multiplying, turn by turn; who is
 * early looks at a counter for the others instead of sleeping. */
#include "host/gemm/engine.h"
#include "host/gemm/gemm_call.h"
#include "host/gemm/packed_loops.h"

#include <sched.h>
#include <stdatomic.h>
#include <string.h>

enum {
    SHARED = 3 << 16,           /* elements of the packed factor that a core reads again and again */
    DEPTH = 768,                /* of k at a time, at most */
    SHORTEST = 384,             /* and at least, where there are so many: the shorter side is cut for it */
    TOGETHER = 3 << 19,         /* elements that are packed before they are multiplied, but for one DEPTH */
    DEPTH_STEP = 8,
    PIECES = 8,                 /* a thread, if all were as large as the first */
    MOST_PIECES = 1024
};

static int ceiling(int x, int by)
{
    return (x + by - 1) / by;
}

static int round_up(int x, int step)
{
    return ceiling(x, step) * step;
}

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* ---- how a product is cut ------------------------------------------------------------------------ */

typedef struct cut {
    int tall;                   /* the longer side is that of rows: A is what each thread packs for itself */
    int longer, shorter;
    int step;                   /* lines of the longer side that a piece is made of      */
    int wide;                   /* lines of a panel of the shorter side                  */
    int part;                   /* of the shorter side, packed at once; a multiple of LINES */
    int depth;                  /* of k, that a panel has                                */
    int together;               /* of k, that are packed at once: a multiple of depth    */
} cut;

static cut cut_of(const gemm_desc *g)
{
    cut x = { .tall = g->M > g->N };
    x.longer = x.tall ? g->M : g->N;
    x.shorter = x.tall ? g->N : g->M;
    x.step = x.tall ? PACKED_ROWS : PACKED_COLUMNS;
    x.wide = x.tall ? PACKED_COLUMNS : PACKED_ROWS;
    x.part = round_up(ceiling(x.shorter, ceiling(x.shorter, SHARED / SHORTEST)), x.wide);
    const int most = least(DEPTH, SHARED / x.part);
    x.depth = round_up(ceiling(g->K, ceiling(g->K, most)), DEPTH_STEP);
    const int blocks = TOGETHER / x.part / x.depth, wanted = ceiling(g->K, x.depth);
    x.together = x.depth * (blocks < 1 ? 1 : least(blocks, wanted));
    return x;
}

/* Elements of scratch: what is packed together, and a thread's own. */
static uint64_t together_size(const cut *x)
{
    return (uint64_t)x->part * (uint64_t)x->together;
}

static uint64_t own_size(const cut *x)
{
    return (uint64_t)PACKED_LINES * (uint64_t)x->depth;
}

/* ---- multiplying ------------------------------------------------------------------------------- */

typedef struct work {
    const gemm_desc *g;
    cut x;
    packed_factor longer, shorter;
    float *c;
    const gemm_tail *tail;              /* NULL: no epilogue */
    int streams;                        /* C is written once, and past the caches        */
    float *together, *own;
    int threads, packings, pieces;      /* the latter of a turn                          */
    int begin[MOST_PIECES + 1];         /* of the longer side: where its pieces do       */
    atomic_int packed, multiplied;      /* of all turns, how many of them are done      */
} work;

/* What is packed together at a time, and multiplied. */
typedef struct turn {
    int first, lines;                   /* of the shorter side */
    int from, to;                       /* of k                */
} turn;

static int turns_of_k(const work *w)
{
    return ceiling(w->g->K, w->x.together);
}

static int turns(const work *w)
{
    return ceiling(w->x.shorter, w->x.part) * turns_of_k(w);
}

static turn turn_at(const work *w, int i)
{
    turn r = { .first = i / turns_of_k(w) * w->x.part, .from = i % turns_of_k(w) * w->x.together };
    r.lines = least(w->x.part, w->x.shorter - r.first);
    r.to = least(w->g->K, r.from + w->x.together);
    return r;
}

/* Where a block of k begins in what is packed together. */
static float *block_of(const work *w, const turn *r, int k)
{
    return w->together + (int64_t)(k - r->from) * w->x.part;
}

enum { GROUPS = 4 };                    /* of LINES, that a piece of packing has */

/* Of a smaller turn, some pieces have nothing to do. */
static void pack_together(const work *w, const turn *r, int i)
{
    const int across = ceiling(w->x.part, GROUPS * PACKED_LINES);
    const int k = r->from + i / across * w->x.depth, depth = least(w->x.depth, r->to - k);
    const int begin = i % across * GROUPS * PACKED_LINES, end = least(r->lines, begin + GROUPS * PACKED_LINES);
    for (int at = begin; depth > 0 && at < end; at += PACKED_LINES)
        packed_loops_avx512.pack(block_of(w, r, k) + (int64_t)at * depth, &w->shorter, w->x.wide, r->first + at,
                                 least(PACKED_LINES, end - at), k, depth);
}

/* Asks for `lines` lines of the longer side, elements [k, k + depth). */
static packed_ahead ahead_of(const work *w, int line, int lines, int k, int depth)
{
    enum { CACHE_LINE = 64, FLOATS = CACHE_LINE / sizeof(float) };
    const packed_factor *f = &w->longer;
    const int rows = f->along ? lines : depth, columns = f->along ? depth : lines;
    const float *at = f->along ? f->at + line * f->ld + k : f->at + k * f->ld + line;
    const int side = (columns - 1 + (int)((uintptr_t)at % CACHE_LINE / sizeof(float))) / FLOATS + 1;
    return (packed_ahead){ .at = (const char *)at - (uintptr_t)at % CACHE_LINE,
                           .step = f->ld * (int64_t)sizeof(float),
                           .lines = side,
                           .left = rows * side };
}

/* What this thread packs behind these lines of a piece: its next lines, the first ones of its next block of k, or, if
 * all threads are equally fast, of its next piece. */
static packed_ahead next_of(const work *w, const turn *r, int piece, int line, int k)
{
    line += PACKED_LINES;
    if (line >= w->begin[piece + 1]) {
        k += w->x.depth;
        if (k >= r->to) {
            k = r->from;
            piece += w->threads;
        }
        if (piece >= w->pieces)
            return (packed_ahead){ 0 };
        line = w->begin[piece];
    }
    return ahead_of(w, line, least(PACKED_LINES, w->begin[piece + 1] - line), k, least(w->x.depth, r->to - k));
}

/* One tile of C, whose part beyond the matrix is left out. */
static void multiply_tile(const work *w, const float *a, const float *b, int row, int column, int k, int depth,
                          packed_ahead *ahead)
{
    const gemm_desc *g = w->g;
    const int rows = g->M - row, columns = g->N - column;
    const packed_store how = g->add || k > 0 ? PACKED_ADD : w->streams ? PACKED_STREAM : PACKED_SET;
    float *c = w->c + (int64_t)row * g->ldc + column;
    if (rows >= PACKED_ROWS && columns >= PACKED_COLUMNS) {
        packed_loops_avx512.tile(depth, a, b, c, g->ldc, g->alpha, how, ahead);
        return;
    }
    float whole[PACKED_ROWS * PACKED_COLUMNS];
    packed_loops_avx512.tile(depth, a, b, whole, PACKED_COLUMNS, g->alpha, PACKED_SET, ahead);
    for (int i = 0; i < least(rows, PACKED_ROWS); i++)
        for (int j = 0; j < least(columns, PACKED_COLUMNS); j++) {
            const float x = whole[i * PACKED_COLUMNS + j];
            float *to = c + (int64_t)i * g->ldc + j;
            *to = how == PACKED_ADD ? *to + x : x;
        }
}

/* `lines` of the longer side, packed, with all of the shorter side that is packed. */
static void multiply_panel(const work *w, const turn *r, const float *own, int line, int lines, int k, int depth,
                           packed_ahead *ahead)
{
    const float *others = block_of(w, r, k);
    if (w->x.tall)
        for (int i = 0; i < lines; i += PACKED_ROWS)
            for (int j = 0; j < r->lines; j += PACKED_COLUMNS)
                multiply_tile(w, own + (int64_t)i * depth, others + (int64_t)j * depth, line + i, r->first + j, k,
                              depth, ahead);
    else
        for (int i = 0; i < r->lines; i += PACKED_ROWS)
            multiply_tile(w, others + (int64_t)i * depth, own, r->first + i, line, k, depth, ahead);
}

static void finish_panel(const work *w, const turn *r, int line, int lines)
{
    if (w->x.tall)
        gemm_finish(w->g, w->tail, w->c, line, lines, r->first, r->lines);
    else
        gemm_finish(w->g, w->tail, w->c, r->first, r->lines, line, lines);
}

static void multiply_piece(const work *w, const turn *r, int i, float *own)
{
    const int begin = w->begin[i], end = w->begin[i + 1];
    for (int k = r->from; k < r->to; k += w->x.depth) {
        const int depth = least(w->x.depth, r->to - k);
        for (int line = begin, lines; line < end; line += lines) {
            lines = least(PACKED_LINES, end - line);
            packed_loops_avx512.pack(own, &w->longer, w->x.tall ? PACKED_ROWS : PACKED_COLUMNS, line, lines, k, depth);
            packed_ahead ahead = next_of(w, r, i, line, k);
            multiply_panel(w, r, own, line, lines, k, depth, &ahead);
            if (w->tail && k + depth == w->g->K)
                finish_panel(w, r, line, lines);
        }
    }
    if (w->streams)
        packed_loops_avx512.arrive();
}

/* What nobody reads soon, and is more than stays near a core, drives nothing out of the caches and is not fetched
 * before it is written: it is written once, in whole cache lines. */
static int streams(const gemm_desc *g, const cut *x, const float *c, int tail)
{
    enum { CACHE_LINE = 64, FLOATS = CACHE_LINE / sizeof(float), NEAR = 1 << 18 };
    return g->cold && !g->add && !tail && g->K <= x->depth && (int64_t)g->M * g->N >= NEAR && g->ldc % FLOATS == 0
           && (uintptr_t)c % CACHE_LINE == 0;
}

/* What is waited for is another thread's piece, and short; on a machine with more to do, that thread is let on. */
static void wait_for(atomic_int *done, int count)
{
    enum { LOOKS = 1000 };
    for (int looks = 0; atomic_load_explicit(done, memory_order_acquire) < count; looks++)
        if (looks < LOOKS)
            __builtin_ia32_pause();
        else
            sched_yield();
}

/* Pieces are taken in order: those that one waits for are done, or in the hands of threads that run. */
static void do_piece(void *context, int i, int thread)
{
    work *w = context;
    const int each = w->packings + w->pieces, at = i / each, n = i % each;
    const turn r = turn_at(w, at);
    if (n < w->packings) {
        wait_for(&w->multiplied, at * w->pieces);
        pack_together(w, &r, n);
        atomic_fetch_add_explicit(&w->packed, 1, memory_order_release);
    } else {
        wait_for(&w->packed, (at + 1) * w->packings);
        multiply_piece(w, &r, n - w->packings, w->own + (int64_t)thread * (int64_t)own_size(&w->x));
        atomic_fetch_add_explicit(&w->multiplied, 1, memory_order_release);
    }
}

/* Cores are never equally fast: there are some pieces a thread, and the last ones are the smallest, for one of those is
 * all that is waited for at the end. */
static void cut_pieces(work *w)
{
    const int longer = w->x.longer, step = w->x.step;
    const int fewest = least(PACKED_LINES, round_up(ceiling(longer, w->threads), step));
    const int grain = fewest > longer / MOST_PIECES ? fewest : round_up(ceiling(longer, MOST_PIECES), step);
    const int most = round_up(ceiling(longer, PIECES * w->threads), grain);
    for (int at = 0; at < longer; w->begin[++w->pieces] = least(longer, at))
        at += least(most, round_up(ceiling(longer - at, 2 * w->threads), grain));
}

static void multiply_one(work *w, gemm_pool *pool)
{
    w->threads = gemm_pool_threads(pool);
    w->packings = w->x.together / w->x.depth * ceiling(w->x.part, GROUPS * PACKED_LINES);
    cut_pieces(w);
    gemm_pool_run(pool, turns(w) * (w->packings + w->pieces), do_piece, w);
}

static void multiply(const void *payload, void *const *pointers)
{
    gemm_call call;
    memcpy(&call, payload, sizeof call);
    const gemm_desc *g = &call.g;
    const cut x = cut_of(g);
    for (int i = 0; i < g->batch; i++) {
        const gemm_tail tail = gemm_call_tail(&call, pointers, i);
        const packed_factor a = { gemm_call_at(pointers[CALL_A], i * g->stride_a), g->lda, !g->trans_a };
        const packed_factor b = { gemm_call_at(pointers[CALL_B], i * g->stride_b), g->ldb, g->trans_b };
        work w = {
            .g = g,
            .x = x,
            .longer = x.tall ? a : b,
            .shorter = x.tall ? b : a,
            .c = gemm_call_at(pointers[CALL_C], i * g->stride_c),
            .tail = call.finishes ? &tail : NULL,
            .together = pointers[CALL_SCRATCH],
            .own = gemm_call_at(pointers[CALL_SCRATCH], (int64_t)together_size(&x)),
        };
        w.streams = streams(g, &x, w.c, w.tail != NULL);
        multiply_one(&w, call.pool);
    }
}

/* ---- the engine -------------------------------------------------------------------------------- */

static int has_loops(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
}

static int can(gemm_context *c, const gemm_desc *g)
{
    const dev_info *info = dev_info_of(gemm_device(c));
    return info->kind == DEV_CPU && info->native_kernels && g->a_type == DTYPE_F32 && g->b_type == DTYPE_F32
           && g->c_type == DTYPE_F32 && has_loops();
}

static uint64_t scratch(gemm_context *c, const gemm_desc *g)
{
    const gemm_pool *pool = gemm_pool_of(c);
    const cut x = cut_of(g);
    return sizeof(float) * (together_size(&x) + (uint64_t)(pool ? gemm_pool_threads(pool) : 1) * own_size(&x));
}

static gt_status append(gemm_context *c, dev_list *l, const gemm_desc *g, const gemm_buffers *b, gemm_slot *add_at)
{
    gemm_pool *const pool = gemm_pool_of(c);
    if (!pool)
        return gt_fail(GT_NO_MEMORY, "no memory for the threads of engine packed");
    return gemm_call_append(c, l, g, b, add_at, "packed", pool, multiply);
}

/* Whoever asks for tiles of this engine multiplies them by loops that know what they are for; it has the threads. */
static int can_tiles(gemm_context *c, dtype type)
{
    const gemm_desc one = { .M = 1, .N = 1, .K = 1, .lda = 1, .ldb = 1, .ldc = 1, .batch = 1, .alpha = 1 };
    return type == DTYPE_F32 && can(c, &one);
}

static void begin_tiles(gemm_context *c)
{
    (void)c;
}

static const gemm_tile_functions tiles = { can_tiles, begin_tiles, NULL };

const gemm_engine gemm_packed = {
    .version = 1,
    .can = can,
    .scratch = scratch,
    .append = append,
    .tiles = &tiles,
};
