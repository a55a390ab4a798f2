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
 * qkv: (B,T,3C) as [q|k|v], heads of D side by side. out, dout: (B,T,C). lse, delta: fp32
 * (B,H,T). dqkv: as qkv. The element of P that dropout counts is ((b*H+h)*T + i)*T + j.
 *
 * Forward walks over the keys in blocks and keeps, for each row, the largest score so far, m,
 * and the sum of exp(S - m); a new block with a larger score rescales what is there (the
 * online softmax of Milakov and Gimelshein, as FlashAttention uses it). Backward computes P
 * again from lse, twice: attention_dq owns rows of Q, attention_dkv rows of K and V. So every
 * result has one owner that sums in a fixed order, and nothing is added atomically.
 *
 * CPU body: a work-item owns `rows_each` rows (at most ROWS) of one head and walks over blocks
 * of BLOCK of the other side. Every product is MR rows from private memory times a panel (see
 * tile.clh) packed there: transposed, where the sum runs over d, else row by row. Blocks that
 * the causal mask hides are never touched.
 *
 * GPU body: a work-group of 16 x 16 owns BLOCK rows and walks over blocks of BLOCK; each
 * work-item holds 4 x 4 of a score block and 4 rows x HEAD / 16 columns of the results. Factors
 * go through local memory in slices of 16, probabilities as a whole block: 30 KiB.
 *
 * The host sets with -D: STORE, and
 *   HEAD     GPU: D rounded up to 64, 128 or 256                                   [64]   */
#define BLOCK 64
#define HIDDEN -1e30f

#ifndef HEAD
#define HEAD 64
#endif

/* What all kernels here take: sizes, mask and dropout. */
#define SHAPE_ARGS int B, int T, int H, int D, int causal, float scale
#define DROP_ARGS  __global const uint *random, uint stream, uint limit, float factor

#ifdef STYLE_CPU

#define ROWS 96
#define MOST_D 256
/* Row-packed blocks have their columns padded with zeros to whole panels. */
#define PADDED(D) (((D) + NR - 1) / NR * NR)

/* c += MR rows of a (lda apart) times `depth` rows of b (ldb apart), NR columns. */
static void multiply(floatV c[MR][NV], const float *a, int lda, const float *b, int ldb, int depth)
{
    for (int k = 0; k < depth; k++, b += ldb) {
        floatV x[NV];
#pragma unroll
        for (int v = 0; v < NV; v++)
            x[v] = vloadV(0, b + v * VW);
#pragma unroll
        for (int i = 0; i < MR; i++)
#pragma unroll
            for (int v = 0; v < NV; v++)
                c[i][v] = fma((floatV)a[i * lda + k], x[v], c[i][v]);
    }
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
static void keep_row(float *to, DROP_ARGS, ulong first)
{
    uint word[BLOCK];
    if ((first & 3) == 0)
        for (int j = 0; j < BLOCK; j += RANDOM_BATCH)
            random_batch(word + j, random, stream, (uint)((first + j) >> 2));
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
KERNEL void attention_forward(SHAPE_ARGS, DROP_ARGS, __global const store_t *qkv,
                              __global store_t *out, __global float *lse, int rows_each)
{
    float q[ROWS * MOST_D], o[ROWS * MOST_D], kt[MOST_D * BLOCK], v[BLOCK * MOST_D];
    float s[MR * BLOCK], most[ROWS + VW], sum[ROWS * VW], kept[BLOCK];
    const int blocks = (T + rows_each - 1) / rows_each;
    const int first = get_global_id(0) % blocks * rows_each, head = get_global_id(0) / blocks;
    const int b = head / H, h = head % H, C = H * D, width = PADDED(D);
    const int rows = min(rows_each, T - first), room = (rows + MR - 1) / MR * MR;
    const size_t ld = 3 * (size_t)C;
    __global const store_t *base = qkv + b * T * ld + h * D;
    const int keys = causal ? first + rows : T;

    pack_rows(q, base + first * ld, ld, rows, room, D);
    for (int i = 0; i < room * width; i++)
        o[i] = 0.0f;
    for (int i = 0; i < ROWS + VW; i++)
        most[i] = HIDDEN;
    for (int i = 0; i < room * VW; i++)
        sum[i] = 0.0f;

    for (int j0 = 0; j0 < keys; j0 += BLOCK) {
        const int there = min(BLOCK, T - j0);
        pack_panel(kt, base + C + j0 * ld, ld, there, D);
        pack_rows(v, base + 2 * C + j0 * ld, ld, there, BLOCK, D);
        for (int r = 0; r < rows; r += MR) {
            float most_new[VW], shrink[VW];
            if (causal && j0 > first + r + MR - 1)
                continue;
            scores(s, q + r * width, width, kt, D, scale);
            const int ragged = there < BLOCK || (causal && j0 + BLOCK - 1 > first + r);
            for (int i = 0; i < VW; i++)
                most_new[i] = HIDDEN;
            for (int i = 0; i < MR; i++) {
                floatV m = HIDDEN;
                const int seen = causal ? min(T - 1, first + r + i) : T - 1;
                for (int j = 0; j < BLOCK; j += VW) {
                    floatV x = vloadV(0, s + i * BLOCK + j);
                    if (ragged) {
                        x = select(x, (floatV)HIDDEN, columns(j0 + j) > (intV)seen);
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
                             ((ulong)head * T + first + r + i) * T + j0);
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
        lse[(size_t)head * T + first + i] = most[i] + log(all);
        most[i] = 1.0f / all;
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

KERNEL void attention_dq(SHAPE_ARGS, DROP_ARGS, __global const store_t *qkv,
                         __global const store_t *dout, __global const float *lse,
                         __global const float *delta, __global store_t *dqkv, int rows_each)
{
    float q[ROWS * MOST_D], go[ROWS * MOST_D], dq[ROWS * MOST_D];
    float kt[MOST_D * BLOCK], vt[MOST_D * BLOCK], k[BLOCK * MOST_D];
    float s[MR * BLOCK], ds[MR * BLOCK], kept[BLOCK], ones[ROWS];
    const int blocks = (T + rows_each - 1) / rows_each;
    const int first = get_global_id(0) % blocks * rows_each, head = get_global_id(0) / blocks;
    const int b = head / H, h = head % H, C = H * D, width = PADDED(D);
    const int rows = min(rows_each, T - first), room = (rows + MR - 1) / MR * MR;
    const size_t ld = 3 * (size_t)C;
    __global const store_t *base = qkv + b * T * ld + h * D;
    const int keys = causal ? first + rows : T;

    pack_rows(q, base + first * ld, ld, rows, room, D);
    pack_rows(go, dout + ((size_t)b * T + first) * C + h * D, C, rows, room, D);
    for (int i = 0; i < room * width; i++)
        dq[i] = 0.0f;
    for (int i = 0; i < ROWS; i++)
        ones[i] = 1.0f;

    for (int j0 = 0; j0 < keys; j0 += BLOCK) {
        const int there = min(BLOCK, T - j0);
        pack_panel(kt, base + C + j0 * ld, ld, there, D);
        pack_panel(vt, base + 2 * C + j0 * ld, ld, there, D);
        pack_rows(k, base + C + j0 * ld, ld, there, BLOCK, D);
        for (int r = 0; r < rows; r += MR) {
            if (causal && j0 > first + r + MR - 1)
                continue;
            scores(s, q + r * width, width, kt, D, scale);
            scores(ds, go + r * width, width, vt, D, 1.0f);
            for (int i = 0; i < MR; i++) {
                const int row = min(first + r + i, T - 1), seen = causal ? row : T - 1;
                const float l = lse[(size_t)head * T + row], dl = delta[(size_t)head * T + row];
                if (limit)
                    keep_row(kept, random, stream, limit, factor, ((ulong)head * T + row) * T + j0);
                for (int j = 0; j < BLOCK; j += VW) {
                    floatV p = expV(vloadV(0, s + i * BLOCK + j) - l);
                    floatV dp = vloadV(0, ds + i * BLOCK + j);
                    if (limit)
                        dp *= vloadV(0, kept + j);
                    p = select(p, (floatV)0.0f, columns(j0 + j) > (intV)seen);
                    vstoreV(scale * p * (dp - dl), 0, ds + i * BLOCK + j);
                }
            }
            gather(dq + r * width, width, ones, ds, k);
        }
    }
    unpack_rows(dqkv + ((size_t)b * T + first) * ld + h * D, ld, dq, rows, D, ones);
}

/* Rows are keys here and columns queries: everything is the transpose of attention_dq. */
KERNEL void attention_dkv(SHAPE_ARGS, DROP_ARGS, __global const store_t *qkv,
                          __global const store_t *dout, __global const float *lse,
                          __global const float *delta, __global store_t *dqkv, int rows_each)
{
    float k[ROWS * MOST_D], v[ROWS * MOST_D], dk[ROWS * MOST_D], dv[ROWS * MOST_D];
    float qt[MOST_D * BLOCK], got[MOST_D * BLOCK], q[BLOCK * MOST_D], go[BLOCK * MOST_D];
    float s[MR * BLOCK], ds[MR * BLOCK], kept[(ROWS + BLOCK) * BLOCK], row_kept[BLOCK], ones[ROWS];
    float l[BLOCK], dl[BLOCK];
    const int blocks = (T + rows_each - 1) / rows_each;
    const int first = get_global_id(0) % blocks * rows_each, head = get_global_id(0) / blocks;
    const int b = head / H, h = head % H, C = H * D, width = PADDED(D);
    const int rows = min(rows_each, T - first), room = (rows + MR - 1) / MR * MR;
    const size_t ld = 3 * (size_t)C;
    __global const store_t *base = qkv + b * T * ld + h * D;
    __global const store_t *gbase = dout + (size_t)b * T * C + h * D;

    pack_rows(k, base + C + first * ld, ld, rows, room, D);
    pack_rows(v, base + 2 * C + first * ld, ld, rows, room, D);
    for (int i = 0; i < room * width; i++)
        dk[i] = dv[i] = 0.0f;
    for (int i = 0; i < ROWS; i++)
        ones[i] = 1.0f;

    for (int i0 = causal ? first / BLOCK * BLOCK : 0; i0 < T; i0 += BLOCK) {
        const int there = min(BLOCK, T - i0);
        pack_panel(qt, base + i0 * ld, ld, there, D);
        pack_panel(got, gbase + (size_t)i0 * C, C, there, D);
        pack_rows(q, base + i0 * ld, ld, there, BLOCK, D);
        pack_rows(go, gbase + (size_t)i0 * C, C, there, BLOCK, D);
        for (int i = 0; i < BLOCK; i++) {
            l[i] = i < there ? lse[(size_t)head * T + i0 + i] : 0.0f;
            dl[i] = i < there ? delta[(size_t)head * T + i0 + i] : 0.0f;
        }
        if (limit)
            for (int i = 0; i < there; i++)
                for (int r = 0; r < rows; r += BLOCK) {
                    keep_row(row_kept, random, stream, limit, factor,
                             ((ulong)head * T + i0 + i) * T + first + r);
                    for (int j = 0; j < BLOCK; j++)
                        kept[(r + j) * BLOCK + i] = row_kept[j];
                }
        for (int r = 0; r < rows; r += MR) {
            if (causal && i0 + BLOCK - 1 < first + r)
                continue;
            scores(s, k + r * width, width, qt, D, scale);
            scores(ds, v + r * width, width, got, D, 1.0f);
            for (int j = 0; j < MR; j++) {
                const int key = first + r + j;
                for (int i = 0; i < BLOCK; i += VW) {
                    const intV query = columns(i0 + i);
                    floatV p = expV(vloadV(0, s + j * BLOCK + i) - vloadV(0, l + i));
                    floatV dp = vloadV(0, ds + j * BLOCK + i);
                    p = select(p, (floatV)0.0f, query >= (intV)T);
                    if (causal)
                        p = select(p, (floatV)0.0f, query < (intV)key);
                    floatV left = p;
                    if (limit) {
                        const floatV f = vloadV(0, kept + (r + j) * BLOCK + i);
                        dp *= f;
                        left *= f;
                    }
                    vstoreV(left, 0, s + j * BLOCK + i);
                    vstoreV(scale * p * (dp - vloadV(0, dl + i)), 0, ds + j * BLOCK + i);
                }
            }
            gather(dv + r * width, width, ones, s, go);
            gather(dk + r * width, width, ones, ds, q);
        }
    }
    __global store_t *to = dqkv + ((size_t)b * T + first) * ld + h * D;
    unpack_rows(to + C, ld, dk, rows, D, ones);
    unpack_rows(to + 2 * C, ld, dv, rows, D, ones);
}

/* ---- generation: keys and values of earlier tokens are kept ------------------------------- */

/* keys, values: (B,H,capacity,D); the n new tokens are at positions first[0] .. */
KERNEL void attention_append(int n, int H, int D, int capacity, __global const int *first,
                             __global const store_t *qkv, __global store_t *keys,
                             __global store_t *values)
{
    const int i = get_global_id(0) % n, head = get_global_id(0) / n;
    const int b = head / H, h = head % H, C = H * D;
    const size_t from = ((size_t)b * n + i) * 3 * C + h * D;
    const size_t to = ((size_t)head * capacity + first[0] + i) * D;
    for (int d = 0; d < D; d++) {
        keys[to + d] = qkv[from + C + d];
        values[to + d] = qkv[from + 2 * C + d];
    }
}

/* A work-item owns one query of one head. */
KERNEL void attention_cached(int n, int H, int D, int capacity, float scale,
                             __global const int *first, __global const store_t *qkv,
                             __global const store_t *keys, __global const store_t *values,
                             __global store_t *out)
{
    float q[MOST_D], o[MOST_D];
    const int i = get_global_id(0) % n, head = get_global_id(0) / n;
    const int b = head / H, h = head % H, C = H * D, last = first[0] + i;
    const size_t cache = (size_t)head * capacity * D;
    float most = HIDDEN, all = 0.0f;

    for (int d = 0; d < D; d += VW) {
        vstoreV(scale * load_some(qkv, ((size_t)b * n + i) * 3 * C + h * D + d, min(VW, D - d)), 0,
                q + d);
        vstoreV((floatV)0.0f, 0, o + d);
    }
    for (int j = 0; j <= last; j++) {
        const size_t at = cache + (size_t)j * D;
        floatV sum = 0.0f;
        for (int d = 0; d < D; d += VW)
            sum += vloadV(0, q + d) * load_some(keys, at + d, min(VW, D - d));
        const float s = sumV(sum);
        if (s > most) {
            const floatV shrink = expV((floatV)(most - s));
            for (int d = 0; d < D; d += VW)
                vstoreV(shrink * vloadV(0, o + d), 0, o + d);
            all *= shrink.s0;
            most = s;
        }
        const floatV p = expV((floatV)(s - most));
        all += p.s0;
        for (int d = 0; d < D; d += VW)
            vstoreV(vloadV(0, o + d) + p * load_some(values, at + d, min(VW, D - d)), 0, o + d);
    }
    for (int d = 0; d < D; d += VW)
        store_some(out, ((size_t)b * n + i) * C + h * D + d, vloadV(0, o + d) / all,
                   min(VW, D - d));
}

#endif
