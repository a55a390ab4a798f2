/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz_tokenizer.c - no tokenizer.json breaks the reader, and whatever opens gives the same ids
 * however the text is cut; without a normalizer and the like, also the bytes it encoded. */
#include "tests/fuzz/fuzz.h"

#include "host/tokenizer/tokenizer.h"
#include "host/tokenizer/vocabulary.h"

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
    TEXT(
        "{\"added_tokens\":[{\"id\":0,\"content\":\"[UNK]\",\"special\":true},{\"id\":7,\"content\":\"<|endoftext|>\","
        "\"lstrip\":true,\"rstrip\":true}],\"normalizer\":{\"type\":\"BertNormalizer\",\"lowercase\":true},\"pre_tokenizer\":"
        "{\"type\":\"BertPreTokenizer\"},\"decoder\":{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true},\"model\":"
        "{\"type\":\"WordPiece\",\"vocab\":{\"[UNK]\":0,\"a\":1,\"##b\":2,\"b\":3,\"##1\":4,\"e\":5}}}"),
    TEXT(
        "{\"added_tokens\":[{\"id\":6,\"content\":\"b11\",\"normalized\":true,\"single_word\":true}],\"normalizer\":"
        "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFKC\"},{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},"
        "\"content\":\" \"},{\"type\":\"Strip\"},{\"type\":\"Lowercase\"}]},\"pre_tokenizer\":{\"type\":\"Metaspace\","
        "\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"first\",\"split\":false},\"decoder\":{\"type\":\"Metaspace\"},"
        "\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"\xe2\x96\x81\",-2],[\"a\",-1.5],"
        "[\"\xe2\x96\x81"
        "a\",-1],[\"b\",-3],[\"11\",-2.25]]}}"),
    TEXT(
        "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\xe2\x96\x81\"},"
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xe2\x96\x81\"}]},\"decoder\":{\"type\":\"Sequence\","
        "\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xe2\x96\x81\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},"
        "{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]},\"model\":{\"type\":\"BPE\","
        "\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true,\"vocab\":{\"<unk>\":0,\"\xe2\x96\x81\":1,\"a\":2,"
        "\"\xe2\x96\x81"
        "a\":3,\"b\":4},\"merges\":[[\"\xe2\x96\x81\",\"a\"]]}}"),
    TEXT(
        "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[ab]\"},"
        "\"behavior\":\"MergedWithNext\",\"invert\":true},{\"type\":\"Digits\",\"individual_digits\":true},"
        "{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"},{\"type\":\"WhitespaceSplit\"}]},\"model\":{\"type\":\"BPE\","
        "\"unk_token\":\"?\",\"end_of_word_suffix\":\"$\",\"vocab\":{\"?\":0,\"a\":1,\"a$\":2,\"1\":3},\"merges\":[]}}"),
};
const size_t fuzz_seed_count = sizeof fuzz_seeds / sizeof *fuzz_seeds;

static const char text[] = "a ab  b1111 <|endoftext|> \xc3\xa9\xff\xe2\x82 aab\n\n";

/* Encodes whole and in pieces of three bytes; the ids must agree, and decode to the text if nothing but words
 * and merges is at work. */
static void use(tokenizer *t, int plain)
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
        if (tokenizer_decode(t, whole.data, whole.count, &back))
            abort();
        if (plain && (back.size != size || memcmp(back.data, text, size)))
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
        vocabulary v = { 0 };
        const int plain = !vocabulary_parse_json(&v, (const char *)data, size, "input") && !v.chained
                          && !vocabulary_needs_chain(&v);
        vocabulary_release(&v);
        use(t, plain);
        tokenizer_close(t);
    }
    return 0;
}
