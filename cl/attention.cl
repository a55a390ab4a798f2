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
 * CPU body: attention_cpu.clh.
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
#include "attention_cpu.clh"

#ifndef STYLE_CPU

#define BLOCK 64

#ifndef HEAD
#define HEAD 64
#endif

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
