/* SPDX-License-Identifier: MIT */
/* net/job/job.h - the ranks find each other, and know of each other's end.
 *
 *      rank 1 ──hello, HMAC──► rank 0 ◄──hello, HMAC── rank 2       control links: a star
 *         ◄──── members ───────┘ └─── members ────►                 heartbeats, aborts
 *         ◄════════════ streams between any two, on demand ═══════►
 *
 * Every process listens on one TCP port. All connections, to rank 0 and between peers, begin
 * with the same mutual challenge-response (HMAC-SHA256 over both nonces, ranks and roles; see
 * hello.h); whoever fails it is dropped and disturbs nobody. The control links stay open:
 * a killed peer shows as their end within milliseconds, a dead host as silence.
 *
 * A thread of the job serves the listener, heartbeats and aborts; it never blocks.
 *
 * Errors   after the first lost peer, abort or stall, net_job_check() gives GT_PEER and the
 *          same sentence on every rank, naming the rank, its host and the cause.
 * Threads  all calls from any thread, but join and leave; exchanges one at a time. Callbacks
 *          run on the job's thread, one at a time. Once net_job_on_...(job, NULL, NULL) has
 *          returned none of that kind runs any more: so call it without a lock that the
 *          callback takes.                                                               */
#ifndef NET_JOB_JOB_H
#define NET_JOB_JOB_H

#include "net/job/identity.h"

typedef struct net_job net_job;

/* One rank as the others know it. */
typedef struct net_member {
    int rank, local_rank, local_size;   /* local: among the ranks with the same host_id   */
    char host[64];
    uint64_t host_id;               /* equal: the same kernel and the same boot           */
    char address[64];               /* where it listens, numeric                          */
    uint16_t port;
    uint32_t pid;
    char version[32];
} net_member;

/* Blocks until all ranks are there and agree on version, byte order and configuration, or
 * until config's start_timeout; the sentence says who waited for whom. Both stay the
 * caller's and must outlive the job. */
gt_status net_job_join(net_job **out, const net_config *config, const net_identity *who);

/* All ranks leave together: waits for the others (bounded), then closes. After an abort it
 * closes at once. Takes NULL. */
void net_job_leave(net_job *job);

int net_job_rank(const net_job *job);
int net_job_size(const net_job *job);
const net_config *net_job_config(const net_job *job);
const net_member *net_job_member(const net_job *job, int rank);
/* "rank 3 (nodeB, pid 4711)" into `out`; returns out. */
char *net_job_name(const net_job *job, int rank, char *out, size_t size);

/* All-gather of small blobs (each <= 1 MiB, sizes may differ) through rank 0. Every rank
 * calls it, in the same order, with the same `what`, which messages quote. *all is freed by
 * net_blobs_release(). Not the fast path: for set-up. */
typedef struct net_blobs {
    unsigned char **data;
    size_t *size;
    int count;
} net_blobs;
gt_status net_job_exchange(net_job *job, const char *what, const void *mine, size_t size, net_blobs *all);
void net_blobs_release(net_blobs *b);
/* All ranks have come here. */
gt_status net_job_barrier(net_job *job, const char *what);

/* Connects to a peer's port and authenticates: an open blocking socket, the caller's. */
gt_status net_job_connect(net_job *job, int peer, int *fd);
/* What to do with authenticated connections of peers. Called by the job's thread: must not
 * block, and takes over fd. Connections that came earlier are handed over at once. */
void net_job_on_stream(net_job *job, void (*accept)(void *context, int peer, int fd), void *context);

/* GT_OK, or why the job is over. Cheap: one atomic load. */
gt_status net_job_check(const net_job *job);
/* Ends the job on all ranks with this sentence, as seen by this rank (`culprit` -1 if it is
 * nobody's fault). Only the first abort counts. Returns as net_job_check(). */
gt_status net_job_abort(net_job *job, int culprit, const char *sentence);
/* Called once, by the job's thread, when the job is over; wakes whoever waits. */
void net_job_on_abort(net_job *job, void (*wake)(void *context), void *context);

/* What this rank is doing, for stall reports: travels with each heartbeat. `started` and
 * `finished` count the operations of a rank, so that rank 0 sees who is behind; `waits_for`
 * is a rank or -1; `text` says what, "all-reduce #183, 25.0 MB f32, ring, step 2". When some
 * ranks wait longer than stall_report, rank 0 logs one warning that names operation, late
 * ranks and what each waits for; after stall_limit the job aborts. */
typedef struct net_activity {
    uint64_t started, finished;
    uint64_t since;                 /* gt_now_ns() when the oldest unfinished one began, 0: idle */
    int32_t waits_for;
    char text[116];                 /* idle: what it computes, if others may wait for it long */
} net_activity;
void net_job_on_activity(net_job *job, void (*ask)(void *context, net_activity *out), void *context);

#endif
