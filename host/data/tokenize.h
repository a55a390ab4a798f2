/* SPDX-License-Identifier: MIT */
/* host/data/tokenize.h - texts and records of any size to a folder of tokens.
 *
 *   DIR/train-000000.bin ...   host/data/tokens.h
 *       val-000000.bin ...
 *       tokenizer/             what made them, tokenizer_open() reads it
 *       tokens.json            {"format": 1, "tokenizer": NAME, "tokenizer_hash": HEX,
 *                               "vocab": V, "train_tokens": N, "val_tokens": N,
 *                               "train_hash": HEX, "val_hash": HEX, "bytes": N}; of records also
 *                               "train_documents", "val_documents" and, with labels, "labels": [NAME, ...]
 *
 * Texts are put one after the other. Where a file has records (JSONL, CSV, TSV), each is a document, and so is each
 * text beside them: marks (host/data/tokens.h) tell where it ends. It closes with the tokenizer's end-of-text id if
 * it has one. With a label, a document is the tokenizer's frame of its text or pair instead; a chat is
 * what its template makes of it, in which the tokens of answers are marked. Special tokens that such a text spells are
 * special tokens, as in Hugging Face's apply_chat_template.
 *
 * The folder is made aside and renamed, so it is whole or not there. Memory is bounded
 * whatever the size of the text: files are mapped and encoded a chunk at a time, and the
 * ids do not depend on the chunk.                                                       */
#ifndef GT_DATA_TOKENIZE_H
#define GT_DATA_TOKENIZE_H

#include "host/data/reader.h"
#include "host/tokenizer/template.h"
#include "host/tokenizer/tokenizer.h"

typedef struct tokenize_options {
    const char *const *files;           /* one after the other */
    size_t file_count;
    reader_keys keys;                   /* of records */
    const chat_template *chat;          /* NULL: none; chat_why, if it is not NULL, says why not */
    const char *chat_why;
    /* The validation split: these files or, if there are none, the end of `files`:
     * characters from int((1 - val_fraction) * characters) on, which is nanoGPT's split for
     * 0.1. 0 makes no split. Of records the last documents; with labels that share of each label, evenly spread. */
    const char *const *val_files;
    size_t val_file_count;
    double val_fraction;
    size_t chunk;                       /* bytes encoded at once, 0: 4 MiB */
    uint64_t shard_tokens;              /* 0: 100 million */
    data_progress progress;
    void *context;
} tokenize_options;

typedef struct tokenize_result {
    uint64_t bytes, train_tokens, val_tokens;
    uint64_t train_documents, val_documents;    /* 0: texts alone */
    int labels;
} tokenize_result;

/* Between two files, and nowhere else, goes the tokenizer's end-of-text id if it has one.
 * A folder that is there is replaced if it is empty or holds a tokens.json, else GT_MISUSE.
 * GT_FORMAT for an empty text; a text with no ids fails with its file and byte. */
/* Makes a tokenizer, as tokenizer_train() does, from the texts of whatever the files hold; `scratch` is a file in
 * which the texts of records are put for that time. */
gt_status tokenize_train(tokenizer **out, const char *spec, const tokenize_options *o, const char *scratch);

gt_status tokenize(tokenizer *t, const char *folder, const tokenize_options *o, tokenize_result *result);

#endif
