/* SPDX-License-Identifier: MIT */
/* net/collective/algorithm_halving_doubling.c - half the vector, half the distance.
 *
 * Eight ranks; what a rank still sums (▓) after each exchange with the rank at distance 4, 2, 1:
 *
 *   rank 5   ▓▓▓▓▓▓▓▓  ──4──►  ....▓▓▓▓  ──2──►  ....▓▓..  ──1──►  .....▓..
 *
 * and back the same way, doubling what is finished. log p steps each, and the same bytes as a
 * ring (Rabenseifner 2004). Ranks beyond a power of two hand their data to a neighbour first
 * and get the result last.
 *
 * All receives are posted at once, so that windows are open when the others get there: those of the halving steps to
 * scratch memory, since both add to the same elements and the order of additions must not depend on which comes first
 * (only the first adds where it arrives), those of the doubling steps when the vector's parts have left.     */
#include "net/collective/algorithm.h"

/* Parts of the vector as virtual participants see it: those of a pair belong to its even one. */
static uint64_t begin_of(const net_task *t, const net_fold *f, int virtual)
{
    return t->begin[virtual < f->extra ? 2 * virtual : virtual + f->extra];
}

enum { STEPS = 32, MOST_AHEAD = 1 << 20 };       /* bytes of a receive that scratch memory is spent on */

/* What passes between this rank and another in one step of halving: `given` elements from `give` leave, and those
 * from `take` come. Doubling goes the same ways back. */
typedef struct turn {
    int peer;
    uint64_t give, given, take, taken;
    int ahead;                      /* they come to scratch memory; else they are added as they come */
    unsigned char *scratch;
    net_request *in;
} turn;

/* Distances p/2, p/4 ... 1; returns how many. */
static int turns_of(const net_task *t, const net_fold *f, turn *turns)
{
    int low = 0, high = f->size, n = 0;
    for (int distance = f->size / 2; distance > 0; distance /= 2) {
        const int middle = low + distance, upper = f->virtual >= middle;
        const uint64_t a = begin_of(t, f, low), b = begin_of(t, f, middle), c = begin_of(t, f, high);
        const int peer = net_fold_real(f, upper ? f->virtual - distance : f->virtual + distance);
        turns[n++] = upper ? (turn){ peer, a, b - a, b, c - b, 0, NULL, NULL }
                           : (turn){ peer, b, c - b, a, b - a, 0, NULL, NULL };
        low = upper ? middle : low;
        high = upper ? high : middle;
    }
    return n;
}

/* Afterwards this rank has the sum of its own part. */
static gt_status halve(net_task *t, turn *turns, int n)
{
    uint64_t room = 0;
    void *scratch = NULL;
    gt_status st = GT_OK;
    for (int k = 1; k < n; k++) {
        turns[k].ahead = turns[k].taken * t->grain <= MOST_AHEAD;
        room += turns[k].ahead ? turns[k].taken * t->grain + 64 : 0;
    }
    if (room)
        st = net_group_scratch(t->group, room, &scratch);
    room = 0;
    for (int k = 0; !st && k < n; k++) {
        turn *w = &turns[k];
        if (!k)
            st = net_task_recv(t, w->peer, t->step, w->take, w->taken, 1, &w->in);
        if (!w->ahead)
            continue;
        w->scratch = (unsigned char *)scratch + room;
        room += (w->taken * t->grain + 63) / 64 * 64;
        st = net_task_recv_into(t, w->peer, t->step + (uint32_t)k, w->scratch, w->taken, &w->in);
    }
    for (int k = 0; !st && k < n; k++) {
        turn *w = &turns[k];
        net_request *out = NULL;
        net_op_phase(t->op, "halving", k);
        if (k && !w->ahead)
            st = net_task_recv(t, w->peer, t->step + (uint32_t)k, w->take, w->taken, 1, &w->in);
        if (!st)
            st = net_task_send(t, w->peer, t->step + (uint32_t)k, w->give, w->given, &out);
        if (!st)
            st = net_wait(w->in);
        if (!st && w->ahead)
            t->reduce(t->x + w->take * t->grain, w->scratch, w->taken * t->grain);
        if (!st)
            st = net_wait(out);
    }
    return st;
}

/* What is finished doubles. */
static gt_status redouble(net_task *t, turn *turns, int n, uint32_t first)
{
    gt_status st = GT_OK;
    for (int k = n - 1; !st && k >= 0; k--)
        st = net_task_recv(t, turns[k].peer, first + (uint32_t)k, turns[k].give, turns[k].given, 0, &turns[k].in);
    for (int k = n - 1; !st && k >= 0; k--) {
        net_request *out = NULL;
        net_op_phase(t->op, "doubling", n - 1 - k);
        st = net_task_send(t, turns[k].peer, first + (uint32_t)k, turns[k].take, turns[k].taken, &out);
        if (!st)
            st = net_wait(turns[k].in);
        if (!st)
            st = net_wait(out);
    }
    return st;
}

/* What a pair does before and after. Steps 0 and 1 are its own. */
static gt_status fold_in(net_task *t, const net_fold *f)
{
    net_request *r = NULL;
    gt_status st;
    const uint64_t mine = t->begin[t->rank], size = t->begin[t->rank + 1] - mine;
    if (t->kind == NET_OP_ALL_GATHER) {
        const uint64_t theirs = t->begin[t->rank + 1];
        st = f->virtual < 0 ? net_task_send(t, t->rank - 1, t->step, mine, size, &r)
                            : net_task_recv(t, t->rank + 1, t->step, theirs, t->begin[t->rank + 2] - theirs, 0, &r);
    } else {
        st = f->virtual < 0 ? net_task_send(t, t->rank - 1, t->step, 0, t->count, &r)
                            : net_task_recv(t, t->rank + 1, t->step, 0, t->count, 1, &r);
    }
    return st ? st : net_wait(r);
}

static gt_status fold_out(net_task *t, const net_fold *f)
{
    net_request *r = NULL;
    uint64_t from = 0, count = t->count;
    if (t->kind == NET_OP_REDUCE_SCATTER) {
        const int odd = f->virtual < 0 ? t->rank : t->rank + 1;
        from = t->begin[odd];
        count = t->begin[odd + 1] - from;
    }
    gt_status st = f->virtual < 0 ? net_task_recv(t, t->rank - 1, t->step + 1, from, count, 0, &r)
                                  : net_task_send(t, t->rank + 1, t->step + 1, from, count, &r);
    return st ? st : net_wait(r);
}

gt_status net_run_halving_doubling(net_task *t)
{
    const net_fold f = net_fold_of(t->rank, t->size);
    const uint32_t first = t->step;
    const int paired = t->rank < 2 * f.extra;
    turn turns[STEPS];
    const int n = f.virtual < 0 ? 0 : turns_of(t, &f, turns);
    gt_status st = paired ? fold_in(t, &f) : GT_OK;
    t->step += 2;
    if (!st && t->kind != NET_OP_ALL_GATHER)
        st = halve(t, turns, n);
    if (!st && t->kind != NET_OP_REDUCE_SCATTER)
        st = redouble(t, turns, n, t->step + STEPS);
    t->step = first;
    if (!st && paired)
        st = fold_out(t, &f);
    t->step = first + 66;               /* 2 of the pairs, 32 each way at most */
    return st;
}
