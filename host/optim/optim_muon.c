/* SPDX-License-Identifier: MIT */
/* host/optim/optim_muon.c - Muon: momentum, made orthogonal (Jordan et al., "Muon: an optimizer for hidden
 * layers in neural networks", 2024); embeddings, head and vectors by AdamW.
 *
 *   m = m + (1 - mu)(g - m);  u = g + mu (m - g)             Nesterov
 *   x = u / (|u| + 1e-7);  five times   A = x x',  B = b A + c A A,  x = a x + B x
 *   p = p - lr decay p - lr 0.2 sqrt(max(R, C)) x
 *
 * a, b, c = 3.4445, -4.7750, 2.0315 are Jordan's: they bring the singular values near 1 fast, not to it. The
 * factor 0.2 sqrt(max(R, C)) is that of Liu et al., "Muon is scalable for LLM training" (Moonshot AI, 2025):
 * it gives updates the RMS of AdamW's, so that the same --lr and weight decay do for both. Where R > C, x'
 * x is smaller and stands for x x'. Stacked projections (q, k, v) are one matrix, as in Jordan's code.
 * All in fp32: the products are host/gemm's, appended to the update's list.
 * Ranks that have slices of a matrix each put u together and make all of x; each then takes its slice. */
#include "host/optim/rule.h"

#include <math.h>
#include <stddef.h>

enum { MOMENTUM, FIRST, SECOND };
enum { X, Y, A, B, PARTIAL, NORM, GEMM, SLICE };        /* scratch */
enum { STEPS = 5 };

static const optim_slot slots[] = {
    { "momentum", "momentum", OPTIM_AS_PARAM },
    { "first", "first moments", OPTIM_AS_PARAM },
    { "second", "second moments", OPTIM_AS_PARAM },
};

static const optim_setting settings[] = {
    OPTIM_SETTING("momentum", "decay of the momentum", 0.95, 0.0, 1.0, momentum),
    OPTIM_SETTING("adamw-lr", "peak learning rate of AdamW's part, 0: --lr", 0.0, 0.0, 1e6, adamw_lr),
    OPTIM_SETTING("beta1", "of AdamW's part", 0.9, 0.0, 1.0, beta1),
    OPTIM_SETTING("beta2", "of AdamW's part", 0.95, 0.0, 1.0, beta2),
    OPTIM_SETTING("eps", "of AdamW's part", 1e-8, 1e-300, INFINITY, eps),
};

static int whole(const graph_param_info *info)
{
    return info->full.rank > 1 && !info->table;
}

static unsigned keeps(const optim_config *c, const graph_param_info *info)
{
    (void)c;
    return info && whole(info) ? 1u << MOMENTUM : 1u << FIRST | 1u << SECOND;
}

/* The three products of a step; s is the shorter side. */
static void describe(const optim_unit *unit, gemm_desc d[3])
{
    const int tall = unit->all_rows > unit->all_columns, s = tall ? unit->all_columns : unit->all_rows;
    const int n = tall ? unit->all_rows : unit->all_columns;
    d[0] = (gemm_desc){ .M = s, .N = s, .K = n, .trans_a = tall, .trans_b = !tall };    /* x' x or x x' */
    d[1] = (gemm_desc){ .M = s, .N = s, .K = s, .alpha = 2.0315f, .add = 1 };
    d[2] = tall ? (gemm_desc){ .M = n, .N = s, .K = s, .add = 1 }                       /* x B */
                : (gemm_desc){ .M = s, .N = n, .K = s, .add = 1 };                      /* B x */
    for (int i = 0; i < 3; i++)
        d[i].a_type = d[i].b_type = d[i].c_type = DTYPE_F32;
}

/* Elements of the whole matrix. */
static int64_t all_of(const optim_unit *unit)
{
    return (int64_t)unit->all_rows * unit->all_columns;
}

static void grow(uint64_t *bytes, uint64_t to)
{
    *bytes = *bytes > to ? *bytes : to;
}

static gt_status scratch(optim_update *u, const optim_unit *unit, uint64_t bytes[OPTIM_SCRATCH])
{
    gemm_desc d[3];
    gt_status st = GT_OK;
    if (unit->param < 0)
        return GT_OK;
    describe(unit, d);
    grow(&bytes[X], 4 * (uint64_t)all_of(unit));
    grow(&bytes[Y], 4 * (uint64_t)all_of(unit));
    grow(&bytes[SLICE], unit->cut ? 4 * (uint64_t)unit->count : 0);
    grow(&bytes[A], 4 * (uint64_t)d[0].M * (uint64_t)d[0].M);
    grow(&bytes[B], 4 * (uint64_t)d[0].M * (uint64_t)d[0].M);
    grow(&bytes[PARTIAL], 4 * (uint64_t)kernel_norm_blocks(u->kernels, all_of(unit)));
    grow(&bytes[NORM], 4);
    for (int i = 0; !st && i < 3; i++) {
        uint64_t need = 0;
        st = gemm_scratch(u->gemm, &d[i], &need);
        grow(&bytes[GEMM], need);
    }
    return st;
}

/* to = a from + B from, or from B where the matrix is tall. */
static gt_status append_step(optim_update *u, const optim_unit *unit, dev_buffer *from, dev_buffer *to)
{
    dev_buffer *const *s = u->scratch;
    const int tall = unit->all_rows > unit->all_columns;
    gemm_desc d[3];
    describe(unit, d);
    const gemm_buffers square = { .a = from, .b = from, .c = s[A], .scratch = s[GEMM] };
    const gemm_buffers fourth = { .a = s[A], .b = s[A], .c = s[B], .scratch = s[GEMM] };
    const gemm_buffers last = { .a = tall ? from : s[B], .b = tall ? s[B] : from, .c = to, .scratch = s[GEMM] };
    gt_status st = gemm_append(u->gemm, u->list, &d[0], &square, NULL);
    if (!st)
        st = kernel_scale(u->list, u->kernels, (int64_t)d[0].M * d[0].M, s[A], s[B], NULL, -4.7750f);
    if (!st)
        st = gemm_append(u->gemm, u->list, &d[1], &fourth, NULL);
    if (!st)
        st = kernel_scale(u->list, u->kernels, all_of(unit), from, to, NULL, 3.4445f);
    return st ? st : gemm_append(u->gemm, u->list, &d[2], &last, NULL);
}

static gt_status append_matrix(optim_update *u, const optim_unit *unit)
{
    const optim_config *c = u->config;
    dev_buffer *const *s = u->scratch;
    const int64_t all = all_of(unit);
    const double factor = 0.2 * sqrt((double)(unit->all_rows > unit->all_columns ? unit->all_rows : unit->all_columns));
    const kernel_slice at = optim_slice_of(u, unit);
    dev_buffer *from = s[X], *to = s[Y];
    kernel_slot lr;
    gt_status st = kernel_muon_momentum(u->list, u->kernels, unit->count, unit->grad, unit->slot[MOMENTUM],
                                        unit->cut ? s[SLICE] : s[Y], u->state, c->momentum);
    if (!st && unit->cut)
        st = kernel_slice_place(u->list, u->kernels, all, s[SLICE], s[Y], &at);
    if (!st && unit->cut)
        st = optim_adds(u, s[Y], all);
    if (!st)
        st = kernel_norm_partial(u->list, u->kernels, all, s[Y], s[PARTIAL]);
    if (!st)
        st = kernel_inverse_norm(u->list, u->kernels, kernel_norm_blocks(u->kernels, all), s[PARTIAL], s[NORM], 1e-7f);
    if (!st)
        st = kernel_scale(u->list, u->kernels, all, s[Y], s[X], s[NORM], 1.0f);
    for (int i = 0; !st && i < STEPS; i++) {
        st = append_step(u, unit, from, to);
        dev_buffer *const done = to;
        to = from;
        from = done;
    }
    if (!st && unit->cut) {
        st = kernel_slice_take(u->list, u->kernels, unit->count, from, s[SLICE], &at);
        from = s[SLICE];
    }
    if (!st)
        st = kernel_muon_step(u->list, u->kernels, unit->count, unit->master, from, unit->copy, u->state, (float)c->lr,
                              (float)factor, unit->decay, &lr);
    return st ? st : optim_takes_lr(u, lr, 1.0);
}

static gt_status append(optim_update *u, const optim_unit *unit)
{
    const optim_config *c = u->config;
    const double scale = c->adamw_lr > 0.0 && c->lr > 0.0 ? c->adamw_lr / c->lr : 1.0;
    return unit->param >= 0 ? append_matrix(u, unit)
                            : optim_adamw_append(u, unit, unit->slot[FIRST], unit->slot[SECOND], scale);
}

static gt_status append_slice(optim_update *u, const optim_unit *unit, int pass)
{
    (void)pass;
    return append_matrix(u, unit);
}

const optim_rule optim_muon = {
    .name = "muon",
    .help = "orthogonal momentum of matrices, AdamW for the rest",
    .slots = slots,
    .slot_count = 3,
    .settings = settings,
    .setting_count = 5,
    .products = 1,
    .whole = whole,
    .keeps = keeps,
    .scratch = scratch,
    .append = append,
    .passes = 1,
    .append_slice = append_slice
};
