/* SPDX-License-Identifier: MIT */
/* host/sync/settings.h - what can be said of a way of staying together: rows of the mode's own table.
 *
 *   mode's file   { "staleness", "N", "versions that ...", SYNC_COUNT, .usual = 4, .least = 0, .most = 1e6 }
 *     read by     command line, help, plan.json, config.json, checks and refusals; none of them names a mode
 *     values      sync_options.settings: settings->number[STALENESS], an enum of the mode's file
 *
 * Modes may share a row by name: it is one option then, with a default for each.             */
#ifndef GT_SYNC_SETTINGS_H
#define GT_SYNC_SETTINGS_H

#include "host/base/status.h"

#include <stddef.h>

typedef struct sync_mode sync_mode;

enum { SYNC_SETTINGS = 12, SYNC_WORD = 96 };    /* of a mode, at most; of a word, with its end */

typedef enum sync_kind {
    SYNC_COUNT,                         /* a whole number                                   */
    SYNC_NUMBER,                        /* any number                                       */
    SYNC_CHOICE,                        /* one of the words in `value`, "a|b|c"             */
    SYNC_TEXT                           /* what the mode's check() reads                    */
} sync_kind;

typedef struct sync_setting {
    const char *name, *value, *help;    /* "staleness", "N", "versions that ..."            */
    sync_kind kind;
    double usual, least, most;          /* of numbers; both ends are allowed                */
    const char *word;                   /* of words: the default; NULL: none                */
} sync_setting;

/* Values, in the order of the mode's table. */
typedef struct sync_settings {
    double number[SYNC_SETTINGS];
    char word[SYNC_SETTINGS][SYNC_WORD];
} sync_settings;

/* NULL behind the last. */
const sync_setting *sync_setting_at(const sync_mode *m, int i);
const sync_setting *sync_setting_find(const sync_mode *m, const char *name, int *at);     /* at: may be NULL */

/* The mode's defaults. */
void sync_settings_usual(const sync_mode *m, sync_settings *out);
/* GT_MISUSE if the mode has no such setting or it cannot be that; the sentence names the option. */
gt_status sync_settings_set(const sync_mode *m, sync_settings *s, const char *name, const char *text);
/* What setting i is set to, or is by default (s NULL), as sync_settings_set() takes it. Returns out. */
const char *sync_setting_text(const sync_mode *m, const sync_settings *s, int i, char *out, size_t size);
/* GT_MISUSE if some contradict each other, or cannot be with so many ranks; ranks 0: not known yet. */
gt_status sync_settings_check(const sync_mode *m, const sync_settings *s, int ranks);
/* What makes setting i of no effect beside the others, as "--outer average"; NULL: it has one. */
const char *sync_setting_idle(const sync_mode *m, const sync_settings *s, int i);
/* GT_MISUSE if ranks cannot stay together so in that many replicas. */
gt_status sync_settings_check_replicas(const sync_mode *m, const sync_settings *s, int replicas);
/* GT_MISUSE if that is not for a model of so many layers. */
gt_status sync_settings_check_layers(const sync_mode *m, const sync_settings *s, int layers);
/* 1 if they agree in all that `which` has a bit of. */
int sync_settings_same(const sync_mode *m, const sync_settings *a, const sync_settings *b, unsigned which);

#endif
