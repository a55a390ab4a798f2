/* SPDX-License-Identifier: MIT */
/* tests/fuzz/fuzz_beside.c - the files beside a tokenizer: the input is added_tokens.json, a zero byte,
 * special_tokens_map.json, a zero byte, and tokenizer_config.json. Whatever is read, an id has one text
 * and a text one id. */
#include "tests/fuzz/fuzz.h"

#include "host/tokenizer/vocabulary.h"

#include <stdlib.h>
#include <string.h>

#define TEXT(t) { t, sizeof(t) - 1 }

const fuzz_seed fuzz_seeds[] = {
    TEXT("{\"[PAD]\":4,\"<x>\":6}\0{\"eos_token\":\"<x>\",\"pad_token\":{\"content\":\"[PAD]\"}}\0"
         "{\"add_prefix_space\":false,\"added_tokens_decoder\":{\"4\":{\"content\":\"[PAD]\","
         "\"lstrip\":false,\"special\":true}},\"tokenizer_class\":\"GPT2Tokenizer\"}"),
    TEXT("{}\0{\"additional_special_tokens\":[\"a\",{\"content\":\"b\"}]}\0{\"extra_special_tokens\":"
         "{\"image\":\"a\"},\"model_max_length\":1000000000000000019884624838656}"),
};
const size_t fuzz_seed_count = sizeof fuzz_seeds / sizeof *fuzz_seeds;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    vocabulary_text files[BESIDE_FILES] = { { 0 } };
    const char *at = (const char *)data, *const end = at + size;
    vocabulary v = { 0 };
    setenv("GT_LOG", "error", 1);           /* each name without an id is a warning */
    for (int i = 0; i < BESIDE_FILES && at && at < end; i++) {
        const char *zero = memchr(at, 0, (size_t)(end - at));
        files[i] = (vocabulary_text){ at, "file", (size_t)((zero ? zero : end) - at) };
        at = zero ? zero + 1 : NULL;
    }
    if (vocabulary_add(&v, 0, "a", 1) || vocabulary_add(&v, 1, "b", 1))
        abort();
    if (!vocabulary_add_beside(&v, files) && !vocabulary_name_beside(&v, files)) {
        for (uint32_t id = 0; id < v.count; id++)
            if (v.pieces[id].size && vocabulary_find(&v, vocabulary_bytes(&v, id), v.pieces[id].size) != (int64_t)id)
                abort();
        if (v.end && (v.end > v.count || !v.pieces[v.end - 1].size))
            abort();
        vocabulary_hash(&v);
    }
    vocabulary_release(&v);
    return 0;
}
