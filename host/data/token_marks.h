/* SPDX-License-Identifier: MIT */
/* host/data/token_marks.h - what lies beside a shard, for tokens.c alone: see tokens.h. */
#ifndef GT_DATA_TOKEN_MARKS_H
#define GT_DATA_TOKEN_MARKS_H

#include "host/base/text.h"
#include "host/data/tokens.h"

/* Opens what is there beside an open shard. */
gt_status token_marks_open(token_file *f);
void token_marks_close(token_file *f);

unsigned token_marks_of(const token_file *f);                   /* bit m: it has token_mark m */
unsigned token_marks_at(const token_file *f, uint64_t i);       /* bit m: token i is marked   */
uint64_t token_marks_label_hash(const token_split *s);
uint32_t token_file_id(const token_file *f, uint64_t i);        /* unchecked */
void token_index_release(token_index *x);                       /* takes NULL */

/* What will lie beside the shard that is being written. */
typedef struct token_marks_writer {
    unsigned marks;
    int labelled;
    uint64_t count;                     /* tokens */
    gt_text bits[TOKEN_MARKS], labels;
} token_marks_writer;

void token_marks_collect(token_marks_writer *w, const unsigned char *marks, size_t count);     /* NULL: none */
void token_marks_collect_label(token_marks_writer *w, int32_t label);
/* Writes it, and begins anew. */
gt_status token_marks_write(token_marks_writer *w, const char *shard);
void token_marks_release(token_marks_writer *w);

#endif
