/* SPDX-License-Identifier: MIT */
/* host/tokenizer/vocabulary_private.h - what the files that read and write vocabularies share.
 *
 *   vocabulary_folder.c ──► vocabulary_json.c, vocabulary_txt.c, sentencepiece.c    a vocabulary
 *                       └─► vocabulary_beside.c                                     and what is said beside it
 */
#ifndef GT_TOKENIZER_VOCABULARY_PRIVATE_H
#define GT_TOKENIZER_VOCABULARY_PRIVATE_H

#include "host/tokenizer/part.h"
#include "host/tokenizer/vocabulary.h"

/* name: of the file, for sentences. */
gt_status vocabulary_no_memory(const char *name);

/* JSON whose keys are there once; *out is the caller's. */
gt_status vocabulary_load_json(json_t **out, const char *text, size_t size, const char *name);
/* tokenizer_config.json, which says model_max_length: 1000000000000000019884624838656 where there is none. */
gt_status vocabulary_load_config(json_t **out, const vocabulary_text *f);

/* An id; `text` is the token it belongs to. */
gt_status vocabulary_read_id(uint32_t *out, const json_t *value, const char *text, const char *name);
gt_status vocabulary_bad_id(const char *name, const char *text, const char *why);

/* PIECE_...: what an added token says of itself; a text says nothing. */
uint32_t vocabulary_added_flags(const json_t *entry);

#endif
