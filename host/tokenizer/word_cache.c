/* SPDX-License-Identifier: MIT */
/* host/tokenizer/word_cache.c - open addressing by the hash of the word's bytes. */
#include "host/tokenizer/word_cache.h"

#include "host/base/file.h"

#include <stdlib.h>
#include <string.h>

#define SLOTS ((size_t)1 << 17)             /* half of them used at most  */
#define WORD 48u                            /* bytes in the longest word kept */

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "cannot encode: no memory for the words of a text");
}

gt_status word_cache_open(word_cache *c)
{
    c->words = calloc(SLOTS, sizeof *c->words);
    return c->words ? GT_OK : no_memory();
}

void word_cache_release(word_cache *c)
{
    free(c->words);
    gt_text_release(&c->text);
    token_ids_release(&c->ids);
    memset(c, 0, sizeof *c);
}

static void empty(word_cache *c)
{
    memset(c->words, 0, SLOTS * sizeof *c->words);
    c->used = 0;
    c->text.size = 0;
    c->ids.count = 0;
}

gt_status word_cache_ids(word_cache *c, const unsigned char *word, size_t size, word_encode encode, void *context,
                         token_ids *out)
{
    if (size > WORD)
        return encode(context, word, size, out);
    const size_t mask = SLOTS - 1, first = (size_t)gt_hash(word, size) & mask;
    size_t i = first;
    for (; c->words[i].size; i = (i + 1) & mask) {
        const cached_word *w = &c->words[i];
        if (w->size == size && !memcmp(c->text.data + w->text, word, size))
            return token_ids_add(out, c->ids.data + w->ids, w->count);
    }
    if (c->used >= SLOTS / 2) {
        empty(c);
        i = first;
    }
    cached_word new = { .text = (uint32_t)c->text.size, .ids = (uint32_t)c->ids.count, .size = (uint32_t)size };
    gt_status st = encode(context, word, size, &c->ids);
    if (st) {
        c->ids.count = new.ids;
        return st;
    }
    gt_text_put(&c->text, word, size);
    if (c->text.failed)
        return no_memory();
    new.count = (uint32_t)c->ids.count - new.ids;
    c->words[i] = new;
    c->used++;
    return token_ids_add(out, c->ids.data + new.ids, new.count);
}
