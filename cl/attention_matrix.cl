/* SPDX-License-Identifier: MIT */
/* cl/attention_matrix.cl - attention by a device's matrix unit; what it computes, its arguments and its masks are
 * those of attention.cl. Without dropout, of 16-bit storage, for heads of HEAD columns, a multiple of 16.
 *
 * A work-group is WAVES waves. Each owns OWN_TILES tiles of 16 rows of Q (or 8, MMA_OWN_ROWS), as factors, and all walk
 * together over blocks of BLOCK keys, which go through local memory, fetched into registers while the block before
 * is computed with:
 *
 *             own: queries in registers        S: own queries by keys that pass, in registers
 *   K  [ keys | d together ]   -- times Q -->   masks, maximum, exp2, sum: a lane's own queries
 *   V' [ d | keys together ]   -- times P -->   O: own queries by d, in registers
 *
 * P stays where S was: mma.clh says which of the two factors has the layout of a result, and own rows are that
 * factor. So a lane has few own rows (one, on AMD), whose scores it reduces by itself but for an exchange or two with
 * the lanes that share them. P is rounded to the storage type on the way, sums are fp32.
 *
 * The gradient has two kernels. In attention_matrix_dq queries are own and keys pass, in attention_matrix_dkv keys
 * are own and queries pass; both compute S, and dP = dout V', side by side, and P again from lse:
 *
 *   dq:   K [ keys | d ]  V [ keys | d ]  K' [ d | keys ]                     dQ += dS K
 *   dkv:  Q [ queries | d ]  dout [ queries | d ]  and both turned            dV += P' dout,  dK += dS' Q
 *
 * So every result has one owner that sums in a fixed order. Where registers do not hold the own factors beside the
 * results, OWN_LOCAL of them stay in local memory; where they do not hold two results, dkv sums one after the other.
 *
 * The host sets with -D: STORE, LENGTHS, FLOORS as for attention.cl, MMA_UNIT and MMA_SOFTWARE as for mma.clh, and
 *   HEAD        columns of a head, a multiple of 16, at most 128                           [64]
 *   ALIGNED     all rows of q, k and v begin at multiples of 8 elements, as those of dout do. It is not asked for in a
 *               kernel: of two loads that differ in alignment alone compilers make one, of the lesser       [off]
 *   GRADIENT    the kernels of the gradient, else that of forward                            [off]
 *   OWN_TILES   tiles of 16 own rows a wave: each piece of the other factor serves so many   [what registers hold]
 *   PASS_TILES  tiles of 16 passing rows a block                                             [what registers hold] */
#include "common.clh"
#include "mma.clh"
#include "attention_args.clh"
#include "attention_blocks.clh"

#ifdef HAS_ATTENTION_MATRIX

#define GROUP MMA_HALF_THE_REGISTERS MMA_KERNEL(ITEMS)
/* Where two results of wide heads take the other half as well. */
#if HEAD <= 80
#define GROUP_OF_TWO GROUP
#else
#define GROUP_OF_TWO MMA_KERNEL(ITEMS)
#endif
#ifdef MMA_SOFTWARE
#define SCRATCH                                              \
    __local float mma_scratch_of_all[WAVES * MMA_SCRATCH];   \
    __local float *mma_scratch = mma_scratch_of_all + get_local_id(0) / MMA_LANES * MMA_SCRATCH;
#else
#define SCRATCH
#endif

/* Row i of a lane's own ones in tile t. */
#define ROW_OF(t, i) (mine + (t) * MMA_OWN_ROWS + MMA_OWN_ROW(lane, i))

/* Of a work-item whose group owns queries: the group's first, its wave's, `mine`, what these see of the keys, from
 * `begin` to `keys`, and from where on all of the wave's do. */
#define QUERY_ITEM                                                                                                   \
    const int item = get_local_id(0), lane = item % MMA_LANES, wave = item / MMA_LANES;                               \
    const int blocks = (T + ROWS - 1) / ROWS, first = get_group_id(0) % blocks * ROWS;                                \
    const int head = get_group_id(0) / blocks, b = head / H, h = head % H, mine = first + wave * WAVE_ROWS;           \
    const int S = KEYS(b), keys = causal ? min(S, first + ROWS) : S, begin = FIRST_BLOCK(b, first);                   \
    const int low_of_all = FLOOR(b, min(mine + WAVE_ROWS, T) - 1);                                                    \
    const float factor = scale * LOG2_E;                                                                              \
    __global const ushort *k_at = (__global const ushort *)k_all + HEAD_AT(k_from, k_ld, h / G);                      \
    __global const ushort *v_at = (__global const ushort *)v_all + HEAD_AT(v_from, v_ld, h / G);
/* Which keys a query sees, and whether the block from j0 on has others, that are to be hidden. */
#define LOW_OF(query) FLOOR(b, min(query, T - 1))
#define SEEN_OF(query) (causal ? min(query, S - 1) : S - 1)
#define IS_RAGGED(j0) ((j0) + BLOCK > S || (causal && (j0) + BLOCK - 1 > mine) || low_of_all > (j0))

/* Local memory in units of 16 bytes. */
#define OWN_ROOM (ROWS * LD_OWN / 8)

#if !IS_GRADIENT

/* How far a row's scores may climb above what is subtracted from them, `power`, before that is raised to their maximum:
 * a power of two, of which P and its sums keep the same bits. So what has been summed is rarely rescaled behind a row's
 * first block, and only then do lanes ask each other for a maximum. */
#define REACH 8.0f

/* most: of what a lane has seen of its rows, or limit; in scores, as limit is, above which a row's power is raised.
 * -> shrink: what has been summed is to be multiplied by; `sum` is. */
MMA_INLINE void raise(float shrink[OWN_TILES][MMA_OWN_COUNT], float2 sum[OWN_TILES][MMA_OWN_COUNT],
                      float power[OWN_TILES][MMA_OWN_COUNT], float limit[OWN_TILES][MMA_OWN_COUNT],
                      float most[OWN_TILES][MMA_OWN_COUNT], float factor, int lane MMA_SCRATCH_ARG)
{
    MMA_UNROLL
    for (int t = 0; t < OWN_TILES; t++)
        MMA_UNROLL
        for (int i = 0; i < MMA_OWN_COUNT; i++) {
            const float top = mma_max_of(most[t][i], lane MMA_SCRATCH_PASS), old = power[t][i];
            const int climbs = top > limit[t][i];
            power[t][i] = climbs ? factor * top : old;
            limit[t][i] = climbs ? top + REACH / factor : limit[t][i];
            shrink[t][i] = mma_exp2(fmin(old - power[t][i], 0.0f));     /* of nothing, as long as nothing was seen */
            sum[t][i] *= shrink[t][i];
        }
}

MMA_INLINE void rescale(coop_mat_c o[OWN_TILES][STEPS], float shrink[OWN_TILES][MMA_OWN_COUNT])
{
    MMA_UNROLL
    for (int t = 0; t < OWN_TILES; t++)
        MMA_UNROLL
        for (int d = 0; d < STEPS; d++)
            MMA_UNROLL
            for (int r = 0; r < MMA_C_COUNT; r++)
                MMA_C_ELEMENT(o[t][d], r) *= shrink[t][MMA_OWN_OF(r)];
}

/* s: scores, then P without its division by `sum`, which it is added to. */
MMA_INLINE void probabilities(coop_mat_c s[OWN_TILES][PASS_TILES], coop_mat_c o[OWN_TILES][STEPS],
                              float2 sum[OWN_TILES][MMA_OWN_COUNT], float power[OWN_TILES][MMA_OWN_COUNT],
                              float limit[OWN_TILES][MMA_OWN_COUNT], float factor, int lane MMA_SCRATCH_ARG)
{
    float most[OWN_TILES][MMA_OWN_COUNT], shrink[OWN_TILES][MMA_OWN_COUNT];
    int climbs = 0;
    MMA_UNROLL
    for (int t = 0; t < OWN_TILES; t++) {
        MMA_UNROLL
        for (int i = 0; i < MMA_OWN_COUNT; i++)
            most[t][i] = limit[t][i];
        MMA_UNROLL
        for (int j = 0; j < PASS_TILES; j++)
            MMA_UNROLL
            for (int r = 0; r < MMA_C_COUNT; r++)
                most[t][MMA_OWN_OF(r)] = fmax(most[t][MMA_OWN_OF(r)], MMA_C_ELEMENT(s[t][j], r));
        MMA_UNROLL
        for (int i = 0; i < MMA_OWN_COUNT; i++)
            climbs |= most[t][i] > limit[t][i];
    }
#if MMA_SHARED
    if (mma_any(climbs)) {
        raise(shrink, sum, power, limit, most, factor, lane MMA_SCRATCH_PASS);
        rescale(o, shrink);
    }
#else
    raise(shrink, sum, power, limit, most, factor, lane MMA_SCRATCH_PASS);      /* asks nobody: not worth a branch */
#endif
    MMA_UNROLL
    for (int t = 0; t < OWN_TILES; t++)
        MMA_UNROLL
        for (int j = 0; j < PASS_TILES; j++)
            MMA_UNROLL
            for (int r = 0; r < MMA_C_COUNT; r += 2) {
                const int i = MMA_OWN_OF(r);
                const float2 p = mma_exp2_pair(factor * MMA_C_PAIR(s[t][j], r) - power[t][i]);
                MMA_SET_PAIR(s[t][j], r, p);
                sum[t][i] += p;
            }
#if !MMA_SHARED
    if (climbs)
        rescale(o, shrink);
#endif
}

/* A block of K and one of V, or the group's own rows. */
#define FORWARD_ROOM ((BLOCK_SIZE + TURNED_SIZE) / 8 + (OWN_LOCAL ? OWN_ROOM : 0))

GROUP void attention_matrix_forward(SHAPE_ARGS, QKV_ARGS, __global store_t *out, __global float *lse)
{
    __local uint4 room[FORWARD_ROOM > OWN_ROOM ? FORWARD_ROOM : OWN_ROOM];
    SCRATCH
    QUERY_ITEM
    __local ushort *ks = (__local ushort *)room, *vs = ks + BLOCK_SIZE;

    coop_mat_c o[OWN_TILES][STEPS], s[OWN_TILES][PASS_TILES];
    float2 sum[OWN_TILES][MMA_OWN_COUNT];
    float power[OWN_TILES][MMA_OWN_COUNT], limit[OWN_TILES][MMA_OWN_COUNT], whole[OWN_TILES][MMA_OWN_COUNT];
    int seen[OWN_TILES][MMA_OWN_COUNT], low[OWN_TILES][MMA_OWN_COUNT];
    uint4 next_k[ROW_FETCHES], next_v[2 * PAIR_FETCHES];

    MMA_UNROLL
    for (int t = 0; t < OWN_TILES; t++)
        MMA_UNROLL
        for (int i = 0; i < MMA_OWN_COUNT; i++) {
            power[t][i] = 0.0f;
            limit[t][i] = HIDDEN;               /* what is seen at all is above it */
            sum[t][i] = 0.0f;
            seen[t][i] = SEEN_OF(ROW_OF(t, i));
            low[t][i] = LOW_OF(ROW_OF(t, i));
        }
    clear(o);
    __global const ushort *q_at = (__global const ushort *)q_all + HEAD_AT(q_from, q_ld, h) + (size_t)first * q_ld;
#if OWN_LOCAL
    __local ushort *own = vs + TURNED_SIZE;
    keep_own(own, q_at, q_ld, T - first, item);
    own += wave * WAVE_ROWS * LD_OWN;
#else
    coop_mat_own q[OWN_TILES][STEPS];
    load_own(q, (__local ushort *)room, q_at, q_ld, T - first, item);
#endif
    fetch_rows(next_k, k_at, k_ld, begin, S, item);
    for (int j0 = begin; j0 < keys; j0 += BLOCK) {
        keep_rows(ks, next_k, item);
        barrier(CLK_LOCAL_MEM_FENCE);           /* and all have gathered from the V before */
        fetch_pairs(next_v, v_at, v_ld, j0, S, item);
#if OWN_LOCAL
        scores_local(s, own, ks, lane MMA_SCRATCH_PASS);
#else
        scores(s, q, ks, lane MMA_SCRATCH_PASS);
#endif
        if (IS_RAGGED(j0))
            hide(s, j0, low, seen, lane);
        probabilities(s, o, sum, power, limit, factor, lane MMA_SCRATCH_PASS);
        keep_turned(vs, next_v, item);
        barrier(CLK_LOCAL_MEM_FENCE);           /* and all have the scores of this K */
        if (j0 + BLOCK < keys)
            fetch_rows(next_k, k_at, k_ld, j0 + BLOCK, S, item);
        gather(o, s, vs, lane MMA_SCRATCH_PASS);
    }
    MMA_UNROLL
    for (int t = 0; t < OWN_TILES; t++)
        MMA_UNROLL
        for (int i = 0; i < MMA_OWN_COUNT; i++) {
            const int row = ROW_OF(t, i);
            const float all = mma_sum_of(sum[t][i].s0 + sum[t][i].s1, lane MMA_SCRATCH_PASS);
            if ((lane & MMA_SHARED) == 0 && row < T)
                lse[(size_t)head * T + row] = S > 0 ? (power[t][i] + log2(all)) * LN_2 : 0.0f;
            whole[t][i] = S > 0 ? 1.0f / all : 0.0f;
        }
    put_own(out, (size_t)b * T * H * D + h * D, (size_t)H * D, mine, T, o, whole, lane);
}

#else

/* The own factors that stay in local memory, and in front of them what passes: behind it, where none stays, is room
 * for one on its way to the registers. */
#define PASS_ROOM(turned) ((2 * BLOCK_SIZE + (turned) * TURNED_SIZE) / 8)
#define GRADIENT_ROOM(turned) \
    (PASS_ROOM(turned) + OWN_LOCAL * OWN_ROOM > OWN_ROOM ? PASS_ROOM(turned) + OWN_LOCAL * OWN_ROOM : OWN_ROOM)

/* Both own factors, from p and q: in registers, or where `local_p` and `local_q` are afterwards, the wave's rows. */
#if OWN_LOCAL == 0
#define LOAD_OWN(P, p_ld, Q, q_ld, rows)                                      \
    coop_mat_own own_p[OWN_TILES][STEPS], own_q[OWN_TILES][STEPS];             \
    load_own(own_p, (__local ushort *)room, P, p_ld, rows, item);              \
    load_own(own_q, (__local ushort *)room, Q, q_ld, rows, item);
#else
#define LOAD_OWN(P, p_ld, Q, q_ld, rows)                                      \
    keep_own(stays, P, p_ld, rows, item);                                      \
    keep_own(stays + ROWS * LD_OWN, Q, q_ld, rows, item);                      \
    __local const ushort *local_p = stays + wave * WAVE_ROWS * LD_OWN, *local_q = local_p + ROWS * LD_OWN;
#endif
#if OWN_LOCAL == 0
#define SCORES_P(s, rows) scores(s, own_p, rows, lane MMA_SCRATCH_PASS)
#define SCORES_Q(s, rows) scores(s, own_q, rows, lane MMA_SCRATCH_PASS)
#else
#define SCORES_P(s, rows) scores_local(s, local_p, rows, lane MMA_SCRATCH_PASS)
#define SCORES_Q(s, rows) scores_local(s, local_q, rows, lane MMA_SCRATCH_PASS)
#endif

/* s: scores, then P; dp: dP, then dS without its scale. power, minus_delta: lse as a power of two and delta, the latter
 * negative so that CDNA adds a pair at once. */
MMA_INLINE void differentiate(float2 *s, float2 *dp, float factor, float2 power, float2 minus_delta)
{
#ifdef MMA_SOFTWARE                             /* Intel's runtime for CPUs makes other numbers of pairs */
    (*s).s0 = mma_exp2(factor * (*s).s0 - power.s0);
    (*s).s1 = mma_exp2(factor * (*s).s1 - power.s1);
    (*dp).s0 = (*s).s0 * ((*dp).s0 + minus_delta.s0);
    (*dp).s1 = (*s).s1 * ((*dp).s1 + minus_delta.s1);
#else
    *s = mma_exp2_pair(factor * *s - power);
    *dp = *s * (*dp + minus_delta);
#endif
}

GROUP void attention_matrix_dq(SHAPE_ARGS, QKV_ARGS, __global const store_t *dout, __global const float *lse,
                               __global const float *delta, DQKV_ARGS)
{
    __local uint4 room[GRADIENT_ROOM(1)];
    SCRATCH
    QUERY_ITEM
    __local ushort *ks = (__local ushort *)room, *vs = ks + BLOCK_SIZE, *kt = vs + BLOCK_SIZE;
    __local ushort *stays = kt + TURNED_SIZE;

    coop_mat_c dq[OWN_TILES][STEPS], s[OWN_TILES][PASS_TILES], dp[OWN_TILES][PASS_TILES];
    float power[OWN_TILES][MMA_OWN_COUNT], minus_delta[OWN_TILES][MMA_OWN_COUNT], scales[OWN_TILES][MMA_OWN_COUNT];
    int seen[OWN_TILES][MMA_OWN_COUNT], low[OWN_TILES][MMA_OWN_COUNT];
    uint4 next_k[2 * PAIR_FETCHES], next_v[ROW_FETCHES];

    MMA_UNROLL
    for (int t = 0; t < OWN_TILES; t++)
        MMA_UNROLL
        for (int i = 0; i < MMA_OWN_COUNT; i++) {
            const size_t at = (size_t)head * T + min(ROW_OF(t, i), T - 1);
            power[t][i] = lse[at] * LOG2_E;
            minus_delta[t][i] = -delta[at];
            scales[t][i] = scale;
            seen[t][i] = SEEN_OF(ROW_OF(t, i));
            low[t][i] = LOW_OF(ROW_OF(t, i));
        }
    clear(dq);
    LOAD_OWN((__global const ushort *)q_all + HEAD_AT(q_from, q_ld, h) + (size_t)first * q_ld, q_ld,
             (__global const ushort *)dout + HEAD_AT(0, (size_t)H * D, h) + (size_t)first * H * D, H * D, T - first)
    if (AHEAD_DQ) {
        fetch_pairs(next_k, k_at, k_ld, begin, S, item);
        fetch_rows(next_v, v_at, v_ld, begin, S, item);
    }
    for (int j0 = begin; j0 < keys; j0 += BLOCK) {
        if (!AHEAD_DQ) {
            fetch_pairs(next_k, k_at, k_ld, j0, S, item);
            fetch_rows(next_v, v_at, v_ld, j0, S, item);
        }
        keep_pairs(ks, next_k, item);
        keep_turned(kt, next_k, item);
        keep_rows(vs, next_v, item);
        barrier(CLK_LOCAL_MEM_FENCE);
        const int next = j0 + BLOCK;
        if (AHEAD_DQ && next < keys) {
            fetch_pairs(next_k, k_at, k_ld, next, S, item);
            fetch_rows(next_v, v_at, v_ld, next, S, item);
        }
        SCORES_P(s, ks);
        if (IS_RAGGED(j0))
            hide(s, j0, low, seen, lane);
        SCORES_Q(dp, vs);
        MMA_UNROLL
        for (int t = 0; t < OWN_TILES; t++)
            MMA_UNROLL
            for (int j = 0; j < PASS_TILES; j++)
                MMA_UNROLL
                for (int r = 0; r < MMA_C_COUNT; r += 2) {
                    const int i = MMA_OWN_OF(r);
                    float2 p = MMA_C_PAIR(s[t][j], r), ds = MMA_C_PAIR(dp[t][j], r);
                    differentiate(&p, &ds, factor, power[t][i], minus_delta[t][i]);
                    MMA_SET_PAIR(dp[t][j], r, ds);
                }
        gather(dq, dp, kt, lane MMA_SCRATCH_PASS);
        barrier(CLK_LOCAL_MEM_FENCE);           /* all have read before the next block is kept */
    }
    put_own(dq_all, HEAD_AT(dq_from, dq_ld, h), dq_ld, mine, T, dq, scales, lane);
}

/* Hides what queries `first`, ... of a ragged block do not see of the own keys `mine`, ...: none in front of query
 * from[], nor one whose first key, of lows, is behind. */
MMA_INLINE void hide_queries(coop_mat_c s[OWN_TILES][PASS_TILES], int first, int mine,
                             int from[OWN_TILES][MMA_OWN_COUNT], __local const int *lows, int lane)
{
    MMA_UNROLL
    for (int t = 0; t < OWN_TILES; t++)
        MMA_UNROLL
        for (int j = 0; j < PASS_TILES; j++)
            MMA_UNROLL
            for (int r = 0; r < MMA_C_COUNT; r++) {
                const int i = MMA_OWN_OF(r), x = j * 16 + MMA_OTHER(lane, r);
                int hidden = first + x < from[t][i];
#ifdef FLOORS
                hidden |= lows[x] > ROW_OF(t, i);
#endif
                const float score = MMA_C_ELEMENT(s[t][j], r);
                MMA_C_ELEMENT(s[t][j], r) = hidden ? HIDDEN : score;
            }
}

/* A group sums over the G heads that look at its keys. */
GROUP_OF_TWO void attention_matrix_dkv(SHAPE_ARGS, QKV_ARGS, __global const store_t *dout, __global const float *lse,
                                       __global const float *delta, DQKV_ARGS)
{
    __local uint4 room[GRADIENT_ROOM(2)];
    __local float powers[BLOCK] __attribute__((aligned(16))), minus_deltas[BLOCK] __attribute__((aligned(16)));
#ifdef FLOORS
    __local int lows[BLOCK];
#define LOWS lows
#else
#define LOWS 0
#endif
    SCRATCH
    const int item = get_local_id(0), lane = item % MMA_LANES, wave = item / MMA_LANES;
    const int blocks = (T + ROWS - 1) / ROWS, first = get_group_id(0) % blocks * ROWS;
    const int owned = get_group_id(0) / blocks, b = owned / (H / G), kv = owned % (H / G);
    const int mine = first + wave * WAVE_ROWS, S = KEYS(b), C = H * D;
    const float factor = scale * LOG2_E;
    __local ushort *qs = (__local ushort *)room, *gs = qs + BLOCK_SIZE, *qt = gs + BLOCK_SIZE;
    __local ushort *gt = qt + TURNED_SIZE, *stays = gt + TURNED_SIZE;

    coop_mat_c dk[OWN_TILES][STEPS], dv[OWN_TILES][STEPS], s[OWN_TILES][PASS_TILES], dp[OWN_TILES][PASS_TILES];
    int from[OWN_TILES][MMA_OWN_COUNT];         /* the first query that sees a key */
    uint4 next_q[2 * PAIR_FETCHES], next_g[2 * PAIR_FETCHES];

    MMA_UNROLL
    for (int t = 0; t < OWN_TILES; t++)
        MMA_UNROLL
        for (int i = 0; i < MMA_OWN_COUNT; i++)
            from[t][i] = ROW_OF(t, i) >= S ? T : causal ? ROW_OF(t, i) : 0;
    LOAD_OWN((__global const ushort *)k_all + HEAD_AT(k_from, k_ld, kv) + (size_t)first * k_ld, k_ld,
             (__global const ushort *)v_all + HEAD_AT(v_from, v_ld, kv) + (size_t)first * v_ld, v_ld, T - first)
    float one[OWN_TILES][MMA_OWN_COUNT], scales[OWN_TILES][MMA_OWN_COUNT];
    for (int k_part = 0; k_part < (APART ? 2 : 1); k_part++) {
        clear(dk);
        clear(dv);
        MMA_UNROLL
        for (int t = 0; t < OWN_TILES; t++)
            MMA_UNROLL
            for (int j = 0; j < PASS_TILES; j++)
                dp[t][j] = coop_mat_zero();
        for (int h = kv * G; h < kv * G + G; h++) {
            const size_t head = ((size_t)b * H + h) * T;
            __global const ushort *q_at = (__global const ushort *)q_all + HEAD_AT(q_from, q_ld, h);
            __global const ushort *g_at = (__global const ushort *)dout + HEAD_AT(0, (size_t)C, h);
            const int begin = causal ? first / BLOCK * BLOCK : 0;
            if (AHEAD) {
                fetch_pairs(next_q, q_at, q_ld, begin, T, item);
                fetch_pairs(next_g, g_at, C, begin, T, item);
            }
            for (int i0 = begin; i0 < T; i0 += BLOCK) {
#ifdef FLOORS
                if (FLOOR(b, i0) >= first + ROWS)           /* nor do those behind see any of these keys */
                    break;
#endif
                if (!AHEAD)
                    fetch_pairs(next_q, q_at, q_ld, i0, T, item);
                keep_pairs(qs, next_q, item);
                keep_turned(qt, next_q, item);
                if (!AHEAD)
                    fetch_pairs(next_g, g_at, C, i0, T, item);
                keep_pairs(gs, next_g, item);
                keep_turned(gt, next_g, item);
                for (int x = item; x < BLOCK; x += ITEMS) {
                    const int query = min(i0 + x, T - 1);
                    const int at = x / 16 * 16 + MMA_PLACE_OF(x % 16);
                    powers[at] = i0 + x < T ? lse[head + query] * LOG2_E : -HIDDEN;     /* of P = 0 */
                    minus_deltas[at] = -delta[head + query];
#ifdef FLOORS
                    lows[x] = FLOOR(b, query);
#endif
                }
                barrier(CLK_LOCAL_MEM_FENCE);
                const int next = i0 + BLOCK;
                if (AHEAD && next < T) {
                    fetch_pairs(next_q, q_at, q_ld, next, T, item);
                    fetch_pairs(next_g, g_at, C, next, T, item);
                }
                SCORES_P(s, qs);
                if (mine + WAVE_ROWS > S || (causal && i0 < mine + WAVE_ROWS - 1) || FLOOR(b, min(next, T) - 1) > mine)
                    hide_queries(s, i0, mine, from, LOWS, lane);
                if (!APART || k_part)
                    SCORES_Q(dp, gs);
                MMA_UNROLL
                for (int t = 0; t < OWN_TILES; t++)
                    MMA_UNROLL
                    for (int j = 0; j < PASS_TILES; j++)
                        MMA_UNROLL
                        for (int r = 0; r < MMA_C_COUNT; r += 2) {
                            const int at = j * 16 + MMA_PLACE(lane, r);
                            float2 p = MMA_C_PAIR(s[t][j], r), ds = MMA_C_PAIR(dp[t][j], r);
                            differentiate(&p, &ds, factor, *(__local const float2 *)(powers + at),
                                          *(__local const float2 *)(minus_deltas + at));
                            MMA_SET_PAIR(s[t][j], r, (APART && k_part ? ds : p));
                            if (!APART)
                                MMA_SET_PAIR(dp[t][j], r, ds);
                        }
                gather(dv, s, APART && k_part ? qt : gt, lane MMA_SCRATCH_PASS);
                if (!APART)
                    gather(dk, dp, qt, lane MMA_SCRATCH_PASS);
                barrier(CLK_LOCAL_MEM_FENCE);       /* all have read before the next block is kept */
            }
        }
        const int is_k = APART && k_part;
        MMA_UNROLL
        for (int t = 0; t < OWN_TILES; t++)
            MMA_UNROLL
            for (int i = 0; i < MMA_OWN_COUNT; i++) {
                one[t][i] = is_k ? scale : 1.0f;
                scales[t][i] = scale;
            }
        put_own(is_k ? dk_all : dv_all, is_k ? HEAD_AT(dk_from, dk_ld, kv) : HEAD_AT(dv_from, dv_ld, kv),
                is_k ? dk_ld : dv_ld, mine, T, dv, one, lane);
        if (!APART)
            put_own(dk_all, HEAD_AT(dk_from, dk_ld, kv), dk_ld, mine, T, dk, scales, lane);
    }
}

#endif
#endif
