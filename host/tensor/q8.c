/* SPDX-License-Identifier: MIT */
/* host/tensor/q8.c - rounding to 8 bits a block, and back. */
#include "host/tensor/q8.h"

#include <math.h>
#include <string.h>

q8 q8_of(const shape *held, const tensor_slice *s)
{
    const int64_t columns = held->rank ? held->dim[held->rank - 1] : 1;
    const int cut = s->parts > 0 && s->dim == held->rank - 1;
    return (q8){ columns ? shape_count(held) / columns : 0, columns, cut ? (int)(s->begin % Q8_BLOCK) : 0 };
}

int64_t q8_in_row(q8 b)
{
    return (b.first + b.columns + Q8_BLOCK - 1) / Q8_BLOCK;
}

uint64_t q8_scales_at(q8 b)
{
    return ((uint64_t)(b.rows * b.columns) + Q8_ALIGN - 1) / Q8_ALIGN * Q8_ALIGN;
}

uint64_t q8_bytes(q8 b)
{
    return q8_scales_at(b) + 4 * (uint64_t)(b.rows * q8_in_row(b));
}

int q8_fits(const shape *full, const tensor_slice *s)
{
    return full->rank >= 2 && !(s->parts > 1 && s->dim == full->rank - 1);
}

static float scale_of(const float *x, int64_t n)
{
    float most = 0.0f;
    uint32_t bits;
    for (int64_t i = 0; i < n; i++)
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    most /= 127.0f;
    memcpy(&bits, &most, sizeof bits);
    bits = (bits + 0xffu) & ~0xffu;
    memcpy(&most, &bits, sizeof most);
    return most;
}

static int8_t round_to(float x, float scale)
{
    const float q = scale > 0.0f ? rintf(x / scale) : 0.0f;
    return (int8_t)(q > 127.0f ? 127.0f : q < -127.0f ? -127.0f : q);
}

void q8_store(void *out, const float *full, const shape *whole, const tensor_slice *s)
{
    const shape held = tensor_slice_shape(whole, s);
    const q8 b = q8_of(&held, s);
    const int64_t width = whole->dim[whole->rank - 1], each = q8_in_row(b);
    int8_t *q = out;
    float *scales = (float *)((char *)out + q8_scales_at(b));
    for (int64_t row = 0; row < b.rows; row++) {
        int64_t at = row * b.columns;
        if (s->parts)
            tensor_slice_run(whole, s, at, &at);
        const float *x = full + at / width * width;         /* the whole row */
        const int64_t from = at % width;
        for (int64_t k = 0; k < each; k++) {
            const int64_t begin = from - b.first + k * Q8_BLOCK,
                          end = begin + Q8_BLOCK < width ? begin + Q8_BLOCK : width;
            const float scale = scale_of(x + begin, end - begin);
            scales[row * each + k] = scale;
            for (int64_t i = begin > from ? begin : from; i < end && i < from + b.columns; i++)
                q[row * b.columns + i - from] = round_to(x[i], scale);
        }
    }
}

void q8_load_part(float *to, int64_t ld, const void *from, q8 b, int64_t row, int64_t rows, int64_t column,
                  int64_t columns)
{
    const int8_t *q = from;
    const char *scales = (const char *)from + q8_scales_at(b);      /* in files not always on whole words */
    const int64_t each = q8_in_row(b), end = column + columns;
    for (int64_t r = row; r < row + rows; r++, to += ld)
        for (int64_t c = column; c < end;) {
            const int64_t block = (b.first + c) / Q8_BLOCK, edge = (block + 1) * Q8_BLOCK - b.first;
            float scale;
            memcpy(&scale, scales + 4 * (r * each + block), sizeof scale);
            const int8_t *x = q + r * b.columns + c;
            float *y = to + (c - column);
            if (edge - c == Q8_BLOCK && edge <= end)        /* of a length that compilers make vectors of */
                for (int i = 0; i < Q8_BLOCK; i++)
                    y[i] = (float)x[i] * scale;
            else
                for (int64_t i = 0; i < edge - c && i < end - c; i++)
                    y[i] = (float)x[i] * scale;
            c = edge;
        }
}

void q8_load(float *to, const void *from, q8 b)
{
    q8_load_part(to, b.columns, from, b, 0, b.rows, 0, b.columns);
}
