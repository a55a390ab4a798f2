/* SPDX-License-Identifier: MIT */
/* host/tokenizer/tokenizer_kind.h - what one kind of tokenizer adds to a vocabulary.
 *
 * For the files of this room. Reading, writing, decoding and hashing work on the
 * vocabulary and are written once, in tokenizer.c.                                     */
#ifndef GT_TOKENIZER_TOKENIZER_KIND_H
#define GT_TOKENIZER_TOKENIZER_KIND_H

#include "host/tokenizer/tokenizer.h"
#include "host/tokenizer/vocabulary.h"

typedef struct tokenizer_kind {
    const char *name;
    /* Builds t->state from t->vocab; optional. */
    gt_status (*prepare)(tokenizer *t);
    /* The contract of tokenizer_encode_part(). */
    gt_status (*encode)(tokenizer *t, const unsigned char *text, size_t size, int last, size_t *used, token_ids *ids);
    /* Appends the text of ids that are all there; optional: the bytes of each. */
    gt_status (*decode)(const tokenizer *t, const uint32_t *ids, size_t count, gt_text *out);
    /* Takes NULL and half-built states; optional. */
    void (*release)(void *state);
} tokenizer_kind;

struct tokenizer {
    const tokenizer_kind *kind;
    vocabulary vocab;
    int64_t eot;
    uint64_t hash;
    void *state;
};

extern const tokenizer_kind tokenizer_byte, tokenizer_char, tokenizer_bpe;
extern const tokenizer_kind tokenizer_chains[];     /* by vocabulary_model */

/* Fill an empty vocabulary. */
gt_status tokenizer_byte_vocabulary(vocabulary *out);
gt_status tokenizer_char_train(vocabulary *out, const char *const *files, size_t count, data_progress progress,
                               void *context);
gt_status tokenizer_bpe_train(vocabulary *out, uint32_t size, const char *const *files, size_t count,
                              data_progress progress, void *context);

#endif
