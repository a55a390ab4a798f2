/* SPDX-License-Identifier: MIT */
/* net/job/elastic.c - leaving one job and joining the next, in one process.
 *
 *   GEARTRAIN_ELASTIC_FD       this end of the pair of sockets, or
 *   GEARTRAIN_ELASTIC_AT       where the launcher is, on another host; GEARTRAIN_ELASTIC_GUEST 1: it did not start us
 *   GEARTRAIN_ELASTIC_PLACE    this process's place on the host, of GEARTRAIN_ELASTIC_PLACES
 *   GEARTRAIN_ELASTIC_JOIN     1: started while the job runs */
#include "net/job/elastic.h"

#include "host/base/clock.h"
#include "host/base/log.h"
#include "host/base/stop.h"
#include "host/base/text.h"
#include "net/job/door.h"
#include "net/job/elastic_words.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PAUSE_MS = 5 };
#define KNOCK (30 * UINT64_C(1000000000))

static struct {
    int looked, formation, last, asked;
    const char *at;                     /* of a launcher on another host                     */
    elastic_line line;
    int listener;                       /* on which this rank would be rank 0                */
} of = { .line = { .fd = -1 }, .listener = -1 };

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
static void find_launcher(void)
{
    int type = 0;
    socklen_t size = sizeof type;
    if (of.looked)
        return;
    of.looked = 1;
    of.line.fd = number_of("GEARTRAIN_ELASTIC_FD", -1);
    if (of.line.fd >= 0 && (getsockopt(of.line.fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_SEQPACKET))
        of.line.fd = -1;
    if (of.line.fd >= 0)
        fcntl(of.line.fd, F_SETFD, FD_CLOEXEC);
    else
        of.at = getenv("GEARTRAIN_ELASTIC_AT");
    if (of.at && !*of.at)
        of.at = NULL;
}

/* A line to the launcher on another host, where there is none yet. */
static gt_status reach(uint64_t patience)
{
    unsigned char secret[NET_SECRET];
    const char *text = getenv("GEARTRAIN_SECRET");
    const int guest = number_of("GEARTRAIN_ELASTIC_GUEST", 0);
    if (!of.at || of.line.fd >= 0)
        return GT_OK;
    of.line.wire = calloc(1, sizeof *of.line.wire);
    if (!of.line.wire)
        return gt_fail(GT_NO_MEMORY, "no memory for a line to the launcher");
    gt_status st = text ? net_secret_parse(secret, text, "the variable GEARTRAIN_SECRET")
                        : gt_fail(GT_MISUSE, "the variable GEARTRAIN_SECRET is not set");
    if (!st)
        st = net_door_knock(of.line.wire, of.at, secret,
                            guest ? NET_DOOR_GUEST : number_of("GEARTRAIN_ELASTIC_NUMBER", 0), gt_now_ns() + patience);
    memset(secret, 0, sizeof secret);
    if (st) {
        free(of.line.wire);
        of.line.wire = NULL;
        return st;
    }
    of.line.fd = of.line.wire->fd;
    return GT_OK;
}

int net_elastic(void)
{
    find_launcher();
    return of.line.fd >= 0 || of.at;
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

static int send_datagram(int socket, const elastic_word *word, int fd)
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

static int receive_datagram(int socket, elastic_word *word, int *fd)
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

/* A word is far shorter than a body may be; what is behind it is for later. */
static int send_message(net_wire *w, const elastic_word *word)
{
    _Static_assert(sizeof *word <= NET_WORD_BYTES, "a word fits into its message");
    const int sent = !net_wire_queue_bytes(w, NET_WORD, word, sizeof *word) && !net_wire_flush(w);
    gt_message_clear();
    return sent;
}

static int receive_message(net_wire *w, elastic_word *word)
{
    net_head head;
    const unsigned char *body;
    int got = 0;
    gt_status st = net_wire_flush(w);
    if (!st)
        st = net_wire_receive(w, &head, &body, &got);
    if (!st && !got)
        return 0;
    gt_message_clear();
    if (st || head.type != NET_WORD || head.length != sizeof *word)
        return -1;
    memcpy(word, body, sizeof *word);
    word->job[sizeof word->job - 1] = word->host[sizeof word->host - 1] = '\0';
    return 1;
}

void elastic_hang_up(elastic_line *l)
{
    if (l->wire) {
        net_wire_close(l->wire);
        free(l->wire);
    } else if (l->fd >= 0) {
        close(l->fd);
    }
    *l = (elastic_line){ .fd = -1 };
}

int elastic_send(elastic_line *l, const elastic_word *word, int fd)
{
    if (l->fd < 0)
        return 0;
    return l->wire ? send_message(l->wire, word) : send_datagram(l->fd, word, fd);
}

int elastic_receive(elastic_line *l, elastic_word *word, int *fd)
{
    *fd = -1;
    if (l->fd < 0)
        return -1;
    return l->wire ? receive_message(l->wire, word) : receive_datagram(l->fd, word, fd);
}

/* ---- a rank ------------------------------------------------------------------------------------ */

int net_elastic_asks(void)
{
    elastic_word w;
    int fd;
    if (net_elastic() && of.at && of.line.fd < 0 && reach(KNOCK)) {
        gt_log(GT_LOG_WARN, "net", "%s; a rank that is lost will be this one's end", gt_message());
        gt_message_clear();
        of.at = NULL;
    }
    if (net_elastic() && !of.asked && elastic_receive(&of.line, &w, &fd) == 1) {
        of.asked = w.kind == ELASTIC_PAUSE;
        if (w.kind == ELASTIC_END)      /* no signal of the launcher's reaches another host */
            gt_stop_note(SIGTERM);
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
    who->local_rank = w->local ? w->rank : -1;
    who->local_size = w->local ? w->size : -1;
    who->port = w->port;
    who->ports = 1;
    snprintf(who->host, sizeof who->host, "%s", w->host);
    snprintf(who->job, sizeof who->job, "%s", w->job);
    of.formation = w->formation;
    of.last = w->last;
    gt_log_rank(w->rank);
}

/* On the route to the launcher: from where it reaches this rank, others do. */
static gt_status listen_for_others(elastic_word *ready)
{
    uint16_t first = 0, last = 0;
    net_address at;
    const char *range = getenv("GEARTRAIN_NET_PORT_RANGE");
    if (!of.line.wire || of.listener >= 0)
        return GT_OK;
    gt_status st = net_ports_parse(&first, &last, range ? range : "");
    if (!st)
        st = net_address_own(&at, of.line.fd);
    if (!st)
        st = net_listen(&of.listener, &at, first, (uint16_t)(first ? last - first + 1 : 1));
    if (!st)
        st = net_address_own(&at, of.listener);
    ready->port = st ? 0 : net_address_port(&at);
    return st;
}

gt_status net_elastic_await(net_identity *who)
{
    elastic_word ready = { .kind = ELASTIC_READY }, w = { 0 };
    int fd = -1, got = 0;
    of.asked = 0;
    gt_status st = net_elastic() ? reach(KNOCK) : GT_OK;
    if (!st)
        st = listen_for_others(&ready);
    if (st)
        return st;
    if (!elastic_send(&of.line, &ready, -1))
        return gt_fail(GT_PEER, "the launcher is gone, so the ranks that are left cannot find each other");
    for (;;) {
        got = elastic_receive(&of.line, &w, &fd);
        if (got == 1 && w.kind == ELASTIC_GO)
            break;
        if (fd >= 0)
            close(fd);
        if (got == 1 && w.kind == ELASTIC_FULL)
            return gt_fail(GT_MISUSE, "the job has as many ranks as it takes (launch --elastic MIN:MAX)");
        if (got < 0 || (got == 1 && w.kind == ELASTIC_END))
            return gt_fail(GT_PEER, "the job is over");
        if (gt_stop_asked())
            return gt_fail(GT_INTERRUPTED, "stopped while ranks were put together anew");
        if (!got)
            gt_sleep_ns(PAUSE_MS * UINT64_C(1000000));
    }
    if (fd < 0 && !w.rank)
        fd = of.listener;
    else if (of.listener >= 0)
        close(of.listener);
    of.listener = -1;
    take_place(who, &w, fd);
    return GT_OK;
}
