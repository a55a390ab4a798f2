/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_cases_private.h - what the cases of all kernel families are written with.
 *
 * A case function does everything at once, for nothing runs before it returns:
 *
 *     operand *x = give(t, "x", STORED, n, 1.0), *y = take(t, "y", FLOAT, n);
 *     append(t, kernel_load(t->list, t->k, n, x->buffer, y->buffer));
 *     for (...) expect(y, i, x->value[i], slack);
 *
 * Slack is absolute, per element: U = 2^-24, half a unit in the last place of 1, times the
 * magnitudes whose rounding reaches the result, times a small count of roundings.
 * A sum of n terms may add ROUNDINGS(n), between the 1 of a perfect tree and the sqrt(n) of
 * a random walk in one running sum.
 *
 * Each kernel_FAMILY.c ends with the cases of its launchers and the row of the family;
 * kernel_cases.c runs them.                                                             */
#ifndef GT_KERNEL_CASES_PRIVATE_H
#define GT_KERNEL_CASES_PRIVATE_H

#include "host/kernel/kernel.h"

#include "host/base/random.h"
#include "host/kernel/reference.h"

#include <math.h>
#include <stdint.h>

#define U 0x1p-24
#define TINY 0x1p-122           /* the least normal float, and room for a factor of 16 */
#define ROUNDINGS(n) (4.0 + 0.5 * sqrt((double)(n)))

enum { OPERANDS = 12 };

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

/* R and C are the size to time it at; 0: not timed, because another row says the same about speed. */
typedef struct kernel_case {
    const char *name;
    void (*run)(trial *t);
    int R, C;
} kernel_case;

/* A fresh operand of n elements; t->status says whether it can be used. */
operand *operand_add(trial *t, const char *name, kind what, int64_t n);

/* An input: normal numbers around 0 with the given deviation. */
static inline operand *give(trial *t, const char *name, kind what, int64_t n, double deviation)
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
static inline operand *give_below(trial *t, const char *name, int64_t n, int limit)
{
    operand *o = operand_add(t, name, INT, n);
    o->given = 1;
    for (int64_t i = 0; !t->status && i < n; i++)
        o->whole[i] = (int32_t)gt_random_below(&t->random, (uint64_t)limit);
    return o;
}

/* An output; every element must be expected. */
static inline operand *take(trial *t, const char *name, kind what, int64_t n)
{
    operand *o = operand_add(t, name, what, n);
    o->checked = 1;
    return o;
}

/* Working memory whose contents nobody looks at, but its guards. */
static inline operand *scratch(trial *t, uint64_t bytes)
{
    return operand_add(t, "scratch", FLOAT, (int64_t)(bytes + 3) / 4);
}

static inline void expect(operand *o, int64_t i, double want, double slack)
{
    o->checked = 1;
    o->want[i] = want;
    o->slack[i] = (float)slack;
}

static inline void append(trial *t, gt_status st)
{
    if (!t->status)
        t->status = st;
}

/* Another value for an argument of a launch that was appended. */
static inline void set_slot(trial *t, kernel_slot at, dev_arg value)
{
    if (!t->status)
        t->status = dev_list_set(t->list, at.launch, at.arg, value);
}

/* The optimizer's scalars as they are after `step` updates. */
static inline operand *give_state(trial *t, int step, double clip, double beta1, double beta2)
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

/* What encodings draw with in a step. */
static inline operand *give_random(trial *t, int step)
{
    operand *r = give_below(t, "random", 4, 1 << 30);
    if (!t->status)
        r->whole[2] = step;
    return r;
}

/* What kernel_compress_begin() leaves, of which two places are not random. */
static inline operand *give_frame(trial *t, float take, float ratio)
{
    operand *f = give(t, "frame", FLOAT, COMPRESS_FRAME, 1.0);
    if (t->status)
        return f;
    f->value[COMPRESS_TAKE] = f->want[COMPRESS_TAKE] = (double)take;
    f->value[COMPRESS_RATIO] = f->want[COMPRESS_RATIO] = (double)ratio;
    return f;
}

static inline dev_buffer *operand_buffer(const operand *o)       /* NULL of NULL */
{
    return o ? o->buffer : NULL;
}

static inline int64_t elements(const trial *t)
{
    return (int64_t)t->R * t->C;
}

#endif
