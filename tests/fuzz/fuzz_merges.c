/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz_merges.c - GPT-2's pair of files: the input is vocab.json, a zero byte,
 * and merges.txt. Whatever is read has merges over tokens that are there. */
#include "tests/fuzz/fuzz.h"

#include "host/tokenizer/vocabulary.h"

#include <stdlib.h>
#include <string.h>

#define TEXT(t) { t, sizeof(t) - 1 }

const fuzz_seed fuzz_seeds[] = {
    TEXT("{\"a\":0,\"b\":1,\"ab\":2,\"\\u0120\":3,\"\\u0120ab\":4,\"<|endoftext|>\":5}\0"
         "#version: 0.2\na b\n\xc4\xa0 ab\n"),
    TEXT("{\"l\":0,\"o\":1,\"lo\":2}\0l o\r\n\r\n"),
};
const size_t fuzz_seed_count = sizeof fuzz_seeds / sizeof *fuzz_seeds;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
    size_t first = zero ? (size_t)(zero - data) : size, second = zero ? size - first - 1 : 0;
    vocabulary v = { 0 };
    if (!vocabulary_parse_pair(&v, (const char *)data, first, "vocab.json", zero ? (const char *)zero + 1 : "", second,
                               "merges.txt")) {
        for (size_t i = 0; i < v.merge_count; i++) {
            const merge *m = &v.merges[i];
            if (m->left >= v.count || m->right >= v.count || m->joined >= v.count
                || v.pieces[m->joined].size != v.pieces[m->left].size + v.pieces[m->right].size)
                abort();
        }
        vocabulary_hash(&v);
    }
    vocabulary_release(&v);
    return 0;
}
