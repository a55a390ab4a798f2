/* SPDX-License-Identifier: MIT */
/* net/collective/algorithm_exchange.c - every rank reads what all have, and adds in the order of ranks.
 *
 *            post      wait, read, add                 two ranks, or little: each adds all of it
 *   rank 0   x0  ──►   x0 + x1 + x2 + x3
 *   rank 1   x1  ──►   x0 + x1 + x2 + x3
 *
 *            post      add its part     post           more: each adds its part, and reads the others'
 *   rank 0   x0  ──►   s0 = x0[0] + x1[0] + ...  ──►   s0 s1 s2 s3
 *   rank 1   x1  ──►   s1 = x0[1] + x1[1] + ...  ──►   s0 s1 s2 s3
 *
 * On the board of ranks that share memory a post is one store that others see, so the first takes as
 * long as a line of memory needs from core to core. What is longer than a post goes in pieces.
 * Long vectors are summed by messages, and all of them without a board, with the same bits: which of the two ways is
 * gone makes no difference. Over shared memory such messages are lent where they lie, so every element is read from
 * the other ranks' vectors and nothing is copied but sums. What only copies goes the usual ways then.   */
#include "net/collective/algorithm.h"
#include "net/collective/reduce.h"
#include "net/comm/board.h"

#include <stdlib.h>
#include <string.h>

enum {
    WHOLE = 8 * 1024,               /* bytes of the other ranks together that each adds itself */
    BLOCK = 1024,                   /* elements added at once                                */
    PIECE = 4 << 20                 /* bytes that are summed by messages at a time, so that scratch stays small */
};

/* dst[i] = from[0][i] + from[1][i] + ..., dst may be one of them. 16-bit types are rounded once. */
static void add_in_order(const net_task *t, unsigned char *dst, const unsigned char *const *from, uint64_t count)
{
    _Alignas(64) unsigned char sum[BLOCK * sizeof(float)];
    const int wide = t->grain == 2;
    for (uint64_t at = 0; at < count; at += BLOCK) {
        const uint64_t n = count - at < BLOCK ? count - at : BLOCK;
        const size_t bytes = (size_t)n * t->grain, offset = (size_t)at * t->grain;
        for (int r = 0; r < t->size; r++) {
            const unsigned char *x = from[r] + offset;
            if (wide)
                (r ? net_widen_add : net_widen)((float *)(void *)sum, x, (size_t)n, t->type);
            else if (r)
                t->reduce(sum, x, bytes);
            else
                memcpy(sum, x, bytes);
        }
        if (wide)
            net_narrow(dst + offset, (const float *)(const void *)sum, (size_t)n, t->type);
        else
            memcpy(dst + offset, sum, bytes);
    }
}

/* Elements [*from, *from + *n) of `count` are rank i's to add; cut at cache lines. */
static void part_of(const net_task *t, uint64_t count, int i, uint64_t *from, uint64_t *n)
{
    const uint64_t line = 64 / t->grain, lines = (count + line - 1) / line;
    uint64_t first, some;
    net_part(lines, t->size, i, &first, &some);
    *from = first * line < count ? first * line : count;
    const uint64_t end = (first + some) * line < count ? (first + some) * line : count;
    *n = end - *from;
}

static int each_adds_all(const net_task *t, uint64_t count)
{
    return count * t->grain * (uint64_t)(t->size - 1) <= WHOLE;
}

/* Elements of part i from its at-th on, `most` at most. */
static uint64_t piece_of(const net_task *t, int i, uint64_t at, uint64_t most)
{
    const uint64_t size = t->begin[i + 1] - t->begin[i], left = size > at ? size - at : 0;
    return left < most ? left : most;
}

/* ---- on the board ---------------------------------------------------------------------- */

static gt_status wait_for_all(net_task *t, const unsigned char **posts)
{
    gt_status st = GT_OK;
    for (int m = 1; !st && m < t->size; m++) {
        const int peer = (t->rank + m) % t->size;
        st = net_board_wait(t->op, peer, &posts[peer]);
    }
    return st;
}

static gt_status board_whole(net_task *t, unsigned char *x, uint64_t count)
{
    const unsigned char *posts[NET_BOARD_RANKS];
    const size_t bytes = (size_t)count * t->grain;
    net_board_copy(t->op, net_board_room(t->op, bytes), x, bytes);
    net_board_post(t->op);
    gt_status st = wait_for_all(t, posts);
    if (st)
        return st;
    posts[t->rank] = x;
    if (t->size == 2)
        t->reduce(x, posts[1 - t->rank], bytes);
    else
        add_in_order(t, x, posts, count);
    return GT_OK;
}

static gt_status board_parts(net_task *t, unsigned char *x, uint64_t count)
{
    const unsigned char *posts[NET_BOARD_RANKS];
    uint64_t from, n;
    part_of(t, count, t->rank, &from, &n);
    const size_t bytes = (size_t)count * t->grain, own = (size_t)from * t->grain, size = (size_t)n * t->grain;
    unsigned char *room = net_board_room(t->op, bytes);
    net_board_copy(t->op, room, x, own);
    net_board_copy(t->op, room + own + size, x + own + size, bytes - own - size);
    net_board_post(t->op);
    gt_status st = wait_for_all(t, posts);
    if (st)
        return st;
    posts[t->rank] = x;
    for (int r = 0; r < t->size; r++)
        posts[r] += own;
    add_in_order(t, x + own, posts, n);
    net_board_copy(t->op, net_board_room(t->op, bytes) + own, x + own, size);
    net_board_post(t->op);
    for (int m = 1; !st && m < t->size; m++) {
        const int peer = (t->rank + m) % t->size;
        part_of(t, count, peer, &from, &n);
        st = net_board_wait(t->op, peer, &posts[peer]);
        if (!st)
            memcpy(x + from * t->grain, posts[peer] + from * t->grain, (size_t)n * t->grain);
    }
    return st;
}

/* Pieces of all parts at once, one after the other in a post; each rank adds those of its own part. */
static gt_status board_scatter(net_task *t)
{
    const unsigned char *posts[NET_BOARD_RANKS];
    const uint64_t most = NET_BOARD_MOST / 64 / (uint64_t)t->size * 64 / t->grain, largest = net_task_largest(t);
    gt_status st = GT_OK;
    for (uint64_t at = 0; !st && at < largest; at += most) {
        const size_t piece = (size_t)((largest - at < most ? largest - at : most) * t->grain + 63) / 64 * 64;
        unsigned char *room = net_board_room(t->op, piece * (size_t)t->size);
        for (int i = 0; i < t->size; i++)
            if (i != t->rank)
                net_board_copy(t->op, room + (size_t)i * piece, t->x + (t->begin[i] + at) * t->grain,
                               (size_t)piece_of(t, i, at, most) * t->grain);
        net_board_post(t->op);
        st = wait_for_all(t, posts);
        unsigned char *x = t->x + (t->begin[t->rank] + at) * t->grain;
        for (int i = 0; !st && i < t->size; i++)
            posts[i] = i == t->rank ? x : posts[i] + (size_t)t->rank * piece;
        if (!st)
            add_in_order(t, x, posts, piece_of(t, t->rank, at, most));
    }
    return st;
}

/* Everybody posts a piece of its own part, and takes those of the others. */
static gt_status board_gather(net_task *t)
{
    const unsigned char *post;
    const uint64_t most = NET_BOARD_MOST / t->grain, largest = net_task_largest(t);
    gt_status st = GT_OK;
    for (uint64_t at = 0; !st && at < largest; at += most) {
        unsigned char *room = net_board_room(t->op, (size_t)(largest - at < most ? largest - at : most) * t->grain);
        net_board_copy(t->op, room, t->x + (t->begin[t->rank] + at) * t->grain,
                       (size_t)piece_of(t, t->rank, at, most) * t->grain);
        net_board_post(t->op);
        for (int m = 1; !st && m < t->size; m++) {
            const int peer = (t->rank + m) % t->size;
            st = net_board_wait(t->op, peer, &post);
            if (!st)
                memcpy(t->x + (t->begin[peer] + at) * t->grain, post, (size_t)piece_of(t, peer, at, most) * t->grain);
        }
    }
    return st;
}

/* The root posts; the others post nothing, which says that they have read what was before. */
static gt_status board_broadcast(net_task *t)
{
    const unsigned char *post;
    const size_t bytes = (size_t)t->count * t->grain;
    gt_status st = GT_OK;
    for (size_t at = 0; !st && at < bytes; at += NET_BOARD_MOST) {
        const size_t n = bytes - at < NET_BOARD_MOST ? bytes - at : NET_BOARD_MOST;
        unsigned char *room = net_board_room(t->op, n);
        if (t->rank == t->root)
            net_board_copy(t->op, room, t->x + at, n);
        net_board_post(t->op);
        for (int m = 1; !st && m < t->size; m++) {
            const int peer = (t->rank + m) % t->size;
            st = net_board_wait(t->op, peer, &post);
            if (!st && peer == t->root)
                memcpy(t->x + at, post, n);
        }
    }
    return st;
}

static gt_status board_all_reduce(net_task *t)
{
    const uint64_t most = NET_BOARD_MOST / t->grain;
    gt_status st = GT_OK;
    for (uint64_t at = 0; !st && at < t->count; at += most) {
        const uint64_t n = t->count - at < most ? t->count - at : most;
        unsigned char *x = t->x + at * t->grain;
        st = t->size == 2 || each_adds_all(t, n) ? board_whole(t, x, n) : board_parts(t, x, n);
    }
    return st;
}

/* ---- by messages ----------------------------------------------------------------------- */

typedef struct mail {
    net_request *in[NET_BOARD_RANKS], *out[NET_BOARD_RANKS];
} mail;

static gt_status all_of(const net_task *t, net_request **r)
{
    gt_status st = GT_OK;
    for (int i = 0; i < t->size; i++) {
        const gt_status one = st ? GT_OK : net_wait(r[i]);
        st = st ? st : one;
    }
    return st;
}

static gt_status message_whole(net_task *t, unsigned char *scratch, uint64_t at, uint64_t count)
{
    mail m = { 0 };
    const unsigned char *posts[NET_BOARD_RANKS];
    gt_status st = GT_OK;
    for (int i = 0; !st && i < t->size; i++) {
        posts[i] = i == t->rank ? t->x + at * t->grain : scratch + (size_t)i * count * t->grain;
        if (i != t->rank)
            st = net_task_recv_into(t, i, t->step, scratch + (size_t)i * count * t->grain, count, &m.in[i]);
    }
    for (int i = 0; !st && i < t->size; i++)
        if (i != t->rank)
            st = net_task_send(t, i, t->step, at, count, &m.out[i]);
    if (!st)
        st = all_of(t, m.in);
    if (!st)
        st = all_of(t, m.out);          /* x is still theirs until then */
    if (!st)
        add_in_order(t, t->x + at * t->grain, posts, count);
    return st;
}

/* Adds up what came for this rank's elements, some of it where it lies with its sender, and gives that back. */
static gt_status add_lent(net_task *t, unsigned char *x, const unsigned char **posts, uint64_t count, net_request **in)
{
    net_loan loan[NET_BOARD_RANKS] = { { 0 } };
    gt_status st = GT_OK;
    for (int i = 0; !st && i < t->size; i++) {
        st = net_borrow_wait(in[i], &loan[i]);
        posts[i] = loan[i].data ? loan[i].data : posts[i];
    }
    if (!st)
        add_in_order(t, x, posts, count);
    for (int i = 0; i < t->size; i++)
        if (loan[i].data)
            net_task_give_back(t, i, &loan[i]);
    return st;
}

/* count[i] elements from cut[i] are rank i's to add; each takes what the others have of its own. Of two ranks there is
 * no order to keep: what comes is added as it comes. */
static gt_status message_sums(net_task *t, unsigned char *scratch, const uint64_t *cut, const uint64_t *count)
{
    mail m = { 0 };
    const unsigned char *posts[NET_BOARD_RANKS];
    const uint64_t n = count[t->rank];
    unsigned char *x = t->x + cut[t->rank] * t->grain;
    gt_status st = GT_OK;
    for (int i = 0; !st && i < t->size; i++) {
        unsigned char *place = scratch ? scratch + (size_t)i * (size_t)n * t->grain : NULL; /* two ranks have none */
        posts[i] = i == t->rank ? x : place;
        if (i == t->rank)
            continue;
        st = t->size == 2 ? net_task_recv(t, i, t->step, cut[t->rank], n, 1, &m.in[i])
                          : net_task_borrow(t, i, t->step, place, n, &m.in[i]);
        if (!st)
            st = net_task_send(t, i, t->step, cut[i], count[i], &m.out[i]);
    }
    if (!st)
        st = t->size == 2 ? all_of(t, m.in) : add_lent(t, x, posts, n, m.in);
    return st ? st : all_of(t, m.out); /* what comes back is for the same elements */
}

static gt_status message_parts(net_task *t, unsigned char *scratch, uint64_t at, uint64_t count)
{
    mail back = { 0 };
    uint64_t cut[NET_BOARD_RANKS] = { 0 }, n[NET_BOARD_RANKS] = { 0 };
    for (int i = 0; i < t->size; i++) {
        part_of(t, count, i, &cut[i], &n[i]);
        cut[i] += at;
    }
    gt_status st = message_sums(t, scratch, cut, n);
    for (int i = 0; !st && i < t->size; i++) {
        if (i == t->rank)
            continue;
        st = net_task_recv(t, i, t->step + 1, cut[i], n[i], 0, &back.in[i]);
        if (!st)
            st = net_task_send(t, i, t->step + 1, cut[t->rank], n[t->rank], &back.out[i]);
    }
    if (!st)
        st = all_of(t, back.in);
    return st ? st : all_of(t, back.out);
}

static gt_status message_all_reduce(net_task *t)
{
    const uint64_t most = t->size == 2 ? t->count : PIECE / t->grain, first = t->count < most ? t->count : most;
    const size_t part = ((size_t)first * t->grain / (size_t)t->size + 64) * (size_t)t->size;
    void *scratch = NULL;
    gt_status st = GT_OK;
    if (each_adds_all(t, first))
        st = net_group_scratch(t->group, (size_t)t->size * (size_t)first * t->grain, &scratch);
    else if (t->size > 2)
        st = net_group_scratch(t->group, part, &scratch);
    for (uint64_t at = 0; !st && at < t->count; at += most) {
        const uint64_t n = t->count - at < most ? t->count - at : most;
        st = each_adds_all(t, n) ? message_whole(t, scratch, at, n) : message_parts(t, scratch, at, n);
        t->step += 2;
    }
    return st;
}

static gt_status message_scatter(net_task *t)
{
    const uint64_t most = PIECE / 64 / (uint64_t)t->size * 64 / t->grain, largest = net_task_largest(t);
    void *scratch;
    gt_status st = net_group_scratch(t->group, (size_t)t->size * (size_t)(largest < most ? largest : most) * t->grain,
                                     &scratch);
    for (uint64_t at = 0; !st && at < largest; at += most) {
        uint64_t cut[NET_BOARD_RANKS] = { 0 }, n[NET_BOARD_RANKS] = { 0 };
        for (int i = 0; i < t->size; i++) {
            n[i] = piece_of(t, i, at, most);
            cut[i] = n[i] ? t->begin[i] + at : 0;
        }
        st = message_sums(t, scratch, cut, n);
        t->step++;
    }
    return st;
}

/* ---- both ------------------------------------------------------------------------------ */

gt_status net_run_exchange(net_task *t)
{
    if (t->size > NET_BOARD_RANKS)
        return gt_fail(GT_UNSUPPORTED, "the algorithm exchange is for %d ranks at most, not %d; name another",
                       (int)NET_BOARD_RANKS, t->size);
    switch (t->kind) {
    case NET_OP_ALL_REDUCE: return t->on_board ? board_all_reduce(t) : message_all_reduce(t);
    case NET_OP_REDUCE_SCATTER: return t->on_board ? board_scatter(t) : message_scatter(t);
    case NET_OP_ALL_GATHER: return t->on_board ? board_gather(t) : net_run_ring(t);
    default: return t->on_board ? board_broadcast(t) : net_run_tree(t);
    }
}
