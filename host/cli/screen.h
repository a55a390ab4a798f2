/* SPDX-License-Identifier: MIT */
/* host/cli/screen.h - standard output and error as a person sees them: on a terminal, long lines are broken
 * between words, and go on indented below the text that they continue.
 *
 *   device  cpu:0, fp32, 2 units: pthread-skylake-avx512-AMD EPYC
 *           9334 32-Core Processor
 *
 * All that the program prints by stdio goes through it, so no caller has to know. Where a stream is no
 * terminal it is left alone: a line stays a line, for scripts. So are lines that control the terminal (a
 * bar), parts of lines that are shown before their end comes, and everything after
 * cli_screen_raw(): the program's results, as generated text or JSON.                      */
#ifndef GT_CLI_SCREEN_H
#define GT_CLI_SCREEN_H

#include "host/base/text.h"

#include <stddef.h>

/* Once, before anything is printed. */
void cli_screen_open(void);
/* From now on standard output is what its bytes are. */
void cli_screen_raw(void);

/* Appends one line (its end included or not) to out, broken for a screen of so many columns. A line's
 * continuation stands below what follows its first gap of two spaces or more, if that is in the first
 * half, else two columns in. A word longer than the screen is left whole. */
void cli_screen_break(gt_text *out, const char *line, size_t size, int columns);

#endif
