/* SPDX-License-Identifier: MIT */
/* tests/verbs/test_verbs_choice.c - the choices on recorded tables, and offers as bytes. */
#include "tests/verbs/test_verbs.h"

#include "net/transport/transport.h"
#include "net/transport/verbs_choice.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

void names_of_devices_are_matched_as_users_of_nccl_know_it(void)
{
    /* clang-format off */
    static const struct { const char *spec, *device; int port, wanted; } rows[] = {
        { "", "mlx5_0", 1, 1 },              { "mlx5", "mlx5_10", 2, 1 },
        { "mlx5", "irdma0", 1, 0 },          { "=mlx5_1", "mlx5_10", 1, 0 },
        { "=mlx5_1", "mlx5_1", 1, 1 },       { "=mlx5_1,mlx5_10", "mlx5_10", 1, 1 },
        { "^mlx5_bond", "mlx5_bond_0", 1, 0 }, { "^mlx5_bond", "mlx5_0", 1, 1 },
        { "^=mlx5_1", "mlx5_10", 1, 1 },     { "^=mlx5_1", "mlx5_1", 1, 0 },
        { "^a,b", "b0", 1, 0 },              { "^a,b", "c", 1, 1 },
        { "mlx5_0:1,mlx5_1", "mlx5_0", 1, 1 }, { "mlx5_0:1,mlx5_1", "mlx5_0", 2, 0 },
        { "mlx5_0:1,mlx5_1", "mlx5_1", 2, 1 }, { "mlx5_1:1", "mlx5_10", 1, 0 },
        { "mlx5_0:2", "mlx5_0", 0, 1 },      { "^mlx5_0:1", "mlx5_0", 1, 0 },
        { "^mlx5_0:1", "mlx5_0", 2, 1 },     { "^mlx5_0:1", "mlx5_0", 0, 1 },
        { "^mlx5_0", "mlx5_0", 0, 0 },
    };
    /* clang-format on */
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECKF(net_verbs_hca_wants(rows[i].spec, rows[i].device, rows[i].port) == rows[i].wanted, "'%s' against %s:%d",
               rows[i].spec, rows[i].device, rows[i].port);
    static const char *const good[] = { "", "a", "a,b", "^a", "=a", "^=a:1,b", "mlx5_0:12" };
    static const char *const bad[] = { ",",     "a,", ",a", "a:",   "a:x",  "a:1x", "a:0",
                                       "a:1:2", "^",  "=",  "a,^b", "a,=b", ":1",   "a:9999" };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        CHECK_OK(net_verbs_hca_check(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_FAILS(net_verbs_hca_check(bad[i]), GT_MISUSE, "cannot understand hca");
}

static net_verbs_gid gid(const char *address, int index, int type)
{
    net_verbs_gid g = { .index = (uint8_t)index, .type = (uint8_t)type };
    if (strchr(address, ':')) {
        inet_pton(AF_INET6, address, g.raw);
    } else {
        g.raw[10] = g.raw[11] = 0xff;
        inet_pton(AF_INET, address, g.raw + 12);
    }
    return g;
}

enum { V1 = NET_VERBS_GID_V1, V2 = NET_VERBS_GID_V2 };

void the_best_gid_is_global_then_v2_then_ipv4(void)
{
    /* A ConnectX with one address, as `show_gids` prints it. */
    net_verbs_gid usual[] = { gid("fe80::1", 0, V1), gid("fe80::1", 1, V2), gid("10.1.0.7", 2, V1),
                              gid("10.1.0.7", 3, V2) };
    CHECK(net_verbs_gids_sort(usual, 4) == 4 && usual[0].index == 3 && usual[1].index == 2);
    /* IPv6 as well, and holes: entries that were deleted are all zeros. */
    net_verbs_gid sparse[] = { gid("fe80::1", 0, V1),     gid("::", 1, V2),       gid("0.0.0.0", 4, V2),
                               gid("2001:db8::7", 9, V2), gid("fd00::7", 12, V1), gid("10.1.0.7", 41, V2) };
    CHECK(net_verbs_gids_sort(sparse, 6) == 4 && sparse[0].index == 41 && sparse[1].index == 9 && sparse[2].index == 12
          && sparse[3].index == 0);
    /* Link-local alone is still something. */
    net_verbs_gid local[] = { gid("fe80::1", 0, V1), gid("fe80::1", 1, V2), gid("169.254.3.4", 2, V2) };
    CHECK(net_verbs_gids_sort(local, 3) == 3 && local[0].index == 2 && local[2].index == 0);
    net_verbs_gid twice[] = { gid("10.1.0.7", 5, V2), gid("10.2.0.7", 3, V2) };
    CHECK(net_verbs_gids_sort(twice, 2) == 2 && twice[0].index == 3);
    CHECK(net_verbs_gids_sort(twice, 0) == 0);
    const char *reason;
    CHECK(net_verbs_gid_score(&usual[0], &reason) > 0 && !strcmp(reason, "IPv4, RoCE v2"));
    char text[64];
    CHECK(!strcmp(net_verbs_gid_text(&usual[0], text, sizeof text), "10.1.0.7"));
    CHECK(!strcmp(net_verbs_gid_text(&sparse[1], text, sizeof text), "2001:db8::7"));
}

static int reaches(const char *a, int type_a, const char *b, int type_b)
{
    const net_verbs_gid x = gid(a, 1, type_a), y = gid(b, 2, type_b);
    const int score = net_verbs_pair_score(&x, &y);
    CHECK(score == net_verbs_pair_score(&y, &x));
    return score;
}

void two_gids_must_speak_the_same_roce_and_family(void)
{
    CHECK(!reaches("10.0.0.1", V1, "10.0.0.2", V2));
    CHECK(!reaches("10.0.0.1", V2, "2001:db8::1", V2));
    CHECK(!reaches("fe80::1", V2, "2001:db8::1", V2));
    CHECK(!reaches("0.0.0.0", V2, "10.0.0.1", V2));
    CHECK(reaches("10.0.0.1", V2, "10.0.0.2", V2) > reaches("10.0.0.1", V1, "10.0.0.2", V1));
    /* Same subnet beats everything, and v1 in the same subnet beats v2 into another. */
    CHECK(reaches("10.0.0.1", V1, "10.0.0.2", V1) > reaches("10.0.0.1", V2, "10.0.1.2", V2));
    CHECK(reaches("2001:db8::1", V2, "2001:db8::2", V2) > reaches("10.0.0.1", V2, "10.9.1.2", V2));
    CHECK(reaches("10.0.0.1", V2, "10.9.1.2", V2) > 0);           /* may be routed */
    CHECK(reaches("10.0.0.1", V2, "10.0.1.2", V2) > reaches("10.0.0.1", V2, "172.16.1.2", V2));
    CHECK(reaches("10.0.0.1", V2, "10.9.0.2", V2) > reaches("fe80::1", V2, "fe80::2", V2));
    /* The interface knows its subnet better than the guess of 24 bits. */
    net_verbs_gid wide = gid("10.0.0.1", 1, V2), far = gid("10.0.7.1", 1, V2);
    const int guessed = net_verbs_pair_score(&wide, &far);
    wide.prefix = far.prefix = 96 + 16;
    CHECK(net_verbs_pair_score(&wide, &far) > guessed + 500000);
    far.prefix = 96 + 24;
    CHECK(net_verbs_pair_score(&wide, &far) == guessed);
}

static net_verbs_port_offer port(uint32_t speed, const char *address, int type)
{
    net_verbs_port_offer p = { .layer = NET_VERBS_ETHERNET, .mtu = 5, .gids = 1, .speed = speed };
    p.gid[0] = gid(address, 3, type);
    if (type == NET_VERBS_GID_IB)
        p.layer = NET_VERBS_IB;
    return p;
}

static int choose(const net_verbs_ports *a, const net_verbs_ports *b, net_verbs_rail_choice *out)
{
    memset(out, 0, NET_VERBS_RAILS * sizeof *out);
    return net_verbs_rails_choose(a, b, out);
}

void ports_are_paired_by_subnet_whatever_their_order(void)
{
    net_verbs_rail_choice rail[NET_VERBS_RAILS];
    net_verbs_ports a = { .ports = 2, .port = { port(100000, "10.1.0.1", V2), port(100000, "10.2.0.1", V2) } };
    net_verbs_ports b = { .ports = 2, .port = { port(100000, "10.2.0.2", V2), port(100000, "10.1.0.2", V2) } };
    CHECK(choose(&a, &b, rail) == 2);
    CHECK(rail[0].port[0] != rail[0].port[1] && rail[1].port[0] != rail[1].port[1]);
    CHECK(rail[0].global && rail[0].mtu == 5 && rail[0].tries == 1);
    /* Equal in everything: first with first. */
    CHECK(choose(&a, &a, rail) == 2 && rail[0].port[0] == rail[0].port[1]);
    /* One port each side has no partner. */
    b.ports = 1;
    CHECK(choose(&a, &b, rail) == 1 && rail[0].port[0] == 1 && rail[0].port[1] == 0);
    /* The smaller MTU, the slower speed. */
    b.port[0].mtu = 3;
    b.port[0].speed = 25000;
    CHECK(choose(&a, &b, rail) == 1 && rail[0].mtu == 3 && rail[0].speed == 25000);
    /* Nothing in common. */
    b.port[0] = port(100000, "10.2.0.2", V1);
    CHECK(choose(&a, &b, rail) == 0);
    b.port[0] = port(100000, "fe80::1", NET_VERBS_GID_IB);
    CHECK(choose(&a, &b, rail) == 0);
}

void a_rail_below_a_quarter_of_the_best_is_dropped_on_both_ends(void)
{
    net_verbs_rail_choice rail[NET_VERBS_RAILS], mirror[NET_VERBS_RAILS];
    net_verbs_ports a = {
        .ports = 3, .port = { port(10000, "10.1.0.1", V2), port(100000, "10.2.0.1", V2), port(25000, "10.3.0.1", V2) }
    };
    net_verbs_ports b = {
        .ports = 3, .port = { port(100000, "10.3.0.2", V2), port(200000, "10.2.0.2", V2), port(100000, "10.1.0.2", V2) }
    };
    const int n = choose(&a, &b, rail), m = choose(&a, &b, mirror);
    CHECK(n == 2 && m == 2 && !memcmp(rail, mirror, sizeof rail));
    CHECK(rail[0].port[0] == 1 && rail[0].port[1] == 1 && rail[0].speed == 100000);
    CHECK(rail[1].port[0] == 2 && rail[1].port[1] == 0 && rail[1].speed == 25000);
}

void infiniband_takes_a_grh_only_between_subnets_or_when_asked(void)
{
    net_verbs_rail_choice rail[NET_VERBS_RAILS];
    net_verbs_ports a = { .ports = 1, .port = { port(200000, "fe80::1", NET_VERBS_GID_IB) } };
    net_verbs_ports b = { .ports = 1, .port = { port(200000, "fe80::2", NET_VERBS_GID_IB) } };
    CHECK(choose(&a, &b, rail) == 1 && !rail[0].global);
    b.port[0].grh = 1;
    CHECK(choose(&a, &b, rail) == 1 && rail[0].global);
    b.port[0] = port(200000, "fec0::2", NET_VERBS_GID_IB);
    CHECK(choose(&a, &b, rail) == 1 && rail[0].global);
}

void several_gids_are_tried_best_first(void)
{
    net_verbs_rail_choice rail[NET_VERBS_RAILS];
    net_verbs_ports a = { .ports = 1, .port = { port(100000, "10.0.0.1", V2) } };
    net_verbs_ports b = { .ports = 1, .port = { port(100000, "10.9.0.2", V2) } };
    a.port[0].gids = b.port[0].gids = 3;
    a.port[0].gid[1] = gid("fe80::1", 0, V2);
    a.port[0].gid[2] = gid("192.168.7.1", 5, V1);
    b.port[0].gid[1] = gid("192.168.7.2", 6, V1);
    b.port[0].gid[2] = gid("fe80::2", 1, V2);
    CHECK(choose(&a, &b, rail) == 1 && rail[0].tries == 3);
    CHECK(rail[0].tried[0].gid[0] == 2 && rail[0].tried[0].gid[1] == 1);     /* same subnet */
    CHECK(rail[0].tried[1].gid[0] == 0 && rail[0].tried[1].gid[1] == 0);     /* routed      */
    CHECK(rail[0].tried[2].gid[0] == 1 && rail[0].tried[2].gid[1] == 2);     /* link-local  */
}

void shares_add_up_and_follow_the_speeds(void)
{
    static const double speeds[][4] = { { 1, 1, 1, 1 }, { 100, 25, 24, 1 }, { 3, 2, 1, 0 }, { 0, 0, 0, 5 } };
    static const uint64_t sizes[] = { 1, 127, 128, 129, 65535, 65536, 65537, 1000003, 64 << 20 };
    uint64_t share[4];
    for (size_t v = 0; v < sizeof speeds / sizeof *speeds; v++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (int count = v == 3 ? 4 : 1; count <= 4; count++) {
                net_verbs_shares(speeds[v], count, sizes[s], 16384, share);
                uint64_t sum = 0;
                double best = 0;
                int odd = 0;
                for (int i = 0; i < count; i++)
                    best = speeds[v][i] > best ? speeds[v][i] : best;
                for (int i = 0; i < count; i++) {
                    sum += share[i];
                    odd += share[i] % 128 != 0;
                    CHECK(!share[i] || speeds[v][i] * 4 >= best);
                    CHECK(!share[i] || share[i] >= 16384 || share[i] + 16384 > sizes[s] || speeds[v][i] >= best);
                }
                CHECKF(sum == sizes[s] && odd <= 1, "%d rails, %llu bytes", count, (unsigned long long)sizes[s]);
            }
    net_verbs_shares(speeds[2], 3, 6 << 20, 16384, share);
    CHECK(share[0] > 3100000 && share[0] < 3200000 && share[2] > 1000000 && share[2] < 1100000);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

void offers_survive_the_wire_and_nothing_less_does(void)
{
    unsigned char bytes[NET_OFFER], cut[NET_OFFER];
    net_verbs_ports p = { .ports = NET_VERBS_PORTS, .immediate = 1, .pairs = 8, .eager = 8192 }, q;
    for (int i = 0; i < NET_VERBS_PORTS; i++) {
        p.port[i] = port(1000u * (uint32_t)i + 1, "10.0.0.1", V2);
        p.port[i].gids = NET_VERBS_GIDS;
        for (int j = 1; j < NET_VERBS_GIDS; j++)
            p.port[i].gid[j] = gid("2001:db8::1", j, V1);
    }
    size_t size = net_verbs_ports_write(&p, bytes);
    CHECK(size < NET_OFFER);
    CHECK_OK(net_verbs_ports_read(&q, bytes, size));
    CHECK(!memcmp(&p, &q, sizeof p));
    for (size_t n = 0; n < size; n++)
        CHECK(net_verbs_ports_read(&q, bytes, n) != GT_OK);
    CHECK(net_verbs_ports_read(&q, bytes, size + 1) != GT_OK);
    memcpy(cut, bytes, size);
    cut[4] = 9;
    CHECK_FAILS(net_verbs_ports_read(&q, cut, size), GT_MISMATCH, "same version");
    CHECK_FAILS(net_verbs_queues_read(&(net_verbs_queues){ 0 }, bytes, size), GT_FORMAT, "of step");

    net_verbs_queues a = { .rails = 2, .lanes = 5, .message_receives = 64, .data_receives = 128 }, b;
    for (uint32_t i = 0; i < 5; i++) {
        a.lane[i].qpn = 0xfffff0 + i;
        a.lane[i].psn = i * 77;
    }
    a.rail[1].open = 1;
    a.rail[1].address = 0x7f0012345678;
    size = net_verbs_queues_write(&a, bytes);
    CHECK_OK(net_verbs_queues_read(&b, bytes, size));
    CHECK(!memcmp(&a, &b, sizeof a));
    for (size_t n = 0; n < size; n++)
        CHECK(net_verbs_queues_read(&b, bytes, n) != GT_OK);

    net_verbs_verdict v = { 3, { 1, 0, 1, 0 } }, w;
    size = net_verbs_verdict_write(&v, NET_VERBS_SAYS_READY, bytes);
    CHECK_OK(net_verbs_verdict_read(&w, NET_VERBS_SAYS_READY, bytes, size));
    CHECK(!memcmp(&v, &w, sizeof v));
    CHECK(net_verbs_verdict_read(&w, NET_VERBS_SAYS_PROVEN, bytes, size) == GT_FORMAT);

    net_verbs_window x = { 4095, 4095, 4, 0xfffffff0, 1u << 30, { 1, 2, 3, 4 } }, y;
    size = net_verbs_window_write(&x, bytes);
    CHECK(size <= NET_DESCRIPTOR);
    CHECK_OK(net_verbs_window_read(&y, bytes, size));
    CHECK(!memcmp(&x, &y, sizeof x));
    for (size_t n = 0; n < size; n++)
        CHECK(net_verbs_window_read(&y, bytes, n) != GT_OK);
    x.address = UINT64_MAX - 5;
    size = net_verbs_window_write(&x, bytes);
    CHECK(net_verbs_window_read(&y, bytes, size) == GT_FORMAT);
}

void a_message_is_as_long_as_its_head_says(void)
{
    unsigned char bytes[200] = { 0 };
    net_verbs_head h = { NET_VERBS_IS_MESSAGE, 20, 0xfffe, 100 }, back;
    net_verbs_head_write(&h, bytes);
    CHECK_OK(net_verbs_head_read(&back, bytes, 128, 64, 8192));
    CHECK(back.returned == 0xfffe && back.body == 100 && back.head == 20);
    CHECK(net_verbs_head_read(&back, bytes, 127, 64, 8192) != GT_OK);
    CHECK_OK(net_verbs_head_read(&back, bytes, 129, 64, 8192));     /* the next one is behind it */
    CHECK(net_verbs_head_read(&back, bytes, 7, 64, 8192) != GT_OK);
    CHECK(net_verbs_head_read(&back, bytes, 128, 19, 8192) != GT_OK);
    CHECK(net_verbs_head_read(&back, bytes, 128, 64, 99) != GT_OK);
    h = (net_verbs_head){ NET_VERBS_IS_CREDIT, 0, 0, 120 };
    net_verbs_head_write(&h, bytes);
    CHECK_OK(net_verbs_head_read(&back, bytes, 128, 64, 8192));
    CHECK(net_verbs_head_read(&back, bytes, 129, 64, 8192) != GT_OK);
    h = (net_verbs_head){ 9, 0, 0, 0 };
    net_verbs_head_write(&h, bytes);
    CHECK(net_verbs_head_read(&back, bytes, 8, 64, 8192) != GT_OK);
    const net_verbs_signal s = { 4095, 1234, 33 }, t = net_verbs_signal_unpack(net_verbs_signal_pack(s));
    CHECK(t.slot == 4095 && t.sequence == 1234 && t.lanes == 33);
}
