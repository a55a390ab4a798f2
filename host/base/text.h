/* SPDX-License-Identifier: MIT */
/* host/base/text.h - growing strings, and numbers with units as people write them. */
#ifndef GT_BASE_TEXT_H
#define GT_BASE_TEXT_H

#include "host/base/status.h"

#include <stdarg.h>
#include <stdint.h>

/* A growing string; zero-initialise it. `data` is NUL-terminated or NULL when empty. An
 * allocation that fails sets `failed` and later calls do nothing, so check once. */
typedef struct gt_text {
    char *data;
    size_t size, room;
    int failed;
} gt_text;

void gt_text_put(gt_text *t, const void *data, size_t size);
void gt_text_printf(gt_text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void gt_text_release(gt_text *t);

/* "64KiB", "64K", "1.5GB", "4096" -> bytes. As dd, nccl-tests and perftest read them: K M G T and
 * KiB MiB GiB TiB are powers of 1024, kB MB GB TB of 1000. GT_MISUSE with a sentence otherwise. */
gt_status gt_parse_bytes(uint64_t *out, const char *text);
/* "30s", "5m", "2h", "150ms", "1.5" (seconds) -> nanoseconds. */
gt_status gt_parse_duration(uint64_t *out, const char *text);
/* The whole text is one number, or GT_MISUSE. */
gt_status gt_parse_u64(uint64_t *out, const char *text);
gt_status gt_parse_double(double *out, const char *text);

/* "1.2 GB", "35.0 MB", "12 B" (powers of 1000) into out; returns out. */
char *gt_format_bytes(char *out, size_t size, uint64_t bytes);
/* "1MiB", "1000": exactly, as gt_parse_bytes() reads it back; returns out. */
char *gt_format_size(char *out, size_t size, uint64_t bytes);
/* "1:02:03", "4:05" from seconds. */
char *gt_format_duration(char *out, size_t size, double seconds);
/* "124.4M", "1.56B", "512" from a count. */
char *gt_format_count(char *out, size_t size, double count);

#endif
