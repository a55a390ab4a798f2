/* SPDX-License-Identifier: MIT */
/* host/tokenizer/unicode.h - classes of characters as tokenizers mean them, by utf8proc. */
#ifndef GT_TOKENIZER_UNICODE_H
#define GT_TOKENIZER_UNICODE_H

#include <stdint.h>

int unicode_is_space(uint32_t code);            /* White_Space                               */
int unicode_is_punctuation(uint32_t code);      /* P*, and ASCII signs as BERT counts them   */
int unicode_is_numeric(uint32_t code);          /* Nd, Nl, No                                */
int unicode_is_mark(uint32_t code);             /* Mn, Mc, Me                                */
int unicode_is_nonspacing(uint32_t code);       /* Mn                                        */
int unicode_is_control(uint32_t code);          /* BERT's: Cc, Cf, Cs, Co without \t \n \r   */
int unicode_is_ideograph(uint32_t code);        /* BERT's Chinese characters                 */
int unicode_is_word(uint32_t code);             /* \w: alphabetic, marks, Nd, Pc, joiners    */
/* 1 for letters of scripts that no normalization, white space rule or pattern treats in another
 * way than a Latin letter: Cyrillic, Hebrew, Arabic, Devanagari, kana, ideographs, Hangul. */
int unicode_is_plain(uint32_t code);

/* Lower case, one character at a time: 1 or 2 code points into out; returns their number. */
int unicode_lower(uint32_t out[2], uint32_t code);

#endif
