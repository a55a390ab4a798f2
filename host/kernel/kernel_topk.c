/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_topk.c - launches of cl/topk.cl, and their cases: gradients of which the largest travel.
 *
 *     x ─ encode ─► code ─ decode ─► y          cases look at y: the k largest of each chunk, zeros elsewhere
 *
 * Cases sort, which the kernels never do; their values are of few magnitudes, so that it matters which of two equal ones
 * is taken. */
#include "host/kernel/kernel_cases_private.h"
#include "host/kernel/kernel_private.h"

#include <assert.h>
#include <stdlib.h>

static const kernel_holding nothing;

int64_t kernel_topk_words(int64_t n, int keep)
{
    const int64_t values = kernel_pieces(n, COMPRESS_CHUNK) * keep;
    return values + (values + 1) / 2;
}

gt_status kernel_topk_encode(dev_list *l, kernel_set *k, int64_t n, int keep, const kernel_holding *h, dev_buffer *x,
                             dev_buffer *code)
{
    assert(keep > 0 && keep <= COMPRESS_CHUNK);
    const int64_t chunks = kernel_pieces(n, COMPRESS_CHUNK);
    gt_status st = kernel_fits("chunks of gradients", chunks);
    h = h ? h : &nothing;
    dev_arg args[] = { dev_arg_i32(1),    dev_arg_u64((uint64_t)n), dev_arg_u32((uint32_t)chunks),
                       dev_arg_i32(keep), dev_arg_buffer(h->frame), dev_arg_buffer(h->kept),
                       dev_arg_buffer(x), dev_arg_buffer(code),     dev_arg_buffer(h->next) };
    return st ? st
              : kernel_launch_rows(l, k, &kernel_topk_family, "topk_encode", (int)chunks, COMPRESS_CHUNK, args,
                                   KERNEL_ARGS(args));
}

gt_status kernel_topk_encode_sampled(dev_list *l, kernel_set *k, int64_t n, int keep, int stride, dev_buffer *random,
                                     const kernel_holding *h, dev_buffer *x, dev_buffer *code)
{
    assert(keep > 0 && keep <= COMPRESS_CHUNK && stride >= 10);
    const int64_t chunks = kernel_pieces(n, COMPRESS_CHUNK);
    gt_status st = kernel_fits("chunks of gradients", chunks);
    h = h ? h : &nothing;
    dev_arg args[] = { dev_arg_i32(1),           dev_arg_u64((uint64_t)n), dev_arg_u32((uint32_t)chunks),
                       dev_arg_i32(keep),        dev_arg_i32(stride),      dev_arg_buffer(random),
                       dev_arg_buffer(h->frame), dev_arg_buffer(h->kept),  dev_arg_buffer(x),
                       dev_arg_buffer(code),     dev_arg_buffer(h->next) };
    return st ? st
              : kernel_launch_rows(l, k, &kernel_topk_family, "topk_encode_sampled", (int)chunks, COMPRESS_CHUNK, args,
                                   KERNEL_ARGS(args));
}

gt_status kernel_topk_decode(dev_list *l, kernel_set *k, int64_t n, int keep, int add, dev_buffer *code, dev_buffer *to)
{
    const int64_t chunks = kernel_pieces(n, COMPRESS_CHUNK);
    dev_arg args[] = { dev_arg_i32(1),    dev_arg_u64((uint64_t)n), dev_arg_u32((uint32_t)chunks),
                       dev_arg_i32(keep), dev_arg_i32(add),         dev_arg_buffer(code),
                       dev_arg_buffer(to) };
    return kernel_launch_rows(l, k, &kernel_topk_family, "topk_decode", (int)chunks, COMPRESS_CHUNK, args,
                              KERNEL_ARGS(args));
}

/* ---- cases ------------------------------------------------------------------------------------- */

enum { STEP = 7 };

typedef struct ranked {
    double size;
    int64_t at;
} ranked;

static int larger_first(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    return x->size != y->size ? (x->size < y->size ? 1 : -1) : (x->at > y->at) - (x->at < y->at);
}

/* Values of few different magnitudes, so that there are equal ones, and chunks of few that are not 0. keeps: with what
 * was left out, so that the sum is x of the others and what is chosen is 0. */
static void topk_with(trial *t, int keep, int keeps, int add)
{
    const int64_t n = elements(t);
    operand *x = give(t, "x", FLOAT, n, 1.0), *code = scratch(t, 4 * (uint64_t)kernel_topk_words(n, keep));
    operand *y = add ? give(t, "y", FLOAT, n, 1.0) : take(t, "y", FLOAT, n);
    operand *frame = keeps ? give_frame(t, 1.0f, 2.0f) : NULL;
    operand *grad = keeps ? give(t, "grad", FLOAT, n, 1.0) : x, *kept = keeps ? give(t, "kept", FLOAT, n, 1.0) : NULL;
    operand *next = keeps ? take(t, "next", FLOAT, n) : NULL;
    const kernel_holding h = { operand_buffer(frame), operand_buffer(kept), operand_buffer(next) };
    append(t, kernel_topk_encode(t->list, t->k, n, keep, &h, grad->buffer, code->buffer));
    append(t, kernel_topk_decode(t->list, t->k, n, keep, add, code->buffer, y->buffer));
    for (int64_t i = 0; !t->status && i < n; i++) {
        const int64_t chunk = i / COMPRESS_CHUNK;
        if (chunk % 2)
            x->value[i] = x->want[i] = chunk % 4 == 3 && i % 997 ? 0.0 : rint(8.0 * x->value[i]) / 8.0;
        if (keeps) {
            kept->value[i] = kept->want[i] = rint(64.0 * kept->value[i]) / 64.0;
            grad->value[i] = grad->want[i] = (double)(float)(x->value[i] - 2.0 * kept->value[i]);
            x->value[i] = x->want[i] = (double)((float)grad->value[i] + 2.0f * (float)kept->value[i]);
        }
    }
    ranked all[COMPRESS_CHUNK];
    for (int64_t c = 0; !t->status && c < n; c += COMPRESS_CHUNK) {
        const int64_t len = n - c < COMPRESS_CHUNK ? n - c : COMPRESS_CHUNK;
        for (int64_t i = 0; i < len; i++)
            all[i] = (ranked){ fabs(x->value[c + i]), c + i };
        qsort(all, (size_t)len, sizeof *all, larger_first);
        for (int64_t i = 0; i < len; i++) {
            const double was = add ? y->value[all[i].at] : 0.0, say = i < keep ? x->value[all[i].at] : 0.0;
            expect(y, all[i].at, was + say, add ? U * (fabs(was) + fabs(say)) : 0.0);
            if (keeps)
                expect(next, all[i].at, x->value[all[i].at] - say, 0.0);
        }
    }
}

static void topk_case(trial *t)
{
    topk_with(t, 41, 0, 0);
}
static void topk_kept_case(trial *t)
{
    topk_with(t, 100, 1, 0);
}
static void topk_most_kept_case(trial *t)
{
    topk_with(t, 3000, 1, 0);
}
static void topk_one_case(trial *t)
{
    topk_with(t, 1, 0, 1);
}
static void topk_most_case(trial *t)
{
    topk_with(t, 3000, 0, 0);
}
static void topk_all_case(trial *t)
{
    topk_with(t, COMPRESS_CHUNK, 0, 0);
}

/* What the exact choice gives, of those that reach the threshold of a sample. In every third chunk all are equal but
 * one, so that far more than asked for reach it. */
static void sampled_with(trial *t, int keep, int stride, int keeps)
{
    const int64_t n = elements(t);
    operand *kept = keeps ? give(t, "kept", FLOAT, n, 1.0) : NULL, *next = keeps ? take(t, "next", FLOAT, n) : NULL;
    const kernel_holding h = { NULL, operand_buffer(kept), operand_buffer(next) };
    operand *random = give_random(t, STEP), *x = give(t, "x", FLOAT, n, 1.0);
    operand *code = scratch(t, 4 * (uint64_t)kernel_topk_words(n, keep)), *y = take(t, "y", FLOAT, n);
    append(t, kernel_topk_encode_sampled(t->list, t->k, n, keep, stride, random->buffer, &h, x->buffer, code->buffer));
    append(t, kernel_topk_decode(t->list, t->k, n, keep, 0, code->buffer, y->buffer));
    for (int64_t i = 0; !t->status && i < n; i++)
        if (i / COMPRESS_CHUNK % 3 == 1)
            x->value[i] = x->want[i] = i % COMPRESS_CHUNK == 5 ? 2.0 : i % 2 ? 0.5 : -0.5;
    for (int64_t i = 0; !t->status && keeps && i < n; i++)
        kept->value[i] = kept->want[i] = 0.0; /* what is fed is looked at in other cases */
    ranked all[COMPRESS_CHUNK], sample[COMPRESS_CHUNK];
    for (int64_t c = 0; !t->status && c < n; c += COMPRESS_CHUNK) {
        const int len = (int)(n - c < COMPRESS_CHUNK ? n - c : COMPRESS_CHUNK), want = keep < len ? keep : len;
        int looked = 0;
        for (int i = (int)((STEP + c / COMPRESS_CHUNK) % (stride < len ? stride : len)); i < len; i += stride)
            sample[looked++] = (ranked){ fabs(x->value[c + i]), i };
        qsort(sample, (size_t)looked, sizeof *sample, larger_first);
        const int rank = (want * looked + len / 2) / len;
        const double reach = sample[rank ? rank - 1 : 0].size;
        for (int i = 0; i < len; i++)
            all[i] = (ranked){ fabs(x->value[c + i]), c + i };
        qsort(all, (size_t)len, sizeof *all, larger_first);
        for (int i = 0; i < len; i++) {
            const double value = x->value[all[i].at], say = i < want && all[i].size >= reach ? value : 0.0;
            expect(y, all[i].at, say, 0.0);
            if (keeps)
                expect(next, all[i].at, value - say, 0.0);
        }
    }
}

static void sampled_case(trial *t)
{
    sampled_with(t, 41, 10, 0);
}
static void sampled_one_case(trial *t)
{
    sampled_with(t, 1, 100, 1);
}
static void sampled_most_case(trial *t)
{
    sampled_with(t, 3000, 33, 1);
}

static void sampled_encode_case(trial *t)
{
    operand *random = give_random(t, STEP), *x = give(t, "x", FLOAT, elements(t), 1.0);
    operand *code = scratch(t, 4 * (uint64_t)kernel_topk_words(elements(t), 41));
    append(t, kernel_topk_encode_sampled(t->list, t->k, elements(t), 41, 20, random->buffer, NULL, x->buffer,
                                         code->buffer));
}

static void topk_encode_case(trial *t)
{
    operand *x = give(t, "x", FLOAT, elements(t), 1.0);
    operand *code = scratch(t, 4 * (uint64_t)kernel_topk_words(elements(t), 41));
    append(t, kernel_topk_encode(t->list, t->k, elements(t), 41, NULL, x->buffer, code->buffer));
}

static void topk_encode_held_case(trial *t)
{
    const int64_t n = elements(t);
    operand *kept = give(t, "kept", FLOAT, n, 1.0), *next = take(t, "next", FLOAT, n), *x = give(t, "x", FLOAT, n, 1.0);
    operand *code = scratch(t, 4 * (uint64_t)kernel_topk_words(n, 41));
    const kernel_holding h = { NULL, operand_buffer(kept), operand_buffer(next) };
    append(t, kernel_topk_encode(t->list, t->k, n, 41, &h, x->buffer, code->buffer));
    for (int64_t i = 0; !t->status && i < n; i++) /* all of it or none, which other cases say */
        expect(next, i, 0.5 * (x->value[i] + kept->value[i]), 0.51 * fabs(x->value[i] + kept->value[i]) + U);
}

static const kernel_case cases[] = {
    { "top-k and back", topk_case, 0, 0 },
    { "top-1 and back, added", topk_one_case, 0, 0 },
    { "top-k of most and back", topk_most_case, 0, 0 },
    { "top-k of all and back", topk_all_case, 0, 0 },
    { "top-k and back, with what was left out", topk_kept_case, 0, 0 },
    { "top-k of most and back, with what was left out", topk_most_kept_case, 0, 0 },
    { "top-k encoded", topk_encode_case, 8192, 4096 },
    { "top-k encoded and held back", topk_encode_held_case, 8192, 4096 },
    { "top-k by a sample", sampled_case, 0, 0 },
    { "top-1 by a sample", sampled_one_case, 0, 0 },
    { "top-k of most by a sample", sampled_most_case, 0, 0 },
    { "top-k by a sample, encoded", sampled_encode_case, 8192, 4096 },
    { 0 },
};

const kernel_family kernel_topk_family = {
    .program = { .file = "topk.cl", .variants = dev_plain_for_all },
    .cases = cases,
};
