/* SPDX-License-Identifier: MIT */
/* host/cli/sync_rows.c - see sync_rows.h. */
#include "host/cli/sync_rows.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static int row_of(const sync_rows *r, const char *name)
{
    for (int i = 0; i < r->count; i++)
        if (!strcmp(r->name[i], name))
            return i;
    return -1;
}

/* "async [4], ps [all]: what it is" */
static void write_help(char *help, size_t size, const char *name)
{
    const sync_setting *first = NULL;
    char usual[SYNC_WORD];
    size_t n = 0;
    for (int k = 0; sync_mode_at(k) && n < size; k++) {
        int at = 0;
        const sync_mode *m = sync_mode_at(k);
        const sync_setting *s = sync_setting_find(m, name, &at);
        if (!s)
            continue;
        sync_setting_text(m, NULL, at, usual, sizeof usual);
        n += (size_t)snprintf(help + n, size - n, *usual ? "%s%s [%s]" : "%s%s", first ? ", " : "", sync_mode_name(m),
                              usual);
        first = first ? first : s;
    }
    if (n < size && first)
        snprintf(help + n, size - n, ": %s", first->help);
}

int sync_rows_make(sync_rows *r, gt_option *rows)
{
    *r = (sync_rows){ 0 };
    for (int k = 0; sync_mode_at(k); k++)
        for (int i = 0; sync_setting_at(sync_mode_at(k), i); i++) {
            const sync_setting *s = sync_setting_at(sync_mode_at(k), i);
            if (row_of(r, s->name) >= 0)
                continue;
            assert(r->count < SYNC_ROWS);
            const int at = r->count++;
            r->name[at] = s->name;
            write_help(r->help[at], sizeof r->help[at], s->name);
            rows[at] = (gt_option){
                s->name, 0, s->kind == SYNC_CHOICE ? GT_CHOICE : GT_STRING, s->value, r->help[at], &r->text[at], 1, NULL
            };
        }
    return r->count;
}

/* "async or ps", of those that have the setting. */
static const char *modes_with(char *out, size_t size, const char *name)
{
    size_t n = 0;
    *out = '\0';
    for (int k = 0; sync_mode_at(k) && n < size; k++)
        if (sync_setting_find(sync_mode_at(k), name, NULL))
            n += (size_t)snprintf(out + n, size - n, "%s%s", n ? " or " : "", sync_mode_name(sync_mode_at(k)));
    return out;
}

gt_status sync_rows_settle(sync_rows *r, const gt_option *table, const char *mode, sync_settings *out, unsigned *fixed)
{
    const sync_mode *m = sync_mode_find(mode);
    char names[SYNC_NAMES];
    gt_status st = GT_OK;
    *fixed = 0;
    sync_settings_usual(m, out);
    for (int i = 0; !st && i < r->count; i++) {
        int at = 0;
        const int given = gt_option_given(table, r->name[i]);
        if (!sync_setting_find(m, r->name[i], &at)) {
            if (given)
                st = gt_fail(GT_MISUSE, "--%s is an option of --sync %s, not of --sync %s; leave it out", r->name[i],
                             modes_with(names, sizeof names, r->name[i]), mode);
            r->text[i] = NULL;
            continue;
        }
        if (r->text[i] && *r->text[i])
            st = sync_settings_set(m, out, r->name[i], r->text[i]);
        *fixed |= given ? 1u << at : 0u;
    }
    for (int i = 0; !st && i < r->count; i++) {     /* given, and not taken over from a run or plan */
        int at;
        const char *why = sync_setting_find(m, r->name[i], &at) && *fixed >> at & 1
                              ? sync_setting_idle(m, out, at)
                              : NULL;
        if (why)
            st = gt_fail(GT_MISUSE, "--%s has no effect with %s; leave it out", r->name[i], why);
    }
    return st ? st : sync_settings_check(m, out, 0);
}

void sync_rows_take(sync_rows *r, const char *mode, const sync_settings *from)
{
    const sync_mode *m = sync_mode_find(mode);
    for (int i = 0; i < r->count; i++) {
        int at = 0;
        r->text[i] = NULL;
        if (!sync_setting_find(m, r->name[i], &at))
            continue;
        sync_setting_text(m, from, at, r->kept[i], sizeof r->kept[i]);
        r->text[i] = *r->kept[i] ? r->kept[i] : NULL;
    }
}
