/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_packed.c - products of fp32 on a CPU by Geartrain's own loops, in the device's own queue.
 *
 *   the shorter side of C    its factor is packed by all threads together, DEPTH of k at a time, for the second-level
 *                            cache of every core
 *   the longer side          shared out; a thread packs LINES of its factor's lines for itself, a block, and multiplies
 *                            them with all that is packed of the other one:
 *
 *     A packed  ┌────┐   │ │ │ of B     while a block is multiplied, the next one is asked for. One that need not be
 *               │    │ x │ │ ┊ packed   turned over is packed as well, a bit during each tile, from what was asked for
 *               └────┘   │ │            during the tile before: all of it, at distances of a power of two, would not
 *                                       stay in the cache until then
 *
 * After Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008, with the roles of the two
 * factors settled by which is shorter. A library that is called for pieces of C packs what they share for each of them;
 * here it is packed once. A shorter side of more than SHARED / SHORTEST lines is multiplied in parts.
 * How k is cut depends on the product alone, so results do not depend on the number of threads.
 *
 * A product is one run of the pool, whose threads take pieces of packing and of multiplying, turn by turn; who is
 * early looks at a counter for the others instead of sleeping. A thread takes its next piece before its last block. */
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
    BIT = 16,                   /* of k, of which a multiple is packed behind a tile */
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
    int part;                   /* of the shorter side, packed at once; a multiple of `wide` */
    int depth;                  /* of k, that a panel has                                */
    int strip;                  /* of k, that a piece goes through: a multiple of depth  */
    int turn;                   /* so many strips are packed at once                     */
    int piece;                  /* lines of the longer side, at most, that a piece has   */
} cut;

/* Through all of k at once, a piece of few lines fetches more of what is packed together, which is more than the cache
 * of a core holds, than its part of C is: then k goes on when all pieces have been through a depth of it. The number is
 * measured: 1024 x 768 x 3072 (5.3 times as deep) gains 5 %, 1536 x 1536 x 1536 (4 times) loses as much. */
static cut cut_of(const gemm_desc *g, int threads)
{
    cut x = { .tall = g->M > g->N };
    x.longer = x.tall ? g->M : g->N;
    x.shorter = x.tall ? g->N : g->M;
    x.step = x.tall ? PACKED_ROWS : PACKED_COLUMNS;
    x.wide = x.tall ? PACKED_COLUMNS : PACKED_ROWS;
    x.part = round_up(ceiling(x.shorter, ceiling(x.shorter, SHARED / SHORTEST)), x.wide);
    x.piece = round_up(ceiling(x.longer, PIECES * threads), PACKED_LINES);
    const int most = least(DEPTH, SHARED / x.part);
    x.depth = round_up(ceiling(g->K, ceiling(g->K, most)), DEPTH_STEP);
    const int deep = ceiling(g->K, x.depth), together = TOGETHER / x.part / x.depth;
    const int through = 4 * x.piece < x.depth || together < 1 ? 1 : least(together, deep);
    x.strip = x.depth * through;
    const int strips = ceiling(x.shorter, x.part) * ceiling(deep, through), turn = together / through;
    x.turn = turn < 1 ? 1 : least(turn, strips);
    return x;
}

/* Elements of scratch: what is packed together, and a block of a thread's own, of which it has two. */
static uint64_t together_size(const cut *x)
{
    return (uint64_t)x->part * (uint64_t)x->strip * (uint64_t)x->turn;
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
    int threads, pieces;
    int packings;                       /* pieces of packing a strip                     */
    int begin[MOST_PIECES + 1];         /* of the longer side: where its pieces do       */
    atomic_int taken;                   /* pieces of all turns: those of packing, then those of multiplying, ... */
    atomic_int packed, multiplied;      /* how many of them are done                     */
    atomic_int through[MOST_PIECES];    /* so many strips have been multiplied with it   */
} work;

/* Of the shorter side, what a piece of the longer one is multiplied with, from its beginning to its end. */
typedef struct strip {
    int first, lines;                   /* of the shorter side */
    int from, to;                       /* of k                */
    float *at;                          /* where it is packed  */
} strip;

static int strips_of_k(const work *w)
{
    return ceiling(w->g->K, w->x.strip);
}

static int strips(const work *w)
{
    return ceiling(w->x.shorter, w->x.part) * strips_of_k(w);
}

static strip strip_at(const work *w, int i)
{
    strip r = { .first = i / strips_of_k(w) * w->x.part, .from = i % strips_of_k(w) * w->x.strip };
    r.lines = least(w->x.part, w->x.shorter - r.first);
    r.to = least(w->g->K, r.from + w->x.strip);
    r.at = w->together + (int64_t)(i % w->x.turn) * w->x.part * w->x.strip;
    return r;
}

/* Where a block of k begins in a strip. */
static float *block_of(const work *w, const strip *r, int k)
{
    return r->at + (int64_t)(k - r->from) * w->x.part;
}

/* Of a smaller strip, some pieces have nothing to do. */
static void pack_together(const work *w, const strip *r, int i)
{
    const int across = ceiling(w->x.part, PACKED_LINES);
    const int k = r->from + i / across * w->x.depth, depth = least(w->x.depth, r->to - k);
    const int at = i % across * PACKED_LINES, lines = least(PACKED_LINES, r->lines - at);
    if (depth > 0 && lines > 0)
        packed_loops_avx512.pack(block_of(w, r, k) + (int64_t)at * depth, depth, &w->shorter, w->x.wide, r->first + at,
                                 lines, k, depth);
}

/* What a thread packs for itself at a time. */
typedef struct block {
    int strip, piece;                   /* -1: there is no such block */
    int line, lines;                    /* of the longer side */
    int k, depth;
} block;

static block block_at(const work *w, int at, int piece, int line, int k)
{
    const strip r = strip_at(w, at);
    return (block){ .strip = at,
                    .piece = piece,
                    .line = line,
                    .lines = least(PACKED_LINES, w->begin[piece + 1] - line),
                    .k = k,
                    .depth = least(w->x.depth, r.to - k) };
}

static block first_block(const work *w, int at, int piece)
{
    return block_at(w, at, piece, w->begin[piece], strip_at(w, at).from);
}

/* The next one of the same piece. */
static block block_behind(const work *w, const block *b)
{
    if (b->line + b->lines < w->begin[b->piece + 1])
        return block_at(w, b->strip, b->piece, b->line + b->lines, b->k);
    if (b->k + b->depth < strip_at(w, b->strip).to)
        return block_at(w, b->strip, b->piece, w->begin[b->piece], b->k + b->depth);
    return (block){ .piece = -1 };
}

/* k [from, to) of a block, counted from its own first. */
static void pack_bit(const work *w, const block *b, float *own, int from, int to)
{
    const int wide = w->x.tall ? PACKED_ROWS : PACKED_COLUMNS;
    if (from < to)
        packed_loops_avx512.pack(own + (int64_t)from * wide, b->depth, &w->longer, wide, b->line, b->lines, b->k + from,
                                 to - from);
}

/* Asks for the memory of them, during a tile of so many k. */
static packed_beside ahead_of(const work *w, const block *b, int from, int to, int k)
{
    enum { CACHE_LINE = 64, FLOATS = CACHE_LINE / sizeof(float) };
    const packed_factor *f = &w->longer;
    if (from >= to)
        return (packed_beside){ 0 };
    const int rows = f->along ? b->lines : to - from, columns = f->along ? to - from : b->lines, first = b->k + from;
    const float *at = f->along ? f->at + b->line * f->ld + first : f->at + first * f->ld + b->line;
    const int side = (columns - 1 + (int)((uintptr_t)at % CACHE_LINE / sizeof(float))) / FLOATS + 1;
    return (packed_beside){ .at = (const char *)at - (uintptr_t)at % CACHE_LINE,
                            .step = f->ld * (int64_t)sizeof(float),
                            .lines = side,
                            .left = rows * side,
                            .each = ceiling(rows * side * PACKED_STRETCH, k) };
}

/* Has them packed during a tile, where that is no more than moving them. */
static void carry(const work *w, const block *b, float *own, int from, int to, packed_beside *x)
{
    const packed_factor *f = &w->longer;
    if (from >= to || f->along || b->lines < PACKED_LINES)
        return;
    x->from = f->at + (b->k + from) * f->ld + b->line;
    x->ld = f->ld;
    x->half = w->x.tall ? (int64_t)PACKED_ROWS * b->depth : 0;
    x->to = own + (int64_t)from * (w->x.tall ? PACKED_ROWS : PACKED_COLUMNS);
    x->rows = to - from;
}

/* One tile of C, whose part beyond the matrix is left out. */
static void multiply_tile(const work *w, const float *a, const float *b, int row, int column, int k, int depth,
                          packed_beside *beside)
{
    const gemm_desc *g = w->g;
    const int rows = g->M - row, columns = g->N - column;
    const packed_store how = g->add || k > 0 ? PACKED_ADD : w->streams ? PACKED_STREAM : PACKED_SET;
    float *c = w->c + (int64_t)row * g->ldc + column;
    if (rows >= PACKED_ROWS && columns >= PACKED_COLUMNS) {
        packed_loops_avx512.tile(depth, a, b, c, g->ldc, g->alpha, how, beside);
        return;
    }
    float whole[PACKED_ROWS * PACKED_COLUMNS];
    packed_loops_avx512.tile(depth, a, b, whole, PACKED_COLUMNS, g->alpha, PACKED_SET, beside);
    for (int i = 0; i < least(rows, PACKED_ROWS); i++)
        for (int j = 0; j < least(columns, PACKED_COLUMNS); j++) {
            const float x = whole[i * PACKED_COLUMNS + j];
            float *to = c + (int64_t)i * g->ldc + j;
            *to = how == PACKED_ADD ? *to + x : x;
        }
}

/* A block, packed, with all of the shorter side that is packed; and packs the next one, if there is one. */
static void multiply_block(const work *w, const strip *r, const block *b, const float *own, const block *next,
                           float *later)
{
    const float *others = block_of(w, r, b->k);
    const int down = ceiling(w->x.tall ? b->lines : r->lines, PACKED_ROWS);
    const int across = ceiling(w->x.tall ? r->lines : b->lines, PACKED_COLUMNS), tiles = down * across;
    const int depth = next->piece < 0 ? 0 : next->depth;
    const float *const a = w->x.tall ? own : others, *const columns = w->x.tall ? others : own;
    const int row = w->x.tall ? b->line : r->first, column = w->x.tall ? r->first : b->line;
    const int turned = w->longer.along;
    packed_beside beside = ahead_of(w, next, 0, turned ? depth : 0, tiles * b->depth);
    for (int i = 0, done = 0, asked = 0; i < tiles; i++) {
        const int ask = i + 2 < tiles ? depth / BIT * (i + 1) / (tiles - 1) * BIT : depth;
        const int upto = i + 1 == tiles ? depth : turned ? 0 : asked;
        const int at_row = i / across * PACKED_ROWS, at_column = i % across * PACKED_COLUMNS;
        if (!turned) {
            beside = ahead_of(w, next, asked, ask, b->depth);
            carry(w, next, later, done, asked, &beside);
        }
        multiply_tile(w, a + (int64_t)at_row * b->depth, columns + (int64_t)at_column * b->depth, row + at_row,
                      column + at_column, b->k, b->depth, &beside);
        pack_bit(w, next, later, beside.from ? asked - beside.rows : done, upto);
        done = upto;
        asked = ask;
    }
}

static void finish_block(const work *w, const strip *r, const block *b)
{
    if (w->x.tall)
        gemm_finish(w->g, w->tail, w->c, b->line, b->lines, r->first, r->lines);
    else
        gemm_finish(w->g, w->tail, w->c, r->first, r->lines, b->line, b->lines);
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

/* What is taken: turn by turn, what is packed and what is multiplied. */
typedef struct piece {
    int packs, strip, at;
} piece;

static int all_pieces(const work *w)
{
    return ceiling(strips(w), w->x.turn) * w->x.turn * (w->packings + w->pieces);
}

static piece piece_at(const work *w, int i)
{
    const int packings = w->x.turn * w->packings, turn = packings + w->x.turn * w->pieces;
    const int first = i / turn * w->x.turn, at = i % turn;
    return at < packings ? (piece){ 1, first + at / w->packings, at % w->packings }
                         : (piece){ 0, first + (at - packings) / w->pieces, (at - packings) % w->pieces };
}

/* The first block of the next piece, which is the caller's then, if that is one of multiplying. */
static block take_ahead(work *w)
{
    int i = atomic_load_explicit(&w->taken, memory_order_relaxed);
    while (i < all_pieces(w)) {
        const piece p = piece_at(w, i);
        if (p.packs || p.strip >= strips(w))
            break;
        if (atomic_compare_exchange_weak_explicit(&w->taken, &i, i + 1, memory_order_relaxed, memory_order_relaxed))
            return first_block(w, p.strip, p.at);
    }
    return (block){ .piece = -1 };
}

/* A piece from its first block on, and those that this thread takes ahead. */
static void multiply_pieces(work *w, block b, float *own, float *later)
{
    pack_bit(w, &b, own, 0, b.depth);
    while (b.piece >= 0) {
        const strip r = strip_at(w, b.strip);
        block next = block_behind(w, &b);
        const int ends = next.piece < 0;
        wait_for(&w->packed, (b.strip / w->x.turn + 1) * w->x.turn * w->packings);
        wait_for(&w->through[b.piece], b.strip);
        if (ends)
            next = take_ahead(w);
        multiply_block(w, &r, &b, own, &next, later);
        if (w->tail && b.k + b.depth == w->g->K)
            finish_block(w, &r, &b);
        if (ends && w->streams)
            packed_loops_avx512.arrive();
        if (ends) {
            atomic_fetch_add_explicit(&w->through[b.piece], 1, memory_order_release);
            atomic_fetch_add_explicit(&w->multiplied, 1, memory_order_release);
        }
        float *const other = own;
        own = later;
        later = other;
        b = next;
    }
}

/* Pieces are taken in order, and those that one waits for are before it: the first that is not done is in the hands of a
 * thread that runs, and waits for none. */
static void take_pieces(void *context, int unused, int thread)
{
    work *w = context;
    float *const own = w->own + 2 * (int64_t)thread * (int64_t)own_size(&w->x);
    (void)unused;
    for (int i; (i = atomic_fetch_add_explicit(&w->taken, 1, memory_order_relaxed)) < all_pieces(w);) {
        const piece p = piece_at(w, i);
        if (p.strip >= strips(w))
            atomic_fetch_add_explicit(p.packs ? &w->packed : &w->multiplied, 1, memory_order_release);
        else if (p.packs) {
            const strip r = strip_at(w, p.strip);
            wait_for(&w->multiplied, p.strip / w->x.turn * w->x.turn * w->pieces);
            pack_together(w, &r, p.at);
            atomic_fetch_add_explicit(&w->packed, 1, memory_order_release);
        } else
            multiply_pieces(w, first_block(w, p.strip, p.at), own, own + own_size(&w->x));
    }
}

/* Cores are never equally fast: there are some pieces a thread, and the last ones are the smallest, for one of those is
 * all that is waited for at the end. */
static void cut_pieces(work *w)
{
    const int longer = w->x.longer, step = w->x.step;
    const int fewest = least(PACKED_LINES, round_up(ceiling(longer, w->threads), step));
    const int grain = fewest > longer / MOST_PIECES ? fewest : round_up(ceiling(longer, MOST_PIECES), step);
    const int most = round_up(w->x.piece, grain);
    for (int at = 0; at < longer; w->begin[++w->pieces] = least(longer, at))
        at += least(most, round_up(ceiling(longer - at, 2 * w->threads), grain));
}

static void multiply_one(work *w, gemm_pool *pool)
{
    w->threads = gemm_pool_threads(pool);
    w->packings = w->x.strip / w->x.depth * ceiling(w->x.part, PACKED_LINES);
    cut_pieces(w);
    gemm_pool_run(pool, least(w->threads, all_pieces(w)), take_pieces, w);
}

static void multiply(const void *payload, void *const *pointers)
{
    gemm_call call;
    memcpy(&call, payload, sizeof call);
    const gemm_desc *g = &call.g;
    const cut x = cut_of(g, gemm_pool_threads(call.pool));
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
    const int threads = pool ? gemm_pool_threads(pool) : 1;
    const cut x = cut_of(g, threads);
    return sizeof(float) * (together_size(&x) + 2 * (uint64_t)threads * own_size(&x));
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
