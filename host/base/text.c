/* SPDX-License-Identifier: MIT */
/* host/base/text.c - growing strings; numbers with units, both ways. */
#include "host/base/text.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int text_grow(gt_text *t, size_t more)
{
    if (t->failed)
        return 0;
    if (t->size + more + 1 <= t->room)
        return 1;
    size_t room = t->room ? t->room : 64;
    while (room < t->size + more + 1)
        room *= 2;
    char *data = realloc(t->data, room);
    if (!data) {
        t->failed = 1;
        return 0;
    }
    t->data = data;
    t->room = room;
    return 1;
}

void gt_text_put(gt_text *t, const void *data, size_t size)
{
    if (!text_grow(t, size))
        return;
    if (size)
        memcpy(t->data + t->size, data, size);
    t->size += size;
    t->data[t->size] = '\0';
}

void gt_text_printf(gt_text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0 || !text_grow(t, (size_t)n))
        return;
    va_start(args, format);
    vsnprintf(t->data + t->size, (size_t)n + 1, format, args);
    va_end(args);
    t->size += (size_t)n;
}

void gt_text_release(gt_text *t)
{
    free(t->data);
    memset(t, 0, sizeof *t);
}

gt_status gt_parse_double(double *out, const char *text)
{
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || *end || errno == ERANGE || !isfinite(value))
        return gt_fail(GT_MISUSE, "'%s' is not a number", text);
    *out = value;
    return GT_OK;
}

gt_status gt_parse_u64(uint64_t *out, const char *text)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (end == text || *end || errno == ERANGE || text[0] < '0' || text[0] > '9')
        return gt_fail(GT_MISUSE, "'%s' is not a whole number of 0 or more", text);
    *out = value;
    return GT_OK;
}

typedef struct unit {
    const char *name;
    double scale;
} unit;

/* A number followed by one of `units`. */
static int parse_scaled(double *out, const char *text, const unit *units)
{
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || errno == ERANGE || !isfinite(value) || value < 0.0)
        return 0;
    for (; units->name; units++)
        if (!strcmp(end, units->name)) {
            *out = value * units->scale;
            return *out < 0x1p63;
        }
    return 0;
}

gt_status gt_parse_bytes(uint64_t *out, const char *text)
{
    static const unit units[] = {
        { "", 1 },       { "B", 1 },      { "K", 0x1p10 },  { "k", 0x1p10 },   { "Ki", 0x1p10 },  { "KiB", 0x1p10 },
        { "KB", 1e3 },   { "kB", 1e3 },   { "M", 0x1p20 },  { "m", 0x1p20 },   { "Mi", 0x1p20 },  { "MiB", 0x1p20 },
        { "MB", 1e6 },   { "G", 0x1p30 }, { "g", 0x1p30 },  { "Gi", 0x1p30 },  { "GiB", 0x1p30 }, { "GB", 1e9 },
        { "T", 0x1p40 }, { "t", 0x1p40 }, { "Ti", 0x1p40 }, { "TiB", 0x1p40 }, { "TB", 1e12 },    { NULL, 0 },
    };
    double value;
    if (!parse_scaled(&value, text, units))
        return gt_fail(GT_MISUSE, "'%s' is not a size such as 64KiB, 1.5GB or 4096", text);
    *out = (uint64_t)value;
    return GT_OK;
}

char *gt_format_size(char *out, size_t size, uint64_t bytes)
{
    static const char *const units[] = { "", "KiB", "MiB", "GiB", "TiB" };
    int i = 0;
    while (bytes && bytes % 1024 == 0 && i < 4) {
        bytes /= 1024;
        i++;
    }
    snprintf(out, size, "%llu%s", (unsigned long long)bytes, units[i]);
    return out;
}

gt_status gt_parse_duration(uint64_t *out, const char *text)
{
    static const unit units[] = {
        { "", 1e9 },   { "s", 1e9 },    { "ms", 1e6 },   { "us", 1e3 }, { "ns", 1 },
        { "m", 60e9 }, { "min", 60e9 }, { "h", 3600e9 }, { NULL, 0 },
    };
    double value;
    if (!parse_scaled(&value, text, units))
        return gt_fail(GT_MISUSE, "'%s' is not a duration such as 30s, 5m or 150ms", text);
    *out = (uint64_t)value;
    return GT_OK;
}

/* Three significant digits and a prefix: 1.56 with 'B', 35.0 with 'M'. */
static char *format_scaled(char *out, size_t size, double value, const char *const *prefixes, const char *suffix)
{
    int i = 0;
    while (value >= 999.5 && prefixes[i + 1]) {
        value /= 1000.0;
        i++;
    }
    if (i == 0 && value == floor(value))
        snprintf(out, size, "%.0f%s%s", value, prefixes[0], suffix);
    else
        snprintf(out, size, "%.*f%s%s", value < 9.995 ? 2 : value < 99.95 ? 1 : 0, value, prefixes[i], suffix);
    return out;
}

char *gt_format_bytes(char *out, size_t size, uint64_t bytes)
{
    static const char *const prefixes[] = { " ", " k", " M", " G", " T", " P", NULL };
    return format_scaled(out, size, (double)bytes, prefixes, "B");
}

char *gt_format_count(char *out, size_t size, double count)
{
    static const char *const prefixes[] = { "", "k", "M", "B", "T", NULL };
    return format_scaled(out, size, count, prefixes, "");
}

char *gt_format_duration(char *out, size_t size, double seconds)
{
    if (!(seconds >= 0.0) || seconds > 1e9) {
        snprintf(out, size, "?");
        return out;
    }
    unsigned long s = (unsigned long)(seconds + 0.5);
    if (s >= 3600)
        snprintf(out, size, "%lu:%02lu:%02lu", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, size, "%lu:%02lu", s / 60, s % 60);
    return out;
}
