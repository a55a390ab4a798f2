/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_cases_optim.c - cases of cl/optim.cl and cl/optim_tensor.cl.
 *
 *     state   clip, bias corrections, skip, halted     written by other kernels in a run, given here
 *     skip    every buffer must come back bit by bit
 *
 * The learning rate is set behind the append, as every step of a run does.               */
#include "host/kernel/kernel_cases_private.h"

static void norm_partial_case(trial *t)
{
    const int64_t n = elements(t), blocks = kernel_norm_blocks(t->k, n), each = (n + blocks - 1) / blocks;
    operand *g = give(t, "g", FLOAT, n, 1.0), *partial = take(t, "partial", FLOAT, blocks);
    append(t, kernel_norm_partial(t->list, t->k, n, g->buffer, partial->buffer));
    t->flops = 2.0 * (double)n;
    const int64_t block = blocks == 1 ? each : 16384;
    for (int64_t b = 0; !t->status && b < blocks; b++) {
        const int64_t begin = b * block, end = begin + block < n ? begin + block : n;
        const double want = reference_square_sum(end - begin, g->value + begin);
        expect(partial, b, want, U * ROUNDINGS(end - begin) * want);
    }
}

/* The optimizer's scalars as they are after `step` updates. */
static operand *give_state(trial *t, int step, double clip, double beta1, double beta2)
{
    operand *o = give(t, "state", FLOAT, OPTIM_STATE_FLOATS, 1.0);
    if (t->status)
        return o;
    for (int i = 0; i < OPTIM_STATE_FLOATS; i++)
        o->value[i] = 0.0;
    o->value[OPTIM_CLIP] = (double)(float)clip;
    o->value[OPTIM_BIAS1] = (double)(float)(1.0 - pow(beta1, step));
    o->value[OPTIM_BIAS2] = (double)(float)(1.0 - pow(beta2, step));
    for (int i = 0; i < OPTIM_STATE_FLOATS; i++)
        o->want[i] = o->value[i];
    return o;
}

static void adamw_with(trial *t, int with_copy, int skip)
{
    enum { STEP = 3 };
    const int64_t n = elements(t);
    const float lr = 3e-3f, eps = 1e-8f, decay = 0.1f;
    operand *p = give(t, "p", FLOAT, n, 1.0), *g = give(t, "g", FLOAT, n, 0.01);
    operand *m = give(t, "m", FLOAT, n, 0.01), *v = give(t, "v", FLOAT, n, 0.01);
    operand *copy = with_copy ? give(t, "copy", STORED, n, 1.0) : NULL;
    operand *state = give_state(t, STEP, 0.25, 0.9, 0.999);
    if (t->status)
        return;
    for (int64_t i = 0; i < n; i++)
        v->value[i] = v->want[i] = (double)(float)(v->value[i] * v->value[i]);
    kernel_slot slot;
    append(t, kernel_adamw(t->list, t->k, n, p->buffer, g->buffer, m->buffer, v->buffer,
                           copy ? copy->buffer : NULL, state->buffer, 1.0f, 0.9, 0.999, eps, decay,
                           &slot));
    set_slot(t, slot, dev_arg_f32(lr));
    t->flops = 16.0 * (double)n;
    p->checked = m->checked = v->checked = 1;
    if (skip) {                         /* nothing moves, and slack stays 0 */
        state->value[skip] = state->want[skip] = 1.0;
        return;
    }
    reference_adamw(n, p->want, g->value, m->want, v->want, STEP, state->value[OPTIM_CLIP],
                    (double)lr, 0.9, 0.999, (double)eps, (double)decay);
    for (int64_t i = 0; i < n; i++) {
        const double grad = fabs(g->value[i] * state->value[OPTIM_CLIP]);
        const double m_size = fabs(m->value[i]) + 0.2 * grad;
        const double move = (double)lr * m_size / 0.271 / (sqrt(v->want[i] / 0.002997) + 1e-8);
        m->slack[i] = (float)(4.0 * U * m_size);
        v->slack[i] = (float)(6.0 * U * v->want[i]);
        p->slack[i] = (float)(U * (4.0 * fabs(p->value[i]) + 20.0 * move));
        if (copy)
            expect(copy, i, p->want[i], (double)p->slack[i]);
    }
}

static void adamw_case(trial *t)      { adamw_with(t, 0, 0); }
static void adamw_copy_case(trial *t) { adamw_with(t, 1, 0); }
static void adamw_skip_case(trial *t) { adamw_with(t, 1, OPTIM_SKIP); }
static void adamw_halt_case(trial *t) { adamw_with(t, 1, OPTIM_HALTED); }

static void sgd_with(trial *t, int momentum, int skip)
{
    const int64_t n = elements(t);
    const float lr = 0.1f, beta = 0.9f, decay = 0.01f;
    operand *p = give(t, "p", FLOAT, n, 1.0), *g = give(t, "g", FLOAT, n, 1.0);
    operand *m = momentum ? give(t, "m", FLOAT, n, 1.0) : NULL;
    operand *copy = give(t, "copy", STORED, n, 1.0), *state = give_state(t, 1, 0.25, 0.9, 0.999);
    if (t->status)
        return;
    kernel_slot slot;
    append(t, kernel_sgd(t->list, t->k, n, p->buffer, g->buffer, m ? m->buffer : NULL, copy->buffer,
                         state->buffer, 1.0f, beta, decay, &slot));
    set_slot(t, slot, dev_arg_f32(lr));
    t->flops = 6.0 * (double)n;
    p->checked = 1;
    if (m)
        m->checked = 1;
    if (skip) {
        state->value[skip] = state->want[skip] = 1.0;
        return;
    }
    reference_sgd(n, p->want, g->value, m ? m->want : NULL, 0.25, (double)lr, (double)beta,
                  (double)decay);
    for (int64_t i = 0; i < n; i++) {
        const double size = fabs(p->value[i]) + fabs(g->value[i]) + (m ? fabs(m->value[i]) : 0.0);
        p->slack[i] = (float)(4.0 * U * size);
        if (m)
            m->slack[i] = (float)(4.0 * U * size);
        expect(copy, i, p->want[i], (double)p->slack[i]);
    }
}

static void sgd_case(trial *t)       { sgd_with(t, 1, 0); }
static void sgd_plain_case(trial *t) { sgd_with(t, 0, 0); }
static void sgd_skip_case(trial *t)  { sgd_with(t, 1, OPTIM_SKIP); }

static void lion_with(trial *t, int skip)
{
    const int64_t n = elements(t);
    const float lr = 1e-3f, decay = 0.5f;
    operand *p = give(t, "p", FLOAT, n, 1.0), *g = give(t, "g", FLOAT, n, 1.0);
    operand *m = give(t, "m", FLOAT, n, 1.0), *copy = give(t, "copy", STORED, n, 1.0);
    operand *state = give_state(t, 1, 0.25, 0.9, 0.99);
    if (t->status)
        return;
    kernel_slot slot;
    append(t, kernel_lion(t->list, t->k, n, p->buffer, g->buffer, m->buffer, copy->buffer, state->buffer, 1.0f,
                          0.9, 0.99, decay, &slot));
    set_slot(t, slot, dev_arg_f32(lr));
    t->flops = 9.0 * (double)n;
    p->checked = m->checked = 1;
    if (skip) {
        state->value[skip] = state->want[skip] = 1.0;
        return;
    }
    reference_lion(n, p->want, g->value, m->want, 0.25, (double)lr, 0.9, 0.99, (double)decay);
    for (int64_t i = 0; i < n; i++) {
        const double size = fabs(m->value[i]) + fabs(g->value[i]);
        const int doubtful = fabs(0.9 * m->value[i] + 0.025 * g->value[i]) < 8.0 * U * size;
        p->slack[i] = (float)(4.0 * U * fabs(p->value[i]) + 4.0 * U * (double)lr + (doubtful ? 2.0 * (double)lr : 0.0));
        m->slack[i] = (float)(4.0 * U * size);
        expect(copy, i, p->want[i], (double)p->slack[i]);
    }
}

static void lion_case(trial *t)      { lion_with(t, 0); }
static void lion_skip_case(trial *t) { lion_with(t, OPTIM_SKIP); }

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

static void muon_momentum_case(trial *t)      { muon_momentum_with(t, 0); }
static void muon_momentum_skip_case(trial *t) { muon_momentum_with(t, OPTIM_HALTED); }

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
    append(t, kernel_muon_step(t->list, t->k, n, p->buffer, o->buffer, copy->buffer, state->buffer, 1.0f, factor,
                               decay, &slot));
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

static void adafactor_case(trial *t)        { adafactor_with(t, 0, 0); }
static void adafactor_vector_case(trial *t) { adafactor_with(t, 1, 0); }
static void adafactor_skip_case(trial *t)   { adafactor_with(t, 0, OPTIM_SKIP); }

const kernel_case kernel_optim_cases[] = {
    { "gradient norm", norm_partial_case, 8192, 768 },
    { "adamw", adamw_case, 8192, 512 },
    { "adamw + copy", adamw_copy_case, 8192, 512 },
    { "adamw, skipped", adamw_skip_case, 0, 0 },
    { "adamw, halted", adamw_halt_case, 0, 0 },
    { "sgd", sgd_case, 8192, 512 },
    { "sgd without momentum", sgd_plain_case, 0, 0 },
    { "sgd, skipped", sgd_skip_case, 0, 0 },
    { "lion", lion_case, 8192, 512 },
    { "lion, skipped", lion_skip_case, 0, 0 },
    { "muon, momentum", muon_momentum_case, 8192, 512 },
    { "muon, halted", muon_momentum_skip_case, 0, 0 },
    { "scale", scale_case, 0, 0 },
    { "inverse norm", inverse_norm_case, 0, 0 },
    { "muon, step", muon_step_case, 0, 0 },
    { "adafactor", adafactor_case, 8192, 512 },
    { "adafactor of a vector", adafactor_vector_case, 0, 0 },
    { "adafactor, skipped", adafactor_skip_case, 0, 0 },
    { 0 },
};
