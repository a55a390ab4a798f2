/* SPDX-License-Identifier: MIT */
/* host/tokenizer/tokenizer_char.c - an id is one of the characters seen in training, in order
 * of their code points, as nanoGPT's shakespeare_char numbers them.
 *
 * There is no unknown token: a character that was not in the training text, or a byte
 * that is no character, is an error that names it, because training on silently dropped
 * text teaches the wrong thing. A table over all of Unicode (4.4 MB) makes an id one load. */
#include "host/base/file.h"
#include "host/tokenizer/tokenizer_kind.h"
#include "host/tokenizer/utf8.h"

#include <stdlib.h>

#define CODES 0x110000u
#define PROGRESS_EVERY ((size_t)16 << 20)

static gt_status no_memory(void)
{
    return gt_fail(GT_NO_MEMORY, "no memory for a table of characters");
}

/* Marks the characters of one file. */
static gt_status collect(unsigned char *seen, const gt_map *file, uint64_t before, uint64_t total,
                         data_progress progress, void *context)
{
    size_t told = 0;
    for (size_t at = 0; at < file->size;) {
        uint32_t code;
        int n = utf8_next(file->data + at, file->size - at, &code);
        if (n <= 0)
            return gt_fail(GT_FORMAT, "'%s' is not UTF-8 at byte %zu: use byte or bpe:SIZE", file->path, at);
        if (!code)
            return gt_fail(GT_UNSUPPORTED,
                           "'%s' holds U+0000 at byte %zu, which tokenizer.json "
                           "cannot name: use byte or bpe:SIZE",
                           file->path, at);
        seen[code] = 1;
        at += (size_t)n;
        if (progress && at - told >= PROGRESS_EVERY) {
            told = at;
            if (progress(context, before + at, total))
                return gt_fail(GT_INTERRUPTED, "interrupted");
        }
    }
    return GT_OK;
}

gt_status tokenizer_char_train(vocabulary *out, const char *const *files, size_t count, data_progress progress,
                               void *context)
{
    unsigned char *seen = calloc(CODES, 1);
    gt_map *maps = calloc(count ? count : 1, sizeof *maps);
    uint64_t total = 0, done = 0;
    gt_status st = seen && maps ? GT_OK : no_memory();
    for (size_t i = 0; i < count && !st; i++) {
        st = gt_map_open(&maps[i], files[i]);
        total += maps[i].size;
    }
    if (!st && !total)
        st = gt_fail(GT_FORMAT, "'%s' is empty", count ? files[0] : "");
    for (size_t i = 0; i < count && !st; i++) {
        st = collect(seen, &maps[i], done, total, progress, context);
        done += maps[i].size;
    }
    uint32_t id = 0;
    for (uint32_t code = 0; code < CODES && !st; code++)
        if (seen[code]) {
            char bytes[4];
            int n = utf8_put(bytes, code);
            st = vocabulary_add(out, id++, bytes, (size_t)n);
        }
    for (size_t i = 0; maps && i < count; i++)
        gt_map_close(&maps[i]);
    free(maps);
    free(seen);
    return st;
}

/* state: id + 1 of every code point, 0 for unknown ones */
static gt_status prepare(tokenizer *t)
{
    uint32_t *table = calloc(CODES, sizeof *table);
    if (!table)
        return no_memory();
    t->state = table;
    for (uint32_t id = 0; id < t->vocab.count; id++) {
        uint32_t code, size = t->vocab.pieces[id].size;
        if (!size)
            continue;
        const unsigned char *bytes = (const unsigned char *)vocabulary_bytes(&t->vocab, id);
        if (utf8_next(bytes, size, &code) != (int)size)
            return gt_fail(GT_UNSUPPORTED,
                           "token %u, '%.*s', is not one character, and the file "
                           "has no byte-level merges",
                           id, size > 60 ? 60 : (int)size, (const char *)bytes);
        table[code] = id + 1;
    }
    return GT_OK;
}

static gt_status encode(tokenizer *t, const unsigned char *text, size_t size, int last, size_t *used, token_ids *ids)
{
    const uint32_t *table = t->state;
    for (*used = 0; *used < size;) {
        uint32_t code;
        int n = utf8_next(text + *used, size - *used, &code);
        if (n == UTF8_CUT && !last)
            return GT_OK;
        if (n <= 0)
            return gt_fail(GT_MISMATCH,
                           "byte 0x%02x is not UTF-8, and the char tokenizer knows "
                           "only characters",
                           text[*used]);
        if (!table[code])
            return gt_fail(GT_MISMATCH,
                           "character '%.*s' (U+%04X) is not among the %u of the "
                           "tokenizer",
                           n, (const char *)text + *used, code, t->vocab.count);
        uint32_t id = table[code] - 1;
        gt_status st = token_ids_add(ids, &id, 1);
        if (st)
            return st;
        *used += (size_t)n;
    }
    return GT_OK;
}

const tokenizer_kind tokenizer_char = { .name = "char", .prepare = prepare, .encode = encode, .release = free };
