/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz_llama2c.c - no tokenizer.bin breaks its reader, and whatever is read is a
 * tokenizer.json that reads back to the same ids. */
#include "tests/fuzz/fuzz.h"

#include "host/tokenizer/vocabulary.h"

#include <stdlib.h>
#include <string.h>

#define TEXT(t) { t, sizeof(t) - 1 }

const fuzz_seed fuzz_seeds[] = {
    TEXT("\x07\0\0\0"
         "\0\0\0\0\x05\0\0\0<unk>"
         "\0\0\0\0\x05\0\0\0\n<s>\n"
         "\0\0\0\0\x06\0\0\0\n</s>\n"
         "\0\0\0\0\x06\0\0\0<0x00>"
         "\0\0\x80\xbf\x01\0\0\0 "
         "\0\0\x80\xbf\x01\0\0\0a"
         "\0\0\0\xbf\x02\0\0\0 a"),
};
const size_t fuzz_seed_count = sizeof fuzz_seeds / sizeof *fuzz_seeds;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    vocabulary v = { 0 }, again = { 0 };
    if (!vocabulary_parse_llama2c(&v, (const char *)data, size, "input", NULL)
        && (vocabulary_parse_json(&again, v.source, strlen(v.source), "again")
            || vocabulary_hash(&v) != vocabulary_hash(&again)))
        abort();
    vocabulary_release(&v);
    vocabulary_release(&again);
    return 0;
}
