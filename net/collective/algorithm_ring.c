/* SPDX-License-Identifier: MIT */
/* net/collective/algorithm_ring.c - parts travel round a ring.
 *
 * Four ranks, part c of rank r on its way; to the right neighbour at each step:
 *
 *            step 0   step 1   step 2 │ step 3   step 4   step 5
 *   rank 0     3  ──►   2        1    │   0        3        2
 *   rank 1     0        3  ──►   2    │   1        0        3
 *   rank 2     1        0        3 ──►│   2        1        0
 *   rank 3     2        1        0    │   3  ──►   2        1
 *            reduce-scatter: added    │ all-gather: copied
 *
 * At step s rank r sends part r - 1 - s and receives part r - 2 - s (mod p): one formula for both
 * halves, so an all-reduce is steps [0, 2p-2), a reduce-scatter the first half of them and
 * an all-gather the second. Every part is received once in each half, hence all
 * receives can be posted ahead, in place, and sums cost no memory.
 *
 * Pipelining: parts are cut into pieces, and LANES pieces go round together, so while one
 * is added another is on the wire; then the next LANES, which start before the last ones
 * have come back. A piece is added and sent on while it is in the cache.
 *
 * A broadcast is a chain from the root, cut into pieces: see algorithm_tree.c.           */
#include "net/collective/algorithm.h"

enum { LANES = 4, AHEAD = 8 };      /* LANES + AHEAD <= NET_FLIGHT */

typedef struct ring {
    net_task *t;
    uint64_t pieces, lanes;
    int from, steps;                /* steps [from, from + steps) */
} ring;

/* Message i of this rank: which step it is, and which piece of its part. */
static void place(const ring *r, uint64_t i, int *step, uint64_t *piece)
{
    const uint64_t block = r->lanes * (uint64_t)r->steps;
    *step = r->from + (int)(i % block / r->lanes);
    *piece = i / block * r->lanes + i % r->lanes;
}

static int part_of(const net_task *t, int rank)         /* rank >= -2 p */
{
    return (rank + 2 * t->size) % t->size;
}

static gt_status post(const ring *r, uint64_t i, net_flight *in)
{
    net_task *t = r->t;
    int step;
    uint64_t piece, from, count;
    net_request *request;
    place(r, i, &step, &piece);
    net_task_piece(t, part_of(t, t->rank - 2 - step), piece, r->pieces, &from, &count);
    gt_status st = net_task_recv(t, part_of(t, t->rank - 1), t->step + (uint32_t)i, from, count, step < t->size - 1,
                                 &request);
    return st ? st : net_flight_add(in, request);
}

static gt_status send(const ring *r, uint64_t i, net_flight *in, net_flight *out)
{
    net_task *t = r->t;
    int step;
    uint64_t piece, from, count;
    net_request *request;
    gt_status st = GT_OK;
    place(r, i, &step, &piece);
    if (step > r->from)                                 /* what came at the step before */
        st = net_flight_wait(in, i - r->lanes + 1);
    net_op_phase(t->op, "ring", step);
    net_task_piece(t, part_of(t, t->rank - 1 - step), piece, r->pieces, &from, &count);
    if (!st)
        st = net_task_send(t, part_of(t, t->rank + 1), t->step + (uint32_t)i, from, count, &request);
    return st ? st : net_flight_add(out, request);
}

static gt_status go_round(net_task *t, int from, int steps)
{
    ring r = { .t = t, .from = from, .steps = steps };
    net_flight in = { 0 }, out = { 0 };
    gt_status st = GT_OK;
    r.pieces = net_task_pieces(t, net_task_largest(t));
    r.lanes = r.pieces < LANES ? r.pieces : LANES;
    r.pieces = (r.pieces + r.lanes - 1) / r.lanes * r.lanes;

    const uint64_t messages = r.pieces * (uint64_t)steps;
    uint64_t posted = 0;
    for (uint64_t i = 0; !st && i < messages; i++) {
        while (!st && posted < messages && posted < i + AHEAD)
            st = post(&r, posted++, &in);
        if (!st)
            st = send(&r, i, &in, &out);
    }
    if (!st)
        st = net_flight_land(&in);
    if (!st)
        st = net_flight_land(&out);
    t->step += (uint32_t)messages;
    return st;
}

gt_status net_run_ring(net_task *t)
{
    const int half = t->size - 1;
    switch (t->kind) {
    case NET_OP_ALL_REDUCE: return go_round(t, 0, 2 * half);
    case NET_OP_REDUCE_SCATTER: return go_round(t, 0, half);
    case NET_OP_ALL_GATHER: return go_round(t, half, half);
    default: return net_run_chain(t);
    }
}
