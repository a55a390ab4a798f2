/* SPDX-License-Identifier: MIT */
/* host/data/sources.h - what --data names: files, folders and patterns, in a list, perhaps with weights.
 *
 *   a.txt                     one source
 *   a.jsonl,b.jsonl           one source of two files
 *   'parts/x*.csv.gz'         one source of the files that match, in order of names
 *   folder/                   token files, or texts and records: all files of a known kind, in order of names;
 *                             those whose names begin with "val" or "dev" validate
 *   books:0.7,folder:0.3      a mixture: the weight is behind the last ':'
 *
 * What is there as it stands is a path, whatever is in its name: "a:1" if there is a file a:1. Paths may hold
 * commas: the longest piece of the list that is there is taken.                               */
#ifndef GT_DATA_SOURCES_H
#define GT_DATA_SOURCES_H

#include "host/base/status.h"

#include <stddef.h>

typedef struct data_source {
    char *name;                         /* as it was given, without the weight */
    double weight;                      /* 0: none was given */
    char **files;                       /* of texts and records, in order; NULL: tokens, at `name` */
    size_t file_count;
    char **val_files;
    size_t val_count;
} data_source;

typedef struct data_sources {
    data_source *list;
    size_t count;
    int mixed;                          /* they have weights */
} data_sources;

/* GT_NOT_FOUND names what is not there; GT_MISUSE for weights that only some have, or that are none. */
gt_status data_sources_read(data_sources *out, const char *list);
void data_sources_release(data_sources *s);

/* The list with paths from the root on, into a fresh string; NULL only when out of memory. What cannot be read
 * stays as it is. */
char *data_sources_absolute(const char *list);

#endif
