/* SPDX-License-Identifier: MIT */
/* net/transport/memory.h - memory that transports can reach without copying.
 *
 * Arenas come from here: page-aligned, in a sealed memfd, so that a peer on the same host can
 * map them, and registered with every RDMA device once, when they are made. Any other
 * pointer works too, by copying or by the kernel's help.
 *
 * A memory_set belongs to one communicator. Transports add what they need to an arena
 * (a memory region's key) when it is made, through the hooks below.                     */
#ifndef NET_TRANSPORT_MEMORY_H
#define NET_TRANSPORT_MEMORY_H

#include "host/base/status.h"

#include <stdint.h>

enum { NET_MEMORY_HOOKS = 8 };

typedef struct net_memory {
    unsigned char *data;
    size_t size;                    /* as asked for; mapped to whole pages                */
    int fd;                         /* the memfd, or -1: private memory                   */
    uint32_t id;                    /* unique in the process, never used again            */
    void *registered[NET_MEMORY_HOOKS]; /* one slot a transport                            */
} net_memory;

typedef struct net_memory_set net_memory_set;

gt_status net_memory_set_create(net_memory_set **out);
void net_memory_set_release(net_memory_set *s);     /* frees what is left in it */

/* A transport's hooks: `add` fills *slot (an error fails the allocation with its sentence),
 * `drop` undoes it. Existing arenas are added at once. Returns nothing but errors. */
gt_status net_memory_hook(net_memory_set *s, int index, gt_status (*add)(void *context, net_memory *m, void **slot),
                          void (*drop)(void *context, net_memory *m, void *slot), void *context);
void net_memory_unhook(net_memory_set *s, int index);

gt_status net_memory_make(net_memory_set *s, size_t size, net_memory **out);
void net_memory_free(net_memory_set *s, net_memory *m);

/* The arena that holds all of [p, p + size), or NULL. */
net_memory *net_memory_find(net_memory_set *s, const void *p, size_t size);

#endif
