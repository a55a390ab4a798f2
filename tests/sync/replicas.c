/* SPDX-License-Identifier: MIT */
/* tests/sync/replicas.c - plans, trains and compares replicas of the tiny model. */
#include "tests/sync/replicas.h"

#include "host/base/file.h"
#include "host/compress/compressor.h"
#include "tests/check.h"
#include "tests/comm/ranks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { UNITS = 4 };

model_config replicas_model;
int replicas_spare_positions;

static void note_row(void *context, const metrics_row *row)
{
    ((replicas *)context)->loss[row->step - 1] = row->loss;
}

gt_status replicas_train(net_comm *c, void *context)
{
    replicas *j = context;
    const int rank = net_comm_rank(c);
    const char *spec = getenv("GT_TEST_DEVICE");
    train_options o = j->o;
    const train_hooks hooks = { .context = j, .step = note_row };
    dev_device *d = NULL;
    train *t = NULL;
    size_t count = 0;
    uint64_t received, before = 0;
    o.comm = c;
    o.plan = &j->plan;
    gt_status st = dev_open(&d, spec);
    if (!st)
        st = tiny_create(&t, d, &replicas_model, &o);
    /* How much it takes to measure links depends on what else the machine does meanwhile. */
    net_comm_traffic(c, &before, &received);
    if (!st)
        st = train_run(t, rank ? NULL : &hooks);
    net_comm_traffic(c, &j->crossed[rank], &received);
    j->crossed[rank] -= before;
    if (!st)
        j->x[rank] = tiny_params(t, 0, &count);
    if (!st && !rank) {
        j->count = count;
        j->sent = (double)train_balance_of(t)->sent;
    }
    train_release(t);
    dev_close(d);
    return st;
}

int replicas_plan(run_plan *p, int ranks, const char *mode)
{
    if (!CHECK_OK(run_plan_create(p, ranks, UNITS, TINY_B, 1, 1, ranks)))
        return 0;
    /* Where servers have their parts by their links, these are fixed: measuring them sends what no step tells of, and
     * gives other parts each time. */
    const sync_mode *m = sync_mode_find(mode);
    sync_settings s;
    sync_settings_usual(m, &s);
    char list[64] = "";
    for (int r = 0; r < ranks; r++)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%d:%d", r ? "," : "", r, r + 1);
    if (sync_setting_find(m, "servers", NULL) && !CHECK_OK(sync_settings_set(m, &s, "servers", list)))
        return 0;
    run_plan_sync(p, mode, &s);
    for (int r = 0; r < ranks; r++) {
        if (!CHECK_OK(run_plan_replica(p, r, 1)))
            return 0;
        run_replica *q = &p->replica[r];
        q->rank[0] = r;
        q->cut[1] = UNITS;
        q->micro_batch = 1;
        q->micro_batches = r ? r : TINY_B - ranks * (ranks - 1) / 2;
    }
    return CHECK_OK(run_plan_check(p));
}

void replicas_release(replicas *j)
{
    for (int r = 0; r < REPLICAS_MOST; r++) {
        free(j->x[r]);
        j->x[r] = NULL;
    }
    run_plan_release(&j->plan);
}

int replicas_run(replicas *j, int ranks, const char *mode, const compress_spec *c, uint64_t steps, const char *folder)
{
    j->o = tiny_options();
    j->o.gemm = "native";
    j->o.whole_tables = 1; /* rows of tables are added up in another order */
    j->o.steps = steps;
    j->o.compress = c ? *c : (compress_spec){ 0 };
    j->o.run = folder;
    j->o.save_every = folder ? REPLICAS_STEPS / 2 : 0;
    j->o.resume = folder && gt_path_exists(folder);
    j->o.optim.eps = 1e-4; /* a key's bias has no gradient but rounding */
    if (c && c->momentum > 0.0) {
        optim_config_rule(&j->o.optim, optim_rule_find("sgd"));
        j->o.optim.momentum = 0.0;
    }
    replicas_model = tiny_config();
    replicas_model.context += replicas_spare_positions;
    if (!replicas_plan(&j->plan, ranks, mode) || !CHECK_OK(ranks_run(ranks, "algorithm=direct", replicas_train, j)))
        return 0;
    for (int r = 1; r < ranks; r++)
        CHECKF(!memcmp(j->x[0], j->x[r], j->count * sizeof(float)), "%s, %s: rank %d has other weights than rank 0",
               mode, c ? c->how->name : "none", r);
    return 1;
}

double replicas_distance(const replicas *a, const replicas *b)
{
    double sum = 0.0, norm = 0.0;
    for (size_t i = 0; i < a->count; i++) {
        sum += pow((double)a->x[0][i] - (double)b->x[0][i], 2);
        norm += pow((double)b->x[0][i], 2);
    }
    return sqrt(sum / norm);
}
