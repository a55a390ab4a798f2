/* SPDX-License-Identifier: MIT */
/* net/collective/collective.h - operations of all ranks of a group.
 *
 *   net_all_reduce(group, x, n, NET_F32, NULL);           blocking
 *   net_all_reduce_start(group, x, n, NET_F32, NULL, &r); net_collective_wait(r);
 *
 * Started ones run one after the other, in the order started, on a thread of the group, while
 * the caller computes. All ranks of a group call the same operations in the same order. Operations of several groups,
 * also of groups of the same ranks, run side by side; which of them has the links is a matter of options->priority:
 * what becomes ready later and is more urgent overtakes the rest between two pieces. Sums are the same bits in any
 * order, and ranks may give other priorities, or start in another order.
 *
 * All ranks get the same bits of a sum, and a given algorithm (with given shares, for `direct`)
 * adds in a fixed order, so another run gives them again. What is chosen by measurement may
 * differ between runs: to repeat one, name the algorithm, or hand the first run's matrix to
 * the next with net_group_links_set(). Two ranks never differ: a + b is b + a. 16-bit types
 * are added in fp32 and rounded once a hop (once in all with `direct` and `exchange`).
 *
 * The algorithm is chosen by net_choose() from the measured links; options->algorithm, --net
 * algorithm=NAME and NCCL_ALGO override it. Any count, 0 too; any number of ranks.
 *
 *   ring                2(p-1) steps, 2(p-1)/p n bytes a rank        large n, equal links
 *   halving-doubling    2 log p steps, the same bytes                middle n   (Rabenseifner 2004;
 *                       ranks beyond a power of two fold in first)
 *   recursive-doubling  log p steps of n bytes                       small n
 *   direct              2 steps, every rank owns a share and sums it; shares from net_shares(),
 *                       which makes it optimal on unequal links      small p, unequal links
 *   hierarchical        inside hosts, then between hosts lane by lane, then inside again
 *   exchange            every rank reads what all have and adds in the order of ranks: always of
 *                       ranks that share memory, on their board (net/comm/board.h)
 *   tree                log p messages from a root (and to it)           broadcast of small n
 * A broadcast's ring is a chain in pieces. Why what was chosen: GT_LOG=info,collective:debug. */
#ifndef NET_COLLECTIVE_COLLECTIVE_H
#define NET_COLLECTIVE_COLLECTIVE_H

#include "net/comm/group.h"

typedef enum net_type { NET_F32 = 1, NET_BF16, NET_F16, NET_I32 } net_type;
size_t net_type_size(net_type t);
const char *net_type_name(net_type t);
gt_status net_type_parse(net_type *out, const char *name);

typedef enum net_kind {                         /* net_agreement.kind; 0 is none */
                        NET_OP_ALL_REDUCE = 1,
                        NET_OP_REDUCE_SCATTER,
                        NET_OP_ALL_GATHER,
                        NET_OP_BROADCAST,
                        NET_OP_BARRIER,
                        NET_OP_PS,
                        NET_OP_LINKS,    /* measuring links */
                        NET_OP_ALL_TO_ALL,
                        NET_OP_BOARD     /* the last: making a board */
} net_kind;

/* Of a sum: x comes to be while it is under way. until() returns when elements [from, from + count) are there; an error
 * of its own ends the operation, on all ranks. It is called by one thread, whichever runs the operation, and must outlast
 * that. Sums round a ring and direct ones ask for the same piece of every rank's part first (of an all-reduce's ring
 * net_part(), of lines of 64 bytes), then for the next ones of all; others for everything before they begin. The bits
 * are the same. */
typedef struct net_filling {
    gt_status (*until)(void *context, uint64_t from, uint64_t count);
    void *context;
} net_filling;

typedef struct net_collective_options {
    const char *algorithm; /* NULL or "auto": chosen                              */
    const double *weights; /* direct: shares in proportion to these (one a rank),
                                       NULL: from the measured links                        */
    uint32_t priority; /* smaller goes first between pieces, 0 waits for nobody:
                                       net_op_priority()                                    */
    const net_filling *filling; /* NULL: all of x is there                              */
} net_collective_options;

/* x[i] = sum over ranks of x[i]. */
gt_status net_all_reduce(net_group *g, void *x, uint64_t count, net_type type, const net_collective_options *options);
/* Rank i of the group has counts[i] elements of x, one rank's after the other's: afterwards
 * its part of x holds the sum and the rest of x is undefined. counts NULL: as equal as can be,
 * see net_part(). The sum of counts is `count`. */
gt_status net_reduce_scatter(net_group *g, void *x, uint64_t count, const uint64_t *counts, net_type type,
                             const net_collective_options *options);
/* Rank i's part of x goes to everybody. Parts as above. */
gt_status net_all_gather(net_group *g, void *x, uint64_t count, const uint64_t *counts, net_type type,
                         const net_collective_options *options);
gt_status net_broadcast(net_group *g, void *x, uint64_t count, net_type type, int root,
                        const net_collective_options *options);
/* x has a block of count / ranks elements for each rank; afterwards block i is what rank i had for this one. GT_MISUSE
 * if count is not a multiple of the ranks. Straight between all pairs, whatever the configured algorithm. */
gt_status net_all_to_all(net_group *g, void *x, uint64_t count, net_type type);
gt_status net_barrier(net_group *g);

/* Part i of p of n elements, as equal as can be: [*begin, *begin + *size). */
void net_part(uint64_t n, int p, int i, uint64_t *begin, uint64_t *size);

/* In the background. Every started one must be waited for. */
typedef struct net_collective net_collective;
gt_status net_all_reduce_start(net_group *g, void *x, uint64_t count, net_type type,
                               const net_collective_options *options, net_collective **out);
gt_status net_reduce_scatter_start(net_group *g, void *x, uint64_t count, const uint64_t *counts, net_type type,
                                   const net_collective_options *options, net_collective **out);
gt_status net_all_gather_start(net_group *g, void *x, uint64_t count, const uint64_t *counts, net_type type,
                               const net_collective_options *options, net_collective **out);
gt_status net_all_to_all_start(net_group *g, void *x, uint64_t count, net_type type, net_collective **out);
gt_status net_collective_wait(net_collective *c); /* frees it */
/* The same, and when it was carried out, gt_now_ns(); c NULL leaves both as they are. */
gt_status net_collective_wait_when(net_collective *c, uint64_t *began, uint64_t *ended);
int net_collective_test(const net_collective *c);

#endif
