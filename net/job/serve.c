/* SPDX-License-Identifier: MIT */
/* net/job/serve.c - the job's thread: one epoll set for listener, handshakes and control links.
 *
 *   wait for events or the next timer  ->  handle them under the lock  ->  callbacks without
 *
 * Events are level-triggered and handlers read until nothing is left, so it does no harm
 * when two threads (see job_private.h) are woken by the same event.                      */
#include "net/job/job_private.h"

#include "host/base/clock.h"
#include "host/base/log.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

gt_status serve_watch(net_job *j, int fd, int kind, int index)
{
    struct epoll_event e = { .events = EPOLLIN, .data.u64 = (uint64_t)kind << 32 | (uint32_t)index };
    return epoll_ctl(j->epoll, EPOLL_CTL_ADD, fd, &e) == 0
               ? GT_OK
               : gt_fail(GT_IO, "cannot watch a socket: %s", strerror(errno));
}

void serve_wake(net_job *j)
{
    const uint64_t one = 1;
    if (write(j->doorbell, &one, sizeof one) < 0)
        return;                         /* full: it rings already                            */
}

/* ---- links ------------------------------------------------------------------------------- */

static void flush_link(net_job *j, int rank)
{
    rank_state *p = &j->peers[rank];
    if (!p->linked || net_wire_flush(&p->wire))
        return;                         /* broken: reading will say so                       */
    struct epoll_event e = { .events = EPOLLIN | (net_wire_pending(&p->wire) ? EPOLLOUT : 0u),
                             .data.u64 = (uint64_t)WATCH_LINK << 32 | (uint32_t)rank };
    epoll_ctl(j->epoll, EPOLL_CTL_MOD, p->wire.fd, &e);
}

void serve_send(net_job *j, int to, net_type type, net_body *body)
{
    if (!j->peers[to].linked)
        return;
    if (net_wire_queue(&j->peers[to].wire, type, body))
        gt_log(GT_LOG_ERROR, "net", "%s", gt_message());
    flush_link(j, to);
}

void serve_send_bytes(net_job *j, int to, net_type type, const void *bytes, size_t size)
{
    net_body *body = net_body_create(size);
    if (!body) {
        gt_log(GT_LOG_ERROR, "net", "cannot send a control message: no memory for its %zu bytes", size);
        return;
    }
    memcpy(body->data, bytes, size);
    serve_send(j, to, type, body);
    net_body_release(body);
}

void serve_unlink(net_job *j, int rank)
{
    if (!j->peers[rank].linked)
        return;
    net_wire_close(&j->peers[rank].wire);
    j->peers[rank].linked = 0;
}

static gt_status handle_to_root(net_job *j, int from, const net_head *head, const unsigned char *body)
{
    net_notice n;
    switch (head->type) {
    case NET_MEMBER: join_member(j, from, head, body); return GT_OK;
    case NET_CONTRIBUTION: exchange_contribution(j, from, head, body); return GT_OK;
    case NET_ASK:
    case NET_LEAVE:
        if (net_notice_parse(&n, body, head->length, j->size))
            break;
        if (head->type == NET_ASK)
            end_asked(j, from, &n);
        else
            end_left(j, from, n.sentence);
        return GT_OK;
    default: break;
    }
    return gt_fail(GT_FORMAT, "it sent control message %d, which makes no sense", head->type);
}

static gt_status handle_from_root(net_job *j, const net_head *head, const unsigned char *body)
{
    net_notice n;
    switch (head->type) {
    case NET_MEMBER_LIST: join_member_list(j, head, body); return GT_OK;
    case NET_ALL: exchange_all(j, head, body); return GT_OK;
    case NET_ABORT:
    case NET_LEFT:
        if (net_notice_parse(&n, body, head->length, j->size))
            break;
        if (head->type == NET_ABORT)
            end_job(j, n.code ? n.code : GT_PEER, n.culprit, "%s", n.sentence);
        else if (n.culprit >= 0)
            end_left(j, n.culprit, n.sentence);
        return GT_OK;
    case NET_ALL_LEFT:
        j->everyone_left = 1;
        pthread_cond_broadcast(&j->changed);
        return GT_OK;
    default: break;
    }
    return gt_fail(GT_FORMAT, "it sent control message %d, which makes no sense", head->type);
}

static gt_status handle_message(net_job *j, int from, const net_head *head, const unsigned char *body)
{
    rank_state *p = &j->peers[from];
    p->heard = gt_now_ns();
    if (head->type != NET_BEAT)
        return j->rank == 0 ? handle_to_root(j, from, head, body) : handle_from_root(j, head, body);
    p->beat_at = p->heard;
    return net_beat_parse(&p->beat, body, head->length, j->size);
}

static void read_link(net_job *j, int rank)
{
    rank_state *p = &j->peers[rank];
    gt_status st = GT_OK;
    int got = 1;
    while (p->linked && got && !st) {
        net_head head;
        const unsigned char *body;
        st = net_wire_receive(&p->wire, &head, &body, &got);
        if (!st && got)
            st = handle_message(j, rank, &head, body);
    }
    if (st && p->linked)
        watch_lost(j, rank, gt_message());
}

/* ---- the loop ---------------------------------------------------------------------------- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t next_timer(const net_job *j)
{
    uint64_t t = j->next_beat;
    for (int i = 0; i < HANDSHAKES; i++)
        if (j->handshakes[i].fd >= 0)
            t = earlier(t, j->handshakes[i].deadline);
    if (j->listener >= 0 && !j->listening)
        t = earlier(t, j->listen_again);
    if (j->rank == 0 && !j->joined && !atomic_load(&j->over))
        t = earlier(t, j->start_deadline);
    if (j->pending.on)
        t = earlier(t, j->pending.deadline);
    return t;
}

static void handle_event(net_job *j, const struct epoll_event *e)
{
    const int kind = (int)(e->data.u64 >> 32), index = (int)(uint32_t)e->data.u64;
    uint64_t count;
    switch (kind) {
    case WATCH_DOORBELL:
        if (read(j->doorbell, &count, sizeof count) < 0)
            return;                     /* another thread took it                            */
        return;
    case WATCH_LISTENER:
        if (j->listening)
            handshake_accept_all(j);
        return;
    case WATCH_HANDSHAKE: handshake_continue(j, index); return;
    case WATCH_LINK:
        if (e->events & EPOLLOUT)
            flush_link(j, index);
        if (e->events & ~(unsigned)EPOLLOUT)
            read_link(j, index);
        return;
    default: return;
    }
}

void serve_once(net_job *j, uint64_t limit)
{
    struct epoll_event events[64];
    uint64_t now = gt_now_ns();
    pthread_mutex_lock(&j->lock);
    const uint64_t timer = next_timer(j);
    pthread_mutex_unlock(&j->lock);
    uint64_t wait = timer > now ? timer - now : 0;
    wait = earlier(wait, limit) / 1000000 + (earlier(wait, limit) ? 1 : 0);
    const int n = epoll_wait(j->epoll, events, 64, wait > INT_MAX ? INT_MAX : (int)wait);
    pthread_mutex_lock(&j->lock);
    for (int i = 0; i < n; i++)
        handle_event(j, &events[i]);
    now = gt_now_ns();
    handshake_expire(j, now);
    if (j->rank == 0 && !j->joined)
        join_late(j, now);
    end_tick(j, now);
    pthread_mutex_unlock(&j->lock);
}

/* ---- callbacks --------------------------------------------------------------------------- */

static void hand_over_streams(net_job *j)
{
    for (;;) {
        pthread_mutex_lock(&j->lock);
        arrival *a = j->on_stream ? j->arrivals : NULL;
        if (a) {
            j->arrivals = a->next;
            j->arrival_count--;
        }
        pthread_mutex_unlock(&j->lock);
        if (!a)
            return;
        j->on_stream(j->stream_context, a->peer, a->fd);
        free(a);
    }
}

static void tell_abort(net_job *j)
{
    if (!atomic_load(&j->over) || j->abort_told || !j->on_abort)
        return;
    j->abort_told = 1;
    j->on_abort(j->abort_context);
}

/* What this rank does, asked without the lock. */
static void ask_activity(net_job *j)
{
    net_activity a = { .waits_for = -1 };
    if (j->on_activity)
        j->on_activity(j->activity_context, &a);
    const uint64_t now = gt_now_ns();
    pthread_mutex_lock(&j->lock);
    rank_state *p = &j->peers[j->rank];
    p->beat.activity = a;
    p->beat.age = a.since ? (now > a.since ? now - a.since : 1) : 0;
    p->beat_at = p->heard = now;
    pthread_mutex_unlock(&j->lock);
}

/* This process itself was stopped, or got no processor: what others said meanwhile lies unread, so
 * their silence is not to be counted. */
static int woke_late(net_job *j, uint64_t now)
{
    const int late = j->next_beat && now - j->next_beat > 2 * j->config->heartbeat;
    for (int i = 0; late && i < j->size; i++)
        if (j->peers[i].heard < now)
            j->peers[i].heard = now;
    return late;
}

static void beat(net_job *j)
{
    const uint64_t now = gt_now_ns();
    if (now < j->next_beat)
        return;
    if (!atomic_load(&j->over))
        ask_activity(j);
    pthread_mutex_lock(&j->lock);
    const int late = woke_late(j, now);
    j->next_beat = now + j->config->heartbeat;
    if (!atomic_load(&j->over) && !late) {
        watch_beat(j, now);
        watch_silence(j, now);
        watch_stalls(j, now);
    }
    pthread_mutex_unlock(&j->lock);
}

void *serve_thread(void *job)
{
    net_job *j = job;
    for (;;) {
        serve_once(j, UINT64_MAX);
        pthread_mutex_lock(&j->lock);
        const int stopping = j->stopping;
        pthread_mutex_unlock(&j->lock);
        if (stopping)
            return NULL;
        pthread_mutex_lock(&j->calling);
        beat(j);
        hand_over_streams(j);
        tell_abort(j);
        pthread_mutex_unlock(&j->calling);
    }
}
