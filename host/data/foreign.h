/* SPDX-License-Identifier: MIT */
/* host/data/foreign.h - files that are neither text nor tokens, known by how they begin.
 *
 * Any bytes can be read as a text of bytes or as a row of 16-bit ids, so a compressed text, an
 * array with a header or a model would be trained on without a complaint. Only beginnings that a
 * text or a row of ids does not have by chance are listed.
 *
 * Sources    the formats' own descriptions; llm.c's numbers from karpathy/llm.c
 *            (train_gpt2.py, train_gpt2.cu, train_llama3.py, dev/data/data_common.py).   */
#ifndef GT_DATA_FOREIGN_H
#define GT_DATA_FOREIGN_H

#include "host/base/file.h"
#include "host/base/status.h"

typedef enum data_reading { DATA_AS_TEXT, DATA_AS_TOKENS } data_reading;

/* GT_FORMAT, with the file, what it is and what to do, if it is one of those. */
gt_status data_foreign_check(const gt_map *file, data_reading how);

/* Is it packed by gzip? Texts and records are read all the same (host/data/reader.h). */
int data_is_packed(const gt_map *file);

/* The same for a path, before a tokenizer is trained on it; what cannot be opened as well. */
gt_status data_foreign_check_text(const char *path);

#endif
