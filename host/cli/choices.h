/* SPDX-License-Identifier: MIT */
/* host/cli/choices.h - words that options may take, from the tables of the rooms that know what they mean.
 *
 * Arrays, so that tables of options can point at them; filled once, by cli_choices_make().  */
#ifndef GT_CLI_CHOICES_H
#define GT_CLI_CHOICES_H

enum { CLI_CHOICES = 256 };

extern char cli_schedules[CLI_CHOICES];         /* "auto|1f1b|..." */
extern char cli_syncs[CLI_CHOICES];             /* "allreduce|sharded" */
extern char cli_engines[CLI_CHOICES];           /* "auto|native|..." */
extern char cli_precisions[CLI_CHOICES];        /* "fp32|bf16|..." */
extern char cli_rules[CLI_CHOICES];             /* "adamw|sgd|..." */

void cli_choices_make(void);

#endif
