/* SPDX-License-Identifier: MIT */
/* net/transport/verbs_offer.h - what two ends of a verbs link tell each other, as bytes.
 *
 *   1  ports    every port with all its valid GIDs           both ends choose the same rails
 *   2  queues   queue pair numbers and random first PSNs     both ends go to "ready to send"
 *   3  ready    which rails could be brought up              both ends write a probe
 *   4  proven   over which rails the probe came through      the others try their next GIDs (2)
 *
 * Fixed sizes, big-endian. A reader takes any bytes at all: every length, count and enum is
 * checked before use, and what it gives back is within the limits below.                 */
#ifndef NET_TRANSPORT_VERBS_OFFER_H
#define NET_TRANSPORT_VERBS_OFFER_H

#include "host/base/status.h"

#include <stdint.h>

enum {
    NET_VERBS_PORTS = 8,            /* of one process                                        */
    NET_VERBS_GIDS = 8,             /* of one port, the best                                 */
    NET_VERBS_RAILS = 4,            /* of one link: pairs of ports                           */
    NET_VERBS_PAIRS = 8,            /* queue pairs of one rail for data                      */
    NET_VERBS_LANES = 1 + NET_VERBS_RAILS * NET_VERBS_PAIRS  /* lane 0: messages             */
};

typedef enum net_verbs_layer { NET_VERBS_IB = 1, NET_VERBS_ETHERNET = 2 } net_verbs_layer;
typedef enum net_verbs_gid_type { NET_VERBS_GID_IB = 0, NET_VERBS_GID_V1 = 1, NET_VERBS_GID_V2 = 2 } net_verbs_gid_type;

typedef struct net_verbs_gid {
    unsigned char raw[16];
    uint8_t index;                  /* in the port's table                                   */
    uint8_t type;                   /* net_verbs_gid_type                                    */
    uint8_t prefix;                 /* bits of its subnet, of 128; 0: not known              */
} net_verbs_gid;

typedef struct net_verbs_port_offer {
    uint8_t layer;                  /* net_verbs_layer                                       */
    uint8_t mtu;                    /* enum ibv_mtu, 1..5: the active one, or the knob's     */
    uint8_t grh;                    /* 1: the port wants a GRH on every packet               */
    uint8_t gids;
    uint16_t lid;
    uint32_t speed;                 /* Mbit/s, as the port claims                            */
    net_verbs_gid gid[NET_VERBS_GIDS];
} net_verbs_port_offer;

/* 1 */
typedef struct net_verbs_ports {
    uint8_t ports;                  /* 1..NET_VERBS_PORTS                                    */
    uint8_t immediate;              /* 1: may signal with immediate data                     */
    uint8_t pairs;                  /* wanted queue pairs of a rail                          */
    uint32_t eager;                 /* body of a message, at most                            */
    net_verbs_port_offer port[NET_VERBS_PORTS];
} net_verbs_ports;

/* 2; what a lane needs from its other end. Lanes are counted as in verbs_private.h. */
typedef struct net_verbs_queues {
    uint8_t rails, lanes;
    uint16_t message_receives, data_receives;   /* receives kept ready = credits             */
    struct {
        uint32_t qpn, psn;
    } lane[NET_VERBS_LANES];
    struct {
        uint8_t open;
        uint32_t rkey;
        uint64_t address;
    } rail[NET_VERBS_RAILS]; /* probe */
} net_verbs_queues;

/* 3 and 4 */
typedef struct net_verbs_verdict {
    uint8_t rails;
    uint8_t good[NET_VERBS_RAILS];
} net_verbs_verdict;

typedef enum net_verbs_phase {
    NET_VERBS_SAYS_PORTS = 1,
    NET_VERBS_SAYS_QUEUES,
    NET_VERBS_SAYS_READY,
    NET_VERBS_SAYS_PROVEN
} net_verbs_phase;

/* Each writes at most NET_OFFER bytes and returns how many. */
size_t net_verbs_ports_write(const net_verbs_ports *o, unsigned char *out);
size_t net_verbs_queues_write(const net_verbs_queues *o, unsigned char *out);
size_t net_verbs_verdict_write(const net_verbs_verdict *o, net_verbs_phase phase, unsigned char *out);
/* GT_FORMAT with a sentence for anything else than such bytes, GT_MISMATCH for another version. */
gt_status net_verbs_ports_read(net_verbs_ports *o, const unsigned char *data, size_t size);
gt_status net_verbs_queues_read(net_verbs_queues *o, const unsigned char *data, size_t size);
gt_status net_verbs_verdict_read(net_verbs_verdict *o, net_verbs_phase phase, const unsigned char *data, size_t size);

/* ---- on the wire of a link, later -------------------------------------------------------- */

/* Where a put goes: what expose() gives to the sender. */
typedef struct net_verbs_window {
    uint16_t slot, sequence;        /* 12 bits each                                          */
    uint8_t rails;
    uint64_t address, size;
    uint32_t rkey[NET_VERBS_RAILS];
} net_verbs_window;

size_t net_verbs_window_write(const net_verbs_window *w, unsigned char *out);
gt_status net_verbs_window_read(net_verbs_window *w, const unsigned char *data, size_t size);

/* In front of each message, of which several may come in one send: */
enum { NET_VERBS_HEAD = 8 };
typedef enum net_verbs_kind {
    NET_VERBS_IS_MESSAGE = 1,
    NET_VERBS_IS_CREDIT = 2,
    NET_VERBS_IS_NOTICE = 3
} net_verbs_kind;
typedef struct net_verbs_head {
    uint8_t kind;                   /* net_verbs_kind                                        */
    uint8_t head;                   /* bytes of the message's head                           */
    uint16_t returned;              /* receives of lane 0 made ready again, modulo 2^16; of the first
                                       message of a send                                     */
    uint32_t body;                  /* bytes behind the head; of a notice: its signal        */
} net_verbs_head;

void net_verbs_head_write(const net_verbs_head *h, unsigned char out[NET_VERBS_HEAD]);
/* `size` is what has arrived from this head on, it included; behind a message there may be the next. */
gt_status net_verbs_head_read(net_verbs_head *h, const unsigned char *data, size_t size, size_t head_limit,
                              size_t body_limit);

/* What ends a lane's part of a put, as immediate data or in a notice. */
typedef struct net_verbs_signal {
    uint16_t slot, sequence;
    uint8_t lanes;
} net_verbs_signal;
static inline uint32_t net_verbs_signal_pack(net_verbs_signal s)
{
    return (uint32_t)s.slot << 20 | (uint32_t)s.sequence << 8 | s.lanes;
}
static inline net_verbs_signal net_verbs_signal_unpack(uint32_t word)
{
    return (net_verbs_signal){ (uint16_t)(word >> 20), (uint16_t)(word >> 8 & 0xfff), (uint8_t)(word & 0xff) };
}

#endif
