/* SPDX-License-Identifier: MIT */
/* host/tokenizer/frame.h - the special tokens around a text or a pair of texts.
 *
 * What Hugging Face's tokenizer.json calls its post-processor: [CLS] A [SEP] B [SEP] with
 * token types 0 0 0 1 1, or <s> A. Read are TemplateProcessing, BertProcessing,
 * RobertaProcessing, ByteLevel (which adds nothing) and a Sequence of these with at most
 * one that adds tokens.
 *
 * Ownership  zero-initialise, then frame_release() whatever happened.                   */
#ifndef GT_TOKENIZER_FRAME_H
#define GT_TOKENIZER_FRAME_H

#include "host/base/status.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum { FRAME_A, FRAME_B, FRAME_TOKEN };

typedef struct frame_part {
    int what;                   /* FRAME_A, FRAME_B: a text, FRAME_TOKEN: `id` */
    uint32_t id, type;          /* type: the token type of all of this part    */
} frame_part;

typedef struct frame_list {
    frame_part *parts;
    size_t count;
} frame_list;

typedef struct frame {
    frame_list single, pair;    /* count 0: the texts alone, types 0 and 1     */
    uint32_t vocab;             /* every id is below it                        */
    char refused[160];          /* why no text can be framed, or ""            */
} frame;

/* `part` is "post_processor", or NULL. One that is not known here is kept as the reason why
 * nothing can be framed, for texts need no frame to be encoded; GT_FORMAT names what is broken. */
gt_status frame_read(frame *out, const json_t *part, const char *name);
void frame_release(frame *f);

#endif
