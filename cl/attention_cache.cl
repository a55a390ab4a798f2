/* SPDX-License-Identifier: MIT */
/* cl/attention_cache.cl - attention while text is generated: keys and values of earlier tokens are kept.
 *
 *   keys, values: (B,H/G,capacity,D)
 *       0 ............ first | first .. first + n - 1 | ... capacity
 *       earlier tokens         the n new ones, put      not yet
 *                              here by attention_append
 *
 * Query i of the n sees all keys up to its own place, first[0] + i, or the last `window` of them (0: all). Other
 * arguments are those of attention.cl. The place is read on the device, so one list of launches serves every token.
 *
 * Both bodies walk over the keys once, as attention.cl does, with the sum shrunk whenever a larger score comes.
 * CPU: a work-item owns one query of one head. GPU: a work-group does, with a work-item a key for the scores and a
 * work-item a column for the sums. The host sets with -D: STORE. */
#include "common.clh"
#include "attention_args.clh"

#define MOST_HEAD 256

#ifdef STYLE_CPU

KERNEL void attention_append(int n, int H, int G, int D, int capacity, __global const int *first,
                             QKV_ARGS, __global store_t *keys, __global store_t *values)
{
    const int i = get_global_id(0) % n, head = get_global_id(0) / n;
    const int b = head / (H / G), h = head % (H / G);
    const size_t row = (size_t)b * n + i, to = ((size_t)head * capacity + first[0] + i) * D;
    for (int d = 0; d < D; d++) {
        keys[to + d] = k_all[k_from + row * k_ld + h * D + d];
        values[to + d] = v_all[v_from + row * v_ld + h * D + d];
    }
}

/* A work-item owns one query of one head. */
KERNEL void attention_cached(int n, int H, int G, int D, int capacity, float scale, int window,
                             __global const int *first, QKV_ARGS, __global const store_t *keys,
                             __global const store_t *values, __global store_t *out)
{
    float q[MOST_HEAD], o[MOST_HEAD];
    const int i = get_global_id(0) % n, head = get_global_id(0) / n;
    const int b = head / H, h = head % H, C = H * D, last = first[0] + i;
    const size_t cache = ((size_t)b * (H / G) + h / G) * capacity * D;
    float most = HIDDEN, all = 0.0f;

    for (int d = 0; d < D; d += VW) {
        vstoreV(scale * load_some(q_all, q_from + ((size_t)b * n + i) * q_ld + h * D + d, min(VW, D - d)), 0,
                q + d);
        vstoreV((floatV)0.0f, 0, o + d);
    }
    for (int j = window ? max(last - window + 1, 0) : 0; j <= last; j++) {
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

#else

/* A work-group copies one token of one head. */
KERNEL void attention_append(int n, int H, int G, int D, int capacity, __global const int *first,
                             QKV_ARGS, __global store_t *keys, __global store_t *values)
{
    const int i = get_group_id(0) % n, head = get_group_id(0) / n;
    const int b = head / (H / G), h = head % (H / G);
    const size_t row = (size_t)b * n + i;
    const size_t to = ((size_t)head * capacity + first[0] + i) * D;
    for (int d = get_local_id(0); d < D; d += WG) {
        store1(keys, to + d, load1(k_all, k_from + row * k_ld + h * D + d));
        store1(values, to + d, load1(v_all, v_from + row * v_ld + h * D + d));
    }
}

/* A work-group owns one query of one head: a work-item a key for the scores, a work-item a
 * column for the sums. */
KERNEL void attention_cached(int n, int H, int G, int D, int capacity, float scale, int window,
                             __global const int *first, QKV_ARGS, __global const store_t *keys,
                             __global const store_t *values, __global store_t *out)
{
    __local float q[MOST_HEAD], o[MOST_HEAD], p[WG], tmp[WG];
    const int me = get_local_id(0), i = get_group_id(0) % n, head = get_group_id(0) / n;
    const int b = head / H, h = head % H, C = H * D, last = first[0] + i;
    const size_t cache = ((size_t)b * (H / G) + h / G) * capacity * D;
    float most = HIDDEN, all = 0.0f;

    for (int d = me; d < D; d += WG) {
        q[d] = scale * load1(q_all, q_from + ((size_t)b * n + i) * q_ld + h * D + d);
        o[d] = 0.0f;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int j0 = window ? max(last - window + 1, 0) : 0; j0 <= last; j0 += WG) {
        float s = HIDDEN;
        if (j0 + me <= last) {
            s = 0.0f;
            for (int d = 0; d < D; d++)
                s = fma(q[d], load1(keys, cache + (size_t)(j0 + me) * D + d), s);
        }
        const float m = fmax(most, group_max(s, tmp));
        const float shrink = exp(most - m);
        p[me] = exp(s - m);
        most = m;
        all = all * shrink + group_sum(p[me], tmp);     /* its barriers show p to everybody */
        const int count = min(WG, last + 1 - j0);
        for (int d = me; d < D; d += WG) {
            float sum = o[d] * shrink;
            for (int j = 0; j < count; j++)
                sum = fma(p[j], load1(values, cache + (size_t)(j0 + j) * D + d), sum);
            o[d] = sum;
        }
    }
    for (int d = me; d < D; d += WG)
        store1(out, ((size_t)b * n + i) * C + h * D + d, o[d] / all);
}

#endif
