/* SPDX-License-Identifier: MIT */
/* host/sync/settings.c - values of a mode's table of settings: read, checked, compared, written as text. */
#include "host/sync/mode.h"

#include "host/base/text.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const sync_setting *sync_setting_at(const sync_mode *m, int i)
{
    assert(m->setting_count <= SYNC_SETTINGS);
    return i < m->setting_count ? &m->settings[i] : NULL;
}

const sync_setting *sync_setting_find(const sync_mode *m, const char *name, int *at)
{
    for (int i = 0; i < m->setting_count; i++)
        if (!strcmp(m->settings[i].name, name)) {
            if (at)
                *at = i;
            return &m->settings[i];
        }
    return NULL;
}

static int is_word(const sync_setting *row)
{
    return row->kind == SYNC_CHOICE || row->kind == SYNC_TEXT;
}

void sync_settings_usual(const sync_mode *m, sync_settings *out)
{
    memset(out, 0, sizeof *out);
    for (int i = 0; i < m->setting_count; i++) {
        out->number[i] = m->settings[i].usual;
        snprintf(out->word[i], SYNC_WORD, "%s", m->settings[i].word ? m->settings[i].word : "");
    }
}

static int is_choice(const char *choices, const char *word)
{
    const size_t length = strlen(word);
    for (const char *p = choices; *p; p += *p == '|') {
        const size_t n = strcspn(p, "|");
        if (n == length && !strncmp(p, word, n))
            return 1;
        p += n;
    }
    return 0;
}

static gt_status set_word(const sync_setting *row, char out[SYNC_WORD], const char *text)
{
    if (row->kind == SYNC_CHOICE && !is_choice(row->value, text))
        return gt_fail(GT_MISUSE, "option --%s: '%s' is not one of %s", row->name, text, row->value);
    if (!*text || strlen(text) >= SYNC_WORD)
        return gt_fail(GT_MISUSE, "option --%s: '%s' is not a word of 1 to %d letters", row->name, text, SYNC_WORD - 1);
    snprintf(out, SYNC_WORD, "%s", text);
    return GT_OK;
}

static gt_status set_number(const sync_setting *row, double *out, const char *text)
{
    double x;
    gt_status st = gt_parse_double(&x, text);
    if (st)
        return gt_fail_in(st, "option --%s", row->name);
    if (row->kind == SYNC_COUNT && x != floor(x))
        return gt_fail(GT_MISUSE, "option --%s: '%s' is not a whole number", row->name, text);
    if (!(x >= row->least && x <= row->most))
        return gt_fail(GT_MISUSE, "option --%s: %s is not in [%g, %g]", row->name, text, row->least, row->most);
    *out = x;
    return GT_OK;
}

gt_status sync_settings_set(const sync_mode *m, sync_settings *s, const char *name, const char *text)
{
    int i = 0;
    const sync_setting *row = sync_setting_find(m, name, &i);
    if (!row)
        return gt_fail(GT_MISUSE, "--%s is no option of --sync %s", name, m->name);
    return is_word(row) ? set_word(row, s->word[i], text) : set_number(row, &s->number[i], text);
}

/* The shortest decimal that reads back as the same number. */
static void number_text(double x, char *out, size_t size)
{
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(out, size, "%.*g", digits, x);
        if (strtod(out, NULL) == x)
            return;
    }
}

const char *sync_setting_text(const sync_mode *m, const sync_settings *s, int i, char *out, size_t size)
{
    const sync_setting *row = &m->settings[i];
    if (is_word(row))
        snprintf(out, size, "%s", s ? s->word[i] : row->word ? row->word : "");
    else
        number_text(s ? s->number[i] : row->usual, out, size);
    return out;
}

gt_status sync_settings_check(const sync_mode *m, const sync_settings *s, int ranks)
{
    return m->check ? m->check(s, ranks) : GT_OK;
}

const char *sync_setting_idle(const sync_mode *m, const sync_settings *s, int i)
{
    return m->idle ? m->idle(s, i) : NULL;
}

gt_status sync_settings_check_replicas(const sync_mode *m, const sync_settings *s, int replicas)
{
    return m->check_replicas ? m->check_replicas(s, replicas) : GT_OK;
}

gt_status sync_settings_check_layers(const sync_mode *m, const sync_settings *s, int layers)
{
    return m->check_layers ? m->check_layers(s, layers) : GT_OK;
}

int sync_settings_same(const sync_mode *m, const sync_settings *a, const sync_settings *b, unsigned which)
{
    int same = 1;
    for (int i = 0; i < m->setting_count; i++)
        if (which >> i & 1)
            same &= is_word(&m->settings[i]) ? !strcmp(a->word[i], b->word[i]) : a->number[i] == b->number[i];
    return same;
}
