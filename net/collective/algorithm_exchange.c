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
 * long as a line of memory needs from core to core. Long vectors go in pieces of what a post holds.
 * Without a board the same is done by messages, for the same bits: which of the two ways is gone
 * makes no difference to a sum.                                                          */
#include "net/collective/algorithm.h"
#include "net/collective/reduce.h"
#include "net/comm/board.h"

#include <stdlib.h>
#include <string.h>

enum {
    WHOLE = 8 * 1024,               /* bytes of the other ranks together that each adds itself */
    BLOCK = 1024                    /* elements added at once                                */
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
    return t->size == 2 || count * t->grain * (uint64_t)(t->size - 1) <= WHOLE;
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
    net_board_copy(net_board_room(t->op, bytes), x, bytes);
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
    net_board_copy(room, x, own);
    net_board_copy(room + own + size, x + own + size, bytes - own - size);
    net_board_post(t->op);
    gt_status st = wait_for_all(t, posts);
    if (st)
        return st;
    posts[t->rank] = x;
    for (int r = 0; r < t->size; r++)
        posts[r] += own;
    add_in_order(t, x + own, posts, n);
    net_board_copy(net_board_room(t->op, bytes) + own, x + own, size);
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

static gt_status message_parts(net_task *t, unsigned char *scratch, uint64_t at, uint64_t count)
{
    mail m = { 0 }, back = { 0 };
    const unsigned char *posts[NET_BOARD_RANKS];
    uint64_t from, n, theirs, some;
    gt_status st = GT_OK;
    part_of(t, count, t->rank, &from, &n);
    for (int i = 0; !st && i < t->size; i++) {
        unsigned char *place = scratch + (size_t)i * n * t->grain;
        posts[i] = i == t->rank ? t->x + (at + from) * t->grain : place;
        if (i == t->rank)
            continue;
        part_of(t, count, i, &theirs, &some);
        st = net_task_recv_into(t, i, t->step, place, n, &m.in[i]);
        if (!st)
            st = net_task_send(t, i, t->step, at + theirs, some, &m.out[i]);
    }
    if (!st)
        st = all_of(t, m.in);
    if (!st)
        st = all_of(t, m.out);          /* what comes back is for the same elements */
    if (!st)
        add_in_order(t, t->x + (at + from) * t->grain, posts, n);
    for (int i = 0; !st && i < t->size; i++) {
        if (i == t->rank)
            continue;
        part_of(t, count, i, &theirs, &some);
        st = net_task_recv(t, i, t->step + 1, at + theirs, some, 0, &back.in[i]);
        if (!st)
            st = net_task_send(t, i, t->step + 1, at + from, n, &back.out[i]);
    }
    if (!st)
        st = all_of(t, back.in);
    return st ? st : all_of(t, back.out);
}

/* ---- both ------------------------------------------------------------------------------ */

static gt_status prepare(net_task *t, uint64_t piece, void **scratch)
{
    if (t->size > NET_BOARD_RANKS)
        return gt_fail(GT_UNSUPPORTED, "the algorithm exchange is for %d ranks at most, not %d; name another",
                       (int)NET_BOARD_RANKS, t->size);
    return t->on_board ? GT_OK : net_group_scratch(t->group, (size_t)t->size * (size_t)piece * t->grain, scratch);
}

gt_status net_run_exchange(net_task *t)
{
    const uint64_t most = NET_BOARD_MOST / t->grain;
    void *scratch = NULL;
    gt_status st = prepare(t, t->count < most ? t->count : most, &scratch);
    for (uint64_t at = 0; !st && at < t->count; at += most) {
        const uint64_t n = t->count - at < most ? t->count - at : most;
        const int whole = each_adds_all(t, n);
        unsigned char *x = t->x + at * t->grain;
        if (t->on_board)
            st = whole ? board_whole(t, x, n) : board_parts(t, x, n);
        else
            st = whole ? message_whole(t, scratch, at, n) : message_parts(t, scratch, at, n);
        t->step += 2;
    }
    return st;
}
