/* SPDX-License-Identifier: MIT */
/* host/base/status.h - how a call says that it failed, and why.
 *
 * Every fallible call returns a gt_status; GT_OK is 0. The first function that *knows*
 * what went wrong calls gt_fail() with one sentence; callers only forward the code, or
 * put what they were doing in front of it with gt_fail_in(). The program prints the
 * sentence once, at the very top. No library call prints or exits.
 *
 * A sentence is lower case, has no full stop, says what failed first, quotes its subject,
 * and ends with what the user can do:
 *   cannot open token file 'x.bin': No such file or directory
 *
 * Codes are grouped by the largest thing that is now unusable.
 * Threads: the message belongs to the calling thread.                                   */
#ifndef GT_BASE_STATUS_H
#define GT_BASE_STATUS_H

#include <stddef.h>

typedef enum gt_status {
    GT_OK = 0,
    /* only this call */
    GT_MISUSE,        /* a wrong option or argument from the user                  */
    GT_NOT_FOUND,     /* a file, device, tensor or name that is not there          */
    GT_IO,            /* the operating system refused to read or write             */
    GT_FORMAT,        /* a file is truncated, corrupt, or of another kind          */
    GT_MISMATCH,      /* two well-formed things that do not fit together           */
    GT_UNSUPPORTED,   /* this device or build cannot do it                         */
    GT_NO_MEMORY,     /* host or device memory                                     */
    GT_NUMERIC,       /* a loss, weight or gradient is not finite                  */
    GT_INTERRUPTED,   /* the user asked to stop                                    */
    /* the device and everything on it */
    GT_BUILD,         /* a kernel does not compile; the message holds the log      */
    GT_DEVICE,        /* an OpenCL call failed                                     */
    GT_LOST,          /* the driver gave the device up; another process may have it again */
    /* the job */
    GT_TIMEOUT,
    GT_PEER,          /* another rank is gone                                      */
    GT_STATUS_COUNT
} gt_status;

/* Records the sentence for this thread and returns `code`. */
gt_status gt_fail(gt_status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "<context>: " in front of the sentence already recorded; returns `code`. */
gt_status gt_fail_in(gt_status code, const char *format, ...) __attribute__((format(printf, 2, 3)));
#ifdef __clang_analyzer__       /* sees one file at a time, and so not what these return */
#define gt_fail(code, ...) ((void)gt_fail(code, __VA_ARGS__), (code))
#define gt_fail_in(code, ...) ((void)gt_fail_in(code, __VA_ARGS__), (code))
#endif

/* The sentence of this thread's last failure; "" if there was none. Never NULL. */
const char *gt_message(void);
void gt_message_clear(void);

/* A sentence set aside while something else is done that may fail too: closing, telling others. Also from
 * one thread to another. */
enum { GT_MESSAGE_BYTES = 8192 };
typedef struct gt_saved_message {
    char text[GT_MESSAGE_BYTES];
} gt_saved_message;
void gt_message_save(gt_saved_message *out);
void gt_message_restore(const gt_saved_message *saved);

/* "not found", "io", ... */
const char *gt_status_name(gt_status code);

#endif
