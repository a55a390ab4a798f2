/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_optim_tensor.c - launches of cl/optim_tensor.cl, and their cases: rules that see whole
 * tensors, Muon and Adafactor. Skipped, every buffer must come back bit by bit.           */
#include "host/kernel/kernel_cases_private.h"
#include "host/kernel/kernel_private.h"

#include <assert.h>
#include <stdlib.h>

enum { BAND = 64 };              /* columns to a group, as in cl/optim_tensor.cl */

gt_status kernel_muon_momentum(dev_list *l, kernel_set *k, int64_t n, dev_buffer *g, dev_buffer *m, dev_buffer *u,
                               dev_buffer *state, double mu)
{
    dev_arg args[] = {
        [2] = dev_arg_buffer(g), dev_arg_buffer(m),      dev_arg_buffer(u),
        dev_arg_buffer(state),   dev_arg_f32((float)mu), dev_arg_f32((float)(1.0 - mu)),
    };
    return kernel_launch_flat(l, k, &kernel_optim_tensor_family, 0, "muon_momentum", n, args, KERNEL_ARGS(args));
}

gt_status kernel_inverse_norm(dev_list *l, kernel_set *k, int64_t count, dev_buffer *partial, dev_buffer *out,
                              float eps)
{
    dev_arg args[] = { dev_arg_u32((uint32_t)count), dev_arg_buffer(partial), dev_arg_buffer(out), dev_arg_f32(eps) };
    gt_status st = kernel_fits("partial sums", count);
    return st ? st
              : kernel_launch_groups(l, k, &kernel_optim_tensor_family, "inverse_norm", 1, args, KERNEL_ARGS(args));
}

gt_status kernel_scale(dev_list *l, kernel_set *k, int64_t n, dev_buffer *x, dev_buffer *y, dev_buffer *by,
                       float factor)
{
    dev_arg args[] = { [2] = dev_arg_buffer(x), dev_arg_buffer(y), dev_arg_buffer(by), dev_arg_f32(factor) };
    return kernel_launch_flat(l, k, &kernel_optim_tensor_family, 0, "scale", n, args, KERNEL_ARGS(args));
}

gt_status kernel_muon_step(dev_list *l, kernel_set *k, int64_t n, dev_buffer *p, dev_buffer *o, dev_buffer *copy,
                           dev_buffer *state, float lr, float factor, float decay, kernel_slot *lr_at)
{
    dev_arg args[] = {
        [2] = dev_arg_buffer(p), dev_arg_buffer(o),   dev_arg_buffer(copy), dev_arg_buffer(state),
        dev_arg_f32(lr),         dev_arg_f32(factor), dev_arg_f32(decay),
    };
    gt_status st = kernel_launch_flat(l, k, &kernel_optim_tensor_family, 0, "muon_step", n, args, KERNEL_ARGS(args));
    if (!st)
        kernel_slot_last(lr_at, l, 6);
    return st;
}

/* ---- Adafactor ------------------------------------------------------------------------------- */

/* Rows and columns of a matrix, or the second moment of a vector. */
static gt_status adafactor_moments(dev_list *l, kernel_set *k, int R, int C, dev_buffer *g, dev_buffer *rows,
                                   dev_buffer *columns, dev_buffer *second, dev_buffer *found, dev_buffer *state,
                                   float rate)
{
    if (second) {
        dev_arg args[] = { [2] = dev_arg_buffer(g), dev_arg_buffer(second), dev_arg_buffer(state), dev_arg_f32(rate) };
        return kernel_launch_flat(l, k, &kernel_optim_tensor_family, 0, "adafactor_second", C, args, KERNEL_ARGS(args));
    }
    dev_arg by_row[] = { dev_arg_i32(C), dev_arg_buffer(g), dev_arg_buffer(rows), dev_arg_buffer(state),
                         dev_arg_f32(rate) };
    dev_arg by_column[] = { dev_arg_i32(R),          dev_arg_i32(C),        dev_arg_buffer(g),
                            dev_arg_buffer(columns), dev_arg_buffer(state), dev_arg_f32(rate) };
    dev_arg mean[] = { dev_arg_u32((uint32_t)R), dev_arg_buffer(rows), dev_arg_buffer(found) };
    gt_status st = kernel_launch_groups(l, k, &kernel_optim_tensor_family, "adafactor_rows", (size_t)R, by_row,
                                        KERNEL_ARGS(by_row));
    if (!st)
        st = kernel_launch_groups(l, k, &kernel_optim_tensor_family, "adafactor_columns", ((size_t)C + BAND - 1) / BAND,
                                  by_column, KERNEL_ARGS(by_column));
    return st ? st
              : kernel_launch_groups(l, k, &kernel_optim_tensor_family, "adafactor_mean", 1, mean, KERNEL_ARGS(mean));
}

gt_status kernel_adafactor(dev_list *l, kernel_set *k, int R, int C, dev_buffer *p, dev_buffer *g, dev_buffer *rows,
                           dev_buffer *columns, dev_buffer *second, dev_buffer *found, dev_buffer *partial,
                           dev_buffer *copy, dev_buffer *state, float lr, float rate, float limit, float decay,
                           kernel_slot *lr_at)
{
    assert(R > 0 && C > 0 && (second ? R == 1 && !rows && !columns : rows && columns));
    dev_arg squares[] = { dev_arg_i32(C),          dev_arg_buffer(g),      dev_arg_buffer(rows),
                          dev_arg_buffer(columns), dev_arg_buffer(second), dev_arg_buffer(found),
                          dev_arg_buffer(partial), dev_arg_buffer(state) };
    dev_arg most[] = { dev_arg_u32((uint32_t)R), dev_arg_f32((float)((double)R * (double)C)), dev_arg_buffer(partial),
                       dev_arg_buffer(found), dev_arg_f32(limit) };
    dev_arg step[] = { dev_arg_i32(C),          dev_arg_buffer(p),      dev_arg_buffer(g),     dev_arg_buffer(rows),
                       dev_arg_buffer(columns), dev_arg_buffer(second), dev_arg_buffer(found), dev_arg_buffer(copy),
                       dev_arg_buffer(state),   dev_arg_f32(lr),        dev_arg_f32(decay) };
    gt_status st = adafactor_moments(l, k, R, C, g, rows, columns, second, found, state, rate);
    if (!st)
        st = kernel_launch_groups(l, k, &kernel_optim_tensor_family, "adafactor_squares", (size_t)R, squares,
                                  KERNEL_ARGS(squares));
    if (!st)
        st = kernel_launch_groups(l, k, &kernel_optim_tensor_family, "adafactor_limit", 1, most, KERNEL_ARGS(most));
    if (!st)
        st = kernel_launch_groups(l, k, &kernel_optim_tensor_family, "adafactor_step", (size_t)R, step,
                                  KERNEL_ARGS(step));
    if (!st)
        kernel_slot_last(lr_at, l, 9);
    return st;
}

/* ---- slices of tensors ----------------------------------------------------------------------- */

static gt_status append_slice(dev_list *l, kernel_set *k, const char *name, int64_t n, dev_buffer *x, dev_buffer *y,
                              const kernel_slice *s)
{
    dev_arg args[] = { [2] = dev_arg_buffer(x),     dev_arg_buffer(y),
                       dev_arg_i32(s->columns),     dev_arg_i32(s->row.full),
                       dev_arg_i32(s->row.begin),   dev_arg_i32(s->row.count),
                       dev_arg_i32(s->column.full), dev_arg_i32(s->column.begin),
                       dev_arg_i32(s->column.count) };
    return kernel_launch_flat(l, k, &kernel_optim_tensor_family, 0, name, n, args, KERNEL_ARGS(args));
}

gt_status kernel_slice_place(dev_list *l, kernel_set *k, int64_t n, dev_buffer *x, dev_buffer *y, const kernel_slice *s)
{
    return append_slice(l, k, "slice_place", n, x, y, s);
}

gt_status kernel_slice_take(dev_list *l, kernel_set *k, int64_t n, dev_buffer *x, dev_buffer *y, const kernel_slice *s)
{
    return append_slice(l, k, "slice_take", n, x, y, s);
}

static gt_status append_total(dev_list *l, kernel_set *k, int n, dev_buffer *x, dev_buffer *sums, int at)
{
    dev_arg args[] = { dev_arg_u32((uint32_t)n), dev_arg_buffer(x), dev_arg_buffer(sums), dev_arg_i32(at) };
    return kernel_launch_groups(l, k, &kernel_optim_tensor_family, "adafactor_total", 1, args, KERNEL_ARGS(args));
}

/* What is whole on this rank follows at once; of what is cut the own part is summed. */
gt_status kernel_adafactor_slice_sums(dev_list *l, kernel_set *k, const kernel_adafactor_slice *a)
{
    const int columns_cut = a->C < a->all_columns;
    const size_t bands = ((size_t)a->C + BAND - 1) / BAND;
    if (a->second) {
        dev_arg args[] = {
            [2] = dev_arg_buffer(a->g), dev_arg_buffer(a->second), dev_arg_buffer(a->state), dev_arg_f32(a->rate)
        };
        return kernel_launch_flat(l, k, &kernel_optim_tensor_family, 0, "adafactor_second", a->C, args,
                                  KERNEL_ARGS(args));
    }
    dev_arg rows[] = { dev_arg_i32(a->C), dev_arg_buffer(a->g), dev_arg_buffer(columns_cut ? a->sums : a->rows),
                       dev_arg_buffer(a->state), dev_arg_f32(a->rate) };
    dev_arg columns[] = { dev_arg_i32(a->R),        dev_arg_i32(a->C),
                          dev_arg_buffer(a->g),     dev_arg_buffer(columns_cut ? a->columns : a->sums),
                          dev_arg_buffer(a->state), dev_arg_f32(a->rate) };
    /* Kernels that only sum take no rate. */
    gt_status st = kernel_launch_groups(l, k, &kernel_optim_tensor_family,
                                        columns_cut ? "adafactor_row_squares" : "adafactor_rows", (size_t)a->R, rows,
                                        KERNEL_ARGS(rows) - columns_cut);
    if (!st)
        st = kernel_launch_groups(l, k, &kernel_optim_tensor_family,
                                  columns_cut ? "adafactor_columns" : "adafactor_column_squares", bands, columns,
                                  KERNEL_ARGS(columns) - !columns_cut);
    return st || columns_cut ? st : append_total(l, k, a->R, a->rows, a->sums, a->C);
}

gt_status kernel_adafactor_slice_squares(dev_list *l, kernel_set *k, const kernel_adafactor_slice *a)
{
    const int columns_cut = a->C < a->all_columns;
    gt_status st = GT_OK;
    if (!a->second) {
        dev_buffer *follows = columns_cut ? a->rows : a->columns;
        dev_arg args[] = { [2] = dev_arg_buffer(a->sums),
                           dev_arg_buffer(follows),
                           dev_arg_buffer(a->state),
                           dev_arg_f32((float)(columns_cut ? a->all_columns : a->all_rows)),
                           dev_arg_f32(a->rate) };
        st = kernel_launch_flat(l, k, &kernel_optim_tensor_family, 0, "adafactor_follow", columns_cut ? a->R : a->C,
                                args, KERNEL_ARGS(args));
    }
    if (!st && !a->second && columns_cut) {
        dev_arg args[] = { dev_arg_u32((uint32_t)a->R), dev_arg_buffer(a->rows), dev_arg_buffer(a->found) };
        st = kernel_launch_groups(l, k, &kernel_optim_tensor_family, "adafactor_mean", 1, args, KERNEL_ARGS(args));
    } else if (!st && !a->second) {
        dev_arg args[] = { dev_arg_buffer(a->sums), dev_arg_i32(a->C), dev_arg_f32((float)a->all_rows),
                           dev_arg_buffer(a->found) };
        st = kernel_launch_groups(l, k, &kernel_optim_tensor_family, "adafactor_found", 1, args, KERNEL_ARGS(args));
    }
    dev_arg squares[] = { dev_arg_i32(a->C),          dev_arg_buffer(a->g),      dev_arg_buffer(a->rows),
                          dev_arg_buffer(a->columns), dev_arg_buffer(a->second), dev_arg_buffer(a->found),
                          dev_arg_buffer(a->partial), dev_arg_buffer(a->state) };
    if (!st)
        st = kernel_launch_groups(l, k, &kernel_optim_tensor_family, "adafactor_squares", (size_t)a->R, squares,
                                  KERNEL_ARGS(squares));
    return st ? st : append_total(l, k, a->R, a->partial, a->squares, 0);
}

gt_status kernel_adafactor_slice_step(dev_list *l, kernel_set *k, const kernel_adafactor_slice *a, float lr,
                                      kernel_slot *lr_at)
{
    dev_arg most[] = { dev_arg_u32(1), dev_arg_f32((float)((double)a->all_rows * (double)a->all_columns)),
                       dev_arg_buffer(a->squares), dev_arg_buffer(a->found), dev_arg_f32(a->limit) };
    dev_arg step[] = { dev_arg_i32(a->C),        dev_arg_buffer(a->p),       dev_arg_buffer(a->g),
                       dev_arg_buffer(a->rows),  dev_arg_buffer(a->columns), dev_arg_buffer(a->second),
                       dev_arg_buffer(a->found), dev_arg_buffer(a->copy),    dev_arg_buffer(a->state),
                       dev_arg_f32(lr),          dev_arg_f32(a->decay) };
    gt_status st = kernel_launch_groups(l, k, &kernel_optim_tensor_family, "adafactor_limit", 1, most,
                                        KERNEL_ARGS(most));
    if (!st)
        st = kernel_launch_groups(l, k, &kernel_optim_tensor_family, "adafactor_step", (size_t)a->R, step,
                                  KERNEL_ARGS(step));
    if (!st)
        kernel_slot_last(lr_at, l, 9);
    return st;
}

/* ---- cases ------------------------------------------------------------------------------------- */

static void muon_momentum_with(trial *t, int skip)
{
    const int64_t n = elements(t);
    operand *g = give(t, "g", FLOAT, n, 1.0), *m = give(t, "m", FLOAT, n, 1.0), *u = give(t, "u", FLOAT, n, 1.0);
    operand *state = give_state(t, 1, 0.25, 0.9, 0.99);
    if (t->status)
        return;
    append(t, kernel_muon_momentum(t->list, t->k, n, g->buffer, m->buffer, u->buffer, state->buffer, 0.95));
    t->flops = 7.0 * (double)n;
    m->checked = u->checked = 1;
    if (skip)
        state->value[skip] = state->want[skip] = 1.0;
    for (int64_t i = 0; !skip && i < n; i++) {
        const double grad = 0.25 * g->value[i], size = fabs(m->value[i]) + fabs(grad);
        const double moment = 0.95 * m->value[i] + 0.05 * grad;
        expect(m, i, moment, 4.0 * U * size);
        expect(u, i, 0.05 * grad + 0.95 * moment, 8.0 * U * size);
    }
}

static void muon_momentum_case(trial *t)
{
    muon_momentum_with(t, 0);
}
static void muon_momentum_skip_case(trial *t)
{
    muon_momentum_with(t, OPTIM_HALTED);
}

static void scale_case(trial *t)
{
    const int64_t n = elements(t);
    operand *x = give(t, "x", FLOAT, n, 1.0), *by = give(t, "by", FLOAT, 1, 1.0), *y = take(t, "y", FLOAT, n);
    append(t, kernel_scale(t->list, t->k, n, x->buffer, y->buffer, by->buffer, -4.775f));
    t->flops = (double)n;
    for (int64_t i = 0; !t->status && i < n; i++) {
        const double want = x->value[i] * by->value[0] * (double)-4.775f;
        expect(y, i, want, 3.0 * U * fabs(want));
    }
}

static void inverse_norm_case(trial *t)
{
    const int64_t n = elements(t);
    operand *partial = give(t, "partial", FLOAT, n, 1.0), *out = take(t, "out", FLOAT, 1);
    if (t->status)
        return;
    for (int64_t i = 0; i < n; i++)
        partial->value[i] = partial->want[i] = fabs(partial->value[i]);
    append(t, kernel_inverse_norm(t->list, t->k, n, partial->buffer, out->buffer, 1e-7f));
    const double want = 1.0 / (sqrt(reference_sum(n, partial->value)) + 1e-7);
    expect(out, 0, want, U * ROUNDINGS(n) * want);
}

static void muon_step_case(trial *t)
{
    const int64_t n = elements(t);
    const float lr = 0.1f, factor = 3.0f, decay = 0.01f;
    operand *p = give(t, "p", FLOAT, n, 1.0), *o = give(t, "o", FLOAT, n, 0.1);
    operand *copy = give(t, "copy", STORED, n, 1.0), *state = give_state(t, 1, 0.25, 0.9, 0.99);
    kernel_slot slot;
    if (t->status)
        return;
    append(t, kernel_muon_step(t->list, t->k, n, p->buffer, o->buffer, copy->buffer, state->buffer, 1.0f, factor, decay,
                               &slot));
    set_slot(t, slot, dev_arg_f32(lr));
    t->flops = 4.0 * (double)n;
    for (int64_t i = 0; i < n; i++) {
        const double move = (double)lr * (double)factor * o->value[i];
        const double want = p->value[i] - move - (double)lr * (double)decay * p->value[i];
        const double slack = 4.0 * U * (fabs(p->value[i]) + fabs(move));
        expect(p, i, want, slack);
        expect(copy, i, want, slack);
    }
}

/* A matrix of R rows, or a vector. */
static void adafactor_with(trial *t, int vector, int skip)
{
    enum { STEP = 3 };
    const int R = vector ? 1 : t->R, C = vector ? t->R * t->C : t->C;
    const int64_t n = (int64_t)R * C;
    const float lr = 0.1f, rate = 0.8f, limit = 0.5f, decay = 0.01f;
    operand *p = give(t, "p", FLOAT, n, 1.0), *g = give(t, "g", FLOAT, n, 1.0);
    operand *rows = vector ? NULL : give(t, "rows", FLOAT, R, 1.0), *columns = give(t, "columns", FLOAT, C, 1.0);
    operand *copy = give(t, "copy", STORED, n, 1.0), *state = give_state(t, STEP, 0.25, 0.9, 0.99);
    operand *found = scratch(t, 8), *partial = scratch(t, 4 * (uint64_t)R);
    kernel_slot slot;
    if (t->status)
        return;
    state->value[OPTIM_STEP] = state->want[OPTIM_STEP] = STEP;
    for (int i = 0; rows && i < R; i++)
        rows->value[i] = rows->want[i] = (double)(float)(0.0625 + fabs(rows->value[i]));
    for (int i = 0; i < C; i++)
        columns->value[i] = columns->want[i] = (double)(float)(0.0625 + fabs(columns->value[i]));
    append(t, kernel_adafactor(t->list, t->k, R, C, p->buffer, g->buffer, rows ? rows->buffer : NULL,
                               vector ? NULL : columns->buffer, vector ? columns->buffer : NULL, found->buffer,
                               partial->buffer, copy->buffer, state->buffer, 1.0f, rate, limit, decay, &slot));
    set_slot(t, slot, dev_arg_f32(lr));
    t->flops = 16.0 * (double)n;
    p->checked = columns->checked = 1;
    if (rows)
        rows->checked = 1;
    if (skip) {
        state->value[skip] = state->want[skip] = 1.0;
        return;
    }
    reference_adafactor(R, C, p->want, g->value, rows ? rows->want : NULL, vector ? NULL : columns->want,
                        vector ? columns->want : NULL, STEP, 0.25, (double)lr, (double)rate, (double)limit,
                        (double)decay);
    for (int i = 0; rows && i < R; i++)
        rows->slack[i] = (float)(U * (8.0 + ROUNDINGS(C)) * (rows->value[i] + rows->want[i]));
    for (int i = 0; i < C; i++)
        columns->slack[i] = (float)(U * (8.0 + ROUNDINGS(R)) * (columns->value[i] + columns->want[i]));
    for (int64_t i = 0; i < n; i++) {
        const double move = fabs(p->want[i] - p->value[i]) + 0.001 * fabs(p->value[i]);
        p->slack[i] = (float)(U * (4.0 * fabs(p->value[i]) + (24.0 + ROUNDINGS(R) + ROUNDINGS(C)) * move));
        expect(copy, i, p->want[i], (double)p->slack[i]);
    }
}

static void adafactor_case(trial *t)
{
    adafactor_with(t, 0, 0);
}
static void adafactor_vector_case(trial *t)
{
    adafactor_with(t, 1, 0);
}
static void adafactor_skip_case(trial *t)
{
    adafactor_with(t, 0, OPTIM_SKIP);
}

/* Half the columns of a matrix, or all of its rows as if there were more: other ranks have no gradient, so
 * their sums are 0 and need not be added. */
static void adafactor_slice_with(trial *t, int columns_cut)
{
    enum { STEP = 3 };
    const int R = t->R, C = t->C, all = columns_cut ? 2 * C : C;
    const int64_t n = elements(t);
    const float lr = 0.1f, decay = 0.01f;
    operand *p = give(t, "p", FLOAT, n, 1.0), *g = give(t, "g", FLOAT, n, 1.0);
    operand *rows = give(t, "rows", FLOAT, R, 1.0), *columns = give(t, "columns", FLOAT, C, 1.0);
    operand *copy = give(t, "copy", STORED, n, 1.0), *state = give_state(t, STEP, 0.25, 0.9, 0.99);
    operand *own = scratch(t, 8), *partial = scratch(t, 4 * (uint64_t)R), *squares = scratch(t, 4);
    operand *sums = scratch(t, 4 * (uint64_t)(columns_cut ? R : C + 1));
    double *wide[3] = { calloc((size_t)(R * all), 8), calloc((size_t)(R * all), 8), calloc((size_t)all, 8) };
    if (!t->status && (!wide[0] || !wide[1] || !wide[2]))
        t->status = gt_fail(GT_NO_MEMORY, "no memory for a matrix of doubles");
    if (t->status)
        goto out;
    state->value[OPTIM_STEP] = state->want[OPTIM_STEP] = STEP;
    for (int i = 0; i < R; i++)
        rows->value[i] = rows->want[i] = (double)(float)(0.0625 + fabs(rows->value[i]));
    for (int i = 0; i < C; i++)
        columns->value[i] = columns->want[i] = wide[2][i] = (double)(float)(0.0625 + fabs(columns->value[i]));
    for (int64_t i = 0; i < n; i++) {
        wide[0][i / C * all + i % C] = p->value[i];
        wide[1][i / C * all + i % C] = g->value[i];
    }
    const kernel_adafactor_slice a = {
        .R = R,
        .C = C,
        .all_rows = R,
        .all_columns = all,
        .p = p->buffer,
        .g = g->buffer,
        .rows = rows->buffer,
        .columns = columns->buffer,
        .found = own->buffer,
        .partial = partial->buffer,
        .sums = sums->buffer,
        .squares = squares->buffer,
        .copy = copy->buffer,
        .state = state->buffer,
        .rate = 0.8f,
        .limit = 0.5f,
        .decay = decay
    };
    kernel_slot slot;
    append(t, kernel_adafactor_slice_sums(t->list, t->k, &a));
    append(t, kernel_adafactor_slice_squares(t->list, t->k, &a));
    append(t, kernel_adafactor_slice_step(t->list, t->k, &a, 1.0f, &slot));
    set_slot(t, slot, dev_arg_f32(lr));
    p->checked = rows->checked = columns->checked = 1;
    reference_adafactor(R, all, wide[0], wide[1], rows->want, wide[2], NULL, STEP, 0.25, (double)lr, (double)a.rate,
                        (double)a.limit, (double)decay);
    for (int i = 0; i < R; i++)
        rows->slack[i] = (float)(U * (8.0 + ROUNDINGS(C)) * (rows->value[i] + rows->want[i]));
    for (int i = 0; i < C; i++)
        expect(columns, i, wide[2][i], U * (8.0 + ROUNDINGS(R)) * (columns->value[i] + wide[2][i]));
    for (int64_t i = 0; i < n; i++) {
        const double want = wide[0][i / C * all + i % C], size = fabs(p->value[i]);
        const double move = fabs(want - p->value[i]) + 0.001 * size;
        const double slack = U * (4.0 * size + (24.0 + ROUNDINGS(R) + ROUNDINGS(C)) * move);
        expect(p, i, want, slack);
        expect(copy, i, want, slack);
    }
out:
    for (int i = 0; i < 3; i++)
        free(wide[i]);
}

static void adafactor_rows_cut_case(trial *t)
{
    adafactor_slice_with(t, 0);
}
static void adafactor_columns_cut_case(trial *t)
{
    adafactor_slice_with(t, 1);
}

/* Of two parts of R + 2 rows and three of C + 1 columns: both axes at once, which no plan has. */
static void slice_with(trial *t, int take_out)
{
    const int R = 2 * t->R, part = t->R + 2, C = 3 * t->C, across = t->C + 1;
    const kernel_slice s = { { part, 1, t->R }, { across, 1, t->C }, 3 * across };
    const int64_t whole = (int64_t)2 * part * 3 * across, own = (int64_t)R * C;
    operand *x = give(t, "x", FLOAT, take_out ? whole : own, 1.0), *y = take(t, "y", FLOAT, take_out ? own : whole);
    append(t, take_out ? kernel_slice_take(t->list, t->k, own, x->buffer, y->buffer, &s)
                       : kernel_slice_place(t->list, t->k, whole, x->buffer, y->buffer, &s));
    for (int64_t i = 0; !t->status && i < whole; i++) {
        const int64_t r = i / (3 * across) % part - 1, c = i % (3 * across) % across - 1;
        const int held = 0 <= r && r < t->R && 0 <= c && c < t->C;
        const int64_t at = (i / (3 * across) / part * t->R + r) * C + i % (3 * across) / across * t->C + c;
        if (held && take_out)
            expect(y, at, x->value[i], 0.0);
        else if (!take_out)
            expect(y, i, held ? x->value[at] : 0.0, 0.0);
    }
}

static void slice_place_case(trial *t)
{
    slice_with(t, 0);
}
static void slice_take_case(trial *t)
{
    slice_with(t, 1);
}

static const kernel_case cases[] = {
    { "muon, momentum", muon_momentum_case, 8192, 512 },
    { "muon, halted", muon_momentum_skip_case, 0, 0 },
    { "scale", scale_case, 0, 0 },
    { "inverse norm", inverse_norm_case, 0, 0 },
    { "muon, step", muon_step_case, 0, 0 },
    { "adafactor", adafactor_case, 8192, 512 },
    { "adafactor of a vector", adafactor_vector_case, 0, 0 },
    { "adafactor, skipped", adafactor_skip_case, 0, 0 },
    { "adafactor, rows cut", adafactor_rows_cut_case, 0, 0 },
    { "adafactor, columns cut", adafactor_columns_cut_case, 0, 0 },
    { "slice into a matrix", slice_place_case, 0, 0 },
    { "slice out of a matrix", slice_take_case, 0, 0 },
    { 0 },
};

const kernel_family kernel_optim_tensor_family = {
    .program = { .file = "optim_tensor.cl", .stored = 1, .variants = dev_plain_for_all },
    .cases = cases,
};
