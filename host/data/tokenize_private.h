/* SPDX-License-Identifier: MIT */
/* host/data/tokenize_private.h - what tokenize.c (folders, texts) and tokenize_records.c share. */
#ifndef GT_DATA_TOKENIZE_PRIVATE_H
#define GT_DATA_TOKENIZE_PRIVATE_H

#include "host/base/file.h"
#include "host/data/tokenize.h"
#include "host/data/tokens.h"

typedef struct tokenize_input {
    const char *path;
    data_format format;
    int packed;                         /* by gzip */
    gt_map map;                         /* of a text that is not packed */
    uint64_t size;                      /* of the file */
    uint64_t documents;                 /* of records, once counted */
} tokenize_input;

typedef struct tokenize_job {
    tokenizer *tokenizer;
    const tokenize_options *options;
    tokenize_input *inputs;             /* files, then val_files */
    size_t input_count;
    int records;                        /* some have records */
    uint64_t total, done;               /* bytes of files */
    token_ids ids, types;
    gt_text marks, scratch;             /* a byte a token; what pieces decode to */
    chat_text chat;
    json_t *labels;                     /* NULL: none; name -> number */
    tokenize_result result;
} tokenize_job;

/* j->marks: as many of a mark. */
gt_status tokenize_mark(tokenize_job *j, size_t count, unsigned char mark);
gt_status tokenize_told(tokenize_job *j, uint64_t done, const char *path);

/* Encodes bytes [from, to) of a text's, to its end where that is less, in chunks; *documents are not counted. */
gt_status tokenize_text(tokenize_job *j, const tokenize_input *in, uint64_t from, uint64_t to, token_writer *out);

/* Counts documents and collects labels; then all into both splits. */
gt_status tokenize_count_records(tokenize_job *j);
unsigned tokenize_marks(const tokenize_job *j);
gt_status tokenize_records(tokenize_job *j, token_writer *train, token_writer *val);

#endif
