/* SPDX-License-Identifier: MIT */
/* host/planner/serving.c - see serving.h. */
#include "host/planner/serving.h"

#include "host/sync/sync.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int serves(const char *sync, const sync_settings *settings, int rank)
{
    const sync_mode *m = sync ? sync_mode_find(sync) : NULL;
    return m && sync_mode_serves_only(m, settings, rank);
}

int serving_count(const char *sync, const sync_settings *settings, int ranks)
{
    int count = 0;
    for (int r = 0; r < ranks; r++)
        count += serves(sync, settings, r);
    return count;
}

/* The job without the servers: train[i] is the number of its rank i. */
typedef struct part {
    local_job job;
    sync_settings settings;             /* of job: all of those serve */
    local_rank *rank;
    double *latency, *bandwidth;
    int *train, *serve, serving;
} part;

static void release(part *p)
{
    free(p->rank);
    free(p->latency);
    free(p->bandwidth);
    free(p->train);
    free(p->serve);
}

static void pick(double *to, const double *from, const part *p, int ranks)
{
    for (int i = 0; from && i < p->job.ranks; i++)
        for (int k = 0; k < p->job.ranks; k++)
            to[i * p->job.ranks + k] = from[p->train[i] * ranks + p->train[k]];
}

static gt_status divide(part *p, const local_job *job)
{
    const size_t n = (size_t)job->ranks;
    const sync_mode *m = sync_mode_find(job->sync);
    *p = (part){ .job = *job, .settings = *job->settings };
    gt_status st = sync_settings_set(m, &p->settings, "servers", "all");
    if (!st)
        st = sync_settings_set(m, &p->settings, "servers-train", "yes");
    if (st)
        return st;
    p->job.settings = &p->settings;
    p->rank = calloc(n, sizeof *p->rank);
    p->latency = calloc(n * n, sizeof *p->latency);
    p->bandwidth = calloc(n * n, sizeof *p->bandwidth);
    p->train = calloc(n, sizeof *p->train);
    p->serve = calloc(n, sizeof *p->serve);
    if (!p->rank || !p->latency || !p->bandwidth || !p->train || !p->serve)
        return gt_fail(GT_NO_MEMORY, "cannot plan: no memory for a list of %d ranks", job->ranks);
    p->job.ranks = 0;
    for (int r = 0; r < job->ranks; r++) {
        if (serves(job->sync, job->settings, r)) {
            p->serve[p->serving++] = r;
            continue;
        }
        p->rank[p->job.ranks] = job->rank[r];
        p->train[p->job.ranks++] = r;
    }
    pick(p->latency, job->latency, p, job->ranks);
    pick(p->bandwidth, job->bandwidth, p, job->ranks);
    p->job.rank = p->rank;
    p->job.latency = job->latency ? p->latency : NULL;
    p->job.bandwidth = job->bandwidth ? p->bandwidth : NULL;
    return GT_OK;
}

/* What a server holds of the model, the optimizer's state and the head's share of activations left aside. */
static gt_status put_server(run_plan *out, const local_job *job, int replica, int rank, double bytes)
{
    gt_status st = run_plan_replica(out, replica, 1);
    if (st)
        return st;
    run_replica *r = &out->replica[replica];
    r->rank[0] = rank;
    r->micro_batch = 1;
    for (int v = 0; v <= out->chunks; v++)
        r->cut[v] = out->units * v / out->chunks;
    out->memory[rank] = bytes;
    out->limit[rank] = job->rank[rank].memory;
    memcpy(out->device[rank], job->rank[rank].device, sizeof out->device[rank]);
    return GT_OK;
}

/* A plan of the ranks that train, as one of all. */
static gt_status join(run_plan *p, const part *of, const local_job *job, double bytes)
{
    run_plan all;
    gt_status st = run_plan_create(&all, job->ranks, p->units, p->batch, p->tensor, p->chunks,
                                   p->replicas + of->serving);
    for (int i = 0; !st && i < p->replicas; i++) {
        const run_replica *from = &p->replica[i];
        const size_t parts = (size_t)from->stages * (size_t)p->chunks;
        st = run_plan_replica(&all, i, from->stages);
        run_replica *to = &all.replica[i];
        if (st)
            break;
        to->micro_batches = from->micro_batches;
        to->micro_batch = from->micro_batch;
        for (int k = 0; k < from->stages; k++)
            to->rank[k] = of->train[from->rank[k]];
        memcpy(to->cut, from->cut, (parts + 1) * sizeof *to->cut);
        memcpy(to->cost, from->cost, parts * sizeof *to->cost);
    }
    for (int r = 0; !st && r < p->ranks; r++) {
        const int rank = of->train[r];
        memcpy(all.device[rank], p->device[r], sizeof all.device[rank]);
        all.memory[rank] = p->memory[r];
        all.limit[rank] = p->limit[r];
    }
    for (int i = 0; !st && i < of->serving; i++)
        st = put_server(&all, job, p->replicas + i, of->serve[i], bytes);
    if (!st) {
        all.recompute = p->recompute;
        all.step = p->step;
        all.idle = p->idle;
        memcpy(all.schedule, p->schedule, sizeof all.schedule);
        run_plan_sync(&all, p->sync, job->settings);
        st = run_plan_check(&all);
    }
    if (st) {
        run_plan_release(&all);
        return st;
    }
    run_plan_release(p);
    *p = all;
    return GT_OK;
}

gt_status serving_check(const char *sync, const sync_settings *settings, int ranks, int tensor)
{
    if (tensor < 2 || !serving_count(sync, settings, ranks))
        return GT_OK;
    return gt_fail(GT_MISUSE,
                   "a server holds whole layers, and --tensor %d splits them; leave out --servers-train no or --tensor",
                   tensor);
}

gt_status serving_search(local_choice *out, const local_job *job, double parameters, double frozen)
{
    part p = { 0 };
    *out = (local_choice){ 0 };
    if (!serving_count(job->sync, job->settings, job->ranks))
        return local_search(out, job);
    if (serving_check(job->sync, job->settings, job->ranks, job->tensor))
        return GT_MISUSE;
    gt_status st = divide(&p, job);
    if (!st) {
        p.job.tensor = 1;
        st = local_search(out, &p.job);
    }
    const double bytes = parameters * job->state_bytes + frozen;
    if (!st)
        st = join(&out->best, &p, job, bytes);
    for (int i = 0; !st && i < out->runners_up; i++)
        st = join(&out->runner_up[i], &p, job, bytes);
    for (int i = 0; !st && i < p.serving; i++)
        if (bytes > job->rank[p.serve[i]].memory)
            st = gt_fail(GT_MISMATCH,
                         "rank %d is to serve all of the model, %.1f GB, and '%s' has %.1f GB for it; name "
                         "another rank with --servers",
                         p.serve[i], bytes * 1e-9, job->rank[p.serve[i]].device, job->rank[p.serve[i]].memory * 1e-9);
    release(&p);
    if (st)
        local_choice_release(out);
    return st;
}
