/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_matrix.c - products by a device's matrix unit, cl/gemm_matrix.cl.
 *
 * 16-bit factors, every epilogue fused. Whether there is a unit, and whether it counts, is found by use: the
 * first question builds the kernels, asks them which unit the compiler reaches, and multiplies two small
 * matrices, which are compared with the host's product. A device without one has none, which is said at
 * log level info; one that cannot build it or computes wrongly is warned of, and its products go to the
 * other engines.
 *
 * Two engines: `matrix`, and `bf16x3`, which multiplies fp32 as sums of two bf16 (three products, 16 bits of 24) and
 * has a trial of its own. Less precise than what it stands for, that one is for those who name it.
 *
 * GEARTRAIN_MATRIX   off        no unit is asked for
 *                    software:UNIT   the layout of a unit (mfma, wmma11, wmma12, sync, dpas8, dpas16) on any device, its
 *                                    instruction replaced by a loop: for tests              */
#include "host/gemm/engine.h"
#include "host/gemm/gemm_matrix.h"

#include "host/base/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What ships: blocks of 128 x 128 reuse most; smaller ones keep all units busy when there are few. No GPU has been
 * measured that would tell more. */
enum { BLOCKS_OF_FOUR_WAVES, BLOCKS_OF_XMX_8, BLOCKS_OF_XMX_16 };
static const struct {
    gemm_variant large, small;
    int parts_in_small;         /* registers hold numbers of two parts in small blocks alone */
} blocks_of[] = {
    [BLOCKS_OF_FOUR_WAVES] = { { { 2, 2, 4, 4, 32, 1 } }, { { 2, 2, 2, 2, 64, 1 } }, 0 },
    [BLOCKS_OF_XMX_8] = { { { 4, 4, 2, 4, 16, 1 } }, { { 2, 4, 2, 2, 32, 1 } }, 1 },
    [BLOCKS_OF_XMX_16] = { { { 4, 2, 2, 4, 32, 1 } }, { { 2, 2, 2, 2, 16, 1 } }, 0 },
};

static const struct {
    const char *name, *what;
    int lanes, columns;         /* of a tile, which has 16 rows */
    int blocks;
} units[] = {
    [MATRIX_NONE] = { "none", "no unit", 0, 16, BLOCKS_OF_FOUR_WAVES },
    [MATRIX_MFMA] = { "mfma", "MFMA", 64, 16, BLOCKS_OF_FOUR_WAVES },
    [MATRIX_WMMA11] = { "wmma11", "WMMA (RDNA 3)", 32, 16, BLOCKS_OF_FOUR_WAVES },
    [MATRIX_WMMA12] = { "wmma12", "WMMA (RDNA 4)", 32, 16, BLOCKS_OF_FOUR_WAVES },
    [MATRIX_SYNC] = { "sync", "mma.sync", 32, 16, BLOCKS_OF_FOUR_WAVES },
    [MATRIX_DPAS8] = { "dpas8", "XMX, sub-groups of 8", 8, 8, BLOCKS_OF_XMX_8 },
    [MATRIX_DPAS16] = { "dpas16", "XMX, sub-groups of 16", 16, 16, BLOCKS_OF_XMX_16 },
};
enum { UNITS = sizeof units / sizeof *units, TRIAL = 40 };

typedef struct state {
    int unit;                   /* of the table; 0: none */
    int software;
    int parts_tried, parts_right;       /* of numbers as sums of two */
    char why[256];              /* 0: why there is none  */
} state;

#define TRANS_A "-DTRANS_A"
#define TRANS_B "-DTRANS_B"
#define LARGE "-DLARGE"
#define SMALL "-DSMALL"
#define ASK_UNIT "-DASK_UNIT"
#define BF16X3 "-DBF16X3"
static const dev_variant variants[] = {
    { LARGE, DEV_FOR_ALL | DEV_16BIT_ONLY },
    { GEMM_DROP " " TRANS_A " " LARGE, DEV_16BIT_ONLY },
    { GEMM_C_F32 " " TRANS_A " " TRANS_B " " LARGE, DEV_16BIT_ONLY },
    { TRANS_B " " LARGE, DEV_16BIT_ONLY },
    { TRANS_B " " LARGE " -DSLICES=2", DEV_16BIT_ONLY },
    { GEMM_DROP " " TRANS_B " " SMALL, DEV_16BIT_ONLY },
    { GEMM_C_F32 " " TRANS_B " " LARGE " " BF16X3, DEV_16BIT_ONLY },
    { GEMM_C_F32 " " TRANS_A " " SMALL " " BF16X3, DEV_16BIT_ONLY },
#define SHOWN(constant, name, option) { GEMM_DROP " " option " " TRANS_B " " LARGE, DEV_16BIT_ONLY },
    ACTIVATIONS(SHOWN)
#undef SHOWN
        { 0 },
};
/* XMX has its registers for one thread of two, or a tile's sums spill. */
const dev_family gemm_matrix_family = {
    .file = "gemm_matrix.cl", .stored = 1, .variants = variants, .intel = "-cl-intel-256-GRF-per-thread"
};

static int ceil_div(int a, int b)
{
    return (a + b - 1) / b;
}

/* ---- launching ------------------------------------------------------------------------------- */

enum { WAVES_M, WAVES_N, TILES_M, TILES_N, DEPTH, SLICES, KNOBS };
static const gemm_knob knobs[KNOBS] = {
    [WAVES_M] = { "waves_m", "WAVES_M", 2, { 1, 2, 4 }, 0x2 },
    [WAVES_N] = { "waves_n", "WAVES_N", 2, { 1, 2, 4 }, 0x6 },
    [TILES_M] = { "tiles_m", "MMA_M", 4, { 1, 2, 4, 8 }, 0x6 },
    [TILES_N] = { "tiles_n", "MMA_N", 4, { 1, 2, 4, 8 }, 0x6 },
    [DEPTH] = { "k", "SLICE", 32, { 16, 32, 64, 128 }, 0x6 },
    [SLICES] = { "slices", "SLICES", 1, { 1, 2 }, 0x3 },
};

static int block_m(const gemm_variant *v)
{
    return 16 * v->value[WAVES_M] * v->value[TILES_M];
}

static int block_n(const state *s, const gemm_variant *v)
{
    return units[s->unit].columns * v->value[WAVES_N] * v->value[TILES_N];
}

static int unit_of(gemm_context *c);

static void usual(gemm_context *c, const gemm_desc *g, gemm_variant *out)
{
    const int busy = dev_info_of(gemm_device(c))->compute_units, unit = unit_of(c);
    const double blocks = (double)ceil_div(g->M, 128) * ceil_div(g->N, 128) * g->batch;
    *out = blocks >= 2.0 * busy ? blocks_of[units[unit].blocks].large : blocks_of[units[unit].blocks].small;
}

/* The same; where numbers are of two parts, and a work-group has few items, slices are half as long. */
static void what_ships(gemm_context *c, const state *s, const gemm_desc *g, gemm_variant *out)
{
    usual(c, g, out);
    if (g->a_type != DTYPE_F32)
        return;
    if (blocks_of[units[s->unit].blocks].parts_in_small)
        *out = blocks_of[units[s->unit].blocks].small;
    if (units[s->unit].lanes <= 32 && out->value[DEPTH] > 16)
        out->value[DEPTH] /= 2;
}

/* Bytes of local memory: slices, of numbers of so many parts, or results, whichever is more. By software a wave has 512
 * floats beside them (MMA_SCRATCH). */
static uint64_t local_bytes(const state *s, const gemm_variant *v, int parts)
{
    const int waves = v->value[WAVES_M] * v->value[WAVES_N], rows = parts * v->value[SLICES] * (v->value[DEPTH] + 8);
    const uint64_t slices = (uint64_t)(block_m(v) + block_n(s, v)) * (uint64_t)rows * sizeof(uint16_t);
    const uint64_t out = (uint64_t)waves * 16 * (uint64_t)(units[s->unit].columns * v->value[TILES_N] + 4)
                         * sizeof(float);
    return (s->software ? (uint64_t)waves * 512 * sizeof(float) : 0) + (slices > out ? slices : out);
}

/* Whole fetches of 8 elements an item, in pairs where k runs across the rows. Registers of a lane: its part of the
 * sums, of a column and one piece of the other factor, what it fetches, and two dozen for everything else. */
static int fits(const dev_info *info, const state *s, const gemm_variant *v)
{
    const int lanes = units[s->unit].lanes, waves = v->value[WAVES_M] * v->value[WAVES_N], items = waves * lanes;
    const int columns = units[s->unit].columns, m = block_m(v), n = block_n(s, v), k = v->value[DEPTH];
    const int sums = v->value[TILES_M] * v->value[TILES_N] * 16 * columns / lanes;
    const int pieces = (v->value[TILES_N] * columns + 16) * 16 / lanes / 2, fetched = (m + n) * k / items / 2;
    return (size_t)items <= info->max_group && m * k % (16 * items) == 0 && n * k % (16 * items) == 0
           && local_bytes(s, v, 1) <= info->local_bytes && sums + pieces + fetched + 24 <= 255;
}

/* What replaces a unit's instruction by a loop; nothing for a real one. */
enum { SOFTWARE = 48 };
static void software_options(char out[SOFTWARE], const state *s)
{
    out[0] = '\0';
    if (s->software)
        snprintf(out, SOFTWARE, "-DMMA_SOFTWARE -DMMA_UNIT=%d", s->unit);
}

static void make_options(char out[GEMM_OPTIONS], const state *s, const gemm_desc *g, const gemm_variant *v)
{
    char more[GEMM_VARIANT_OPTIONS + 80], own[GEMM_VARIANT_OPTIONS], software[SOFTWARE];
    software_options(software, s);
    const char *const words[] = { g->trans_a ? TRANS_A : "", g->trans_b ? TRANS_B : "",
                                  gemm_variant_options(own, &gemm_matrix_tunable, v),
                                  g->a_type == DTYPE_F32 ? BF16X3 : "", software };
    size_t at = 0;
    more[0] = '\0';
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (*words[i])
            at += (size_t)snprintf(more + at, sizeof more - at, "%s%s", at ? " " : "", words[i]);
    gemm_desc parts = *g; /* fp32 is multiplied in bf16 */
    if (g->a_type == DTYPE_F32)
        parts.a_type = parts.b_type = DTYPE_BF16;
    gemm_options(out, GEMM_OPTIONS, &parts, more);
}

static gt_status append_by(gemm_context *c, const state *s, dev_list *l, const gemm_desc *g, const gemm_buffers *b,
                           const gemm_variant *v, gemm_slot *add_at)
{
    dev_arg args[GEMM_PRODUCT_ARGS + GEMM_EPILOGUE_ARGS];
    char options[GEMM_OPTIONS];
    dev_program *p;
    const int m = block_m(v), n = block_n(s, v);
    const size_t items = (size_t)(v->value[WAVES_M] * v->value[WAVES_N] * units[s->unit].lanes);
    const dev_grid grid = {
        .rank = 3,
        .global = { (size_t)ceil_div(g->N, n) * items, (size_t)ceil_div(g->M, m), (size_t)g->batch },
        .local = { items, 1, 1 },
    };
    gemm_product_args(args, g, b);
    gemm_epilogue_args(args + GEMM_PRODUCT_ARGS, g, b);
    if (add_at)
        *add_at = (gemm_slot){ dev_list_count(l), GEMM_ADD_ARG };
    make_options(options, s, g, v);
    gt_status st = gemm_program(c, &gemm_matrix_family, g->a_type == DTYPE_F32 ? DTYPE_BF16 : g->a_type, options, &p);
    if (!st)
        st = dev_list_kernel(l, p, "gemm_matrix", grid, args, GEMM_PRODUCT_ARGS + GEMM_EPILOGUE_ARGS);
    return st;
}

/* ---- is there one ------------------------------------------------------------------------------ */

/* Which unit the compiler reaches. */
static gt_status ask_unit(gemm_context *c, int *unit)
{
    dev_device *d = gemm_device(c);
    int32_t told[2] = { 0, 0 };
    dev_program *p;
    dev_buffer *out = NULL;
    dev_list *l = NULL;
    gt_status st = gemm_program(c, &gemm_matrix_family, DTYPE_BF16, ASK_UNIT, &p);
    if (!st)
        st = dev_buffer_create(&out, d, sizeof told, "the number of a matrix unit");
    if (!st)
        st = dev_list_create(&l, d);
    const dev_arg arg = dev_arg_buffer(out);
    if (!st)
        st = dev_list_kernel(l, p, "matrix_unit", dev_grid_1d(1, 1), &arg, 1);
    if (!st)
        st = dev_run(l, 0, -1);
    if (!st)
        st = dev_read(d, out, 0, told, sizeof told);
    dev_list_release(l);
    dev_buffer_release(out);
    if (!st && (told[0] < 0 || told[0] >= UNITS || told[1] != units[told[0]].lanes))
        st = gt_fail(GT_NUMERIC, "it calls itself %d, with %d lanes", told[0], told[1]);
    *unit = st ? 0 : told[0];
    return st;
}

/* Whole numbers of which bf16 and fp32 hold every product and sum. Of fp32, every other one in turn along k has more
 * bits than bf16, and meets one that has not: of two parts as well, nothing is left out. */
static float trial_number(dtype type, int row, int k, int K, int turn)
{
    const float x = (float)(((row * K + k) * 7 + turn * 5) % 13 - 6);
    return type == DTYPE_F32 && (k + turn) % 2 ? 523.0f * x : x;
}

static void trial_matrix(dtype type, void *out, int rows, int K, int turn)
{
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < K; k++)
            dtype_store(type, out, (size_t)r * (size_t)K + (size_t)k, trial_number(type, r, k, K, turn));
}

/* One product that is wider than a tile on every side and a multiple of nothing. */
static gt_status try_unit(gemm_context *c, const state *s, dtype type)
{
    const gemm_desc plain = {
        .M = TRIAL, .N = TRIAL + 9, .K = TRIAL - 3, .trans_b = 1, .a_type = type, .b_type = type, .c_type = DTYPE_F32
    };
    dev_device *d = gemm_device(c);
    float a[TRIAL * TRIAL], b[(TRIAL + 9) * TRIAL], out[TRIAL * (TRIAL + 9)];
    gemm_desc g;
    gemm_variant v;
    gemm_buffers buffers = { 0 };
    dev_list *l = NULL;
    gt_status st = gemm_complete(&g, &plain);
    what_ships(c, s, &g, &v);
    trial_matrix(type, a, g.M, g.K, 1);
    trial_matrix(type, b, g.N, g.K, 2);
    const uint64_t a_bytes = (uint64_t)(g.M * g.K) * dtype_size(type),
                   b_bytes = (uint64_t)(g.N * g.K) * dtype_size(type);
    if (!st)
        st = dev_buffer_create(&buffers.a, d, sizeof a, "a trial of the matrix unit");
    if (!st)
        st = dev_buffer_create(&buffers.b, d, sizeof b, "a trial of the matrix unit");
    if (!st)
        st = dev_buffer_create(&buffers.c, d, sizeof out, "a trial of the matrix unit");
    if (!st)
        st = dev_write(d, buffers.a, 0, a, a_bytes);
    if (!st)
        st = dev_write(d, buffers.b, 0, b, b_bytes);
    if (!st)
        st = dev_list_create(&l, d);
    if (!st)
        st = append_by(c, s, l, &g, &buffers, &v, NULL);
    if (!st)
        st = dev_run(l, 0, -1);
    if (!st)
        st = dev_read(d, buffers.c, 0, out, (uint64_t)(g.M * g.N) * sizeof *out);
    for (int m = 0; !st && m < g.M; m++)
        for (int n = 0; !st && n < g.N; n++) {
            float want = 0.0f;
            for (int k = 0; k < g.K; k++)
                want += trial_number(type, m, k, g.K, 1) * trial_number(type, n, k, g.K, 2);
            if (!(out[m * g.N + n] == want))
                st = gt_fail(GT_NUMERIC, "element %d, %d of a product is %g, not %g", m, n, (double)out[m * g.N + n],
                             (double)want);
        }
    dev_list_release(l);
    dev_buffer_release(buffers.a);
    dev_buffer_release(buffers.b);
    dev_buffer_release(buffers.c);
    return st;
}

/* What GEARTRAIN_MATRIX asks for: the number of a software unit, 0 for the device's own, -1 for none. */
static int wanted(void)
{
    const char *text = getenv("GEARTRAIN_MATRIX");
    if (!text || !*text || !strcmp(text, "auto"))
        return 0;
    for (int i = 1; i < UNITS; i++)
        if (!strncmp(text, "software:", 9) && !strcmp(text + 9, units[i].name))
            return i;
    return -1;
}

static void settle(gemm_context *c, state *s)
{
    const dev_info *info = dev_info_of(gemm_device(c));
    const int asked = wanted();
    gt_status st = GT_OK;
    if (asked < 0) {
        snprintf(s->why, sizeof s->why, "GEARTRAIN_MATRIX turns it off");
        return;
    }
    s->software = asked > 0;
    s->unit = asked;
    if (!asked)
        st = ask_unit(c, &s->unit);
    if (!st && s->unit)
        st = try_unit(c, s, DTYPE_BF16);
    if (st) {
        snprintf(s->why, sizeof s->why, "%.*s", (int)strcspn(gt_message(), "\n"), gt_message());
        gt_message_clear();
        gt_log(GT_LOG_WARN, "gemm", "the matrix unit of '%s' is not used: %s", info->id, s->why);
        s->unit = 0;
    } else if (!s->unit) {
        snprintf(s->why, sizeof s->why, "its compiler reaches none");
        gt_log(GT_LOG_INFO, "gemm", "'%s' has no matrix unit for us: %s", info->id, s->why);
    }
}

static state *state_of(gemm_context *c)
{
    void **kept = gemm_engine_state(c, &gemm_matrix);
    const dev_info *info = dev_info_of(gemm_device(c));
    state *s = *kept;
    if (s || info->style == DEV_STYLE_CPU || info->max_group < 256 || (info->kind == DEV_CPU && wanted() <= 0))
        return s;
    s = calloc(1, sizeof *s);
    *kept = s;
    if (s)
        settle(c, s);
    return s;
}

static int unit_of(gemm_context *c)
{
    const state *s = state_of(c);
    return s ? s->unit : MATRIX_NONE;
}

const char *gemm_matrix_unit(gemm_context *c, const char **why)
{
    const state *s = state_of(c);
    *why = s && !s->unit ? s->why : NULL;
    return s && s->unit ? units[s->unit].what : NULL;
}

int gemm_matrix_number(gemm_context *c, int *lanes)
{
    const int unit = unit_of(c);
    *lanes = units[unit].lanes;
    return unit;
}

gt_status gemm_matrix_program(gemm_context *c, const dev_family *f, dtype storage, const char *options,
                              dev_program **out)
{
    const state *s = state_of(c);
    char all[GEMM_OPTIONS], software[SOFTWARE];
    if (!s || !s->unit)
        return gt_fail(GT_UNSUPPORTED, "cannot build '%s' for '%s': it has no matrix unit for us", f->file,
                       dev_info_of(gemm_device(c))->id);
    software_options(software, s);
    snprintf(all, sizeof all, "%s%s%s", options, *software ? " " : "", software);
    return gemm_program(c, f, storage, all, out);
}

/* ---- the engine -------------------------------------------------------------------------------- */

static int can(gemm_context *c, const gemm_desc *g)
{
    if (g->a_type == DTYPE_F32 || g->b_type != g->a_type)
        return 0;
    const state *s = state_of(c);
    return s && s->unit;
}

static int legal(gemm_context *c, const gemm_variant *v)
{
    const state *s = state_of(c);
    return s && s->unit && fits(dev_info_of(gemm_device(c)), s, v);
}

static uint64_t variant_scratch(gemm_context *c, const gemm_desc *g, const gemm_variant *v)
{
    (void)c, (void)g, (void)v;
    return 0;
}

static gt_status variant_append(gemm_context *c, dev_list *l, const gemm_desc *g, const gemm_buffers *b,
                                const gemm_variant *v, gemm_slot *add_at)
{
    return append_by(c, state_of(c), l, g, b, v, add_at);
}

const gemm_tunable gemm_matrix_tunable = {
    .engine = "matrix",
    .version = 2,
    .count = KNOBS,
    .knobs = knobs,
    .usual = usual,
    .legal = legal,
    .scratch = variant_scratch,
    .append = variant_append,
};

static const gemm_tunable *tunable(gemm_context *c)
{
    const state *s = state_of(c);
    return s && s->unit ? &gemm_matrix_tunable : NULL;
}

/* What ships, of the largest products and of small ones: has the device local memory for it? */
static int has_room_for_parts(gemm_context *c, const state *s)
{
    int good = 1;
    for (int side = 64; side <= 1 << 14; side <<= 8) {
        const gemm_desc g = { .M = side, .N = side, .K = side, .batch = 1 };
        gemm_variant v;
        what_ships(c, s, &g, &v);
        good &= local_bytes(s, &v, 2) <= dev_info_of(gemm_device(c))->local_bytes;
    }
    return good;
}

/* fp32, as sums of two. */
static int can_parts(gemm_context *c, const gemm_desc *g)
{
    state *s = gemm_is_forced(c, &gemm_bf16x3) && g->a_type == DTYPE_F32 && g->b_type == DTYPE_F32 ? state_of(c) : NULL;
    if (!s || !s->unit || s->parts_tried)
        return s && s->parts_right;
    s->parts_tried = 1;
    if (!has_room_for_parts(c, s)) {
        gt_log(GT_LOG_INFO, "gemm", "'%s' has too little local memory for fp32 on its matrix unit",
               dev_info_of(gemm_device(c))->id);
        return 0;
    }
    s->parts_right = !try_unit(c, s, DTYPE_F32);
    if (!s->parts_right) {
        gt_log(GT_LOG_WARN, "gemm", "the matrix unit of '%s' is not used for fp32: %.*s",
               dev_info_of(gemm_device(c))->id, (int)strcspn(gt_message(), "\n"), gt_message());
        gt_message_clear();
    }
    return s->parts_right;
}

static uint64_t scratch(gemm_context *c, const gemm_desc *g)
{
    (void)c, (void)g;
    return 0;
}

static gt_status append(gemm_context *c, dev_list *l, const gemm_desc *g, const gemm_buffers *b, gemm_slot *add_at)
{
    gemm_variant v;
    gemm_tuned(c, &gemm_matrix_tunable, g, &v);
    return append_by(c, state_of(c), l, g, b, &v, add_at);
}

static gt_status append_parts(gemm_context *c, dev_list *l, const gemm_desc *g, const gemm_buffers *b,
                              gemm_slot *add_at)
{
    const state *s = state_of(c);
    gemm_variant v;
    what_ships(c, s, g, &v);
    return append_by(c, s, l, g, b, &v, add_at);
}

const gemm_engine gemm_matrix = {
    .version = 2,
    .can = can,
    .scratch = scratch,
    .append = append,
    .release = free,
    .tunable = tunable,
};

/* What there is to release is the other's. */
const gemm_engine gemm_bf16x3 = {
    .less_precise = 1,
    .version = 2,
    .can = can_parts,
    .scratch = scratch,
    .append = append_parts,
};
