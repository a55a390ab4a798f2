/* SPDX-License-Identifier: MIT */
/* net/job/hostlist.h - Slurm's short forms: lists of hosts, tasks per node. Pure.
 *
 *   "gpu[01-03,7],login"        gpu01 gpu02 gpu03 gpu7 login
 *   "r[1-2]n[1-2]"              r1n1 r1n2 r2n1 r2n2
 *   "2(x3),1"                   2 2 2 1                                                   */
#ifndef NET_JOB_HOSTLIST_H
#define NET_JOB_HOSTLIST_H

#include "host/base/status.h"

#include <stdint.h>

/* The host at `index`, counted from 0, into out. GT_NOT_FOUND behind the end, GT_FORMAT for
 * what is no such list. */
gt_status net_hostlist_get(char *out, size_t size, const char *list, uint64_t index);

/* The number at `index` of "2(x3),1". */
gt_status net_tasks_get(int *out, const char *list, uint64_t index);

/* A line of a hosts file: "nodeA slots=4", "nodeA:4", "user@nodeB", "fd00::7", "# ...". *slots is 1 if not said, and 0
 * for a line that names no host. GT_FORMAT for anything else. */
gt_status net_hosts_line(char *host, size_t size, int *slots, const char *line);

#endif
