/* SPDX-License-Identifier: MIT */
/* host/base/processors.c - a process that keeps to a part of the machine's processors.
 *
 *   processors that the process may run on     0  1  2  3  6  7
 *   gt_processors_keep(4, 2, 6)                            6  7
 *
 * A new thread inherits what its maker has, but a driver's threads begin before anybody knows which part of its device
 * is wanted: every thread that there is is told by itself. One that ends meanwhile needs nothing more. */
#include "host/base/processors.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

static int part_of(cpu_set_t *part, int first, int count, int all)
{
    cpu_set_t may;
    CPU_ZERO(part);
    if (first < 0 || count < 1 || first + count > all || sched_getaffinity(0, sizeof may, &may)
        || CPU_COUNT(&may) < all)
        return 0;
    for (size_t cpu = 0, n = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &may)) {
            if (n >= (size_t)first && n < (size_t)first + (size_t)count)
                CPU_SET(cpu, part);
            n++;
        }
    return 1;
}

int gt_processors_keep(int first, int count, int all)
{
    cpu_set_t part;
    DIR *threads = part_of(&part, first, count, all) ? opendir("/proc/self/task") : NULL;
    int kept = threads != NULL;
    for (const struct dirent *e; threads && (e = readdir(threads));) {
        const int thread = atoi(e->d_name);
        if (thread > 0 && sched_setaffinity(thread, sizeof part, &part) && errno != ESRCH)
            kept = 0;
    }
    if (threads)
        closedir(threads);
    return kept;
}
