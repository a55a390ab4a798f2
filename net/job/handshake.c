/* SPDX-License-Identifier: MIT */
/* net/job/handshake.c - the hello of hello.h over sockets, from both ends.
 *
 * Who connects may block, up to a deadline. Who accepts never does: each handshake is a small
 * state machine, and there are at most HANDSHAKES of them. When all places are taken new
 * connections stay in the kernel's queue, unless the oldest handshake has lasted a quarter
 * of its time: then it goes. So a stranger that holds connections open delays nobody for
 * long. A stranger's end is worth one line of log and disturbs nothing.                  */
#include "net/job/job_private.h"

#include "host/base/clock.h"
#include "host/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* ---- the end that connects --------------------------------------------------------------- */

static gt_status send_all(int fd, const unsigned char *data, size_t size, uint64_t deadline, const net_stop *stop)
{
    gt_status st = GT_OK;
    while (size && !st) {
        const ssize_t n = send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0) {
            data += n;
            size -= (size_t)n;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK)
            st = net_await(fd, POLLOUT, deadline, stop);
        else if (errno != EINTR)
            st = gt_fail(GT_IO, "%s", strerror(errno));
    }
    return st;
}

static gt_status receive_all(int fd, unsigned char *data, size_t size, uint64_t deadline, const net_stop *stop)
{
    gt_status st = GT_OK;
    while (size && !st) {
        const ssize_t n = recv(fd, data, size, MSG_DONTWAIT);
        if (n > 0) {
            data += n;
            size -= (size_t)n;
        } else if (n == 0)
            st = gt_fail(GT_IO, "it closed the connection; does it know another secret?");
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            st = net_await(fd, POLLIN, deadline, stop);
        else if (errno != EINTR)
            st = gt_fail(GT_IO, "%s", strerror(errno));
    }
    return st;
}

static gt_status receive_verdict(net_job *j, net_wire *wire, uint64_t deadline, const net_stop *stop, int *refused)
{
    net_head head;
    net_notice n;
    const unsigned char *body;
    int got = 0;
    gt_status st = GT_OK;
    while (!st && !got) {
        st = net_wire_receive(wire, &head, &body, &got);
        if (!st && !got)
            st = net_await(wire->fd, POLLIN, deadline, stop);
    }
    if (!st && head.type != NET_VERDICT)
        st = gt_fail(GT_FORMAT, "it answered with something else than a verdict");
    if (!st)
        st = net_notice_parse(&n, body, head.length, j->size);
    if (!st && n.code) {
        *refused = 1;
        st = gt_fail(n.code, "%s", n.sentence);
    }
    return st;
}

/* Names the two ends of a hello before the member list is known. */
static void plain_name(const net_job *j, int rank, char out[96])
{
    if (j->peers[rank].arrived)
        snprintf(out, 96, "%s", j->peers[rank].name);
    else
        snprintf(out, 96, "rank %d", rank);
}

gt_status handshake_connect(net_job *j, int fd, net_role role, int peer, uint64_t deadline, const net_stop *stop,
                            net_wire *wire, int *refused)
{
    unsigned char ours[NET_HELLO], theirs[NET_HELLO], proof[NET_MAC], wanted[NET_MAC];
    unsigned char to[NET_SECRET], from[NET_SECRET];
    char our_name[96], their_name[96];
    net_hello me, it;
    *refused = 0;
    net_hello_init(&me, role, j->rank, j->size, peer, net_config_hash(j->config));
    net_secret_random(me.nonce, sizeof me.nonce);
    net_hello_format(ours, &me);
    gt_status st = send_all(fd, ours, sizeof ours, deadline, stop);
    if (!st)
        st = receive_all(fd, theirs, sizeof theirs, deadline, stop);
    if (!st)
        st = net_hello_parse(&it, theirs);
    if (!st)
        st = receive_all(fd, proof, sizeof proof, deadline, stop);
    if (!st) {
        net_hello_proof(wanted, j->key, 1, ours, theirs);
        if (!net_secret_equal(proof, wanted))
            st = gt_fail(GT_IO, "it does not know this job's secret");
        else if (it.rank != me.peer || it.peer != me.rank || it.role != me.role)
            st = gt_fail(GT_IO, "it is rank %u and not rank %d", (unsigned)it.rank, peer);
    }
    if (!st) {
        net_hello_proof(proof, j->key, 0, ours, theirs);
        st = send_all(fd, proof, sizeof proof, deadline, stop);
    }
    if (!st) {
        plain_name(j, j->rank, our_name);
        plain_name(j, peer, their_name);
        st = net_hello_compare(&me, our_name, &it, their_name);
        *refused = st != GT_OK;
    }
    if (st) {
        close(fd);
        return st;
    }
    net_hello_session(to, j->key, 1, ours, theirs);
    net_hello_session(from, j->key, 0, ours, theirs);
    net_wire_init(wire, fd, j->size, to, from);
    st = receive_verdict(j, wire, deadline, stop, refused);
    if (st)
        net_wire_close(wire);
    return st;
}

/* ---- the end that accepts ---------------------------------------------------------------- */

void handshake_note(net_job *j, int fd, const char *why)
{
    char from[96] = "somewhere";
    net_address a;
    if (!net_address_peer(&a, fd))
        net_address_host(from, sizeof from, &a);
    j->refusals++;
    snprintf(j->refused, sizeof j->refused, "%s: %.150s", from, why);
    gt_log(GT_LOG_INFO, "net", "turned away a connection from %s: %s", from, why);
}

void handshake_drop(net_job *j, int slot)
{
    handshake *g = &j->handshakes[slot];
    if (g->fd >= 0)
        close(g->fd);                   /* leaves the epoll set with it                      */
    g->fd = -1;
}

static void stop_listening(net_job *j, uint64_t until)
{
    if (j->listening)
        epoll_ctl(j->epoll, EPOLL_CTL_DEL, j->listener, NULL);
    j->listening = 0;
    j->listen_again = until;
}

/* A free place for a handshake, or -1. */
static int find_place(net_job *j, uint64_t now)
{
    int oldest = 0;
    for (int i = 0; i < HANDSHAKES; i++) {
        if (j->handshakes[i].fd < 0)
            return i;
        if (j->handshakes[i].since < j->handshakes[oldest].since)
            oldest = i;
    }
    const uint64_t patience = j->config->hello_timeout / 4;
    if (now - j->handshakes[oldest].since < patience) {
        stop_listening(j, j->handshakes[oldest].since + patience);
        return -1;
    }
    handshake_note(j, j->handshakes[oldest].fd,
                   "it had sent too little of its hello when newer connections needed its place");
    handshake_drop(j, oldest);
    return oldest;
}

/* Said once: it goes on for as long as the cause does. */
static void cannot_accept(net_job *j, int error)
{
    if (!j->said_cannot_accept)
        gt_log(GT_LOG_WARN, "net", "cannot accept connections: %s%s", strerror(error),
               error == EMFILE ? "; raise `ulimit -n`, for every rank needs some descriptors" : "");
    j->said_cannot_accept = 1;
}

void handshake_accept_all(net_job *j)
{
    for (int burst = 0; burst < HANDSHAKES; burst++) {
        const uint64_t now = gt_now_ns();
        const int one = 1, slot = find_place(j, now);
        if (slot < 0)
            return;
        const int fd = accept4(j->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR && errno != ECONNABORTED) {
                cannot_accept(j, errno);
                stop_listening(j, now + 100000000);
            }
            return;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        handshake *g = &j->handshakes[slot];
        memset(g, 0, sizeof *g);
        g->fd = fd;
        g->since = now;
        g->deadline = now + j->config->hello_timeout;
        if (serve_watch(j, fd, WATCH_HANDSHAKE, slot))
            handshake_drop(j, slot);
    }
}

/* Answers the other end's hello with ours and our proof. 0: not one of us. */
static int answer(net_job *j, handshake *g)
{
    unsigned char out[NET_HELLO + NET_MAC];
    net_hello theirs, ours;
    if (net_hello_parse(&theirs, g->theirs)) {
        handshake_note(j, g->fd, gt_message());
        return 0;
    }
    if (theirs.peer != (uint32_t)j->rank || theirs.rank >= (uint32_t)NET_WORLD || theirs.role == NET_ROLE_WORDS) {
        handshake_note(j, g->fd, "it wants to talk to another rank");
        return 0;
    }
    net_hello_init(&ours, (net_role)theirs.role, j->rank, j->size, (int)theirs.rank, net_config_hash(j->config));
    net_secret_random(ours.nonce, sizeof ours.nonce);
    net_hello_format(g->ours, &ours);
    memcpy(out, g->ours, NET_HELLO);
    net_hello_proof(out + NET_HELLO, j->key, 1, g->theirs, g->ours);
    /* A fresh socket takes 128 bytes at once, or it is not worth having. */
    if (send(g->fd, out, sizeof out, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)sizeof out) {
        handshake_note(j, g->fd, "it does not take an answer");
        return 0;
    }
    g->answered = 1;
    return 1;
}

/* Whether a proven peer may come in, as a verdict. 1: it belongs to the job and can never
 * work in it, so the job need not wait for it any longer. */
static int judge(net_job *j, const net_hello *theirs, net_notice *out)
{
    char our_name[96], their_name[96];
    net_hello ours;
    net_hello_init(&ours, (net_role)theirs->role, j->rank, j->size, (int)theirs->rank, 0);
    plain_name(j, j->rank, our_name);
    snprintf(their_name, sizeof their_name, "rank %u", (unsigned)theirs->rank);
    *out = (net_notice){ .code = GT_OK, .culprit = -1 };
    if (theirs->rank < (uint32_t)j->size)
        plain_name(j, (int)theirs->rank, their_name);
    if (net_hello_compare(&ours, our_name, theirs, their_name)) {
        out->code = GT_MISMATCH;
        snprintf(out->sentence, sizeof out->sentence, "%s", gt_message());
        return theirs->role == NET_ROLE_CONTROL && j->rank == 0 && !j->joined;
    }
    if (atomic_load(&j->over)) {
        out->code = j->end.code;
        snprintf(out->sentence, sizeof out->sentence, "%s", j->end.sentence);
    } else if (theirs->role == NET_ROLE_CONTROL && j->rank != 0) {
        out->code = GT_MISMATCH;
        snprintf(out->sentence, sizeof out->sentence, "rank %d is not rank 0", j->rank);
    } else if (theirs->role == NET_ROLE_CONTROL && (j->peers[theirs->rank].linked || j->joined)) {
        out->code = GT_MISMATCH;
        snprintf(out->sentence, sizeof out->sentence,
                 "%s is in job '%s' already; was a second process "
                 "started as rank %u, or a second job with this name?",
                 their_name, j->who->job, (unsigned)theirs->rank);
    } else if (theirs->role == NET_ROLE_STREAM && j->arrival_count >= 4 * NET_WORLD) {
        out->code = GT_NO_MEMORY;
        snprintf(out->sentence, sizeof out->sentence, "rank %d has too many streams", j->rank);
    }
    return 0;
}

static void take_stream(net_job *j, int from, int fd)
{
    arrival *a = calloc(1, sizeof *a), **end = &j->arrivals;
    if (!a) {
        close(fd);
        return;
    }
    epoll_ctl(j->epoll, EPOLL_CTL_DEL, fd, NULL);
    net_set_blocking(fd, 1);
    net_keep_alive(fd, j->config->heartbeat, 0);
    a->peer = from;
    a->fd = fd;
    while (*end)
        end = &(*end)->next;
    *end = a;
    j->arrival_count++;
}

/* The other end has proven itself: the connection becomes a control link or a stream, or learns why not. */
static void admit(net_job *j, int slot)
{
    handshake *g = &j->handshakes[slot];
    unsigned char to[NET_SECRET], from[NET_SECRET], text[8 + NET_SENTENCE];
    net_hello theirs;
    net_notice verdict;
    net_wire wire;
    net_hello_parse(&theirs, g->theirs);
    const int hopeless = judge(j, &theirs, &verdict);
    net_hello_session(to, j->key, 0, g->theirs, g->ours);
    net_hello_session(from, j->key, 1, g->theirs, g->ours);
    net_wire_init(&wire, g->fd, j->size, to, from);
    const size_t size = net_notice_format(text, &verdict);
    gt_status st = net_wire_queue_bytes(&wire, NET_VERDICT, text, size);
    if (!st)
        st = net_wire_flush(&wire);
    const int done = !st && !net_wire_pending(&wire);
    if (verdict.code)
        handshake_note(j, g->fd, verdict.sentence);
    g->fd = -1;                         /* the wire's now                                    */
    if (verdict.code || !done) {
        net_wire_close(&wire);
        if (verdict.code && theirs.role == NET_ROLE_CONTROL) {
            j->told++;
            pthread_cond_broadcast(&j->changed);
        }
        if (hopeless)
            end_job(j, GT_MISMATCH, -1, "%s", verdict.sentence);
        return;
    }
    if (theirs.role == NET_ROLE_STREAM) {
        take_stream(j, (int)theirs.rank, wire.fd);
        return;
    }
    rank_state *p = &j->peers[theirs.rank];
    p->wire = wire;
    if (!p->wire.first)
        p->wire.last = &p->wire.first;  /* it pointed into the local copy                    */
    p->linked = 1;
    p->heard = p->beat_at = gt_now_ns();
    net_keep_alive(wire.fd, j->config->heartbeat, j->config->dead_after);
    struct epoll_event e = { .events = EPOLLIN, .data.u64 = (uint64_t)WATCH_LINK << 32 | theirs.rank };
    epoll_ctl(j->epoll, EPOLL_CTL_MOD, wire.fd, &e);
}

void handshake_continue(net_job *j, int slot)
{
    handshake *g = &j->handshakes[slot];
    while (g->fd >= 0) {
        const size_t total = NET_HELLO + NET_MAC, end = g->answered ? total : NET_HELLO;
        unsigned char *at = g->got < NET_HELLO ? g->theirs + g->got : g->proof + (g->got - NET_HELLO);
        const ssize_t n = recv(g->fd, at, end - g->got, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n <= 0) {
            handshake_note(j, g->fd,
                           g->answered ? "it left in the middle of a hello; does it know "
                                         "another secret?"
                                       : "it left without a word");
            handshake_drop(j, slot);
            return;
        }
        g->got += (size_t)n;
        if (g->got == NET_HELLO && !g->answered && !answer(j, g))
            handshake_drop(j, slot);
        if (g->fd >= 0 && g->got == total) {
            unsigned char wanted[NET_MAC];
            net_hello_proof(wanted, j->key, 0, g->theirs, g->ours);
            if (net_secret_equal(g->proof, wanted)) {
                admit(j, slot);
                return;
            }
            handshake_note(j, g->fd, "it does not know this job's secret");
            handshake_drop(j, slot);
        }
    }
}

void handshake_expire(net_job *j, uint64_t now)
{
    for (int i = 0; i < HANDSHAKES; i++)
        if (j->handshakes[i].fd >= 0 && now >= j->handshakes[i].deadline) {
            handshake_note(j, j->handshakes[i].fd, "its hello took too long");
            handshake_drop(j, i);
        }
    if (!j->listening && j->listener >= 0 && now >= j->listen_again && !serve_watch(j, j->listener, WATCH_LISTENER, 0))
        j->listening = 1;
}
