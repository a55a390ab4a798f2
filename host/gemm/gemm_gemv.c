/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_gemv.c - a few rows times a matrix of weights, by cl/gemv.cl.
 *
 * Such a product takes as long as its matrix takes to be read. The other engines are made for reuse: they
 * pack the matrix, or, as most BLAS libraries do, read it with one thread.                  */
#include "host/gemm/engine.h"

#include <stdio.h>
#include <string.h>

enum { MOST_ROWS = 4, STREAMS = 4, LANES = 32, OWNED = 4 };     /* as in cl/gemv.cl, but the first */

static const dev_variant variants[] = {
    { "-DROWS=1", DEV_FOR_ALL },
    { GEMM_DROP " -DROWS=4", DEV_FOR_ALL },
    { GEMM_C_F32 " -DROWS=2", DEV_16BIT_ONLY },
    { GEMM_B_Q8 " -DROWS=1", DEV_FOR_ALL },
    { GEMM_B_BF16 " -DROWS=1", DEV_FOR_ALL },
#define SHOWN(constant, name, option) { option " -DROWS=3", 0 },
    ACTIVATIONS(SHOWN)
#undef SHOWN
        { 0 },
};
const dev_family gemm_gemv_family = { .file = "gemv.cl", .stored = 1, .variants = variants };

static int can(gemm_context *c, const gemm_desc *g)
{
    const dev_info *info = dev_info_of(gemm_device(c));
    return g->M <= MOST_ROWS && g->trans_b && !g->trans_a
           && (info->style == DEV_STYLE_CPU || info->max_group >= LANES * OWNED);
}

/* Panels of a work-item: some work-items for each core, since cores are never equally fast; as many for each
 * stream, where there are enough. */
static int panels_each(const dev_info *info, int panels)
{
    const int items = 4 * (info->compute_units > 0 ? info->compute_units : 1);
    const int each = (panels + items - 1) / items;
    return each <= STREAMS ? each : (each + STREAMS - 1) / STREAMS * STREAMS;
}

/* How a CPU's work is cut. */
typedef struct cpu_cut {
    int each;                   /* panels of a work-item               */
    size_t items;               /* of a product                        */
    uint64_t item_floats;       /* of scratch: rows of A beside a B in bf16, packed */
} cpu_cut;

static cpu_cut cut_for_cpu(const dev_info *info, const gemm_desc *g)
{
    const int width = info->float_width >= 16 ? 16 : info->float_width >= 8 ? 8 : 4;
    const int panels = (g->N + width - 1) / width;
    cpu_cut cut = { .each = panels_each(info, panels) };
    cut.items = (size_t)((panels + cut.each - 1) / cut.each);
    cut.item_floats = g->b_type == DTYPE_BF16 ? (uint64_t)g->M * (uint64_t)((g->K + 15) & ~15) : 0;
    return cut;
}

static uint64_t scratch(gemm_context *c, const gemm_desc *g)
{
    const dev_info *info = dev_info_of(gemm_device(c));
    const cpu_cut cut = cut_for_cpu(info, g);
    return info->style == DEV_STYLE_CPU ? cut.items * (uint64_t)g->batch * cut.item_floats * sizeof(float) : 0;
}

static gt_status append(gemm_context *c, dev_list *l, const gemm_desc *g, const gemm_buffers *b, gemm_slot *add_at)
{
    enum { COMMON = GEMM_PRODUCT_ARGS + GEMM_EPILOGUE_ARGS, CPU_ONLY = 3 };
    const dev_info *info = dev_info_of(gemm_device(c));
    const int cpu = info->style == DEV_STYLE_CPU;
    const cpu_cut cut = cut_for_cpu(info, g);
    dev_arg args[COMMON + CPU_ONLY];
    char options[GEMM_OPTIONS], rows[16];
    dev_program *p;

    gemm_product_args(args, g, b);
    gemm_epilogue_args(args + GEMM_PRODUCT_ARGS, g, b);
    args[COMMON] = dev_arg_i32(cut.each);
    args[COMMON + 1] = dev_arg_buffer(b->scratch);
    args[COMMON + 2] = dev_arg_u64(cut.item_floats);
    if (add_at)
        *add_at = (gemm_slot){ dev_list_count(l), GEMM_ADD_ARG };
    snprintf(rows, sizeof rows, "-DROWS=%d", g->M);
    gemm_options(options, sizeof options, g, rows);
    gt_status st = gemm_program(c, &gemm_gemv_family, g->a_type, options, &p);
    const size_t items = cpu ? cut.items : (size_t)((g->N + OWNED - 1) / OWNED) * LANES * OWNED;
    const dev_grid grid = dev_grid_2d(items, (size_t)g->batch, cpu ? 1 : LANES * OWNED, 1);
    return st ? st : dev_list_kernel(l, p, cpu ? "gemv_cpu" : "gemv_gpu", grid, args, cpu ? COMMON + CPU_ONLY : COMMON);
}

const gemm_engine gemm_gemv = {
    .always = 1,
    .version = 1,
    .can = can,
    .scratch = scratch,
    .append = append,
};
