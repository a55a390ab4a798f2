/* SPDX-License-Identifier: MIT */
/* host/tokenizer/added.h - finds added tokens in a text: the longest at the earliest place.
 *
 * As Hugging Face does: those that are not "normalized" are looked for in the text as it came, the
 * others, themselves normalized, in what the normalizer made of the stretches between. A token may
 * ask to stand alone (single_word) and to take the white space beside it along (lstrip, rstrip).
 *
 * Ownership  zero-initialise, then added_release() whatever happened.
 * Threads    any number may look in one.                                                */
#ifndef GT_TOKENIZER_ADDED_H
#define GT_TOKENIZER_ADDED_H

#include "host/tokenizer/normalizer.h"
#include "host/tokenizer/trie.h"
#include "host/tokenizer/vocabulary.h"

typedef struct added {
    const vocabulary *vocab;
    trie texts;                     /* to ids; no nodes: there are no tokens */
    unsigned char begins[256];      /* 1: some token begins with this byte */
    unsigned across; /* CUT_... of host/tokenizer/normalizer.h at which a token may lie on both sides */
    int word_before; /* the text goes on behind a character of a word; the caller's */
} added;

/* Of the added tokens, those that are normalized, by `n`, or those that are not. */
gt_status added_open(added *a, const vocabulary *v, int normalized, normalizer *n);
void added_release(added *a);

typedef struct added_match {
    size_t begin, end; /* with the white space that it takes along */
    uint32_t id;
} added_match;

/* The first token in text[at..size). What it takes along on its left begins not before `at`. 1: found; 0:
 * none; -1: the text may end inside one (not if `last`), out->begin is where that begins. */
int added_next(const added *a, const unsigned char *text, size_t size, size_t at, int last, added_match *out);

#endif
