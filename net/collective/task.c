/* SPDX-License-Identifier: MIT */
/* net/collective/task.c - what algorithms are written with. */
#include "net/collective/algorithm.h"

#include <assert.h>

static int group_rank(const net_task *t, int participant)
{
    assert(0 <= participant && participant < t->size && participant != t->rank);
    return t->member ? t->member[participant] : participant;
}

gt_status net_task_filled(const net_task *t, uint64_t from, uint64_t count)
{
    return t->filling && count ? t->filling->until(t->filling->context, from, count) : GT_OK;
}

gt_status net_task_send(net_task *t, int to, uint32_t step, uint64_t from, uint64_t count, net_request **out)
{
    const gt_status st = net_task_filled(t, from, count);
    return st ? st : net_op_send(t->op, group_rank(t, to), step, t->x + from * t->grain, count * t->grain, out);
}

gt_status net_task_recv(net_task *t, int from, uint32_t step, uint64_t at, uint64_t count, int reduce,
                        net_request **out)
{
    const net_sink sink = { t->x + at * t->grain, count * t->grain, reduce ? t->reduce : NULL, t->grain, 0 };
    const gt_status st = net_task_filled(t, at, count);
    return st ? st : net_op_recv(t->op, group_rank(t, from), step, sink, out);
}

gt_status net_task_recv_into(net_task *t, int from, uint32_t step, void *data, uint64_t count, net_request **out)
{
    const net_sink sink = { data, count * t->grain, NULL, t->grain, 0 };
    return net_op_recv(t->op, group_rank(t, from), step, sink, out);
}

gt_status net_task_borrow(net_task *t, int from, uint32_t step, void *data, uint64_t count, net_request **out)
{
    const net_sink sink = { data, count * t->grain, NULL, t->grain, NET_LEND_ANY };
    return net_op_recv(t->op, group_rank(t, from), step, sink, out);
}

void net_task_give_back(net_task *t, int from, net_loan *loan)
{
    net_borrow_end(net_group_comm(t->group), net_group_member(t->group, group_rank(t, from)), loan);
}

/* ---- flights ---------------------------------------------------------------------------- */

gt_status net_flight_wait(net_flight *f, uint64_t upto)
{
    gt_status st = GT_OK;
    while (!st && f->ended < upto && f->ended < f->started) {
        net_request *r = f->r[f->ended % NET_FLIGHT];
        f->ended++;
        st = net_wait(r);
    }
    return st;
}

gt_status net_flight_land(net_flight *f)
{
    return net_flight_wait(f, f->started);
}

gt_status net_flight_add(net_flight *f, net_request *r)
{
    gt_status st = GT_OK;
    if (f->started - f->ended == NET_FLIGHT)
        st = net_flight_wait(f, f->ended + 1);
    f->r[f->started++ % NET_FLIGHT] = r;
    return st;
}

/* ---- cutting ---------------------------------------------------------------------------- */

uint64_t net_task_largest(const net_task *t)
{
    uint64_t largest = 0;
    for (int i = 0; i < t->size; i++)
        if (t->begin[i + 1] - t->begin[i] > largest)
            largest = t->begin[i + 1] - t->begin[i];
    return largest;
}

uint64_t net_task_pieces(const net_task *t, uint64_t count)
{
    const uint64_t bytes = count * t->grain;
    const uint64_t pieces = bytes / t->piece + (bytes % t->piece != 0);
    return pieces ? pieces : 1;
}

void net_task_piece(const net_task *t, int part, uint64_t k, uint64_t pieces, uint64_t *from, uint64_t *count)
{
    const uint64_t begin = t->begin[part], size = t->begin[part + 1] - begin;
    const uint64_t line = 64 / t->grain, lines = (size + line - 1) / line;
    uint64_t first, some, end;
    assert(pieces <= INT32_MAX);
    net_part(lines, (int)pieces, (int)k, &first, &some);
    end = (first + some) * line;
    first *= line;
    *from = begin + (first < size ? first : size);
    *count = begin + (end < size ? end : size) - *from;
}

/* ---- folding ---------------------------------------------------------------------------- */

net_fold net_fold_of(int rank, int size)
{
    net_fold f = { .size = 1 };
    while (2 * f.size <= size)
        f.size *= 2;
    f.extra = size - f.size;
    f.virtual = rank >= 2 * f.extra ? rank - f.extra : rank % 2 ? -1 : rank / 2;
    return f;
}

int net_fold_real(const net_fold *f, int virtual)
{
    return virtual < f->extra ? 2 * virtual : virtual + f->extra;
}
