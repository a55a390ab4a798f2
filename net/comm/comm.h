/* SPDX-License-Identifier: MIT */
/* net/comm/comm.h - messages between ranks.
 *
 *   net_comm *c;
 *   net_comm_open(&c, config, &identity);
 *   float *x = net_comm_memory(c, bytes);            an arena: fastest to send from and into
 *   net_recv_start(c, left, 0, x, bytes, &in);       several in flight, either order
 *   net_send_start(c, right, 0, y, bytes, &out);
 *   net_wait(in); net_wait(out);
 *
 * The pair's transport (shared memory, verbs, tcp) is chosen when two ranks first talk: the
 * best that both ends have and a probe proves. Messages between two ranks match by channel
 * and order: the n-th send to a channel meets the n-th receive from it, and both must give
 * the same size (an error that names both otherwise).
 *
 * Errors     any failure of a peer, a link or of agreement ends the whole job, on all ranks
 *            and with one sentence: GT_PEER, from every call from then on. Nothing hangs:
 *            see net_activity in net/job/job.h.
 * Ownership  buffers are the caller's; leave them alone between start and wait.
 * Threads    any; a request is waited for by one. A thread of the communicator moves bytes
 *            while nobody waits, so transfers overlap with computing.
 * Units      bytes.                                                                     */
#ifndef NET_COMM_COMM_H
#define NET_COMM_COMM_H

#include "net/job/job.h"
#include "net/transport/memory.h"
#include "net/transport/transport.h"

typedef struct net_comm net_comm;
typedef struct net_request net_request;

/* Joins the job and opens the transports. config and who must outlive the communicator. */
gt_status net_comm_open(net_comm **out, const net_config *config, const net_identity *who);
/* Waits for unfinished sends, leaves the job together with the others. Takes NULL. */
void net_comm_close(net_comm *c);

int net_comm_rank(const net_comm *c);
int net_comm_size(const net_comm *c);
net_job *net_comm_job(net_comm *c);
/* GT_OK, or why the job is over. */
gt_status net_comm_check(net_comm *c);
gt_status net_comm_abort(net_comm *c, int culprit, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Arenas that every transport reaches without copying, all zero. NULL with a sentence when there is no
 * memory or the memory lock limit is too small. Freed with the communicator at the latest. */
gt_status net_comm_memory(net_comm *c, size_t size, void **out);
void net_comm_memory_free(net_comm *c, void *data);

/* Point to point. channel: any number up to 2^30, the users' own. size may be 0. */
gt_status net_send_start(net_comm *c, int peer, uint32_t channel, const void *data, size_t size, net_request **out);
gt_status net_recv_start(net_comm *c, int peer, uint32_t channel, void *data, size_t size, net_request **out);
/* As net_recv_start, but where both ranks share memory the bytes may stay where the sender has them, in an
 * arena: they are lent. net_borrow_wait() tells, as net_wait does: loan->data is where they are, and
 * until net_borrow_end() the sender's net_wait goes on; NULL: they are in `data`, and there is nothing to
 * give back. A loan ends before the communicator is closed; what it maps stays at least as long. */
gt_status net_borrow_start(net_comm *c, int peer, uint32_t channel, void *data, size_t size, net_request **out);
gt_status net_borrow_wait(net_request *r, net_loan *loan);
void net_borrow_end(net_comm *c, int peer, net_loan *loan);    /* *loan is empty then */
/* Waits and frees the request, whatever the result. Takes NULL (GT_OK). */
gt_status net_wait(net_request *r);
/* 1 if net_wait would not wait; frees nothing. */
int net_test(net_request *r);
/* Waits until one of r[0..n) is done (NULLs are passed over) or `timeout` nanoseconds are over:
 * *which is its index, or -1. Frees nothing. For servers. */
gt_status net_wait_any(net_comm *c, net_request *const *r, int n, uint64_t timeout, int *which);

/* Wakes the communicator's thread, which otherwise looks a millisecond later at what was started
 * while it slept: for transfers that nobody waits for soon. */
void net_comm_signal(net_comm *c);

/* What carries the bytes to a peer, for people; makes the link if there is none yet. */
gt_status net_comm_describe(net_comm *c, int peer, char *out, size_t size);
/* The transport's name of an existing link ("shm", "verbs", "tcp", "self"), or "". */
const char *net_comm_transport(net_comm *c, int peer);
/* Makes the links to all peers now, instead of on first use. All ranks call it. */
gt_status net_comm_connect_all(net_comm *c);

/* Bytes of messages sent to / received from all peers so far. */
void net_comm_traffic(net_comm *c, uint64_t *sent, uint64_t *received);
/* This rank computes something that may take longer than stall-limit ("evaluating"; a literal):
 * while it does, ranks that wait for it are not stuck. NULL: it is over. */
void net_comm_busy(net_comm *c, const char *what);

/* The flight recorder as JSON: the last 256 operations, what is waited for, links and counters.
 * Written by itself to <knob dump>/flight-rank-N.json when a job with that knob is aborted. Any
 * thread, also while others are stuck. */
gt_status net_comm_dump(net_comm *c, const char *why, gt_text *out);

/* Every counter of every transport. */
void net_comm_counters(net_comm *c,
                       void (*visit)(void *context, const char *transport, const char *name, uint64_t value),
                       void *context);

#endif
