/* SPDX-License-Identifier: MIT */
/* net/job/launcher_hosts.c - which rank is on which host, and where rank 0 listens.
 *
 *   hosts file ── slots, line by line ──► ranks 0, 1, 2, ...     a host that is this one by any of its names: no ssh
 *
 * Rank 0 inherits a socket that listens already, so the port is known before anybody starts and cannot be
 * taken in between. Over ssh that cannot be: there the port is drawn by lot, and LAUNCH_PORTS behind it are tried. */
#include "net/job/launcher_private.h"

#include "net/job/address.h"
#include "net/job/hostlist.h"
#include "net/job/secret.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { FIRST_PORT = 25000, LAST_PORT = 29999 };

gt_status launch_listen(launch *l, int for_others)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    net_address at = { .size = sizeof in };
    uint16_t first = 0, last = 0;
    gt_status st = l->o->config ? net_ports_parse(&first, &last, l->o->config->port_range) : GT_OK;
    memcpy(&at.at, &in, sizeof in);
    if (for_others)
        at = l->door_at;
    if (!st)
        st = net_listen(&l->listener, &at, first, (uint16_t)(first ? last - first + 1 : 1));
    if (!st)
        st = net_address_own(&at, l->listener);
    if (!st)
        net_address_text(l->root, sizeof l->root, &at);
    return st;
}

static gt_status place_here(launch *l)
{
    gt_status st = launch_listen(l, 0);
    for (int i = 0; i < l->ranks; i++) {
        l->children[i].local_rank = i;
        l->children[i].local_size = l->size;
    }
    return st;
}

/* "user@node" -> "node". */
static const char *bare(const char *host)
{
    const char *at = strrchr(host, '@');
    return at ? at + 1 : host;
}

static int is_loopback(const char *host)
{
    return !strcmp(bare(host), "localhost") || !strncmp(bare(host), "127.", 4) || !strcmp(bare(host), "::1");
}

typedef struct wanted {
    const char *host;
    int found;
} wanted;

static void look_at_address(void *context, const char *interface, const net_address *a)
{
    wanted *w = context;
    char text[64];
    (void)interface;
    w->found |= !strcmp(net_address_host(text, sizeof text, a), w->host);
}

/* Names and addresses of this host, which need no ssh; somebody@here does. A name with a domain is
 * this host's if the other has none. */
static int is_here(const char *host)
{
    char own[HOST] = "";
    wanted w = { host, 0 };
    if (strchr(host, '@'))
        return 0;
    if (is_loopback(host))
        return 1;
    net_interface_each(look_at_address, &w);
    if (w.found || gethostname(own, sizeof own - 1) != 0)
        return w.found;
    const size_t label = strcspn(own, ".");
    const int one_is_short = !own[label] || !host[strcspn(host, ".")];
    return !strcasecmp(host, own) || (one_is_short && strcspn(host, ".") == label && !strncasecmp(host, own, label));
}

/* Gives the slots of the file to ranks, line by line; *slots counts them all. */
gt_status launch_read_hosts(launch *l, const char *text, int *slots)
{
    char line[512], host[HOST];
    int number = 0, mixed = 0, here = 0, n;
    *slots = 0;
    for (const char *p = text; *p;) {
        const size_t length = strcspn(p, "\n");
        snprintf(line, sizeof line, "%.*s", (int)(length < 511 ? length : 511), p);
        p += length + (p[length] == '\n');
        number++;
        gt_status st = net_hosts_line(host, sizeof host, &n, line);
        if (st)
            return gt_fail_in(GT_MISUSE, "hosts file '%s', line %d", l->o->hosts, number);
        const int there = n && !is_here(host);
        for (int i = 0; i < n && l->children && *slots + i < l->ranks; i++) {
            child *c = &l->children[*slots + i];
            snprintf(c->host, sizeof c->host, "%s", there ? host : "");
            c->local_rank = c->local_size = -1;
            l->there |= there;
        }
        if (n && !*slots)
            snprintf(l->first, sizeof l->first, "%s", host);
        *slots += n;
        here |= n && is_loopback(host);
        mixed |= n && !is_loopback(host);
    }
    if (*slots == 0)
        return gt_fail(GT_MISUSE, "hosts file '%s' names no host", l->o->hosts);
    if (here && mixed)
        return gt_fail(GT_MISUSE,
                       "hosts file '%s' names localhost beside other hosts; give it the name "
                       "that the others know it by",
                       l->o->hosts);
    return GT_OK;
}

static gt_status place_there(launch *l)
{
    uint16_t first = 0, last = 0;
    uint32_t lot;
    gt_status st = l->o->config ? net_ports_parse(&first, &last, l->o->config->port_range) : GT_OK;
    if (st)
        return st;
    if (!first) {
        first = FIRST_PORT;
        last = LAST_PORT;
    }
    net_secret_random(&lot, sizeof lot);
    const unsigned there = (unsigned)(last - first) + 1;
    const unsigned port = first + (there > LAUNCH_PORTS ? lot % (there - LAUNCH_PORTS + 1) : 0);
    const char *host = bare(l->first);
    snprintf(l->root, sizeof l->root, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
    return GT_OK;
}

gt_status launch_place(launch *l)
{
    return l->there ? place_there(l) : place_here(l);
}
