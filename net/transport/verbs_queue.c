/* SPDX-License-Identifier: MIT */
/* net/transport/verbs_queue.c - queue pairs: made, raised, posted to.
 *
 *   lane's send queue, depth 8:     done=21      posted=26
 *                       ... 20 │ 21  22  23  24  25 │ 26 ...
 *                                └──── under way ───┘    room = depth - (posted - done)
 *
 * A device tells the end of signalled requests only, and one completion ends all before it. So
 * every request counts as under way until a later signalled one completes; one is signalled
 * every 32, and before the queue is half full at the latest. The queue therefore never overflows and
 * never fills up with requests whose end nobody is told.
 *
 * Requests are made one by one and given to the device together, which takes one call, and over
 * Soft-RoCE one system call. Of transfers that end in such a chain the last one is signalled, and one
 * every 256 KiB: so all are told of soon, and many small ones by one completion.          */
#include "net/transport/verbs_private.h"

#include "host/base/log.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { WELL_KNOWN_RNR_TIMER = 12 };     /* 0.64 ms; credits make it unused */

static net_verbs_device *device_of(const net_verbs_lane *lane)
{
    net_verbs_transport *t = lane->link->t;
    return &t->device[t->port[lane->link->rail[lane->rail].port].device];
}

static uint32_t random_psn(void)
{
    uint32_t psn = 0;
    if (getrandom(&psn, sizeof psn, 0) != (ssize_t)sizeof psn)
        psn = (uint32_t)rand();
    return psn & 0xffffff;
}

/* ---- posting -------------------------------------------------------------------------------- */

uint32_t net_verbs_lane_room(const net_verbs_lane *lane)
{
    return lane->depth - (lane->posted - lane->done);
}

static void signal_last(net_verbs_lane *lane, struct ibv_send_wr *wr)
{
    wr->send_flags |= IBV_SEND_SIGNALED;
    lane->unsignalled = 0;
    lane->untold = 0;
    lane->ends = 0;
}

gt_status net_verbs_post(net_verbs_lane *lane, const net_verbs_work *work)
{
    net_verbs_transport *t = lane->link->t;
    const uint32_t every = lane->depth / 2 < NET_VERBS_SIGNAL_EVERY ? lane->depth / 2 : NET_VERBS_SIGNAL_EVERY;
    struct ibv_sge *sge = &lane->piece[lane->chained];
    struct ibv_send_wr *wr = &lane->chain[lane->chained];
    assert(net_verbs_lane_room(lane) > 0);
    *sge = (struct ibv_sge){ (uintptr_t)work->data, work->size, work->lkey };
    *wr = (struct ibv_send_wr){ .opcode = work->opcode, .sg_list = sge, .num_sge = work->size > 0 };
    wr->wr_id = (uint64_t)lane->index << 32 | lane->posted;
    wr->wr.rdma.remote_addr = work->remote;
    wr->wr.rdma.rkey = work->rkey;
    if (work->opcode == IBV_WR_RDMA_WRITE_WITH_IMM)
        wr->imm_data = htobe32(work->immediate);
    if (work->size && work->size <= lane->inline_limit) {
        wr->send_flags |= IBV_SEND_INLINE;
        t->count[NET_VERBS_INLINED]++;
    }
    if (work->ends) {
        lane->ends = 1;
        lane->untold += work->ends->size;
    }
    if (work->signal || ++lane->unsignalled >= every || lane->untold >= NET_VERBS_SIGNAL_BYTES)
        signal_last(lane, wr);
    lane->sent[lane->posted % lane->depth] = (net_verbs_sent){ work->ends, work->size, (uint8_t)work->opcode };
    lane->posted++;
    lane->chained++;
    t->count[NET_VERBS_WIRE_BYTES] += work->size;
    return lane->chained < NET_VERBS_CHAIN ? GT_OK : net_verbs_ring(lane);
}

gt_status net_verbs_ring(net_verbs_lane *lane)
{
    net_verbs_transport *t = lane->link->t;
    struct ibv_send_wr *bad;
    const int n = lane->chained;
    if (!n)
        return GT_OK;
    if (lane->ends)
        signal_last(lane, &lane->chain[n - 1]);
    for (int i = 0; i < n; i++)
        lane->chain[i].next = i + 1 < n ? &lane->chain[i + 1] : NULL;
    lane->chained = 0;
    t->count[NET_VERBS_POSTS]++;
    const int refused = t->api->post_send(lane->qp, lane->chain, &bad);
    return refused ? gt_fail(GT_PEER, "cannot post %d requests, the first of %u bytes, to device %s: %s", n,
                             lane->piece[0].length, device_of(lane)->name, strerror(refused))
                   : GT_OK;
}

void net_verbs_lane_flush(net_verbs_lane *lane)
{
    const net_verbs_work nothing = { .opcode = IBV_WR_RDMA_WRITE, .signal = 1 };
    if (lane->unsignalled && net_verbs_lane_room(lane) && (net_verbs_post(lane, &nothing) || net_verbs_ring(lane)))
        gt_message_clear();             /* it is being closed anyhow */
}

void net_verbs_lane_finish(net_verbs_lane *lane, uint32_t number)
{
    /* A number that is not under way would be the driver's mistake; it ends nothing. */
    if (number - lane->done >= lane->posted - lane->done)
        return;
    while (lane->done != number + 1) {
        net_verbs_sent *s = &lane->sent[lane->done++ % lane->depth];
        if (s->ends)
            net_verbs_put_finish(s->ends);
        s->ends = NULL;
    }
}

gt_status net_verbs_receive(net_verbs_lane *lane, uint32_t slot)
{
    net_verbs_link *link = lane->link;
    const struct ibv_mr *mr = link->buffers.mr[link->t->port[link->rail[lane->rail].port].device];
    struct ibv_recv_wr *bad, wr = { .num_sge = 1 };
    struct ibv_sge sge = { .lkey = mr->lkey };
    if (lane->index == 0) {
        sge.addr = (uintptr_t)(link->buffers.data + (link->send_slots + slot) * link->slot);
        sge.length = (uint32_t)link->slot;
    } else {
        sge.addr = (uintptr_t)net_verbs_notice(lane, slot, 0);
        sge.length = NET_VERBS_HEAD;
    }
    wr.sg_list = &sge;
    wr.wr_id = 1ull << 63 | (uint64_t)lane->index << 32 | slot;
    const int refused = link->t->api->post_recv(lane->qp, &wr, &bad);
    if (refused)
        return gt_fail(GT_PEER, "cannot post a receive to device %s: %s", device_of(lane)->name, strerror(refused));
    return GT_OK;
}

/* ---- making and raising --------------------------------------------------------------------- */

/* What can be granted is only known by asking: less and less, down to none. */
static struct ibv_qp *create(net_verbs_device *d, struct ibv_qp_init_attr *attr, uint32_t wanted)
{
    struct ibv_qp_init_attr asked = *attr;
    for (;;) {
        *attr = asked;
        attr->cap.max_inline_data = wanted;
        struct ibv_qp *qp = d->api->create_qp(d->pd, attr);
        if (qp || !wanted)
            return qp;
        wanted = wanted > 32 ? wanted / 2 : 0;
    }
}

static gt_status create_lane(net_verbs_lane *lane, struct ibv_cq *cq)
{
    net_verbs_link *link = lane->link;
    const net_config *config = link->t->base.config;
    const net_verbs_port *port = &link->t->port[link->rail[lane->rail].port];
    net_verbs_device *d = device_of(lane);
    struct ibv_qp_init_attr attr = {
        .send_cq = cq,
        .recv_cq = cq,
        .qp_type = IBV_QPT_RC,
        .cap = { .max_send_wr = lane->depth, .max_recv_wr = lane->receives, .max_send_sge = 1, .max_recv_sge = 1 }
    };
    lane->qp = create(d, &attr, (uint32_t)config->inline_bytes);
    if (!lane->qp)
        return gt_fail(GT_UNSUPPORTED, "cannot make a queue pair of %u + %u requests on %s: %s", lane->depth,
                       lane->receives, d->name, strerror(errno));
    lane->inline_limit = attr.cap.max_inline_data < (uint32_t)config->inline_bytes
                             ? attr.cap.max_inline_data
                             : (uint32_t)config->inline_bytes;
    lane->psn = random_psn();
    lane->sent = calloc(lane->depth, sizeof *lane->sent);
    if (!lane->sent)
        return gt_fail(GT_NO_MEMORY, "no memory for the send queue of a verbs lane");
    struct ibv_qp_attr init = { .qp_state = IBV_QPS_INIT,
                                .port_num = port->number,
                                .pkey_index = (uint16_t)config->pkey_index,
                                .qp_access_flags = IBV_ACCESS_REMOTE_WRITE };
    const int refused = d->api->modify_qp(lane->qp, &init,
                                          IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
    if (refused)
        return gt_fail(GT_UNSUPPORTED, "cannot set up a queue pair on %s:%d (P_Key index %d): %s", d->name,
                       port->number, config->pkey_index, strerror(refused));
    gt_status st = GT_OK;
    for (uint32_t i = 0; !st && i < lane->receives; i++)
        st = net_verbs_receive(lane, i);
    return st;
}

/* As many as asked for, unless the device has fewer. */
static uint32_t at_most(uint32_t wanted, int limit)
{
    return limit > 0 && (uint32_t)limit < wanted ? (uint32_t)limit : wanted;
}

gt_status net_verbs_rail_create(net_verbs_link *link, int r)
{
    net_verbs_transport *t = link->t;
    net_verbs_rail *rail = &link->rail[r];
    net_verbs_device *d = &t->device[t->port[rail->port].device];
    const int from = net_verbs_rail_first_lane(r, link->pairs);
    const int to = net_verbs_rail_last_lane(r, link->pairs);
    uint32_t entries = 0;
    rail->open = 1;
    for (int i = from; i <= to; i++) {
        net_verbs_lane *lane = &link->lane[i];
        memset(lane, 0, sizeof *lane);
        lane->link = link;
        lane->index = i;
        lane->rail = r;
        lane->depth = at_most(i ? NET_VERBS_DATA_DEPTH : link->send_slots, d->attr.max_qp_wr);
        lane->receives = at_most(i ? NET_VERBS_DATA_DEPTH : link->receive_slots, d->attr.max_qp_wr);
        entries += lane->depth + lane->receives;
    }
    if (d->attr.max_cqe > 0 && entries > (uint32_t)d->attr.max_cqe)
        return gt_fail(GT_UNSUPPORTED,
                       "cannot use %s: it holds %d completions, %u are needed; set "
                       "queue-pairs lower",
                       d->name, d->attr.max_cqe, entries);
    rail->cq = t->api->create_cq(d->context, (int)entries, rail, d->channel, 0);
    if (!rail->cq)
        return gt_fail(GT_UNSUPPORTED, "cannot make a queue of %u completions on %s: %s", entries, d->name,
                       strerror(errno));
    gt_status st = GT_OK;
    for (int i = from; !st && i <= to; i++)
        st = create_lane(&link->lane[i], rail->cq);
    return st;
}

static void address(const net_verbs_link *link, const net_verbs_rail *rail, struct ibv_ah_attr *out)
{
    const net_config *config = link->t->base.config;
    const net_verbs_port *port = &link->t->port[rail->port];
    const net_verbs_port_offer *peer = &link->theirs.port[rail->peer_port];
    const int me = !link->leads;
    const net_verbs_gid *ours = &port->offer.gid[rail->choice.tried[rail->attempt].gid[me]];
    const net_verbs_gid *theirs = &peer->gid[rail->choice.tried[rail->attempt].gid[!me]];
    *out = (struct ibv_ah_attr){ .port_num = port->number, .dlid = peer->lid, .sl = (uint8_t)config->service_level };
    if (rail->choice.global) {
        out->is_global = 1;
        memcpy(out->grh.dgid.raw, theirs->raw, sizeof theirs->raw);
        out->grh.sgid_index = ours->index;
        out->grh.hop_limit = 255;       /* RoCE v2 may be routed */
        out->grh.traffic_class = (uint8_t)config->traffic_class;
    }
}

gt_status net_verbs_rail_raise(net_verbs_link *link, int r)
{
    net_verbs_transport *t = link->t;
    const net_verbs_rail *rail = &link->rail[r];
    net_verbs_device *d = &t->device[t->port[rail->port].device];
    for (int i = net_verbs_rail_first_lane(r, link->pairs); i <= net_verbs_rail_last_lane(r, link->pairs); i++) {
        net_verbs_lane *lane = &link->lane[i];
        struct ibv_qp_attr attr = {
            .qp_state = IBV_QPS_RTR,
            .path_mtu = rail->choice.mtu,
            .dest_qp_num = lane->peer_qpn,
            .rq_psn = lane->peer_psn,
            .max_dest_rd_atomic = 1,
            .min_rnr_timer = WELL_KNOWN_RNR_TIMER
        };
        address(link, rail, &attr.ah_attr);
        int refused = t->api->modify_qp(lane->qp, &attr,
                                        IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN
                                            | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
        if (!refused) {
            attr = (struct ibv_qp_attr){
                .qp_state = IBV_QPS_RTS,
                .sq_psn = lane->psn,
                .timeout = (uint8_t)t->base.config->ib_timeout,
                .rnr_retry = 7,
                .retry_cnt = (uint8_t)net_verbs_retries(t, d),
                .max_rd_atomic = 1
            };
            refused = t->api->modify_qp(lane->qp, &attr,
                                        IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT
                                            | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC);
        }
        if (refused)
            return gt_fail(GT_UNSUPPORTED, "cannot connect a queue pair on %s:%d: %s", d->name,
                           t->port[rail->port].number, strerror(refused));
        lane->raised = 1;
    }
    return GT_OK;
}

int net_verbs_rail_is_raised(const net_verbs_link *link, int r)
{
    return link->lane[net_verbs_rail_last_lane(r, link->pairs)].raised;
}

void net_verbs_rail_destroy(net_verbs_link *link, int r)
{
    net_verbs_transport *t = link->t;
    net_verbs_rail *rail = &link->rail[r];
    for (int i = net_verbs_rail_first_lane(r, link->pairs); i <= net_verbs_rail_last_lane(r, link->pairs); i++) {
        net_verbs_lane *lane = &link->lane[i];
        if (lane->qp)
            t->api->destroy_qp(lane->qp);
        free(lane->sent);
        lane->qp = NULL;
        lane->sent = NULL;
        lane->posted = lane->done = 0;
        lane->chained = 0;
    }
    if (rail->cq)
        t->api->destroy_cq(rail->cq);
    rail->cq = NULL;
    rail->armed = rail->has_kept = rail->open = rail->broken = 0;
}
