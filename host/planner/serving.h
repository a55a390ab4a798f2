/* SPDX-License-Identifier: MIT */
/* host/planner/serving.h - plans in which some ranks only serve: --servers 2 --servers-train no.
 *
 *   ranks 0 1 2    those that train, 0 and 1     searched as if there were no others
 *                  those that serve, 2           a replica of no sequences each, behind them
 */
#ifndef GT_PLANNER_SERVING_H
#define GT_PLANNER_SERVING_H

#include "host/planner/local_search.h"

/* How many of the ranks only serve under these settings; sync, settings: as in a job. */
int serving_count(const char *sync, const sync_settings *settings, int ranks);

/* GT_MISUSE if some only serve and `tensor` ranks split layers, which servers do not. */
gt_status serving_check(const char *sync, const sync_settings *settings, int ranks, int tensor);

/* local_search() among the ranks that train, if some only serve; parameters and frozen bytes: of the whole model, which
 * a server holds. */
gt_status serving_search(local_choice *out, const local_job *job, double parameters, double frozen);

#endif
