/* SPDX-License-Identifier: MIT */
/* net/job/launcher_private.h - what the launcher's files share.
 *
 *   launcher.c           processes, their output, signals and ends
 *   launcher_elastic.c   a job whose ranks change while it runs */
#ifndef NET_JOB_LAUNCHER_PRIVATE_H
#define NET_JOB_LAUNCHER_PRIVATE_H

#include "net/job/identity.h"
#include "net/job/launcher.h"

#include <signal.h>
#include <sys/types.h>

enum { LINE = 8192, HOST = 256, LOST = 3 };

typedef struct child {
    pid_t pid;                          /* 0: ended                                          */
    pid_t number;                       /* the same, and what it was                         */
    int output;                         /* both streams of ranks above 0, or -1              */
    int liveness_pipe;                  /* standard input over ssh, or -1                    */
    int local_rank, local_size;
    char host[HOST];                    /* "" here                                           */
    char line[LINE];
    size_t used;
    /* of an elastic job */
    int words;                          /* this end of its pair of sockets, or -1            */
    int rank;                           /* in the job that it is a member of                 */
    int member;                         /* 0: it has not been in a job yet                   */
    int ready;                          /* out of the job before, and waits for the next     */
} child;

typedef struct launch {
    const net_launch_options *o;
    char **argv;
    int ranks, alive;                   /* places for ranks; processes                       */
    int size;                           /* ranks that it starts with                         */
    child *children;
    int signals;                        /* a signalfd                                        */
    int listener;
    char secret[2 * NET_SECRET + 1], job[40], root[HOST + 8];
    char name[40];                      /* the same at all starts                            */
    char first[HOST];                   /* of the hosts: where rank 0 is                     */
    int there;                          /* some hosts are not this one                       */
    int restart;
    /* what ended it */
    int first_failed;                   /* rank, or -1                                       */
    int killed_first, own_code, any_lost;
    int stops;                          /* how often the user asked for the end              */
    uint64_t stopped_at;                /* when last                                         */
    uint64_t term_at, kill_at;          /* 0: not planned                                    */
    uint64_t wake_at;                   /* when stopped ranks are ended                      */
    char outcome[512];
    /* of an elastic job (launcher_elastic.c) */
    int formation;                      /* how often ranks were put together anew            */
    int lost;                           /* a member was dropped or lost another: all must come */
    int paused;                         /* members were asked to leave for others to join    */
    int over;                           /* there is no next job                              */
    int before;                         /* members of the newest job                         */
    int replaced, failed_joins, lonely; /* lonely: formations in a row without a death       */
    uint64_t come_until, wait_until;    /* for members that are late; for ranks that are missing */
    char dropped[400];
} launch;

/* ---- launcher.c ------------------------------------------------------------------------------- */
gt_status launch_start(launch *l, int place, const sigset_t *mask);
/* A socket that listens here, into l->listener, and its address into l->root. */
gt_status launch_listen(launch *l);
void launch_signal(child *c, int sig);

/* ---- launcher_elastic.c: nothing, where the job is not elastic ----------------------------------- */
int elastic_is(const launch *l);
gt_status elastic_check(const net_launch_options *o, int *ranks);
/* Before a rank is started: its pair of sockets; *theirs is the rank's end, or -1. */
gt_status elastic_open(launch *l, int place, int *theirs);
/* In the child, up to exec. */
void elastic_tell(const launch *l, int place, int theirs);
/* 1: the end of this process is no failure of the job. */
int elastic_ended(launch *l, int place, int sig, int code);
/* Hears what ranks say, and puts them together anew when all are there. */
void elastic_tick(launch *l, const sigset_t *mask);
/* 1: something is awaited, so look again soon. */
int elastic_awaits(const launch *l);

#endif
