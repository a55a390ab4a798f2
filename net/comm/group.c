/* SPDX-License-Identifier: MIT */
/* net/comm/group.c - groups, and operations that all ranks of one agree on.
 *
 *   rank 0 ── "#12 is all-reduce of 1000 f32" ──► next rank ── ... ──► last rank ──► rank 0
 *
 * Each rank tells only the next one what it is about to do, without waiting: if every rank
 * agrees with the one before it, all agree. The message is small and travels with the first
 * data; nobody waits for it, but a disagreement ends the job before it can hang.
 *
 * A group's id is a hash of its members and of how many groups of just these members were
 * made before: equal on all members without asking anybody.                               */
#include "net/comm/board.h"
#include "net/comm/comm_private.h"

#include "host/base/file.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct claim_node {
    node node;
    group_claim claim;
} claim_node;

/* ---- groups ---------------------------------------------------------------------------- */

static gt_status check_ranks(const net_comm *c, const int *ranks, int count, int *mine)
{
    *mine = -1;
    if (count < 1)
        return gt_fail(GT_MISUSE, "a group needs at least one rank");
    for (int i = 0; i < count; i++) {
        if (ranks[i] < 0 || ranks[i] >= c->size)
            return gt_fail(GT_MISUSE, "there is no rank %d among %d ranks", ranks[i], c->size);
        for (int j = 0; j < i; j++)
            if (ranks[j] == ranks[i])
                return gt_fail(GT_MISUSE, "rank %d is named twice in a group", ranks[i]);
        if (ranks[i] == c->rank)
            *mine = i;
    }
    return *mine >= 0 ? GT_OK : gt_fail(GT_MISUSE, "rank %d is not in the group it makes", c->rank);
}

gt_status net_group_create(net_group **out, net_comm *c, const int *ranks, int count)
{
    int mine;
    channel_end *same;                  /* groups of just these members, counted                   */
    *out = NULL;
    gt_status st = check_ranks(c, ranks, count, &mine);
    if (st)
        return st;
    net_group *g = calloc(1, sizeof *g);
    int *list = malloc((size_t)count * sizeof *list);
    if (!g || !list) {
        free(g);
        free(list);
        return gt_fail(GT_NO_MEMORY, "no memory for a group of ranks");
    }
    memcpy(list, ranks, (size_t)count * sizeof *list);
    const uint64_t members = gt_hash(list, (size_t)count * sizeof *list);
    *g = (net_group){ .comm = c, .rank = mine, .size = count, .ranks = list };
    comm_lock(c);
    st = match_channel(c, &(tag){ .context = members, .step = UINT32_MAX - 1, .peer = -1 }, NODE_CHANNEL_SEND, &same);
    if (!st)
        g->id = members ^ ++same->n * 0x9e3779b97f4a7c15u;
    g->next = c->groups;
    g->link = &c->groups;
    if (g->next)
        g->next->link = &g->next;
    c->groups = g;
    comm_unlock(c);
    if (st) {
        net_group_release(g);
        return st;
    }
    *out = g;
    return GT_OK;
}

void net_group_release(net_group *g)
{
    if (!g)
        return;
    net_comm *c = g->comm;
    if (g->release)
        g->release(g->attached);
    net_comm_memory_free(c, g->scratch);
    group_board_release(g->board);
    comm_lock(c);
    *g->link = g->next;
    if (g->next)
        g->next->link = g->link;
    comm_unlock(c);
    free(g->ranks);
    free(g);
}

gt_status group_world(net_comm *c)
{
    int *all = malloc((size_t)c->size * sizeof *all);
    if (!all)
        return gt_fail(GT_NO_MEMORY, "no memory for the list of all ranks");
    for (int i = 0; i < c->size; i++)
        all[i] = i;
    gt_status st = net_group_create(&c->world, c, all, c->size);
    free(all);
    return st;
}

void group_release_all(net_comm *c)
{
    while (c->groups)
        net_group_release(c->groups);
}

net_group *net_group_world(net_comm *c)
{
    return c->world;
}
int net_group_rank(const net_group *g)
{
    return g->rank;
}
int net_group_size(const net_group *g)
{
    return g->size;
}
int net_group_member(const net_group *g, int rank)
{
    return g->ranks[rank];
}
net_comm *net_group_comm(const net_group *g)
{
    return g->comm;
}
int net_group_has_board(const net_group *g)
{
    return g->board != NULL;
}
void *net_group_attached(net_group *g)
{
    return atomic_load_explicit(&g->attached, memory_order_acquire);
}

void net_group_attach(net_group *g, void *data, void (*release)(void *data))
{
    g->release = release;
    atomic_store_explicit(&g->attached, data, memory_order_release);
}

gt_status net_group_scratch(net_group *g, size_t size, void **out)
{
    if (size > g->scratch_size) {
        net_comm_memory_free(g->comm, g->scratch);
        g->scratch = NULL;
        g->scratch_size = 0;
        gt_status st = net_comm_memory(g->comm, size, &g->scratch);
        if (st)
            return st;
        g->scratch_size = size;
    }
    *out = g->scratch;
    return GT_OK;
}

/* ---- agreement ------------------------------------------------------------------------- */

static int text_of(const group_claim *k, char *out, size_t size)
{
    int n = snprintf(out, size, "%.*s of %llu %.*s", AGREE_TEXT - 1, k->name, (unsigned long long)k->count,
                     AGREE_TEXT - 1, k->unit);
    if (k->root >= 0 && n > 0 && (size_t)n < size)
        n += snprintf(out + n, size - (size_t)n, " from rank %d of the group", k->root);
    return n;
}

void group_claim_numbers(group_claim *out, const net_agreement *what)
{
    out->kind = what->kind;
    out->type = what->type;
    out->algorithm = what->algorithm;
    out->root = what->root;
    out->count = what->count;
}

void group_claim_names(group_claim *out, const char *name, const char *unit)
{
    memset(out->name, 0, sizeof out->name);
    memset(out->unit, 0, sizeof out->unit);
    strncpy(out->name, name, sizeof out->name - 1);
    strncpy(out->unit, unit ? unit : "elements", sizeof out->unit - 1);
}

void group_disagreed(net_comm *c, int peer, uint64_t sequence, const group_claim *theirs, const group_claim *mine)
{
    char us[160], them[160], ours[160], said[160];
    net_job_name(c->job, c->rank, us, sizeof us);
    net_job_name(c->job, peer, them, sizeof them);
    text_of(mine, ours, sizeof ours);
    text_of(theirs, said, sizeof said);
    net_comm_abort(c, -1, "ranks do not agree on operation #%llu: %s calls %s, but %s calls %s%s",
                   (unsigned long long)sequence, them, said, us, ours,
                   theirs->kind == mine->kind && theirs->count == mine->count && theirs->type == mine->type
                           && theirs->root == mine->root
                       ? " with another algorithm"
                       : "");
}

static void compare(pair *p, uint64_t sequence, const group_claim *theirs, const group_claim *mine)
{
    if (theirs->kind != mine->kind || theirs->type != mine->type || theirs->root != mine->root
        || theirs->count != mine->count || theirs->algorithm != mine->algorithm)
        group_disagreed(p->comm, p->peer, sequence, theirs, mine);
}

void group_agreed(pair *p, const message *m, const void *body, size_t size)
{
    const tag key = { m->context, m->sequence, 0, p->peer };
    net_comm *c = p->comm;
    group_claim theirs;
    if (size != sizeof theirs) {
        net_comm_abort(c, p->peer, "rank %d sent a message that makes no sense", p->peer);
        return;
    }
    memcpy(&theirs, body, sizeof theirs);
    claim_node *mine = (claim_node *)table_find(&c->tags, &key, NODE_EXPECTED);
    if (mine) {
        compare(p, m->sequence, &theirs, &mine->claim);
        table_remove(&c->tags, &mine->node);
        free(mine);
        return;
    }
    claim_node *n = malloc(sizeof *n);
    if (!n) {
        net_comm_abort(c, c->rank, "no memory for another rank's claim of an operation");
        return;
    }
    *n = (claim_node){ { .key = key, .kind = NODE_AGREED }, theirs };
    table_insert(&c->tags, &n->node);
}

/* The rank that is told by `rank` (by = 1), or tells it (by = -1). Of a power of two ranks in the order of a
 * Gray code, whose neighbours differ in one bit: those exchange data anyway where vectors are small. */
static int neighbour(const net_group *g, int rank, int by)
{
    unsigned place = (unsigned)rank;
    if (g->size & (g->size - 1))
        return (rank + by + g->size) % g->size;
    for (unsigned more = place >> 1; more; more >>= 1)
        place ^= more;
    place = (place + (unsigned)(by + g->size)) & (unsigned)(g->size - 1);
    return (int)(place ^ place >> 1);
}

/* Lock held. */
static gt_status claim_operation(net_group *g, const group_claim *mine)
{
    net_comm *c = g->comm;
    pair *next, *previous;
    gt_status st = pair_get(c, g->ranks[neighbour(g, g->rank, 1)], &next);
    if (!st)
        st = pair_get(c, g->ranks[neighbour(g, g->rank, -1)], &previous);
    if (st)
        return st;
    message m = { .type = MESSAGE_AGREE, .context = g->id, .sequence = g->sequence };
    st = match_post(next, &m, mine, sizeof *mine);
    if (st)
        return st;
    g->op.told = next;
    const tag key = { g->id, g->sequence, 0, previous->peer };
    claim_node *said = (claim_node *)table_find(&c->tags, &key, NODE_AGREED);
    if (said) {
        compare(previous, g->sequence, &said->claim, mine);
        table_remove(&c->tags, &said->node);
        free(said);
        return net_job_check(c->job);
    }
    claim_node *n = malloc(sizeof *n);
    if (!n)
        return gt_fail(GT_NO_MEMORY, "no memory for the claim of an operation");
    *n = (claim_node){ { .key = key, .kind = NODE_EXPECTED }, *mine };
    table_insert(&c->tags, &n->node);
    return GT_OK;
}

/* ---- operations ------------------------------------------------------------------------ */

/* The next operation of the group, which nobody has been told of yet. */
static gt_status begin(net_group *g, const char *name, const net_agreement *what, net_op **out)
{
    net_comm *c = g->comm;
    assert(!g->busy);
    *out = NULL;
    gt_status st = net_job_check(c->job);
    if (st)
        return st;
    g->sequence++;
    g->busy = 1;
    g->op = (net_op){ .group = g, .sequence = g->sequence, .name = name, .what = *what };
    g->op.record =
        recorder_begin(&c->recorder,
                       &(record){
                           .name = name, .group = g->id, .sequence = g->sequence, .what = *what, .members = g->size });
    *out = &g->op;
    return GT_OK;
}

gt_status net_op_begin(net_group *g, const char *name, const net_agreement *what, net_op **out)
{
    group_claim mine;
    gt_status st = begin(g, name, what, out);
    if (st || g->size == 1)
        return st;
    memset(&mine, 0, sizeof mine);
    group_claim_numbers(&mine, what);
    group_claim_names(&mine, name, what->unit);
    if (g->board)
        group_board_tells(g, &mine);
    comm_lock(g->comm);
    st = claim_operation(g, &mine);
    comm_unlock(g->comm);
    if (!st)
        return GT_OK;
    *out = NULL;
    return net_op_end(&g->op, st);
}

gt_status net_op_begin_on_board(net_group *g, const char *name, const net_agreement *what, net_op **out)
{
    assert(g->board);
    return begin(g, name, what, out);
}

void net_op_priority(net_op *o, uint32_t priority)
{
    o->priority = priority;
}

void net_op_phase(net_op *o, const char *phase, int step)
{
    recorder_phase(&o->group->comm->recorder, o->record, phase, step);
}

/* What ranks agree on travels with data. Where there were none for the rank that is to hear it, now. */
static void flush_claim(const net_op *o)
{
    const pair *p = o->told;
    comm_lock(p->comm);
    if (p->state == PAIR_UP && p->ops->flush)
        p->ops->flush(p->link);
    comm_unlock(p->comm);
}

gt_status net_op_end(net_op *o, gt_status st)
{
    net_comm *c = o->group->comm;
    if (st && !net_job_check(c->job))       /* the others cannot go on without this rank */
        net_comm_abort(c, c->rank, "%s", gt_message());
    while (o->requests) {
        const gt_status waited = net_wait(o->requests);
        st = st ? st : waited;
    }
    if (o->told && !st)
        flush_claim(o);
    recorder_end(&c->recorder, o->record, st);
    o->group->busy = 0;
    return st;
}

static void adopt(net_op *o, net_request *r)
{
    r->op = o;
    r->op_next = o->requests;
    r->op_link = &o->requests;
    if (r->op_next)
        r->op_next->op_link = &r->op_next;
    o->requests = r;
}

gt_status net_op_send(net_op *o, int peer, uint32_t step, const void *data, size_t size, net_request **out)
{
    const net_group *g = o->group;
    pair *p;
    *out = NULL;
    assert(peer >= 0 && peer < g->size && peer != g->rank && step < UINT32_MAX - 1);
    if (!size)
        return GT_OK;
    comm_lock(g->comm);
    gt_status st = net_job_check(g->comm->job);
    if (!st)
        st = pair_get(g->comm, g->ranks[peer], &p);
    if (!st)
        st = match_send(p, &(tag){ g->id, o->sequence, step, g->ranks[peer] }, NULL, data, size, o->priority, out);
    if (!st)
        adopt(o, *out);
    comm_unlock(g->comm);
    return st;
}

gt_status net_op_recv(net_op *o, int peer, uint32_t step, net_sink sink, net_request **out)
{
    const net_group *g = o->group;
    pair *p;
    *out = NULL;
    assert(peer >= 0 && peer < g->size && peer != g->rank && step < UINT32_MAX - 1);
    if (!sink.size)
        return GT_OK;
    comm_lock(g->comm);
    gt_status st = net_job_check(g->comm->job);
    if (!st)
        st = pair_get(g->comm, g->ranks[peer], &p);
    if (!st)
        st = match_receive(p, &(tag){ g->id, o->sequence, step, g->ranks[peer] }, NULL, sink, out);
    if (!st)
        adopt(o, *out);
    comm_unlock(g->comm);
    return st;
}

/* ---- channels -------------------------------------------------------------------------- */

/* The pair, the channel and the tag of its next message. Lock held. */
static gt_status next_message(net_group *g, int peer, uint32_t number, node_kind direction, pair **p, channel_end **of,
                              tag *key)
{
    const int rank = g->ranks[peer];
    gt_status st = net_job_check(g->comm->job);
    if (!st)
        st = pair_get(g->comm, rank, p);
    if (!st)
        st = match_channel(g->comm, &(tag){ g->id, number, UINT32_MAX, rank }, direction, of);
    if (!st)
        *key = (tag){ g->id, (uint64_t)number << 32 | ((*of)->n++ & UINT32_MAX), UINT32_MAX, rank };
    return st;
}

gt_status net_group_send_start(net_group *g, int peer, uint32_t number, const void *data, size_t size,
                               uint32_t priority, net_request **out)
{
    pair *p;
    channel_end *of;
    tag key;
    *out = NULL;
    comm_lock(g->comm);
    gt_status st = next_message(g, peer, number, NODE_CHANNEL_SEND, &p, &of, &key);
    if (!st)
        st = match_send(p, &key, of, data, size, priority, out);
    comm_unlock(g->comm);
    return st;
}

gt_status net_group_recv_start(net_group *g, int peer, uint32_t number, net_sink sink, net_request **out)
{
    pair *p;
    channel_end *of;
    tag key;
    *out = NULL;
    comm_lock(g->comm);
    gt_status st = next_message(g, peer, number, NODE_CHANNEL_RECEIVE, &p, &of, &key);
    if (!st)
        st = match_receive(p, &key, of, sink, out);
    comm_unlock(g->comm);
    return st;
}
