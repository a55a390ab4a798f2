/* SPDX-License-Identifier: MIT */
/* net/transport/tcp.c - bytes between two ranks over one TCP connection.
 *
 *      small ──► [frame head body][frame head body][frame] ──┐
 *      put   ──────────────────── piece of the caller's data ┴──► sendmsg
 *
 * The authenticated stream of the pair carries frames: messages, and pieces of puts. A put is cut
 * into pieces so that messages need not wait behind 64 MiB. Bytes go from the caller's memory
 * to the socket, and from the socket to the sink, by one system call each and no copy between
 * (a reducing sink adds them up from the receive buffer, while they are in the cache).
 *
 * The kernel would take megabytes that have yet to be sent, and those cannot be overtaken any more (net/comm/queue.c).
 * So a socket that is always full is told to take no more than the wire carries in AHEAD_NS: enough that it does not
 * run dry while this process computes.
 *
 * Frames are in the host's byte order: the hello has made sure that both ends have the same. */
#include "net/transport/windows.h"

#include "host/base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

enum { FRAME_MESSAGE = 0x6d, FRAME_PIECE = 0x70, INPUT = 256 * 1024, BUDGET = 1 << 20 };
enum { AHEAD_NS = 20000000, LEAST_AHEAD = 256 << 10, PERIOD_NS = 20000000 };

typedef struct frame {
    uint8_t kind, head_size;
    uint16_t reserved;
    uint32_t window;                /* of a piece                                      */
    uint64_t size;                  /* bytes that follow                               */
} frame;

typedef struct bytes {
    unsigned char *data;
    size_t size, at, room;
} bytes;

typedef struct put {
    struct put *next;
    const unsigned char *data;
    size_t left;
    uint32_t window;
    void *cookie;
} put;

typedef struct tcp_link {
    net_link link;
    struct tcp_link *next;
    int fd;
    gt_status broken;               /* and the sentence why, until it has been reported */
    char *why;
    int reported, wants_out;
    int held;                       /* messages that go with the next flush, or before sleep */
    /* out */
    bytes small, later;             /* later: messages while a piece is under way       */
    put *first, **last, *sent;      /* sent: done, to be reported                       */
    size_t piece;                   /* bytes of the first put that belong to its frame  */
    uint64_t full_since, full_bytes; /* of the time in which the socket is full; what it took in it */
    double ahead;                   /* bytes that the wire carries in AHEAD_NS               */
    int unsent;                     /* bytes that it takes without having sent them, 0: the kernel decides */
    /* in */
    unsigned char *input;
    size_t input_size, have, at;
    net_windows windows;
    size_t data_left;               /* of the piece being read                          */
    uint32_t data_window;
} tcp_link;

typedef struct tcp {
    net_transport transport;
    tcp_link *links;
    int epoll, link_count;
    uint64_t sent_bytes, received_bytes, send_calls, receive_calls;
} tcp;

static tcp *tcp_of(tcp_link *l)
{
    return (tcp *)l->link.transport;
}

/* ---- opening --------------------------------------------------------------------------- */

static void tcp_close(net_transport *t)
{
    tcp *self = (tcp *)t;
    if (self->epoll >= 0)
        close(self->epoll);
    free(self);
}

/* To wait for a window takes a whole way there and back through two kernels, and a copy little; where bytes are
 * added up they come through the input buffer in any case. So up to 32 KiB go at once. */
static size_t eager_for(const net_config *config)
{
    const uint64_t most = 32 << 10, eager = config->eager;
    return (size_t)(eager >= most ? eager : 4 * eager < most ? 4 * eager : most);
}

static gt_status tcp_open(net_transport **out, net_job *job, net_memory_set *memory, const net_events *events,
                          int poll_fd)
{
    *out = NULL;
    tcp *t = calloc(1, sizeof *t);
    if (!t)
        return gt_fail(GT_NO_MEMORY, "no memory for the tcp transport");
    t->transport = (net_transport){
        &net_tcp, job, net_job_config(job), memory, events, poll_fd, .eager = eager_for(net_job_config(job)), .ahead = 1
    };
    t->epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = { .events = EPOLLIN, .data.u32 = 0 };
    if (t->epoll < 0 || epoll_ctl(poll_fd, EPOLL_CTL_ADD, t->epoll, &e) < 0) {
        const gt_status st = gt_fail(GT_IO, "cannot watch sockets: %s", strerror(errno));
        tcp_close(&t->transport);
        return st;
    }
    *out = &t->transport;
    return GT_OK;
}

static void tcp_disconnect(net_link *link)
{
    tcp_link *l = (tcp_link *)link;
    if (!l)
        return;
    tcp *t = tcp_of(l);
    for (tcp_link **p = &t->links; *p; p = &(*p)->next)
        if (*p == l) {
            *p = l->next;
            t->link_count--;
            break;
        }
    if (l->fd >= 0)
        close(l->fd);
    for (put *p = l->first, *next; p; p = next) {
        next = p->next;
        free(p);
    }
    for (put *p = l->sent, *next; p; p = next) {
        next = p->next;
        free(p);
    }
    free(l->why);
    free(l->small.data);
    free(l->later.data);
    free(l->input);
    free(l->windows.open);
    free(l);
}

static gt_status tcp_offer(net_transport *t, int peer, int leads, void *up, net_link **link, unsigned char *offer,
                           size_t *size)
{
    (void)leads;
    (void)offer;
    *link = NULL;
    *size = 0;
    tcp_link *l = calloc(1, sizeof *l);
    const size_t message = sizeof(frame) + NET_MESSAGE + t->eager;
    if (l) {
        l->input_size = message > INPUT ? message : INPUT;
        l->input = malloc(l->input_size);
    }
    if (!l || !l->input) {
        free(l);
        return gt_fail(GT_NO_MEMORY, "no memory for a tcp link and its input buffer");
    }
    l->link = (net_link){ t, up, peer };
    l->fd = -1;
    l->last = &l->first;
    *link = &l->link;
    return GT_OK;
}

static void set_options(int fd, const net_config *config, int same_host)
{
    const int on = 1, patience = (int)(config->dead_after / 1000000u);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (same_host)                  /* nothing to share, and pacing only costs: a tenth of the bandwidth */
        setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", sizeof "reno" - 1);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &patience, sizeof patience);
    if (config->tcp_buffer) {
        const int size = config->tcp_buffer > INT32_MAX ? INT32_MAX : (int)config->tcp_buffer;
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    }
}

static gt_status tcp_connect(net_link *link, const unsigned char *theirs, size_t theirs_size, unsigned char *offer,
                             size_t *size, int *again, int *stream)
{
    tcp_link *l = (tcp_link *)link;
    tcp *t = tcp_of(l);
    (void)theirs;
    (void)theirs_size;
    (void)offer;
    *size = 0;
    *again = 0;
    const net_job *job = t->transport.job;
    set_options(*stream, t->transport.config,
                net_job_member(job, link->peer)->host_id == net_job_member(job, net_job_rank(job))->host_id);
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = l };
    if (epoll_ctl(t->epoll, EPOLL_CTL_ADD, *stream, &e) < 0)
        return gt_fail(GT_IO, "cannot watch a socket: %s", strerror(errno));
    l->fd = *stream;
    *stream = -1;
    l->next = t->links;
    t->links = l;
    t->link_count++;
    return GT_OK;
}

/* ---- failing --------------------------------------------------------------------------- */

static void fail(tcp_link *l, gt_status code, const char *doing, const char *cause)
{
    if (l->broken)
        return;
    char name[160];
    net_job_name(l->link.transport->job, l->link.peer, name, sizeof name);
    l->broken = gt_fail(code, "cannot %s %s over tcp: %s", doing, name, cause);
    l->why = strdup(gt_message());
    epoll_ctl(tcp_of(l)->epoll, EPOLL_CTL_DEL, l->fd, NULL);
}

/* ---- sending --------------------------------------------------------------------------- */

static int append(bytes *b, const void *data, size_t size)
{
    if (b->at == b->size)
        b->at = b->size = 0;
    if (b->size + size > b->room) {
        size_t room = b->room ? b->room : 4096;
        while (room < b->size + size)
            room *= 2;
        unsigned char *grown = realloc(b->data, room);
        if (!grown)
            return 0;
        b->data = grown;
        b->room = room;
    }
    if (size)
        memcpy(b->data + b->size, data, size);
    b->size += size;
    return 1;
}

static int has_output(const tcp_link *l)
{
    return l->small.at < l->small.size || l->first != NULL;
}

/* The same without what is still held back. */
static int is_due(const tcp_link *l)
{
    return has_output(l) && (!l->held || l->wants_out);
}

/* Announces the next piece of the first put. */
static void begin_piece(tcp_link *l)
{
    const size_t chunk = (size_t)tcp_of(l)->transport.config->chunk;
    const size_t n = l->first->left < chunk ? l->first->left : chunk;
    const frame f = { FRAME_PIECE, 0, 0, l->first->window, n };
    if (append(&l->small, &f, sizeof f))
        l->piece = n;
    else
        fail(l, GT_NO_MEMORY, "send to", "no memory for the frame of a piece");
}

/* Books n bytes that the kernel took. */
static void sent(tcp_link *l, size_t n)
{
    const size_t rest = l->small.size - l->small.at;
    const size_t head = n < rest ? n : rest;
    l->small.at += head;
    n -= head;
    if (!l->piece || l->small.at < l->small.size)
        return;
    put *p = l->first;
    p->data += n;
    p->left -= n;
    l->piece -= n;
    if (l->piece)
        return;
    const bytes empty = l->small;
    l->small = l->later;
    l->later = empty;
    l->later.at = l->later.size = 0;
    if (!p->left) {
        l->first = p->next;
        if (!l->first)
            l->last = &l->first;
        p->next = l->sent;
        l->sent = p;
    }
}

/* One system call; the plain one for messages alone, which the kernel takes sooner. */
static ssize_t transmit(const tcp_link *l)
{
    unsigned char *small = l->small.data + l->small.at;
    const size_t size = l->small.size - l->small.at;
    if (!l->piece)
        return send(l->fd, small, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    struct iovec v[2] = { { small, size }, { (void *)(uintptr_t)l->first->data, l->piece } };
    const struct msghdr m = { .msg_iov = v, .msg_iovlen = 2 };
    return sendmsg(l->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* The socket took n bytes, and is full or not. As long as it is, it takes what the wire carries. */
static void watch_rate(tcp_link *l, size_t n, int full)
{
    if (!l->full_since && !full)
        return;
    const uint64_t now = gt_now_ns();
    l->full_bytes += l->full_since ? n : 0;
    if (!l->full_since || !full) {
        l->full_since = full ? now : 0;
        l->full_bytes = 0;
    } else if (now - l->full_since >= PERIOD_NS && l->full_bytes) {
        const double ahead = (double)l->full_bytes / (double)(now - l->full_since) * AHEAD_NS;
        l->ahead = ahead > 0.98 * l->ahead ? ahead : 0.98 * l->ahead;   /* little may have come late from here */
        const int unsent = l->ahead < LEAST_AHEAD ? LEAST_AHEAD : l->ahead > 1 << 30 ? 1 << 30 : (int)l->ahead;
        if (unsent < l->unsent / 4 * 3 || unsent / 4 * 3 > l->unsent)
            if (!setsockopt(l->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent))
                l->unsent = unsent;
        l->full_since = now;
        l->full_bytes = 0;
    }
}

static void push(tcp_link *l)
{
    tcp *t = tcp_of(l);
    size_t done = 0;
    int full = 0;
    while (!l->broken && has_output(l) && done < BUDGET) {
        if (!l->piece && l->first)
            begin_piece(l);
        if (l->broken)
            return;
        const ssize_t n = transmit(l);
        t->send_calls++;
        if (n < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN && errno != EWOULDBLOCK)
                fail(l, GT_PEER, "send to", strerror(errno));
            full = !l->broken;
            break;
        }
        t->sent_bytes += (uint64_t)n;
        done += (size_t)n;
        sent(l, (size_t)n);
    }
    watch_rate(l, done, full);
    const int wants = !l->broken && has_output(l);
    if (!l->broken && wants != l->wants_out) {
        struct epoll_event e = { .events = wants ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = l };
        epoll_ctl(t->epoll, EPOLL_CTL_MOD, l->fd, &e);
        l->wants_out = wants;
    }
}

static gt_status tcp_send(net_link *link, const void *head, size_t head_size, const void *body, size_t body_size)
{
    tcp_link *l = (tcp_link *)link;
    bytes *b = l->piece ? &l->later : &l->small;
    const frame f = { FRAME_MESSAGE, (uint8_t)head_size, 0, 0, head_size + body_size };
    const size_t before = b->at == b->size ? 0 : b->size;
    const int idle = !has_output(l);
    if (append(b, &f, sizeof f) && append(b, head, head_size) && append(b, body, body_size)) {
        l->held |= idle;
        return GT_OK;
    }
    b->size = before;
    return gt_fail(GT_NO_MEMORY, "no memory for a message that waits to be sent");
}

static void tcp_flush(net_link *link)
{
    tcp_link *l = (tcp_link *)link;
    l->held = 0;
    if (!l->broken && !l->wants_out)
        push(l);
}

static gt_status tcp_put(net_link *link, const void *data, size_t size, uint32_t number,
                         const unsigned char *descriptor, size_t descriptor_size, void *cookie)
{
    tcp_link *l = (tcp_link *)link;
    (void)descriptor;
    (void)descriptor_size;
    put *p = malloc(sizeof *p);
    if (!p)
        return gt_fail(GT_NO_MEMORY, "no memory for a put that waits to be sent");
    *p = (put){ NULL, data, size, number, cookie };
    *l->last = p;
    l->last = &p->next;
    tcp_flush(link);
    return GT_OK;
}

/* ---- receiving ------------------------------------------------------------------------- */

static gt_status tcp_expose(net_link *link, uint32_t number, net_sink sink, unsigned char *descriptor, size_t *size)
{
    (void)descriptor;
    *size = 0;
    return net_windows_expose(&((tcp_link *)link)->windows, number, sink);
}

/* n bytes of the piece are in the sink; closes the window with its last one. */
static void landed(tcp_link *l, net_window *w, size_t n, int *did)
{
    l->data_left -= n;
    if (w->got == w->sink.size)
        net_windows_close(&l->windows, w, &l->link, did);
}

/* Takes bytes of the piece from the input. 0: it needs more to go on. */
static int take_data(tcp_link *l, int *did)
{
    net_window *w = net_windows_find(&l->windows, l->data_window);
    size_t n = l->have - l->at < l->data_left ? l->have - l->at : l->data_left;
    if (w->sink.reduce) {
        const size_t off = l->at % w->sink.grain;
        if (off) {                  /* elements that are added must be aligned */
            memmove(l->input + l->at - off, l->input + l->at, l->have - l->at);
            l->at -= off;
            l->have -= off;
        }
        if (n < l->data_left)
            n -= n % w->sink.grain;
    }
    if (!n)
        return 0;
    net_window_take(w, l->input + l->at, n);
    l->at += n;
    landed(l, w, n, did);
    return 1;
}

static void begin_data(tcp_link *l, const frame *f)
{
    const net_window *w = net_windows_find(&l->windows, f->window);
    if (!w || !f->size || f->size > w->sink.size - w->got)
        fail(l, GT_PEER, "take data of", "it sent data that nobody asked for");
    else if (w->sink.reduce && f->size % w->sink.grain)
        fail(l, GT_PEER, "take data of", "it cut an element in two");
    l->data_window = f->window;
    l->data_left = l->broken ? 0 : (size_t)f->size;
}

/* One frame from the input. 0: it is not there in whole. */
static int take_frame(tcp_link *l, int *did)
{
    const net_transport *t = l->link.transport;
    frame f;
    const size_t have = l->have - l->at;
    if (have < sizeof f)
        return 0;
    memcpy(&f, l->input + l->at, sizeof f);
    if (f.kind == FRAME_PIECE) {
        l->at += sizeof f;
        begin_data(l, &f);
        return 1;
    }
    if (f.kind != FRAME_MESSAGE || !f.head_size || f.head_size > NET_MESSAGE || f.size < f.head_size
        || f.size - f.head_size > t->eager) {
        fail(l, GT_PEER, "understand", "it sent a frame that makes no sense");
        return 0;
    }
    if (have - sizeof f < f.size)
        return 0;
    const unsigned char *head = l->input + l->at + sizeof f;
    l->at += sizeof f + (size_t)f.size;
    (*did)++;
    t->events->message(l->link.up, head, f.head_size, head + f.head_size, (size_t)f.size - f.head_size);
    return 1;
}

static void parse(tcp_link *l, int *did)
{
    while (!l->broken && l->at < l->have)
        if (l->data_left ? !take_data(l, did) : !take_frame(l, did))
            break;
    if (l->at) {
        memmove(l->input, l->input + l->at, l->have - l->at);
        l->have -= l->at;
        l->at = 0;
    }
}

/* Reads into the sink itself where it can, and what follows into the input. */
static ssize_t fetch(tcp_link *l, size_t *direct, size_t *asked)
{
    const net_window *w = l->data_left && !l->have ? net_windows_find(&l->windows, l->data_window) : NULL;
    unsigned char *input = l->input + l->have;
    const size_t room = l->input_size - l->have;
    *direct = 0;
    *asked = room;
    if (!w || w->sink.reduce)
        return recv(l->fd, input, room, MSG_DONTWAIT);
    struct iovec v[2] = { { (unsigned char *)w->sink.data + w->got, l->data_left }, { input, room } };
    struct msghdr m = { .msg_iov = v, .msg_iovlen = 2 };
    *direct = l->data_left;
    *asked += l->data_left;
    return recvmsg(l->fd, &m, MSG_DONTWAIT);
}

static void pull(tcp_link *l, int *did)
{
    tcp *t = tcp_of(l);
    for (size_t total = 0; !l->broken && total < BUDGET;) {
        size_t direct, asked;
        const ssize_t n = fetch(l, &direct, &asked);
        t->receive_calls++;
        if (n < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN && errno != EWOULDBLOCK)
                fail(l, GT_PEER, "receive from", strerror(errno));
            return;
        }
        if (n == 0) {
            fail(l, GT_PEER, "receive from", "it closed the connection; did it fail?");
            return;
        }
        t->received_bytes += (uint64_t)n;
        total += (size_t)n;
        (*did)++;
        if (direct) {
            const size_t taken = (size_t)n < direct ? (size_t)n : direct;
            net_window *w = net_windows_find(&l->windows, l->data_window);
            w->got += taken;
            landed(l, w, taken, did);
            l->have += (size_t)n - taken;
        } else {
            l->have += (size_t)n;
        }
        const int drained = (size_t)n < asked;      /* the next call would say that there is no more */
        parse(l, did);
        if (drained)
            return;
    }
}

/* ---- progress -------------------------------------------------------------------------- */

/* Something to do that no socket will wake us for. */
static int has_news(const tcp_link *l)
{
    return l->sent || (l->broken ? !l->reported : !l->wants_out && is_due(l));
}

static void serve(tcp_link *l, int *did)
{
    if (!l->broken && is_due(l))
        push(l);
    if (!l->broken)
        pull(l, did);
    while (l->sent) {
        put *p = l->sent;
        l->sent = p->next;
        (*did)++;
        l->link.transport->events->done(l->link.up, p->cookie);
        free(p);
    }
    if (l->broken && !l->reported) {
        l->reported = 1;
        (*did)++;
        l->link.transport->events->failed(l->link.up,
                                          gt_fail(l->broken, "%s", l->why ? l->why : "a tcp connection failed"));
    }
}

/* One or two links are tried directly; of many, those that the kernel names. */
static void tcp_progress(net_transport *transport, int *did)
{
    enum { MANY = 3, EVENTS = 16 };
    tcp *t = (tcp *)transport;
    if (t->link_count < MANY) {
        for (tcp_link *l = t->links; l; l = l->next)
            serve(l, did);
        return;
    }
    struct epoll_event events[EVENTS];
    const int n = epoll_wait(t->epoll, events, EVENTS, 0);
    for (int i = 0; i < n; i++)
        serve(events[i].data.ptr, did);
    for (tcp_link *l = t->links; l; l = l->next)
        if (has_news(l))
            serve(l, did);
}

static int tcp_arm(net_transport *transport)
{
    const tcp *t = (const tcp *)transport;
    int news = 0;
    for (tcp_link *l = t->links; l; l = l->next) {
        if (l->held)
            tcp_flush(&l->link);
        news |= has_news(l);
    }
    return news;
}

static size_t tcp_backlog(const net_link *link)
{
    const tcp_link *l = (const tcp_link *)link;
    size_t n = l->small.size - l->small.at + l->later.size - l->later.at;
    for (const put *p = l->first; p; p = p->next)
        n += p->left;
    return is_due(l) ? n : 0;
}

static void tcp_disarm(net_transport *t)
{
    (void)t;
}

static void tcp_describe(net_link *link, char *out, size_t size)
{
    const net_member *m = net_job_member(link->transport->job, link->peer);
    snprintf(out, size, "tcp %s:%u", m->address, (unsigned)m->port);
}

static int tcp_counter(net_transport *transport, int index, const char **name, uint64_t *value)
{
    const tcp *t = (const tcp *)transport;
    const struct {
        const char *name;
        uint64_t value;
    } all[] = { { "sent bytes", t->sent_bytes },
                { "received bytes", t->received_bytes },
                { "send calls", t->send_calls },
                { "receive calls", t->receive_calls } };
    if (index < 0 || (size_t)index >= sizeof all / sizeof *all)
        return 0;
    *name = all[index].name;
    *value = all[index].value;
    return 1;
}

const net_transport_ops net_tcp = {
    .name = "tcp",
    .open = tcp_open,
    .close = tcp_close,
    .offer = tcp_offer,
    .connect = tcp_connect,
    .disconnect = tcp_disconnect,
    .send = tcp_send,
    .expose = tcp_expose,
    .put = tcp_put,
    .progress = tcp_progress,
    .arm = tcp_arm,
    .disarm = tcp_disarm,
    .flush = tcp_flush,
    .backlog = tcp_backlog,
    .describe = tcp_describe,
    .counter = tcp_counter
};
