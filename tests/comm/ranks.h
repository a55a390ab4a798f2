/* SPDX-License-Identifier: MIT */
/* tests/comm/ranks.h - several ranks as threads of one process.
 *
 *   static void body(net_comm *c, void *context) { ... CHECK_OK(net_barrier(...)); ... }
 *   CHECK_OK(ranks_run(4, "transport=tcp fault=delay=1ms", body, NULL));
 *
 * Every rank has its own communicator and talks over real sockets and shared memory; only the
 * process is shared. CUnit's assertions are not for several threads, so bodies use RANK_CHECK,
 * which notes the first failure of a rank for ranks_run() to return.                        */
#ifndef TESTS_COMM_RANKS_H
#define TESTS_COMM_RANKS_H

#include "net/comm/comm.h"

/* Knobs are separated by blanks; "2:transport=tcp" is for rank 2 alone. Returns the first rank's failure, in rank
 * order, with its sentence; GT_OK if all bodies ended well and all communicators closed. */
gt_status ranks_run(int size, const char *knobs, gt_status (*body)(net_comm *c, void *context), void *context);

/* Like it, and gives every rank's status and sentence (arrays of `size`, may be NULL). */
typedef struct ranks_result {
    gt_status status;
    char sentence[1024];
} ranks_result;
void ranks_run_each(int size, const char *knobs, gt_status (*body)(net_comm *c, void *context), void *context,
                    ranks_result *results);

/* Leaves a body that found something wrong. */
#define RANK_CHECK(condition) \
    do { \
        if (!(condition)) \
            return gt_fail(GT_MISMATCH, "%s:%d: %s does not hold", __FILE__, __LINE__, #condition); \
    } while (0)
#define RANK_OK(call) \
    do { \
        const gt_status rank_status = (call); \
        if (rank_status) \
            return rank_status; \
    } while (0)

#endif
