/* SPDX-License-Identifier: MIT */
/* net/transport/verbs_connect.c - from two offers to a proven link, step by step.
 *
 *   we          PORTS ►      QUEUES ►        READY ►       PROVEN ►
 *   peer      ◄ PORTS      ◄ QUEUES        ◄ READY       ◄ PROVEN
 *                    │           │              │             │
 *             choose rails,  to ready-to-   write into    all good: up
 *             make queues    send           the peer      else: next GIDs, QUEUES again
 *
 * Both ends make the same decisions from the same facts, so no step needs a master. A rail
 * whose pairs of GIDs are used up is dropped on both ends; with the last one goes the link.
 * The probe writes a whole packet of the negotiated MTU over every queue pair: a GID that is
 * wrong, a route that is missing, or a switch with a smaller MTU shows here, and not as a job
 * that hangs in its first step. This step alone may block: up to 2 s where packets get lost, as
 * may the kernel while it looks for the peer's address.                                  */
#include "net/transport/verbs_private.h"

#include "host/base/clock.h"
#include "host/base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static const uint64_t probe_patience = 2000000000;
static const uint64_t drain_limit = 250000000;
enum { SLOT_BYTES = 512 << 10, FEWEST_SLOTS = 8, MOST_SLOTS = 64 };

/* ---- buffers -------------------------------------------------------------------------------- */

static size_t buffer_bytes(const net_verbs_link *link)
{
    return (link->send_slots + link->receive_slots) * link->slot
           + (size_t)NET_VERBS_HEAD * 2 * NET_VERBS_DATA_DEPTH * (size_t)(link->lanes - 1);
}

uint64_t net_verbs_link_bytes(const net_config *config)
{
    net_verbs_link link = { .lanes = NET_VERBS_LANES };
    net_verbs_size_slots(&link, config);
    return buffer_bytes(&link);
}

void net_verbs_size_slots(net_verbs_link *link, const net_config *config)
{
    link->slot = (NET_VERBS_HEAD + NET_MESSAGE + (size_t)config->eager + 63) / 64 * 64;
    uint32_t n = (uint32_t)(SLOT_BYTES / link->slot);
    n = n < FEWEST_SLOTS ? FEWEST_SLOTS : n > MOST_SLOTS ? MOST_SLOTS : n;
    link->send_slots = link->receive_slots = n;
}

static gt_status make_pages(net_verbs_transport *t, size_t size, unsigned access, net_verbs_region *out)
{
    void *data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED)
        return gt_fail(GT_NO_MEMORY, "cannot hold a link's buffers: %s", strerror(errno));
    gt_status st = net_verbs_region_make(t, data, size, access, out);
    if (st) {
        munmap(data, size);
        out->data = NULL;
    }
    return st;
}

static void free_pages(net_verbs_transport *t, net_verbs_region *r)
{
    net_verbs_region_drop(t, r);
    if (r->data)
        munmap(r->data, r->size);
    r->data = NULL;
}

/* ---- steps ---------------------------------------------------------------------------------- */

static int to_try(const net_verbs_rail *rail)
{
    return rail->attempt < rail->choice.tries;
}

/* Makes the queues of all rails, and says so. */
static gt_status say_queues(net_verbs_link *link, unsigned char *offer, size_t *size)
{
    net_verbs_transport *t = link->t;
    net_verbs_queues mine = { .rails = (uint8_t)link->rails, .lanes = (uint8_t)link->lanes };
    for (int r = 0; r < link->rails; r++) {
        net_verbs_rail *rail = &link->rail[r];
        gt_status st = net_verbs_rail_create(link, r);
        if (!st && !rail->probe.data)
            st = make_pages(t, NET_VERBS_PROBE * 2, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE, &rail->probe);
        if (st)
            return st;
        mine.rail[r].open = 1;
        mine.rail[r].rkey = rail->probe.mr[t->port[rail->port].device]->rkey;
        mine.rail[r].address = (uintptr_t)rail->probe.data;
    }
    for (int i = 0; i < link->lanes; i++) {
        mine.lane[i].qpn = link->lane[i].qp->qp_num;
        mine.lane[i].psn = link->lane[i].psn;
    }
    /* The device with the shortest queue decides for all data lanes. */
    mine.message_receives = (uint16_t)link->lane[0].receives;
    mine.data_receives = NET_VERBS_DATA_DEPTH;
    for (int i = 1; i < link->lanes; i++)
        if (link->lane[i].receives < mine.data_receives)
            mine.data_receives = (uint16_t)link->lane[i].receives;
    *size = net_verbs_queues_write(&mine, offer);
    link->phase = NET_VERBS_SAYS_QUEUES;
    return GT_OK;
}

static gt_status choose(net_verbs_link *link)
{
    net_verbs_transport *t = link->t;
    net_verbs_ports ours;
    net_verbs_rail_choice choice[NET_VERBS_RAILS];
    char peer[128];
    net_verbs_ports_mine(t, &ours);
    net_job_name(t->base.job, link->base.peer, peer, sizeof peer);
    if (link->theirs.eager != ours.eager)
        return gt_fail(GT_MISMATCH, "cannot use verbs with %s: its `eager` is %u bytes, ours %u", peer,
                       link->theirs.eager, ours.eager);
    link->rails = link->leads ? net_verbs_rails_choose(&ours, &link->theirs, choice)
                              : net_verbs_rails_choose(&link->theirs, &ours, choice);
    if (!link->rails)
        return gt_fail(GT_UNSUPPORTED,
                       "cannot use verbs with %s: no port of ours (%s:%d, ...) shares a "
                       "fabric, an address family and a RoCE version with one of its",
                       peer, t->device[t->port[0].device].name, t->port[0].number);
    link->pairs = ours.pairs < link->theirs.pairs ? ours.pairs : link->theirs.pairs;
    link->immediate = ours.immediate && link->theirs.immediate;
    link->lanes = 1 + link->rails * link->pairs;
    for (int r = 0; r < link->rails; r++) {
        link->rail[r].choice = choice[r];
        link->rail[r].port = choice[r].port[!link->leads];
        link->rail[r].peer_port = choice[r].port[link->leads];
        link->rail[r].speed = choice[r].speed / 8000.0;
    }
    net_verbs_size_slots(link, t->base.config);
    return make_pages(t, buffer_bytes(link), IBV_ACCESS_LOCAL_WRITE, &link->buffers);
}

/* Takes the peer's queues and brings ours up to them; what fails is the verdict. */
static gt_status raise_all(net_verbs_link *link, const unsigned char *theirs, size_t theirs_size, unsigned char *offer,
                           size_t *size)
{
    net_verbs_queues peer;
    net_verbs_verdict mine = { .rails = (uint8_t)link->rails };
    gt_status st = net_verbs_queues_read(&peer, theirs, theirs_size);
    if (st)
        return st;
    if (peer.rails != link->rails || peer.lanes != link->lanes)
        return gt_fail(GT_FORMAT,
                       "cannot use verbs: the peer chose %d rails and %d queue pairs, we "
                       "%d and %d",
                       peer.rails, peer.lanes, link->rails, link->lanes);
    for (int i = 0; i < link->lanes; i++) {
        net_verbs_lane *lane = &link->lane[i];
        lane->peer_qpn = peer.lane[i].qpn;
        lane->peer_psn = peer.lane[i].psn;
        lane->credits = i ? peer.data_receives : peer.message_receives;
    }
    for (int r = 0; r < link->rails; r++) {
        link->rail[r].probe_rkey = peer.rail[r].rkey;
        link->rail[r].probe_address = peer.rail[r].address;
        mine.good[r] = !net_verbs_rail_raise(link, r);
        if (!mine.good[r])
            gt_log(GT_LOG_DEBUG, "verbs", "%s", gt_message());
    }
    *size = net_verbs_verdict_write(&mine, NET_VERBS_SAYS_READY, offer);
    link->phase = NET_VERBS_SAYS_READY;
    return GT_OK;
}

/* Writes a packet over each queue pair of the rail; 1 if all could be posted. */
static int probe(net_verbs_link *link, int r)
{
    net_verbs_rail *rail = &link->rail[r];
    const struct ibv_mr *mr = rail->probe.mr[link->t->port[rail->port].device];
    for (int i = net_verbs_rail_first_lane(r, link->pairs); i <= net_verbs_rail_last_lane(r, link->pairs); i++) {
        const net_verbs_work work = {
            .opcode = IBV_WR_RDMA_WRITE,
            .size = NET_VERBS_PROBE,
            .data = rail->probe.data + NET_VERBS_PROBE,
            .lkey = mr->lkey,
            .signal = 1,
            .remote = rail->probe_address,
            .rkey = rail->probe_rkey
        };
        if (net_verbs_post(&link->lane[i], &work) || net_verbs_ring(&link->lane[i]))
            return 0;
    }
    return 1;
}

/* Probes all rails at once, so that a dead one costs the others no time. */
static gt_status probe_all(net_verbs_link *link, const unsigned char *theirs, size_t theirs_size, unsigned char *offer,
                           size_t *size)
{
    net_verbs_verdict peer, mine = { .rails = (uint8_t)link->rails };
    gt_status st = net_verbs_verdict_read(&peer, NET_VERBS_SAYS_READY, theirs, theirs_size);
    if (st)
        return st;
    for (int r = 0; r < link->rails; r++)
        link->rail[r].proven = peer.good[r] && net_verbs_rail_is_raised(link, r) && probe(link, r);
    const uint64_t deadline = gt_now_ns() + probe_patience;
    for (int waiting = 1; waiting;) {
        const int late = gt_now_ns() > deadline;
        waiting = 0;
        for (int r = 0; r < link->rails; r++) {
            net_verbs_rail *rail = &link->rail[r];
            if (!rail->proven || net_verbs_drain_rail(link, r))
                continue;
            rail->proven = !rail->broken && !late;
            waiting |= rail->proven;
        }
    }
    for (int r = 0; r < link->rails; r++)
        mine.good[r] = (uint8_t)link->rail[r].proven;
    if (link->failed)
        gt_log(GT_LOG_DEBUG, "verbs", "probe: %s", link->why);
    link->failed = link->flushed = 0;   /* of an attempt, not of the link */
    *size = net_verbs_verdict_write(&mine, NET_VERBS_SAYS_PROVEN, offer);
    link->phase = NET_VERBS_SAYS_PROVEN;
    return GT_OK;
}

/* After a verdict with losses: the next GIDs of the lost rails, or fewer rails. Everything is
 * made anew, for a rail that is dropped moves the lanes of those behind it. */
static gt_status try_again(net_verbs_link *link, unsigned char *offer, size_t *size)
{
    char peer[128], a[64], b[64];
    int kept = 0;
    const net_verbs_rail lost = link->rail[0];
    for (int r = 0; r < link->rails; r++)
        net_verbs_rail_destroy(link, r);
    for (int r = 0; r < link->rails; r++) {
        net_verbs_rail *rail = &link->rail[r];
        if (!rail->proven)
            rail->attempt++;
        if (to_try(rail)) {
            const net_verbs_rail moved = *rail;
            if (kept != r)
                rail->probe.data = NULL;
            link->rail[kept++] = moved;
        } else {
            free_pages(link->t, &rail->probe);
        }
    }
    link->rails = kept;
    link->lanes = 1 + kept * link->pairs;
    if (kept)
        return say_queues(link, offer, size);
    net_job_name(link->t->base.job, link->base.peer, peer, sizeof peer);
    const int me = !link->leads;
    const net_verbs_gid *ours = &link->t->port[lost.port].offer.gid[lost.choice.tried[0].gid[me]];
    const net_verbs_gid *theirs = &link->theirs.port[lost.peer_port].gid[lost.choice.tried[0].gid[!me]];
    return gt_fail(GT_UNSUPPORTED,
                   "cannot use verbs with %s: no packet gets through, tried first from "
                   "%s (GID %d) to %s (GID %d); check the route, the MTU and that UDP port 4791 is "
                   "open",
                   peer, net_verbs_gid_text(ours, a, sizeof a), ours->index, net_verbs_gid_text(theirs, b, sizeof b),
                   theirs->index);
}

static gt_status conclude(net_verbs_link *link, const unsigned char *theirs, size_t theirs_size, unsigned char *offer,
                          size_t *size, int *again)
{
    net_verbs_verdict peer;
    int all = 1;
    gt_status st = net_verbs_verdict_read(&peer, NET_VERBS_SAYS_PROVEN, theirs, theirs_size);
    if (st)
        return st;
    for (int r = 0; r < link->rails; r++) {
        link->rail[r].proven &= peer.good[r];
        all &= link->rail[r].proven;
    }
    if (!all) {
        *again = 1;
        return try_again(link, offer, size);
    }
    for (int r = 0; r < link->rails; r++)
        free_pages(link->t, &link->rail[r].probe);      /* the right to write there ends here */
    link->up = 1;
    return GT_OK;
}

/* ---- the seam ------------------------------------------------------------------------------- */

void net_verbs_ports_mine(const net_verbs_transport *t, net_verbs_ports *out)
{
    const net_config *config = t->base.config;
    const int pairs = config->queue_pairs;
    *out = (net_verbs_ports){ .ports = (uint8_t)t->ports,
                              .immediate = config->immediate != 0,
                              .pairs = (uint8_t)(pairs < 1                 ? 1
                                                 : pairs > NET_VERBS_PAIRS ? NET_VERBS_PAIRS
                                                                           : pairs),
                              .eager = (uint32_t)config->eager };
    for (int i = 0; i < t->ports; i++)
        out->port[i] = t->port[i].offer;
}

gt_status net_verbs_offer(net_transport *base, int peer, int leads, void *up, net_link **out, unsigned char *offer,
                          size_t *size)
{
    net_verbs_transport *t = (net_verbs_transport *)base;
    net_verbs_ports mine;
    *out = NULL;
    net_verbs_link *link = calloc(1, sizeof *link);
    if (!link)
        return gt_fail(GT_NO_MEMORY, "no memory for a verbs link");
    link->base = (net_link){ base, up, peer };
    link->t = t;
    link->leads = leads;
    link->phase = NET_VERBS_SAYS_PORTS;
    link->free_slot = link->landing_first = link->landing_last = -1;
    link->next = t->links;
    t->links = link;
    net_verbs_ports_mine(t, &mine);
    *size = net_verbs_ports_write(&mine, offer);
    *out = &link->base;
    return GT_OK;
}

gt_status net_verbs_connect(net_link *base, const unsigned char *theirs, size_t theirs_size, unsigned char *offer,
                            size_t *size, int *again, int *stream)
{
    net_verbs_link *link = (net_verbs_link *)base;
    gt_status st;
    (void)stream;
    *again = 1;
    *size = 0;
    switch (link->phase) {
    case NET_VERBS_SAYS_PORTS:
        st = net_verbs_ports_read(&link->theirs, theirs, theirs_size);
        if (!st)
            st = choose(link);
        if (!st)
            st = say_queues(link, offer, size);
        break;
    case NET_VERBS_SAYS_QUEUES: st = raise_all(link, theirs, theirs_size, offer, size); break;
    case NET_VERBS_SAYS_READY: st = probe_all(link, theirs, theirs_size, offer, size); break;
    default: *again = 0; st = conclude(link, theirs, theirs_size, offer, size, again);
    }
    return st;
}

void net_verbs_link_free(net_verbs_link *link)
{
    net_verbs_transport *t = link->t;
    for (net_verbs_link **at = &t->links; *at; at = &(*at)->next)
        if (*at == link) {
            *at = link->next;
            break;
        }
    for (int r = 0; r < link->rails; r++) {
        net_verbs_rail_destroy(link, r);
        free_pages(t, &link->rail[r].probe);
    }
    /* Only now: nothing can write into these any more. */
    net_verbs_message_clear(link);
    net_verbs_put_clear(link);
    free_pages(t, &link->buffers);
    free(link);
}

/* What has been sent may still be in the device's hands: lets it leave. A peer that closed
 * before us cannot confirm any more, so all links together wait for a moment only. */
static void drain(net_verbs_link *link)
{
    const uint64_t since = gt_now_ns();
    net_verbs_message_pump(link);
    net_verbs_message_flush(&link->base);
    net_verbs_put_pump(link);
    for (int i = 0; i < link->lanes; i++)
        net_verbs_lane_flush(&link->lane[i]);
    for (int r = 0; r < link->rails; r++)
        while (!link->failed && !net_verbs_drain_rail(link, r)
               && link->t->drain_ns + (gt_now_ns() - since) < drain_limit)
            ;
    link->t->drain_ns += gt_now_ns() - since;
}

void net_verbs_disconnect(net_link *base)
{
    net_verbs_link *link = (net_verbs_link *)base;
    if (!link)
        return;
    if (link->up && !link->failed)
        drain(link);
    if (link->busy)
        link->gone = 1;
    else
        net_verbs_link_free(link);
}

void net_verbs_describe(net_link *base, char *out, size_t size)
{
    const net_verbs_link *link = (const net_verbs_link *)base;
    const net_verbs_transport *t = link->t;
    size_t n = (size_t)snprintf(out, size, "verbs");
    for (int r = 0; r < link->rails && n < size; r++) {
        const net_verbs_rail *rail = &link->rail[r];
        const net_verbs_port *port = &t->port[rail->port];
        const int me = !link->leads;
        const net_verbs_gid *ours = &port->offer.gid[rail->choice.tried[rail->attempt].gid[me]];
        const net_verbs_gid *theirs =
            &link->theirs.port[rail->peer_port].gid[rail->choice.tried[rail->attempt].gid[!me]];
        char a[64], b[64];
        n += (size_t)snprintf(out + n, size - n, "%s %s:%d %s <-> %s, %s, GID %d, MTU %d", r ? ";" : "",
                              t->device[port->device].name, port->number, net_verbs_gid_text(ours, a, sizeof a),
                              net_verbs_gid_text(theirs, b, sizeof b),
                              ours->type == NET_VERBS_GID_IB   ? "InfiniBand"
                              : ours->type == NET_VERBS_GID_V2 ? "RoCE v2"
                                                               : "RoCE v1",
                              ours->index, 128 << rail->choice.mtu);
    }
    if (link->lanes && n < size)
        n += (size_t)snprintf(out + n, size - n, ", inline %u", link->lane[0].inline_limit);
    if (link->pairs > 1 && n < size)
        n += (size_t)snprintf(out + n, size - n, ", %d queue pairs a rail", link->pairs);
    if (!link->immediate && n < size)
        snprintf(out + n, size - n, ", no immediate data");
}
