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
               && (!l->replicas || l->replicas == run_plan_training(p)) && (!l->tensor || l->tensor == p->tensor)
               && (!l->schedule || !strcmp(l->schedule, "auto") || !strcmp(l->schedule, p->schedule))
               && (!l->sync || !strcmp(l->sync, p->sync)) && same_settings(l, p)
               && (l->recompute < 0 || l->recompute == p->recompute);
    for (int r = 0; good && r < p->replicas; r++)
        good = !p->replica[r].micro_batches
               || ((!l->stages || l->stages == p->replica[r].stages)
                   && (!l->micro_batch || l->micro_batch == p->replica[r].micro_batch));
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

/* The rank of a plan whose device a rank of the next one has, no other's yet; -1: none. */
static int same_device(const run_plan *p, const char *id, unsigned char *taken)
{
    for (int r = 0; r < p->ranks; r++)
        if (!taken[r] && !strcmp(p->device[r], id)) {
            taken[r] = 1;
            return r;
        }
    return -1;
}

/* Sequences at once: as many as each of these kinds of device took before, and a part of the batch of which there are
 * enough for all. */
static int micro_batch_for(const run_plan *p, char (*device)[32], int ranks)
{
    int all = p->batch;
    for (int r = 0; r < ranks; r++) {
        int most = 0;
        for (int k = 0; k < p->replicas; k++)
            if (!strcmp(p->device[p->replica[k].rank[0]], device[r]) && p->replica[k].micro_batch > most)
                most = p->replica[k].micro_batch;
        most = most ? most : 1;
        all = most < all ? most : all;
    }
    while (all > 1 && (p->batch % all || p->batch / all < ranks))
        all--;
    return all;
}

/* Micro-batches of each rank, in proportion to the sequences that its device had before, one at least. */
static void share_out(int *count, const double *weight, int ranks, int all)
{
    double sum = 0.0, up_to = 0.0;
    int given = 0;
    for (int r = 0; r < ranks; r++)
        sum += weight[r];
    for (int r = 0; r < ranks; r++) {
        up_to += weight[r];
        int until = (int)(up_to / sum * all + 0.5);
        const int most = all - (ranks - 1 - r);
        until = until > most ? most : until;
        count[r] = until > given ? until - given : 1;
        given += count[r];
    }
}

/* A plan of whole replicas for other ranks, without measuring. 0: it is none of those, or does not suit. */
static int cut_anew(run_plan *out, const run_plan *p, const plan_wish *w, char (*device)[32], int ranks)
{
    int whole = p->tensor == 1 && p->chunks == 1 && p->replicas == p->ranks && p->batch == w->local.batch
                && p->units == w->local.model.units && p->batch >= ranks;
    for (int k = 0; k < p->replicas; k++)
        whole &= p->replica[k].stages == 1 && p->replica[k].micro_batches > 0;
    unsigned char *taken = calloc((size_t)p->ranks + 1, 1);
    double *weight = calloc((size_t)ranks, sizeof *weight);
    int *count = calloc((size_t)ranks, sizeof *count);
    whole = whole && taken && weight && count && !run_plan_create(out, ranks, p->units, p->batch, 1, 1, ranks);
    if (whole) {
        const int micro = micro_batch_for(p, device, ranks);
        for (int r = 0; r < ranks; r++) {
            const int was = same_device(p, device[r], taken);
            const run_replica *k = was < 0 ? NULL : &p->replica[run_plan_place(p, was).replica];
            weight[r] = k ? (double)k->micro_batches * k->micro_batch : (double)p->batch / p->ranks;
        }
        share_out(count, weight, ranks, p->batch / micro);
        snprintf(out->schedule, sizeof out->schedule, "%s", p->schedule);
        run_plan_sync(out, p->sync, &p->settings);
        out->recompute = p->recompute;
        for (int r = 0; whole && r < ranks; r++) {
            whole = !run_plan_replica(out, r, 1);
            if (!whole)
                break;
            run_replica *k = &out->replica[r];
            k->micro_batches = count[r];
            k->micro_batch = micro;
            k->rank[0] = r;
            k->cut[0] = 0;
            k->cut[1] = p->units;
            snprintf(out->device[r], sizeof out->device[r], "%s", device[r]);
        }
        whole = whole && !run_plan_check(out) && suits(out, w, ranks);
    }
    if (!whole)
        gt_message_clear();
    free(taken);
    free(weight);
    free(count);
    return whole;
}

/* Does the plan of the run that is resumed still suit? Its text, or nothing and what changed. */
static void kept_plan(gt_text *text, gt_text *why, const plan_wish *w, char (*device)[32], int ranks)
{
    char *path = w->run ? gt_path_join(w->run, "plan.json") : NULL;
    run_plan p = { 0 }, cut = { 0 };
    if (path && w->resume && gt_path_exists(path)) {
        if (run_plan_read(&p, path)) {
            gt_log(GT_LOG_WARN, "train", "planning anew: %s", gt_message());
            gt_message_clear();
        } else if (w->recut && cut_anew(&cut, &p, w, device, ranks)) {
            gt_text_printf(why, "before  ");
            put_devices(why, &p);
            gt_text_printf(why, "; the batch is cut anew for those that are there\n");
            run_plan_text(&cut, text);
        } else if (!is_for(&p, device, ranks)) {
            gt_text_printf(why, "before  ");
            put_devices(why, &p);
            gt_text_printf(why, ranks > 1 ? "; planned anew\n" : "; now on this one\n");
        } else if (ranks > 1 && (w->fresh || !suits(&p, w, ranks))) {
            gt_text_printf(why, "before  another plan; planned anew, as is asked for now\n");
        } else {
            if (ranks > 1)
                gt_text_printf(why, "        as the run began\n");
            run_plan_text(&p, text);
        }
    }
    run_plan_release(&p);
    run_plan_release(&cut);
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

/* Forms are the same if they are read as the same. */
static int same_form(const char *a, const char *b)
{
    compress_spec x, y;
    char first[SYNC_NAMES], other[SYNC_NAMES];
    if (!strcmp(a, b))
        return 1;
    if (compress_parse(&x, a) || compress_parse(&y, b)) {     /* auto, of one of them */
        gt_message_clear();
        return 0;
    }
    compress_text(&x, first);
    compress_text(&y, other);
    return !strcmp(first, other);
}

static gt_status check_forms(const run_plan *p, const plan_wish *w)
{
    char given[32], its[32];
    if (w->compress && *p->compress && !same_form(w->compress, p->compress))
        return contradicts(w->file, "compress", w->compress, p->compress);
    if (w->compress_stages && *p->compress_stages && strcmp(w->compress_stages, p->compress_stages))
        return contradicts(w->file, "compress-stages", w->compress_stages, p->compress_stages);
    if (!*p->compress || w->local.compress_after == UINT64_MAX || w->local.compress_after == p->compress_after)
        return GT_OK;
    snprintf(given, sizeof given, "%llu", (unsigned long long)w->local.compress_after);
    snprintf(its, sizeof its, "%llu", (unsigned long long)p->compress_after);
    return contradicts(w->file, "compress-after", given, its);
}

/* Options that fix a part of the plan may only repeat what the file says. */
static gt_status check_file(const run_plan *p, const plan_wish *w)
{
    const plan_local_options *l = &w->local;
    const struct {
        const char *option;
        int given, first, same;
    } numbers[] = { { "replicas", l->replicas, run_plan_training(p), l->replicas == run_plan_training(p) },
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
        if (!p->replica[r].micro_batches
            || ((!l->stages || l->stages == stages) && (!l->micro_batch || l->micro_batch == micro)))
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
    return check_forms(p, w);
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

/* What cannot be with the plan that came of it. */
static gt_status check_plan(const run_plan *p)
{
    const sync_mode *m = sync_mode_find(p->sync);
    int stages = 1;
    for (int i = 0; i < p->replicas; i++)
        stages = p->replica[i].stages > stages ? p->replica[i].stages : stages;
    gt_status st = sync_settings_check_replicas(m, &p->settings, p->replicas);
    if (!st && p->units > 2)
        st = sync_settings_check_layers(m, &p->settings, p->units - 2);
    return st ? st : plan_check_stages(stages, *p->compress_stages ? p->compress_stages : NULL);
}

gt_status plan_choice_settle(run_plan *out, gt_text *why, net_comm *c, dev_device *d, const plan_wish *w)
{
    const int ranks = c ? net_comm_size(c) : 1;
    char(*device)[32] = NULL;
    *out = (run_plan){ 0 };
    gt_status st = find_devices(&device, c, d);
    int said = 0;                       /* what all ranks find, rank 0 says              */
    if (!st && c && !names_file(w)) {
        st = plan_local_check(&w->local, ranks);
        said = st != GT_OK;
    }
    if (!st)
        st = settle(out, why, c, d, w, device, ranks);
    if (!st && out->ranks != ranks)
        st = gt_fail(GT_MISMATCH, "the plan is for %d ranks, there are %d", out->ranks, ranks);
    if (!st)
        run_plan_forms(out, w->compress ? w->compress : out->compress,
                       w->compress_stages ? w->compress_stages : out->compress_stages);
    if (!st && (!names_file(w) || !*out->compress) && w->local.compress_after != UINT64_MAX)
        out->compress_after = w->local.compress_after;
    if (!st)                            /* what runs, whatever a plan was made for           */
        memcpy(out->device, device, (size_t)ranks * sizeof *device);
    if (!st && c && ranks > 1) {
        st = check_plan(out);
        said = st != GT_OK;
    }
    if (said && net_comm_rank(c))
        gt_message_clear();
    free(device);
    return st;
}
