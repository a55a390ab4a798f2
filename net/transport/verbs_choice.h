/* SPDX-License-Identifier: MIT */
/* net/transport/verbs_choice.h - which device, which GID, which rails, how much on each.
 *
 * Nothing here touches hardware: all of it works on tables, so recorded ones can be tested. */
#ifndef NET_TRANSPORT_VERBS_CHOICE_H
#define NET_TRANSPORT_VERBS_CHOICE_H

#include "net/transport/verbs_offer.h"

/* Does `spec` (config->hca) want port `port` of `device`? A list of names, or of name:port:
 *   mlx5         begins with mlx5         ^mlx5_bond,irdma   all but these
 *   =mlx5_1      is called just so        ^=mlx5_1           all but just this
 *   mlx5_0:1     port 1 of it             ""                 all
 * `port` 0: any port of it at all. */
int net_verbs_hca_wants(const char *spec, const char *device, int port);
/* GT_MISUSE with a sentence if the text is no such list. */
gt_status net_verbs_hca_check(const char *spec);

/* How good a GID is to be reached at, by itself; 0: not at all (unset). Global addresses before
 * link-local ones, RoCE v2 before v1, IPv4 before IPv6, and a low index at last.
 * reason, if not NULL, says why in a few words. */
int net_verbs_gid_score(const net_verbs_gid *gid, const char **reason);
int net_verbs_gid_is_ipv4(const net_verbs_gid *gid);
int net_verbs_gid_is_local(const net_verbs_gid *gid);       /* fe80::/10 or 169.254/16 */
/* Sorts them, best first, and drops those that are not set; returns how many are left. */
int net_verbs_gids_sort(net_verbs_gid *gid, int count);
/* "10.0.0.1" or "fe80::1" into out; returns out. */
char *net_verbs_gid_text(const net_verbs_gid *gid, char *out, size_t size);

/* How well two GIDs reach each other: 0 not at all (other RoCE version or address family). */
int net_verbs_pair_score(const net_verbs_gid *a, const net_verbs_gid *b);

/* A rail: a port of each end, and the GIDs to try, the best first. */
enum { NET_VERBS_TRIES = 4 };
typedef struct net_verbs_rail_choice {
    int port[2];                    /* of the leading end, of the other                      */
    int tries;
    struct {
        uint8_t gid[2];
    } tried[NET_VERBS_TRIES];      /* indices into the offers' gid[] */
    uint32_t speed;                 /* the slower end's                                      */
    uint8_t mtu;                    /* the smaller one                                       */
    uint8_t global;                 /* 1: packets carry a GRH                                */
} net_verbs_rail_choice;

/* Both ends call this with the same two offers, so both get the same rails, fastest first.
 * Ports are matched by who reaches whom, never by their names. Returns how many rails; 0: the
 * two share no fabric. */
int net_verbs_rails_choose(const net_verbs_ports *leader, const net_verbs_ports *other,
                           net_verbs_rail_choice out[NET_VERBS_RAILS]);

/* How `size` bytes are shared out over `count` rails in proportion to their speeds: multiples of
 * 128 bytes but for the last one that gets any. A rail slower than a quarter of the fastest gets
 * nothing, and so does one whose share would be below `least`. speed > 0 for at least one. */
void net_verbs_shares(const double *speed, int count, uint64_t size, uint64_t least, uint64_t *share);

#endif
