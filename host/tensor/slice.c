/* SPDX-License-Identifier: MIT */
/* host/tensor/slice.c - a slice is runs of contiguous memory at a stride. */
#include "host/tensor/slice.h"

#include <string.h>

/* Runs: `outer` x parts of them, each `run` floats, `stride` apart in the full tensor. */
typedef struct runs {
    int64_t count, run, stride, first;
} runs;

static runs runs_of(const shape *whole, const tensor_slice *s)
{
    if (!s->parts) {
        const int64_t n = shape_count(whole);
        return (runs){ 1, n, n, 0 };
    }
    int64_t outer = 1, inner = 1;
    for (int i = 0; i < s->dim; i++)
        outer *= whole->dim[i];
    for (int i = s->dim + 1; i < whole->rank; i++)
        inner *= whole->dim[i];
    return (runs){ outer * s->parts, s->count * inner, s->full * inner, s->begin * inner };
}

shape tensor_slice_shape(const shape *full, const tensor_slice *s)
{
    shape local = *full;
    if (s->parts)
        local.dim[s->dim] = s->parts * s->count;
    return local;
}

int tensor_slice_equal(const tensor_slice *a, const tensor_slice *b)
{
    return a->parts == b->parts
           && (!a->parts || (a->dim == b->dim && a->full == b->full && a->begin == b->begin && a->count == b->count));
}

int tensor_slice_fits(const shape *full, const tensor_slice *s)
{
    return s->parts == 0
           || (s->parts > 0 && 0 <= s->dim && s->dim < full->rank && s->full > 0 && full->dim[s->dim] % s->parts == 0
               && full->dim[s->dim] / s->parts == s->full && 0 <= s->begin && 0 < s->count
               && s->begin <= s->full - s->count);
}

void tensor_slice_take(float *local, const float *full, const shape *whole, const tensor_slice *s)
{
    const runs r = runs_of(whole, s);
    for (int64_t i = 0; i < r.count; i++)
        memcpy(local + i * r.run, full + i * r.stride + r.first, (size_t)r.run * sizeof *local);
}

void tensor_slice_put(float *full, const float *local, const shape *whole, const tensor_slice *s)
{
    const runs r = runs_of(whole, s);
    for (int64_t i = 0; i < r.count; i++)
        memcpy(full + i * r.stride + r.first, local + i * r.run, (size_t)r.run * sizeof *local);
}

int64_t tensor_slice_run(const shape *whole, const tensor_slice *s, int64_t local, int64_t *full)
{
    const runs r = runs_of(whole, s);
    *full = local / r.run * r.stride + r.first + local % r.run;
    return r.run - local % r.run;
}
