/* SPDX-License-Identifier: MIT */
/* host/data/reader.h - the records of a file, one after the other, in bounded memory.
 *
 *   JSONL     an object a line; what is read of it stands at keys, "a.b" is b within a. A record whose text is a list of
 *             messages is a chat (host/tokenizer/template.h)
 *   CSV, TSV  RFC 4180: a header names the columns; fields in quotes may hold separators, newlines and "" for a quote
 *   text      bytes
 * each plain or packed by gzip, beginning with a byte order mark or not.
 *
 * Errors     GT_FORMAT names file and line: a broken record is never passed over.
 * Ownership  what open gives goes to close, which takes NULL.
 * Threads    one reader, one thread.                                                    */
#ifndef GT_DATA_READER_H
#define GT_DATA_READER_H

#include "host/base/status.h"
#include "host/base/text.h"

#include <jansson.h>
#include <stdint.h>

typedef enum data_format {
    DATA_FORMAT_AUTO,
    DATA_FORMAT_TEXT,
    DATA_FORMAT_JSONL,
    DATA_FORMAT_CSV,
    DATA_FORMAT_TSV
} data_format;

/* By the name's end: .jsonl .ndjson .csv .tsv, each also with .gz; anything else is text. */
data_format data_format_of(const char *path);

/* What a record has. */
typedef struct reader_keys {
    data_format format;                 /* AUTO: by the name's end */
    const char *text;                   /* NULL: "text" or, in JSONL, what the first record has of "text", "messages",
                                           "conversations" */
    const char *pair, *label;           /* NULL: none */
} reader_keys;

typedef struct reader_record {
    uint64_t line;                      /* where it begins, from 1 */
    gt_text text, pair, label;          /* zero-initialise; reader_record_release() at the end */
    json_t *messages;                   /* of a chat; else NULL */
} reader_record;

void reader_record_release(reader_record *r);

typedef struct reader reader;

/* GT_FORMAT for files that are something else (host/data/foreign.h), and for a header without the columns that
 * are asked for. */
gt_status reader_open(reader **out, const char *path, const reader_keys *keys);
void reader_close(reader *r);

/* *more is 0, and the record empty, behind the last one. */
gt_status reader_next(reader *r, reader_record *out, int *more);
/* The same without looking into JSON: *line is 0 behind the last one. For counting. */
gt_status reader_skip(reader *r, uint64_t *line);

/* Of a text: up to `size` bytes of it; *got is less only at its end. */
gt_status reader_bytes(reader *r, void *to, size_t size, size_t *got);

/* How far it is, in bytes of the file as it lies there, and its size. */
uint64_t reader_done(const reader *r);
uint64_t reader_size(const reader *r);

#endif
