/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz_pattern.c - no regular expression breaks its rewriting, and matches lie in the text, one
 * behind the other. */
#include "tests/fuzz/fuzz.h"

#include "host/tokenizer/pattern.h"

#include <stdlib.h>
#include <string.h>

#define TEXT(t) { t, sizeof(t) - 1 }

const fuzz_seed fuzz_seeds[] = {
    TEXT(
        "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}++|\\p{N}{1,3}+| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*+|\\s++$|\\s"),
    TEXT("(?:\\p{Han}|[\\w\\u4e00-\\u9fa5])+|(a{,2}|\\W)\\h{2}|[[:alpha:]&]|\\P{^Lu}{3}"),
};
const size_t fuzz_seed_count = sizeof fuzz_seeds / sizeof *fuzz_seeds;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const unsigned char text[] = "I'm a1234 na\xc3\xafve \xe6\x88\x91\xe6\x83\xb3 A\n\n ... __";
    const size_t length = sizeof text - 1;
    char *regex = size < 200 ? malloc(size + 1) : NULL;
    pattern *p;
    if (!regex)
        return 0;
    if (size)
        memcpy(regex, data, size);
    regex[size] = '\0';
    if (!pattern_open(&p, regex)) {
        size_t begin, end, from = 0;
        while (from < length && pattern_next(p, text, length, from, 0, &begin, &end) > 0) {
            if (begin < from || end <= begin || end > length)
                abort();
            from = end;
        }
        pattern_close(p);
    }
    free(regex);
    return 0;
}
