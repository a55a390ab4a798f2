/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz_charsmap.c - whatever bytes say they are a map of characters, applying it reads nothing
 * outside of it. */
#include "tests/fuzz/fuzz.h"

#include "host/tokenizer/charsmap.h"

#include <string.h>

#define TEXT(t) { t, sizeof(t) - 1 }

/* A double array in which 'a' (0x61) leads from unit 0 to a leaf whose value is form 0, "b". */
const fuzz_seed fuzz_seeds[] = {
    TEXT("\x10\0\0\0"
         "\0\x04\0\0"
         "\0\0\0\0"
         "\0\0\0\0"
         "\0\0\0\0"
         "b\0cd\0"),
    TEXT("\x08\0\0\0"
         "\0\x84\x01\0"
         "\x61\x05\0\0"
         "b\0"),
};
const size_t fuzz_seed_count = sizeof fuzz_seeds / sizeof *fuzz_seeds;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "a ab\r\n\xc3\xa9\xe2\x96\x81 e\xcc\x81 \xf0\x9f\x98\x80 zz";
    charsmap *m;
    gt_text out = { 0 };
    if (!charsmap_open(&m, data, size)) {
        charsmap_apply(m, (const unsigned char *)text, sizeof text - 1, &out);
        gt_text_release(&out);
        charsmap_close(m);
    }
    return 0;
}
