/* SPDX-License-Identifier: MIT */
/* cl/rows.cl - some rows of each sequence, their gradient, which rows of logits are right, and rows of a table side by
 * side.
 *
 *   y[b,p,:]  = x[b,at[b,p],:]                                0 where at is outside [0, T)
 *   dx[b,t,:] = sum of dy[b,p,:] over the p with at[b,p] = t, in their order
 *   packed[n,:] = table[list[n],:]  or, back, table[list[n],:] = packed[n,:]          n < N
 *   hit[r]    = 1 if the largest of logits[r] stands at target[r], the first of equals; else 0
 *
 * table, packed: fp32 rows of C; list: int (N), each row once. x, dx: (B,T,C), y, dy: (B,P,C), storage type. at: int (B,P), or null for row 0 of each sequence.
 * logits: fp32 (R,V), target: int (R), hit: fp32 (R). A target outside [0, V) is never hit.
 *
 * Rows     CPU: a work-item owns `per` rows. GPU: a work-group owns a row.
 * Packed   CPU: a work-item, GPU: a work-group, owns every k-th row of the list: N changes from run to run.
 * Hits     a work-item owns a row: V is a number of labels.
 * Nothing but the macros of cl/common.clh is set by the host.                             */
#include "common.clh"

#ifdef STYLE_CPU

KERNEL void take_rows(int per, int N, int T, int P, int C, __global const store_t *x,
                      __global const int *at, __global store_t *y)
{
    const int first = get_global_id(0) * per, last = min(N, first + per);
    for (int n = first; n < last; n++) {
        const int t = at ? at[n] : 0, there = 0 <= t && t < T;
        const size_t from = ((size_t)(n / P) * T + (there ? t : 0)) * C, to = (size_t)n * C;
        for (int c = 0; c < C; c += VW)
            store_some(y, to + c, there ? load_some(x, from + c, C - c) : (floatV)0.0f, C - c);
    }
}

KERNEL void take_rows_grad(int per, int R, int T, int P, int C, __global const int *at,
                           __global const store_t *dy, __global store_t *dx)
{
    const int first = get_global_id(0) * per, last = min(R, first + per);
    for (int r = first; r < last; r++) {
        const int t = r % T, from = r / T * P;
        for (int c = 0; c < C; c += VW) {
            floatV sum = 0.0f;
            for (int p = 0; p < P; p++)
                if ((at ? at[from + p] : 0) == t)
                    sum += load_some(dy, (size_t)(from + p) * C + c, C - c);
            store_some(dx, (size_t)r * C + c, sum, C - c);
        }
    }
}

#else

KERNEL void take_rows(int per, int N, int T, int P, int C, __global const store_t *x,
                      __global const int *at, __global store_t *y)
{
    const int n = get_group_id(0), t = at ? at[n] : 0, there = 0 <= t && t < T;
    const int from = n / P * T + (there ? t : 0);
    for (int c = 0; c < C; c += TILE)
        tile_store(y, n, c, C, there ? tile_load(x, from, c, C) : (float4)0.0f);
}

KERNEL void take_rows_grad(int per, int R, int T, int P, int C, __global const int *at,
                           __global const store_t *dy, __global store_t *dx)
{
    const int r = get_group_id(0), t = r % T, from = r / T * P;
    for (int c = 0; c < C; c += TILE) {
        float4 sum = 0.0f;
        for (int p = 0; p < P; p++)
            if ((at ? at[from + p] : 0) == t)
                sum += tile_load(dy, from + p, c, C);
        tile_store(dx, r, c, C, sum);
    }
}

#endif

KERNEL void pack_rows(int N, int C, int back, __global const int *list, __global float *table,
                      __global float *packed)
{
#ifdef STYLE_CPU
    for (int n = get_global_id(0); n < N; n += get_global_size(0)) {
        __global float *there = table + (size_t)list[n] * C, *here = packed + (size_t)n * C;
        __global const float *from = back ? here : there;
        __global float *to = back ? there : here;
        for (int c = 0; c < C; c += VW)
            store_some_f32(to, c, load_some_f32(from, c, C - c), C - c);
    }
#else
    for (int n = get_group_id(0); n < N; n += get_num_groups(0)) {
        __global float *there = table + (size_t)list[n] * C, *here = packed + (size_t)n * C;
        for (int c = get_local_id(0); c < C; c += WG) {
            if (back)
                there[c] = here[c];
            else
                here[c] = there[c];
        }
    }
#endif
}

KERNEL void row_hits(int R, int V, __global const float *logits, __global const int *target,
                     __global float *hit)
{
    for (int r = get_global_id(0); r < R; r += get_global_size(0)) {
        int best = 0;
        for (int v = 1; v < V; v++)
            if (logits[(size_t)r * V + v] > logits[(size_t)r * V + best])
                best = v;
        hit[r] = target[r] == best ? 1.0f : 0.0f;
    }
}
