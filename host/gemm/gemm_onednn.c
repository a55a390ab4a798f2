/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_onednn.c - products by oneDNN inside the device's own queue, for CPU devices.
 *
 * oneDNN makes code for one product while the program runs, and uses what the processor has for 16-bit numbers
 * (dot products of bf16 with fp32 sums, tiles of AMX). What this engine does in 16 bits it does in those: where
 * oneDNN would only widen, it leaves the product to the others. The bias, an activation whose argument nobody
 * wants, and the residual are added while C is in registers; what is left of an epilogue is a kernel behind it.
 *
 * A thread of its own calls oneDNN, and the driver's waits for it: OpenMP keeps a team for every thread that
 * has ever called it, and a driver calls from any of as many threads as there are cores. The team has as many
 * threads as the device has cores, which may be a part of the machine.
 *
 * Tiles (gemm_tiles.h) are multiplied by the threads that bring them, each by primitives made for one thread,
 * with memory of its own. A primitive is made when a thread meets its sizes for the first time. */
#include "host/gemm/engine.h"

#include "host/base/log.h"
#include "host/gemm/onednn_api.h"

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* What a primitive does besides alpha * A * B. SUM: adds what is in C. */
enum { BIAS = 1, ACT = 2, SUM = 4, RESIDUAL = 8 };
enum { OPERANDS = 5, ALIGN = 64 };

/* A product with one combination of what else it does. */
typedef struct product {
    struct product *next;
    gemm_desc g;
    int fused, able, alone;             /* alone: of tiles, for one thread */
    dnnl_primitive_t primitive;
    dnnl_memory_desc_t layout[OPERANDS], scratch;   /* of A, B, C, bias, residual */
    uint64_t scratch_bytes;
} product;

/* A product as one thread multiplies tiles by it. */
typedef struct tile {
    struct tile *next;
    const product *p;
    dnnl_memory_t memory[OPERANDS];             /* of A, B, C and scratch */
} tile;

typedef struct worker {
    tile *tiles;
    dnnl_stream_t stream;
    void *room;                                 /* its scratch */
    uint64_t room_bytes;
} worker;

typedef struct job job;

/* What a context keeps. The runner computes a job as soon as there is one, and takes it away. */
typedef struct state {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    product *products;
    int threads;
    int able;                           /* 0: oneDNN does not start, which was said */
    pthread_t runner;
    int running, stop;
    worker *workers;                    /* [threads] */
    product *alone;                     /* products for one thread; the lock is for making them */
    pthread_mutex_t making;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    const job *job;
} state;

/* ---- threads ---------------------------------------------------------------------------------- */

static void compute(const state *s, const job *j);

static void *run_jobs(void *argument)
{
    state *s = argument;
    if (onednn->set_threads)
        onednn->set_threads(s->threads);
    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        if (s->job) {
            pthread_mutex_unlock(&s->lock);
            compute(s, s->job);
            pthread_mutex_lock(&s->lock);
            s->job = NULL;
            pthread_cond_broadcast(&s->changed);
        } else {
            pthread_cond_wait(&s->changed, &s->lock);
        }
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void run_job(state *s, const job *j)
{
    pthread_mutex_lock(&s->lock);
    while (s->job)                      /* two queues of one device */
        pthread_cond_wait(&s->changed, &s->lock);
    s->job = j;
    pthread_cond_broadcast(&s->changed);
    while (s->job == j)
        pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

/* ---- what a context keeps --------------------------------------------------------------------- */

static void layout_free(dnnl_memory_desc_t *layout)
{
#if DNNL_VERSION_MAJOR >= 3
    if (*layout)
        onednn->memory_desc_destroy(*layout);
#else
    (void)layout;
#endif
}

static void tile_free(tile *t)
{
    for (int i = 0; i < OPERANDS; i++)
        if (t->memory[i])
            onednn->memory_destroy(t->memory[i]);
    free(t);
}

static void worker_release(worker *w)
{
    while (w->tiles) {
        tile *t = w->tiles;
        w->tiles = t->next;
        tile_free(t);
    }
    if (w->stream)
        onednn->stream_destroy(w->stream);
    free(w->room);
}

static void product_free(product *p)
{
    if (p->primitive)
        onednn->primitive_destroy(p->primitive);
    for (int k = 0; k < OPERANDS; k++)
        layout_free(&p->layout[k]);
    layout_free(&p->scratch);
    free(p);
}

static void products_free(product *p)
{
    while (p) {
        product *next = p->next;
        product_free(p);
        p = next;
    }
}

static void release(void *kept)
{
    state *s = kept;
    if (!s)
        return;
    if (s->running) {
        pthread_mutex_lock(&s->lock);
        s->stop = 1;
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->runner, NULL);
    }
    for (int i = 0; s->workers && i < s->threads; i++)
        worker_release(&s->workers[i]);
    free(s->workers);
    products_free(s->products);
    products_free(s->alone);
    if (s->stream)
        onednn->stream_destroy(s->stream);
    if (s->engine)
        onednn->engine_destroy(s->engine);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->making);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* NULL: oneDNN cannot be used. */
static state *state_of(gemm_context *c)
{
    void **slot = gemm_engine_state(c, &gemm_onednn);
    state *s = *slot;
    if (s)
        return s->able ? s : NULL;
    if (!onednn_load())
        return NULL;
    *slot = s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->making, NULL);
    pthread_cond_init(&s->changed, NULL);
    s->threads = dev_info_of(gemm_device(c))->compute_units;
    s->running = onednn->engine_create(&s->engine, dnnl_cpu, 0) == dnnl_success
                 && onednn->stream_create(&s->stream, s->engine, dnnl_stream_default_flags) == dnnl_success
                 && pthread_create(&s->runner, NULL, run_jobs, s) == 0;
    s->able = s->running;
    if (!s->able)
        gt_log(GT_LOG_WARN, "gemm", "oneDNN does not start on '%s'; going on without engine onednn",
               dev_info_of(gemm_device(c))->id);
    return s->able ? s : NULL;
}

/* ---- primitives ------------------------------------------------------------------------------- */

static dnnl_data_type_t type_of(dtype t)
{
    return t == DTYPE_BF16 ? dnnl_bf16 : t == DTYPE_F16 ? dnnl_f16 : dnnl_f32;
}

/* Rows are `down` elements apart, columns `across`. */
static int layout_make(dnnl_memory_desc_t *out, int rows, int columns, int down, int across, dtype t)
{
    const dnnl_dims_t sizes = { rows, columns };
    /* Of a side of 1 the distance means nothing, but is checked. */
    const dnnl_dims_t strides = { rows == 1 && across == 1 ? columns : down,
                                  columns == 1 && down == 1 ? rows : across };
#if DNNL_VERSION_MAJOR >= 3
    return onednn->memory_desc_create_with_strides(out, 2, sizes, type_of(t), strides) == dnnl_success;
#else
    return onednn->memory_desc_init_by_strides(out, 2, sizes, type_of(t), strides) == dnnl_success;
#endif
}

static dnnl_alg_kind_t activation_of(activation a)
{
    switch (a) {
    case ACT_GELU_ERF: return dnnl_eltwise_gelu_erf;
    case ACT_SILU: return dnnl_eltwise_swish;
    case ACT_RELU: return dnnl_eltwise_relu;
    case ACT_TANH: return dnnl_eltwise_tanh;
    default: return dnnl_eltwise_gelu_tanh;
    }
}

static int append_eltwise(dnnl_post_ops_t ops, dnnl_alg_kind_t kind, float alpha)
{
#if DNNL_VERSION_MAJOR >= 3
    return onednn->post_ops_append_eltwise(ops, kind, alpha, 0.0f) == dnnl_success;
#else
    return onednn->post_ops_append_eltwise(ops, 1.0f, kind, alpha, 0.0f) == dnnl_success;
#endif
}

static int append_post_ops(dnnl_post_ops_t ops, const product *p)
{
    const gemm_desc *g = &p->g;
    const int fused = p->fused;
    int good = 1;
    if (g->alpha < 1.0f || g->alpha > 1.0f)
        good = append_eltwise(ops, dnnl_eltwise_linear, g->alpha);
    if (good && (fused & ACT))
        good = append_eltwise(ops, activation_of(g->act), g->act == ACT_SILU ? 1.0f : 0.0f);
    if (good && (fused & SUM))
#if DNNL_VERSION_MAJOR >= 3
        good = onednn->post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef) == dnnl_success;
#else
        good = onednn->post_ops_append_sum(ops, 1.0f) == dnnl_success;
#endif
    if (good && (fused & RESIDUAL))
        good = onednn->post_ops_append_binary(ops, dnnl_binary_add, ONEDNN_LAYOUT(p->layout[4])) == dnnl_success;
    return good;
}

static dnnl_primitive_desc_t describe(const state *s, const product *p, const_dnnl_primitive_attr_t attributes)
{
    dnnl_primitive_desc_t d = NULL;
    onednn_layout bias = p->fused & BIAS ? ONEDNN_LAYOUT(p->layout[3]) : NULL;
#if DNNL_VERSION_MAJOR >= 3
    if (onednn->matmul_primitive_desc_create(&d, s->engine, p->layout[0], p->layout[1], bias, p->layout[2], attributes)
        != dnnl_success)
        return NULL;
#else
    dnnl_matmul_desc_t m;
    if (onednn->matmul_desc_init(&m, &p->layout[0], &p->layout[1], bias, &p->layout[2]) != dnnl_success
        || onednn->primitive_desc_create(&d, &m, attributes, s->engine, NULL) != dnnl_success)
        return NULL;
#endif
    return d;
}

/* Is it one of the implementations that are made for this processor, and, of 16 bits, for its arithmetic on
 * them? Their names end with what they need; others begin with "ref" or "gemm". On one thread oneDNN's older
 * product, "gemm:jit", is as good: it takes the same dot products, and packs only what is worth it. */
static int is_native(const_dnnl_primitive_desc_t d, dtype t, int alone)
{
    const char *name = NULL;
    if (onednn->primitive_desc_query(d, dnnl_query_impl_info_str, 0, &name) != dnnl_success || !name)
        return 0;
    if (alone && !strncmp(name, "gemm:jit", 8))
        return t == DTYPE_F32 || gemm_onednn_has_own(t);
    if (strncmp(name, "brg", 3) != 0)
        return 0;
    return t == DTYPE_F32 || (t == DTYPE_BF16 && (strstr(name, "bf16") || strstr(name, "amx")))
           || (t == DTYPE_F16 && (strstr(name, "fp16") || strstr(name, "amx")));
}

/* 1: not by oneDNN. With tiles of AMX, version 2.6 ends the process by an illegal instruction in some products of 63
 * deep. Odd depths below a tile's 64 are left to others, whatever the version: such products are small. */
static int is_unsafe(dtype t, int K)
{
    const unsigned isa = (unsigned)onednn->get_effective_cpu_isa(), amx = (unsigned)dnnl_cpu_isa_avx512_core_amx;
    return t != DTYPE_F32 && K < 64 && K % 2 && (isa & amx) == amx;
}

static int make_primitive(const state *s, product *p)
{
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_post_ops_t ops = NULL;
    dnnl_primitive_desc_t d = NULL;
    int good = onednn->primitive_attr_create(&attributes) == dnnl_success
               && onednn->primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user) == dnnl_success
               && onednn->post_ops_create(&ops) == dnnl_success && append_post_ops(ops, p)
               && onednn->primitive_attr_set_post_ops(attributes, ops) == dnnl_success;
    d = good ? describe(s, p, attributes) : NULL;
    good = d && is_native(d, p->g.a_type, p->alone) && onednn->primitive_create(&p->primitive, d) == dnnl_success;
    if (good) {
        onednn_layout scratch = onednn->primitive_desc_query_md(d, dnnl_query_scratchpad_md, 0);
        p->scratch_bytes = scratch ? onednn->memory_desc_get_size(scratch) : 0;
#if DNNL_VERSION_MAJOR >= 3
        good = !scratch || onednn->memory_desc_clone(&p->scratch, scratch) == dnnl_success;
#else
        if (scratch)
            p->scratch = *scratch;
#endif
    }
    if (d)
        onednn->primitive_desc_destroy(d);
    if (ops)
        onednn->post_ops_destroy(ops);
    if (attributes)
        onednn->primitive_attr_destroy(attributes);
    return good;
}

static int make_product(const state *s, product *p)
{
    const gemm_desc *g = &p->g;
    return layout_make(&p->layout[0], g->M, g->K, g->trans_a ? 1 : g->lda, g->trans_a ? g->lda : 1, g->a_type)
           && layout_make(&p->layout[1], g->K, g->N, g->trans_b ? 1 : g->ldb, g->trans_b ? g->ldb : 1, g->b_type)
           && layout_make(&p->layout[2], g->M, g->N, g->ldc, 1, g->c_type)
           && (!(p->fused & BIAS) || layout_make(&p->layout[3], 1, g->N, g->N, 1, DTYPE_F32))
           && (!(p->fused & RESIDUAL) || layout_make(&p->layout[4], g->M, g->N, g->ldc, 1, g->c_type))
           && make_primitive(s, p);
}

static int same_product(const product *p, const gemm_desc *g, int fused)
{
    const gemm_desc *h = &p->g;
    return p->fused == fused && h->M == g->M && h->N == g->N && h->K == g->K && h->trans_a == g->trans_a
           && h->trans_b == g->trans_b && h->a_type == g->a_type && h->c_type == g->c_type && h->lda == g->lda
           && h->ldb == g->ldb && h->ldc == g->ldc && !memcmp(&h->alpha, &g->alpha, sizeof g->alpha)
           && (!(fused & ACT) || h->act == g->act);
}

/* NULL: oneDNN has nothing for it on this processor. Made for as many threads as will run it: one, or the device's. */
static const product *product_in(product **all, const state *s, const gemm_desc *g, int fused, int alone)
{
    for (const product *p = *all; p; p = p->next)
        if (same_product(p, g, fused))
            return p->able ? p : NULL;
    product *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->next = *all;
    *all = p;
    p->g = *g;
    p->fused = fused;
    p->alone = alone;
    const int before = onednn->most_threads ? onednn->most_threads() : 0;
    if (onednn->set_threads)
        onednn->set_threads(alone ? 1 : s->threads);
    p->able = !is_unsafe(g->a_type, g->K) && make_product(s, p);
    if (onednn->set_threads && before > 0)
        onednn->set_threads(before);
    return p->able ? p : NULL;
}

static const product *product_of(state *s, const gemm_desc *g, int fused)
{
    return product_in(&s->products, s, g, fused, 0);
}

/* ---- running ---------------------------------------------------------------------------------- */

typedef struct payload {
    state *state;
    const product *plain, *adding;      /* what runs where `add` is 0, and 1 */
    int64_t stride_a, stride_b, stride_c;
    int32_t add;                        /* set before each run, if it changes */
    int batch;
} payload;

struct job {
    const payload *p;
    const product *product;
    void *const *pointers;
};

static void add_memory(dnnl_exec_arg_t *args, int *count, int arg, dnnl_engine_t engine, onednn_layout layout, void *at)
{
    args[*count].arg = arg;
    args[*count].memory = NULL;
    *count += onednn->memory_create(&args[*count].memory, layout, engine, at) == dnnl_success;
}

static int execute(const state *s, const product *p, void *const at[OPERANDS], void *scratch)
{
    static const int names[OPERANDS] = { DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_BIAS };
    const int scaled = p->g.alpha < 1.0f || p->g.alpha > 1.0f;
    const int residual = DNNL_ARG_ATTR_MULTIPLE_POST_OP(scaled + ((p->fused & ACT) != 0)) | DNNL_ARG_SRC_1;
    const int used[OPERANDS] = { 1, 1, 1, p->fused & BIAS, p->fused & RESIDUAL };
    dnnl_exec_arg_t args[OPERANDS + 1];
    int count = 0, wanted = p->scratch_bytes > 0;
    for (int i = 0; i < OPERANDS; i++)
        if (used[i]) {
            wanted++;
            add_memory(args, &count, i == 4 ? residual : names[i], s->engine, ONEDNN_LAYOUT(p->layout[i]), at[i]);
        }
    if (p->scratch_bytes)
        add_memory(args, &count, DNNL_ARG_SCRATCHPAD, s->engine, ONEDNN_LAYOUT(p->scratch), scratch);
    const int good = count == wanted && onednn->primitive_execute(p->primitive, s->stream, count, args) == dnnl_success
                     && onednn->stream_wait(s->stream) == dnnl_success;
    for (int i = 0; i < count; i++)
        onednn->memory_destroy(args[i].memory);
    return good;
}

/* What was not computed must not pass for a result. */
static void spoil(const gemm_desc *g, char *c)
{
    gt_log(GT_LOG_ERROR, "gemm", "oneDNN fails in a product of %d x %d x %d: its result is made not a number", g->M,
           g->N, g->K);
    for (int r = 0; r < g->M; r++)
        memset(c + (size_t)r * (size_t)g->ldc * dtype_size(g->c_type), 0xff, (size_t)g->N * dtype_size(g->c_type));
}

static void compute(const state *s, const job *j)
{
    const gemm_desc *g = &j->product->g;
    const int64_t in = (int64_t)dtype_size(g->a_type), out = (int64_t)dtype_size(g->c_type);
    void *const scratch = (char *)j->pointers[3] + (ALIGN - (uintptr_t)j->pointers[3] % ALIGN) % ALIGN;
    for (int i = 0; i < j->p->batch; i++) {
        void *const at[OPERANDS] = {
            (char *)j->pointers[0] + i * j->p->stride_a * in, (char *)j->pointers[1] + i * j->p->stride_b * in,
            (char *)j->pointers[2] + i * j->p->stride_c * out, j->pointers[4],
            (char *)j->pointers[5] + i * j->p->stride_c * out
        };
        if (!execute(s, j->product, at, scratch))
            spoil(g, at[2]);
    }
}

static void multiply(const void *kept, void *const *pointers)
{
    payload p;
    memcpy(&p, kept, sizeof p);
    const job j = { .p = &p, .product = p.add ? p.adding : p.plain, .pointers = pointers };
    run_job(p.state, &j);
}

/* ---- tiles ------------------------------------------------------------------------------------ */

static gemm_desc desc_of(const gemm_tile *t, dtype type)
{
    return (gemm_desc){
        .M = t->M,
        .N = t->N,
        .K = t->K,
        .trans_a = t->trans_a,
        .trans_b = t->trans_b,
        .a_type = type,
        .b_type = type,
        .c_type = DTYPE_F32,
        .lda = t->lda,
        .ldb = t->ldb,
        .ldc = t->ldc,
        .batch = 1,
        .alpha = 1.0f
    };
}

/* The memory that a thread uses a product with; 0: none was to be had. */
static int take_memory(const state *s, worker *w, tile *t)
{
    const product *p = t->p;
    int good = w->stream || onednn->stream_create(&w->stream, s->engine, dnnl_stream_default_flags) == dnnl_success;
    for (int i = 0; good && i < 3; i++)
        good = onednn->memory_create(&t->memory[i], ONEDNN_LAYOUT(p->layout[i]), s->engine, NULL) == dnnl_success;
    if (good && p->scratch_bytes)
        good = onednn->memory_create(&t->memory[3], ONEDNN_LAYOUT(p->scratch), s->engine, NULL) == dnnl_success;
    if (good && p->scratch_bytes > w->room_bytes) {
        free(w->room);
        w->room = NULL;
        w->room_bytes = 0;
        good = posix_memalign(&w->room, ALIGN, p->scratch_bytes) == 0;
        w->room_bytes = good ? p->scratch_bytes : 0;
    }
    return good;
}

/* NULL: it cannot be made. */
static tile *tile_of(state *s, worker *w, const gemm_tile *g, dtype type)
{
    const gemm_desc d = desc_of(g, type);
    const int fused = g->add ? SUM : 0;
    for (tile *t = w->tiles; t; t = t->next)
        if (same_product(t->p, &d, fused))
            return t;
    pthread_mutex_lock(&s->making);
    const product *p = product_in(&s->alone, s, &d, fused, 1);
    pthread_mutex_unlock(&s->making);
    tile *t = p ? calloc(1, sizeof *t) : NULL;
    if (!t)
        return NULL;
    t->p = p;
    if (!take_memory(s, w, t)) {
        tile_free(t);
        return NULL;
    }
    t->next = w->tiles;
    w->tiles = t;
    return t;
}

static int execute_tile(const worker *w, const tile *t, const void *a, const void *b, float *c)
{
    union {
        const void *from;
        void *handle;                                   /* oneDNN writes to C and scratch alone */
    } const at[] = { { a }, { b }, { c }, { w->room } };
    static const int names[] = { DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD };
    dnnl_exec_arg_t args[4];
    const int count = t->p->scratch_bytes ? 4 : 3;
    int good = 1;
    for (int i = 0; good && i < count; i++) {
        args[i] = (dnnl_exec_arg_t){ names[i], t->memory[i] };
        good = onednn->memory_set_data_handle(t->memory[i], at[i].handle) == dnnl_success;
    }
    return good && onednn->primitive_execute(t->p->primitive, w->stream, count, args) == dnnl_success
           && onednn->stream_wait(w->stream) == dnnl_success;
}

/* What is one row, column or depth, which oneDNN has not in every layout; and what is unsafe. */
static void multiply_plainly(const gemm_tile *g, dtype type, const void *a, const void *b, float *c)
{
    for (int m = 0; m < g->M; m++)
        for (int n = 0; n < g->N; n++) {
            float *to = c + (size_t)m * (size_t)g->ldc + n, sum = g->add ? *to : 0.0f;
            for (int k = 0; k < g->K; k++)
                sum += dtype_load(type, a,
                                  g->trans_a ? (size_t)k * (size_t)g->lda + (size_t)m
                                             : (size_t)m * (size_t)g->lda + (size_t)k)
                       * dtype_load(type, b,
                                    g->trans_b ? (size_t)n * (size_t)g->ldb + (size_t)k
                                               : (size_t)k * (size_t)g->ldb + (size_t)n);
            *to = sum;
        }
}

static void multiply_tile(gemm_context *c, int thread, dtype type, const gemm_tile *g, const void *a, const void *b,
                          float *to)
{
    state *s = *gemm_engine_state(c, &gemm_onednn);
    worker *w = &s->workers[thread];
    if (g->M == 1 || g->N == 1 || g->K == 1 || is_unsafe(type, g->K)) {
        multiply_plainly(g, type, a, b, to);
        return;
    }
    if (onednn->set_threads)
        onednn->set_threads(1);
    const tile *t = tile_of(s, w, g, type);
    if (!t || !execute_tile(w, t, a, b, to)) {
        const gemm_desc d = desc_of(g, type);
        spoil(&d, (char *)to);
    }
}

/* Is there something for this processor in each of the layouts that attention has? */
static int can_tiles(gemm_context *c, dtype type)
{
    const dev_info *info = dev_info_of(gemm_device(c));
    state *s = info->kind == DEV_CPU && info->native_kernels ? state_of(c) : NULL;
    int good = s != NULL;
    if (good && !s->workers)
        s->workers = calloc((size_t)s->threads, sizeof *s->workers);
    for (int i = 0; good && i < 3; i++) {
        const gemm_tile t = {
            .M = 64, .N = 64, .K = 64, .trans_a = i == 2, .trans_b = i == 1, .lda = 64, .ldb = 64, .ldc = 64
        };
        const gemm_desc d = desc_of(&t, type);
        good = s->workers && product_in(&s->alone, s, &d, SUM, 1);
    }
    return good;
}

static void begin_tiles(gemm_context *c)
{
    (void)c;
}

static const gemm_tile_functions tiles = { can_tiles, begin_tiles, multiply_tile };

/* ---- the engine ------------------------------------------------------------------------------- */

/* As much of the epilogue, from its beginning, as primitives know. in_place: the residual is C itself; pre: the
 * argument of the activation is wanted. */
static int fusible(const gemm_desc *g, int in_place, int pre)
{
    int fused = 0;
    if (g->bias) {
        if (g->alpha < 1.0f || g->alpha > 1.0f)         /* oneDNN would scale it too */
            return 0;
        fused |= BIAS;
    }
    if (g->act && pre)
        return fused;
    fused |= g->act ? ACT : 0;
    if (g->residual && !g->act_grad && !(g->drop_p > 0))
        fused |= in_place ? SUM : RESIDUAL;
    return fused;
}

/* The same, as far as there is a primitive for it: what comes last is given up first. */
static const product *best_of(state *s, const gemm_desc *g, int in_place, int pre)
{
    int fused = fusible(g, in_place, pre);
    const product *p = product_of(s, g, fused);
    static const int last[] = { SUM | RESIDUAL, ACT, BIAS };
    for (size_t i = 0; !p && i < sizeof last / sizeof *last; i++)
        if (fused & last[i]) {
            fused &= ~last[i];
            p = product_of(s, g, fused);
        }
    return p;
}

static int can(gemm_context *c, const gemm_desc *g)
{
    const dev_info *info = dev_info_of(gemm_device(c));
    if (info->kind != DEV_CPU || !info->native_kernels || g->b_type != g->a_type)
        return 0;
    state *s = state_of(c);
    return s && product_of(s, g, 0) && (gemm_has_epilogue(g) || product_of(s, g, SUM));
}

/* The most that is needed, whatever append() will be told. */
static uint64_t scratch(gemm_context *c, const gemm_desc *g)
{
    state *s = state_of(c);
    uint64_t most = 0;
    for (int i = 0; s && i < 4; i++) {
        const product *p = gemm_has_epilogue(g) ? best_of(s, g, i & 1, i >> 1) : product_of(s, g, i & 1 ? SUM : 0);
        most = p && p->scratch_bytes > most ? p->scratch_bytes : most;
    }
    return ALIGN + most;
}

/* What primitives have not done of g's epilogue. */
static gemm_desc rest_of(const gemm_desc *g, int fused)
{
    gemm_desc rest = *g;
    if (fused & BIAS)
        rest.bias = 0;
    if (fused & ACT)
        rest.act = ACT_NONE;
    if (fused & (SUM | RESIDUAL))
        rest.residual = 0;
    return rest;
}

static gt_status append(gemm_context *c, dev_list *l, const gemm_desc *g, const gemm_buffers *b, gemm_slot *add_at)
{
    state *s = state_of(c);
    const int epilogue = gemm_has_epilogue(g);
    const int in_place = epilogue && g->residual && dev_buffer_host(b->residual) == dev_buffer_host(b->c);
    const payload p = {
        .state = s,
        .plain = epilogue ? best_of(s, g, in_place, b->pre != NULL) : product_of(s, g, g->add && !add_at ? SUM : 0),
        .adding = add_at ? product_of(s, g, SUM) : NULL,
        .stride_a = g->stride_a,
        .stride_b = g->stride_b,
        .stride_c = g->stride_c,
        .batch = g->batch,
        .add = add_at && g->add,
    };
    if (!p.plain || (add_at && !p.adding))
        return gt_fail(GT_NO_MEMORY, "no memory for a product of %d x %d x %d by oneDNN", g->M, g->N, g->K);
    const int fused = p.plain->fused;
    dev_buffer *const buffers[] = {
        b->a, b->b, b->c, b->scratch, fused & BIAS ? b->bias : b->a, fused & RESIDUAL ? b->residual : b->a
    };
    if (add_at)
        *add_at = (gemm_slot){ dev_list_count(l), offsetof(payload, add) };
    gt_status st = dev_list_native(l, "onednn", multiply, &p, sizeof p, buffers, 6);
    const gemm_desc rest = rest_of(g, fused);
    return !st && gemm_has_epilogue(&rest) ? gemm_epilogue_append(c, l, &rest, b) : st;
}

int gemm_onednn_has_own(dtype storage)
{
    /* Values of later versions contain those of the instructions that they build on. */
    const unsigned isa = onednn_load() ? (unsigned)onednn->get_effective_cpu_isa() : 0,
                   bf16 = (unsigned)dnnl_cpu_isa_avx512_core_bf16;
    return storage == DTYPE_BF16 && (isa & bf16) == bf16;
}

const gemm_engine gemm_onednn = {
    .measured_only = 1,
    .version = 1,
    .can = can,
    .scratch = scratch,
    .append = append,
    .release = release,
    .missing = onednn_missing,
    .tiles = &tiles,
};
