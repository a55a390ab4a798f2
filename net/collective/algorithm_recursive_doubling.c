/* SPDX-License-Identifier: MIT */
/* net/collective/algorithm_recursive_doubling.c - everybody's sum doubles at each step.
 *
 *   rank   0   1   2   3   4   5   6   7
 *          ├───┤   ├───┤   ├───┤   ├───┤      distance 1: sums of 2
 *          ├───────┤ ...                      distance 2: sums of 4
 *          ├───────────────┤ ...              distance 4: sums of 8
 *
 * log p messages of all n bytes: the least latency there is, for small n. Both ranks of a pair
 * add the same two sums, and addition commutes, so all end with the same bits.
 *
 * What comes is added only when what goes has left, for both are the same elements; hence the
 * scratch memory, two vectors taken in turns so that the next step's receive is
 * posted before this step's sum.                                                        */
#include "net/collective/algorithm.h"

static int partner(const net_fold *f, int distance)
{
    return net_fold_real(f, f->virtual ^ distance);
}

static gt_status doubling(net_task *t, const net_fold *f, unsigned char *scratch)
{
    const size_t bytes = t->count * t->grain;
    net_request *in = NULL, *next = NULL, *out = NULL;
    uint32_t step = t->step + 2;
    gt_status st = GT_OK;
    if (f->size > 1)
        st = net_task_recv_into(t, partner(f, 1), step, scratch, t->count, &in);
    for (int distance = 1, k = 0; !st && distance < f->size; distance *= 2, k++, step++) {
        net_op_phase(t->op, "recursive doubling", k);
        if (2 * distance < f->size)
            st = net_task_recv_into(t, partner(f, 2 * distance), step + 1, scratch + (size_t)((k + 1) % 2) * bytes,
                                    t->count, &next);
        if (!st)
            st = net_task_send(t, partner(f, distance), step, 0, t->count, &out);
        if (!st)
            st = net_wait(in);
        if (!st)
            st = net_wait(out);
        if (!st)
            t->reduce(t->x, scratch + (size_t)(k % 2) * bytes, bytes);
        in = next;
        next = NULL;
    }
    return st;
}

/* The odd one of a pair hands its data in, and gets the sum. */
static gt_status pass(net_task *t, int peer, uint32_t step, int sends, int reduce)
{
    net_request *r = NULL;
    gt_status st = sends ? net_task_send(t, peer, step, 0, t->count, &r)
                         : net_task_recv(t, peer, step, 0, t->count, reduce, &r);
    return st ? st : net_wait(r);
}

gt_status net_run_recursive_doubling(net_task *t)
{
    const net_fold f = net_fold_of(t->rank, t->size);
    const int odd = f.virtual < 0, paired = t->rank < 2 * f.extra;
    const int peer = odd ? t->rank - 1 : t->rank + 1;
    void *scratch = NULL;
    gt_status st = net_group_scratch(t->group, 2 * t->count * t->grain, &scratch);
    if (!st && paired)
        st = pass(t, peer, t->step, odd, 1);
    if (!st && !odd)
        st = doubling(t, &f, scratch);
    if (!st && paired)
        st = pass(t, peer, t->step + 1, !odd, 0);
    t->step += 34;
    return st;
}
