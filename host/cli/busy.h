/* SPDX-License-Identifier: MIT */
/* host/cli/busy.h - tells the user what takes so long, until it is over.
 *
 *   terminal   laying out memory of 120/340 nodes: compiling gemm.cl  0:02       drawn over
 *   a pipe     busy    laying out memory of 120/340 nodes: compiling gemm.cl, for 12 s
 *
 * A thread looks at the main thread's activity (host/base/activity.h) ten times a second and writes
 * to standard error what has lasted a while: a terminal sees it from a third of a second on, a
 * pipe a line after two seconds and then at ever longer intervals.                        */
#ifndef GT_CLI_BUSY_H
#define GT_CLI_BUSY_H

/* Starts looking, once; without a thread to be had nothing is shown. */
void cli_busy_start(void);
/* Takes its line from the screen and stops looking. */
void cli_busy_stop(void);
/* Takes its line from the screen, for what is printed next. */
void cli_busy_clear(void);
/* From now on something else shows progress: only what lasts several seconds is told. */
void cli_busy_patient(void);

#endif
