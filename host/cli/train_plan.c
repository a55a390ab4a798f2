/* SPDX-License-Identifier: MIT */
/* host/cli/train_plan.c - settling, showing and drawing the plan of a run. */
#include "host/cli/train_plan.h"

#include "host/base/file.h"
#include "host/base/log.h"
#include "host/trace/trace_merge.h"
#include "host/pipeline/timeline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- settling ---------------------------------------------------------------------------- */

/* Is a plan one of those that the options leave open? */
static int suits(const run_plan *p, const train_plan_wish *w, int ranks)
{
    const plan_local_options *l = &w->local;
    int good = p->ranks == ranks && p->units == model_units(l->model) && p->batch == l->batch
               && (!l->replicas || l->replicas == p->replicas) && (!l->tensor || l->tensor == p->tensor)
               && (!l->schedule || !strcmp(l->schedule, "auto") || !strcmp(l->schedule, p->schedule))
               && (!l->sync || !strcmp(l->sync, p->sync))
               && (l->recompute < 0 || l->recompute == p->recompute);
    for (int r = 0; good && r < p->replicas; r++)
        good = (!l->stages || l->stages == p->replica[r].stages)
               && (!l->micro_batch || l->micro_batch == p->replica[r].micro_batch);
    return good;
}

/* Every rank's device; *out is freed with free(). */
static gt_status find_devices(char (**out)[32], net_comm *c, const dev_device *d)
{
    const char *id = dev_info_of(d)->id;
    const size_t ranks = c ? (size_t)net_comm_size(c) : 1;
    net_blobs all = { 0 };
    *out = calloc(ranks, sizeof **out);
    if (!*out)
        return gt_fail(GT_NO_MEMORY, "cannot plan: out of memory");
    snprintf(**out, sizeof **out, "%s", id);
    gt_status st = c ? net_job_exchange(net_comm_job(c), "devices", id, strlen(id), &all) : GT_OK;
    for (size_t r = 0; c && !st && r < ranks; r++)
        snprintf((*out)[r], sizeof **out, "%.*s", (int)all.size[r], (const char *)all.data[r]);
    if (c && !st)
        net_blobs_release(&all);
    return st;
}

/* Plans of before ranks had names say nothing. */
static int is_for(const run_plan *p, char (*device)[32], int ranks)
{
    int same = p->ranks == ranks;
    for (int r = 0; same && r < ranks; r++)
        same = !p->device[r][0] || !strcmp(p->device[r], device[r]);
    return same;
}

static void put_devices(gt_text *to, const run_plan *p)
{
    enum { SHOWN = 8 };
    gt_text_printf(to, "%d rank%s on ", p->ranks, p->ranks > 1 ? "s" : "");
    for (int r = 0; r < p->ranks && r < SHOWN; r++)
        gt_text_printf(to, "%s%s", r ? ", " : "", p->device[r][0] ? p->device[r] : "a device");
    if (p->ranks > SHOWN)
        gt_text_printf(to, ", ...");
}

/* Does the plan of the run that is resumed still suit? Its text, or nothing and what changed. */
static void kept_plan(gt_text *text, gt_text *why, const train_plan_wish *w, char (*device)[32], int ranks)
{
    char *path = w->run ? gt_path_join(w->run, "plan.json") : NULL;
    run_plan p = { 0 };
    if (path && w->resume && gt_path_exists(path)) {
        if (run_plan_read(&p, path)) {
            gt_log(GT_LOG_WARN, "train", "planning anew: %s", gt_message());
            gt_message_clear();
        } else if (!is_for(&p, device, ranks)) {
            gt_text_printf(why, "before  ");
            put_devices(why, &p);
            gt_text_printf(why, ranks > 1 ? "; planned anew\n" : "; now on this one\n");
        } else if (ranks > 1 && (w->fresh || !suits(&p, w, ranks))) {
            gt_text_printf(why, "before  another plan; planned anew, as is asked for now\n");
        } else {
            run_plan_text(&p, text);
        }
    }
    run_plan_release(&p);
    free(path);
}

static int is_open(const train_plan_wish *w)
{
    const plan_local_options *l = &w->local;
    return !l->stages && !l->replicas && !l->tensor && !l->micro_batch
           && (!l->schedule || !strcmp(l->schedule, "auto"));
}

static gt_status contradicts(const char *file, const char *option, const char *given, const char *its)
{
    return gt_fail(GT_MISUSE, "--%s%s%s contradicts the plan '%s', which has %s; leave one of them out",
                   option, *given ? " " : "", given, file, its);
}

/* Options that fix a part of the plan may only repeat what the file says. */
static gt_status check_file(const run_plan *p, const train_plan_wish *w)
{
    const plan_local_options *l = &w->local;
    const struct { const char *option; int given, first, same; } numbers[] = {
        { "replicas", l->replicas, p->replicas, l->replicas == p->replicas },
        { "tensor", l->tensor, p->tensor, l->tensor == p->tensor } };
    char given[32], its[32];
    if (l->batch != p->batch)
        return gt_fail(GT_MISUSE, "the plan '%s' is for batches of %d, not %d; say --batch %d, or make "
                       "another plan", w->file, p->batch, l->batch, p->batch);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].given && !numbers[i].same) {
            snprintf(given, sizeof given, "%d", numbers[i].given);
            snprintf(its, sizeof its, "%d", numbers[i].first);
            return contradicts(w->file, numbers[i].option, given, its);
        }
    for (int r = 0; r < p->replicas; r++) {
        const int stages = p->replica[r].stages, micro = p->replica[r].micro_batch;
        if ((!l->stages || l->stages == stages) && (!l->micro_batch || l->micro_batch == micro))
            continue;
        const int of_stages = l->stages && l->stages != stages;
        snprintf(given, sizeof given, "%d", of_stages ? l->stages : l->micro_batch);
        snprintf(its, sizeof its, "%d", of_stages ? stages : micro);
        return contradicts(w->file, of_stages ? "stages" : "micro-batch", given, its);
    }
    if (l->schedule && strcmp(l->schedule, "auto") && strcmp(l->schedule, p->schedule))
        return contradicts(w->file, "schedule", l->schedule, p->schedule);
    if (l->sync && strcmp(l->sync, p->sync))
        return contradicts(w->file, "sync", l->sync, p->sync);
    if (l->recompute >= 0 && l->recompute != p->recompute)
        return contradicts(w->file, l->recompute ? "recompute" : "no-recompute", "",
                           p->recompute ? "--recompute" : "none");
    return GT_OK;
}

static int names_file(const train_plan_wish *w)
{
    return w->file && strcmp(w->file, "auto");
}

gt_status train_plan_check(const train_plan_wish *w, int ranks)
{
    run_plan p = { 0 };
    if (!names_file(w))
        return plan_local_check(&w->local, ranks);
    gt_status st = run_plan_read(&p, w->file);
    if (!st)
        st = check_file(&p, w);
    run_plan_release(&p);
    return st;
}

/* Rank 0's choice; empty: plan from measurements. */
static gt_status choose(gt_text *text, gt_text *why, const train_plan_wish *w, char (*device)[32], int ranks)
{
    gt_status st = GT_OK;
    run_plan p = { 0 };
    if (names_file(w)) {
        st = run_plan_read(&p, w->file);
        if (!st)
            st = check_file(&p, w);
        if (!st)
            st = run_plan_text(&p, text);
        if (!st)
            gt_text_printf(why, "        as '%s' says\n", w->file);
        if (!st && p.ranks == ranks && !is_for(&p, device, ranks)) {
            gt_text_printf(why, "        which was made for ");
            put_devices(why, &p);
            gt_text_printf(why, "\n");
        }
    } else {
        kept_plan(text, why, w, device, ranks);
        if (text->size && ranks > 1)
            gt_text_printf(why, "        as the run began\n");
    }
    run_plan_release(&p);
    return st;
}

/* Rank 0's text on every rank. */
static gt_status share(run_plan *out, gt_text *text, net_comm *c, int *found)
{
    net_blobs all;
    const int speaks = net_comm_rank(c) == 0;
    gt_status st = net_job_exchange(net_comm_job(c), "the plan", speaks ? text->data : NULL,
                                    speaks ? text->size : 0, &all);
    if (st)
        return st;
    *found = all.size[0] > 0;
    if (*found) {
        char *copy = malloc(all.size[0] + 1);
        if (copy) {
            memcpy(copy, all.data[0], all.size[0]);
            copy[all.size[0]] = '\0';
            st = run_plan_parse(out, copy, "the plan");
        } else {
            st = gt_fail(GT_NO_MEMORY, "cannot take the plan: out of memory");
        }
        free(copy);
    }
    net_blobs_release(&all);
    return st;
}

static void put_indented(gt_text *to, const char *lines)
{
    for (size_t n; *lines; lines += n + (lines[n] == '\n')) {
        n = strcspn(lines, "\n");
        gt_text_printf(to, "        not %.*s\n", (int)n, lines);
    }
}

/* One device: nothing to plan but the size of a micro-batch. */
static gt_status alone(run_plan *out, const train_plan_wish *w)
{
    const plan_local_options *l = &w->local;
    const int micro = l->micro_batch ? l->micro_batch : l->batch;
    if (l->stages > 1 || l->replicas > 1 || l->tensor > 1)
        return plan_local_check(l, 1);
    if (micro < 1 || l->batch % micro)
        return gt_fail(GT_MISUSE, "batch %d is not a multiple of micro-batch %d", l->batch, micro);
    return run_plan_single(out, model_units(l->model), l->batch, micro, l->recompute > 0);
}

/* The plan of several ranks, or of a file. */
static gt_status settle(run_plan *out, gt_text *why, net_comm *c, dev_device *d, const train_plan_wish *w,
                        char (*device)[32], int ranks)
{
    gt_text text = { 0 };
    int found = 0;
    gt_status st = GT_OK;
    if (!c || net_comm_rank(c) == 0)
        st = choose(&text, why, w, device, ranks);
    if (!st && !c && !names_file(w)) {
        gt_text_release(&text);
        return alone(out, w);
    }
    if (!st && c)
        st = share(out, &text, c, &found);
    else if (!st)
        st = run_plan_parse(out, text.data, w->file);
    gt_text_release(&text);
    if (!st && c && !found) {
        plan_local_result r = { 0 };
        st = plan_local(&r, c, d, &w->local);
        if (!st) {
            st = run_plan_copy(out, &r.plan);
            gt_text_printf(why, "        %s in %.1f s, searched in %.2f s\n",
                           r.measured ? "measured" : "measured before, looked up", r.profile_seconds,
                           r.search_seconds);
            if (r.runners_up.size && is_open(w))
                put_indented(why, r.runners_up.data);
        }
        plan_local_release(&r);
    }
    return st;
}

gt_status train_plan_settle(run_plan *out, gt_text *why, net_comm *c, dev_device *d,
                            const train_plan_wish *w)
{
    const int ranks = c ? net_comm_size(c) : 1;
    char (*device)[32] = NULL;
    *out = (run_plan){ 0 };
    gt_status st = find_devices(&device, c, d);
    if (!st)
        st = settle(out, why, c, d, w, device, ranks);
    if (!st && out->ranks != ranks)
        st = gt_fail(GT_MISMATCH, "the plan is for %d ranks, there are %d", out->ranks, ranks);
    if (!st)                            /* what runs, whatever a plan was made for           */
        memcpy(out->device, device, (size_t)ranks * sizeof *device);
    free(device);
    return st;
}

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
    fprintf(out, "        rank %-3d %-12s %-22s %-34s %d x %d sequences\n", rank, p->device[rank], where,
            what, r->micro_batches, r->micro_batch);
}

void train_plan_show(const run_plan *p, int most, FILE *out)
{
    fprintf(out, "plan    %d ranks: %d replica%s, tensor width %d, schedule %s%s%s", p->ranks,
            p->replicas, p->replicas > 1 ? "s" : "", p->tensor, p->schedule,
            p->recompute ? ", recomputed" : "", strcmp(p->sync, "sharded") ? "" : ", optimizer sharded");
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
                        : gt_fail(GT_NO_MEMORY, "cannot write the plan: out of memory");
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
    q->all = (pipe_schedule){ .chunks = p->chunks, .count = calloc(n, sizeof(int)),
                              .list = calloc(n, sizeof(pipe_instruction *)) };
    q->event = calloc(n, sizeof(pipe_event *));
    q->name = calloc(n, sizeof(char *));
    q->place = calloc(n, sizeof(char *));
    q->text = calloc(n, sizeof *q->text);
    if (!q->of || !q->all.count || !q->all.list || !q->event || !q->name || !q->place || !q->text)
        return gt_fail(GT_NO_MEMORY, "cannot draw the timeline: out of memory");
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
    gt_status st = path ? picture_make(&q, p, said) : gt_fail(GT_NO_MEMORY, "out of memory");
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
                                 : gt_fail(GT_NO_MEMORY, "cannot draw the timeline: out of memory");
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
