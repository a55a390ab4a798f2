/* SPDX-License-Identifier: MIT */
/* host/cli/run_starts.h - does a run belong to the job that now starts again?
 *
 * RUN/starts.json says which start of which job worked on the run last (net/job/starts.h). A later
 * start of the same job goes on by itself; any other needs --resume. */
#ifndef GT_CLI_RUN_STARTS_H
#define GT_CLI_RUN_STARTS_H

#include "host/base/status.h"

/* 1: an earlier start of this job worked on the run. */
int run_starts_again(const char *run);
/* Writes, or removes where no launcher could start this process again. */
gt_status run_starts_write(const char *run);

#endif
