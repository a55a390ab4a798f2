/* SPDX-License-Identifier: MIT */
/* host/tokenizer/part.h - how a part of tokenizer.json (normalizer, pre_tokenizer, decoder, ...) is read.
 *
 *   { "type": "Split", "pattern": {"Regex": "..."}, "behavior": "Isolated", "invert": false }
 *
 * What is absent, null or of another type is what the reader says it is then. */
#ifndef GT_TOKENIZER_PART_H
#define GT_TOKENIZER_PART_H

#include <jansson.h>

/* 1: not there, or null. */
int part_absent(const json_t *value);
/* For choosing, and for the sentence that refuses it: "of no type" if it says none. */
const char *part_type(const json_t *part);
/* These borrow from the part. */
const char *part_text(const json_t *part, const char *key, const char *otherwise);
int part_flag(const json_t *part, const char *key, int otherwise);

/* A new ByteLevel; NULL: no memory. */
json_t *part_byte_level(int use_regex, int prefix);

#endif
