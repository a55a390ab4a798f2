/* SPDX-License-Identifier: MIT */
/* host/cli/train_plan.c - showing, writing and drawing the plan of a run. */
#include "host/cli/train_plan.h"

#include "host/sync/sync.h"

#include "host/base/file.h"
#include "host/trace/trace_merge.h"
#include "host/pipeline/timeline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- showing ----------------------------------------------------------------------------- */

static void unit_range(char *out, size_t size, int first, int last, int units)
{
    const int from = first < 1 ? 1 : first, to = last > units - 2 ? units - 2 : last;
    int n = snprintf(out, size, "%s", first == 0 ? "embedding" : "");
    if (to > from)
        n += snprintf(out + n, size - (size_t)n, "%slayers %d-%d", n ? ", " : "", from - 1, to - 1);
    else if (to == from)
        n += snprintf(out + n, size - (size_t)n, "%slayer %d", n ? ", " : "", from - 1);
    if (last == units - 1)
        snprintf(out + n, size - (size_t)n, "%shead", n ? ", " : "");
}

static void show_rank(const run_plan *p, int rank, FILE *out)
{
    const run_place at = run_plan_place(p, rank);
    const run_replica *r = &p->replica[at.replica];
    char where[64], what[128] = "";
    if (!r->micro_batches) {
        fprintf(out, "        rank %-3d %-12s only serves\n", rank, p->device[rank]);
        return;
    }
    int n = snprintf(where, sizeof where, "replica %d", at.replica);
    n += snprintf(where + n, sizeof where - (size_t)n, " stage %d", at.stage);
    if (p->tensor > 1)
        snprintf(where + n, sizeof where - (size_t)n, " tensor %d (%.0f %%)", at.tensor_rank,
                 100.0 * p->share[at.tensor_rank]);
    for (int c = 0; c < p->chunks; c++) {
        const int v = c * r->stages + at.stage;
        char range[64];
        const size_t used = strlen(what);
        unit_range(range, sizeof range, r->cut[v], r->cut[v + 1] - 1, p->units);
        snprintf(what + used, sizeof what - used, "%s%s", c ? " and " : "", range);
    }
    fprintf(out, "        rank %-3d %-12s %-22s %-34s %d x %d sequences\n", rank, p->device[rank], where, what,
            r->micro_batches, r->micro_batch);
}

/* Of forms that are said, and change something. */
static void show_form(const char *what, const char *form, FILE *out)
{
    if (*form && strcmp(form, "none"))
        fprintf(out, ", %s %s", what, form);
}

void train_plan_show(const run_plan *p, int most, FILE *out)
{
    const sync_mode *m = sync_mode_find(p->sync);
    const int training = run_plan_training(p);
    char text[SYNC_WORD];
    sync_settings usual;
    sync_settings_usual(m, &usual);
    fprintf(out, "plan    %d ranks: %d replica%s, tensor width %d, schedule %s%s, sync %s", p->ranks, training,
            training > 1 ? "s" : "", p->tensor, p->schedule, p->recompute ? ", recomputed" : "", p->sync);
    for (int i = 0; sync_setting_at(m, i); i++)
        if (!(sync_settings_same(m, &p->settings, &usual, 1u << i)))
            fprintf(out, ", %s %s", sync_setting_at(m, i)->name,
                    sync_setting_text(m, &p->settings, i, text, sizeof text));
    show_form("gradients", p->compress, out);
    show_form("between stages", p->compress_stages, out);
    if (p->step > 0.0)
        fprintf(out, "; predicted %.1f ms a step, %.1f %% idle", p->step * 1e3, 100.0 * p->idle);
    fprintf(out, "\n");
    for (int r = 0; r < p->ranks && r < most; r++)
        show_rank(p, r, out);
    if (p->ranks > most)
        fprintf(out, "        and %d more; plan.json has them all\n", p->ranks - most);
}

gt_status train_plan_write(const run_plan *p, const char *run)
{
    char *path = gt_path_join(run, "plan.json");
    gt_status st = path ? run_plan_write(p, path)
                        : gt_fail(GT_NO_MEMORY, "no memory for the path of '%s/plan.json'", run);
    free(path);
    return st;
}

/* ---- the picture ------------------------------------------------------------------------- */

/* All ranks as one schedule: a row a rank, replica after replica and stage after stage. */
typedef struct picture {
    int rows;
    pipe_schedule all, *of;             /* of: each replica's                               */
    pipe_event **event;                 /* [row]                                            */
    const char **name, **place;
    char (*text)[2][64];                /* name and place                                   */
} picture;

static void picture_release(picture *q, int replicas)
{
    for (int r = 0; q->of && r < replicas; r++)
        pipe_schedule_release(&q->of[r]);
    free(q->of);
    free(q->all.count);
    free(q->all.list);
    free(q->event);
    free(q->name);
    free(q->place);
    free(q->text);
}

/* What a rank sends: gt_now_ns() when its step began, then its events. */
static int is_whole(const net_blobs *said, int rank, int events)
{
    return said->size[rank] == sizeof(uint64_t) + (size_t)events * sizeof(pipe_event);
}

static void add_row(picture *q, const run_plan *p, int replica, int k, const net_blobs *said)
{
    const run_replica *r = &p->replica[replica];
    const int rank = r->rank[k], at = k / p->tensor, row = q->rows++;
    char *name = q->text[row][0], *place = q->text[row][1];
    q->all.count[row] = q->of[replica].count[at];
    q->all.list[row] = q->of[replica].list[at];
    q->event[row] = (pipe_event *)(void *)(said->data[rank] + sizeof(uint64_t));
    q->name[row] = name;
    q->place[row] = place;
    snprintf(name, sizeof q->text[row][0], "rank %d %s", rank, p->device[rank]);
    int n = p->replicas > 1 ? snprintf(place, sizeof q->text[row][1], "replica %d", replica) : 0;
    if (r->stages > 1)
        n += snprintf(place + n, sizeof q->text[row][1] - (size_t)n, "%sstage %d", n ? ", " : "", at);
    if (p->tensor > 1)
        snprintf(place + n, sizeof q->text[row][1] - (size_t)n, "%stensor %d", n ? ", " : "", k % p->tensor);
}

static gt_status picture_make(picture *q, const run_plan *p, const net_blobs *said)
{
    const size_t n = (size_t)p->ranks;
    gt_status st = GT_OK;
    q->of = calloc((size_t)p->replicas, sizeof *q->of);
    q->all = (pipe_schedule){
        .chunks = p->chunks, .count = calloc(n, sizeof(int)), .list = calloc(n, sizeof(pipe_instruction *))
    };
    q->event = calloc(n, sizeof(pipe_event *));
    q->name = calloc(n, sizeof(char *));
    q->place = calloc(n, sizeof(char *));
    q->text = calloc(n, sizeof *q->text);
    if (!q->of || !q->all.count || !q->all.list || !q->event || !q->name || !q->place || !q->text)
        return gt_fail(GT_NO_MEMORY, "cannot draw the timeline: no memory for the rows of %zu ranks", n);
    for (int r = 0; !st && r < p->replicas; r++) {
        const run_replica *replica = &p->replica[r];
        st = run_plan_schedule(p, r, &q->of[r]);
        for (int k = 0; !st && k < replica->stages * p->tensor; k++) {
            if (!is_whole(said, replica->rank[k], q->of[r].count[k / p->tensor]))
                st = gt_fail(GT_PEER, "rank %d sends no timeline", replica->rank[k]);
            else
                add_row(q, p, r, k, said);
        }
        if (replica->micro_batches > q->all.micro_batches)
            q->all.micro_batches = replica->micro_batches;
    }
    q->all.ranks = q->rows;
    return st;
}

/* Every rank counts from its own beginning of the step; here all count from the earliest one. */
static void align(picture *q, const run_plan *p, const net_blobs *said, const trace_clock *clock)
{
    int64_t first = INT64_MAX;
    for (int pass = 0; pass < 2; pass++)
        for (int r = 0, row = 0; r < p->replicas; r++)
            for (int k = 0; k < p->replica[r].stages * p->tensor; k++, row++) {
                const int rank = p->replica[r].rank[k];
                uint64_t began;
                memcpy(&began, said->data[rank], sizeof began);
                const int64_t at = (int64_t)(began - (uint64_t)clock[rank].ahead);
                first = at < first ? at : first;
                for (int i = 0; pass && i < q->all.count[row]; i++) {
                    q->event[row][i].begin += (double)(at - first) * 1e-9;
                    q->event[row][i].end += (double)(at - first) * 1e-9;
                }
            }
}

static void say_plan(const run_plan *p, char *out, size_t size)
{
    const run_replica *r = &p->replica[0];
    size_t n = (size_t)snprintf(out, size, "%d rank%s, ", p->ranks, p->ranks > 1 ? "s" : "");
    if (p->replicas > 1)
        n += (size_t)snprintf(out + n, size - n, "%d replicas, ", p->replicas);
    if (p->replicas == 1 && r->stages > 1)
        n += (size_t)snprintf(out + n, size - n, "%d stages, ", r->stages);
    if (p->tensor > 1)
        n += (size_t)snprintf(out + n, size - n, "tensor width %d, ", p->tensor);
    if (p->replicas == 1)
        n += (size_t)snprintf(out + n, size - n, "%d micro-batch%s of %d, ", r->micro_batches,
                              r->micro_batches > 1 ? "es" : "", r->micro_batch);
    snprintf(out + n, size - n, "schedule %s", p->schedule);
}

static gt_status draw(const run_plan *p, const net_blobs *said, const trace_clock *clock, const char *run,
                      const train *t)
{
    picture q = { 0 };
    gt_text svg = { 0 };
    char title[64], note[256], *path = gt_path_join(run, "timeline.svg");
    gt_status st = path ? picture_make(&q, p, said)
                        : gt_fail(GT_NO_MEMORY, "no memory for the path of '%s/timeline.svg'", run);
    snprintf(title, sizeof title, "Step %llu as measured", (unsigned long long)train_steps_done(t));
    say_plan(p, note, sizeof note);
    if (!st) {
        align(&q, p, said, clock);
        st = pipe_timeline_svg(&svg, &(pipe_picture){ title, note, &q.all, q.event, q.name, q.place });
    }
    if (!st)
        st = gt_file_write(path, svg.data, svg.size);
    picture_release(&q, p->replicas);
    gt_text_release(&svg);
    free(path);
    return st;
}

gt_status train_plan_timeline(train *t, net_comm *c, const char *run)
{
    const run_plan *p = train_plan(t);
    const stage *s = train_stage(t);
    const int rank = net_comm_rank(c);
    const size_t size = (size_t)stage_schedule(s)->count[run_plan_place(p, rank).stage] * sizeof(pipe_event);
    const uint64_t began = stage_began(s);
    unsigned char *mine = malloc(sizeof began + size);
    trace_clock *clock = calloc((size_t)p->ranks, sizeof *clock);
    net_blobs all = { 0 };
    gt_status st = mine && clock ? trace_clocks(c, clock)
                                 : gt_fail(GT_NO_MEMORY, "cannot draw the timeline: no memory for the times of a step");
    if (!st) {
        memcpy(mine, &began, sizeof began);
        if (size)
            memcpy(mine + sizeof began, stage_events(s), size);
        st = net_job_exchange(net_comm_job(c), "timelines", mine, sizeof began + size, &all);
    }
    if (!st && rank == 0)
        st = draw(p, &all, clock, run, t);
    if (!st)
        net_blobs_release(&all);
    free(mine);
    free(clock);
    return st;
}
