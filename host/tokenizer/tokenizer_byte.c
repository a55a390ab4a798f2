/* SPDX-License-Identifier: MIT */
/* host/tokenizer/tokenizer_byte.c - an id is a byte. No training, no unknown text, 256 ids. */
#include "host/tokenizer/tokenizer_kind.h"

gt_status tokenizer_byte_vocabulary(vocabulary *out)
{
    gt_status st = GT_OK;
    out->byte_level = 1;
    for (uint32_t id = 0; id < 256 && !st; id++) {
        unsigned char byte = (unsigned char)id;
        st = vocabulary_add(out, id, &byte, 1);
    }
    return st;
}

static gt_status encode(tokenizer *t, const unsigned char *text, size_t size, int last, size_t *used, token_ids *ids)
{
    enum { BLOCK = 1024 };
    (void)t, (void)last;
    for (*used = 0; *used < size;) {
        uint32_t block[BLOCK];
        size_t n = size - *used < BLOCK ? size - *used : BLOCK;
        for (size_t i = 0; i < n; i++)
            block[i] = text[*used + i];
        gt_status st = token_ids_add(ids, block, n);
        if (st)
            return st;
        *used += n;
    }
    return GT_OK;
}

const tokenizer_kind tokenizer_byte = { .name = "byte", .encode = encode };
