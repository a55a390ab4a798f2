/* SPDX-License-Identifier: MIT */
/* host/planner/compare.c - the list of what is compared, and rows of the table. */
#include "host/planner/compare.h"

#include "host/compress/compressor.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAIRS = 3 };

/* Settings worth a row of their own; every mode has one with its usual ones. */
static const struct {
    const char *mode;
    const char *set[PAIRS][2];
} variants[] = {
    { "ps", { { "servers", "0" } } },
    { "async", { { "push-every", "4" }, { "pull-every", "4" } } },
    { "local", { { "local-steps", "10" } } },
    { "local", { { "local-steps", "100" } } },
    { "local", { { "local-steps", "100" }, { "outer", "nesterov" } } },
    { "local", { { "local-steps", "30" }, { "fragments", "3" }, { "overlap", "5" } } },
    { "local", { { "local-steps", "30" }, { "outer", "sparse" } } },
};
enum { VARIANTS = sizeof variants / sizeof *variants };

/* Of compressors that must be told a number. */
static const char *const forms[] = { "topk:0.01", "randomk:0.01", "powersgd:4" };
enum { FORMS = sizeof forms / sizeof *forms, WARM_UP = 100 };

/* A compressor's usual numbers, and others with which it sends much less. */
static const char *const more_forms[] = { "zeroone:16,freeze=1000,local=8" };
enum { MORE_FORMS = sizeof more_forms / sizeof *more_forms };

static int is_same(const compare_way *a, const compare_way *b)
{
    return a->mode == b->mode && !strcmp(a->compress, b->compress) && a->form.after == b->form.after
           && sync_settings_same(a->mode, &a->settings, &b->settings, ~0u);
}

/* Puts a way behind the others, unless it is there or cannot be. */
static void add(compare_way *list, int *count, compare_way w, const optim_config *c, dtype storage, int layers)
{
    int good = *count < COMPARE_MOST && !sync_settings_check(w.mode, &w.settings, 0)
               && !sync_settings_check_layers(w.mode, &w.settings, layers);
    const uint64_t after = w.form.after;
    good = good && !compress_parse(&w.form, w.compress);
    w.form.after = good && w.form.how->warms_up && !after ? WARM_UP : after;
    good = good && !compress_check(&w.form, c) && !sync_mode_allows(w.mode, &w.settings, c, storage, &w.form);
    gt_message_clear();
    for (int i = 0; good && i < *count; i++)
        if (is_same(&list[i], &w)) {
            list[i].asked |= w.asked;
            good = 0;
        }
    w.settles = w.mode != sync_mode_at(0) || compress_changes(&w.form);
    if (good)
        list[(*count)++] = w;
}

static compare_way usual(const sync_mode *m, const char *compress)
{
    compare_way w = { .mode = m };
    sync_settings_usual(m, &w.settings);
    snprintf(w.compress, sizeof w.compress, "%s", compress);
    return w;
}

static int vary(compare_way *w, int i)
{
    int good = 1;
    for (int k = 0; k < PAIRS && variants[i].set[k][0]; k++)
        good &= !sync_settings_set(w->mode, &w->settings, variants[i].set[k][0], variants[i].set[k][1]);
    return good;
}

/* What stands for a compressor: its name, or with a number. NULL: it needs one, and none is known here. */
static const char *form_of(const compressor *c)
{
    compress_spec any;
    const char *name = compressor_name(c);
    for (int i = 0; i < FORMS; i++)
        if (!strncmp(forms[i], name, strlen(name)) && forms[i][strlen(name)] == ':')
            return forms[i];
    const int needs = compress_parse(&any, name) != GT_OK;
    gt_message_clear();
    return needs ? NULL : name;
}

int compare_ways(compare_way out[COMPARE_MOST], const compare_way *asked, const optim_config *c, dtype storage,
                 int layers)
{
    int count = 0;
    if (asked)
        add(out, &count, *asked, c, storage, layers);
    for (int i = 0; sync_mode_at(i); i++) {
        const sync_mode *m = sync_mode_at(i);
        add(out, &count, usual(m, compressor_name(compressor_at(0))), c, storage, layers);
        for (int v = 0; v < VARIANTS; v++) {
            compare_way w = usual(m, compressor_name(compressor_at(0)));
            if (!strcmp(variants[v].mode, sync_mode_name(m)) && vary(&w, v))
                add(out, &count, w, c, storage, layers);
        }
    }
    for (int i = 1; compressor_at(i); i++) {
        const char *form = form_of(compressor_at(i));
        if (form)
            add(out, &count, usual(sync_mode_at(0), form), c, storage, layers);
    }
    for (int i = 0; i < MORE_FORMS; i++)
        add(out, &count, usual(sync_mode_at(0), more_forms[i]), c, storage, layers);
    return count;
}

void compare_name(char *out, size_t size, const compare_way *w)
{
    char text[SYNC_WORD];
    sync_settings usual_ones;
    sync_settings_usual(w->mode, &usual_ones);
    size_t n = (size_t)snprintf(out, size, "--sync %s", sync_mode_name(w->mode));
    for (int i = 0; sync_setting_at(w->mode, i) && n < size; i++)
        if (!sync_settings_same(w->mode, &w->settings, &usual_ones, 1u << i))
            n += (size_t)snprintf(out + n, size - n, " --%s %s", sync_setting_at(w->mode, i)->name,
                                  sync_setting_text(w->mode, &w->settings, i, text, sizeof text));
    if (compress_changes(&w->form) && n < size)
        n += (size_t)snprintf(out + n, size - n, " --compress %s", w->compress);
    if (w->form.after && n < size)
        snprintf(out + n, size - n, " --compress-after %llu", (unsigned long long)w->form.after);
}

void compare_changes(char *out, size_t size, const compare_way *w, int replicas)
{
    const char *mode = replicas < 2                    ? NULL
                       : compress_goes_apart(&w->form) ? "local"
                                                       : sync_mode_changes(w->mode, &w->settings);
    const int lossy = replicas > 1 && compress_changes(&w->form);
    snprintf(out, size, "%s%s%s", mode ? mode : "", mode && lossy ? ", " : "", lossy ? "lossy" : "");
}

void compare_take(compare_row *row, const run_plan *p)
{
    row->fits = 1;
    row->replicas = p->replicas;
    row->step = p->step;
    row->waits = p->idle;
    for (int i = 0; i < p->replicas; i++)
        row->stages = p->replica[i].stages > row->stages ? p->replica[i].stages : row->stages;
    for (int r = 0; r < p->ranks; r++)
        if (p->memory[r] + p->host_memory[r] > row->memory + row->host_memory) {
            row->memory = p->memory[r];
            row->host_memory = p->host_memory[r];
        }
}

static int by_step(const void *a, const void *b)
{
    const compare_row *x = a, *y = b;
    if (x->fits != y->fits)
        return y->fits - x->fits;
    return (x->step > y->step) - (x->step < y->step);
}

void compare_sort(compare_table *t)
{
    qsort(t->row, (size_t)t->count, sizeof *t->row, by_step);
}
