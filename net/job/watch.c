/* SPDX-License-Identifier: MIT */
/* net/job/watch.c - who is dead, silent, stuck, or gone.
 *
 *   link ended        its process is gone            ends the job at once
 *   nothing acknowledged for dead_after              its host is gone: ends the job
 *   acknowledged, but no heartbeat for stall_report  the process is stopped or starved: a
 *                                                    warning; at stall_limit it ends the job
 *   heartbeats, but an operation makes no progress   stall.h
 *
 * The kernel of a stopped process still acknowledges what comes, so silence alone does not
 * tell a stopped process from a dead host; TCP_INFO does. A silent peer is sent no more
 * heartbeats: unread, they would fill its window, and a full window looks like a dead host
 * to TCP_USER_TIMEOUT. Keep-alives go on asking its kernel.                              */
#include "net/job/job_private.h"

#include "host/base/clock.h"
#include "host/base/log.h"

#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static double seconds(uint64_t ns)
{
    return (double)ns * 1e-9;
}

static void say_left(net_job *j, int rank)
{
    const rank_state *p = &j->peers[rank];
    end_job(j, GT_PEER, rank,
            "%s left the job while others still worked; it had finished or "
            "failed%s%s",
            p->name, p->leave_reason[0] ? " with: " : "", p->leave_reason);
}

void watch_lost(net_job *j, int rank, const char *cause)
{
    rank_state *p = &j->peers[rank];
    char why[NET_SENTENCE];             /* it may be gt_message()'s or strerror()'s own           */
    snprintf(why, sizeof why, "%s", cause);
    const int silent = !strcmp(why, strerror(ETIMEDOUT)) || !strcmp(why, strerror(EHOSTUNREACH))
                       || !strcmp(why, strerror(ENETUNREACH));
    const int gone = !strcmp(why, "closed") || !strcmp(why, strerror(ECONNRESET)) || !strcmp(why, strerror(EPIPE));
    serve_unlink(j, rank);
    if (p->left || j->everyone_left) {
        /* Its end was announced. Rank 0 is the hub, and missed by all that have not left. */
        if (rank == 0 && !j->everyone_left && !j->leaving)
            say_left(j, 0);
        else if (rank == 0) {
            j->everyone_left = 1;
            pthread_cond_broadcast(&j->changed);
        }
        return;
    }
    if (silent)
        end_job(j, GT_PEER, rank,
                "lost %s: its host has not answered for %g s; it is down, or the "
                "network is cut",
                p->name, seconds(j->config->dead_after));
    else if (gone)
        end_job(j, GT_PEER, rank, "lost %s: it was killed or crashed; its own output may say why", p->name);
    else
        end_job(j, GT_PEER, rank, "lost %s: %s", p->name, why);
}

void watch_beat(net_job *j, uint64_t now)
{
    unsigned char body[NET_BEAT_BYTES];
    if (!j->joined)
        return;
    net_beat_format(body, &j->peers[j->rank].beat);
    for (int i = 0; i < j->size; i++)
        if (j->peers[i].linked && now - j->peers[i].heard < j->config->dead_after)
            serve_send_bytes(j, i, NET_BEAT, body, sizeof body);
}

/* How long ago the peer's kernel last acknowledged anything. */
static uint64_t unacknowledged_for(const net_wire *w)
{
    struct tcp_info info;
    socklen_t size = sizeof info;
    memset(&info, 0, sizeof info);
    if (getsockopt(w->fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0)
        return 0;
    return (uint64_t)info.tcpi_last_ack_recv * 1000000;
}

static void check_silence(net_job *j, int rank, uint64_t now)
{
    rank_state *p = &j->peers[rank];
    const net_config *c = j->config;
    const uint64_t silence = now > p->heard ? now - p->heard : 0;
    const uint64_t least = c->dead_after < c->stall_report ? c->dead_after : c->stall_report;
    if (silence < least) {
        if (p->warned)
            gt_log(GT_LOG_INFO, "net", "%s gives signs of life again", p->name);
        p->warned = 0;
        return;
    }
    const uint64_t dead = unacknowledged_for(&p->wire);
    /* Keep-alives ask every heartbeat, or every second; dead_after leaves them time. */
    if (dead >= c->dead_after && dead >= 3 * UINT64_C(1000000000)) {
        watch_lost(j, rank, strerror(ETIMEDOUT));
    } else if (silence >= c->stall_limit) {
        end_job(j, GT_PEER, rank,
                "lost %s: its process has given no sign of life for %g s, though "
                "its host answers; it was stopped (SIGSTOP, a debugger), or starved of processor or "
                "memory",
                p->name, seconds(c->stall_limit));
    } else if (silence >= c->stall_report && !p->warned) {
        p->warned = 1;
        gt_log(GT_LOG_WARN, "net",
               "%s has given no sign of life for %.1f s, though its host answers: "
               "its process is stopped, or starved of processor or memory; the job ends when that "
               "lasts %g s",
               p->name, seconds(silence), seconds(c->stall_limit));
    }
}

void watch_silence(net_job *j, uint64_t now)
{
    for (int i = 0; i < j->size && j->joined; i++)
        if (j->peers[i].linked && !atomic_load(&j->over))
            check_silence(j, i, now);
}

/* ---- stalls, on rank 0 --------------------------------------------------------------------- */

/* A rank that left cannot be waited for. */
static void check_left(net_job *j)
{
    for (int i = 0; i < j->size; i++) {
        const net_beat *b = &j->peers[i].beat;
        const int other = b->activity.waits_for;
        if (!b->age || b->age < j->config->heartbeat || other < 0 || !j->peers[other].left || j->peers[i].left)
            continue;
        const rank_state *gone = &j->peers[other];
        end_job(j, GT_PEER, other,
                "%s left the job while %s waits for it in \"%s\"; it had finished "
                "or failed%s%s",
                gone->name, j->peers[i].name, b->activity.text, gone->leave_reason[0] ? " with: " : "",
                gone->leave_reason);
        return;
    }
}

/* One that waits in an exchange is busy with that, whatever else it says; `absent` is the first
 * whose share has not come. */
static void picture_exchange(const net_job *j, stall_rank *r, int rank, int absent, uint64_t now)
{
    const rank_state *p = &j->peers[rank];
    if (!p->contribution)
        return;
    r->age = now > p->contribution_since ? now - p->contribution_since : 1;
    r->text = p->contribution_what;
    r->waits_for = absent;
}

static int first_absent(const net_job *j)
{
    for (int i = 0; i < j->size; i++)
        if (!j->peers[i].contribution)
            return i;
    return -1;
}

void watch_stalls(net_job *j, uint64_t now)
{
    gt_text text = { 0 };
    if (j->rank != 0 || !j->joined || j->size < 2)
        return;
    check_left(j);
    const int absent = first_absent(j);
    stall_rank *all = calloc((size_t)j->size, sizeof *all);
    for (int i = 0; all && i < j->size; i++) {
        const rank_state *p = &j->peers[i];
        const uint64_t since_beat = now > p->beat_at ? now - p->beat_at : 0;
        all[i] = (stall_rank){
            .name = p->name,
            .started = p->beat.activity.started,
            .finished = p->beat.activity.finished,
            .waits_for = p->beat.activity.waits_for,
            .age = p->beat.age ? p->beat.age + since_beat : 0,
            .text = p->beat.activity.text,
            .silent = i && now - p->heard >= j->config->stall_report,
            .left = p->left
        };
        picture_exchange(j, &all[i], i, absent, now);
    }
    const stall s = all ? stall_find(all, j->size, j->config->stall_report, &text) : (stall){ 0 };
    /* What ranks say is as old as their last heartbeat, so a stall counts once it has been seen for
     * some of those; and ends the job only if nothing moved for the whole time. */
    if (!s.found || s.key != j->stall_key)
        j->stall_since = now;
    j->stall_key = s.found ? s.key : 0;
    const uint64_t seen = now - j->stall_since, report = j->config->stall_report;
    const uint64_t rest = j->config->stall_limit > report ? j->config->stall_limit - report : 0;
    if (s.found && !text.failed && s.age >= j->config->stall_limit && seen >= rest && seen >= 2 * j->config->heartbeat)
        end_job(j, GT_PEER, s.culprit, "no progress for %g s: %s", seconds(j->config->stall_limit), text.data);
    else if (s.found && !text.failed && s.key != j->warned_stall && seen >= 2 * j->config->heartbeat
             && !(s.culprit >= 0 && all[s.culprit].silent))    /* that was said already   */
        gt_log(GT_LOG_WARN, "net", "no progress for %.1f s: %s", seconds(s.age), text.data);
    if (!s.found || seen >= 2 * j->config->heartbeat)
        j->warned_stall = s.found ? s.key : 0;
    gt_text_release(&text);
    free(all);
}
