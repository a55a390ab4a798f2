/* SPDX-License-Identifier: MIT */
/* tests/collective/test_collective.c - every collective, type, algorithm, awkward size and number
 * of ranks against plain sums; groups, background operations, disagreement, repeatability.
 *
 * Ranks are threads of this process with a communicator each, over real transports. Values are
 * small integers, so sums are exact in every type and any order; one case takes random reals
 * and compares them with sums in double.                                                 */
#include "net/collective/cost.h"
#include "net/comm/board.h"
#include "tests/check.h"
#include "tests/comm/ranks.h"

#include "host/base/random.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 65537, GUARD = 16, MANY = 5 };

static const uint64_t counts[] = { 0, 1, 2, 3, 7, 31, 32, 33, 1000, 4097, MOST };
enum { COUNTS = sizeof counts / sizeof *counts };

static const net_type types[] = { NET_F32, NET_BF16, NET_F16, NET_I32 };

/* ---- values ----------------------------------------------------------------------------- */

static uint16_t half_of(int v)                  /* small integers, exact */
{
    uint16_t sign = v < 0 ? 0x8000u : 0, e = 15;
    unsigned m = (unsigned)abs(v);
    if (!m)
        return 0;
    while (m >> (e - 15 + 1))
        e++;
    m <<= 10 - (e - 15);
    return (uint16_t)(sign | (uint16_t)(e << 10) | (m & 0x3ffu));
}

static int of_half(uint16_t h)
{
    if (!(h & 0x7fff))
        return 0;
    const int e = (h >> 10 & 31) - 15, v = (int)ldexp((double)((h & 0x3ff) | 0x400), e - 10);
    return h & 0x8000 ? -v : v;
}

static void store(void *x, net_type t, uint64_t i, int v)
{
    float f = (float)v;
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    switch (t) {
    case NET_F32: ((float *)x)[i] = f; break;
    case NET_I32: ((int32_t *)x)[i] = v; break;
    case NET_BF16: ((uint16_t *)x)[i] = (uint16_t)(u >> 16); break;
    case NET_F16: ((uint16_t *)x)[i] = half_of(v); break;
    }
}

static int load(const void *x, net_type t, uint64_t i)
{
    float f;
    uint32_t u;
    switch (t) {
    case NET_F32: return (int)((const float *)x)[i];
    case NET_I32: return ((const int32_t *)x)[i];
    case NET_BF16:
        u = (uint32_t)((const uint16_t *)x)[i] << 16;
        memcpy(&f, &u, sizeof f);
        return (int)f;
    case NET_F16: return of_half(((const uint16_t *)x)[i]);
    }
    return -1;
}

static int value(int rank, uint64_t i)
{
    return (int)((i * 7 + (uint64_t)rank * 5 + (i >> 7)) % 15) - 7;
}

static int total(int size, uint64_t i)
{
    int sum = 0;
    for (int r = 0; r < size; r++)
        sum += value(r, i);
    return sum;
}

/* ---- one operation, checked ------------------------------------------------------------- */

typedef struct probe {
    net_kind kind;
    net_type type;
    uint64_t count;
    int root;
    const char *algorithm;
    const double *weights;
    const uint64_t *parts;
} probe;

static void part_of(const probe *p, int size, int i, uint64_t *from, uint64_t *n)
{
    if (!p->parts) {
        net_part(p->count, size, i, from, n);
        return;
    }
    *from = 0;
    for (int k = 0; k < i; k++)
        *from += p->parts[k];
    *n = p->parts[i];
}

static gt_status check_one(net_group *g, const probe *p, void *x)
{
    const int rank = net_group_rank(g), size = net_group_size(g);
    const size_t grain = net_type_size(p->type);
    const net_collective_options options = { .algorithm = p->algorithm, .weights = p->weights };
    unsigned char *guard = (unsigned char *)x + p->count * grain;
    uint64_t from = 0, n = p->count;
    for (uint64_t i = 0; i < p->count; i++)
        store(x, p->type, i, value(rank, i));
    memset(guard, 0xa5, GUARD);
    gt_status st = GT_OK;
    switch (p->kind) {
    case NET_OP_ALL_REDUCE: st = net_all_reduce(g, x, p->count, p->type, &options); break;
    case NET_OP_REDUCE_SCATTER:
        st = net_reduce_scatter(g, x, p->count, p->parts, p->type, &options);
        part_of(p, size, rank, &from, &n);
        break;
    case NET_OP_ALL_GATHER: st = net_all_gather(g, x, p->count, p->parts, p->type, &options); break;
    default: st = net_broadcast(g, x, p->count, p->type, p->root, &options);
    }
    if (st)
        return gt_fail_in(st, "%s of %llu %s by %s", p->algorithm ? p->algorithm : "auto", (unsigned long long)p->count,
                          net_type_name(p->type), "the test");
    int owner = -1;
    uint64_t owned = 0;
    for (uint64_t i = from; i < from + n; i++) {
        int want;
        if (p->kind == NET_OP_ALL_GATHER) {
            uint64_t begin;
            while (i >= owned) {
                owner++;
                part_of(p, size, owner, &begin, &owned);
                owned += begin;
            }
            want = value(owner, i);
        } else {
            want = p->kind == NET_OP_BROADCAST ? value(p->root, i) : total(size, i);
        }
        const int got = load(x, p->type, i);
        if (got != want)
            return gt_fail(GT_MISMATCH,
                           "kind %d, %s, %llu %s on %d ranks, rank %d: element %llu is "
                           "%d, not %d",
                           (int)p->kind, p->algorithm ? p->algorithm : "auto", (unsigned long long)p->count,
                           net_type_name(p->type), size, rank, (unsigned long long)i, got, want);
    }
    for (int i = 0; i < GUARD; i++)
        if (guard[i] != 0xa5)
            return gt_fail(GT_MISMATCH, "kind %d, %s: wrote behind the vector", (int)p->kind,
                           p->algorithm ? p->algorithm : "auto");
    return GT_OK;
}

/* ---- everything with everything --------------------------------------------------------- */

static int exists(net_kind kind, const char *algorithm)
{
    net_algorithm a;
    return !algorithm || (!net_algorithm_parse(&a, algorithm, kind) && a != NET_AUTO);
}

typedef struct sweep {
    int arenas;
    const char *const *algorithms;
} sweep;

static const char *const all_algorithms[] = {
    "ring", "halving-doubling", "recursive-doubling", "direct", "hierarchical", "tree", "exchange", "auto", NULL
};

static gt_status sweep_body(net_comm *c, void *context)
{
    const sweep *s = context;
    net_group *g = net_group_world(c);
    const int size = net_group_size(g);
    const size_t bytes = MOST * 4 + GUARD;
    void *x = NULL;
    gt_status st = GT_OK;
    if (s->arenas)
        RANK_OK(net_comm_memory(c, bytes, &x));
    else
        x = malloc(bytes);
    RANK_CHECK(x);
    for (int kind = NET_OP_ALL_REDUCE; !st && kind <= NET_OP_BROADCAST; kind++)
        for (const char *const *a = s->algorithms; !st && *a; a++)
            for (int k = 0; !st && k < COUNTS; k++)
                for (int t = 0; !st && t < 4; t++) {
                    const probe p = { (net_kind)kind,
                                      types[t],
                                      counts[k],
                                      (int)(counts[k] % (uint64_t)size),
                                      strcmp(*a, "auto") ? *a : NULL,
                                      NULL,
                                      NULL };
                    if (exists(p.kind, p.algorithm))
                        st = check_one(g, &p, x);
                }
    for (int i = 0; !st && i < 20; i++)
        st = net_barrier(g);
    if (!s->arenas)
        free(x);
    return st;
}

static void sweep_over(const char *knobs, int from, int to, int arenas)
{
    sweep s = { arenas, all_algorithms };
    for (int size = from; size <= to; size++)
        CHECK_OK(ranks_run(size, knobs, sweep_body, &s));
}

/* Small pieces, so that every size is pipelined. */
static void every_collective_sums_over_shared_memory(void)
{
    sweep_over("transport=shm pipeline=4KiB", 1, 5, 0);
    sweep_over("transport=shm pipeline=4KiB", 2, 4, 1);
    sweep_over("transport=shm shm-mode=copy pipeline=16KiB", 3, 3, 1);
    sweep_over("transport=shm shm-mode=cma pipeline=16KiB", 3, 3, 0);
}

static void every_collective_sums_over_tcp(void)
{
    sweep_over("transport=tcp pipeline=4KiB", 2, 4, 0);
}

static void every_collective_sums_on_many_ranks(void)
{
    sweep_over("transport=shm pipeline=16KiB", 6, 9, 0);
}

static void every_collective_sums_when_messages_are_late_and_overtake(void)
{
    const char *const some[] = { "ring", "halving-doubling", "recursive-doubling", "direct", "tree", NULL };
    sweep s = { 0, some };
    CHECK_OK(ranks_run(3, "transport=shm pipeline=16KiB fault=delay=100us,reorder=1", sweep_body, &s));
    CHECK_OK(ranks_run(4, "transport=tcp pipeline=16KiB fault=delay=100us,reorder=1", sweep_body, &s));
}

/* ---- parts and weights ------------------------------------------------------------------ */

static gt_status parts_body(net_comm *c, void *context)
{
    net_group *g = net_group_world(c);
    const int size = net_group_size(g);
    uint64_t parts[9], count = 0;
    double weights[9];
    (void)context;
    for (int i = 0; i < size; i++) {
        parts[i] = i % 3 == 1 ? 0 : (uint64_t)(i * 997 + 13);
        weights[i] = i % 3 == 1 ? 0.0 : 1.0 + i;
        count += parts[i];
    }
    void *x = malloc(count * 4 + GUARD);
    RANK_CHECK(x);
    gt_status st = GT_OK;
    for (int t = 0; t < 4; t++)
        for (const char *const *a = all_algorithms; !st && *a; a++)
            for (int kind = NET_OP_ALL_REDUCE; !st && kind <= NET_OP_ALL_GATHER; kind++) {
                const probe p = {
                    (net_kind)kind, types[t], count, 0, *a, weights, kind == NET_OP_ALL_REDUCE ? NULL : parts
                };
                if (!strcmp(*a, "auto") || exists(p.kind, *a))
                    st = check_one(g, &p, x);
            }
    free(x);
    return st;
}

static void parts_and_shares_may_be_unequal_and_empty(void)
{
    for (int size = 2; size <= 7; size++)
        CHECK_OK(ranks_run(size, "transport=shm pipeline=1KiB", parts_body, NULL));
}

/* ---- hosts ------------------------------------------------------------------------------ */

/* Pretends that ranks are on hosts as `context` says: "aabbb". */
static gt_status hosts_body(net_comm *c, void *context)
{
    const char *hosts = context;
    net_group *g = net_group_world(c);
    const int size = net_group_size(g);
    net_link_matrix m;
    gt_status st = net_links_create(&m, size);
    for (int i = 0; !st && i < size; i++) {
        m.host[i] = (uint64_t)hosts[i];
        m.uplink[i] = 1e9;
        for (int j = 0; j < size; j++) {
            m.latency[i * size + j] = 1e-5;
            m.bandwidth[i * size + j] = hosts[i] == hosts[j] ? 1e10 : 1e9;
        }
    }
    m.add = 1e-10;
    if (!st)
        st = net_group_links_set(g, &m);
    net_links_release(&m);
    void *x = malloc(MOST * 4 + GUARD);
    RANK_CHECK(x);
    for (int k = 0; !st && k < COUNTS; k++)
        for (int t = 0; !st && t < 4; t++) {
            const probe sum = { NET_OP_ALL_REDUCE, types[t], counts[k], 0, "hierarchical", NULL, NULL };
            st = check_one(g, &sum, x);
            for (int root = 0; !st && root < size; root++) {
                const probe tell = { NET_OP_BROADCAST, types[t], counts[k], root, "hierarchical", NULL, NULL };
                st = check_one(g, &tell, x);
            }
        }
    free(x);
    return st;
}

static void hierarchical_sums_on_hosts_of_any_size(void)
{
    static char *const plans[] = { "aabb", "abab", "aabbb", "abbbb", "abc", "aabbcc", "abcabca" };
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++)
        CHECK_OK(ranks_run((int)strlen(plans[i]), "transport=shm pipeline=16KiB", hosts_body, plans[i]));
}

/* ---- real numbers ----------------------------------------------------------------------- */

typedef struct repeat {
    const char *algorithm;
    uint64_t hash[8];
    uint32_t runs;
} repeat;

static gt_status reals_body(net_comm *c, void *context)
{
    enum { N = 10007 };
    repeat *r = context;
    net_group *g = net_group_world(c);
    const int rank = net_group_rank(g), size = net_group_size(g);
    const double equal[8] = { 1, 1, 1, 1, 1, 1, 1, 1 };     /* measured shares might differ */
    const net_collective_options options = { .algorithm = r->algorithm, .weights = equal };
    float *x = malloc(N * sizeof *x), *mine = malloc(N * sizeof *mine);
    double *want = calloc(N, sizeof *want);
    RANK_CHECK(x && mine && want);
    for (int k = 0; k < size; k++) {
        gt_random random;
        gt_random_init(&random, 5, (uint64_t)k);
        for (int i = 0; i < N; i++) {
            const float v = (float)((double)gt_random_below(&random, 2000001) * 1e-6 - 1.0);
            want[i] += (double)v;
            if (k == rank)
                mine[i] = v;
        }
    }
    gt_status st = GT_OK;
    for (int round = 0; !st && round < 3; round++) {
        memcpy(x, mine, N * sizeof *x);
        st = net_all_reduce(g, x, N, NET_F32, &options);
        uint64_t hash = 1469598103934665603u;
        for (size_t i = 0; !st && i < N; i++) {
            if (fabs((double)x[i] - want[i]) > 1e-5)
                st = gt_fail(GT_MISMATCH, "%s: element %zu is %g, not %g", r->algorithm, i, (double)x[i], want[i]);
            uint32_t u;
            memcpy(&u, &x[i], sizeof u);
            hash = (hash ^ u) * 1099511628211u;
        }
        if (!st && round && hash != r->hash[rank])
            st = gt_fail(GT_MISMATCH, "%s: another run gives other bits", r->algorithm);
        r->hash[rank] = hash;
    }
    free(x);
    free(mine);
    free(want);
    return st;
}

static void sums_of_reals_have_the_same_bits_on_all_ranks_and_in_all_runs(void)
{
    const char *const some[] = { "ring", "halving-doubling", "recursive-doubling", "direct", "tree", "exchange" };
    for (size_t a = 0; a < sizeof some / sizeof *some; a++)
        for (int size = 2; size <= 6; size++) {
            repeat first = { .algorithm = some[a] }, second = first;
            CHECK_OK(ranks_run(size, "transport=shm pipeline=2KiB", reals_body, &first));
            CHECK_OK(ranks_run(size, "transport=tcp pipeline=2KiB fault=delay=100us,reorder=1", reals_body, &second));
            for (int i = 0; i < size; i++)
                CHECKF(first.hash[i] == first.hash[0] && second.hash[i] == first.hash[0], "%s on %d ranks, rank %d",
                       some[a], size, i);
        }
}

/* ---- groups ----------------------------------------------------------------------------- */

static gt_status groups_body(net_comm *c, void *context)
{
    const int rank = net_comm_rank(c), size = net_comm_size(c);
    (void)context;
    int mine[8], count = 0;
    for (int r = size - 1; r >= 0; r--)             /* backwards: group ranks are other numbers */
        if (r % 2 == rank % 2)
            mine[count++] = r;
    net_group *half = NULL, *again = NULL;
    RANK_OK(net_group_create(&half, c, mine, count));
    RANK_OK(net_group_create(&again, c, mine, count));
    void *x = malloc(4097 * 4 + GUARD);
    RANK_CHECK(x);
    gt_status st = GT_OK;
    for (int i = 0; !st && i < 10; i++)
        for (const char *const *a = all_algorithms; !st && *a; a++) {
            const probe p = { NET_OP_ALL_REDUCE, NET_F32, 4097, 0, *a, NULL, NULL };
            st = check_one(half, &p, x);
            if (!st)
                st = check_one(net_group_world(c), &p, x);
            if (!st)
                st = check_one(again, &p, x);
        }
    free(x);
    net_group_release(half);
    net_group_release(again);
    return st;
}

static void groups_of_some_ranks_sum_beside_the_world(void)
{
    CHECK_OK(ranks_run(5, "transport=shm", groups_body, NULL));
    CHECK_OK(ranks_run(4, "transport=tcp", groups_body, NULL));
}

/* Ranks of one host have a board, on which all sums that nobody names another algorithm for are made; not over
 * other links, where one rank has others, or where a test disturbs them. */
static gt_status board_body(net_comm *c, void *context)
{
    const int *wanted = context;
    net_group *g = net_group_world(c);
    net_algorithm a;
    RANK_OK(net_group_choice(g, NET_OP_ALL_REDUCE, 2, NET_F32, NULL, &a));
    RANK_CHECK((a == NET_EXCHANGE) == *wanted);
    RANK_CHECK(net_group_has_board(g) == *wanted);
    const probe p = { NET_OP_ALL_REDUCE, NET_F32, 4097, 0, NULL, NULL, NULL };
    void *x = malloc(4097 * 4 + GUARD);
    RANK_CHECK(x);
    gt_status st = check_one(g, &p, x);
    for (int i = 0; !st && i < 100; i++)
        st = net_barrier(g);
    free(x);
    return st;
}

static void ranks_that_share_memory_sum_on_a_board(void)
{
    int yes = 1, no = 0;
    for (int size = 2; size <= 6; size++)
        CHECK_OK(ranks_run(size, "transport=shm", board_body, &yes));
    CHECK_OK(ranks_run(3, "transport=tcp", board_body, &no));
    CHECK_OK(ranks_run(3, "transport=shm,tcp 1:transport=tcp", board_body, &no));
    CHECK_OK(ranks_run(2, "transport=shm fault=delay=100us", board_body, &no));
}

/* What rank `rank` adds at i: of many magnitudes, so that another order of sums has other bits. */
static float part_of_sum(int rank, int64_t i)
{
    const uint32_t mixed = (uint32_t)(i * 8 + rank + 1) * 2654435761u;
    return ldexpf((float)(mixed >> 8) - 0x1p23f, (int)(mixed & 15) - 30);
}

/* On the board, by messages, and by those that are lent where they lie: a sum is that of the ranks in their order. */
static gt_status order_body(net_comm *c, void *context)
{
    enum { LONGEST = 1500000 };
    static const int64_t lengths[] = { 100, 5000, 200000, 700000, LONGEST };
    const net_collective_options exchange = { .algorithm = "exchange" };
    const int rank = net_comm_rank(c), size = net_comm_size(c);
    void *own;
    (void)context;
    gt_status st = net_comm_memory(c, LONGEST * sizeof(float), &own);
    float *x = own;
    for (size_t n = 0; !st && n < sizeof lengths / sizeof *lengths; n++) {
        for (int64_t i = 0; i < lengths[n]; i++)
            x[i] = part_of_sum(rank, i);
        st = net_all_reduce(net_group_world(c), x, (size_t)lengths[n], NET_F32, &exchange);
        for (int64_t i = 0; !st && i < lengths[n]; i++) {
            float want = part_of_sum(0, i);
            for (int r = 1; r < size; r++)
                want += part_of_sum(r, i);
            if (memcmp(&x[i], &want, sizeof want))
                st = gt_fail(GT_MISMATCH, "element %lld of %lld is %g, not %g", (long long)i, (long long)lengths[n],
                             (double)x[i], (double)want);
        }
    }
    net_comm_memory_free(c, own);
    return st;
}

static void sums_of_any_length_are_made_in_the_order_of_ranks(void)
{
    for (int size = 2; size <= 4; size++) {
        CHECK_OK(ranks_run(size, "transport=shm", order_body, NULL));
        CHECK_OK(ranks_run(size, "transport=tcp", order_body, NULL));
    }
}

/* Two threads of a rank, a group each, at the same time. */
typedef struct busy {
    net_group *g;
    gt_status st;
    char sentence[512];
} busy;

static void *keep_busy(void *context)
{
    busy *b = context;
    void *x = malloc(4097 * 4 + GUARD);
    for (int i = 0; x && !b->st && i < 60; i++) {
        const probe p = {
            NET_OP_ALL_REDUCE, NET_F32, i % 2 ? 4097 : 33, 0, i % 3 ? "ring" : "recursive-doubling", NULL, NULL
        };
        b->st = check_one(b->g, &p, x);
    }
    if (b->st)
        snprintf(b->sentence, sizeof b->sentence, "%s", gt_message());
    free(x);
    return NULL;
}

static gt_status concurrent_body(net_comm *c, void *context)
{
    int all[8];
    (void)context;
    for (int r = 0; r < net_comm_size(c); r++)
        all[r] = r;
    busy two[2] = { { .g = NULL }, { .g = NULL } };
    pthread_t thread[2];
    for (int i = 0; i < 2; i++)
        RANK_OK(net_group_create(&two[i].g, c, all, net_comm_size(c)));
    for (int i = 0; i < 2; i++)
        RANK_CHECK(!pthread_create(&thread[i], NULL, keep_busy, &two[i]));
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    for (int i = 0; i < 2; i++) {
        if (two[i].st)
            return gt_fail(two[i].st, "%s", two[i].sentence);
        net_group_release(two[i].g);
    }
    return GT_OK;
}

static void groups_of_the_same_ranks_work_at_the_same_time(void)
{
    CHECK_OK(ranks_run(3, "transport=shm", concurrent_body, NULL));
    CHECK_OK(ranks_run(3, "transport=tcp", concurrent_body, NULL));
}

/* ---- in the background ------------------------------------------------------------------ */

static gt_status background_body(net_comm *c, void *context)
{
    enum { BUCKETS = 12, N = 5000 };
    net_group *g = net_group_world(c);
    const int rank = net_group_rank(g), size = net_group_size(g);
    net_collective *started[BUCKETS];
    (void)context;
    float *x = malloc((size_t)BUCKETS * N * sizeof *x);
    RANK_CHECK(x);
    for (int round = 0; round < 5; round++) {
        for (uint64_t i = 0; i < (uint64_t)BUCKETS * N; i++)
            x[i] = (float)value(rank, i);
        for (int b = 0; b < BUCKETS; b++)
            RANK_OK(net_all_reduce_start(g, x + (size_t)b * N, N, NET_F32, NULL, &started[b]));
        RANK_OK(net_barrier(g));                    /* blocking ones wait their turn */
        RANK_CHECK(net_collective_test(started[0]));
        for (int b = BUCKETS - 1; b >= 0; b--)
            RANK_OK(net_collective_wait(started[b]));
        for (int b = 0; b < BUCKETS; b++)
            for (uint64_t i = 0; i < N; i++)
                RANK_CHECK((int)x[(size_t)b * N + i] == total(size, (uint64_t)b * N + i));
        net_collective *scatter, *gather;
        for (uint64_t i = 0; i < N; i++)
            x[i] = (float)value(rank, i);
        RANK_OK(net_reduce_scatter_start(g, x, N, NULL, NET_F32, NULL, &scatter));
        RANK_OK(net_all_gather_start(g, x, N, NULL, NET_F32, NULL, &gather));
        RANK_OK(net_collective_wait(scatter));
        RANK_OK(net_collective_wait(gather));
        for (uint64_t i = 0; i < N; i++)
            RANK_CHECK((int)x[i] == total(size, i));
    }
    free(x);
    return GT_OK;
}

static void started_operations_run_in_order_beside_blocking_ones(void)
{
    for (int size = 1; size <= 4; size++)
        CHECK_OK(ranks_run(size, "transport=shm", background_body, NULL));
    CHECK_OK(ranks_run(3, "transport=tcp", background_body, NULL));
}

/* ---- mistakes --------------------------------------------------------------------------- */

typedef struct disagreement {
    int what;
} disagreement;

static gt_status disagree_over(net_group *g, int what)
{
    const int odd = net_group_rank(g) == 1;
    const net_collective_options ring = { .algorithm = "ring" }, tree = { .algorithm = "tree" },
                                 exchange = { .algorithm = "exchange" };
    float x[100] = { 0 };
    switch (what) {
    case 0: return net_all_reduce(g, x, odd ? 99 : 100, NET_F32, &ring);
    case 1: return net_all_reduce(g, x, 100, odd ? NET_I32 : NET_F32, &ring);
    case 2: return odd ? net_barrier(g) : net_all_reduce(g, x, 100, NET_F32, &ring);
    case 3: return net_broadcast(g, x, 100, NET_F32, odd, &tree);
    case 4: return net_all_reduce(g, x, 100, NET_F32, odd ? &ring : &tree);
    default: break;
    }
    gt_status st = net_all_reduce(g, x, 100, NET_F32, &exchange);       /* makes the board */
    if (st)
        return st;
    switch (what) {
    case 5: return net_all_reduce(g, x, odd ? 99 : 100, NET_F32, &exchange);
    case 6: return net_all_reduce(g, x, 100, odd ? NET_I32 : NET_F32, &exchange);
    case 7: return odd ? net_barrier(g) : net_all_reduce(g, x, 100, NET_F32, &exchange);
    case 8: return odd ? net_broadcast(g, x, 100, NET_F32, 1, &tree) : net_all_reduce(g, x, 100, NET_F32, &exchange);
    default: return net_all_reduce(g, x, 100, NET_F32, odd ? &ring : &exchange);
    }
}

/* Ranks that only send may be through before they hear of it; after the barrier they have. */
static gt_status disagreement_body(net_comm *c, void *context)
{
    const disagreement *q = context;
    gt_status st = disagree_over(net_group_world(c), q->what);
    st = st ? st : net_barrier(net_group_world(c));
    return st ? st : net_comm_check(c);
}

static void ranks_that_disagree_are_told_so_by_name(void)
{
    static const char *const says[][2] = {
        { "of 99 f32", "of 100 f32" },
        { "100 i32", "100 f32" },
        { "barrier", "all-reduce" },
        { "from rank 1", "from rank 0" },
        { "another algorithm", "all-reduce" },
        { "of 99 f32", "of 100 f32" },
        { "100 i32", "100 f32" },
        { "barrier", "all-reduce" },
        { "broadcast of 100 f32 from rank 1", "all-reduce" },
        { "another algorithm", "all-reduce" }
    };
    check_allow_warnings();
    for (int what = 0; what < 10; what++)
        for (int size = 2; size <= 3; size++) {
            ranks_result results[3];
            disagreement q = { what };
            ranks_run_each(size, what < 5 && what % 2 ? "transport=tcp" : "transport=shm", disagreement_body, &q,
                           results);
            int told = 0;
            for (int i = 0; i < size; i++)
                told += results[i].status == GT_PEER && strstr(results[i].sentence, "do not agree")
                        && strstr(results[i].sentence, says[what][0]) && strstr(results[i].sentence, says[what][1]);
            /* A rank may be done before the quarrel is noticed; whoever is not is told. */
            CHECKF(told >= 1, "quarrel %d of %d ranks: '%s'", what, size, results[0].sentence);
            for (int i = 0; i < size; i++)
                CHECKF(!results[i].status || strstr(results[i].sentence, "do not agree"), "quarrel %d, rank %d: '%s'",
                       what, i, results[i].sentence);
        }
}

/* A rank that gives up ends what the others have under way and all that comes after. */
static gt_status giving_up_body(net_comm *c, void *context)
{
    net_group *g = net_group_world(c);
    const char *algorithm = context;
    const net_collective_options options = { .algorithm = algorithm };
    net_collective *started[3];
    float *x = calloc(MOST, sizeof *x);
    RANK_CHECK(x);
    gt_status st = net_all_reduce(g, x, MOST, NET_F32, &options);
    if (!st && net_group_rank(g) == 1)
        st = net_comm_abort(c, 1, "rank 1 has had enough");
    int waits = 0;
    for (int i = 0; i < 3; i++)
        if (!net_all_reduce_start(g, x, MOST, NET_F32, &options, &started[waits]))
            waits++;
    for (int i = 0; i < waits; i++) {
        const gt_status one = net_collective_wait(started[i]);
        st = st ? st : one;
    }
    const gt_status last = net_barrier(g);
    free(x);
    return st ? st : last;
}

static void a_rank_that_gives_up_ends_everything_everywhere(void)
{
    static char *const some[] = { "ring", "direct", "exchange", "halving-doubling", "tree", "exchange" };
    check_allow_warnings();
    for (int i = 0; i < 6; i++)
        for (int size = 2; size <= 4; size++) {
            ranks_result results[4];
            ranks_run_each(size, i % 2 ? "transport=tcp" : "transport=shm", giving_up_body, some[i], results);
            for (int r = 0; r < size; r++)
                CHECKF(results[r].status == GT_PEER && strstr(results[r].sentence, "had enough"),
                       "%s on %d ranks, rank %d: '%s'", some[i], size, r, results[r].sentence);
        }
}

static gt_status misuse_body(net_comm *c, void *context)
{
    net_group *g = net_group_world(c);
    float x[10] = { 0 };
    const uint64_t short_parts[2] = { 4, 5 }, long_parts[2] = { 4, 7 };
    const double bad[2] = { 1.0, -1.0 };
    const net_collective_options unknown = { .algorithm = "rings" }, absent = { .algorithm = "recursive-doubling" },
                                 negative = { .algorithm = "direct", .weights = bad };
    (void)context;
    RANK_CHECK(net_all_reduce(g, x, 10, (net_type)9, NULL) == GT_MISUSE);
    RANK_CHECK(net_all_reduce(g, NULL, 10, NET_F32, NULL) == GT_MISUSE);
    RANK_CHECK(net_all_reduce(g, x, UINT64_MAX, NET_F32, NULL) == GT_MISUSE);
    RANK_CHECK(net_all_reduce(g, x, 10, NET_F32, &unknown) == GT_MISUSE);
    RANK_CHECK(strstr(gt_message(), "rings") && strstr(gt_message(), "halving-doubling"));
    RANK_CHECK(net_all_gather(g, x, 10, NULL, NET_F32, &absent) == GT_MISUSE);
    RANK_CHECK(net_broadcast(g, x, 10, NET_F32, 2, NULL) == GT_MISUSE);
    RANK_CHECK(net_broadcast(g, x, 10, NET_F32, -1, NULL) == GT_MISUSE);
    RANK_CHECK(net_reduce_scatter(g, x, 10, short_parts, NET_F32, NULL) == GT_MISUSE);
    RANK_CHECK(net_all_gather(g, x, 10, long_parts, NET_F32, NULL) == GT_MISUSE);
    RANK_CHECK(net_all_reduce(g, x, 10, NET_F32, &negative) == GT_MISUSE);
    return net_barrier(g);                          /* and none of it has done harm */
}

static void misuse_is_refused_before_anybody_is_bothered(void)
{
    CHECK_OK(ranks_run(2, "transport=shm", misuse_body, NULL));
}

/* ---- links ------------------------------------------------------------------------------ */

typedef struct measured {
    net_link_matrix m[4];
} measured;

static gt_status links_body(net_comm *c, void *context)
{
    measured *all = context;
    return net_links_measure(net_group_world(c), &all->m[net_comm_rank(c)]);
}

static void all_ranks_measure_the_same_matrix(void)
{
    for (int size = 1; size <= 4; size++) {
        measured all;
        memset(&all, 0, sizeof all);
        CHECK_OK(ranks_run(size, "transport=shm", links_body, &all));
        const net_link_matrix *m = &all.m[0];
        const size_t n = (size_t)size;
        for (int r = 0; r < size; r++) {
            const net_link_matrix *o = &all.m[r];
            CHECK(o->size == size);
            CHECK(!memcmp(m->latency, o->latency, n * n * sizeof(double)));
            CHECK(!memcmp(m->bandwidth, o->bandwidth, n * n * sizeof(double)));
            CHECK(!memcmp(m->uplink, o->uplink, n * sizeof(double)));
            CHECK(!memcmp(m->host, o->host, n * sizeof(uint64_t)));
            CHECK(m->add == o->add);
            for (int i = 0; i < size; i++)
                for (int j = 0; j < size; j++)
                    CHECKF(i == j
                               || (m->bandwidth[i * size + j] > 1e5 && m->latency[i * size + j] > 0.0
                                   && m->latency[i * size + j] < 1.0 && m->uplink[i] > 1e5),
                           "pair %d, %d", i, j);
        }
        for (int r = 0; r < size; r++)
            net_links_release(&all.m[r]);
    }
}

/* ---- blocks for every rank ------------------------------------------------------------------ */

static int block_value(int from, int to, uint64_t i)
{
    return from * 1000003 + to * 1009 + (int)i;
}

static gt_status change_places(net_comm *c, void *context)
{
    static const uint64_t blocks[] = { 0, 1, 33, 4097, 300001 };
    net_group *g = net_group_world(c);
    const int p = net_group_size(g), me = net_group_rank(g);
    (void)context;
    for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++)
        for (int started = 0; started < 2; started++) {
            const uint64_t n = blocks[b] * (uint64_t)p;
            int32_t *x = malloc((size_t)n * sizeof *x + 1);
            for (uint64_t i = 0; i < n; i++)
                x[i] = block_value(me, (int)(i / blocks[b]), i % blocks[b]);
            net_collective *r = NULL;
            if (started) {
                RANK_OK(net_all_to_all_start(g, x, n, NET_I32, &r));
                RANK_OK(net_collective_wait(r));
            } else {
                RANK_OK(net_all_to_all(g, x, n, NET_I32));
            }
            for (uint64_t i = 0; i < n; i++)
                RANK_CHECK(x[i] == block_value((int)(i / blocks[b]), me, i % blocks[b]));
            free(x);
        }
    int32_t odd[MANY + 1] = { 0 };
    RANK_CHECK(net_all_to_all(g, odd, (uint64_t)p + 1, NET_I32) == GT_MISUSE);
    RANK_CHECK(strstr(gt_message(), "no blocks for") != NULL);
    gt_message_clear();
    return GT_OK;
}

static void blocks_go_to_whom_they_are_for(void)
{
    CHECK_OK(ranks_run(2, "transport=shm", change_places, NULL));
    CHECK_OK(ranks_run(3, "transport=tcp", change_places, NULL));
    CHECK_OK(ranks_run(MANY, "transport=shm", change_places, NULL));
}

const check_case check_cases[] = {
    CASE(blocks_go_to_whom_they_are_for),
    CASE(every_collective_sums_over_shared_memory),
    CASE(every_collective_sums_over_tcp),
    CASE(every_collective_sums_on_many_ranks),
    CASE(every_collective_sums_when_messages_are_late_and_overtake),
    CASE(parts_and_shares_may_be_unequal_and_empty),
    CASE(hierarchical_sums_on_hosts_of_any_size),
    CASE(sums_of_reals_have_the_same_bits_on_all_ranks_and_in_all_runs),
    CASE(groups_of_some_ranks_sum_beside_the_world),
    CASE(ranks_that_share_memory_sum_on_a_board),
    CASE(sums_of_any_length_are_made_in_the_order_of_ranks),
    CASE(groups_of_the_same_ranks_work_at_the_same_time),
    CASE(started_operations_run_in_order_beside_blocking_ones),
    CASE(ranks_that_disagree_are_told_so_by_name),
    CASE(a_rank_that_gives_up_ends_everything_everywhere),
    CASE(misuse_is_refused_before_anybody_is_bothered),
    CASE(all_ranks_measure_the_same_matrix),
    { 0 }
};
