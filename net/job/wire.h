/* SPDX-License-Identifier: MIT */
/* net/job/wire.h - control messages over one socket, without ever blocking.
 *
 * Outgoing messages queue; the same body may stand in many queues at once (an abort, an
 * exchange's result), so it is counted, not copied. One thread at a time.                */
#ifndef NET_JOB_WIRE_H
#define NET_JOB_WIRE_H

#include "net/job/address.h"
#include "net/job/control.h"

/* A body that several wires may hold. */
typedef struct net_body {
    size_t users, size;
    unsigned char data[];
} net_body;
net_body *net_body_create(size_t size);         /* one user; NULL when out of memory         */
void net_body_release(net_body *b);             /* takes NULL                                */

typedef struct net_outgoing net_outgoing;

typedef struct net_wire {
    int fd;
    int size;                                   /* ranks of the job: bounds bodies           */
    unsigned char send_key[NET_SECRET], receive_key[NET_SECRET];
    uint64_t sent, received;                    /* the counters                              */
    net_outgoing *first, **last;                /* waiting to go out                         */
    unsigned char head[NET_HEAD], mac[NET_MAC];
    unsigned char *body;
    size_t got, room;                           /* of head, body and mac together            */
} net_wire;

/* Takes over fd. */
void net_wire_init(net_wire *w, int fd, int size, const unsigned char send_key[NET_SECRET],
                   const unsigned char receive_key[NET_SECRET]);
/* Closes the socket if it is still the wire's; fine on a zeroed wire with fd -1. */
void net_wire_close(net_wire *w);

/* Queues a message; body may be NULL for none, and stays the caller's. */
gt_status net_wire_queue(net_wire *w, net_type type, net_body *body);
gt_status net_wire_queue_bytes(net_wire *w, net_type type, const void *body, size_t size);
/* Writes what the socket takes. GT_PEER if it is broken. */
gt_status net_wire_flush(net_wire *w);
int net_wire_pending(const net_wire *w);

/* Reads what is there: *got is 1 when a whole, authentic message is; its body is valid until
 * the next call. GT_PEER: the other end closed or broke. GT_FORMAT: it is not authentic.  */
gt_status net_wire_receive(net_wire *w, net_head *head, const unsigned char **body, int *got);

#endif
