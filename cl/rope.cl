/* SPDX-License-Identifier: MIT */
/* cl/rope.cl - rotary positions: pairs of columns turned by an angle of their position.
 *
 *   head of D columns    [ u0 u1 u2 | v0 v1 v2 ]      pairs are D / 2 apart, as transformers has them
 *   u' = u cos - v sin,   v' = v cos + u sin          sin is negated to turn back (the gradient)
 *
 * x, y: (B,T) rows of H heads of D side by side, storage type. table: fp32 (positions, D), of a position
 * D / 2 cosines, then as many sines; whatever scales angles or lengths is in its numbers. Row (b,t) is at
 * position first[0] + t, or t where first is null.
 *
 * CPU: a work-item owns `per` rows. GPU: a work-group owns a row, a work-item pairs of it.   */
#include "common.clh"

#ifdef STYLE_CPU

KERNEL void rope(int per, int R, int T, int H, int D, int back, __global const store_t *x,
                 __global const float *table, __global const int *first, __global store_t *y)
{
    const int begin = get_global_id(0) * per, end = min(R, begin + per), half_ = D / 2;
    const float sign = back ? -1.0f : 1.0f;
    for (int r = begin; r < end; r++) {
        const size_t turn = ((size_t)(first ? first[0] : 0) + r % T) * D;
        for (int h = 0; h < H; h++) {
            const size_t at = ((size_t)r * H + h) * D;
            for (int i = 0; i < half_; i += VW) {
                const int count = half_ - i;
                const floatV c = load_some_f32(table, turn + i, count);
                const floatV s = sign * load_some_f32(table, turn + half_ + i, count);
                const floatV u = load_some(x, at + i, count), v = load_some(x, at + half_ + i, count);
                store_some(y, at + i, u * c - v * s, count);
                store_some(y, at + half_ + i, v * c + u * s, count);
            }
        }
    }
}

#else

KERNEL void rope(int per, int R, int T, int H, int D, int back, __global const store_t *x,
                 __global const float *table, __global const int *first, __global store_t *y)
{
    const int r = get_group_id(0), half_ = D / 2;
    const size_t turn = ((size_t)(first ? first[0] : 0) + r % T) * D;
    for (int p = get_local_id(0); p < H * half_; p += WG) {
        const int i = p % half_;
        const size_t at = ((size_t)r * H + p / half_) * D + i;
        const float c = table[turn + i], s = back ? -table[turn + half_ + i] : table[turn + half_ + i];
        const float u = load1(x, at), v = load1(x, at + half_);
        store1(y, at, u * c - v * s);
        store1(y, at + half_, v * c + u * s);
    }
}

#endif
