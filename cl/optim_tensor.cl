/* SPDX-License-Identifier: MIT */
/* cl/optim_tensor.cl - update rules that need a tensor as a whole: Muon and Adafactor.
 *
 * Muon (Jordan et al. 2024), what is not a matrix product (host/optim/optim_muon.c):
 *   g = grad * CLIP;  m = m + (1 - mu)(g - m);  u = g + mu (m - g);  x = u / (|u| + eps)
 *   ... o from x ...;  p = p - lr decay p - lr scale o
 * Adafactor (Shazeer and Stern 2018, algorithm 4), of a matrix (R,C) and of a vector (second):
 *   g = grad * CLIP;  rest = step^-rate;  s = g g + 1e-30
 *   rows[i] += rest (mean over j of s[i,j] - rows[i]);  columns[j] likewise over i
 *   u = g / sqrt(max(rows[i] columns[j] / mean(rows), 1e-30))
 *   vector: second += rest (s - second), u = g / sqrt(second)
 *   p = p - lr decay p - lr u / max(1, RMS(u) / d)
 *
 * p, g, m, u, x, o, rows, columns, second: fp32. copy: storage type or null, receives the new p.
 * state: fp32 scalars, as in cl/optim.cl. found: fp32[2], what one launch finds for the next ones:
 * mean(rows), and the factor of the update.
 *
 * Where ranks have slices of a tensor, Muon's u is put together from them (slice_place, and a sum over
 * ranks) and o taken apart again (slice_take); Adafactor's sums over a row or column that is cut, over
 * rows[] and over u are added over ranks between launches (sums: fp32, adafactor_*_squares, _total).
 *
 * Flat kernels own `block` elements a work-item. Row kernels: a work-item (CPU) or group (GPU) owns a
 * row. Column kernels: BAND columns belong to one. Sums have one order: no atomics.         */
#include "common.clh"
#include "random.clh"

#define STEP 0
#define CLIP 5
#define SKIP 6
#define HALTED 10

#define LEAST_SQUARE 1e-30f
#define BAND 64

static int stands_still(__global const float *state)
{
    return state[SKIP] != 0.0f || state[HALTED] != 0.0f;
}

#ifdef STYLE_CPU
#define OWNED ((ulong)get_global_id(0))
#define FIRST 0
#define STRIDE VW
#define SUM_ROOM
#define SUM(v) sumV(v)
#define SPEAKS 1
#else
#define OWNED ((ulong)get_group_id(0))
#define FIRST (VW * (int)get_local_id(0))
#define STRIDE (VW * WG)
#define SUM_ROOM __local float tmp[WG];
#define SUM(v) group_sum(sumV(v), tmp)
#define SPEAKS (get_local_id(0) == 0)
#endif

/* `count` elements of a matrix with C columns from element i on, within a row. On GPUs rows of which the
 * length is no multiple of 4 do not begin where vectors may. */
static floatV row_load_f32(__global const float *p, size_t i, int C, int count)
{
#ifdef STYLE_GPU
    if (C & 3)
        return load_part_f32(p, i, count);
#endif
    return load_some_f32(p, i, count);
}

static void row_store_f32(__global float *p, size_t i, floatV x, int C, int count)
{
#ifdef STYLE_GPU
    if (C & 3) {
        store_part_f32(p, i, x, count);
        return;
    }
#endif
    store_some_f32(p, i, x, count);
}

static void row_store(__global store_t *p, size_t i, floatV x, int C, int count)
{
#ifdef STYLE_GPU
    if (C & 3) {
        store_part(p, i, x, count);
        return;
    }
#endif
    store_some(p, i, x, count);
}

/* ---- slices ------------------------------------------------------------------------------ */

/* An axis of `full` entries, once or several times: of each, [begin, begin + count) are held. */

/* y (n elements, rows of C) = x where it is held, 0 elsewhere */
KERNEL void slice_place(ulong n, uint block, __global const float *x, __global float *y, int C,
                        int row_full, int row_begin, int row_count, int column_full,
                        int column_begin, int column_count)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    const int held = C / column_full * column_count;
    for (ulong i = begin; i < end; i++) {
        const int r = (int)(i / C), c = (int)(i % C);
        const int down = r % row_full - row_begin, across = c % column_full - column_begin;
        const ulong row = (ulong)(r / row_full) * row_count + down;
        y[i] = 0 <= down && down < row_count && 0 <= across && across < column_count
                   ? x[row * held + c / column_full * column_count + across] : 0.0f;
    }
}

/* y (n elements) = what is held of x (rows of C) */
KERNEL void slice_take(ulong n, uint block, __global const float *x, __global float *y, int C,
                       int row_full, int row_begin, int row_count, int column_full,
                       int column_begin, int column_count)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    const int held = C / column_full * column_count;
    for (ulong i = begin; i < end; i++) {
        const int r = (int)(i / held), c = (int)(i % held);
        const ulong row = (ulong)(r / row_count) * row_full + row_begin + r % row_count;
        y[i] = x[row * C + c / column_count * column_full + column_begin + c % column_count];
    }
}

/* ---- Muon -------------------------------------------------------------------------------- */

KERNEL void muon_momentum(ulong n, uint block, __global const float *g, __global float *m,
                          __global float *u, __global const float *state, float mu, float rest)
{
    if (stands_still(state))
        return;
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    const float clip = state[CLIP];
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        const floatV grad = load_some_f32(g, i, count) * clip;
        floatV moment = load_some_f32(m, i, count);
        moment += rest * (grad - moment);
        store_some_f32(m, i, moment, count);
        store_some_f32(u, i, grad + mu * (moment - grad), count);
    }
}

/* out[0] = 1 / (sqrt(sum of partial) + eps) */
KERNEL void inverse_norm(uint count, __global const float *partial, __global float *out, float eps)
{
    SUM_ROOM
    floatV sum = 0.0f;
    for (uint i = FIRST; i < count; i += STRIDE)
        sum += load_some_f32(partial, i, (int)min((uint)VW, count - i));
    const float squares = SUM(sum);
    if (SPEAKS)
        out[0] = 1.0f / (sqrt(squares) + eps);
}

/* y = factor x, times by[0] if there is one */
KERNEL void scale(ulong n, uint block, __global const float *x, __global float *y,
                  __global const float *by, float factor)
{
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    const float f = by ? by[0] * factor : factor;
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        store_some_f32(y, i, load_some_f32(x, i, count) * f, count);
    }
}

KERNEL void muon_step(ulong n, uint block, __global float *p, __global const float *o,
                      __global store_t *copy, __global const float *state, float lr, float factor,
                      float decay)
{
    if (stands_still(state))
        return;
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    const float keep = 1.0f - lr * decay, move = lr * factor;
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        const floatV weight = load_some_f32(p, i, count) * keep - move * load_some_f32(o, i, count);
        store_some_f32(p, i, weight, count);
        if (copy)
            store_some(copy, i, weight, count);
    }
}

/* ---- Adafactor --------------------------------------------------------------------------- */

/* step^-rate: 1 at the first step, so that nothing is left of the zeros that state begins as. */
static float rest_of(__global const float *state, float rate)
{
    return exp(-rate * log(state[STEP]));
}

KERNEL void adafactor_rows(int C, __global const float *g, __global float *rows,
                           __global const float *state, float rate)
{
    SUM_ROOM
    if (stands_still(state))
        return;
    const ulong row = OWNED;
    const float clip = state[CLIP];
    floatV sum = 0.0f;
    for (int c = FIRST; c < C; c += STRIDE) {
        const floatV grad = row_load_f32(g, row * C + c, C, min(VW, C - c)) * clip;
        sum += grad * grad;
    }
    const float mean = SUM(sum) / (float)C + LEAST_SQUARE;
    if (SPEAKS)
        rows[row] += rest_of(state, rate) * (mean - rows[row]);
}

KERNEL void adafactor_columns(int R, int C, __global const float *g, __global float *columns,
                              __global const float *state, float rate)
{
    if (stands_still(state))
        return;
    const float clip = state[CLIP], rest = rest_of(state, rate);
    const int begin = (int)OWNED * BAND, end = min(C, begin + BAND);
    for (int c = begin + FIRST; c < end; c += STRIDE) {
        const int count = min(VW, end - c);
        floatV sum = 0.0f;
        for (int r = 0; r < R; r++) {
            const floatV grad = row_load_f32(g, (ulong)r * C + c, C, count) * clip;
            sum += grad * grad;
        }
        const floatV old = load_some_f32(columns, c, count);
        store_some_f32(columns, c, old + rest * (sum / (float)R + LEAST_SQUARE - old), count);
    }
}

KERNEL void adafactor_second(ulong n, uint block, __global const float *g, __global float *second,
                             __global const float *state, float rate)
{
    if (stands_still(state))
        return;
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    const float clip = state[CLIP], rest = rest_of(state, rate);
    for (ulong i = begin; i < end; i += VW) {
        const int count = (int)min((ulong)VW, end - i);
        const floatV grad = load_some_f32(g, i, count) * clip, old = load_some_f32(second, i, count);
        store_some_f32(second, i, old + rest * (grad * grad + LEAST_SQUARE - old), count);
    }
}

/* found[0] = mean of rows */
KERNEL void adafactor_mean(uint R, __global const float *rows, __global float *found)
{
    SUM_ROOM
    floatV sum = 0.0f;
    for (uint i = FIRST; i < R; i += STRIDE)
        sum += load_some_f32(rows, i, (int)min((uint)VW, R - i));
    const float all = SUM(sum);
    if (SPEAKS)
        found[0] = all / (float)R;
}

/* The update of `count` elements of a row before it is clipped. `ratio` is rows[row] / mean(rows). */
static floatV update_of(__global const float *g, __global const float *columns,
                        __global const float *second, ulong row, int C, int c, int count, float clip,
                        float ratio)
{
    const floatV grad = row_load_f32(g, row * C + c, C, count) * clip;
    const floatV v = second ? load_some_f32(second, c, count) : ratio * load_some_f32(columns, c, count);
    return grad / sqrt(fmax(v, LEAST_SQUARE));  /* 0 behind the end, and where product and mean underflow */
}

static float ratio_of(__global const float *rows, __global const float *found, ulong row)
{
    return rows ? rows[row] / found[0] : 1.0f;
}

/* partial[row] = sum of squares of the row's update */
KERNEL void adafactor_squares(int C, __global const float *g, __global const float *rows,
                              __global const float *columns, __global const float *second,
                              __global const float *found, __global float *partial,
                              __global const float *state)
{
    SUM_ROOM
    if (stands_still(state))
        return;
    const ulong row = OWNED;
    const float clip = state[CLIP], ratio = ratio_of(rows, found, row);
    floatV sum = 0.0f;
    for (int c = FIRST; c < C; c += STRIDE) {
        const floatV u = update_of(g, columns, second, row, C, c, min(VW, C - c), clip, ratio);
        sum += u * u;
    }
    const float squares = SUM(sum);
    if (SPEAKS)
        partial[row] = squares;
}

/* found[1] = 1 / max(1, RMS of the update / most) */
KERNEL void adafactor_limit(uint R, float elements, __global const float *partial,
                            __global float *found, float most)
{
    SUM_ROOM
    floatV sum = 0.0f;
    for (uint i = FIRST; i < R; i += STRIDE)
        sum += load_some_f32(partial, i, (int)min((uint)VW, R - i));
    const float squares = SUM(sum);
    if (SPEAKS)
        found[1] = 1.0f / fmax(1.0f, sqrt(squares / elements) / most);
}

KERNEL void adafactor_step(int C, __global float *p, __global const float *g,
                           __global const float *rows, __global const float *columns,
                           __global const float *second, __global const float *found,
                           __global store_t *copy, __global const float *state, float lr, float decay)
{
    if (stands_still(state))
        return;
    const ulong row = OWNED;
    const float clip = state[CLIP], ratio = ratio_of(rows, found, row), keep = 1.0f - lr * decay;
    const float move = lr * found[1];
    for (int c = FIRST; c < C; c += STRIDE) {
        const int count = min(VW, C - c);
        const floatV u = update_of(g, columns, second, row, C, c, count, clip, ratio);
        const floatV weight = row_load_f32(p, row * C + c, C, count) * keep - move * u;
        row_store_f32(p, row * C + c, weight, C, count);
        if (copy)
            row_store(copy, row * C + c, weight, C, count);
    }
}

/* ---- Adafactor of slices ------------------------------------------------------------------ */

/* sums[row] = sum of the row's g g */
KERNEL void adafactor_row_squares(int C, __global const float *g, __global float *sums,
                                  __global const float *state)
{
    SUM_ROOM
    const ulong row = OWNED;
    const float clip = state[CLIP];
    floatV sum = 0.0f;
    for (int c = FIRST; c < C; c += STRIDE) {
        const floatV grad = row_load_f32(g, row * C + c, C, min(VW, C - c)) * clip;
        sum += grad * grad;
    }
    const float squares = SUM(sum);
    if (SPEAKS)
        sums[row] = squares;
}

/* sums[c] = sum of the column's g g */
KERNEL void adafactor_column_squares(int R, int C, __global const float *g, __global float *sums,
                                     __global const float *state)
{
    const float clip = state[CLIP];
    const int begin = (int)OWNED * BAND, end = min(C, begin + BAND);
    for (int c = begin + FIRST; c < end; c += STRIDE) {
        const int count = min(VW, end - c);
        floatV sum = 0.0f;
        for (int r = 0; r < R; r++) {
            const floatV grad = row_load_f32(g, (ulong)r * C + c, C, count) * clip;
            sum += grad * grad;
        }
        store_some_f32(sums, c, sum, count);
    }
}

/* sums[at] = sum of n of x */
KERNEL void adafactor_total(uint n, __global const float *x, __global float *sums, int at)
{
    SUM_ROOM
    floatV sum = 0.0f;
    for (uint i = FIRST; i < n; i += STRIDE)
        sum += load_some_f32(x, i, (int)min((uint)VW, n - i));
    const float all = SUM(sum);
    if (SPEAKS)
        sums[at] = all;
}

/* x (rows or columns) follows the means that are sums / count */
KERNEL void adafactor_follow(ulong n, uint block, __global const float *sums, __global float *x,
                             __global const float *state, float count, float rate)
{
    if (stands_still(state))
        return;
    const ulong begin = get_global_id(0) * (ulong)block, end = min(n, begin + block);
    const float rest = rest_of(state, rate);
    for (ulong i = begin; i < end; i++)
        x[i] += rest * (sums[i] / count + LEAST_SQUARE - x[i]);
}

/* found[0] = sums[at] / count */
KERNEL void adafactor_found(__global const float *sums, int at, float count, __global float *found)
{
    if (get_global_id(0) == 0)
        found[0] = sums[at] / count;
}
