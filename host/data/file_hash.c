/* SPDX-License-Identifier: MIT */
/* host/data/file_hash.c - hashes of large files, kept.
 *
 *   CACHE/hashes/K.txt       K = hash of the path; a file moved elsewhere is read again
 *
 *   geartrain hash 1
 *   DEVICE INODE SIZE MODIFIED CHANGED HASH      times in ns; "changed" moves with every write and cannot be set
 *   SUM                                          hash of the lines before; another one: as if there were no file
 *
 * A file that changed within the last seconds may change again without moving a coarse clock, so it is not kept
 * yet. Small files are read: that is quicker.                                                  */
#include "host/data/file_hash.h"

#include "host/base/file.h"
#include "host/base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { SMALL = 16 << 20, SETTLED_SECONDS = 2, TEXT = 256 };

static uint64_t nanoseconds(const struct timespec *t)
{
    return (uint64_t)t->tv_sec * 1000000000u + (uint64_t)t->tv_nsec;
}

/* What must be the same for a file to be the same. */
static int mark_of(char text[TEXT], const struct stat *s)
{
    return snprintf(text, TEXT, "geartrain hash 1\n%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " ",
                    (uint64_t)s->st_dev, (uint64_t)s->st_ino, (uint64_t)s->st_size, nanoseconds(&s->st_mtim),
                    nanoseconds(&s->st_ctim));
}

static void whole_text(char text[TEXT], const struct stat *s, uint64_t hash)
{
    int n = mark_of(text, s);
    n += snprintf(text + n, (size_t)(TEXT - n), "%016" PRIx64 "\n", hash);
    snprintf(text + n, (size_t)(TEXT - n), "%016" PRIx64 "\n", gt_hash(text, (size_t)n));
}

/* Where the hash of a path is kept; NULL: nowhere. */
static char *place_of(const char *path)
{
    char name[32], *folder = NULL, *whole = gt_path_absolute(path), *place = NULL;
    if (whole && !gt_cache_folder(&folder, "hashes")) {
        snprintf(name, sizeof name, "%016" PRIx64 ".txt", gt_hash(whole, strlen(whole)));
        place = gt_path_join(folder, name);
    }
    gt_message_clear();
    free(folder);
    free(whole);
    return place;
}

static int find_kept(const char *place, const struct stat *s, uint64_t *hash)
{
    char mark[TEXT], want[TEXT], *text = NULL;
    int found = 0;
    if (gt_path_exists(place) && !gt_file_read(&text, NULL, place, TEXT)) {
        const int n = mark_of(mark, s);
        if (!strncmp(text, mark, (size_t)n) && sscanf(text + n, "%16" SCNx64, hash) == 1) {
            whole_text(want, s, *hash);
            found = !strcmp(text, want);
            if (!found)
                gt_log(GT_LOG_INFO, "data", "what is kept in '%s' is damaged; the file is read again", place);
        }
    }
    gt_message_clear();
    free(text);
    return found;
}

static void keep(const char *place, const char *path, const struct stat *before, uint64_t hash)
{
    char text[TEXT];
    struct stat after;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (stat(path, &after) != 0 || after.st_ino != before->st_ino || after.st_size != before->st_size
        || nanoseconds(&after.st_ctim) != nanoseconds(&before->st_ctim)
        || now.tv_sec < before->st_ctim.tv_sec + SETTLED_SECONDS)
        return;
    whole_text(text, before, hash);
    if (gt_file_write(place, text, strlen(text)))
        gt_message_clear();             /* read again next time */
}

gt_status data_file_hash(const char *path, uint64_t *size, uint64_t *hash)
{
    struct stat before;
    gt_map map;
    const int large = stat(path, &before) == 0 && S_ISREG(before.st_mode) && before.st_size > SMALL;
    char *place = large ? place_of(path) : NULL;
    *size = large ? (uint64_t)before.st_size : 0;
    if (place && find_kept(place, &before, hash)) {
        free(place);
        return GT_OK;
    }
    gt_status st = gt_map_open(&map, path);
    if (!st) {
        *size = map.size;
        *hash = map.size ? gt_hash(map.data, map.size) : 0;
        gt_map_close(&map);
        if (place)
            keep(place, path, &before, *hash);
    }
    free(place);
    return st;
}
