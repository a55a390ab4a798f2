/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_attention.c - launches of cl/attention.cl.
 *
 * CPU: a work-item owns up to 96 rows of a head. More rows share the packing of the other
 * side's blocks; fewer give every core something to do when there are few heads. Backward, it
 * owns a whole head where there are heads enough (owns_heads).
 * GPU: a work-group of 16 x 16 owns 64 rows of a head, and 64 or 128 columns of its results. */
#include "host/kernel/kernel_private.h"

#include "cl/kernels.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* As in cl/attention.cl. ROW_STEP is a multiple of the rows of every register tile. */
enum { ROWS = 96, ROW_STEP = 12, BLOCK = 64, MOST_HEAD = 256 };

/* Columns of results a GPU's work-group owns: what its registers hold. Intel's hold half. */
static int part_of(const kernel_set *k, int D)
{
    return D <= 64 || strstr(k->info->vendor, "Intel") ? 64 : 128;
}

/* some: the kernels whose dropout counts the heads of other ranks, too. */
static gt_status attention_program(dev_program **out, kernel_set *k, int D, int some)
{
    static const int store[] = { [DTYPE_F32] = 0, [DTYPE_BF16] = 1, [DTYPE_F16] = 2 };
    const int narrow = k->cpu && D <= 32;       /* register tiles of 32 columns, not 64 */
    const int wide = narrow || (!k->cpu && part_of(k, D) > 64), i = 2 * some + wide;
    gt_status st = GT_OK;

    if (!k->attention[i]) {
        const char *const sources[] = { cl_source("common.clh"), cl_source("random.clh"),
                                        cl_source("tile.clh"), cl_source("attention.cl") };
        /* Intel's GPUs spill without twice the registers a thread. */
        const int intel = k->info->kind == DEV_GPU && strstr(k->info->vendor, "Intel");
        char options[128];
        snprintf(options, sizeof options, "-DSTORE=%d -DHEAD=%d%s%s%s", store[k->storage], 64 << wide,
                 narrow ? " -DNV=2" : "", some ? " -DSOME_HEADS" : "", intel ? " -cl-intel-256-GRF-per-thread" : "");
        st = dev_program_build(&k->attention[i], k->device, "attention.cl", sources, 4, options);
    }
    *out = k->attention[i];
    return st;
}

/* 1: dropout must count heads that are not here. */
static int some_heads(const kernel_dropout *drop, int H)
{
    return drop && drop->heads && drop->heads != H;
}

/* A GPU moves four elements at once wherever D allows. */
static gt_status check_heads(const kernel_set *k, const kernel_attention_shape *s, const kernel_heads *h,
                             const char *what)
{
    if (k->cpu || s->D % 4 || (h->first % 4 == 0 && h->stride % 4 == 0))
        return GT_OK;
    return gt_fail(GT_UNSUPPORTED, "cannot attend: the heads of %s begin at element %lld, in rows %d apart; both"
                   " must be multiples of 4 on a GPU", what, (long long)h->first, h->stride);
}

/* Sizes the kernels can take. */
static gt_status check_shape(const kernel_set *k, const kernel_attention_shape *s,
                             const kernel_attention_in *in)
{
    assert(s->D > 0 && s->H > 0 && s->KV > 0);
    if (s->H % s->KV)
        return gt_fail(GT_UNSUPPORTED, "cannot attend with %d heads of queries to %d of keys: the first must be"
                       " a multiple of the second", s->H, s->KV);
    if (s->D > MOST_HEAD)
        return gt_fail(GT_UNSUPPORTED, "cannot attend with heads of %d: at most %d are supported; use"
                       " more heads", s->D, MOST_HEAD);
    if (!k->cpu && k->info->max_group < 256)
        return gt_fail(GT_UNSUPPORTED, "cannot attend on device '%s': it allows work-groups of %zu,"
                       " 256 are needed", k->info->id, k->info->max_group);
    gt_status st = check_heads(k, s, &in->q, "q");
    if (!st)
        st = check_heads(k, s, &in->k, "k");
    if (!st)
        st = check_heads(k, s, &in->v, "v");
    return st ? st : kernel_fits("attention rows", (int64_t)s->B * s->H * s->T);
}

/* Rows a CPU work-item owns: the most that still gives every core four of them. */
static int rows_each(const kernel_set *k, int heads, int T)
{
    int rows = ROWS;
    const int enough = 4 * (k->info->compute_units > 0 ? k->info->compute_units : 1);
    while (rows > ROW_STEP && heads * ((T + rows - 1) / rows) < enough)
        rows -= ROW_STEP;
    return rows;
}

/* One owner for every `rows` rows of every head; of a GPU's heads, for every part of its columns
 * of results. */
static gt_status launch_blocks(dev_list *l, kernel_set *k, int D, int some, const char *name, int heads,
                               int T, int rows, const dev_arg *args, int count)
{
    const int part = part_of(k, D);
    const size_t parts = strcmp(name, "attention_delta") ? (size_t)((D + part - 1) / part) : 1;
    dev_program *p;
    const size_t blocks = (size_t)heads * (size_t)((T + rows - 1) / rows);
    gt_status st = attention_program(&p, k, D, some);
    if (st)
        return st;
    return dev_list_kernel(l, p, name, k->cpu ? dev_grid_1d(blocks, 1)
                                              : dev_grid_2d(blocks * 16, parts * 16, 16, 16), args, count);
}

/* ---- arguments, in the order of the kernels' macros ------------------------------------------- */

enum { MOST_ARGS = 40 };

typedef struct arguments { dev_arg at[MOST_ARGS]; int count; } arguments;

static void take(arguments *a, dev_arg value)
{
    assert(a->count < MOST_ARGS);
    a->at[a->count++] = value;
}

static void take_shape(arguments *a, const kernel_attention_shape *s)
{
    take(a, dev_arg_i32(s->B));
    take(a, dev_arg_i32(s->T));
    take(a, dev_arg_i32(s->H));
    take(a, dev_arg_i32(s->H / s->KV));
    take(a, dev_arg_i32(s->D));
    take(a, dev_arg_i32(s->causal));
    take(a, dev_arg_f32(s->scale));
}

static void take_drop(arguments *a, const kernel_dropout *drop, int H)
{
    take(a, dev_arg_buffer(drop ? drop->random : NULL));
    take(a, dev_arg_u32(drop ? drop->stream : 0));
    take(a, dev_arg_u32(kernel_dropout_limit(drop)));
    take(a, dev_arg_f32(kernel_dropout_factor(drop)));
    take(a, dev_arg_i32(drop ? drop->first_head : 0));
    take(a, dev_arg_i32(drop && drop->heads ? drop->heads : H));
}

static void take_heads(arguments *a, const kernel_attention_in *in)
{
    const kernel_heads *const each[] = { &in->q, &in->k, &in->v };
    for (int i = 0; i < 3; i++) {
        take(a, dev_arg_buffer(each[i]->buffer));
        take(a, dev_arg_u64((uint64_t)each[i]->first));
        take(a, dev_arg_i32(each[i]->stride));
    }
}

gt_status kernel_attention(dev_list *l, kernel_set *k, const kernel_attention_shape *s,
                           const kernel_dropout *drop, const kernel_attention_in *in, dev_buffer *out,
                           dev_buffer *lse)
{
    const int heads = s->B * s->H, rows = k->cpu ? rows_each(k, heads, s->T) : BLOCK;
    arguments a = { .count = 0 };
    take_shape(&a, s);
    take_drop(&a, drop, s->H);
    take_heads(&a, in);
    take(&a, dev_arg_buffer(out));
    take(&a, dev_arg_buffer(lse));
    take(&a, dev_arg_i32(rows));
    gt_status st = check_shape(k, s, in);
    return st ? st : launch_blocks(l, k, s->D, some_heads(drop, s->H), "attention_forward", heads, s->T,
                                   rows, a.at, a.count);
}

/* 1 if backward gives each CPU work-item a whole head of keys: five products instead of seven, but
 * only heads can go side by side, so there must be enough of them to share out evenly. */
static int owns_heads(const kernel_set *k, int heads)
{
    const int units = k->info->compute_units > 0 ? k->info->compute_units : 1;
    return k->cpu && (heads % units == 0 || heads >= 4 * units);
}

/* Floats of delta, rounded up so that what follows starts on a cache line. */
static uint64_t delta_floats(int heads, int T)
{
    return ((uint64_t)heads * (uint64_t)T + 15) / 16 * 16;
}

uint64_t kernel_attention_scratch(const kernel_set *k, const kernel_attention_shape *s)
{
    const uint64_t rows = (uint64_t)((s->T + BLOCK - 1) / BLOCK * BLOCK);
    const uint64_t width = (uint64_t)((s->D + BLOCK - 1) / BLOCK * BLOCK);      /* PADDED(D) at most */
    const uint64_t sums = owns_heads(k, s->B * s->KV) ? (uint64_t)s->B * (uint64_t)s->H * rows * width : 0;
    return (delta_floats(s->B * s->H, s->T) + sums) * sizeof(float);
}

static gt_status launch_delta(dev_list *l, kernel_set *k, const kernel_attention_shape *s, int some,
                              dev_buffer *out, dev_buffer *dout, dev_buffer *scratch)
{
    const int heads = s->B * s->H, rows = k->cpu ? rows_each(k, heads, s->T) : BLOCK;
    arguments a = { .count = 0 };
    take_shape(&a, s);
    take(&a, dev_arg_buffer(out));
    take(&a, dev_arg_buffer(dout));
    take(&a, dev_arg_buffer(scratch));
    take(&a, dev_arg_i32(rows));
    return launch_blocks(l, k, s->D, some, "attention_delta", heads, s->T, rows, a.at, a.count);
}

gt_status kernel_attention_grad(dev_list *l, kernel_set *k, const kernel_attention_shape *s,
                                const kernel_dropout *drop, const kernel_attention_in *in,
                                dev_buffer *out, dev_buffer *lse, dev_buffer *dout,
                                const kernel_attention_in *d, dev_buffer *scratch)
{
    const int queries = s->B * s->H, keys = s->B * s->KV, some = some_heads(drop, s->H);
    const int whole = owns_heads(k, keys);
    const int rows = k->cpu ? rows_each(k, queries, s->T) : BLOCK;
    const int key_rows = whole ? s->T : k->cpu ? rows_each(k, keys, s->T) : BLOCK;
    arguments a = { .count = 0 };
    take_shape(&a, s);
    take_drop(&a, drop, s->H);
    take_heads(&a, in);
    take(&a, dev_arg_buffer(dout));
    take(&a, dev_arg_buffer(lse));
    take(&a, dev_arg_buffer(scratch));
    take_heads(&a, d);
    const int plain = a.count;
    gt_status st = check_shape(k, s, in);
    if (!st)
        st = check_shape(k, s, d);
    if (!st)
        st = launch_delta(l, k, s, some, out, dout, scratch);
    take(&a, dev_arg_i32(rows));
    if (!st && !whole)
        st = launch_blocks(l, k, s->D, some, "attention_dq", queries, s->T, rows, a.at, a.count);
    a.count = plain;
    take(&a, dev_arg_i32(key_rows));
    if (k->cpu)
        take(&a, dev_arg_u64(whole ? delta_floats(queries, s->T) : 0));
    return st ? st : launch_blocks(l, k, s->D, some, "attention_dkv", keys, s->T, key_rows, a.at, a.count);
}

/* One row is one work-item or work-group of WG. */
static dev_grid row_grid(const kernel_set *k, int heads, int T)
{
    return dev_grid_1d((size_t)heads * (size_t)T * k->group, k->group);
}

gt_status kernel_attention_cached(dev_list *l, kernel_set *k, const kernel_attention_shape *s,
                                  int capacity, dev_buffer *first, const kernel_attention_in *in,
                                  dev_buffer *keys, dev_buffer *values, dev_buffer *out)
{
    const dev_arg sizes[] = { dev_arg_i32(s->T), dev_arg_i32(s->H), dev_arg_i32(s->H / s->KV),
                              dev_arg_i32(s->D), dev_arg_i32(capacity) };
    arguments append = { .count = 0 }, attend = { .count = 0 };
    for (int i = 0; i < KERNEL_ARGS(sizes); i++) {
        take(&append, sizes[i]);
        take(&attend, sizes[i]);
    }
    take(&attend, dev_arg_f32(s->scale));
    take(&append, dev_arg_buffer(first));
    take(&attend, dev_arg_buffer(first));
    take_heads(&append, in);
    take_heads(&attend, in);
    take(&append, dev_arg_buffer(keys));
    take(&attend, dev_arg_buffer(keys));
    take(&append, dev_arg_buffer(values));
    take(&attend, dev_arg_buffer(values));
    take(&attend, dev_arg_buffer(out));
    dev_program *p;
    gt_status st = check_shape(k, s, in);
    if (!st)
        st = attention_program(&p, k, s->D, 0);
    if (!st)
        st = dev_list_kernel(l, p, "attention_append", row_grid(k, s->B * s->KV, s->T), append.at,
                             append.count);
    if (!st)
        st = dev_list_kernel(l, p, "attention_cached", row_grid(k, s->B * s->H, s->T), attend.at,
                             attend.count);
    return st;
}
