/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_tiled.c - products by Geartrain's own kernels, cl/gemm.cl.
 *
 * Any device, any type, every epilogue fused. What is decided here is how C is cut: into
 * blocks a work-item or a work-group owns, small enough to keep all cores busy to the end,
 * large enough that packing does not show. The tiles within are a variant (gemm_variant.h): what ships
 * for the device's kind of registers, or what has been tuned.                             */
#include "host/gemm/engine.h"

#include <stdio.h>
#include <string.h>

/* Which of the ways to build cl/gemm.cl every compiler is shown; append() puts together the same words. */
#define TRANS_A "-DTRANS_A"
#define TRANS_B "-DTRANS_B"
#define TILE_8 "-DTM=8 -DTN=8"
static const dev_variant variants[] = {
    { TILE_8, DEV_FOR_ALL },
    { GEMM_DROP " " TRANS_A " " TILE_8, DEV_FOR_ALL },
    { TRANS_B " " TILE_8, 0 },
    { GEMM_DROP " " TRANS_B, 0 },
    { TRANS_B " -DTM=8 -DTN=8 -DSLICES=2", DEV_16BIT_ONLY },
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

/* ---- CPUs ------------------------------------------------------------------------------------- */

/* columns: of C that a block's packed panels hold at most; the rest as in cl/gemm.cl. */
enum { ROWS, VECTORS, COLUMNS, DEPTH, KEPT, UNROLL, PACKED, CPU_KNOBS };
static const gemm_knob cpu_knobs[CPU_KNOBS] = {
    [ROWS] = { "rows", "MR", 0, { 4, 6, 8, 10, 12, 14 }, 0x3a },
    [VECTORS] = { "vectors", "NV", 0, { 1, 2, 3, 4 }, 0xe },
    [COLUMNS] = { "columns", NULL, 0, { 64, 128, 256, 512, 1024 }, 0x14 },
    [DEPTH] = { "k", "KC", 256, { 128, 192, 256, 384, 512, 768 }, 0x14 },
    [KEPT] = { "kept", "MC", 192, { 48, 96, 192, 384, 768 }, 0x4 },
    [UNROLL] = { "unroll", "KU", 4, { 1, 2, 4, 8 }, 0x4 },
    [PACKED] = { "packed", "PACKED", 1, { 1, 2 }, 0x3 },
};

static int vector_width(gemm_context *c)
{
    const int width = dev_info_of(gemm_device(c))->float_width;
    return width >= 16 ? 16 : width >= 8 ? 8 : 4;
}

/* What ships, by the width of registers: AVX-512, AVX2, and others of 128 bits. */
static void cpu_usual(gemm_context *c, const gemm_desc *g, gemm_variant *out)
{
    static const gemm_variant wide = { { 6, 4, 256, 256, 192, 4, 1 } }, half = { { 6, 2, 256, 256, 192, 4, 1 } },
                              quarter = { { 4, 2, 256, 256, 192, 4, 1 } };
    const int width = vector_width(c);
    (void)g;
    *out = width == 16 ? wide : width == 8 ? half : quarter;
}

/* A tile's sums, a row of the right factor and one number of the left are in registers: 32 with AVX-512, else 16. */
static int cpu_legal(gemm_context *c, const gemm_variant *v)
{
    const int width = vector_width(c);
    return v->value[ROWS] * v->value[VECTORS] + v->value[VECTORS] + 1 <= (width == 16 ? 32 : 16)
           && v->value[VECTORS] * width <= v->value[COLUMNS];
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
static cpu_cut cut_for_cpu(gemm_context *c, const gemm_desc *g, const gemm_variant *v)
{
    const int width = vector_width(c), mr = v->value[ROWS], kc = v->value[DEPTH];
    const int units = dev_info_of(gemm_device(c))->compute_units;
    const int pack_a = g->trans_a || g->a_type != DTYPE_F32 || v->value[PACKED] == 2;
    const double b_cost = g->trans_b ? 20 : 8, a_cost = pack_a ? 0.2 : 0.0;
    cpu_cut best = { .panel = v->value[VECTORS] * width };
    const int panels = ceil_div(g->N, best.panel), most = v->value[COLUMNS] / best.panel;
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
    best.item_floats = (uint64_t)best.panels_each * (uint64_t)kc * (uint64_t)best.panel;
    if (pack_a)
        best.item_floats += (uint64_t)(v->value[KEPT] / mr * mr) * (uint64_t)(kc + width);
    if (g->K > kc)
        best.item_floats += (uint64_t)best.rows_each * (uint64_t)(best.panels_each * best.panel);
    return best;
}

static uint64_t cpu_scratch(gemm_context *c, const gemm_desc *g, const gemm_variant *v)
{
    const cpu_cut cut = cut_for_cpu(c, g, v);
    return (uint64_t)cut.items * cut.item_floats * sizeof(float);
}

/* ---- GPUs --------------------------------------------------------------------------------------- */

enum { ACROSS, DOWN, TILE_ROWS, TILE_COLUMNS, TILE_DEPTH, SLICES, GPU_KNOBS };
static const gemm_knob gpu_knobs[GPU_KNOBS] = {
    [ACROSS] = { "across", "TILE_X", 16, { 8, 16, 32 }, 0x3 },
    [DOWN] = { "down", "TILE_Y", 16, { 4, 8, 16, 32 }, 0x6 },
    [TILE_ROWS] = { "rows", "TM", 4, { 4, 8, 16 }, 0x3 },
    [TILE_COLUMNS] = { "columns", "TN", 4, { 4, 8, 16 }, 0x3 },
    [TILE_DEPTH] = { "k", "TILE_K", 16, { 4, 8, 16, 32 }, 0x6 },
    [SLICES] = { "slices", "SLICES", 1, { 1, 2 }, 0x3 },
};

/* 128 x 128 blocks reuse most; smaller ones keep all units busy when there are few. No GPU has been measured that
 * would tell more. */
static void gpu_usual(gemm_context *c, const gemm_desc *g, gemm_variant *out)
{
    const int units = dev_info_of(gemm_device(c))->compute_units;
    const double blocks = (double)ceil_div(g->M, 128) * ceil_div(g->N, 128) * g->batch;
    const int t = blocks >= 2.0 * units ? 8 : 4;
    *out = (gemm_variant){ { 16, 16, t, t, 16, 1 } };
}

/* Registers: sums, a column and a row of slices, what is fetched, and two dozen for everything else. */
static int gpu_legal(gemm_context *c, const gemm_variant *v)
{
    const dev_info *info = dev_info_of(gemm_device(c));
    const int items = v->value[ACROSS] * v->value[DOWN], k = v->value[TILE_DEPTH];
    const int m = v->value[DOWN] * v->value[TILE_ROWS], n = v->value[ACROSS] * v->value[TILE_COLUMNS];
    const int sums = v->value[TILE_ROWS] * v->value[TILE_COLUMNS];
    return (size_t)items <= info->max_group && m * k % (4 * items) == 0 && n * k % (4 * items) == 0
           && (uint64_t)(v->value[SLICES] * k * (m + n + 8)) * sizeof(float) <= info->local_bytes
           && sums + v->value[TILE_ROWS] + v->value[TILE_COLUMNS] + (m + n) * k / items + 24 <= 255;
}

static uint64_t gpu_scratch(gemm_context *c, const gemm_desc *g, const gemm_variant *v)
{
    (void)c, (void)g, (void)v;
    return 0;
}

/* ---- both ---------------------------------------------------------------------------------------- */

static int can(gemm_context *c, const gemm_desc *g)
{
    const dev_info *info = dev_info_of(gemm_device(c));
    (void)g;
    return info->style == DEV_STYLE_CPU || info->max_group >= 256;
}

static void make_options(char out[GEMM_OPTIONS], const gemm_tunable *t, const gemm_desc *g, const gemm_variant *v)
{
    char more[GEMM_VARIANT_OPTIONS + 32], own[GEMM_VARIANT_OPTIONS];
    gemm_variant_options(own, t, v);
    snprintf(more, sizeof more, "%s%s%s%s%s", g->trans_a ? TRANS_A : "", g->trans_a && (g->trans_b || *own) ? " " : "",
             g->trans_b ? TRANS_B : "", g->trans_b && *own ? " " : "", own);
    gemm_options(out, GEMM_OPTIONS, g, more);
}

enum { COMMON = GEMM_PRODUCT_ARGS + GEMM_EPILOGUE_ARGS, CPU_ONLY = 7 };
static void common_args(dev_arg args[COMMON], dev_list *l, const gemm_desc *g, const gemm_buffers *b, gemm_slot *add_at)
{
    gemm_product_args(args, g, b);
    gemm_epilogue_args(args + GEMM_PRODUCT_ARGS, g, b);
    if (add_at)
        *add_at = (gemm_slot){ dev_list_count(l), GEMM_ADD_ARG };
}

static gt_status cpu_append(gemm_context *c, dev_list *l, const gemm_desc *g, const gemm_buffers *b,
                            const gemm_variant *v, gemm_slot *add_at)
{
    dev_arg args[COMMON + CPU_ONLY];
    char options[GEMM_OPTIONS];
    dev_program *p;
    const cpu_cut cut = cut_for_cpu(c, g, v);
    const dev_arg more[CPU_ONLY] = {
        dev_arg_buffer(b->scratch), dev_arg_u64(cut.item_floats), dev_arg_i32(cut.panels_each),
        dev_arg_i32(cut.rows_each), dev_arg_i32(cut.groups),      dev_arg_i32(cut.row_blocks),
        dev_arg_i32(cut.blocks),
    };
    common_args(args, l, g, b, add_at);
    memcpy(args + COMMON, more, sizeof more);
    make_options(options, &gemm_tiled_cpu, g, v);
    gt_status st = gemm_program(c, &gemm_tiled_family, g->a_type, options, &p);
    return st ? st : dev_list_kernel(l, p, "gemm_cpu", dev_grid_1d((size_t)cut.items, 1), args, COMMON + CPU_ONLY);
}

static gt_status gpu_append(gemm_context *c, dev_list *l, const gemm_desc *g, const gemm_buffers *b,
                            const gemm_variant *v, gemm_slot *add_at)
{
    dev_arg args[COMMON];
    char options[GEMM_OPTIONS];
    dev_program *p;
    const size_t x = (size_t)v->value[ACROSS], y = (size_t)v->value[DOWN];
    const int m = v->value[DOWN] * v->value[TILE_ROWS], n = v->value[ACROSS] * v->value[TILE_COLUMNS];
    const dev_grid grid = {
        .rank = 3,
        .global = { (size_t)ceil_div(g->N, n) * x, (size_t)ceil_div(g->M, m) * y, (size_t)g->batch },
        .local = { x, y, 1 },
    };
    common_args(args, l, g, b, add_at);
    make_options(options, &gemm_tiled_gpu, g, v);
    gt_status st = gemm_program(c, &gemm_tiled_family, g->a_type, options, &p);
    return st ? st : dev_list_kernel(l, p, "gemm_gpu", grid, args, COMMON);
}

const gemm_tunable gemm_tiled_cpu = {
    .engine = "tiled",
    .version = 1,
    .count = CPU_KNOBS,
    .knobs = cpu_knobs,
    .usual = cpu_usual,
    .legal = cpu_legal,
    .scratch = cpu_scratch,
    .append = cpu_append,
};
const gemm_tunable gemm_tiled_gpu = {
    .engine = "tiled",
    .version = 1,
    .count = GPU_KNOBS,
    .knobs = gpu_knobs,
    .usual = gpu_usual,
    .legal = gpu_legal,
    .scratch = gpu_scratch,
    .append = gpu_append,
};

static const gemm_tunable *tunable(gemm_context *c)
{
    return dev_info_of(gemm_device(c))->style == DEV_STYLE_CPU ? &gemm_tiled_cpu : &gemm_tiled_gpu;
}

static uint64_t scratch(gemm_context *c, const gemm_desc *g)
{
    const gemm_tunable *t = tunable(c);
    gemm_variant v;
    gemm_tuned(c, t, g, &v);
    return t->scratch(c, g, &v);
}

static gt_status append(gemm_context *c, dev_list *l, const gemm_desc *g, const gemm_buffers *b, gemm_slot *add_at)
{
    const gemm_tunable *t = tunable(c);
    gemm_variant v;
    gemm_tuned(c, t, g, &v);
    return t->append(c, l, g, b, &v, add_at);
}

const gemm_engine gemm_tiled = {
    .version = 1,
    .can = can,
    .scratch = scratch,
    .append = append,
    .tunable = tunable,
};
