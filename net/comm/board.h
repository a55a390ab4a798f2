/* SPDX-License-Identifier: MIT */
/* net/comm/board.h - memory that all ranks of a group on one host share, for what they exchange.
 *
 *   net_op_begin_on_board(group, "all-reduce", &what, &op);
 *   memcpy(net_board_room(op, 8), &x, 8);
 *   net_board_post(op);
 *   for each other rank: net_board_wait(op, rank, &theirs);     what it posted, until our next post
 *   net_op_end(op, GT_OK);
 *
 * A post is read by all others where it lies: no message, no request, no other thread. Every rank
 * posts as often as the others, with the same size, and waits for all others' before the next.
 * What ranks must agree on (net_agreement) is beside what they post.
 *
 * Threads: as for operations, one at a time.                                              */
#ifndef NET_COMM_BOARD_H
#define NET_COMM_BOARD_H

#include "net/comm/group.h"

enum {
    NET_BOARD_RANKS = 32,           /* a group of more has none                               */
    NET_BOARD_MOST = 256 * 1024     /* bytes of a post                                        */
};

/* Inside an operation of messages of all ranks: gives the group a board if they all run on one host,
 * talk to each other through shared memory and can map it; the same on all of them. */
gt_status net_board_make(net_op *o);
int net_group_has_board(const net_group *g);
/* Begins an operation without messages, as net_op_begin() does one with them. */
gt_status net_op_begin_on_board(net_group *g, const char *name, const net_agreement *what, net_op **out);

/* Where the next post is written; aligned for any element. size: at most NET_BOARD_MOST, 0 too. */
unsigned char *net_board_room(net_op *o, size_t size);
/* memcpy() into that room. */
void net_board_copy(const net_op *o, void *to, const void *from, size_t size);
/* How that copies, which each rank may do its own way: past the cache (as at first) or through it. Which is faster
 * is for the processor to show. */
void net_board_stream(net_op *o, int past_the_cache);
void net_board_post(net_op *o);
/* What rank `peer` of the group, not this one, has posted as often as this one. */
gt_status net_board_wait(net_op *o, int peer, const unsigned char **data);

#endif
