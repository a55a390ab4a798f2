/* SPDX-License-Identifier: MIT */
/* net/job/door.h - the line between a launcher and a rank on another host, over TCP.
 *
 *   rank    connects ── hello, proofs (hello.h) ──►   launcher    knows it, or does not answer
 *           READY ... ──────────────────────────►                 words of elastic.h, each authentic (wire.h)
 *
 * The key of the proofs is made from the secret that both have. Who knocks without it learns nothing, and nobody
 * waits for it: the launcher never blocks here. */
#ifndef NET_JOB_DOOR_H
#define NET_JOB_DOOR_H

#include "net/job/address.h"
#include "net/job/wire.h"

enum { NET_DOOR_GUEST = NET_WORLD - 1 };        /* the place of a rank that the launcher did not start */

typedef struct net_door net_door;

/* Listens at `at`; ports as net_listen(). */
gt_status net_door_open(net_door **out, const net_address *at, uint16_t first, uint16_t ports,
                        const unsigned char secret[NET_SECRET]);
void net_door_close(net_door *d);              /* takes NULL */
gt_status net_door_address(net_address *out, const net_door *d);
/* What to poll for reading: the door, and those who stand in it. At most NET_DOOR_FDS. */
enum { NET_DOOR_STANDING = 8, NET_DOOR_FDS = NET_DOOR_STANDING + 1 };
int net_door_fds(const net_door *d, int fds[NET_DOOR_FDS]);
/* 1: *out is the line of one that has proven itself, and *place what it says it is. 0: nobody yet. */
int net_door_enter(net_door *d, net_wire *out, int *place);

/* The rank's end: connects to "host:port" until the deadline (gt_now_ns). */
gt_status net_door_knock(net_wire *out, const char *address, const unsigned char secret[NET_SECRET], int place,
                         uint64_t deadline);

/* "10.0.0.1:29000" or "[fd00::2]:29000"; port 0: none was given. GT_MISUSE if it is neither. */
gt_status net_door_parse(char host[256], uint16_t *port, const char *text);

#endif
