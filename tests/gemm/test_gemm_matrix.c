/* SPDX-License-Identifier: MIT */
/* tests/gemm/test_gemm_matrix.c - the engines `matrix` and `bf16x3` against the obvious product.
 *
 * On a device with a matrix unit they run its instruction, in every size, transpose and epilogue; on any other the
 * layouts of all units with a loop for the instruction, where a program compiles for seconds.
 * GT_TEST_DEVICE and GT_TEST_TINY: see gemm_series.h.                                    */
#include "tests/gemm/gemm_oracle.h"
#include "tests/gemm/gemm_series.h"
#include "host/gemm/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Several blocks and slices. Where rows are aligned some blocks are whole, and where they are not, none; the rest of k is
 * a part of a slice, or nothing. And a batch of so many products that the variant for large ones takes them, whose
 * waves have more tiles. */
static void blocks_and_slices(place *p, dtype type)
{
    static const int some[][3] = { { 70, 67, 81 }, { 72, 80, 152 }, { 136, 64, 128 } };
    int good = 1;
    for (int i = 0; i < 3; i++)
        for (int trans = 0; trans < 4 && good; trans++) {
            const gemm_desc g = {
                .M = some[i][0],
                .N = some[i][1],
                .K = some[i][2],
                .trans_a = trans & 1,
                .trans_b = trans >> 1,
                .a_type = type,
                .b_type = type,
                .c_type = type,
                .add = trans == 1,
            };
            good = gemm_case(p->c, p->d, &g, 0);
        }
    for (int trans = 0; trans < 4 && good; trans += 3) {
        gemm_desc many = {
            .M = 136,
            .N = 136,
            .K = 72,
            .trans_a = trans & 1,
            .trans_b = trans >> 1,
            .a_type = type,
            .b_type = type,
            .c_type = DTYPE_F32,
            .batch = (dev_info_of(p->d)->compute_units + 1) / 2,
        };
        many.stride_a = many.M * many.K;
        many.stride_b = many.N * many.K;
        many.stride_c = many.M * many.N;
        good = gemm_case(p->c, p->d, &many, 0);
    }
}

/* On a GPU with a matrix unit. */
static void matrix_agrees_with_the_obvious_product(void)
{
    place p;
    if (!place_open(&p, "gpu", "matrix"))
        return;
    for (int t = 1; t < 3; t++) {
        all_sizes(&p, types[t], types[t], 1);
        all_sizes(&p, types[t], DTYPE_F32, 1);
        if (!check_tiny())
            large_sizes(&p, types[t]);
        padding_and_batches(&p, types[t]);
        epilogues(&p, types[t]);
        blocks_and_slices(&p, types[t]);
    }
    place_close(&p);
}

/* Each unit's layout, with a loop for its instruction: what a lane holds is what it needs. The engine's own trial
 * is a product wider than a tile, compared element by element; the first unit multiplies in fp16 and with the
 * other transposes as well, beyond a work-group's 64 x 64 and a slice's 64 k, in rows that are aligned and not, and
 * one of Intel's, which fetch whole blocks in another place, in aligned ones. (A program compiles for seconds here.) */
static void matrix_agrees_in_the_layout_of_every_unit(void)
{
    static const char *const units[] = { "wmma11", "mfma", "wmma12", "sync", "dpas8", "dpas16" };
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        const gemm_desc g = {
            .M = 70, .N = 67, .K = 81, .trans_a = 1, .a_type = DTYPE_F16, .b_type = DTYPE_F16, .c_type = DTYPE_F16
        };
        gemm_desc whole = g;
        whole.M = 72;
        whole.N = 80;
        whole.K = 152;
        place p;
        char unit[32];
        const char *why;
        snprintf(unit, sizeof unit, "software:%s", units[i]);
        setenv("GEARTRAIN_MATRIX", unit, 1);
        if (!place_open(&p, "gpu", "matrix"))
            break;
        const char *found = gemm_matrix_unit(p.c, &why);
        CHECKF(found != NULL, "%s: %s", units[i], why ? why : "");
        if (i == 0)
            gemm_case(p.c, p.d, &g, 1);
        if (i == 0 || !strcmp(units[i], "dpas16"))
            gemm_case(p.c, p.d, &whole, 0);
        place_close(&p);
    }
    unsetenv("GEARTRAIN_MATRIX");
}

/* fp32 as sums of two bf16, on a GPU with a matrix unit. */
static void bf16x3_agrees_on_the_units_own_instruction(void)
{
    const gemm_desc g = { .M = 70, .N = 67, .K = 81 };
    const char *name = NULL;
    place p;
    if (!place_open(&p, "gpu", "bf16x3"))
        return;
    CHECK_OK(gemm_engine_name(p.c, &g, &name));
    CHECKF(name && !strcmp(name, "bf16x3"), "by %s", name);
    all_sizes(&p, DTYPE_F32, DTYPE_F32, 1);
    if (!check_tiny())
        large_sizes(&p, DTYPE_F32);
    padding_and_batches(&p, DTYPE_F32);
    epilogues(&p, DTYPE_F32);
    blocks_and_slices(&p, DTYPE_F32);
    place_close(&p);
}

/* fp32 as sums of two bf16: right within 16 bits in every layout, or the trial had failed; and by the first one whole
 * products, of other transposes, with an epilogue, added to what is there. */
static void bf16x3_agrees_within_sixteen_bits(void)
{
    static const char *const units[] = { "wmma11", "mfma", "wmma12", "sync", "dpas8", "dpas16" };
    for (size_t i = 0; i < (check_tiny() ? 1 : sizeof units / sizeof *units); i++) {
        gemm_desc g = { .M = 70, .N = 67, .K = 81, .trans_a = 1, .ldb = 72 };
        place p;
        char unit[32];
        const char *name = NULL;
        snprintf(unit, sizeof unit, "software:%s", units[i]);
        setenv("GEARTRAIN_MATRIX", unit, 1);
        if (!place_open(&p, "gpu", "bf16x3"))
            break;
        CHECK_OK(gemm_engine_name(p.c, &g, &name));
        CHECKF(name && !strcmp(name, "bf16x3"), "%s: by %s", units[i], name);
        if (i == 0) {
            gemm_case(p.c, p.d, &g, 1);
            g.trans_a = 0;
            g.M = 72;
            g.K = 88;
            g.bias = g.residual = 1;
            gemm_case(p.c, p.d, &g, 0);
        }
        place_close(&p);
    }
    unsetenv("GEARTRAIN_MATRIX");
}

/* Nobody gets it who has not asked; few rows stay with gemv, other types with what is exact; and a device without a
 * unit has none. */
static void bf16x3_is_for_those_who_ask(void)
{
    gemm_desc g = { .M = 256, .N = 64, .K = 64, .trans_b = 1 };
    const char *name = NULL;
    char names[128];
    place p;
    setenv("GEARTRAIN_MATRIX", "software:sync", 1);
    if (place_open(&p, "gpu", "bf16x3")) {
        g.M = 2;
        CHECK_OK(gemm_engine_name(p.c, &g, &name));
        CHECKF(!strcmp(name, "gemv"), "two rows by %s", name);
        g.M = 256;
        g.a_type = g.b_type = g.c_type = DTYPE_BF16;
        CHECK_OK(gemm_engine_name(p.c, &g, &name));
        CHECKF(strcmp(name, "bf16x3"), "bf16 by %s", name);
        place_close(&p);
    }
    if (place_open(&p, "gpu", NULL)) {
        CHECK(!strstr(gemm_engines_for(p.c, DTYPE_F32, names, sizeof names, " "), "bf16x3"));
        place_close(&p);
    }
    unsetenv("GEARTRAIN_MATRIX");
    if (place_open(&p, "cpu", NULL)) {
        gemm_context *c = NULL;
        CHECK_FAILS(gemm_context_create(&c, p.d, "bf16x3"), GT_UNSUPPORTED, "does not offer what it needs");
        place_close(&p);
    }
}

const check_case check_cases[] = {
    CASE(matrix_agrees_with_the_obvious_product),
    CASE(matrix_agrees_in_the_layout_of_every_unit),
    CASE(bf16x3_agrees_on_the_units_own_instruction),
    CASE(bf16x3_agrees_within_sixteen_bits),
    CASE(bf16x3_is_for_those_who_ask),
    { 0 }
};
