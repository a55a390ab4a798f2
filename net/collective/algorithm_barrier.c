/* SPDX-License-Identifier: MIT */
/* net/collective/algorithm_barrier.c - nobody leaves before everybody has come.
 *
 *   step 0: to rank + 1, from rank - 1     step 1: + 2, - 2     step 2: + 4, - 4 ...
 *
 * Dissemination: after step k a rank has heard, through others, of 2^(k+1) ranks. log p steps
 * for any p, one byte each; no rank is special. Ranks with a board post on it instead, and
 * look at all others' posts.                                                             */
#include "net/collective/algorithm.h"
#include "net/comm/board.h"

static gt_status on_board(net_task *t)
{
    const unsigned char *nothing;
    gt_status st = GT_OK;
    net_board_room(t->op, 0);
    net_board_post(t->op);
    for (int m = 1; !st && m < t->size; m++)
        st = net_board_wait(t->op, (t->rank + m) % t->size, &nothing);
    return st;
}

gt_status net_run_barrier(net_task *t)
{
    if (t->on_board)
        return on_board(t);
    unsigned char out = 1, in[32];
    net_request *heard[32] = { NULL }, *told[32] = { NULL };
    gt_status st = GT_OK;
    int steps = 0;
    for (int far = 1; !st && far < t->size && steps < 32; far *= 2, steps++)
        st = net_op_recv(t->op, (t->rank - far + t->size) % t->size, (uint32_t)steps,
                         (net_sink){ &in[steps], 1, NULL, 1, 0 }, &heard[steps]);
    for (int far = 1, k = 0; !st && k < steps; far *= 2, k++) {
        net_op_phase(t->op, "dissemination", k);
        st = net_op_send(t->op, (t->rank + far) % t->size, (uint32_t)k, &out, 1, &told[k]);
        if (!st)
            st = net_wait(heard[k]);
    }
    for (int k = 0; !st && k < steps; k++)
        st = net_wait(told[k]);
    return st;
}
