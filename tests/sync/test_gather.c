/* SPDX-License-Identifier: MIT */
/* tests/sync/test_gather.c - new weights of other ranks, which come beside the next forward: in which order, what each
 * launch waits for, and that nothing else changes.
 *
 *   forward    | embedding, layers 0 1 | layers 2 3 | layers 4 5, head |
 *   weights    first                     then         last                  on all ranks alike               */
#include "host/sync/buckets_private.h"
#include "host/train/train_private.h"
#include "tests/check.h"
#include "tests/comm/ranks.h"
#include "tests/train/tiny_run.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_RANKS = 4, STEPS = 4, LAYERS = 6, UNITS = LAYERS + 2 };

static model_config config;

typedef struct job {
    run_plan plan;
    train_options o;
    float *x[MOST_RANKS];
    size_t count[MOST_RANKS];
    int stops;                          /* of rank 0's first chunk                          */
    int simulates;                      /* delays                                           */
} job;

/* The order, and one more gathering, whose parts are waited for one after the other. */
static gt_status look(const train *t, int *stop_count)
{
    int stops[SYNC_WANTS];
    sync_run *run = t->sync;
    const buckets *s = run->state;
    const int count = sync_wants(run, 0, stops);
    *stop_count = count;
    RANK_CHECK(count >= 1);
    for (int i = 1; i < count; i++)
        RANK_CHECK(stops[i] > stops[i - 1]);
    for (int i = 0; i < s->count; i++)
        RANK_CHECK(!s->buckets[i].gathers);
    for (int i = 1; i < s->gather_count; i++)
        for (int k = 0; k < i; k++) {
            const bucket *a = &s->buckets[s->order[k]], *b = &s->buckets[s->order[i]];
            const int x = s->read[s->order[k] * s->o.chunks], y = s->read[s->order[i] * s->o.chunks];
            RANK_CHECK(a->group != b->group || x <= y);
        }
    RANK_OK(sync_buckets_gather(run));
    for (int i = 0; i < count; i++) {
        const int until = i + 1 < count ? stops[i + 1] : INT_MAX;
        RANK_OK(sync_wanted(run, 0, until));
        for (int k = 0; k < s->gather_count; k++) {
            const int at = s->read[s->order[k] * s->o.chunks];
            RANK_CHECK(s->buckets[s->order[k]].gathers == !(at >= 0 && at < until));
        }
    }
    return sync_settle(run);
}

static gt_status body(net_comm *c, void *context)
{
    job *j = context;
    const int rank = net_comm_rank(c);
    int stops = 0;
    train_options o = j->o;
    dev_device *d = NULL;
    train *t = NULL;
    o.comm = c;
    o.plan = &j->plan;
    gt_status st = tiny_open(&d);
    if (!st)
        st = tiny_create(&t, d, &config, &o);
    if (!st)
        st = train_run(t, NULL);
    if (!st && !strcmp(sync_mode_name(t->mode), "async")) {
        int at[SYNC_WANTS];
        stops = sync_wants(t->sync, 0, at);
    } else if (!st && sync_mode_shares_state(t->mode)) {
        st = look(t, &stops);
    }
    if (!st)
        j->x[rank] = tiny_params(t, 0, &j->count[rank]);
    if (!rank)
        j->stops = stops;
    train_release(t);
    dev_close(d);
    return st;
}

static void release(job *j)
{
    for (int r = 0; r < MOST_RANKS; r++)
        free(j->x[r]);
    run_plan_release(&j->plan);
    *j = (job){ 0 };
}

static int run(job *j, const char *mode, const char *servers, const tiny_replica *replica, int count, dtype precision)
{
    const sync_mode *m = sync_mode_find(mode);
    sync_settings s;
    int ranks = 0;
    sync_settings_usual(m, &s);
    if (servers && !CHECK_OK(sync_settings_set(m, &s, "servers", servers)))
        return 0;
    if (j->simulates
        && (!CHECK_OK(sync_settings_set(m, &s, "staleness", "2"))
            || !CHECK_OK(sync_settings_set(m, &s, "simulate-delay", "5"))
            || !CHECK_OK(sync_settings_set(m, &s, "barrier-every", "0"))))
        return 0;
    if (!tiny_plan(&j->plan, UNITS, TINY_B, "1f1b", mode, replica, count, 1))
        return 0;
    run_plan_sync(&j->plan, mode, &s);
    j->o = tiny_options();
    j->o.gemm = "native";
    j->o.steps = STEPS;
    j->o.precision = precision;
    j->o.optim.eps = 1e-4;
    j->o.optim.clip = 0.0;              /* the norm is added up part by part */
    for (int i = 0; i < count; i++)
        ranks += replica[i].stages;
    return CHECK_OK(ranks_run(ranks, "algorithm=direct", body, j));
}

static int same_bits(const job *a, const job *b)
{
    int same = 1;
    for (int r = 0; r < MOST_RANKS; r++)
        same &= !a->x[r] || !memcmp(a->x[r], b->x[r], a->count[r] * sizeof(float));
    return same;
}

/* Layers of 0.8 million values, of which a bucket has two: layers come one after the other, from the first. */
static void first_read_comes_first(void)
{
    static const tiny_replica data[] = { { 1, 2, 2 }, { 1, 1, 2 } }, stages[] = { { 2, 2, 2 }, { 1, 1, 2 } };
    const struct {
        const char *mode, *servers;
        const tiny_replica *replica;
        dtype precision;
        int stops;                      /* at least */
    } cases[] = { { "sharded", NULL, data, DTYPE_F32, 3 },
                  { "ps", "0:1,1:2", data, DTYPE_F32, 3 },
                  { "ps", "1", data, DTYPE_BF16, 3 },
                  { "sharded", NULL, stages, DTYPE_F32, 2 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        /* A tied table would be a sum of three ranks where stages are unequal. */
        config = cases[i].replica == stages ? tiny_llama("llama", 1) : tiny_config();
        config.layers = LAYERS;
        config.channels = 256;
        config.inner = 1024;
        job gathered = { 0 }, summed = { 0 };
        if (run(&gathered, cases[i].mode, cases[i].servers, cases[i].replica, 2, cases[i].precision)
            && run(&summed, "allreduce", NULL, cases[i].replica, 2, cases[i].precision)) {
            CHECKF(same_bits(&gathered, &summed), "case %zu: other weights than those of all-reduce", i);
            CHECKF(gathered.stops >= cases[i].stops, "case %zu: the forward waits at %d places", i, gathered.stops);
        }
        release(&gathered);
        release(&summed);
    }
}

/* What a worker pulls is the value right after its own push, in an order that is drawn: so the bits are the same
 * whenever it comes, and the forward waits layer by layer. */
static void what_is_pulled_comes_beside(void)
{
    static const tiny_replica data[] = { { 1, 2, 2 }, { 1, 1, 2 } };
    for (int bf16 = 0; bf16 < 2; bf16++) {
        job a = { 0 }, b = { 0 };
        config = tiny_config();
        config.layers = LAYERS;
        config.channels = 256;
        config.inner = 1024;
        a.simulates = b.simulates = 1;
        if (run(&a, "async", NULL, data, 2, bf16 ? DTYPE_BF16 : DTYPE_F32)
            && run(&b, "async", NULL, data, 2, bf16 ? DTYPE_BF16 : DTYPE_F32)) {
            CHECKF(same_bits(&a, &b), "%s: another run has other weights", bf16 ? "bf16" : "fp32");
            CHECKF(a.stops >= 3, "%s: the forward waits at %d places", bf16 ? "bf16" : "fp32", a.stops);
        }
        release(&a);
        release(&b);
    }
}

const check_case check_cases[] = { CASE(first_read_comes_first), CASE(what_is_pulled_comes_beside), { 0 } };
