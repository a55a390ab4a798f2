/* SPDX-License-Identifier: MIT */
/* tests/data/data_files.h - files that tests of the data room read, in the folder of the case. */
#ifndef TESTS_DATA_FILES_H
#define TESTS_DATA_FILES_H

#include "host/data/dataset.h"

/* Paths are freed with free(). */
char *path_of(const char *name);
/* A folder that is not there yet. */
char *fresh(const char *name);
char *file_of(const char *name, const void *text, size_t size);
/* A split of `count` tokens 0, 1, 2, ... in shards of `shard`, on disk below `name`. */
void open_counting(token_split *out, const char *name, uint32_t vocab, size_t count, uint64_t shard);
/* Prose with runs of spaces, an umlaut, an end-of-text in the middle and a long word. */
char *sample_text(size_t *size);
/* A tokenizer of that kind, trained on the text at `path`; closed by the caller. */
tokenizer *trained_on(const char *spec, const char *path);

#endif
