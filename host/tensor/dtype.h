/* SPDX-License-Identifier: MIT */
/* host/tensor/dtype.h - storage types of tensors, and shapes. */
#ifndef GT_TENSOR_DTYPE_H
#define GT_TENSOR_DTYPE_H

#include <stddef.h>
#include <stdint.h>

typedef enum dtype {
    DTYPE_F32,
    DTYPE_BF16,
    DTYPE_F16,           /* what kernels store: see DTYPE_STORAGES */
    DTYPE_I32,
    DTYPE_U32,
    DTYPE_F64,
    DTYPE_I64,
    DTYPE_U16,
    DTYPE_U8,
    DTYPE_BOOL,  /* only in files       */
    DTYPE_Q8,    /* frozen matrices: q8.h; its size is without the scales */
    DTYPE_COUNT
} dtype;
enum { DTYPE_STORAGES = DTYPE_F16 + 1 };        /* these are 0, 1, ...             */

size_t dtype_size(dtype t);                /* bytes an element                */
const char *dtype_name(dtype t);                /* "fp32", "bf16", "fp16", "i32"   */
int dtype_parse(dtype *out, const char *name);  /* 1 if known              */

int dtype_is_storage(dtype t);
/* Those that kernels store, with `between` between two and `last` before the last one, as in
 * "fp32, bf16 and fp16". Returns out. */
char *dtype_storage_names(char *out, size_t size, const char *between, const char *last);

/* Round to nearest even; overflow gives infinity, NaN stays NaN. */
uint16_t dtype_bf16_from_f32(float x);
float dtype_f32_from_bf16(uint16_t x);
uint16_t dtype_f16_from_f32(float x);
float dtype_f32_from_f16(uint16_t x);

/* Element i of an array of any float type. */
float dtype_load(dtype t, const void *data, size_t i);
void dtype_store(dtype t, void *data, size_t i, float x);

#define SHAPE_MAX_RANK 5

/* Row-major: the last dimension is contiguous. rank 0 is a scalar (one element). */
typedef struct shape {
    int rank;
    int64_t dim[SHAPE_MAX_RANK];
} shape;

shape shape_of(int rank, ...);                /* shape_of(2, (int64_t)3, (int64_t)4)  */
int64_t shape_count(const shape *s);            /* elements                        */
int shape_equal(const shape *a, const shape *b);
char *shape_format(const shape *s, char *out, size_t size);   /* "(3, 4)"        */

#endif
