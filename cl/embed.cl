/* SPDX-License-Identifier: MIT */
/* cl/embed.cl - rows of the embedding tables, and their gradients.
 *
 *   y[b,t,:]       = token[x[b,t],:] + position[offset + first + t,:] + type[kind[b,t],:]
 *   dtoken[v,:]   += sum of dy[r,:] over the rows r with x[r] = v
 *   dposition[offset + t,:] (+)= sum over b of dy[b,t,:]
 *   dtype[k,:]    (+)= sum of dy[r,:] over the rows r with kind[r] = k
 *
 * x: int (B,T). token: (V,C), position: (T..,C) or null, y, dy: (B,T,C), storage type. kind: int (B,T)
 * below K, type: (K,C), or both null.
 * dtoken: fp32 (V,C), dposition: fp32 (T..,C), dtype: fp32 (K,C). first: int[1] or null.
 * order, starts: the rows grouped by token, as kernel_embed_sort (host) makes them, so that
 * one owner adds up a token's rows, in order of their index and without atomics.
 *
 * Rows     CPU: a work-item owns `per` rows of y, or of dposition. GPU: a work-group one.
 * Tokens   CPU: a work-item, GPU: a work-group, owns every get_num_groups-th token of the
 *          batch: there may be few of them, and most may be rare.
 * Types    a work-item owns columns: there are few types and many rows of each.
 * A rank may hold rows [from, from + held) of the table alone: other tokens' rows are 0 here, so
 * that the sum over ranks is y. A token outside [0, V), or a kind outside [0, K), gives a row of NaN: the
 * loss shows it, and nothing is read that is not in the table. Nothing but the macros of cl/common.clh is set by the
 * host.                                                                                    */
#include "common.clh"
#include "random.clh"

#ifdef STYLE_CPU

KERNEL void embed(int per, int R, int T, int C, int V, int from, int held,
                  __global const int *x, __global const store_t *token,
                  __global const store_t *position, int offset, __global const int *first,
                  int K, __global const int *kind, __global const store_t *type,
                  __global store_t *y)
{
    const int begin = get_global_id(0) * per, end = min(R, begin + per);
    const int shift = offset + (first ? first[0] : 0);
    for (int r = begin; r < end; r++) {
        const int id = x[r], k = kind ? kind[r] : 0;
        const int typed = 0 <= k && k < K;
        const int known = 0 <= id && id < V, own = from <= id && id < from + held;
        const size_t row = (size_t)(own ? id - from : 0) * C, to = (size_t)r * C;
        const size_t at = (size_t)(shift + r % T) * C;
        const float add = known ? 0.0f : NAN;
        for (int c = 0; c < C; c += VW) {
            floatV v = own ? load_some(token, row + c, C - c) : (floatV)add;
            if (position)
                v += load_some(position, at + c, C - c);
            if (kind)
                v += typed ? load_some(type, (size_t)k * C + c, C - c) : (floatV)NAN;
            store_some(y, to + c, v, C - c);
        }
    }
}

KERNEL void embed_token_grad(int C, int from, int held, __global const int *x,
                             __global const int *order, __global const int *starts,
                             __global const store_t *dy, __global float *dtoken)
{
    const int groups = starts[0];
    for (int g = get_global_id(0); g < groups; g += get_global_size(0)) {
        const int begin = starts[1 + g], end = starts[2 + g], row = x[order[begin]] - from;
        __global float *to = dtoken + (size_t)row * C;
        if (row < 0 || row >= held)
            continue;
        for (int i = begin; i < end; i += 4)        /* four rows at a time, for fewer roundings */
            for (int c = 0; c < C; c += VW) {
                floatV v[4];
                for (int j = 0; j < 4; j++)
                    v[j] = i + j < end ? load_some(dy, (size_t)order[i + j] * C + c, C - c)
                                       : (floatV)0.0f;
                const floatV sum = (v[0] + v[1]) + (v[2] + v[3]);
                store_some_f32(to, c, load_some_f32(to, c, C - c) + sum, C - c);
            }
    }
}

KERNEL void embed_position_grad(int per, int B, int T, int C, int offset,
                                __global const store_t *dy, __global float *dposition, int add)
{
    const int first = get_global_id(0) * per, last = min(T, first + per);
    for (int t = first; t < last; t++)
        for (int c = 0; c < C; c += VW) {
            floatV sum[2] = { 0.0f, 0.0f };
            for (int b = 0; b < B; b++)
                sum[b & 1] += load_some(dy, ((size_t)b * T + t) * C + c, C - c);
            const size_t at = (size_t)(offset + t) * C + c;
            floatV total = sum[0] + sum[1];
            if (add)
                total += load_some_f32(dposition, at, C - c);
            store_some_f32(dposition, at, total, C - c);
        }
}

#else

KERNEL void embed(int per, int R, int T, int C, int V, int from, int held,
                  __global const int *x, __global const store_t *token,
                  __global const store_t *position, int offset, __global const int *first,
                  int K, __global const int *kind, __global const store_t *type,
                  __global store_t *y)
{
    const int r = get_group_id(0), id = x[r], k = kind ? kind[r] : 0;
    const int typed = 0 <= k && k < K;
    const int known = 0 <= id && id < V, own = from <= id && id < from + held;
    const int at = offset + (first ? first[0] : 0) + r % T;
    const float add = known ? 0.0f : NAN;
    for (int t = 0; t < C; t += TILE) {
        float4 v = own ? tile_load(token, id - from, t, C) : (float4)add;
        if (position)
            v += tile_load(position, at, t, C);
        if (kind)
            v += typed ? tile_load(type, k, t, C) : (float4)NAN;
        tile_store(y, r, t, C, v);
    }
}

KERNEL void embed_token_grad(int C, int from, int held, __global const int *x,
                             __global const int *order, __global const int *starts,
                             __global const store_t *dy, __global float *dtoken)
{
    const int groups = starts[0];
    for (int g = get_group_id(0); g < groups; g += get_num_groups(0)) {
        const int begin = starts[1 + g], end = starts[2 + g], row = x[order[begin]] - from;
        __global float *to = dtoken + (size_t)row * C;
        if (row < 0 || row >= held)
            continue;
        for (int c = get_local_id(0); c < C; c += WG) {
            float sum = to[c];
            for (int i = begin; i < end; i += 4) {
                float v[4];
                for (int j = 0; j < 4; j++)
                    v[j] = i + j < end ? load1(dy, (size_t)order[i + j] * C + c) : 0.0f;
                sum += (v[0] + v[1]) + (v[2] + v[3]);
            }
            to[c] = sum;
        }
    }
}

KERNEL void embed_position_grad(int per, int B, int T, int C, int offset,
                                __global const store_t *dy, __global float *dposition, int add)
{
    const int t = get_group_id(0);
    for (int c = get_local_id(0); c < C; c += WG) {
        float sum[2] = { 0.0f, 0.0f };
        for (int b = 0; b < B; b++)
            sum[b & 1] += load1(dy, ((size_t)b * T + t) * C + c);
        const size_t at = (size_t)(offset + t) * C + c;
        dposition[at] = add ? dposition[at] + (sum[0] + sum[1]) : sum[0] + sum[1];
    }
}

#endif

/* Of rows of C: a GPU's vector forms want every row aligned. */
#ifdef STYLE_CPU
#define IN_VECTORS(C) 1
#else
#define IN_VECTORS(C) (((C) & 3) == 0)
#endif

#define TYPE_ROWS 64            /* added up before they are added to the sum, for fewer roundings */

KERNEL void embed_type_grad(int R, int C, int K, __global const int *kind,
                            __global const store_t *dy, __global float *dtype, int add)
{
    for (int c = get_global_id(0) * VW; c < C; c += get_global_size(0) * VW)
        for (int k = 0; k < K; k++) {
            floatV total = 0.0f;
            for (int from = 0; from < R; from += TYPE_ROWS) {
                floatV sum[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
                const int end = min(R, from + TYPE_ROWS);
                for (int r = from; r < end; r += 4)
#pragma unroll
                    for (int j = 0; j < 4; j++)         /* numbers known at compile time: sums in registers */
                        if (r + j < end && kind[r + j] == k)
                            sum[j] += IN_VECTORS(C) ? load_some(dy, (size_t)(r + j) * C + c, C - c)
                                                    : load_part(dy, (size_t)(r + j) * C + c, C - c);
                total += (sum[0] + sum[1]) + (sum[2] + sum[3]);
            }
            const size_t at = (size_t)k * C + c;
            if (add)
                total += IN_VECTORS(C) ? load_some_f32(dtype, at, C - c) : load_part_f32(dtype, at, C - c);
            if (IN_VECTORS(C))
                store_some_f32(dtype, at, total, C - c);
            else
                store_part_f32(dtype, at, total, C - c);
        }
}
