/* SPDX-License-Identifier: MIT */
/* net/collective/cost.h - what a collective takes, and which one to take.
 *
 * The model is alpha-beta-gamma: a message of n bytes from i to j takes latency[i][j] + n /
 * bandwidth[i][j]; adding costs gamma a byte. Formulas: Thakur, Rabenseifner & Gropp,
 * "Optimization of collective communication operations in MPICH" (2005).
 *
 * Links are measured once, by all ranks together, and every rank holds the same matrix, so
 * all choose alike.                                                                     */
#ifndef NET_COLLECTIVE_COST_H
#define NET_COLLECTIVE_COST_H

#include "net/collective/collective.h"

typedef struct net_link_matrix {
    int size;
    double *latency;                /* seconds, [from * size + to]; one way               */
    double *bandwidth;              /* bytes a second, one pair alone                      */
    double *uplink;                 /* bytes a second of a rank with all its peers at once  */
    uint64_t *host;                 /* host_id of each rank                                */
    double add;                     /* seconds a byte to add                               */
    int board;                      /* the group has a board (net/comm/board.h)            */
} net_link_matrix;

/* Measures all pairs of the group (rounds of disjoint pairs), some ms a round. Collective. */
gt_status net_links_measure(net_group *g, net_link_matrix *out);
void net_links_release(net_link_matrix *m);
/* The group's matrix, measured on first use (collective then). */
gt_status net_group_links(net_group *g, const net_link_matrix **out);
/* Gives a group a matrix instead of measuring one, copied; the same on all its ranks. Choices, and
 * so the bits of sums of floats on more than two ranks, are then those of the run that it comes
 * from. Before the group's first operation. GT_MISUSE if its size is another. */
gt_status net_group_links_set(net_group *g, const net_link_matrix *m);
/* A matrix of `size` ranks with everything zero. */
gt_status net_links_create(net_link_matrix *out, int size);

typedef enum net_algorithm {
    NET_AUTO,
    NET_RING,
    NET_HALVING_DOUBLING,
    NET_RECURSIVE_DOUBLING,
    NET_DIRECT,
    NET_HIERARCHICAL,
    NET_TREE,
    NET_EXCHANGE,
    NET_ALGORITHMS
} net_algorithm;
const char *net_algorithm_name(net_algorithm a);
/* A name, or NCCL's "ring;allreduce:tree": what it says about `kind`, NET_AUTO if nothing (also if
 * a name for all kinds does not exist for this one). GT_MISUSE names what is not understood. */
gt_status net_algorithm_parse(net_algorithm *out, const char *name, net_kind kind);
/* The algorithms that such a text forbids by '^', NCCL's "all but these": 1 << algorithm each. Of a text
 * that net_algorithm_parse() takes. */
unsigned net_algorithm_barred(const char *name, net_kind kind);

/* Ranks' shares of a sum with `direct`: net_shares() of the uplinks, or equal ones where these
 * differ by less than half, so that noise does not change sums from run to run. share[m->size]. */
gt_status net_links_shares(const net_link_matrix *m, double *share);

/* Seconds of the model; INFINITY where the algorithm does not exist for this kind. */
double net_cost(net_kind kind, net_algorithm a, const net_link_matrix *m, double bytes);
net_algorithm net_choose(net_kind kind, const net_link_matrix *m, double bytes);
/* The same without the algorithms in `barred`; NET_AUTO if none is left. */
net_algorithm net_choose_but(net_kind kind, const net_link_matrix *m, double bytes, unsigned barred);
/* The algorithm that a call on this group would run, NET_AUTO on a group of one. Measures links on
 * first use (collective then). */
gt_status net_group_choice(net_group *g, net_kind kind, uint64_t count, net_type type,
                           const net_collective_options *options, net_algorithm *out);
/* A physical lower bound of any algorithm with these links. */
double net_cost_bound(net_kind kind, const net_link_matrix *m, double bytes);

#endif
