/* SPDX-License-Identifier: MIT */
/* net/job/launcher.h - starts the ranks of a job, here or over ssh, and looks after them.
 *
 *   stdout of rank 0 ───────────────► stdout        as it is
 *   stderr of rank 0 ───────────────► stderr        as it is
 *   both of the others ─────────────► stderr        each line behind "[rank] "
 *
 * Ranks learn who they are from variables (identity.c). A fresh secret is made for each start
 * and goes over the environment, or over ssh's standard input; never into arguments.
 *
 * When a rank fails the others have `grace` to end by themselves (they know within
 * milliseconds, see job.h); then SIGTERM, and after as long again SIGKILL. The signals that ask for
 * an end (base/stop.h) are passed on; the third kills. So is SIGUSR2, which asks for flight records.
 * If the launcher dies its ranks are told to end.
 *
 * Exit code: that of the first rank that failed by itself (neither 0 nor 3); 3 if ranks were
 * only killed or lost others, or if the first failure was a killed rank; 128 + the signal's number
 * if a signal stopped it; else 0.                                                        */
#ifndef NET_JOB_LAUNCHER_H
#define NET_JOB_LAUNCHER_H

#include "net/job/config.h"

typedef struct net_launch_options {
    int ranks;                          /* 0: as many as the hosts have slots               */
    const char *hosts;                  /* a file, net_hosts_line() a line; NULL: this host.
                                           Its own names need no ssh, user@name does       */
    const char *ssh;                    /* NULL: "ssh"; words split at blanks               */
    const char *program;                /* gets argv as its arguments; NULL: argv[0] itself */
    uint64_t grace;                     /* nanoseconds; 0: 5 s                              */
    int max_restarts;                   /* starts the job again after exit code 3           */
    /* Elastic: a rank that is lost is dropped, and the others go on in their processes (elastic.h) while
     * at least so many are left; others are started in its place, up to so many ranks at once and so many
     * in all. elastic_least 0: not elastic. */
    int elastic_least, elastic_most, replacements;
    /* Elastic: "HOST" or "HOST:PORT" of this host, where ranks on others find the launcher, and those may join that
     * it did not start: who knows the user's secret file. NULL: nobody but ranks of `hosts`. */
    const char *listen;
    /* Instead of a job of its own: `ranks` processes that join the one whose launcher listens there. */
    const char *join;
    uint64_t elastic_wait; /* nanoseconds: for ranks when there are too few    */
    const net_config *config; /* for port-range; may be NULL                      */
} net_launch_options;

/* Runs the job to its end. GT_OK: it ran, *exit_code is the job's, and if that is not 0
 * gt_message() says which rank failed first and how. */
gt_status net_launch(const net_launch_options *o, char **argv, int *exit_code);

/* `ranks` local copies of this very program; argv is what follows its name. */
gt_status net_launch_self(int ranks, char **argv, int *exit_code);

/* The status that makes main return this exit code; keeps gt_message(). */
gt_status net_launch_status(int exit_code);

#endif
