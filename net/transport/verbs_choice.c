/* SPDX-License-Identifier: MIT */
/* net/transport/verbs_choice.c - device names, GIDs, rails and shares: the choices.
 *
 * A port of RoCE has a GID for each address of its interface, twice (v1 and v2), and which of
 * them works differs between hosts, containers and boots: index 3 here may be index 5 there.
 * So neither end chooses alone. Both tell all they have, and the pair of GIDs is chosen that
 * fits: same RoCE version, same address family, same subnet if there is one; a probe has the
 * last word, and the next best pair is tried when it is lost.
 *
 * The scores follow perftest's compute_gid_score and UCX's list of preferences; the choice by
 * pairs is ours.                                                                          */
#include "net/transport/verbs_choice.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- names of devices --------------------------------------------------------------------- */

/* One word of the list against one port. */
static int word_wants(const char *word, size_t size, int exact, const char *device, int port)
{
    const char *colon = memchr(word, ':', size);
    const size_t name = colon ? (size_t)(colon - word) : size;
    if (strncmp(word, device, name) || (exact && device[name]))
        return 0;
    /* A name with a port means that device, not all that begin so. */
    if (colon && device[name])
        return 0;
    return !colon || !port || atoi(colon + 1) == port;
}

int net_verbs_hca_wants(const char *spec, const char *device, int port)
{
    const int all_but = *spec == '^';
    spec += all_but;
    const int exact = *spec == '=';
    spec += exact;
    if (!*spec)
        return 1;
    for (;;) {
        const size_t size = strcspn(spec, ",");
        const char *colon = memchr(spec, ':', size);
        /* "^mlx5_0:1" with port 0: other ports of it are still wanted. */
        if (word_wants(spec, size, exact, device, port) && !(all_but && colon && !port))
            return !all_but;
        if (!spec[size])
            return all_but;
        spec += size + 1;
    }
}

gt_status net_verbs_hca_check(const char *spec)
{
    const char *s = spec;
    s += *s == '^';
    s += *s == '=';
    if (!*s && s == spec)
        return GT_OK;
    for (;;) {
        const size_t size = strcspn(s, ",");
        const char *colon = memchr(s, ':', size);
        const size_t name = colon ? (size_t)(colon - s) : size;
        const size_t digits = colon ? strspn(colon + 1, "0123456789") : 0;
        if (!name || memchr(s, '^', size) || memchr(s, '=', size)
            || (colon && (!digits || digits > 3 || name + 1 + digits != size || atoi(colon + 1) < 1)))
            return gt_fail(GT_MISUSE,
                           "cannot understand hca '%s': expected names of devices, with "
                           "or without a port, like 'mlx5_0:1,mlx5_1'; '^' in front means all but "
                           "these, '=' whole names",
                           spec);
        if (!s[size])
            return GT_OK;
        s += size + 1;
    }
}

/* ---- GIDs ----------------------------------------------------------------------------------- */

int net_verbs_gid_is_ipv4(const net_verbs_gid *g)
{
    static const unsigned char mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };
    return !memcmp(g->raw, mapped, sizeof mapped);
}

int net_verbs_gid_is_local(const net_verbs_gid *g)
{
    if (net_verbs_gid_is_ipv4(g))
        return g->raw[12] == 169 && g->raw[13] == 254;
    return g->raw[0] == 0xfe && (g->raw[1] & 0xc0) == 0x80;
}

static int is_unset(const net_verbs_gid *g)
{
    static const unsigned char none[16];
    const unsigned char *low = g->raw + 8;
    return !memcmp(g->raw, none, 16) || (g->type != NET_VERBS_GID_IB && !memcmp(low, none, 8))
           || (net_verbs_gid_is_ipv4(g) && !memcmp(g->raw + 12, none, 4));
}

int net_verbs_gid_score(const net_verbs_gid *g, const char **reason)
{
    const char *ignored;
    if (!reason)
        reason = &ignored;
    if (is_unset(g)) {
        *reason = "not set";
        return 0;
    }
    if (g->type == NET_VERBS_GID_IB) {
        *reason = "InfiniBand";
        return 1000 - g->index;
    }
    const int global = !net_verbs_gid_is_local(g), v2 = g->type == NET_VERBS_GID_V2;
    const int ipv4 = net_verbs_gid_is_ipv4(g);
    static const char *const reasons[8] = { "link-local, RoCE v1",  "link-local IPv4, RoCE v1",
                                            "link-local, RoCE v2",  "link-local IPv4, RoCE v2",
                                            "global IPv6, RoCE v1", "IPv4, RoCE v1",
                                            "global IPv6, RoCE v2", "IPv4, RoCE v2" };
    *reason = reasons[global * 4 + v2 * 2 + ipv4];
    return 1000 * (1 + global * 4 + v2 * 2 + ipv4) - g->index;
}

int net_verbs_gids_sort(net_verbs_gid *gid, int count)
{
    /* Insertion: a few entries, and equal ones keep their order. */
    for (int i = 1; i < count; i++)
        for (int j = i; j > 0 && net_verbs_gid_score(&gid[j], NULL) > net_verbs_gid_score(&gid[j - 1], NULL); j--) {
            const net_verbs_gid t = gid[j];
            gid[j] = gid[j - 1];
            gid[j - 1] = t;
        }
    while (count && !net_verbs_gid_score(&gid[count - 1], NULL))
        count--;
    return count;
}

char *net_verbs_gid_text(const net_verbs_gid *g, char *out, size_t size)
{
    const int ipv4 = net_verbs_gid_is_ipv4(g);
    if (!inet_ntop(ipv4 ? AF_INET : AF_INET6, g->raw + (ipv4 ? 12 : 0), out, (socklen_t)size) && size)
        *out = '\0';
    return out;
}

static int common_bits(const net_verbs_gid *a, const net_verbs_gid *b)
{
    for (int i = 0; i < 128; i++)
        if ((a->raw[i / 8] ^ b->raw[i / 8]) >> (7 - i % 8) & 1)
            return i;
    return 128;
}

int net_verbs_pair_score(const net_verbs_gid *a, const net_verbs_gid *b)
{
    const int x = net_verbs_gid_score(a, NULL), y = net_verbs_gid_score(b, NULL);
    if (!x || !y || a->type != b->type)
        return 0;
    const int common = common_bits(a, b);
    if (a->type == NET_VERBS_GID_IB)    /* its upper half is the subnet's number */
        return (common >= 64 ? 1000000 : 0) + (x < y ? x : y);
    if (net_verbs_gid_is_ipv4(a) != net_verbs_gid_is_ipv4(b) || net_verbs_gid_is_local(a) != net_verbs_gid_is_local(b))
        return 0;
    const int assumed = net_verbs_gid_is_ipv4(a) ? 96 + 24 : 64;
    const int prefix_a = a->prefix ? a->prefix : assumed, prefix_b = b->prefix ? b->prefix : assumed;
    const int same = common >= prefix_a && common >= prefix_b;
    /* fe80::/64 looks like one subnet on every wire there is, so it proves nothing. */
    const int proven = same && !net_verbs_gid_is_local(a);
    return (proven ? 1000000 : 0) + (x < y ? x : y) * 100 + (common < 99 ? common : 99);
}

/* ---- rails ---------------------------------------------------------------------------------- */

/* The pairs of GIDs of two ports, best first; returns the best score, 0 if there is none. */
static int rank_pairs(const net_verbs_port_offer *a, const net_verbs_port_offer *b, net_verbs_rail_choice *out)
{
    int score[NET_VERBS_TRIES] = { 0 };
    out->tries = 0;
    if (a->layer != b->layer)
        return 0;
    for (int i = 0; i < a->gids; i++)
        for (int j = 0; j < b->gids; j++) {
            const int s = net_verbs_pair_score(&a->gid[i], &b->gid[j]);
            int at = out->tries;
            while (at > 0 && score[at - 1] < s)
                at--;
            if (!s || at == NET_VERBS_TRIES)
                continue;
            const int last = out->tries < NET_VERBS_TRIES ? out->tries++ : NET_VERBS_TRIES - 1;
            for (int k = last; k > at; k--) {
                score[k] = score[k - 1];
                out->tried[k] = out->tried[k - 1];
            }
            score[at] = s;
            out->tried[at].gid[0] = (uint8_t)i;
            out->tried[at].gid[1] = (uint8_t)j;
        }
    return score[0];
}

static void fill_rail(const net_verbs_ports *leader, const net_verbs_ports *other, int i, int j,
                      net_verbs_rail_choice *rail)
{
    const net_verbs_port_offer *a = &leader->port[i], *b = &other->port[j];
    rank_pairs(a, b, rail);
    rail->port[0] = i;
    rail->port[1] = j;
    rail->speed = a->speed < b->speed ? a->speed : b->speed;
    rail->mtu = a->mtu < b->mtu ? a->mtu : b->mtu;
    const net_verbs_gid *x = &a->gid[rail->tried[0].gid[0]], *y = &b->gid[rail->tried[0].gid[1]];
    rail->global = a->layer == NET_VERBS_ETHERNET || a->grh || b->grh || memcmp(x->raw, y->raw, 8);
}

/* The best pair of ports that are both still free: by score of their GIDs, then by speed, then by
 * position, which only breaks ties. */
static int best_free(const net_verbs_ports *leader, const net_verbs_ports *other, const unsigned char *taken_a,
                     const unsigned char *taken_b, net_verbs_rail_choice *out)
{
    int64_t best = 0;
    for (int i = 0; i < leader->ports; i++)
        for (int j = 0; j < other->ports; j++) {
            net_verbs_rail_choice rail;
            if (taken_a[i] || taken_b[j] || !rank_pairs(&leader->port[i], &other->port[j], &rail))
                continue;
            fill_rail(leader, other, i, j, &rail);
            const int score = net_verbs_pair_score(&leader->port[i].gid[rail.tried[0].gid[0]],
                                                   &other->port[j].gid[rail.tried[0].gid[1]]);
            /* Which index a GID has is noise here: compare subnets and kinds only. */
            const int64_t rank = ((int64_t)(score / 100000) << 32) + rail.speed / 16 * 16 + (i == j ? 8 : 1);
            if (rank > best) {
                best = rank;
                *out = rail;
            }
        }
    return best > 0;
}

int net_verbs_rails_choose(const net_verbs_ports *leader, const net_verbs_ports *other,
                           net_verbs_rail_choice out[NET_VERBS_RAILS])
{
    unsigned char taken_a[NET_VERBS_PORTS] = { 0 }, taken_b[NET_VERBS_PORTS] = { 0 };
    int count = 0;
    uint32_t fastest = 0;
    while (count < NET_VERBS_RAILS && best_free(leader, other, taken_a, taken_b, &out[count])) {
        taken_a[out[count].port[0]] = taken_b[out[count].port[1]] = 1;
        if (out[count].speed > fastest)
            fastest = out[count].speed;
        count++;
    }
    int kept = 0;
    for (int i = 0; i < count; i++)
        if ((uint64_t)out[i].speed * 4 >= fastest)
            out[kept++] = out[i];
    for (int i = 1; i < kept; i++)
        for (int j = i; j > 0 && out[j].speed > out[j - 1].speed; j--) {
            const net_verbs_rail_choice t = out[j];
            out[j] = out[j - 1];
            out[j - 1] = t;
        }
    return kept;
}

void net_verbs_shares(const double *speed, int count, uint64_t size, uint64_t least, uint64_t *share)
{
    enum { GRAIN = 128 };
    int fastest = 0, last;
    double sum = 0;
    for (int i = 1; i < count; i++)
        if (speed[i] > speed[fastest])
            fastest = i;
    assert(count > 0 && speed[fastest] > 0);
    for (int i = 0; i < count; i++) {
        share[i] = 0;
        if (speed[i] * 4 >= speed[fastest])
            sum += speed[i];
    }
    uint64_t left = size;
    for (int i = 0; i < count && left; i++) {
        if (speed[i] * 4 < speed[fastest])
            continue;
        uint64_t mine = (uint64_t)((double)size * (speed[i] / sum)) / GRAIN * GRAIN;
        if (mine > left)
            mine = left;
        if (i != fastest && mine < least)
            continue;
        share[i] = mine;
        left -= mine;
    }
    /* What rounding and too small shares left over. */
    const uint64_t whole = left / GRAIN * GRAIN;
    share[fastest] += whole;
    for (last = count - 1; last > 0 && !share[last]; last--)
        ;
    share[share[last] ? last : fastest] += left - whole;
}
