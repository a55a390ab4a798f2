/* SPDX-License-Identifier: MIT */
/* net/transport/verbs_survey.h - this machine's RDMA as libibverbs shows it, for people.
 *
 * Opens every device for a moment, changes nothing, and needs no job. Strings are in the struct;
 * free() it.                                                                              */
#ifndef NET_TRANSPORT_VERBS_SURVEY_H
#define NET_TRANSPORT_VERBS_SURVEY_H

#include "net/job/config.h"

typedef struct net_verbs_survey_gid {
    int index, operational, chosen;
    char address[64];
    const char *kind;               /* "IPv4, RoCE v2": what its score comes from          */
} net_verbs_survey_gid;

enum { NET_SURVEY_GIDS = 32, NET_SURVEY_PORTS = 16 };

typedef struct net_verbs_survey_port {
    char device[64];
    int number;
    int wanted;                     /* by config->hca                                       */
    int numa;                       /* node, -1: unknown or a device without a place        */
    int software;                   /* Soft-RoCE                                            */
    char trouble[256];              /* "": usable; else why not                             */
    int active, mtu, greatest_mtu;  /* bytes                                                */
    uint32_t speed;                 /* Mbit/s, as claimed                                   */
    char layer[16];                 /* "InfiniBand", "Ethernet"                             */
    int gids;
    net_verbs_survey_gid gid[NET_SURVEY_GIDS];
} net_verbs_survey_port;

typedef struct net_verbs_survey {
    char trouble[256];              /* "": the library loads and shows devices              */
    int ports;
    net_verbs_survey_port port[NET_SURVEY_PORTS];
    uint64_t memlock;               /* bytes that may be locked, UINT64_MAX: any            */
    uint64_t need;                  /* of two ranks on this machine, without arenas         */
} net_verbs_survey;

gt_status net_verbs_survey_take(net_verbs_survey **out, const net_config *config);

#endif
