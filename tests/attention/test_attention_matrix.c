/* SPDX-License-Identifier: MIT */
/* tests/attention/test_attention_matrix.c - attention by matrix units against the double-precision reference.
 *
 * On a device with a unit every size and mask runs its instruction; on any other the layouts of all units with a loop
 * for the instruction, where a program compiles for seconds. GT_TEST_DEVICE and GT_TEST_TINY: see attention_oracle.h. */
#include "tests/attention/attention_oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A matrix unit: that of the device, or the layout of one with a loop for its instruction, whose programs take a
 * CPU seconds each to compile. 0 where there is none, and a skip if it is the device's. */
static int place_open_matrix(place *p, const char *unit, dtype type)
{
    char text[32];
    const char *why = NULL;
    snprintf(text, sizeof text, "software:%s", unit ? unit : "");
    if (!place_open(p, "gpu", type))
        return 0;
    if (unit)
        setenv("GEARTRAIN_MATRIX", text, 1);
    const gt_status st = gemm_context_create(&p->g, p->d, "matrix");
    const int has = !st && gemm_matrix_unit(p->g, &why);
    unsetenv("GEARTRAIN_MATRIX");
    p->rounding = type == DTYPE_BF16 ? 1.0 / 256 : 1.0 / 2048;
    if (has)
        return 1;
    if (!unit && (!st || st == GT_UNSUPPORTED))
        check_skip("'%s' has no matrix unit for us", dev_info_of(p->d)->id);
    else
        CHECKF(0, "%s: %s", unit ? unit : "the device's own", why ? why : gt_message());
    place_close(p);
    return 0;
}

/* The device's own, in every size and with every mask. */
static void the_matrix_unit_matches(void)
{
    static const int lengths[] = { 1, 15, 16, 63, 64, 65, 129, 200 };
    static const int heads[] = { 64, 16, 128, 48, 64, 96, 128, 64 };
    static int32_t starts[2 * 200];
    const int32_t padded[] = { 0, 69, 1, 35, 70 };
    for (dtype t = DTYPE_BF16; t <= DTYPE_F16; t++) {
        place p;
        int good = 1;
        if (!place_open_matrix(&p, NULL, t))
            continue;
        for (int i = 0; good && i < (check_tiny() ? 4 : 8); i++)
            good = attention_case(&p, i % 2 ? 1 : 3, lengths[i], heads[i], i % 3 ? 1 : 2, i % 4 != 1, 0.0f, 0, NULL);
        good = good && attention_case(&p, 5, 70, 64, 1, 0, 0.0f, 0, padded)
               && attention_case(&p, 4, 70, 128, 1, 1, 0.0f, 0, padded + 1);
        for (int w = 0; good && w < 3; w++) {
            const reference_mask window = { .causal = 1, .window = w ? 64 : 3 };
            const reference_mask both = { .causal = 1, .window = w ? 0 : 65, .starts = starts };
            cut_documents(starts, 2, 130, 5 + 20 * w);
            good = masked_case(&p, 1, 130, 64, 2, 0.0f, 0, &window) && masked_case(&p, 2, 130, 128, 1, 0.0f, 0, &both);
        }
        CHECK(good && grouped_case(&p, 1, 70, 32, 1, 3, 1, 0.0f) && grouped_case(&p, 2, 67, 64, 2, 2, 0, 0.0f));
        place_close(&p);
    }
}

/* Each unit's layout, with a loop for its instruction: several groups of rows, blocks of keys, and a ragged end; own
 * factors in registers, and of wide heads in local memory, where Intel's sum dV and dK apart. The first unit with every
 * mask and in fp16 as well. Programs compile for seconds here. */
static void the_matrix_unit_matches_in_every_layout(void)
{
    static const struct {
        const char *name;
        int D;
    } units[] = {
        { "wmma11", 32 }, { "mfma", 48 }, { "wmma12", 80 }, { "sync", 80 }, { "dpas8", 32 }, { "dpas16", 80 }
    };
    static int32_t starts[2 * 140];
    const int32_t padded[] = { 0, 69, 1, 70 };
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        for (dtype t = DTYPE_BF16; t <= (i == 0 && !check_tiny() ? DTYPE_F16 : DTYPE_BF16); t++) {
            const int T = check_tiny() ? 19 : 140, D = check_tiny() ? 16 : units[i].D, H = check_tiny() ? 1 : 2;
            const reference_mask both = { .causal = 1, .window = 50, .starts = starts };
            const char *name = "";
            place p;
            if (!place_open_matrix(&p, units[i].name, t))
                continue;
            const kernel_attention_shape s = { .B = 1, .T = T, .H = H, .KV = H, .D = D, .causal = 1, .scale = 1.0f };
            const attention_how how = { p.g, p.k, &s, NULL };
            for (int gradient = 0; gradient < 2; gradient++)
                CHECK(!attention_engine(&how, gradient, &name) && !strcmp(name, "matrix"));
            int good = attention_case(&p, 1, T, D, H, 1, 0.0f, 0, NULL);
            cut_documents(starts, 2, T, 10);
            if (good && i == 0 && !check_tiny())
                good = attention_case(&p, 2, 70, D, 1, 0, 0.0f, 0, NULL)
                       && attention_case(&p, 4, 70, D, 1, 0, 0.0f, 0, padded)
                       && masked_case(&p, 2, T, D, 1, 0.0f, 0, &both) && grouped_case(&p, 2, 33, D, 2, 2, 1, 0.0f);
            CHECK(good);
            place_close(&p);
        }
}

/* All but the loops that a processor may have beside them. */
static void note_engine(void *context, const attention_result *r)
{
    char *names = context;
    if (strcmp(r->engine, "packed") != 0)
        snprintf(names + strlen(names), 64 - strlen(names), "%s ", r->engine);
}

/* Unless an engine is asked for, the unit is one way beside the kernel, whose results it is held to. */
static void the_matrix_unit_is_held_to_the_kernel(void)
{
    const kernel_attention_shape s = {
        .B = 1, .T = ATTENTION_LEAST - 28, .H = 4, .KV = 2, .D = 32, .causal = 1, .scale = 0.2f
    };
    char names[64] = "";
    place p;
    if (check_tiny() || !place_open(&p, "gpu", DTYPE_BF16))
        return;
    setenv("GEARTRAIN_MATRIX", "software:wmma11", 1);
    if (CHECK_OK(gemm_context_create(&p.g, p.d, NULL)))
        CHECK_OK(attention_bench(p.g, p.k, &s, 1, note_engine, names));
    unsetenv("GEARTRAIN_MATRIX");
    CHECKF(!strcmp(names, "kernel matrix kernel matrix "), "%s", names);
    place_close(&p);
}

/* Dropout, fp32 and heads that are no whole tiles, or too wide, are the kernel's. */
static void the_kernel_keeps_what_the_matrix_unit_is_not_for(void)
{
    const kernel_dropout drop = { .p = 0.1f };
    for (dtype t = DTYPE_F32; t <= DTYPE_BF16; t++) {
        place p;
        const char *name = "";
        if (!place_open_matrix(&p, "sync", t))
            continue;
        kernel_attention_shape s = { .B = 1, .T = 8, .H = 2, .KV = 2, .D = 48, .causal = 1, .scale = 1.0f };
        attention_how how = { p.g, p.k, &s, NULL };
        CHECK(!attention_engine(&how, 0, &name) && !strcmp(name, t == DTYPE_F32 ? "kernel" : "matrix"));
        how.drop = &drop;
        CHECK(!attention_engine(&how, 0, &name) && !strcmp(name, "kernel"));
        how.drop = NULL;
        for (int D = 1; D < 300; D += D < 40 ? 1 : 80) {
            s.D = D;
            if (CHECK_OK(attention_engine(&how, 0, &name)))
                CHECKF(!strcmp(name, t != DTYPE_F32 && D % 16 == 0 && D <= 128 ? "matrix" : "kernel"), "%d: %s", D,
                       name);
        }
        place_close(&p);
    }
}

const check_case check_cases[] = {
    CASE(the_matrix_unit_matches),
    CASE(the_matrix_unit_matches_in_every_layout),
    CASE(the_matrix_unit_is_held_to_the_kernel),
    CASE(the_kernel_keeps_what_the_matrix_unit_is_not_for),
    { 0 }
};
