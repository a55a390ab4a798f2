/* SPDX-License-Identifier: MIT */
/* net/comm/match.c - requests and messages find each other.
 *
 *   up to the transport's eager bytes        more
 *   send ── EAGER + bytes ──► receive        receive opens a window ── READY ──► send
 *           (kept if it is early)            window ◄──────── put ───────────── send
 *
 * Everything matches by its tag, in any order of arrival, so transports may let messages
 * overtake each other. Both ends know the size; a difference is an error that names both. Of
 * two that differ, one may wait for a window while the other waits for a small message. So on
 * channels a sender of much says so (INTENT) where it sends another size than just before, and
 * a receiver of little does (READY without a window) where it has just received much: whoever
 * changes tells, and a row of messages of one size costs none of these.
 *
 * A channel's windows are filled in their order. While the peer has several to fill, further
 * ones are held back, and then told of together: a row of 32 in flight takes one message in
 * sixteen transfers instead of one each. It is never without a window that it needs: the last
 * ones told of come before all that are held, and half as many told as open makes us speak. Only
 * that order allows it; windows of operations, which may be filled in any, are told at once.
 *
 * Eager bytes that nobody has asked for yet use the receiver's memory: a sender stops at
 * EAGER_LIMIT of them until the receiver has taken some (CREDIT).                         */
#include "net/comm/comm_private.h"

#include "host/base/clock.h"
#include "host/base/file.h"
#include "host/base/text.h"
#include "host/base/trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EAGER_LIMIT = 4 << 20, EAGER_COST = 128, SLOT_BITS = 20 };
/* Bytes in told windows that keep a sender busy until the next ones have been told: some 5 us at 400 Gb/s. */
static const uint64_t busy_bytes = 256 << 10;

typedef struct kept {               /* NODE_EAGER, NODE_READY, NODE_INTENT */
    node node;
    size_t size, body_size;
    uint32_t window;
    unsigned char body[];
} kept;

/* ---- requests -------------------------------------------------------------------------- */

static net_request *new_request(pair *p, const tag *key, node_kind kind, size_t size)
{
    net_comm *c = p->comm;
    net_request *r = c->spare;
    if (r)
        c->spare = r->next;
    else
        r = malloc(sizeof *r);
    if (!r) {
        gt_fail(GT_NO_MEMORY, "no memory for a request");
        return NULL;
    }
    *r = (net_request){ .node = { .key = *key, .kind = kind }, .comm = c, .pair = p, .size = size };
    if (size && gt_trace_on()) {
        r->began = gt_trace_now();
        gt_span s = { 0 };
        if (kind == NODE_SEND)
            gt_trace_stamp(&s);
        r->of_step = s.step;
        r->of_micro_batch = s.micro_batch;
        r->of_chunk = s.chunk;
    }
    c->outstanding++;
    return r;
}

static void enter(net_request *r)
{
    table_insert(&r->comm->tags, &r->node);
    r->tabled = 1;
}

static gt_status new_window(net_request *r)
{
    net_comm *c = r->comm;
    if (!c->window_free) {
        const uint32_t room = c->window_count ? 2 * c->window_count : 256;
        if (room > 1u << SLOT_BITS)
            return gt_fail(GT_UNSUPPORTED, "cannot receive more than %u messages at once", 1u << SLOT_BITS);
        net_request **windows = realloc(c->windows, room * sizeof *windows);
        if (windows)
            c->windows = windows;
        uint32_t *round = realloc(c->window_round, room * sizeof *round);
        if (round)
            c->window_round = round;
        if (!windows || !round)
            return gt_fail(GT_NO_MEMORY, "no memory for the list of windows");
        /* A free slot's round holds the next free one in its low bits; slot 0 is never used. */
        for (uint32_t i = room - 1; i >= (c->window_count ? c->window_count : 1); i--) {
            windows[i] = NULL;
            round[i] = c->window_free;
            c->window_free = i;
        }
        c->window_count = room;
    }
    const uint32_t slot = c->window_free;
    c->window_free = c->window_round[slot] & ((1u << SLOT_BITS) - 1);
    c->window_round[slot] = (c->window_round[slot] & ~((1u << SLOT_BITS) - 1)) + (1u << SLOT_BITS);
    c->windows[slot] = r;
    r->window = c->window_round[slot] | slot;
    return GT_OK;
}

static net_request *window_of(net_comm *c, uint32_t window)
{
    const uint32_t slot = window & ((1u << SLOT_BITS) - 1);
    net_request *r = slot && slot < c->window_count ? c->windows[slot] : NULL;
    return r && r->window == window ? r : NULL;
}

static void free_window(net_request *r)
{
    net_comm *c = r->comm;
    const uint32_t slot = r->window & ((1u << SLOT_BITS) - 1);
    if (!r->window)
        return;
    c->windows[slot] = NULL;
    c->window_round[slot] = (r->window & ~((1u << SLOT_BITS) - 1)) | c->window_free;
    c->window_free = slot;
    r->window = 0;
}

static void leave_table(net_request *r)
{
    if (r->tabled)
        table_remove(&r->comm->tags, &r->node);
    r->tabled = 0;
    free_window(r);
    if (r->told) {
        r->channel->told--;
        r->channel->told_bytes -= r->size;
    }
    r->told = 0;
}

/* The same at both ends, and of no other message. */
static uint64_t flow_of(const net_request *r)
{
    const int sends = r->node.kind == NODE_SEND, me = r->comm->rank;
    struct {
        uint64_t context, sequence;
        uint32_t step, from, to, zero;
    } key;
    memset(&key, 0, sizeof key);
    key.context = r->node.key.context;
    key.sequence = r->node.key.sequence;
    key.step = r->node.key.step;
    key.from = (uint32_t)(sends ? me : r->pair->peer);
    key.to = (uint32_t)(sends ? r->pair->peer : me);
    const uint64_t hash = gt_hash(&key, sizeof key);
    return hash ? hash : 1;
}

/* A send lasts from its start; of a receive, which is posted long before, its last microsecond is shown. */
static void trace_message(const net_request *r)
{
    char size[32];
    const int sends = r->node.kind == NODE_SEND;
    const uint64_t now = gt_trace_now();
    gt_span s = { .begin = sends ? r->began : now - 1000,
                  .end = now,
                  .bytes = r->size,
                  .flow = flow_of(r),
                  .category = GT_TRACE_WIRE,
                  .track = sends ? GT_TRACK_WIRE : GT_TRACK_ARRIVED,
                  .kind = sends ? GT_SPAN_SENDS : GT_SPAN_RECEIVES };
    if (sends) {
        s.step = r->of_step;
        s.micro_batch = r->of_micro_batch;
        s.chunk = r->of_chunk;
    }
    snprintf(s.name, sizeof s.name, "%s %s rank %d", gt_format_bytes(size, sizeof size, r->size), sends ? "to" : "from",
             r->pair->peer);
    gt_trace_put(&s);
    if (sends)
        gt_trace_counter("bytes sent", r->comm->traced_bytes += r->size);
}

void match_finish(net_request *r)
{
    if (r->began)
        trace_message(r);
    leave_table(r);
    queue_landed(r);
    r->comm->outstanding--;
    atomic_store_explicit(&r->done, 1, memory_order_release);
}

void match_forget(net_request *r)
{
    leave_table(r);
    if (r->blocked) {
        line_leave(&r->pair->blocked, r);
        r->blocked = 0;
    }
    queue_forget(r);
    if (r->held) {
        channel_end *of = r->channel;
        for (net_request **at = &of->held; *at; at = &(*at)->next)
            if (*at == r) {
                *at = r->next;
                if (of->held_last == &r->next)
                    of->held_last = at;
                break;
            }
        of->held_count--;
        r->held = 0;
    }
    if (!atomic_load(&r->done))
        r->comm->outstanding--;
}

/* ---- disagreement ---------------------------------------------------------------------- */

static const char *describe(const tag *key, char *out, size_t size)
{
    if (key->step == UINT32_MAX)
        snprintf(out, size, "message %u on channel %u", (unsigned)(key->sequence & UINT32_MAX),
                 (unsigned)(key->sequence >> 32));
    else
        snprintf(out, size, "step %u of operation #%llu", (unsigned)key->step, (unsigned long long)key->sequence);
    return out;
}

static void disagree(pair *p, const tag *key, size_t sent, size_t expected, int we_send)
{
    net_comm *c = p->comm;
    char us[160], them[160], what[96];
    net_job_name(c->job, c->rank, us, sizeof us);
    net_job_name(c->job, p->peer, them, sizeof them);
    net_comm_abort(c, we_send ? c->rank : p->peer,
                   "%s sends %zu bytes, but %s expects %zu (%s); both must ask for the same", we_send ? us : them, sent,
                   we_send ? them : us, expected, describe(key, what, sizeof what));
}

/* ---- messages out ---------------------------------------------------------------------- */

gt_status match_post(pair *p, message *m, const void *body, size_t size)
{
    gt_status st = p->ops->send(p->link, m, sizeof *m, body, size);
    if (!st)
        p->messages_sent++;
    return st;
}

static void flush(const pair *p)
{
    if (p->ops->flush)
        p->ops->flush(p->link);
}

static gt_status post_tagged(pair *p, message_type type, const tag *key, size_t size, uint32_t window, const void *body,
                             size_t body_size)
{
    message m = { .type = type,
                  .step = key->step,
                  .context = key->context,
                  .sequence = key->sequence,
                  .size = size,
                  .window = window };
    return match_post(p, &m, body, body_size);
}

/* A message of that many bytes goes at once, without a window. */
static int is_eager(const pair *p, size_t size)
{
    return size <= p->link->transport->eager;
}

/* Bytes that may be early at the other end: some messages of any size that goes eagerly. */
static uint64_t early_limit(const pair *p)
{
    const uint64_t some = 4 * ((uint64_t)p->link->transport->eager + EAGER_COST);
    return some > EAGER_LIMIT ? some : EAGER_LIMIT;
}

static int has_credit(const pair *p, size_t size)
{
    return p->eager_sent - p->eager_acknowledged + size + EAGER_COST <= early_limit(p);
}

static gt_status send_eager(net_request *r)
{
    pair *p = r->pair;
    gt_status st = post_tagged(p, MESSAGE_EAGER, &r->node.key, r->size, 0, r->data, r->size);
    if (st)
        return st;
    p->eager_sent += r->size + EAGER_COST;
    p->bytes_sent += r->size;
    match_finish(r);
    return GT_OK;
}

/* Eager bytes have left our memory; the sender hears of it now and then. */
static void taken(pair *p, size_t size)
{
    p->eager_taken += size + EAGER_COST;
    p->bytes_received += size;
    if (p->state != PAIR_UP || p->eager_taken - p->eager_reported < early_limit(p) / 4)
        return;
    message m = { .type = MESSAGE_CREDIT, .size = p->eager_taken };
    if (!match_post(p, &m, NULL, 0)) {
        p->eager_reported = p->eager_taken;
        flush(p);
    }
}

static void unblock(pair *p)
{
    while (p->blocked.first) {
        net_request *r = p->blocked.first;
        if (!has_credit(p, r->size))
            break;
        line_leave(&p->blocked, r);
        r->blocked = 0;
        if (send_eager(r))
            net_comm_abort(p->comm, p->comm->rank, "%s", gt_message());
    }
    flush(p);
}

gt_status match_eager(net_request *r)
{
    pair *p = r->pair;
    if (!p->blocked.first && has_credit(p, r->size))
        return send_eager(r);
    p->comm->overtaken += line_enter(&p->blocked, r);
    r->blocked = 1;
    return GT_OK;
}

gt_status match_put(net_request *r, uint32_t window, const unsigned char *descriptor, size_t size)
{
    r->pair->bytes_sent += r->size;
    return r->pair->ops->put(r->pair->link, r->data, r->size, window, descriptor, size, r);
}

/* ---- what came early ------------------------------------------------------------------- */

static gt_status keep(pair *p, const tag *key, node_kind kind, size_t size, uint32_t window, const void *body,
                      size_t body_size)
{
    kept *k = malloc(sizeof *k + body_size);
    if (!k)
        return gt_fail(GT_NO_MEMORY, "no memory for a message that came before its receive");
    k->node = (node){ .key = *key, .kind = kind };
    k->size = size;
    k->body_size = body_size;
    k->window = window;
    if (body_size)
        memcpy(k->body, body, body_size);
    table_insert(&p->comm->tags, &k->node);
    p->kept++;
    return GT_OK;
}

static kept *find_kept(const pair *p, const tag *key, node_kind kind)
{
    return p->kept ? (kept *)table_find(&p->comm->tags, key, kind) : NULL;
}

/* Takes it out of the table; the caller frees it. */
static void take_kept(pair *p, kept *k)
{
    table_remove(&p->comm->tags, &k->node);
    p->kept--;
}

/* ---- sending to oneself ---------------------------------------------------------------- */

/* Bytes from a receive buffer may begin anywhere; elements that are added must be aligned. */
static void add_up(const net_sink *sink, const unsigned char *data, size_t size)
{
    _Alignas(16) unsigned char part[4096];
    const size_t whole = sizeof part / sink->grain * sink->grain;
    for (size_t at = 0; at < size; at += whole) {
        const size_t n = size - at < whole ? size - at : whole;
        memcpy(part, data + at, n);
        sink->reduce((unsigned char *)sink->data + at, part, n);
    }
}

static void fill(const net_sink *sink, const void *data, size_t size)
{
    if (!size)
        return;
    if (!sink->reduce)
        memcpy(sink->data, data, size);
    else if ((uintptr_t)data % sink->grain)
        add_up(sink, data, size);
    else
        sink->reduce(sink->data, data, size);
}

static gt_status send_to_self(net_request *r)
{
    net_comm *c = r->comm;
    net_request *other = (net_request *)table_find(&c->tags, &r->node.key, NODE_RECEIVE);
    if (other && other->size != r->size) {
        disagree(r->pair, &r->node.key, r->size, other->size, 1);
        return net_job_check(c->job);
    }
    if (other && other->sink.lend && r->size > c->config->eager) {
        other->loan = (net_loan){ (void *)(uintptr_t)r->data, NULL, (uint64_t)(uintptr_t)r };
        match_finish(other);
        comm_wake(c);
        return GT_OK;               /* done when it is given back */
    }
    if (other) {
        fill(&other->sink, r->data, r->size);
        match_finish(other);
        comm_wake(c);
    } else {
        gt_status st = keep(r->pair, &r->node.key, NODE_EAGER, r->size, 0, r->data, r->size);
        if (st)
            return st;
    }
    match_finish(r);
    return GT_OK;
}

/* ---- starting -------------------------------------------------------------------------- */

static gt_status start_send(net_request *r)
{
    pair *p = r->pair;
    net_comm *c = r->comm;
    channel_end *of = r->channel;
    const size_t last = of ? of->last : 0;
    if (p->peer == c->rank)
        return send_to_self(r);
    if (of)
        of->last = r->size;
    kept *ready = find_kept(p, &r->node.key, NODE_READY);
    if (is_eager(p, r->size)) {
        if (ready && !ready->window) {      /* that little is expected: so it is */
            take_kept(p, ready);
            free(ready);
        }
        return queue_send(r, 0, NULL, 0);
    }
    if (!ready) {
        enter(r);
        return of && r->size != last ? post_tagged(p, MESSAGE_INTENT, &r->node.key, r->size, 0, NULL, 0) : GT_OK;
    }
    take_kept(p, ready);
    gt_status st = GT_OK;
    if (ready->size == r->size) {
        st = queue_send(r, ready->window, ready->body, ready->body_size);
    } else {
        disagree(p, &r->node.key, r->size, ready->size, 1);
        st = net_job_check(c->job);
    }
    free(ready);
    return st;
}

gt_status match_send(pair *p, const tag *key, channel_end *of, const void *data, size_t size, uint32_t priority,
                     net_request **out)
{
    *out = NULL;
    net_request *r = new_request(p, key, NODE_SEND, size);
    if (!r)
        return GT_NO_MEMORY;
    r->data = data;
    r->priority = p->comm->config->priorities ? priority : 0;
    r->channel = of;
    gt_status st = start_send(r);
    if (!st && p->ops)
        flush(p);
    comm_wake_poller(r->comm);
    if (st) {
        match_forget(r);
        free(r);
        return st;
    }
    *out = r;
    return GT_OK;
}

/* Takes what came early. 1: the receive is done, or has failed (*st). */
static int take_early(net_request *r, gt_status *st)
{
    net_comm *c = r->comm;
    kept *k = find_kept(r->pair, &r->node.key, NODE_EAGER);
    if (k && k->size == r->size) {
        fill(&r->sink, k->body, k->size);
        if (r->pair->peer != c->rank)
            taken(r->pair, k->size);
        take_kept(r->pair, k);
        free(k);
        match_finish(r);
        return 1;
    }
    kept *intent = k ? NULL : find_kept(r->pair, &r->node.key, NODE_INTENT);
    if (!k && !intent)
        return 0;
    const size_t size = k ? k->size : intent->size;
    if (size != r->size) {
        disagree(r->pair, &r->node.key, size, r->size, 0);
        *st = net_job_check(c->job);
        return 1;
    }
    take_kept(r->pair, intent);
    free(intent);
    return 0;
}

static gt_status open_window(net_request *r)
{
    unsigned char descriptor[NET_DESCRIPTOR];
    size_t size = 0;
    gt_status st = new_window(r);
    if (!st)
        st = r->pair->ops->expose(r->pair->link, r->window, r->sink, descriptor, &size);
    if (!st)
        st = post_tagged(r->pair, MESSAGE_READY, &r->node.key, r->size, r->window, descriptor, size);
    return st;
}

/* Tells the peer of all windows that are held back. */
static gt_status tell_held(channel_end *of)
{
    gt_status st = GT_OK;
    const pair *p = of->held->pair;
    while (of->held && !(st = open_window(of->held))) {
        net_request *r = of->held;
        of->held = r->next;
        of->held_count--;
        of->told++;
        of->told_bytes += r->size;
        r->held = 0;
        r->told = 1;
    }
    if (!of->held)
        of->held_last = &of->held;
    flush(p);
    return st;
}

/* Before the sender runs out of windows. */
static int must_tell(const channel_end *of)
{
    return of->held && (of->held_count >= of->told || of->told_bytes < busy_bytes);
}

/* A receive of much needs a window; one of little after much on a channel says so. */
static gt_status invite(net_request *r, size_t last)
{
    pair *p = r->pair;
    channel_end *of = r->channel;
    const int waits = !is_eager(p, r->size);
    if (waits && of) {
        *of->held_last = r;
        of->held_last = &r->next;
        of->held_count++;
        r->held = 1;
        return must_tell(of) ? tell_held(of) : GT_OK;
    }
    if (!waits && is_eager(p, last))
        return GT_OK;               /* nothing is sent: what is held back goes with the next message */
    gt_status st = waits ? open_window(r) : post_tagged(p, MESSAGE_READY, &r->node.key, r->size, 0, NULL, 0);
    if (!st)
        flush(p);
    return st;
}

gt_status match_receive(pair *p, const tag *key, channel_end *of, net_sink sink, net_request **out)
{
    *out = NULL;
    gt_status st = GT_OK;
    net_request *r = new_request(p, key, NODE_RECEIVE, sink.size);
    if (!r)
        return GT_NO_MEMORY;
    r->sink = sink;
    r->channel = of;
    const size_t last = of ? of->last : 0;
    if (of)
        of->last = sink.size;
    if (!take_early(r, &st)) {
        enter(r);
        if (p->peer != p->comm->rank)
            st = invite(r, last);
        comm_wake_poller(p->comm);
    }
    if (st) {
        match_forget(r);
        free(r);
        return st;
    }
    *out = r;
    return GT_OK;
}

gt_status match_channel(net_comm *c, const tag *key, node_kind kind, channel_end **out)
{
    *out = (channel_end *)table_find(&c->tags, key, kind);
    if (*out)
        return GT_OK;
    channel_end *of = calloc(1, sizeof *of);
    if (!of)
        return gt_fail(GT_NO_MEMORY, "no memory for a channel");
    of->node = (node){ .key = *key, .kind = kind };
    of->held_last = &of->held;
    table_insert(&c->tags, &of->node);
    *out = of;
    return GT_OK;
}

/* ---- messages in ----------------------------------------------------------------------- */

static void give_up(net_comm *c, gt_status st)
{
    if (st)
        net_comm_abort(c, c->rank, "%s", gt_message());
}

static void came_eager(pair *p, const tag *key, const void *body, size_t size)
{
    net_request *r = (net_request *)table_find(&p->comm->tags, key, NODE_RECEIVE);
    if (!r) {
        give_up(p->comm, keep(p, key, NODE_EAGER, size, 0, body, size));
    } else if (r->size != size) {
        disagree(p, key, size, r->size, 0);
    } else {
        fill(&r->sink, body, size);
        match_finish(r);
        taken(p, size);
    }
}

/* This send of ours has begun: it is of a channel, and counted. */
static int has_begun(const net_comm *c, const tag *key)
{
    const tag of = { key->context, key->sequence >> 32, UINT32_MAX, key->peer };
    const channel_end *sent = (const channel_end *)table_find(&c->tags, &of, NODE_CHANNEL_SEND);
    return sent && (int32_t)((uint32_t)sent->n - (uint32_t)key->sequence) > 0;
}

static void came_ready(pair *p, const tag *key, const message *m, const void *body, size_t size)
{
    net_request *r = (net_request *)table_find(&p->comm->tags, key, NODE_SEND);
    if (!r && !m->window && has_begun(p->comm, key))
        return;                     /* little is expected, and little was sent */
    if (!r) {
        give_up(p->comm, keep(p, key, NODE_READY, (size_t)m->size, m->window, body, size));
    } else if (r->size != m->size) {
        disagree(p, key, r->size, (size_t)m->size, 1);
    } else {
        table_remove(&p->comm->tags, &r->node);
        r->tabled = 0;
        give_up(p->comm, queue_send(r, m->window, body, size));
    }
}

static void came_intent(pair *p, const tag *key, const message *m)
{
    const net_request *r = (const net_request *)table_find(&p->comm->tags, key, NODE_RECEIVE);
    if (!r)
        give_up(p->comm, keep(p, key, NODE_INTENT, (size_t)m->size, 0, NULL, 0));
    else if (r->size != m->size)
        disagree(p, key, (size_t)m->size, r->size, 0);
}

void match_message(pair *p, const message *m, const void *body, size_t size)
{
    const tag key = { m->context, m->sequence, m->step, p->peer };
    p->messages_received++;
    switch (m->type) {
    case MESSAGE_EAGER: came_eager(p, &key, body, size); break;
    case MESSAGE_READY: came_ready(p, &key, m, body, size); break;
    case MESSAGE_INTENT: came_intent(p, &key, m); break;
    case MESSAGE_AGREE: group_agreed(p, m, body, size); break;
    case MESSAGE_CREDIT:
        if (m->size > p->eager_acknowledged && m->size <= p->eager_sent)
            p->eager_acknowledged = m->size;
        unblock(p);
        break;
    case MESSAGE_FIN:
        p->fin_received = 1;
        p->fin = m->size;
        break;
    default: net_comm_abort(p->comm, p->peer, "rank %d sent a message of unknown type %u", p->peer, (unsigned)m->type);
    }
}

void match_placed(pair *p, uint32_t window)
{
    match_lent(p, window, (net_loan){ 0 });
}

void match_lent(pair *p, uint32_t window, net_loan loan)
{
    net_request *r = window_of(p->comm, window);
    if (!r || r->pair != p) {
        net_mapping_drop(loan.mapping);
        net_comm_abort(p->comm, p->peer, "rank %d filled a window that is not open", p->peer);
        return;
    }
    channel_end *of = r->channel;
    p->bytes_received += r->size;
    r->loan = loan;
    match_finish(r);
    if (of && must_tell(of))
        give_up(p->comm, tell_held(of));
}

/* ---- the end --------------------------------------------------------------------------- */

static void drop(node *n)
{
    if (n->kind != NODE_SEND && n->kind != NODE_RECEIVE)
        free(n);                    /* requests belong to who waits for them */
}

void match_release(net_comm *c)
{
    table_release(&c->tags, drop);
    for (net_request *r = c->spare, *next; r; r = next) {
        next = r->next;
        free(r);
    }
    free(c->windows);
    free(c->window_round);
}
