/* SPDX-License-Identifier: MIT */
/* host/gemm/engine.h - what an engine is; private to this room.
 *
 * An engine is one row of the table in gemm.c, which has its name. It is asked can() first, and only
 * then anything else. Descriptions arrive here complete: gemm_append() has checked them and
 * filled in every default (ld, batch, alpha), see gemm_complete() in gemm.c.           */
#ifndef GT_GEMM_ENGINE_H
#define GT_GEMM_ENGINE_H

#include "host/gemm/gemm.h"
#include "host/gemm/gemm_pool.h"
#include "host/gemm/gemm_tiles.h"
#include "host/gemm/gemm_variant.h"
#include "host/tensor/q8.h"

/* How an engine multiplies tiles (gemm_tiles.h). */
typedef struct gemm_tile_functions {
    int (*can)(gemm_context *c, dtype type);    /* 1 if it multiplies numbers of this type here */
    void (*begin)(gemm_context *c);             /* in front of many of them                    */
    void (*multiply)(gemm_context *c, int thread, dtype type, const gemm_tile *t, const void *a, const void *b,
                     float *to);            /* NULL: who asks for these has loops of its own */
} gemm_tile_functions;

typedef struct gemm_engine {
    int always;         /* 1: where it can, nothing is faster: it is taken without a measurement */
    int measured_only;  /* 1: never taken without a measurement: calling it takes as long as a small product */
    int less_precise;   /* 1: only where it is asked for by name; and what gemv can do stays with that */
    int version;        /* raised when its speed changes: old measurements are forgotten */
    /* 1 if it can do this product on this device. */
    int (*can)(gemm_context *c, const gemm_desc *g);
    uint64_t (*scratch)(gemm_context *c, const gemm_desc *g);
    gt_status (*append)(gemm_context *c, dev_list *l, const gemm_desc *g, const gemm_buffers *b, gemm_slot *add_at);
    void (*release)(void *state); /* what it keeps in a context; takes NULL; optional */
    const char *(*missing)(void); /* what is not installed and what to do, or NULL; optional */
    const gemm_tile_functions *tiles; /* NULL: it multiplies none */
    /* Its kernel for this device, if it can be built in several ways; NULL: there is none. Optional. */
    const gemm_tunable *(*tunable)(gemm_context *c);
} gemm_engine;

extern const gemm_engine gemm_gemv, gemm_packed, gemm_native, gemm_onednn, gemm_matrix, gemm_bf16x3, gemm_tiled,
    gemm_clblast;
extern const gemm_tunable gemm_tiled_cpu, gemm_tiled_gpu, gemm_matrix_tunable;

/* Where an engine keeps what it has in this context, NULL at first; its release() is given it at the end. */
void **gemm_engine_state(gemm_context *c, const gemm_engine *e);

enum { GEMM_ENGINES = 8 };                      /* rows of the table, those too that a build is without */
/* By name, those of this build alone; NULL if there is none. */
const gemm_engine *gemm_engine_named(const char *name);
/* Where gemm_tiles.c keeps what it has made for this context. */
gemm_tiles **gemm_tiles_list(gemm_context *c);
void gemm_tiles_release(gemm_tiles *t);         /* and all behind it; takes NULL */

/* Where gemm_tuning.c keeps what is tuned on this device, NULL at first. */
gemm_tuning **gemm_tuning_slot(gemm_context *c);
/* The product that is measured for g: of its kind, dense where it is smaller. */
gemm_desc gemm_shrink(const gemm_context *c, const gemm_desc *g);
/* Measures anew which engine is the fastest at g, complete and plain, with each kind of epilogue for which one had
 * been chosen. */
gt_status gemm_choose_anew(gemm_context *c, const gemm_desc *plain);

/* The threads of a CPU device for what is cut into pieces, shared by all who cut; NULL: no memory. */
gemm_pool *gemm_pool_of(gemm_context *c);

/* 1 if the processor multiplies numbers of this storage as they are, and oneDNN knows how. */
int gemm_onednn_has_own(dtype storage);

/* Rows of the table that this build has, in order of preference; NULL after the last. */
const gemm_engine *gemm_engine_row(int i);
const char *gemm_name_of(const gemm_engine *e);
/* gemm_is_forced: the user asked for exactly this one. gemm_may_use: for no other. */
int gemm_is_forced(const gemm_context *c, const gemm_engine *e);
int gemm_may_use(const gemm_context *c, const gemm_engine *e);

/* Checks a description and fills in its defaults. */
gt_status gemm_complete(gemm_desc *out, const gemm_desc *in);
/* Of one that is complete: bytes from the first element to one past the last of all matrices of a factor or the result;
 * floating point operations; and its class, by which choices are made: see gemm_desc.c. */
uint64_t gemm_a_bytes(const gemm_desc *g);
uint64_t gemm_b_bytes(const gemm_desc *g);
uint64_t gemm_c_bytes(const gemm_desc *g);
double gemm_flops(const gemm_desc *g);
enum { GEMM_CLASS = 96 }; /* characters */
void gemm_class(char out[GEMM_CLASS], const gemm_desc *g);

/* The fastest engine for g, which is complete, by its best run on memory that is made for it. One that fails to run, or
 * computes wrongly, is left out; if there is none left, so is the device, and its error is the caller's. */
gt_status gemm_measure(gemm_context *c, const gemm_desc *g, const gemm_engine **out, double *seconds);

/* The kernel files of this room and how they are built. */
extern const dev_family gemm_tiled_family, gemm_matrix_family, gemm_gemv_family, gemm_epilogue_family, gemm_peak_family;
/* These, 0, 1, ...; NULL after the last. */
const dev_family *gemm_family_at(int i);

/* The program of a family for storage type `storage` with these options; built at the first request,
 * owned by the context. */
gt_status gemm_program(gemm_context *c, const dev_family *f, dtype storage, const char *options, dev_program **out);

/* B in 8 bits: its stored rows and columns. */
q8 gemm_q8(const gemm_desc *g);

/* 1 if anything but C = alpha * A * B (+ C) is asked for. */
int gemm_has_epilogue(const gemm_desc *g);

/* Appends the epilogue, in place on C, for engines that only multiply. */
gt_status gemm_epilogue_append(gemm_context *c, dev_list *l, const gemm_desc *g, const gemm_buffers *b);

/* Appends a launch that clears C unless `add`, for engines that can only add. */
gt_status gemm_clear_append(gemm_context *c, dev_list *l, const gemm_desc *g, dev_buffer *cbuf, gemm_slot *add_at);

/* The -D options of a product's types and epilogue, STORE apart, with `more` behind them. */
#define GEMM_B_BF16 "-DB_STORE=1"
#define GEMM_B_Q8 "-DB_STORE=3"
#define GEMM_C_F32 "-DC_F32"
#define GEMM_DROP "-DDROP"
enum { GEMM_OPTIONS = 224 }; /* characters */
void gemm_options(char *out, size_t size, const gemm_desc *g, const char *more);

/* The arguments M to `add` that the kernels of a whole product take, in their order (cl/gemm.cl, cl/gemv.cl). */
enum { GEMM_PRODUCT_ARGS = 17, GEMM_ADD_ARG = GEMM_PRODUCT_ARGS - 1 };
void gemm_product_args(dev_arg out[GEMM_PRODUCT_ARGS], const gemm_desc *g, const gemm_buffers *b);

/* The arguments `flags` to `factor` that both kernels with an epilogue take, in their order
 * (cl/gemm_epilogue.clh). */
enum { GEMM_EPILOGUE_ARGS = 10 };
void gemm_epilogue_args(dev_arg out[GEMM_EPILOGUE_ARGS], const gemm_desc *g, const gemm_buffers *b);

#endif
