/* SPDX-License-Identifier: MIT */
/* net/collective/algorithm_hierarchical.c - inside hosts, across hosts, inside hosts.
 *
 *      host A          host B            two hosts of 2 and 3 ranks: 2 lanes
 *    a0      a1      b0   b1   b2
 *    ├──RS───┤       ├────RS───┤    1. each host sums; a0 and b0 own the first half of the
 *    │       │       │    │             vector, a1 and b1 the second, b2 nothing
 *    ├───────┼──AR───┤    │         2. every lane sums across hosts
 *    │       └──AR────────┤
 *    ├──AG───┤       ├────AG───┤    3. each host spreads the sum
 *
 * So only n / lanes bytes a rank cross the slow links, over all ranks' connections at once. Each
 * phase takes the algorithm that is cheapest for its links. Hosts may hold different numbers
 * of ranks: the smallest one decides how many lanes there are.
 *
 * A broadcast goes to one rank of each host first.                                       */
#include "net/collective/algorithm.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static gt_status submatrix(net_link_matrix *out, const net_link_matrix *m, const int *member, int count)
{
    gt_status st = net_links_create(out, count);
    for (int i = 0; !st && i < count; i++) {
        out->uplink[i] = m->uplink[member[i]];
        out->host[i] = m->host[member[i]];
        for (int j = 0; j < count; j++) {
            out->latency[i * count + j] = m->latency[member[i] * m->size + member[j]];
            out->bandwidth[i * count + j] = m->bandwidth[member[i] * m->size + member[j]];
        }
    }
    out->add = m->add;
    return st;
}

static int host_of(const net_link_matrix *m, const net_layers *l, const int *first, int rank)
{
    for (int h = 0; h < l->hosts; h++)
        if (m->host[first[h]] == m->host[rank])
            return h;
    return -1;
}

gt_status net_layers_make(net_layers *out, const net_link_matrix *m, int rank)
{
    const size_t n = (size_t)m->size;
    net_layers l = { 0 };
    int *first = malloc(n * sizeof *first);             /* a host's first rank */
    gt_status st = GT_OK;
    *out = l;
    l.count = calloc(n, sizeof *l.count);
    l.member = malloc(n * n * sizeof *l.member);
    if (!first || !l.count || !l.member) {
        st = gt_fail(GT_NO_MEMORY, "cannot group ranks by host: no memory for a table of %zu ranks", (size_t)n);
        goto out;
    }
    memset(l.member, 0xff, n * n * sizeof *l.member);
    for (int r = 0; r < m->size; r++) {
        int h = host_of(m, &l, first, r);
        if (h < 0) {
            h = l.hosts++;
            first[h] = r;
        }
        if (r == rank) {
            l.host = h;
            l.place = l.count[h];
        }
        l.member[h * m->size + l.count[h]++] = r;
    }
    l.largest = m->size;
    l.lanes = l.count[0];
    for (int h = 1; h < l.hosts; h++)
        l.lanes = l.count[h] < l.lanes ? l.count[h] : l.lanes;
    st = submatrix(&l.inside, m, l.member + l.host * l.largest, l.count[l.host]);
    if (!st)
        st = submatrix(&l.across, m, first, l.hosts);
    if (!st) {
        *out = l;
        memset(&l, 0, sizeof l);
    }
out:
    net_layers_release(&l);
    free(first);
    return st;
}

void net_layers_release(net_layers *l)
{
    free(l->count);
    free(l->member);
    net_links_release(&l->inside);
    net_links_release(&l->across);
    memset(l, 0, sizeof *l);
}

/* A phase: some participants, their part of x in elements [from, from + count). */
static gt_status phase(net_task *t, net_kind kind, const int *member, int rank, int size, int root, uint64_t from,
                       uint64_t count, const uint64_t *begin, const net_link_matrix *m)
{
    net_task sub = *t;
    if (size < 2 || count == 0)
        return GT_OK;
    sub.kind = kind;
    sub.member = member;
    sub.rank = rank;
    sub.size = size;
    sub.root = root;
    sub.x = t->x + from * t->grain;
    sub.count = count;
    sub.begin = begin;
    const net_algorithm a = net_choose(kind, m, (double)count * (double)t->grain);
    assert(a != NET_HIERARCHICAL);
    gt_status st = net_algorithm_runner(a)(&sub);
    t->step = sub.step;
    return st;
}

/* The first `parts` of `size` participants get equal parts, the others none. */
static void cut(uint64_t *begin, int size, int parts, uint64_t count)
{
    uint64_t some;
    for (int i = 0; i < size; i++) {
        if (i < parts)
            net_part(count, parts, i, &begin[i], &some);
        else
            begin[i] = count;
    }
    begin[size] = count;
}

static gt_status all_reduce(net_task *t, const int *local, int *lane, uint64_t *begin)
{
    const net_layers *l = t->layers;
    const int here = l->count[l->host];
    uint64_t from = 0, part = 0;
    cut(begin, here, l->lanes, t->count);
    gt_status st = phase(t, NET_OP_REDUCE_SCATTER, local, l->place, here, 0, 0, t->count, begin, &l->inside);
    if (!st && l->place < l->lanes) {
        from = begin[l->place];
        part = begin[l->place + 1] - from;
        for (int h = 0; h < l->hosts; h++)
            lane[h] = l->member[h * l->largest + l->place];
        cut(begin, l->hosts, l->hosts, part);
        /* Pairs across hosts share no step with pairs inside one. */
        net_task across = *t;
        across.step = 0;
        st = phase(&across, NET_OP_ALL_REDUCE, lane, l->host, l->hosts, 0, from, part, begin, &l->across);
    }
    if (st)
        return st;
    cut(begin, here, l->lanes, t->count);
    return phase(t, NET_OP_ALL_GATHER, local, l->place, here, 0, 0, t->count, begin, &l->inside);
}

static gt_status broadcast(net_task *t, const int *local, int *lane, uint64_t *begin)
{
    const net_layers *l = t->layers;
    const int here = l->count[l->host];
    int root_host = 0, root_place = 0;
    for (int h = 0; h < l->hosts; h++) {
        lane[h] = l->member[h * l->largest];
        for (int i = 0; i < l->count[h]; i++)
            if (l->member[h * l->largest + i] == t->root) {
                root_host = h;
                root_place = i;
            }
    }
    lane[root_host] = t->root;
    const int first = l->host == root_host ? root_place : 0;
    gt_status st = GT_OK;
    net_task across = *t;
    cut(begin, l->hosts, l->hosts, t->count);
    if (l->place == first)
        st = phase(&across, NET_OP_BROADCAST, lane, l->host, l->hosts, root_host, 0, t->count, begin, &l->across);
    cut(begin, here, here, t->count);
    return st ? st : phase(t, NET_OP_BROADCAST, local, l->place, here, first, 0, t->count, begin, &l->inside);
}

gt_status net_run_hierarchical(net_task *t)
{
    const net_layers *l = t->layers;
    assert(l && !t->member);
    const int *local = l->member + l->host * l->largest;
    int *lane = malloc((size_t)l->hosts * sizeof *lane);
    uint64_t *begin = malloc(((size_t)t->size + 1) * sizeof *begin);
    gt_status st;
    if (!lane || !begin)
        st = gt_fail(GT_NO_MEMORY, "cannot begin a hierarchical collective: no memory for the parts of %d ranks",
                     t->size);
    else
        st = t->kind == NET_OP_BROADCAST ? broadcast(t, local, lane, begin) : all_reduce(t, local, lane, begin);
    free(lane);
    free(begin);
    return st;
}
