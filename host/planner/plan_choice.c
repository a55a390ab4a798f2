/* SPDX-License-Identifier: MIT */
/* host/planner/plan_choice.c - which plan a run follows: see plan_choice.h. */
#include "host/planner/plan_choice.h"

#include "host/base/file.h"
#include "host/base/log.h"
#include "host/sync/sync.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the same mode. */
static int same_settings(const plan_local_options *l, const run_plan *p)
{
    const sync_mode *m = l->sync ? sync_mode_find(l->sync) : NULL;
    return !m || !l->settings || sync_settings_same(m, l->settings, &p->settings, l->fixed);
}

/* Is a plan one of those that the options leave open? */
static int suits(const run_plan *p, const plan_wish *w, int ranks)
{
    const plan_local_options *l = &w->local;
    int good = p->ranks == ranks && p->units == l->model.units && p->batch == l->batch
               && (!l->replicas || l->replicas == p->replicas) && (!l->tensor || l->tensor == p->tensor)
               && (!l->schedule || !strcmp(l->schedule, "auto") || !strcmp(l->schedule, p->schedule))
               && (!l->sync || !strcmp(l->sync, p->sync)) && same_settings(l, p)
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
        return gt_fail(GT_NO_MEMORY, "cannot plan: no memory for the names of %zu devices", ranks);
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
static void kept_plan(gt_text *text, gt_text *why, const plan_wish *w, char (*device)[32], int ranks)
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

static int is_open(const plan_wish *w)
{
    const plan_local_options *l = &w->local;
    return !l->stages && !l->replicas && !l->tensor && !l->micro_batch
           && (!l->schedule || !strcmp(l->schedule, "auto"));
}

static gt_status contradicts(const char *file, const char *option, const char *given, const char *its)
{
    return gt_fail(GT_MISUSE, "--%s%s%s contradicts the plan '%s', which has %s; leave one of them out", option,
                   *given ? " " : "", given, file, its);
}

static gt_status check_settings(const run_plan *p, const plan_wish *w)
{
    const sync_mode *m = sync_mode_find(p->sync);
    char given[SYNC_WORD], its[SYNC_WORD];
    for (int i = 0; sync_setting_at(m, i); i++) {
        sync_setting_text(m, w->local.settings, i, given, sizeof given);
        sync_setting_text(m, &p->settings, i, its, sizeof its);
        if (w->local.fixed >> i & 1 && strcmp(given, its))
            return contradicts(w->file, sync_setting_at(m, i)->name, given, *its ? its : "none");
    }
    return GT_OK;
}

/* Options that fix a part of the plan may only repeat what the file says. */
static gt_status check_file(const run_plan *p, const plan_wish *w)
{
    const plan_local_options *l = &w->local;
    const struct {
        const char *option;
        int given, first, same;
    } numbers[] = { { "replicas", l->replicas, p->replicas, l->replicas == p->replicas },
                    { "tensor", l->tensor, p->tensor, l->tensor == p->tensor } };
    char given[32], its[32];
    if (l->batch != p->batch)
        return gt_fail(GT_MISUSE,
                       "the plan '%s' is for batches of %d, not %d; say --batch %d, or make "
                       "another plan",
                       w->file, p->batch, l->batch, p->batch);
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
    if (!same_settings(l, p))
        return check_settings(p, w);
    if (l->recompute >= 0 && l->recompute != p->recompute)
        return contradicts(w->file, l->recompute ? "recompute" : "no-recompute", "",
                           p->recompute ? "--recompute" : "none");
    return GT_OK;
}

static int names_file(const plan_wish *w)
{
    return w->file && strcmp(w->file, "auto");
}

gt_status plan_choice_check(const plan_wish *w, int ranks)
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
static gt_status choose(gt_text *text, gt_text *why, const plan_wish *w, char (*device)[32], int ranks)
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
    gt_status st = net_job_exchange(net_comm_job(c), "the plan", speaks ? text->data : NULL, speaks ? text->size : 0,
                                    &all);
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
            st = gt_fail(GT_NO_MEMORY, "cannot take the plan: no memory for its %zu bytes", all.size[0]);
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
static gt_status alone(run_plan *out, const plan_wish *w)
{
    const plan_local_options *l = &w->local;
    const int micro = l->micro_batch ? l->micro_batch : l->batch;
    if (l->stages > 1 || l->replicas > 1 || l->tensor > 1)
        return plan_local_check(l, 1);
    if (micro < 1 || l->batch % micro)
        return gt_fail(GT_MISUSE, "batch %d is not a multiple of micro-batch %d", l->batch, micro);
    return run_plan_single(out, l->model.units, l->batch, micro, l->recompute > 0);
}

/* The plan of several ranks, or of a file. */
static gt_status settle(run_plan *out, gt_text *why, net_comm *c, dev_device *d, const plan_wish *w, char (*device)[32],
                        int ranks)
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
                           r.measured ? "measured" : "measured before, looked up", r.profile_seconds, r.search_seconds);
            if (r.runners_up.size && is_open(w))
                put_indented(why, r.runners_up.data);
        }
        plan_local_release(&r);
    }
    return st;
}

gt_status plan_choice_settle(run_plan *out, gt_text *why, net_comm *c, dev_device *d, const plan_wish *w)
{
    const int ranks = c ? net_comm_size(c) : 1;
    char(*device)[32] = NULL;
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
