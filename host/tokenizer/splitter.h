/* SPDX-License-Identifier: MIT */
/* host/tokenizer/splitter.h - what tokenizer.json's "pre_tokenizer" does: cuts a text into words.
 *
 * Known: ByteLevel, Split, Metaspace, BertPreTokenizer, Whitespace, WhitespaceSplit, Punctuation,
 * Digits, CharDelimiterSplit, and a Sequence of them, where each cuts what the one before left.
 * The bytes of a word are those of the text (with spaces put in front or replaced where the file
 * says so); byte-level characters are never written out.
 *
 * Threads: one splitter, one thread at a time.                                          */
#ifndef GT_TOKENIZER_SPLITTER_H
#define GT_TOKENIZER_SPLITTER_H

#include "host/base/status.h"

#include <jansson.h>
#include <stddef.h>

typedef struct splitter splitter;

/* `part` is "pre_tokenizer", or NULL: a text is one word. GT_UNSUPPORTED names what is not known here. */
gt_status splitter_open(splitter **out, const json_t *part);
void splitter_close(splitter *s);       /* takes NULL */

/* 1 if any of the file's pre_tokenizers is ByteLevel: its tokens are bytes. */
int splitter_is_byte_level(const json_t *part);

/* Of the CUT_... of host/tokenizer/normalizer.h: those at which it cuts whatever the text; *may becomes
 * those at which a text may be cut into blocks because nothing of it looks across. `joins`: a line end
 * is a space by then. */
unsigned splitter_cuts(const splitter *s, int joins, unsigned *may);

/* 1 if it puts a space in front of the first word of a text alone. */
int splitter_marks_first(const splitter *s);
/* 1 if it puts `sign` in the place of spaces. */
int splitter_marks_spaces(const splitter *s, const char *sign);

typedef gt_status (*splitter_visit)(void *context, const unsigned char *word, size_t size);

/* Visits the words of a text. `fresh`: it begins a stretch between special tokens, so that a space
 * may come in front; `origin`: that stretch begins the whole text. */
gt_status splitter_each(splitter *s, const unsigned char *text, size_t size, int fresh, int origin,
                        splitter_visit visit, void *context);

#endif
