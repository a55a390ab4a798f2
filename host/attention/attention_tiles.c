/* SPDX-License-Identifier: MIT */
/* host/attention/attention_tiles.c - softmax attention, forward and backward, as products of tiles.
 *
 *   forward   a head, ROWS of its queries:       for panels of PANEL keys   S = Q K'     O = O shrunk + P V
 *   backward  the heads of one key head, KEYS    for panels of QUERIES      S' = K Q'    dP' = V dO'
 *             of its keys:                                                  dV += P' dO  dK += dS' Q  dQ += dS K
 *
 * P = exp(scale S - m) where m is the largest so far, as cl/attention.cl has it; backward, P = exp(scale S - lse).
 * Between products, rows of scores are turned into probabilities, and those into slopes, by attention_rows.h:
 * what a row may see is one stretch of its panel, the rest is made 0, and panels that nobody sees are not touched.
 * Panels lie on one grid, whatever else the batch holds, and each sum is one thread's: results
 * depend neither on the number of threads nor on which heads are here.
 *
 * Factors of the products are in the tiles' type: copied side by side once a head, and widened to fp32 if the
 * tiles have no other. P and dS are rounded to it. Sums are fp32: of fp32 gradients in place. */
#include "host/attention/attention_tiles.h"

#include "host/attention/attention_rows.h"
#include "host/attention/attention_walk.h"

#include <math.h>
#include <string.h>

enum { STEP = 64, ROWS = 64, PANEL = 256, KEYS = 64, QUERIES = 512 };
#define HIDDEN -1e30f

typedef struct sums {
    float *at;
    int ld;
} sums;

enum { Q, K, V, OUT, LSE, MASK, SCRATCH, DOUT, DQ, DK, DV };

typedef struct job {
    attention_task t;
    void *const *at;
    size_t type, storage;           /* bytes of a factor, of a stored element */
    uint64_t each;                  /* bytes of scratch a thread            */
} job;

/* ---- scratch --------------------------------------------------------------------------------- */

typedef struct forward_room {
    float *s, *o;
    void *p, *factor[3];
    float most[ROWS], sum[ROWS];
} forward_room;

static void take_forward(forward_room *f, room *r, const job *j)
{
    const size_t T = (size_t)j->t.T, D = (size_t)j->t.D, panel = T < PANEL ? T : PANEL;
    f->s = take(r, ROWS * panel, sizeof *f->s);
    f->o = take(r, ROWS * D, sizeof *f->o);
    f->p = j->type == sizeof(float) ? f->s : take(r, ROWS * panel, j->type);
    for (int i = 0; i < 3; i++)
        f->factor[i] = take(r, (i ? T : ROWS) * D, j->type);
}

typedef struct grad_room {
    float *s, *dp, *delta, *sum[3];
    int *end;
    void *p, *ds, *factor[4];
} grad_room;

static void take_grad(grad_room *g, room *r, const job *j)
{
    const size_t T = (size_t)j->t.T, D = (size_t)j->t.D, panel = T < QUERIES ? T : QUERIES;
    g->s = take(r, KEYS * panel, sizeof *g->s);
    g->dp = take(r, KEYS * panel, sizeof *g->dp);
    g->p = j->type == sizeof(float) ? g->s : take(r, KEYS * panel, j->type);
    g->ds = j->type == sizeof(float) ? g->dp : take(r, KEYS * panel, j->type);
    g->delta = take(r, T, sizeof *g->delta);
    g->end = take(r, T, sizeof *g->end);
    for (int i = 0; i < 3; i++)
        g->sum[i] = j->storage == sizeof(float) ? NULL : take(r, T * D, sizeof(float));
    for (int i = 0; i < 4; i++)
        g->factor[i] = take(r, T * D, j->type);
}

static job job_of(const attention_task *t, void *const *pointers, int gradient)
{
    const dtype type = gemm_tiles_type(t->tiles);
    job j = {
        .t = *t,
        .at = pointers,
        .type = dtype_size(type),
        .storage = dtype_size(t->storage),
    };
    room count = { NULL, 0 };
    forward_room f;
    grad_room g;
    if (gradient)
        take_grad(&g, &count, &j);
    else
        take_forward(&f, &count, &j);
    j.each = count.bytes;
    return j;
}

uint64_t attention_tiles_scratch(gemm_tiles *t, const kernel_attention_shape *s, dtype storage, int gradient)
{
    const attention_task task = { .tiles = t, .T = s->T, .D = s->D, .storage = storage };
    return job_of(&task, NULL, gradient).each * (uint64_t)gemm_tiles_threads(t) + SCRATCH_ALIGN;
}

/* ---- operands -------------------------------------------------------------------------------- */

/* `count` rows as factors, side by side in `to`: rows far apart would miss the cache in every product. */
static rows factors(const job *j, rows from, int count, void *to)
{
    const int D = j->t.D;
    const dtype type = gemm_tiles_type(j->t.tiles);
    for (int i = 0; i < count; i++) {
        void *row = element(to, (int64_t)i * D, j->type);
        const void *stored_row = element(from.at, (int64_t)i * from.ld, j->storage);
        if (type == j->t.storage)
            memcpy(row, stored_row, (size_t)D * j->type);
        else
            attention_widen(row, stored_row, D, j->t.storage);
    }
    return (rows){ to, D };
}

static rows factor_at(const job *j, rows r, int row)
{
    return (rows){ element(r.at, (int64_t)row * r.ld, j->type), r.ld };
}

static float *sums_at(const sums *s, int row)
{
    return s->at + (int64_t)row * s->ld;
}

/* c (M,N) = or += op(a) (M,K) op(b) (K,N). */
typedef struct product {
    int M, N, K, trans_a, trans_b, add;
} product;

static void multiply(const job *j, int thread, product p, rows a, rows b, float *c, int ldc)
{
    const gemm_tile g = { p.M, p.N, p.K, p.trans_a, p.trans_b, a.ld, b.ld, ldc, p.add };
    gemm_tiles_multiply(j->t.tiles, thread, &g, a.at, b.at, c);
}

/* Elements [0, lo) and [hi, n) of a row of factors become 0. */
static void hide(const job *j, void *row, int lo, int hi, int n)
{
    memset(row, 0, (size_t)lo * j->type);
    memset(element(row, hi, j->type), 0, (size_t)(n - hi) * j->type);
}

/* ---- forward --------------------------------------------------------------------------------- */

/* Scores of keys [p0, p0 + n) become probabilities; what there was before shrinks. */
static void soften(const job *j, forward_room *f, const sight *s, int i0, int count, int p0, int n)
{
    const int D = j->t.D;
    const dtype type = gemm_tiles_type(j->t.tiles);
    for (int r = 0; r < count; r++) {
        const int lo = least(n, most(first_key(s, i0 + r) - p0, 0)), hi = most(lo, least(end_key(s, i0 + r) - p0, n));
        float *row = f->s + (size_t)r * (size_t)n;
        void *p = element(f->p, (int64_t)r * n, j->type);
        const float m = attention_most(row + lo, hi - lo, j->t.scale, f->most[r]);
        if (m > f->most[r]) {
            const float shrink = expf(f->most[r] - m);
            attention_multiply(f->o + (size_t)r * (size_t)D, D, shrink);
            f->sum[r] *= shrink;
            f->most[r] = m;
        }
        f->sum[r] += attention_exp(row + lo, hi - lo, j->t.scale, f->most[r], element(p, lo, j->type), type);
        hide(j, p, lo, hi, n);
    }
}

static void forward_rows(const job *j, int thread, forward_room *f, const sight *s, rows q, rows k, rows v, int i0,
                         int count)
{
    const int D = j->t.D, end = least(up(end_key(s, i0 + count - 1), STEP), s->T);
    memset(f->o, 0, (size_t)count * (size_t)D * sizeof *f->o);
    for (int r = 0; r < count; r++) {
        f->most[r] = HIDDEN;
        f->sum[r] = 0.0f;
    }
    for (int p0 = first_key(s, i0) / STEP * STEP, p1; p0 < end; p0 = p1) {
        p1 = least(end, (p0 / PANEL + 1) * PANEL);
        const int n = p1 - p0;
        multiply(j, thread, (product){ .M = count, .N = n, .K = D, .trans_b = 1 }, q, factor_at(j, k, p0), f->s, n);
        soften(j, f, s, i0, count, p0, n);
        multiply(j, thread, (product){ .M = count, .N = D, .K = n, .add = 1 }, (rows){ f->p, n }, factor_at(j, v, p0),
                 f->o, D);
    }
}

static void forward_head(void *context, int i, int thread)
{
    const job *j = context;
    const attention_task *t = &j->t;
    const int b = i / t->H, h = i % t->H, kv = h / (t->H / t->KV), D = t->D;
    const sight s = sight_of(t, j->at[MASK], b);
    forward_room f;
    room space = room_of(j->at[SCRATCH], j->each, thread);
    take_forward(&f, &space, j);
    const rows q = stored_rows(t, j->at[Q], &t->in[0], b, h), out = stored_out(t, j->at[OUT], b, h);
    const rows k = factors(j, stored_rows(t, j->at[K], &t->in[1], b, kv), t->T, f.factor[1]);
    const rows v = factors(j, stored_rows(t, j->at[V], &t->in[2], b, kv), t->T, f.factor[2]);
    float *lse = (float *)j->at[LSE] + (size_t)i * (size_t)t->T;
    for (int i0 = 0; i0 < t->T; i0 += ROWS) {
        const int count = least(ROWS, t->T - i0);
        const rows at = { element(q.at, (int64_t)i0 * q.ld, j->storage), q.ld };
        forward_rows(j, thread, &f, &s, factors(j, at, count, f.factor[0]), k, v, i0, count);
        for (int r = 0; r < count; r++) {
            const float all = s.keys ? f.sum[r] : 1.0f;
            lse[i0 + r] = s.keys ? f.most[r] + logf(all) : 0.0f;
            attention_narrow(element(out.at, (int64_t)(i0 + r) * out.ld, j->storage), f.o + (size_t)r * (size_t)D, D,
                             1.0f / all, t->storage);
        }
    }
}

void attention_tiles_forward(const void *task, void *const *pointers)
{
    attention_task t;
    memcpy(&t, task, sizeof t);
    job j = job_of(&t, pointers, 0);
    attention_rows_prepare();
    gemm_tiles_run(t.tiles, t.B * t.H, forward_head, &j);
}

/* ---- backward -------------------------------------------------------------------------------- */

/* One head of queries before the keys and values of its group. */
typedef struct grad_head {
    const job *j;
    int thread;
    grad_room *g;
    const sight *s;
    rows q, k, v, dout;
    sums dq, dk, dv;
    const float *lse;
} grad_head;

/* Scores and dP of keys [j0, j0 + keys) and queries [i0, i0 + n) become P and dS. */
static void slope(const grad_head *x, int j0, int keys, int i0, int n)
{
    const job *j = x->j;
    const sight *s = x->s;
    const grad_room *g = x->g;
    const dtype type = gemm_tiles_type(j->t.tiles);
    for (int r = 0; r < keys; r++) {
        const int key = j0 + r, from = s->causal ? key : 0, to = key < s->keys ? g->end[key] : 0;
        const int lo = least(n, most(from - i0, 0)), hi = most(lo, least(to - i0, n));
        void *p = element(g->p, (int64_t)r * n, j->type), *ds = element(g->ds, (int64_t)r * n, j->type);
        attention_slopes(g->s + (size_t)r * (size_t)n + lo, g->dp + (size_t)r * (size_t)n + lo, hi - lo,
                         x->lse + i0 + lo, g->delta + i0 + lo, j->t.scale, element(p, lo, j->type),
                         element(ds, lo, j->type), type);
        hide(j, p, lo, hi, n);
        hide(j, ds, lo, hi, n);
    }
}

static void grad_keys(const grad_head *x, int j0, int keys)
{
    const job *j = x->j;
    const grad_room *g = x->g;
    const int D = j->t.D, end = least(up(g->end[j0 + keys - 1], STEP), x->s->T);
    const rows k = factor_at(j, x->k, j0), v = factor_at(j, x->v, j0);
    for (int i0 = x->s->causal ? j0 : 0, i1; i0 < end; i0 = i1) {
        i1 = least(end, (i0 / QUERIES + 1) * QUERIES);
        const int n = i1 - i0;
        const rows q = factor_at(j, x->q, i0), dout = factor_at(j, x->dout, i0), p = { g->p, n }, ds = { g->ds, n };
        const product scores = { .M = keys, .N = n, .K = D, .trans_b = 1 };
        const product gather = { .M = keys, .N = D, .K = n, .add = 1 };
        multiply(j, x->thread, scores, k, q, g->s, n);
        multiply(j, x->thread, scores, v, dout, g->dp, n);
        slope(x, j0, keys, i0, n);
        multiply(j, x->thread, gather, p, dout, sums_at(&x->dv, j0), x->dv.ld);
        multiply(j, x->thread, gather, ds, q, sums_at(&x->dk, j0), x->dk.ld);
        multiply(j, x->thread, (product){ .M = n, .N = D, .K = keys, .trans_a = 1, .add = 1 }, ds, k,
                 sums_at(&x->dq, i0), x->dq.ld);
    }
}

/* Where a gradient is summed up, all 0: in place if it is stored in fp32. */
static sums sums_of(const job *j, rows to, float *scratch)
{
    const int D = j->t.D;
    sums s = { scratch, D };
    if (!scratch)
        s = (sums){ (float *)element(to.at, 0, 1), to.ld };
    for (int i = 0; i < j->t.T; i++)
        memset(sums_at(&s, i), 0, (size_t)D * sizeof(float));
    return s;
}

static void put_sums(const job *j, rows to, const sums *s)
{
    for (int i = 0; j->storage != sizeof(float) && i < j->t.T; i++)
        attention_narrow(element(to.at, (int64_t)i * to.ld, j->storage), sums_at(s, i), j->t.D, 1.0f, j->t.storage);
}

static void grad_query_head(grad_head *x, int b, int h)
{
    const job *j = x->j;
    const attention_task *t = &j->t;
    const rows out = stored_out(t, j->at[OUT], b, h), dout = stored_out(t, j->at[DOUT], b, h),
               to = stored_rows(t, j->at[DQ], &t->d[0], b, h);
    x->q = factors(j, stored_rows(t, j->at[Q], &t->in[0], b, h), t->T, x->g->factor[2]);
    x->dout = factors(j, dout, t->T, x->g->factor[3]);
    x->lse = (const float *)j->at[LSE] + ((size_t)b * (size_t)t->H + (size_t)h) * (size_t)t->T;
    x->dq = sums_of(j, to, x->g->sum[0]);
    for (int i = 0; i < t->T; i++)
        x->g->delta[i] = attention_dot(element(out.at, (int64_t)i * out.ld, j->storage),
                                       element(dout.at, (int64_t)i * dout.ld, j->storage), t->D, t->storage);
    const int there = least(up(x->s->keys, STEP), t->T);
    for (int j0 = 0; j0 < there; j0 += KEYS)
        grad_keys(x, j0, least(KEYS, there - j0));
    put_sums(j, to, &x->dq);
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
    const rows dk = stored_rows(t, j->at[DK], &t->d[1], b, kv), dv = stored_rows(t, j->at[DV], &t->d[2], b, kv);
    grad_head x = { .j = j, .thread = thread, .g = &g, .s = &s };
    x.k = factors(j, stored_rows(t, j->at[K], &t->in[1], b, kv), t->T, g.factor[0]);
    x.v = factors(j, stored_rows(t, j->at[V], &t->in[2], b, kv), t->T, g.factor[1]);
    x.dk = sums_of(j, dk, g.sum[1]);
    x.dv = sums_of(j, dv, g.sum[2]);
    find_ends(&s, g.end);
    for (int h = kv * G; h < kv * G + G; h++)
        grad_query_head(&x, b, h);
    put_sums(j, dk, &x.dk);
    put_sums(j, dv, &x.dv);
}

void attention_tiles_grad(const void *task, void *const *pointers)
{
    attention_task t;
    memcpy(&t, task, sizeof t);
    job j = job_of(&t, pointers, 1);
    attention_rows_prepare();
    gemm_tiles_run(t.tiles, t.B * t.KV, grad_key_head, &j);
}
