/* SPDX-License-Identifier: MIT */
/* net/job/launcher_private.h - what the launcher's files share.
 *
 *   launcher.c           all ranks: their output, signals and ends
 *   launcher_start.c     one rank's process
 *   launcher_hosts.c     which rank is where
 *   launcher_elastic.c   a job whose ranks change while it runs */
#ifndef NET_JOB_LAUNCHER_PRIVATE_H
#define NET_JOB_LAUNCHER_PRIVATE_H

#include "net/job/door.h"
#include "net/job/elastic_words.h"
#include "net/job/identity.h"
#include "net/job/launcher.h"

#include <signal.h>
#include <sys/types.h>

enum { LINE = 8192, HOST = 256, LOST = 3, SSH_FAILED = 255 };
enum { LAUNCH_PORTS = 16 };             /* that are tried for rank 0 on another host         */

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
    elastic_line words;                 /* this end                                          */
    uint16_t port;                      /* where it would listen as rank 0; 0: the launcher does for it */
    int heard;                          /* it had a line                                     */
    uint64_t stopped_at;                /* since when it is stopped (SIGSTOP); 0: it is not  */
    char from[64];                      /* of a guest: its host's address                    */
    int guest;                          /* on another host, and not started here: it has no pid */
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
    int stop_signal;                    /* by which, last                                    */
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
    net_door *door;                     /* NULL: all ranks are children on this host         */
    net_address door_at;                /* where it is; port as it listens                   */
    char door_text[96];
} launch;

/* ---- launcher.c ------------------------------------------------------------------------------- */
void launch_signal(child *c, int sig);
/* 1: a child on this host that a signal stopped. */
int launch_is_stopped(const child *c);

/* ---- launcher_start.c ------------------------------------------------------------------------- */
gt_status launch_start(launch *l, int place, const sigset_t *mask);

/* ---- launcher_hosts.c ------------------------------------------------------------------------- */
/* Gives the slots of a hosts file's text to the places, line by line, if there are any yet; *slots counts them all. */
gt_status launch_read_hosts(launch *l, const char *text, int *slots);
/* l->root, and on this host l->listener. */
gt_status launch_place(launch *l);
/* A socket that listens here, into l->listener, and its address into l->root; for_others: where the door is. */
gt_status launch_listen(launch *l, int for_others);

/* ---- launcher_elastic.c: nothing, where the job is not elastic ----------------------------------- */
int elastic_is(const launch *l);
gt_status elastic_check(const net_launch_options *o, int *ranks);
/* Where ranks on other hosts find the launcher, if there can be any. */
gt_status elastic_open_door(launch *l);
/* What to poll for reading beside lines; at most NET_DOOR_FDS. */
int elastic_fds(const launch *l, int *fds);
/* Before a rank is started: its pair of sockets; *theirs is the rank's end, or -1. */
gt_status elastic_open(launch *l, int place, int *theirs);
/* What it is told; in the child, up to exec, or in the script of another host. theirs -1: it has no pair. */
void elastic_tell(const launch *l, int place, int theirs, void (*put)(void *, const char *, const char *), void *to);
/* 1: the end of this process is no failure of the job. */
int elastic_ended(launch *l, int place, int sig, int code);
/* Hears what ranks say, and puts them together anew when all are there. */
void elastic_tick(launch *l, const sigset_t *mask);
/* 1: something is awaited, so look again soon. */
int elastic_awaits(const launch *l);

#endif
