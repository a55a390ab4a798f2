/* SPDX-License-Identifier: MIT */
/* host/device/prove.c - what kernels and plans rely on, asked of a device before it is used.
 *
 * Some runtimes answer wrongly and return success: one ends every loop of a work-item after
 * 65,535 turns, one stamps all events 0, 1, 2, 3. A training run on such a device is wrong from
 * its first step on and looks like a bad learning rate. So a device answers some small questions
 * first, each a row of the table below:
 *
 *   wrong arithmetic or memory    the device is refused, by name
 *   wrong stamps                  it is used, and timed by the host's clock
 *
 * The questions cost a kernel's compilation and some milliseconds; verdict.c keeps the answers.
 * The kernels are cl/prove.cl.                                                           */
#include "host/device/device_private.h"

#include "cl/kernels.h"
#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/text.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    VERSION = 2,                /* raised when a question changes that cl/prove.cl does not hold */
    TURNS = 200003,             /* well past 65,536, and past three times that        */
    OUTER = 500,
    INNER = 401,   /* as many turns, none of the loops long by itself    */
    ITEMS = 20011,              /* work-items; no multiple of a work-group            */
    SAMPLES = 1024,             /* elements of the other questions                    */
    VECTOR_ROOM = 16,           /* floats an element of VECTORS, whatever VW is       */
    LOOKS = 4,                  /* at the clock, at least                             */
    TRIES = 8                   /* at most, on a machine that others use as well      */
};

enum question {
    LONG_LOOP,
    NESTED_LOOPS,
    WORK_ITEMS,
    WHOLE_NUMBERS,
    SPECIAL_VALUES,
    BF16,
    EXP,
    LOG,
    SQRT,
    FMA,
    VECTORS,
    QUESTIONS
};
static const char *const question_names[QUESTIONS] = {
    "LONG_LOOP", "NESTED_LOOPS", "WORK_ITEMS", "WHOLE_NUMBERS", "SPECIAL_VALUES", "BF16",
    "EXP",       "LOG",          "SQRT",       "FMA",           "VECTORS"
};

typedef struct prover {
    dev_device *d;
    dev_program *program;
    dev_buffer *in, *out;
    uint32_t *given, *got;      /* SAMPLES * VECTOR_ROOM and ITEMS words at least */
    char *found;                /* where a probe writes what is wrong             */
    size_t found_size;
} prover;

/* ---- help ------------------------------------------------------------------------------- */

static void wrong(prover *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void wrong(prover *p, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(p->found, p->found_size, format, args);
    va_end(args);
}

static int is_wrong(const prover *p)
{
    return p->found[0] != '\0';
}

static uint32_t bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static uint32_t turn(uint32_t x)
{
    return x * 1664525u + 1013904223u;
}

/* Words without a pattern; the same ones every time. */
static void fill_words(prover *p, size_t count)
{
    uint32_t x = 2463534242u;
    for (size_t i = 0; i < count; i++) {
        x = turn(x);
        p->given[i] = x ^ x >> 15;
    }
}

/* Floats in (-8, 8). */
static void fill_floats(prover *p, size_t count)
{
    fill_words(p, count);
    for (size_t i = 0; i < count; i++)
        p->given[i] = bits_of((float)(int32_t)p->given[i] * 0x1p-28f);
}

/* Runs one launch over `count` elements and leaves its answers in p->got; seconds: how long it
 * took by the host's clock, and how long the device says (either may be NULL). */
static gt_status launch(prover *p, const char *kernel, const dev_arg *args, int arg_count, uint32_t in_words,
                        uint32_t count, double *host, double *device)
{
    dev_list *l = NULL;
    gt_status st = dev_write(p->d, p->in, 0, p->given, 4ull * in_words);
    if (!st)
        st = dev_list_create(&l, p->d);
    if (!st)
        st = dev_list_kernel(l, p->program, kernel, dev_grid_1d(count, dev_group_size(&p->d->info)), args, arg_count);
    if (!st && !host)
        st = dev_run(l, 0, -1);
    else if (!st)
        st = dev_run_both_clocks(l, host, device);
    if (!st)
        st = dev_read(p->d, p->out, 0, p->got, 4ull * count);
    dev_list_release(l);
    return st;
}

static gt_status ask(prover *p, enum question q, uint32_t n, uint32_t m, uint32_t in_words, uint32_t count)
{
    const dev_arg args[] = { dev_arg_u32((uint32_t)q), dev_arg_u32(count),    dev_arg_u32(n),
                             dev_arg_u32(m),           dev_arg_buffer(p->in), dev_arg_buffer(p->out) };
    return launch(p, "prove", args, 6, in_words, count, NULL, NULL);
}

/* The first answer that is not the expected word. */
static void compare_words(prover *p, const uint32_t *want, uint32_t count, const char *of)
{
    for (uint32_t i = 0; i < count && !is_wrong(p); i++)
        if (p->got[i] != want[i])
            wrong(p, "%s of element %u gave %08x, not %08x", of, i, p->got[i], want[i]);
}

/* ---- the probes ---------------------------------------------------------------------------- */

static gt_status long_loop(prover *p)
{
    uint32_t want = 1, turns = 0;
    p->given[0] = 1;
    gt_status st = ask(p, LONG_LOOP, TURNS, 0, 1, 1);
    for (uint32_t k = 0; k < TURNS; k++) {
        if (want == p->got[0] && !turns)
            turns = k;
        want = turn(want);
    }
    if (!st && p->got[0] != want && turns)
        wrong(p, "a loop of %d turns ended after %u", TURNS, turns);
    else if (!st && p->got[0] != want)
        wrong(p, "a loop of %d turns gave %08x, not %08x", TURNS, p->got[0], want);
    return st;
}

static gt_status nested_loops(prover *p)
{
    uint32_t want = 1;
    p->given[0] = 1;
    for (uint32_t j = 0; j < OUTER; j++) {
        for (uint32_t k = 0; k < INNER; k++)
            want = turn(want);
        want ^= j;
    }
    gt_status st = ask(p, NESTED_LOOPS, OUTER, INNER, 1, 1);
    if (!st && p->got[0] != want)
        wrong(p, "%d loops of %d turns gave %08x, not %08x", OUTER, INNER, p->got[0], want);
    return st;
}

static gt_status work_items(prover *p)
{
    const uint32_t group = (uint32_t)dev_group_size(&p->d->info);
    gt_status st = ask(p, WORK_ITEMS, 0, 0, 1, ITEMS);
    for (uint32_t i = 0; !st && i < ITEMS && !is_wrong(p); i++)
        if (p->got[i] != i * 2654435761u + i / group + i % group)
            wrong(p, "work-item %u of %d did not run as itself", i, ITEMS);
    return st;
}

static gt_status whole_numbers(prover *p)
{
    uint32_t want[SAMPLES];
    fill_words(p, SAMPLES);
    for (uint32_t i = 0; i < SAMPLES; i++) {
        const uint32_t a = p->given[i], b = p->given[SAMPLES - 1 - i];
        const uint64_t product = (uint64_t)a * b, at = product + i;
        const uint32_t third = a >> 3 | (a >> 31 ? 0xe0000000u : 0u);
        want[i] = (uint32_t)(at >> 32) ^ (uint32_t)at ^ (uint32_t)(product >> 32) ^ a << (i & 15u) ^ b >> 7 ^ third;
    }
    gt_status st = ask(p, WHOLE_NUMBERS, 0, 0, SAMPLES, SAMPLES);
    if (!st)
        compare_words(p, want, SAMPLES, "shifts and products");
    return st;
}

static gt_status special_values(prover *p)
{
    static const struct {
        float x;
        uint32_t want;
    } cases[] = { { NAN, 2 | 8 | 16 }, { INFINITY, 4 | 8 }, { -INFINITY, 16 }, { 0.0f, 1 | 16 },
                  { -3.0f, 1 | 16 },   { 2.0f, 1 | 4 | 8 }, { 1.0f, 1 } };
    enum { N = sizeof cases / sizeof *cases };
    uint32_t want[N];
    for (int i = 0; i < N; i++) {
        p->given[i] = bits_of(cases[i].x);
        want[i] = cases[i].want;
    }
    gt_status st = ask(p, SPECIAL_VALUES, 0, 0, N, N);
    if (!st)
        compare_words(p, want, N, "comparisons with NaN and infinity");
    return st;
}

static gt_status bf16(prover *p)
{
    uint32_t want[SAMPLES];
    fill_words(p, SAMPLES);
    for (uint32_t i = 0; i < SAMPLES; i++) {
        const uint32_t x = p->given[i];
        want[i] = dtype_bf16_from_f32(float_of(x)) | bits_of(dtype_f32_from_bf16((uint16_t)x));
    }
    gt_status st = ask(p, BF16, 0, 0, SAMPLES, SAMPLES);
    if (!st)
        compare_words(p, want, SAMPLES, "rounding to bf16 and back");
    return st;
}

static double function_value(enum question q, double x)
{
    switch (q) {
    case EXP: return exp(x);
    case LOG: return log(fabs(x));
    case SQRT: return sqrt(fabs(x));
    default: return x * x - 1.0;
    }
}

static gt_status functions(prover *p)
{
    gt_status st = GT_OK;
    fill_floats(p, SAMPLES);
    for (enum question q = EXP; !st && q <= FMA; q++) {
        st = ask(p, q, 0, 0, SAMPLES, SAMPLES);
        for (uint32_t i = 0; !st && i < SAMPLES && !is_wrong(p); i++) {
            const double x = (double)float_of(p->given[i]), want = function_value(q, x);
            const double got = (double)float_of(p->got[i]);
            if (!(fabs(got - want) <= 1e-5 * (fabs(want) + 0.1)))
                wrong(p, "%s of %g gave %.7g, not %.7g", question_names[q], x, got, want);
        }
    }
    return st;
}

static gt_status vectors(prover *p)
{
    const uint32_t width = (uint32_t)dev_vector_width(&p->d->info);
    for (uint32_t i = 0; i < SAMPLES * VECTOR_ROOM; i++)        /* small whole numbers add exactly */
        p->given[i] = bits_of((float)(int32_t)(i * 37u % 101u) - 50.0f);
    gt_status st = ask(p, VECTORS, 0, 0, SAMPLES * VECTOR_ROOM, SAMPLES);
    for (uint32_t i = 0; !st && i < SAMPLES && !is_wrong(p); i++) {
        const uint32_t count = i % (width + 1);
        float sum = 0.0f, most = count < width ? 0.0f : -INFINITY;
        for (uint32_t k = 0; k < width; k++) {
            const float x = float_of(p->given[i * VECTOR_ROOM + k]);
            sum += (k < count ? 3.0f : 2.0f) * x;
            most = k < count && x > most ? x : most;
        }
        if (float_of(p->got[i]) != sum + most)
            wrong(p, "%u lanes of a vector of %u gave %g, not %g", count, width, (double)float_of(p->got[i]),
                  (double)(sum + most));
    }
    return st;
}

static int has_groups(const dev_device *d)
{
    return d->info.style == DEV_STYLE_GPU;
}

static gt_status groups(prover *p)
{
    const uint32_t group = (uint32_t)dev_group_size(&p->d->info), count = 4 * group - 3;
    const dev_arg args[] = { dev_arg_u32(count), dev_arg_buffer(p->in), dev_arg_buffer(p->out) };
    for (uint32_t i = 0; i < count; i++)
        p->given[i] = bits_of((float)(i * 37u % 101u));
    gt_status st = launch(p, "prove_groups", args, 3, count, count, NULL, NULL);
    for (uint32_t i = 0; !st && i < count && !is_wrong(p); i++) {
        float want = 0.0f, most = 0.0f;
        for (uint32_t k = i / group * group; k < (i / group + 1) * group && k < count; k++) {
            want += float_of(p->given[k]);
            most = fmaxf(most, float_of(p->given[k]));
        }
        if (float_of(p->got[i]) != want + most)
            wrong(p, "a sum over a work-group of %u gave %g, not %g", group, (double)float_of(p->got[i]),
                  (double)(want + most));
    }
    return st;
}

static gt_status fp16(prover *p)
{
    uint32_t want[SAMPLES];
    const dev_arg args[] = { dev_arg_u32(SAMPLES), dev_arg_buffer(p->in), dev_arg_buffer(p->out) };
    fill_floats(p, SAMPLES);
    for (uint32_t i = 0; i < SAMPLES; i++) {
        if (i % 2 == 0)                 /* a half in the lower 16 bits, neither infinite nor NaN */
            p->given[i] = dtype_f16_from_f32(float_of(p->given[i]));
        want[i] = i % 2 ? dtype_f16_from_f32(float_of(p->given[i]))
                        : bits_of(dtype_f32_from_f16((uint16_t)p->given[i]));
    }
    gt_status st = launch(p, "prove_fp16", args, 3, SAMPLES, SAMPLES, NULL, NULL);
    if (!st)
        compare_words(p, want, SAMPLES, "fp16 from and to memory");
    return st;
}

/* Views, fills and copies at offsets, in the order they were asked for. */
static gt_status memory(prover *p)
{
    const uint64_t align = p->d->info.align, words = align / 4;
    dev_buffer *root = NULL, *view = NULL;
    dev_list *l = NULL;
    gt_status st = dev_buffer_create(&root, p->d, 4 * align, "a probe");
    if (!st)
        st = dev_buffer_view(&view, root, align, 2 * align);
    if (!st)
        st = dev_list_create(&l, p->d);
    if (!st)
        st = dev_list_fill(l, root, 0, 0x11111111u, 4 * align);
    if (!st)
        st = dev_list_fill(l, view, 4, 0x22222222u, align);
    if (!st)
        st = dev_list_copy(l, root, 3 * align + 8, view, 0, 16);
    if (!st)
        st = dev_run(l, 0, -1);
    if (!st)
        st = dev_read(p->d, root, 0, p->got, 4 * align);
    for (uint64_t i = 0; !st && i < 4 * words && !is_wrong(p); i++) {
        const int filled = i > words && i <= 2 * words, copied = i > 3 * words + 2 && i < 3 * words + 6;
        const uint32_t want = filled || copied ? 0x22222222u : 0x11111111u;
        if (p->got[i] != want)
            wrong(p, "filling and copying parts of a buffer left %08x at byte %llu, not %08x", p->got[i],
                  (unsigned long long)(4 * i), want);
    }
    dev_list_release(l);
    dev_buffer_release(view);
    dev_buffer_release(root);
    return st;
}

static int has_native(const dev_device *d)
{
    return d->info.native_kernels;
}

static void add_words(const void *payload, void *const *pointers)
{
    const uint32_t *add = payload;
    uint32_t *to = pointers[0];
    for (int i = 0; i < SAMPLES; i++)
        to[i] += *add;
}

static gt_status native(prover *p)
{
    const uint32_t add = 0x01020304u;
    dev_list *l = NULL;
    fill_words(p, SAMPLES);
    gt_status st = dev_write(p->d, p->in, 0, p->given, 4 * SAMPLES);
    if (!st)
        st = dev_list_create(&l, p->d);
    if (!st)
        st = dev_list_native(l, "prove", add_words, &add, sizeof add, &p->in, 1);
    if (!st)
        st = dev_run(l, 0, -1);
    if (!st)
        st = dev_read(p->d, p->in, 0, p->got, 4 * SAMPLES);
    for (int i = 0; !st && i < SAMPLES; i++)
        p->given[i] += add;
    if (!st)
        compare_words(p, p->given, SAMPLES, "a function of the host, run on the device,");
    dev_list_release(l);
    return st;
}

/* A kernel that takes a while, by the stamps of its event and by the host, which starts its watch
 * before and stops it after. So the stamps can never tell of a longer time; a shorter one they may
 * where other programs hold the host up, but not each time, and less so the longer the kernel. */
static gt_status clocks(prover *p)
{
    gt_status st = GT_OK;
    double host = 0.0, device = 0.0;
    int agreed = 0;
    p->given[0] = 1;
    for (uint32_t i = 0; !st && (i < LOOKS || (!agreed && i < TRIES)); i++) {
        const dev_arg args[] = { dev_arg_u32(LONG_LOOP), dev_arg_u32(1),        dev_arg_u32((uint32_t)TURNS << i),
                                 dev_arg_u32(0),         dev_arg_buffer(p->in), dev_arg_buffer(p->out) };
        st = launch(p, "prove", args, 6, 1, 1, &host, &device);
        if (!st && device > 1.05 * host + 20e-6) {
            agreed = 0;
            break;
        }
        agreed |= device >= 0.5 * host;
    }
    if (!st && !agreed)
        wrong(p, "a kernel that took %.3g ms took %.3g ms by its event's stamps", host * 1e3, device * 1e3);
    return st;
}

/* ---- the table ------------------------------------------------------------------------------ */

/* The rows come in this order: a device that fails one may not survive a later one. */
static const struct probe {
    const char *name, *checks;
    gt_status (*run)(prover *p);
    int (*has)(const dev_device *d);        /* NULL: every device */
    int only_clock;                         /* wrong means the host's clock, not a refusal */
} probes[] = {
    { "memory", "fills and copies of parts of a buffer, in order", memory, NULL, 0 },
    { "work-items", "20,011 work-items, each with its own number", work_items, NULL, 0 },
    { "whole numbers", "shifts, 32- and 64-bit products", whole_numbers, NULL, 0 },
    { "special values", "comparisons with NaN and infinity", special_values, NULL, 0 },
    { "bf16", "rounding to bf16 and back", bf16, NULL, 0 },
    { "fp16", "fp16 from and to memory", fp16, has_groups, 0 },
    { "functions", "exp, log, sqrt and fma", functions, NULL, 0 },
    { "vectors", "whole and ragged vectors", vectors, NULL, 0 },
    { "work-groups", "local memory and barriers", groups, has_groups, 0 },
    { "native kernels", "a function of the host on buffers of the device", native, has_native, 0 },
    { "long loop", "a loop of 200,003 turns", long_loop, NULL, 0 },
    { "nested loops", "500 loops of 401 turns in one work-item", nested_loops, NULL, 0 },
    { "clock", "the stamps of events against the host's clock", clocks, NULL, 1 },
};
enum { PROBES = sizeof probes / sizeof *probes };

/* The kernels and their options: each question by its number. */
static char options[256];
static const dev_variant variants[] = { { options, 0 }, { 0 } };
static const dev_family prove_family = { .file = "prove.cl", .variants = variants };

static void make_options(void)
{
    size_t at = (size_t)snprintf(options, sizeof options, "%s", dev_store_option(DTYPE_BF16));
    for (int i = 0; i < QUESTIONS; i++)
        at += (size_t)snprintf(options + at, sizeof options - at, " -D%s=%d", question_names[i], i);
    assert(at < sizeof options);
}

const dev_family *dev_prove_family(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_options);
    return &prove_family;
}

uint64_t dev_prove_version(void)
{
    gt_text t = { 0 };
    gt_text_printf(&t, "%d ", VERSION);
    for (const char *const *part = cl_parts(dev_prove_family()->file); *part; part++)
        gt_text_put(&t, *part, strlen(*part));
    for (int i = 0; i < PROBES; i++)
        gt_text_printf(&t, " %s", probes[i].name);
    const uint64_t version = t.failed ? 0 : gt_hash(t.data, t.size);
    gt_text_release(&t);
    return version;
}

static gt_status prover_open(prover *p, dev_device *d)
{
    const dev_family *f = dev_prove_family();
    const char *const *parts = cl_parts(f->file);
    int count = 0;
    while (parts[count])
        count++;
    const size_t in = 4 * SAMPLES * VECTOR_ROOM;
    const size_t out = 4 * (ITEMS > d->info.align ? ITEMS : d->info.align);    /* memory() reads 4 x align */
    p->d = d;
    p->given = malloc(in);
    p->got = malloc(out);
    gt_status st = GT_OK;
    if (!p->given || !p->got)
        st = gt_fail(GT_NO_MEMORY, "cannot probe device '%s': no memory for %zu bytes to give and %zu to take",
                     d->info.id, (size_t)in, (size_t)out);
    if (!st)
        st = dev_buffer_create(&p->in, d, in, "a probe");
    if (!st)
        st = dev_buffer_create(&p->out, d, out, "a probe");
    if (!st)
        st = dev_program_make(&p->program, d, f->file, parts, count, f->variants[0].options, 0);
    return st;
}

static void prover_close(prover *p)
{
    dev_program_release(p->program);
    dev_buffer_release(p->in);
    dev_buffer_release(p->out);
    free(p->given);
    free(p->got);
}

gt_status dev_prove(dev_device *d, void (*each)(void *context, const dev_proof *proof), void *context)
{
    prover p = { 0 };
    const int host_clock = d->info.host_clock;
    d->info.host_clock = 1;             /* a trace of the probes trusts nothing yet */
    gt_status st = prover_open(&p, d);
    for (int i = 0; !st && i < PROBES; i++) {
        if (probes[i].has && !probes[i].has(d))
            continue;
        dev_proof proof = { .name = probes[i].name, .checks = probes[i].checks, .verdict = DEV_HOLDS };
        p.found = proof.found;
        p.found_size = sizeof proof.found;
        if (probes[i].run(&p)) {
            wrong(&p, "%s", gt_message());
            gt_message_clear();
            proof.verdict = DEV_WRONG;
        } else if (is_wrong(&p))
            proof.verdict = probes[i].only_clock ? DEV_NO_CLOCK : DEV_WRONG;
        each(context, &proof);
    }
    prover_close(&p);
    d->info.host_clock = host_clock;
    return st;
}
