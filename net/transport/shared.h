/* SPDX-License-Identifier: MIT */
/* net/transport/shared.h - memory of one process that others of this host map as their own.
 *
 * A sealed memfd. Its number travels to the others, who open it through /proc/PID/fd: that asks the
 * kernel for the same rights as a debugger's, so for the same user.                       */
#ifndef NET_TRANSPORT_SHARED_H
#define NET_TRANSPORT_SHARED_H

#include <stddef.h>
#include <stdint.h>

/* `size` bytes of zeros, mapped, and the descriptor that others open; NULL, and errno. To be
 * unmapped, and the descriptor closed, by the caller. */
void *net_shared_make(const char *name, size_t size, int *fd);
/* Descriptor `number` of process `pid`, mapped whole, once it is sure that it cannot shrink under us;
 * NULL, and errno. */
unsigned char *net_shared_map(uint32_t pid, uint32_t number, size_t *size);

/* Memory of another process that stays mapped until its last user drops it. Any thread. */
typedef struct net_mapping net_mapping;
/* As net_shared_map; NULL, and errno. One user. */
net_mapping *net_mapping_make(uint32_t pid, uint32_t number);
unsigned char *net_mapping_data(const net_mapping *m, size_t *size);
net_mapping *net_mapping_hold(net_mapping *m);     /* one user more; returns it    */
void net_mapping_drop(net_mapping *m);             /* one user less; takes NULL    */

#endif
