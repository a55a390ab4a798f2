/* SPDX-License-Identifier: MIT */
/* net/collective/algorithm_direct.c - every rank owns a share, and all send it theirs.
 *
 *        rank 0   rank 1   rank 2              rank 0   rank 1   rank 2
 *          │ ╲    ╱ │ ╲    ╱ │     owners add      │ ╲    ╱ │ ╲    ╱ │
 *          ▼  ╲  ╱  ▼  ╲  ╱  ▼                     ▼  ╲  ╱  ▼  ╲  ╱  ▼
 *        own 0    own 1    own 2   ──────────►   all of the sum, everywhere
 *
 * Two steps whatever p is, and shares of any size: with those of net_shares() a rank with a slow
 * link sums little or nothing and is done in S / B, the least any algorithm can do, where a
 * ring runs 2(p-1)/p S at the speed of its slowest link.
 *
 * Shares are cut into pieces, and the sum of a piece goes out while later ones come in, so both
 * directions of a slow link are busy all the time. DEPTH pieces of every pair are under way
 * (credits against incast), and rank r starts with rank r + 1, so nobody is everyone's first.
 *
 * Pieces arrive in scratch memory and are added in the order r, r + 1, ..., not as they come: the
 * same bits in each run. 16-bit types are added in fp32 and rounded once. Of two ranks each
 * adds one piece only, so a ring of two is the same without the scratch.                  */
#include "net/collective/algorithm.h"
#include "net/collective/reduce.h"

#include <stdlib.h>

enum { DEPTH = 4 };

typedef struct slot {               /* what is under way of one piece and one peer */
    net_request *given, *taken;     /* towards the sum: to its owner, from others  */
    net_request *told, *learnt;     /* the sum: to others, from its owner          */
} slot;

typedef struct direct {
    net_task *t;
    uint64_t pieces, room;          /* room: elements of a piece of this rank's share */
    unsigned char *arrived;         /* [DEPTH][size - 1][room]                       */
    float *acc;                     /* [room]                                        */
    slot slots[];                   /* [DEPTH][size - 1]                             */
} direct;

static int peer_of(const net_task *t, int m)            /* m: 1 .. size - 1 */
{
    return (t->rank + m) % t->size;
}

static slot *slot_of(direct *d, uint64_t k, int m)
{
    return &d->slots[k % DEPTH * (uint64_t)(d->t->size - 1) + (uint64_t)(m - 1)];
}

static unsigned char *place_of(direct *d, uint64_t k, int m)
{
    if (!d->arrived)                    /* a share of nothing */
        return NULL;
    return d->arrived + (k % DEPTH * (uint64_t)(d->t->size - 1) + (uint64_t)(m - 1)) * d->room * d->t->grain;
}

/* Waits for a request and forgets it. */
static gt_status settle(net_request **r)
{
    net_request *done = *r;
    *r = NULL;
    return net_wait(done);
}

/* Posts all of piece k that needs no sum. Its slot was piece k - DEPTH's. */
static gt_status launch(direct *d, uint64_t k)
{
    net_task *t = d->t;
    const int sums = t->kind != NET_OP_ALL_GATHER, spreads = t->kind != NET_OP_REDUCE_SCATTER;
    const uint32_t step = t->step + 2 * (uint32_t)k;
    uint64_t from, count;
    gt_status st = GT_OK;
    for (int m = 1; !st && m < t->size; m++) {
        slot *s = slot_of(d, k, m);
        st = settle(&s->given);
        if (!st)
            st = settle(&s->told);
        if (!st)
            st = settle(&s->learnt);
        net_task_piece(t, t->rank, k, d->pieces, &from, &count);
        if (!st && sums)
            st = net_task_recv_into(t, peer_of(t, m), step, place_of(d, k, m), count, &s->taken);
        net_task_piece(t, peer_of(t, m), k, d->pieces, &from, &count);
        if (!st && spreads)
            st = net_task_recv(t, peer_of(t, m), step + 1, from, count, 0, &s->learnt);
    }
    for (int m = 1; !st && sums && m < t->size; m++) {
        net_task_piece(t, peer_of(t, m), k, d->pieces, &from, &count);
        st = net_task_send(t, peer_of(t, m), step, from, count, &slot_of(d, k, m)->given);
    }
    return st;
}

/* Waits for what others have of piece k of this rank's share, and adds it up in order. */
static gt_status sum(direct *d, uint64_t k)
{
    net_task *t = d->t;
    uint64_t from, count;
    net_task_piece(t, t->rank, k, d->pieces, &from, &count);
    if (!count)
        return GT_OK;
    gt_status st = net_task_filled(t, from, count);
    unsigned char *x = t->x + from * t->grain;
    const int wide = t->grain == 2;
    if (st)
        return st;
    if (wide)
        net_widen(d->acc, x, count, t->type);
    for (int m = 1; m < t->size; m++) {
        st = settle(&slot_of(d, k, m)->taken);
        if (st)
            return st;
        if (wide)
            net_widen_add(d->acc, place_of(d, k, m), count, t->type);
        else
            t->reduce(x, place_of(d, k, m), count * t->grain);
    }
    if (wide)
        net_narrow(x, d->acc, count, t->type);
    return GT_OK;
}

static gt_status spread(direct *d, uint64_t k)
{
    net_task *t = d->t;
    uint64_t from, count;
    gt_status st = GT_OK;
    net_task_piece(t, t->rank, k, d->pieces, &from, &count);
    for (int m = 1; !st && m < t->size; m++)
        st = net_task_send(t, peer_of(t, m), t->step + 2 * (uint32_t)k + 1, from, count, &slot_of(d, k, m)->told);
    return st;
}

static gt_status land(direct *d)
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < DEPTH * (d->t->size - 1); i++) {
        st = settle(&d->slots[i].given);
        if (!st)
            st = settle(&d->slots[i].told);
        if (!st)
            st = settle(&d->slots[i].learnt);
    }
    return st;
}

/* The first piece's way to its owner and the last one's way back are time in which one direction of
 * a link is idle: 1/32 of all at most, unless pieces would be too small to be worth a message. */
static uint64_t pieces_of(const net_task *t)
{
    const uint64_t largest = net_task_largest(t), bytes = largest * t->grain;
    const uint64_t by_size = net_task_pieces(t, largest), small = bytes / NET_DIRECT_SMALLEST;
    const uint64_t wanted = small < NET_DIRECT_PIECES ? small : NET_DIRECT_PIECES;
    return by_size > wanted ? by_size : wanted;
}

static gt_status prepare(direct *d)
{
    net_task *t = d->t;
    const int wide = t->grain == 2 && t->kind != NET_OP_ALL_GATHER;
    uint64_t from;
    void *scratch = NULL;
    d->pieces = pieces_of(t);
    for (uint64_t k = 0; k < d->pieces; k++) {
        uint64_t count;
        net_task_piece(t, t->rank, k, d->pieces, &from, &count);
        d->room = count > d->room ? count : d->room;
    }
    d->room = (d->room + 31) / 32 * 32;
    if (t->kind == NET_OP_ALL_GATHER || !d->room)
        return GT_OK;
    const size_t arrived = DEPTH * (size_t)(t->size - 1) * d->room * t->grain;
    gt_status st = net_group_scratch(t->group, arrived + (wide ? d->room * sizeof(float) : 0), &scratch);
    d->arrived = scratch;
    d->acc = wide && scratch ? (float *)(void *)(d->arrived + arrived) : NULL;
    return st;
}

gt_status net_run_direct(net_task *t)
{
    if (t->size == 2)
        return net_run_ring(t);
    const size_t size = sizeof(direct) + DEPTH * (size_t)(t->size - 1) * sizeof(slot);
    direct *d = calloc(1, size);
    if (!d)
        return gt_fail(GT_NO_MEMORY, "cannot begin a direct collective: no memory for the messages of %d ranks",
                       t->size);
    d->t = t;
    gt_status st = prepare(d);
    uint64_t launched = 0;
    for (uint64_t k = 0; !st && k < d->pieces; k++) {
        net_op_phase(t->op, "direct", (int)k);
        while (!st && launched < d->pieces && launched < k + DEPTH)
            st = launch(d, launched++);
        if (!st && t->kind != NET_OP_ALL_GATHER)
            st = sum(d, k);
        if (!st && t->kind != NET_OP_REDUCE_SCATTER)
            st = spread(d, k);
    }
    if (!st)
        st = land(d);
    t->step += 2 * (uint32_t)d->pieces;
    free(d);
    return st;
}
