/* SPDX-License-Identifier: MIT */
/* tests/comm/test_comm.c - messages between ranks: every size, both ends first, many at once,
 * over every transport, healthy and faulty; and that nothing hangs when ranks disagree. */
#include "net/comm/group.h"
#include "tests/check.h"
#include "tests/comm/ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *const ways[] = { "transport=tcp", "transport=shm", "transport=shm shm-mode=copy",
                                    "transport=shm shm-mode=cma" };
enum { WAYS = sizeof ways / sizeof *ways };

static const size_t sizes[] = { 0, 1, 3, 64, 1000, 8192, 8193, 16384, 16385, 65536, 262145, 3000001 };
enum { SIZES = sizeof sizes / sizeof *sizes, LARGEST = 3000001 };

static unsigned char byte_of(int from, int to, size_t message, size_t i)
{
    return (unsigned char)((size_t)from * 7 + (size_t)to * 13 + message * 31 + i + (i >> 9));
}

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000 }, NULL);
}

static int holds(const unsigned char *p, size_t size, int from, int to, size_t message)
{
    for (size_t i = 0; i < size; i++)
        if (p[i] != byte_of(from, to, message, i))
            return 0;
    return 1;
}

/* Every rank sends every size to every rank, itself too; from arenas or from plain memory. */
typedef struct exchange {
    int arenas, late_receive, late_send;
} exchange;

static gt_status all_to_all(net_comm *c, void *context)
{
    const exchange *e = context;
    const int n = net_comm_size(c), me = net_comm_rank(c);
    for (size_t s = 0; s < SIZES; s++) {
        const size_t size = sizes[s];
        void *memory = NULL;
        if (e->arenas)
            RANK_OK(net_comm_memory(c, 2 * (size_t)n * (size + 1), &memory));
        else
            memory = malloc(2 * (size_t)n * (size + 1));
        unsigned char *out = memory, *in = out + (size_t)n * (size + 1);
        net_request *sends[16], *receives[16];
        memset(in, 0xee, (size_t)n * (size + 1));
        if (e->late_receive && me % 2)
            pause_ms(5);
        for (int p = 0; p < n; p++)
            RANK_OK(net_recv_start(c, p, (uint32_t)s, in + (size_t)p * (size + 1), size, &receives[p]));
        if (e->late_send && me % 2 == 0)
            pause_ms(5);
        for (int p = 0; p < n; p++) {
            unsigned char *m = out + (size_t)p * (size + 1);
            for (size_t i = 0; i < size; i++)
                m[i] = byte_of(me, p, s, i);
            RANK_OK(net_send_start(c, p, (uint32_t)s, m, size, &sends[p]));
        }
        for (int p = 0; p < n; p++) {
            RANK_OK(net_wait(sends[p]));
            RANK_OK(net_wait(receives[p]));
            RANK_CHECK(holds(in + (size_t)p * (size + 1), size, p, me, s));
            RANK_CHECK(in[(size_t)p * (size + 1) + size] == 0xee);
        }
        if (e->arenas)
            net_comm_memory_free(c, memory);
        else
            free(memory);
    }
    return GT_OK;
}

static void messages_arrive_whole(void)
{
    for (int w = 0; w < WAYS; w++)
        for (int arenas = 0; arenas < 2; arenas++)
            for (int n = 1; n <= 4; n += n == 2 ? 2 : 1)
                CHECKF(!ranks_run(n, ways[w], all_to_all, &(exchange){ arenas, 0, 0 }), "%s, %d ranks, arenas %d: %s",
                       ways[w], n, arenas, gt_message());
}

static void either_end_may_be_late(void)
{
    for (int w = 0; w < WAYS; w++)
        for (int late = 0; late < 2; late++)
            CHECKF(!ranks_run(2, ways[w], all_to_all, &(exchange){ 1, late, !late }), "%s: %s", ways[w], gt_message());
}

static void order_and_time_of_events_do_not_matter(void)
{
    static const char *const knobs[] = {
        "transport=tcp fault=delay=300us,reorder=1", "transport=shm fault=delay=300us,reorder=1",
        "transport=tcp fault=reorder=1,seed=5 eager=512", "transport=shm fault=reorder=1,seed=6 spin=0"
    };
    for (size_t i = 0; i < sizeof knobs / sizeof *knobs; i++)
        CHECKF(!ranks_run(3, knobs[i], all_to_all, &(exchange){ 0, 0, 0 }), "%s: %s", knobs[i], gt_message());
}

/* Far more in flight than any ring or socket buffer holds, started before anything is received. */
static gt_status flood(net_comm *c, void *context)
{
    enum { MANY = 3000, SIZE = 4000 };
    (void)context;
    const int me = net_comm_rank(c), other = 1 - me;
    unsigned char *out = malloc(SIZE), *in = malloc(SIZE);
    net_request **sends = calloc(MANY, sizeof *sends);
    for (size_t i = 0; i < SIZE; i++)
        out[i] = byte_of(me, other, 1, i);
    for (int i = 0; i < MANY; i++)
        RANK_OK(net_send_start(c, other, 9, out, SIZE, &sends[i]));
    for (int i = 0; i < MANY; i++) {
        net_request *r;
        RANK_OK(net_recv_start(c, other, 9, in, SIZE, &r));
        RANK_OK(net_wait(r));
        RANK_CHECK(holds(in, SIZE, other, me, 1));
    }
    for (int i = 0; i < MANY; i++)
        RANK_OK(net_wait(sends[i]));
    free(out);
    free(in);
    free(sends);
    return GT_OK;
}

static void a_flood_of_early_messages_is_held_back(void)
{
    for (int w = 0; w < WAYS; w++)
        CHECKF(!ranks_run(2, ways[w], flood, NULL), "%s: %s", ways[w], gt_message());
}

/* Nobody waits: the communicator's own thread must bring the bytes over. */
static gt_status unattended(net_comm *c, void *context)
{
    enum { SIZE = 8 << 20 };
    (void)context;
    unsigned char *p = malloc(SIZE);
    net_request *r;
    if (net_comm_rank(c) == 0) {
        for (size_t i = 0; i < SIZE; i++)
            p[i] = byte_of(0, 1, 2, i);
        RANK_OK(net_send_start(c, 1, 0, p, SIZE, &r));
    } else {
        RANK_OK(net_recv_start(c, 0, 0, p, SIZE, &r));
    }
    for (int i = 0; i < 2000 && !net_test(r); i++)
        pause_ms(5);
    RANK_CHECK(net_test(r));
    RANK_OK(net_wait(r));
    RANK_CHECK(net_comm_rank(c) == 0 || holds(p, SIZE, 0, 1, 2));
    free(p);
    return GT_OK;
}

static void transfers_go_on_while_nobody_waits(void)
{
    for (int w = 0; w < WAYS; w++)
        CHECKF(!ranks_run(2, ways[w], unattended, NULL), "%s: %s", ways[w], gt_message());
}

/* ---- transports of pairs ------------------------------------------------------------------------ */

static gt_status check_pairs(net_comm *c, void *context)
{
    const char *const *expected = context;      /* [rank * size + peer] */
    RANK_OK(net_comm_connect_all(c));
    for (int p = 0; p < net_comm_size(c); p++) {
        const char *want = expected[net_comm_rank(c) * net_comm_size(c) + p];
        if (strcmp(net_comm_transport(c, p), want))
            return gt_fail(GT_MISMATCH, "rank %d talks with rank %d by '%s', not '%s'", net_comm_rank(c), p,
                           net_comm_transport(c, p), want);
    }
    return all_to_all(c, &(exchange){ 1, 0, 0 });
}

/* 1, with a word about it: the transports are not this test's to choose. */
static int transport_is_given(void)
{
    if (getenv("GT_TEST_NET"))
        check_skip("GT_TEST_NET names the transport");
    return getenv("GT_TEST_NET") != NULL;
}

static void pairs_of_one_job_may_differ(void)
{
    if (transport_is_given())
        return;
    static const char *const expected[] = { "self", "shm", "tcp", "shm", "self", "tcp", "tcp", "tcp", "self" };
    CHECK_OK(ranks_run(3, "2:transport=tcp", check_pairs, (void *)(uintptr_t)expected));
}

static void an_order_of_transports_is_kept(void)
{
    if (transport_is_given())
        return;
    static const char *const expected[] = { "self", "tcp", "tcp", "self" };
    CHECK_OK(ranks_run(2, "transport=tcp,shm", check_pairs, (void *)(uintptr_t)expected));
}

static void pairs_with_nothing_in_common_say_so(void)
{
    if (transport_is_given())
        return;
    ranks_result r[2];
    check_allow_warnings();
    ranks_run_each(2, "0:transport=shm 1:transport=tcp", check_pairs, NULL, r);
    for (int k = 0; k < 2; k++)
        CHECKF(r[k].status == GT_PEER && strstr(r[k].sentence, "no transport works") && strstr(r[k].sentence, "shm")
                   && strstr(r[k].sentence, "tcp"),
               "rank %d: '%s'", k, r[k].sentence);
}

/* Both ends of many pairs call each other at once. */
static gt_status first_words(net_comm *c, void *context)
{
    (void)context;
    const int n = net_comm_size(c), me = net_comm_rank(c);
    unsigned char word = (unsigned char)me, heard[16];
    net_request *r[32];
    int count = 0;
    for (int i = 0; i < n; i++) {
        const int p = (me * 5 + i * 7) % n;         /* another order on every rank */
        if (p == me)
            continue;
        RANK_OK(net_send_start(c, p, 0, &word, 1, &r[count++]));
        RANK_OK(net_recv_start(c, p, 0, &heard[p], 1, &r[count++]));
    }
    for (int i = 0; i < count; i++)
        RANK_OK(net_wait(r[i]));
    return GT_OK;
}

static void calls_that_cross_are_one_link(void)
{
    for (int i = 0; i < 5; i++)
        CHECK_OK(ranks_run(9, i % 2 ? "transport=tcp" : "transport=shm", first_words, NULL));
}

/* ---- disagreement ------------------------------------------------------------------------------ */

static gt_status different_sizes(net_comm *c, void *context)
{
    const size_t *size = context;
    unsigned char *p = calloc(1, 1 << 20);
    net_request *r;
    gt_status st = net_comm_rank(c) == 0 ? net_send_start(c, 1, 4, p, size[0], &r)
                                         : net_recv_start(c, 0, 4, p, size[1], &r);
    if (!st)
        st = net_wait(r);
    if (!st && net_comm_rank(c) == 0)       /* an eager send is over early: wait for the news */
        st = net_recv_start(c, 1, 5, p, 1, &r);
    if (!st && net_comm_rank(c) == 0)
        st = net_wait(r);
    free(p);
    return st;
}

static void a_difference_of_sizes_is_named_on_both_ends(void)
{
    static const size_t cases[][2] = { { 10, 20 }, { 100000, 100001 }, { 10, 100000 }, { 100000, 10 }, { 0, 1 } };
    check_allow_warnings();
    for (int w = 0; w < 2; w++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            ranks_result r[2];
            char numbers[64];
            ranks_run_each(2, ways[w], different_sizes, (void *)(uintptr_t)cases[i], r);
            snprintf(numbers, sizeof numbers, "sends %zu bytes", cases[i][0]);
            for (int k = 0; k < 2; k++)
                CHECKF(r[k].status == GT_PEER && strstr(r[k].sentence, numbers) && strstr(r[k].sentence, "channel 4"),
                       "%s, %zu and %zu, rank %d: '%s'", ways[w], cases[i][0], cases[i][1], k, r[k].sentence);
        }
}

/* Three messages of one size, and then one that ranks do not agree on. */
typedef struct row_end {
    size_t before, sent, expected;
} row_end;

static gt_status different_at_last(net_comm *c, void *context)
{
    const row_end *e = context;
    const int sends = net_comm_rank(c) == 0;
    unsigned char *p = calloc(1, 1 << 20);
    gt_status st = GT_OK;
    for (int i = 0; !st && i < 4; i++) {
        net_request *r;
        const size_t size = i < 3 ? e->before : sends ? e->sent : e->expected;
        st = sends ? net_send_start(c, 1, 4, p, size, &r) : net_recv_start(c, 0, 4, p, size, &r);
        if (!st)
            st = net_wait(r);
    }
    if (!st && sends) {                     /* an eager send is over early: wait for the news */
        net_request *r;
        st = net_recv_start(c, 1, 5, p, 1, &r);
        if (!st)
            st = net_wait(r);
    }
    free(p);
    return st;
}

static void a_row_that_ends_in_another_size_is_named_on_both_ends(void)
{
    static const row_end cases[] = {
        { 100000, 100000, 10 }, { 100000, 10, 100000 }, { 100, 100000, 100 },
        { 100, 100, 100000 },   { 100000, 100000, 0 },  { 100000, 90000, 100000 },
    };
    check_allow_warnings();
    for (int w = 0; w < 2; w++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            ranks_result r[2];
            char numbers[64];
            ranks_run_each(2, ways[w], different_at_last, (void *)(uintptr_t)&cases[i], r);
            snprintf(numbers, sizeof numbers, "sends %zu bytes", cases[i].sent);
            for (int k = 0; k < 2; k++)
                CHECKF(r[k].status == GT_PEER && strstr(r[k].sentence, numbers)
                           && strstr(r[k].sentence, "message 3 on channel 4"),
                       "%s, case %zu, rank %d: '%s'", ways[w], i, k, r[k].sentence);
        }
}

/* A row of messages, `depth` in flight; of every eighth one `odd` bytes. Rank 0 sends. */
typedef struct row {
    size_t size, odd;
    int count, depth, late;
} row;

static size_t size_in_row(const row *w, int i)
{
    return i % 8 == 7 ? w->odd : w->size;
}

static gt_status send_row(net_comm *c, void *context)
{
    const row *w = context;
    const int sends = net_comm_rank(c) == 0;
    net_request *flight[64] = { NULL };
    void *memory;
    RANK_OK(net_comm_memory(c, (size_t)w->depth * w->size, &memory));
    for (int i = 0; i < w->count + w->depth; i++) {
        unsigned char *p = (unsigned char *)memory + (size_t)(i % w->depth) * w->size;
        net_request **r = &flight[i % w->depth];
        if (i >= w->depth) {
            const size_t size = size_in_row(w, i - w->depth);
            RANK_OK(net_wait(*r));
            RANK_CHECK(sends || holds(p, size, 0, 1, (size_t)(i - w->depth)));
        }
        if (i >= w->count)
            continue;
        const size_t size = size_in_row(w, i);
        if (w->late == 1 + sends && i % 16 == 3)
            pause_ms(2);
        for (size_t k = 0; sends && k < size; k++)
            p[k] = byte_of(0, 1, (size_t)i, k);
        RANK_OK(sends ? net_send_start(c, 1, 9, p, size, r) : net_recv_start(c, 0, 9, p, size, r));
    }
    net_comm_memory_free(c, memory);
    return GT_OK;
}

static void rows_of_windows_arrive_whole_and_in_order(void)
{
    static const row rows[] = {
        { 65536, 65536, 70, 32, 0 }, { 65536, 65536, 70, 32, 1 }, { 65536, 65536, 70, 32, 2 },
        { 65536, 100, 70, 32, 0 },   { 65536, 100, 70, 5, 2 },    { 300000, 8193, 40, 3, 1 },
        { 65536, 0, 40, 1, 0 },      { 9000, 8000, 200, 64, 1 },
    };
    for (int w = 0; w < WAYS; w++)
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            CHECK_OK(ranks_run(2, ways[w], send_row, (void *)(uintptr_t)&rows[i]));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK_OK(ranks_run(2, "transport=tcp fault=delay=1ms,reorder=1,seed=5", send_row, (void *)(uintptr_t)&rows[i]));
}

static gt_status different_operations(net_comm *c, void *context)
{
    (void)context;
    net_op *o;
    net_request *r = NULL;
    unsigned char byte = 0;
    const net_agreement what = { .kind = 1, .root = -1, .unit = "f32", .count = net_comm_rank(c) == 1 ? 2000 : 1000 };
    gt_status st = net_op_begin(net_group_world(c), "all-reduce", &what, &o);
    if (st)
        return st;
    /* All wait for data of the next rank that never come. */
    st = net_op_recv(o, (net_comm_rank(c) + 1) % net_comm_size(c), 0, (net_sink){ &byte, 1, NULL, 1, 0 }, &r);
    if (!st)
        st = net_wait(r);
    return net_op_end(o, st);
}

static void ranks_that_call_different_operations_are_named(void)
{
    ranks_result r[3];
    check_allow_warnings();
    ranks_run_each(3, "transport=tcp", different_operations, NULL, r);
    for (int k = 0; k < 3; k++)
        CHECKF(r[k].status == GT_PEER && strstr(r[k].sentence, "all-reduce of 2000 f32")
                   && strstr(r[k].sentence, "all-reduce of 1000 f32"),
               "rank %d: '%s'", k, r[k].sentence);
}

/* ---- trouble ----------------------------------------------------------------------------------- */

static gt_status talk_for_long(net_comm *c, void *context)
{
    unsigned char a[100] = { 0 }, b[100];
    (void)context;
    for (int i = 0; i < 100000; i++) {
        net_request *in, *out;
        RANK_OK(net_recv_start(c, 1 - net_comm_rank(c), 0, b, sizeof b, &in));
        RANK_OK(net_send_start(c, 1 - net_comm_rank(c), 0, a, sizeof a, &out));
        RANK_OK(net_wait(out));
        RANK_OK(net_wait(in));
    }
    return GT_OK;
}

static void lost_cut_and_broken_end_in_a_sentence(void)
{
    static const struct {
        const char *knobs, *says;
    } cases[] = { { "transport=tcp fault=drop=0.01,seed=3 stall-report=300ms stall-limit=1500ms heartbeat=100ms", "" },
                  { "transport=shm fault=drop=0.01,seed=4 stall-report=300ms stall-limit=1500ms heartbeat=100ms", "" },
                  { "transport=tcp fault=truncate=0.05,seed=3", "sends 50 bytes" },
                  { "transport=tcp fault=fail=200", "as the knob 'fault' wants it" } };
    check_allow_warnings();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ranks_result r[2];
        ranks_run_each(2, cases[i].knobs, talk_for_long, NULL, r);
        for (int k = 0; k < 2; k++)
            CHECKF(r[k].status == GT_PEER && strstr(r[k].sentence, cases[i].says), "%s, rank %d: '%s'", cases[i].knobs,
                   k, r[k].sentence);
    }
}

static void an_unknown_transport_or_fault_is_misuse(void)
{
    CHECK_FAILS(ranks_run(1, "transport=pigeon", all_to_all, &(exchange){ 0, 0, 0 }), GT_MISUSE, "pigeon");
    CHECK_FAILS(ranks_run(1, "fault=gremlins=1", all_to_all, &(exchange){ 0, 0, 0 }), GT_MISUSE, "gremlins");
}

/* ---- groups ------------------------------------------------------------------------------------ */

static gt_status two_groups(net_comm *c, void *context)
{
    (void)context;
    const int me = net_comm_rank(c);
    const int mine[2] = { me % 2 ? 3 : 2, me % 2 ? 1 : 0 };
    net_group *a, *b;
    RANK_OK(net_group_create(&a, c, mine, 2));
    RANK_OK(net_group_create(&b, c, mine, 2));
    RANK_CHECK(net_group_size(a) == 2 && net_group_member(a, net_group_rank(a)) == me);
    unsigned char out[2] = { (unsigned char)(me + 10), (unsigned char)(me + 20) }, in[2] = { 0 };
    const int other = 1 - net_group_rank(a);
    net_request *r[4];
    /* The same channel of two groups of the same ranks, in opposite orders. */
    RANK_OK(net_group_send_start(a, other, 1, &out[0], 1, 0, &r[0]));
    RANK_OK(net_group_send_start(b, other, 1, &out[1], 1, 0, &r[1]));
    RANK_OK(net_group_recv_start(b, other, 1, (net_sink){ &in[1], 1, NULL, 1, 0 }, &r[2]));
    RANK_OK(net_group_recv_start(a, other, 1, (net_sink){ &in[0], 1, NULL, 1, 0 }, &r[3]));
    for (int i = 0; i < 4; i++)
        RANK_OK(net_wait(r[i]));
    const int them = net_group_member(a, other);
    RANK_CHECK(in[0] == them + 10 && in[1] == them + 20);
    net_group_release(a);
    net_group_release(b);
    return GT_OK;
}

static void groups_keep_their_messages_apart(void)
{
    CHECK_OK(ranks_run(4, "transport=tcp", two_groups, NULL));
    CHECK_OK(ranks_run(4, "transport=shm", two_groups, NULL));
}

static gt_status bad_groups(net_comm *c, void *context)
{
    net_group *g;
    (void)context;
    RANK_CHECK(net_group_create(&g, c, (int[]){ 0, 0 }, 2) == GT_MISUSE);
    RANK_CHECK(net_group_create(&g, c, (int[]){ 0, 7 }, 2) == GT_MISUSE);
    RANK_CHECK(net_group_create(&g, c, (int[]){ 1 - net_comm_rank(c) }, 1) == GT_MISUSE);
    return GT_OK;
}

static void groups_that_cannot_be_are_refused(void)
{
    CHECK_OK(ranks_run(2, "transport=tcp", bad_groups, NULL));
}

const check_case check_cases[] = {
    CASE(messages_arrive_whole),
    CASE(either_end_may_be_late),
    CASE(order_and_time_of_events_do_not_matter),
    CASE(a_flood_of_early_messages_is_held_back),
    CASE(transfers_go_on_while_nobody_waits),
    CASE(pairs_of_one_job_may_differ),
    CASE(an_order_of_transports_is_kept),
    CASE(pairs_with_nothing_in_common_say_so),
    CASE(calls_that_cross_are_one_link),
    CASE(a_difference_of_sizes_is_named_on_both_ends),
    CASE(a_row_that_ends_in_another_size_is_named_on_both_ends),
    CASE(rows_of_windows_arrive_whole_and_in_order),
    CASE(ranks_that_call_different_operations_are_named),
    CASE(lost_cut_and_broken_end_in_a_sentence),
    CASE(an_unknown_transport_or_fault_is_misuse),
    CASE(groups_keep_their_messages_apart),
    CASE(groups_that_cannot_be_are_refused),
    { 0 }
};
