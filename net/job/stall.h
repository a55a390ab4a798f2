/* SPDX-License-Identifier: MIT */
/* net/job/stall.h - from what every rank says that it does to one sentence: who is late?
 *
 *   rank 0   started 183   waits for 3
 *   rank 1   started 183   waits for 0      ->  rank 3 has not started operation 183, "all-
 *   rank 2   started 183   waits for 1          reduce ...", in which ranks 0, 1 and 2 wait
 *   rank 3   started 182   idle
 *
 * Pure: tests give it any picture.                                                       */
#ifndef NET_JOB_STALL_H
#define NET_JOB_STALL_H

#include "host/base/text.h"

#include <stdint.h>

typedef struct stall_rank {
    const char *name;                   /* "rank 3 (nodeB, pid 4711)"                       */
    uint64_t started, finished;
    uint64_t age;                       /* of its oldest unfinished operation; 0: idle      */
    int waits_for;                      /* or -1                                            */
    const char *text;                   /* with age 0: what it computes, so that others may wait */
    int silent;                         /* 1: it gives no sign of life                      */
    int left;
} stall_rank;

typedef struct stall {
    int found;
    int culprit;                        /* the rank that all wait for, in the end; or -1    */
    uint64_t age;                       /* of the oldest operation                          */
    uint64_t key;                       /* equal while it is the same stall                 */
} stall;

/* Looks for operations older than `limit`; the sentence is appended to `out`. */
stall stall_find(const stall_rank *ranks, int count, uint64_t limit, gt_text *out);

#endif
