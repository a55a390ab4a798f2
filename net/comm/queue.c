/* SPDX-License-Identifier: MIT */
/* net/comm/queue.c - sends of a pair that let more urgent ones go first.
 *
 *   started    7 7 7 7 7 7 . . 2 2 . . .           a large sum in pieces; then one that is needed earlier
 *   waiting            7 7 7 7 7 7 7 7             most urgent first, of equals the first started
 *   link       7 7 ───────────► 2 2 7 7 7 7        never more than it needs to stay busy
 *
 * A link carries what it was given in that order, so urgency is a matter of giving it little at a time: the rest waits
 * here, where it can still be overtaken. Priorities are each rank's own affair: they hold back only sends that could go
 * at once, whose receiver has a place for them, and every such send goes in the end; what a receive waits
 * for never depends on who went first, so no order can lead to a deadlock, or to other bits. Priority 0, the usual one,
 * waits for nobody: activations between stages overtake sums of gradients.
 *
 * Sources: Jayarajan et al., "Priority-based parameter propagation for distributed DNN training", MLSys 2019; credits:
 * Peng et al., "A generic communication scheduler for distributed DNN training acceleration", SOSP 2019. */
#include "net/comm/comm_private.h"

#include <stdlib.h>
#include <string.h>

uint64_t line_enter(line *l, net_request *r)
{
    net_request **at = &l->first;
    uint64_t passed = 0;
    if (l->last && l->last->priority <= r->priority)
        at = &l->last->next;
    while (*at && (*at)->priority <= r->priority)
        at = &(*at)->next;
    for (const net_request *behind = *at; behind; behind = behind->next)
        passed++;
    r->next = *at;
    *at = r;
    if (!r->next)
        l->last = r;
    return passed;
}

void line_leave(line *l, net_request *r)
{
    net_request **at = &l->first, *before = NULL;
    while (*at != r) {
        before = *at;
        at = &before->next;
    }
    *at = r->next;
    if (l->last == r)
        l->last = before;
}

/* The link would run dry soon. */
static int is_free(const pair *p)
{
    const size_t ahead = p->link->transport->ahead;
    return p->ops->backlog ? p->ops->backlog(p->link) < ahead : p->flying < ahead;
}

static gt_status hand_over(net_request *r)
{
    pair *p = r->pair;
    if (!r->window_there)
        return match_eager(r);
    r->flies = 1;
    p->flying += r->size;
    return match_put(r, r->window_there, r->descriptor, r->descriptor_size);
}

static gt_status wait_turn(net_request *r)
{
    if (r->descriptor_size) {
        r->descriptor_kept = malloc(r->descriptor_size);
        if (!r->descriptor_kept)
            return gt_fail(GT_NO_MEMORY, "no memory for a send that waits for more urgent ones");
        memcpy(r->descriptor_kept, r->descriptor, r->descriptor_size);
        r->descriptor = r->descriptor_kept;
    }
    r->comm->overtaken += line_enter(&r->pair->waiting, r);
    r->comm->waiting++;
    r->comm->waited++;
    r->waits = 1;
    return GT_OK;
}

static void leave_turn(net_request *r)
{
    line_leave(&r->pair->waiting, r);
    r->comm->waiting--;
    r->waits = 0;
}

gt_status queue_send(net_request *r, uint32_t window, const unsigned char *descriptor, size_t size)
{
    const pair *p = r->pair;
    const net_request *first = p->waiting.first;
    r->window_there = window;
    r->descriptor = descriptor;
    r->descriptor_size = size;
    if (r->priority && (!is_free(p) || (first && first->priority <= r->priority)))
        return wait_turn(r);
    for (; first; first = first->next)
        r->comm->overtaken++;
    return hand_over(r);
}

static int release_pair(pair *p)
{
    int released = 0;
    while (p->waiting.first && p->state == PAIR_UP && is_free(p)) {
        net_request *r = p->waiting.first;
        unsigned char *kept = r->descriptor_kept;
        leave_turn(r);
        r->descriptor_kept = NULL;
        if (hand_over(r))
            net_comm_abort(p->comm, p->comm->rank, "%s", gt_message());
        free(kept);
        if (p->ops->flush)
            p->ops->flush(p->link);
        released = 1;
    }
    return released;
}

int queue_release(net_comm *c)
{
    int released = 0;
    for (int i = 0; c->waiting && i < c->size; i++)
        if (c->pairs[i])
            released |= release_pair(c->pairs[i]);
    return released;
}

void queue_landed(net_request *r)
{
    if (r->flies)
        r->pair->flying -= r->size;
    r->flies = 0;
}

void queue_forget(net_request *r)
{
    if (r->waits)
        leave_turn(r);
    free(r->descriptor_kept);
    r->descriptor_kept = NULL;
}
