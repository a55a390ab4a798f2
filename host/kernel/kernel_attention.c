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

/* Sizes the kernels can take; the head size is C / H. */
static gt_status check_shape(const kernel_set *k, int64_t rows, int C, int H)
{
    assert(C > 0 && H > 0 && C % H == 0);
    if (C / H > MOST_HEAD)
        return gt_fail(GT_UNSUPPORTED, "cannot attend with heads of %d: at most %d are supported; use"
                       " more heads", C / H, MOST_HEAD);
    if (!k->cpu && k->info->max_group < 256)
        return gt_fail(GT_UNSUPPORTED, "cannot attend on device '%s': it allows work-groups of %zu,"
                       " 256 are needed", k->info->id, k->info->max_group);
    return kernel_fits("attention rows", rows);
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

gt_status kernel_attention(dev_list *l, kernel_set *k, int B, int T, int C, int H, int causal,
                           float scale, const kernel_dropout *drop, dev_buffer *qkv, dev_buffer *out,
                           dev_buffer *lse)
{
    const int rows = k->cpu ? rows_each(k, B * H, T) : BLOCK, D = C / H;
    const dev_arg args[] = {
        dev_arg_i32(B), dev_arg_i32(T), dev_arg_i32(H), dev_arg_i32(D), dev_arg_i32(causal),
        dev_arg_f32(scale),
        dev_arg_buffer(drop ? drop->random : NULL), dev_arg_u32(drop ? drop->stream : 0),
        dev_arg_u32(kernel_dropout_limit(drop)), dev_arg_f32(kernel_dropout_factor(drop)),
        dev_arg_i32(drop ? drop->first_head : 0), dev_arg_i32(drop && drop->heads ? drop->heads : H),
        dev_arg_buffer(qkv), dev_arg_buffer(out), dev_arg_buffer(lse), dev_arg_i32(rows),
    };
    gt_status st = check_shape(k, (int64_t)B * H * T, C, H);
    return st ? st : launch_blocks(l, k, D, some_heads(drop, H), "attention_forward", B * H, T, rows,
                                   args, KERNEL_ARGS(args));
}

/* 1 if backward gives each CPU work-item a whole head: five products instead of seven, but
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

uint64_t kernel_attention_scratch(const kernel_set *k, int B, int T, int C, int H)
{
    const uint64_t rows = (uint64_t)((T + BLOCK - 1) / BLOCK * BLOCK);
    const uint64_t width = (uint64_t)((C / H + BLOCK - 1) / BLOCK * BLOCK);     /* PADDED(D) at most */
    const uint64_t sums = owns_heads(k, B * H) ? (uint64_t)B * (uint64_t)H * rows * width : 0;
    return (delta_floats(B * H, T) + sums) * sizeof(float);
}

gt_status kernel_attention_grad(dev_list *l, kernel_set *k, int B, int T, int C, int H, int causal,
                                float scale, const kernel_dropout *drop, dev_buffer *qkv,
                                dev_buffer *out, dev_buffer *lse, dev_buffer *dout, dev_buffer *dqkv,
                                dev_buffer *scratch)
{
    const int rows = k->cpu ? rows_each(k, B * H, T) : BLOCK, D = C / H;
    const int whole = owns_heads(k, B * H), some = some_heads(drop, H);
    const dev_arg sizes[] = {
        dev_arg_i32(B), dev_arg_i32(T), dev_arg_i32(H), dev_arg_i32(D), dev_arg_i32(causal),
        dev_arg_f32(scale),
    };
    const dev_arg delta_args[] = {
        sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], dev_arg_buffer(out),
        dev_arg_buffer(dout), dev_arg_buffer(scratch), dev_arg_i32(rows),
    };
    const dev_arg args[] = {
        sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5],
        dev_arg_buffer(drop ? drop->random : NULL), dev_arg_u32(drop ? drop->stream : 0),
        dev_arg_u32(kernel_dropout_limit(drop)), dev_arg_f32(kernel_dropout_factor(drop)),
        dev_arg_i32(drop ? drop->first_head : 0), dev_arg_i32(drop && drop->heads ? drop->heads : H),
        dev_arg_buffer(qkv), dev_arg_buffer(dout), dev_arg_buffer(lse), dev_arg_buffer(scratch),
        dev_arg_buffer(dqkv), dev_arg_i32(whole ? T : rows),
        dev_arg_u64(whole ? delta_floats(B * H, T) : 0),    /* taken by the CPU's dkv alone */
    };
    const int plain = KERNEL_ARGS(args) - 1;
    gt_status st = check_shape(k, (int64_t)B * H * T, C, H);
    if (!st)
        st = launch_blocks(l, k, D, some, "attention_delta", B * H, T, rows, delta_args,
                           KERNEL_ARGS(delta_args));
    if (!st && !whole)
        st = launch_blocks(l, k, D, some, "attention_dq", B * H, T, rows, args, plain);
    if (!st)
        st = launch_blocks(l, k, D, some, "attention_dkv", B * H, T, whole ? T : rows, args,
                           k->cpu ? plain + 1 : plain);
    return st;
}

gt_status kernel_attention_cached(dev_list *l, kernel_set *k, int B, int n, int C, int H,
                                  int capacity, float scale, dev_buffer *first, dev_buffer *qkv,
                                  dev_buffer *keys, dev_buffer *values, dev_buffer *out)
{
    const int D = C / H;
    const dev_arg append[] = {
        dev_arg_i32(n), dev_arg_i32(H), dev_arg_i32(D), dev_arg_i32(capacity),
        dev_arg_buffer(first), dev_arg_buffer(qkv), dev_arg_buffer(keys), dev_arg_buffer(values),
    };
    const dev_arg attend[] = {
        dev_arg_i32(n), dev_arg_i32(H), dev_arg_i32(D), dev_arg_i32(capacity),
        dev_arg_f32(scale), dev_arg_buffer(first), dev_arg_buffer(qkv),
        dev_arg_buffer(keys), dev_arg_buffer(values), dev_arg_buffer(out),
    };
    /* One row is one work-item or work-group of WG. */
    const dev_grid grid = dev_grid_1d((size_t)B * (size_t)H * (size_t)n * k->group, k->group);
    dev_program *p;
    gt_status st = check_shape(k, (int64_t)B * H * n, C, H);
    if (!st)
        st = attention_program(&p, k, D, 0);
    if (!st)
        st = dev_list_kernel(l, p, "attention_append", grid, append, KERNEL_ARGS(append));
    if (!st)
        st = dev_list_kernel(l, p, "attention_cached", grid, attend, KERNEL_ARGS(attend));
    return st;
}
