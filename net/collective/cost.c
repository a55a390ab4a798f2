/* SPDX-License-Identifier: MIT */
/* net/collective/cost.c - the alpha-beta-gamma model.
 *
 *   n bytes from i to j:   latency[i][j] + n / min(bandwidth[i][j], uplink[i], uplink[j])
 *
 * A step of an algorithm takes what its slowest pair takes. Ranks of a host share its wire: k of
 * them that send to other hosts in one step get 1/k each of what one pair alone gets.
 * Formulas below are for p ranks and are those of Thakur, Rabenseifner & Gropp (2005),
 * with one change: links are a matrix.
 * All ranks hold the same numbers and do the same arithmetic, so all choose alike.        */
#include "net/collective/algorithm.h"
#include "net/collective/shares.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What pipelining of large vectors is reckoned with; config->pipeline moves it little. */
static const double pipelined_piece = 256.0 * 1024.0;
/* A rank's messages to several peers overlap: each after the first costs this much of a latency. */
static const double further_message = 0.5;
/* More bytes than that do not go at once: the receiver says first that they may come. Algorithms that post receives
 * ahead do not wait for it. */
static const double at_once = 32.0 * 1024.0;
/* Seconds of a processor for a message's way out of a rank, or into it. */
static const double handling = 1e-6;
/* What goes through scratch memory instead of being added as it comes: as much again as adding,
 * twice. */
static const double scratch_passes = 2.0;
/* That several peers send at once costs this share of the bandwidth for each beyond the first. */
static const double incast = 0.01;

/* Seconds until another core sees a line of memory. */
static const double line = 0.2e-6;

static double rate(const net_link_matrix *m, int from, int to)
{
    return fmin(m->bandwidth[from * m->size + to], fmin(m->uplink[from], m->uplink[to]));
}

/* What a rank's host sends to other hosts: the best of its pairs. */
static double host_wire(const net_link_matrix *m, int rank)
{
    double most = 0.0;
    for (int i = 0; i < m->size; i++)
        for (int j = 0; m->host[i] == m->host[rank] && j < m->size; j++)
            if (m->host[j] != m->host[i])
                most = fmax(most, m->bandwidth[i * m->size + j]);
    return most;
}

/* Every rank i sends `bytes` to to[i] (-1: nothing) at once. */
static double step(const net_link_matrix *m, const int *to, double bytes)
{
    double most = 0.0;
    for (int i = 0; i < m->size; i++) {
        if (to[i] < 0)
            continue;
        double speed = rate(m, i, to[i]);
        if (m->host[to[i]] != m->host[i]) {
            int crossing = 0;
            for (int k = 0; k < m->size; k++)
                crossing += m->host[k] == m->host[i] && to[k] >= 0 && m->host[to[k]] != m->host[k];
            if (crossing > 1)
                speed = fmin(speed, host_wire(m, i) / crossing);
        }
        most = fmax(most, m->latency[i * m->size + to[i]] + bytes / speed);
    }
    return most;
}

/* Everybody to the rank `distance` further. */
static double step_round(const net_link_matrix *m, int distance, double bytes)
{
    int to[m->size];
    memset(to, -1, sizeof to);                      /* nobody */
    for (int i = 0; i < m->size; i++)
        to[i] = (i + distance) % m->size;
    return step(m, to, bytes);
}

/* Virtual participants exchange at `distance`. */
static double step_pairs(const net_link_matrix *m, const net_fold *f, int distance, double bytes)
{
    int to[m->size];
    memset(to, -1, sizeof to);                      /* nobody */
    for (int v = 0; v < f->size; v++)
        to[net_fold_real(f, v)] = net_fold_real(f, v ^ distance);
    return step(m, to, bytes);
}

/* Odd ranks of pairs hand over `bytes`. */
static double step_fold(const net_link_matrix *m, const net_fold *f, double bytes)
{
    int to[m->size];
    memset(to, -1, sizeof to);                      /* nobody */
    for (int i = 0; i < m->size; i++)
        to[i] = i < 2 * f->extra && i % 2 ? i - 1 : -1;
    return step(m, to, bytes);
}

/* (p-1) (alpha + n/p beta), and n/p gamma where it adds; a broadcast is a chain. */
static double cost_ring(net_kind kind, const net_link_matrix *m, double n)
{
    const int p = m->size;
    const double once = (p - 1) * step_round(m, 1, n / p), adds = (p - 1) * (n / p) * m->add;
    switch (kind) {
    case NET_OP_ALL_REDUCE: return 2.0 * once + adds;
    case NET_OP_REDUCE_SCATTER: return once + adds;
    case NET_OP_ALL_GATHER: return once;
    default: return step_round(m, 1, n) + (p - 2) * step_round(m, 1, fmin(n, pipelined_piece));
    }
}

/* log p (alpha + n/2, n/4, ... beta) each way, and the fold. */
static double cost_halving_doubling(net_kind kind, const net_link_matrix *m, double n)
{
    const net_fold f = net_fold_of(0, m->size);
    double once = 0.0, t = 0.0;
    for (int d = f.size / 2; d > 0; d /= 2)
        once += step_pairs(m, &f, d, n * d / f.size);
    const double adds = n * (f.size - 1) / f.size * m->add;
    if (kind != NET_OP_ALL_GATHER)
        t += once + adds + step_fold(m, &f, n) + (f.extra ? n * m->add : 0.0);
    if (kind != NET_OP_REDUCE_SCATTER)
        t += once + step_fold(m, &f, n);
    if (kind == NET_OP_REDUCE_SCATTER || kind == NET_OP_ALL_GATHER)
        t += step_fold(m, &f, n / m->size);
    return t;
}

/* log p (alpha + n beta + n gamma), and the fold; gamma with the way through scratch memory. */
static double cost_recursive_doubling(const net_link_matrix *m, double n)
{
    const net_fold f = net_fold_of(0, m->size);
    double t = 2.0 * step_fold(m, &f, n) + (f.extra ? n * m->add : 0.0);
    for (int d = 1; d < f.size; d *= 2)
        t += step_pairs(m, &f, d, n) + (n > at_once ? step_pairs(m, &f, d, 0.0) : 0.0)
             + (1.0 + scratch_passes) * n * m->add;
    return t;
}

/* max_i (S + (p-2) s_i) / B_i in both directions at once, two rounds of p - 1 messages. */
static double cost_direct(net_kind kind, const net_link_matrix *m, double n)
{
    const int p = m->size;
    if (p == 2)                         /* it is the same then */
        return cost_ring(kind, m, n);
    double most = 0.0, alpha = 0.0, *share = malloc((size_t)p * sizeof *share);
    if (!share)
        return INFINITY;
    for (int i = 0; i < p; i++)
        share[i] = 1.0 / p;
    if (kind == NET_OP_ALL_REDUCE && net_links_shares(m, share))
        most = INFINITY;
    for (int i = 0; i < p; i++) {
        const double moved = kind == NET_OP_ALL_REDUCE ? n + (p - 2) * share[i] * n : (p - 1) * share[i] * n;
        const double adds = kind == NET_OP_ALL_GATHER ? 0.0 : (1.0 + scratch_passes) * (p - 1) * share[i] * n * m->add;
        most = fmax(most, moved * (1.0 + incast * (p - 2)) / m->uplink[i] + adds);
        double crossing = 0.0;
        for (int j = 0; j < p; j++) {
            if (j == i)
                continue;
            const double pair = (share[i] + (kind == NET_OP_ALL_REDUCE ? share[j] : 0.0)) * n;
            most = fmax(most, pair / m->bandwidth[i * p + j]);
            alpha = fmax(alpha, m->latency[i * p + j]);
            for (int k = 0; k < p; k++)             /* all of this host to all of the others */
                if (m->host[k] == m->host[i] && m->host[j] != m->host[i])
                    crossing += (share[j] + (kind == NET_OP_ALL_REDUCE ? share[k] : 0.0)) * n;
        }
        if (crossing > 0.0)
            most = fmax(most, crossing / host_wire(m, i));
    }
    free(share);
    /* The pieces of all peers' shares: their latencies overlap, their handling does not. */
    const double pieces = fmin(fmax(floor(n / p / NET_DIRECT_SMALLEST), 1.0), NET_DIRECT_PIECES);
    const double round = alpha * (1.0 + further_message * (p - 2)) + 2.0 * handling * (pieces - 1.0) * (p - 1);
    return most + (kind == NET_OP_ALL_REDUCE ? 2.0 : 1.0) * round;
}

/* log p (alpha + n beta) from the root; an all-reduce as much towards it, and sums. */
static double cost_tree(net_kind kind, const net_link_matrix *m, double n)
{
    double once = 0.0, adds = 0.0;
    for (int d = 1; d < m->size; d *= 2) {
        once += step_round(m, d, n);
        adds += n * m->add;
    }
    return kind == NET_OP_ALL_REDUCE ? 2.0 * once + adds : once;
}

static double cheapest(net_kind kind, const net_link_matrix *m, double n)
{
    return m->size < 2 ? 0.0 : net_cost(kind, net_choose(kind, m, n), m, n);
}

/* All lanes cross at once. */
static void share_wire(net_link_matrix *across, int lanes)
{
    for (int i = 0; i < across->size * across->size; i++)
        across->bandwidth[i] /= lanes;
}

/* Inside, across, inside; hosts work at the same time, so the slowest one counts. */
static double cost_hierarchical(net_kind kind, const net_link_matrix *m, double n)
{
    double inside = 0.0, across = 0.0;
    for (int r = 0; r < m->size; r++) {
        net_layers l;
        if (net_layers_make(&l, m, r))
            return INFINITY;
        const int hosts = l.hosts;
        if (hosts > 1 && hosts < m->size && l.place == 0) {
            const int broadcast = kind == NET_OP_BROADCAST;
            if (!broadcast)
                share_wire(&l.across, l.lanes);
            inside = fmax(inside, broadcast ? cheapest(kind, &l.inside, n)
                                            : cheapest(NET_OP_REDUCE_SCATTER, &l.inside, n)
                                                  + cheapest(NET_OP_ALL_GATHER, &l.inside, n));
            across = cheapest(kind, &l.across, broadcast ? n : n / l.lanes);
        }
        net_layers_release(&l);
        if (hosts < 2 || hosts == m->size)
            return INFINITY;            /* one host, or nobody shares one */
    }
    return inside + across;
}

/* On the board: a line of every other rank, and the bytes that each of them has for this one, which are
 * written past the cache, read and added. */
static double cost_exchange(net_kind kind, const net_link_matrix *m, double n)
{
    const double share = kind == NET_OP_REDUCE_SCATTER || kind == NET_OP_ALL_GATHER ? 0.5 : 1.0;
    return m->board ? (m->size - 1) * line + share * 2.0 * n * m->add : INFINITY;
}

double net_cost(net_kind kind, net_algorithm a, const net_link_matrix *m, double bytes)
{
    if (!net_algorithm_has(a, kind))
        return INFINITY;
    if (m->size < 2)
        return 0.0;
    switch (a) {
    case NET_RING: return cost_ring(kind, m, bytes);
    case NET_HALVING_DOUBLING: return cost_halving_doubling(kind, m, bytes);
    case NET_RECURSIVE_DOUBLING: return cost_recursive_doubling(m, bytes);
    case NET_DIRECT: return cost_direct(kind, m, bytes);
    case NET_HIERARCHICAL: return cost_hierarchical(kind, m, bytes);
    case NET_TREE: return cost_tree(kind, m, bytes);
    case NET_EXCHANGE: return cost_exchange(kind, m, bytes);
    default: return INFINITY;
    }
}

net_algorithm net_choose_but(net_kind kind, const net_link_matrix *m, double bytes, unsigned barred)
{
    net_algorithm best = NET_AUTO;
    double least = INFINITY;
    /* A board beats messages at every size, which the links, measured by messages, cannot tell. */
    if (m->board && net_algorithm_has(NET_EXCHANGE, kind) && !(barred >> NET_EXCHANGE & 1u))
        return NET_EXCHANGE;
    for (int a = NET_RING; a < NET_ALGORITHMS; a++) {
        const double t = barred >> a & 1u ? INFINITY : net_cost(kind, (net_algorithm)a, m, bytes);
        if (t < least * (1.0 - 1e-9)) {         /* of equals the first, whatever rounding says */
            least = t;
            best = (net_algorithm)a;
        }
    }
    return best;
}

net_algorithm net_choose(net_kind kind, const net_link_matrix *m, double bytes)
{
    const net_algorithm a = net_choose_but(kind, m, bytes, 0);
    return a == NET_AUTO ? NET_RING : a;
}

/* Every rank's data must leave it and every sum reach it: S / B. And, all ranks together: each of
 * the p vectors has to meet the others (p - 1 transfers) and the sum to come back (p - 1). */
double net_cost_bound(net_kind kind, const net_link_matrix *m, double bytes)
{
    const int p = m->size;
    double slowest = INFINITY, all = 0.0, alpha = INFINITY;
    if (p < 2)
        return 0.0;
    for (int i = 0; i < p; i++) {
        slowest = fmin(slowest, m->uplink[i]);
        all += m->uplink[i];
        for (int j = 0; j < p; j++)
            if (i != j)
                alpha = fmin(alpha, m->latency[i * p + j]);
    }
    double bound;
    switch (kind) {
    case NET_OP_ALL_REDUCE: bound = fmax(bytes / slowest, 2.0 * (p - 1) * bytes / all); break;
    case NET_OP_REDUCE_SCATTER:
    case NET_OP_ALL_GATHER: bound = fmax((p - 1) * bytes / p / slowest, (p - 1) * bytes / all); break;
    default: bound = bytes / slowest;
    }
    return fmax(bound, alpha);
}

gt_status net_links_shares(const net_link_matrix *m, double *share)
{
    const int p = m->size;
    double most = 0.0, least = INFINITY, time;
    gt_status st = GT_OK;
    for (int i = 0; i < p; i++) {
        most = fmax(most, m->uplink[i]);
        least = fmin(least, m->uplink[i]);
        share[i] = 1.0 / p;
    }
    if (most <= 1.5 * least)
        return GT_OK;

    /* In sixteenths of the fastest: measured twice, they are the same. */
    double *uplink = malloc((size_t)p * sizeof *uplink);
    int *worker = malloc((size_t)p * sizeof *worker);
    if (!uplink || !worker) {
        st = gt_fail(GT_NO_MEMORY, "cannot share a sum out: no memory for the links of %d ranks", p);
    } else {
        for (int i = 0; i < p; i++) {
            uplink[i] = fmax(1.0, floor(16.0 * m->uplink[i] / most + 0.5));
            worker[i] = 1;
        }
        st = net_shares(uplink, worker, p, share, &time);
    }
    free(uplink);
    free(worker);
    return st;
}
