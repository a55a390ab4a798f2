/* SPDX-License-Identifier: MIT */
/* net/collective/board_tune.c - what a board is good for on this machine, measured when it has been made.
 *
 *   64 KiB on the board    copied past the cache, or through it?       the faster from here on
 *   4 MiB                  on the board, or by messages that are lent? long vectors go the faster way
 *
 * Processors differ by a factor of two in both, in either direction. Bits do not depend on the answers: the board and
 * messages add in the same order. Of each way the best of some rounds counts, in turns, as others may compute
 * meanwhile; rank 0's verdict is everybody's, posted on the board.                            */
#include "net/collective/state.h"

#include "host/base/clock.h"
#include "host/base/log.h"
#include "net/collective/reduce.h"
#include "net/comm/board.h"

#include <math.h>
#include <string.h>

enum { SHORT = 64 << 10, LONG = 4 << 20, FEW = 4, SOME = 12, FIRST_STEP = 64 };

typedef struct verdict {
    uint64_t most;                  /* bytes that are summed on the board                     */
    uint32_t streams, unused;
} verdict;

static gt_status time_sum(net_task *t, uint64_t bytes, int on_board, double *best)
{
    const uint64_t start = gt_now_ns();
    t->count = bytes / t->grain;
    t->on_board = on_board;
    const gt_status st = net_run_exchange(t);
    *best = fmin(*best, (double)(gt_now_ns() - start) * 1e-9);
    return st;
}

/* The first round of each only touches the memory. */
static gt_status time_all(net_task *t, double copies[2], double ways[2])
{
    double warm_up = INFINITY;
    gt_status st = GT_OK;
    for (int i = 0; !st && i < 2 * (SOME + 1); i++) {
        net_board_stream(t->op, i % 2);
        st = time_sum(t, SHORT, 1, i < 2 ? &warm_up : &copies[i % 2]);
    }
    net_board_stream(t->op, copies[1] < copies[0]);
    for (int i = 0; !st && i < 2 * (FEW + 1); i++)
        st = time_sum(t, LONG, i % 2, i < 2 ? &warm_up : &ways[i % 2]);
    return st;
}

/* Rank 0's words to all. */
static gt_status tell(net_op *op, int rank, int size, verdict *v)
{
    const unsigned char *post;
    gt_status st = GT_OK;
    memcpy(net_board_room(op, sizeof *v), v, sizeof *v);
    net_board_post(op);
    for (int i = 0; !st && i < size; i++) {
        if (i == rank)
            continue;
        st = net_board_wait(op, i, &post);
        if (!st && !i)
            memcpy(v, post, sizeof *v);
    }
    return st;
}

gt_status net_board_tune(net_group *g, net_op *op, uint64_t *most)
{
    net_comm *c = net_group_comm(g);
    const uint64_t start = gt_now_ns();
    double copies[2] = { INFINITY, INFINITY }, ways[2] = { INFINITY, INFINITY };
    void *x;
    gt_status st = net_comm_memory(c, LONG, &x);
    if (st)
        return st;
    net_task t = { .group = g,
                   .op = op,
                   .kind = NET_OP_ALL_REDUCE,
                   .rank = net_group_rank(g),
                   .size = net_group_size(g),
                   .x = x,
                   .type = NET_F32,
                   .grain = net_type_size(NET_F32),
                   .reduce = net_reduce_of(NET_F32),
                   .step = FIRST_STEP };
    st = time_all(&t, copies, ways);
    verdict v = { ways[0] < ways[1] ? LONG / 2 : UINT64_MAX, copies[1] < copies[0], 0 };
    if (!st)
        st = tell(op, t.rank, t.size, &v);
    net_comm_memory_free(c, x);
    if (st)
        return st;
    net_board_stream(op, (int)v.streams);
    *most = v.most;
    if (!t.rank)
        gt_log(
            GT_LOG_DEBUG, "collective",
            "board of %d ranks: 64 KiB in %.1f us through the cache, %.1f past it; 4 MiB in %.0f us, by messages %.0f; "
            "measured in %.1f ms",
            t.size, copies[0] * 1e6, copies[1] * 1e6, ways[1] * 1e6, ways[0] * 1e6,
            (double)(gt_now_ns() - start) * 1e-6);
    return GT_OK;
}
