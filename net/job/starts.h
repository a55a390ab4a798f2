/* SPDX-License-Identifier: MIT */
/* net/job/starts.h - which start of one and the same job this is.
 *
 *   who starts again          the job                         the start
 *   geartrain launch          GEARTRAIN_LAUNCH                GEARTRAIN_RESTART
 *   Slurm (scontrol requeue)  SLURM_CLUSTER_NAME, _JOB_ID     SLURM_RESTART_COUNT
 *   torchrun                  TORCHELASTIC_RUN_ID, its agent  TORCHELASTIC_RESTART_COUNT
 *
 * Several can hold at once: a launcher inside a batch job. Pure but for the environment and the
 * parent's start time. */
#ifndef NET_JOB_STARTS_H
#define NET_JOB_STARTS_H

enum { NET_STARTS = 3 };

typedef struct net_start {
    const char *who;                /* "launch", "slurm", "torchrun"                         */
    char job[160];                  /* the same at all starts of a job, never that of another */
    int start;                      /* 0: the first                                          */
} net_start;

/* What the environment knows, into out; returns how many. */
int net_starts(net_start out[NET_STARTS]);

#endif
