/* SPDX-License-Identifier: MIT */
/* net/collective/algorithm_all_to_all.c - every rank has a block for every other.
 *
 *        rank 0       rank 1       rank 2                rank 0       rank 1       rank 2
 *        00 01 02     10 11 12     20 21 22     ──►      00 10 20     01 11 21     02 12 22
 *
 * One step, each message straight to where it belongs: n (p-1)/p bytes a rank, the least there can be. What comes in
 * waits in scratch memory until what it replaces has gone. Blocks are cut into pieces, of which a few are under way,
 * and rank r starts with rank r + 1, so that nobody is everyone's first.                        */
#include "net/collective/algorithm.h"

#include <stdlib.h>
#include <string.h>

enum { DEPTH = 4 };

typedef struct pair {
    net_request *sent, *came;
} pair;

static gt_status settle(pair *p)
{
    net_request *sent = p->sent, *came = p->came;
    *p = (pair){ NULL, NULL };
    const gt_status st = net_wait(sent), other = net_wait(came);
    return st ? st : other;
}

gt_status net_run_all_to_all(net_task *t)
{
    const int others = t->size - 1;
    const uint64_t block = t->count / (uint64_t)t->size, pieces = net_task_pieces(t, block);
    const uint64_t size = (block + pieces - 1) / pieces;
    void *scratch = NULL;
    pair *under_way = calloc(DEPTH * (size_t)others, sizeof *under_way);
    gt_status st = under_way ? net_group_scratch(t->group, (size_t)others * block * t->grain, &scratch)
                             : gt_fail(GT_NO_MEMORY,
                                       "cannot begin an all-to-all: no memory for the messages of %d ranks", t->size);
    unsigned char *room = scratch;
    net_op_phase(t->op, "all-to-all", 0);
    for (uint64_t k = 0; !st && k < pieces; k++) {
        const uint64_t at = k * size < block ? k * size : block, count = block - at < size ? block - at : size;
        for (int m = 1; !st && m <= others; m++) {
            const int to = (t->rank + m) % t->size, from = (t->rank + t->size - m) % t->size;
            pair *p = &under_way[k % DEPTH * (uint64_t)others + (uint64_t)(m - 1)];
            st = settle(p);
            if (!st && count)
                st = net_task_recv_into(t, from, t->step + (uint32_t)k,
                                        room + ((uint64_t)(m - 1) * block + at) * t->grain, count, &p->came);
            if (!st && count)
                st = net_task_send(t, to, t->step + (uint32_t)k, (uint64_t)to * block + at, count, &p->sent);
        }
    }
    for (int i = 0; under_way && i < DEPTH * others; i++) {
        const gt_status over = settle(&under_way[i]);
        st = st ? st : over;
    }
    for (int m = 1; !st && m <= others; m++) {
        const int from = (t->rank + t->size - m) % t->size;
        memcpy(t->x + (uint64_t)from * block * t->grain, room + (uint64_t)(m - 1) * block * t->grain, block * t->grain);
    }
    t->step += (uint32_t)pieces;
    free(under_way);
    return st;
}
