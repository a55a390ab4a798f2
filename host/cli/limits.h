/* SPDX-License-Identifier: MIT */
/* host/cli/limits.h - limits of the shell (ulimit) under which libraries hang or crash. */
#ifndef GT_CLI_LIMITS_H
#define GT_CLI_LIMITS_H

#include "host/base/status.h"

#include <stddef.h>

/* Early in main, before drivers start threads. Gives those a stack of their own size. Fails
 * with a sentence where the stack (-s) or the address space (-v) is too small for this program and its libraries: to be
 * followed by _exit(), for OpenBLAS waits at exit for threads that wait for memory. */
gt_status cli_limits_settle(void);

/* What may stand behind a failure for want of memory or of a device: "; this shell allows ..." where the
 * address space is limited, else "". */
const char *cli_limits_hint(char *out, size_t size, gt_status st);

#endif
