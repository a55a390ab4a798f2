/* SPDX-License-Identifier: MIT */
/* net/comm/pair.c - two ranks agree on a transport, and prove it.
 *
 *   leader ── call, "shm,verbs,tcp" ──► follower          over an authenticated stream,
 *          ◄──────── go, "verbs,tcp" ──                   with a deadline for every frame
 *      for each transport both have, in the leader's order:
 *          offers cross, connect on both ends, as many rounds as it takes
 *          a message and a put cross over the new link    the probe
 *          verdicts cross: both good, or both try the next
 *
 * Pairs are made when two ranks first talk. Either end may begin; when both do, the lower rank
 * leads: its call is followed, the other's is told "busy". Following is done by a thread of its
 * own, which never leads, so that no circle of ranks can wait for each other.              */
#include "net/comm/comm_private.h"

#include "host/base/clock.h"
#include "host/base/log.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FRAME_CALL = 1, FRAME_GO, FRAME_BUSY, FRAME_OFFER, FRAME_ROUND, FRAME_VERDICT };
enum { PROBE_WINDOW = 0xfffffff };

typedef struct arrival {
    struct arrival *next;
    int peer, fd;
} arrival;

typedef struct frame {
    uint8_t type, failed, again, reserved;
    uint32_t size;
    unsigned char bytes[NET_OFFER + 1];     /* an offer, a list, or the sentence of a failure */
} frame;
enum { FRAME_HEAD = 8 };

/* What one attempt after the other works with. */
typedef struct negotiation {
    net_comm *c;
    pair *p;
    int fd, leads;
    gt_text reasons;                /* why transports were not taken                       */
} negotiation;

/* ---- frames ---------------------------------------------------------------------------- */

/* Waits for the stream in slices, so that the end of the job is noticed. */
static gt_status wait_stream(const negotiation *m, short events, uint64_t deadline)
{
    for (;;) {
        gt_status st = net_job_check(m->c->job);
        if (st)
            return st;
        struct pollfd p = { .fd = m->fd, .events = events };
        const int n = poll(&p, 1, 50);
        if (n > 0)
            return GT_OK;
        if (gt_now_ns() > deadline) {
            char name[160];
            net_job_name(m->c->job, m->p->peer, name, sizeof name);
            return gt_fail(GT_TIMEOUT, "%s does not answer while a link to it is made", name);
        }
    }
}

static gt_status lost(const negotiation *m, const char *cause)
{
    char name[160];
    return gt_fail(GT_PEER, "cannot make a link to %s: %s", net_job_name(m->c->job, m->p->peer, name, sizeof name),
                   cause);
}

static gt_status put_bytes(const negotiation *m, const void *data, size_t size, uint64_t deadline)
{
    const unsigned char *at = data;
    while (size) {
        gt_status st = wait_stream(m, POLLOUT, deadline);
        if (st)
            return st;
        const ssize_t n = send(m->fd, at, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return lost(m, strerror(errno));
        at += n > 0 ? n : 0;
        size -= n > 0 ? (size_t)n : 0;
    }
    return GT_OK;
}

static gt_status get_bytes(const negotiation *m, void *data, size_t size, uint64_t deadline)
{
    unsigned char *at = data;
    while (size) {
        gt_status st = wait_stream(m, POLLIN, deadline);
        if (st)
            return st;
        const ssize_t n = recv(m->fd, at, size, MSG_DONTWAIT);
        if (n == 0)
            return lost(m, "it closed the connection");
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return lost(m, strerror(errno));
        at += n > 0 ? n : 0;
        size -= n > 0 ? (size_t)n : 0;
    }
    return GT_OK;
}

static gt_status put_frame(const negotiation *m, frame *f)
{
    return put_bytes(m, f, FRAME_HEAD + f->size, gt_now_ns() + m->c->config->hello_timeout);
}

static gt_status get_frame(const negotiation *m, frame *f, uint64_t patience)
{
    const uint64_t deadline = gt_now_ns() + patience;
    gt_status st = get_bytes(m, f, FRAME_HEAD, deadline);
    if (st)
        return st;
    if (f->size > NET_OFFER)
        return lost(m, "it sent a frame that makes no sense");
    st = get_bytes(m, f->bytes, f->size, deadline);
    f->bytes[f->size] = '\0';
    return st;
}

/* Both ends tell each other how a step went; the sentence travels when it failed. */
static gt_status exchange(const negotiation *m, frame *mine, gt_status how, frame *theirs)
{
    mine->failed = how != GT_OK;
    if (how) {
        const char *why = gt_message();
        mine->size = (uint32_t)(strlen(why) < NET_OFFER ? strlen(why) : NET_OFFER);
        memcpy(mine->bytes, why, mine->size);
        mine->bytes[mine->size] = '\0';
    }
    gt_status st = put_frame(m, mine);
    if (!st)
        st = get_frame(m, theirs, m->c->config->hello_timeout);
    if (!st && theirs->type != mine->type)
        st = lost(m, "it is at another step of making it");
    return st;
}

/* ---- proof ----------------------------------------------------------------------------- */

static unsigned char pattern(int rank, size_t i)
{
    return (unsigned char)((unsigned)rank * 37u + (unsigned)i * 11u + (unsigned)(i >> 8));
}

void pair_probe_message(pair *p, const message *m, const void *body, size_t size)
{
    probe *b = p->probe;
    if (!b)
        return;
    if (m->type == MESSAGE_PROBE) {
        b->heard = 1;
    } else if (!b->opened) {
        b->opened = 1;
        if (p->ops->put(p->link, b->out, sizeof b->out, m->window, body, size, b))
            b->opened = -1;
    }
}

/* The peer's probe may come as soon as the link is there, so ours is made before. */
static gt_status make_probe(pair *p)
{
    probe *b = calloc(1, sizeof *b);
    if (!b)
        return gt_fail(GT_NO_MEMORY, "no memory for the probe of a link");
    for (size_t i = 0; i < sizeof b->out; i++)
        b->out[i] = pattern(p->comm->rank, i);
    p->probe = b;
    return GT_OK;
}

static void drop_probe(pair *p)
{
    free(p->probe);
    p->probe = NULL;
    free(p->broken_why);
    p->broken_why = NULL;
    p->broken_since = 0;
}

static gt_status begin_probe(pair *p)
{
    probe *b = p->probe;
    unsigned char descriptor[NET_DESCRIPTOR];
    size_t size = 0;
    message hello = { .type = MESSAGE_PROBE };
    message ready = { .type = MESSAGE_PROBE_READY, .window = PROBE_WINDOW, .size = sizeof b->in };
    gt_status st = p->ops->expose(p->link, PROBE_WINDOW, (net_sink){ .data = b->in, .size = sizeof b->in, .grain = 1 },
                                  descriptor, &size);
    if (!st)
        st = p->ops->send(p->link, &hello, sizeof hello, NULL, 0);
    if (!st)
        st = p->ops->send(p->link, &ready, sizeof ready, descriptor, size);
    if (!st && p->ops->flush)
        p->ops->flush(p->link);
    return st;
}

/* Lock held; gives it back between rounds. */
static gt_status probe_rounds(negotiation *m, net_transport *t)
{
    pair *p = m->p;
    const probe *b = p->probe;
    const uint64_t deadline = gt_now_ns() + m->c->config->hello_timeout;
    gt_status st = begin_probe(p);
    while (!st && !(b->heard && b->placed && b->sent)) {
        int did = 0;
        p->ops->progress(t, &did);
        st = net_job_check(m->c->job);
        if (!st && (p->broken_since || b->opened < 0))
            st = gt_fail(GT_UNSUPPORTED, "%s", p->broken_why ? p->broken_why : gt_message());
        if (!st && gt_now_ns() > deadline)
            st = gt_fail(GT_UNSUPPORTED, "a probe got lost (%s)",
                         !b->heard    ? "no message came"
                         : !b->placed ? "no data came"
                                      : "data sent were not confirmed");
        if (!did && !st) {
            comm_unlock(m->c);
            gt_sleep_ns(20000);
            comm_lock(m->c);
        }
    }
    for (size_t i = 0; !st && i < sizeof b->in; i++)
        if (b->in[i] != pattern(p->peer, i))
            st = gt_fail(GT_UNSUPPORTED, "a probe came with byte %zu wrong", i);
    return st;
}

static gt_status prove(negotiation *m, net_transport *t)
{
    pair *p = m->p;
    comm_lock(m->c);
    gt_status st = probe_rounds(m, t);
    if (st) {                       /* the link may still write into the probe's memory */
        p->ops->disconnect(p->link);
        p->link = NULL;
    }
    drop_probe(p);
    comm_unlock(m->c);
    return st;
}

/* ---- one transport --------------------------------------------------------------------- */

static void drop_link(negotiation *m)
{
    comm_lock(m->c);
    if (m->p->link)
        m->p->ops->disconnect(m->p->link);
    m->p->link = NULL;
    m->p->ops = NULL;
    drop_probe(m->p);
    comm_unlock(m->c);
}

static void note(negotiation *m, const char *transport, const char *why)
{
    gt_text_printf(&m->reasons, "%s%s: %s", m->reasons.size ? "; " : "", transport, why);
    gt_log(GT_LOG_DEBUG, "comm", "rank %d: not by %s: %s", m->p->peer, transport, why);
}

/* Offers and rounds. *taken: 1 if it works. An error: the stream itself failed. */
static gt_status connect_rounds(negotiation *m, net_transport *t, int *taken)
{
    pair *p = m->p;
    frame mine = { .type = FRAME_OFFER }, theirs;
    size_t size = 0;
    comm_lock(m->c);
    gt_status st = make_probe(p);
    if (!st)
        st = p->ops->offer(t, p->peer, m->leads, p, &p->link, mine.bytes, &size);
    comm_unlock(m->c);
    mine.size = (uint32_t)size;
    for (;;) {
        gt_status heard = exchange(m, &mine, st, &theirs);
        if (heard)
            return heard;
        if (st || theirs.failed) {
            note(m, p->ops->name, st ? (char *)mine.bytes : (char *)theirs.bytes);
            return GT_OK;
        }
        if (mine.type == FRAME_ROUND && !mine.again && !theirs.again) {
            *taken = 1;
            return GT_OK;
        }
        int again = 0;
        mine = (frame){ .type = FRAME_ROUND };
        size = 0;
        comm_lock(m->c);
        st = p->ops->connect(p->link, theirs.bytes, theirs.size, mine.bytes, &size, &again, &m->fd);
        if (m->fd < 0)
            drop_probe(p);
        comm_unlock(m->c);
        mine.size = (uint32_t)size;
        mine.again = (uint8_t)again;
        if (m->fd < 0) {            /* it has the stream now, which needs no probe */
            *taken = !st;
            return st;
        }
    }
}

static gt_status attempt(negotiation *m, int index, int *taken)
{
    pair *p = m->p;
    net_transport *t = m->c->transport[index];
    p->ops = m->c->ops[index];
    gt_status st = connect_rounds(m, t, taken);
    if (!st && *taken && m->fd >= 0) {
        frame mine = { .type = FRAME_VERDICT }, theirs;
        const gt_status proof = prove(m, t);
        st = exchange(m, &mine, proof, &theirs);
        if (!st && (proof || theirs.failed))
            note(m, p->ops->name, proof ? (char *)mine.bytes : (char *)theirs.bytes);
        *taken = !st && !proof && !theirs.failed;
    }
    if (!*taken)
        drop_link(m);
    return st;
}

/* Index of a transport of ours by name, or -1. */
static int own(const net_comm *c, const char *name, size_t size)
{
    for (int i = 0; i < c->transports; i++)
        if (c->transport[i] && strlen(c->ops[i]->name) == size && !strncmp(c->ops[i]->name, name, size))
            return i;
    return -1;
}

static void list_transports(const net_comm *c, frame *f)
{
    gt_text t = { 0 };
    for (int i = 0; i < c->transports; i++)
        if (c->transport[i])
            gt_text_printf(&t, "%s%s", t.size ? "," : "", c->ops[i]->name);
    f->size = (uint32_t)t.size;
    if (t.size)
        memcpy(f->bytes, t.data, t.size);
    gt_text_release(&t);
}

/* Tries what both have, in the leader's order. */
static gt_status agree(negotiation *m, const char *leaders, const char *followers)
{
    int taken = 0;
    gt_status st = GT_OK;
    for (const char *at = leaders; !st && !taken && *at; at += *at == ',') {
        const size_t n = strcspn(at, ",");
        const int index = own(m->c, at, n);
        const char *other = m->leads ? followers : leaders;
        int both = 0;
        for (const char *o = other; *o; o += strcspn(o, ","), o += *o == ',')
            both |= strcspn(o, ",") == n && !strncmp(o, at, n);
        if (index >= 0 && both)
            st = attempt(m, index, &taken);
        at += n;
    }
    if (st || taken)
        return st;
    char name[160];
    return gt_fail(GT_PEER, "no transport works with %s (it has %s, this rank %s)%s%s",
                   net_job_name(m->c->job, m->p->peer, name, sizeof name), m->leads ? followers : leaders,
                   m->leads ? leaders : followers, m->reasons.size ? ": " : "", m->reasons.size ? m->reasons.data : "");
}

static void finish(negotiation *m, gt_status st)
{
    pair *p = m->p;
    comm_lock(m->c);
    if (!st) {
        if (p->ops->start)
            p->ops->start(p->link, &m->fd);
        p->state = PAIR_UP;
        char what[256];
        p->ops->describe(p->link, what, sizeof what);
        gt_log(GT_LOG_DEBUG, "comm", "rank %d: %s", p->peer, what);
    } else {
        p->state = PAIR_BROKEN;
    }
    pthread_cond_broadcast(&m->c->changed);
    comm_unlock(m->c);
    if (st && !net_job_check(m->c->job))
        net_comm_abort(m->c, m->p->peer, "%s", gt_message());
    if (m->fd >= 0)
        close(m->fd);
    gt_text_release(&m->reasons);
}

/* ---- leading and following ------------------------------------------------------------- */

/* Calls a peer. *busy: it is calling us. */
static gt_status lead(negotiation *m, int *busy)
{
    frame mine = { .type = FRAME_CALL }, theirs;
    *busy = 0;
    gt_status st = net_job_connect(m->c->job, m->p->peer, &m->fd);
    if (st) {
        m->fd = -1;
        return st;
    }
    list_transports(m->c, &mine);
    st = put_frame(m, &mine);
    if (!st)
        st = get_frame(m, &theirs, m->c->config->start_timeout);
    if (st)
        return st;
    *busy = theirs.type == FRAME_BUSY;
    if (*busy)
        return GT_OK;
    mine.bytes[mine.size] = '\0';
    return theirs.type == FRAME_GO ? agree(m, (char *)mine.bytes, (char *)theirs.bytes)
                                   : lost(m, "it answered in a way that makes no sense");
}

static pair *pair_of(net_comm *c, int peer)
{
    pair *p = c->pairs[peer];
    if (p)
        return p;
    p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->comm = c;
    p->peer = peer;
    p->state = peer == c->rank ? PAIR_UP : PAIR_NONE;
    c->pairs[peer] = p;
    return p;
}

/* May we follow this call? Lock held. */
static int may_follow(const pair *p)
{
    return p->state == PAIR_NONE || (p->state == PAIR_LEADING && p->comm->rank > p->peer);
}

static void follow(net_comm *c, int peer, int fd)
{
    frame theirs, mine = { .type = FRAME_GO };
    comm_lock(c);
    pair *p = pair_of(c, peer);
    comm_unlock(c);
    if (!p) {
        close(fd);
        return;
    }
    negotiation m = { .c = c, .p = p, .fd = fd };
    gt_status st = get_frame(&m, &theirs, c->config->hello_timeout);
    comm_lock(c);
    const int yes = !st && theirs.type == FRAME_CALL && !c->closing && may_follow(p);
    if (yes)
        p->state = PAIR_FOLLOWING;
    comm_unlock(c);
    if (!yes) {
        mine.type = FRAME_BUSY;
        if (!st)
            put_frame(&m, &mine);
        close(fd);
        return;
    }
    list_transports(c, &mine);
    st = put_frame(&m, &mine);
    mine.bytes[mine.size] = '\0';
    if (!st)
        st = agree(&m, (char *)theirs.bytes, (char *)mine.bytes);
    finish(&m, st);
}

gt_status pair_get(net_comm *c, int peer, pair **out)
{
    pair *p = pair_of(c, peer);
    *out = p;
    if (!p)
        return gt_fail(GT_NO_MEMORY, "no memory for a pair of ranks");
    while (p->state != PAIR_UP) {
        gt_status st = net_job_check(c->job);
        if (st)
            return st;
        if (p->state == PAIR_NONE) {
            int busy;
            p->state = PAIR_LEADING;
            comm_unlock(c);
            negotiation m = { .c = c, .p = p, .fd = -1, .leads = 1 };
            st = lead(&m, &busy);
            if (!busy)
                finish(&m, st);
            else
                close(m.fd);
            comm_lock(c);
            continue;
        }
        if (p->state == PAIR_BROKEN)
            return gt_fail(GT_PEER, "the link to rank %d is broken", peer);
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += 50000000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
        pthread_cond_timedwait(&c->changed, &c->lock, &until);
    }
    return GT_OK;
}

/* Called by the job's thread. */
void pair_arrival(void *context, int peer, int fd)
{
    net_comm *c = context;
    arrival *a = malloc(sizeof *a);
    comm_lock(c);
    if (!a || c->closing) {
        close(fd);
        free(a);
    } else {
        *a = (arrival){ c->arrivals, peer, fd };
        c->arrivals = a;
        pthread_cond_signal(&c->arrived);
    }
    comm_unlock(c);
}

void *pair_acceptor(void *context)
{
    net_comm *c = context;
    comm_lock(c);
    while (!c->closing) {
        arrival *a = c->arrivals;
        if (!a) {
            pthread_cond_wait(&c->arrived, &c->lock);
            continue;
        }
        c->arrivals = a->next;
        comm_unlock(c);
        follow(c, a->peer, a->fd);
        free(a);
        comm_lock(c);
    }
    while (c->arrivals) {
        arrival *a = c->arrivals;
        c->arrivals = a->next;
        close(a->fd);
        free(a);
    }
    comm_unlock(c);
    return NULL;
}

void pair_release(pair *p)
{
    if (!p)
        return;
    if (p->link)
        p->ops->disconnect(p->link);
    free(p->broken_why);
    free(p);
}

/* ---- for people ------------------------------------------------------------------------ */

gt_status net_comm_describe(net_comm *c, int peer, char *out, size_t size)
{
    pair *p;
    if (peer < 0 || peer >= c->size)
        return gt_fail(GT_MISUSE, "there is no rank %d among %d ranks", peer, c->size);
    comm_lock(c);
    gt_status st = pair_get(c, peer, &p);
    if (!st && p->link)
        p->ops->describe(p->link, out, size);
    else
        snprintf(out, size, "self");
    comm_unlock(c);
    return st;
}

const char *net_comm_transport(net_comm *c, int peer)
{
    comm_lock(c);
    const pair *p = peer >= 0 && peer < c->size ? c->pairs[peer] : NULL;
    const char *name = peer == c->rank ? "self" : p && p->state == PAIR_UP ? p->ops->name : "";
    comm_unlock(c);
    return name;
}

/* A pair is led by its lower rank. The barrier says that all leaders are through; a follower hears
 * the last verdict at the same moment on a thread of its own, and may still be at it. */
gt_status net_comm_connect_all(net_comm *c)
{
    pair *p;
    gt_status st = GT_OK;
    comm_lock(c);
    for (int i = c->rank + 1; !st && i < c->size; i++)
        st = pair_get(c, i, &p);
    comm_unlock(c);
    if (!st)
        st = net_job_barrier(c->job, "links");
    comm_lock(c);
    for (int i = 0; !st && i < c->rank; i++)
        st = pair_get(c, i, &p);
    comm_unlock(c);
    return st;
}
