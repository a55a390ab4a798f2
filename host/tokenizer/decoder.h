/* SPDX-License-Identifier: MIT */
/* host/tokenizer/decoder.h - what tokenizer.json's "decoder" does: tokens to text again.
 *
 * Known: Fuse, ByteFallback, Replace, Strip, Metaspace, WordPiece, BPEDecoder, ByteLevel (whose tokens
 * are bytes here already) and a Sequence of them. Without a decoder tokens are joined by spaces.
 * Bytes that are not UTF-8 stay what they are, so text can be put together from parts.
 *
 * Threads: any number may use one decoder.                                              */
#ifndef GT_TOKENIZER_DECODER_H
#define GT_TOKENIZER_DECODER_H

#include "host/base/text.h"

#include <jansson.h>
#include <stddef.h>

typedef struct decoder decoder;

/* `part` is "decoder", or NULL. GT_UNSUPPORTED names what is not known here. */
gt_status decoder_open(decoder **out, const json_t *part);
void decoder_close(decoder *d);     /* takes NULL */

typedef struct decoder_token {
    const char *text;
    size_t size;
} decoder_token;

/* Appends the text of tokens. */
gt_status decoder_apply(const decoder *d, const decoder_token *tokens, size_t count, gt_text *out);

#endif
