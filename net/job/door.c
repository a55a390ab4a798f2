/* SPDX-License-Identifier: MIT */
/* net/job/door.c - who comes to the launcher of an elastic job from another host.
 *
 *   standing   has sent its hello ──► ours and our proof go out ──► its proof came ──► it is in
 *
 * Few stand in the door at once, and none for longer than STAND; what has not come whole stays in the socket. */
#include "net/job/door.h"

#include "host/base/clock.h"
#include "host/base/log.h"
#include "host/base/stop.h"
#include "host/base/text.h"
#include "net/job/hello.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PEER = NET_WORLD - 2 };          /* the launcher, in hellos */
#define STAND (5 * UINT64_C(1000000000))
#define AGAIN (200 * UINT64_C(1000000))

typedef struct standing {
    int fd, said;                       /* said: our hello is out */
    uint64_t since;
    int place;
    unsigned char theirs[NET_HELLO], ours[NET_HELLO];
} standing;

struct net_door {
    int listener;
    unsigned char key[NET_SECRET];
    standing at[NET_DOOR_STANDING];
};

static void door_key(unsigned char key[NET_SECRET], const unsigned char secret[NET_SECRET])
{
    net_secret_mac(key, secret, "geartrain door", NULL, 0);
}

gt_status net_door_open(net_door **out, const net_address *at, uint16_t first, uint16_t ports,
                        const unsigned char secret[NET_SECRET])
{
    net_door *d = calloc(1, sizeof *d);
    *out = NULL;
    if (!d)
        return gt_fail(GT_NO_MEMORY, "no memory for the launcher's door");
    d->listener = -1;
    for (int i = 0; i < NET_DOOR_STANDING; i++)
        d->at[i].fd = -1;
    door_key(d->key, secret);
    gt_status st = net_listen(&d->listener, at, first, ports);
    if (st)
        net_door_close(d);
    else
        *out = d;
    return st;
}

static void leave(standing *s)
{
    if (s->fd >= 0)
        close(s->fd);
    *s = (standing){ .fd = -1 };
}

void net_door_close(net_door *d)
{
    if (!d)
        return;
    for (int i = 0; i < NET_DOOR_STANDING; i++)
        leave(&d->at[i]);
    if (d->listener >= 0)
        close(d->listener);
    memset(d->key, 0, sizeof d->key);
    free(d);
}

gt_status net_door_address(net_address *out, const net_door *d)
{
    return net_address_own(out, d->listener);
}

int net_door_fds(const net_door *d, int fds[NET_DOOR_FDS])
{
    int n = 0;
    fds[n++] = d->listener;
    for (int i = 0; i < NET_DOOR_STANDING; i++)
        if (d->at[i].fd >= 0)
            fds[n++] = d->at[i].fd;
    return n;
}

/* The oldest makes room: it had longest to prove itself. */
static standing *free_place(net_door *d)
{
    standing *oldest = &d->at[0];
    for (int i = 0; i < NET_DOOR_STANDING; i++) {
        if (d->at[i].fd < 0)
            return &d->at[i];
        if (d->at[i].since < oldest->since)
            oldest = &d->at[i];
    }
    leave(oldest);
    return oldest;
}

static void let_stand(net_door *d)
{
    for (int fd; (fd = accept4(d->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0;) {
        standing *s = free_place(d);
        *s = (standing){ .fd = fd, .since = gt_now_ns() };
    }
}

/* 1: `size` bytes came. 0: not yet. -1: they never will. */
static int whole(int fd, unsigned char *to, size_t size)
{
    const ssize_t n = recv(fd, to, size, MSG_PEEK | MSG_DONTWAIT);
    if (n == (ssize_t)size)
        return recv(fd, to, size, MSG_DONTWAIT) == n ? 1 : -1;
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) ? 0 : -1;
}

/* A few hundred bytes always fit into an empty socket. */
static int say(int fd, const unsigned char *data, size_t size)
{
    return send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size;
}

static int answer(const net_door *d, standing *s)
{
    unsigned char out[NET_HELLO + NET_MAC];
    net_hello it, me;
    if (net_hello_parse(&it, s->theirs) || it.role != NET_ROLE_WORDS || it.peer != PEER) {
        gt_message_clear();
        return 0;
    }
    s->place = (int)it.rank;
    net_hello_init(&me, NET_ROLE_WORDS, PEER, NET_WORLD, s->place, 0);
    net_secret_random(me.nonce, sizeof me.nonce);
    net_hello_format(s->ours, &me);
    memcpy(out, s->ours, NET_HELLO);
    net_hello_proof(out + NET_HELLO, d->key, 1, s->theirs, s->ours);
    s->said = 1;
    return say(s->fd, out, sizeof out);
}

static int proves(const net_door *d, const standing *s, const unsigned char proof[NET_MAC])
{
    unsigned char wanted[NET_MAC];
    net_hello me, it;
    net_hello_proof(wanted, d->key, 0, s->theirs, s->ours);
    if (!net_secret_equal(proof, wanted) || net_hello_parse(&me, s->ours) || net_hello_parse(&it, s->theirs))
        return 0;
    if (net_hello_compare(&me, "the launcher", &it, "a rank that came from elsewhere")) {
        gt_log(GT_LOG_WARN, "net", "%s", gt_message());
        gt_message_clear();
        return 0;
    }
    return 1;
}

static void make_line(net_wire *out, int fd, const unsigned char key[NET_SECRET], int connects,
                      const unsigned char c[NET_HELLO], const unsigned char a[NET_HELLO])
{
    unsigned char to[NET_SECRET], from[NET_SECRET];
    net_hello_session(to, key, connects, c, a);
    net_hello_session(from, key, !connects, c, a);
    net_wire_init(out, fd, 1, to, from);
}

int net_door_enter(net_door *d, net_wire *out, int *place)
{
    unsigned char proof[NET_MAC];
    let_stand(d);
    for (int i = 0; i < NET_DOOR_STANDING; i++) {
        standing *s = &d->at[i];
        int there = 0;
        if (s->fd < 0)
            continue;
        if (!s->said && (there = whole(s->fd, s->theirs, sizeof s->theirs)) > 0 && !answer(d, s))
            there = -1;
        if (s->said && there >= 0)
            there = whole(s->fd, proof, sizeof proof);
        if (there > 0 && s->said && proves(d, s, proof)) {
            make_line(out, s->fd, d->key, 0, s->theirs, s->ours);
            *place = s->place;
            *s = (standing){ .fd = -1 };
            return 1;
        }
        if (there || gt_now_ns() - s->since > STAND)
            leave(s);
    }
    return 0;
}

/* ---- who knocks --------------------------------------------------------------------------------- */

static gt_status receive_whole(int fd, unsigned char *to, size_t size, uint64_t deadline)
{
    gt_status st = GT_OK;
    for (int got = 0; !st && got <= 0;) {
        got = whole(fd, to, size);
        if (got < 0)
            st = gt_fail(GT_IO, "it does not know this secret, or is no launcher");
        else if (!got)
            st = net_await(fd, POLLIN, deadline, NULL);
        if (!st && !got)
            gt_sleep_ns(1000000);       /* the rest is on its way */
    }
    return st;
}

static gt_status greet(net_wire *out, int fd, const unsigned char key[NET_SECRET], int place, uint64_t deadline)
{
    unsigned char ours[NET_HELLO], theirs[NET_HELLO], proof[NET_MAC], wanted[NET_MAC];
    net_hello me, it;
    net_hello_init(&me, NET_ROLE_WORDS, place, NET_WORLD, PEER, 0);
    net_secret_random(me.nonce, sizeof me.nonce);
    net_hello_format(ours, &me);
    gt_status st = say(fd, ours, sizeof ours) ? GT_OK : gt_fail(GT_IO, "%s", strerror(errno));
    if (!st)
        st = receive_whole(fd, theirs, sizeof theirs, deadline);
    if (!st)
        st = receive_whole(fd, proof, sizeof proof, deadline);
    if (!st)
        st = net_hello_parse(&it, theirs);
    if (st)
        return st;
    net_hello_proof(wanted, key, 1, ours, theirs);
    if (!net_secret_equal(proof, wanted))
        return gt_fail(GT_IO, "it does not know this secret");
    st = net_hello_compare(&me, "this rank", &it, "the launcher");
    if (st)
        return st;
    net_hello_proof(proof, key, 0, ours, theirs);
    if (!say(fd, proof, sizeof proof))
        return gt_fail(GT_IO, "%s", strerror(errno));
    make_line(out, fd, key, 1, ours, theirs);
    return GT_OK;
}

/* *answered 1: somebody is there, and trying again would change nothing. */
static gt_status knock_once(net_wire *out, const net_address *to, const unsigned char key[NET_SECRET], int place,
                            uint64_t deadline, int *answered)
{
    const uint64_t soon = gt_now_ns() + STAND;
    int fd = -1;
    gt_status st = net_dial(&fd, to, soon < deadline ? soon : deadline, NULL);
    *answered = !st;
    if (!st)
        st = greet(out, fd, key, place, deadline);
    if (st && fd >= 0)
        close(fd);
    return st;
}

gt_status net_door_knock(net_wire *out, const char *address, const unsigned char secret[NET_SECRET], int place,
                         uint64_t deadline)
{
    unsigned char key[NET_SECRET];
    char host[256];
    net_address to[NET_ADDRESSES];
    uint16_t port;
    int count = 0, answered = 0;
    gt_status st = net_door_parse(host, &port, address);
    if (!st)
        st = net_address_resolve(to, &count, host, port);
    if (st)
        return st;
    door_key(key, secret);
    do {                                /* the launcher may come later, and a network come back */
        for (int i = 0; i < count && !answered; i++)
            st = knock_once(out, &to[i], key, place, deadline, &answered);
        if (!answered)
            gt_sleep_ns(AGAIN);
    } while (!answered && !gt_stop_asked() && gt_now_ns() < deadline);
    memset(key, 0, sizeof key);
    return st ? gt_fail_in(st, "cannot join the job at %s", address) : GT_OK;
}

gt_status net_door_parse(char host[256], uint16_t *port, const char *text)
{
    const char *colon = strrchr(text, ':'), *end = text + strlen(text);
    uint64_t number = 0;
    size_t n = (size_t)(end - text);
    *port = 0;
    if (colon && (text[0] == '[' ? colon[-1] == ']' : strchr(text, ':') == colon)) {
        n = (size_t)(colon - text);
        if (gt_parse_u64(&number, colon + 1) || number > 65535)
            return gt_fail(GT_MISUSE, "'%s' is no address: what stands behind ':' is no port", text);
    }
    if (text[0] == '[' && n > 2 && text[n - 1] == ']') {
        text++;
        n -= 2;
    }
    if (!n || n > 255)
        return gt_fail(GT_MISUSE, "'%s' is no address: it should be HOST or HOST:PORT", text);
    snprintf(host, 256, "%.*s", (int)n, text);
    *port = (uint16_t)number;
    return GT_OK;
}
