/* SPDX-License-Identifier: MIT */
/* net/ps/ps_private.h - what workers and servers say to each other. Only for this folder.
 *
 *   worker                                              server
 *     ── request {push, block, slot, tag} ─ channel 0 ──►
 *     ── gradient of its part ─────── slot's up ────────►   kept until it may be applied
 *     ◄────────────────────────────── slot's down ────── answer {status, version}
 *     ── request {pull, block, slot, version} ──────────►   held until the version is there
 *     ◄────────────────────────────── slot's down ────── answer, then the values
 *
 * A slot is a worker's number for one request under way; numbers are used again, so channels
 * stay few. Each has a channel up and one down: a rank may be its own server, and hears what
 * it says. Requests of a worker are answered in any order.                               */
#ifndef NET_PS_PRIVATE_H
#define NET_PS_PRIVATE_H

#include "net/ps/ps.h"

#include <pthread.h>

enum { PS_PUSH = 1, PS_PULL, PS_CLOSE };
enum { PS_REQUESTS = 0, PS_AGREE = 1, PS_FIRST_SLOT = 2, PS_MOST_SLOTS = 1 << 24 };

typedef struct ps_request {
    uint32_t kind, block, slot, reserved;
    uint64_t version;                   /* of a push: its tag                             */
} ps_request;
typedef struct ps_answer {
    uint32_t status, reserved;
    uint64_t version;
} ps_answer;
enum { PS_DONE = 0, PS_TOO_LATE = 1 };

static inline uint32_t ps_up(uint32_t slot)
{
    return PS_FIRST_SLOT + 2 * slot;
}
static inline uint32_t ps_down(uint32_t slot)
{
    return PS_FIRST_SLOT + 2 * slot + 1;
}

typedef struct ps_range {
    uint64_t offset, count;
} ps_range;

struct net_ps {
    net_group *group;                   /* its own                                        */
    int rank, size;
    net_ps_options options;             /* with `servers`, `workers`, `shares` filled in  */
    int *servers, *workers;
    double *shares;
    uint32_t key_count;
    uint64_t *keys;                     /* elements                                       */
    /* Long keys are cut into blocks, and everything else deals with blocks: while one is summed
     * another is on the wire. Blocks of key k: first[k] .. first[k + 1]. */
    uint32_t *first;
    uint32_t block_count;
    ps_range *blocks;                   /* [block_count] where in its key                 */
    uint32_t *key_of;                   /* [block_count]                                  */
    int *owner;                         /* [key_count]; NULL: by shares                   */
    uint32_t *priority;                 /* [key_count]; NULL: 0                           */
    ps_range *ranges;                   /* [block_count][server_count] where in its key   */
    int works;                          /* this rank is a worker                          */
    struct ps_server *server;           /* NULL: this rank is none                        */
    pthread_mutex_t lock;               /* over slots                                     */
    unsigned char *slots;               /* 1: taken                                       */
    uint32_t slot_count;
};

/* The part of a block that one server has. */
static inline const ps_range *ps_range_of(const net_ps *ps, uint32_t block, int server)
{
    return &ps->ranges[(size_t)block * (size_t)ps->options.server_count + (size_t)server];
}

/* Of a block's values, or of its gradients. */
static inline uint32_t ps_priority(const net_ps *ps, uint32_t block, int is_gradient)
{
    return ps->priority ? ps->priority[ps->key_of[block]] + (is_gradient != 0) : 0;
}

/* ps_server.c: `index` is this rank's place among the servers. */
gt_status ps_server_start(struct ps_server **out, net_ps *ps, int index, const float *const *initial);
/* Waits until all workers have closed; frees it. */
gt_status ps_server_finish(struct ps_server *s);

/* ps_client.c: tells all servers that this worker has no more requests. */
gt_status ps_client_close(net_ps *ps);

#endif
