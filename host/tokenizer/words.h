/* SPDX-License-Identifier: MIT */
/* host/tokenizer/words.h - cuts text into the words that byte-pair encoding works inside.
 *
 * First special tokens are found (the longest at the earliest place), then each stretch
 * between them is cut by the vocabulary's pattern, as Hugging Face's `Split` with
 * behaviour "Isolated" and GPT-2's encoder.py do: every match is a word, and so is what
 * lies between two matches. A byte that is not UTF-8 is a word of its own, so no byte is
 * ever lost and the cut does not depend on where a bad file was broken.
 *
 * Streaming: words_each(last = 0) visits only words that no following text can change
 * (PCRE2's hard partial matching tells), so a text cut anywhere gives the same words.
 *
 * Threads: one `words`, one thread at a time.                                          */
#ifndef GT_TOKENIZER_WORDS_H
#define GT_TOKENIZER_WORDS_H

#include "host/tokenizer/vocabulary.h"

typedef struct words words;

/* The vocabulary must outlive the words. GT_FORMAT if its pattern does not compile,
 * GT_UNSUPPORTED if it looks behind, which a stream cannot do. NULL pattern: no cutting. */
gt_status words_open(words **out, const vocabulary *v);
void words_close(words *w);

/* One word, size > 0; `special` is the id of a special token or -1. A status other than
 * GT_OK ends the walk and is returned. */
typedef gt_status (*words_visit)(void *context, const unsigned char *text, size_t size, int64_t special);

/* Visits the words of text[0..size) in order. *used is how many bytes were visited: all of
 * them with last = 1; on failure, the offset of the word that failed. With last = 0 the
 * caller comes again with the rest and more behind it. */
gt_status words_each(words *w, const unsigned char *text, size_t size, int last, size_t *used, words_visit visit,
                     void *context);

#endif
