/* SPDX-License-Identifier: MIT */
/* host/sync/servers.h - which ranks update the parameters that others send gradients for: --servers.
 *
 *   all            every rank that holds a parameter, in proportion to its links
 *   0              rank 0: one rank holds what is updated, the others compute from it
 *   0,2            two of them, in proportion to their links
 *   0:3,2:1        in proportion to these numbers, whatever the links are: a run repeats to the bit
 */
#ifndef GT_SYNC_SERVERS_H
#define GT_SYNC_SERVERS_H

#include "host/sync/holders.h"
#include "host/sync/settings.h"

/* The row of a mode that has servers. */
#define SYNC_SERVERS_ROW \
    { .name = "servers", \
      .value = "LIST", \
      .help = "ranks that update, as 0,2 or 0:3,2:1; or all", \
      .kind = SYNC_TEXT, \
      .word = "all" }

/* Whether they compute a replica too. A rank that only serves is a replica of no sequences: it holds everything. */
#define SYNC_SERVERS_TRAIN_ROW \
    { .name = "servers-train", \
      .value = "yes|no", \
      .help = "no: those of --servers compute no replica", \
      .kind = SYNC_CHOICE, \
      .word = "yes" }

/* GT_MISUSE if it is no such list, or names a rank that is not there; ranks 0: not known. If servers do not train, also
 * if nobody is left that does. */
gt_status sync_servers_check(const char *word, const char *train, int ranks);
/* 1 if the rank is one of the list's, and those only serve. */
int sync_servers_only(const char *word, const char *train, int rank);
/* The largest share that one of so many ranks which hold a parameter and compute serves; of a list, those it names are
 * taken to hold it. */
double sync_servers_share(const char *word, const char *train, int holders);
/* Parts of every group's segments (sync_holders_part) as the list says. All ranks; measures links. GT_UNSUPPORTED,
 * the same on all ranks, if none of the servers holds some parameter that others share. */
gt_status sync_servers_settle(sync_holders *h, const char *word);

#endif
