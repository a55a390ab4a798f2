/* SPDX-License-Identifier: MIT */
/* host/cli/doctor_net.c - what would keep ranks from finding each other, and the fix.
 *
 *   settings  ->  address  ->  ports  ->  secret  ->  launcher  ->  a connection to ourselves
 *
 * The last one, on the very address and port that a rank would use, finds most local
 * firewalls; what lies between two hosts only a run on both can tell.                    */
#include "host/cli/cli_net.h"

#include "host/base/clock.h"
#include "net/job/address.h"
#include "net/job/secret.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct listing {
    char text[1024];
    size_t used;
} listing;

static void list_address(void *context, const char *name, const net_address *a)
{
    listing *l = context;
    char host[96];
    if (l->used < sizeof l->text)
        l->used += (size_t)snprintf(l->text + l->used, sizeof l->text - l->used, "%s%s %s", l->used ? ", " : "", name,
                                    net_address_host(host, sizeof host, a));
}

/* Where a rank of several hosts would listen. 1: *at is it. */
static int check_address(const net_config *c, net_address *at, cli_say_good *good, cli_say_bad *bad)
{
    listing l = { "", 0 };
    char name[IF_NAMESIZE], host[96];
    const char *pattern = c->interface[0] ? c->interface : "^lo,docker,virbr,podman,cni,veth";
    net_interface_each(list_address, &l);
    good("interfaces that are up: %s", l.used ? l.text : "none");
    if (net_interface_choose(at, pattern, name)) {
        if (c->interface[0])
            bad("correct the network setting interface, or leave it out", "%s", gt_message());
        else
            good("no interface but loopback has an address: ranks of this host alone can work "
                 "together");
        return 0;
    }
    if (net_address_is_loopback(at) && c->interface[0])
        good("ranks listen on %s %s, as the setting interface says: those of this host only", name,
             net_address_host(host, sizeof host, at));
    else
        good("ranks listen on %s %s, %s", name, net_address_host(host, sizeof host, at),
             c->interface[0] ? "as the setting interface says"
                             : "unless the route to rank 0 leads elsewhere; the setting interface "
                               "decides");
    return 1;
}

/* A listener where a rank would have it; -1 if that fails. */
static int check_ports(const net_config *c, const net_address *at, cli_say_good *good, cli_say_bad *bad)
{
    uint16_t first, last;
    int fd = -1;
    if (net_ports_parse(&first, &last, c->port_range)) {
        bad("correct the network setting port-range", "%s", gt_message());
        return -1;
    }
    if (net_listen(&fd, at, first, (uint16_t)(first ? last - first + 1 : 1))) {
        bad("end what uses these ports, or give others in the network setting port-range", "%s", gt_message());
        return -1;
    }
    if (first)
        good("ranks listen on ports %d to %d, and one of them is free", first, last);
    else
        good("ranks listen on any free port; behind a firewall, open some and name them in the "
             "network setting port-range");
    return fd;
}

static void check_firewall(int listener, cli_say_good *good, cli_say_bad *bad)
{
    net_address at;
    char text[96];
    int fd = -1;
    if (net_address_own(&at, listener))
        return;
    net_address_text(text, sizeof text, &at);
    if (net_dial(&fd, &at, gt_now_ns() + UINT64_C(2000000000), NULL))
        bad("let the firewall of this host accept TCP on that port (nft list ruleset shows its rules)",
            "a connection from this host to its own %s fails: %s", text, gt_message());
    else {
        good("a connection to %s works, from this host", text);
        close(fd);
    }
}

static void check_secret(const net_config *c, cli_say_good *good, cli_say_bad *bad)
{
    unsigned char secret[NET_SECRET];
    char path[4096];
    struct stat s;
    net_secret_path(path, sizeof path, c->secret_file);
    if (!path[0])
        bad("set HOME, or name a file in the network setting secret-file",
            "there is no home folder for the secret of jobs under Slurm and torchrun");
    else if (stat(path, &s) != 0 && errno == ENOENT)
        good("secret file %s will be made when Slurm or torchrun first start a job", path);
    else if (net_secret_file(secret, path))
        bad("chmod 600 it, or remove it to have a new one made; it must be the same on all hosts", "%s", gt_message());
    else
        good("secret file %s is there, and yours alone", path);
    memset(secret, 0, sizeof secret);
    if (c->insecure)
        good("the setting insecure lets anyone who can reach a rank's port join a job without secret");
}

static int in_path(const char *program)
{
    const char *path = getenv("PATH");
    char full[4096];
    for (const char *p = path ? path : ""; *p; p += *p == ':') {
        const size_t n = strcspn(p, ":");
        snprintf(full, sizeof full, "%.*s/%s", (int)n, p, program);
        if (access(full, X_OK) == 0)
            return 1;
        p += n;
    }
    return 0;
}

static void check_launchers(const net_config *c, cli_say_good *good, cli_say_bad *bad)
{
    net_identity who;
    if (net_identity_find(&who, c))
        bad("start it again the way it should run, or unset these variables",
            "the launcher's variables "
            "make no sense: %s",
            gt_message());
    else if (strcmp(who.source, "alone"))
        good("this is rank %d of %d, says %s; rank 0 is at %s:%d", who.rank, who.size, who.source, who.host, who.port);
    good("launchers here: geartrain launch%s%s%s", in_path("ssh") ? " (also over ssh)" : "",
         in_path("srun") ? ", srun" : "", in_path("mpirun") ? ", mpirun" : "");
}

void doctor_net(cli_say_good *good, cli_say_bad *bad)
{
    net_config *c;
    net_address at;
    if (net_config_read(&c)) {
        bad("correct that setting", "%s", gt_message());
        return;
    }
    const int fd = check_address(c, &at, good, bad) ? check_ports(c, &at, good, bad) : -1;
    if (fd >= 0) {
        check_firewall(fd, good, bad);
        close(fd);
    }
    check_secret(c, good, bad);
    check_launchers(c, good, bad);
    net_config_release(c);
}
