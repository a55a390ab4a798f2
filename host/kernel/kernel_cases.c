/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_cases.c - runs the kernel cases: guards, comparison, time.
 *
 *     ┌─────────────────── root ──────────────────┐
 *     │ guard, >= 256 B │  operand │ guard, 256 B │   guards are bytes 0xA5, and so is at first
 *     └───────────────────────────────────────────┘   what is only taken: a forgotten element shows
 *
 * An operand is a view behind the first guard, which is as long as the device aligns buffers to.
 * The cases themselves are in kernel_FAMILY.c; their order over all families is part of the
 * seed, so that a new one does not change the numbers of those before it.               */
#include "host/kernel/kernel_cases.h"

#include "host/kernel/kernel_cases_private.h"
#include "host/kernel/kernel_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD = 256 };
static const unsigned char guard_byte = 0xA5;

/* NULL behind the last one. */
static const kernel_case *case_at(int index)
{
    for (int f = 0; kernel_family_at(f); f++)
        for (const kernel_case *c = kernel_family_at(f)->cases; c->name; c++)
            if (!index--)
                return c;
    return NULL;
}

int kernel_case_count(void)
{
    int count = 0;
    while (case_at(count))
        count++;
    return count;
}

const char *kernel_case_name(int index)
{
    return case_at(index)->name;
}

/* ---- operands ----------------------------------------------------------------------------- */

static gt_status operand_create(trial *t, operand *o)
{
    const uint64_t bytes = (uint64_t)o->n * dtype_size(o->type);
    const uint64_t front = dev_info_of(t->device)->align > GUARD ? dev_info_of(t->device)->align : GUARD;
    const size_t size = (size_t)o->n ? (size_t)o->n : 1;

    o->value = calloc(size, sizeof *o->value);
    o->want = calloc(size, sizeof *o->want);
    o->slack = calloc(size, sizeof *o->slack);
    o->whole = o->type == DTYPE_I32 ? calloc(size, sizeof *o->whole) : NULL;
    if (!o->value || !o->want || !o->slack || (o->type == DTYPE_I32 && !o->whole))
        return gt_fail(GT_NO_MEMORY, "no memory for operand '%s' and what it should be", o->name);
    gt_status st = dev_buffer_create(&o->root, t->device, front + bytes + GUARD, o->name);
    return st ? st : dev_buffer_view(&o->buffer, o->root, front, bytes);
}

operand *operand_add(trial *t, const char *name, kind what, int64_t n)
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
        return gt_fail(GT_NO_MEMORY, "no memory for operand '%s' with its guards", o->name);
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
static gt_status trial_begin(trial *t, kernel_set *k, dev_device *d, int index, int R, int C, uint64_t seed)
{
    memset(t, 0, sizeof *t);
    t->k = k;
    t->device = d;
    t->R = R;
    t->C = C;
    gt_random_init(&t->random, seed, (uint64_t)index);
    t->status = dev_list_create(&t->list, d);
    if (!t->status)
        case_at(index)->run(t);
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
        return gt_fail(GT_NO_MEMORY, "no memory to read back operand '%s'", o->name);
    gt_status st = dev_read(t->device, o->root, 0, image, all);
    for (size_t i = 0; i < all && !st; i++)
        if ((i < front || i >= front + part) && image[i] != guard_byte)
            st = gt_fail(GT_MISMATCH,
                         "kernel '%s' (%d x %d, %s) wrote outside '%s', at byte %lld "
                         "of %zu",
                         name, t->R, t->C, dtype_name(kernel_set_storage(t->k)), o->name,
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
                            + (o->checked ? half_unit(o->type, fabs(o->want[i]) + (double)o->slack[i]) : 0.0);
        if (!(error <= most))                   /* NaN is never less */
            st = gt_fail(GT_MISMATCH,
                         "kernel '%s' (%d x %d, %s): %s[%lld] is %.9g, want %.9g, off "
                         "by %.3g where %.3g is allowed",
                         name, t->R, t->C, dtype_name(kernel_set_storage(t->k)), o->name, (long long)i, got, o->want[i],
                         error, most);
    }
    free(image);
    return st;
}

static gt_status trial_check(trial *t, int index)
{
    gt_status st = dev_run(t->list, 0, -1);
    for (int i = 0; i < t->count && !st; i++)
        st = operand_check(t, &t->operands[i], kernel_case_name(index));
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
        st = dev_run_timed(t->list, 0, -1, steps);
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
        if (!strcmp(kernel_case_name(i), name))
            return i;
    assert(0 && "no such case");
    return 0;
}

static gt_status bench_case(kernel_set *k, int index, kernel_timing *out)
{
    const kernel_case *c = case_at(index);
    trial t;
    gt_status st = trial_begin(&t, k, kernel_set_device(k), index, c->R, c->C, 1);
    if (!st)
        st = trial_check(&t, index);
    *out = (kernel_timing){ .name = c->name, .R = c->R, .C = c->C };
    if (!st)
        st = trial_time(&t, out);
    trial_end(&t);
    return st;
}

gt_status kernel_bench(dev_device *d, dtype storage, const char *pick, double *copy_rate, kernel_report report,
                       void *context)
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
        if (!case_at(i)->R || (pick && !strstr(kernel_case_name(i), pick)))
            continue;
        st = bench_case(k, i, &timing);
        if (!st)
            report(context, &timing);
    }
    kernel_set_release(k);
    return st;
}
