/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz_tokenizer.c - no tokenizer.json breaks the reader, and whatever opens
 * gives back the bytes it encodes, however the text is cut. */
#include "tests/fuzz/fuzz.h"

#include "host/data/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#define BL "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
#define TEXT(t) { t, sizeof(t) - 1 }

const fuzz_seed fuzz_seeds[] = {
    TEXT("{" BL "\"added_tokens\":[{\"id\":6,\"content\":\"<|endoftext|>\",\"special\":true}],\"model\":"
         "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\\u0120\":3,\"\\u0120ab\":4,\"<\":5},"
         "\"merges\":[\"a b\",[\"\\u0120\",\"ab\"]]}}"),
    TEXT("{\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
         "\"pattern\":{\"Regex\":\"\\\\p{N}{1,3}|\\\\s+(?!\\\\S)|[a-z]+\"},\"behavior\":\"Isolated\"},"
         "{\"type\":\"ByteLevel\",\"use_regex\":false}]},\"model\":{\"vocab\":{\"1\":0,\"11\":1,\"a\":9},"
         "\"ignore_merges\":true,\"merges\":[\"1 1\"]}}"),
    TEXT("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"\xc3\xa9\":1,\" \":2},\"merges\":[]},"
         "\"decoder\":{\"type\":\"Fuse\"}}"),
};
const size_t fuzz_seed_count = sizeof fuzz_seeds / sizeof *fuzz_seeds;

static const char text[] = "a ab  b1111 <|endoftext|> \xc3\xa9\xff\xe2\x82 aab\n\n";

/* Encodes whole and in pieces of three bytes; the ids must agree and decode to the text. */
static void use(tokenizer *t)
{
    token_ids whole = { 0 }, parts = { 0 };
    gt_text back = { 0 };
    const size_t size = sizeof text - 1;
    gt_status st = tokenizer_encode(t, text, size, &whole);
    if (!st) {
        for (size_t at = 0, wide = 3, used; at < size; at += used) {
            size_t n = size - at < wide ? size - at : wide;
            if (tokenizer_encode_part(t, text + at, n, at + n == size, &used, &parts))
                abort();
            wide = used ? 3 : wide + 1;
        }
        if (whole.count != parts.count
            || (whole.count && memcmp(whole.data, parts.data, whole.count * sizeof *whole.data)))
            abort();
        if (tokenizer_decode(t, whole.data, whole.count, &back) || back.size != size || memcmp(back.data, text, size))
            abort();
    }
    gt_text_release(&back);
    token_ids_release(&whole);
    token_ids_release(&parts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tokenizer *t;
    if (!tokenizer_parse(&t, (const char *)data, size, "input")) {
        use(t);
        tokenizer_close(t);
    }
    return 0;
}
