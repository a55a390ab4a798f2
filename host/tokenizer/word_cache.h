/* SPDX-License-Identifier: MIT */
/* host/tokenizer/word_cache.h - the ids of words seen before.
 *
 * Text repeats its words, so the ids of short ones are kept in a table that is emptied
 * when full: simple, bounded, and within a few per cent of keeping the right ones.
 *
 * Ownership  zero-initialise, then word_cache_release() whatever happened.              */
#ifndef GT_TOKENIZER_WORD_CACHE_H
#define GT_TOKENIZER_WORD_CACHE_H

#include "host/base/text.h"
#include "host/tokenizer/tokenizer.h"

typedef struct cached_word {
    uint32_t text, ids;                     /* offsets in word_cache.text and .ids */
    uint32_t size, count;                   /* size 0: free */
} cached_word;

typedef struct word_cache {
    cached_word *words;
    size_t used;
    gt_text text;
    token_ids ids;
} word_cache;

gt_status word_cache_open(word_cache *c);
void word_cache_release(word_cache *c);

/* Appends the ids of one word, size > 0; the same bytes always give the same ids. */
typedef gt_status (*word_encode)(void *context, const unsigned char *word, size_t size, token_ids *out);

/* Appends the ids of a word, from the table or by `encode`. */
gt_status word_cache_ids(word_cache *c, const unsigned char *word, size_t size, word_encode encode, void *context,
                         token_ids *out);

#endif
