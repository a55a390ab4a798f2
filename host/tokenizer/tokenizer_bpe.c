/* SPDX-License-Identifier: MIT */
/* host/tokenizer/tokenizer_bpe.c - byte-level BPE as GPT-2 has it: special tokens, one pattern, merges.
 *
 * What asks for more than that (a normalizer, several cuts, spaces put in front) goes through
 * host/tokenizer/tokenizer_chain.c. Here no text is ever copied, and PCRE2 itself tells which words no
 * following text can change.                                                            */
#include "host/tokenizer/tokenizer_kind.h"
#include "host/tokenizer/word_model.h"
#include "host/tokenizer/words.h"

#include <stdlib.h>

typedef struct bpe_state {
    words *words;
    void *model;
    word_cache cache;
    token_ids *out;                         /* of the running encode() */
} bpe_state;

static void release(void *state)
{
    bpe_state *b = state;
    if (!b)
        return;
    words_close(b->words);
    word_model_bpe.close(b->model);
    word_cache_release(&b->cache);
    free(b);
}

static gt_status prepare(tokenizer *t)
{
    bpe_state *b = calloc(1, sizeof *b);
    t->state = b;
    if (!b)
        return gt_fail(GT_NO_MEMORY, "no memory for the tokenizer's state");
    gt_status st = word_cache_open(&b->cache);
    st = st ? st : word_model_bpe.open(&b->model, &t->vocab);
    return st ? st : words_open(&b->words, &t->vocab);
}

static gt_status visit(void *context, const unsigned char *text, size_t size, int64_t special)
{
    bpe_state *b = context;
    if (special >= 0)
        return token_ids_add(b->out, &(uint32_t){ (uint32_t)special }, 1);
    return word_cache_ids(&b->cache, text, size, word_model_bpe.encode, b->model, b->out);
}

static gt_status encode(tokenizer *t, const unsigned char *text, size_t size, int last, size_t *used, token_ids *ids)
{
    bpe_state *b = t->state;
    b->out = ids;
    return words_each(b->words, text, size, last, used, visit, b);
}

const tokenizer_kind tokenizer_bpe = { .name = "bpe", .prepare = prepare, .encode = encode, .release = release };
