/* SPDX-License-Identifier: MIT */
/* host/base/log.h - what the program says while it runs, on standard error.
 *
 *   GT_LOG=info,device:debug     default level, then levels of single rooms
 *
 * Levels, by how much they print:  error  a few lines before the end · warn  rare, worth
 * reading · info  a few lines a run · debug  a few lines a step · trace  every call.
 * A line is `geartrain: [room] text`; with more than one rank `[rank room]`.
 * Threads: any; a line is written whole.                                                */
#ifndef GT_BASE_LOG_H
#define GT_BASE_LOG_H

#include <stddef.h>

typedef enum gt_log_level { GT_LOG_ERROR, GT_LOG_WARN, GT_LOG_INFO, GT_LOG_DEBUG, GT_LOG_TRACE } gt_log_level;

/* `room` is a literal: "device", "train", ... */
void gt_log(gt_log_level level, const char *room, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* 1 if a line of that level and room would be printed; guards costly arguments. */
int gt_log_on(gt_log_level level, const char *room);

/* Lines begin with this rank from now on; -1 (the default) leaves it out. */
void gt_log_rank(int rank);

/* Called before a line is written, on the thread that writes it, so that what stands unfinished on
 * the screen can be taken away; NULL: nothing is. */
void gt_log_before(void (*hook)(void));

/* Lines go through it on their way to standard error: a terminal's, say, where long ones are to be
 * broken between words. NULL: straight there. Call it before there are threads. */
void gt_log_through(void (*print)(const char *line, size_t size));

/* How many warnings and errors were logged so far; a test that logs one fails. */
unsigned gt_log_warnings(void);

#endif
