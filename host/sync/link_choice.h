/* SPDX-License-Identifier: MIT */
/* host/sync/link_choice.h - of several forms in which something may travel, the one for each link.
 *
 *   link         ranks between which something travels, numbered alike on all ranks
 *   candidates   the first: as it is
 *   expected     seconds of a step, of the link and of its devices; as if nothing else went on meanwhile
 *   chosen       the fastest; of those within 5 % of it the one that comes first, so that nothing is rounded for little
 *
 * The first rank of a link decides and tells all, so that no two differ. What a run before had is taken if that is
 * known of every link. What links and forms are is the caller's concern: groups that add up gradients
 * (compress_choice.h), or neighbours in a pipeline (host/pipeline/stage_choice.h). */
#ifndef GT_SYNC_LINK_CHOICE_H
#define GT_SYNC_LINK_CHOICE_H

#include "host/sync/sync.h"
#include "net/comm/comm.h"

enum { SYNC_CANDIDATES = 8 };

typedef struct sync_expected {
    double network, device;             /* seconds a step                                      */
} sync_expected;

/* Which of `count` is chosen. */
int sync_link_choose(const sync_expected *e, int count);

typedef struct sync_link {
    int group, ranks;                   /* its number; how many they are                       */
    const int *rank;                    /* [ranks], the caller's                               */
    char form[SYNC_NAMES];
    int choice;                         /* of the candidates; -1: it was known before          */
    double values;                      /* of a step                                           */
    sync_expected expected[SYNC_CANDIDATES];
} sync_link;

typedef struct sync_link_question {
    const char *what;                   /* "compressors": of the candidates, for sentences     */
    net_comm *comm;
    int groups, candidates;
    const char (*text)[SYNC_NAMES];     /* [candidates]                                        */
    void *context;
    const int *(*members)(void *context, int group, int *ranks);   /* of all links, on all ranks  */
    int (*travels)(void *context, int group);       /* 1: this rank is one of it, and something does travel */
    /* All ranks together, before judge(). */
    gt_status (*measure)(void *context);
    /* The ranks of a link together. expected: [candidates]. */
    gt_status (*judge)(void *context, int group, sync_expected *expected, double *values);
    /* The form that a run before had of a link; NULL: none that can be had now. */
    const char *(*known)(void *context, int group);
} sync_link_question;

/* All ranks. link: room for q->groups. */
gt_status sync_links_settle(sync_link *link, int *links, const sync_link_question *q);
/* Everybody's `size` bytes at all[rank * size]; `what` as above. */
gt_status sync_link_rates(net_comm *c, const char *what, const void *mine, size_t size, void *all);
/* "ranks 0 1: int8, 12.1 ms a step instead of 41.8 (network 10.9, device 1.2); bf16 22.0" */
void sync_link_text(const sync_link *l, const char (*text)[SYNC_NAMES], int candidates, char *out, size_t size);

#endif
