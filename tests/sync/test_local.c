/* SPDX-License-Identifier: MIT */
/* tests/sync/test_local.c - what local training leaves as it was, whatever its rule.
 *
 *   to the bit    sums of gradients while it has not begun, rounds in which all make all steps, a run that was stopped
 *   by rounding   replicas of other shapes, or of other ranks from a checkpoint on
 *   counted       tokens of those who took part, and no byte between outer steps
 *
 * That the rules do what was published is test_local_rules.c.                                 */
#include "host/base/file.h"
#include "tests/check.h"
#include "tests/sync/local_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double distance(const float *a, const float *b, size_t n)
{
    double all = 0.0, norm = 0.0;
    for (size_t i = 0; i < n; i++) {
        all += pow((double)a[i] - (double)b[i], 2);
        norm += pow((double)b[i], 2);
    }
    return sqrt(all / norm);
}

/* Sums all the way are sums, to the bit; averages after each step of SGD are, but for rounding. */
static void one_step_is_a_sum(void)
{
    local_run sums = { 0 }, after = { 0 }, each = { 0 };
    const train_options o = local_options(LOCAL_STEPS, "sgd", NULL);
    local_model = tiny_config();
    train_options free_norm = o;
    free_norm.optim.clip = 0.0;             /* a replica clips by its own norm */
    free_norm.optim.weight_decay = 0.0;
    if (local_run_go(&sums, local_two, 2, 1, "allreduce", "", &free_norm)
        && local_run_go(&after, local_two, 2, 1, "local", "local-steps=5 local-after=12", &free_norm)
        && local_run_go(&each, local_two, 2, 1, "local", "local-steps=1", &free_norm)) {
        const double off = distance(each.x[0], sums.x[0], sums.count[0]);
        CHECK(!memcmp(sums.x[0], after.x[0], sums.count[0] * sizeof(float)));
        CHECK(!memcmp(sums.loss, after.loss, sizeof sums.loss));
        CHECKF(off < 1e-6, "averages of every step are off by %.3g", off);
        for (int i = 0; i < LOCAL_STEPS; i++)
            CHECKF(fabs(each.loss[i] - sums.loss[i]) < 1e-5, "step %d: a loss of %.7g for %.7g", i + 1, each.loss[i],
                   sums.loss[i]);
    }
    local_run_release(&sums);
    local_run_release(&after);
    local_run_release(&each);
}

/* Replicas that make all steps of a round do what they do without being told how many. */
static void all_steps_of_all_are_rounds_as_ever(void)
{
    local_run off = { 0 }, even = { 0 };
    const train_options o = local_options(LOCAL_STEPS, "adamw", NULL);
    local_model = tiny_config();
    if (local_run_go(&off, local_unequal, 3, 1, "local", "local-steps=4 outer=nesterov", &o)
        && local_run_go(&even, local_unequal, 3, 1, "local", "local-steps=4 outer=nesterov local-uneven=4:4:4", &o)) {
        CHECK(!memcmp(off.x[0], even.x[0], off.count[0] * sizeof(float)));
        CHECK(!memcmp(off.loss, even.loss, sizeof off.loss));
    }
    local_run_release(&off);
    local_run_release(&even);
}

/* A step's batch is of those who take part, so tokens tell who did: none is counted that was not trained on. */
static void tokens_are_those_that_were_trained_on(void)
{
    const int sizes[] = { 3, 1, 2 };
    const int steps_of[] = { 2, 4, 1 };
    local_run j = { 0 };
    const train_options o = local_options(LOCAL_STEPS, "adamw", NULL);
    uint64_t all = 0;
    local_model = tiny_config();
    if (local_run_go(&j, local_unequal, 3, 1, "local", "local-steps=4 local-uneven=2:4:1", &o))
        for (int s = 1; s <= LOCAL_STEPS; s++) {
            for (int r = 0; r < 3; r++)
                all += local_takes_part(4, steps_of[r], s) ? (uint64_t)sizes[r] * TINY_T : 0;
            CHECKF(j.tokens[s - 1] == all, "after step %d %llu tokens, for %llu", s,
                   (unsigned long long)j.tokens[s - 1], (unsigned long long)all);
            CHECK(isfinite(j.loss[s - 1]) && j.seconds[s - 1] > 0.0);
        }
    local_run_release(&j);
}

static void nothing_travels_between_outer_steps(void)
{
    local_run sums = { 0 }, local = { 0 };
    const train_options o = local_options(LOCAL_STEPS, "adamw", NULL);
    local_model = tiny_config();
    if (local_run_go(&sums, local_two, 2, 1, "allreduce", "", &o)
        && local_run_go(&local, local_two, 2, 1, "local", "local-steps=4 local-after=2 outer=nesterov", &o))
        for (int i = 0; i < LOCAL_STEPS; i++) {
            const int step = i + 1, meets = step <= 2 || (step - 2) % 4 == 0 || step == LOCAL_STEPS;
            CHECKF(local.sent[i] == (meets ? sums.sent[i] : 0), "step %d sends %llu bytes", step,
                   (unsigned long long)local.sent[i]);
        }
    local_run_release(&sums);
    local_run_release(&local);
}

/* A run that goes on has the bits of one that never stopped. */
static void all_of_it_is_in_checkpoints(void)
{
    const char *settings[] = { "local-steps=3 outer=average", "local-steps=3 outer=nesterov",
                               "local-steps=6 outer=nesterov fragments=2 overlap=1",
                               "local-steps=4 local-after=2 outer=sgd fragments=2 local-uneven=1:4:3",
                               "local-steps=6 outer=sparse sparse-keep=0.05 fragments=2 overlap=1 local-uneven=6:1:4" };
    local_model = tiny_config();
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        char name[16];
        snprintf(name, sizeof name, "run-%d", (int)i);
        char *folder = gt_path_join(check_folder(), name);
        local_run whole = { 0 }, part = { 0 }, rest = { 0 };
        train_options o = local_options(LOCAL_STEPS, "adamw", NULL), half = local_options(LOCAL_STEPS, "adamw", folder);
        half.patience = 0;
        half.steps = LOCAL_STEPS;
        if (local_run_go(&whole, local_unequal, 3, 1, "local", settings[i], &o)
            && local_run_go(&part, local_unequal, 3, 1, "local", settings[i], &half)) {
            char *last = gt_path_join(folder, "checkpoints/step-000012");
            CHECK_OK(gt_folder_remove(last));       /* as if it had been killed behind step 6 */
            free(last);
            half = local_options(LOCAL_STEPS, "adamw", folder);
            CHECK(!memcmp(part.x[0], whole.x[0], whole.count[0] * sizeof(float)));
            if (CHECKF(half.resume, "there is no run")
                && local_run_go(&rest, local_unequal, 3, 1, "local", settings[i], &half)) {
                CHECKF(rest.rows == LOCAL_STEPS / 2, "%s: %d rows follow", settings[i], rest.rows);
                for (int r = 0; r < 3; r++)
                    CHECKF(!memcmp(rest.x[r], whole.x[r], whole.count[r] * sizeof(float)),
                           "%s: going on, rank %d has "
                           "other bits",
                           settings[i], r);
            }
        }
        free(folder);
        local_run_release(&whole);
        local_run_release(&part);
        local_run_release(&rest);
    }
}

/* Replicas of several ranks, and of other shapes than each other. */
static void replicas_of_any_shape_do_the_same(void)
{
    const tiny_replica staged[] = { { 2, 2, 2 }, { 1, 1, 2 } }, both[] = { { 2, 2, 2 }, { 2, 1, 2 } };
    const char *how[] = { "local-steps=4 outer=nesterov", "local-steps=4 outer=sparse sparse-keep=0.0625",
                          "local-steps=4 outer=nesterov local-uneven=2:4" };
    const struct {
        const char *name;
        const tiny_replica *of;
        int tensor, how;                    /* tensor ranks cut chunks */
    } cases[] = { { "stages beside one rank", staged, 1, 0 },
                  { "stages", both, 1, 0 },
                  { "tensor ranks", local_two, 2, 0 },
                  { "sparse stages beside one rank", staged, 1, 1 },
                  { "sparse stages", both, 1, 1 },
                  { "uneven stages beside one rank", staged, 1, 2 },
                  { "uneven tensor ranks", local_two, 2, 2 } };
    const train_options o = local_options(LOCAL_STEPS, "adamw", NULL);
    local_run plain[3];
    memset(plain, 0, sizeof plain);
    local_model = tiny_config();
    if (local_run_go(&plain[0], local_two, 2, 1, "local", how[0], &o)
        && local_run_go(&plain[1], local_two, 2, 1, "local", how[1], &o)
        && local_run_go(&plain[2], local_two, 2, 1, "local", how[2], &o))
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            const double *want = plain[cases[i].how].loss;
            local_run j = { 0 };
            if (local_run_go(&j, cases[i].of, 2, cases[i].tensor, "local", how[cases[i].how], &o))
                for (int s = 0; s < LOCAL_STEPS; s++)
                    CHECKF(fabs(j.loss[s] - want[s]) < 2e-5, "%s: step %d has a loss of %.7g for %.7g", cases[i].name,
                           s + 1, j.loss[s], want[s]);
            local_run_release(&j);
        }
    for (int i = 0; i < 3; i++)
        local_run_release(&plain[i]);
}

/* Momentum and starts are of parameters: they go where these go. The rule inside keeps nothing here. */
static void another_plan_goes_on(void)
{
    const tiny_replica staged[] = { { 2, 2, 2 }, { 1, 1, 2 } };
    const char *how = "local-steps=3 outer=nesterov";
    char *folder = gt_path_join(check_folder(), "moved");
    local_run whole = { 0 }, part = { 0 }, rest = { 0 };
    const train_options o = local_options(LOCAL_STEPS, "sgd", NULL),
                        half = local_options(LOCAL_STEPS / 2, "sgd", folder);
    local_model = tiny_config();
    if (local_run_go(&whole, local_two, 2, 1, "local", how, &o)
        && local_run_go(&part, local_two, 2, 1, "local", how, &half)) {
        train_options more = local_options(LOCAL_STEPS, "sgd", folder);
        if (local_run_go(&rest, staged, 2, 1, "local", how, &more))
            for (int s = LOCAL_STEPS / 2; s < LOCAL_STEPS; s++)
                CHECKF(fabs(rest.loss[s] - whole.loss[s]) < 2e-5, "step %d has a loss of %.7g for %.7g", s + 1,
                       rest.loss[s], whole.loss[s]);
    }
    free(folder);
    local_run_release(&whole);
    local_run_release(&part);
    local_run_release(&rest);
}

static void what_cannot_be_is_refused(void)
{
    const struct {
        const char *settings, *says;
        int ranks;
    } cases[] = { { "local-steps=4", "several replicas", 1 },
                  { "local-steps=4 fragments=5", "more than one a step", 2 },
                  { "local-steps=8 fragments=2 overlap=4", "must be below", 2 },
                  { "local-steps=8 local-uneven=4:x", "each replica's steps", 2 },
                  { "local-steps=8 local-uneven=4:0", "each replica's steps", 2 },
                  { "local-steps=8 local-uneven=4:2", "give --local-steps 4", 2 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sync_settings s;
        const sync_mode *mode = sync_mode_find("local");
        if (!local_settings(&s, "local", cases[i].settings))
            continue;
        CHECK(sync_settings_check(mode, &s, cases[i].ranks) == GT_MISUSE);
        CHECKF(strstr(gt_message(), cases[i].says) != NULL, "%s", gt_message());
    }
    sync_settings s;
    const sync_mode *mode = sync_mode_find("local");
    if (local_settings(&s, "local", "local-steps=8 local-uneven=8:2:3")) {
        CHECK_OK(sync_settings_check_replicas(mode, &s, 3));
        CHECK(sync_settings_check_replicas(mode, &s, 2) == GT_MISUSE);
        CHECKF(strstr(gt_message(), "is for 3 replicas, and there are 2") != NULL, "%s", gt_message());
    }
    gt_message_clear();
}

const check_case check_cases[] = {
    CASE(one_step_is_a_sum),
    CASE(all_steps_of_all_are_rounds_as_ever),
    CASE(tokens_are_those_that_were_trained_on),
    CASE(nothing_travels_between_outer_steps),
    CASE(all_of_it_is_in_checkpoints),
    CASE(replicas_of_any_shape_do_the_same),
    CASE(another_plan_goes_on),
    CASE(what_cannot_be_is_refused),
    { 0 }
};
