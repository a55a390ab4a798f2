/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_cases_optim.c - cases of cl/optim.cl: partial norms, AdamW, SGD.
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

const kernel_case kernel_optim_cases[] = {
    { "gradient norm", norm_partial_case, 8192, 768 },
    { "adamw", adamw_case, 8192, 512 },
    { "adamw + copy", adamw_copy_case, 8192, 512 },
    { "adamw, skipped", adamw_skip_case, 0, 0 },
    { "adamw, halted", adamw_halt_case, 0, 0 },
    { "sgd", sgd_case, 8192, 512 },
    { "sgd without momentum", sgd_plain_case, 0, 0 },
    { "sgd, skipped", sgd_skip_case, 0, 0 },
    { 0 },
};
