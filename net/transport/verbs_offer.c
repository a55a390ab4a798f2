/* SPDX-License-Identifier: MIT */
/* net/transport/verbs_offer.c - offers, windows and message heads to bytes and back.
 *
 * One cursor writes and one reads. The reader's cursor cannot leave the buffer: past the end it
 * gives zeros and remembers that it did, so the checks of meaning can follow in any order and
 * the length is judged once, at the end.                                                  */
#include "net/transport/verbs_offer.h"

#include "net/transport/transport.h"

#include <assert.h>
#include <string.h>

enum { MAGIC = 0x47545642, VERSION = 2, SLOTS = 4096 };

typedef struct writer {
    unsigned char *at;
} writer;
typedef struct reader {
    const unsigned char *at, *end;
    int beyond;
} reader;

static void put(writer *w, uint64_t value, int bytes)
{
    for (int i = bytes - 1; i >= 0; i--)
        *w->at++ = (unsigned char)(value >> 8 * i);
}

static void put_bytes(writer *w, const void *data, size_t size)
{
    memcpy(w->at, data, size);
    w->at += size;
}

static uint64_t get(reader *r, int bytes)
{
    uint64_t value = 0;
    if (r->end - r->at < bytes) {
        r->beyond = 1;
        r->at = r->end;
        return 0;
    }
    for (int i = 0; i < bytes; i++)
        value = value << 8 | *r->at++;
    return value;
}

static void get_bytes(reader *r, void *out, size_t size)
{
    if ((size_t)(r->end - r->at) < size) {
        r->beyond = 1;
        r->at = r->end;
        memset(out, 0, size);
        return;
    }
    memcpy(out, r->at, size);
    r->at += size;
}

static void put_preamble(writer *w, net_verbs_phase phase)
{
    put(w, MAGIC, 4);
    put(w, VERSION, 1);
    put(w, phase, 1);
    put(w, 0, 2);
}

static gt_status get_preamble(reader *r, net_verbs_phase phase)
{
    const uint64_t magic = get(r, 4), version = get(r, 1), said = get(r, 1);
    get(r, 2);
    if (r->beyond || magic != MAGIC)
        return gt_fail(GT_FORMAT, "cannot read the peer's verbs offer: it is not one");
    if (version != VERSION)
        return gt_fail(GT_MISMATCH,
                       "cannot use verbs: the peer speaks version %u of the offer, "
                       "this program version %d; run the same version on all hosts",
                       (unsigned)version, VERSION);
    if (said != phase)
        return gt_fail(GT_FORMAT,
                       "cannot read the peer's verbs offer: it is of step %u, expected "
                       "step %d",
                       (unsigned)said, phase);
    return GT_OK;
}

/* The last check of every reader: exactly all bytes were used. */
static gt_status whole(const reader *r, const char *what)
{
    if (r->beyond)
        return gt_fail(GT_FORMAT, "cannot read the peer's %s: it is cut short", what);
    if (r->at != r->end)
        return gt_fail(GT_FORMAT, "cannot read the peer's %s: %td bytes are left over", what, r->end - r->at);
    return GT_OK;
}

/* ---- ports ---------------------------------------------------------------------------------- */

static void put_port(writer *w, const net_verbs_port_offer *p)
{
    put(w, p->layer, 1);
    put(w, p->mtu, 1);
    put(w, p->grh, 1);
    put(w, p->gids, 1);
    put(w, p->lid, 2);
    put(w, p->speed, 4);
    for (int i = 0; i < NET_VERBS_GIDS; i++) {
        const net_verbs_gid *g = &p->gid[i];
        put_bytes(w, g->raw, sizeof g->raw);
        put(w, g->index, 1);
        put(w, g->type, 1);
        put(w, g->prefix, 1);
    }
}

static int get_port(reader *r, net_verbs_port_offer *p)
{
    int good = 1;
    p->layer = (uint8_t)get(r, 1);
    p->mtu = (uint8_t)get(r, 1);
    p->grh = (uint8_t)get(r, 1);
    p->gids = (uint8_t)get(r, 1);
    p->lid = (uint16_t)get(r, 2);
    p->speed = (uint32_t)get(r, 4);
    for (int i = 0; i < NET_VERBS_GIDS; i++) {
        net_verbs_gid *g = &p->gid[i];
        get_bytes(r, g->raw, sizeof g->raw);
        g->index = (uint8_t)get(r, 1);
        g->type = (uint8_t)get(r, 1);
        g->prefix = (uint8_t)get(r, 1);
        good &= g->type <= NET_VERBS_GID_V2 && g->prefix <= 128;
    }
    return good && (p->layer == NET_VERBS_IB || p->layer == NET_VERBS_ETHERNET) && p->mtu >= 1 && p->mtu <= 5
           && p->grh <= 1 && p->gids >= 1 && p->gids <= NET_VERBS_GIDS;
}

size_t net_verbs_ports_write(const net_verbs_ports *o, unsigned char *out)
{
    writer w = { out };
    assert(o->ports <= NET_VERBS_PORTS);
    put_preamble(&w, NET_VERBS_SAYS_PORTS);
    put(&w, o->ports, 1);
    put(&w, o->immediate, 1);
    put(&w, o->pairs, 1);
    put(&w, o->eager, 4);
    for (int i = 0; i < o->ports; i++)
        put_port(&w, &o->port[i]);
    assert(w.at - out <= NET_OFFER);
    return (size_t)(w.at - out);
}

gt_status net_verbs_ports_read(net_verbs_ports *o, const unsigned char *data, size_t size)
{
    reader r = { data, data + size, 0 };
    memset(o, 0, sizeof *o);
    gt_status st = get_preamble(&r, NET_VERBS_SAYS_PORTS);
    if (st)
        return st;
    o->ports = (uint8_t)get(&r, 1);
    o->immediate = (uint8_t)get(&r, 1);
    o->pairs = (uint8_t)get(&r, 1);
    o->eager = (uint32_t)get(&r, 4);
    int good = o->ports >= 1 && o->ports <= NET_VERBS_PORTS && o->immediate <= 1 && o->pairs >= 1
               && o->pairs <= NET_VERBS_PAIRS;
    for (int i = 0; good && i < o->ports; i++)
        good = get_port(&r, &o->port[i]);
    if (!good && !r.beyond)
        return gt_fail(GT_FORMAT, "cannot read the peer's ports: a value is out of range");
    return whole(&r, "ports");
}

/* ---- queues --------------------------------------------------------------------------------- */

size_t net_verbs_queues_write(const net_verbs_queues *o, unsigned char *out)
{
    writer w = { out };
    assert(o->rails <= NET_VERBS_RAILS && o->lanes <= NET_VERBS_LANES);
    put_preamble(&w, NET_VERBS_SAYS_QUEUES);
    put(&w, o->rails, 1);
    put(&w, o->lanes, 1);
    put(&w, o->message_receives, 2);
    put(&w, o->data_receives, 2);
    for (int i = 0; i < o->lanes; i++) {
        put(&w, o->lane[i].qpn, 4);
        put(&w, o->lane[i].psn, 4);
    }
    for (int i = 0; i < o->rails; i++) {
        put(&w, o->rail[i].open, 1);
        put(&w, o->rail[i].rkey, 4);
        put(&w, o->rail[i].address, 8);
    }
    return (size_t)(w.at - out);
}

gt_status net_verbs_queues_read(net_verbs_queues *o, const unsigned char *data, size_t size)
{
    reader r = { data, data + size, 0 };
    memset(o, 0, sizeof *o);
    gt_status st = get_preamble(&r, NET_VERBS_SAYS_QUEUES);
    if (st)
        return st;
    o->rails = (uint8_t)get(&r, 1);
    o->lanes = (uint8_t)get(&r, 1);
    o->message_receives = (uint16_t)get(&r, 2);
    o->data_receives = (uint16_t)get(&r, 2);
    /* Credits are counted modulo 2^16, so far fewer than half of that may be out. */
    int good = o->rails >= 1 && o->rails <= NET_VERBS_RAILS && o->lanes >= 2 && o->lanes <= NET_VERBS_LANES
               && o->message_receives >= 8 && o->data_receives >= 8 && o->message_receives <= 8192
               && o->data_receives <= 8192;
    for (int i = 0; good && i < o->lanes; i++) {
        o->lane[i].qpn = (uint32_t)get(&r, 4);
        o->lane[i].psn = (uint32_t)get(&r, 4);
        good = o->lane[i].qpn < 1u << 24 && o->lane[i].psn < 1u << 24;
    }
    for (int i = 0; good && i < o->rails; i++) {
        o->rail[i].open = (uint8_t)get(&r, 1);
        o->rail[i].rkey = (uint32_t)get(&r, 4);
        o->rail[i].address = get(&r, 8);
        good = o->rail[i].open <= 1;
    }
    if (!good && !r.beyond)
        return gt_fail(GT_FORMAT, "cannot read the peer's queue pairs: a value is out of range");
    return whole(&r, "queue pairs");
}

/* ---- verdicts ------------------------------------------------------------------------------- */

size_t net_verbs_verdict_write(const net_verbs_verdict *o, net_verbs_phase phase, unsigned char *out)
{
    writer w = { out };
    assert(o->rails <= NET_VERBS_RAILS);
    put_preamble(&w, phase);
    put(&w, o->rails, 1);
    for (int i = 0; i < NET_VERBS_RAILS; i++)
        put(&w, o->good[i], 1);
    return (size_t)(w.at - out);
}

gt_status net_verbs_verdict_read(net_verbs_verdict *o, net_verbs_phase phase, const unsigned char *data, size_t size)
{
    reader r = { data, data + size, 0 };
    memset(o, 0, sizeof *o);
    gt_status st = get_preamble(&r, phase);
    if (st)
        return st;
    o->rails = (uint8_t)get(&r, 1);
    int good = o->rails >= 1 && o->rails <= NET_VERBS_RAILS;
    for (int i = 0; i < NET_VERBS_RAILS; i++) {
        o->good[i] = (uint8_t)get(&r, 1);
        good &= o->good[i] <= 1;
    }
    if (!good && !r.beyond)
        return gt_fail(GT_FORMAT, "cannot read the peer's verdict on the rails: a value is out of "
                                  "range");
    return whole(&r, "verdict on the rails");
}

/* ---- windows and messages ------------------------------------------------------------------- */

size_t net_verbs_window_write(const net_verbs_window *v, unsigned char *out)
{
    writer w = { out };
    put(&w, VERSION, 1);
    put(&w, v->rails, 1);
    put(&w, v->slot, 2);
    put(&w, v->sequence, 2);
    put(&w, 0, 2);
    put(&w, v->address, 8);
    put(&w, v->size, 8);
    for (int i = 0; i < v->rails; i++)
        put(&w, v->rkey[i], 4);
    assert(w.at - out <= NET_DESCRIPTOR);
    return (size_t)(w.at - out);
}

gt_status net_verbs_window_read(net_verbs_window *v, const unsigned char *data, size_t size)
{
    reader r = { data, data + size, 0 };
    memset(v, 0, sizeof *v);
    const uint64_t version = get(&r, 1);
    v->rails = (uint8_t)get(&r, 1);
    v->slot = (uint16_t)get(&r, 2);
    v->sequence = (uint16_t)get(&r, 2);
    get(&r, 2);
    v->address = get(&r, 8);
    v->size = get(&r, 8);
    int good = version == VERSION && v->rails >= 1 && v->rails <= NET_VERBS_RAILS && v->slot < SLOTS
               && v->sequence < SLOTS && v->size > 0 && v->address <= UINT64_MAX - v->size;
    for (int i = 0; good && i < v->rails; i++)
        v->rkey[i] = (uint32_t)get(&r, 4);
    if (!good && !r.beyond)
        return gt_fail(GT_FORMAT, "cannot read the peer's window: a value is out of range");
    return whole(&r, "window");
}

void net_verbs_head_write(const net_verbs_head *h, unsigned char out[NET_VERBS_HEAD])
{
    writer w = { out };
    put(&w, h->kind, 1);
    put(&w, h->head, 1);
    put(&w, h->returned, 2);
    put(&w, h->body, 4);
}

gt_status net_verbs_head_read(net_verbs_head *h, const unsigned char *data, size_t size, size_t head_limit,
                              size_t body_limit)
{
    reader r = { data, data + size, 0 };
    h->kind = (uint8_t)get(&r, 1);
    h->head = (uint8_t)get(&r, 1);
    h->returned = (uint16_t)get(&r, 2);
    h->body = (uint32_t)get(&r, 4);
    if (r.beyond || h->kind < NET_VERBS_IS_MESSAGE || h->kind > NET_VERBS_IS_NOTICE)
        return gt_fail(GT_FORMAT, "cannot read a message of %zu bytes: it has no head", size);
    const size_t left = size - NET_VERBS_HEAD;
    const int good = h->kind == NET_VERBS_IS_NOTICE
                         ? h->head == 0 && left == 0
                         : h->head <= head_limit && h->body <= body_limit
                               && (h->kind == NET_VERBS_IS_MESSAGE ? h->head >= 1 && left >= (size_t)h->head + h->body
                                                                   : left == (size_t)h->head + h->body);
    if (!good)
        return gt_fail(GT_FORMAT, "cannot read a message of %zu bytes: its head says %u + %u", size, h->head, h->body);
    return GT_OK;
}
