/* SPDX-License-Identifier: MIT */
/* net/job/address.c - interfaces, ports, and connecting within a time.
 *
 * Everything here is close to the system calls; what the addresses mean is decided in
 * join.c. All sockets are close-on-exec, non-blocking and send without delay.            */
#include "net/job/address.h"

#include "host/base/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <limits.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- addresses --------------------------------------------------------------------------- */

static const struct sockaddr_in *v4(const net_address *a)
{
    return (const struct sockaddr_in *)(const void *)&a->at;
}

static const struct sockaddr_in6 *v6(const net_address *a)
{
    return (const struct sockaddr_in6 *)(const void *)&a->at;
}

/* ::ffff:10.0.0.1, as a socket for both families shows IPv4, becomes 10.0.0.1. */
static void unmap(net_address *a)
{
    if (a->at.ss_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&v6(a)->sin6_addr))
        return;
    struct sockaddr_in plain = { .sin_family = AF_INET, .sin_port = v6(a)->sin6_port };
    memcpy(&plain.sin_addr, (const char *)&v6(a)->sin6_addr + 12, 4);
    memset(a, 0, sizeof *a);
    memcpy(&a->at, &plain, sizeof plain);
    a->size = sizeof plain;
}

gt_status net_address_resolve(net_address out[NET_ADDRESSES], int *count, const char *host, uint16_t port)
{
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
    struct addrinfo *all = NULL;
    const int error = getaddrinfo(host, NULL, &hints, &all);
    *count = 0;
    if (error)
        return gt_fail(GT_IO, "cannot find host '%s': %s", host,
                       error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error));
    for (int family = 0; family < 2; family++)
        for (struct addrinfo *a = all; a && *count < NET_ADDRESSES; a = a->ai_next) {
            if (a->ai_family != (family ? AF_INET6 : AF_INET))
                continue;
            net_address *o = &out[(*count)++];
            memset(o, 0, sizeof *o);
            memcpy(&o->at, a->ai_addr, a->ai_addrlen);
            o->size = a->ai_addrlen;
            net_address_set_port(o, port);
        }
    freeaddrinfo(all);
    return *count ? GT_OK : gt_fail(GT_IO, "cannot find host '%s': it has no IP address", host);
}

void net_address_set_port(net_address *a, uint16_t port)
{
    if (a->at.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)(void *)&a->at)->sin6_port = htons(port);
    else
        ((struct sockaddr_in *)(void *)&a->at)->sin_port = htons(port);
}

uint16_t net_address_port(const net_address *a)
{
    return ntohs(a->at.ss_family == AF_INET6 ? v6(a)->sin6_port : v4(a)->sin_port);
}

int net_address_is_loopback(const net_address *a)
{
    if (a->at.ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&v6(a)->sin6_addr);
    return ntohl(v4(a)->sin_addr.s_addr) >> 24 == 127;
}

int net_address_equal(const net_address *a, const net_address *b)
{
    if (a->at.ss_family != b->at.ss_family)
        return 0;
    if (a->at.ss_family == AF_INET6)
        return IN6_ARE_ADDR_EQUAL(&v6(a)->sin6_addr, &v6(b)->sin6_addr);
    return v4(a)->sin_addr.s_addr == v4(b)->sin_addr.s_addr;
}

char *net_address_host(char *out, size_t size, const net_address *a)
{
    if (getnameinfo((const struct sockaddr *)&a->at, a->size, out, (socklen_t)size, NULL, 0, NI_NUMERICHOST) != 0)
        snprintf(out, size, "?");
    return out;
}

char *net_address_text(char *out, size_t size, const net_address *a)
{
    char host[64];
    net_address_host(host, sizeof host, a);
    snprintf(out, size, strchr(host, ':') ? "[%s]:%d" : "%s:%d", host, net_address_port(a));
    return out;
}

gt_status net_address_own(net_address *out, int fd)
{
    memset(out, 0, sizeof *out);
    out->size = sizeof out->at;
    if (getsockname(fd, (struct sockaddr *)&out->at, &out->size) != 0)
        return gt_fail(GT_IO, "cannot ask a socket's address: %s", strerror(errno));
    unmap(out);
    return GT_OK;
}

gt_status net_address_peer(net_address *out, int fd)
{
    memset(out, 0, sizeof *out);
    out->size = sizeof out->at;
    if (getpeername(fd, (struct sockaddr *)&out->at, &out->size) != 0)
        return gt_fail(GT_IO, "cannot ask a socket's other end: %s", strerror(errno));
    unmap(out);
    return GT_OK;
}

/* ---- interfaces -------------------------------------------------------------------------- */

static int in_list(const char *list, const char *name, int exact)
{
    const size_t length = strlen(name);
    for (const char *p = list; *p; p += *p == ',') {
        const size_t n = strcspn(p, ",");
        if (n && n <= length && !strncmp(p, name, n) && (!exact || n == length))
            return 1;
        p += n;
    }
    return 0;
}

int net_interface_fits(const char *pattern, const char *name)
{
    if (!*pattern)
        return 1;
    const int not = *pattern == '^';
    pattern += not;
    const int exact = *pattern == '=';
    pattern += exact;
    return in_list(pattern, name, exact) != not;
}

void net_interface_each(void (*visit)(void *context, const char *name, const net_address *a), void *context)
{
    struct ifaddrs *all = NULL;
    if (getifaddrs(&all) != 0)
        return;
    for (int family = 0; family < 2; family++)
        for (struct ifaddrs *i = all; i; i = i->ifa_next) {
            net_address a = { .size = family ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in) };
            if (!i->ifa_addr || !(i->ifa_flags & IFF_UP) || i->ifa_addr->sa_family != (family ? AF_INET6 : AF_INET))
                continue;
            memcpy(&a.at, i->ifa_addr, a.size);
            visit(context, i->ifa_name, &a);
        }
    freeifaddrs(all);
}

typedef struct choice {
    const char *pattern;
    int rank;                           /* 0 nothing yet; IPv4 3, IPv6 2, link-local IPv6 1   */
    net_address address;
    char name[IF_NAMESIZE];
    char seen[512];
} choice;

static void consider(void *context, const char *name, const net_address *a)
{
    choice *c = context;
    int rank = 3;
    const size_t used = strlen(c->seen);
    if (!in_list(c->seen, name, 1))
        snprintf(c->seen + used, sizeof c->seen - used, "%s%s", used ? "," : "", name);
    if (!net_interface_fits(c->pattern, name))
        return;
    if (net_address_is_loopback(a) && (!*c->pattern || *c->pattern == '^'))
        return;
    if (a->at.ss_family == AF_INET6)
        rank = IN6_IS_ADDR_LINKLOCAL(&v6(a)->sin6_addr) ? 1 : 2;
    if (rank <= c->rank)
        return;
    c->rank = rank;
    c->address = *a;
    snprintf(c->name, sizeof c->name, "%s", name);
}

gt_status net_interface_choose(net_address *out, const char *pattern, char *name)
{
    choice c = { .pattern = pattern };
    net_interface_each(consider, &c);
    if (!c.rank)
        return gt_fail(GT_MISUSE,
                       "no interface with an address fits the network setting interface = "
                       "'%s'; there %s %s",
                       pattern, c.seen[0] ? "are" : "is", c.seen[0] ? c.seen : "none");
    *out = c.address;
    if (name)
        snprintf(name, IF_NAMESIZE, "%s", c.name);
    return GT_OK;
}

/* ---- sockets ----------------------------------------------------------------------------- */

gt_status net_ports_parse(uint16_t *first, uint16_t *last, const char *text)
{
    char *end;
    *first = *last = 0;
    if (!*text)
        return GT_OK;
    const unsigned long a = strtoul(text, &end, 10);
    const unsigned long b = *end == '-' ? strtoul(end + 1, &end, 10) : a;
    if (*end || a < 1 || b < a || b > 65535 || text[0] < '0' || text[0] > '9')
        return gt_fail(GT_MISUSE, "network setting port-range cannot be '%s'; it takes 30000-30100", text);
    *first = (uint16_t)a;
    *last = (uint16_t)b;
    return GT_OK;
}

void net_set_blocking(int fd, int blocking)
{
    const int flags = fcntl(fd, F_GETFL);
    fcntl(fd, F_SETFL, blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK);
}

gt_status net_listen(int *fd, const net_address *at, uint16_t first, uint16_t ports)
{
    char text[96];
    const int one = 1;
    const int s = socket(at->at.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    *fd = -1;
    if (s < 0)
        return gt_fail(GT_IO, "cannot make a socket: %s", strerror(errno));
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    net_address a = *at;
    for (unsigned i = 0; i < (ports ? ports : 1u) && first + i <= 65535; i++) {
        net_address_set_port(&a, (uint16_t)(first + i));
        if (bind(s, (const struct sockaddr *)&a.at, a.size) == 0 && listen(s, SOMAXCONN) == 0) {
            *fd = s;
            return GT_OK;
        }
        if (errno != EADDRINUSE && errno != EACCES)
            break;
    }
    const int error = errno;
    close(s);
    net_address_set_port(&a, first);
    return gt_fail(GT_IO,
                   "cannot listen at %s%s: %s; give other ports in the network setting "
                   "port-range, or another interface",
                   net_address_text(text, sizeof text, &a), ports > 1 ? " or the ports behind it" : "",
                   strerror(error));
}

gt_status net_await(int fd, short events, uint64_t deadline, const net_stop *stop)
{
    for (;;) {
        const uint64_t now = gt_now_ns();
        if (now >= deadline)
            return gt_fail(GT_TIMEOUT, "no answer in time");
        uint64_t ms = (deadline - now) / 1000000 + 1;
        if (stop && ms > 100)
            ms = 100;
        struct pollfd p = { fd, events, 0 };
        const int n = poll(&p, 1, ms > INT_MAX ? INT_MAX : (int)ms);
        if (n > 0)
            return GT_OK;
        if (n < 0 && errno != EINTR)
            return gt_fail(GT_IO, "cannot wait for a socket: %s", strerror(errno));
        if (stop && stop->stopped(stop->context))
            return gt_fail(GT_INTERRUPTED, "the job is over");
    }
}

gt_status net_dial(int *fd, const net_address *to, uint64_t deadline, const net_stop *stop)
{
    const int one = 1;
    int error = 0;
    socklen_t size = sizeof error;
    gt_status st = GT_OK;
    *fd = -1;
    const int s = socket(to->at.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s < 0)
        return gt_fail(GT_IO, "cannot make a socket: %s", strerror(errno));
    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(s, (const struct sockaddr *)&to->at, to->size) != 0) {
        error = errno;
        if (error == EINPROGRESS || error == EINTR) {
            st = net_await(s, POLLOUT, deadline, stop);
            if (!st && getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
                error = errno;
        }
        if (!st && error)
            st = gt_fail(GT_IO, "%s", strerror(error));
    }
    /* Connecting to a free port of one's own range may meet itself. */
    net_address own, peer;
    if (!st && !net_address_own(&own, s) && !net_address_peer(&peer, s) && net_address_equal(&own, &peer)
        && net_address_port(&own) == net_address_port(&peer))
        st = gt_fail(GT_IO, "%s", strerror(ECONNREFUSED));
    if (st) {
        close(s);
        return st;
    }
    *fd = s;
    return GT_OK;
}

void net_keep_alive(int fd, uint64_t heartbeat, uint64_t dead_after)
{
    const int one = 1, tries = 5;
    const int idle = heartbeat < UINT64_C(1000000000) ? 1 : (int)(heartbeat / UINT64_C(1000000000));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &tries, sizeof tries);
    if (dead_after) {
        const unsigned ms = (unsigned)(dead_after / 1000000);
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms);
    }
}
