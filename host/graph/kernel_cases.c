/* host/graph/kernel_cases.c - what every kernel is checked with and timed by.
 *
 * A case function does everything at once, for nothing runs before it returns:
 *
 *     operand *x = give(t, "x", STORED, n, 1.0), *y = take(t, "y", STORED, n);
 *     append(t, kernel_gelu(t->list, t->k, n, x->buffer, y->buffer));
 *     for (...) expect(y, i, reference_gelu(x->value[i]), slack);
 *
 * Slack is absolute, per element: U = 2^-24, half a unit in the last place of 1, times the
 * magnitudes whose rounding reaches the result, times a small count of roundings.
 * A sum of n terms may add ROUNDINGS(n), between the 1 of a perfect tree and the sqrt(n) of
 * a random walk in one running sum.                                                       */
#include "host/graph/kernel_cases.h"

#include "host/base/random.h"
#include "host/tensor/reference.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define U 0x1p-24
#define TINY 0x1p-122           /* the least normal float, and room for a factor of 16 */
#define ROUNDINGS(n) (4.0 + 0.5 * sqrt((double)(n)))

enum { OPERANDS = 12, GUARD = 256 };
static const unsigned char guard_byte = 0xA5;

typedef enum kind { STORED, FLOAT, INT } kind;

typedef struct operand {
    const char *name;
    dtype type;
    int64_t n;
    int given, checked;         /* filled by the case; compared with want */
    dev_buffer *root, *buffer;  /* buffer is a view behind the first guard */
    double *value;              /* what the device was given, after rounding; 0 if taken */
    int32_t *whole;             /* the same of an INT operand */
    double *want;
    float *slack;
} operand;

typedef struct trial {
    kernel_set *k;
    dev_device *device;
    dev_list *list;
    gt_random random;
    gt_status status;
    int R, C, count;
    double flops;
    operand operands[OPERANDS];
} trial;

/* ---- operands ----------------------------------------------------------------------------- */

static gt_status operand_create(trial *t, operand *o)
{
    const uint64_t bytes = (uint64_t)o->n * dtype_size(o->type);
    const uint64_t front = dev_info_of(t->device)->align > GUARD ? dev_info_of(t->device)->align
                                                                 : GUARD;
    const size_t size = (size_t)o->n ? (size_t)o->n : 1;

    o->value = calloc(size, sizeof *o->value);
    o->want = calloc(size, sizeof *o->want);
    o->slack = calloc(size, sizeof *o->slack);
    o->whole = o->type == DTYPE_I32 ? calloc(size, sizeof *o->whole) : NULL;
    if (!o->value || !o->want || !o->slack || (o->type == DTYPE_I32 && !o->whole))
        return gt_fail(GT_NO_MEMORY, "cannot hold operand '%s': out of memory", o->name);
    gt_status st = dev_buffer_create(&o->root, t->device, front + bytes + GUARD, o->name);
    return st ? st : dev_buffer_view(&o->buffer, o->root, front, bytes);
}

/* A fresh operand of n elements; t->status says whether it can be used. */
static operand *operand_add(trial *t, const char *name, kind what, int64_t n)
{
    assert(t->count < OPERANDS && n > 0);
    operand *o = &t->operands[t->count++];
    o->name = name;
    o->type = what == INT ? DTYPE_I32 : what == FLOAT ? DTYPE_F32 : kernel_set_storage(t->k);
    o->n = n;
    if (!t->status)
        t->status = operand_create(t, o);
    return o;
}

/* Writes guards and contents. What is only taken starts as the guard pattern, so an element
 * that the kernel forgets is noticed. */
static gt_status operand_write(trial *t, operand *o)
{
    const size_t all = (size_t)dev_buffer_bytes(o->root), part = (size_t)dev_buffer_bytes(o->buffer);
    unsigned char *image = malloc(all);
    if (!image)
        return gt_fail(GT_NO_MEMORY, "cannot hold operand '%s': out of memory", o->name);
    memset(image, guard_byte, all);
    unsigned char *data = image + (all - GUARD - part);
    for (int64_t i = 0; o->given && i < o->n; i++) {
        if (o->whole)
            memcpy(data + 4 * i, &o->whole[i], 4);
        else
            dtype_store(o->type, data, (size_t)i, (float)o->value[i]);
    }
    gt_status st = dev_write(t->device, o->root, 0, image, all);
    free(image);
    return st;
}

/* An input: normal numbers around 0 with the given deviation. */
static operand *give(trial *t, const char *name, kind what, int64_t n, double deviation)
{
    operand *o = operand_add(t, name, what, n);
    o->given = 1;
    for (int64_t i = 0; !t->status && i < n; i++) {
        float x[2];
        unsigned char stored[4];
        gt_random_normal(&t->random, x, 1, 0.0f, (float)deviation);
        dtype_store(o->type, stored, 0, x[0]);
        o->value[i] = o->want[i] = (double)dtype_load(o->type, stored, 0);
    }
    return o;
}

/* An input of whole numbers below `limit`. */
static operand *give_below(trial *t, const char *name, int64_t n, int limit)
{
    operand *o = operand_add(t, name, INT, n);
    o->given = 1;
    for (int64_t i = 0; !t->status && i < n; i++)
        o->whole[i] = (int32_t)gt_random_below(&t->random, (uint64_t)limit);
    return o;
}

/* An output; every element must be expected. */
static operand *take(trial *t, const char *name, kind what, int64_t n)
{
    operand *o = operand_add(t, name, what, n);
    o->checked = 1;
    return o;
}

/* Working memory whose contents nobody looks at, but its guards. */
static operand *scratch(trial *t, uint64_t bytes)
{
    return operand_add(t, "scratch", FLOAT, (int64_t)(bytes + 3) / 4);
}

static void expect(operand *o, int64_t i, double want, double slack)
{
    o->checked = 1;
    o->want[i] = want;
    o->slack[i] = (float)slack;
}

static void append(trial *t, gt_status st)
{
    if (!t->status)
        t->status = st;
}

/* The random buffer of dropout, and the same for the reference. */
static kernel_dropout dropout_of(trial *t, reference_dropout *same)
{
    operand *o = operand_add(t, "random", INT, 4);
    o->given = 1;
    for (int i = 0; !t->status && i < 4; i++)
        o->whole[i] = (int32_t)(gt_random_u32(&t->random) >> 1);
    if (!t->status)
        *same = (reference_dropout){
            .p = 0.2f, .stream = 11, .step = (uint32_t)o->whole[2], .micro = (uint32_t)o->whole[3],
            .seed = (uint32_t)o->whole[0] | (uint64_t)(uint32_t)o->whole[1] << 32,
        };
    return (kernel_dropout){ .p = 0.2f, .stream = 11, .random = o->buffer };
}

/* ---- the cases ------------------------------------------------------------------------------ */

static int64_t elements(const trial *t)
{
    return (int64_t)t->R * t->C;
}

/* The exponent 2u carries its own rounding, so the relative error of e^2u grows with it. */
static double gelu_slack(double x)
{
    return U * (8.0 + 6.4 * fabs(x) * (1.0 + 0.05 * x * x));
}

static void gelu_case(trial *t)
{
    const int64_t n = elements(t);
    operand *x = give(t, "x", STORED, n, 2.0), *y = take(t, "y", STORED, n);
    append(t, kernel_gelu(t->list, t->k, n, x->buffer, y->buffer));
    t->flops = 14.0 * (double)n;
    for (int64_t i = 0; !t->status && i < n; i++) {
        const double want = reference_gelu(x->value[i]);
        expect(y, i, want, gelu_slack(x->value[i]) * fabs(want) + TINY);
    }
}

static void gelu_grad_case(trial *t)
{
    const int64_t n = elements(t);
    operand *dy = give(t, "dy", STORED, n, 1.0), *x = give(t, "x", STORED, n, 2.0);
    operand *dx = take(t, "dx", STORED, n);
    append(t, kernel_gelu_grad(t->list, t->k, n, dy->buffer, x->buffer, dx->buffer));
    t->flops = 20.0 * (double)n;
    for (int64_t i = 0; !t->status && i < n; i++) {
        const double a = x->value[i], s = 1.0 / (1.0 + exp(-1.5957691216 * (a + 0.044715 * a * a * a)));
        const double size = s + fabs(a) * s * (1.0 - s) * (1.6 + 0.22 * a * a);
        expect(dx, i, dy->value[i] * reference_gelu_slope(a),
               fabs(dy->value[i]) * (size * gelu_slack(a) + 0x1p-110));   /* x is held at -10 */
    }
}

static void bias_act_with(trial *t, int with_bias, int act, int drop, int with_residual)
{
    const int64_t n = elements(t);
    reference_dropout same = { 0 };
    kernel_dropout dropout = { 0 };
    operand *y = give(t, "y", STORED, n, 1.0);
    operand *bias = with_bias ? give(t, "bias", FLOAT, t->C, 1.0) : NULL;
    operand *pre = act ? take(t, "pre", STORED, n) : NULL;
    operand *residual = with_residual ? give(t, "residual", STORED, n, 1.0) : NULL;
    if (drop)
        dropout = dropout_of(t, &same);
    if (t->status)
        return;
    append(t, kernel_bias_act(t->list, t->k, t->R, t->C, y->buffer, bias ? bias->buffer : NULL,
                              pre ? pre->buffer : NULL, drop ? &dropout : NULL,
                              residual ? residual->buffer : NULL));
    t->flops = (act ? 15.0 : 1.0) * (double)n;
    for (int64_t i = 0; i < n; i++)
        y->want[i] = y->value[i];
    reference_bias_act(t->R, t->C, y->want, bias ? bias->value : NULL, pre ? pre->want : NULL,
                       drop ? &same : NULL, residual ? residual->value : NULL);
    y->checked = 1;
    for (int64_t i = 0; i < n; i++) {
        const double b = bias ? bias->value[i % t->C] : 0.0, x = y->value[i] + b;
        const double size = fabs(y->value[i]) + fabs(b);
        if (pre)
            pre->slack[i] = (float)(U * size);
        const double act_error = act ? U * 2.2 * size + gelu_slack(x) * fabs(reference_gelu(x))
                                     : U * size;
        y->slack[i] = (float)(1.25 * act_error + 4.0 * U * (size + fabs(y->want[i])) + TINY);
    }
}

static void bias_case(trial *t)     { bias_act_with(t, 1, 0, 0, 0); }
static void bias_gelu_case(trial *t) { bias_act_with(t, 1, 1, 0, 0); }
static void bias_drop_case(trial *t) { bias_act_with(t, 1, 0, 1, 1); }
static void all_of_it_case(trial *t) { bias_act_with(t, 1, 1, 1, 1); }
static void residual_case(trial *t) { bias_act_with(t, 0, 0, 0, 1); }

static void add_case(trial *t)
{
    const int64_t n = elements(t);
    operand *a = give(t, "a", STORED, n, 1.0), *b = give(t, "b", STORED, n, 1.0);
    operand *y = take(t, "y", STORED, n);
    append(t, kernel_add(t->list, t->k, n, a->buffer, b->buffer, y->buffer));
    t->flops = (double)n;
    for (int64_t i = 0; !t->status && i < n; i++)
        expect(y, i, a->value[i] + b->value[i], U * fabs(a->value[i] + b->value[i]));
}

static void dropout_case(trial *t)
{
    const int64_t n = elements(t);
    reference_dropout same;
    operand *x = give(t, "x", STORED, n, 1.0), *y = take(t, "y", STORED, n);
    const kernel_dropout drop = dropout_of(t, &same);
    append(t, kernel_dropout_apply(t->list, t->k, n, &drop, x->buffer, y->buffer));
    for (int64_t i = 0; !t->status && i < n; i++) {
        const double want = x->value[i] * reference_keep(&same, (uint64_t)i);
        expect(y, i, want, 2.0 * U * fabs(want));
    }
}

static void store_case(trial *t)
{
    const int64_t n = elements(t);
    operand *x = give(t, "x", FLOAT, n, 1.0), *y = take(t, "y", STORED, n);
    append(t, kernel_store(t->list, t->k, n, x->buffer, y->buffer));
    for (int64_t i = 0; !t->status && i < n; i++)
        expect(y, i, x->value[i], 0.0);
}

static void load_case(trial *t)
{
    const int64_t n = elements(t);
    operand *x = give(t, "x", STORED, n, 1.0), *y = take(t, "y", FLOAT, n);
    append(t, kernel_load(t->list, t->k, n, x->buffer, y->buffer));
    for (int64_t i = 0; !t->status && i < n; i++)
        expect(y, i, x->value[i], 0.0);
}

/* Rows with an offset of a thousand deviations show whether the variance survives it. */
static void layernorm_with(trial *t, int keep, double offset)
{
    const int64_t n = elements(t);
    operand *x = give(t, "x", offset != 0.0 ? FLOAT : STORED, n, 1.0);
    operand *gain = give(t, "gain", FLOAT, t->C, 1.0), *bias = give(t, "bias", FLOAT, t->C, 1.0);
    operand *y = take(t, "y", STORED, n);
    operand *mean = keep ? take(t, "mean", FLOAT, t->R) : NULL;
    operand *rstd = keep ? take(t, "rstd", FLOAT, t->R) : NULL;
    if (t->status)
        return;
    for (int64_t i = 0; i < n && offset != 0.0; i++)
        x->value[i] = x->want[i] = (double)(float)(x->value[i] + offset);
    append(t, kernel_layernorm(t->list, t->k, t->R, t->C, 1e-5f, x->buffer, gain->buffer,
                               bias->buffer, y->buffer, mean ? mean->buffer : NULL,
                               rstd ? rstd->buffer : NULL));
    t->flops = 8.0 * (double)n;
    double *stats = calloc(2 * (size_t)t->R, sizeof *stats);
    if (!stats) {
        t->status = gt_fail(GT_NO_MEMORY, "cannot hold row statistics: out of memory");
        return;
    }
    double *m = stats, *s = stats + t->R;
    reference_layernorm(t->R, t->C, (double)1e-5f, x->value, gain->value, bias->value, y->want, m, s);
    const double f = ROUNDINGS(t->C);
    for (int r = 0; r < t->R; r++) {
        double size = 0.0;
        for (int c = 0; c < t->C; c++)
            size += fabs(x->value[(int64_t)r * t->C + c]) / t->C;
        /* An error e of the mean moves the variance by e^2 and each d by e. */
        const double mean_error = U * f * size, rstd_error = U * f * s[r]
                                + mean_error * mean_error * s[r] * s[r] * s[r];
        for (int c = 0; c < t->C; c++) {
            const int64_t i = (int64_t)r * t->C + c;
            const double d = fabs(x->value[i] - m[r]), g = fabs(gain->value[c]);
            y->slack[i] = (float)((mean_error * s[r] + d * rstd_error) * g
                                  + 4.0 * U * (d * s[r] * g + fabs(bias->value[c])));
        }
        if (keep) {
            expect(mean, r, m[r], mean_error);
            expect(rstd, r, s[r], rstd_error + 4.0 * U * s[r]);
        }
    }
    free(stats);
}

static void layernorm_case(trial *t)       { layernorm_with(t, 1, 0.0); }
static void layernorm_bare_case(trial *t)  { layernorm_with(t, 0, 0.0); }
static void layernorm_far_case(trial *t)
{
    if (kernel_set_storage(t->k) == DTYPE_F32)
        layernorm_with(t, 1, 1000.0);
}

/* mean and rstd as layernorm would have left them. */
static void give_stats(trial *t, const operand *x, operand **mean, operand **rstd)
{
    *mean = give(t, "mean", FLOAT, t->R, 1.0);
    *rstd = give(t, "rstd", FLOAT, t->R, 1.0);
    for (int r = 0; !t->status && r < t->R; r++) {
        double m = 0.0, v = 0.0;
        for (int c = 0; c < t->C; c++)
            m += x->value[(int64_t)r * t->C + c] / t->C;
        for (int c = 0; c < t->C; c++)
            v += pow(x->value[(int64_t)r * t->C + c] - m, 2.0) / t->C;
        (*mean)->value[r] = (*mean)->want[r] = (double)(float)m;
        (*rstd)->value[r] = (*rstd)->want[r] = (double)(float)(1.0 / sqrt(v + 1e-5));
    }
}

static void layernorm_input_grad_with(trial *t, int with_residual)
{
    const int64_t n = elements(t);
    operand *dy = give(t, "dy", STORED, n, 1.0), *x = give(t, "x", STORED, n, 1.0);
    operand *gain = give(t, "gain", FLOAT, t->C, 1.0), *mean, *rstd;
    give_stats(t, x, &mean, &rstd);
    /* in place: dx is the residual's buffer, as a residual stream has it */
    operand *dx = with_residual ? give(t, "dx", STORED, n, 1.0) : take(t, "dx", STORED, n);
    if (t->status)
        return;
    append(t, kernel_layernorm_input_grad(t->list, t->k, t->R, t->C, dy->buffer, x->buffer,
                                          gain->buffer, mean->buffer, rstd->buffer,
                                          with_residual ? dx->buffer : NULL, dx->buffer));
    t->flops = 14.0 * (double)n;
    dx->checked = 1;
    reference_layernorm_input_grad(t->R, t->C, dy->value, x->value, gain->value, mean->value,
                                   rstd->value, with_residual ? dx->value : NULL, dx->want);
    const double f = ROUNDINGS(t->C);
    for (int r = 0; r < t->R; r++) {
        double a = 0.0, b = 0.0;
        for (int c = 0; c < t->C; c++) {
            const int64_t i = (int64_t)r * t->C + c;
            const double h = fabs(dy->value[i] * gain->value[c]);
            a += h / t->C;
            b += h * fabs(x->value[i] - mean->value[r]) * rstd->value[r] / t->C;
        }
        for (int c = 0; c < t->C; c++) {
            const int64_t i = (int64_t)r * t->C + c;
            const double h = fabs(dy->value[i] * gain->value[c]);
            const double xhat = fabs(x->value[i] - mean->value[r]) * rstd->value[r];
            dx->slack[i] = (float)(U * (rstd->value[r] * (6.0 * h + f * (a + xhat * b))
                                        + (with_residual ? 2.0 * fabs(dx->value[i]) : 0.0)
                                        + fabs(dx->want[i])));
        }
    }
}

static void layernorm_input_grad_case(trial *t) { layernorm_input_grad_with(t, 0); }
static void layernorm_residual_grad_case(trial *t) { layernorm_input_grad_with(t, 1); }

static void layernorm_weight_grad_with(trial *t, int add)
{
    const int64_t n = elements(t);
    operand *dy = give(t, "dy", STORED, n, 1.0), *x = give(t, "x", STORED, n, 1.0), *mean, *rstd;
    give_stats(t, x, &mean, &rstd);
    operand *dgain = give(t, "dgain", FLOAT, t->C, 1.0), *dbias = give(t, "dbias", FLOAT, t->C, 1.0);
    operand *work = scratch(t, kernel_column_scratch(t->k, t->R, t->C, 2));
    if (t->status)
        return;
    kernel_slot slot;
    append(t, kernel_layernorm_weight_grad(t->list, t->k, t->R, t->C, dy->buffer, x->buffer,
                                           mean->buffer, rstd->buffer, dgain->buffer,
                                           dbias->buffer, work->buffer, !add, &slot));
    if (!t->status)                     /* the slot turns it into what is wanted */
        append(t, dev_list_set(t->list, slot.launch, slot.arg, dev_arg_i32(add)));
    t->flops = 5.0 * (double)n;
    dgain->checked = dbias->checked = 1;
    reference_layernorm_weight_grad(t->R, t->C, dy->value, x->value, mean->value, rstd->value,
                                    dgain->want, dbias->want, add);
    for (int c = 0; c < t->C; c++) {
        double g = 0.0, b = 0.0;
        for (int r = 0; r < t->R; r++) {
            const int64_t i = (int64_t)r * t->C + c;
            g += fabs(dy->value[i] * (x->value[i] - mean->value[r]) * rstd->value[r]);
            b += fabs(dy->value[i]);
        }
        dgain->slack[c] = (float)(U * (ROUNDINGS(t->R) * g + 2.0 * fabs(dgain->value[c])));
        dbias->slack[c] = (float)(U * (ROUNDINGS(t->R) * b + 2.0 * fabs(dbias->value[c])));
    }
}

static void layernorm_weight_grad_case(trial *t) { layernorm_weight_grad_with(t, 0); }
static void layernorm_weight_more_case(trial *t) { layernorm_weight_grad_with(t, 1); }

static void bias_grad_with(trial *t, int add)
{
    operand *dy = give(t, "dy", STORED, elements(t), 1.0);
    operand *dbias = give(t, "dbias", FLOAT, t->C, 1.0);
    operand *work = scratch(t, kernel_column_scratch(t->k, t->R, t->C, 1));
    if (t->status)
        return;
    kernel_slot slot;
    append(t, kernel_bias_grad(t->list, t->k, t->R, t->C, dy->buffer, dbias->buffer, work->buffer,
                               !add, &slot));
    if (!t->status)
        append(t, dev_list_set(t->list, slot.launch, slot.arg, dev_arg_i32(add)));
    t->flops = (double)elements(t);
    dbias->checked = 1;
    reference_bias_grad(t->R, t->C, dy->value, dbias->want, add);
    for (int c = 0; c < t->C; c++) {
        double b = 0.0;
        for (int r = 0; r < t->R; r++)
            b += fabs(dy->value[(int64_t)r * t->C + c]);
        dbias->slack[c] = (float)(U * (ROUNDINGS(t->R) * b + 2.0 * fabs(dbias->value[c])));
    }
}

static void bias_grad_case(trial *t)      { bias_grad_with(t, 0); }
static void bias_grad_more_case(trial *t) { bias_grad_with(t, 1); }

/* R rows become B sequences of T tokens with B = 3 where R allows. */
static void split_rows(const trial *t, int *B, int *T)
{
    *B = t->R % 3 == 0 ? 3 : 1;
    *T = t->R / *B;
}

static int vocabulary(const trial *t)
{
    return t->R / 3 + 2;                /* so that tokens repeat */
}

/* Some rows from the middle of the table, as one rank of several holds them. */
static kernel_rows some_rows(int V)
{
    return (kernel_rows){ V / 4, V - V / 4 - V / 3, V };
}

static void embed_with(trial *t, int with_position, int at)
{
    int B, T;
    split_rows(t, &B, &T);
    const int V = vocabulary(t);
    operand *x = give_below(t, "x", t->R, V), *token = give(t, "token", STORED, (int64_t)V * t->C, 1.0);
    operand *position = with_position ? give(t, "position", STORED, (int64_t)(T + at) * t->C, 1.0) : NULL;
    operand *first = at ? give_below(t, "first", 1, 1) : NULL;
    operand *y = take(t, "y", STORED, elements(t));
    if (t->status)
        return;
    if (first)
        first->whole[0] = at;
    append(t, kernel_embed(t->list, t->k, B, T, t->C, (kernel_rows){ 0, V, V }, x->buffer,
                           token->buffer, position ? position->buffer : NULL,
                           first ? first->buffer : NULL, y->buffer));
    reference_embed(B, T, t->C, x->whole, token->value, position ? position->value : NULL, at,
                    y->want);
    for (int64_t i = 0; i < elements(t); i++)
        y->slack[i] = (float)(U * fabs(y->want[i]));
}

static void embed_case(trial *t)      { embed_with(t, 1, 0); }
static void embed_bare_case(trial *t) { embed_with(t, 0, 0); }
static void embed_at_case(trial *t)   { embed_with(t, 1, 5); }

static void embed_part_case(trial *t)
{
    const kernel_rows held = some_rows(vocabulary(t));
    operand *x = give_below(t, "x", t->R, held.V);
    operand *token = give(t, "token", STORED, (int64_t)held.count * t->C, 1.0);
    operand *y = take(t, "y", STORED, elements(t));
    append(t, kernel_embed(t->list, t->k, 1, t->R, t->C, held, x->buffer, token->buffer, NULL, NULL,
                           y->buffer));
    for (int64_t i = 0; !t->status && i < elements(t); i++) {
        const int row = x->whole[i / t->C] - held.begin;
        expect(y, i, 0 <= row && row < held.count ? token->value[row * t->C + i % t->C] : 0.0, 0.0);
    }
}

static void embed_token_grad_with(trial *t, int some)
{
    const int V = vocabulary(t);
    const kernel_rows held = some ? some_rows(V) : (kernel_rows){ 0, V, V };
    operand *x = give_below(t, "x", t->R, V);
    operand *order = give_below(t, "order", t->R, 1);
    operand *starts = give_below(t, "starts", (int64_t)t->R + 2, 1);
    operand *dy = give(t, "dy", STORED, elements(t), 1.0);
    operand *dtoken = give(t, "dtoken", FLOAT, (int64_t)held.count * t->C, 1.0);
    const int64_t all = (int64_t)V * t->C, before = (int64_t)held.begin * t->C;
    int32_t *counts = calloc((size_t)V + 1, sizeof *counts);
    double *size = calloc((size_t)all, sizeof *size), *want = calloc((size_t)all, sizeof *want);
    if (!t->status && (!counts || !size || !want))
        t->status = gt_fail(GT_NO_MEMORY, "cannot hold token counts: out of memory");
    if (!t->status) {
        kernel_embed_sort(x->whole, t->R, V, order->whole, starts->whole, counts);
        append(t, kernel_embed_token_grad(t->list, t->k, t->R, t->C, held, x->buffer, order->buffer,
                                          starts->buffer, dy->buffer, dtoken->buffer));
        t->flops = (double)elements(t);
        dtoken->checked = 1;
        reference_embed_token_grad(t->R, t->C, x->whole, dy->value, want);
        for (int64_t i = 0; i < elements(t); i++)
            size[(int64_t)x->whole[i / t->C] * t->C + i % t->C] += fabs(dy->value[i]);
        for (int64_t i = 0; i < dtoken->n; i++) {
            const double s = size[before + i];
            dtoken->want[i] += want[before + i];
            dtoken->slack[i] = s == 0.0 ? 0.0f
                : (float)(U * ROUNDINGS(t->R) * (s + fabs(dtoken->value[i])));
        }
    }
    free(counts);
    free(size);
    free(want);
}

static void embed_token_grad_case(trial *t)      { embed_token_grad_with(t, 0); }
static void embed_token_grad_part_case(trial *t) { embed_token_grad_with(t, 1); }

static void embed_position_grad_with(trial *t, int add)
{
    int B, T;
    split_rows(t, &B, &T);
    operand *dy = give(t, "dy", STORED, elements(t), 1.0);
    operand *dposition = give(t, "dposition", FLOAT, (int64_t)T * t->C, 1.0);
    if (t->status)
        return;
    kernel_slot slot;
    append(t, kernel_embed_position_grad(t->list, t->k, B, T, t->C, dy->buffer, dposition->buffer,
                                         !add, &slot));
    if (!t->status)
        append(t, dev_list_set(t->list, slot.launch, slot.arg, dev_arg_i32(add)));
    t->flops = (double)elements(t);
    dposition->checked = 1;
    reference_embed_position_grad(B, T, t->C, dy->value, dposition->want, add);
    for (int64_t i = 0; i < (int64_t)T * t->C; i++) {
        double size = fabs(dposition->value[i]);
        for (int b = 0; b < B; b++)
            size += fabs(dy->value[(int64_t)b * T * t->C + i]);
        dposition->slack[i] = (float)(U * ROUNDINGS(B) * size);
    }
}

static void embed_position_grad_case(trial *t) { embed_position_grad_with(t, 0); }
static void embed_position_more_case(trial *t) { embed_position_grad_with(t, 1); }

static double largest(const double *x, int n)
{
    double most = -INFINITY;
    for (int i = 0; i < n; i++)
        most = fmax(most, x[i]);
    return most;
}

/* loss->want[r] is set; x: row r of V logits. */
static void xent_expect_loss(operand *loss, int r, int V, const double *x, int target)
{
    if (target >= 0)
        loss->slack[r] = (float)(U * (ROUNDINGS(V) + 8.0 * fabs(loss->want[r]) + fabs(largest(x, V))
                                      + fabs(x[target])));
}

/* Row r of V logits x, whose gradient is `slope`. */
static void xent_expect_row(operand *dlogits, int r, int V, const double *x, const double *slope,
                            int target, double scale)
{
    const double s = fabs(scale), most = largest(x, V), f = ROUNDINGS(V);
    for (int v = 0; v < V; v++) {
        const double p = target < 0 ? 0.0 : fabs(slope[v] / s) + (v == target ? 2.0 : 0.0);
        expect(dlogits, (int64_t)r * V + v, slope[v],
               s * p * U * (8.0 + f + 2.0 * (most - x[v])) + TINY);
    }
}

/* deviation 1000 makes most exps underflow: only differences from the largest may count. */
static void xent_with(trial *t, int gradient, double deviation)
{
    const int V = t->C;
    const int in_place = gradient && kernel_set_storage(t->k) == DTYPE_F32 && t->R % 2;
    operand *logits = give(t, "logits", FLOAT, elements(t), deviation);
    operand *target = give_below(t, "target", t->R, V), *scale = give(t, "scale", FLOAT, 1, 1.0);
    operand *loss = take(t, "loss", FLOAT, t->R);
    operand *dlogits = !gradient ? NULL : in_place ? logits
                     : take(t, "dlogits", STORED, elements(t));
    double *slope = calloc((size_t)elements(t), sizeof *slope);
    if (!t->status && !slope)
        t->status = gt_fail(GT_NO_MEMORY, "cannot hold logits: out of memory");
    if (t->status) {
        free(slope);
        return;
    }
    for (int r = 4; r < t->R; r += 5)
        target->whole[r] = -1;
    append(t, kernel_xent(t->list, t->k, t->R, V, logits->buffer, target->buffer, scale->buffer,
                          loss->buffer, dlogits ? dlogits->buffer : NULL));
    t->flops = 12.0 * (double)elements(t);
    reference_xent(t->R, V, logits->value, target->whole, scale->value[0], loss->want, slope);
    for (int r = 0; r < t->R; r++) {
        const double *x = logits->value + (int64_t)r * V;
        xent_expect_loss(loss, r, V, x, target->whole[r]);
        if (dlogits)
            xent_expect_row(dlogits, r, V, x, slope + (int64_t)r * V, target->whole[r],
                            scale->value[0]);
    }
    free(slope);
}

static void xent_case(trial *t)      { xent_with(t, 1, 2.0); }
static void xent_huge_case(trial *t) { xent_with(t, 1, 1000.0); }
static void xent_loss_case(trial *t) { xent_with(t, 0, 2.0); }

/* The columns of one rank of several: as many again are other ranks'. */
static kernel_rows some_columns(int V)
{
    return (kernel_rows){ V / 4, V, 2 * V };
}

/* Targets of own and of others' columns; every fifth is ignored. */
static operand *give_targets(trial *t, int V)
{
    operand *o = give_below(t, "target", t->R, V);
    for (int r = 4; !t->status && r < t->R; r += 5)
        o->whole[r] = -1;
    return o;
}

static void xent_statistics_with(trial *t, double deviation)
{
    const kernel_rows held = some_columns(t->C);
    operand *logits = give(t, "logits", FLOAT, elements(t), deviation);
    operand *target = give_targets(t, held.V), *out = take(t, "statistics", FLOAT, 3 * (int64_t)t->R);
    append(t, kernel_xent_statistics(t->list, t->k, t->R, held, logits->buffer, target->buffer,
                                     out->buffer));
    t->flops = 4.0 * (double)elements(t);
    for (int r = 0; !t->status && r < t->R; r++) {
        const double *x = logits->value + (int64_t)r * t->C, most = largest(x, t->C);
        const int hit = target->whole[r] - held.begin;
        double sum = 0.0, error = 0.0;
        for (int v = 0; v < t->C; v++) {
            const double e = exp(x[v] - most);
            sum += e;
            error += e * (8.0 + 2.0 * (most - x[v]));
        }
        expect(out, 3 * r, most, 0.0);
        expect(out, 3 * r + 1, sum, U * (error + ROUNDINGS(t->C) * sum) + TINY);
        expect(out, 3 * r + 2, 0 <= hit && hit < t->C ? x[hit] : 0.0, 0.0);
    }
}

static void xent_statistics_case(trial *t)      { xent_statistics_with(t, 2.0); }
static void xent_statistics_huge_case(trial *t) { xent_statistics_with(t, 1000.0); }

/* Of three ranks, the last of which has logits too small to count in some rows. */
static void xent_combine_case(trial *t)
{
    enum { RANKS = 3 };
    const int64_t R = t->R;
    operand *given = give(t, "statistics", FLOAT, RANKS * 3 * R, 3.0), *target = give_targets(t, RANKS);
    operand *loss = take(t, "loss", FLOAT, R), *top = take(t, "top", FLOAT, 2 * R);
    append(t, kernel_xent_combine(t->list, t->k, t->R, RANKS, RANKS, given->buffer, target->buffer,
                                  loss->buffer, top->buffer));
    for (int64_t r = 0; !t->status && r < R; r++) {
        double most = -INFINITY, sum = 0.0, chosen = 0.0, error = 0.0;
        for (int k = 0; k < RANKS; k++) {
            double *x = given->value + 3 * (k * R + r);
            const int nothing = k == RANKS - 1 && r % 3 == 1;
            x[0] = nothing ? (double)-1e30f : x[0];
            x[1] = nothing ? 0.0 : fabs(x[1]) + 1.0;
            x[1] = (double)(float)x[1];
            x[2] = target->whole[r] == k && !nothing ? x[2] : 0.0;
            most = fmax(most, x[0]);
            chosen += x[2];
            memcpy(given->want + 3 * (k * R + r), x, 3 * sizeof *x);
        }
        for (int k = 0; k < RANKS; k++) {
            const double *x = given->value + 3 * (k * R + r);
            const double e = x[1] * exp(x[0] - most);
            sum += e;
            error += e > 0.0 ? e * (8.0 + 2.0 * (most - x[0])) : 0.0;
        }
        const double want = most - chosen + log(sum);
        const int counts = target->whole[r] >= 0;
        expect(top, 2 * r, most, 0.0);
        expect(top, 2 * r + 1, sum, U * error);
        expect(loss, r, counts ? want : 0.0,
               counts ? U * (error / sum + 8.0 * fabs(want) + fabs(most) + fabs(chosen)) : 0.0);
    }
}

/* Others' columns hold as much again, and in odd rows the largest logit. */
static void xent_gradient_case(trial *t)
{
    const kernel_rows held = some_columns(t->C);
    const int in_place = kernel_set_storage(t->k) == DTYPE_F32 && t->R % 2;
    operand *logits = give(t, "logits", FLOAT, elements(t), 2.0), *target = give_targets(t, held.V);
    operand *scale = give(t, "scale", FLOAT, 1, 1.0), *top = give(t, "top", FLOAT, 2 * (int64_t)t->R, 1.0);
    operand *out = in_place ? logits : take(t, "dlogits", STORED, elements(t));
    append(t, kernel_xent_gradient(t->list, t->k, t->R, held, logits->buffer, target->buffer,
                                   scale->buffer, top->buffer, out->buffer));
    t->flops = 4.0 * (double)elements(t);
    for (int r = 0; !t->status && r < t->R; r++) {
        const int64_t at = (int64_t)r * t->C;
        const int hit = target->whole[r] - held.begin, counts = target->whole[r] >= 0;
        const double *x = logits->value + at, s = fabs(scale->value[0]);
        double *m = &top->value[2 * r], *total = &top->value[2 * r + 1];
        *m = (double)(float)(largest(x, t->C) + r % 2);
        *total = 0.0;
        for (int v = 0; v < t->C; v++)
            *total += 2.0 * exp(x[v] - *m);
        *total = (double)(float)*total;
        memcpy(top->want + 2 * r, m, 2 * sizeof *m);
        for (int v = 0; v < t->C; v++) {
            const double p = exp(x[v] - *m) / *total;
            expect(out, at + v, counts ? (p - (v == hit)) * scale->value[0] : 0.0,
                   counts ? s * (p + 2.0 * (v == hit)) * U * (8.0 + 2.0 * (*m - x[v])) + TINY : 0.0);
        }
    }
}

static void sum_with(trial *t, int add)
{
    const int64_t n = elements(t);
    operand *x = give(t, "x", FLOAT, n, 1.0), *sum = give(t, "sum", FLOAT, 1, 1.0);
    if (t->status)
        return;
    kernel_slot slot;
    append(t, kernel_sum(t->list, t->k, n, x->buffer, sum->buffer, !add, &slot));
    if (!t->status)
        append(t, dev_list_set(t->list, slot.launch, slot.arg, dev_arg_i32(add)));
    t->flops = (double)n;
    double size = fabs(sum->value[0]);
    for (int64_t i = 0; i < n; i++)
        size += fabs(x->value[i]);
    expect(sum, 0, reference_sum(n, x->value) + (add ? sum->value[0] : 0.0), U * ROUNDINGS(n) * size);
}

static void sum_case(trial *t)      { sum_with(t, 0); }
static void sum_more_case(trial *t) { sum_with(t, 1); }

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
    if (!t->status)
        append(t, dev_list_set(t->list, slot.launch, slot.arg, dev_arg_f32(lr)));
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
    if (!t->status)
        append(t, dev_list_set(t->list, slot.launch, slot.arg, dev_arg_f32(lr)));
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

/* R and C 0: not timed, because another row says the same about speed. */
static const struct { const char *name; void (*run)(trial *t); int R, C; } cases[] = {
    { "embed", embed_case, 8192, 768 },
    { "embed without positions", embed_bare_case, 0, 0 },
    { "embed from a position on", embed_at_case, 0, 0 },
    { "embed from some rows", embed_part_case, 0, 0 },
    { "embed token gradient", embed_token_grad_case, 8192, 768 },
    { "embed token gradient of some rows", embed_token_grad_part_case, 0, 0 },
    { "embed position gradient", embed_position_grad_case, 8190, 768 },
    { "embed position gradient, added", embed_position_more_case, 0, 0 },
    { "layernorm", layernorm_case, 8192, 768 },
    { "layernorm, nothing kept", layernorm_bare_case, 0, 0 },
    { "layernorm far from 0", layernorm_far_case, 0, 0 },
    { "layernorm input gradient", layernorm_input_grad_case, 8192, 768 },
    { "layernorm input gradient + residual", layernorm_residual_grad_case, 0, 0 },
    { "layernorm weight gradient", layernorm_weight_grad_case, 8192, 768 },
    { "layernorm weight gradient, added", layernorm_weight_more_case, 0, 0 },
    { "bias gradient", bias_grad_case, 4096, 3072 },
    { "bias gradient, added", bias_grad_more_case, 0, 0 },
    { "gelu", gelu_case, 4096, 3072 },
    { "gelu gradient", gelu_grad_case, 4096, 3072 },
    { "bias", bias_case, 8192, 768 },
    { "bias + gelu", bias_gelu_case, 4096, 3072 },
    { "bias + dropout + residual", bias_drop_case, 8192, 768 },
    { "bias + gelu + dropout + residual", all_of_it_case, 0, 0 },
    { "residual", residual_case, 0, 0 },
    { "add", add_case, 8192, 768 },
    { "dropout", dropout_case, 8192, 768 },
    { "store", store_case, 8192, 768 },
    { "load", load_case, 8192, 768 },
    { "cross-entropy", xent_case, 160, 50257 },
    { "cross-entropy of huge logits", xent_huge_case, 0, 0 },
    { "cross-entropy, loss only", xent_loss_case, 160, 50257 },
    { "cross-entropy statistics of some columns", xent_statistics_case, 160, 50257 },
    { "cross-entropy statistics of huge logits", xent_statistics_huge_case, 0, 0 },
    { "cross-entropy of all ranks' statistics", xent_combine_case, 0, 0 },
    { "cross-entropy gradient of some columns", xent_gradient_case, 160, 50257 },
    { "sum", sum_case, 8192, 768 },
    { "sum, added", sum_more_case, 0, 0 },
    { "gradient norm", norm_partial_case, 8192, 768 },
    { "adamw", adamw_case, 8192, 512 },
    { "adamw + copy", adamw_copy_case, 8192, 512 },
    { "adamw, skipped", adamw_skip_case, 0, 0 },
    { "adamw, halted", adamw_halt_case, 0, 0 },
    { "sgd", sgd_case, 8192, 512 },
    { "sgd without momentum", sgd_plain_case, 0, 0 },
    { "sgd, skipped", sgd_skip_case, 0, 0 },
};

int kernel_case_count(void)
{
    return (int)(sizeof cases / sizeof *cases);
}

const char *kernel_case_name(int index)
{
    return cases[index].name;
}

/* ---- running them ------------------------------------------------------------------------- */

static void trial_end(trial *t)
{
    dev_list_release(t->list);
    for (int i = 0; i < t->count; i++) {
        operand *o = &t->operands[i];
        dev_buffer_release(o->buffer);
        dev_buffer_release(o->root);
        free(o->value);
        free(o->whole);
        free(o->want);
        free(o->slack);
    }
}

/* Makes operands and list, and fills the operands on the device. */
static gt_status trial_begin(trial *t, kernel_set *k, dev_device *d, int index, int R, int C,
                             uint64_t seed)
{
    memset(t, 0, sizeof *t);
    t->k = k;
    t->device = d;
    t->R = R;
    t->C = C;
    gt_random_init(&t->random, seed, (uint64_t)index);
    t->status = dev_list_create(&t->list, d);
    if (!t->status)
        cases[index].run(t);
    for (int i = 0; i < t->count && !t->status; i++)
        t->status = operand_write(t, &t->operands[i]);
    return t->status;
}

/* Half the distance between neighbours of x in the storage type. */
static double half_unit(dtype type, double x)
{
    int exponent;
    frexp(x, &exponent);                        /* x = f 2^exponent, f in [1/2, 1) */
    if (type == DTYPE_BF16)
        return ldexp(1.0, (exponent < -125 ? -125 : exponent) - 9);
    if (type == DTYPE_F16)
        return ldexp(1.0, (exponent < -13 ? -13 : exponent) - 12);
    return 0.0;
}

static gt_status operand_check(trial *t, const operand *o, const char *name)
{
    const size_t all = (size_t)dev_buffer_bytes(o->root), part = (size_t)dev_buffer_bytes(o->buffer);
    const size_t front = all - GUARD - part;
    unsigned char *image = malloc(all);
    if (!image)
        return gt_fail(GT_NO_MEMORY, "cannot hold operand '%s': out of memory", o->name);
    gt_status st = dev_read(t->device, o->root, 0, image, all);
    for (size_t i = 0; i < all && !st; i++)
        if ((i < front || i >= front + part) && image[i] != guard_byte)
            st = gt_fail(GT_MISMATCH, "kernel '%s' (%d x %d, %s) wrote outside '%s', at byte %lld "
                         "of %zu", name, t->R, t->C, dtype_name(kernel_set_storage(t->k)), o->name,
                         (long long)i - (long long)front, part);
    const unsigned char *data = image + front;
    for (int64_t i = 0; i < o->n && !st && (o->given || o->checked); i++) {
        if (o->whole) {
            int32_t got;
            memcpy(&got, data + 4 * i, 4);
            if (got != o->whole[i])
                st = gt_fail(GT_MISMATCH, "kernel '%s' changed its input '%s'", name, o->name);
            continue;
        }
        const double got = (double)dtype_load(o->type, data, (size_t)i);
        const double error = fabs(got - o->want[i]);
        const double most = (double)o->slack[i]
                          + (o->checked ? half_unit(o->type, fabs(o->want[i]) + (double)o->slack[i])
                                        : 0.0);
        if (!(error <= most))                   /* NaN is never less */
            st = gt_fail(GT_MISMATCH, "kernel '%s' (%d x %d, %s): %s[%lld] is %.9g, want %.9g, off "
                         "by %.3g where %.3g is allowed", name, t->R, t->C,
                         dtype_name(kernel_set_storage(t->k)), o->name, (long long)i, got,
                         o->want[i], error, most);
    }
    free(image);
    return st;
}

static gt_status trial_check(trial *t, int index)
{
    gt_status st = dev_run(t->list, 0, -1);
    for (int i = 0; i < t->count && !st; i++)
        st = operand_check(t, &t->operands[i], cases[index].name);
    return st;
}

gt_status kernel_case_check(kernel_set *k, int index, int R, int C, uint64_t seed)
{
    trial t;
    gt_status st = trial_begin(&t, k, kernel_set_device(k), index, R, C, seed);
    if (!st)
        st = trial_check(&t, index);
    trial_end(&t);
    return st;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Two runs to warm up, then 10 to 50 timed ones, about half a second of them. */
static gt_status trial_time(trial *t, kernel_timing *out)
{
    enum { LEAST = 10, MOST = 50 };
    double runs[MOST], total = 0.0, steps[8];
    const int launches = dev_list_count(t->list);
    int count = 0;
    gt_status st = GT_OK;

    assert(launches <= (int)(sizeof steps / sizeof *steps));
    for (int run = -2; run < MOST && !st && (run < LEAST || total < 0.5); run++) {
        memset(steps, 0, sizeof steps);
        st = dev_run_timed(t->list, steps);
        double sum = 0.0;
        for (int i = 0; i < launches; i++)
            sum += steps[i];
        if (run < 0)
            continue;
        runs[count++] = sum;
        total += sum;
    }
    if (st)
        return st;
    qsort(runs, (size_t)count, sizeof *runs, by_size);
    out->runs = count;
    out->min = runs[0];
    out->median = runs[count / 2];
    out->p99 = runs[(count * 99) / 100];
    out->flops = t->flops;
    out->bytes = 0;
    for (int i = 0; i < t->count; i++) {
        const operand *o = &t->operands[i];
        out->bytes += (int64_t)dev_buffer_bytes(o->buffer) * (o->given + o->checked);
    }
    return GT_OK;
}

static int case_named(const char *name)
{
    for (int i = 0; i < kernel_case_count(); i++)
        if (!strcmp(cases[i].name, name))
            return i;
    assert(0 && "no such case");
    return 0;
}

static gt_status bench_case(kernel_set *k, int index, kernel_timing *out)
{
    trial t;
    gt_status st = trial_begin(&t, k, kernel_set_device(k), index, cases[index].R, cases[index].C, 1);
    if (!st)
        st = trial_check(&t, index);
    *out = (kernel_timing){ .name = cases[index].name, .R = cases[index].R, .C = cases[index].C };
    if (!st)
        st = trial_time(&t, out);
    trial_end(&t);
    return st;
}

gt_status kernel_bench(dev_device *d, dtype storage, const char *pick, double *copy_rate,
                       kernel_report report, void *context)
{
    kernel_set *k = NULL;
    kernel_timing timing;
    gt_status st = kernel_set_create(&k, d, DTYPE_F32);
    if (!st)                                    /* fp32 to fp32: a plain copy */
        st = bench_case(k, case_named("load"), &timing);
    if (!st)
        *copy_rate = (double)timing.bytes / timing.min;
    kernel_set_release(k);
    k = NULL;
    if (!st)
        st = kernel_set_create(&k, d, storage);
    for (int i = 0; i < kernel_case_count() && !st; i++) {
        if (!cases[i].R || (pick && !strstr(cases[i].name, pick)))
            continue;
        st = bench_case(k, i, &timing);
        if (!st)
            report(context, &timing);
    }
    kernel_set_release(k);
    return st;
}
