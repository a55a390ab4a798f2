/* SPDX-License-Identifier: MIT */
/* host/cli/rank_device.c - which device a rank drives. In an elastic job that is its process's for as long as it
 * lives, whatever rank it becomes. */
#include "host/cli/rank_device.h"

#include "host/base/log.h"
#include "host/base/processors.h"
#include "net/job/elastic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- devices ----------------------------------------------------------------------------------- */

gt_status rank_device_count(const char *devices, uint64_t *ranks)
{
    char **specs;
    int count;
    if (!devices)
        return GT_OK;
    gt_status st = dev_specs(&specs, &count, devices);
    if (st)
        return st;
    dev_specs_free(specs, count);
    if (*ranks && count > 1 && *ranks != (uint64_t)count)
        return gt_fail(GT_MISUSE, "--devices names %d devices, --ranks asks for %llu ranks", count,
                       (unsigned long long)*ranks);
    if (count > 1)
        *ranks = (uint64_t)count;
    return GT_OK;
}

/* Without a list: the n-th GPU if there are enough, else an n-th of the CPU, or all of it where it
 * has fewer units than ranks. Devices that compute wrongly do not count, unless all do: then opening
 * one says why. */
static gt_status own_device(char *out, size_t size, int place, int places)
{
    dev_info *all;
    int count, gpus = 0, cpu = -1, mine = -1;
    gt_status st = dev_find(&all, &count);
    if (st)
        return st;
    for (int i = 0; i < count; i++) {
        if (count > 1 && dev_usable(&all[i])) {
            gt_log(GT_LOG_WARN, "device", "%s is passed over: %s", all[i].id, gt_message());
            gt_message_clear();
            continue;
        }
        if (all[i].kind == DEV_GPU && gpus++ == place)
            mine = i;
        if (all[i].kind == DEV_CPU && cpu < 0)
            cpu = i;
    }
    if (gpus >= places)
        snprintf(out, size, "%s", all[mine].id);
    else if (cpu >= 0 && all[cpu].compute_units >= places)
        snprintf(out, size, "%.31s.%d/%d", all[cpu].id, place, places);
    else
        snprintf(out, size, "%s", cpu >= 0 ? all[cpu].id : "gpu:0");
    free(all);
    return GT_OK;
}

/* Ranks that have a processor's parts compute in as many threads together as there are processors. But a driver, oneDNN
 * and the pools of products each have threads of their own, which wait for each other in turn, and a thread that is
 * woken while its last processor computes for another rank waits there for milliseconds, and its own one with it. */
static void keep_to_part(const dev_info *d)
{
    if (d->kind != DEV_CPU || !d->parts)
        return;
    const int units = d->compute_units;
    if (gt_processors_keep(d->part * units, units, d->parts * units))
        gt_log(GT_LOG_DEBUG, "device", "%s: keeps to its part of the processors, number %d of %d", d->id, d->part,
               d->parts);
}

gt_status rank_device_open(dev_device **out, const char *devices, net_comm *c)
{
    int places, place = net_elastic_place(&places);
    if (!c && place < 0)
        return dev_open(out, devices);
    const net_member *me = c ? net_job_member(net_comm_job(c), net_comm_rank(c)) : NULL;
    char own[64], **specs = NULL;
    int count = 0;
    gt_status st = devices ? dev_specs(&specs, &count, devices) : GT_OK;
    if (place < 0) {
        place = me->local_rank;
        places = me->local_size;
    }
    const char *spec = devices && !st ? specs[place % count] : own;
    if (!st && count > 1 && places > count)
        st = gt_fail(GT_MISUSE, "%d ranks on host %s share --devices '%s'; name as many", places,
                     me ? me->host : "this one", devices);
    if (!st && !devices)
        st = places > 1 ? own_device(own, sizeof own, place, places) : GT_OK;
    if (!st)
        st = dev_open(out, !devices && places == 1 ? NULL : spec);
    if (!st && places > 1)
        keep_to_part(dev_info_of(*out));
    dev_specs_free(specs, count);
    return st;
}
