/* SPDX-License-Identifier: MIT */
/* net/job/address.h - which address is ours, and sockets that listen on or connect to one.
 *
 * An address is chosen, never guessed from a host name: Debian's /etc/hosts maps a machine's
 * own name to 127.0.1.1, where no other machine finds it.                                */
#ifndef NET_JOB_ADDRESS_H
#define NET_JOB_ADDRESS_H

#include "net/job/config.h"

#include <sys/socket.h>

typedef struct net_address {
    struct sockaddr_storage at;
    socklen_t size;
} net_address;

enum { NET_ADDRESSES = 8 };

/* Addresses of a host name or number, at most NET_ADDRESSES, IPv4 first. */
gt_status net_address_resolve(net_address out[NET_ADDRESSES], int *count, const char *host, uint16_t port);
void net_address_set_port(net_address *a, uint16_t port);
uint16_t net_address_port(const net_address *a);
int net_address_is_loopback(const net_address *a);
int net_address_equal(const net_address *a, const net_address *b);      /* but for the port */
/* "10.0.0.1", "fd00::2"; into out, which it returns. */
char *net_address_host(char *out, size_t size, const net_address *a);
/* "10.0.0.1:29400", "[fd00::2]:29400". */
char *net_address_text(char *out, size_t size, const net_address *a);
/* Of a connected socket's own, and of its other end. */
gt_status net_address_own(net_address *out, int fd);
gt_status net_address_peer(net_address *out, int fd);

/* 1 if an interface's name fits "eth0,ib" (prefixes), "=eth0" (exactly), "^lo,docker" (none of
 * these); "" fits all. Pure. */
int net_interface_fits(const char *pattern, const char *name);
/* The first usable address of an interface that fits, IPv4 before IPv6, loopback only if the
 * pattern asks for it by name. GT_MISUSE lists the interfaces that there are. `name` may be
 * NULL, or holds its name (16 bytes). */
gt_status net_interface_choose(net_address *out, const char *pattern, char *name);
/* Visits every address of an interface that is up. */
void net_interface_each(void (*visit)(void *context, const char *name, const net_address *a), void *context);

/* "30000-30100" or "30000"; "" gives 0, 0: any port. Pure. */
gt_status net_ports_parse(uint16_t *first, uint16_t *last, const char *text);
/* A listening, non-blocking socket on the first free of `ports` ports from `first` (0: any).
 * GT_IO names what it tried. */
gt_status net_listen(int *fd, const net_address *at, uint16_t first, uint16_t ports);

/* Connects until `deadline` (gt_now_ns); the socket is non-blocking. `stop` may be NULL; it is
 * asked every now and then whether to give up. GT_TIMEOUT or GT_IO with cause. */
typedef struct net_stop {
    int (*stopped)(void *context);
    void *context;
} net_stop;
gt_status net_dial(int *fd, const net_address *to, uint64_t deadline, const net_stop *stop);
/* Waits until `fd` can read (POLLIN) or write (POLLOUT): GT_OK, GT_TIMEOUT, or GT_INTERRUPTED
 * when stopped. */
gt_status net_await(int fd, short events, uint64_t deadline, const net_stop *stop);

/* Keep-alives on; `dead_after` not 0: the kernel gives up after that time without answer. */
void net_keep_alive(int fd, uint64_t heartbeat, uint64_t dead_after);
void net_set_blocking(int fd, int blocking);

#endif
