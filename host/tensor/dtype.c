/* SPDX-License-Identifier: MIT */
/* host/tensor/dtype.c - storage types: names, sizes, one number in and out.
 *
 * No hardware half type is used (host/base/half.h): the same bits come out on every host, and they are what
 * vstore_half and the bf16 shifts of cl/common.clh give on every device.                */
#include "host/tensor/dtype.h"

#include "host/base/half.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    size_t size;
} types[DTYPE_COUNT] = {
    [DTYPE_F32] = { "fp32", 4 }, [DTYPE_BF16] = { "bf16", 2 }, [DTYPE_F16] = { "fp16", 2 }, [DTYPE_I32] = { "i32", 4 },
    [DTYPE_U32] = { "u32", 4 },  [DTYPE_F64] = { "fp64", 8 },  [DTYPE_I64] = { "i64", 8 },  [DTYPE_U16] = { "u16", 2 },
    [DTYPE_U8] = { "u8", 1 },    [DTYPE_BOOL] = { "bool", 1 }, [DTYPE_Q8] = { "int8", 1 },
};

size_t dtype_size(dtype t)
{
    assert((unsigned)t < DTYPE_COUNT);
    return types[t].size;
}

const char *dtype_name(dtype t)
{
    return (unsigned)t < DTYPE_COUNT ? types[t].name : "unknown";
}

int dtype_parse(dtype *out, const char *name)
{
    for (int t = 0; t < DTYPE_COUNT; t++)
        if (!strcmp(types[t].name, name)) {
            *out = (dtype)t;
            return 1;
        }
    return 0;
}

int dtype_is_storage(dtype t)
{
    return (unsigned)t < DTYPE_STORAGES;
}

char *dtype_storage_names(char *out, size_t size, const char *between, const char *last)
{
    size_t at = 0;
    for (int t = 0; t < DTYPE_STORAGES; t++)
        at += (size_t)snprintf(out + at, size - at, "%s%s",
                               t == 0                   ? ""
                               : t + 1 < DTYPE_STORAGES ? between
                                                        : last,
                               types[t].name);
    assert(at < size);
    return out;
}

uint16_t dtype_bf16_from_f32(float x)
{
    return gt_to_bf16(x);
}

float dtype_f32_from_bf16(uint16_t x)
{
    return gt_from_bf16(x);
}

uint16_t dtype_f16_from_f32(float x)
{
    return gt_to_f16(x);
}

float dtype_f32_from_f16(uint16_t x)
{
    return gt_from_f16(x);
}

float dtype_load(dtype t, const void *data, size_t i)
{
    switch (t) {
    case DTYPE_F32: return ((const float *)data)[i];
    case DTYPE_BF16: return dtype_f32_from_bf16(((const uint16_t *)data)[i]);
    case DTYPE_F16: return dtype_f32_from_f16(((const uint16_t *)data)[i]);
    case DTYPE_F64: return (float)((const double *)data)[i];
    default:
        assert(t == DTYPE_F32);               /* not a float type */
        return 0.0f;
    }
}

void dtype_store(dtype t, void *data, size_t i, float x)
{
    switch (t) {
    case DTYPE_F32: ((float *)data)[i] = x; break;
    case DTYPE_BF16: ((uint16_t *)data)[i] = dtype_bf16_from_f32(x); break;
    case DTYPE_F16: ((uint16_t *)data)[i] = dtype_f16_from_f32(x); break;
    case DTYPE_F64: ((double *)data)[i] = (double)x; break;
    default: assert(t == DTYPE_F32);               /* not a float type */
    }
}

shape shape_of(int rank, ...)
{
    assert(0 <= rank && rank <= SHAPE_MAX_RANK);
    shape s = { .rank = rank };
    va_list args;
    va_start(args, rank);
    for (int i = 0; i < rank; i++)
        s.dim[i] = va_arg(args, int64_t);
    va_end(args);
    return s;
}

int64_t shape_count(const shape *s)
{
    int64_t n = 1;
    for (int i = 0; i < s->rank; i++)
        n *= s->dim[i];
    return n;
}

int shape_equal(const shape *a, const shape *b)
{
    if (a->rank != b->rank)
        return 0;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i])
            return 0;
    return 1;
}

char *shape_format(const shape *s, char *out, size_t size)
{
    size_t used = (size_t)snprintf(out, size, "(");
    for (int i = 0; i < s->rank && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%lld", i ? ", " : "", (long long)s->dim[i]);
    if (used < size)
        snprintf(out + used, size - used, ")");
    return out;
}
