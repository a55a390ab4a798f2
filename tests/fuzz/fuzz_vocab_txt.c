/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz_vocab_txt.c - BERT's files: the input is vocab.txt, a zero byte, and
 * tokenizer_config.json. Whatever is read is a tokenizer.json that reads back to the same ids. */
#include "tests/fuzz/fuzz.h"

#include "host/tokenizer/vocabulary.h"

#include <stdlib.h>
#include <string.h>

#define TEXT(t) { t, sizeof(t) - 1 }

const fuzz_seed fuzz_seeds[] = {
    TEXT(
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##b\n\xc3\xa9\nword\n\0{\"do_lower_case\":false,\"strip_accents\":null}"),
    TEXT("[UNK]\r\nUpper\r\n##s\r\n"),
};
const size_t fuzz_seed_count = sizeof fuzz_seeds / sizeof *fuzz_seeds;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
    const size_t first = zero ? (size_t)(zero - data) : size;
    const vocabulary_text config = { zero ? (const char *)zero + 1 : NULL, "config", zero ? size - first - 1 : 0 };
    vocabulary v = { 0 }, again = { 0 };
    if (!vocabulary_parse_txt(&v, (const char *)data, first, "vocab.txt", &config)
        && (vocabulary_parse_json(&again, v.source, strlen(v.source), "again")
            || vocabulary_hash(&v) != vocabulary_hash(&again)))
        abort();
    vocabulary_release(&v);
    vocabulary_release(&again);
    return 0;
}
