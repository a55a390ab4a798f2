/* SPDX-License-Identifier: MIT */
/* host/kernel/kernel_compress.c - launches of cl/compress.cl, and their cases: gradients in fewer bytes.
 *
 *     x ─ encode ─► code ─ decode ─► y          cases look at y, since code is whatever the two agree on
 *
 * Random bits are those of host/base/random.h, so what stochastic rounding gives is known to the bit but where
 * the device's last bit of x / scale decides.                                             */
#include "host/kernel/kernel_cases_private.h"
#include "host/kernel/kernel_private.h"

#include <string.h>

static const kernel_holding nothing;

enum { SHARERS = 8 };           /* work-items of a GPU that share a block, as in cl/compress.cl */

gt_status kernel_compress_begin(dev_list *l, kernel_set *k, dev_buffer *state, dev_buffer *random, dev_buffer *frame,
                                kernel_slot *pending_at, kernel_slot *step_at, kernel_slot *weigh_at)
{
    dev_arg args[] = { dev_arg_i32(0),        dev_arg_u32(0),         dev_arg_f32(1.0f),
                       dev_arg_buffer(state), dev_arg_buffer(random), dev_arg_buffer(frame) };
    gt_status st = kernel_launch_groups(l, k, &kernel_compress_family, "compress_begin", 1, args, KERNEL_ARGS(args));
    if (!st) {
        kernel_slot_last(pending_at, l, 0);
        kernel_slot_last(step_at, l, 1);
        kernel_slot_last(weigh_at, l, 2);
    }
    return st;
}

gt_status kernel_compress_clip(dev_list *l, kernel_set *k, float limit, dev_buffer *squares, dev_buffer *state,
                               dev_buffer *frame, kernel_slot *weigh_at)
{
    dev_arg args[] = { dev_arg_f32(limit), dev_arg_f32(1.0f), dev_arg_buffer(squares), dev_arg_buffer(state),
                       dev_arg_buffer(frame) };
    gt_status st = kernel_launch_groups(l, k, &kernel_compress_family, "compress_clip", 1, args, KERNEL_ARGS(args));
    if (!st)
        kernel_slot_last(weigh_at, l, 1);
    return st;
}

gt_status kernel_compress_shrink(dev_list *l, kernel_set *k, int64_t n, dev_buffer *frame, dev_buffer *grad)
{
    dev_arg args[] = { [2] = dev_arg_buffer(frame), dev_arg_buffer(grad) };
    return kernel_launch_flat(l, k, &kernel_compress_family, 0, "compress_shrink", n, args, KERNEL_ARGS(args));
}

gt_status kernel_compress_commit(dev_list *l, kernel_set *k, int64_t n, dev_buffer *frame, dev_buffer *next,
                                 dev_buffer *kept)
{
    dev_arg args[] = { [2] = dev_arg_buffer(frame), dev_arg_buffer(next), dev_arg_buffer(kept) };
    return kernel_launch_flat(l, k, &kernel_compress_family, 0, "compress_commit", n, args, KERNEL_ARGS(args));
}

gt_status kernel_compress_feed(dev_list *l, kernel_set *k, int64_t n, dev_buffer *frame, dev_buffer *kept,
                               dev_buffer *grad)
{
    dev_arg args[] = { [2] = dev_arg_buffer(frame), dev_arg_buffer(kept), dev_arg_buffer(grad) };
    return kernel_launch_flat(l, k, &kernel_compress_family, 0, "compress_feed", n, args, KERNEL_ARGS(args));
}

gt_status kernel_compress_velocity(dev_list *l, kernel_set *k, int64_t n, dev_buffer *frame, float momentum,
                                   dev_buffer *kept, dev_buffer *velocity, dev_buffer *moved, dev_buffer *grad)
{
    dev_arg args[] = { [2] = dev_arg_buffer(frame), dev_arg_f32(momentum), dev_arg_buffer(kept),
                       dev_arg_buffer(velocity),    dev_arg_buffer(moved), dev_arg_buffer(grad) };
    return kernel_launch_flat(l, k, &kernel_compress_family, 0, "compress_feed_velocity", n, args, KERNEL_ARGS(args));
}

gt_status kernel_compress_moment(dev_list *l, kernel_set *k, int64_t n, dev_buffer *frame, double beta1, int ranks,
                                 dev_buffer *kept, dev_buffer *moment, dev_buffer *grad, kernel_slot *share_at,
                                 kernel_slot *rest_at)
{
    dev_arg args[] = { [2] = dev_arg_buffer(frame),
                       dev_arg_f32((float)(beta1 / ranks)),
                       dev_arg_f32((float)(1.0 - beta1)),
                       dev_arg_buffer(kept),
                       dev_arg_buffer(moment),
                       dev_arg_buffer(grad) };
    gt_status st = kernel_launch_flat(l, k, &kernel_compress_family, 0, "compress_feed_moment", n, args,
                                      KERNEL_ARGS(args));
    if (!st) {
        kernel_slot_last(share_at, l, 3);
        kernel_slot_last(rest_at, l, 4);
    }
    return st;
}

gt_status kernel_compress_left(dev_list *l, kernel_set *k, int64_t n, dev_buffer *frame, dev_buffer *grad,
                               dev_buffer *said, dev_buffer *moved)
{
    dev_arg args[] = { [2] = dev_arg_buffer(frame), dev_arg_buffer(grad), dev_arg_buffer(said), dev_arg_buffer(moved) };
    return kernel_launch_flat(l, k, &kernel_compress_family, 0, "compress_left", n, args, KERNEL_ARGS(args));
}

gt_status kernel_compress_cut(dev_list *l, kernel_set *k, int64_t n, float most, dev_buffer *from, dev_buffer *to)
{
    dev_arg args[] = { [2] = dev_arg_f32(most), dev_arg_buffer(from), dev_arg_buffer(to) };
    return kernel_launch_flat(l, k, &kernel_compress_family, 0, "compress_cut", n, args, KERNEL_ARGS(args));
}

gt_status kernel_compress_store(dev_list *l, kernel_set *k, int64_t n, float most, dev_buffer *frame, dev_buffer *kept,
                                dev_buffer *from, dev_buffer *to, dev_buffer *next)
{
    dev_arg args[] = { [2] = dev_arg_f32(most), dev_arg_buffer(frame), dev_arg_buffer(kept),
                       dev_arg_buffer(from),    dev_arg_buffer(to),    dev_arg_buffer(next) };
    return kernel_launch_flat(l, k, &kernel_compress_family, 0, "compress_store", n, args, KERNEL_ARGS(args));
}

int64_t kernel_int8_words(int64_t n)
{
    return kernel_pieces(n, COMPRESS_BLOCK) * (COMPRESS_BLOCK / 4 + 1);
}

gt_status kernel_int8_encode(dev_list *l, kernel_set *k, int64_t n, uint32_t stream, dev_buffer *random,
                             const kernel_holding *h, dev_buffer *x, dev_buffer *code)
{
    const int64_t blocks = kernel_pieces(n, COMPRESS_BLOCK);
    gt_status st = kernel_fits("blocks of gradients", blocks);
    if (!st && !k->cpu && k->group < SHARERS)
        st = gt_fail(GT_UNSUPPORTED,
                     "cannot encode gradients in int8: '%s' has work-groups of %zu work-items, and %d "
                     "share a block",
                     k->info->name, k->group, SHARERS);
    if (st)
        return st;
    h = h ? h : &nothing;
    dev_arg args[] = { dev_arg_i32(1),          dev_arg_u64((uint64_t)n), dev_arg_u32((uint32_t)blocks),
                       dev_arg_u32(stream),     dev_arg_buffer(random),   dev_arg_buffer(h->frame),
                       dev_arg_buffer(h->kept), dev_arg_buffer(x),        dev_arg_buffer(code),
                       dev_arg_buffer(h->next) };
    if (k->cpu)
        return kernel_launch_rows(l, k, &kernel_compress_family, "int8_encode", (int)blocks, COMPRESS_BLOCK, args,
                                  KERNEL_ARGS(args));
    return kernel_launch_groups(l, k, &kernel_compress_family, "int8_encode",
                                (size_t)kernel_pieces(blocks, (int64_t)k->group / SHARERS), args, KERNEL_ARGS(args));
}

gt_status kernel_int8_decode(dev_list *l, kernel_set *k, int64_t n, int add, dev_buffer *code, dev_buffer *other,
                             dev_buffer *to)
{
    dev_arg args[] = { [2] = dev_arg_u32((uint32_t)kernel_pieces(n, COMPRESS_BLOCK)),
                       dev_arg_i32(add),
                       dev_arg_buffer(code),
                       dev_arg_buffer(other),
                       dev_arg_buffer(to) };
    return kernel_launch_flat(l, k, &kernel_compress_family, 0, "int8_decode", n, args, KERNEL_ARGS(args));
}

int64_t kernel_sign_words(int64_t n)
{
    return kernel_pieces(n, COMPRESS_CHUNK) + kernel_pieces(n, 32);
}

gt_status kernel_sign_encode(dev_list *l, kernel_set *k, int64_t n, dev_buffer *x, dev_buffer *code)
{
    const int64_t chunks = kernel_pieces(n, COMPRESS_CHUNK);
    gt_status st = kernel_fits("chunks of gradients", chunks);
    dev_arg args[] = { dev_arg_i32(1), dev_arg_u64((uint64_t)n), dev_arg_u32((uint32_t)chunks), dev_arg_buffer(x),
                       dev_arg_buffer(code) };
    return st ? st
              : kernel_launch_rows(l, k, &kernel_compress_family, "sign_encode", (int)chunks, COMPRESS_CHUNK, args,
                                   KERNEL_ARGS(args));
}

gt_status kernel_sign_decode(dev_list *l, kernel_set *k, int64_t n, int add, dev_buffer *code, dev_buffer *to)
{
    dev_arg args[] = { [2] = dev_arg_u32((uint32_t)kernel_pieces(n, COMPRESS_CHUNK)),
                       dev_arg_i32(add),
                       dev_arg_buffer(code),
                       dev_arg_buffer(to) };
    return kernel_launch_flat(l, k, &kernel_compress_family, 0, "sign_decode", n, args, KERNEL_ARGS(args));
}

int64_t kernel_randomk_words(int64_t n, uint32_t group)
{
    return kernel_pieces(n, group);
}

gt_status kernel_randomk_encode(dev_list *l, kernel_set *k, int64_t n, uint32_t group, uint32_t stream,
                                dev_buffer *random, dev_buffer *x, dev_buffer *code)
{
    dev_arg args[] = { [2] = dev_arg_u64((uint64_t)n), dev_arg_u32(group), dev_arg_u32(stream),
                       dev_arg_buffer(random),         dev_arg_buffer(x),  dev_arg_buffer(code) };
    return kernel_launch_flat(l, k, &kernel_compress_family, 0, "randomk_encode", kernel_pieces(n, group), args,
                              KERNEL_ARGS(args));
}

gt_status kernel_randomk_decode(dev_list *l, kernel_set *k, int64_t n, uint32_t group, uint32_t stream,
                                dev_buffer *random, dev_buffer *code, dev_buffer *to)
{
    dev_arg args[] = { [2] = dev_arg_u64((uint64_t)n), dev_arg_u32(group),   dev_arg_u32(stream),
                       dev_arg_buffer(random),         dev_arg_buffer(code), dev_arg_buffer(to) };
    gt_status st = dev_list_fill(l, to, 0, 0, 4 * (uint64_t)n);
    return st ? st
              : kernel_launch_flat(l, k, &kernel_compress_family, 0, "randomk_decode", kernel_pieces(n, group), args,
                                   KERNEL_ARGS(args));
}

/* ---- cases ------------------------------------------------------------------------------------- */

enum { STEP = 7, STREAM = 3 };

/* Word i of the stream. */
static uint32_t word_of(const operand *random, uint32_t stream, uint64_t i)
{
    uint32_t four[4];
    const uint64_t quad = i / 4;
    gt_philox(four, (uint32_t)random->whole[0] | (uint64_t)(uint32_t)random->whole[1] << 32,
              (quad & 0xffffffffu) | (uint64_t)stream << 32, (uint32_t)random->whole[2] | quad >> 32 << 32);
    return four[i % 4];
}

static void begin_with(trial *t, int pending, int skip)
{
    operand *state = give_state(t, 3, 1.0, 0.9, 0.99), *frame = give_frame(t, 0.0f, 0.0f),
            *random = give_random(t, STEP);
    kernel_slot pending_at, step_at, weigh_at;
    append(t, kernel_compress_begin(t->list, t->k, state->buffer, random->buffer, frame->buffer, &pending_at, &step_at,
                                    &weigh_at));
    set_slot(t, weigh_at, dev_arg_f32(skip ? 0.0f : 0.75f));
    set_slot(t, pending_at, dev_arg_i32(pending));
    set_slot(t, step_at, dev_arg_u32(STEP));            /* where it stands already: what is given is looked at */
    if (t->status)
        return;
    state->value[OPTIM_LOSS_SCALE] = state->want[OPTIM_LOSS_SCALE] = 1024.0;
    state->value[OPTIM_SKIP] = state->want[OPTIM_SKIP] = skip;
    frame->value[COMPRESS_HELD] = 4096.0;
    frame->value[COMPRESS_TRIED] = 512.0;
    const int take = pending && !skip;
    expect(frame, COMPRESS_TAKE, take, 0.0);
    expect(frame, COMPRESS_HELD, take ? 512.0 : 4096.0, 0.0);
    expect(frame, COMPRESS_RATIO, take ? 2.0 : 0.25, 0.0);
    expect(frame, COMPRESS_TRIED, 1024.0, 0.0);
    expect(frame, COMPRESS_WEIGH, skip ? 1.0 : 0.75, 0.0);
}

static void begin_case(trial *t)
{
    begin_with(t, 1, 0);
}
static void begin_skipped_case(trial *t)
{
    begin_with(t, 1, 1);
}
static void begin_idle_case(trial *t)
{
    begin_with(t, 0, 0);
}

/* Squares that add up to 9, at a loss scale of 4 and with a weight of 2: a norm of 1.5. */
static void clip_with(trial *t, float limit, double want)
{
    const int64_t n = elements(t);
    operand *state = give_state(t, 3, 1.0, 0.9, 0.99), *frame = give_frame(t, 0.0f, 0.0f);
    operand *squares = give(t, "squares", FLOAT, 1, 1.0), *grad = give(t, "grad", FLOAT, n, 1.0);
    kernel_slot weigh_at;
    append(t, kernel_compress_clip(t->list, t->k, limit, squares->buffer, state->buffer, frame->buffer, &weigh_at));
    set_slot(t, weigh_at, dev_arg_f32(2.0f));
    append(t, kernel_compress_shrink(t->list, t->k, n, frame->buffer, grad->buffer));
    if (t->status)
        return;
    state->value[OPTIM_LOSS_SCALE] = state->want[OPTIM_LOSS_SCALE] = 4.0;
    squares->value[0] = squares->want[0] = 9.0;
    expect(frame, COMPRESS_SHRINK, want, 2.0 * U);
    for (int64_t i = 0; i < n; i++)
        expect(grad, i, grad->value[i] * want, 4.0 * U * fabs(grad->value[i]));
}

static void clip_case(trial *t)
{
    clip_with(t, 0.5f, 1.0 / 3.0);
}
static void clip_not_case(trial *t)
{
    clip_with(t, 1.75f, 1.0);
}

static void commit_with(trial *t, int take)
{
    const int64_t n = elements(t);
    operand *frame = give_frame(t, (float)take, 1.0f), *next = give(t, "next", FLOAT, n, 1.0);
    operand *kept = give(t, "kept", FLOAT, n, 1.0);
    append(t, kernel_compress_commit(t->list, t->k, n, frame->buffer, next->buffer, kept->buffer));
    for (int64_t i = 0; !t->status && i < n; i++)
        expect(kept, i, take ? next->value[i] : kept->value[i], 0.0);
}

static void commit_case(trial *t)
{
    commit_with(t, 1);
}
static void commit_not_case(trial *t)
{
    commit_with(t, 0);
}

static void feed_case(trial *t)
{
    const int64_t n = elements(t);
    operand *frame = give_frame(t, 1.0f, 0.5f), *kept = give(t, "kept", FLOAT, n, 1.0);
    operand *grad = give(t, "grad", FLOAT, n, 1.0);
    append(t, kernel_compress_feed(t->list, t->k, n, frame->buffer, kept->buffer, grad->buffer));
    for (int64_t i = 0; !t->status && i < n; i++)
        expect(grad, i, grad->value[i] + 0.5 * kept->value[i], U * 2.0 * fabs(grad->value[i] + 0.5 * kept->value[i]));
}

static void velocity_case(trial *t)
{
    const int64_t n = elements(t);
    operand *frame = give_frame(t, 1.0f, 2.0f), *kept = give(t, "kept", FLOAT, n, 1.0);
    operand *velocity = give(t, "velocity", FLOAT, n, 1.0), *moved = take(t, "moved", FLOAT, n);
    operand *grad = give(t, "grad", FLOAT, n, 1.0);
    append(t, kernel_compress_velocity(t->list, t->k, n, frame->buffer, 0.75f, kept->buffer, velocity->buffer,
                                       moved->buffer, grad->buffer));
    for (int64_t i = 0; !t->status && i < n; i++) {
        const double v = grad->value[i] + 1.5 * velocity->value[i], x = v + 2.0 * kept->value[i];
        expect(moved, i, v, U * 4.0 * (fabs(v) + 1.0));
        expect(grad, i, x, U * 8.0 * (fabs(v) + fabs(x) + 1.0));
    }
}

static void moment_case(trial *t)
{
    const int64_t n = elements(t);
    operand *frame = give_frame(t, 1.0f, 2.0f), *kept = give(t, "kept", FLOAT, n, 1.0);
    operand *moment = give(t, "moment", FLOAT, n, 1.0), *grad = give(t, "grad", FLOAT, n, 1.0);
    append(t, kernel_compress_moment(t->list, t->k, n, frame->buffer, 0.75, 3, kept->buffer, moment->buffer,
                                     grad->buffer, NULL, NULL));
    if (t->status)
        return;
    frame->value[COMPRESS_TRIED] = frame->want[COMPRESS_TRIED] = 8.0;
    frame->value[COMPRESS_WEIGH] = frame->want[COMPRESS_WEIGH] = 0.5;
    for (int64_t i = 0; i < n; i++) {
        const double old = 2.0 * (2.0 * kept->value[i] + 2.0 * moment->value[i]), new = 0.25 * grad->value[i];
        const double size = 4.0 * (fabs(kept->value[i]) + fabs(moment->value[i])) + fabs(new);
        expect(grad, i, old + new, U * 8.0 * size);
    }
}

static void left_with(trial *t, int weighs)
{
    const int64_t n = elements(t);
    const double weigh = weighs ? 0.375 : 1.0;
    operand *frame = weighs ? give_frame(t, 1.0f, 1.0f) : NULL;
    operand *grad = give(t, "grad", FLOAT, n, 1.0), *said = give(t, "said", FLOAT, n, 1.0);
    operand *moved = give(t, "moved", FLOAT, n, 1.0);
    append(t, kernel_compress_left(t->list, t->k, n, frame ? frame->buffer : NULL, grad->buffer, said->buffer,
                                   moved->buffer));
    if (!t->status && frame)
        frame->value[COMPRESS_WEIGH] = frame->want[COMPRESS_WEIGH] = weigh;
    for (int64_t i = 0; !t->status && i < n; i++) {
        if (i % 3)
            said->value[i] = 0.0;
        expect(said, i, weigh * (grad->value[i] - said->value[i]), U * 4.0 * fabs(grad->value[i] - said->value[i]));
        expect(moved, i, said->value[i] != 0.0 ? 0.0 : moved->value[i], 0.0);
    }
}

static void left_case(trial *t)
{
    left_with(t, 0);
}
static void left_moment_case(trial *t)
{
    left_with(t, 1);
}

static void cut_case(trial *t)
{
    const int64_t n = elements(t);
    operand *from = give(t, "from", FLOAT, n, 1.0), *to = take(t, "to", STORED, n);
    append(t, kernel_compress_cut(t->list, t->k, n, 0.75f, from->buffer, to->buffer));
    for (int64_t i = 0; !t->status && i < n; i++)
        expect(to, i, fmin(fmax(from->value[i], -0.75), 0.75), 0.0);
}

static void store_case(trial *t)
{
    const int64_t n = elements(t);
    const double most = 1.25;
    operand *frame = give_frame(t, 1.0f, 2.0f), *kept = give(t, "kept", FLOAT, n, 1.0);
    operand *from = give(t, "from", FLOAT, n, 1.0), *to = take(t, "to", STORED, n), *next = take(t, "next", FLOAT, n);
    append(t, kernel_compress_store(t->list, t->k, n, (float)most, frame->buffer, kept->buffer, from->buffer,
                                    to->buffer, next->buffer));
    for (int64_t i = 0; !t->status && i < n; i++) {
        const float x = (float)from->value[i] + 2.0f * (float)kept->value[i], cut = fminf(fmaxf(x, -1.25f), 1.25f);
        unsigned char stored[4];
        dtype_store(kernel_set_storage(t->k), stored, 0, cut);
        const double said = (double)dtype_load(kernel_set_storage(t->k), stored, 0);
        expect(to, i, said, 0.0);
        expect(next, i, (double)x - said, 0.0);
    }
}

/* What stochastic rounding draws for value i, of 256 of an integer's steps: a block has eight quads, which give words
 * 32 values apart to its values, four to a word. */
static uint32_t byte_of(const operand *random, uint32_t stream, int64_t i)
{
    const int64_t in = i % COMPRESS_BLOCK, quad = i / COMPRESS_BLOCK * (COMPRESS_BLOCK / 16) + in % 32 / 4;
    return word_of(random, stream, (uint64_t)(4 * quad + in / 32)) >> 8 * (in % 4) & 0xffu;
}

/* What value i of a block with this scale becomes; *doubtful where the device's last bit decides. */
static double int8_of(const operand *random, double fed, double scale, int64_t i, int *doubtful)
{
    const double in = scale > 0.0 ? 256.0 * fed / scale : 0.0;
    *doubtful = scale > 0.0 && fabs(in - floor(in) - 0.5) < 0.01;
    return scale * floor((rint(in) + (double)byte_of(random, STREAM, i)) / 256.0);
}

/* x, and what was kept where `keeps`, encoded; decoded with another encoding, of z, where there is one; add: to what is
 * there, as the encodings of other ranks are. */
static void int8_with(trial *t, int keeps, int others, int add)
{
    const int64_t n = elements(t);
    const double ratio = 0.5;
    operand *random = give_random(t, STEP), *x = give(t, "x", FLOAT, n, 1.0),
            *z = others ? give(t, "z", FLOAT, n, 1.0) : NULL;
    operand *frame = keeps ? give_frame(t, 1.0f, (float)ratio) : NULL;
    operand *kept = keeps ? give(t, "kept", FLOAT, n, 1.0) : NULL, *next = keeps ? take(t, "next", FLOAT, n) : NULL;
    operand *code = scratch(t, 4 * (uint64_t)kernel_int8_words(n));
    operand *other = others ? scratch(t, 4 * (uint64_t)kernel_int8_words(n)) : NULL;
    operand *y = add ? give(t, "y", FLOAT, n, 1.0) : take(t, "y", FLOAT, n);
    const kernel_holding h = { operand_buffer(frame), operand_buffer(kept), operand_buffer(next) };
    append(t, kernel_int8_encode(t->list, t->k, n, STREAM, random->buffer, &h, x->buffer, code->buffer));
    if (others)
        append(t, kernel_int8_encode(t->list, t->k, n, STREAM, random->buffer, NULL, z->buffer, other->buffer));
    append(t, kernel_int8_decode(t->list, t->k, n, add, code->buffer, others ? other->buffer : NULL, y->buffer));
    for (int64_t b = 0; !t->status && b < n; b += COMPRESS_BLOCK) {
        const int64_t end = b + COMPRESS_BLOCK < n ? b + COMPRESS_BLOCK : n;
        const int empty = b / COMPRESS_BLOCK % 5 == 4;
        double most = 0.0, most_z = 0.0;
        for (int64_t i = b; i < end; i++) {
            if (empty)
                x->value[i] = x->want[i] = 0.0;
            if (empty && keeps)
                kept->value[i] = kept->want[i] = 0.0;
            most = fmax(most, fabs(x->value[i] + (keeps ? ratio * kept->value[i] : 0.0)));
            most_z = fmax(most_z, others ? fabs(z->value[i]) : 0.0);
        }
        for (int64_t i = b; i < end; i++) {
            int doubtful, doubtful_z = 0;
            const double fed = x->value[i] + (keeps ? ratio * kept->value[i] : 0.0), was = add ? y->value[i] : 0.0;
            const double q = int8_of(random, fed, most / 127.0, i, &doubtful);
            const double q_z = others ? int8_of(random, z->value[i], most_z / 127.0, i, &doubtful_z) : 0.0;
            const double doubt = (doubtful ? most : 0.0) / 127.0, doubt_z = (doubtful_z ? most_z : 0.0) / 127.0;
            expect(y, i, was + q + q_z, U * 8.0 * (most + most_z + fabs(was)) + doubt + doubt_z);
            if (keeps)
                expect(next, i, fed - q, U * 8.0 * most + doubt);
        }
    }
}

static void int8_case(trial *t)
{
    int8_with(t, 0, 0, 0);
}
static void int8_add_case(trial *t)
{
    int8_with(t, 0, 0, 1);
}
static void int8_kept_case(trial *t)
{
    int8_with(t, 1, 0, 0);
}
static void int8_two_case(trial *t)
{
    int8_with(t, 0, 1, 0);
}
static void int8_two_add_case(trial *t)
{
    int8_with(t, 0, 1, 1);
}

static void int8_encode_case(trial *t)
{
    operand *random = give_random(t, STEP), *x = give(t, "x", FLOAT, elements(t), 1.0);
    operand *code = scratch(t, 4 * (uint64_t)kernel_int8_words(elements(t)));
    append(t, kernel_int8_encode(t->list, t->k, elements(t), STREAM, random->buffer, NULL, x->buffer, code->buffer));
}

static void int8_encode_held_case(trial *t)
{
    const int64_t n = elements(t);
    operand *random = give_random(t, STEP), *kept = give(t, "kept", FLOAT, n, 1.0), *next = take(t, "next", FLOAT, n);
    operand *x = give(t, "x", FLOAT, n, 1.0), *code = scratch(t, 4 * (uint64_t)kernel_int8_words(n));
    const kernel_holding h = { NULL, operand_buffer(kept), operand_buffer(next) };
    append(t, kernel_int8_encode(t->list, t->k, n, STREAM, random->buffer, &h, x->buffer, code->buffer));
    for (int64_t i = 0; !t->status && i < n; i++) /* a step of integers; more is said by other cases */
        expect(next, i, 0.0, 10.0 / 127.0);
}

/* What the words of an encoding say of value i. */
static double said_of(const operand *code, int64_t n, int64_t i)
{
    const float word = (float)code->value[i / 4];
    int8_t bytes[4];
    memcpy(bytes, &word, sizeof bytes);
    return bytes[i % 4] * code->value[kernel_pieces(n, COMPRESS_BLOCK) * (COMPRESS_BLOCK / 4) + i / COMPRESS_BLOCK];
}

/* Of any words. */
static void int8_decode_case(trial *t)
{
    const int64_t n = elements(t), words = kernel_int8_words(n);
    operand *code = give(t, "code", FLOAT, words, 1.0), *other = give(t, "other", FLOAT, words, 1.0);
    operand *y = take(t, "y", FLOAT, n);
    append(t, kernel_int8_decode(t->list, t->k, n, 0, code->buffer, other->buffer, y->buffer));
    for (int64_t i = 0; !t->status && i < n; i++) {
        const double a = said_of(code, n, i), b = said_of(other, n, i);
        expect(y, i, a + b, 4.0 * U * (fabs(a) + fabs(b)));
    }
}

static void sign_with(trial *t, int add)
{
    const int64_t n = elements(t);
    operand *x = give(t, "x", FLOAT, n, 1.0), *code = scratch(t, 4 * (uint64_t)kernel_sign_words(n));
    operand *y = add ? give(t, "y", FLOAT, n, 1.0) : take(t, "y", FLOAT, n);
    append(t, kernel_sign_encode(t->list, t->k, n, x->buffer, code->buffer));
    append(t, kernel_sign_decode(t->list, t->k, n, add, code->buffer, y->buffer));
    for (int64_t c = 0; !t->status && c < n; c += COMPRESS_CHUNK) {
        const int64_t end = c + COMPRESS_CHUNK < n ? c + COMPRESS_CHUNK : n;
        double sum = 0.0;
        for (int64_t i = c; i < end; i++)
            sum += fabs(x->value[i]);
        const double scale = sum / (double)(end - c);
        for (int64_t i = c; i < end; i++) {
            const double was = add ? y->value[i] : 0.0;
            expect(y, i, was + copysign(scale, x->value[i]), U * (ROUNDINGS(end - c) + 2.0) * (scale + fabs(was)));
        }
    }
}

static void sign_case(trial *t)
{
    sign_with(t, 0);
}
static void sign_add_case(trial *t)
{
    sign_with(t, 1);
}

static void sign_encode_case(trial *t)
{
    operand *x = give(t, "x", FLOAT, elements(t), 1.0);
    operand *code = scratch(t, 4 * (uint64_t)kernel_sign_words(elements(t)));
    append(t, kernel_sign_encode(t->list, t->k, elements(t), x->buffer, code->buffer));
}

static void randomk_with(trial *t, uint32_t group)
{
    const int64_t n = elements(t);
    operand *random = give_random(t, STEP), *x = give(t, "x", FLOAT, n, 1.0), *y = take(t, "y", FLOAT, n);
    operand *code = scratch(t, 4 * (uint64_t)kernel_randomk_words(n, group));
    append(t, kernel_randomk_encode(t->list, t->k, n, group, STREAM, random->buffer, x->buffer, code->buffer));
    append(t, kernel_randomk_decode(t->list, t->k, n, group, STREAM, random->buffer, code->buffer, y->buffer));
    for (int64_t i = 0; !t->status && i < n; i++) {
        const uint64_t in = (uint64_t)i / group;
        const uint64_t at = in * group + ((uint64_t)word_of(random, STREAM, in) * group >> 32);
        expect(y, i, (uint64_t)i == at ? x->value[i] : 0.0, 0.0);
    }
}

static void randomk_case(trial *t)
{
    randomk_with(t, 10);
}
static void randomk_all_case(trial *t)
{
    randomk_with(t, 1);
}

static const kernel_case cases[] = {
    { "compression begins a step", begin_case, 0, 0 },
    { "compression begins behind a skipped step", begin_skipped_case, 0, 0 },
    { "compression begins behind no step", begin_idle_case, 0, 0 },
    { "a replica's gradients clipped", clip_case, 0, 0 },
    { "a replica's gradients that need no clipping", clip_not_case, 0, 0 },
    { "what is left out is kept", commit_case, 0, 0 },
    { "what is left out of a skipped step is not", commit_not_case, 0, 0 },
    { "what was left out is fed", feed_case, 8192, 4096 },
    { "what was left out is fed with momentum", velocity_case, 0, 0 },
    { "a share of new first moments", moment_case, 8192, 4096 },
    { "what is left out", left_case, 8192, 4096 },
    { "what is left out of moments", left_moment_case, 0, 0 },
    { "values cut and stored", cut_case, 8192, 4096 },
    { "values cut, stored and held back", store_case, 8192, 4096 },
    { "int8 and back", int8_case, 0, 0 },
    { "int8 and back, added", int8_add_case, 0, 0 },
    { "int8 and back, with what was left out", int8_kept_case, 0, 0 },
    { "two of int8 and back", int8_two_case, 0, 0 },
    { "two of int8 and back, added", int8_two_add_case, 0, 0 },
    { "int8 encoded", int8_encode_case, 8192, 4096 },
    { "int8 encoded and held back", int8_encode_held_case, 8192, 4096 },
    { "two of int8 decoded", int8_decode_case, 8192, 4096 },
    { "signs and back", sign_case, 0, 0 },
    { "signs and back, added", sign_add_case, 0, 0 },
    { "signs encoded", sign_encode_case, 8192, 4096 },
    { "random-k and back", randomk_case, 0, 0 },
    { "random-k of all and back", randomk_all_case, 0, 0 },
    { 0 },
};

const kernel_family kernel_compress_family = {
    .program = { .file = "compress.cl", .stored = 1, .variants = dev_plain_for_all },
    .cases = cases,
};
