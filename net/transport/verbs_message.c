/* SPDX-License-Identifier: MIT */
/* net/transport/verbs_message.c - small messages, and the credits of all lanes.
 *
 *   slot of messages, sent whole over lane 0:
 *   ┌──────┬──────┬──────────┬──────┬─────────┬────────────┐
 *   │ kind │ head │ returned │ body │ head .. │ body ..    │ the next one ...
 *   └──────┴──────┴──────────┴──────┴─────────┴────────────┘
 *      1      1        2        4     1..64     0..eager
 *
 * Messages gather in the next request's slot until flush(), or until this end is about to sleep:
 * what ranks agree on goes with the first data, and windows are told of in dozens, by one request
 * that takes one receive and one credit.
 *
 * Request n of lane 0 owns send slot n % depth, so a slot is free exactly when its request is
 * done and no list of free ones is needed. `returned`, of a slot's first message, counts receives that this end has
 * made ready again since the link came up, modulo 2^16: a count instead of a difference, so that
 * nothing is lost by telling it twice.
 *
 * The last two credits of lane 0 are kept for credit messages. Each such message answers at
 * least half a queue of receives and uses one, so both ends cannot run out together.     */
#include "net/transport/verbs_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static uint16_t left(const net_verbs_lane *lane)
{
    return (uint16_t)(lane->credits - (uint16_t)(lane->used - lane->returned));
}

int net_verbs_lane_has_credit(const net_verbs_lane *lane, int reserve)
{
    return left(lane) > reserve;
}

/* The slot of the next request. */
static unsigned char *next_slot(const net_verbs_link *link)
{
    const net_verbs_lane *lane = &link->lane[0];
    return link->buffers.data + lane->posted % lane->depth * link->slot;
}

/* Posts the next request's slot, which `bytes` are in behind a first head that is written now. */
static gt_status transmit(net_verbs_link *link, net_verbs_head opening, uint32_t bytes)
{
    net_verbs_transport *t = link->t;
    net_verbs_lane *lane = &link->lane[0];
    unsigned char *slot = next_slot(link);
    opening.returned = lane->reposted;
    net_verbs_head_write(&opening, slot);
    const net_verbs_work work = { .opcode = IBV_WR_SEND,
                                  .data = slot,
                                  .size = bytes,
                                  .lkey = link->buffers.mr[t->port[link->rail[0].port].device]->lkey };
    gt_status st = net_verbs_post(lane, &work);
    if (!st)
        st = net_verbs_ring(lane);
    if (st)
        return st;
    lane->used++;
    lane->told = lane->reposted;
    return GT_OK;
}

/* ---- sending -------------------------------------------------------------------------------- */

static int may_send(net_verbs_link *link)
{
    net_verbs_transport *t = link->t;
    if (!net_verbs_lane_room(&link->lane[0])) {
        t->count[NET_VERBS_QUEUE_STALLS]++;
        return 0;
    }
    if (!net_verbs_lane_has_credit(&link->lane[0], NET_VERBS_RESERVE)) {
        t->count[NET_VERBS_CREDIT_STALLS]++;
        return 0;
    }
    return 1;
}

/* Lets go what has gathered. */
static gt_status let_go(net_verbs_link *link)
{
    const uint32_t bytes = link->filled;
    link->filled = 0;
    if (!bytes)
        return GT_OK;
    link->t->count[NET_VERBS_MESSAGE_SENDS]++;
    return transmit(link, link->opening, bytes);
}

/* Puts a message into the slot that is gathered, or into a new one. *taken 0: there is none now. */
static gt_status gather(net_verbs_link *link, const void *head, size_t head_size, const void *body, size_t body_size,
                        int *taken)
{
    const size_t whole = NET_VERBS_HEAD + head_size + body_size;
    const net_verbs_head h = { NET_VERBS_IS_MESSAGE, (uint8_t)head_size, 0, (uint32_t)body_size };
    gt_status st = link->filled + whole > link->slot ? let_go(link) : GT_OK;
    *taken = !st && (link->filled || may_send(link));
    if (!*taken)
        return st;
    unsigned char *at = next_slot(link) + link->filled;
    if (link->filled)
        net_verbs_head_write(&h, at);
    else
        link->opening = h;
    memcpy(at + NET_VERBS_HEAD, head, head_size);
    if (body_size)
        memcpy(at + NET_VERBS_HEAD + head_size, body, body_size);
    link->filled += (uint32_t)whole;
    link->t->count[NET_VERBS_MESSAGES]++;
    return GT_OK;
}

gt_status net_verbs_send(net_link *base, const void *head, size_t head_size, const void *body, size_t body_size)
{
    net_verbs_link *link = (net_verbs_link *)base;
    gt_status st = net_verbs_link_check(link);
    int taken = 0;
    assert(head_size >= 1 && head_size <= NET_MESSAGE && body_size <= link->t->base.config->eager);
    if (!st && !link->first)
        st = gather(link, head, head_size, body, body_size, &taken);
    if (st || taken)
        return st;
    net_verbs_waiting *w = malloc(sizeof *w + head_size + body_size);
    if (!w)
        return gt_fail(GT_NO_MEMORY, "no memory for a message that waits to be sent");
    w->next = NULL;
    w->head = (uint8_t)head_size;
    w->body = (uint32_t)body_size;
    memcpy(w->bytes, head, head_size);
    if (body_size)
        memcpy(w->bytes + head_size, body, body_size);
    *(link->first ? &link->last->next : &link->first) = w;
    link->last = w;
    return GT_OK;
}

void net_verbs_message_flush(net_link *base)
{
    net_verbs_link *link = (net_verbs_link *)base;
    if (!link->failed && let_go(link))
        net_verbs_link_fail_here(link, GT_PEER);
}

/* 1 if half of some lane's receives are ready again, and the peer does not know. */
static int owes_credits(const net_verbs_link *link)
{
    for (int i = 0; i < link->lanes; i++) {
        const net_verbs_lane *lane = &link->lane[i];
        if ((uint16_t)(lane->reposted - lane->told) >= lane->receives / 2)
            return 1;
    }
    return 0;
}

static gt_status send_credits(net_verbs_link *link)
{
    unsigned char *counts = next_slot(link) + NET_VERBS_HEAD;
    uint32_t size = 0;
    for (int i = 1; i < link->lanes; i++) {
        counts[size++] = (unsigned char)(link->lane[i].reposted >> 8);
        counts[size++] = (unsigned char)link->lane[i].reposted;
    }
    link->t->count[NET_VERBS_CREDIT_MESSAGES]++;
    gt_status st = transmit(link, (net_verbs_head){ NET_VERBS_IS_CREDIT, 0, 0, size }, NET_VERBS_HEAD + size);
    for (int i = 1; !st && i < link->lanes; i++)
        link->lane[i].told = link->lane[i].reposted;
    return st;
}

void net_verbs_message_pump(net_verbs_link *link)
{
    gt_status st = GT_OK;
    int taken = 1, waited = 0;
    while (!st && link->first && taken) {
        net_verbs_waiting *w = link->first;
        st = gather(link, w->bytes, w->head, w->bytes + w->head, w->body, &taken);
        if (!taken)
            break;
        waited = 1;
        link->first = w->next;
        free(w);
    }
    if (!st && (waited || (link->filled && owes_credits(link))))
        st = let_go(link);
    if (!st && owes_credits(link) && net_verbs_lane_room(&link->lane[0])
        && net_verbs_lane_has_credit(&link->lane[0], 0))
        st = send_credits(link);
    if (st)
        net_verbs_link_fail_here(link, st);
}

void net_verbs_message_clear(net_verbs_link *link)
{
    while (link->first) {
        net_verbs_waiting *w = link->first;
        link->first = w->next;
        free(w);
    }
}

/* ---- receiving ------------------------------------------------------------------------------ */

/* The peer's count of receives; 0 if it claims more than we have used up. */
static int take_back(net_verbs_lane *lane, uint16_t returned)
{
    const uint16_t out = (uint16_t)(lane->used - lane->returned);
    if ((uint16_t)(lane->used - returned) > out)
        return 0;
    lane->returned = returned;
    return 1;
}

static int take_back_all(net_verbs_link *link, const unsigned char *counts, size_t size)
{
    int good = size == 2 * (size_t)(link->lanes - 1);
    for (int i = 1; good && i < link->lanes; i++, counts += 2)
        good = take_back(&link->lane[i], (uint16_t)(counts[0] << 8 | counts[1]));
    return good;
}

/* A credit message, whose head was read. 0: it makes no sense. */
static int take_credits(net_verbs_link *link, const net_verbs_head *h, const unsigned char *body)
{
    return h->head == 0 && take_back_all(link, body, h->body);
}

void net_verbs_message_arrived(net_verbs_link *link, uint32_t slot, uint32_t bytes, int *did)
{
    const unsigned char *data = link->buffers.data + (link->send_slots + slot) * link->slot;
    const unsigned char *const end = data + bytes, *const begin = data;
    while (data < end && !link->failed && !link->gone) {
        net_verbs_head h;
        gt_status st = net_verbs_head_read(&h, data, (size_t)(end - data), NET_MESSAGE, link->slot);
        if (st) {
            net_verbs_link_fail_here(link, st);
            return;
        }
        const int good = (data != begin || take_back(&link->lane[0], h.returned))
                         && (h.kind == NET_VERBS_IS_MESSAGE
                             || (h.kind == NET_VERBS_IS_CREDIT && take_credits(link, &h, data + NET_VERBS_HEAD)));
        if (!good) {
            net_verbs_link_fail(link, GT_PEER,
                                "cannot go on over verbs: the peer's count of receives "
                                "makes no sense; both hosts must run the same version of geartrain");
            return;
        }
        const unsigned char *head = data + NET_VERBS_HEAD;
        data = head + h.head + h.body;
        if (h.kind == NET_VERBS_IS_MESSAGE) {
            ++*did;
            link->t->base.events->message(link->base.up, head, h.head, head + h.head, h.body);
        }
    }
}
