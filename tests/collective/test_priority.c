/* SPDX-License-Identifier: MIT */
/* tests/collective/test_priority.c - what is urgent overtakes what waits, and nothing but the order changes.
 *
 *   rank 0   7 7 7 7 7 7 7 7 ... then 2 2 2 2          all started before rank 1 takes a byte
 *   rank 1   [ gate ] 7 7 7 │ 2 2 2 2 │ 7 7 7 7 ...    the order in which bytes arrived, from the sinks themselves
 *
 * The receiver's sinks note every piece as it comes, and the first one waits until the sender has started all: so the
 * order is a matter of the queue alone, on any machine. Ranks are threads of this process. */
#include "net/collective/collective.h"
#include "tests/check.h"
#include "tests/comm/ranks.h"

#include "host/base/clock.h"
#include "host/base/random.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the order of pieces ------------------------------------------------------------------------------ */

enum { LARGE = 64, URGENT = 4, NOTES = 1 << 16 };

/* A piece arrived: of the urgent operation, or of the large one. */
static struct {
    unsigned char urgent[NOTES];
    uint32_t bytes[NOTES];
    int count;
    const unsigned char *urgent_from, *urgent_to;
    atomic_int open;
} arrivals;

/* A sink's reduce. The first one waits for the sender, which needs nothing of this rank meanwhile. */
static void note(void *to, const void *from, size_t bytes)
{
    const unsigned char *at = to;
    for (uint64_t begin = gt_now_ns(); !atomic_load(&arrivals.open) && gt_now_ns() - begin < 20000000000u;)
        ;
    memcpy(to, from, bytes);
    if (arrivals.count < NOTES) {
        arrivals.urgent[arrivals.count] = at >= arrivals.urgent_from && at < arrivals.urgent_to;
        arrivals.bytes[arrivals.count++] = (uint32_t)bytes;
    }
}

typedef struct plan {
    size_t large, urgent;               /* bytes of a message                                    */
    int arena;                          /* messages lie in an arena                              */
    int overtakes;                      /* expected                                              */
} plan;

static void take_overtaken(void *context, const char *transport, const char *name, uint64_t value)
{
    if (!strcmp(transport, "queue") && !strcmp(name, "sends overtaken"))
        *(uint64_t *)context = value;
}

static uint64_t overtaken(net_comm *c)
{
    uint64_t n = 0;
    net_comm_counters(c, take_overtaken, &n);
    return n;
}

static gt_status two_operations(net_comm *c, net_group *group[2], net_op *op[2])
{
    const net_agreement what = { .kind = NET_OP_PS, .root = -1, .count = 1 };
    for (int i = 0; i < 2; i++) {
        RANK_OK(net_group_create(&group[i], c, (int[]){ 0, 1 }, 2));
        RANK_OK(net_op_begin(group[i], "test", &what, &op[i]));
    }
    return GT_OK;
}

static gt_status send_all(net_comm *c, const plan *p, net_op *op[2], unsigned char *data, uint64_t *waiting)
{
    net_request *r[LARGE + URGENT], *posted;
    char word;
    RANK_OK(net_recv_start(c, 1, 1, &word, 1, &posted));
    RANK_OK(net_wait(posted));          /* all receives are: their windows were told of before */
    net_op_priority(op[0], 7);
    net_op_priority(op[1], 2);
    for (int i = 0; i < LARGE; i++)
        RANK_OK(net_op_send(op[0], 1, (uint32_t)i, data + (size_t)i * p->large, p->large, &r[i]));
    const uint64_t before = overtaken(c);
    for (int i = 0; i < URGENT; i++) {
        RANK_OK(net_op_send(op[1], 1, (uint32_t)i, data + LARGE * p->large + (size_t)i * p->urgent, p->urgent,
                            &r[LARGE + i]));
        if (!i)
            *waiting = overtaken(c) - before;
    }
    atomic_store(&arrivals.open, 1);
    for (int i = 0; i < LARGE + URGENT; i++)
        RANK_OK(net_wait(r[i]));
    return GT_OK;
}

static gt_status receive_all(net_comm *c, const plan *p, net_op *op[2], unsigned char *data)
{
    net_request *r[LARGE + URGENT], *posted;
    for (int i = 0; i < LARGE; i++)
        RANK_OK(
            net_op_recv(op[0], 0, (uint32_t)i, (net_sink){ data + (size_t)i * p->large, p->large, note, 1, 0 }, &r[i]));
    for (int i = 0; i < URGENT; i++)
        RANK_OK(net_op_recv(op[1], 0, (uint32_t)i,
                            (net_sink){ data + LARGE * p->large + (size_t)i * p->urgent, p->urgent, note, 1, 0 },
                            &r[LARGE + i]));
    RANK_OK(net_send_start(c, 0, 1, "p", 1, &posted));
    RANK_OK(net_wait(posted));
    for (int i = 0; i < LARGE + URGENT; i++)
        RANK_OK(net_wait(r[i]));
    return GT_OK;
}

/* waiting: large messages that had not left when the first urgent one was started. */
static gt_status check_order(const plan *p, uint64_t waiting)
{
    uint64_t before = 0, between = 0, after = 0, urgent = 0;
    for (int i = 0; i < arrivals.count; i++) {
        if (arrivals.urgent[i])
            urgent += arrivals.bytes[i];
        else if (!urgent)
            before += arrivals.bytes[i];
        else if (urgent < URGENT * p->urgent)
            between += arrivals.bytes[i];
        else
            after += arrivals.bytes[i];
    }
    RANK_CHECK(arrivals.count < NOTES && urgent == URGENT * p->urgent);
    RANK_CHECK(before + between + after == LARGE * p->large);
    RANK_CHECK(between == 0);
    RANK_CHECK(after == waiting * p->large);
    RANK_CHECK(p->overtakes ? waiting >= LARGE / 4 : waiting == 0);
    return GT_OK;
}

static gt_status order_body(net_comm *c, void *context)
{
    const plan *p = context;
    const int rank = net_comm_rank(c);
    const size_t size = LARGE * p->large + URGENT * p->urgent;
    net_group *group[2];
    net_op *op[2];
    void *data = NULL;
    uint64_t waiting = 0;
    net_request *told;
    if (p->arena)
        RANK_OK(net_comm_memory(c, size, &data));
    else
        data = calloc(1, size);
    RANK_CHECK(data);
    for (size_t i = 0; !rank && i < size; i++)
        ((unsigned char *)data)[i] = (unsigned char)(i * 7 + (i >> 9));
    if (rank) {
        arrivals.count = 0;
        arrivals.urgent_from = (unsigned char *)data + LARGE * p->large;
        arrivals.urgent_to = (unsigned char *)data + size;
        atomic_store(&arrivals.open, 0);
    }
    RANK_OK(two_operations(c, group, op));
    gt_status st = rank ? receive_all(c, p, op, data) : send_all(c, p, op, data, &waiting);
    for (int i = 0; i < 2; i++) {
        const gt_status ended = net_op_end(op[i], st);
        st = st ? st : ended;
    }
    RANK_OK(st);
    for (size_t i = 0; rank && i < size; i++)
        RANK_CHECK(((unsigned char *)data)[i] == (unsigned char)(i * 7 + (i >> 9)));
    RANK_OK(rank ? net_recv_start(c, 0, 2, &waiting, sizeof waiting, &told)
                 : net_send_start(c, 1, 2, &waiting, sizeof waiting, &told));
    RANK_OK(net_wait(told));
    if (rank)
        RANK_OK(check_order(p, waiting));
    for (int i = 0; i < 2; i++)
        net_group_release(group[i]);
    if (!p->arena)
        free(data);
    return GT_OK;
}

static void urgent_windows_overtake_over_tcp(void)
{
    CHECK_OK(ranks_run(2, "transport=tcp tcp-buffer=128KiB", order_body,
                       &(plan){ .large = 256 << 10, .urgent = 64 << 10, .overtakes = 1 }));
}

static void urgent_small_messages_overtake_over_tcp(void)
{
    CHECK_OK(ranks_run(2, "transport=tcp tcp-buffer=64KiB", order_body,
                       &(plan){ .large = 32 << 10, .urgent = 4 << 10, .overtakes = 1 }));
    CHECK_OK(ranks_run(2, "transport=tcp tcp-buffer=64KiB", order_body,
                       &(plan){ .large = 128 << 10, .urgent = 4 << 10, .overtakes = 1 }));
}

static void urgent_windows_overtake_over_shared_memory(void)
{
    for (int arena = 0; arena < 2; arena++)
        CHECK_OK(ranks_run(2, "transport=shm", order_body,
                           &(plan){ .large = 256 << 10, .urgent = 64 << 10, .arena = arena, .overtakes = 1 }));
}

static void without_priorities_nothing_overtakes(void)
{
    CHECK_OK(ranks_run(2, "transport=tcp tcp-buffer=128KiB priorities=0", order_body,
                       &(plan){ .large = 256 << 10, .urgent = 64 << 10 }));
    CHECK_OK(ranks_run(2, "transport=shm priorities=0", order_body, &(plan){ .large = 256 << 10, .urgent = 64 << 10 }));
}

/* Rank 0 gives up with most of its sends still waiting: everybody is told, and nothing of them is lost or left. */
static gt_status give_up_body(net_comm *c, void *context)
{
    const plan *p = context;
    const size_t size = LARGE * p->large;
    net_group *group[2];
    net_op *op[2];
    net_request *r[LARGE], *posted;
    char word = 'p';
    unsigned char *data = calloc(1, size);
    RANK_CHECK(data);
    RANK_OK(two_operations(c, group, op));
    net_op_priority(op[0], 7);
    gt_status st = GT_OK;
    for (int i = 0; !st && net_comm_rank(c) && i < LARGE; i++)
        st = net_op_recv(op[0], 0, (uint32_t)i, (net_sink){ data + (size_t)i * p->large, p->large, note, 1, 0 }, &r[i]);
    RANK_OK(st);
    RANK_OK(net_comm_rank(c) ? net_send_start(c, 0, 1, &word, 1, &posted) : net_recv_start(c, 1, 1, &word, 1, &posted));
    RANK_OK(net_wait(posted));
    for (int i = 0; !st && !net_comm_rank(c) && i < LARGE; i++)
        st = net_op_send(op[0], 1, (uint32_t)i, data + (size_t)i * p->large, p->large, &r[i]);
    if (!net_comm_rank(c))
        st = net_comm_abort(c, 0, "had enough");
    atomic_store(&arrivals.open, 1);
    for (int i = 1; i >= 0; i--) {
        const gt_status ended = net_op_end(op[i], i ? GT_OK : st);  /* waits for all, or gives them up */
        st = st ? st : ended;
        net_group_release(group[i]);
    }
    free(data);
    return st;
}

static void a_job_that_ends_gives_up_what_waits(void)
{
    static const char *const knobs[] = { "transport=tcp tcp-buffer=128KiB", "transport=shm" };
    for (int k = 0; k < 2; k++) {
        ranks_result results[2];
        arrivals.count = 0;
        atomic_store(&arrivals.open, 0);
        ranks_run_each(2, knobs[k], give_up_body, &(plan){ .large = 256 << 10 }, results);
        for (int r = 0; r < 2; r++)
            CHECKF(results[r].status == GT_PEER && strstr(results[r].sentence, "had enough"), "rank %d over %s: '%s'",
                   r, knobs[k], results[r].sentence);
    }
}

/* ---- collectives, in any order -------------------------------------------------------------------------- */

enum { GROUPS = 4, EACH = 6, MOST = 60000 };

typedef struct storm {
    uint64_t seed;
    int by_rank;                        /* 1: every rank has priorities of its own               */
    float *first;                       /* of rank 0: the sums of an earlier run, or room for them */
    int compares;
} storm;

static uint64_t length(uint64_t seed, int which)
{
    gt_random r;
    gt_random_init(&r, seed, (uint64_t)which);
    return 1 + (uint64_t)(gt_random_unit(&r) * gt_random_unit(&r) * (MOST - 1));
}

static gt_status begin_one(net_group *g, float *x, uint64_t n, int which, uint32_t priority, net_collective **out)
{
    static const double equal[] = { 1.0, 1.0, 1.0, 1.0 };
    const int direct = which % 3 == 2;
    const net_collective_options options = {
        .algorithm = direct ? "direct" : "ring", .weights = direct ? equal : NULL, .priority = priority
    };
    return which % 2 ? net_all_reduce_start(g, x, n, NET_F32, &options, out)
                     : net_all_gather_start(g, x, n, NULL, NET_F32, &options, out);
}

/* Operations of a group in one order everywhere; between groups, each rank has its own, and its own pauses. */
static gt_status storm_body(net_comm *c, void *context)
{
    const storm *s = context;
    const int rank = net_comm_rank(c), size = net_comm_size(c);
    net_group *group[GROUPS];
    net_collective *under_way[GROUPS * EACH] = { 0 };
    int ranks[8], next[GROUPS] = { 0 };
    gt_random r;
    gt_random_init(&r, s->seed + 1, s->by_rank ? (uint64_t)rank : 0);
    for (int i = 0; i < size; i++)
        ranks[i] = i;
    for (int g = 0; g < GROUPS; g++)
        RANK_OK(net_group_create(&group[g], c, ranks, size));
    float *x = malloc((size_t)GROUPS * EACH * MOST * sizeof *x);
    RANK_CHECK(x);
    for (size_t i = 0; i < (size_t)GROUPS * EACH * MOST; i++)
        x[i] = (float)((i * 2654435761u >> 7 & 1023) + (unsigned)rank) * 1e-3f;
    for (int left = GROUPS * EACH; left;) {
        const int g = (int)(gt_random_unit(&r) * GROUPS);
        if (next[g] == EACH)
            continue;
        const int which = g * EACH + next[g]++;
        RANK_OK(begin_one(group[g], x + (size_t)which * MOST, length(s->seed, which), which,
                          (uint32_t)(gt_random_unit(&r) * 4), &under_way[which]));
        for (uint64_t until = gt_now_ns() + (uint64_t)(gt_random_unit(&r) * 2e5); gt_now_ns() < until;)
            ;
        left--;
    }
    for (int i = GROUPS * EACH - 1; i >= 0; i--)
        RANK_OK(net_collective_wait(under_way[i]));
    for (int i = 0; i < GROUPS * EACH; i++) {
        const size_t at = (size_t)i * MOST;
        const size_t bytes = length(s->seed, i) * sizeof *x;
        if (!rank && !s->compares)
            memcpy(s->first + at, x + at, bytes);
        else if (s->compares)           /* the same on all ranks, and in all runs */
            RANK_CHECK(!memcmp(s->first + at, x + at, bytes));
    }
    for (int g = 0; g < GROUPS; g++)
        net_group_release(group[g]);
    free(x);
    return GT_OK;
}

static void any_order_gives_the_same_bits_and_ends(void)
{
    static const char *const knobs[] = { "transport=tcp pipeline=8KiB tcp-buffer=64KiB",
                                         "transport=shm pipeline=16KiB fault=delay=50us",
                                         "transport=tcp pipeline=16KiB fault=delay=100us,reorder=1" };
    float *first = calloc((size_t)GROUPS * EACH * MOST, sizeof *first);
    CU_ASSERT_PTR_NOT_NULL_FATAL(first);
    for (int size = 2; size <= 3; size++)
        for (uint64_t seed = 1; seed <= 2; seed++) {
            CHECK_OK(ranks_run(size, "transport=tcp priorities=0 pipeline=16KiB", storm_body,
                               &(storm){ .seed = seed, .first = first }));
            for (size_t k = 0; k < sizeof knobs / sizeof *knobs; k++)
                CHECK_OK(ranks_run(size, knobs[k], storm_body,
                                   &(storm){ .seed = seed, .by_rank = 1, .first = first, .compares = 1 }));
        }
    free(first);
}

const check_case check_cases[] = {
    CASE(urgent_windows_overtake_over_tcp),
    CASE(urgent_small_messages_overtake_over_tcp),
    CASE(urgent_windows_overtake_over_shared_memory),
    CASE(without_priorities_nothing_overtakes),
    CASE(a_job_that_ends_gives_up_what_waits),
    CASE(any_order_gives_the_same_bits_and_ends),
    { 0 }
};
