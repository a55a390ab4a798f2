/* SPDX-License-Identifier: MIT */
/* net/job/end.c - how a job ends, so that every rank says the same sentence.
 *
 *   rank 1 ──ASK "lost the connection to rank 2"──► rank 0   waits 250 ms for a better reason:
 *   rank 2 ──(its link ends)──────────────────────► rank 0   "rank 2 was killed"
 *   rank 0 ──ABORT──► all
 *
 * Rank 0 alone decides, for the first to notice is seldom the one that knows why. A rank that
 * asks waits for the verdict for as long as it hears of rank 0, and a second more; with rank 0 gone,
 * each says so by itself, in words that do not depend on how it noticed.                 */
#include "net/job/job_private.h"

#include "host/base/clock.h"
#include "host/base/log.h"

#include <netinet/tcp.h>
#include <linux/sockios.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define MS UINT64_C(1000000)
#define HOLD (250 * MS)                 /* for a better reason than another rank's blame     */
#define VERDICT (1000 * MS)             /* rank 0's, when asked to end the job and silent since */
#define STEP (50 * MS)                  /* of waiting for it                                 */

void end_job(net_job *j, gt_status code, int culprit, const char *format, ...)
{
    unsigned char body[8 + NET_SENTENCE];
    va_list args;
    if (atomic_load(&j->over))
        return;
    j->end.code = code;
    j->end.culprit = culprit;
    va_start(args, format);
    vsnprintf(j->end.sentence, sizeof j->end.sentence, format, args);
    va_end(args);
    j->pending.on = 0;
    const size_t size = net_notice_format(body, &j->end);
    for (int i = 1; i < j->size && j->rank == 0; i++) {
        j->told += j->peers[i].linked;
        serve_send_bytes(j, i, NET_ABORT, body, size);
    }
    atomic_store(&j->over, 1);
    gt_log(GT_LOG_INFO, "net", "the job is over: %s", j->end.sentence);
    pthread_cond_broadcast(&j->changed);
    serve_wake(j);
}

gt_status end_status(const net_job *j)
{
    return atomic_load(&j->over) ? gt_fail(j->end.code, "%s", j->end.sentence) : GT_OK;
}

void end_asked(net_job *j, int from, const net_notice *n)
{
    if (atomic_load(&j->over))
        return;
    if (n->culprit < 0 || n->culprit == from) {
        end_job(j, GT_PEER, n->culprit, "%s ended the job: %s", j->peers[from].name, n->sentence);
        return;
    }
    if (j->peers[n->culprit].left) {
        end_job(j, GT_PEER, n->culprit,
                "%s left the job while %s worked with it; it had finished or "
                "failed%s%s",
                j->peers[n->culprit].name, j->peers[from].name, j->peers[n->culprit].leave_reason[0] ? " with: " : "",
                j->peers[n->culprit].leave_reason);
        return;
    }
    if (j->pending.on)
        return;                         /* the first blame counts                            */
    j->pending.on = 1;
    j->pending.deadline = gt_now_ns() + HOLD;
    j->pending.notice.culprit = n->culprit;
    snprintf(j->pending.notice.sentence, sizeof j->pending.notice.sentence, "%.100s: %.900s", j->peers[from].name,
             n->sentence);
}

void end_tick(net_job *j, uint64_t now)
{
    if (j->pending.on && now >= j->pending.deadline)
        end_job(j, GT_PEER, j->pending.notice.culprit, "%s", j->pending.notice.sentence);
}

/* Waits until the job is over, or rank 0 was silent for VERDICT. A machine that stands still, or gives this process
 * no processor, makes nobody silent: what is waited counts, not what the clock says after it. */
static void await_verdict(net_job *j)
{
    uint64_t silent = 0, heard = 0;
    while (!atomic_load(&j->over) && silent < VERDICT) {
        const uint64_t start = gt_now_ns();
        serve_once(j, STEP);
        const uint64_t waited = gt_now_ns() - start;
        pthread_mutex_lock(&j->lock);
        silent = j->peers[0].heard > heard ? 0 : silent + (waited < STEP ? waited : STEP);
        heard = j->peers[0].heard;
        pthread_mutex_unlock(&j->lock);
    }
}

gt_status net_job_abort(net_job *j, int culprit, const char *sentence)
{
    unsigned char body[8 + NET_SENTENCE];
    net_notice n = { .code = GT_PEER, .culprit = culprit };
    if (culprit < -1 || culprit >= j->size)
        n.culprit = -1;
    snprintf(n.sentence, sizeof n.sentence, "%s", sentence);
    pthread_mutex_lock(&j->lock);
    if (j->rank == 0)
        end_asked(j, 0, &n);
    else if (!atomic_load(&j->over))
        serve_send_bytes(j, 0, NET_ASK, body, net_notice_format(body, &n));
    pthread_mutex_unlock(&j->lock);
    await_verdict(j);
    pthread_mutex_lock(&j->lock);
    end_job(j, GT_PEER, n.culprit, "%s: %s", j->peers[j->rank].name, n.sentence);
    gt_status st = end_status(j);
    pthread_mutex_unlock(&j->lock);
    return st;
}

/* ---- leaving ----------------------------------------------------------------------------- */

void end_left(net_job *j, int rank, const char *leave_reason)
{
    unsigned char body[8 + NET_SENTENCE];
    net_notice n = { .culprit = rank };
    rank_state *p = &j->peers[rank];
    p->left = 1;
    p->beat = (net_beat){ .activity.waits_for = -1 };
    snprintf(p->leave_reason, sizeof p->leave_reason, "%s", leave_reason);
    pthread_cond_broadcast(&j->changed);
    if (j->rank != 0)
        return;
    snprintf(n.sentence, sizeof n.sentence, "%s", leave_reason);
    const size_t size = net_notice_format(body, &n);
    for (int i = 1; i < j->size; i++)
        if (i != rank)
            serve_send_bytes(j, i, NET_LEFT, body, size);
    exchange_check_left(j);
}

static int all_left(const net_job *j)
{
    for (int i = 0; i < j->size; i++)
        if (!j->peers[i].left)
            return 0;
    return 1;
}

/* What was sent has arrived, as far as the kernels know. */
static int all_delivered(net_job *j)
{
    for (int i = 0; i < j->size; i++) {
        int unacknowledged = 0;
        const rank_state *p = &j->peers[i];
        if (!p->linked)
            continue;
        if (net_wire_pending(&p->wire))
            return 0;
        if (ioctl(p->wire.fd, SIOCOUTQ, &unacknowledged) == 0 && unacknowledged > 0)
            return 0;
    }
    return 1;
}

/* Closing a socket that has unread bytes resets it, and takes with it what the other end has
 * not acknowledged. So the last messages are waited for, a second at most. */
static void deliver(net_job *j)
{
    const uint64_t deadline = gt_now_ns() + 1000 * MS;
    for (;;) {
        pthread_mutex_lock(&j->lock);
        const int done = all_delivered(j);
        pthread_mutex_unlock(&j->lock);
        if (done || gt_now_ns() >= deadline)
            return;
        serve_once(j, 2 * MS);
        gt_sleep_ns(MS);
    }
}

/* Sends LEAVE and waits until all have, or the job is over. */
static void part_in_order(net_job *j)
{
    unsigned char body[8 + NET_SENTENCE];
    net_notice n = { .culprit = j->rank };
    const uint64_t deadline = gt_now_ns() + j->config->stall_limit;
    snprintf(n.sentence, sizeof n.sentence, "%.900s", gt_message());
    pthread_mutex_lock(&j->lock);
    j->leaving = 1;
    if (j->rank != 0)
        serve_send_bytes(j, 0, NET_LEAVE, body, net_notice_format(body, &n));
    end_left(j, j->rank, n.sentence);
    while (!atomic_load(&j->over) && !(j->rank == 0 ? all_left(j) : j->everyone_left) && gt_now_ns() < deadline) {
        const uint64_t until = gt_now_ns() + 100 * MS;
        const struct timespec t = { (time_t)(until / 1000000000), (long)(until % 1000000000) };
        pthread_cond_timedwait(&j->changed, &j->lock, &t);
    }
    const int together = j->rank == 0 && !atomic_load(&j->over) && all_left(j);
    for (int i = 1; i < j->size && together; i++)
        serve_send(j, i, NET_ALL_LEFT, NULL);
    pthread_mutex_unlock(&j->lock);
}

static void release(net_job *j)
{
    for (int i = 0; i < HANDSHAKES; i++)
        handshake_drop(j, i);
    for (arrival *a = j->arrivals, *next; a; a = next) {
        next = a->next;
        close(a->fd);
        free(a);
    }
    for (int i = 0; j->peers && i < j->size; i++) {
        serve_unlink(j, i);
        net_body_release(j->peers[i].contribution);
    }
    net_body_release(j->all);
    if (j->listener >= 0 && j->listener != j->who->listen_fd)
        close(j->listener);
    if (j->epoll >= 0)
        close(j->epoll);
    if (j->doorbell >= 0)
        close(j->doorbell);
    free(j->peers);
    pthread_cond_destroy(&j->changed);
    pthread_mutex_destroy(&j->lock);
    pthread_mutex_destroy(&j->calling);
    free(j);
}

void net_job_leave(net_job *j)
{
    if (!j)
        return;
    if (j->started && j->joined && !atomic_load(&j->over))
        part_in_order(j);
    if (j->started) {
        deliver(j);
        pthread_mutex_lock(&j->lock);
        j->stopping = 1;
        pthread_mutex_unlock(&j->lock);
        serve_wake(j);
        pthread_join(j->thread, NULL);
    }
    release(j);
}
