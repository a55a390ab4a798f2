/* SPDX-License-Identifier: MIT */
/* host/tokenizer/text_stream.h - text as its ids come: what may be shown after each, and where it ends.
 *
 *   ids     Hel lo , wor ld <0xF0> <0x9F> <0x98> <0x80> \n User :
 *   shown   Hel lo , wor ld                      \U0001F600    (a stop string begins: held back, then the end)
 *
 * Held back are the bytes of a character that is not whole, and what may be the beginning of a stop string.
 * What an id spells may depend on the ids before it (a space in front of a word), so a few of those are
 * always decoded with it.                                                                   */
#ifndef GT_TOKENIZER_TEXT_STREAM_H
#define GT_TOKENIZER_TEXT_STREAM_H

#include "host/tokenizer/tokenizer.h"

typedef struct text_stream {
    const tokenizer *tokenizer;
    const char *const *stop;
    int stops;
    token_ids ids;
    size_t from, read;                  /* ids[from..read) were shown as ids[from..] began to be decoded */
    gt_text held;
    int stopped;                        /* 1: a stop string came; nothing follows any more */
} text_stream;

/* Begins behind `count` ids of a prompt, of which nothing is shown. Stop strings must stay; an empty one is
 * never found. Release it, too, after a failure. */
gt_status text_stream_open(text_stream *s, const tokenizer *t, const uint32_t *prompt, size_t count,
                           const char *const *stop, int stops);
void text_stream_release(text_stream *s);
/* Appends to out what may be shown now; s->stopped tells whether the text is over. */
gt_status text_stream_put(text_stream *s, uint32_t id, gt_text *out);
/* No id follows: what was held back. */
gt_status text_stream_end(text_stream *s, gt_text *out);

#endif
