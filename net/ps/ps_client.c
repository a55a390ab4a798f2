/* SPDX-License-Identifier: MIT */
/* net/ps/ps_client.c - a worker's pushes and pulls.
 *
 * A request goes, block by block, to every server that has a part of it, a block's under one slot
 * number; it is done when all have answered. The answer of a push comes when the server has the bytes
 * (synchronous) or has applied them (stale), so waiting for it is what holds a worker
 * back that runs ahead.                                                                  */
#include "net/ps/ps_private.h"

#include <stdlib.h>
#include <string.h>

/* One server's share of a request. */
typedef struct leg {
    ps_request request;
    ps_answer answer;
    net_request *asked, *data, *answered;
} leg;

/* One block of a key. */
typedef struct asked {
    uint32_t block, slot;
    int has_slot;
    leg *legs;                          /* [server_count] */
} asked;

struct net_ps_request {
    net_ps *ps;
    uint32_t kind, key;
    uint64_t version;
    uint32_t blocks;
    leg *legs;                          /* of all blocks */
    asked asked[];
};

/* ---- slots ------------------------------------------------------------------------------ */

static gt_status take_slot(net_ps *ps, uint32_t *out)
{
    gt_status st = GT_OK;
    uint32_t slot = 0;
    pthread_mutex_lock(&ps->lock);
    while (slot < ps->slot_count && ps->slots[slot])
        slot++;
    if (slot == ps->slot_count) {
        const uint32_t room = slot ? 2 * slot : 64;
        unsigned char *slots = room <= PS_MOST_SLOTS ? realloc(ps->slots, room) : NULL;
        if (slots) {
            memset(slots + slot, 0, room - slot);
            ps->slots = slots;
            ps->slot_count = room;
        } else {
            st = gt_fail(GT_NO_MEMORY, "cannot have %u requests to a parameter server under way", (unsigned)slot + 1);
        }
    }
    if (!st)
        ps->slots[slot] = 1;
    pthread_mutex_unlock(&ps->lock);
    *out = slot;
    return st;
}

static void give_slot(net_ps *ps, uint32_t slot)
{
    pthread_mutex_lock(&ps->lock);
    ps->slots[slot] = 0;
    pthread_mutex_unlock(&ps->lock);
}

/* ---- requests --------------------------------------------------------------------------- */

/* Receives are posted before the server hears of the request. */
static gt_status ask(net_ps_request *r, asked *a, int server, const float *gradient, float *value)
{
    net_ps *ps = r->ps;
    const ps_range *range = ps_range_of(ps, a->block, server);
    const uint32_t up = ps_up(a->slot), down = ps_down(a->slot);
    const int to = ps->servers[server];
    leg *l = &a->legs[server];
    if (!range->count)
        return GT_OK;
    l->request = (ps_request){ r->kind, a->block, a->slot, 0, r->version };
    gt_status st = net_group_recv_start(ps->group, to, down, (net_sink){ &l->answer, sizeof l->answer, NULL, 1, 0 },
                                        &l->answered);
    if (!st && value)
        st = net_group_recv_start(ps->group, to, down,
                                  (net_sink){ value + range->offset, range->count * sizeof *value, NULL, sizeof *value,
                                              0 },
                                  &l->data);
    if (!st)
        st = net_group_send_start(ps->group, to, PS_REQUESTS, &l->request, sizeof l->request, 0, &l->asked);
    if (!st && gradient)
        st = net_group_send_start(ps->group, to, up, gradient + range->offset, range->count * sizeof *gradient,
                                  ps_priority(ps, a->block, 1), &l->data);
    return st;
}

static net_ps_request *new_request(net_ps *ps, uint32_t kind, uint32_t key, uint64_t version)
{
    const uint32_t blocks = ps->first[key + 1] - ps->first[key];
    const size_t servers = (size_t)ps->options.server_count;
    net_ps_request *r = calloc(1, sizeof *r + blocks * sizeof(asked));
    leg *legs = calloc(blocks * servers + 1, sizeof *legs);
    if (!r || !legs) {
        free(r);
        free(legs);
        return NULL;
    }
    *r = (net_ps_request){ .ps = ps, .kind = kind, .key = key, .version = version, .blocks = blocks, .legs = legs };
    for (uint32_t i = 0; i < blocks; i++) {
        r->asked[i].block = ps->first[key] + i;
        r->asked[i].legs = legs + i * servers;
    }
    return r;
}

static gt_status start(net_ps *ps, uint32_t kind, uint32_t key, uint64_t version, const float *gradient, float *value,
                       net_ps_request **out)
{
    gt_status st = GT_OK;
    *out = NULL;
    if (!ps->works)
        return gt_fail(GT_MISUSE, "rank %d of the group is no worker of the parameter server", ps->rank);
    if (key >= ps->key_count)
        return gt_fail(GT_MISUSE, "the parameter server has no key %u, only %u", (unsigned)key,
                       (unsigned)ps->key_count);
    net_ps_request *r = new_request(ps, kind, key, version);
    if (!r)
        return gt_fail(GT_NO_MEMORY, "cannot ask a parameter server: no memory for the request");
    for (uint32_t i = 0; !st && i < r->blocks; i++) {
        asked *a = &r->asked[i];
        st = take_slot(ps, &a->slot);
        a->has_slot = !st;
        for (int j = 0; !st && j < ps->options.server_count; j++)
            st = ask(r, a, j, gradient, value);
    }
    if (st) {                           /* the job is over: waiting gives the rest back */
        net_ps_wait(r, NULL);
        return st;
    }
    *out = r;
    return GT_OK;
}

gt_status net_ps_push_start(net_ps *ps, uint32_t key, const float *gradient, uint64_t tag, net_ps_request **out)
{
    return start(ps, PS_PUSH, key, tag, gradient, NULL, out);
}

gt_status net_ps_pull_start(net_ps *ps, uint32_t key, uint64_t version, float *value, net_ps_request **out)
{
    return start(ps, PS_PULL, key, version, NULL, value, out);
}

static gt_status wait_leg(const net_ps_request *r, const leg *l, uint64_t *lowest)
{
    net_request *const all[] = { l->asked, l->data, l->answered };
    gt_status st = GT_OK;
    for (int k = 0; k < 3; k++) {
        const gt_status one = net_wait(all[k]);
        st = st ? st : one;
    }
    if (st || !l->answered)
        return st;
    *lowest = l->answer.version < *lowest ? l->answer.version : *lowest;
    if (l->answer.status == PS_TOO_LATE)
        st = gt_fail(GT_MISUSE, "cannot pull version %llu of key %u: it is at %llu already",
                     (unsigned long long)r->version, (unsigned)r->key, (unsigned long long)l->answer.version);
    return st;
}

gt_status net_ps_wait(net_ps_request *r, uint64_t *got)
{
    gt_status st = GT_OK;
    uint64_t lowest = UINT64_MAX;
    if (!r)
        return GT_OK;
    for (uint32_t i = 0; i < r->blocks; i++) {
        asked *a = &r->asked[i];
        for (int j = 0; j < r->ps->options.server_count; j++) {
            const gt_status one = wait_leg(r, &a->legs[j], &lowest);
            st = st ? st : one;
        }
        if (a->has_slot)
            give_slot(r->ps, a->slot);
    }
    if (got)
        *got = lowest == UINT64_MAX ? r->version : lowest;
    free(r->legs);
    free(r);
    return st;
}

gt_status ps_client_close(net_ps *ps)
{
    const ps_request closing = { .kind = PS_CLOSE };
    gt_status st = GT_OK;
    for (int i = 0; !st && i < ps->options.server_count; i++) {
        net_request *r;
        st = net_group_send_start(ps->group, ps->servers[i], PS_REQUESTS, &closing, sizeof closing, 0, &r);
        if (!st)
            st = net_wait(r);
    }
    return st;
}
