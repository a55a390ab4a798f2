/* SPDX-License-Identifier: MIT */
/* cl/embed.cl - rows of the embedding tables, and their gradients.
 *
 *   y[b,t,:]       = token[x[b,t],:] + position[first + t,:]
 *   dtoken[v,:]   += sum of dy[r,:] over the rows r with x[r] = v
 *   dposition[t,:] (+)= sum over b of dy[b,t,:]
 *
 * x: int (B,T). token: (V,C), position: (T..,C) or null, y, dy: (B,T,C), storage type.
 * dtoken: fp32 (V,C), dposition: fp32 (T,C). first: int[1] or null.
 * order, starts: the rows grouped by token, as kernel_embed_sort (host) makes them, so that
 * one owner adds up a token's rows, in order of their index and without atomics.
 *
 * Rows     CPU: a work-item owns `per` rows of y, or of dposition. GPU: a work-group one.
 * Tokens   CPU: a work-item, GPU: a work-group, owns every get_num_groups-th token of the
 *          batch: there may be few of them, and most may be rare.
 * A rank may hold rows [from, from + held) of the table alone: other tokens' rows are 0 here, so
 * that the sum over ranks is y. A token outside [0, V) gives a row of NaN: the loss shows it, and
 * nothing is read that is not in the table. Nothing but the macros of cl/common.clh is set by the
 * host.                                                                                    */
#include "common.clh"
#include "random.clh"

#ifdef STYLE_CPU

KERNEL void embed(int per, int R, int T, int C, int V, int from, int held,
                  __global const int *x, __global const store_t *token,
                  __global const store_t *position, __global const int *first,
                  __global store_t *y)
{
    const int begin = get_global_id(0) * per, end = min(R, begin + per);
    const int shift = first ? first[0] : 0;
    for (int r = begin; r < end; r++) {
        const int id = x[r];
        const int known = 0 <= id && id < V, own = from <= id && id < from + held;
        const size_t row = (size_t)(own ? id - from : 0) * C, to = (size_t)r * C;
        const size_t at = (size_t)(shift + r % T) * C;
        const float add = known ? 0.0f : NAN;
        for (int c = 0; c < C; c += VW) {
            floatV v = own ? load_some(token, row + c, C - c) : (floatV)add;
            if (position)
                v += load_some(position, at + c, C - c);
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

KERNEL void embed_position_grad(int per, int B, int T, int C, __global const store_t *dy,
                                __global float *dposition, int add)
{
    const int first = get_global_id(0) * per, last = min(T, first + per);
    for (int t = first; t < last; t++)
        for (int c = 0; c < C; c += VW) {
            floatV sum[2] = { 0.0f, 0.0f };
            for (int b = 0; b < B; b++)
                sum[b & 1] += load_some(dy, ((size_t)b * T + t) * C + c, C - c);
            floatV total = sum[0] + sum[1];
            if (add)
                total += load_some_f32(dposition, (size_t)t * C + c, C - c);
            store_some_f32(dposition, (size_t)t * C + c, total, C - c);
        }
}

#else

KERNEL void embed(int per, int R, int T, int C, int V, int from, int held,
                  __global const int *x, __global const store_t *token,
                  __global const store_t *position, __global const int *first,
                  __global store_t *y)
{
    const int r = get_group_id(0), id = x[r];
    const int known = 0 <= id && id < V, own = from <= id && id < from + held;
    const int at = (first ? first[0] : 0) + r % T;
    const float add = known ? 0.0f : NAN;
    for (int t = 0; t < C; t += TILE) {
        float4 v = own ? tile_load(token, id - from, t, C) : (float4)add;
        if (position)
            v += tile_load(position, at, t, C);
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

KERNEL void embed_position_grad(int per, int B, int T, int C, __global const store_t *dy,
                                __global float *dposition, int add)
{
    const int t = get_group_id(0);
    for (int c = get_local_id(0); c < C; c += WG) {
        float sum[2] = { 0.0f, 0.0f };
        for (int b = 0; b < B; b++)
            sum[b & 1] += load1(dy, ((size_t)b * T + t) * C + c);
        const size_t at = (size_t)t * C + c;
        dposition[at] = add ? dposition[at] + (sum[0] + sum[1]) : sum[0] + sum[1];
    }
}

#endif
