/* SPDX-License-Identifier: MIT */
/* net/job/wire.c - framed, authenticated messages over a non-blocking socket.
 *
 * A body's room grows with the bytes that came, not with the length that the head claims:
 * a head is believed only once the MAC behind the body has been checked.                 */
#include "net/job/wire.h"

#include "net/job/bigendian.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

struct net_outgoing {
    net_outgoing *next;
    net_body *body;
    size_t done;                        /* bytes of head, body, mac that are out             */
    unsigned char head[NET_HEAD], mac[NET_MAC];
};

net_body *net_body_create(size_t size)
{
    net_body *b = malloc(sizeof *b + size);
    if (b) {
        b->users = 1;
        b->size = size;
    }
    return b;
}

void net_body_release(net_body *b)
{
    if (b && --b->users == 0)
        free(b);
}

void net_wire_init(net_wire *w, int fd, int size, const unsigned char send_key[NET_SECRET],
                   const unsigned char receive_key[NET_SECRET])
{
    memset(w, 0, sizeof *w);
    w->fd = fd;
    w->size = size;
    w->last = &w->first;
    memcpy(w->send_key, send_key, NET_SECRET);
    memcpy(w->receive_key, receive_key, NET_SECRET);
}

static void drop_first(net_wire *w)
{
    net_outgoing *o = w->first;
    w->first = o->next;
    if (!w->first)
        w->last = &w->first;
    net_body_release(o->body);
    free(o);
}

void net_wire_close(net_wire *w)
{
    while (w->first)
        drop_first(w);
    free(w->body);
    w->body = NULL;
    w->room = w->got = 0;
    if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
}

gt_status net_wire_queue(net_wire *w, net_type type, net_body *body)
{
    net_outgoing *o = calloc(1, sizeof *o);
    if (!o)
        return gt_fail(GT_NO_MEMORY, "cannot send a control message: no memory to queue it");
    const net_head h = { type, (uint32_t)(body ? body->size : 0), w->sent++ };
    net_head_format(o->head, &h);
    const net_span parts[] = { { o->head, NET_HEAD }, { body ? body->data : o->head, body ? body->size : 0 } };
    net_secret_mac(o->mac, w->send_key, "geartrain control", parts, 2);
    o->body = body;
    if (body)
        body->users++;
    *w->last = o;
    w->last = &o->next;
    return GT_OK;
}

gt_status net_wire_queue_bytes(net_wire *w, net_type type, const void *body, size_t size)
{
    net_body *b = net_body_create(size);
    if (!b)
        return gt_fail(GT_NO_MEMORY, "cannot send a control message: no memory for its %zu bytes", size);
    if (size)
        memcpy(b->data, body, size);
    gt_status st = net_wire_queue(w, type, b);
    net_body_release(b);
    return st;
}

/* The parts of a message that are still to go out. */
static int unsent(net_outgoing *o, struct iovec v[3])
{
    struct iovec all[3] = {
        { o->head, NET_HEAD }, { o->body ? o->body->data : NULL, o->body ? o->body->size : 0 }, { o->mac, NET_MAC }
    };
    size_t skip = o->done;
    int n = 0;
    for (int i = 0; i < 3; i++) {
        const size_t off = skip < all[i].iov_len ? skip : all[i].iov_len;
        skip -= off;
        if (all[i].iov_len == off)
            continue;
        v[n].iov_base = (char *)all[i].iov_base + off;
        v[n++].iov_len = all[i].iov_len - off;
    }
    return n;
}

gt_status net_wire_flush(net_wire *w)
{
    while (w->first) {
        struct iovec v[3];
        net_outgoing *o = w->first;
        const struct msghdr m = { .msg_iov = v, .msg_iovlen = (size_t)unsent(o, v) };
        const ssize_t n = sendmsg(w->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return GT_OK;
        if (n < 0)
            return gt_fail(GT_PEER, "%s", strerror(errno));
        o->done += (size_t)n;
        if (o->done == NET_HEAD + NET_MAC + (o->body ? o->body->size : 0))
            drop_first(w);
    }
    return GT_OK;
}

int net_wire_pending(const net_wire *w)
{
    return w->first != NULL;
}

static gt_status check_message(net_wire *w, const net_head *head)
{
    unsigned char mac[NET_MAC];
    const net_span parts[] = { { w->head, NET_HEAD }, { w->body, head->length } };
    net_secret_mac(mac, w->receive_key, "geartrain control", parts, 2);
    if (!net_secret_equal(mac, w->mac) || head->counter != w->received)
        return gt_fail(GT_FORMAT, "a control message came that its sender did not write");
    w->received++;
    return GT_OK;
}

/* Where the next bytes of the message go, and how many at most. */
static gt_status next_place(net_wire *w, const net_head *head, unsigned char **at, size_t *most)
{
    if (w->got < NET_HEAD) {
        *at = w->head + w->got;
        *most = NET_HEAD - w->got;
        return GT_OK;
    }
    const size_t in_body = w->got - NET_HEAD;
    if (in_body >= head->length) {
        *at = w->mac + (in_body - head->length);
        *most = NET_MAC - (in_body - head->length);
        return GT_OK;
    }
    if (in_body == w->room) {
        size_t room = w->room ? 2 * w->room : 4096;
        if (room > head->length)
            room = head->length;
        unsigned char *body = realloc(w->body, room);
        if (!body)
            return gt_fail(GT_NO_MEMORY, "cannot receive a control message: no memory for %zu bytes of it", room);
        w->body = body;
        w->room = room;
    }
    const size_t end = w->room < head->length ? w->room : head->length;
    *at = w->body + in_body;
    *most = end - in_body;
    return GT_OK;
}

gt_status net_wire_receive(net_wire *w, net_head *head, const unsigned char **body, int *got)
{
    gt_status st = GT_OK;
    *got = 0;
    for (;;) {
        unsigned char *at = NULL;
        size_t most = 0;
        if (w->got >= NET_HEAD) {
            st = net_head_parse(head, w->head, w->size);
            if (!st && w->got == NET_HEAD + (size_t)head->length + NET_MAC) {
                w->got = 0;
                st = check_message(w, head);
                *body = w->body;
                *got = !st;
                return st;
            }
        }
        if (!st)
            st = next_place(w, head, &at, &most);
        if (st)
            return st;
        const ssize_t n = recv(w->fd, at, most, MSG_DONTWAIT);
        if (n > 0)
            w->got += (size_t)n;
        else if (n == 0)
            return gt_fail(GT_PEER, "closed");
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            return GT_OK;
        else if (errno != EINTR)
            return gt_fail(GT_PEER, "%s", strerror(errno));
    }
}
