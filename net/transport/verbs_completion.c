/* SPDX-License-Identifier: MIT */
/* net/transport/verbs_completion.c - what the devices report, and sleeping until they do.
 *
 *   awake    poll ─► completions ─► events
 *   asleep   arm: ask for an event, poll once more, sleep on the channel's descriptor
 *
 * The second poll closes the gap: a completion that came after the last poll and before the
 * event was asked for would wake nobody. What it finds is kept for the next progress(), for
 * events are told there only.
 *
 * A completion queue belongs to one rail of one link, so it is exactly as long as all that can
 * be in it and never overflows, and the end of a link is the end of its queue.            */
#include "net/transport/verbs_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { BATCH = 16, BATCHES = 8, LOOK_FOR_EVENTS = 1024 };

/* ---- failing -------------------------------------------------------------------------------- */

void net_verbs_link_fail(net_verbs_link *link, gt_status status, const char *sentence)
{
    if (link->failed)
        return;
    link->failed = 1;
    link->status = status;
    snprintf(link->why, sizeof link->why, "%s", sentence);
}

void net_verbs_link_fail_here(net_verbs_link *link, gt_status status)
{
    net_verbs_link_fail(link, status, gt_message());
}

gt_status net_verbs_link_check(const net_verbs_link *link)
{
    return link->failed ? gt_fail(link->status, "%s", link->why) : GT_OK;
}

/* Flush errors follow from an earlier error; one only counts until its cause is found. */
static void fail_completion(net_verbs_link *link, const net_verbs_lane *lane, const struct ibv_wc *wc)
{
    const int is_receive = (wc->wr_id >> 63) != 0;
    const uint32_t number = (uint32_t)wc->wr_id;
    link->rail[lane->rail].broken = 1;
    if (link->failed && !link->flushed)
        return;
    if (link->flushed && wc->status == IBV_WC_WR_FLUSH_ERR)
        return;
    link->failed = 1;
    link->flushed = wc->status == IBV_WC_WR_FLUSH_ERR;
    link->status = GT_PEER;
    net_verbs_explain(lane, wc, is_receive ? NULL : &lane->sent[number % lane->depth], link->why, sizeof link->why);
}

/* ---- completions ---------------------------------------------------------------------------- */

static int poll(net_verbs_rail *rail, const net_verbs_api *api, struct ibv_wc *wc, int room)
{
    if (rail->has_kept) {
        wc[0] = rail->kept;
        rail->has_kept = 0;
        return 1;
    }
    return api->poll_cq(rail->cq, room, wc);
}

static net_verbs_lane *lane_of(net_verbs_link *link, const struct ibv_wc *wc)
{
    const uint32_t index = (uint32_t)(wc->wr_id >> 32) & 0x7fffffff;
    return index < (uint32_t)link->lanes ? &link->lane[index] : NULL;
}

static void received(net_verbs_link *link, net_verbs_lane *lane, const struct ibv_wc *wc, int *did)
{
    const uint32_t slot = (uint32_t)wc->wr_id;
    if (wc->opcode == IBV_WC_RECV_RDMA_WITH_IMM) {
        net_verbs_signal_arrived(link, lane->index, be32toh(wc->imm_data), did);
    } else if (lane->index) {
        net_verbs_head h;
        gt_status st = net_verbs_head_read(&h, net_verbs_notice(lane, slot, 0), wc->byte_len, 0, 0);
        if (!st && h.kind != NET_VERBS_IS_NOTICE)
            st = gt_fail(GT_FORMAT, "cannot read a notice: it is a message");
        if (st)
            net_verbs_link_fail_here(link, st);
        else
            net_verbs_signal_arrived(link, lane->index, h.body, did);
    } else {
        net_verbs_message_arrived(link, slot, wc->byte_len, did);
    }
    if (link->failed)
        return;
    gt_status st = net_verbs_receive(lane, slot);
    if (st)
        net_verbs_link_fail_here(link, st);
    lane->reposted++;
}

/* `deliver` 0: while probing or closing, when nobody listens. */
static void take(net_verbs_link *link, const struct ibv_wc *wc, int deliver, int *did)
{
    net_verbs_lane *lane = lane_of(link, wc);
    if (!lane)
        return;
    if (wc->status != IBV_WC_SUCCESS) {
        fail_completion(link, lane, wc);
        ++*did;
    } else if (!(wc->wr_id >> 63)) {
        link->t->count[NET_VERBS_SIGNALLED]++;
        net_verbs_lane_finish(lane, (uint32_t)wc->wr_id);
    } else if (deliver) {
        received(link, lane, wc, did);
    }
}

static void poll_rail(net_verbs_link *link, net_verbs_rail *rail, int *did)
{
    struct ibv_wc wc[BATCH];
    for (int round = 0; round < BATCHES; round++) {
        const int more = rail->has_kept;
        const int n = poll(rail, link->t->api, wc, BATCH);
        if (n < 0) {
            net_verbs_link_fail(link, GT_PEER,
                                "cannot poll a completion queue: its device has failed; "
                                "check the kernel's log");
            return;
        }
        for (int i = 0; i < n && (!link->failed || link->flushed); i++)
            take(link, &wc[i], 1, did);
        if (n < BATCH && !more)
            return;
    }
}

int net_verbs_drain_rail(net_verbs_link *link, int r)
{
    net_verbs_rail *rail = &link->rail[r];
    struct ibv_wc wc[BATCH];
    int ignored = 0;
    const int n = rail->cq ? poll(rail, link->t->api, wc, BATCH) : 0;
    for (int i = 0; i < n; i++)
        take(link, &wc[i], 0, &ignored);
    for (int i = net_verbs_rail_first_lane(r, link->pairs); i <= net_verbs_rail_last_lane(r, link->pairs); i++)
        if (link->lane[i].posted != link->lane[i].done)
            return 0;
    return 1;
}

/* ---- progress ------------------------------------------------------------------------------- */

static void serve(net_verbs_link *link, int *did)
{
    for (int r = 0; r < link->rails && (!link->failed || link->flushed); r++)
        poll_rail(link, &link->rail[r], did);
    net_verbs_put_tell(link, did);
    net_verbs_land(link, did);
    if (!link->failed) {
        net_verbs_message_pump(link);
        net_verbs_put_pump(link);
    }
    if (link->failed && !link->told) {
        link->told = 1;
        ++*did;
        gt_fail(link->status, "%s", link->why);
        link->t->base.events->failed(link->base.up, link->status);
    }
}

void net_verbs_progress(net_transport *base, int *did)
{
    net_verbs_transport *t = (net_verbs_transport *)base;
    if (++t->turns % LOOK_FOR_EVENTS == 0)
        net_verbs_async(t);
    /* A callback may close its own link or make new ones, which come first in the list. */
    for (net_verbs_link *link = t->links, *next; link; link = next) {
        if (link->up && !link->told) {
            link->busy = 1;
            serve(link, did);
            link->busy = 0;
        }
        next = link->next;
        if (link->gone)
            net_verbs_link_free(link);
    }
}

/* ---- sleeping ------------------------------------------------------------------------------- */

static int arm_link(net_verbs_link *link)
{
    const net_verbs_api *api = link->t->api;
    net_verbs_message_flush(&link->base);
    if (link->failed || link->landing_first >= 0 || link->done_first)
        return 1;
    for (int r = 0; r < link->rails; r++) {
        net_verbs_rail *rail = &link->rail[r];
        if (rail->has_kept)
            return 1;
        if (rail->armed)                /* no event since: what came would have been one */
            continue;
        if (api->req_notify_cq(rail->cq, 0))
            return 1;
        rail->armed = 1;
        rail->has_kept = api->poll_cq(rail->cq, 1, &rail->kept) != 0;
        if (rail->has_kept)
            return 1;
    }
    return 0;
}

int net_verbs_arm(net_transport *base)
{
    net_verbs_transport *t = (net_verbs_transport *)base;
    for (net_verbs_link *link = t->links; link; link = link->next)
        if (link->up && !link->told && arm_link(link))
            return 1;
    return 0;
}

/* A completion queue of this device may have sent an event that is not taken yet. */
static int is_armed(const net_verbs_transport *t, int device)
{
    for (const net_verbs_link *link = t->links; link; link = link->next)
        for (int r = 0; r < link->rails; r++)
            if (link->rail[r].armed && t->port[link->rail[r].port].device == device)
                return 1;
    return 0;
}

/* Each look is a system call: none where there can be no event, and the rare ones of devices only if no
 * completion woke us; progress() looks for those as well. */
void net_verbs_disarm(net_transport *base)
{
    net_verbs_transport *t = (net_verbs_transport *)base;
    struct ibv_cq *cq;
    void *rail;
    int woken = 0;
    for (int i = 0; i < t->devices; i++)
        while (is_armed(t, i) && !t->api->get_cq_event(t->device[i].channel, &cq, &rail)) {
            ((net_verbs_rail *)rail)->armed = 0;
            t->api->ack_cq_events(cq, 1);
            woken = 1;
        }
    if (!woken)
        net_verbs_async(t);
}
