/* SPDX-License-Identifier: MIT */
/* host/attention/attention_packed.c - softmax attention, forward and backward, on CPUs with AVX-512.
 *
 *   forward   a head, ROWS of its queries:       for panels of PANEL keys   S = Q K'     O = O shrunk + P V
 *   backward  the heads of one key head, KEYS    for panels of QUERIES      S' = K Q'    dP' = V dO'
 *             of its keys:                                                  dV += P' dO  dK += dS' Q  dQ += dS K
 *
 * As attention_tiles.c has it, but whatever is multiplied again and again is laid out once a head, in fp32: K (backward
 * Q and dO) in panels of turned-over rows, the others row by row; and of a tile only that part is computed which
 * one of its rows sees. S is kept in units of log 2, and scale goes into dQ and dK when they are complete.
 *
 * Each sum is one thread's: results depend neither on the number of threads nor on which heads are here. */
#include "host/attention/attention_packed.h"

#include "host/attention/attention_packed_loops.h"
#include "host/attention/attention_rows.h"
#include "host/attention/attention_walk.h"

#include <math.h>
#include <string.h>

enum { ROWS = 48, PANEL = 256, STRETCH = 128, KEYS = 96, QUERIES = 64, PAD = VECTOR };
#define HIDDEN -1e30f
#define LOG2_E 1.4426950408889634
#define LN_2 0.6931471805599453

enum { Q, K, V, OUT, LSE, MASK, SCRATCH, DOUT, DQ, DK, DV };

#if defined(__x86_64__)
static const attention_packed_loops *const loops = &attention_packed_avx512;
#else
static const attention_packed_loops *const loops = NULL;        /* nor is there an engine packed */
#endif

typedef struct job {
    attention_task t;
    void *const *at;
    int wide;                       /* columns of a row that is laid out: D and what is missing to a vector */
    int part;                       /* vectors of them that are multiplied at once: in few parts, all alike */
    uint64_t each;                  /* bytes of scratch a thread                                            */
} job;

/* ---- scratch --------------------------------------------------------------------------------- */

typedef struct forward_room {
    float *keys, *v, *q, *s, *o;
    float most[ROWS], sum[ROWS];
} forward_room;

enum { FORWARD_STEP = PANEL + PAD, GRAD_STEP = QUERIES + PAD };

static void take_forward(forward_room *f, room *r, const job *j)
{
    const size_t T = (size_t)j->t.T, lanes = (size_t)up(j->t.T, LANES), wide = (size_t)j->wide;
    f->keys = take(r, lanes * wide, sizeof(float));
    f->v = take(r, (T > LANES ? T : LANES) * wide, sizeof(float));
    f->q = take(r, ROWS * wide, sizeof(float));
    f->s = take(r, (size_t)ROWS * FORWARD_STEP, sizeof(float));
    f->o = take(r, ROWS * wide, sizeof(float));
}

typedef struct grad_room {
    float *k, *v, *q, *dout, *queries, *douts;  /* rows of what they are called after; panels of two of them */
    float *dq, *dk, *dv, *s, *dp, *lse, *delta;
    int *end;
} grad_room;

static void take_grad(grad_room *g, room *r, const job *j)
{
    const size_t T = (size_t)j->t.T, lanes = (size_t)up(j->t.T, LANES), wide = (size_t)j->wide;
    float **const all[] = { &g->k, &g->v, &g->q, &g->dout, &g->dq, &g->dk, &g->dv };
    for (int i = 0; i < 7; i++)
        *all[i] = take(r, T * wide, sizeof(float));
    g->queries = take(r, lanes * wide, sizeof(float));
    g->douts = take(r, lanes * wide, sizeof(float));
    g->s = take(r, (size_t)KEYS * GRAD_STEP, sizeof(float));
    g->dp = take(r, (size_t)KEYS * GRAD_STEP, sizeof(float));
    g->lse = take(r, lanes, sizeof(float));
    g->delta = take(r, lanes, sizeof(float));
    g->end = take(r, T, sizeof *g->end);
}

static job job_of(const attention_task *t, void *const *pointers, int gradient)
{
    job j = { .t = *t, .at = pointers, .wide = up(t->D, VECTOR) };
    const int vectors = j.wide / VECTOR, parts = up(vectors, TILE_VECTORS) / TILE_VECTORS;
    room count = { NULL, 0 };
    forward_room f;
    grad_room g;
    j.part = (vectors + parts - 1) / parts;
    if (gradient)
        take_grad(&g, &count, &j);
    else
        take_forward(&f, &count, &j);
    j.each = count.bytes;
    return j;
}

int attention_packed_is(const gemm_tiles *t)
{
    return !strcmp(gemm_tiles_engine(t), "packed");
}

uint64_t attention_packed_scratch(gemm_tiles *t, const kernel_attention_shape *s, int gradient)
{
    const attention_task task = { .tiles = t, .T = s->T, .D = s->D };
    return job_of(&task, NULL, gradient).each * (uint64_t)gemm_tiles_threads(t) + SCRATCH_ALIGN;
}

/* ---- operands -------------------------------------------------------------------------------- */

/* `count` stored rows, side by side in fp32; columns up to `wide` are 0. Each may lie in a page of its own, so it is
 * asked for before it is read. */
static void lay_out(const job *j, rows from, int count, float *to)
{
    enum { AHEAD = 8, CACHE_LINE = 64 };
    const size_t size = dtype_size(j->t.storage), bytes = (size_t)j->t.D * size;
    for (int i = 0; i < count; i++, to += j->wide) {
        const char *row = element(from.at, (int64_t)i * from.ld, size);
        for (size_t at = 0; i + AHEAD < count && at < bytes; at += CACHE_LINE)
            __builtin_prefetch(row + (size_t)AHEAD * (size_t)from.ld * size + at);
        attention_widen(to, row, j->t.D, j->t.storage);
        memset(to + j->t.D, 0, (size_t)(j->wide - j->t.D) * sizeof(float));
    }
}

/* All rows in panels, times `factor`. */
static void turn_over(const job *j, const float *from, float factor, float *panels)
{
    for (int i = 0; i < j->t.T; i += LANES)
        loops->turn(panels + (int64_t)i * j->wide, from + (int64_t)i * j->wide, j->wide, least(LANES, j->t.T - i),
                    j->t.D, factor);
}

static rows row_at(rows r, int64_t i, dtype storage)
{
    return (rows){ element(r.at, i * r.ld, dtype_size(storage)), r.ld };
}

/* Lanes [lo, hi) of a panel that begins at `first`: the vectors that have one of them. c: lanes from `first` on. */
static void scores(const job *j, const float *a, int count, const float *panels, int first, int lo, int hi, float *c,
                   int c_step)
{
    const int begin = (lo - first) / VECTOR, vectors = (hi - first + VECTOR - 1) / VECTOR - begin;
    const packed_product p = {
        .rows = count,
        .vectors = vectors,
        .k = j->t.D,
        .a = a,
        .a_step = j->wide,
        .b = panels + (int64_t)first * j->wide + (ptrdiff_t)begin * VECTOR,
        .b_step = LANES,
        .c = c + (ptrdiff_t)begin * VECTOR,
        .c_step = c_step
    };
    loops->along(&p);
}

/* c += a b, where b and c are rows that are laid out. */
static void gather(const job *j, packed_product p, void (*multiply)(const packed_product *p))
{
    p.add = 1;
    p.b_step = p.c_step = j->wide;
    for (int left = j->wide / VECTOR; left > 0; left -= p.vectors) {
        p.vectors = least(j->part, left);
        multiply(&p);
        p.b += (ptrdiff_t)p.vectors * VECTOR;
        p.c += (ptrdiff_t)p.vectors * VECTOR;
    }
}

/* ---- forward --------------------------------------------------------------------------------- */

/* Queries [i0, i0 + count), and keys [lo, hi) of a panel that they see. */
typedef struct tile {
    int row, rows, lo, hi;
} tile;

static tile tile_of(const sight *s, int i0, int row, int count, int from, int to)
{
    tile t = { .row = row, .rows = least(TILE_ROWS, count - row) };
    t.lo = most(first_key(s, i0 + row), from);
    t.hi = least(end_key(s, i0 + row + t.rows - 1), to);
    return t;
}

static void soften(const job *j, forward_room *f, const sight *s, int i0, const tile *t, int p0, int p1)
{
    packed_scores x = {
        .s = f->s + (ptrdiff_t)t->row * FORWARD_STEP,
        .step = FORWARD_STEP,
        .rows = t->rows,
        .from = t->lo - p0,
        .to = t->hi - p0,
    };
    float shrink[VECTOR];
    for (int r = 0; r < t->rows; r++) {
        x.lo[r] = most(first_key(s, i0 + t->row + r), p0) - p0;
        x.hi[r] = least(end_key(s, i0 + t->row + r), p1) - p0;
    }
    if (loops->soften(&x, f->most + t->row, f->sum + t->row, shrink))
        for (int r = 0; r < t->rows; r++)
            attention_multiply(f->o + (ptrdiff_t)(t->row + r) * j->wide, j->wide, shrink[r]);
}

static void forward_rows(const job *j, forward_room *f, const sight *s, int i0, int count)
{
    const int wide = j->wide, end = end_key(s, i0 + count - 1);
    memset(f->o, 0, (size_t)count * (size_t)wide * sizeof *f->o);
    for (int r = 0; r < count; r++) {
        f->most[r] = HIDDEN;
        f->sum[r] = 0.0f;
    }
    for (int p0 = first_key(s, i0) / LANES * LANES, p1; p0 < end; p0 = p1) {
        p1 = least(end, (p0 / PANEL + 1) * PANEL);
        for (int k0 = p0; k0 < p1; k0 += LANES)
            for (int row = 0; row < count; row += TILE_ROWS) {
                const tile t = tile_of(s, i0, row, count, k0, least(p1, k0 + LANES));
                if (t.lo < t.hi)
                    scores(j, f->q + (ptrdiff_t)row * wide, t.rows, f->keys, k0, t.lo, t.hi,
                           f->s + (ptrdiff_t)row * FORWARD_STEP + k0 - p0, FORWARD_STEP);
            }
        for (int row = 0; row < count; row += TILE_ROWS) {
            const tile t = tile_of(s, i0, row, count, p0, p1);
            if (t.lo < t.hi)
                soften(j, f, s, i0, &t, p0, p1);
        }
        for (int k0 = p0; k0 < p1; k0 += STRETCH)
            for (int row = 0; row < count; row += TILE_ROWS) {
                const tile t = tile_of(s, i0, row, count, k0, least(p1, k0 + STRETCH));
                if (t.lo < t.hi)
                    gather(j,
                           (packed_product){ .rows = t.rows,
                                             .k = t.hi - t.lo,
                                             .a = f->s + (ptrdiff_t)row * FORWARD_STEP + t.lo - p0,
                                             .a_step = FORWARD_STEP,
                                             .b = f->v + (ptrdiff_t)t.lo * wide,
                                             .c = f->o + (ptrdiff_t)row * wide },
                           loops->along);
            }
    }
}

/* Rows of the result; of what sees nothing, 0. */
static void put_rows(const job *j, const forward_room *f, int count, rows out, float *lse)
{
    for (int r = 0; r < count; r++) {
        const int none = f->sum[r] == 0.0f;
        const float all = none ? 1.0f : f->sum[r];
        lse[r] = none ? 0.0f : (float)(LN_2 * (double)f->most[r] + log((double)all));
        attention_narrow(element(out.at, (int64_t)r * out.ld, dtype_size(j->t.storage)), f->o + (ptrdiff_t)r * j->wide,
                         j->t.D, 1.0f / all, j->t.storage);
    }
}

static void forward_head(void *context, int i, int thread)
{
    const job *j = context;
    const attention_task *t = &j->t;
    const int b = i / t->H, h = i % t->H, kv = h / (t->H / t->KV);
    const sight s = sight_of(t, j->at[MASK], b);
    forward_room f;
    room space = room_of(j->at[SCRATCH], j->each, thread);
    take_forward(&f, &space, j);
    const rows q = stored_rows(t, j->at[Q], &t->in[0], b, h), out = stored_out(t, j->at[OUT], b, h);
    float *lse = (float *)j->at[LSE] + (size_t)i * (size_t)t->T;
    lay_out(j, stored_rows(t, j->at[K], &t->in[1], b, kv), t->T, f.v);     /* on their way to the panels */
    turn_over(j, f.v, (float)(LOG2_E * (double)t->scale), f.keys);
    lay_out(j, stored_rows(t, j->at[V], &t->in[2], b, kv), t->T, f.v);
    for (int i0 = 0; i0 < t->T; i0 += ROWS) {
        const int count = least(ROWS, t->T - i0);
        lay_out(j, row_at(q, i0, t->storage), count, f.q);
        forward_rows(j, &f, &s, i0, count);
        put_rows(j, &f, count, row_at(out, i0, t->storage), lse + i0);
    }
}

void attention_packed_forward(const void *task, void *const *pointers)
{
    attention_task t;
    memcpy(&t, task, sizeof t);
    job j = job_of(&t, pointers, 0);
    attention_rows_prepare();
    gemm_tiles_run(t.tiles, t.B * t.H, forward_head, &j);
}

/* ---- backward -------------------------------------------------------------------------------- */

/* Queries [lo, hi) of a panel that one of `rows` keys from j0 + row on is seen by. */
static tile key_tile_of(const sight *s, const int *end, int j0, int row, int keys, int from, int to)
{
    tile t = { .row = row, .rows = least(TILE_ROWS, keys - row) };
    t.lo = s->causal ? most(j0 + row, from) : from;
    t.hi = least(end[j0 + row + t.rows - 1], to);
    return t;
}

/* Queries [i0, i1), which are in one panel. */
static void grad_panel(const job *j, const grad_room *g, const sight *s, int j0, int keys, int i0, int i1)
{
    const int wide = j->wide;
    for (int row = 0; row < keys; row += TILE_ROWS) {
        const tile t = key_tile_of(s, g->end, j0, row, keys, i0, i1);
        const ptrdiff_t at = (ptrdiff_t)row * GRAD_STEP, key = (ptrdiff_t)(j0 + row) * wide;
        if (t.lo < t.hi)
            scores(j, g->k + key, t.rows, g->queries, i0, t.lo, t.hi, g->s + at, GRAD_STEP);
    }
    for (int row = 0; row < keys; row += TILE_ROWS) {
        const tile t = key_tile_of(s, g->end, j0, row, keys, i0, i1);
        const ptrdiff_t at = (ptrdiff_t)row * GRAD_STEP, key = (ptrdiff_t)(j0 + row) * wide;
        if (t.lo < t.hi)
            scores(j, g->v + key, t.rows, g->douts, i0, t.lo, t.hi, g->dp + at, GRAD_STEP);
    }
    for (int r = 0; r < keys; r++) {
        const int key = j0 + r, lo = s->causal ? most(key, i0) : i0, hi = least(g->end[key], i1);
        loops->slope(g->s + (ptrdiff_t)r * GRAD_STEP, g->dp + (ptrdiff_t)r * GRAD_STEP, g->lse + i0, g->delta + i0, 0,
                     lo - i0, hi - i0, i1 - i0);
    }
    for (int way = 0; way < 2; way++)
        for (int row = 0; row < keys; row += TILE_ROWS) {
            const tile t = key_tile_of(s, g->end, j0, row, keys, i0, i1);
            if (t.lo < t.hi)
                gather(j,
                       (packed_product){ .rows = t.rows,
                                         .k = t.hi - t.lo,
                                         .a = (way ? g->dp : g->s) + (ptrdiff_t)row * GRAD_STEP + t.lo - i0,
                                         .a_step = GRAD_STEP,
                                         .b = (way ? g->q : g->dout) + (ptrdiff_t)t.lo * wide,
                                         .c = (way ? g->dk : g->dv) + (ptrdiff_t)(j0 + row) * wide },
                       loops->along);
        }
    for (int i = i0; i < i1; i += TILE_ROWS) {
        const tile t = tile_of(s, i, 0, i1 - i, j0, j0 + keys);
        if (t.lo < t.hi)
            gather(j,
                   (packed_product){ .rows = t.rows,
                                     .k = t.hi - t.lo,
                                     .a = g->dp + (ptrdiff_t)(t.lo - j0) * GRAD_STEP + i - i0,
                                     .a_step = GRAD_STEP,
                                     .b = g->k + (ptrdiff_t)t.lo * wide,
                                     .c = g->dq + (ptrdiff_t)i * wide },
                   loops->across);
    }
}

/* A gradient that is complete. */
static void put_sums(const job *j, rows to, const float *sums, float factor)
{
    for (int i = 0; i < j->t.T; i++)
        attention_narrow(element(to.at, (int64_t)i * to.ld, dtype_size(j->t.storage)), sums + (ptrdiff_t)i * j->wide,
                         j->t.D, factor, j->t.storage);
}

static void grad_query_head(const job *j, const grad_room *g, const sight *s, int b, int h)
{
    const attention_task *t = &j->t;
    const rows out = stored_out(t, j->at[OUT], b, h), dout = stored_out(t, j->at[DOUT], b, h);
    const float *lse = (const float *)j->at[LSE] + ((size_t)b * (size_t)t->H + (size_t)h) * (size_t)t->T;
    lay_out(j, stored_rows(t, j->at[Q], &t->in[0], b, h), t->T, g->q);
    lay_out(j, dout, t->T, g->dout);
    turn_over(j, g->q, (float)(LOG2_E * (double)t->scale), g->queries);
    turn_over(j, g->dout, 1.0f, g->douts);
    memset(g->dq, 0, (size_t)t->T * (size_t)j->wide * sizeof *g->dq);
    for (int i = 0; i < t->T; i++) {
        g->lse[i] = (float)(LOG2_E * (double)lse[i]);
        g->delta[i] = attention_dot(row_at(out, i, t->storage).at, row_at(dout, i, t->storage).at, t->D, t->storage);
    }
    for (int j0 = 0; j0 < s->keys; j0 += KEYS) {
        const int keys = least(KEYS, s->keys - j0), end = g->end[j0 + keys - 1];
        for (int i0 = s->causal ? j0 / LANES * LANES : 0; i0 < end; i0 += QUERIES)
            grad_panel(j, g, s, j0, keys, i0, least(end, i0 + QUERIES));
    }
    put_sums(j, stored_rows(t, j->at[DQ], &t->d[0], b, h), g->dq, t->scale);
}

static void grad_key_head(void *context, int i, int thread)
{
    const job *j = context;
    const attention_task *t = &j->t;
    const int b = i / t->KV, kv = i % t->KV, G = t->H / t->KV;
    const sight s = sight_of(t, j->at[MASK], b);
    grad_room g;
    room space = room_of(j->at[SCRATCH], j->each, thread);
    take_grad(&g, &space, j);
    lay_out(j, stored_rows(t, j->at[K], &t->in[1], b, kv), t->T, g.k);
    lay_out(j, stored_rows(t, j->at[V], &t->in[2], b, kv), t->T, g.v);
    memset(g.dk, 0, (size_t)t->T * (size_t)j->wide * sizeof *g.dk);
    memset(g.dv, 0, (size_t)t->T * (size_t)j->wide * sizeof *g.dv);
    find_ends(&s, g.end);
    for (int h = kv * G; h < kv * G + G; h++)
        grad_query_head(j, &g, &s, b, h);
    put_sums(j, stored_rows(t, j->at[DK], &t->d[1], b, kv), g.dk, t->scale);
    put_sums(j, stored_rows(t, j->at[DV], &t->d[2], b, kv), g.dv, 1.0f);
}

void attention_packed_grad(const void *task, void *const *pointers)
{
    attention_task t;
    memcpy(&t, task, sizeof t);
    job j = job_of(&t, pointers, 1);
    attention_rows_prepare();
    gemm_tiles_run(t.tiles, t.B * t.KV, grad_key_head, &j);
}
