/* SPDX-License-Identifier: MIT */
/* tests/train/test_checkpoint.c - what is saved is what is loaded; what is damaged is found. */
#include "tests/check.h"
#include "tests/train/tiny_run.h"

#include "host/base/file.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static dev_device *device;          /* opened by the first case, and kept */
static model_config config;

/* A run folder of this name that holds checkpoints of steps 2, 4, ..., `steps`, and its
 * trainer; NULL after a failed check. */
static train *run_of(const char *name, uint64_t steps, int keep, char **folder)
{
    if (!device)
        device = tiny_device();
    config = tiny_config();
    *folder = gt_path_join(check_folder(), name);
    train_options o = tiny_options();
    o.steps = steps;
    o.save_every = 2;
    o.keep = keep;
    o.run = *folder;
    train *t = device ? tiny_train(device, &config, &o) : NULL;
    if (t)
        CHECK_OK(train_run(t, NULL));
    return t;
}

static char *file_of(const char *run, uint64_t step, const char *name)
{
    char text[128];
    snprintf(text, sizeof text, "checkpoints/step-%06llu/%s", (unsigned long long)step, name);
    return gt_path_join(run, text);
}

/* Parameters, moments and scalars, one behind the other; free() it. */
static float *snapshot(train *t, size_t *count)
{
    size_t n = 0;
    float *parameters = tiny_params(t, 0, &n), *all = realloc(parameters, 4 * (3 * n + OPTIM_STATE_FLOATS));
    *count = n;
    for (int m = 0; m < 2; m++)
        for (int i = 0; i < params_count(train_params(t)); i++) {
            CHECK_OK(optim_slot_read(train_optim(t), i, m, all + *count));
            *count += (size_t)shape_count(&params_info(train_params(t), i)->shape);
        }
    dev_event *event = NULL;
    CHECK_OK(optim_state_read(train_optim(t), all + *count, &event));
    CHECK_OK(dev_event_wait(event));
    CHECK(all[*count + OPTIM_STEP] == 6.0f);
    *count += OPTIM_STATE_FLOATS;
    return all;
}

static void everything_comes_back(void)
{
    char *folder;
    size_t n = 0, same = 1;
    train *t = run_of("back", 6, 0, &folder);
    if (!t)
        return;
    train_options o = tiny_options();
    o.run = folder;
    o.resume = 1;
    float *before = snapshot(t, &n), *after = NULL;
    train *second = NULL;
    CHECK_FAILS(tiny_create(&second, device, &config, &o), GT_MISUSE, "another process");
    train_release(t);
    t = tiny_train(device, &config, &o);
    if (t) {
        CHECK(train_steps_done(t) == 6);
        after = snapshot(t, &same);
        CHECK(n == same && !memcmp(before, after, 4 * n));
    }
    free(before);
    free(after);
    train_release(t);
    free(folder);
}

/* The gradient is a mean over the tokens of this run's steps, not of those that the checkpoint comes from. */
static void another_batch_has_its_own_mean(void)
{
    char *folder;
    size_t count = 0, at = 0;
    double loss, norm, fresh_loss, fresh_norm;
    train_release(run_of("batch", 2, 0, &folder));
    train_options o = tiny_options();
    o.run = folder;
    o.resume = 1;
    o.batch = 2 * TINY_B;
    train *t = tiny_train(device, &config, &o);
    o.run = NULL;
    o.resume = 0;
    train *fresh = t ? tiny_train(device, &config, &o) : NULL;
    if (fresh) {
        float *x = tiny_params(t, 0, &count);
        for (int i = 0; i < params_count(train_params(fresh)); i++) {
            CHECK_OK(params_write(train_params(fresh), i, x + at));
            at += (size_t)shape_count(&params_info(train_params(fresh), i)->shape);
        }
        CHECK_OK(train_once(t, 4, 1, &loss, &norm));
        CHECK_OK(train_once(fresh, 4, 1, &fresh_loss, &fresh_norm));
        CHECKF(loss == fresh_loss && norm == fresh_norm, "loss %.9g and norm %.9g, not %.9g and %.9g", loss, norm,
               fresh_loss, fresh_norm);
        free(x);
    }
    train_release(fresh);
    train_release(t);
    free(folder);
}

/* What validations came to travels with a checkpoint, bit for bit; and the best is kept, and named by a link. */
static void the_best_is_kept_and_known(void)
{
    char *folder, *path;
    checkpoint_info info = { .seed = 3, .best = { 20, 1.0 / 3.0, 0.1 + 0.2, 4 } }, found;
    train *t = run_of("best", 1, 0, &folder);
    if (!t)
        return;
    for (info.step = 10; info.step <= 40; info.step += 10)
        CHECK_OK(checkpoint_save(folder, &info, train_params(t), NULL, 0, NULL, NULL));
    CHECK_OK(checkpoint_find(&path, &found, folder));
    CHECK(found.step == 40 && found.best.step == 20 && found.best.waited == 4);
    CHECK(found.best.loss == info.best.loss && found.best.reference == info.best.reference);
    free(path);
    CHECK(checkpoint_is_there(folder, 20) && !checkpoint_is_there(folder, 25));
    CHECK_OK(checkpoint_mark_best(folder, 10));
    CHECK_OK(checkpoint_mark_best(folder, 20));
    CHECK_OK(checkpoint_prune(folder, 1, UINT64_MAX, 20));
    CHECK(checkpoint_is_there(folder, 20) && checkpoint_is_there(folder, 40));
    CHECK(!checkpoint_is_there(folder, 10) && !checkpoint_is_there(folder, 30));
    char *best = gt_path_join(folder, "checkpoints/best");
    CHECK_OK(checkpoint_find(&path, &found, best));
    CHECK(found.step == 20);
    CHECK_OK(checkpoint_mark_best(folder, 0));
    CHECK_OK(checkpoint_mark_best(folder, 0));              /* there is none to be removed */
    CHECK(!gt_path_exists(best));
    info.best.step = 0;
    info.step = 50;
    CHECK_OK(checkpoint_save(folder, &info, train_params(t), NULL, 0, NULL, NULL));
    free(path);
    CHECK_OK(checkpoint_find(&path, &found, folder));
    CHECK(found.step == 50 && !found.best.step);
    free(path);
    free(best);
    train_release(t);
    free(folder);
}

static void names_do_not_depend_on_how_many_steps(void)
{
    char *folder, *path;
    checkpoint_info info = { .step = 12345678901u, .seed = 18446744073709551615u, .tokens = 99 }, found;
    train *t = run_of("names", 2, 0, &folder);
    if (!t)
        return;
    uint64_t bytes = 0;
    CHECK_OK(checkpoint_save(folder, &info, train_params(t), NULL, 0, NULL, &bytes));
    CHECK(bytes > 0);
    CHECK_OK(checkpoint_find(&path, &found, folder));
    CHECK(strstr(path, "step-12345678901") != NULL);
    CHECK(found.step == info.step && found.seed == info.seed && found.tokens == 99);
    CHECK_OK(checkpoint_load(path, train_params(t), NULL, 0, NULL));
    CHECK_FAILS(checkpoint_load(path, train_params(t), (checkpoint_state[]){ optim_saved(train_optim(t)) }, 1, NULL),
                GT_NOT_FOUND, "optimizer");
    free(path);
    /* The same step once more takes the place of the first. */
    CHECK_OK(checkpoint_save(folder, &info, train_params(t), (checkpoint_state[]){ optim_saved(train_optim(t)) }, 1,
                             NULL, NULL));
    CHECK_OK(checkpoint_find(&path, &found, folder));
    CHECK_OK(checkpoint_load(path, train_params(t), (checkpoint_state[]){ optim_saved(train_optim(t)) }, 1, NULL));
    free(path);
    train_release(t);
    free(folder);
}

typedef enum damage { FLIP, CUT, GROW, EMPTY, REMOVE } damage;

static void spoil(const char *path, damage how)
{
    char *data = NULL;
    size_t size = 0;
    CHECK_OK(gt_file_read(&data, &size, path, (size_t)1 << 30));
    if (how == FLIP)
        data[size / 2] ^= 1;
    if (how == REMOVE)
        unlink(path);
    else
        CHECK_OK(gt_file_write(path, data, how == CUT ? size / 2 : how == EMPTY ? 0 : how == GROW ? size + 1 : size));
    free(data);
}

static void damage_is_found_and_passed_over(void)
{
    static const char *const files[] = { "params.safetensors", "optimizer.safetensors", "manifest.json" };
    checkpoint_info info;
    check_allow_warnings();
    for (int file = 0; file < 3; file++)
        for (damage how = FLIP; how <= REMOVE; how++) {
            char *folder, *path = NULL, name[32];
            if (file == 2 && (how == FLIP || how == GROW))
                continue;                   /* a manifest may survive these */
            snprintf(name, sizeof name, "damage-%d-%d", file, (int)how);
            train *t = run_of(name, 4, 0, &folder);
            if (!t)
                return;
            char *victim = file_of(folder, 4, files[file]);
            spoil(victim, how);
            CHECK_OK(checkpoint_find(&path, &info, folder));
            CHECKF(path && info.step == 2, "%s, damage %d: step %llu", files[file], (int)how,
                   (unsigned long long)info.step);
            CHECK_OK(
                checkpoint_load(path, train_params(t), (checkpoint_state[]){ optim_saved(train_optim(t)) }, 1, NULL));
            free(path);
            free(victim);
            victim = file_of(folder, 2, "params.safetensors");
            spoil(victim, CUT);
            CHECK_FAILS(checkpoint_find(&path, &info, folder), GT_FORMAT, "whole checkpoint");
            CHECK(path == NULL);
            free(victim);
            free(folder);
            train_release(t);
        }
}

static int count_checkpoints(const char *folder, int *partial)
{
    char *path = gt_path_join(folder, "checkpoints");
    DIR *dir = opendir(path);
    int count = 0;
    *partial = 0;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        count += !strncmp(e->d_name, "step-", 5);
        *partial += !strncmp(e->d_name, ".partial", 8);
    }
    if (dir)
        closedir(dir);
    free(path);
    return count;
}

static void old_and_unfinished_ones_go(void)
{
    char *folder;
    int partial;
    train *t = run_of("prune", 10, 0, &folder);
    if (!t)
        return;
    CHECK(count_checkpoints(folder, &partial) == 5 && !partial);
    char *unfinished = gt_path_join(folder, "checkpoints/.partial-step-000012-1");
    CHECK_OK(gt_folder_make(unfinished));
    CHECK_OK(checkpoint_prune(folder, 0, UINT64_MAX, 0));
    CHECK(count_checkpoints(folder, &partial) == 5 && !partial);
    CHECK_OK(checkpoint_prune(folder, 1, 6, 0));           /* 10 and 8 are later than 6 */
    CHECK(count_checkpoints(folder, &partial) == 3);
    char *kept = file_of(folder, 6, "manifest.json");
    CHECK(gt_path_exists(kept));
    CHECK_OK(checkpoint_prune(folder, 2, UINT64_MAX, 0));
    CHECK(count_checkpoints(folder, &partial) == 2 && !gt_path_exists(kept));
    free(kept);
    free(unfinished);
    train_release(t);
    char *other;
    t = run_of("keep", 10, 3, &other);
    CHECK(count_checkpoints(other, &partial) == 3);
    train_release(t);
    free(other);
    free(folder);
}

static void another_model_is_refused(void)
{
    char *folder;
    train *t = run_of("mismatch", 2, 0, &folder), *other = NULL;
    if (!t)
        return;
    train_release(t);
    train_options o = tiny_options();
    o.run = folder;
    o.resume = 1;
    model_config c = tiny_config();
    c.inner = 64;
    CHECK_FAILS(tiny_create(&other, device, &c, &o), GT_MISMATCH, "h.0.mlp.c_fc");
    CHECK(other == NULL);
    c = tiny_config();
    c.layers = 3;
    CHECK_FAILS(tiny_create(&other, device, &c, &o), GT_MISMATCH, "'h.2.ln_1.weight' is missing");
    c.layers = 1;
    CHECK_FAILS(tiny_create(&other, device, &c, &o), GT_MISMATCH, "'h.1.attn.c_attn.bias', the model");
    c = tiny_config();
    o.seed = 8;
    CHECK_FAILS(tiny_create(&other, device, &c, &o), GT_MISMATCH, "seed 7, not 8");
    o.seed = 7;
    optim_config_rule(&o.optim, optim_rule_find("sgd"));
    CHECK_FAILS(tiny_create(&other, device, &c, &o), GT_MISMATCH, "holds second moments, which this");
    o.optim.momentum = 0.0;         /* needs less than there is */
    t = tiny_train(device, &c, &o);
    train_release(t);
    free(folder);
}

static void weights_that_are_not_finite_are_refused(void)
{
    char *folder, *path = NULL;
    checkpoint_info info = { .step = 4, .seed = 7, .tokens = 1 };
    train *t = run_of("nan", 2, 0, &folder);
    if (!t)
        return;
    params *p = train_params(t);
    const int i = params_find(p, "ln_f.weight");
    float row[32];
    CHECK_OK(params_read(p, i, row));
    row[5] = NAN;
    CHECK_OK(params_write(p, i, row));
    CHECK_OK(checkpoint_save(folder, &info, p, (checkpoint_state[]){ optim_saved(train_optim(t)) }, 1, NULL, NULL));
    CHECK_OK(checkpoint_find(&path, &info, folder));
    CHECK_FAILS(checkpoint_load(path, p, NULL, 0, NULL), GT_NUMERIC, "'ln_f.weight' holds a value");
    free(path);
    train_release(t);
    free(folder);
}

static void a_failed_save_leaves_the_last_one(void)
{
    char *folder, *path = NULL;
    checkpoint_info info = { .step = 4, .seed = 7, .tokens = 1 };
    train *t = run_of("refused", 2, 0, &folder);
    if (!t)
        return;
    /* A file lies where the new folder must go. */
    char *blocked = gt_path_join(folder, "checkpoints/step-000004");
    CHECK_OK(gt_file_write(blocked, "x", 1));
    gt_status st = checkpoint_save(folder, &info, train_params(t), (checkpoint_state[]){ optim_saved(train_optim(t)) },
                                   1, NULL, NULL);
    CHECK(st == GT_OK || st == GT_IO);
    unlink(blocked);
    int partial;
    count_checkpoints(folder, &partial);
    CHECK(partial == 0);
    CHECK_OK(checkpoint_find(&path, &info, folder));
    free(path);
    free(blocked);
    train_release(t);
    free(folder);
}

const check_case check_cases[] = {
    CASE(everything_comes_back),
    CASE(another_batch_has_its_own_mean),
    CASE(the_best_is_kept_and_known),
    CASE(names_do_not_depend_on_how_many_steps),
    CASE(damage_is_found_and_passed_over),
    CASE(old_and_unfinished_ones_go),
    CASE(another_model_is_refused),
    CASE(weights_that_are_not_finite_are_refused),
    CASE(a_failed_save_leaves_the_last_one),
    { 0 }
};
