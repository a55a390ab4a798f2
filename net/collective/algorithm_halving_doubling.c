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
 * A step is received only when the one before is in: both add to the same elements, and the
 * order of additions must not depend on which comes first.                                */
#include "net/collective/algorithm.h"

/* Parts of the vector as virtual participants see it: those of a pair belong to its even one. */
static uint64_t begin_of(const net_task *t, const net_fold *f, int virtual)
{
    return t->begin[virtual < f->extra ? 2 * virtual : virtual + f->extra];
}

static gt_status exchange(net_task *t, int peer, uint32_t step, uint64_t give, uint64_t given, uint64_t take,
                          uint64_t taken, int reduce)
{
    net_request *in = NULL, *out = NULL;
    gt_status st = net_task_recv(t, peer, step, take, taken, reduce, &in);
    if (!st)
        st = net_task_send(t, peer, step, give, given, &out);
    if (!st)
        st = net_wait(in);
    return st ? st : net_wait(out);
}

/* Distances p/2, p/4 ... 1: afterwards this rank has the sum of its own part. */
static gt_status halve(net_task *t, const net_fold *f)
{
    gt_status st = GT_OK;
    int low = 0, high = f->size;
    for (int distance = f->size / 2, step = 0; !st && distance > 0; distance /= 2, step++) {
        const int middle = low + distance, upper = f->virtual >= middle;
        const uint64_t a = begin_of(t, f, low), b = begin_of(t, f, middle), c = begin_of(t, f, high);
        const int peer = net_fold_real(f, upper ? f->virtual - distance : f->virtual + distance);
        net_op_phase(t->op, "halving", step);
        st = upper ? exchange(t, peer, t->step + (uint32_t)step, a, b - a, b, c - b, 1)
                   : exchange(t, peer, t->step + (uint32_t)step, b, c - b, a, b - a, 1);
        low = upper ? middle : low;
        high = upper ? high : middle;
    }
    return st;
}

/* Distances 1, 2 ... p/2: what is finished doubles. */
static gt_status redouble(net_task *t, const net_fold *f, uint32_t steps)
{
    gt_status st = GT_OK;
    for (int distance = 1, step = 0; !st && distance < f->size; distance *= 2, step++) {
        const int low = f->virtual / (2 * distance) * 2 * distance;
        const int upper = f->virtual >= low + distance;
        const uint64_t a = begin_of(t, f, low), b = begin_of(t, f, low + distance),
                       c = begin_of(t, f, low + 2 * distance);
        const int peer = net_fold_real(f, upper ? f->virtual - distance : f->virtual + distance);
        net_op_phase(t->op, "doubling", step);
        st = upper ? exchange(t, peer, steps + (uint32_t)step, b, c - b, a, b - a, 0)
                   : exchange(t, peer, steps + (uint32_t)step, a, b - a, b, c - b, 0);
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
    gt_status st = paired ? fold_in(t, &f) : GT_OK;
    t->step += 2;
    if (!st && f.virtual >= 0 && t->kind != NET_OP_ALL_GATHER)
        st = halve(t, &f);
    if (!st && f.virtual >= 0 && t->kind != NET_OP_REDUCE_SCATTER)
        st = redouble(t, &f, t->step + 32);
    t->step = first;
    if (!st && paired)
        st = fold_out(t, &f);
    t->step = first + 66;               /* 2 of the pairs, 32 each way at most */
    return st;
}
