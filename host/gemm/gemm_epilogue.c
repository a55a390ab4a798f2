/* SPDX-License-Identifier: MIT */
/* host/gemm/gemm_epilogue.c - the launches around engines that only multiply. */
#include "host/gemm/engine.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* As in cl/gemm_epilogue.clh. */
enum { EPI_BIAS = 1, EPI_ACT = 2, EPI_ACT_GRAD = 4, EPI_DROP = 8, EPI_RESIDUAL = 16 };

#define SHOWN(constant, name, option) { GEMM_DROP " " option, 0 },
static const dev_variant variants[] = { ACTIVATIONS(SHOWN){ GEMM_C_F32, DEV_16BIT_ONLY }, { 0 } };
#undef SHOWN
const dev_family gemm_epilogue_family = { .file = "gemm_epilogue.cl", .stored = 1, .variants = variants };

void gemm_options(char *out, size_t size, const gemm_desc *g, const char *more)
{
    const int c_f32 = g->a_type != DTYPE_F32 && g->c_type == DTYPE_F32;
    const char *const b = g->b_type == g->a_type ? "" : g->b_type == DTYPE_Q8 ? GEMM_B_Q8 : GEMM_B_BF16;
    const char *const words[] = { b, c_f32 ? GEMM_C_F32 : "", g->drop_p > 0 ? GEMM_DROP : "",
                                  activation_option(g->act ? g->act : g->act_grad), more };
    size_t at = 0;
    out[0] = 0;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (words[i][0])
            at += (size_t)snprintf(out + at, size - at, "%s%s", at ? " " : "", words[i]);
    assert(at < size);
}

void gemm_product_args(dev_arg out[GEMM_PRODUCT_ARGS], const gemm_desc *g, const gemm_buffers *b)
{
    const q8 blocks = g->b_type == DTYPE_Q8 ? gemm_q8(g) : (q8){ 0 };
    const dev_arg args[GEMM_PRODUCT_ARGS] = {
        dev_arg_i32(g->M),
        dev_arg_i32(g->N),
        dev_arg_i32(g->K),
        dev_arg_buffer(b->a),
        dev_arg_i32(g->lda),
        dev_arg_u64((uint64_t)g->stride_a),
        dev_arg_buffer(b->b),
        dev_arg_i32(g->ldb),
        dev_arg_u64((uint64_t)g->stride_b),
        dev_arg_u64(q8_scales_at(blocks)),
        dev_arg_i32((int32_t)q8_in_row(blocks)),
        dev_arg_i32(blocks.first),
        dev_arg_buffer(b->c),
        dev_arg_i32(g->ldc),
        dev_arg_u64((uint64_t)g->stride_c),
        dev_arg_f32(g->alpha),
        [GEMM_ADD_ARG] = dev_arg_i32(g->add),
    };
    memcpy(out, args, sizeof args);
}

void gemm_epilogue_args(dev_arg out[GEMM_EPILOGUE_ARGS], const gemm_desc *g, const gemm_buffers *b)
{
    const int flags = (g->bias ? EPI_BIAS : 0) | (g->act ? EPI_ACT : 0) | (g->act_grad ? EPI_ACT_GRAD : 0)
                      | (g->drop_p > 0 ? EPI_DROP : 0) | (g->residual ? EPI_RESIDUAL : 0);
    const double limit = (double)g->drop_p * 4294967296.0;

    out[0] = dev_arg_i32(flags);
    out[1] = dev_arg_buffer(g->bias ? b->bias : NULL);
    out[2] = dev_arg_buffer(g->act ? b->pre : NULL);
    out[3] = dev_arg_buffer(g->act_grad ? b->aux : NULL);
    out[4] = dev_arg_buffer(g->residual ? b->residual : NULL);
    out[5] = dev_arg_buffer(g->drop_p > 0 ? b->random : NULL);
    out[6] = dev_arg_u32(g->drop_stream);
    out[7] = dev_arg_u32((uint32_t)limit);
    out[8] = dev_arg_f32((float)(1.0 / (1.0 - (double)g->drop_p)));
    out[9] = dev_arg_u64((uint64_t)g->drop_sequence);
}

/* These kernels read C alone. */
static void options_without_b(char out[GEMM_OPTIONS], const gemm_desc *g)
{
    gemm_desc c = *g;
    c.b_type = c.a_type;
    gemm_options(out, GEMM_OPTIONS, &c, "");
}

/* Rows in dimension 1; on a GPU, four columns a work-item in dimension 0. */
static dev_grid row_grid(gemm_context *c, const gemm_desc *g)
{
    const dev_info *info = dev_info_of(gemm_device(c));
    const size_t rows = (size_t)g->M * (size_t)g->batch;
    if (info->style == DEV_STYLE_CPU)
        return dev_grid_2d(1, rows, 1, 1);
    size_t group = 256;                 /* WG, as dev_program_build chooses it */
    while (group > info->max_group)
        group /= 2;
    return dev_grid_2d(((size_t)g->N + 3) / 4, rows, group, 1);
}

gt_status gemm_epilogue_append(gemm_context *c, dev_list *l, const gemm_desc *g, const gemm_buffers *b)
{
    dev_arg args[6 + GEMM_EPILOGUE_ARGS] = {
        dev_arg_i32(g->M),    dev_arg_i32(g->N),   dev_arg_i32(g->M * g->batch),
        dev_arg_buffer(b->c), dev_arg_i32(g->ldc), dev_arg_u64((uint64_t)g->stride_c),
    };
    char options[GEMM_OPTIONS];
    dev_program *p;
    gemm_epilogue_args(args + 6, g, b);
    options_without_b(options, g);
    gt_status st = gemm_program(c, &gemm_epilogue_family, g->a_type, options, &p);
    if (!st)
        st = dev_list_kernel(l, p, "gemm_epilogue", row_grid(c, g), args, 6 + GEMM_EPILOGUE_ARGS);
    return st;
}

gt_status gemm_clear_append(gemm_context *c, dev_list *l, const gemm_desc *g, dev_buffer *cbuf, gemm_slot *add_at)
{
    const dev_arg args[] = {
        dev_arg_i32(g->M),    dev_arg_i32(g->N),   dev_arg_i32(g->M * g->batch),
        dev_arg_buffer(cbuf), dev_arg_i32(g->ldc), dev_arg_u64((uint64_t)g->stride_c),
        dev_arg_i32(g->add),
    };
    char options[GEMM_OPTIONS];
    dev_program *p;
    gemm_options(options, sizeof options, g, "");
    gt_status st = gemm_program(c, &gemm_epilogue_family, g->a_type, options, &p);
    *add_at = (gemm_slot){ dev_list_count(l), 6 };
    if (!st)
        st = dev_list_kernel(l, p, "gemm_clear", row_grid(c, g), args, 7);
    return st;
}
