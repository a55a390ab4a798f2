/* SPDX-License-Identifier: MIT */
/* tests/sync/test_blocks.c - every rank owns a part of all that travels at once, so that links carry both ways.
 *
 *   bucket    | rank 0 | rank 1 |      sums: 0 ══ its gradients of part 1 ══► 1      weights: 0 ══ part 0 ══► 1
 *                                            0 ◄══ its gradients of part 0 ══ 1               0 ◄══ part 1 ══ 1
 *
 * For each bucket the bytes that leave and reach a rank while it is summed or gathered are counted on the wire; and
 * what is owned is what the optimizer updates, each element by one rank.                      */
#include "host/sync/buckets_private.h"
#include "host/train/train_private.h"
#include "tests/check.h"
#include "tests/comm/ranks.h"
#include "tests/train/tiny_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_RANKS = 4, LAYERS = 4, UNITS = LAYERS + 2, NOISE = 2048 };

static model_config config;

typedef struct job {
    run_plan plan;
    train_options o;
    const double *share;                /* [ranks of the only group]; NULL: equal           */
    int whole;                          /* 1: matrices are in one piece                     */
    int buckets;
    double elements, shared;            /* of all buckets; of those that all owners have some of */
} job;

/* ---- bytes on the wire ------------------------------------------------------------------------------- */

/* Both are what they must be, but for messages of a few bytes. */
static gt_status check_bytes(net_comm *c, uint64_t sent, uint64_t received, uint64_t out, uint64_t in)
{
    uint64_t now_sent, now_received;
    net_comm_traffic(c, &now_sent, &now_received);
    RANK_CHECK(now_sent - sent >= out && now_sent - sent <= out + NOISE);
    RANK_CHECK(now_received - received >= in && now_received - received <= in + NOISE);
    return GT_OK;
}

static gt_status carry(net_comm *c, const bucket *b)
{
    const uint64_t own = 4 * b->own_count, others = 4 * (b->count - b->own_count);
    const uint64_t peers = (uint64_t)net_group_size(b->group) - 1;
    const travel t = sync_bucket_travel(b, 0);
    uint64_t sent, received;
    RANK_CHECK(sync_bucket_scatters(b) && t.host);
    RANK_OK(net_barrier(b->group));
    net_comm_traffic(c, &sent, &received);
    RANK_OK(net_reduce_scatter(b->group, t.host, b->count, b->counts, t.type, NULL));
    RANK_OK(check_bytes(c, sent, received, others, peers * own));
    RANK_OK(net_barrier(b->group));
    net_comm_traffic(c, &sent, &received);
    RANK_OK(net_all_gather(b->group, t.host, b->count, b->counts, t.type, NULL));
    return check_bytes(c, sent, received, peers * own, others);
}

/* ---- who owns what ----------------------------------------------------------------------------------- */

/* Parts of a bucket are as large as they should be: up to a step, or up to a tensor. */
static int is_shared(const train *t, const job *j, const bucket *b, int whole)
{
    const int ranks = net_group_size(b->group);
    int good = 1;
    uint64_t sum = 0;
    for (int r = 0; r < ranks; r++) {
        const double share = j->share ? j->share[r] : 1.0 / ranks, part = share * (double)b->count;
        sum += b->counts[r];
        good &= whole ? b->counts[r] > 0 : fabs((double)b->counts[r] - part) <= (double)params_step(t->params) + 1;
        good &= share > 0.0 || b->counts[r] == 0;
    }
    return good && sum == b->count;
}

static int has_whole(const train *t, const bucket *b)
{
    const int64_t begins = (int64_t)b->offset / 4, ends = begins + (int64_t)b->count;
    for (int i = 0; i < params_count(t->params); i++) {
        int segment;
        int64_t first;
        params_place(t->params, i, &segment, &first);
        if (segment >= 0 && params_segment_at(t->params, segment)->master == b->master && begins <= first
            && first < ends && params_is_whole(t->params, i))
            return 1;
    }
    return 0;
}

/* What is this rank's of the buckets is what the optimizer updates; a tensor that it needs whole is all or nothing. */
static gt_status check_updates(const train *t, const buckets *s)
{
    uint64_t updated = 0, owned = 0;
    for (int i = 0; i < params_count(t->params); i++) {
        int64_t begin, end;
        const int64_t count = shape_count(&params_info(t->params, i)->shape);
        optim_range(t->optim, i, &begin, &end);
        RANK_CHECK(0 <= begin && begin <= end && end <= count);
        RANK_CHECK(!params_is_whole(t->params, i) || begin == end || (begin == 0 && end == count));
        updated += (uint64_t)(end - begin);
    }
    for (int i = 0; i < s->count; i++)
        owned += s->buckets[i].packs ? 0 : s->buckets[i].own_count;
    RANK_CHECK(updated <= owned
               && owned < updated + (uint64_t)params_count(t->params) * (uint64_t)params_step(t->params));
    return GT_OK;
}

static gt_status look(net_comm *c, const train *t, job *j)
{
    const buckets *s = t->sync->state;
    int count = 0;
    double elements = 0, shared = 0;
    for (int i = 0; i < s->count; i++) {
        const bucket *b = &s->buckets[i];
        if (b->packs)
            continue;
        const int whole = has_whole(t, b), good = is_shared(t, j, b, whole);
        RANK_CHECK(whole <= j->whole && (good || whole));
        count++;
        elements += (double)b->count;
        shared += good ? (double)b->count : 0.0;
        RANK_OK(carry(c, b));
    }
    if (net_comm_rank(c) == 0) {
        j->buckets = count;
        j->elements = elements;
        j->shared = shared;
    }
    return check_updates(t, s);
}

static gt_status body(net_comm *c, void *context)
{
    job *j = context;
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
    if (!st)
        st = look(c, t, j);
    train_release(t);
    dev_close(d);
    return st;
}

/* ---- cases ------------------------------------------------------------------------------------------- */

typedef struct wish {
    const char *mode, *servers, *optimizer;
    int replicas, tensor;
    const double *share;
} wish;

static void run(const wish *w, int least)
{
    static const tiny_replica two[] = { { 1, 2, 2 }, { 1, 1, 2 } }, three[] = { { 1, 1, 2 }, { 1, 1, 2 }, { 1, 1, 2 } };
    const sync_mode *m = sync_mode_find(w->mode);
    const tiny_replica *replica = w->replicas == 3 ? three : two;
    job j = { .share = w->share };
    sync_settings s;
    sync_settings_usual(m, &s);
    config = tiny_config();
    config.layers = LAYERS;
    config.channels = 256;
    config.inner = 1024;
    if (w->servers && !CHECK_OK(sync_settings_set(m, &s, "servers", w->servers)))
        return;
    if (!tiny_plan(&j.plan, UNITS, TINY_B, "1f1b", w->mode, replica, w->replicas, w->tensor))
        return;
    run_plan_sync(&j.plan, w->mode, &s);
    j.o = tiny_options();
    j.o.gemm = "native";
    j.o.steps = 1;
    if (w->optimizer)
        optim_config_rule(&j.o.optim, optim_rule_find(w->optimizer));
    j.whole = optim_rule_sees_tensors(j.o.optim.rule);
    if (CHECK_OK(ranks_run(w->replicas * w->tensor, "algorithm=direct", body, &j)))
        CHECKF(j.buckets >= least && j.shared >= (j.whole ? 0.95 : 1.0) * j.elements,
               "--sync %s, servers %s, optimizer %s: %d buckets, %g of %g values in such as all owners have some of",
               w->mode, w->servers ? w->servers : "all", w->optimizer ? w->optimizer : "adamw", j.buckets, j.shared,
               j.elements);
    run_plan_release(&j.plan);
}

static void all_ranks_own_some_of_every_bucket(void)
{
    run(&(wish){ .mode = "sharded", .replicas = 2, .tensor = 1 }, 4);
    run(&(wish){ .mode = "sharded", .replicas = 3, .tensor = 1 }, 4);
    run(&(wish){ .mode = "ps", .replicas = 2, .tensor = 1 }, 4);
    run(&(wish){ .mode = "sharded", .replicas = 2, .tensor = 2 }, 2);
}

static void servers_own_their_shares_of_every_bucket(void)
{
    static const double uneven[] = { 0.75, 0.25 }, one[] = { 0.0, 1.0 }, outer[] = { 1.0 / 3.0, 0.0, 2.0 / 3.0 };
    run(&(wish){ .mode = "ps", .servers = "0:3,1:1", .replicas = 2, .tensor = 1, .share = uneven }, 4);
    run(&(wish){ .mode = "ps", .servers = "1", .replicas = 2, .tensor = 1, .share = one }, 4);
    run(&(wish){ .mode = "ps", .servers = "0:1,2:2", .replicas = 3, .tensor = 1, .share = outer }, 4);
}

/* Each rank gets some of the tensors of a bucket; a small one may have too few. */
static void tensors_that_stay_whole_are_dealt_out(void)
{
    run(&(wish){ .mode = "sharded", .optimizer = "muon", .replicas = 2, .tensor = 1 }, 3);
    run(&(wish){ .mode = "sharded", .optimizer = "adafactor", .replicas = 2, .tensor = 1 }, 3);
    run(&(wish){ .mode = "sharded", .optimizer = "muon", .replicas = 2, .tensor = 2 }, 2);
    run(&(wish){ .mode = "sharded", .optimizer = "muon", .replicas = 3, .tensor = 1 }, 2);
}

const check_case check_cases[] = { CASE(all_ranks_own_some_of_every_bucket),
                                   CASE(servers_own_their_shares_of_every_bucket),
                                   CASE(tensors_that_stay_whole_are_dealt_out),
                                   { 0 } };
