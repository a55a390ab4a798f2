/* SPDX-License-Identifier: MIT */
/* tests/collective/test_endurance.c - hundreds of thousands of small operations: sums stay right,
 * and neither memory nor descriptors grow. */
#include "net/collective/collective.h"
#include "tests/check.h"
#include "tests/comm/ranks.h"

#include <dirent.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static long resident_kib(void)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%*s %ld", &pages) != 1)
        pages = 0;
    if (f)
        fclose(f);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static int descriptors(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

typedef struct marathon {
    int operations;
    atomic_long kib;
    atomic_int fds;
} marathon;

static gt_status lap(net_group *g, int i)
{
    const int rank = net_group_rank(g), size = net_group_size(g);
    int32_t x[97];
    const uint64_t n = 1 + (uint64_t)(i % 97);
    net_collective *started;
    for (uint64_t k = 0; k < n; k++)
        x[k] = rank + i;
    switch (i % 8) {
    case 0:
        RANK_OK(net_broadcast(g, x, n, NET_I32, i % size, NULL));
        RANK_CHECK(x[n - 1] == i % size + i);
        return GT_OK;
    case 1: return net_barrier(g);
    case 2:
        RANK_OK(net_all_reduce_start(g, x, n, NET_I32, NULL, &started));
        RANK_OK(net_collective_wait(started));
        break;
    case 3:
        RANK_OK(net_reduce_scatter(g, x, n, NULL, NET_I32, NULL));
        RANK_OK(net_all_gather(g, x, n, NULL, NET_I32, NULL));
        break;
    default: RANK_OK(net_all_reduce(g, x, n, NET_I32, NULL));
    }
    for (uint64_t k = 0; k < n; k++)
        RANK_CHECK(x[k] == size * i + size * (size - 1) / 2);
    return GT_OK;
}

static gt_status marathon_body(net_comm *c, void *context)
{
    marathon *m = context;
    net_group *g = net_group_world(c);
    const int warm = m->operations / 10;
    for (int i = 0; i < m->operations; i++) {
        RANK_OK(lap(g, i));
        if (i != warm)
            continue;
        RANK_OK(net_barrier(g));
        if (net_group_rank(g) == 0) {
            atomic_store(&m->kib, resident_kib());
            atomic_store(&m->fds, descriptors());
        }
    }
    RANK_OK(net_barrier(g));
    if (net_group_rank(g) == 0) {
        const long more = resident_kib() - atomic_load(&m->kib);
        const int opened = descriptors() - atomic_load(&m->fds);
        if (more > 8192 || opened > 2)
            return gt_fail(GT_MISMATCH, "%ld KiB and %d descriptors more after %d operations", more, opened,
                           m->operations);
    }
    return net_barrier(g);
}

static void small_operations_leave_nothing_behind(void)
{
    marathon two = { .operations = 200000 }, three = { .operations = 40000 }, over_tcp = { .operations = 40000 };
    CHECK_OK(ranks_run(2, "transport=shm", marathon_body, &two));
    CHECK_OK(ranks_run(3, "transport=shm", marathon_body, &three));
    CHECK_OK(ranks_run(2, "transport=tcp", marathon_body, &over_tcp));
}

static gt_status groups_body(net_comm *c, void *context)
{
    marathon *m = context;
    int all[4];
    for (int i = 0; i < net_comm_size(c); i++)
        all[i] = i;
    for (int i = 0; i < m->operations; i++) {
        net_group *g;
        float x[33] = { 1.0f };
        const net_collective_options ring = { .algorithm = "ring" };
        net_collective *started;
        RANK_OK(net_group_create(&g, c, all, net_comm_size(c)));
        RANK_OK(net_all_reduce_start(g, x, 33, NET_F32, &ring, &started));
        RANK_OK(net_collective_wait(started));
        RANK_CHECK(x[0] == (float)net_comm_size(c));
        RANK_OK(net_barrier(g));
        net_group_release(g);
        if (i == m->operations / 10 && net_comm_rank(c) == 0)
            atomic_store(&m->kib, resident_kib());
    }
    if (net_comm_rank(c) == 0 && resident_kib() - atomic_load(&m->kib) > 8192)
        return gt_fail(GT_MISMATCH, "%ld KiB more after %d groups", resident_kib() - atomic_load(&m->kib),
                       m->operations);
    return GT_OK;
}

static void groups_come_and_go(void)
{
    marathon m = { .operations = 2000 };
    CHECK_OK(ranks_run(2, "transport=shm", groups_body, &m));
}

const check_case check_cases[] = { CASE(small_operations_leave_nothing_behind), CASE(groups_come_and_go), { 0 } };
