/* SPDX-License-Identifier: MIT */
/* host/base/clock.c - monotonic and wall time from clock_gettime. */
#include "host/base/clock.h"

#include <errno.h>
#include <time.h>

uint64_t gt_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

double gt_wall_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void gt_sleep_ns(uint64_t duration)
{
    struct timespec t = { .tv_sec = (time_t)(duration / 1000000000u), .tv_nsec = (long)(duration % 1000000000u) };
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &t) == EINTR)
        ;
}
