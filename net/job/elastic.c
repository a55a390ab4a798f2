/* SPDX-License-Identifier: MIT */
/* net/job/elastic.c - leaving one job and joining the next, in one process.
 *
 *   GEARTRAIN_ELASTIC_FD       this end of the pair of sockets
 *   GEARTRAIN_ELASTIC_PLACE    this process's place on the host, of GEARTRAIN_ELASTIC_PLACES
 *   GEARTRAIN_ELASTIC_JOIN     1: started while the job runs */
#include "net/job/elastic.h"

#include "host/base/clock.h"
#include "host/base/log.h"
#include "host/base/stop.h"
#include "host/base/text.h"
#include "net/job/elastic_words.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PAUSE_MS = 5 };

static struct {
    int looked, fd, formation, last, asked;
} of = { .fd = -1 };

static int number_of(const char *name, int standard)
{
    uint64_t n;
    const char *text = getenv(name);
    if (!text || !*text || gt_parse_u64(&n, text) || n > (1 << 20)) {
        gt_message_clear();
        return standard;
    }
    return (int)n;
}

/* A descriptor that is no socket was inherited from nobody: then the variable is left over. */
static int find_launcher(void)
{
    int type = 0;
    socklen_t size = sizeof type;
    if (of.looked)
        return of.fd;
    of.looked = 1;
    of.fd = number_of("GEARTRAIN_ELASTIC_FD", -1);
    if (of.fd >= 0 && (getsockopt(of.fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_SEQPACKET))
        of.fd = -1;
    if (of.fd >= 0)
        fcntl(of.fd, F_SETFD, FD_CLOEXEC);
    return of.fd;
}

int net_elastic(void)
{
    return find_launcher() >= 0;
}

int net_elastic_joins(void)
{
    return net_elastic() && number_of("GEARTRAIN_ELASTIC_JOIN", 0) && !of.formation;
}

int net_elastic_formation(void)
{
    return of.formation;
}

int net_elastic_is_last(void)
{
    return of.last;
}

int net_elastic_place(int *places)
{
    *places = net_elastic() ? number_of("GEARTRAIN_ELASTIC_PLACES", 0) : 0;
    return *places ? number_of("GEARTRAIN_ELASTIC_PLACE", 0) : -1;
}

/* ---- words ----------------------------------------------------------------------------------- */

int elastic_send(int socket, const elastic_word *word, int fd)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } with;
    struct iovec body = { (void *)(uintptr_t)word, sizeof *word };
    struct msghdr m = { .msg_iov = &body, .msg_iovlen = 1 };
    ssize_t n;
    if (fd >= 0) {
        memset(&with, 0, sizeof with);
        m.msg_control = with.room;
        m.msg_controllen = sizeof with.room;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    do
        n = sendmsg(socket, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof *word;
}

int elastic_receive(int socket, elastic_word *word, int *fd)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } with;
    struct iovec body = { word, sizeof *word };
    struct msghdr m = {
        .msg_iov = &body, .msg_iovlen = 1, .msg_control = with.room, .msg_controllen = sizeof with.room
    };
    ssize_t n;
    *fd = -1;
    do
        n = recvmsg(socket, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return 0;
    for (struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
            memcpy(fd, CMSG_DATA(c), sizeof *fd);
    word->job[sizeof word->job - 1] = '\0';
    return n == (ssize_t)sizeof *word ? 1 : -1;
}

/* ---- a rank ------------------------------------------------------------------------------------ */

int net_elastic_asks(void)
{
    elastic_word w;
    int fd;
    if (net_elastic() && !of.asked && elastic_receive(of.fd, &w, &fd) == 1) {
        of.asked = w.kind == ELASTIC_PAUSE;
        if (fd >= 0)
            close(fd);
    }
    return of.asked;
}

static void take_place(net_identity *who, const elastic_word *w, int fd)
{
    if (who->listen_fd >= 0)
        close(who->listen_fd);
    who->listen_fd = fd;
    who->rank = w->rank;
    who->size = w->size;
    who->local_rank = w->rank;
    who->local_size = w->size;
    who->port = w->port;
    who->ports = 1;
    snprintf(who->host, sizeof who->host, "127.0.0.1");
    snprintf(who->job, sizeof who->job, "%s", w->job);
    of.formation = w->formation;
    of.last = w->last;
    gt_log_rank(w->rank);
}

gt_status net_elastic_await(net_identity *who)
{
    const elastic_word ready = { .kind = ELASTIC_READY };
    elastic_word w = { 0 };
    int fd = -1, got = 0;
    of.asked = 0;
    if (!net_elastic() || !elastic_send(of.fd, &ready, -1))
        return gt_fail(GT_PEER, "the launcher is gone, so the ranks that are left cannot find each other");
    for (;;) {
        got = elastic_receive(of.fd, &w, &fd);
        if (got == 1 && w.kind == ELASTIC_GO)
            break;
        if (fd >= 0)
            close(fd);
        if (got < 0 || (got == 1 && w.kind == ELASTIC_END))
            return gt_fail(GT_PEER, "the job is over");
        if (gt_stop_asked())
            return gt_fail(GT_INTERRUPTED, "stopped while ranks were put together anew");
        if (!got)
            gt_sleep_ns(PAUSE_MS * UINT64_C(1000000));
    }
    take_place(who, &w, fd);
    return GT_OK;
}
