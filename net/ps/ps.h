/* SPDX-License-Identifier: MIT */
/* net/ps/ps.h - a parameter server: keyed vectors that workers push to and pull from.
 *
 *      worker ── push(key, gradient) ──► the ranks that own parts of the key
 *      worker ◄─ pull(key) ─────────────  (shares from net_shares())
 *
 * Servers run on any ranks of a group, also on ranks that work as well, also on CPU-only
 * nodes. A key is a vector of fp32 elements; it is split over the servers by their shares.
 * Each part has a version: the number of updates applied. Long keys travel and are applied in
 * blocks, so that wire and sums overlap; a server has room for one push of everything
 * from every worker.
 *
 *   synchronous   a part's update is applied when every worker has pushed; a pull asks for
 *                 the version it needs and gets it when it is there
 *   stale         each push is applied when it comes; a worker more than `staleness` pushes
 *                 ahead of the slowest is made to wait. What a worker pulls has its own pushes in it
 *   in turn       stale, in an order that the caller gives: what a worker pulls then is the value right after its
 *                 newest push, whatever others pushed meanwhile, so that a run repeats to the bit
 *
 * What "apply" means is the caller's: a function over host memory, run by the server. The
 * default adds. Training modes stand on this (host/sync).                                */
#ifndef NET_PS_PS_H
#define NET_PS_PS_H

#include "net/comm/group.h"

typedef struct net_ps net_ps;

/* Run on the server for a part. */
typedef struct net_ps_update {
    uint32_t key;
    uint64_t offset, count;     /* of the key's elements                                    */
    float *value;               /* [count] the stored part                                  */
    const float *gradient;      /* [count] what was pushed (synchronous: the sum over workers in rank order) */
    const float *pulled;        /* [count] as that worker last pulled it (stale with keep_pulled, else NULL) */
    int worker;                 /* -1: synchronous                                          */
    uint64_t version;           /* updates before this one                                  */
    uint64_t behind;            /* of them, by others since that worker last pulled; stale  */
    uint64_t tag;               /* of the push; synchronous: of worker 0's                  */
} net_ps_update;
typedef void (*net_ps_apply)(void *context, const net_ps_update *u);

typedef struct net_ps_options {
    const int *servers;         /* ranks of the group; NULL: all                           */
    int server_count;
    const int *workers;         /* NULL: all                                               */
    int worker_count;
    const double *shares;       /* one a server; NULL: equal. From net_shares()            */
    const int *owner;           /* [key] which of the servers has all of it; NULL: split by shares */
    /* [key] how urgent its values are to who pulls (net_op_priority()); its gradients come next, with that + 1. Each
     * rank's own affair. NULL: nothing waits for anything. */
    const uint32_t *priority;
    int synchronous;
    int64_t staleness; /* stale mode; -1: unbounded                               */
    int keep_pulled;
    /* Stale: whose push update `version` of any part is; the same on all ranks. NULL: as they come. Each server
     * calls it on its thread. */
    int (*turn)(void *context, uint64_t version);
    net_ps_apply apply; /* NULL: value += gradient                                 */
    void *context;
} net_ps_options;

/* keys: element counts, the same on all ranks; initial: values of the keys one after the other
 * on the ranks that serve (NULL: zeros). Collective over the group. Servers' work is done by a
 * thread of the parameter server. */
gt_status net_ps_open(net_ps **out, net_group *g, const net_ps_options *options, const uint64_t *keys,
                      uint32_t key_count, const float *const *initial);
/* Collective: all pushes are applied first. Takes NULL. */
gt_status net_ps_close(net_ps *ps);

/* Start to push / pull; buffers are left alone until the wait. A pull of the synchronous mode
 * asks for version `version` exactly (it waits for it); of the stale mode for any from it on.
 * *got: the version that came (lowest of the parts). */
typedef struct net_ps_request net_ps_request;
gt_status net_ps_push_start(net_ps *ps, uint32_t key, const float *gradient, uint64_t tag, net_ps_request **out);
gt_status net_ps_pull_start(net_ps *ps, uint32_t key, uint64_t version, float *value, net_ps_request **out);
gt_status net_ps_wait(net_ps_request *r, uint64_t *got);

#endif
