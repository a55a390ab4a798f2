/* SPDX-License-Identifier: MIT */
/* tests/planner/test_plan_local.c - ranks that measure together end with one plan, find it again in their
 * caches, measure again together when one of them has lost its own, and fail together. */
#include "host/base/file.h"
#include "host/planner/plan_local.h"
#include "tests/check.h"
#include "tests/comm/ranks.h"
#include "tests/train/tiny_run.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RANKS = 2 };

typedef struct stage_set {
    plan_local_options o;
    gt_text plan[RANKS];
    int measured[RANKS], runners_up[RANKS];
} stage_set;

static model_config model;

static gt_status build(graph *g, const void *config, const graph_part *part, int training, int recompute)
{
    return model_build_part(g, config, part, training, recompute);
}

static plan_model as_planned(void)
{
    return (plan_model){ model.name,  build, &model, model_units(&model), (double)model_parameters(&model),
                         model_batch, 0.0 };
}

static plan_local_options options(void)
{
    model = tiny_config();
    return (
        plan_local_options){ .model = as_planned(), .storage = DTYPE_F32, .batch = 8, .seq = TINY_T, .recompute = -1 };
}

/* Every rank has a part of the CPU, rank 1 one so slow that no load of the machine makes the other one slower. */
static gt_status plan_on_rank(net_comm *c, void *context)
{
    stage_set *s = context;
    const int rank = net_comm_rank(c);
    dev_device *d = NULL;
    plan_local_result r = { 0 };
    gt_status st = dev_open(&d, rank ? "cpu:0.1/2@0.05" : "cpu:0.0/2");
    if (!st)
        st = plan_local(&r, c, d, &s->o);
    if (!st) {
        gt_text_release(&s->plan[rank]);
        st = run_plan_text(&r.plan, &s->plan[rank]);
        s->measured[rank] = r.measured;
        s->runners_up[rank] = r.runners_up.size > 0;
    }
    plan_local_release(&r);
    dev_close(d);
    return st;
}

static void release(stage_set *s)
{
    for (int i = 0; i < RANKS; i++)
        gt_text_release(&s->plan[i]);
}

static int devices_are_here(void)
{
    dev_info *all;
    int count, units = 0;
    if (!dev_find(&all, &count)) {
        for (int i = 0; i < count; i++)
            units = all[i].kind == DEV_CPU && all[i].sub_devices_max > 1 ? all[i].compute_units : units;
        free(all);
    }
    gt_message_clear();
    if (units < RANKS)
        check_skip("no CPU device that can be divided");
    return units >= RANKS;
}

static char *use_cache(const char *name)
{
    char *cache = gt_path_join(check_folder(), name);
    setenv("GEARTRAIN_CACHE", cache, 1);
    return cache;
}

static void check_plan(const char *text, int batch)
{
    run_plan p;
    if (!CHECK_OK(run_plan_parse(&p, text, "the plan")))
        return;
    int sequences[RANKS] = { 0 };
    CHECK(p.ranks == RANKS && p.units == model_units(&model) && p.batch == batch && p.step > 0);
    CHECK(!strcmp(p.device[0], "cpu:0.0/2") && !strcmp(p.device[1], "cpu:0.1/2@0.05"));
    for (int r = 0; r < RANKS; r++) {
        const run_place at = run_plan_place(&p, r);
        CHECK(p.memory[r] > 0 && p.memory[r] < p.limit[r]);
        if (p.replicas == RANKS)
            sequences[r] = p.replica[at.replica].micro_batches * p.replica[at.replica].micro_batch;
    }
    if (p.replicas == RANKS)
        CHECKF(sequences[0] > sequences[1], "the slow rank takes %d of %d", sequences[1], batch);
    run_plan_release(&p);
}

/* Removes one file from the folder of profiles; returns how many there were. */
static int lose_profile(const char *cache)
{
    char *folder = gt_path_join(cache, "profile");
    int count = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir)) {
        char *path = gt_path_join(folder, e->d_name);
        if (e->d_name[0] != '.' && count++ == 0)
            remove(path);
        free(path);
    }
    if (dir)
        closedir(dir);
    free(folder);
    return count;
}

static void ranks_agree_on_a_plan(void)
{
    if (!devices_are_here())
        return;
    char *cache = use_cache("agree");
    stage_set s = { .o = options() };
    CHECK_OK(ranks_run(RANKS, NULL, plan_on_rank, &s));
    CHECK(s.measured[0] && s.measured[1] && s.runners_up[0]);
    if (CHECKF(s.plan[0].data && s.plan[1].data, "both have one"))
        CHECK(!strcmp(s.plan[0].data, s.plan[1].data));
    if (s.plan[0].data)
        check_plan(s.plan[0].data, 8);

    CHECK_OK(ranks_run(RANKS, NULL, plan_on_rank, &s));
    CHECKF(!s.measured[0] && !s.measured[1], "from the cache");
    s.o.replicas = RANKS;
    CHECK_OK(ranks_run(RANKS, NULL, plan_on_rank, &s));
    if (s.plan[0].data)
        check_plan(s.plan[0].data, 8);
    s.o.replicas = 0;
    CHECKF(lose_profile(cache) == RANKS, "a profile for each rank");
    CHECK_OK(ranks_run(RANKS, NULL, plan_on_rank, &s));
    CHECKF(s.measured[0] && s.measured[1], "both measure when one has lost its profile");
    CHECK(lose_profile(cache) == RANKS);

    s.o.replicas = 1;
    s.o.schedule = "zb-h1";
    s.o.micro_batch = 2;
    CHECK_OK(ranks_run(RANKS, NULL, plan_on_rank, &s));
    if (s.plan[1].data)
        CHECK(strstr(s.plan[1].data, "zb-h1") && strstr(s.plan[1].data, "\"micro_batch\": 2"));
    release(&s);
    free(cache);
}

static void ranks_fail_together(void)
{
    if (!devices_are_here())
        return;
    char *cache = use_cache("fail");
    stage_set s = { .o = options() };
    ranks_result results[RANKS];
    s.o.stages = 3;
    ranks_run_each(RANKS, NULL, plan_on_rank, &s, results);
    for (int i = 0; i < RANKS; i++)
        CHECKF(results[i].status == GT_MISUSE
                   && (i ? !*results[i].sentence
                         : strstr(results[i].sentence, "3 stages need at least 3 ranks") != NULL),
               "rank %d: %s", i, results[i].sentence);
    s.o.model.parameters = 3e14;
    ranks_run_each(RANKS, NULL, plan_on_rank, &s, results);
    for (int i = 0; i < RANKS; i++)
        CHECKF(results[i].status == GT_MISMATCH
                   && (i ? !*results[i].sentence : strstr(results[i].sentence, "all devices together may use") != NULL),
               "rank %d: %s", i, results[i].sentence);
    release(&s);
    free(cache);
}

static void one_rank_plans_alone(void)
{
    dev_device *d = tiny_device();
    char *cache = use_cache("alone");
    plan_local_options o = options();
    plan_local_result r;
    if (d && CHECK_OK(plan_local(&r, NULL, d, &o))) {
        CHECK(r.plan.ranks == 1 && r.plan.replicas == 1 && r.plan.replica[0].stages == 1 && r.measured);
        CHECK(r.plan.idle < 1e-9 && r.plan.step > 0);
        plan_local_release(&r);
    }
    dev_close(d);
    free(cache);
}

static void words_are_numbers_or_auto(void)
{
    int n = 7;
    CHECK_OK(plan_local_number(&n, "stages", "auto"));
    CHECK(n == 0);
    CHECK_OK(plan_local_number(&n, "stages", NULL));
    CHECK(n == 0);
    CHECK_OK(plan_local_number(&n, "stages", "12"));
    CHECK(n == 12);
    CHECK_FAILS(plan_local_number(&n, "stages", "0"), GT_MISUSE, "--stages: '0'");
    CHECK_FAILS(plan_local_number(&n, "tensor", "many"), GT_MISUSE, "--tensor: 'many'");
    CHECK_FAILS(plan_local_number(&n, "tensor", "99999999999"), GT_MISUSE, "--tensor");
}

const check_case check_cases[] = {
    CASE(ranks_agree_on_a_plan),
    CASE(ranks_fail_together),
    CASE(one_rank_plans_alone),
    CASE(words_are_numbers_or_auto),
    { 0 }
};
