/* SPDX-License-Identifier: MIT */
/* host/base/clock.h - time. */
#ifndef GT_BASE_CLOCK_H
#define GT_BASE_CLOCK_H

#include <stdint.h>

uint64_t gt_now_ns(void);               /* monotonic; only differences mean something */
double gt_wall_seconds(void);         /* since 1970, for files that people read     */
void gt_sleep_ns(uint64_t duration);/* sleeps all of it, signals or not           */

#endif
