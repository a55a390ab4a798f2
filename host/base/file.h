/* SPDX-License-Identifier: MIT */
/* host/base/file.h - files, read by mapping and written so that a crash loses nothing.
 *
 * Writing: gt_writer collects into `PATH.partial-PID`; gt_writer_commit() flushes, fsyncs,
 * renames over PATH and fsyncs the folder. Until then PATH is untouched, and after any
 * failure the partial file is removed. A full disk is one GT_IO sentence.
 * Ownership: what open/map returns is released by the matching close/unmap, which takes
 * NULL and half-built objects.                                                          */
#ifndef GT_BASE_FILE_H
#define GT_BASE_FILE_H

#include "host/base/status.h"

#include <stdint.h>

/* A whole file, mapped read-only. size may be 0 (data is then NULL). GT_FORMAT for a pointer that
 * git-lfs left in place of a file: nothing that is read here is one. */
typedef struct gt_map {
    const unsigned char *data;
    size_t size;
    char *path;
} gt_map;

gt_status gt_map_open(gt_map *out, const char *path);
void gt_map_close(gt_map *m);

/* Reads a small file whole, up to `limit` bytes, NUL-terminated; *out is freed with
 * free(). size may be NULL. GT_FORMAT if it is larger than `limit`. */
gt_status gt_file_read(char **out, size_t *size, const char *path, size_t limit);

typedef struct gt_writer gt_writer;
gt_status gt_writer_open(gt_writer **out, const char *path);
gt_status gt_writer_put(gt_writer *w, const void *data, size_t size);
gt_status gt_writer_printf(gt_writer *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Overwrites bytes already written, for headers whose content is known last. */
gt_status gt_writer_patch(gt_writer *w, uint64_t offset, const void *data, size_t size);
uint64_t gt_writer_size(const gt_writer *w);
uint64_t gt_writer_hash(const gt_writer *w);   /* XXH3-64 of all that was put, before patches */
/* Both free w. commit: the file is there, whole, or an error is returned and PATH is as
 * before. abandon: the partial file is removed; takes NULL. */
gt_status gt_writer_commit(gt_writer *w);
void gt_writer_abandon(gt_writer *w);

/* One call for small files: open, put, commit. */
gt_status gt_file_write(const char *path, const void *data, size_t size);

/* Makes a folder and its parents; fine if it is there already. */
gt_status gt_folder_make(const char *path);
/* Removes a folder and all in it; fine if it is not there. Follows no links. */
gt_status gt_folder_remove(const char *path);
/* Removes the partial files that writers killed half-way left in a folder; fine if it is not
 * there. Only for a folder that nobody else is writing to. */
gt_status gt_folder_tidy(const char *path);
/* fsyncs the folder itself, so that names in it survive a power cut. */
gt_status gt_folder_sync(const char *path);
int gt_path_is_folder(const char *path);
int gt_path_exists(const char *path);

/* "a/b" from "a" and "b" into a fresh string (free()); NULL only when out of memory. */
char *gt_path_join(const char *folder, const char *name);

/* `path` from the root on, into a fresh string (free()); links and ".." stay as they are. NULL only
 * when out of memory; a relative path comes back as it is if the current folder has no name. */
char *gt_path_absolute(const char *path);

/* 1 if files can be made in this folder, or it can be made; tries, and leaves nothing. */
int gt_folder_writable(const char *path);

/* Where caches go: $GEARTRAIN_CACHE, else $XDG_CACHE_HOME/geartrain, else ~/.cache/geartrain. Where
 * that cannot be, a folder of the user's own in the temporary folder, $TMPDIR/geartrain-UID, with
 * one warning a process. `name` is a folder in it, made on the way, that can be written in. *out is
 * freed with free(). */
gt_status gt_cache_folder(char **out, const char *name);
/* The same without the warning: `trouble` becomes what is wrong with the first choice, or "". */
gt_status gt_cache_find(char **out, const char *name, char *trouble, size_t trouble_size);

uint64_t gt_hash(const void *data, size_t size);    /* XXH3-64 */

#endif
