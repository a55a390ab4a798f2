/* SPDX-License-Identifier: MIT */
/* tests/sync/local_run.c - plans and trains replicas of the tiny model under --sync local. */
#include "tests/sync/local_run.h"

#include "host/base/file.h"
#include "tests/check.h"
#include "tests/comm/ranks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { UNITS = 4 };

model_config local_model;
const tiny_replica local_unequal[3] = { { 1, 3, 1 }, { 1, 1, 1 }, { 1, 1, 2 } };
const tiny_replica local_two[2] = { { 1, 2, 2 }, { 1, 1, 2 } };

static void note_row(void *context, const metrics_row *row)
{
    local_run *j = context;
    j->loss[row->step - 1] = row->loss;
    j->tokens[row->step - 1] = row->tokens;
    j->seconds[row->step - 1] = 1e-3 * row->step_ms;
    j->sent[row->step - 1] = train_balance_of(j->t)->sent;
    j->rows++;
}

static gt_status body(net_comm *c, void *context)
{
    local_run *j = context;
    const int rank = net_comm_rank(c);
    train_options o = j->o;
    const train_hooks hooks = { .context = j, .step = note_row };
    dev_device *d = NULL;
    train *t = NULL;
    o.comm = c;
    o.plan = &j->plan;
    gt_status st = tiny_open(&d);
    if (!st)
        st = tiny_create(&t, d, &local_model, &o);
    if (!st && !rank)
        j->t = t;
    if (!st)
        st = train_run(t, rank ? NULL : &hooks);
    if (!st)
        j->x[rank] = tiny_params(t, 0, &j->count[rank]);
    train_release(t);
    dev_close(d);
    return st;
}

void local_run_release(local_run *j)
{
    for (int r = 0; r < LOCAL_MOST; r++)
        free(j->x[r]);
    run_plan_release(&j->plan);
    *j = (local_run){ 0 };
}

int local_settings(sync_settings *s, const char *mode, const char *text)
{
    char copy[160];
    sync_settings_usual(sync_mode_find(mode), s);
    snprintf(copy, sizeof copy, "%s", text);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) {
        char *value = strchr(word, '=');
        *value++ = '\0';
        if (!CHECK_OK(sync_settings_set(sync_mode_find(mode), s, word, value)))
            return 0;
    }
    return 1;
}

train_options local_options(uint64_t steps, const char *rule, const char *folder)
{
    train_options o = tiny_options();
    o.gemm = "native";
    o.steps = steps;
    optim_config_rule(&o.optim, optim_rule_find(rule));
    o.optim.lr = strcmp(rule, "sgd") ? 1e-3 : 0.05;
    o.optim.eps = 1e-4;                     /* a key's bias has no gradient but rounding */
    o.optim.momentum = 0.0;
    o.run = folder;
    o.save_every = folder ? LOCAL_STEPS / 2 : 0;
    o.resume = folder && gt_path_exists(folder);
    return o;
}

int local_run_go(local_run *j, const tiny_replica *r, int count, int tensor, const char *mode, const char *settings,
                 const train_options *o)
{
    sync_settings s;
    j->o = *o;
    if (!local_settings(&s, mode, settings)
        || !tiny_plan(&j->plan, UNITS, TINY_B, "1f1b", "allreduce", r, count, tensor))
        return 0;
    run_plan_sync(&j->plan, mode, &s);
    return CHECK_OK(run_plan_check(&j->plan)) && CHECK_OK(ranks_run(j->plan.ranks, "algorithm=direct", body, j));
}

int local_takes_part(int every, int steps, int step)
{
    const double h = steps ? steps : every, i = (step - 1) % every + 1;
    return floor(i * h / every + 1e-9) > floor((i - 1) * h / every + 1e-9);
}
