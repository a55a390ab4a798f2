/* SPDX-License-Identifier: MIT */
/* cl/attention.cl - softmax attention, forward and backward, without ever holding T x T.
 *
 *   S = scale * Q K'      (scale = 1 / sqrt(D); S[i][j] = -inf where j may not be seen by i)
 *   P = exp(S - lse)      lse[i] = log sum_j exp(S[i][j])
 *   out = keep(P) V       keep: dropout of single probabilities
 *
 *   delta[i] = sum_d dout[i][d] out[i][d]
 *   dP = keep(dout V'),   dS = scale * P (dP - delta)
 *   dQ = dS K,   dK = dS' Q,   dV = keep(P)' dout
 *
 * q: (B,T) rows of H heads of D side by side; k, v: of H / G heads, each of which G heads of q look
 * at. Each of the three, and of their gradients, begins at an element of its buffer (`_from`) and has
 * its rows its own number of elements apart (`_ld`), so that they may be columns of one matrix. out,
 * dout: (B,T,H*D). lse, delta: fp32 (B,H,T). The element of P that dropout counts is
 * (((first+b)*H+h)*T + i)*T + j, first being the sequence of the step that the micro-batch begins
 * with (random.clh); where a rank has but some heads of a layer, H and h are the whole layer's.
 *
 * Forward walks over the keys in blocks and keeps, for each row, the largest score so far, m,
 * and the sum of exp(S - m); a new block with a larger score rescales what is there (the
 * online softmax of Milakov and Gimelshein, as FlashAttention uses it). Backward computes P
 * again from lse, twice: attention_dq owns rows of Q, attention_dkv rows of K and V. So every
 * result has one owner that sums in a fixed order, and nothing is added atomically. Where there
 * are heads enough for every CPU core, one work-item owns a whole head instead: attention_dkv
 * then sums dQ on the way, in fp32 behind delta, and P is computed once.
 *
 * CPU body: a work-item owns `rows_each` rows (at most ROWS) of one head and walks over blocks
 * of BLOCK of the other side. Every product is MR rows from private memory times a panel (see
 * tile.clh) packed there: transposed, where the sum runs over d, else row by row. Blocks that
 * the causal mask hides are never touched.
 *
 * GPU body: a work-group of 16 x 16 owns BLOCK rows and walks over blocks of BLOCK; each
 * work-item holds 4 x 4 of a score block and 4 rows x HEAD / 16 columns of the results. Factors
 * go through local memory in slices of 16, probabilities as a whole block: 30 KiB. More than
 * 128 columns of results (64 on Intel's GPUs) do not fit into registers: of a larger head,
 * group (., n) owns columns n * HEAD .., and each computes the scores for itself.
 *
 * The host sets with -D: STORE, and
 *   HEAD     GPU: 64 or 128: columns of results a work-group owns                     [64]
 *   LENGTHS  lengths, int (B), says how many keys each sequence has, and hides those behind; a sequence
 *            without any gives 0. Else all have T, and it is not looked at.             [off]
 *   FLOORS   causal attention that does not reach back to the beginning: a query sees `window` keys at most,
 *            itself among them (0: any number), and none before its number in starts, int (B,T) (null: 0), which
 *            never falls along a sequence nor is beyond the query. Blocks before are not touched.   [off]
 *   SOME_HEADS  dropout counts heads first_head .. of all_heads; else all are here, and the two
 *            are not looked at. Apart because one more number in the loop makes Intel's largest
 *            GPU spill registers, which layers that are not split need not pay for.     [off]  */
#include "common.clh"
#include "random.clh"
#include "tile.clh"
#include "attention_args.clh"

#define BLOCK 64

#ifndef HEAD
#define HEAD 64
#endif

#ifdef STYLE_CPU

#define ROWS 96
#define MOST_D 256
/* Row-packed blocks have their columns padded with zeros to whole panels. */
#define PADDED(D) (((D) + NR - 1) / NR * NR)

#define LEFT(i, k)        a[(i) * lda + (k)]
#define LEFT_TURNED(i, k) p[(k) * BLOCK + r + (i)]

/* c += MR rows of a (lda apart) times `depth` rows of b (ldb apart), NR columns. */
static void multiply(floatV c[MR][NV], const float *a, int lda, const float *b, int ldb, int depth)
{
    for (int k = 0; k < depth; k++, b += ldb)
        TILE_PRODUCT(LEFT, k, b)
}

/* to (MR x BLOCK) = factor * MR rows of a (`lda` apart) times the D x BLOCK panel b. */
static void scores(float *to, const float *a, int lda, const float *b, int D, float factor)
{
    for (int n = 0; n < BLOCK; n += NR) {
        floatV c[MR][NV];
#pragma unroll
        for (int i = 0; i < MR; i++)
#pragma unroll
            for (int v = 0; v < NV; v++)
                c[i][v] = 0.0f;
        multiply(c, a, lda, b + n, BLOCK, D);
#pragma unroll
        for (int i = 0; i < MR; i++)
#pragma unroll
            for (int v = 0; v < NV; v++)
                vstoreV(factor * c[i][v], 0, to + i * BLOCK + n + v * VW);
    }
}

/* sums (MR rows, ld apart) = factors[row] * sums + p (MR x BLOCK) times the BLOCK rows of b. */
static void gather(float *sums, int ld, const float *factors, const float *p, const float *b)
{
    for (int n = 0; n < ld; n += NR) {
        floatV c[MR][NV];
#pragma unroll
        for (int i = 0; i < MR; i++)
#pragma unroll
            for (int v = 0; v < NV; v++)
                c[i][v] = factors[i] * vloadV(0, sums + i * ld + n + v * VW);
        multiply(c, p, BLOCK, b + n, ld, BLOCK);
#pragma unroll
        for (int i = 0; i < MR; i++)
#pragma unroll
            for (int v = 0; v < NV; v++)
                vstoreV(c[i][v], 0, sums + i * ld + n + v * VW);
    }
}

/* `room` rows of PADDED(D) from `rows` rows of D at p, the rest 0. */
static void pack_rows(float *to, __global const store_t *p, size_t ld, int rows, int room, int D)
{
    const int width = PADDED(D);
    for (int i = 0; i < room; i++)
        for (int d = 0; d < width; d += VW)
            vstoreV(i < rows && d < D ? load_some(p, i * ld + d, min(VW, D - d)) : (floatV)0.0f, 0,
                    to + i * width + d);
}

/* A D x BLOCK panel: the transpose of `rows` rows of D at p; columns past them are 0. */
static void pack_panel(float *to, __global const store_t *p, size_t ld, int rows, int D)
{
    for (int d = 0; d < D; d += VW)
        for (int j = 0; j < BLOCK; j += VW) {
            floatV r[VW];
            load_transposed(r, p + (size_t)j * ld + d, ld, clamp(rows - j, 0, VW), min(VW, D - d));
            for (int i = 0; i < min(VW, D - d); i++)
                vstoreV(r[i], 0, to + (d + i) * BLOCK + j);
        }
}

static void unpack_rows(__global store_t *p, size_t ld, const float *from, int rows, int D,
                        const float *factors)
{
    const int width = PADDED(D);
    for (int i = 0; i < rows; i++)
        for (int d = 0; d < D; d += VW)
            store_some(p, i * ld + d, factors[i] * vloadV(0, from + i * width + d), min(VW, D - d));
}

/* What dropout multiplies elements first .. first + BLOCK - 1 by: 0 or `factor`. */
static void keep_row(float *to, __global const uint *random, uint stream, uint limit, float factor,
                     ulong first)
{
    uint word[BLOCK];
    if ((first & 3) == 0)
        for (int j = 0; j < BLOCK; j += RANDOM_BATCH)
            random_batch(word + j, random, stream, (first + j) >> 2);
    else
        for (int j = 0; j < BLOCK; j += 4)
            vstore4(random_words4(random, stream, first + j), 0, word + j);
    for (int j = 0; j < BLOCK; j += VW)
        vstoreV(random_keep((floatV)1.0f, vloadV(0, word + j), limit, factor), 0, to + j);
}

/* Column numbers j, j + 1, ... of a vector. */
static intV columns(int j)
{
    int t[VW];
    for (int i = 0; i < VW; i++)
        t[i] = j + i;
    return vloadV(0, t);
}

/* Work-items: blocks of rows first, then heads, then batch, so that a run of neighbours holds
 * cheap (early) and dear (late) rows alike. */
KERNEL void attention_forward(SHAPE_ARGS, DROP_ARGS, QKV_ARGS, __global store_t *out,
                              __global float *lse, int rows_each)
{
    float q[ROWS * MOST_D], o[ROWS * MOST_D], kt[MOST_D * BLOCK], v[BLOCK * MOST_D];
    float s[MR * BLOCK], most[ROWS + VW], sum[ROWS * VW], kept[BLOCK];
    const int blocks = (T + rows_each - 1) / rows_each;
    const int first = get_global_id(0) % blocks * rows_each, head = get_global_id(0) / blocks;
    const int b = head / H, h = head % H, C = H * D, width = PADDED(D);
    const int rows = min(rows_each, T - first), room = (rows + MR - 1) / MR * MR;
    __global const store_t *q_at = q_all + HEAD_AT(q_from, q_ld, h);
    __global const store_t *k_at = k_all + HEAD_AT(k_from, k_ld, h / G);
    __global const store_t *v_at = v_all + HEAD_AT(v_from, v_ld, h / G);
    const int S = KEYS(b), keys = causal ? min(S, first + rows) : S;

    pack_rows(q, q_at + (size_t)first * q_ld, q_ld, rows, room, D);
    for (int i = 0; i < room * width; i++)
        o[i] = 0.0f;
    for (int i = 0; i < ROWS + VW; i++)
        most[i] = HIDDEN;
    for (int i = 0; i < room * VW; i++)
        sum[i] = 0.0f;

    for (int j0 = FIRST_BLOCK(b, first); j0 < keys; j0 += BLOCK) {
        const int there = min(BLOCK, S - j0);
        pack_panel(kt, k_at + (size_t)j0 * k_ld, k_ld, there, D);
        pack_rows(v, v_at + (size_t)j0 * v_ld, v_ld, there, BLOCK, D);
        for (int r = 0; r < rows; r += MR) {
            float most_new[VW], shrink[VW];
            if (causal && j0 > first + r + MR - 1)
                continue;
#ifdef FLOORS
            if (FLOOR(b, first + r) >= j0 + BLOCK)
                continue;
#endif
            scores(s, q + r * width, width, kt, D, scale);
            int ragged = there < BLOCK || (causal && j0 + BLOCK - 1 > first + r);
#ifdef FLOORS
            ragged |= FLOOR(b, min(first + r + MR - 1, T - 1)) > j0;
#endif
            for (int i = 0; i < VW; i++)
                most_new[i] = HIDDEN;
            for (int i = 0; i < MR; i++) {
                floatV m = HIDDEN;
                const int seen = causal ? min(S - 1, first + r + i) : S - 1;
                for (int j = 0; j < BLOCK; j += VW) {
                    floatV x = vloadV(0, s + i * BLOCK + j);
                    if (ragged) {
                        x = select(x, (floatV)HIDDEN, columns(j0 + j) > (intV)seen);
#ifdef FLOORS
                        x = select(x, (floatV)HIDDEN, columns(j0 + j) < (intV)FLOOR(b, min(first + r + i, T - 1)));
#endif
                        vstoreV(x, 0, s + i * BLOCK + j);
                    }
                    m = fmax(m, x);
                }
                most_new[i] = fmax(most[r + i], maxV(m));
            }
            vstoreV(expV(vloadV(0, most + r) - vloadV(0, most_new)), 0, shrink);
            for (int i = 0; i < MR; i++) {
                most[r + i] = most_new[i];
                floatV all = shrink[i] * vloadV(0, sum + (r + i) * VW);
                for (int j = 0; j < BLOCK; j += VW) {
                    const floatV p = expV(vloadV(0, s + i * BLOCK + j) - most_new[i]);
                    all += p;
                    vstoreV(p, 0, s + i * BLOCK + j);
                }
                vstoreV(all, 0, sum + (r + i) * VW);
                if (limit) {
                    keep_row(kept, random, stream, limit, factor,
                             (DROP_HEAD * T + first + r + i) * T + j0);
                    for (int j = 0; j < BLOCK; j += VW)
                        vstoreV(vloadV(0, s + i * BLOCK + j) * vloadV(0, kept + j), 0,
                                s + i * BLOCK + j);
                }
            }
            gather(o + r * width, width, shrink, s, v);
        }
    }
    for (int i = 0; i < rows; i++) {
        const float all = sumV(vloadV(0, sum + i * VW));
        lse[(size_t)head * T + first + i] = S > 0 ? most[i] + log(all) : 0.0f;
        most[i] = S > 0 ? 1.0f / all : 0.0f;
    }
    unpack_rows(out + ((size_t)b * T + first) * C + h * D, C, o, rows, D, most);
}

KERNEL void attention_delta(SHAPE_ARGS, __global const store_t *out, __global const store_t *dout,
                            __global float *delta, int rows_each)
{
    const int blocks = (T + rows_each - 1) / rows_each;
    const int first = get_global_id(0) % blocks * rows_each, head = get_global_id(0) / blocks;
    const int b = head / H, h = head % H, C = H * D;
    for (int i = first; i < min(T, first + rows_each); i++) {
        const size_t at = ((size_t)b * T + i) * C + h * D;
        floatV sum = 0.0f;
        for (int d = 0; d < D; d += VW)
            sum += load_some(out, at + d, min(VW, D - d)) * load_some(dout, at + d, min(VW, D - d));
        delta[(size_t)head * T + i] = sumV(sum);
    }
}

KERNEL void attention_dq(SHAPE_ARGS, DROP_ARGS, QKV_ARGS, __global const store_t *dout,
                         __global const float *lse, __global const float *delta, DQKV_ARGS,
                         int rows_each)
{
    float q[ROWS * MOST_D], go[ROWS * MOST_D], dq[ROWS * MOST_D];
    float kt[MOST_D * BLOCK], vt[MOST_D * BLOCK], k[BLOCK * MOST_D];
    float s[MR * BLOCK], ds[MR * BLOCK], kept[BLOCK], ones[ROWS];
    const int blocks = (T + rows_each - 1) / rows_each;
    const int first = get_global_id(0) % blocks * rows_each, head = get_global_id(0) / blocks;
    const int b = head / H, h = head % H, C = H * D, width = PADDED(D);
    const int rows = min(rows_each, T - first), room = (rows + MR - 1) / MR * MR;
    __global const store_t *q_at = q_all + HEAD_AT(q_from, q_ld, h);
    __global const store_t *k_at = k_all + HEAD_AT(k_from, k_ld, h / G);
    __global const store_t *v_at = v_all + HEAD_AT(v_from, v_ld, h / G);
    const int S = KEYS(b), keys = causal ? min(S, first + rows) : S;

    pack_rows(q, q_at + (size_t)first * q_ld, q_ld, rows, room, D);
    pack_rows(go, dout + ((size_t)b * T + first) * C + h * D, C, rows, room, D);
    for (int i = 0; i < room * width; i++)
        dq[i] = 0.0f;
    for (int i = 0; i < ROWS; i++)
        ones[i] = 1.0f;

    for (int j0 = FIRST_BLOCK(b, first); j0 < keys; j0 += BLOCK) {
        const int there = min(BLOCK, S - j0);
        pack_panel(kt, k_at + (size_t)j0 * k_ld, k_ld, there, D);
        pack_panel(vt, v_at + (size_t)j0 * v_ld, v_ld, there, D);
        pack_rows(k, k_at + (size_t)j0 * k_ld, k_ld, there, BLOCK, D);
        for (int r = 0; r < rows; r += MR) {
            if (causal && j0 > first + r + MR - 1)
                continue;
#ifdef FLOORS
            if (FLOOR(b, first + r) >= j0 + BLOCK)
                continue;
#endif
            scores(s, q + r * width, width, kt, D, scale);
            scores(ds, go + r * width, width, vt, D, 1.0f);
            for (int i = 0; i < MR; i++) {
                const int row = min(first + r + i, T - 1), seen = causal ? min(row, S - 1) : S - 1;
                const float l = lse[(size_t)head * T + row], dl = delta[(size_t)head * T + row];
                if (limit)
                    keep_row(kept, random, stream, limit, factor, (DROP_HEAD * T + row) * T + j0);
                for (int j = 0; j < BLOCK; j += VW) {
                    floatV p = expV(vloadV(0, s + i * BLOCK + j) - l);
                    floatV dp = vloadV(0, ds + i * BLOCK + j);
                    if (limit)
                        dp *= vloadV(0, kept + j);
                    p = select(p, (floatV)0.0f, columns(j0 + j) > (intV)seen);
#ifdef FLOORS
                    p = select(p, (floatV)0.0f, columns(j0 + j) < (intV)FLOOR(b, row));
#endif
                    vstoreV(scale * p * (dp - dl), 0, ds + i * BLOCK + j);
                }
            }
            gather(dq + r * width, width, ones, ds, k);
        }
    }
    unpack_rows(dq_all + HEAD_AT(dq_from, dq_ld, h) + (size_t)first * dq_ld, dq_ld, dq, rows, D, ones);
}

/* BLOCK rows of sums (ld apart) += the transpose of p (depth x BLOCK) times depth rows of b. */
static void gather_transposed(__global float *sums, int ld, const float *p, const float *b,
                              int depth)
{
    for (int r = 0; r < BLOCK; r += MR)
        for (int n = 0; n < ld; n += NR) {
            floatV c[MR][NV];
#pragma unroll
            for (int i = 0; i < MR; i++)
#pragma unroll
                for (int v = 0; v < NV; v++)
                    c[i][v] = 0.0f;
            for (int k = 0; k < depth; k++)
                TILE_PRODUCT(LEFT_TURNED, k, b + k * ld + n)
            for (int i = 0; i < min(MR, BLOCK - r); i++)
                for (int v = 0; v < NV; v++) {
                    __global float *to = sums + (r + i) * ld + n + v * VW;
                    vstoreV(vloadV(0, to) + c[i][v], 0, to);
                }
        }
}

/* Rows are keys here and columns queries: everything is the transpose of attention_dq. A
 * work-item owns rows_each keys, and sums over the G heads that look at them; or, if dq_at is not 0,
 * all keys of a head (rows_each is T) and the sums of dQ as well: delta + dq_at holds T rounded up to BLOCK rows of PADDED(D) a head. */
KERNEL void attention_dkv(SHAPE_ARGS, DROP_ARGS, QKV_ARGS, __global const store_t *dout,
                          __global const float *lse, __global float *delta, DQKV_ARGS, int rows_each,
                          ulong dq_at)
{
    float k[ROWS * MOST_D], v[ROWS * MOST_D], dk[ROWS * MOST_D], dv[ROWS * MOST_D];
    float qt[MOST_D * BLOCK], got[MOST_D * BLOCK], q[BLOCK * MOST_D], go[BLOCK * MOST_D];
    float s[MR * BLOCK], ds[ROWS * BLOCK + MR], kept[(ROWS + BLOCK) * BLOCK], row_kept[BLOCK];
    float l[BLOCK], dl[BLOCK], ones[ROWS];
    const int blocks = (T + rows_each - 1) / rows_each;
    const int begin = get_global_id(0) % blocks * rows_each, owned = get_global_id(0) / blocks;
    const int b = owned / (H / G), kv = owned % (H / G), C = H * D, width = PADDED(D);
    const int end = min(T, begin + rows_each), S = KEYS(b);
    __global const store_t *k_at = k_all + HEAD_AT(k_from, k_ld, kv);
    __global const store_t *v_at = v_all + HEAD_AT(v_from, v_ld, kv);
    const size_t area = (size_t)((T + BLOCK - 1) / BLOCK * BLOCK) * width;
    __global float *dq_sums = delta + dq_at + ((size_t)b * H + kv * G) * area;

    if (dq_at)
        for (size_t i = 0; i < G * area; i += VW)
            vstoreV((floatV)0.0f, 0, dq_sums + i);
    for (int i = 0; i < ROWS; i++)
        ones[i] = 1.0f;
    for (int i = 0; i < ROWS * BLOCK + MR; i++)
        ds[i] = 0.0f;

    for (int first = begin; first < end; first += ROWS) {
        const int rows = min(ROWS, end - first), room = (rows + MR - 1) / MR * MR;
        pack_rows(k, k_at + (size_t)first * k_ld, k_ld, rows, room, D);
        pack_rows(v, v_at + (size_t)first * v_ld, v_ld, rows, room, D);
        for (int i = 0; i < room * width; i++)
            dk[i] = dv[i] = 0.0f;

        for (int h = kv * G; h < kv * G + G; h++) {
            const int head = b * H + h;
            __global const store_t *q_at = q_all + HEAD_AT(q_from, q_ld, h);
            __global const store_t *g_at = dout + HEAD_AT(0, C, h);
            __global float *dq = dq_sums + (h - kv * G) * area;
            for (int i0 = causal ? first / BLOCK * BLOCK : 0; i0 < T; i0 += BLOCK) {
                const int there = min(BLOCK, T - i0);
                int depth = 0;                  /* keys that queries of this block can see */
#ifdef FLOORS
                int floors[BLOCK];
                if (FLOOR(b, i0) >= first + rows)       /* nor do those behind see any of these keys */
                    break;
                for (int i = 0; i < BLOCK; i++)
                    floors[i] = FLOOR(b, min(i0 + i, T - 1));
#endif
                pack_panel(qt, q_at + (size_t)i0 * q_ld, q_ld, there, D);
                pack_panel(got, g_at + (size_t)i0 * C, C, there, D);
                pack_rows(q, q_at + (size_t)i0 * q_ld, q_ld, there, BLOCK, D);
                pack_rows(go, g_at + (size_t)i0 * C, C, there, BLOCK, D);
                for (int i = 0; i < BLOCK; i++) {
                    l[i] = i < there ? lse[(size_t)head * T + i0 + i] : 0.0f;
                    dl[i] = i < there ? delta[(size_t)head * T + i0 + i] : 0.0f;
                }
                if (limit)
                    for (int i = 0; i < there; i++)
                        for (int r = 0; r < rows; r += BLOCK) {
                            keep_row(row_kept, random, stream, limit, factor,
                                     (DROP_HEAD * T + i0 + i) * T + first + r);
                            for (int j = 0; j < BLOCK; j++)
                                kept[(r + j) * BLOCK + i] = row_kept[j];
                        }
                for (int r = 0; r < rows; r += MR) {
                    if (first + r >= S || (causal && i0 + BLOCK - 1 < first + r))
                        break;
                    scores(s, k + r * width, width, qt, D, scale);
                    scores(ds + r * BLOCK, v + r * width, width, got, D, 1.0f);
                    for (int j = 0; j < MR; j++) {
                        const int key = first + r + j;
                        for (int i = 0; i < BLOCK; i += VW) {
                            const intV query = columns(i0 + i);
                            floatV p = expV(vloadV(0, s + j * BLOCK + i) - vloadV(0, l + i));
                            floatV dp = vloadV(0, ds + (r + j) * BLOCK + i);
                            p = select(p, (floatV)0.0f, query >= (intV)T);
                            if (causal)
                                p = select(p, (floatV)0.0f, query < (intV)key);
#ifdef FLOORS
                            p = select(p, (floatV)0.0f, vloadV(0, floors + i) > (intV)key);
#endif
#ifdef LENGTHS
                            if (key >= S)
                                p = 0.0f;
#endif
                            floatV left = p;
                            if (limit) {
                                const floatV f = vloadV(0, kept + (r + j) * BLOCK + i);
                                dp *= f;
                                left *= f;
                            }
                            vstoreV(left, 0, s + j * BLOCK + i);
                            vstoreV(scale * p * (dp - vloadV(0, dl + i)), 0, ds + (r + j) * BLOCK + i);
                        }
                    }
                    gather(dv + r * width, width, ones, s, go);
                    gather(dk + r * width, width, ones, ds + r * BLOCK, q);
                    depth = r + MR;
                }
                if (dq_at)
                    gather_transposed(dq + (size_t)i0 * width, width, ds, k, depth);
            }
        }
        unpack_rows(dk_all + HEAD_AT(dk_from, dk_ld, kv) + (size_t)first * dk_ld, dk_ld, dk, rows, D, ones);
        unpack_rows(dv_all + HEAD_AT(dv_from, dv_ld, kv) + (size_t)first * dv_ld, dv_ld, dv, rows, D, ones);
    }
    if (dq_at)
        for (int h = kv * G; h < kv * G + G; h++)
            for (int i = 0; i < T; i++)
                for (int d = 0; d < D; d += VW)
                    store_some(dq_all, HEAD_AT(dq_from, dq_ld, h) + (size_t)i * dq_ld + d,
                               vloadV(0, dq_sums + (h - kv * G) * area + (size_t)i * width + d),
                               min(VW, D - d));
}

#else

#define GROUP __kernel __attribute__((reqd_work_group_size(16, 16, 1)))
#define SLICE TILE_K
#define LD    TILE_LD(64)           /* of local arrays                                       */
#define PANELS (HEAD / BLOCK)       /* groups of 64 columns of a result                      */
/* The first column of this group's part of a head. */
#define PART  ((int)get_group_id(1) * HEAD)
/* Steps of a slice at once. All 16 suit AMD's compiler; Intel's runs out of registers. */
#ifdef cl_intel_subgroups
#define UNROLL "unroll 4"
#else
#define UNROLL "unroll 16"
#endif
#define C_AT(i, h) c[(i) + (h)]     /* h is 0 */

/* c += this work-item's 4 x 4 of a' b, both 16 x 64. */
static void multiply(float4 c[4], const __local float *a_slice, const __local float *b_slice)
{
    TILE_PRODUCT(C_AT, a_slice, b_slice, UNROLL)
}

/* Is D such that every row of every head is aligned? The host sees to the rest. */
#define ALIGNED(D) (((D) & 3) == 0)

/* to[d][row]: columns d .. d + 15 of rows r .. r + 63 of a head that starts at `at`. */
static void slice_by_d(__local float *to, __global const store_t *p, size_t at, int ld, int r,
                       int rows, int d, int D)
{
    float4 part;
    tile_fetch_slice(&part, 64, 1, p + at, ld, r, rows, d, D, ALIGNED(D));
    tile_keep_slice(to, 64, 1, &part);
}

/* to[row][d]: columns d .. d + 63 of rows r .. r + 15. */
static void slice_by_row(__local float *to, __global const store_t *p, size_t at, int ld, int r,
                         int rows, int d, int D)
{
    float4 part;
    tile_fetch_slice(&part, 64, 0, p + at, ld, d, D, r, rows, ALIGNED(D));
    tile_keep_slice(to, 64, 0, &part);
}

/* c = rows of P times rows of Q, both 64 x D. The barrier after each product keeps fast
 * work-items from refilling slices that slow ones still read. */
static void scores(float4 c[4], __local float *a, __local float *b, __global const store_t *P,
                   size_t p_at, size_t p_ld, int p, __global const store_t *Q, size_t q_at,
                   size_t q_ld, int q, int T, int D)
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        c[i] = 0.0f;
    for (int d = 0; d < D; d += SLICE) {
        slice_by_d(a, P, p_at, p_ld, p, T, d, D);
        slice_by_d(b, Q, q_at, q_ld, q, T, d, D);
        barrier(CLK_LOCAL_MEM_FENCE);
        multiply(c, a, b);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}

/* block[column][row] = c. The caller puts a barrier behind it. */
static void put_block(__local float *block, const float4 c[4])
{
    __local float *to = block + get_local_id(0) * 4 * LD + get_local_id(1) * 4;
    *(__local float4 *)to = (float4)(c[0].s0, c[1].s0, c[2].s0, c[3].s0);
    *(__local float4 *)(to + LD) = (float4)(c[0].s1, c[1].s1, c[2].s1, c[3].s1);
    *(__local float4 *)(to + 2 * LD) = (float4)(c[0].s2, c[1].s2, c[2].s2, c[3].s2);
    *(__local float4 *)(to + 3 * LD) = (float4)(c[0].s3, c[1].s3, c[2].s3, c[3].s3);
}

/* sums += block' times 64 rows of P from p on. Ends with a barrier: the block is free. */
static void gather(float4 sums[PANELS][4], const __local float *block, __local float *b,
                   __global const store_t *P, size_t p_at, size_t p_ld, int p, int T, int D)
{
#pragma unroll
    for (int n = 0; n < PANELS; n++)
        for (int j = 0; j < BLOCK; j += SLICE) {
            slice_by_row(b, P, p_at, p_ld, p + j, T, PART + n * BLOCK, D);
            barrier(CLK_LOCAL_MEM_FENCE);
            multiply(sums[n], block + j * LD, b);
            barrier(CLK_LOCAL_MEM_FENCE);
        }
}

/* Rows first .. first + 63 of a head; factor[i] scales a work-item's i-th row. */
static void put_rows(__global store_t *to, size_t at, size_t ld, int first, int T, int D,
                     float4 sums[PANELS][4], const float *factors)
{
#pragma unroll
    for (int n = 0; n < PANELS; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = first + get_local_id(1) * 4 + i;
            const int d = PART + n * BLOCK + get_local_id(0) * 4;
            const float4 x = sums[n][i] * factors[i];
            const size_t start = at + row * ld + d;
            if (row >= T || d >= D)
                continue;
            if ((D & 3) == 0) {
                storeV(to, start, x);
                continue;
            }
            store1(to, start, x.s0);
            if (d + 1 < D)
                store1(to, start + 1, x.s1);
            if (d + 2 < D)
                store1(to, start + 2, x.s2);
            if (d + 3 < D)
                store1(to, start + 3, x.s3);
        }
}

GROUP void attention_forward(SHAPE_ARGS, DROP_ARGS, QKV_ARGS, __global store_t *out,
                             __global float *lse, int rows_each)
{
    __local float a[SLICE * LD] __attribute__((aligned(16)));
    __local float b_[SLICE * LD] __attribute__((aligned(16)));
    __local float block[BLOCK * LD] __attribute__((aligned(16)));
    __local float row_part[BLOCK * 17];
    const int x = get_local_id(0), y = get_local_id(1), blocks = (T + rows_each - 1) / rows_each;
    const int first = get_group_id(0) % blocks * rows_each, head = get_group_id(0) / blocks;
    const int b = head / H, h = head % H, C = H * D;
    const size_t q_at = HEAD_AT(q_from, q_ld, h);
    const size_t k_at = HEAD_AT(k_from, k_ld, h / G), v_at = HEAD_AT(v_from, v_ld, h / G);
    const int S = KEYS(b), keys = causal ? min(S, first + BLOCK) : S;
    float4 o[PANELS][4], s[4];
    float most[4], sum[4];

#pragma unroll
    for (int i = 0; i < 4; i++) {
        most[i] = HIDDEN;
        sum[i] = 0.0f;
#pragma unroll
        for (int n = 0; n < PANELS; n++)
            o[n][i] = 0.0f;
    }
    for (int j0 = FIRST_BLOCK(b, first); j0 < keys; j0 += BLOCK) {
        scores(s, a, b_, q_all, q_at, q_ld, first, k_all, k_at, k_ld, j0, T, D);
        const int4 column = j0 + x * 4 + (int4)(0, 1, 2, 3);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = first + y * 4 + i, seen = causal ? min(row, S - 1) : S - 1;
            s[i] = select(scale * s[i], (float4)HIDDEN, column > (int4)seen);
#ifdef FLOORS
            s[i] = select(s[i], (float4)HIDDEN, column < (int4)FLOOR(b, min(row, T - 1)));
#endif
            row_part[(y * 4 + i) * 17 + x] = maxV(s[i]);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = first + y * 4 + i;
            float m = most[i];
            for (int k = 0; k < 16; k++)
                m = fmax(m, row_part[(y * 4 + i) * 17 + k]);
            const float shrink = exp(most[i] - m);
            most[i] = m;
            s[i] = exp(s[i] - m);
            sum[i] = sum[i] * shrink + sumV(s[i]);
            if (limit)
                s[i] = random_keep(s[i], random_words4(random, stream,
                                   (DROP_HEAD * T + row) * T + j0 + x * 4), limit, factor);
#pragma unroll
            for (int n = 0; n < PANELS; n++)
                o[n][i] *= shrink;
        }
        put_block(block, s);
        barrier(CLK_LOCAL_MEM_FENCE);
        gather(o, block, b_, v_all, v_at, v_ld, j0, T, D);
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        row_part[(y * 4 + i) * 17 + x] = sum[i];
    barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int row = first + y * 4 + i;
        float all = 0.0f;
        for (int k = 0; k < 16; k++)
            all += row_part[(y * 4 + i) * 17 + k];
        if (x == 0 && row < T && get_group_id(1) == 0)
            lse[(size_t)head * T + row] = S > 0 ? most[i] + log(all) : 0.0f;
        sum[i] = S > 0 ? 1.0f / all : 0.0f;
    }
    put_rows(out, (size_t)b * T * C + h * D, C, first, T, D, o, sum);
}

/* Four work-items share a row. */
GROUP void attention_delta(SHAPE_ARGS, __global const store_t *out, __global const store_t *dout,
                           __global float *delta, int rows_each)
{
    __local float part[BLOCK * 4];
    const int me = get_local_id(1) * 16 + get_local_id(0), blocks = (T + rows_each - 1) / rows_each;
    const int first = get_group_id(0) % blocks * rows_each, head = get_group_id(0) / blocks;
    const int b = head / H, h = head % H, C = H * D, row = first + me / 4;
    float sum = 0.0f;
    if (row < T)
        for (int d = me % 4 * 4; d < D; d += 16) {
            const size_t at = ((size_t)b * T + row) * C + h * D;
            sum += sumV(tile_fetch(out, at + d, D - d, ALIGNED(D))
                        * tile_fetch(dout, at + d, D - d, ALIGNED(D)));
        }
    part[me] = sum;
    barrier(CLK_LOCAL_MEM_FENCE);
    if (me % 4 == 0 && row < T)
        delta[(size_t)head * T + row] = part[me] + part[me + 1] + part[me + 2] + part[me + 3];
}

GROUP void attention_dq(SHAPE_ARGS, DROP_ARGS, QKV_ARGS, __global const store_t *dout,
                        __global const float *lse, __global const float *delta, DQKV_ARGS,
                        int rows_each)
{
    __local float a[SLICE * LD] __attribute__((aligned(16)));
    __local float b_[SLICE * LD] __attribute__((aligned(16)));
    __local float block[BLOCK * LD] __attribute__((aligned(16)));
    const int x = get_local_id(0), y = get_local_id(1), blocks = (T + rows_each - 1) / rows_each;
    const int first = get_group_id(0) % blocks * rows_each, head = get_group_id(0) / blocks;
    const int b = head / H, h = head % H, C = H * D;
    const size_t q_at = HEAD_AT(q_from, q_ld, h), g_at = HEAD_AT(0, C, h);
    const size_t k_at = HEAD_AT(k_from, k_ld, h / G), v_at = HEAD_AT(v_from, v_ld, h / G);
    const int S = KEYS(b), keys = causal ? min(S, first + BLOCK) : S;
    float4 dq[PANELS][4], s[4], dp[4];
    float ones[4];

#pragma unroll
    for (int i = 0; i < 4; i++) {
        ones[i] = 1.0f;
#pragma unroll
        for (int n = 0; n < PANELS; n++)
            dq[n][i] = 0.0f;
    }
    for (int j0 = FIRST_BLOCK(b, first); j0 < keys; j0 += BLOCK) {
        scores(s, a, b_, q_all, q_at, q_ld, first, k_all, k_at, k_ld, j0, T, D);
        scores(dp, a, b_, dout, g_at, C, first, v_all, v_at, v_ld, j0, T, D);
        const int4 column = j0 + x * 4 + (int4)(0, 1, 2, 3);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = first + y * 4 + i, seen = causal ? min(row, S - 1) : S - 1;
            /* Read here, not before the loop: it costs nothing, spares registers, and Intel's
             * compiler for CPUs gave all work-items one item's lse across the barriers. */
            const size_t at = (size_t)head * T + min(row, T - 1);
            const float l = lse[at], dl = delta[at];
            float4 p = select(exp(scale * s[i] - l), (float4)0.0f, column > (int4)seen);
#ifdef FLOORS
            p = select(p, (float4)0.0f, column < (int4)FLOOR(b, min(row, T - 1)));
#endif
            if (limit)
                dp[i] = random_keep(dp[i], random_words4(random, stream,
                                    (DROP_HEAD * T + row) * T + j0 + x * 4), limit, factor);
            s[i] = scale * p * (dp[i] - dl);
        }
        put_block(block, s);
        barrier(CLK_LOCAL_MEM_FENCE);
        gather(dq, block, b_, k_all, k_at, k_ld, j0, T, D);
    }
    put_rows(dq_all, HEAD_AT(dq_from, dq_ld, h), dq_ld, first, T, D, dq, ones);
}

/* Rows are keys here and columns queries; a group sums over the G heads that look at its keys. */
GROUP void attention_dkv(SHAPE_ARGS, DROP_ARGS, QKV_ARGS, __global const store_t *dout,
                         __global const float *lse, __global const float *delta, DQKV_ARGS,
                         int rows_each)
{
    __local float a[SLICE * LD] __attribute__((aligned(16)));
    __local float b_[SLICE * LD] __attribute__((aligned(16)));
    __local float block[BLOCK * LD] __attribute__((aligned(16)));
    const int x = get_local_id(0), y = get_local_id(1), blocks = (T + rows_each - 1) / rows_each;
    const int first = get_group_id(0) % blocks * rows_each, owned = get_group_id(0) / blocks;
    const int b = owned / (H / G), kv = owned % (H / G), C = H * D;
    const size_t k_at = HEAD_AT(k_from, k_ld, kv), v_at = HEAD_AT(v_from, v_ld, kv);
    float4 dk[PANELS][4], dv[PANELS][4], s[4], dp[4];
    float ones[4];

#pragma unroll
    for (int i = 0; i < 4; i++) {
        ones[i] = 1.0f;
#pragma unroll
        for (int n = 0; n < PANELS; n++)
            dk[n][i] = dv[n][i] = 0.0f;
    }
    for (int h = kv * G; h < kv * G + G; h++) {
        const int head = b * H + h;
        const size_t q_at = HEAD_AT(q_from, q_ld, h), g_at = HEAD_AT(0, C, h);
        for (int i0 = causal ? first / BLOCK * BLOCK : 0; i0 < T; i0 += BLOCK) {
#ifdef FLOORS
            if (FLOOR(b, i0) >= first + BLOCK)          /* nor do those behind see any of these keys */
                break;
#endif
            scores(s, a, b_, k_all, k_at, k_ld, first, q_all, q_at, q_ld, i0, T, D);
            scores(dp, a, b_, v_all, v_at, v_ld, first, dout, g_at, C, i0, T, D);
            const int4 query = i0 + x * 4 + (int4)(0, 1, 2, 3), there = min(query, (int4)(T - 1));
            const size_t at = (size_t)head * T;
            const float4 l = (float4)(lse[at + there.s0], lse[at + there.s1], lse[at + there.s2],
                                      lse[at + there.s3]);
            const float4 dl = (float4)(delta[at + there.s0], delta[at + there.s1], delta[at + there.s2],
                                       delta[at + there.s3]);
            float4 kept[4];
    #pragma unroll
            for (int i = 0; i < 4; i++)
                kept[i] = 1.0f;
            if (limit) {
                /* Neighbours in a row of P are this work-item's rows: four words a column. */
                const ulong element = (DROP_HEAD * T + i0 + x * 4) * T + first + y * 4;
                const float4 one = 1.0f;
                const float4 k0 = random_keep(one, random_words4(random, stream, element), limit, factor);
                const float4 k1 = random_keep(one, random_words4(random, stream, element + T), limit,
                                              factor);
                const float4 k2 = random_keep(one, random_words4(random, stream, element + 2 * (ulong)T),
                                              limit, factor);
                const float4 k3 = random_keep(one, random_words4(random, stream, element + 3 * (ulong)T),
                                              limit, factor);
                kept[0] = (float4)(k0.s0, k1.s0, k2.s0, k3.s0);
                kept[1] = (float4)(k0.s1, k1.s1, k2.s1, k3.s1);
                kept[2] = (float4)(k0.s2, k1.s2, k2.s2, k3.s2);
                kept[3] = (float4)(k0.s3, k1.s3, k2.s3, k3.s3);
            }
    #pragma unroll
            for (int i = 0; i < 4; i++) {
                const int key = causal ? first + y * 4 + i : 0;
                float4 p = select(exp(scale * s[i] - l), (float4)0.0f, query >= (int4)T);
                p = select(p, (float4)0.0f, query < (int4)key);
#ifdef FLOORS
                p = select(p, (float4)0.0f,
                           (int4)(FLOOR(b, there.s0), FLOOR(b, there.s1), FLOOR(b, there.s2), FLOOR(b, there.s3))
                               > (int4)key);
#endif
#ifdef LENGTHS
                if (first + y * 4 + i >= KEYS(b))
                    p = 0.0f;
#endif
                s[i] = p * kept[i];
                dp[i] = scale * p * (dp[i] * kept[i] - dl);
            }
            put_block(block, s);
            barrier(CLK_LOCAL_MEM_FENCE);
            gather(dv, block, b_, dout, g_at, C, i0, T, D);
            put_block(block, dp);
            barrier(CLK_LOCAL_MEM_FENCE);
            gather(dk, block, b_, q_all, q_at, q_ld, i0, T, D);
        }
    }
    put_rows(dk_all, HEAD_AT(dk_from, dk_ld, kv), dk_ld, first, T, D, dk, ones);
    put_rows(dv_all, HEAD_AT(dv_from, dv_ld, kv), dv_ld, first, T, D, dv, ones);
}

#endif
