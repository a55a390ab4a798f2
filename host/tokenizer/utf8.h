/* SPDX-License-Identifier: MIT */
/* host/tokenizer/utf8.h - UTF-8, and the way GPT-2 writes bytes as visible characters.
 *
 * Source of the byte-level alphabet: bytes_to_unicode() of openai/gpt-2, encoder.py.
 * The printable bytes of Latin-1 stand for themselves; the other 68 follow, in order, at
 * U+0100 ... U+0143 (a space is "\u0120"). So a vocabulary of any bytes is valid JSON. */
#ifndef GT_TOKENIZER_UTF8_H
#define GT_TOKENIZER_UTF8_H

#include "host/base/text.h"

#include <stddef.h>
#include <stdint.h>

/* What utf8_next() says of bytes that are no character. */
enum { UTF8_INVALID = 0, UTF8_CUT = -1 };

/* Length (1 to 4) of the character at text[0..size), size > 0, and its code point, or
 * UTF8_INVALID, or UTF8_CUT if the bytes end inside what may still become a character.
 * Overlong forms, surrogates and values above U+10FFFF are invalid. */
int utf8_next(const unsigned char *text, size_t size, uint32_t *code);

/* Writes the 1 to 4 bytes of a code point; returns their number. */
int utf8_put(char out[4], uint32_t code);

/* How many characters: bytes that do not continue one, so any bytes have a count. */
uint64_t utf8_count(const unsigned char *text, size_t size);

/* Offset of the character with that index, as utf8_count() counts; size if there are fewer. */
size_t utf8_offset(const unsigned char *text, size_t size, uint64_t index);

/* Appends text; of bytes that are no character each becomes U+FFFD. */
void utf8_mend(gt_text *out, const char *text, size_t size);

uint32_t byte_level_code(unsigned char byte);   /* byte -> code point                  */
int byte_level_byte(uint32_t code);        /* code point -> byte, or -1           */

/* Turns visible characters back into bytes, in place of `text`. Returns the number of
 * bytes, or -1 if a character stands for none. */
int64_t byte_level_decode(unsigned char *text, size_t size);

#endif
