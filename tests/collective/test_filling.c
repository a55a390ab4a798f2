/* SPDX-License-Identifier: MIT */
/* tests/collective/test_filling.c - sums of what is still being read when they begin.
 *
 *   source ── piece 0 of all parts, 1, 2, ... as until() asks ──► x, which holds something else before
 *
 * Ranks are threads of this process with a communicator each. A piece that was filled too late would be counted twice
 * or not at all, since its reader writes over whatever the sum has put there.                           */
#include "tests/check.h"
#include "tests/comm/ranks.h"

#include "host/base/clock.h"
#include "host/base/random.h"
#include "net/collective/collective.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { PIECES = 5, MOST = 6 };

typedef struct reader {
    const unsigned char *source;
    unsigned char *x;
    uint64_t count;
    size_t grain;
    int scatters, parts, read;          /* read: pieces of parts that are there */
    gt_status (*before_last)(void *context);
    void *context;
} reader;

/* Parts are cut at lines, and those of a reduce-scatter where its caller says. */
static uint64_t part_begin(const reader *r, int i)
{
    const uint64_t line = r->scatters ? 1 : 64 / r->grain;
    uint64_t first, some;
    if (i == r->parts)
        return r->count;
    net_part((r->count + line - 1) / line, r->parts, i, &first, &some);
    return first * line < r->count ? first * line : r->count;
}

static void piece_at(const reader *r, int n, uint64_t *from, uint64_t *end)
{
    const uint64_t line = 64 / r->grain, begin = part_begin(r, n % r->parts);
    const uint64_t size = part_begin(r, n % r->parts + 1) - begin;
    uint64_t first, some;
    net_part((size + line - 1) / line, PIECES, n / r->parts, &first, &some);
    *from = begin + (first * line < size ? first * line : size);
    *end = begin + ((first + some) * line < size ? (first + some) * line : size);
}

static gt_status until(void *context, uint64_t from, uint64_t count)
{
    reader *r = context;
    int last = -1;
    uint64_t begin, end;
    gt_status st = GT_OK;
    for (int n = 0; n < r->parts * PIECES; n++) {
        piece_at(r, n, &begin, &end);
        last = begin < from + count && from < end ? n : last;
    }
    if (last >= r->parts * (PIECES - 1) && r->before_last)
        st = r->before_last(r->context);
    for (; !st && r->read <= last; r->read++) {
        piece_at(r, r->read, &begin, &end);
        memcpy(r->x + begin * r->grain, r->source + begin * r->grain, (end - begin) * r->grain);
    }
    return st;
}

/* ---- bits --------------------------------------------------------------------------------------- */

typedef struct trial {
    const char *algorithm;
    net_kind kind;
    net_type type;
    int started;
} trial;

static gt_status sum(net_group *g, const trial *t, void *x, uint64_t count, const net_filling *filling)
{
    const double equal[MOST] = { 1, 1, 1, 1, 1, 1 };        /* measured shares might differ */
    const net_collective_options options = { .algorithm = t->algorithm, .weights = equal, .filling = filling };
    net_collective *under_way;
    if (!t->started)
        return t->kind == NET_OP_ALL_REDUCE ? net_all_reduce(g, x, count, t->type, &options)
                                            : net_reduce_scatter(g, x, count, NULL, t->type, &options);
    RANK_OK(t->kind == NET_OP_ALL_REDUCE ? net_all_reduce_start(g, x, count, t->type, &options, &under_way)
                                         : net_reduce_scatter_start(g, x, count, NULL, t->type, &options, &under_way));
    return net_collective_wait(under_way);
}

static gt_status both_ways(net_group *g, const trial *t, uint64_t count, unsigned char *source, unsigned char *whole,
                           unsigned char *x)
{
    const size_t grain = net_type_size(t->type);
    const int rank = net_group_rank(g), size = net_group_size(g);
    uint64_t from = 0, some = count;
    gt_random random;
    gt_random_init(&random, 7, (uint64_t)rank);
    for (uint64_t i = 0; i < count; i++) {
        const float v = (float)((double)gt_random_below(&random, 2000001) * 1e-6 - 1.0);
        uint32_t u;
        memcpy(&u, &v, sizeof u);
        memcpy(source + i * grain, (const char *)&u + 4 - grain, grain);    /* bf16: its upper half */
    }
    memcpy(whole, source, count * grain);
    memset(x, 0x3e, count * grain);     /* other numbers */
    RANK_OK(sum(g, t, whole, count, NULL));
    reader r = { .source = source,
                 .x = x,
                 .count = count,
                 .grain = grain,
                 .parts = size,
                 .scatters = t->kind == NET_OP_REDUCE_SCATTER };
    const net_filling filling = { until, &r };
    RANK_OK(sum(g, t, x, count, &filling));
    for (; r.read < size * PIECES; r.read++) { /* what was not asked for is empty */
        uint64_t begin, end;
        piece_at(&r, r.read, &begin, &end);
        RANK_CHECK(begin == end);
    }
    if (t->kind == NET_OP_REDUCE_SCATTER)
        net_part(count, size, rank, &from, &some);
    for (uint64_t i = from; i < from + some; i++)
        if (memcmp(whole + i * grain, x + i * grain, grain))
            return gt_fail(GT_MISMATCH, "%s of %d ranks, %llu elements: element %llu differs", t->algorithm, size,
                           (unsigned long long)count, (unsigned long long)i);
    return GT_OK;
}

static gt_status bits_body(net_comm *c, void *context)
{
    static const uint64_t counts[] = { 0, 1, 33, 10007 };
    unsigned char *room = malloc((size_t)3 * 4 * 10007);
    gt_status st = room ? GT_OK : gt_fail(GT_NO_MEMORY, "no memory for a test's vectors");
    for (size_t i = 0; !st && i < sizeof counts / sizeof *counts; i++)
        st = both_ways(net_group_world(c), context, counts[i], room, room + (size_t)4 * 10007,
                       room + (size_t)8 * 10007);
    free(room);
    return st;
}

static void sums_of_what_comes_meanwhile_have_the_same_bits(void)
{
    static const char *const all[] = { "ring",         "direct",  "halving-doubling", "recursive-doubling",
                                       "hierarchical", "exchange" };
    for (size_t a = 0; a < sizeof all / sizeof *all; a++)
        for (int size = 2; size <= MOST; size++) {
            trial t = { all[a], NET_OP_ALL_REDUCE, size % 2 ? NET_BF16 : NET_F32, size > 3 };
            CHECK_OK(ranks_run(size, "transport=tcp pipeline=2KiB", bits_body, &t));
            t.kind = NET_OP_REDUCE_SCATTER;
            if (a < 3 || a == 5)
                CHECK_OK(ranks_run(size, "transport=shm pipeline=2KiB", bits_body, &t));
        }
}

/* ---- order -------------------------------------------------------------------------------------- */

typedef struct meeting {
    const char *algorithm;
    net_kind kind;
    _Atomic(net_comm *) comm[MOST];
    uint64_t before;
    int fails;
} meeting;

/* Rank 0 has the last pieces only when rank 1 has got some of the first ones. */
static gt_status first_have_arrived(void *context)
{
    meeting *m = context;
    const uint64_t begun = gt_now_ns();
    uint64_t sent, received;
    for (;;) {
        net_comm_traffic(atomic_load(&m->comm[1]), &sent, &received);
        if (received >= m->before + 16384)
            return GT_OK;
        if (gt_now_ns() - begun > UINT64_C(60000000000))
            return gt_fail(GT_MISMATCH, "%s sends nothing before all is there", m->algorithm);
        sched_yield();
    }
}

static gt_status no_more_comes(void *context)
{
    (void)context;
    return gt_fail(GT_DEVICE, "the last pieces are lost");
}

static gt_status order_body(net_comm *c, void *context)
{
    enum { COUNT = 1 << 16 };
    meeting *m = context;
    net_group *g = net_group_world(c);
    const int rank = net_group_rank(g);
    const trial t = { m->algorithm, m->kind, NET_F32, 0 };
    float *x = malloc(COUNT * sizeof *x), *source = malloc(COUNT * sizeof *source);
    uint64_t sent;
    RANK_CHECK(x && source);
    for (int i = 0; i < COUNT; i++) {
        x[i] = 0.5f;
        source[i] = (float)(i % 1000 + rank);
    }
    reader r = { .source = (unsigned char *)source,
                 .x = (unsigned char *)x,
                 .count = COUNT,
                 .grain = 4,
                 .parts = net_group_size(g),
                 .context = m,
                 .scatters = m->kind == NET_OP_REDUCE_SCATTER };
    const net_filling filling = { until, &r };
    if (m->fails)
        r.before_last = rank == 1 ? no_more_comes : NULL;
    else
        r.before_last = rank == 0 ? first_have_arrived : NULL;
    atomic_store(&m->comm[rank], c);
    gt_status st = net_barrier(g);
    if (rank == 0)
        net_comm_traffic(atomic_load(&m->comm[1]), &sent, &m->before);
    if (!st)
        st = sum(g, &t, x, COUNT, &filling);
    uint64_t from = 0, some = COUNT;
    if (r.scatters)
        net_part(COUNT, r.parts, rank, &from, &some);
    for (uint64_t i = from; !st && i < from + some; i++) {
        float want = 0.0f;
        for (int k = 0; k < r.parts; k++)
            want += (float)((int)i % 1000 + k);
        if (x[i] < want || x[i] > want)
            st = gt_fail(GT_MISMATCH, "%s: element %llu is %g", m->algorithm, (unsigned long long)i, (double)x[i]);
    }
    free(x);
    free(source);
    return st;
}

/* Direct sums of all ranks cut by the measured links. */
static void the_first_pieces_travel_before_the_last_are_there(void)
{
    for (int size = 2; size <= 4; size++)
        for (int way = 0; way < 3; way++) {
            meeting m = { .algorithm = way == 2 ? "direct" : "ring",
                          .kind = way ? NET_OP_REDUCE_SCATTER : NET_OP_ALL_REDUCE };
            CHECK_OK(ranks_run(size, "transport=tcp pipeline=2KiB", order_body, &m));
        }
}

static void pieces_that_do_not_come_end_the_sum_by_name(void)
{
    static const char *const those[] = { "ring", "direct", "halving-doubling" };
    for (size_t a = 0; a < 3; a++) {
        meeting m = { .algorithm = those[a], .kind = NET_OP_ALL_REDUCE, .fails = 1 };
        ranks_result results[3];
        ranks_run_each(3, "transport=tcp pipeline=2KiB", order_body, &m, results);
        for (int i = 0; i < 3; i++)
            CHECKF(results[i].status != GT_OK && strstr(results[i].sentence, "the last pieces are lost")
                       && (i == 1 || strstr(results[i].sentence, "rank 1")),
                   "%s, rank %d: %s", those[a], i, results[i].sentence);
        CHECK(results[1].status == GT_DEVICE);
    }
}

const check_case check_cases[] = { CASE(sums_of_what_comes_meanwhile_have_the_same_bits),
                                   CASE(the_first_pieces_travel_before_the_last_are_there),
                                   CASE(pieces_that_do_not_come_end_the_sum_by_name),
                                   { 0 } };
