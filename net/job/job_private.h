/* SPDX-License-Identifier: MIT */
/* net/job/job_private.h - the job, as the files of this room see it.
 *
 *   join.c       becoming a member: listener, finding rank 0, member list
 *   handshake.c  the hello, from both ends; strangers end here
 *   serve.c      the thread: one epoll set, timers, control messages
 *   watch.c      who is dead, silent, stuck, or has left
 *   end.c        how a job ends: aborts, leaving
 *   job.c        the calls of job.h that are left
 *
 * One lock guards everything below; whoever holds it never blocks. Any thread may serve:
 * a caller of net_job_abort() does so itself, for the job's own thread may be inside a
 * callback that waits for that caller. Callbacks run without the lock, on the job's thread
 * alone, one at a time (`calling`).                                                      */
#ifndef NET_JOB_JOB_PRIVATE_H
#define NET_JOB_JOB_PRIVATE_H

#include "net/job/address.h"
#include "net/job/control.h"
#include "net/job/job.h"
#include "net/job/stall.h"
#include "net/job/wire.h"

#include <pthread.h>
#include <stdatomic.h>

enum { HANDSHAKES = 64 };               /* connections that have not proven themselves yet   */

/* A connection whose other end has not proven itself yet. */
typedef struct handshake {
    int fd;                             /* -1: free                                          */
    uint64_t since, deadline;
    unsigned char theirs[NET_HELLO], ours[NET_HELLO], proof[NET_MAC];
    size_t got;                         /* of their hello and proof                          */
    int answered;
} handshake;

/* A stream that came and waits to be handed over. */
typedef struct arrival {
    struct arrival *next;
    int peer, fd;
} arrival;

typedef struct rank_state {
    net_member member;
    char name[96];                      /* "rank 3 (nodeB, pid 4711)"                        */
    int arrived;                        /* its MEMBER or the member list is here             */
    int linked;                         /* wire is open: rank 0 has all, others that to 0    */
    net_wire wire;
    uint64_t heard;                     /* when anything last came                           */
    net_beat beat;                      /* what it last said that it does                    */
    uint64_t beat_at;
    int warned;                         /* of its silence                                    */
    int left;
    char leave_reason[NET_SENTENCE];
    /* its share of the exchange that rank 0 collects */
    net_body *contribution;
    uint64_t contribution_sequence, contribution_since;
    char contribution_what[NET_WHAT];
} rank_state;

/* An abort that blames another rank is held back for a moment: that rank, or the end of its
 * connection, may know better why. */
typedef struct pending {
    int on;
    uint64_t deadline;
    net_notice notice;
} pending;

struct net_job {
    const net_config *config;
    const net_identity *who;
    int rank, size;
    unsigned char key[NET_SECRET];
    rank_state *peers;
    uint64_t host_id;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_mutex_t calling;            /* held while a callback runs; taken before lock     */
    pthread_t thread;
    int started, stopping;
    int epoll, doorbell, listener;
    int listening;                      /* the listener is in the epoll set                  */
    int said_cannot_accept;
    uint64_t listen_again;              /* after too many handshakes or descriptors          */
    net_address address;                /* where the listener is                             */
    handshake handshakes[HANDSHAKES];
    arrival *arrivals;
    int arrival_count;

    int joined;                         /* the member list is complete                       */
    int told;                           /* ranks that know why the start failed              */
    int arrived;                        /* members so far, on rank 0                         */
    uint64_t start_deadline;
    char refused[256];                  /* the last connection turned away, and why          */
    unsigned refusals;

    atomic_int over;
    net_notice end;
    pending pending;

    int leaving, everyone_left;         /* this rank waits for the others · all have left    */
    uint64_t next_beat, last_pass;
    uint64_t sequence;                  /* exchanges begun by this rank                      */
    int contributions, first_contribution;  /* shares that rank 0 has, and whose came first      */
    net_body *all;                      /* the result of the running one                     */
    uint64_t all_sequence;
    uint64_t warned_stall;              /* the stall that was reported last                  */
    uint64_t stall_key, stall_since;    /* the stall that is seen now, and since when        */

    void (*on_stream)(void *, int, int);
    void *stream_context;
    void (*on_abort)(void *);
    void *abort_context;
    int abort_told;
    void (*on_activity)(void *, net_activity *);
    void *activity_context;
};

/* ---- handshake.c ------------------------------------------------------------------------- */
/* Proves to a peer at the other end of fd who we are, and it to us; the wire is ready for
 * control messages then, and owns fd. *refused is 1 if it knows the secret and says no: its
 * sentence is gt_message(), and trying elsewhere makes no sense. */
gt_status handshake_connect(net_job *j, int fd, net_role role, int peer, uint64_t deadline, const net_stop *stop,
                            net_wire *wire, int *refused);
void handshake_accept_all(net_job *j);                      /* the listener is readable      */
void handshake_continue(net_job *j, int slot);              /* a handshake's socket is       */
void handshake_expire(net_job *j, uint64_t now);
void handshake_drop(net_job *j, int slot);
void handshake_note(net_job *j, int fd, const char *why);   /* remembers a refusal           */

/* ---- serve.c ----------------------------------------------------------------------------- */
enum { WATCH_DOORBELL, WATCH_LISTENER, WATCH_HANDSHAKE, WATCH_LINK };
gt_status serve_watch(net_job *j, int fd, int kind, int index);
void serve_wake(net_job *j);                                /* wakes the thread              */
/* Waits for events at most `limit` ns and handles them; takes the lock itself. */
void serve_once(net_job *j, uint64_t limit);
void *serve_thread(void *job);
/* Sends and flushes; a broken link is left to be noticed as such. */
void serve_send(net_job *j, int to, net_type type, net_body *body);
void serve_send_bytes(net_job *j, int to, net_type type, const void *body, size_t size);
void serve_unlink(net_job *j, int rank);

/* ---- end.c ------------------------------------------------------------------------------- */
/* The job is over for this reason, if it was not before. On rank 0 all others are told. */
void end_job(net_job *j, gt_status code, int culprit, const char *format, ...) __attribute__((format(printf, 4, 5)));
void end_asked(net_job *j, int from, const net_notice *n);  /* rank 0: a rank wants an end   */
void end_tick(net_job *j, uint64_t now);
void end_left(net_job *j, int rank, const char *leave_reason);
gt_status end_status(const net_job *j);

/* ---- watch.c ----------------------------------------------------------------------------- */
void watch_lost(net_job *j, int rank, const char *why);     /* its link ended                */
void watch_beat(net_job *j, uint64_t now);                  /* sends signs of life           */
void watch_silence(net_job *j, uint64_t now);
void watch_stalls(net_job *j, uint64_t now);

/* ---- join.c ------------------------------------------------------------------------------ */
void join_member(net_job *j, int rank, const net_head *head, const unsigned char *body);
void join_member_list(net_job *j, const net_head *head, const unsigned char *body);
void join_late(net_job *j, uint64_t now);                   /* rank 0: the start's deadline  */
void join_name(net_job *j, int rank);

/* ---- job.c ------------------------------------------------------------------------------- */
void exchange_contribution(net_job *j, int rank, const net_head *head, const unsigned char *body);
void exchange_all(net_job *j, const net_head *head, const unsigned char *body);
/* Whether a rank that left is still waited for by an exchange. */
void exchange_check_left(net_job *j);
/* "ranks 1, 2 and 3" of those with mark[i]; into out, which it returns. */
char *rank_list(char *out, size_t size, const unsigned char *mark, int ranks);

#endif
