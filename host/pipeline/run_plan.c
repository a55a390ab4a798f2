/* SPDX-License-Identifier: MIT */
/* host/pipeline/run_plan.c - the plan of a run in memory: made, checked, looked up.
 *
 *   rank     0  1  2  3  4  5         every rank is named by exactly one place of
 *            └──┘  └──┘  └──┘         replica[].rank; the check counts them
 *            stage 0, 1   stage 0
 *            replica 0    replica 1
 *
 * A plan may come from a file that somebody wrote by hand, so run_plan_check() trusts nothing but
 * the sizes of the arrays; everything else that follows a plan trusts the check. Text and
 * files are in run_plan_file.c.                                                           */
#include "host/pipeline/run_plan.h"

#include "host/pipeline/schedule_private.h"
#include "host/pipeline/stage_choice.h"
#include "host/sync/compress_choice.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- making one -------------------------------------------------------------------------- */

gt_status run_plan_create(run_plan *out, int ranks, int units, int batch, int tensor, int chunks, int replicas)
{
    *out = (run_plan){ 0 };
    if (ranks < 1 || ranks > RUN_PLAN_MOST || units < 1 || units > RUN_PLAN_MOST || batch < 1 || tensor < 1
        || tensor > ranks || chunks < 1 || chunks > PIPE_MOST_CHUNKS || replicas < 1 || replicas > ranks)
        return gt_fail(GT_MISUSE,
                       "a plan of %d ranks, %d units, %d sequences a step, tensor %d, %d "
                       "chunks and %d replicas cannot be",
                       ranks, units, batch, tensor, chunks, replicas);
    run_plan p = {
        .ranks = ranks, .units = units, .batch = batch, .tensor = tensor, .chunks = chunks, .replicas = replicas
    };
    snprintf(p.schedule, sizeof p.schedule, "%s", pipe_schedule_at(0)->name);
    run_plan_sync(&p, sync_mode_name(sync_mode_at(0)), NULL);
    const size_t n = (size_t)ranks;
    p.share = malloc((size_t)tensor * sizeof *p.share);
    p.replica = calloc((size_t)replicas, sizeof *p.replica);
    p.device = calloc(n, sizeof *p.device);
    p.memory = calloc(n, sizeof *p.memory);
    p.limit = calloc(n, sizeof *p.limit);
    p.host_memory = calloc(n, sizeof *p.host_memory);
    if (!p.share || !p.replica || !p.device || !p.memory || !p.limit || !p.host_memory) {
        run_plan_release(&p);
        return gt_fail(GT_NO_MEMORY, "no memory for a plan of %d ranks", ranks);
    }
    for (int k = 0; k < tensor; k++)
        p.share[k] = 1.0 / tensor;
    *out = p;
    return GT_OK;
}

void run_plan_sync(run_plan *p, const char *mode, const sync_settings *settings)
{
    const sync_mode *m = sync_mode_find(mode);
    if (mode != p->sync)
        snprintf(p->sync, sizeof p->sync, "%s", mode);
    p->settings = (sync_settings){ 0 };
    if (settings)
        p->settings = *settings;
    else if (m)
        sync_settings_usual(m, &p->settings);
}

static void release_links(run_link **link, int *links)
{
    for (int i = 0; i < *links; i++)
        free((*link)[i].rank);
    free(*link);
    *link = NULL;
    *links = 0;
}

void run_plan_forms(run_plan *p, const char *compress, const char *compress_stages)
{
    if (strcmp(compress, p->compress))
        release_links(&p->link, &p->links);
    if (strcmp(compress_stages, p->compress_stages))
        release_links(&p->stage_link, &p->stage_links);
    if (compress != p->compress)
        snprintf(p->compress, sizeof p->compress, "%s", compress);
    if (compress_stages != p->compress_stages)
        snprintf(p->compress_stages, sizeof p->compress_stages, "%s", compress_stages);
}

static gt_status add_link(run_link **link, int *links, const int *rank, int ranks, const char *form)
{
    run_link *more = realloc(*link, ((size_t)*links + 1) * sizeof *more);
    *link = more ? more : *link;
    int *copy = malloc((size_t)ranks * sizeof *copy);
    if (!more || !copy) {
        free(copy);
        return gt_fail(GT_NO_MEMORY, "no memory for the links of a plan");
    }
    memcpy(copy, rank, (size_t)ranks * sizeof *copy);
    more[*links] = (run_link){ .ranks = ranks, .rank = copy };
    snprintf(more[(*links)++].form, sizeof more->form, "%s", form);
    return GT_OK;
}

static const char *form_of(const run_link *link, int links, const int *rank, int ranks)
{
    for (int i = 0; i < links; i++)
        if (link[i].ranks == ranks && !memcmp(link[i].rank, rank, (size_t)ranks * sizeof *rank))
            return link[i].form;
    return NULL;
}

gt_status run_plan_link(run_plan *p, const int *rank, int ranks, const char *form)
{
    return add_link(&p->link, &p->links, rank, ranks, form);
}

const char *run_plan_form(const run_plan *p, const int *rank, int ranks)
{
    return form_of(p->link, p->links, rank, ranks);
}

gt_status run_plan_stage_link(run_plan *p, int a, int b, const char *form)
{
    return add_link(&p->stage_link, &p->stage_links, (int[]){ a < b ? a : b, a < b ? b : a }, 2, form);
}

const char *run_plan_stage_form(const run_plan *p, int a, int b)
{
    return form_of(p->stage_link, p->stage_links, (int[]){ a < b ? a : b, a < b ? b : a }, 2);
}

gt_status run_plan_replica(run_plan *p, int replica, int stages)
{
    assert(0 <= replica && replica < p->replicas);

    run_replica *r = &p->replica[replica];
    assert(!r->rank);
    if (stages < 1 || stages > p->ranks / p->tensor || stages * p->chunks > p->units)
        return gt_fail(GT_MISMATCH,
                       "replica %d: %d stages of %d chunks and %d ranks each cannot be "
                       "made of %d units and %d ranks",
                       replica, stages, p->chunks, p->tensor, p->units, p->ranks);
    const size_t parts = (size_t)stages * (size_t)p->chunks;
    r->stages = stages;
    r->rank = calloc((size_t)stages * (size_t)p->tensor, sizeof *r->rank);
    r->cut = calloc(parts + 1, sizeof *r->cut);
    r->cost = calloc(parts, sizeof *r->cost);
    if (!r->rank || !r->cut || !r->cost)
        return gt_fail(GT_NO_MEMORY, "no memory for a replica of %d stages", stages);
    return GT_OK;
}

gt_status run_plan_single(run_plan *out, int units, int batch, int micro_batch, int recompute)
{
    gt_status st = run_plan_create(out, 1, units, batch, 1, 1, 1);
    if (!st)
        st = run_plan_replica(out, 0, 1);
    if (!st && (micro_batch < 1 || batch % micro_batch))
        st = gt_fail(GT_MISMATCH, "a batch of %d sequences cannot be cut into micro-batches of %d", batch, micro_batch);
    if (st) {
        run_plan_release(out);
        return st;
    }
    out->recompute = recompute;
    out->replica[0].micro_batch = micro_batch;
    out->replica[0].micro_batches = batch / micro_batch;
    out->replica[0].cut[1] = units;
    st = run_plan_check(out);
    if (st)
        run_plan_release(out);
    return st;
}

static void copy_replica(run_replica *to, const run_replica *from, int tensor, int chunks)
{
    const size_t parts = (size_t)from->stages * (size_t)chunks;
    to->micro_batches = from->micro_batches;
    to->micro_batch = from->micro_batch;
    memcpy(to->rank, from->rank, (size_t)from->stages * (size_t)tensor * sizeof *to->rank);
    memcpy(to->cut, from->cut, (parts + 1) * sizeof *to->cut);
    memcpy(to->cost, from->cost, parts * sizeof *to->cost);
}

gt_status run_plan_copy(run_plan *out, const run_plan *p)
{
    gt_status st = run_plan_create(out, p->ranks, p->units, p->batch, p->tensor, p->chunks, p->replicas);
    for (int i = 0; !st && i < p->replicas; i++) {
        st = run_plan_replica(out, i, p->replica[i].stages);
        if (!st)
            copy_replica(&out->replica[i], &p->replica[i], p->tensor, p->chunks);
    }
    if (!st)
        run_plan_forms(out, p->compress, p->compress_stages);
    for (int i = 0; !st && i < p->links; i++)
        st = run_plan_link(out, p->link[i].rank, p->link[i].ranks, p->link[i].form);
    for (int i = 0; !st && i < p->stage_links; i++)
        st = run_plan_stage_link(out, p->stage_link[i].rank[0], p->stage_link[i].rank[1], p->stage_link[i].form);
    if (st) {
        run_plan_release(out);
        return st;
    }
    const size_t n = (size_t)p->ranks;
    out->recompute = p->recompute;
    out->step = p->step;
    out->idle = p->idle;
    memcpy(out->share, p->share, (size_t)p->tensor * sizeof *p->share);
    memcpy(out->schedule, p->schedule, sizeof p->schedule);
    memcpy(out->sync, p->sync, sizeof p->sync);
    out->settings = p->settings;
    memcpy(out->device, p->device, n * sizeof *p->device);
    memcpy(out->memory, p->memory, n * sizeof *p->memory);
    memcpy(out->limit, p->limit, n * sizeof *p->limit);
    memcpy(out->host_memory, p->host_memory, n * sizeof *p->host_memory);
    out->compress_after = p->compress_after;
    return GT_OK;
}

void run_plan_release(run_plan *p)
{
    release_links(&p->link, &p->links);
    release_links(&p->stage_link, &p->stage_links);
    for (int i = 0; p->replica && i < p->replicas; i++) {
        free(p->replica[i].rank);
        free(p->replica[i].cut);
        free(p->replica[i].cost);
    }
    free(p->replica);
    free(p->share);
    free(p->device);
    free(p->memory);
    free(p->limit);
    free(p->host_memory);
    *p = (run_plan){ 0 };
}

/* ---- checking ---------------------------------------------------------------------------- */

/* Of predictions: what a clock or a size can say. */
static int is_amount(double x)
{
    return isfinite(x) && x >= 0.0;
}

static gt_status check_whole(const run_plan *p)
{
    double sum = 0;
    if (!sync_mode_find(p->sync)) {
        char names[SYNC_NAMES];
        sync_mode_names(names);
        return gt_fail(GT_MISMATCH, "there is no sync '%s'; there are %s", p->sync, names);
    }
    if (sync_settings_check(sync_mode_find(p->sync), &p->settings, p->ranks))
        return gt_fail(GT_MISMATCH, "%s", gt_message());
    if (p->recompute != 0 && p->recompute != 1)
        return gt_fail(GT_MISMATCH, "recompute is %d, neither 0 nor 1", p->recompute);
    for (int k = 0; k < p->tensor; k++) {
        if (!(p->share[k] > 0.0))
            return gt_fail(GT_MISMATCH, "the share of tensor rank %d is %g, not above 0", k, p->share[k]);
        sum += p->share[k];
    }
    if (!(fabs(sum - 1.0) <= 1e-6))
        return gt_fail(GT_MISMATCH, "the shares of the tensor ranks add up to %g, not 1", sum);
    for (int r = 0; r < p->ranks; r++)
        if (!is_amount(p->memory[r]) || !is_amount(p->limit[r]) || !is_amount(p->host_memory[r]))
            return gt_fail(GT_MISMATCH, "memory of rank %d is not a number of bytes", r);
    if (!is_amount(p->step) || !is_amount(p->idle) || p->idle > 1.0)
        return gt_fail(GT_MISMATCH, "step %g s with %g of it idle cannot be", p->step, p->idle);
    return GT_OK;
}

static gt_status check_cuts(const run_plan *p, int i)
{
    const run_replica *r = &p->replica[i];
    const int parts = r->stages * p->chunks;
    if (r->cut[0] != 0 || r->cut[parts] != p->units)
        return gt_fail(GT_MISMATCH, "replica %d holds units %d to %d, not 0 to %d", i, r->cut[0], r->cut[parts] - 1,
                       p->units - 1);
    for (int v = 0; v < parts; v++) {
        const pipe_cost *c = &r->cost[v];
        if (r->cut[v] >= r->cut[v + 1])
            return gt_fail(GT_MISMATCH, "virtual stage %d of replica %d has no unit: cuts %d and %d", v, i, r->cut[v],
                           r->cut[v + 1]);
        if (!is_amount(c->forward) || !is_amount(c->backward_input) || !is_amount(c->backward_weight)
            || !is_amount(c->send) || !is_amount(c->activation) || !is_amount(c->reduce) || !is_amount(c->update))
            return gt_fail(GT_MISMATCH,
                           "the costs of virtual stage %d of replica %d are not times and "
                           "bytes",
                           v, i);
    }
    return GT_OK;
}

static gt_status check_ranks(const run_plan *p, int i, unsigned char *seen)
{
    const run_replica *r = &p->replica[i];
    for (int k = 0; k < r->stages * p->tensor; k++) {
        const int rank = r->rank[k];
        if (rank < 0 || rank >= p->ranks)
            return gt_fail(GT_MISMATCH, "stage %d of replica %d is on rank %d; there are %d ranks", k / p->tensor, i,
                           rank, p->ranks);
        if (seen[rank]++)
            return gt_fail(GT_MISMATCH, "rank %d has two places, the second in replica %d", rank, i);
    }
    return GT_OK;
}

/* Those that the mode's settings name take no sequences, and all others some. */
static gt_status check_serving(const run_plan *p, const run_replica *r)
{
    const sync_mode *m = sync_mode_find(p->sync);
    for (int k = 0; k < r->stages * p->tensor; k++) {
        const int serves = sync_mode_serves_only(m, &p->settings, r->rank[k]);
        if (serves != !r->micro_batches)
            return gt_fail(GT_MISMATCH,
                           serves ? "rank %d only serves, and has sequences of a step"
                                  : "rank %d has no sequences of a step, and does not only serve",
                           r->rank[k]);
    }
    return GT_OK;
}

static gt_status check_replica(const run_plan *p, int i, unsigned char *seen, int64_t *sequences)
{
    const run_replica *r = &p->replica[i];
    if (r->stages < 1 || r->stages > p->ranks || !r->rank)
        return gt_fail(GT_MISMATCH, "replica %d has no stages", i);
    if (r->micro_batches < (r->stages > 1) || r->micro_batch < 1)
        return gt_fail(GT_MISMATCH, "replica %d has %d micro-batches of %d", i, r->micro_batches, r->micro_batch);
    *sequences += (int64_t)r->micro_batches * r->micro_batch;
    gt_status st = check_cuts(p, i);
    if (!st)
        st = check_ranks(p, i, seen);
    if (!st)
        st = check_serving(p, r);
    if (!st)
        st = schedule_check_shape(p->schedule, r->stages, p->chunks, r->micro_batches, r->cost);
    return st == GT_MISUSE ? gt_fail_in(GT_MISMATCH, "replica %d", i) : st;
}

static gt_status check_form(const char *form, const char *key)
{
    compress_spec c;
    return compress_parse(&c, form) ? gt_fail_in(GT_MISMATCH, "'%s'", key) : GT_OK;
}

static gt_status check_stage_form(const char *form, const char *key)
{
    wire_kind kind;
    return wire_kind_find(&kind, form)
               ? GT_OK
               : gt_fail(GT_MISMATCH, "'%s': there is no form '%s' of --compress-stages", key, form);
}

static gt_status check_links(const run_plan *p, const run_link *link, int links, const char *key,
                             gt_status (*check)(const char *form, const char *key))
{
    gt_status st = GT_OK;
    for (int i = 0; !st && i < links; i++) {
        st = check(link[i].form, key);
        for (int k = 0; !st && k < link[i].ranks; k++)
            if (link[i].rank[k] >= p->ranks || (k && link[i].rank[k] <= link[i].rank[k - 1]))
                st = gt_fail(GT_MISMATCH, "'%s': ranks must rise, and be below %d", key, p->ranks);
    }
    return st;
}

static gt_status check_forms(const run_plan *p)
{
    sync_candidates all;
    stage_forms between;
    gt_status st = GT_OK;
    if (sync_compress_is_auto(p->compress))
        st = sync_candidates_parse(&all, p->compress) ? gt_fail_in(GT_MISMATCH, "'compress'") : GT_OK;
    else if (*p->compress)
        st = check_form(p->compress, "compress");
    if (!st && sync_compress_is_auto(p->compress_stages))
        st = stage_forms_parse(&between, p->compress_stages) ? gt_fail_in(GT_MISMATCH, "'compress_stages'") : GT_OK;
    else if (!st && *p->compress_stages)
        st = check_stage_form(p->compress_stages, "compress_stages");
    if (!st && p->stage_links && !sync_compress_is_auto(p->compress_stages))
        st = gt_fail(GT_MISMATCH, "'stage_links' are of --compress-stages auto, which 'compress_stages' does not say");
    if (!st)
        st = check_links(p, p->link, p->links, "links", check_form);
    return st ? st : check_links(p, p->stage_link, p->stage_links, "stage_links", check_stage_form);
}

gt_status run_plan_check(const run_plan *p)
{
    int64_t sequences = 0;
    unsigned char *seen = calloc((size_t)p->ranks, 1);
    gt_status st = seen ? check_whole(p) : gt_fail(GT_NO_MEMORY, "no memory to check a plan of %d ranks", p->ranks);
    if (!st)
        st = check_forms(p);
    for (int i = 0; !st && i < p->replicas; i++)
        st = check_replica(p, i, seen, &sequences);
    for (int r = 0; !st && r < p->ranks; r++)
        if (!seen[r])
            st = gt_fail(GT_MISMATCH, "rank %d has no place", r);
    if (!st && sequences != p->batch)
        st = gt_fail(GT_MISMATCH, "the replicas take %lld sequences a step, the batch has %d", (long long)sequences,
                     p->batch);
    free(seen);
    return st;
}

/* ---- looking up -------------------------------------------------------------------------- */

run_place run_plan_place(const run_plan *p, int rank)
{
    int first = 0;
    for (int i = 0; i < p->replicas; i++) {
        const run_replica *r = &p->replica[i];
        for (int k = 0; k < r->stages * p->tensor; k++)
            if (r->rank[k] == rank)
                return (run_place){ i, k / p->tensor, k % p->tensor, first };
        first += r->micro_batches * r->micro_batch;
    }
    return (run_place){ -1, -1, -1, -1 };
}

int run_plan_training(const run_plan *p)
{
    int count = 0;
    for (int i = 0; i < p->replicas; i++)
        count += p->replica[i].micro_batches > 0;
    return count;
}

gt_status run_plan_schedule(const run_plan *p, int replica, pipe_schedule *out)
{
    const run_replica *r = &p->replica[replica];
    gt_status st = pipe_schedule_make(out, p->schedule, r->stages, p->chunks, r->micro_batches, r->cost, NULL);
    if (!st)
        st = pipe_schedule_check(out, NULL);
    if (st)
        pipe_schedule_release(out);
    return st;
}
