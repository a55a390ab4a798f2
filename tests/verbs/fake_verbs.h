/* SPDX-License-Identifier: MIT */
/* tests/verbs/fake_verbs.h - RDMA devices that exist in this file alone.
 *
 *   fake_reset();
 *   fake_device *d = fake_add("nic0"); fake_gid(d, "10.0.0.1", 3, FAKE_V2);
 *   net_verbs_api_replace(&fake_verbs);
 *
 * Requests are carried out while some completion queue is polled, in order within a queue pair
 * and in any order between them. The fake is stricter than hardware: it counts what a device
 * would punish late or never (a receive that was not ready, a queue that overflows, a key that
 * does not fit) in fake.violations, and says the first one. Objects that are left over are counted
 * in fake.alive. One thread.                                                              */
#ifndef TESTS_FAKE_VERBS_H
#define TESTS_FAKE_VERBS_H

#include "net/transport/verbs_api.h"

enum { FAKE_V1 = 1, FAKE_V2 = 2, FAKE_DEVICES = 8, FAKE_GIDS = 16 };

typedef struct fake_device {
    char name[32];
    int ethernet, active, mtu, speed, width, lid, refuse_open, iwarp;
    int max_qp_wr, max_inline;      /* more inline is refused, as devices do            */
    int max_cqe;
    int gids;
    struct {
        union ibv_gid gid;
        int index, type, dead;
    } gid[FAKE_GIDS];
} fake_device;

/* The world, and how it misbehaves. */
typedef struct fake_world {
    fake_device device[FAKE_DEVICES];
    int devices;
    int reorder;                    /* 1: queue pairs take turns at random              */
    unsigned seed;
    /* The request this many from now (0: none), of any queue pair, fails like that. */
    int fail_after;
    enum ibv_wc_status fail_status;
    int fail_only_size;             /* counts only requests of this many bytes, if set  */
    const char *lost_to;            /* packets to this address get lost ("10.0.0.2")    */
    const char *refuse_rtr_to;      /* ... no route to it: RTR is refused               */
    int refuse_mr;                  /* reg_mr fails with ENOMEM                         */
    int alive, violations;
    int writes, sends, immediates, inlined, signalled, notified;
    int posts;                      /* calls that post requests                         */
    size_t longest;                 /* bytes of the longest request                     */
    char violation[160];
} fake_world;

extern fake_world fake;
extern const net_verbs_api fake_verbs;

void fake_reset(void);
fake_device *fake_add(const char *name);                /* RoCE, active, MTU 4096, 100 Gb/s */
void fake_gid(fake_device *d, const char *address, int index, int type);
/* An asynchronous event of every open context of the device; qp NULL: about port 1. */
void fake_async(const char *device, enum ibv_event_type type, struct ibv_qp *qp);

#endif
