/* SPDX-License-Identifier: MIT */
/* net/collective/state.h - what this room keeps with a group. Only for this folder. */
#ifndef NET_COLLECTIVE_STATE_H
#define NET_COLLECTIVE_STATE_H

#include "net/collective/algorithm.h"

#include <pthread.h>

enum { NET_KINDS = NET_OP_BROADCAST + 1, NET_BUCKETS = 2 * 64 };

/* An operation as it was asked for. */
typedef struct net_call {
    net_kind kind;
    void *x;
    uint64_t count;
    const uint64_t *counts;         /* NULL: net_part()                                   */
    net_type type;
    int root;                       /* -1: none                                           */
    net_algorithm wish;             /* NET_AUTO: chosen                                   */
    const double *weights;          /* NULL: from the links                               */
    uint32_t priority;              /* of what it sends                                   */
    const net_filling *filling;     /* NULL: x is there                                   */
} net_call;

struct net_collective {
    net_call call;                  /* with its own copies of counts and weights          */
    struct net_state *state;
    net_collective *next;
    int done;
    uint64_t began, ended;
    gt_status result;
    char *sentence;                 /* of a failure: messages belong to threads           */
};

typedef struct net_state {
    net_group *group;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int busy;                       /* an operation is under way                          */
    net_collective *first, *last;   /* waiting for the thread                             */
    pthread_t thread;
    int threaded, stop;
    /* Only for whoever made it busy: */
    int measured, layered, boarded; /* boarded: it has been tried to make a board         */
    uint64_t board_most;            /* bytes up to which sums are made on it                  */
    net_link_matrix links;
    net_layers layers;
    uint64_t *begin;                /* [size + 1]                                         */
    unsigned char choice[NET_KINDS][NET_BUCKETS];   /* net_algorithm, 0: not chosen yet   */
} net_state;

/* The group's, made on first use. */
gt_status net_state_of(net_group *g, net_state **out);
/* Turns: in the order of the calls, after what was started before. */
void net_state_enter(net_state *s);
void net_state_leave(net_state *s);
/* Measures if that was not done yet. The caller has entered. */
gt_status net_state_links(net_state *s);

/* Makes a board, where one can be, if that was not tried yet. The caller has entered. */
gt_status net_state_board(net_state *s);
/* Measures how a board is used best, inside the operation that has made it; *most: bytes that are summed on it. */
gt_status net_board_tune(net_group *g, net_op *op, uint64_t *most);

/* Runs it; the caller has entered. */
gt_status net_call_run(net_state *s, const net_call *c);
/* Queues it for the group's thread. */
gt_status net_call_start(net_group *g, const net_call *call, net_collective **out);

#endif
