/* SPDX-License-Identifier: MIT */
/* net/collective/algorithm.h - what an algorithm gets, and the table of them.
 *
 * Only for the files of this folder. An algorithm sees participants 0..size, a vector x cut into
 * parts, and numbered messages to other participants; it does not know whether these are
 * the whole group or the ranks of one host. So hierarchical is made of the others.
 *
 * Adding one: a file algorithm_NAME.c, its row in algorithms.c, its formula in cost.c.   */
#ifndef NET_COLLECTIVE_ALGORITHM_H
#define NET_COLLECTIVE_ALGORITHM_H

#include "net/collective/cost.h"

/* Who shares a host. Lane j: the j-th rank of every host. Hosts may differ in size; `lanes` is the
 * smallest one's. */
typedef struct net_layers {
    int hosts, lanes, largest;
    int host, place;                /* this rank's host, and its place in it              */
    int *member;                    /* [hosts][largest] group ranks, -1 beyond a host's   */
    int *count;                     /* [hosts]                                            */
    net_link_matrix inside, across; /* among this host's ranks; between the first of each */
} net_layers;
gt_status net_layers_make(net_layers *out, const net_link_matrix *m, int rank);
void net_layers_release(net_layers *l);

/* One operation under way. */
typedef struct net_task {
    net_group *group;
    net_op *op;
    net_kind kind;                  /* all-reduce, reduce-scatter, all-gather or broadcast */
    const int *member;              /* participant -> rank of the group; NULL: the same    */
    int rank, size;                 /* this participant among `size`                      */
    int root;                       /* broadcast: a participant                           */
    unsigned char *x;
    const uint64_t *begin;          /* [size + 1] part i is elements [begin[i], begin[i+1]) */
    uint64_t count;                 /* begin[size]                                        */
    net_type type;
    size_t grain;                   /* bytes of an element                                */
    net_reduce reduce;
    size_t piece;                   /* bytes of a pipelined piece, at least an element    */
    uint32_t step;                  /* first step number not used yet; alike on all       */
    const net_layers *layers;       /* hierarchical: who shares a host                    */
    int on_board;                   /* no messages: exchange and barrier use the board     */
    const net_filling *filling;     /* NULL: x is there                                   */
} net_task;

typedef gt_status (*net_algorithm_run)(net_task *t);
gt_status net_run_ring(net_task *t);
gt_status net_run_halving_doubling(net_task *t);
gt_status net_run_recursive_doubling(net_task *t);
gt_status net_run_direct(net_task *t);
gt_status net_run_hierarchical(net_task *t);
gt_status net_run_tree(net_task *t);
gt_status net_run_exchange(net_task *t);
gt_status net_run_chain(net_task *t);          /* what ring is for a broadcast */
gt_status net_run_all_to_all(net_task *t);
gt_status net_run_barrier(net_task *t);

/* The table's row for an algorithm: what runs it, in which kinds it exists, why one takes it. */
net_algorithm_run net_algorithm_runner(net_algorithm a);
int net_algorithm_has(net_algorithm a, net_kind kind);
const char *net_algorithm_reason(net_algorithm a);
const char *net_kind_name(net_kind kind);

/* A share of `direct` is cut into so many pieces, or fewer, so that none is smaller. */
enum { NET_DIRECT_PIECES = 32, NET_DIRECT_SMALLEST = 32 << 10 };

/* ---- messages --------------------------------------------------------------------------- */

/* Until elements [from, from + count) of x are there: whoever reads or writes x asks. Messages do by themselves. */
gt_status net_task_filled(const net_task *t, uint64_t from, uint64_t count);

/* Elements [from, from + count) of x. */
gt_status net_task_send(net_task *t, int to, uint32_t step, uint64_t from, uint64_t count, net_request **out);
gt_status net_task_recv(net_task *t, int from, uint32_t step, uint64_t at, uint64_t count, int reduce,
                        net_request **out);
gt_status net_task_recv_into(net_task *t, int from, uint32_t step, void *data, uint64_t count, net_request **out);
/* The same, but they may stay where the sender has them: see net_borrow_start(); for net_borrow_wait(). */
gt_status net_task_borrow(net_task *t, int from, uint32_t step, void *data, uint64_t count, net_request **out);
void net_task_give_back(net_task *t, int from, net_loan *loan);

/* Requests in the order they were started, at most NET_FLIGHT at once: the one more waits for
 * the oldest. */
enum { NET_FLIGHT = 16 };
typedef struct net_flight {
    net_request *r[NET_FLIGHT];
    uint64_t started, ended;
} net_flight;
gt_status net_flight_add(net_flight *f, net_request *r);
gt_status net_flight_wait(net_flight *f, uint64_t upto);   /* all with index < upto */
gt_status net_flight_land(net_flight *f);                  /* all */

/* ---- cutting ---------------------------------------------------------------------------- */

/* Elements of the largest part. */
uint64_t net_task_largest(const net_task *t);
/* How many pieces of `piece` bytes make `count` elements, 1 at least. */
uint64_t net_task_pieces(const net_task *t, uint64_t count);
/* Piece k of `pieces` of part i: cut at multiples of 64 bytes, so that loops stay aligned. */
void net_task_piece(const net_task *t, int part, uint64_t k, uint64_t pieces, uint64_t *from, uint64_t *count);

/* ---- ranks beyond a power of two -------------------------------------------------------- */

/* The first 2 `extra` participants go in pairs; the even one stands for both. virtual: -1 for
 * the odd ones, which only hand their data in and get the result. */
typedef struct net_fold {
    int size, extra, virtual;
} net_fold;
net_fold net_fold_of(int rank, int size);
int net_fold_real(const net_fold *f, int virtual);

#endif
