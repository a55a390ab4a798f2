/* SPDX-License-Identifier: MIT */
/* host/tokenizer/word_model.h - what turns one word into ids, when the text has been cut.
 *
 * BPE over bytes or characters, WordPiece, Unigram: each is a state made of a vocabulary and a
 * function of the word's bytes. A character that has no id is the unknown token; without one
 * GT_MISMATCH names it.                                                                 */
#ifndef GT_TOKENIZER_WORD_MODEL_H
#define GT_TOKENIZER_WORD_MODEL_H

#include "host/tokenizer/vocabulary.h"
#include "host/tokenizer/word_cache.h"

typedef struct word_model {
    gt_status (*open)(void **state, const vocabulary *v);
    word_encode encode;                     /* context: the state */
    void (*close)(void *state);             /* takes NULL and half-built states */
} word_model;

extern const word_model word_model_bpe, word_model_wordpiece, word_model_unigram;

/* The id of byte-fallback token "<0xXX>" of each byte; 0 if one of them is missing. */
int word_model_bytes(uint32_t out[256], const vocabulary *v);

/* "no token for character ...", of text that begins with it. */
gt_status word_model_unknown(const unsigned char *text, size_t size);

#endif
