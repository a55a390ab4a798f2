/* SPDX-License-Identifier: MIT */
/* tests/collective/test_shares.c - the pure half: shares, costs, choices, names, and sums of
 * every 16-bit number. */
#include "net/collective/cost.h"
#include "net/collective/reduce.h"
#include "net/collective/shares.h"
#include "tests/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int near(double a, double b)
{
    return fabs(a - b) <= 1e-9 * fmax(1.0, fabs(b));
}

/* ---- shares ----------------------------------------------------------------------------- */

/* n workers and k helpers with equal links, by the paper's formulas. */
static void equal_links_give_the_theorem_of_byteps(void)
{
    static const int cases[][2] = { { 4, 0 }, { 4, 2 }, { 4, 4 }, { 8, 3 }, { 3, 1 }, { 16, 16 } };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const int n = cases[c][0], k = cases[c][1];
        double bandwidth[32], share[32], time;
        int worker[32];
        for (int i = 0; i < n + k; i++) {
            bandwidth[i] = 3.0;
            worker[i] = i < n;
        }
        CHECK_OK(net_shares(bandwidth, worker, n + k, share, &time));
        const double d = (double)(n * n + k * n - 2 * k);
        CHECKF(near(time, 2.0 * n * (n - 1) / d / 3.0), "n %d, k %d: %g", n, k, time);
        for (int i = 0; i < n + k; i++) {
            const double want = i < n ? (n - k) / d : 2.0 * (n - 1) / d;
            CHECKF(near(share[i], want), "n %d, k %d, rank %d: %g, not %g", n, k, i, share[i], want);
        }
    }
}

static void a_slow_link_sums_nothing_and_costs_only_its_own_bytes(void)
{
    const double bandwidth[4] = { 4, 4, 4, 1 };
    const int worker[4] = { 1, 1, 1, 1 };
    double share[4], time;
    CHECK_OK(net_shares(bandwidth, worker, 4, share, &time));
    CHECK(near(time, 1.0));                     /* S / B_min; a ring takes 1.5 */
    CHECK(near(share[3], 0.0));
    for (int i = 0; i < 3; i++)
        CHECK(near(share[i], 1.0 / 3.0));
}

static double worst(const double *bandwidth, const int *worker, int n, const double *share)
{
    int workers = 0;
    double t = 0.0;
    for (int i = 0; i < n; i++)
        workers += worker[i];
    for (int i = 0; i < n; i++)
        t = fmax(t, (worker[i] ? 1.0 + (workers - 2) * share[i] : workers * share[i]) / bandwidth[i]);
    return t;
}

/* Any shift of a little from one rank to another makes it no faster. */
static void no_other_shares_are_faster(void)
{
    srand(7);
    for (int round = 0; round < 200; round++) {
        double bandwidth[8], share[8], time, sum = 0.0;
        int worker[8], n = 3 + rand() % 6;
        for (int i = 0; i < n; i++) {
            bandwidth[i] = 0.1 + rand() % 1000 * 0.01;
            worker[i] = i < 3 || rand() % 2;
        }
        CHECK_OK(net_shares(bandwidth, worker, n, share, &time));
        for (int i = 0; i < n; i++) {
            CHECK(share[i] >= 0.0);
            sum += share[i];
        }
        CHECK(near(sum, 1.0));
        CHECKF(worst(bandwidth, worker, n, share) <= time * (1.0 + 1e-9), "round %d", round);
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) {
                double other[8];
                memcpy(other, share, sizeof other);
                const double some = fmin(0.01, other[i]);
                other[i] -= some;
                other[j] += some;
                CHECKF(worst(bandwidth, worker, n, other) >= time * (1.0 - 1e-9), "round %d", round);
            }
    }
}

static void few_ranks_and_missing_links_are_handled(void)
{
    const double two[3] = { 2, 1, 5 }, dead_helper[4] = { 1, 1, 1, 0 }, dead_worker[3] = { 1, 0, 1 },
                 nan_link[3] = { 1, NAN, 1 }, negative[3] = { 1, -1, 1 };
    const int all[4] = { 1, 1, 1, 1 }, workers2[3] = { 1, 1, 0 }, none[3] = { 0, 0, 0 }, last_helps[4] = { 1, 1, 1, 0 };
    double share[4], time;
    CHECK_OK(net_shares(two, all, 1, share, &time));
    CHECK(share[0] == 1.0 && time == 0.0);
    CHECK_OK(net_shares(two, workers2, 3, share, &time));       /* w - 2 = 0 */
    CHECK(share[0] == 0.5 && share[1] == 0.5 && share[2] == 0.0 && time == 1.0);
    CHECK_OK(net_shares(dead_helper, last_helps, 4, share, &time));
    CHECK(near(share[3], 0.0) && near(time, 4.0 / 3.0));
    CHECK_FAILS(net_shares(dead_worker, all, 3, share, &time), GT_MISUSE, "worker 1 has no bandwidth");
    CHECK_FAILS(net_shares(two, none, 3, share, &time), GT_MISUSE, "none of 3 ranks is a worker");
    CHECK_FAILS(net_shares(nan_link, all, 3, share, &time), GT_MISUSE, "rank 1");
    CHECK_FAILS(net_shares(negative, all, 3, share, &time), GT_MISUSE, "rank 1");
}

static void parts_cover_the_whole(void)
{
    for (uint64_t n = 0; n < 70; n++)
        for (int p = 1; p < 10; p++) {
            uint64_t at = 0, begin, size;
            for (int i = 0; i < p; i++) {
                net_part(n, p, i, &begin, &size);
                CHECK(begin == at && size <= n / (uint64_t)p + 1 && size >= n / (uint64_t)p);
                at += size;
            }
            CHECK(at == n);
        }
}

/* ---- costs ------------------------------------------------------------------------------ */

/* `hosts` like "aabb"; links inside a host are `inside` times as fast as the others. */
static net_link_matrix matrix(const char *hosts, double inside)
{
    const int p = (int)strlen(hosts);
    net_link_matrix m;
    CHECK_OK(net_links_create(&m, p));
    for (int i = 0; i < p; i++) {
        m.uplink[i] = 1e9 * inside;
        m.host[i] = (uint64_t)hosts[i];
        for (int j = 0; j < p; j++) {
            m.latency[i * p + j] = hosts[i] == hosts[j] ? 2e-6 : 1e-5;
            m.bandwidth[i * p + j] = hosts[i] == hosts[j] ? 1e9 * inside : 1e9;
        }
    }
    return m;
}

static void formulas_are_those_of_the_paper(void)
{
    const char *const ranks[] = { "ab", "abc", "abcd", "abcdefgh" };
    for (size_t k = 0; k < 4; k++) {
        net_link_matrix m = matrix(ranks[k], 1.0);
        const double p = m.size, n = 1e6, a = 1e-5, b = 1e-9, g = 1e-10;
        m.add = g;
        CHECK(near(net_cost(NET_OP_ALL_REDUCE, NET_RING, &m, n),
                   2 * (p - 1) * a + 2 * (p - 1) / p * n * b + (p - 1) / p * n * g));
        CHECK(near(net_cost(NET_OP_ALL_GATHER, NET_RING, &m, n), (p - 1) * a + (p - 1) / p * n * b));
        if (m.size != 3) {
            const double steps = log2(p);
            CHECK(near(net_cost(NET_OP_ALL_REDUCE, NET_HALVING_DOUBLING, &m, n),
                       2 * steps * a + 2 * (p - 1) / p * n * b + (p - 1) / p * n * g));
            const double few = 1e4;                         /* goes at once; more is announced first */
            CHECK(near(net_cost(NET_OP_ALL_REDUCE, NET_RECURSIVE_DOUBLING, &m, few),
                       steps * (a + few * b + 3 * few * g)));         /* through scratch memory */
            CHECK(
                near(net_cost(NET_OP_ALL_REDUCE, NET_RECURSIVE_DOUBLING, &m, n), steps * (2 * a + n * b + 3 * n * g)));
        }
        CHECK(net_cost_bound(NET_OP_ALL_REDUCE, &m, n) <= 2 * (p - 1) / p * n * b * (1 + 1e-9));
        CHECK(near(net_cost_bound(NET_OP_ALL_REDUCE, &m, 1e9), 2 * (p - 1) / p * 1.0));
        net_links_release(&m);
    }
}

static void choices_fit_sizes_and_links(void)
{
    net_link_matrix flat = matrix("abcdefgh", 1.0), two = matrix("aaaabbbb", 20.0), uneven = matrix("abcd", 1.0),
                    one = matrix("a", 1.0);
    CHECK(net_choose(NET_OP_ALL_REDUCE, &flat, 8) == NET_RECURSIVE_DOUBLING);
    CHECK(net_choose(NET_OP_ALL_REDUCE, &flat, 64e3) == NET_HALVING_DOUBLING);
    CHECK(net_choose_but(NET_OP_ALL_REDUCE, &flat, 8, 1u << NET_RECURSIVE_DOUBLING) != NET_RECURSIVE_DOUBLING);
    CHECK(net_choose_but(NET_OP_ALL_REDUCE, &flat, 8, ~0u) == NET_AUTO);
    CHECK(net_choose(NET_OP_BROADCAST, &flat, 8) == NET_TREE);
    CHECK(net_choose(NET_OP_BROADCAST, &flat, 1e8) == NET_RING);
    CHECK(net_choose(NET_OP_ALL_REDUCE, &two, 1e8) == NET_HIERARCHICAL);
    /* Three links of 4 units and one of 1: a ring takes 1.5, direct 1, which is the bound. */
    for (int i = 0; i < 4; i++) {
        uneven.uplink[i] = i == 3 ? 1e9 : 4e9;
        for (int j = 0; j < 4; j++)
            uneven.bandwidth[i * 4 + j] = i == 3 || j == 3 ? 1e9 : 4e9;
    }
    CHECK(net_choose(NET_OP_ALL_REDUCE, &uneven, 1e9) == NET_DIRECT);
    CHECK(fabs(net_cost(NET_OP_ALL_REDUCE, NET_RING, &uneven, 1e9) - 1.5) < 1e-3);
    CHECK(fabs(net_cost(NET_OP_ALL_REDUCE, NET_DIRECT, &uneven, 1e9) - 1.0) < 0.05);
    CHECK(near(net_cost_bound(NET_OP_ALL_REDUCE, &uneven, 1e9), 1.0));
    CHECK(net_cost(NET_OP_ALL_REDUCE, NET_RING, &one, 1e9) == 0.0);
    CHECK(isinf(net_cost(NET_OP_ALL_GATHER, NET_RECURSIVE_DOUBLING, &flat, 8)));
    CHECK(isinf(net_cost(NET_OP_ALL_REDUCE, NET_HIERARCHICAL, &flat, 8)));
    for (int k = NET_OP_ALL_REDUCE; k <= NET_OP_BROADCAST; k++)
        for (int a = NET_RING; a < NET_ALGORITHMS; a++)
            for (double n = 1; n < 1e10; n *= 10) {
                const net_kind kind = (net_kind)k;
                CHECKF(net_cost(kind, (net_algorithm)a, &uneven, n) >= net_cost_bound(kind, &uneven, n) * (1 - 1e-9),
                       "kind %d, %s, %g bytes", k, net_algorithm_name((net_algorithm)a), n);
            }
    net_links_release(&flat);
    net_links_release(&two);
    net_links_release(&uneven);
    net_links_release(&one);
}

/* Measured twice, a little different: the same shares, so the same bits. */
static void noise_does_not_change_shares(void)
{
    net_link_matrix m = matrix("abcd", 1.0);
    double first[4], second[4];
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 4; i++)
            m.uplink[i] = (i == 3 && round ? 1e9 : 4e9) + i;
        CHECK_OK(net_links_shares(&m, first));
        for (int i = 0; i < 4; i++)
            m.uplink[i] *= 1.0 + 0.005 * (i - 2);
        CHECK_OK(net_links_shares(&m, second));
        CHECK(!memcmp(first, second, sizeof first));
        CHECK(near(first[3], round ? 0.0 : 0.25));
    }
    net_links_release(&m);
}

/* ---- names ------------------------------------------------------------------------------ */

static void names_are_read_as_people_and_nccl_write_them(void)
{
    static const struct {
        const char *text;
        net_kind kind;
        net_algorithm want;
    } good[] = {
        { "ring", NET_OP_ALL_REDUCE, NET_RING },
        { "Ring", NET_OP_BROADCAST, NET_RING },
        { "auto", NET_OP_ALL_REDUCE, NET_AUTO },
        { "", NET_OP_ALL_REDUCE, NET_AUTO },
        { "recursive-doubling", NET_OP_ALL_REDUCE, NET_RECURSIVE_DOUBLING },
        { "recursive-doubling", NET_OP_ALL_GATHER, NET_AUTO },
        { "halving_doubling", NET_OP_ALL_GATHER, NET_HALVING_DOUBLING },
        { "ring;allreduce:tree", NET_OP_ALL_REDUCE, NET_TREE },
        { "ring;allreduce:tree", NET_OP_ALL_GATHER, NET_RING },
        { "allreduce:tree;ring", NET_OP_ALL_REDUCE, NET_TREE },
        { "AllReduce:Tree,Ring;ReduceScatter:ring", NET_OP_REDUCE_SCATTER, NET_RING },
        { "tree,ring", NET_OP_ALL_GATHER, NET_RING },
        { "NVLS", NET_OP_ALL_REDUCE, NET_AUTO },
        { "collnetdirect", NET_OP_ALL_REDUCE, NET_AUTO },
        { "reduce:tree", NET_OP_ALL_REDUCE, NET_AUTO },
    };
    net_algorithm a;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        CHECK_OK(net_algorithm_parse(&a, good[i].text, good[i].kind));
        CHECKF(a == good[i].want, "'%s' is %s", good[i].text, net_algorithm_name(a));
    }
    /* NCCL's "all but these". */
    const unsigned ring = 1u << NET_RING, tree = 1u << NET_TREE;
    CHECK(net_algorithm_barred("^NVLS", NET_OP_ALL_REDUCE) == 0);
    CHECK(net_algorithm_barred("^ring,Tree", NET_OP_ALL_REDUCE) == (ring | tree));
    CHECK(net_algorithm_barred("^ring;allreduce:^tree", NET_OP_ALL_REDUCE) == tree);
    CHECK(net_algorithm_barred("^ring;allreduce:^tree", NET_OP_ALL_GATHER) == ring);
    CHECK(net_algorithm_barred("ring", NET_OP_ALL_REDUCE) == 0);
    CHECK_OK(net_algorithm_parse(&a, "^ring,tree", NET_OP_ALL_REDUCE));
    CHECK(a == NET_AUTO);
    CHECK_FAILS(net_algorithm_parse(&a, "^rings", NET_OP_ALL_REDUCE), GT_MISUSE, "'rings'");
    CHECK_FAILS(net_algorithm_parse(&a, "rings", NET_OP_ALL_REDUCE), GT_MISUSE, "'rings'");
    CHECK_FAILS(net_algorithm_parse(&a, "alltoall:ring", NET_OP_ALL_REDUCE), GT_MISUSE, "'alltoall'");
    CHECK_FAILS(net_algorithm_parse(&a, "allgather:tree", NET_OP_ALL_GATHER), GT_MISUSE,
                "all-gather has no algorithm 'tree'");
    net_type t;
    CHECK_OK(net_type_parse(&t, "bf16"));
    CHECK(t == NET_BF16 && net_type_size(t) == 2 && !strcmp(net_type_name(t), "bf16"));
    CHECK_FAILS(net_type_parse(&t, "f64"), GT_MISUSE, "'f64'");
}

/* ---- sums ------------------------------------------------------------------------------- */

static float real(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* Slow and obvious. */
static double of_f16(uint16_t h)
{
    const int e = h >> 10 & 31, m = h & 0x3ff;
    const double v = e == 31 ? (m ? (double)NAN : (double)INFINITY) : e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
    return h & 0x8000 ? -v : v;
}

static uint16_t nearest_f16(double x)
{
    const uint16_t sign = signbit(x) ? 0x8000u : 0;
    const double a = fabs(x);
    if (a >= 65520.0)
        return sign | 0x7c00u;
    int e = a > 0.0 ? (int)floor(log2(a)) : -14;
    if (a > 0.0 && ldexp(1.0, e) > a)
        e--;
    if (a > 0.0 && ldexp(1.0, e + 1) <= a)
        e++;
    e = e < -14 ? -14 : e;
    const double units = ldexp(a, 10 - e), rest = units - floor(units);    /* half to even */
    unsigned m = (unsigned)floor(units);
    m += rest > 0.5 || (rest == 0.5 && m % 2);
    return (uint16_t)(sign | ((unsigned)(e + 14) * 1024u + m));
}

/* In sevens: too few at once for vectors, so it is the other code. */
static void narrow_in(size_t step, uint16_t *d, const float *s, size_t n)
{
    for (size_t i = 0; i < n; i += step)
        net_narrow(d + i, s + i, n - i < step ? n - i : step, NET_F16);
}

static void every_half_is_widened_and_narrowed_to_the_nearest(void)
{
    static uint16_t all[65536], back[65536], sevens[65536];
    static float wide[65536];
    for (int i = 0; i < 65536; i++)
        all[i] = (uint16_t)i;
    for (size_t i = 0; i < 65536; i += 7)
        net_widen(wide + i, all + i, 65536 - i < 7 ? 65536 - i : 7, NET_F16);
    for (int i = 0; i < 65536; i++) {
        const double want = of_f16((uint16_t)i);
        CHECKF(isnan(want) ? isnan(wide[i]) : (double)wide[i] == want, "%#x is %g", (unsigned)i, (double)wide[i]);
    }
    net_widen(wide, all, 65536, NET_BF16);
    for (int i = 0; i < 65536; i++) {
        const float want = real((uint32_t)i << 16);
        CHECK(!memcmp(&wide[i], &want, sizeof want));
    }
    net_widen(wide, all, 65536, NET_F16);
    for (int i = 0; i < 65536; i++) {
        const double want = of_f16((uint16_t)i);
        CHECKF(isnan(want) ? isnan(wide[i]) : (double)wide[i] == want, "%#x is %g", (unsigned)i, (double)wide[i]);
    }
    net_narrow(back, wide, 65536, NET_F16);
    for (int i = 0; i < 65536; i++)
        CHECKF(isnan(wide[i]) ? (back[i] & 0x7e00u) == 0x7e00u : back[i] == i, "%#x", (unsigned)i);

    for (uint64_t u = 0; u < 1ull << 32; u += 65536 * 97) {
        for (uint32_t i = 0; i < 65536; i++)
            wide[i] = real((uint32_t)u + i * 89);
        narrow_in(65536, back, wide, 65536);
        narrow_in(7, sevens, wide, 65536);
        for (int i = 0; i < 65536; i++)
            if (!isnan(wide[i]) && (back[i] != nearest_f16((double)wide[i]) || sevens[i] != back[i])) {
                CHECKF(0, "%a is %#x, not %#x", (double)wide[i], back[i], nearest_f16((double)wide[i]));
                return;
            }
    }
    /* bf16: halves to even, large to infinity, NaN stays. */
    const float some[] = { real(0x3f808000u), real(0x3f818000u), real(0x3f808001u), real(0x7f7fffffu),
                           real(0x7f800001u), real(0xff800000u), real(0x80000001u) };
    const uint16_t want[] = { 0x3f80, 0x3f82, 0x3f81, 0x7f80, 0x7fc0, 0xff80, 0x8000 };
    net_narrow(back, some, 7, NET_BF16);
    for (int i = 0; i < 7; i++)
        CHECKF(back[i] == want[i], "%a is %#x", (double)some[i], back[i]);
}

static void sums_of_any_length_touch_nothing_else(void)
{
    static const net_type types[] = { NET_F32, NET_BF16, NET_F16, NET_I32 };
    for (int t = 0; t < 4; t++)
        for (size_t n = 0; n < 200; n++)
            for (size_t shift = 0; shift < 3; shift++) {
                const size_t grain = net_type_size(types[t]), bytes = n * grain;
                unsigned char a[1024], b[1024], old[1024];
                memset(a, 0, sizeof a);
                memset(b, 0, sizeof b);
                /* 1.0 in every type, and 2.0 after the sum; as i32 just numbers. */
                const float one = 1.0f, two = 2.0f;
                unsigned char x1[4], x2[4];
                if (types[t] == NET_I32) {
                    memcpy(x1, &(int32_t){ -5 }, 4);
                    memcpy(x2, &(int32_t){ -10 }, 4);
                } else if (types[t] == NET_F32) {
                    memcpy(x1, &one, 4);
                    memcpy(x2, &two, 4);
                } else {
                    net_narrow(x1, &one, 1, types[t]);
                    net_narrow(x2, &two, 1, types[t]);
                }
                for (size_t i = 0; i < n; i++) {
                    memcpy(a + (shift + i) * grain, x1, grain);
                    memcpy(b + (shift + i) * grain, x1, grain);
                }
                memcpy(old, a, sizeof old);
                net_reduce_of(types[t])(a + shift * grain, b + shift * grain, bytes);
                for (size_t i = 0; i < n; i++)
                    memcpy(old + (shift + i) * grain, x2, grain);
                if (memcmp(a, old, sizeof a))
                    CHECKF(0, "%s, %zu elements", net_type_name(types[t]), n);
            }
    int32_t most[1] = { INT32_MAX }, one[1] = { 1 };
    net_reduce_of(NET_I32)(most, one, sizeof most);
    CHECK(most[0] == INT32_MIN);
    CHECK(!net_reduce_of((net_type)0));
}

const check_case check_cases[] = {
    CASE(equal_links_give_the_theorem_of_byteps),
    CASE(a_slow_link_sums_nothing_and_costs_only_its_own_bytes),
    CASE(no_other_shares_are_faster),
    CASE(few_ranks_and_missing_links_are_handled),
    CASE(parts_cover_the_whole),
    CASE(formulas_are_those_of_the_paper),
    CASE(choices_fit_sizes_and_links),
    CASE(noise_does_not_change_shares),
    CASE(names_are_read_as_people_and_nccl_write_them),
    CASE(every_half_is_widened_and_narrowed_to_the_nearest),
    CASE(sums_of_any_length_touch_nothing_else),
    { 0 }
};
