/* SPDX-License-Identifier: MIT */
/* tests/pipeline/test_run_plan.c - plans of runs: the same after a trip through text, wrong ones
 * refused with the reason, and files of any kind read without harm. */
#include "host/base/file.h"
#include "host/base/random.h"
#include "host/pipeline/run_plan.h"
#include "host/pipeline/simulate.h"
#include "host/sync/sync.h"
#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- plans to work with ------------------------------------------------------------------ */

/* The picture of run_plan.h: a replica of two stages, each over two ranks, and one of one stage. */
static gt_status make_picture(run_plan *p)
{
    static const int first[] = { 0, 1, 2, 3 }, cut[] = { 0, 9, 14 };
    gt_status st = run_plan_create(p, 6, 14, 32, 2, 1, 2);
    if (!st)
        st = run_plan_replica(p, 0, 2);
    if (!st)
        st = run_plan_replica(p, 1, 1);
    if (st)
        return st;
    run_replica *a = &p->replica[0], *b = &p->replica[1];
    a->micro_batches = 6;
    a->micro_batch = 4;
    memcpy(a->rank, first, sizeof first);
    memcpy(a->cut, cut, sizeof cut);
    b->micro_batches = 2;
    b->micro_batch = 4;
    b->rank[0] = 4;
    b->rank[1] = 5;
    b->cut[1] = 14;
    p->share[0] = 0.75;
    p->share[1] = 0.25;
    return GT_OK;
}

/* Numbers that text with too few digits would change. */
static double awkward(gt_random *r)
{
    return (double)gt_random_unit(r) / 3.0 + 1e-9 * (double)gt_random_unit(r);
}

static void shuffle(int *x, int n, gt_random *r)
{
    for (int i = n - 1; i > 0; i--) {
        const int j = (int)gt_random_below(r, (uint64_t)i + 1), t = x[i];
        x[i] = x[j];
        x[j] = t;
    }
}

/* Replicas of random depth over all ranks in random order; costs of every kind. */
static gt_status make_random(run_plan *p, gt_random *r, const char *schedule)
{
    const int chunks = strcmp(schedule, "interleaved") ? 1 : 2 + (int)gt_random_below(r, 2);
    const int tensor = 1 + (int)gt_random_below(r, 3), groups = 1 + (int)gt_random_below(r, 9);
    int stages[16], replicas = 0;
    for (int left = groups; left; left -= stages[replicas++])
        stages[replicas] = 1 + (int)gt_random_below(r, (uint64_t)left);
    const int units = groups * chunks + (int)gt_random_below(r, 20);
    int order[64], next = 0, batch = 0;
    for (int i = 0; i < groups * tensor; i++)
        order[i] = i;
    shuffle(order, groups * tensor, r);
    gt_status st = run_plan_create(p, groups * tensor, units, 1, tensor, chunks, replicas);
    for (int i = 0; !st && i < replicas; i++) {
        st = run_plan_replica(p, i, stages[i]);
        if (st)
            break;
        run_replica *q = &p->replica[i];
        const int parts = stages[i] * chunks;
        q->micro_batches = stages[i] * (1 + (int)gt_random_below(r, 4));
        q->micro_batch = 1 + (int)gt_random_below(r, 5);
        batch += q->micro_batches * q->micro_batch;
        for (int k = 0; k < stages[i] * tensor; k++)
            q->rank[k] = order[next++];
        for (int v = 1; v <= parts; v++)
            q->cut[v] = v < parts ? v : units;
        for (int v = 0; v < parts; v++)
            q->cost[v] = (pipe_cost){ awkward(r),       awkward(r), awkward(r), awkward(r) * 0.1,
                                      1e6 * awkward(r), awkward(r), awkward(r) };
    }
    if (st)
        return st;
    p->batch = batch;
    p->recompute = (int)gt_random_below(r, 2);
    snprintf(p->schedule, sizeof p->schedule, "%s", schedule);
    run_plan_sync(p, gt_random_below(r, 2) ? "sharded" : "allreduce", NULL);
    if (gt_random_below(r, 2))
        run_plan_forms(p, "topk:0.01,momentum=0.9", "bf16");
    p->compress_after = gt_random_below(r, 1000);
    p->step = awkward(r);
    p->idle = awkward(r);
    for (int i = 0; i < p->ranks; i++) {
        snprintf(p->device[i], sizeof p->device[i], "cpu:0.%d/\"8\"", i);
        p->memory[i] = 1e9 * awkward(r);
        p->limit[i] = 1e9 * awkward(r);
        p->host_memory[i] = 1e7 * awkward(r);
    }
    return GT_OK;
}

static void check_same(const run_plan *a, const run_plan *b)
{
    const size_t ranks = (size_t)a->ranks, tensor = (size_t)a->tensor;
    if (!CHECKF(a->ranks == b->ranks && a->units == b->units && a->batch == b->batch && a->tensor == b->tensor
                    && a->chunks == b->chunks && a->replicas == b->replicas,
                "sizes"))
        return;
    CHECK(a->recompute == b->recompute && a->step == b->step && a->idle == b->idle);
    CHECK(!strcmp(a->schedule, b->schedule) && !strcmp(a->sync, b->sync));
    CHECK(a->links == b->links);
    for (int i = 0; i < a->links && i < b->links; i++) {
        const char *form = run_plan_form(b, a->link[i].rank, a->link[i].ranks);
        CHECK(form && !strcmp(form, a->link[i].form));
    }
    CHECK(a->stage_links == b->stage_links);
    for (int i = 0; i < a->stage_links && i < b->stage_links; i++) {
        const char *form = run_plan_stage_form(b, a->stage_link[i].rank[0], a->stage_link[i].rank[1]);
        CHECK(form && !strcmp(form, a->stage_link[i].form));
    }
    CHECK(!memcmp(a->share, b->share, tensor * sizeof *a->share));
    CHECK(!memcmp(a->memory, b->memory, ranks * sizeof *a->memory));
    CHECK(!memcmp(a->limit, b->limit, ranks * sizeof *a->limit));
    CHECK(!memcmp(a->host_memory, b->host_memory, ranks * sizeof *a->host_memory));
    CHECK(!strcmp(a->compress, b->compress) && !strcmp(a->compress_stages, b->compress_stages));
    CHECK(a->compress_after == b->compress_after);
    for (size_t r = 0; r < ranks; r++)
        CHECK(!strcmp(a->device[r], b->device[r]));
    for (int i = 0; i < a->replicas; i++) {
        const run_replica *x = &a->replica[i], *y = &b->replica[i];
        const size_t parts = (size_t)x->stages * (size_t)a->chunks;
        CHECK(x->micro_batches == y->micro_batches && x->micro_batch == y->micro_batch);
        if (!CHECKF(x->stages == y->stages, "replica %d", i))
            continue;
        CHECK(!memcmp(x->rank, y->rank, (size_t)x->stages * tensor * sizeof *x->rank));
        CHECK(!memcmp(x->cut, y->cut, (parts + 1) * sizeof *x->cut));
        CHECK(!memcmp(x->cost, y->cost, parts * sizeof *x->cost));
    }
}

/* ---- cases ------------------------------------------------------------------------------- */

static void text_and_copies_hold_the_same_plan(void)
{
    gt_random r;
    gt_random_init(&r, 7, 0);
    char *path = gt_path_join(check_folder(), "plan.json");
    for (int n = 0; n < 200; n++) {
        const char *schedule = pipe_schedule_at(n % 5)->name;
        run_plan p, again, copy, file;
        gt_text text = { 0 };
        if (!CHECK_OK(make_random(&p, &r, schedule)) || !CHECK_OK(run_plan_check(&p)))
            return;
        if (n % 3) {
            static const int first[] = { 0, 1 };
            run_plan_forms(&p, n % 2 ? "auto:int8,topk:0.1" : "bf16", n % 4 ? "auto:fp16,0.01" : "fp16");
            if (n % 2 && p.ranks > 1)
                CHECK_OK(run_plan_link(&p, first, 2, "topk:0.1"));
            if (n % 4 && p.ranks > 1)
                CHECK_OK(run_plan_stage_link(&p, 1, 0, n % 5 ? "fp16" : "none"));
        }
        CHECK_OK(run_plan_text(&p, &text));
        if (CHECK_OK(run_plan_parse(&again, text.data, "text")))
            check_same(&p, &again);
        if (CHECK_OK(run_plan_copy(&copy, &p)))
            check_same(&p, &copy);
        CHECK_OK(run_plan_write(&p, path));
        if (CHECK_OK(run_plan_read(&file, path)))
            check_same(&p, &file);
        gt_text_release(&text);
        run_plan_release(&p);
        run_plan_release(&again);
        run_plan_release(&copy);
        run_plan_release(&file);
    }
    free(path);
}

static void every_rank_finds_its_place(void)
{
    gt_random r;
    gt_random_init(&r, 8, 0);
    for (int n = 0; n < 50; n++) {
        run_plan p;
        if (!CHECK_OK(make_random(&p, &r, pipe_schedule_at(n % 5)->name)))
            return;
        for (int rank = 0; rank < p.ranks; rank++) {
            const run_place at = run_plan_place(&p, rank);
            const run_replica *q = &p.replica[at.replica];
            int before = 0;
            for (int i = 0; i < at.replica; i++)
                before += p.replica[i].micro_batches * p.replica[i].micro_batch;
            CHECK(q->rank[at.stage * p.tensor + at.tensor_rank] == rank);
            CHECK(at.first_sequence == before);
        }
        run_plan_release(&p);
    }
}

/* The list schedule is found with the plan's own costs: as good as one made with them by hand. */
static void schedules_follow_the_costs(void)
{
    gt_random r;
    gt_random_init(&r, 9, 0);
    for (int n = 0; n < 100; n++) {
        run_plan p;
        if (!CHECK_OK(make_random(&p, &r, pipe_schedule_at(n % 5)->name)))
            return;
        for (int i = 0; i < p.replicas; i++) {
            const run_replica *q = &p.replica[i];
            pipe_schedule s, t;
            pipe_simulation x, y;
            if (!CHECK_OK(run_plan_schedule(&p, i, &s)))
                continue;
            CHECK(s.ranks == q->stages && s.chunks == p.chunks && s.micro_batches == q->micro_batches);
            CHECK_OK(pipe_schedule_make(&t, p.schedule, q->stages, p.chunks, q->micro_batches, q->cost, NULL));
            CHECK_OK(pipe_simulate(&x, &s, q->cost, 0));
            CHECK_OK(pipe_simulate(&y, &t, q->cost, 0));
            CHECK(x.step == y.step && x.step > 0);
            pipe_simulation_release(&x);
            pipe_simulation_release(&y);
            pipe_schedule_release(&s);
            pipe_schedule_release(&t);
        }
        run_plan_release(&p);
    }
}

static void one_rank_holds_everything(void)
{
    run_plan p;
    if (!CHECK_OK(run_plan_single(&p, 14, 16, 4, 1)))
        return;
    const run_place at = run_plan_place(&p, 0);
    CHECK(at.replica == 0 && at.stage == 0 && at.tensor_rank == 0 && at.first_sequence == 0);
    CHECK(p.ranks == 1 && p.recompute == 1 && p.replica[0].micro_batches == 4);
    CHECK(p.replica[0].cut[0] == 0 && p.replica[0].cut[1] == 14);
    run_plan_release(&p);
    CHECK_FAILS(run_plan_single(&p, 14, 16, 5, 0), GT_MISMATCH, "16 sequences");
    CHECK_FAILS(run_plan_single(&p, 14, 16, 0, 0), GT_MISMATCH, "micro-batches of 0");
    CHECK_FAILS(run_plan_single(&p, 0, 16, 4, 0), GT_MISUSE, "0 units");
    CHECK_FAILS(run_plan_single(&p, 14, 70000, 1, 0), GT_MISMATCH, "70000 micro-batches");
}

/* Breaks the picture's plan in one way after another. */
static void wrong_plans_are_refused(void)
{
    /* clang-format off */
    static const struct { int way; const char *says; } cases[] = {
        { 0, "rank 3 has two places" },         { 1, "on rank 6; there are 6" },
        { 2, "on rank -1" },                    { 3, "cuts 9 and 9" },
        { 4, "units 0 to 12, not 0 to 13" },    { 5, "units 1 to 13" },
        { 6, "take 28 sequences a step, the batch has 32" },
        { 7, "0 micro-batches of 4" },          { 8, "6 micro-batches of -1" },
        { 9, "add up to 1.5" },                 { 10, "share of tensor rank 0 is 0" },
        { 11, "add up to" },                    { 12, "no schedule '2f2b'" },
        { 13, "interleaved needs two chunks" }, { 14, "no sync 'hope'" },
        { 15, "recompute is 2" },               { 16, "costs of virtual stage 1 of replica 0" },
        { 17, "costs of virtual stage 0 of replica 1" }, { 18, "memory of rank 5" },
        { 19, "cannot be" },                    { 20, "cannot be" },
        { 21, "replica 1 has no stages" },      { 22, "'compress': 'zip' is not one of" },
        { 23, "no form 'fp4' of --compress-stages" }, { 24, "'links': 'zip' is not one of" },
        { 25, "'links': ranks must rise" },     { 26, "memory of rank 0" },
        { 27, "'stage_links': there is no form 'zip'" }, { 28, "'stage_links': ranks must rise" },
        { 29, "'stage_links' are of --compress-stages auto" },
        { 30, "'compress_stages': 'auto:0.0001' leaves nothing" } };
    /* clang-format on */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        run_plan p;
        if (!CHECK_OK(make_picture(&p)) || !CHECK_OK(run_plan_check(&p)))
            return;
        switch (cases[i].way) {
        case 0: p.replica[1].rank[0] = 3; break;
        case 1: p.replica[0].rank[2] = 6; break;
        case 2: p.replica[1].rank[1] = -1; break;
        case 3:
            p.replica[0].cut[2] = 9;
            p.units = 9;
            break;
        case 4: p.replica[0].cut[2] = 13; break;
        case 5: p.replica[0].cut[0] = 1; break;
        case 6: p.replica[0].micro_batches = 5; break;
        case 7: p.replica[0].micro_batches = 0; break;
        case 8: p.replica[0].micro_batch = -1; break;
        case 9: p.share[1] = 0.75; break;
        case 10: p.share[0] = 0; break;
        case 11: p.share[1] = INFINITY; break;
        case 12: memcpy(p.schedule, "2f2b", 5); break;
        case 13: memcpy(p.schedule, "interleaved", 12); break;
        case 14: memcpy(p.sync, "hope", 5); break;
        case 15: p.recompute = 2; break;
        case 16: p.replica[0].cost[1].forward = -1; break;
        case 17: p.replica[1].cost[0].update = NAN; break;
        case 18: p.limit[5] = INFINITY; break;
        case 19: p.step = NAN; break;
        case 20: p.idle = 1.5; break;
        case 21: p.replica[1].stages = 0; break;
        case 22: run_plan_forms(&p, "zip", "none"); break;
        case 23: run_plan_forms(&p, "auto:int8", "fp4"); break;
        case 24: CHECK_OK(run_plan_link(&p, (int[]){ 0, 2 }, 2, "zip")); break;
        case 25: CHECK_OK(run_plan_link(&p, (int[]){ 2, 0 }, 2, "bf16")); break;
        case 27:
        case 28:
            run_plan_forms(&p, "", "auto");
            CHECK_OK(run_plan_stage_link(&p, 0, cases[i].way == 27 ? 1 : 0, cases[i].way == 27 ? "zip" : "bf16"));
            break;
        case 29:
            run_plan_forms(&p, "", "bf16");
            CHECK_OK(run_plan_stage_link(&p, 0, 1, "bf16"));
            break;
        case 30: run_plan_forms(&p, "", "auto:0.0001"); break;
        default: p.memory[0] = -1; break;
        }
        CHECK_FAILS(run_plan_check(&p), GT_MISMATCH, cases[i].says);
        run_plan_release(&p);
    }
}

/* Rank 1 updates what rank 0 trains. */
static void a_server_has_no_sequences_and_nobody_else_has_none(void)
{
    run_plan p, back;
    sync_settings s;
    gt_text text = { 0 };
    pipe_schedule list;
    const sync_mode *ps = sync_mode_find("ps");
    sync_settings_usual(ps, &s);
    if (!CHECK_OK(run_plan_create(&p, 2, 4, 6, 1, 1, 2)) || !CHECK_OK(run_plan_replica(&p, 0, 1))
        || !CHECK_OK(run_plan_replica(&p, 1, 1)))
        return;
    for (int i = 0; i < 2; i++) {
        p.replica[i].rank[0] = i;
        p.replica[i].cut[1] = 4;
        p.replica[i].micro_batch = 2;
    }
    p.replica[0].micro_batches = 3;
    run_plan_sync(&p, "ps", &s);
    CHECK_FAILS(run_plan_check(&p), GT_MISMATCH, "rank 1 has no sequences of a step, and does not only serve");
    CHECK_OK(sync_settings_set(ps, &s, "servers", "0"));
    CHECK_OK(sync_settings_set(ps, &s, "servers-train", "no"));
    run_plan_sync(&p, "ps", &s);
    CHECK_FAILS(run_plan_check(&p), GT_MISMATCH, "rank 0 only serves, and has sequences of a step");
    CHECK_OK(sync_settings_set(ps, &s, "servers", "1"));
    run_plan_sync(&p, "ps", &s);
    CHECK_OK(run_plan_check(&p));
    CHECK(run_plan_training(&p) == 1);
    if (CHECK_OK(run_plan_text(&p, &text)) && CHECK_OK(run_plan_parse(&back, text.data, "the plan"))) {
        CHECK(back.replica[1].micro_batches == 0 && back.replica[0].micro_batches == 3);
        run_plan_release(&back);
    }
    if (CHECK_OK(run_plan_schedule(&p, 1, &list))) {
        CHECK(list.count[0] == 2 && list.list[0][0].kind == PIPE_REDUCE && list.list[0][1].kind == PIPE_UPDATE);
        pipe_schedule_release(&list);
    }
    gt_text_release(&text);
    run_plan_release(&p);
}

static void ranks_without_a_place_and_odd_interleaving_are_refused(void)
{
    run_plan p;
    if (!CHECK_OK(run_plan_create(&p, 3, 8, 4, 1, 1, 1)) || !CHECK_OK(run_plan_replica(&p, 0, 2)))
        return;
    p.replica[0].micro_batches = 4;
    p.replica[0].micro_batch = 1;
    p.replica[0].rank[0] = 2;
    p.replica[0].cut[1] = 4;
    p.replica[0].cut[2] = 8;
    CHECK_FAILS(run_plan_check(&p), GT_MISMATCH, "rank 1 has no place");
    run_plan_release(&p);

    if (!CHECK_OK(run_plan_create(&p, 2, 8, 3, 1, 2, 1)) || !CHECK_OK(run_plan_replica(&p, 0, 2)))
        return;
    memcpy(p.schedule, "interleaved", 12);
    p.replica[0].micro_batches = 3;
    p.replica[0].micro_batch = 1;
    p.replica[0].rank[1] = 1;
    for (int v = 0; v <= 4; v++)
        p.replica[0].cut[v] = 2 * v;
    CHECK_FAILS(run_plan_check(&p), GT_MISMATCH, "replica 0: schedule interleaved needs micro-batches");
    run_plan_release(&p);
    CHECK_FAILS(run_plan_create(&p, 2, 8, 3, 3, 1, 1), GT_MISUSE, "tensor 3");
    CHECK_FAILS(run_plan_create(&p, 2, 8, 3, 1, 1, 3), GT_MISUSE, "3 replicas");
}

#define RANKS "\"ranks\":[{},{}],"
#define SIZES "{\"format\":\"geartrain plan 1\",\"batch\":4,\"units\":6,\"tensor\":1,\"chunks\":1,"
#define WORDS "\"schedule\":\"1f1b\",\"sync\":\"allreduce\","
#define REPLICA(stages, cut) \
    "\"replicas\":[{\"micro_batches\":4,\"micro_batch\":1,\"stages\":" stages ",\"cut\":" cut "}]}"
#define GOOD SIZES WORDS RANKS REPLICA("[[1],[0]]", "[0,2,6]")

static void a_plan_may_be_written_by_hand(void)
{
    run_plan p;
    if (!CHECK_OK(run_plan_parse(&p, GOOD, "hand")))
        return;
    CHECK(p.ranks == 2 && p.replica[0].rank[0] == 1 && p.share[0] == 1.0 && p.step == 0 && !p.recompute);
    run_plan_release(&p);
}

static void mistakes_in_files_are_named(void)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        { "", "plan 'bad.json': line" },
        { "{", "line 1" },
        { "[]", "'format'" },
        { "{}", "'format'" },
        { "{\"format\":\"geartrain plan 9\"}", "'format' is not" },
        { "{\"sync\":\"allreduce\",\"micro_batches\":4,\"replicas\":[]}", "'format'" },
        { SIZES "\"batch\":4}", "duplicate" },
        { SIZES WORDS REPLICA("[[1],[0]]", "[0,2,6]"), "'ranks'" },
        { SIZES WORDS RANKS "\"replicas\":[]}", "'replicas'" },
        { SIZES WORDS RANKS "\"replicas\":[{},{},{}]}", "list of 1 to 2 replicas" },
        { SIZES WORDS RANKS "\"replicas\":[7]}", "replica 0: 'stages'" },
        { SIZES WORDS RANKS "\"replicas\":[{\"stages\":[[0]]}]}", "replica 0: 'micro_batches'" },
        { SIZES WORDS RANKS REPLICA("[[1],[0],[0]]", "[0,2,6]"), "replica 0: 'stages'" },
        { SIZES WORDS RANKS REPLICA("[[1],0]", "[0,2,6]"), "'stages' is not a list of 1 numbers" },
        { SIZES WORDS RANKS REPLICA("[[1],[0,1]]", "[0,2,6]"), "'stages' is not a list" },
        { SIZES WORDS RANKS REPLICA("[[1],[0.5]]", "[0,2,6]"), "'stages' has an entry" },
        { SIZES WORDS RANKS REPLICA("[[1],[0]]", "[0,6]"), "'cut' is not a list of 3 numbers" },
        { SIZES WORDS RANKS REPLICA("[[1],[0]]", "[0,-2,6]"), "'cut' has an entry" },
        { SIZES WORDS RANKS REPLICA("[[1],[0]]", "[0,2,99999999999]"), "'cut' has an entry" },
        { SIZES WORDS RANKS REPLICA("[[1],[0]]", "[0,2,6],\"cost\":[{}]"), "'cost' is not a list of 2" },
        { SIZES WORDS RANKS REPLICA("[[1],[0]]", "[0,2,6],\"cost\":[{},4]"), "'cost' has an entry" },
        { SIZES WORDS RANKS REPLICA("[[1],[0]]", "[0,2,6],\"cost\":[{},{\"forward_s\":\"1\"}]"),
          "replica 0: 'forward_s'" },
        { SIZES WORDS RANKS REPLICA("[[1],[0]]", "[0,2,6],\"cost\":[{},{\"send_s\":-1}]"), "costs of virtual stage 1" },
        { SIZES WORDS RANKS REPLICA("[[1],[1]]", "[0,2,6]"), "rank 1 has two places" },
        { SIZES WORDS "\"ranks\":[{},4]," REPLICA("[[1],[0]]", "[0,2,6]"), "rank 1: it is not an object" },
        { SIZES WORDS "\"ranks\":[{},{\"device\":4}]," REPLICA("[[1],[0]]", "[0,2,6]"), "rank 1: 'device'" },
        { SIZES WORDS
          "\"ranks\":[{},{\"device\":\"123456789012345678901234567890123\"}]," REPLICA("[[1],[0]]", "[0,2,6]"),
          "rank 1: 'device'" },
        { SIZES WORDS "\"ranks\":[{},{\"limit\":\"8GB\"}]," REPLICA("[[1],[0]]", "[0,2,6]"), "rank 1: 'limit'" },
        { SIZES "\"sync\":\"allreduce\"," RANKS REPLICA("[[1],[0]]", "[0,2,6]"), "'schedule'" },
        { SIZES "\"schedule\":\"1f1b\"," RANKS REPLICA("[[1],[0]]", "[0,2,6]"), "'sync'" },
        { SIZES WORDS "\"compress\":8," RANKS REPLICA("[[1],[0]]", "[0,2,6]"), "'compress' is not a word" },
        { SIZES WORDS "\"compress_after\":-1," RANKS REPLICA("[[1],[0]]", "[0,2,6]"), "'compress_after'" },
        { SIZES WORDS "\"recompute\":3," RANKS REPLICA("[[1],[0]]", "[0,2,6]"), "'recompute'" },
        { SIZES WORDS "\"share\":[1,2]," RANKS REPLICA("[[1],[0]]", "[0,2,6]"), "'share' is not" },
        { SIZES WORDS "\"share\":[\"1\"]," RANKS REPLICA("[[1],[0]]", "[0,2,6]"), "'share' has" },
        { SIZES WORDS "\"step_s\":\"1\"," RANKS REPLICA("[[1],[0]]", "[0,2,6]"), "'step_s'" },
        { SIZES WORDS "\"step_s\":1e999," RANKS REPLICA("[[1],[0]]", "[0,2,6]"), "overflow" }
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        run_plan p;
        gt_message_clear();
        const gt_status st = run_plan_parse(&p, cases[i].text, "bad.json");
        CHECKF(st == GT_FORMAT || st == GT_MISMATCH, "%s: %s", cases[i].text, gt_status_name(st));
        CHECKF(strstr(gt_message(), "plan 'bad.json': ") && strstr(gt_message(), cases[i].says), "%s: %s",
               cases[i].text, gt_message());
        CHECK(!p.replica && !p.ranks);
    }
    run_plan p;
    CHECK_FAILS(run_plan_read(&p, "/nowhere/plan.json"), GT_NOT_FOUND, "/nowhere/plan.json");
}

/* What was chosen holds for the ranks it was chosen for, and for the option that asked for it. */
static void links_go_with_their_option(void)
{
    static const int pair[] = { 1, 3 }, others[] = { 1, 2 };
    run_plan p = { 0 };
    if (!CHECK_OK(make_picture(&p)))
        return;
    CHECK(!*p.compress && !run_plan_form(&p, pair, 2));
    run_plan_forms(&p, "auto", "none");
    CHECK_OK(run_plan_link(&p, pair, 2, "int8"));
    run_plan_forms(&p, "auto", "int8");
    CHECK(p.links == 1 && run_plan_form(&p, pair, 2) && !strcmp(run_plan_form(&p, pair, 2), "int8"));
    CHECK(!run_plan_form(&p, others, 2) && !run_plan_form(&p, pair, 1));
    run_plan_forms(&p, p.compress, p.compress_stages);
    CHECK(p.links == 1 && !strcmp(p.compress_stages, "int8"));
    run_plan_forms(&p, "auto:bf16", "int8");
    CHECK(p.links == 0 && !run_plan_form(&p, pair, 2));
    run_plan_forms(&p, "bf16", "auto");
    CHECK_OK(run_plan_stage_link(&p, 3, 1, "fp16"));
    run_plan_forms(&p, "int8", "auto");
    CHECK(p.stage_links == 1 && !strcmp(run_plan_stage_form(&p, 1, 3), "fp16") && !run_plan_stage_form(&p, 1, 2));
    run_plan_forms(&p, "int8", "auto:0.1");
    CHECK(p.stage_links == 0 && !run_plan_stage_form(&p, 1, 3));
    run_plan_release(&p);
}

/* Cut short anywhere, or with bytes changed: refused, or a plan that passes its check. */
static void damaged_files_do_no_harm(void)
{
    gt_random r;
    gt_random_init(&r, 10, 0);
    run_plan p;
    gt_text text = { 0 };
    if (!CHECK_OK(make_random(&p, &r, "1f1b")) || !CHECK_OK(run_plan_text(&p, &text)))
        return;
    char *path = gt_path_join(check_folder(), "damaged.json");
    for (size_t n = 0; n + 2 < text.size; n += 1 + n / 40) {
        run_plan q;
        CHECK_OK(gt_file_write(path, text.data, n));
        CHECK_FAILS(run_plan_read(&q, path), GT_FORMAT, "damaged.json");
    }
    int refused = 0;
    for (int n = 0; n < 2000; n++) {
        run_plan q;
        char *changed = malloc(text.size + 1);
        memcpy(changed, text.data, text.size + 1);
        for (int k = 0; k < 3; k++)
            changed[gt_random_below(&r, text.size)] = "0123456789-,.[]{}\"ex\x80"[gt_random_below(&r, 21)];
        const gt_status st = run_plan_parse(&q, changed, "changed");
        refused += st != GT_OK;
        if (!st)
            CHECK_OK(run_plan_check(&q));
        run_plan_release(&q);
        free(changed);
    }
    CHECKF(refused > 1000, "%d of 2000", refused);
    text.data[text.size / 2] = '\0';
    CHECK_OK(gt_file_write(path, text.data, text.size));
    run_plan q;
    CHECK_FAILS(run_plan_read(&q, path), GT_FORMAT, "damaged.json");
    gt_text_release(&text);
    run_plan_release(&p);
    free(path);
}

static void thousands_of_ranks_are_held(void)
{
    enum { RANKS_HERE = 4096, STAGES = 16, REPLICAS = RANKS_HERE / STAGES / 2 };
    run_plan p, again;
    gt_text text = { 0 };
    if (!CHECK_OK(run_plan_create(&p, RANKS_HERE, 98, REPLICAS * 12, 2, 1, REPLICAS)))
        return;
    for (int i = 0; i < REPLICAS; i++) {
        if (!CHECK_OK(run_plan_replica(&p, i, STAGES)))
            return;
        run_replica *q = &p.replica[i];
        q->micro_batches = 12;
        q->micro_batch = 1;
        for (int k = 0; k < STAGES * 2; k++)
            q->rank[k] = RANKS_HERE - 1 - (i * STAGES * 2 + k);
        for (int v = 0; v <= STAGES; v++)
            q->cut[v] = v < STAGES ? 6 * v : 98;
    }
    CHECK_OK(run_plan_check(&p));
    CHECK_OK(run_plan_text(&p, &text));
    if (CHECK_OK(run_plan_parse(&again, text.data, "large")))
        check_same(&p, &again);
    const run_place at = run_plan_place(&again, 0);
    CHECK(at.replica == REPLICAS - 1 && at.stage == STAGES - 1 && at.tensor_rank == 1
          && at.first_sequence == (REPLICAS - 1) * 12);
    gt_text_release(&text);
    run_plan_release(&p);
    run_plan_release(&again);
}

const check_case check_cases[] = {
    CASE(text_and_copies_hold_the_same_plan),
    CASE(every_rank_finds_its_place),
    CASE(schedules_follow_the_costs),
    CASE(one_rank_holds_everything),
    CASE(wrong_plans_are_refused),
    CASE(a_server_has_no_sequences_and_nobody_else_has_none),
    CASE(links_go_with_their_option),
    CASE(ranks_without_a_place_and_odd_interleaving_are_refused),
    CASE(a_plan_may_be_written_by_hand),
    CASE(mistakes_in_files_are_named),
    CASE(damaged_files_do_no_harm),
    CASE(thousands_of_ranks_are_held),
    { 0 }
};
