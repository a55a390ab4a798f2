/* SPDX-License-Identifier: MIT */
/* net/comm/group.h - some ranks in an order, and what collectives are written with.
 *
 * Rank i of a group is ranks[i] of the communicator; the world is a group as well. Each
 * operation of a group has a number, the same on all its ranks; net_op_begin() tells the
 * next rank of the group what this one is about to do, so that ranks which do not agree
 * (another operation, type, count, root) end in a sentence that names both, and in no hang.
 *
 * Inside an operation, messages match by (peer, operation, step): a step number is used once
 * in each direction between two ranks. Receives may be posted early and in any order;
 * posting early hides the wire's latency.
 *
 * This header is for net/collective and net/ps; users need comm.h and collective.h alone. */
#ifndef NET_COMM_GROUP_H
#define NET_COMM_GROUP_H

#include "net/comm/comm.h"

typedef struct net_group net_group;

/* All `count` ranks call it with the same list, in the same order relative to other groups that
 * share members. GT_MISUSE if this rank is not among them or one is named twice. */
gt_status net_group_create(net_group **out, net_comm *c, const int *ranks, int count);
void net_group_release(net_group *g);
net_group *net_group_world(net_comm *c);        /* the communicator's own; not released   */

int net_group_rank(const net_group *g);
int net_group_size(const net_group *g);
int net_group_member(const net_group *g, int rank);     /* its rank in the communicator */
net_comm *net_group_comm(const net_group *g);

/* A place for what net/collective keeps with a group; `release` is called with it. */
void *net_group_attached(net_group *g);
void net_group_attach(net_group *g, void *data, void (*release)(void *data));

/* What all ranks of an operation must agree on. */
typedef struct net_agreement {
    uint32_t kind;              /* NET_OP_...                                             */
    uint32_t type;              /* net_type, or 0                                         */
    int32_t root;               /* or -1                                                  */
    uint32_t algorithm;
    uint64_t count;             /* elements                                               */
    const char *unit;           /* what count counts, for sentences: "f32"; NULL: elements */
} net_agreement;

/* Begins an operation; `name` is a literal, "all-reduce". At most one operation of a group is
 * open; the flight recorder keeps the last 256 of the communicator. */
typedef struct net_op net_op;
gt_status net_op_begin(net_group *g, const char *name, const net_agreement *what, net_op **out);
/* How urgent the operation's sends are from here on, 0 at first. Between two ranks, of those that could go at once the
 * smaller goes first, and of equals the first started; 0 waits for nobody. Each rank's own affair: it changes
 * when bytes travel, never which. */
void net_op_priority(net_op *o, uint32_t priority);
/* For the flight recorder: "ring, step 3 of 6". The text is a literal. */
void net_op_phase(net_op *o, const char *phase, int step);
/* Ends it with the status of the work; returns that. Unfinished requests are waited for or, after
 * a failure, given up (their buffers are then safe to free). */
gt_status net_op_end(net_op *o, gt_status st);

/* peer: a rank of the group, not this one. size 0 needs no partner on the other side: both ends
 * know it is 0, nothing is sent. *out must be waited for with net_wait. */
gt_status net_op_send(net_op *o, int peer, uint32_t step, const void *data, size_t size, net_request **out);
gt_status net_op_recv(net_op *o, int peer, uint32_t step, net_sink sink, net_request **out);

/* Messages of a group outside of operations, matched by channel and order like comm.h's, and
 * kept apart from those of any other group (also one of the same ranks). size 0 is sent. priority: as
 * net_op_priority(). */
gt_status net_group_send_start(net_group *g, int peer, uint32_t channel, const void *data, size_t size,
                               uint32_t priority, net_request **out);
gt_status net_group_recv_start(net_group *g, int peer, uint32_t channel, net_sink sink, net_request **out);

/* Scratch memory of the group, an arena, grown on demand: valid until the next call of it. */
gt_status net_group_scratch(net_group *g, size_t size, void **out);

#endif
