/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_tiled.c - products by Geartrain's own kernels, cl/gemm.cl.
 *
 * Any device, any type, every epilogue fused. What is decided here is how C is cut: into
 * blocks a work-item or a work-group owns, small enough to keep all cores busy to the end,
 * large enough that packing does not show.                                              */
#include "host/gemm/engine.h"

#include <stdio.h>
#include <string.h>

/* As in cl/gemm.cl. */
enum { KC = 256, MC = 192, TILE_K = 16 };

/* Which of the ways to build cl/gemm.cl every compiler is shown; append() puts together the same words. */
#define TRANS_A "-DTRANS_A"
#define TRANS_B "-DTRANS_B"
#define TILE_8 "-DTM=8 -DTN=8"
#define TILE_4 "-DTM=4 -DTN=4"
static const dev_variant variants[] = {
    { TILE_8, DEV_FOR_ALL },
    { GEMM_DROP " " TRANS_A " " TILE_8, DEV_FOR_ALL },
    { TRANS_B " " TILE_8, 0 },
    { GEMM_DROP " " TRANS_B " " TILE_4, 0 },
    { GEMM_C_F32 " " TRANS_A " " TILE_8, DEV_16BIT_ONLY },
    { GEMM_B_Q8 " " TILE_8, DEV_FOR_ALL },
    { GEMM_B_Q8 " " TRANS_B " " TILE_8, DEV_FOR_ALL },
    { GEMM_B_BF16 " " TRANS_B " " TILE_8, DEV_FOR_ALL },
#define SHOWN(constant, name, option) { GEMM_DROP " " option " " TRANS_B " " TILE_8, 0 },
    ACTIVATIONS(SHOWN)
#undef SHOWN
        { 0 },
};
const dev_family gemm_tiled_family = { .file = "gemm.cl", .stored = 1, .variants = variants };

static int ceil_div(int a, int b)
{
    return (a + b - 1) / b;
}

/* How the CPU body's work is cut, see the kernel's head. */
typedef struct cpu_cut {
    int panel;                  /* columns a panel: NR                                    */
    int panels_each, rows_each, groups, row_blocks, blocks, items;
    uint64_t item_floats;
} cpu_cut;

/* Tries block shapes and takes the one with the least estimated time, counted in tiles'
 * worth of rows x panels. Packing a panel costs about as much as multiplying `b_cost` rows
 * by it, packing a row as much as `a_cost` panels. A quarter of a block is added for the
 * core that comes last: cores are never equally fast. */
static cpu_cut cut_for_cpu(gemm_context *c, const gemm_desc *g)
{
    const dev_info *info = dev_info_of(gemm_device(c));
    const int width = info->float_width >= 16 ? 16 : info->float_width >= 8 ? 8 : 4;
    const int mr = width == 4 ? 4 : 6, units = info->compute_units;
    const int pack_a = g->trans_a || g->a_type != DTYPE_F32;
    const double b_cost = g->trans_b ? 20 : 8, a_cost = pack_a ? 0.2 : 0.0;
    cpu_cut best = { .panel = width == 16 ? 64 : width == 8 ? 16 : 8 };
    const int panels = ceil_div(g->N, best.panel), most = 256 / best.panel;
    double best_cost = 0;

    for (int each = 1; each <= most && each <= panels; each++)
        for (int parts = 1; parts <= ceil_div(g->M, mr); parts++) {
            const int rows = ceil_div(ceil_div(g->M, parts), mr) * mr;
            if (rows > 1024)
                continue;
            if (best.blocks && rows < 48)
                break;
            const int groups = ceil_div(panels, each), row_blocks = ceil_div(g->M, rows);
            const double blocks = (double)groups * row_blocks * g->batch;
            const double cost = ((double)(int)((blocks + units - 1) / units) + 0.25)
                                * (each * (rows + b_cost) + rows * a_cost);
            if (best.blocks && cost >= best_cost)
                continue;
            best_cost = cost;
            best.panels_each = each;
            best.rows_each = rows;
            best.groups = groups;
            best.row_blocks = row_blocks;
            best.blocks = groups * row_blocks * g->batch;
        }
    best.items = best.blocks <= 8 * units ? best.blocks : 4 * units;
    best.item_floats = (uint64_t)best.panels_each * KC * (uint64_t)best.panel;
    if (pack_a)
        best.item_floats += (uint64_t)MC * (uint64_t)(KC + width);
    if (g->K > KC)
        best.item_floats += (uint64_t)best.rows_each * (uint64_t)(best.panels_each * best.panel);
    return best;
}

/* 128 x 128 blocks reuse most; smaller ones keep all units busy when there are few. */
static int tile_for_gpu(gemm_context *c, const gemm_desc *g)
{
    const int units = dev_info_of(gemm_device(c))->compute_units;
    const double blocks = (double)ceil_div(g->M, 128) * ceil_div(g->N, 128) * g->batch;
    return blocks >= 2.0 * units ? 8 : 4;
}

static int can(gemm_context *c, const gemm_desc *g)
{
    const dev_info *info = dev_info_of(gemm_device(c));
    (void)g;
    return info->style == DEV_STYLE_CPU || info->max_group >= 256;
}

static uint64_t scratch(gemm_context *c, const gemm_desc *g)
{
    if (dev_info_of(gemm_device(c))->style != DEV_STYLE_CPU)
        return 0;
    const cpu_cut cut = cut_for_cpu(c, g);
    return (uint64_t)cut.items * cut.item_floats * sizeof(float);
}

/* tile: of GPUs; "" for CPUs. */
static void make_options(char out[GEMM_OPTIONS], const gemm_desc *g, const char *tile)
{
    char more[64];
    snprintf(more, sizeof more, "%s%s%s%s%s", g->trans_a ? TRANS_A : "", g->trans_a && (g->trans_b || *tile) ? " " : "",
             g->trans_b ? TRANS_B : "", g->trans_b && *tile ? " " : "", tile);
    gemm_options(out, GEMM_OPTIONS, g, more);
}

static gt_status append(gemm_context *c, dev_list *l, const gemm_desc *g, const gemm_buffers *b, gemm_slot *add_at)
{
    enum { COMMON = GEMM_PRODUCT_ARGS + GEMM_EPILOGUE_ARGS, CPU_ONLY = 7 };
    dev_arg args[COMMON + CPU_ONLY];
    char options[GEMM_OPTIONS];
    dev_program *p;
    gt_status st;

    gemm_product_args(args, g, b);
    gemm_epilogue_args(args + GEMM_PRODUCT_ARGS, g, b);
    if (add_at)
        *add_at = (gemm_slot){ dev_list_count(l), GEMM_ADD_ARG };
    if (dev_info_of(gemm_device(c))->style == DEV_STYLE_CPU) {
        const cpu_cut cut = cut_for_cpu(c, g);
        const dev_arg more[CPU_ONLY] = {
            dev_arg_buffer(b->scratch), dev_arg_u64(cut.item_floats), dev_arg_i32(cut.panels_each),
            dev_arg_i32(cut.rows_each), dev_arg_i32(cut.groups),      dev_arg_i32(cut.row_blocks),
            dev_arg_i32(cut.blocks),
        };
        memcpy(args + COMMON, more, sizeof more);
        make_options(options, g, "");
        st = gemm_program(c, &gemm_tiled_family, g->a_type, options, &p);
        if (!st)
            st = dev_list_kernel(l, p, "gemm_cpu", dev_grid_1d((size_t)cut.items, 1), args, COMMON + CPU_ONLY);
        return st;
    }

    const int t = tile_for_gpu(c, g);
    const dev_grid grid = {
        .rank = 3,
        .global = { (size_t)ceil_div(g->N, 16 * t) * 16, (size_t)ceil_div(g->M, 16 * t) * 16, (size_t)g->batch },
        .local = { 16, 16, 1 },
    };
    make_options(options, g, t == 8 ? TILE_8 : TILE_4);
    st = gemm_program(c, &gemm_tiled_family, g->a_type, options, &p);
    if (!st)
        st = dev_list_kernel(l, p, "gemm_gpu", grid, args, COMMON);
    return st;
}

const gemm_engine gemm_tiled = {
    .version = 1,
    .can = can,
    .scratch = scratch,
    .append = append,
};
