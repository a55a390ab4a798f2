/* SPDX-License-Identifier: MIT */
/* host/planner/cluster_plan.c - a plan for a cluster file's devices as one that a run can follow.
 *
 *   devices   0  1  2  3  4         those that the plan uses are the ranks, in the order of the file
 *             A  A  -  b  b
 *   ranks     0  1     2  3                                                                  */
#include "host/planner/cluster_search.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* rank[device]: its rank, -1: unused. Returns how many are used. */
static int number_ranks(int *rank, const cluster_devices *c, const cluster_layout *p)
{
    int ranks = 0;
    for (int d = 0; d < c->devices; d++)
        rank[d] = -1;
    for (int r = 0; r < p->replicas; r++)
        for (int s = 0; s < p->replica[r].stages; s++)
            for (int k = 0; k < p->replica[r].stage[s].devices; k++)
                rank[p->replica[r].stage[s].first_device + k] = 0;
    for (int d = 0; d < c->devices; d++)
        if (rank[d] == 0)
            rank[d] = ranks++;
    return ranks;
}

static void fill_stage(run_plan *out, run_replica *to, int s, const cluster_devices *c, const cluster_job *job,
                       const cluster_stage *from, const int *rank)
{
    double parameters = 0;
    for (int u = from->first_unit; u < from->first_unit + from->units; u++)
        parameters += job->unit[u].parameters / out->tensor;
    const double host = parameters
                        * sync_mode_host_bytes(job->mode ? job->mode : sync_mode_at(0), job->settings, job->slot_bytes,
                                               out->replicas, 1);
    to->cut[s + 1] = from->first_unit + from->units;
    to->cost[s] = from->cost;
    for (int k = 0; k < from->devices; k++) {
        const int device = from->first_device + k, r = rank[device];
        to->rank[s * out->tensor + k] = r;
        memcpy(out->device[r], c->device[device].name, sizeof out->device[r]);
        out->memory[r] = from->memory;
        out->host_memory[r] = host;
        out->limit[r] = from->limit;
    }
}

static gt_status fill_replica(run_plan *out, int i, const cluster_devices *c, const cluster_job *job,
                              const cluster_layout *p, const int *rank)
{
    const cluster_replica *from = &p->replica[i];
    gt_status st = run_plan_replica(out, i, from->stages);
    if (st)
        return st;
    run_replica *to = &out->replica[i];
    to->micro_batch = p->micro_batch;
    to->micro_batches = from->micro_batches;
    for (int s = 0; s < from->stages; s++)
        fill_stage(out, to, s, c, job, &from->stage[s], rank);
    return GT_OK;
}

/* Memory with what the schedule keeps in a run, which knows the costs but no limits: the search counted
 * 1F1B's micro-batches in flight. */
static gt_status settle_memory(run_plan *out, int i)
{
    const run_replica *r = &out->replica[i];
    pipe_schedule s;
    int *kept = malloc((size_t)r->stages * sizeof *kept);
    if (!kept)
        return gt_fail(GT_NO_MEMORY, "no memory for a plan of %d stages", r->stages);
    gt_status st = run_plan_schedule(out, i, &s);
    if (!st) {
        st = pipe_schedule_check(&s, kept);
        pipe_schedule_release(&s);
    }
    for (int k = 0; !st && k < r->stages; k++)
        for (int t = 0; t < out->tensor; t++) {
            const int rank = r->rank[k * out->tensor + t];
            const int counted = r->stages - k < r->micro_batches ? r->stages - k : r->micro_batches;
            out->memory[rank] += (kept[k] - counted) * r->cost[k].activation;
            if (out->memory[rank] > out->limit[rank] * (1 + 1e-9))
                st = gt_fail(GT_MISMATCH,
                             "stage %d of replica %d would keep %d micro-batches in a run with "
                             "schedule %s, which takes %.3g of %.3g bytes; plan with a smaller --batch, or give "
                             "its device more memory",
                             k, i, kept[k], out->schedule, out->memory[rank], out->limit[rank]);
        }
    free(kept);
    return st;
}

gt_status cluster_layout_plan(run_plan *out, const cluster_devices *c, const cluster_job *job, const cluster_layout *p)
{
    *out = (run_plan){ 0 };
    int *rank = malloc((size_t)c->devices * sizeof *rank);
    if (!rank)
        return gt_fail(GT_NO_MEMORY, "no memory for a plan of %d devices", c->devices);
    gt_status st = run_plan_create(out, number_ranks(rank, c, p), job->units, job->batch, p->tensor, 1, p->replicas);
    for (int i = 0; !st && i < p->replicas; i++)
        st = fill_replica(out, i, c, job, p, rank);
    if (!st) {
        out->recompute = p->recompute;
        if (job->mode)
            run_plan_sync(out, sync_mode_name(job->mode), job->settings);
        out->step = p->step;
        out->idle = fmax(0.0, p->idle);
        memcpy(out->schedule, p->schedule, sizeof out->schedule);
        st = run_plan_check(out);
    }
    for (int i = 0; !st && i < p->replicas; i++)
        st = settle_memory(out, i);
    free(rank);
    if (st)
        run_plan_release(out);
    return st;
}
