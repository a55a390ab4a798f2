/* SPDX-License-Identifier: MIT */
/* tests/job/stranger.h - the other end of a hello, by hand: for tests that lie, stop half-way,
 * or die. All of it blocks, a few seconds at most; -1 or 0 when the other end hung up. */
#ifndef TESTS_JOB_STRANGER_H
#define TESTS_JOB_STRANGER_H

#include "net/job/hello.h"
#include "net/job/wire.h"
#include "tests/job/gang.h"

/* Connects to 127.0.0.1. */
int stranger_dial(uint16_t port);
/* 1: all bytes are out. */
int stranger_send(int fd, const void *data, size_t size);
/* 1 if the other end closes within a few seconds; what it says meanwhile is thrown away. */
int stranger_is_dropped(int fd);
/* Says this hello and proves it with the key of `who`'s job. 1: a verdict came, into *verdict;
 * the wire is open if it was GT_OK. */
int stranger_enter(int fd, const net_identity *who, const net_hello *hello, net_wire *wire, net_notice *verdict);
/* Waits for a control message of that type; 1 if one came, its body in the wire. */
int stranger_receive(net_wire *wire, net_type type, const unsigned char **body, size_t *length);
/* Enters as a member that listens nowhere, on a host of this id (0: this one). 1: it is in. */
int stranger_join(const net_identity *who, const net_config *config, uint16_t port, uint64_t host_id, net_wire *wire);

/* What a stranger saw that runs beside a gang, against rank 0's port; what the numbers say is the test's. */
typedef struct stranger_visit {
    gang *g;
    int done;
    net_notice verdict;
    int entered;
} stranger_visit;
/* Runs the gang, and the stranger beside it as a thread with v for its argument, and waits for both. */
void stranger_beside(gang *g, void *(*stranger)(void *), stranger_visit *v);

#endif
