/* SPDX-License-Identifier: MIT */
/* host/cli/limits.c - stack and address space.
 *
 * Threads that do not ask for a size get that of `ulimit -s`. Drivers start such threads and run
 * kernels on them, whose frames are large and step over a guard page without touching it: a small
 * stack is then no crash but another thread's memory written over. So the size is set here.
 *
 * OpenBLAS takes BUFFER for each of its threads before main begins, and tries for ever where there
 * is no room. */
#include "host/cli/limits.h"

#include "host/base/text.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define MiB (UINT64_C(1) << 20)
#define STACK (8 * MiB)                 /* what Linux gives by default                       */
#define LEAST_STACK (1 * MiB)
#define PROGRAM (256 * MiB)             /* libraries, a compiler, and some room to work in    */
#define BUFFER (128 * MiB)              /* OpenBLAS's                                        */
#define THREAD (64 * MiB + STACK)       /* a driver's: malloc's arena, and the stack         */

static gt_status settle_stack(void)
{
    struct rlimit limit;
    char has[32], needs[32];
    pthread_attr_t attributes;
    if (!pthread_attr_init(&attributes)) {
        if (!pthread_attr_setstacksize(&attributes, STACK))
            pthread_setattr_default_np(&attributes);
        pthread_attr_destroy(&attributes);
    }
    if (getrlimit(RLIMIT_STACK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= STACK)
        return GT_OK;
    limit.rlim_cur = limit.rlim_max == RLIM_INFINITY || limit.rlim_max > STACK ? STACK : limit.rlim_max;
    setrlimit(RLIMIT_STACK, &limit);
    return limit.rlim_cur >= LEAST_STACK
               ? GT_OK
               : gt_fail(GT_NO_MEMORY,
                         "the stack may not grow beyond %s here (ulimit -s), and compilers "
                         "inside OpenCL drivers need %s; raise it with `ulimit -s 8192`",
                         gt_format_size(has, sizeof has, limit.rlim_cur),
                         gt_format_size(needs, sizeof needs, LEAST_STACK));
}

static uint64_t cores(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? (uint64_t)CPU_COUNT(&set) : 1;
}

/* As many as OpenBLAS starts. */
static uint64_t blas_threads(void)
{
    static const char *const names[] = { "OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS" };
    uint64_t n;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);
        if (value && !gt_parse_u64(&n, value) && n)
            return n < cores() ? n : cores();
    }
    return cores();
}

static gt_status check_address_space(void)
{
    struct rlimit limit;
    char has[32], needs[32];
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return GT_OK;
    const uint64_t need = PROGRAM + (blas_threads() + 1) * BUFFER + cores() * THREAD;
    if (limit.rlim_cur >= need)
        return GT_OK;
    return gt_fail(GT_NO_MEMORY,
                   "this process may use %s of address space (ulimit -v), and its libraries need "
                   "%s; raise it with `ulimit -v unlimited`, or need less with OPENBLAS_NUM_THREADS=1",
                   gt_format_bytes(has, sizeof has, limit.rlim_cur), gt_format_bytes(needs, sizeof needs, need));
}

gt_status cli_limits_settle(void)
{
    const gt_status st = settle_stack();
    return st ? st : check_address_space();
}

const char *cli_limits_hint(char *out, size_t size, gt_status st)
{
    struct rlimit limit;
    char has[32];
    *out = '\0';
    if ((st == GT_NO_MEMORY || st == GT_DEVICE || st == GT_BUILD
         || (st == GT_NOT_FOUND && strstr(gt_message(), "OpenCL")))
        && getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        snprintf(out, size, "; this shell allows %s of address space (ulimit -v), in which drivers may fail",
                 gt_format_bytes(has, sizeof has, limit.rlim_cur));
    return out;
}
