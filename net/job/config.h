/* SPDX-License-Identifier: MIT */
/* net/job/config.h - every knob of the network, once.
 *
 *   name        value   from
 *   gid-index   3       NCCL_IB_GID_INDEX          <- geartrain bench link --print-config
 *
 * One table (knobs.c) holds a knob's name, type, range, help, the environment variables
 * that set it and its default; `--print-config`, the environment, the configuration file
 * and this struct all follow from it. Strongest first: --net NAME=VALUE, GEARTRAIN_NET_NAME, the
 * names that NCCL's users know, the file $GEARTRAIN_NET_CONFIG, the default.
 * Units: bytes and nanoseconds. Strings belong to the config.
 *
 * Our own settings are strict. What NCCL's and UCX's variables say beyond what we have is read as
 * the nearest that we have or passed over, with a warning: they are often set for a whole site. */
#ifndef NET_JOB_CONFIG_H
#define NET_JOB_CONFIG_H

#include "host/base/options.h"
#include "host/base/status.h"
#include "host/base/text.h"

#include <stdint.h>

typedef struct net_config {
    /* start */
    const char *rendezvous;     /* "" as the launcher says, or "host:port" of rank 0   */
    const char *interface;      /* "" any; "eth0", "^lo,docker" (prefixes)             */
    const char *port_range;     /* "" any, or "30000-30100"                            */
    const char *secret_file;    /* "" the default one                                  */
    int insecure;               /* 1: no secret needed beyond loopback                 */
    uint64_t start_timeout;     /* all ranks must have arrived                         */
    uint64_t hello_timeout;     /* one connection's handshake                          */
    /* liveness */
    uint64_t heartbeat;         /* between signs of life                               */
    uint64_t dead_after;        /* a host silent for this long is gone                 */
    uint64_t stall_report;      /* an operation late by this is reported               */
    uint64_t stall_limit;       /* ... and by this ends the job                        */
    const char *dump;           /* folder of flight recorder dumps; "" none            */
    /* transports */
    const char *transport;      /* auto | shm | verbs | tcp, or a list in preference   */
    const char *fault;          /* "" none; what the faulty wrapper does, for tests    */
    uint64_t eager;             /* messages up to this travel without waiting          */
    uint64_t chunk;             /* bytes of one work request or fragment               */
    uint64_t spin;              /* poll this long before sleeping; UINT64_MAX: decide  */
    const char *shm_mode;       /* auto | map | cma | copy                             */
    uint64_t shm_ring;          /* bytes of one direction's ring                       */
    uint64_t tcp_buffer;        /* socket buffer, 0: the kernel decides                */
    /* verbs */
    int verbs;                  /* 0: never                                            */
    const char *hca;            /* "mlx5_0:1,mlx5_1", "^mlx5_bond", "=mlx5_0"          */
    int gid_index;              /* -1: by score                                        */
    int ib_timeout;             /* exponent: 4.096 us * 2^timeout                      */
    int ib_retry;               /* retry_cnt; -1: 7, or 6 on rxe, where 7 is forever   */
    int traffic_class, service_level, pkey_index;
    int ib_mtu;                 /* 0: the smaller of both ends'                        */
    int inline_bytes;           /* wanted; devices may grant less                      */
    int queue_pairs;            /* per rail                                            */
    int immediate;              /* 0: WRITE, then SEND (iWARP)                         */
    int relaxed_ordering;
    uint64_t max_message;       /* 0: the port's; smaller ones for tests               */
    uint64_t adaptive_routing;  /* beyond this, bulk WRITE, then an empty one with imm */
    /* collectives */
    const char *algorithm;      /* auto, a name, or NCCL's "ring;allreduce:direct"     */
    uint64_t pipeline;          /* bytes of one pipelined piece of a collective        */
    int priorities;             /* 0: sends go in the order in which they are started  */
} net_config;

/* Reads environment and file; *out is complete. GT_MISUSE names the knob, the value, where
 * it came from and what is allowed. */
gt_status net_config_read(net_config **out);
/* Sets a knob by its name, "gid-index", as --net does. */
gt_status net_config_set(net_config *config, const char *name, const char *value);
void net_config_release(net_config *config);
/* 1: its value came from another library's variable, and must not end a job. */
int net_config_is_foreign(const net_config *config, const char *name);

/* Whether values fit together, after the last net_config_set(). */
gt_status net_config_check(const net_config *config);

/* A table of name, value, origin and help. */
void net_config_print(const net_config *config, gt_text *out);

/* Equal on all ranks of a job that can work together: knobs that both ends must agree on. */
uint64_t net_config_hash(const net_config *config);
/* The same as text, "name=value" a line, so that a mismatch can be named. */
void net_config_shared(const net_config *config, gt_text *out);

#endif
