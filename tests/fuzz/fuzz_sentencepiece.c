/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz_sentencepiece.c - no tokenizer.model breaks its reader, and whatever is read is a
 * tokenizer.json that reads back to the same ids. */
#include "tests/fuzz/fuzz.h"

#include "host/tokenizer/vocabulary.h"

#include <stdlib.h>
#include <string.h>

#define TEXT(t) { t, sizeof(t) - 1 }
#define UNK "\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0\x18\x02"
#define BOS "\x0a\x0c\x0a\x03<s>\x15\0\0\0\0\x18\x03"
#define SPACE "\x0a\x0a\x0a\x03\xe2\x96\x81\x15\0\0\x80\xbf"
#define LETTER \
    "\x0a\x08\x0a\x01" \
    "a\x15\0\0\x80\xbf"
#define WORD \
    "\x0a\x0b\x0a\x04\xe2\x96\x81" \
    "a\x15\0\0\0\xbf"
#define USER \
    "\x0a\x0a\x0a\x01" \
    "b\x15\0\0\0\0\x18\x04"

const fuzz_seed fuzz_seeds[] = {
    TEXT(UNK BOS SPACE LETTER WORD "\x12\x02\x18\x02\x1a\x06\x18\x01\x20\0\x28\x01"),
    TEXT(UNK SPACE LETTER WORD USER "\x12\x02\x18\x01\x1a\x11\x0a\x01x\x12\x08\x04\0\0\0\0\0\0\0\x18\0\x20\x01"),
};
const size_t fuzz_seed_count = sizeof fuzz_seeds / sizeof *fuzz_seeds;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    vocabulary v = { 0 }, again = { 0 };
    if (!vocabulary_parse_sentencepiece(&v, (const char *)data, size, "input", NULL)
        && (vocabulary_parse_json(&again, v.source, strlen(v.source), "again")
            || vocabulary_hash(&v) != vocabulary_hash(&again)))
        abort();
    vocabulary_release(&v);
    vocabulary_release(&again);
    return 0;
}
