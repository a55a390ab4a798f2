/* SPDX-License-Identifier: MIT */
/* host/tokenizer/word_model.c - what the models share. */
#include "host/tokenizer/word_model.h"

#include "host/tokenizer/utf8.h"

#include <stdio.h>

int word_model_bytes(uint32_t out[256], const vocabulary *v)
{
    for (unsigned b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        const int64_t id = vocabulary_find(v, name, 6);
        if (id < 0)
            return 0;
        out[b] = (uint32_t)id;
    }
    return 1;
}

gt_status word_model_unknown(const unsigned char *text, size_t size)
{
    uint32_t code = 0;
    const int n = size ? utf8_next(text, size, &code) : 0;
    if (n <= 0)
        return gt_fail(GT_MISMATCH, "byte 0x%02x is not UTF-8, and the tokenizer knows only characters",
                       size ? text[0] : 0u);
    return gt_fail(GT_MISMATCH, "the tokenizer has no token for character '%.*s' (U+%04X)", n, (const char *)text,
                   code);
}
