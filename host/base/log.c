/* SPDX-License-Identifier: MIT */
/* host/base/log.c - one line a message, written with one write() so that ranks and
 * threads never mix within a line. GT_LOG is read once, at the first message.           */
#include "host/base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_ROOMS 16
#define LINE_BYTES 9216

static const char *const level_names[] = { "error", "warn", "info", "debug", "trace" };

static struct {
    int level;                      /* rooms that are not listed below */
    int rooms;
    struct {
        char name[24];
        int level;
    } room[MAX_ROOMS];
} config;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static atomic_int log_rank = -1;
static atomic_uint warnings;
static void (*_Atomic before)(void);
static void (*through)(const char *line, size_t size);

static int parse_level(const char *text, size_t length)
{
    for (int i = GT_LOG_ERROR; i <= GT_LOG_TRACE; i++)
        if (strlen(level_names[i]) == length && !strncmp(text, level_names[i], length))
            return i;
    return -1;
}

static void read_config(void)
{
    config.level = GT_LOG_WARN;
    const char *text = getenv("GT_LOG");
    while (text && *text) {
        size_t length = strcspn(text, ",");
        const char *colon = memchr(text, ':', length);
        if (!colon) {
            int level = parse_level(text, length);
            if (level >= 0)
                config.level = level;
        } else if (config.rooms < MAX_ROOMS) {
            size_t name = (size_t)(colon - text);
            int level = parse_level(colon + 1, length - name - 1);
            if (level >= 0 && name < sizeof config.room[0].name) {
                memcpy(config.room[config.rooms].name, text, name);
                config.room[config.rooms++].level = level;
            }
        }
        text += length;
        text += *text == ',';
    }
}

int gt_log_on(gt_log_level level, const char *room)
{
    pthread_once(&once, read_config);
    int limit = config.level;
    for (int i = 0; i < config.rooms; i++)
        if (!strcmp(config.room[i].name, room))
            limit = config.room[i].level;
    return (int)level <= limit;
}

void gt_log(gt_log_level level, const char *room, const char *format, ...)
{
    if (level <= GT_LOG_WARN)
        atomic_fetch_add(&warnings, 1);
    if (!gt_log_on(level, room))
        return;
    char line[LINE_BYTES];
    int rank = atomic_load(&log_rank);
    int n = rank >= 0 ? snprintf(line, sizeof line, "geartrain: [%d %s] ", rank, room)
                      : snprintf(line, sizeof line, "geartrain: [%s] ", room);
    if (n < 0)
        return;
    if (level <= GT_LOG_WARN)
        n += snprintf(line + n, sizeof line - (size_t)n, "%s: ", level == GT_LOG_WARN ? "warning" : "error");
    va_list args;
    va_start(args, format);
    int m = vsnprintf(line + n, sizeof line - (size_t)n, format, args);
    va_end(args);
    size_t length = (size_t)n + (m < 0 ? 0 : (size_t)m);
    if (length > sizeof line - 2)
        length = sizeof line - 2;
    line[length++] = '\n';
    void (*hook)(void) = atomic_load(&before);
    if (hook)
        hook();
    if (through)
        through(line, length);
    else if (write(STDERR_FILENO, line, length) < 0)
        return;                     /* nowhere left to say so */
}

void gt_log_before(void (*hook)(void))
{
    atomic_store(&before, hook);
}

void gt_log_through(void (*print)(const char *line, size_t size))
{
    through = print;
}

void gt_log_rank(int rank)
{
    atomic_store(&log_rank, rank);
}

unsigned gt_log_warnings(void)
{
    return atomic_load(&warnings);
}
