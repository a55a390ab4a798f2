/* SPDX-License-Identifier: MIT */
/* net/transport/verbs_put.c - windows, and the remote writes that fill them.
 *
 *   put of 5 MiB over two rails, chunks of 1 MiB, rail 0 twice as fast:
 *
 *     lane 1   W W W W(part) ────────────► I     W: RDMA write   I: empty write with immediate
 *     lane 2   W W(part) ──────► I               done when both I are acknowledged,
 *                                                placed when both have arrived
 *
 * There is no order between queue pairs, so each lane ends its share with a signal of its own,
 * which carries how many there will be. The signal is an empty write behind the bulk, and not
 * its last write, wherever the network may reorder packets of one queue pair (adaptive
 * routing): such networks keep only writes without immediate data apart. Small puts are one
 * write that is its own signal. Without immediate data (iWARP has none, and some switches)
 * the signal is a SEND of 8 bytes on the same queue pair.
 *
 * What a peer says is not believed: a signal names a slot and its sequence number, and both
 * must be those of an open window that this lane has not yet signalled.                    */
#include "net/transport/verbs_private.h"

#include "host/base/clock.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { LEAST_SHARE = 16 << 10, LAND_AT_ONCE = 1 << 20 };

/* ---- the receiver --------------------------------------------------------------------------- */

/* More slots; those in use keep their numbers. */
static gt_status grow_slots(net_verbs_link *link)
{
    const int old = link->slot_room, now = old ? 2 * old : 16;
    if (old >= NET_VERBS_SLOTS)
        return gt_fail(GT_UNSUPPORTED,
                       "cannot open more than %d windows to one peer over verbs; wait "
                       "for some receives first",
                       NET_VERBS_SLOTS);
    net_verbs_open *slots = realloc(link->slots, (size_t)now * sizeof *slots);
    if (!slots)
        return gt_fail(GT_NO_MEMORY, "no memory for the windows of a verbs link");
    memset(slots + old, 0, (size_t)(now - old) * sizeof *slots);
    link->slots = slots;
    link->slot_room = now;
    for (int i = now - 1; i >= old; i--) {
        slots[i].next = link->free_slot;
        link->free_slot = i;
    }
    return GT_OK;
}

gt_status net_verbs_expose(net_link *base, uint32_t window, net_sink sink, unsigned char *descriptor, size_t *size)
{
    net_verbs_link *link = (net_verbs_link *)base;
    net_verbs_transport *t = link->t;
    net_verbs_lease lease;
    gt_status st = net_verbs_link_check(link);
    assert(sink.size > 0);
    if (!st && link->free_slot < 0)
        st = grow_slots(link);
    if (!st)
        st = net_verbs_lease_take(t, sink.data, sink.size, 1, sink.reduce != NULL, &lease);
    if (st)
        return st;
    const int slot = link->free_slot;
    net_verbs_open *o = &link->slots[slot];
    link->free_slot = o->next;
    *o = (net_verbs_open){ .sequence = (uint16_t)((o->sequence + 1) & 0xfff),
                           .open = 1,
                           .window = window,
                           .sink = sink,
                           .lease = lease,
                           .next = -1 };
    net_verbs_window w = { (uint16_t)slot, o->sequence, (uint8_t)link->rails, (uintptr_t)lease.data, sink.size, { 0 } };
    for (int r = 0; r < link->rails; r++)
        w.rkey[r] = lease.region->mr[t->port[link->rail[r].port].device]->rkey;
    *size = net_verbs_window_write(&w, descriptor);
    return GT_OK;
}

/* The bytes are where they belong: frees the slot first, for the caller may open the next. */
static void placed(net_verbs_link *link, int slot, int *did)
{
    net_verbs_open *o = &link->slots[slot];
    const uint32_t window = o->window;
    net_verbs_lease_return(link->t, &o->lease);
    o->next = link->free_slot;
    link->free_slot = slot;
    ++*did;
    link->t->base.events->placed(link->base.up, window);
}

void net_verbs_signal_arrived(net_verbs_link *link, int lane, uint32_t word, int *did)
{
    const net_verbs_signal s = net_verbs_signal_unpack(word);
    net_verbs_open *o = s.slot < link->slot_room ? &link->slots[s.slot] : NULL;
    const uint64_t bit = 1ull << lane;
    if (!o || !o->open || o->sequence != s.sequence || lane < 1 || s.lanes < 1 || s.lanes >= link->lanes
        || (o->expected && o->expected != s.lanes) || (o->lanes & bit)) {
        net_verbs_link_fail(link, GT_PEER,
                            "cannot go on over verbs: the peer signalled a window that "
                            "is not open; both hosts must run the same version of geartrain");
        return;
    }
    o->expected = s.lanes;
    o->lanes |= bit;
    if (__builtin_popcountll(o->lanes) < s.lanes)
        return;
    o->open = 0;
    if (!o->lease.block) {
        placed(link, s.slot, did);
        return;
    }
    *(link->landing_first < 0 ? &link->landing_first : &link->slots[link->landing_last].next) = s.slot;
    link->landing_last = s.slot;
}

void net_verbs_land(net_verbs_link *link, int *did)
{
    size_t budget = LAND_AT_ONCE;
    while (link->landing_first >= 0 && budget) {
        const int slot = link->landing_first;
        net_verbs_open *o = &link->slots[slot];
        const size_t grain = o->sink.grain ? o->sink.grain : 1;
        unsigned char *to = (unsigned char *)o->sink.data + o->landed;
        const unsigned char *from = o->lease.data + o->landed;
        size_t n = o->sink.size - o->landed;
        if (n > budget)                 /* whole elements, and one at the least */
            n = budget < grain ? grain : budget - budget % grain;
        if (o->sink.reduce)
            o->sink.reduce(to, from, n);
        else
            memcpy(to, from, n);
        o->landed += n;
        budget -= n < budget ? n : budget;
        ++*did;
        if (o->landed == o->sink.size) {
            link->landing_first = o->next;
            placed(link, slot, did);
        }
    }
}

/* ---- the sender ----------------------------------------------------------------------------- */

static void enqueue(net_verbs_link *link, net_verbs_put *p, int lane, uint64_t from, uint64_t size)
{
    net_verbs_share *s = &p->share[p->lanes++];
    net_verbs_lane *l = &link->lane[lane];
    *s = (net_verbs_share){ .put = p, .next = from, .end = from + size, .lane = lane, .size = size };
    *(l->first ? &l->last->after : &l->first) = s;
    l->last = s;
}

/* All on one lane, or shared out over rails by speed and over the queue pairs of a rail evenly. */
static void share_out(net_verbs_link *link, net_verbs_put *p, uint64_t size)
{
    double speed[NET_VERBS_RAILS];
    uint64_t part[NET_VERBS_RAILS], from = 0;
    const int pairs = link->pairs;
    p->lanes = 0;
    if (link->lanes == 2 || size < 2 * LEAST_SHARE) {
        enqueue(link, p, 1 + link->turn, 0, size);
        link->turn = (link->turn + 1) % pairs;
        p->left = p->lanes;
        return;
    }
    for (int r = 0; r < link->rails; r++)
        speed[r] = link->rail[r].speed;
    net_verbs_shares(speed, link->rails, size, LEAST_SHARE, part);
    for (int r = 0; r < link->rails; r++) {
        const int first = 1 + r * pairs;
        uint64_t each = part[r] / (uint64_t)pairs / 128 * 128;
        if (each < LEAST_SHARE)
            each = 0;
        for (int q = 0; part[r] && q < pairs; q++) {
            const uint64_t mine = q == pairs - 1 || !each ? part[r] - (uint64_t)q * each : each;
            enqueue(link, p, first + q, from, mine);
            from += mine;
            if (!each)
                break;
        }
        /* A rail that lost its share may have had a bad moment: it drifts back. */
        if (!part[r])
            link->rail[r].speed *= 1.01;
    }
    p->left = p->lanes;
}

gt_status net_verbs_put_start(net_link *base, const void *data, size_t size, uint32_t window,
                              const unsigned char *descriptor, size_t descriptor_size, void *cookie)
{
    net_verbs_link *link = (net_verbs_link *)base;
    net_verbs_window w;
    gt_status st = net_verbs_link_check(link);
    (void)window;
    if (!st)
        st = net_verbs_window_read(&w, descriptor, descriptor_size);
    if (!st && (w.size != size || w.rails != link->rails))
        st = gt_fail(GT_FORMAT,
                     "cannot put %zu bytes into the peer's window: it is open for %llu "
                     "bytes over %d rails",
                     size, (unsigned long long)w.size, w.rails);
    if (st)
        return st;
    net_verbs_put *p = link->free_puts;
    if (p)
        link->free_puts = p->next;
    else if (!(p = calloc(1, sizeof *p)))
        return gt_fail(GT_NO_MEMORY, "no memory for a put over verbs");
    else {
        p->made = link->puts;
        link->puts = p;
    }
    p->link = link;
    p->data = data;
    p->cookie = cookie;
    p->window = w;
    p->lease = (net_verbs_lease){ .data = NULL };
    p->next = NULL;
    /* What goes inline needs no key, wherever it is. */
    if (size > link->lane[1 + link->turn].inline_limit) {
        st = net_verbs_lease_take(link->t, data, size, 0, 0, &p->lease);
        if (st) {
            p->next = link->free_puts;
            link->free_puts = p;
            return st;
        }
        p->data = p->lease.data;
    }
    share_out(link, p, size);
    if (!link->busy)                /* else what is known by the end of this progress() is posted together */
        net_verbs_put_pump(link);
    return GT_OK;
}

static uint64_t longest_write(const net_verbs_link *link, const net_verbs_lane *lane)
{
    const net_config *config = link->t->base.config;
    uint64_t most = link->t->port[link->rail[lane->rail].port].attr.max_msg_sz;
    if (!most || most > 1u << 30)
        most = 1u << 30;
    if (config->max_message && config->max_message < most)
        most = config->max_message;
    if (config->chunk && config->chunk < most)
        most = config->chunk;
    return most < 64 ? 64 : most;
}

/* The largest share whose last write may be its own signal. Soft-RoCE drops what comes out of
 * order instead of placing it, so there no signal overtakes anything. */
static uint64_t signalled_alone(const net_verbs_link *link, const net_verbs_lane *lane)
{
    const net_verbs_transport *t = link->t;
    const net_verbs_port *port = &t->port[link->rail[lane->rail].port];
    return t->device[port->device].is_rxe ? UINT64_MAX : t->base.config->adaptive_routing;
}

/* Posts the next request of a lane's first share; 0 if it has to wait. */
static int post_next(net_verbs_link *link, net_verbs_lane *lane, gt_status *st)
{
    net_verbs_transport *t = link->t;
    net_verbs_share *s = lane->first;
    const net_verbs_put *p = s->put;
    const int device = t->port[link->rail[lane->rail].port].device;
    const uint64_t left = s->end - s->next, longest = longest_write(link, lane);
    const net_verbs_signal signal = { p->window.slot, p->window.sequence, (uint8_t)p->lanes };
    /* Its own signal: the last write, and no packet overtakes another. */
    const int alone = link->immediate && left && left <= longest && s->size <= signalled_alone(link, lane);
    const int signals = alone || !left;
    net_verbs_work work = {
        .opcode = IBV_WR_RDMA_WRITE, .remote = p->window.address + s->next, .rkey = p->window.rkey[lane->rail]
    };
    if (!net_verbs_lane_room(lane)) {
        t->count[NET_VERBS_QUEUE_STALLS]++;
        return 0;
    }
    if (signals && !net_verbs_lane_has_credit(lane, 0)) {
        t->count[NET_VERBS_CREDIT_STALLS]++;
        return 0;
    }
    if (s->next == s->end - s->size && p->lanes > 1)
        s->since = gt_now_ns();
    if (left) {
        work.size = (uint32_t)(left < longest ? left : longest);
        work.data = p->data + s->next;
        work.lkey = p->lease.region ? p->lease.region->mr[device]->lkey : 0;
        t->count[NET_VERBS_WRITES]++;
    }
    if (signals) {
        work.ends = s;
        work.immediate = net_verbs_signal_pack(signal);
        work.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
        if (!link->immediate) {
            unsigned char *notice = net_verbs_notice(lane, lane->posted % lane->depth, 1);
            const net_verbs_head h = { NET_VERBS_IS_NOTICE, 0, 0, work.immediate };
            net_verbs_head_write(&h, notice);
            work.opcode = IBV_WR_SEND;
            work.data = notice;
            work.size = NET_VERBS_HEAD;
            work.lkey = link->buffers.mr[device]->lkey;
        }
    }
    *st = net_verbs_post(lane, &work);
    if (*st)
        return 0;
    if (left)
        s->next += work.size;
    if (signals) {
        lane->used++;
        lane->first = s->after;
    }
    return 1;
}

void net_verbs_put_pump(net_verbs_link *link)
{
    gt_status st = GT_OK;
    for (int i = 1; !st && i < link->lanes; i++) {
        net_verbs_lane *lane = &link->lane[i];
        while (lane->first && post_next(link, lane, &st))
            ;
        if (!st)
            st = net_verbs_ring(lane);
    }
    if (st)
        net_verbs_link_fail_here(link, st);
}

void net_verbs_put_finish(net_verbs_share *s)
{
    net_verbs_put *p = s->put;
    net_verbs_link *link = p->link;
    if (p->lanes > 1 && s->size >= LEAST_SHARE) {
        const uint64_t now = gt_now_ns();
        double *speed = &link->rail[link->lane[s->lane].rail].speed;
        if (now > s->since)
            *speed += ((double)(s->size * (uint64_t)link->pairs) / (double)(now - s->since) - *speed) / 8;
    }
    if (--p->left)
        return;
    net_verbs_lease_return(link->t, &p->lease);
    p->next = NULL;
    *(link->done_first ? &link->done_last->next : &link->done_first) = p;
    link->done_last = p;
}

void net_verbs_put_tell(net_verbs_link *link, int *did)
{
    while (link->done_first) {
        net_verbs_put *p = link->done_first;
        void *cookie = p->cookie;
        link->done_first = p->next;
        p->next = link->free_puts;
        link->free_puts = p;
        ++*did;
        link->t->base.events->done(link->base.up, cookie);
    }
}

/* ---- the end -------------------------------------------------------------------------------- */

void net_verbs_put_clear(net_verbs_link *link)
{
    for (int i = 0; i < link->slot_room; i++)
        net_verbs_lease_return(link->t, &link->slots[i].lease);
    free(link->slots);
    while (link->puts) {
        net_verbs_put *p = link->puts;
        link->puts = p->made;
        net_verbs_lease_return(link->t, &p->lease);
        free(p);
    }
}
