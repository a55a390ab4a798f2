/* SPDX-License-Identifier: MIT */
/* host/sync/buckets_lanes.c - sums of several buckets under way at once, where the network is far away.
 *
 *   one lane        ── bucket 0 ──┤wait├── bucket 1 ──┤wait├── bucket 2 ──┤wait├
 *   several         ── bucket 0 ──┤wait├
 *                       ── bucket 1 ──┤wait├            a link carries one while another's answer is awaited
 *                           ── bucket 2 ──┤wait├
 *
 * Operations of a group run one after the other (net/collective/state.c), and each awaits what others answer: on a
 * link of 20 ms there and back, with many small tensors between the large ones, that is most of a step. So the ranks of
 * such a group have several groups, its lanes, and buckets take them in turns, on all ranks alike. What a bucket's
 * sum is does not depend on its lane. Near ranks have one: threads that wait for turns would cost more
 * than they gain. */
#include "host/sync/buckets_private.h"

#include <stdlib.h>

int sync_lanes_for(double latency)
{
    return latency >= 3e-3 ? SYNC_LANES : latency >= 3e-4 ? SYNC_LANES / 2 : 1;
}

int sync_lanes_of(const net_link_matrix *m)
{
    double most = 0.0;
    for (int i = 0; i < m->size * m->size && !m->board; i++)
        most = i / m->size != i % m->size && m->latency[i] > most ? m->latency[i] : most;
    return sync_lanes_for(most);
}

static gt_status make(lanes *l, net_group *net)
{
    const net_link_matrix *m;
    gt_status st = net_group_links(net, &m);
    const int ranks = net_group_size(net), count = st ? 1 : sync_lanes_of(m);
    int *rank = malloc((size_t)ranks * sizeof *rank);
    l->net[0] = net;
    l->count = 1;
    if (!rank)
        return gt_fail(GT_NO_MEMORY, "no memory for the list of ranks to sum with");
    for (int r = 0; r < ranks; r++)
        rank[r] = net_group_member(net, r);
    for (; !st && l->count < count; l->count += !st) {
        st = net_group_create(&l->net[l->count], net_group_comm(net), rank, ranks);
        if (!st)
            st = net_group_links_set(l->net[l->count], m);
    }
    free(rank);
    return st;
}

gt_status sync_lanes_make(buckets *s)
{
    gt_status st = GT_OK;
    s->lanes_count = sync_holders_groups(s->o.holders);
    s->lanes = calloc((size_t)s->lanes_count + 1, sizeof *s->lanes);
    if (!s->lanes)
        return gt_fail(GT_NO_MEMORY, "no memory for the list of ranks to sum with");
    for (int g = 0; !st && g < s->lanes_count; g++) {
        net_group *net = sync_buckets_net(s, g);
        if (net)
            st = make(&s->lanes[g], net);
    }
    return st;
}

net_group *sync_lanes_next(buckets *s, int group)
{
    lanes *l = &s->lanes[group];
    return l->net[l->turn++ % l->count];
}

void sync_lanes_release(buckets *s)
{
    for (int g = 0; s->lanes && g < s->lanes_count; g++)
        for (int i = 1; i < SYNC_LANES; i++)
            net_group_release(s->lanes[g].net[i]);
    free(s->lanes);
}
