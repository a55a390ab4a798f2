/* SPDX-License-Identifier: MIT */
/* host/cli/sync_rows.h - the options that ways of staying together bring, as rows of a verb's table.
 *
 *   modes' tables ─► one option a name, its help with the default of each mode that has it
 *   command line, config.json ─► texts; of the mode that was chosen ─► sync_settings           */
#ifndef GT_CLI_SYNC_ROWS_H
#define GT_CLI_SYNC_ROWS_H

#include "host/base/options.h"
#include "host/sync/sync.h"

enum { SYNC_ROWS = 24 };                        /* different names of all modes, at most */

/* Zeros at first. */
typedef struct sync_rows {
    const char *text[SYNC_ROWS];                /* NULL: not said */
    const char *name[SYNC_ROWS];
    char help[SYNC_ROWS][192];
    char kept[SYNC_ROWS][SYNC_WORD];            /* texts of a plan */
    int count;
} sync_rows;

/* Writes the rows, at most SYNC_ROWS; how many. r keeps its place. */
int sync_rows_make(sync_rows *r, gt_option *rows);
/* *out: the settings of the mode; *fixed, bit i: the command line says setting i. Texts of other modes are
 * forgotten. GT_MISUSE if one of another mode is on the command line, or a value cannot be. */
gt_status sync_rows_settle(sync_rows *r, const gt_option *table, const char *mode, sync_settings *out, unsigned *fixed);
/* The settings of a mode become the texts, as if they had been said. */
void sync_rows_take(sync_rows *r, const char *mode, const sync_settings *from);

#endif
