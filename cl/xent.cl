/* SPDX-License-Identifier: MIT */
/* cl/xent.cl - softmax cross-entropy of rows, and the sum of a vector.
 *
 *   loss[r]     = weight[r] * (log(sum over v of e^logits[r,v]) - logits[r,target[r]])
 *   dlogits[r,v] = weight[r] * (softmax(logits[r])[v] - (v == target[r])) * scale
 *
 * logits: fp32 (R,V). target: int (R); one outside [0,V) is ignored: loss and gradient 0, whatever the
 * logits. weight: fp32 (R), or null for 1; 0: ignored. loss: fp32 (R). dlogits: storage type (R,V), or null; it may be logits itself.
 * scale: fp32[1].
 * Everything is relative to the row's largest logit m, so no logit is too large. A row is
 * read once for m and the sum together: whenever m grows, the sum so far is scaled by
 * e^(old m - new m). It is read a second time for the gradient.
 * -inf logits have probability 0; +inf or NaN make the row's loss NaN.
 *
 * Where ranks have some columns [from, from + held) of the V each, it takes three kernels:
 *   xent_statistics   (R,3): m and sum of the own columns, and the target's logit or 0
 *   xent_combine      those of all ranks, (ranks,R,3), to loss and top (R,2): m and sum of the row
 *   xent_gradient     dlogits of the own columns from top
 *   xent_hits         whether the target's logit is the largest of the row, from all ranks' statistics
 *
 * Rows     CPU: a work-item owns `per` rows. GPU: a work-group owns a row.
 * sum_all  one work-item (CPU) or one work-group (GPU) adds everything, always in the same
 *          order: it gets one number a row.
 * Nothing but the macros of cl/common.clh is set by the host.                             */
#include "common.clh"
#include "random.clh"

/* A row's weight; 0 if it is ignored. */
static float weight_of(__global const int *target, __global const float *weight, int r, int V)
{
    return target[r] < 0 || target[r] >= V ? 0.0f : weight ? weight[r] : 1.0f;
}

#ifdef STYLE_CPU

#define PIECE (64 * VW)         /* logits whose largest is found before their exps are summed */

/* A row's largest logit, and the sum of e^(logit - it). */
static void row_top(__global const float *logits, size_t at, int V, float *top, float *total)
{
    const floatV nothing = -INFINITY;
    const int whole = V - V % VW;               /* the ragged end is handled lane by lane */
    float m = -INFINITY;
    floatV sum = 0.0f;
    for (int v = whole; v < V; v++)
        m = fmax(m, logits[at + v]);
    if (whole < V) {
        const float base = m == -INFINITY ? 0.0f : m;
        sum = some(expV(load_part_f32(logits, at + whole, V - whole) - base), V - whole);
    }
    for (int piece = 0; piece < whole; piece += PIECE) {
        const int end = min(whole, piece + PIECE);
        floatV most = nothing;
        for (int v = piece; v < end; v += VW)
            most = fmax(most, loadV_f32(logits, at + v));
        const float now = maxV(most);
        if (now > m) {
            sum *= m == -INFINITY ? 0.0f : exp(m - now);
            m = now;
        }
        const float base = m == -INFINITY ? 0.0f : m;
        floatV part = 0.0f;
        for (int v = piece; v < end; v += VW)
            part += expV(loadV_f32(logits, at + v) - base);
        sum += part;
    }
    *top = m;
    *total = sumV(sum);
}

static void row_clear(__global store_t *dlogits, size_t at, int V)
{
    for (int v = 0; v < V; v += VW)
        store_some(dlogits, at + v, 0.0f, V - v);
}

/* hit: the target's column, or one outside [0, V). dlogits may be logits. */
static void row_gradient(__global const float *logits, __global store_t *dlogits, size_t at, int V,
                         int hit, float m, float total, float scale)
{
    const float factor = scale / total, chosen = 0 <= hit && hit < V ? logits[at + hit] : 0.0f;
    for (int v = 0; v < V; v += VW)
        store_some(dlogits, at + v, expV(load_some_f32(logits, at + v, V - v) - m) * factor, V - v);
    if (0 <= hit && hit < V)
        store1(dlogits, at + hit, exp(chosen - m) * factor - scale);
}

KERNEL void xent(int per, int R, int V, __global const float *logits, __global const int *target,
                 __global const float *weight, __global const float *scale, __global float *loss,
                 __global store_t *dlogits)
{
    const int first = get_global_id(0) * per, last = min(R, first + per);
    for (int r = first; r < last; r++) {
        const size_t at = (size_t)r * V;
        const int hit = target[r];
        const float w = weight_of(target, weight, r, V);
        float m, total;
        if (w == 0.0f) {
            loss[r] = 0.0f;
            if (dlogits)
                row_clear(dlogits, at, V);
            continue;
        }
        row_top(logits, at, V, &m, &total);
        loss[r] = ((m - logits[at + hit]) + log(total)) * w;
        if (dlogits)
            row_gradient(logits, dlogits, at, V, hit, m, total, scale[0] * w);
    }
}

KERNEL void xent_statistics(int per, int R, int from, int held, __global const float *logits,
                            __global const int *target, __global float *statistics)
{
    const int first = get_global_id(0) * per, last = min(R, first + per);
    for (int r = first; r < last; r++) {
        const size_t at = (size_t)r * held;
        const int hit = target[r] - from;
        float m, total;
        row_top(logits, at, held, &m, &total);
        vstore3((float3)(m, total, 0 <= hit && hit < held ? logits[at + hit] : 0.0f), r, statistics);
    }
}

KERNEL void xent_gradient(int per, int R, int V, int from, int held, __global const float *logits,
                          __global const int *target, __global const float *weight,
                          __global const float *scale, __global const float *top,
                          __global store_t *dlogits)
{
    const int first = get_global_id(0) * per, last = min(R, first + per);
    for (int r = first; r < last; r++) {
        const size_t at = (size_t)r * held;
        const float w = weight_of(target, weight, r, V);
        if (w == 0.0f)
            row_clear(dlogits, at, held);
        else
            row_gradient(logits, dlogits, at, held, target[r] - from, top[2 * r], top[2 * r + 1],
                         scale[0] * w);
    }
}

KERNEL void sum_all(ulong n, __global const float *x, __global float *out, int add)
{
    floatV sum[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
    ulong i = 0;
    for (; i + 4 * VW <= n; i += 4 * VW)
        for (int j = 0; j < 4; j++)
            sum[j] += loadV_f32(x, i + j * VW);
    for (; i < n; i += VW)
        sum[0] += load_some_f32(x, i, (int)min((ulong)VW, n - i));
    const float total = sumV((sum[0] + sum[1]) + (sum[2] + sum[3]));
    out[0] = add ? out[0] + total : total;
}

#else

/* A row's largest logit, and the sum of e^(logit - it). Past the end of a row tiles read 0, which
 * is no logit; -inf has no weight. */
static void row_top(__global const float *logits, int r, int V, float *top, float *total,
                    __local float *tmp)
{
    float most = -INFINITY, sum = 0.0f;
    for (int t = 0; t < V; t += TILE) {
        const float4 x = select((float4)(-INFINITY), tile_load_f32(logits, r, t, V),
                                tile_mask(t, V) > 0.0f);
        const float now = fmax(most, maxV(x));
        if (now > most) {
            sum *= most == -INFINITY ? 0.0f : exp(most - now);
            most = now;
        }
        sum += sumV(exp(x - (most == -INFINITY ? 0.0f : most)));
    }
    const float m = group_max(most, tmp);
    if (most < m)
        sum *= most == -INFINITY ? 0.0f : exp(most - m);
    *top = m;
    *total = group_sum(sum, tmp);
}

static void row_clear(__global store_t *dlogits, int r, int V)
{
    for (int t = 0; t < V; t += TILE)
        tile_store(dlogits, r, t, V, 0.0f);
}

/* hit: the target's column, or one outside [0, V). dlogits may be logits: a work-item reads only
 * what it then overwrites. */
static void row_gradient(__global const float *logits, __global store_t *dlogits, int r, int V,
                         int hit, float m, float total, float scale)
{
    const float factor = scale / total;
    for (int t = 0; t < V; t += TILE) {
        float4 d = exp(tile_load_f32(logits, r, t, V) - m) * factor;
        d.s0 -= tile_column(t, 0, V) == hit ? scale : 0.0f;
        d.s1 -= tile_column(t, 1, V) == hit ? scale : 0.0f;
        d.s2 -= tile_column(t, 2, V) == hit ? scale : 0.0f;
        d.s3 -= tile_column(t, 3, V) == hit ? scale : 0.0f;
        tile_store(dlogits, r, t, V, d);
    }
}

KERNEL void xent(int per, int R, int V, __global const float *logits, __global const int *target,
                 __global const float *weight, __global const float *scale, __global float *loss,
                 __global store_t *dlogits)
{
    __local float tmp[WG];
    const int r = get_group_id(0), me = get_local_id(0), hit = target[r];
    const float w = weight_of(target, weight, r, V);
    float m, total;

    if (w == 0.0f) {                            /* the same for the whole group */
        if (me == 0)
            loss[r] = 0.0f;
        if (dlogits)
            row_clear(dlogits, r, V);
        return;
    }
    row_top(logits, r, V, &m, &total, tmp);
    const float chosen = logits[(size_t)r * V + hit];
    if (me == 0)
        loss[r] = ((m - chosen) + log(total)) * w;
    if (!dlogits)
        return;
    barrier(CLK_GLOBAL_MEM_FENCE);              /* dlogits may be logits: all have read chosen */
    row_gradient(logits, dlogits, r, V, hit, m, total, scale[0] * w);
}

KERNEL void xent_statistics(int per, int R, int from, int held, __global const float *logits,
                            __global const int *target, __global float *statistics)
{
    __local float tmp[WG];
    const int r = get_group_id(0), hit = target[r] - from;
    float m, total;
    row_top(logits, r, held, &m, &total, tmp);
    if (get_local_id(0) == 0)
        vstore3((float3)(m, total, 0 <= hit && hit < held ? logits[(size_t)r * held + hit] : 0.0f),
                r, statistics);
}

KERNEL void xent_gradient(int per, int R, int V, int from, int held, __global const float *logits,
                          __global const int *target, __global const float *weight,
                          __global const float *scale, __global const float *top,
                          __global store_t *dlogits)
{
    const int r = get_group_id(0);
    const float w = weight_of(target, weight, r, V);
    if (w == 0.0f)
        row_clear(dlogits, r, held);
    else
        row_gradient(logits, dlogits, r, held, target[r] - from, top[2 * r], top[2 * r + 1], scale[0] * w);
}

KERNEL void sum_all(ulong n, __global const float *x, __global float *out, int add)
{
    __local float tmp[WG];
    float sum[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
    for (ulong i = get_local_id(0); i < n; i += 4 * WG)
        for (int j = 0; j < 4; j++)
            if (i + j * WG < n)
                sum[j] += x[i + j * WG];
    const float total = group_sum((sum[0] + sum[1]) + (sum[2] + sum[3]), tmp);
    if (get_local_id(0) == 0)
        out[0] = add ? out[0] + total : total;
}

#endif

/* Few numbers a row, so one body for both styles: a work-item owns rows, get_global_size apart. */
KERNEL void xent_combine(int R, int ranks, int V, __global const float *statistics,
                         __global const int *target, __global const float *weight,
                         __global float *loss, __global float *top)
{
    for (int r = get_global_id(0); r < R; r += get_global_size(0)) {
        const float w = weight_of(target, weight, r, V);
        float m = -INFINITY, total = 0.0f, chosen = 0.0f;
        for (int k = 0; k < ranks; k++)
            m = fmax(m, statistics[3 * ((size_t)k * R + r)]);
        for (int k = 0; k < ranks; k++) {
            const float3 s = vload3((size_t)k * R + r, statistics);
            total += s.s0 == m || s.s0 == -INFINITY ? s.s1 : s.s1 * exp(s.s0 - m);
            chosen += s.s2;
        }
        loss[r] = w == 0.0f ? 0.0f : ((m - chosen) + log(total)) * w;
        vstore2((float2)(m, total), r, top);
    }
}

KERNEL void xent_hits(int R, int ranks, int V, __global const float *statistics,
                      __global const int *target, __global float *hit)
{
    for (int r = get_global_id(0); r < R; r += get_global_size(0)) {
        float m = -INFINITY, chosen = 0.0f;
        for (int k = 0; k < ranks; k++) {
            m = fmax(m, statistics[3 * ((size_t)k * R + r)]);
            chosen += statistics[3 * ((size_t)k * R + r) + 2];
        }
        hit[r] = 0 <= target[r] && target[r] < V && chosen == m ? 1.0f : 0.0f;
    }
}
