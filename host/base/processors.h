/* SPDX-License-Identifier: MIT */
/* host/base/processors.h - a process that keeps to a part of the machine's processors. */
#ifndef GT_BASE_PROCESSORS_H
#define GT_BASE_PROCESSORS_H

/* Of the processors that this process may run on, in the order of their numbers, its threads keep to `count` from
 * number `first` on (counted from 0), those that it has and those that it will start. Returns 1; 0, and nothing has
 * changed, if there are fewer than `all` of them, or the system has no such thing. */
int gt_processors_keep(int first, int count, int all);

#endif
