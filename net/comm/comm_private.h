/* SPDX-License-Identifier: MIT */
/* net/comm/comm_private.h - what the files of this room share.
 *
 *   comm.c      opening, the one lock, progress, waiting
 *   match.c     requests and messages find each other by tag
 *   queue.c     sends that let more urgent ones go first
 *   pair.c      two ranks agree on a transport and prove it
 *   group.c     groups, operations, agreement
 *   board.c     memory that the ranks of a group share
 *   recorder.c  what happened lately, what is late; dump.c writes it as JSON                                      */
#ifndef NET_COMM_PRIVATE_H
#define NET_COMM_PRIVATE_H

#include "net/comm/group.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    TRANSPORTS = 3,
    RECORDS = 256,
    AGREE_TEXT = 24,
    BOARD_POLLS = 100,              /* looks at a board before others get the processor        */
    BOARD_FEW = 15,                 /* the same where ranks are more than processors: some of
                                       those that are waited for cannot run meanwhile          */
    CROWDED_SPIN = 50000            /* ns of polling before sleep, there                       */
};

typedef struct pair pair;

/* ---- tags and what waits under them -------------------------------------------------------- */

typedef struct tag {
    uint64_t context;               /* a group's id                                            */
    uint64_t sequence;              /* an operation's number, or channel << 32 | n-th message  */
    uint32_t step;                  /* of the operation                                        */
    int32_t peer;
} tag;

typedef enum node_kind {
    NODE_RECEIVE,                   /* a request: waits for an eager message, or has a window  */
    NODE_SEND,                      /* a request: waits for the peer's window                  */
    NODE_EAGER,                     /* came before its receive was started                     */
    NODE_READY,                     /* a window that opened before the send was started        */
    NODE_INTENT,                    /* the peer wants to send more than an eager message       */
    NODE_AGREED,                    /* what the previous rank of a group says about an operation */
    NODE_EXPECTED,                  /* what we said, until it has spoken                       */
    NODE_CHANNEL_SEND,
    NODE_CHANNEL_RECEIVE            /* one direction of a channel                              */
} node_kind;

typedef struct node {
    struct node *next;
    tag key;
    node_kind kind;
} node;

typedef struct table {
    node **bucket;
    size_t buckets, count;
} table;

gt_status table_open(table *t);
void table_insert(table *t, node *n);
node *table_find(const table *t, const tag *key, node_kind kind);
void table_remove(table *t, node *n);
/* Calls drop for every node left, and frees the table. */
void table_release(table *t, void (*drop)(node *n));

/* ---- requests -------------------------------------------------------------------------------- */

/* One direction of a channel to one peer: its messages in their order. */
typedef struct channel_end {
    node node;
    uint64_t n;                     /* messages so far                                         */
    size_t last;                    /* bytes of the last one                                   */
    /* Windows the peer was told of and has not filled; receives whose windows it will be told of. */
    uint32_t told, held_count;
    uint64_t told_bytes;
    struct net_request *held, **held_last;
} channel_end;

struct net_request {
    node node;                      /* in the table while unfinished                           */
    net_comm *comm;
    pair *pair;
    net_op *op;
    atomic_int done;
    int tabled, blocked, held, told;    /* held, told: of a channel's windows                 */
    channel_end *channel;           /* NULL: of an operation                                   */
    uint32_t window;                /* 0: none                                                 */
    net_sink sink;
    net_loan loan;                  /* of a receive that was lent its bytes                     */
    const void *data;
    size_t size;
    uint32_t priority;              /* of a send, 0: waits for nobody                           */
    int waits, flies;               /* in the pair's queue; given to the link from there        */
    uint32_t window_there;          /* 0: it goes eagerly                                       */
    const unsigned char *descriptor;
    unsigned char *descriptor_kept; /* while it waits                                           */
    size_t descriptor_size;
    uint64_t began;                 /* gt_trace_now() of one that is traced, else 0            */
    int32_t of_step, of_micro_batch, of_chunk;  /* of a traced send, as in gt_span             */
    net_request *next;              /* of the pair's blocked or waiting sends, the channel's held
                                       receives, or the free list                              */
    net_request *op_next, **op_link;
};

/* The head of every message. Host byte order: both ends have the same. */
typedef enum message_type {
    MESSAGE_EAGER = 1,
    MESSAGE_READY,
    MESSAGE_INTENT,
    MESSAGE_CREDIT,
    MESSAGE_AGREE,
    MESSAGE_FIN,
    MESSAGE_PROBE,
    MESSAGE_PROBE_READY
} message_type;

typedef struct message {
    uint32_t type, step;
    uint64_t context, sequence, size;
    uint32_t window, reserved;
} message;

typedef struct agreement_node {
    node node;
    net_agreement what;
    char name[AGREE_TEXT];
} agreement_node;

/* ---- groups ---------------------------------------------------------------------------------- */

struct net_op {
    net_group *group;
    uint64_t sequence, record;
    const char *name;
    net_agreement what;
    uint32_t priority;              /* of its sends                                            */
    size_t posted;                  /* bytes of the last post on the board                     */
    net_request *requests;
    pair *told;                     /* what the operation is; NULL: nobody                     */
};

struct net_group {
    net_comm *comm;
    net_group *next, **link;
    uint64_t id, sequence;
    int rank, size;
    int *ranks;
    _Atomic(void *) attached;
    void (*release)(void *data);
    void *scratch;
    size_t scratch_size;
    int busy;
    net_op op;
    struct group_board *board;      /* NULL: none                                              */
};

/* What travels about an operation. */
typedef struct group_claim {
    uint32_t kind, type, algorithm;
    int32_t root;
    uint64_t count;
    char name[AGREE_TEXT], unit[AGREE_TEXT];
} group_claim;

/* ---- pairs ----------------------------------------------------------------------------------- */

typedef enum pair_state { PAIR_NONE, PAIR_LEADING, PAIR_FOLLOWING, PAIR_UP, PAIR_BROKEN } pair_state;

/* Sends of a pair, most urgent first, of equals the first that came. */
typedef struct line {
    net_request *first, *last;
} line;

typedef struct probe {
    int active, heard, opened, placed, sent;
    uint64_t nonce;
    unsigned char out[4096], in[4096];
} probe;

struct pair {
    net_comm *comm;
    int peer;
    pair_state state;
    const net_transport_ops *ops;
    net_link *link;
    probe *probe;
    /* Eager messages may pile up at the other end; it says how much it has taken. */
    uint64_t eager_sent, eager_acknowledged, eager_taken, eager_reported;
    line blocked;
    line waiting;                   /* sends with a priority, see queue.c                      */
    uint64_t flying;                /* bytes of puts with a priority that the link has         */
    size_t kept;                    /* messages in the table that came before what they are for */
    uint64_t messages_sent, messages_received, fin;
    int fin_sent, fin_received;
    uint64_t broken_since;
    char *broken_why;
    uint64_t bytes_sent, bytes_received;
};

/* ---- the communicator ------------------------------------------------------------------------- */

typedef struct record {
    const char *name, *phase;
    uint64_t group, sequence, begun, ended;     /* ns; ended 0: running                       */
    net_agreement what;
    int step, members;
    gt_status status;
} record;

typedef struct recorder {
    pthread_mutex_t lock;           /* its own, so that the job's thread may ask at any time   */
    record ring[RECORDS];
    uint64_t started, finished;
    uint64_t waiting_since;         /* of a wait that sleeps; 0: none                          */
    int waiting_for;
    const char *busy;               /* what it computes, NULL: nothing long                     */
    const char *waiting;            /* "to receive", so many bytes                             */
    size_t waiting_size;
} recorder;

struct net_comm {
    const net_config *config;
    net_job *job;
    int rank, size;
    net_memory_set *memory;
    const net_transport_ops *ops[TRANSPORTS];
    net_transport *transport[TRANSPORTS];
    char *refused[TRANSPORTS];      /* why a transport cannot work here                        */
    int transports;

    pthread_mutex_t lock;           /* over all below and all calls of transports              */
    atomic_int wanted;              /* threads that want the lock                              */
    pthread_cond_t changed;         /* a request is done, the poller's place is free, a pair is up */
    pthread_cond_t idle;            /* the background thread waits on it                       */
    int polling, waiters, closing, shut;
    int poller_sleeps;              /* the poller sleeps until there is news                   */
    uint64_t outstanding, spin;
    uint64_t rounds;                /* of progress that did something                          */
    int crowded;                    /* more ranks on this host than processors                 */
    atomic_int sleep_next;          /* so many waits sleep without polling, see comm_yield()   */
    uint64_t traced_bytes;          /* sent while tracing                                      */
    int waiting;                    /* sends that wait for more urgent ones, of all pairs      */
    uint64_t waited, overtaken;     /* how many did so far, and by how many each was passed    */
    int epoll, wake;

    pair **pairs;
    table tags;
    net_request *spare;
    net_request **windows;          /* by window number's low 20 bits                          */
    uint32_t *window_round;
    uint32_t window_count, window_free;

    net_group *world, *groups;
    recorder recorder;

    pthread_t background, acceptor;
    int background_runs, acceptor_runs;
    struct arrival *arrivals;       /* streams that peers opened                               */
    pthread_cond_t arrived;
};

/* comm.c */
void comm_lock(net_comm *c);
void comm_unlock(net_comm *c);
/* One round of progress of everything, lock held. */
int comm_progress(net_comm *c);
/* Wakes threads that sleep in a wait: a request is done that no transport had a part in. */
void comm_wake(net_comm *c);
/* The same for a poller that sleeps while another thread starts something: to start is no news. */
void comm_wake_poller(net_comm *c);
/* The job is over: nothing may touch the caller's memory any more. Lock held. */
void comm_shut(net_comm *c);
/* Gives the processor away. 1: it was long in coming back, so others compute and do not wait as this rank
 * does; this wait and the next ones had better sleep, for who is woken goes before those. */
int comm_yield(net_comm *c);
/* Nanoseconds of polling before sleep, for the wait that begins. */
uint64_t comm_patience(net_comm *c);
/* Waits until `*flag` or the job is over; lock held on entry and exit. */
gt_status comm_wait(net_comm *c, const atomic_int *flag, int peer, const char *what, size_t size);
extern const net_events comm_events;

/* match.c: lock held */
/* `of`: the channel of the message, NULL for one of an operation. */
gt_status match_send(pair *p, const tag *key, channel_end *of, const void *data, size_t size, uint32_t priority,
                     net_request **out);
gt_status match_receive(pair *p, const tag *key, channel_end *of, net_sink sink, net_request **out);
void match_message(pair *p, const message *m, const void *body, size_t size);
void match_placed(pair *p, uint32_t window);
void match_lent(pair *p, uint32_t window, net_loan loan);
void match_finish(net_request *r);
void match_forget(net_request *r);          /* of a job that is over */
void match_release(net_comm *c);
gt_status match_post(pair *p, message *m, const void *body, size_t size);
/* A channel in this direction, made when it is first asked for. */
gt_status match_channel(net_comm *c, const tag *key, node_kind kind, channel_end **out);

/* Bytes that can go now: to a window, or eagerly as soon as the other end has room for early messages. */
gt_status match_put(net_request *r, uint32_t window, const unsigned char *descriptor, size_t size);
gt_status match_eager(net_request *r);

/* queue.c: lock held */
/* Returns how many it went in front of. */
uint64_t line_enter(line *l, net_request *r);
void line_leave(line *l, net_request *r);
/* A send that could go: now, or in its turn. window 0: eagerly. */
gt_status queue_send(net_request *r, uint32_t window, const unsigned char *descriptor, size_t size);
/* Gives links that would run dry the most urgent that waits; 1: some did. */
int queue_release(net_comm *c);
void queue_landed(net_request *r);          /* the link is done with it */
void queue_forget(net_request *r);          /* of a job that is over */

/* pair.c */
/* The pair of a peer, its link up; takes and gives back the lock while it waits. Lock held. */
gt_status pair_get(net_comm *c, int peer, pair **out);
void pair_arrival(void *comm, int peer, int fd);
void *pair_acceptor(void *comm);
void pair_probe_message(pair *p, const message *m, const void *body, size_t size);
void pair_release(pair *p);

/* group.c: lock held */
void group_agreed(pair *p, const message *m, const void *body, size_t size);
gt_status group_world(net_comm *c);
void group_release_all(net_comm *c);
void group_claim_numbers(group_claim *out, const net_agreement *what);
void group_claim_names(group_claim *out, const char *name, const char *unit);
/* Ends the job: `peer`, a rank of the communicator, says something else than this one. */
void group_disagreed(net_comm *c, int peer, uint64_t sequence, const group_claim *theirs, const group_claim *mine);

/* board.c */
/* An operation of messages, which those who wait at the board must hear of. */
void group_board_tells(net_group *g, const group_claim *claim);
void group_board_release(struct group_board *b);

/* recorder.c: any time */
void recorder_open(recorder *r);
void recorder_close(recorder *r);
uint64_t recorder_begin(recorder *r, const record *what);   /* its number */
void recorder_phase(recorder *r, uint64_t number, const char *phase, int step);
void recorder_end(recorder *r, uint64_t number, gt_status st);
/* "to receive" (a literal), so many bytes; NULL: no more. Waits that sleep are many and short, so the
 * text is made by who asks. */
void recorder_waits(recorder *r, int peer, const char *what, size_t size);
/* The text of a wait, with the recorder's lock held. */
void recorder_waiting(const recorder *r, char *out, size_t size);
void recorder_activity(void *comm, net_activity *out);

/* dump.c: lock held or not */
void dump_after_abort(net_comm *c);

#endif
