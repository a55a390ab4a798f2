/* SPDX-License-Identifier: MIT */
/* host/tokenizer/normalizer.h - what tokenizer.json's "normalizer" does to a text before it is cut.
 *
 * Known: NFC NFD NFKC NFKD, Lowercase, StripAccents, BertNormalizer, Prepend, Replace, Strip,
 * Nmt, Precompiled, and a Sequence of them. Unicode's tables are utf8proc's.
 *
 * A text may come in blocks: each is normalized alone, and what belongs to the ends of the text
 * (Prepend, Strip) happens at the first and the last one. normalizer_cuts() says between which
 * characters a text may be cut into blocks so that nothing changes.
 *
 * Threads: one normalizer, one thread at a time.                                        */
#ifndef GT_TOKENIZER_NORMALIZER_H
#define GT_TOKENIZER_NORMALIZER_H

#include "host/base/status.h"

#include <jansson.h>
#include <stddef.h>

/* Where a text may be cut, between two characters that are neither white space nor control
 * (ASCII signs and letters, or unicode_is_plain()), around one space or line end between them. */
enum {
    CUT_SPACE = 1,              /* x| y                                         */
    CUT_LINE = 2,               /* x|\ny                                        */
    CUT_AFTER = 4,              /* x\n|y with y a letter or digit               */
    CUT_ALL = 7
};

typedef struct normalizer normalizer;

/* `part` is "normalizer", or NULL. GT_UNSUPPORTED names what is not known here. */
gt_status normalizer_open(normalizer **out, const json_t *part);
void normalizer_close(normalizer *n);   /* takes NULL */

unsigned normalizer_cuts(const normalizer *n);
/* 1 if a line end becomes a space. */
int normalizer_joins_lines(const normalizer *n);
/* 1 if a space stays white space. */
int normalizer_keeps_spaces(const normalizer *n);
/* 1 if it changes nothing at all but spaces, and adds at the beginning only. */
int normalizer_keeps_characters(const normalizer *n);

/* *out is valid until the next call, or is the text itself where nothing changed. */
gt_status normalizer_apply(normalizer *n, const unsigned char *text, size_t size, int first, int last,
                           const unsigned char **out, size_t *out_size);

#endif
