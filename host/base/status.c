/* SPDX-License-Identifier: MIT */
/* host/base/status.c - the per-thread sentence of the last failure.
 *
 * The sentence lives in a fixed thread-local array: reporting "out of memory" must not
 * need memory. A compiler log fits too; what is longer is cut at the end.               */
#include "host/base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[GT_MESSAGE_BYTES];

gt_status(gt_fail)(gt_status code, const char *format, ...)
{
    char text[GT_MESSAGE_BYTES];       /* an argument may be gt_message() itself */
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(message, text, sizeof message);
    return code;
}

gt_status(gt_fail_in)(gt_status code, const char *format, ...)
{
    char text[GT_MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t used = n < 0 ? 0 : (size_t)n < sizeof text - 3 ? (size_t)n : sizeof text - 3;
    text[used++] = ':';
    text[used++] = ' ';
    memcpy(text + used, message, sizeof text - used);
    text[sizeof text - 1] = '\0';
    memcpy(message, text, sizeof message);
    return code;
}

const char *gt_message(void)
{
    return message;
}

void gt_message_clear(void)
{
    message[0] = '\0';
}

void gt_message_save(gt_saved_message *out)
{
    memcpy(out->text, message, sizeof message);
}

void gt_message_restore(const gt_saved_message *saved)
{
    memcpy(message, saved->text, sizeof message);
}

const char *gt_status_name(gt_status code)
{
    static const char *const names[GT_STATUS_COUNT] = {
        [GT_OK] = "ok",
        [GT_MISUSE] = "misuse",
        [GT_NOT_FOUND] = "not found",
        [GT_IO] = "io",
        [GT_FORMAT] = "format",
        [GT_MISMATCH] = "mismatch",
        [GT_UNSUPPORTED] = "unsupported",
        [GT_NO_MEMORY] = "no memory",
        [GT_NUMERIC] = "numeric",
        [GT_INTERRUPTED] = "interrupted",
        [GT_BUILD] = "build",
        [GT_DEVICE] = "device",
        [GT_LOST] = "lost device",
        [GT_TIMEOUT] = "timeout",
        [GT_PEER] = "peer",
    };
    return (unsigned)code < GT_STATUS_COUNT ? names[code] : "unknown";
}
