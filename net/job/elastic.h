/* SPDX-License-Identifier: MIT */
/* net/job/elastic.h - a rank's side of a job whose ranks may change while it runs.
 *
 *   launcher (net_launch_options.elastic)            each rank it started
 *   PAUSE: somebody wants to join          ──►       ends its step, agrees with the others, leaves
 *                                          ◄──  READY: out of the old job, with what it has in memory
 *   GO: rank, size, place of rank 0        ──►       joins the new job
 *   END: there will be none                ──►       fails with what it failed with
 *
 * On the launcher's host the words go over a pair of sockets that the rank inherits (GEARTRAIN_ELASTIC_FD), and that
 * only these two have. Where that is rank 0 of the new job it gets its listening socket with GO, so the port is
 * known before anybody looks for it. A rank on another host connects to the launcher (GEARTRAIN_ELASTIC_AT, door.h),
 * proves that it knows the job's secret, and says with READY where it would listen. The job's secret stays the
 * same; its name does not, so a rank of the job before is no member of the next.
 *
 * State is the process's, as its environment is. Calls from the thread that joins and leaves jobs, but
 * net_elastic_asks(): from any one thread. */
#ifndef NET_JOB_ELASTIC_H
#define NET_JOB_ELASTIC_H

#include "net/job/identity.h"

/* 1: the launcher that started this process may change the job's ranks. */
int net_elastic(void);
/* 1: this process was started for a job that runs already: it awaits its place before it joins one. */
int net_elastic_joins(void);
/* How often the ranks were put together anew before this job; 0: its first. */
int net_elastic_formation(void);
/* 1: too few ranks are left: this job is to keep what they have, and to end. */
int net_elastic_is_last(void);
/* This process's place among `places` of the host, the same for as long as it lives; -1: none was given. */
int net_elastic_place(int *places);

/* 1: the launcher asks ranks to leave, so that others can join. Does not wait. */
int net_elastic_asks(void);
/* Out of a job (or not yet in one): tells the launcher, and waits for the next. GT_OK: *who is this rank's
 * place in it. GT_PEER: there is none. GT_INTERRUPTED: a signal asked for the end meanwhile. */
gt_status net_elastic_await(net_identity *who);

#endif
