/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_optim.c - launches of cl/optim.cl, and their cases.
 *
 *     state   clip, bias corrections, skip, halted     written by other kernels in a run, given here
 *     skip    every buffer must come back bit by bit
 *
 * The learning rate is set behind the append, as every step of a run does.               */
#include "host/kernel/kernel_cases_private.h"
#include "host/kernel/kernel_private.h"

#include <assert.h>

enum { SQUARES = 16384 };       /* gradients a partial sum covers, as in cl/optim.cl */

int64_t kernel_norm_blocks(const kernel_set *k, int64_t n)
{
    (void)k;
    return (n + SQUARES - 1) / SQUARES;
}

gt_status kernel_norm_partial(dev_list *l, kernel_set *k, int64_t n, dev_buffer *g, dev_buffer *partial)
{
    assert(n >= 0);
    dev_arg args[] = { dev_arg_u64((uint64_t)n), dev_arg_buffer(g), dev_arg_buffer(partial) };
    return kernel_launch_groups(l, k, &kernel_optim_family, "norm_partial", (size_t)kernel_norm_blocks(k, n), args,
                                KERNEL_ARGS(args));
}

gt_status kernel_optim_prepare(dev_list *l, kernel_set *k, int64_t count, dev_buffer *partial, dev_buffer *state,
                               float clip, double beta1, double beta2, int dynamic, int growth, kernel_slot *weigh_at,
                               kernel_slot *held_at)
{
    assert(count >= 0);
    dev_arg args[] = {
        dev_arg_u64((uint64_t)count),
        dev_arg_buffer(partial),
        dev_arg_buffer(state),
        dev_arg_f32(1.0f),
        dev_arg_i32(0),
        dev_arg_f32(clip),
        dev_arg_f32((float)log(beta1)),
        dev_arg_f32((float)log(beta2)),
        dev_arg_i32(dynamic),
        dev_arg_i32(growth),
    };
    gt_status st = kernel_launch_groups(l, k, &kernel_optim_family, "optim_prepare", 1, args, KERNEL_ARGS(args));
    if (!st) {
        kernel_slot_last(weigh_at, l, 3);
        kernel_slot_last(held_at, l, 4);
    }
    return st;
}

gt_status kernel_adamw(dev_list *l, kernel_set *k, int64_t n, dev_buffer *p, dev_buffer *g, dev_buffer *m,
                       dev_buffer *v, dev_buffer *copy, dev_buffer *state, float lr, double beta1, double beta2,
                       float eps, float decay, kernel_slot *lr_at, kernel_slot *form_at)
{
    /* clang-format off */
    dev_arg args[] = {
        [2] = dev_arg_buffer(p), dev_arg_buffer(g), dev_arg_buffer(m), dev_arg_buffer(v),
        dev_arg_buffer(copy), dev_arg_buffer(state), dev_arg_f32(lr), dev_arg_i32(0), dev_arg_f32((float)beta2),
        dev_arg_f32((float)(1.0 - beta1)), dev_arg_f32((float)(1.0 - beta2)), dev_arg_f32(eps),
        dev_arg_f32(decay),
    };
    /* clang-format on */
    gt_status st = kernel_launch_flat(l, k, &kernel_optim_family, 0, "adamw", n, args, KERNEL_ARGS(args));
    if (!st) {
        kernel_slot_last(lr_at, l, 8);
        kernel_slot_last(form_at, l, 9);
    }
    return st;
}

gt_status kernel_adamw_gather(dev_list *l, kernel_set *k, int64_t n, dev_buffer *m, dev_buffer *u, dev_buffer *state,
                              kernel_slot *lr_at)
{
    dev_arg args[] = { [2] = dev_arg_buffer(m), dev_arg_buffer(u), dev_arg_buffer(state), dev_arg_f32(0.0f) };
    gt_status st = kernel_launch_flat(l, k, &kernel_optim_family, 0, "adamw_gather", n, args, KERNEL_ARGS(args));
    if (!st)
        kernel_slot_last(lr_at, l, 5);
    return st;
}

gt_status kernel_adamw_give(dev_list *l, kernel_set *k, int64_t n, dev_buffer *u, dev_buffer *g, kernel_slot *factor_at)
{
    dev_arg args[] = { [2] = dev_arg_buffer(u), dev_arg_buffer(g), dev_arg_f32(0.0f) };
    gt_status st = kernel_launch_flat(l, k, &kernel_optim_family, 0, "adamw_give", n, args, KERNEL_ARGS(args));
    if (!st)
        kernel_slot_last(factor_at, l, 4);
    return st;
}

gt_status kernel_adamw_take(dev_list *l, kernel_set *k, int64_t n, dev_buffer *p, dev_buffer *start, dev_buffer *g,
                            dev_buffer *m, dev_buffer *v, dev_buffer *copy, dev_buffer *state, float eps,
                            kernel_slot *rate_at, kernel_slot *keep_at)
{
    dev_arg args[] = {
        [2] = dev_arg_buffer(p), dev_arg_buffer(start), dev_arg_buffer(g), dev_arg_buffer(m), dev_arg_buffer(v),
        dev_arg_buffer(copy),    dev_arg_buffer(state), dev_arg_f32(0.0f), dev_arg_f32(1.0f), dev_arg_f32(eps),
    };
    gt_status st = kernel_launch_flat(l, k, &kernel_optim_family, 0, "adamw_take", n, args, KERNEL_ARGS(args));
    if (!st) {
        kernel_slot_last(rate_at, l, 9);
        kernel_slot_last(keep_at, l, 10);
    }
    return st;
}

gt_status kernel_sgd(dev_list *l, kernel_set *k, int64_t n, dev_buffer *p, dev_buffer *g, dev_buffer *m,
                     dev_buffer *copy, dev_buffer *state, float lr, float momentum, float decay, kernel_slot *lr_at)
{
    dev_arg args[] = {
        [2] = dev_arg_buffer(p), dev_arg_buffer(g), dev_arg_buffer(m),     dev_arg_buffer(copy),
        dev_arg_buffer(state),   dev_arg_f32(lr),   dev_arg_f32(momentum), dev_arg_f32(decay),
    };
    gt_status st = kernel_launch_flat(l, k, &kernel_optim_family, 0, "sgd", n, args, KERNEL_ARGS(args));
    if (!st)
        kernel_slot_last(lr_at, l, 7);
    return st;
}

gt_status kernel_lion(dev_list *l, kernel_set *k, int64_t n, dev_buffer *p, dev_buffer *g, dev_buffer *m,
                      dev_buffer *copy, dev_buffer *state, float lr, double beta1, double beta2, float decay,
                      kernel_slot *lr_at)
{
    dev_arg args[] = {
        [2] = dev_arg_buffer(p),
        dev_arg_buffer(g),
        dev_arg_buffer(m),
        dev_arg_buffer(copy),
        dev_arg_buffer(state),
        dev_arg_f32(lr),
        dev_arg_f32((float)(1.0 - beta1)),
        dev_arg_f32((float)(1.0 - beta2)),
        dev_arg_f32(decay),
    };
    gt_status st = kernel_launch_flat(l, k, &kernel_optim_family, 0, "lion", n, args, KERNEL_ARGS(args));
    if (!st)
        kernel_slot_last(lr_at, l, 7);
    return st;
}


/* ---- cases ------------------------------------------------------------------------------------- */

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

static void adamw_with(trial *t, int with_copy, adamw_form form, int skip)
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
    for (int64_t i = 0; i < n; i++)     /* of some values nobody has found a variance */
        v->value[i] = v->want[i] = form && i % 7 == 0 ? 0.0 : (double)(float)(v->value[i] * v->value[i]);
    kernel_slot slot, form_at;
    append(t, kernel_adamw(t->list, t->k, n, p->buffer, g->buffer, m->buffer, v->buffer, copy ? copy->buffer : NULL,
                           state->buffer, 1.0f, 0.9, 0.999, eps, decay, &slot, &form_at));
    set_slot(t, slot, dev_arg_f32(lr));
    set_slot(t, form_at, dev_arg_i32((int)form));
    t->flops = 16.0 * (double)n;
    p->checked = m->checked = v->checked = 1;
    if (skip) {                         /* nothing moves, and slack stays 0 */
        state->value[skip] = state->want[skip] = 1.0;
        return;
    }
    for (int64_t i = 0; form && i < n; i++) {
        const double grad = g->value[i] * 0.25, held = 0.9 * m->value[i] + 0.1 * grad;
        const double root = v->value[i] > 0.0 ? sqrt(v->value[i] / 0.002997001) + 1e-8 : INFINITY;
        const double move = (form == ADAMW_MOMENTS ? grad : held) / 0.271 / root;
        const double size = fabs(m->value[i]) + fabs(grad);
        expect(m, i, form == ADAMW_MOMENTS ? grad : held, 4.0 * U * size);
        expect(p, i, p->value[i] * (1.0 - (double)lr * (double)decay) - (double)lr * move,
               U * (4.0 * fabs(p->value[i]) + 20.0 * (double)lr * size / 0.271 / root));
        if (copy)
            expect(copy, i, p->want[i], (double)p->slack[i]);
    }
    if (form)
        return;
    reference_adamw(n, p->want, g->value, m->want, v->want, STEP, state->value[OPTIM_CLIP], (double)lr, 0.9, 0.999,
                    (double)eps, (double)decay);
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

static void adamw_gather_with(trial *t, int skip)
{
    const int64_t n = elements(t);
    const double lr = (double)3e-3f;
    operand *m = give(t, "m", FLOAT, n, 0.01), *u = give(t, "u", FLOAT, n, 1e-4);
    operand *state = give_state(t, 3, 0.25, 0.9, 0.999);
    kernel_slot lr_at;
    if (t->status)
        return;
    append(t, kernel_adamw_gather(t->list, t->k, n, m->buffer, u->buffer, state->buffer, &lr_at));
    set_slot(t, lr_at, dev_arg_f32((float)lr));
    t->flops = 2.0 * (double)n;
    u->checked = 1;
    if (skip)
        state->value[skip] = state->want[skip] = 1.0;
    for (int64_t i = 0; !skip && i < n; i++) {
        const double move = lr / state->value[OPTIM_BIAS1] * m->value[i];
        expect(u, i, u->value[i] + move, U * (2.0 * fabs(u->value[i]) + 4.0 * fabs(move)));
    }
}

static void adamw_gather_case(trial *t)
{
    adamw_gather_with(t, 0);
}
static void adamw_gather_skip_case(trial *t)
{
    adamw_gather_with(t, OPTIM_SKIP);
}

static void adamw_give_case(trial *t)
{
    const int64_t n = elements(t);
    operand *u = give(t, "u", FLOAT, n, 1e-4), *g = take(t, "g", FLOAT, n);
    kernel_slot factor_at;
    if (t->status)
        return;
    append(t, kernel_adamw_give(t->list, t->k, n, u->buffer, g->buffer, &factor_at));
    set_slot(t, factor_at, dev_arg_f32(0.375f));
    t->flops = (double)n;
    for (int64_t i = 0; i < n; i++)
        expect(g, i, 0.375 * u->value[i], U * fabs(u->value[i]));
}

/* Of every third value nobody has found a variance. */
static void adamw_take_case(trial *t)
{
    const int64_t n = elements(t);
    const double rate = (double)7e-3f, keep = (double)0.998f, eps = (double)1e-8f;
    operand *p = give(t, "p", FLOAT, n, 1.0), *start = give(t, "start", FLOAT, n, 1.0);
    operand *g = give(t, "g", FLOAT, n, 0.01), *m = give(t, "m", FLOAT, n, 0.01), *v = give(t, "v", FLOAT, n, 0.01);
    operand *copy = give(t, "copy", STORED, n, 1.0), *state = give_state(t, 3, 0.25, 0.9, 0.999);
    kernel_slot rate_at, keep_at;
    if (t->status)
        return;
    for (int64_t i = 0; i < n; i++)
        v->value[i] = v->want[i] = i % 3 ? (double)(float)(v->value[i] * v->value[i]) : 0.0;
    append(t, kernel_adamw_take(t->list, t->k, n, p->buffer, start->buffer, g->buffer, m->buffer, v->buffer,
                                copy->buffer, state->buffer, (float)eps, &rate_at, &keep_at));
    set_slot(t, rate_at, dev_arg_f32((float)rate));
    set_slot(t, keep_at, dev_arg_f32((float)keep));
    t->flops = 8.0 * (double)n;
    p->checked = m->checked = 1;
    for (int64_t i = 0; i < n; i++) {
        const double den = sqrt(v->value[i]) / sqrt(state->value[OPTIM_BIAS2]) + eps;
        const double move = v->value[i] > 0.0 ? rate * g->value[i] / den : 0.0;
        expect(m, i, g->value[i], 0.0);
        expect(p, i, keep * start->value[i] - move, U * (4.0 * fabs(start->value[i]) + 20.0 * fabs(move)));
        expect(copy, i, p->want[i], (double)p->slack[i]);
    }
}

static void adamw_case(trial *t)
{
    adamw_with(t, 0, ADAMW_GRADIENTS, 0);
}
static void adamw_copy_case(trial *t)
{
    adamw_with(t, 1, ADAMW_GRADIENTS, 0);
}
static void adamw_given_case(trial *t)
{
    adamw_with(t, 1, ADAMW_MOMENTS, 0);
}
static void adamw_held_case(trial *t)
{
    adamw_with(t, 1, ADAMW_HELD, 0);
}
static void adamw_skip_case(trial *t)
{
    adamw_with(t, 1, ADAMW_MOMENTS, OPTIM_SKIP);
}
static void adamw_halt_case(trial *t)
{
    adamw_with(t, 1, ADAMW_GRADIENTS, OPTIM_HALTED);
}

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
    append(t, kernel_sgd(t->list, t->k, n, p->buffer, g->buffer, m ? m->buffer : NULL, copy->buffer, state->buffer,
                         1.0f, beta, decay, &slot));
    set_slot(t, slot, dev_arg_f32(lr));
    t->flops = 6.0 * (double)n;
    p->checked = 1;
    if (m)
        m->checked = 1;
    if (skip) {
        state->value[skip] = state->want[skip] = 1.0;
        return;
    }
    reference_sgd(n, p->want, g->value, m ? m->want : NULL, 0.25, (double)lr, (double)beta, (double)decay);
    for (int64_t i = 0; i < n; i++) {
        const double size = fabs(p->value[i]) + fabs(g->value[i]) + (m ? fabs(m->value[i]) : 0.0);
        p->slack[i] = (float)(4.0 * U * size);
        if (m)
            m->slack[i] = (float)(4.0 * U * size);
        expect(copy, i, p->want[i], (double)p->slack[i]);
    }
}

static void sgd_case(trial *t)
{
    sgd_with(t, 1, 0);
}
static void sgd_plain_case(trial *t)
{
    sgd_with(t, 0, 0);
}
static void sgd_skip_case(trial *t)
{
    sgd_with(t, 1, OPTIM_SKIP);
}

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
    append(t, kernel_lion(t->list, t->k, n, p->buffer, g->buffer, m->buffer, copy->buffer, state->buffer, 1.0f, 0.9,
                          0.99, decay, &slot));
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

static void lion_case(trial *t)
{
    lion_with(t, 0);
}
static void lion_skip_case(trial *t)
{
    lion_with(t, OPTIM_SKIP);
}

static const kernel_case cases[] = {
    { "gradient norm", norm_partial_case, 8192, 768 },
    { "adamw", adamw_case, 8192, 512 },
    { "adamw + copy", adamw_copy_case, 8192, 512 },
    { "adamw of given first moments", adamw_given_case, 8192, 512 },
    { "adamw of held second moments", adamw_held_case, 0, 0 },
    { "adamw, skipped", adamw_skip_case, 0, 0 },
    { "adamw, halted", adamw_halt_case, 0, 0 },
    { "adamw, first moments gathered", adamw_gather_case, 8192, 512 },
    { "adamw, gathered, skipped", adamw_gather_skip_case, 0, 0 },
    { "adamw, what was gathered given", adamw_give_case, 8192, 512 },
    { "adamw, what all gathered taken", adamw_take_case, 8192, 512 },
    { "sgd", sgd_case, 8192, 512 },
    { "sgd without momentum", sgd_plain_case, 0, 0 },
    { "sgd, skipped", sgd_skip_case, 0, 0 },
    { "lion", lion_case, 8192, 512 },
    { "lion, skipped", lion_skip_case, 0, 0 },
    { 0 },
};

const kernel_family kernel_optim_family = {
    .program = { .file = "optim.cl", .stored = 1, .variants = dev_plain_for_all },
    .cases = cases,
};
