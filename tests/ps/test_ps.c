/* SPDX-License-Identifier: MIT */
/* tests/ps/test_ps.c - the parameter server: synchronous pushes are plain sums whoever is late,
 * staleness is honoured, versions count, servers may be anywhere.
 *
 * Ranks are threads of this process with a communicator each, over real transports.      */
#include "net/ps/ps.h"
#include "tests/check.h"
#include "tests/comm/ranks.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { KEYS = 5, LONGEST = 70001 };
static const uint64_t lengths[KEYS] = { 1, 1000, 33, LONGEST, 4096 };

static float initial_of(uint32_t key, uint64_t i)
{
    return (float)((key * 3 + i) % 11);
}

static float gradient_of(int rank, uint32_t key, int step, uint64_t i)
{
    return (float)(((uint64_t)rank * 5 + key + (uint64_t)step * 7 + i) % 13) - 6.0f;
}

static void pause_ms(int ms)
{
    nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000L }, NULL);
}

static int among(const int *list, int count, int rank)
{
    if (!list)
        return 1;
    for (int i = 0; i < count; i++)
        if (list[i] == rank)
            return 1;
    return 0;
}

/* ---- synchronous ------------------------------------------------------------------------ */

typedef struct plan {
    int ranks;
    net_ps_options options;
    const char *knobs;
} plan;

static gt_status synchronous_body(net_comm *c, void *context)
{
    enum { ROUNDS = 4 };
    const plan *p = context;
    net_group *g = net_group_world(c);
    const int rank = net_group_rank(g), size = net_group_size(g);
    float *initial[KEYS], *x = malloc(LONGEST * sizeof *x), *grad[KEYS];
    net_ps *ps;
    RANK_CHECK(x);
    for (uint32_t k = 0; k < KEYS; k++) {
        initial[k] = malloc(lengths[k] * sizeof *x);
        grad[k] = malloc(lengths[k] * sizeof *x);
        RANK_CHECK(initial[k] && grad[k]);
        for (uint64_t i = 0; i < lengths[k]; i++)
            initial[k][i] = initial_of(k, i);
    }
    RANK_OK(net_ps_open(&ps, g, &p->options, lengths, KEYS, (const float *const *)initial));
    const int works = among(p->options.workers, p->options.worker_count, rank);
    gt_status st = GT_OK;
    for (int step = 0; works && !st && step < ROUNDS; step++) {
        net_ps_request *push[KEYS] = { NULL }, *pull;
        if (rank % 2)
            pause_ms(3);                        /* late: the order of arrival varies */
        for (uint32_t n = 0; !st && n < KEYS; n++) {
            const uint32_t k = (n + (uint32_t)rank) % KEYS;     /* everybody in another order */
            for (uint64_t i = 0; i < lengths[k]; i++)
                grad[k][i] = gradient_of(rank, k, step, i);
            st = net_ps_push_start(ps, k, grad[k], 0, &push[k]);
        }
        for (uint32_t k = 0; !st && k < KEYS; k++) {
            uint64_t got = 0;
            st = net_ps_pull_start(ps, k, (uint64_t)step + 1, x, &pull);
            if (!st)
                st = net_ps_wait(pull, &got);
            if (!st && got != (uint64_t)step + 1)
                st = gt_fail(GT_MISMATCH, "version %d, not %d", (int)got, step + 1);
            for (uint64_t i = 0; !st && i < lengths[k]; i++) {
                float want = initial_of(k, i);
                for (int s = 0; s <= step; s++)
                    for (int r = 0; r < size; r++)
                        if (among(p->options.workers, p->options.worker_count, r))
                            want += gradient_of(r, k, s, i);
                if (x[i] != want)
                    st = gt_fail(GT_MISMATCH, "key %u, element %d is %g, not %g", k, (int)i, (double)x[i],
                                 (double)want);
            }
        }
        for (uint32_t k = 0; k < KEYS; k++) {
            const gt_status one = net_ps_wait(push[k], NULL);
            st = st ? st : one;
        }
    }
    const gt_status closed = net_ps_close(ps);
    for (uint32_t k = 0; k < KEYS; k++) {
        free(initial[k]);
        free(grad[k]);
    }
    free(x);
    return st ? st : closed;
}

static void synchronous_pushes_are_plain_sums(void)
{
    static const int one[] = { 0 }, last[] = { 2 }, two[] = { 3, 1 }, workers[] = { 0, 1, 2 }, pair[] = { 2, 0 };
    static const double shares[] = { 0.7, 0.3 }, only_one[] = { 0.0, 1.0 };
    const plan plans[] = {
        { 1, { .synchronous = 1 }, "transport=shm" },
        { 2, { .synchronous = 1 }, "transport=shm" },
        { 3, { .synchronous = 1, .servers = one, .server_count = 1 }, "transport=tcp" },
        { 3,
          { .synchronous = 1, .servers = last, .server_count = 1, .workers = pair, .worker_count = 2 },
          "transport=shm" },
        { 4,
          { .synchronous = 1,
            .servers = two,
            .server_count = 2,
            .workers = workers,
            .worker_count = 3,
            .shares = shares },
          "transport=shm" },
        { 4,
          { .synchronous = 1,
            .servers = two,
            .server_count = 2,
            .workers = workers,
            .worker_count = 3,
            .shares = only_one },
          "transport=tcp" },
        { 5, { .synchronous = 1 }, "transport=shm" },
        { 3, { .synchronous = 1 }, "transport=shm pipeline=4KiB" },     /* keys of many blocks */
        { 4, { .synchronous = 1, .servers = two, .server_count = 2, .shares = shares }, "transport=tcp pipeline=1KiB" },
        { 3, { .synchronous = 1 }, "transport=tcp fault=delay=100us,reorder=1" },
    };
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++)
        CHECK_OK(ranks_run(plans[i].ranks, plans[i].knobs, synchronous_body, (void *)(uintptr_t)&plans[i]));
}

/* Sums of reals: the same bits whoever comes first. */
typedef struct bits {
    uint64_t hash[4];
    int turn;
} bits;

static gt_status bits_body(net_comm *c, void *context)
{
    enum { N = 5000 };
    bits *b = context;
    net_group *g = net_group_world(c);
    const int rank = net_group_rank(g);
    const uint64_t keys[1] = { N };
    const net_ps_options options = { .synchronous = 1 };
    net_ps *ps;
    net_ps_request *r;
    float *x = malloc(N * sizeof *x);
    RANK_CHECK(x);
    RANK_OK(net_ps_open(&ps, g, &options, keys, 1, NULL));
    for (int step = 0; step < 5; step++) {
        if ((rank + b->turn + step) % 3 == 0)
            pause_ms(2);
        for (int i = 0; i < N; i++)
            x[i] = sinf((float)(rank * N + i + step));
        RANK_OK(net_ps_push_start(ps, 0, x, 0, &r));
        RANK_OK(net_ps_wait(r, NULL));
    }
    RANK_OK(net_ps_pull_start(ps, 0, 5, x, &r));
    RANK_OK(net_ps_wait(r, NULL));
    uint64_t hash = 1469598103934665603u;
    for (int i = 0; i < N; i++) {
        uint32_t u;
        memcpy(&u, &x[i], sizeof u);
        hash = (hash ^ u) * 1099511628211u;
    }
    b->hash[rank] = hash;
    free(x);
    return net_ps_close(ps);
}

static void synchronous_sums_have_the_same_bits_whoever_is_late(void)
{
    bits first = { .turn = 0 };
    CHECK_OK(ranks_run(4, "transport=shm", bits_body, &first));
    for (int turn = 0; turn < 3; turn++) {
        bits other = { .turn = turn };
        CHECK_OK(ranks_run(4, turn ? "transport=tcp" : "transport=shm", bits_body, &other));
        for (int i = 0; i < 4; i++)
            CHECK(other.hash[i] == first.hash[0]);
    }
}

/* ---- versions --------------------------------------------------------------------------- */

static gt_status versions_body(net_comm *c, void *context)
{
    net_group *g = net_group_world(c);
    const int rank = net_group_rank(g);
    const uint64_t keys[2] = { 100, 7 };
    const net_ps_options options = { .synchronous = 1 };
    float x[100], y[100];
    uint64_t got;
    net_ps *ps;
    net_ps_request *early, *push, *pull;
    (void)context;
    for (int i = 0; i < 100; i++)
        y[i] = 1.0f;
    RANK_OK(net_ps_open(&ps, g, &options, keys, 2, NULL));
    RANK_OK(net_ps_pull_start(ps, 0, 0, x, &pull));             /* what it began with */
    RANK_OK(net_ps_wait(pull, &got));
    RANK_CHECK(got == 0 && x[99] == 0.0f);
    RANK_OK(net_ps_pull_start(ps, 0, 2, x, &early));            /* asked for before it is there */
    for (int i = 0; i < 2; i++) {                               /* two pushes under way at once */
        RANK_OK(net_ps_push_start(ps, 0, y, 0, &push));
        RANK_OK(net_ps_wait(push, NULL));
    }
    RANK_OK(net_ps_wait(early, &got));
    RANK_CHECK(got == 2 && x[0] == 2.0f * (float)net_group_size(g) && x[99] == x[0]);
    RANK_OK(net_ps_pull_start(ps, 0, 1, x, &pull));             /* gone */
    RANK_CHECK(net_ps_wait(pull, NULL) == GT_MISUSE && strstr(gt_message(), "version 1 of key 0"));
    RANK_CHECK(net_ps_push_start(ps, 2, y, 0, &push) == GT_MISUSE && strstr(gt_message(), "key 2"));
    if (rank == 0)
        pause_ms(5);
    return net_ps_close(ps);
}

static void versions_are_exact_in_the_synchronous_mode(void)
{
    for (int size = 1; size <= 3; size++)
        CHECK_OK(ranks_run(size, "transport=shm", versions_body, NULL));
}

/* ---- stale ------------------------------------------------------------------------------ */

enum { STEPS = 12 };
typedef struct race {
    int64_t staleness;
    atomic_int slow, fast, worst;
} race;

/* Rank 0 is slow; the others run ahead as far as they may. */
static gt_status race_body(net_comm *c, void *context)
{
    race *r = context;
    net_group *g = net_group_world(c);
    const int rank = net_group_rank(g), size = net_group_size(g);
    const uint64_t keys[1] = { 300 };
    const net_ps_options options = { .staleness = r->staleness };
    float x[300], y[300];
    uint64_t got = 0;
    net_ps *ps;
    net_ps_request *q;
    for (int i = 0; i < 300; i++)
        y[i] = 1.0f;
    RANK_OK(net_ps_open(&ps, g, &options, keys, 1, NULL));
    for (int step = 0; step < STEPS; step++) {
        if (rank == 0)
            pause_ms(r->staleness < 0 ? 0 : 10);
        /* Without a bound the others get through all of it before rank 0 has begun. */
        for (int i = 0; rank == 0 && r->staleness < 0 && i < 6000 && atomic_load(&r->fast) < STEPS; i++)
            pause_ms(5);
        if (rank == 0)                  /* counted before a server can know of it ... */
            atomic_fetch_add(&r->slow, 1);
        RANK_OK(net_ps_push_start(ps, 0, y, 0, &q));
        RANK_OK(net_ps_wait(q, NULL));
        if (rank == 1) {                /* ... and after it does: the lead is never exaggerated */
            const int lead = atomic_fetch_add(&r->fast, 1) + 1 - atomic_load(&r->slow);
            if (lead > atomic_load(&r->worst))
                atomic_store(&r->worst, lead);
        }
    }
    RANK_OK(net_ps_pull_start(ps, 0, STEPS, x, &q));
    RANK_OK(net_ps_wait(q, &got));
    RANK_CHECK(got >= STEPS && got <= (uint64_t)(STEPS * size));
    RANK_CHECK(x[0] >= (float)STEPS);           /* its own pushes at least */
    RANK_OK(net_ps_pull_start(ps, 0, (uint64_t)(STEPS * size), x, &q));
    RANK_OK(net_ps_wait(q, &got));
    RANK_CHECK(got == (uint64_t)(STEPS * size) && x[299] == (float)(STEPS * size));
    return net_ps_close(ps);
}

static void a_fast_worker_waits_for_the_slowest_within_its_bound(void)
{
    for (int64_t bound = 0; bound <= 3; bound++) {
        race r = { .staleness = bound };
        CHECK_OK(ranks_run(3, "transport=shm", race_body, &r));
        CHECKF(atomic_load(&r.worst) <= bound + 1, "bound %d, lead %d", (int)bound, atomic_load(&r.worst));
    }
    race free_run = { .staleness = -1 };
    CHECK_OK(ranks_run(3, "transport=tcp", race_body, &free_run));
    CHECKF(atomic_load(&free_run.worst) == STEPS, "unbounded, lead %d", atomic_load(&free_run.worst));
}

/* A worker that is through holds nobody back. */
static gt_status leaver_body(net_comm *c, void *context)
{
    net_group *g = net_group_world(c);
    const uint64_t keys[1] = { 10 };
    const net_ps_options options = { .staleness = 1 };
    float y[10] = { 1 };
    net_ps *ps;
    net_ps_request *q;
    (void)context;
    RANK_OK(net_ps_open(&ps, g, &options, keys, 1, NULL));
    for (int step = 0; step < (net_group_rank(g) ? 50 : 2); step++) {
        RANK_OK(net_ps_push_start(ps, 0, y, 0, &q));
        RANK_OK(net_ps_wait(q, NULL));
    }
    return net_ps_close(ps);
}

static void a_worker_that_has_closed_holds_nobody_back(void)
{
    CHECK_OK(ranks_run(3, "transport=shm", leaver_body, NULL));
}

/* ---- the caller's update ---------------------------------------------------------------- */

typedef struct ledger {
    atomic_int calls, wrong;
} ledger;

/* w = w - g, and what was pulled is the value after this worker's last pull. */
static void subtract(void *context, const net_ps_update *u)
{
    ledger *l = context;
    atomic_fetch_add(&l->calls, 1);
    if (u->key || u->offset + u->count > 1000 || (u->worker < 0) != !u->pulled || u->version > 100)
        atomic_fetch_add(&l->wrong, 1);
    if (u->worker >= 0 ? u->behind > u->version : u->behind != 0)
        atomic_fetch_add(&l->wrong, 1);
    for (uint64_t i = 0; i < u->count; i++) {
        if (u->pulled && u->worker >= 0 && u->gradient[i] != u->pulled[i] + 1.0f)
            atomic_fetch_add(&l->wrong, 1);
        u->value[i] -= u->gradient[i];
    }
}

static gt_status apply_body(net_comm *c, void *context)
{
    net_group *g = net_group_world(c);
    const int size = net_group_size(g);
    const uint64_t keys[1] = { 1000 };
    ledger *l = context;
    net_ps_options options = { .staleness = -1, .keep_pulled = 1, .apply = subtract, .context = l };
    float x[1000];
    net_ps *ps;
    net_ps_request *q;
    RANK_OK(net_ps_open(&ps, g, &options, keys, 1, NULL));
    for (int step = 0; step < 5; step++) {      /* a gradient that says what was pulled */
        RANK_OK(net_ps_pull_start(ps, 0, 0, x, &q));
        RANK_OK(net_ps_wait(q, NULL));
        for (int i = 0; i < 1000; i++)
            x[i] += 1.0f;
        RANK_OK(net_ps_push_start(ps, 0, x, 0, &q));
        RANK_OK(net_ps_wait(q, NULL));
    }
    RANK_OK(net_ps_close(ps));
    options.synchronous = 1;
    options.keep_pulled = 0;
    RANK_OK(net_ps_open(&ps, g, &options, keys, 1, NULL));
    for (int i = 0; i < 1000; i++)
        x[i] = 2.0f;
    RANK_OK(net_ps_push_start(ps, 0, x, 0, &q));
    RANK_OK(net_ps_wait(q, NULL));
    RANK_OK(net_ps_pull_start(ps, 0, 1, x, &q));
    RANK_OK(net_ps_wait(q, NULL));
    for (int i = 0; i < 1000; i++)
        RANK_CHECK(x[i] == -2.0f * (float)size);
    return net_ps_close(ps);
}

static void servers_apply_the_callers_update(void)
{
    ledger l = { 0 };
    CHECK_OK(ranks_run(3, "transport=shm", apply_body, &l));
    CHECK(atomic_load(&l.wrong) == 0);
    CHECKF(atomic_load(&l.calls) == 3 * 5 * 3 + 3, "%d calls", atomic_load(&l.calls));
}

/* ---- in turn ------------------------------------------------------------------------------ */

enum { TURNS = 12, OWNED = 700 };
static const int turns[TURNS] = { 1, 1, 0, 2, 0, 1, 2, 2, 0, 1, 0, 2 };      /* four of each */

static int turn(void *context, uint64_t version)
{
    (void)context;
    return version < TURNS ? turns[version] : 0;
}

/* Neither the order of updates nor the number of them can be changed without a change of the value. */
static void halve_and_add(void *context, const net_ps_update *u)
{
    ledger *l = context;
    atomic_fetch_add(&l->calls, 1);
    if (u->version >= TURNS || turns[u->version] != u->worker || u->tag != 100 + u->version)
        atomic_fetch_add(&l->wrong, 1);
    for (uint64_t i = 0; i < u->count; i++)
        u->value[i] = 0.5f * u->value[i] + u->gradient[i];
}

/* The value of key k after so many updates. */
static float value_after(uint32_t k, uint64_t version)
{
    float x = (float)k;
    for (uint64_t v = 0; v < version; v++)
        x = 0.5f * x + (float)(v + 1);
    return x;
}

static gt_status turns_body(net_comm *c, void *context)
{
    net_group *g = net_group_world(c);
    const uint64_t keys[2] = { OWNED, 40000 };
    const int owner[2] = { 2, 0 }, rank = net_group_rank(g);
    const net_ps_options options = {
        .owner = owner, .staleness = -1, .turn = turn, .apply = halve_and_add, .context = context
    };
    float *x = calloc(40000, sizeof *x), *y = calloc(40000, sizeof *y), *one[2] = { calloc(OWNED, sizeof *x), y };
    net_ps *ps;
    net_ps_request *push, *pull;
    RANK_CHECK(x && y && one[0]);
    for (int i = 0; i < 40000; i++)
        y[i] = 1.0f;
    RANK_OK(net_ps_open(&ps, g, &options, keys, 2, (const float *const *)one));
    for (uint64_t v = 0; v < TURNS; v++) {
        if (turns[v] != rank)
            continue;
        if (rank == 1)
            pause_ms(4);
        for (uint32_t k = 0; k < 2; k++) {
            for (int i = 0; i < 40000; i++)
                y[i] = (float)(v + 1);
            RANK_OK(net_ps_push_start(ps, k, y, 100 + v, &push));
            RANK_OK(net_ps_pull_start(ps, k, 0, x, &pull));
            RANK_OK(net_ps_wait(push, NULL));
            RANK_OK(net_ps_wait(pull, NULL));
            RANK_CHECK(x[0] == value_after(k, v + 1) && x[keys[k] - 1] == x[0]);
        }
    }
    for (uint32_t k = 0; k < 2; k++) {
        uint64_t got;
        RANK_OK(net_ps_pull_start(ps, k, TURNS, x, &pull));
        RANK_OK(net_ps_wait(pull, &got));
        RANK_CHECK(got == TURNS && x[0] == value_after(k, TURNS) && x[keys[k] - 1] == x[0]);
    }
    free(x);
    free(one[0]);
    gt_status st = net_ps_close(ps);
    free(y);
    return st;
}

static void pushes_in_turn_repeat_to_the_bit(void)
{
    ledger l = { 0 };
    CHECK_OK(ranks_run(3, "transport=shm", turns_body, &l));
    CHECK_OK(ranks_run(3, "transport=tcp", turns_body, &l));
    CHECK(atomic_load(&l.wrong) == 0 && atomic_load(&l.calls) > 2 * TURNS);
}

/* ---- mistakes --------------------------------------------------------------------------- */

static gt_status mistakes_body(net_comm *c, void *context)
{
    net_group *g = net_group_world(c);
    const int rank = net_group_rank(g), bad[1] = { 7 }, twice[2] = { 1, 1 };
    const uint64_t keys[1] = { 10 }, other[1] = { 11 };
    const double negative[2] = { 1.0, -1.0 };
    float y[10] = { 0 };
    net_ps *ps;
    net_ps_request *q;
    (void)context;
    const net_ps_options good = { .synchronous = 1 }, absent = { .servers = bad, .server_count = 1 },
                         same = { .workers = twice, .worker_count = 2 }, minus = { .shares = negative };
    RANK_CHECK(net_ps_open(&ps, g, &absent, keys, 1, NULL) == GT_MISUSE && !ps);
    RANK_CHECK(strstr(gt_message(), "no rank 7"));
    RANK_CHECK(net_ps_open(&ps, g, &same, keys, 1, NULL) == GT_MISUSE);
    RANK_CHECK(net_ps_open(&ps, g, &minus, keys, 1, NULL) == GT_MISUSE);
    RANK_CHECK(net_ps_open(&ps, g, &good, rank ? keys : other, 1, NULL) == GT_MISMATCH);
    RANK_CHECK(strstr(gt_message(), "ranks 0 and 1"));
    RANK_OK(net_ps_open(&ps, g, &good, keys, 1, NULL));
    if (rank == 1) {
        RANK_OK(net_ps_push_start(ps, 0, y, 0, &q));
        RANK_OK(net_ps_wait(q, NULL));
    }
    RANK_CHECK(net_ps_close(ps) == GT_MISUSE && strstr(gt_message(), "as often as rank 1"));
    RANK_OK(net_ps_open(&ps, g, &good, keys, 0, NULL));         /* no keys at all */
    return net_ps_close(ps);
}

static void mistakes_are_named_on_all_ranks(void)
{
    CHECK_OK(ranks_run(2, "transport=shm", mistakes_body, NULL));
}

/* A rank gives up while others wait for what it would have pushed. */
static gt_status giving_up_body(net_comm *c, void *context)
{
    net_group *g = net_group_world(c);
    const uint64_t keys[2] = { 50000, 10 };
    const net_ps_options options = { .synchronous = 1 };
    float *x = calloc(50000, sizeof *x);
    net_ps *ps;
    net_ps_request *push = NULL, *pull = NULL;
    (void)context;
    RANK_CHECK(x);
    RANK_OK(net_ps_open(&ps, g, &options, keys, 2, NULL));
    gt_status st = GT_OK;
    if (net_group_rank(g) == 1) {
        pause_ms(20);
        st = net_comm_abort(c, 1, "rank 1 has had enough");
    } else {
        st = net_ps_push_start(ps, 0, x, 0, &push);
        if (!st)
            st = net_ps_pull_start(ps, 0, 1, x, &pull);
    }
    const gt_status pulled = net_ps_wait(pull, NULL), pushed = net_ps_wait(push, NULL), closed = net_ps_close(ps);
    free(x);
    return st ? st : pulled ? pulled : pushed ? pushed : closed;
}

static void a_rank_that_gives_up_ends_it_on_all(void)
{
    check_allow_warnings();
    for (int size = 2; size <= 4; size++) {
        ranks_result results[4];
        ranks_run_each(size, size % 2 ? "transport=tcp" : "transport=shm", giving_up_body, NULL, results);
        for (int r = 0; r < size; r++)
            CHECKF(results[r].status == GT_PEER && strstr(results[r].sentence, "had enough"), "%d ranks, rank %d: '%s'",
                   size, r, results[r].sentence);
    }
}

const check_case check_cases[] = {
    CASE(synchronous_pushes_are_plain_sums),          CASE(synchronous_sums_have_the_same_bits_whoever_is_late),
    CASE(versions_are_exact_in_the_synchronous_mode), CASE(a_fast_worker_waits_for_the_slowest_within_its_bound),
    CASE(a_worker_that_has_closed_holds_nobody_back), CASE(servers_apply_the_callers_update),
    CASE(pushes_in_turn_repeat_to_the_bit),           CASE(mistakes_are_named_on_all_ranks),
    CASE(a_rank_that_gives_up_ends_it_on_all),        { 0 }
};
