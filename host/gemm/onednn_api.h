/* SPDX-License-Identifier: MIT */
/* host/gemm/onednn_api.h - oneDNN, loaded when it is first wanted; what differs between its versions 2 and 3.
 *
 * So a program built with its header runs where the library is not installed, and one that only uses GPUs
 * never pays for loading it.                                                             */
#ifndef GT_GEMM_ONEDNN_API_H
#define GT_GEMM_ONEDNN_API_H

#include <oneapi/dnnl/dnnl.h>

/* In version 3 layouts became handles, and a product is described in one call. */
#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t onednn_layout;
#define ONEDNN_LAYOUT(x) (x)
#define ONEDNN_OF_VERSION(F) \
    F(memory_desc_create_with_strides) F(memory_desc_destroy) F(memory_desc_clone) F(matmul_primitive_desc_create)
#else
typedef const dnnl_memory_desc_t *onednn_layout;
#define ONEDNN_LAYOUT(x) (&(x))
#define ONEDNN_OF_VERSION(F) F(memory_desc_init_by_strides) F(matmul_desc_init) F(primitive_desc_create)
#endif

/* clang-format off */
#define ONEDNN_FUNCTIONS(F) \
    F(engine_create) F(engine_destroy) F(stream_create) F(stream_destroy) F(stream_wait) \
    F(memory_create) F(memory_destroy) F(memory_set_data_handle) F(memory_desc_get_size) \
    F(primitive_attr_create) F(primitive_attr_destroy) F(primitive_attr_set_scratchpad_mode) \
    F(primitive_attr_set_post_ops) F(post_ops_create) F(post_ops_destroy) F(post_ops_append_eltwise) \
    F(post_ops_append_sum) F(post_ops_append_binary) F(primitive_desc_query) F(primitive_desc_query_md) \
    F(primitive_desc_destroy) F(primitive_create) F(primitive_destroy) F(primitive_execute) \
    F(get_effective_cpu_isa) ONEDNN_OF_VERSION(F)
/* clang-format on */

typedef struct onednn_api {
#define ONEDNN_MEMBER(name) __typeof__(&dnnl_##name) name;
    ONEDNN_FUNCTIONS(ONEDNN_MEMBER)
#undef ONEDNN_MEMBER
    /* OpenMP's, of the library that oneDNN runs its threads by; NULL where it has none. */
    int (*most_threads)(void);
    void (*set_threads)(int);
} onednn_api;

/* 1 if it is there; then `onednn` is filled in. Else 0, and onednn_missing() says what to do; NULL if nothing. */
int onednn_load(void);
extern const onednn_api *const onednn;
const char *onednn_missing(void);

#endif
