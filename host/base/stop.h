/* SPDX-License-Identifier: MIT */
/* host/base/stop.h - the signals by which a user, a terminal or a batch system asks for an end.
 *
 *   SIGINT    Ctrl-C                 SIGTERM   kill, a batch system's time limit
 *   SIGHUP    the terminal is gone   SIGUSR1   #SBATCH --signal=USR1@60
 *
 * All four ask for the same: finish what must not be lost, and end. The same signal again ends the
 * process at once; SAME nanoseconds must lie between, since timeout(1), batch systems and launchers
 * tell a process and then its whole group. A SIGHUP that was ignored when the process started
 * (nohup) stays ignored.
 *
 * The exit status is then that of a process which the signal ended, as shells count: 128 + its
 * number. */
#ifndef GT_BASE_STOP_H
#define GT_BASE_STOP_H

#include <signal.h>

enum { GT_STOP_SIGNALS = 4 };
#define GT_STOP_SAME UINT64_C(500000000)

/* Remembers whether SIGHUP is ignored: first thing in main, before a driver changes it. */
void gt_stop_start(void);

/* Listens from now on. `also` is called from within the first signal's handler; may be NULL.
 * To be called again after an OpenCL driver was loaded: LLVM inside it puts handlers over SIGHUP,
 * SIGINT, SIGTERM and others, and when one of them comes, puts back for all what it found. */
void gt_stop_listen(void (*also)(void));

/* The number of the first signal that asked this process to stop, or 0. */
int gt_stop_asked(void);
/* As if that signal had come: it came to another process of the job. The first one counts. */
void gt_stop_note(int number);

/* Forgets it, for a program that goes on. */
void gt_stop_withdraw(void);

/* The four, without a SIGHUP that is ignored; and whether a number is one of the four. */
void gt_stop_set(sigset_t *out);
int gt_stop_is(int number);

#endif
